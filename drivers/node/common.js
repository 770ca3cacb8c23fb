// What the programs share: 50 sessions at once, one line a scenario.
import { readFileSync } from 'node:fs';

export const SESSIONS = Number(process.env.SESSIONS ?? 50);
// Keys of advisory locks that no other run uses.
export const RUN = process.pid;
export const ZONES = ['UTC', 'Asia/Tokyo', 'America/New_York', 'Europe/Paris', 'Australia/Sydney'];

// Not every package lets its package.json be imported.
export const version = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`)).version;

export function check(got, wanted, what = '') {
  const [a, b] = [JSON.stringify(got), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${what} is ${a}, not ${b}`.trim());
}

// The error that the promise must fail with.
export async function raises(code, promise) {
  let error;
  try {
    await promise;
  } catch (e) {
    error = e;
  }
  if (!error) throw new Error(`no error ${code}`);
  if (code && error.code !== code) throw error;
  return error;
}

class Undo extends Error {}

// A driver's own transactions, which end as the function that is given them does: `begin(connection, run)` runs `run` with
// what stands for the transaction, and rolls back if it throws.
export const undoing = (begin) => async (connection, keep, body) => {
  try {
    await begin(connection, async (t) => {
      await body(t);
      if (!keep) throw new Undo();
    });
  } catch (e) {
    if (!(e instanceof Undo)) throw e;
  }
};

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
export const numbers = (count, from = 0) => Array.from({ length: count }, (_, n) => n + from);

// Scenarios by name: body(session, connection), or of no arguments, called once.
export async function main(title, scenarios, connect, close) {
  if (process.argv[2] === '--version') {
    console.log(title);
    return;
  }
  for (const name of process.argv.slice(2)) {
    const body = scenarios[name];
    if (!body) continue;
    let results;
    if (body.length === 0) {
      results = await Promise.allSettled([body()]);
    } else {
      const connected = await Promise.allSettled(numbers(SESSIONS).map(() => connect()));
      results = connected.some((c) => c.reason)
        ? connected
        : await Promise.allSettled(
            connected.map(async ({ value }, session) => {
              await body(session, value);
              await close(value);
            }),
          );
    }
    const bad = results.filter((r) => r.status === 'rejected').map((r) => r.reason);
    if (bad.length === 0) {
      console.log(`ok ${name}`);
    } else {
      const at = /\/([a-z]+\.js:\d+)/.exec((bad[0].stack ?? '').split('\n').find((l) => /node\/(?!common)[a-z]+\.js/.test(l)) ?? '');
      const text = String(bad[0]?.message ?? bad[0]).replace(/\s+/g, ' ').slice(0, 300);
      console.log(`FAILED ${name} ${bad.length} of ${SESSIONS} sessions: ${bad[0].code ?? ''} ${text}${at ? ` [${at[1]}]` : ''}`);
      for (const e of bad) console.error(e);
    }
  }
  // What is left over of a failure holds nobody up.
  process.exit(0);
}

// The scenarios that are SQL, for any driver: `query(connection, text, parameters)` gives rows as objects, and `transact`
// runs statements in a transaction that is rolled back if the function says so.
export function bySql(query, transact) {
  const one = async (c, text, parameters) => Object.values((await query(c, text, parameters))[0])[0];
  return {
    async transactions(session, c) {
      let kept = 0;
      for (const n of numbers(20)) {
        const keep = n % 4 !== 3;
        await transact(c, keep, async (t) => {
          await query(t, 'INSERT INTO items (session, n, value) VALUES ($1::int, $2::int, $3)', [session, n, `s${session}-${n}`]);
          const value = await one(t, 'SELECT value FROM items WHERE session = $1::int AND n = $2::int', [session, n]);
          check(value, `s${session}-${n}`);
          const backend = await one(t, 'SELECT pg_backend_pid()');
          check(await one(t, 'SELECT count(*)::int FROM items WHERE session = $1::int', [session]), kept + 1);
          check(await one(t, 'SELECT pg_backend_pid()'), backend, 'the server in the middle of a transaction');
        });
        kept += keep ? 1 : 0;
      }
      const gone = await query(c, 'DELETE FROM items WHERE session = $1::int RETURNING value', [session]);
      check(gone.length, kept);
    },
    async prepared(session, c) {
      for (const _ of numbers(8)) {
        for (const n of numbers(20)) {
          const [row] = await query(c, `SELECT $1::int + ${n} AS a, $2::text AS b`, [session, `s${session}`]);
          check([row.a, row.b], [session + n, `s${session}`]);
          const own = 1000 * (session + 1) + n;
          check(await one(c, `SELECT $1::int * ${own} AS own`, [2]), 2 * own);
        }
      }
    },
    async error(session, c) {
      for (const _ of numbers(5)) {
        const failing = transact(c, true, async (t) => {
          await query(t, "INSERT INTO items (session, n, value) VALUES ($1::int, 0, 'lost')", [session]);
          await query(t, 'SELECT 1 / $1::int', [0]);
        });
        await raises(undefined, failing);
        check(await one(c, 'SELECT count(*)::int FROM items WHERE session = $1::int', [session]), 0);
        await raises(undefined, query(c, 'SELECT * FROM nonsense'));
        check(await one(c, 'SELECT $1::int AS me', [session]), session);
      }
    },
    async advisory(session, c) {
      await query(c, 'SELECT 1 FROM pg_advisory_lock($1::int, $2::int)', [RUN, session]);
      await sleep(20);
      check(await one(c, 'SELECT pg_advisory_unlock($1::int, $2::int)', [RUN, session]), true, 'unlock');
      await query(c, 'SELECT 1 FROM pg_advisory_lock($1::int)', [RUN]);
      const value = await one(c, 'SELECT value FROM counter');
      const done = await query(c, 'UPDATE counter SET value = $1::int WHERE value = $2::int RETURNING 1 AS done', [value + 1, value]);
      check(done.length, 1, 'rows updated under the lock');
      check(await one(c, 'SELECT pg_advisory_unlock($1::int)', [RUN]), true, 'unlock');
    },
    async temp(session, c) {
      await query(c, 'CREATE TEMPORARY TABLE mine (n int, value text)');
      for (const n of numbers(5)) await query(c, 'INSERT INTO mine VALUES ($1::int, $2)', [n, `s${session}`]);
      const [row] = await query(c, 'SELECT count(*)::int, min(value), max(value) FROM mine');
      check(Object.values(row), [5, `s${session}`, `s${session}`]);
      await query(c, 'DROP TABLE mine');
    },
    async settings(session, c) {
      const zone = ZONES[session % ZONES.length];
      await query(c, `SET search_path TO s${session}, public`);
      await query(c, `SET TIME ZONE '${zone}'`);
      await query(c, `SET application_name = 'app${session}'`);
      await query(c, "SELECT set_config('app.me', $1, false)", [`s${session}`]);
      const shown = `SELECT session, current_setting('TimeZone') AS a, current_setting('application_name') AS b,
        current_setting('app.me') AS c FROM whoami`;
      for (const _ of numbers(10)) {
        check(Object.values((await query(c, shown))[0]), [session, zone, `app${session}`, `s${session}`]);
        await transact(c, false, async (t) => {
          await query(t, "SET TIME ZONE 'Asia/Kolkata'");
          await query(t, "SET app.me = 'nobody'");
        });
      }
      check(Object.values((await query(c, shown))[0]), [session, zone, `app${session}`, `s${session}`]);
    },
    async hold(session, c) {
      await query(c, `DECLARE kept CURSOR WITH HOLD FOR SELECT ${session} * 1000 + n AS n FROM generate_series(1, 100) AS n`);
      const got = [];
      for (;;) {
        const part = await query(c, 'FETCH 30 FROM kept');
        if (part.length === 0) break;
        got.push(...part.map((row) => row.n));
      }
      check(got, numbers(100, session * 1000 + 1));
      await query(c, 'CLOSE kept');
    },
    async reset(session, c) {
      const zone = await one(c, 'SHOW TIME ZONE');
      for (const _ of numbers(3)) {
        await query(c, "SET TIME ZONE 'Asia/Kolkata'");
        await query(c, "SET statement_timeout = '77s'");
        check(await one(c, 'SHOW statement_timeout'), '77s');
        await query(c, 'RESET ALL');
        check(await one(c, 'SHOW TIME ZONE'), zone);
        check(await one(c, 'SHOW statement_timeout'), '0');
      }
    },
  };
}
