// postgres.js: every text is a named prepared statement, queries are pipelined, types are fetched at the first query.
import { pipeline as stream } from 'node:stream/promises';
import { Readable } from 'node:stream';
import postgres from 'postgres';
import { SESSIONS, bySql, check, main, numbers, raises, undoing, version } from './common.js';

const query = async (sql, text, parameters = []) => [...(await sql.unsafe(text, parameters, { prepare: parameters.length > 0 }))];
const transact = undoing((sql, run) => sql.begin(run));

const scenarios = {
  ...bySql(query, transact),
  async pipeline(session, sql) {
    const results = await Promise.allSettled(numbers(30).map((n) => sql`SELECT 1 / ${n % 10}::int AS a, ${session}::int AS me`));
    check(results.map((r) => r.status === 'fulfilled'), numbers(30).map((n) => n % 10 !== 0));
    check(results.filter((r) => r.value).every((r) => r.value[0].me === session), true);
    const failing = sql.begin((t) => [t`SELECT 1`, t`SELECT 1 / ${0}::int`, t`SELECT 2`]);
    await raises('22012', failing);
    const both = await sql.begin((t) => [t`SELECT ${session}::int AS a`, t`SELECT 7 AS a`]);
    check(both.map((r) => r[0].a), [session, 7]);
  },
  async cancel(session, sql) {
    for (const _ of numbers(2)) {
      const sleeping = sql`SELECT pg_sleep(50)`;
      setTimeout(() => sleeping.cancel(), 300);
      await raises('57014', sleeping);
      check([...(await sql`SELECT ${session}::int AS me`)], [{ me: session }]);
    }
  },
  async copy(session, sql) {
    const text = numbers(500).map((n) => `${session}\t${n}\ts${session}-${n}\n`).join('');
    await stream(Readable.from([text]), await sql`COPY items (session, n, value) FROM STDIN`.writable());
    let got = '';
    const out = await sql.unsafe(`COPY (SELECT session, n, value FROM items WHERE session = ${session} ORDER BY n) TO STDOUT`).readable();
    for await (const chunk of out) got += chunk;
    check(got, text);
    check([...(await sql`SELECT count(*)::int FROM items WHERE session = ${session}`)], [{ count: 500 }]);
  },
  async cursor(session, sql) {
    for (const _ of numbers(3)) {
      const got = [];
      for await (const rows of sql`SELECT ${session}::int * 1000 + n AS n FROM generate_series(1, 350) AS n`.cursor(100)) {
        got.push(...rows.map((r) => r.n));
      }
      check(got, numbers(350, session * 1000 + 1));
    }
    // Left in the middle.
    await sql`SELECT n FROM generate_series(1, 350) AS n`.cursor(100, () => sql.CLOSE);
    check([...(await sql`SELECT ${session}::int AS me`)], [{ me: session }]);
  },
  async notify(session, sql) {
    const got = [];
    let wake = () => {};
    const { unlisten } = await sql.listen(`c${session}`, (payload) => {
      got.push(payload);
      wake();
    });
    for (const n of numbers(3)) {
      const arrived = new Promise((done) => (wake = done));
      await sql.notify(`c${session}`, `${n}`);
      await arrived;
      check(got[n], `${n}`, 'notified');
    }
    await unlisten();
  },
  async pool() {
    const sql = postgres({ max: SESSIONS, onnotice: () => {} });
    await Promise.all(
      numbers(SESSIONS * 4).map(async (n) => {
        check([...(await sql`SELECT ${n}::int AS me`)], [{ me: n }]);
        await sql.begin((t) => t`CREATE TEMPORARY TABLE mine (n int) ON COMMIT DROP`);
        const reserved = await sql.reserve();
        check([...(await reserved`SELECT ${n}::int AS me`)], [{ me: n }]);
        reserved.release();
      }),
    );
    await sql.end();
  },
};

// A pool of one is a session.
const connect = async () => {
  const sql = postgres({ max: 1, onnotice: () => {} });
  await sql`SELECT 1`;
  return sql;
};
await main(`postgres ${version('postgres')}`, scenarios, connect, (sql) => sql.end());
