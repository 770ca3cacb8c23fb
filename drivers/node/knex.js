// knex: a query builder on pg, with its pool.
import knex from 'knex';
import { bySql, check, main, numbers, undoing, version } from './common.js';

const query = async (db, text, parameters = []) => (await db.raw(text.replace(/\$\d/g, '?'), parameters)).rows;
const transact = undoing((db, run) => db.transaction(run));

const scenarios = {
  ...bySql(query, transact),
  async migrate() {
    const db = connect();
    const step = (name, up, down) => ({ name, up, down });
    const steps = [
      step('one', (k) => k.schema.createTable('made', (t) => t.increments('id') && t.string('name')), (k) => k.schema.dropTable('made')),
      step('two', (k) => k('made').insert(numbers(100).map((n) => ({ name: `n${n}` }))), (k) => k('made').del()),
    ];
    const migrationSource = { getMigrations: async () => steps, getMigrationName: (s) => s.name, getMigration: async (s) => s };
    await db.migrate.latest({ migrationSource });
    check((await db('made').count())[0].count, '100');
    await db.migrate.rollback({ migrationSource }, true);
    await db.destroy();
  },
};

// A pool of one is a session.
const connect = () => knex({ client: 'pg', connection: {}, pool: { min: 1, max: 1 } });
await main(`knex ${version('knex')}`, scenarios, connect, (db) => db.destroy());
