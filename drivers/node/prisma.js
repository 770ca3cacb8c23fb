// Prisma 7 on its adapter for pg: no engine beside the process.
import { PrismaPg } from '@prisma/adapter-pg';
import prisma from '@prisma/client';
import { bySql, check, main, numbers, raises, undoing, version } from './common.js';

const query = (db, text, parameters = []) =>
  /^(SELECT|SHOW|FETCH)|RETURNING/.test(text) ? db.$queryRawUnsafe(text, ...parameters) : db.$executeRawUnsafe(text, ...parameters);
// Its own deadlines (2 s to begin, 5 s to end) are for one that has a server at once.
const transact = undoing((db, run) => db.$transaction(run, { maxWait: 50000, timeout: 50000 }));

const scenarios = {
  ...bySql(query, transact),
  async transactions(session, db) {
    for (const n of numbers(10)) {
      await transact(db, n % 4 !== 3, async (t) => {
        await t.items.create({ data: { session, n, value: `s${session}` } });
        await t.items.createMany({ data: numbers(5).map(() => ({ session, n, value: `s${session}` })) });
        const mine = await t.items.findMany({ where: { session, n } });
        check(mine.map((i) => i.value), numbers(6).map(() => `s${session}`));
      });
    }
    check(await db.items.count({ where: { session } }), 48);
    const [updated, left] = await db.$transaction([
      db.items.updateMany({ where: { session }, data: { value: 'x' } }),
      db.items.count({ where: { session, value: 'x' } }),
    ]);
    check([updated.count, left], [48, 48]);
    check((await db.items.deleteMany({ where: { session } })).count, 48);
    await raises('P2025', db.items.delete({ where: { id: -1 } }));
  },
};

// A pool of one is a session.
const connect = async () => {
  const db = new prisma.PrismaClient({ adapter: new PrismaPg({ max: 1 }) });
  await db.$queryRaw`SELECT 1`;
  return db;
};
await main(`prisma ${version('@prisma/client')}`, scenarios, connect, (db) => db.$disconnect());
