// Sequelize: an ORM on pg, with its pool; it sets the time zone and what the server logs at each connection.
import { DataTypes, QueryTypes, Sequelize, Transaction } from 'sequelize';
import { bySql, check, main, numbers, undoing, version } from './common.js';

const query = async ({ db, transaction }, text, bind = []) => {
  const type = /^(SELECT|SHOW|FETCH)|RETURNING/.test(text) ? QueryTypes.SELECT : QueryTypes.RAW;
  return db.query(text, { bind: bind.length > 0 ? bind : undefined, transaction, type });
};
const transact = undoing(({ db }, run) =>
  db.transaction({ isolationLevel: Transaction.ISOLATION_LEVELS.REPEATABLE_READ }, (transaction) => run({ db, transaction })));

// What it sets itself at each connection is not what RESET goes back to.
const { reset: _, ...shared } = bySql(query, transact);
const scenarios = {
  ...shared,
  async migrate() {
    const { db } = await connect();
    const Thing = db.define('thing', { name: DataTypes.STRING, mood: DataTypes.ENUM('good', 'bad') });
    await db.sync({ force: true });
    await Thing.bulkCreate(numbers(100).map((n) => ({ name: `n${n}`, mood: 'good' })));
    await db.sync({ alter: true });
    check(await Thing.count({ where: { mood: 'good' } }), 100);
    await db.drop({});
    await db.close();
  },
};

// A pool of one is a session.
const connect = async () => {
  const env = process.env;
  const db = new Sequelize(env.PGDATABASE, env.PGUSER, env.PGPASSWORD, {
    host: env.PGHOST, port: Number(env.PGPORT), dialect: 'postgres', logging: false, pool: { min: 1, max: 1 },
  });
  await db.query('SELECT 1', { type: QueryTypes.SELECT });
  return { db };
};
await main(`sequelize ${version('sequelize')}`, scenarios, connect, ({ db }) => db.close());
