// node-postgres (pg): simple queries without parameters, unnamed statements with them, named ones when named.
import { pipeline as stream } from 'node:stream/promises';
import { Readable } from 'node:stream';
import pg from 'pg';
import copyStreams from 'pg-copy-streams';
import Cursor from 'pg-cursor';
import QueryStream from 'pg-query-stream';
import { SESSIONS, bySql, check, main, numbers, raises, sleep, version } from './common.js';

const query = async (client, text, parameters) => (await client.query(text, parameters)).rows;
const transact = async (client, keep, body) => {
  await client.query('BEGIN');
  try {
    await body(client);
  } catch (e) {
    await client.query('ROLLBACK');
    throw e;
  }
  await client.query(keep ? 'COMMIT' : 'ROLLBACK');
};

const scenarios = {
  ...bySql(query, transact),
  async prepared(session, client) {
    for (const _ of numbers(8)) {
      for (const n of numbers(20)) {
        // The same name for the same text in every session, and the same name for different texts.
        const { rows } = await client.query({ name: `shared${n}`, text: `SELECT $1::int + ${n} AS a`, values: [session] });
        check(rows[0].a, session + n);
        const own = 1000 * (session + 1) + n;
        const mine = await client.query({ name: `own${n}`, text: `SELECT $1::int * ${own} AS b`, values: [2] });
        check(mine.rows[0].b, 2 * own);
      }
    }
    await raises('42601', client.query({ name: 'wrong', text: 'SELEC $1::int', values: [1] }));
    await raises('22012', client.query({ name: 'zero', text: 'SELECT 1 / $1::int AS z', values: [0] }));
    check((await client.query({ name: 'zero', text: 'SELECT 1 / $1::int AS z', values: [1] })).rows[0].z, 1);
  },
  async pipeline(session, client) {
    // Sent one after another as the driver sees fit; an error is of its own query.
    const all = numbers(30).map((n) => client.query('SELECT 1 / $1::int AS a, $2::int AS me', [n % 10, session]));
    const results = await Promise.allSettled(all);
    check(results.map((r) => r.status === 'fulfilled'), numbers(30).map((n) => n % 10 !== 0));
    check(results.filter((r) => r.value).every((r) => r.value.rows[0].me === session), true);
    // Several statements in one message.
    const several = await client.query(`SELECT ${session} AS a; SELECT 7 AS b`);
    check(several.map((r) => Object.values(r.rows[0])[0]), [session, 7]);
  },
  async cancel(session, client) {
    // The driver's cancel is a connection of another client.
    for (const _ of numbers(2)) {
      const sleeping = client.query(new pg.Query('SELECT pg_sleep(50)'));
      const ended = new Promise((_, bad) => sleeping.on('error', bad));
      setTimeout(() => {
        const other = new pg.Client();
        other.connection.once('connect', () => other.connection.cancel(client.processID, client.secretKey));
        other.connection.on('error', () => {});
        other.connection.connect(client.port, client.host);
      }, 300);
      await raises('57014', ended);
      check(await query(client, 'SELECT $1::int AS me', [session]), [{ me: session }]);
    }
  },
  async copy(session, client) {
    const text = numbers(500).map((n) => `${session}\t${n}\ts${session}-${n}\n`).join('');
    await stream(Readable.from([text]), client.query(copyStreams.from('COPY items (session, n, value) FROM STDIN')));
    const out = client.query(copyStreams.to(`COPY (SELECT session, n, value FROM items WHERE session = ${session} ORDER BY n) TO STDOUT`));
    let got = '';
    for await (const chunk of out) got += chunk;
    check(got, text);
    const bad = stream(Readable.from(['not a number\n']), client.query(copyStreams.from('COPY items (session, n, value) FROM STDIN')));
    await raises('22P02', bad);
    check(await query(client, 'SELECT count(*)::int FROM items WHERE session = $1', [session]), [{ count: 500 }]);
  },
  async cursor(session, client) {
    const text = 'SELECT $1::int * 1000 + n AS n FROM generate_series(1, 350) AS n';
    for (const _ of numbers(3)) {
      await client.query('BEGIN');
      const cursor = client.query(new Cursor(text, [session]));
      const got = [];
      for (let part; (part = await cursor.read(100)).length > 0; ) got.push(...part.map((r) => r.n));
      await cursor.close();
      await client.query('COMMIT');
      check(got, numbers(350, session * 1000 + 1));
      // In no transaction: Flush keeps the portal open, and only Sync ends it.
      const rows = [];
      for await (const row of client.query(new QueryStream(text, [session]))) rows.push(row.n);
      check(rows, numbers(350, session * 1000 + 1));
    }
  },
  async notify(session, client) {
    const got = [];
    client.on('notification', (m) => got.push([m.channel, m.payload]));
    await client.query(`LISTEN c${session}`);
    for (const n of numbers(3)) {
      await client.query('SELECT pg_notify($1, $2)', [`c${session}`, `${n}`]);
      for (const _ of numbers(500)) if (got.length <= n) await sleep(20);
      check(got[n], [`c${session}`, `${n}`], 'notified');
    }
    await client.query('UNLISTEN *');
  },
  async pool() {
    const pool = new pg.Pool({ max: SESSIONS });
    await Promise.all(
      numbers(SESSIONS * 4).map(async (n) => {
        check((await pool.query('SELECT $1::int AS me', [n])).rows, [{ me: n }]);
        const client = await pool.connect();
        await client.query('BEGIN');
        await client.query('CREATE TEMPORARY TABLE mine (n int) ON COMMIT DROP');
        await client.query('COMMIT');
        client.release();
      }),
    );
    await pool.end();
  },
};

const connect = async () => {
  const client = new pg.Client();
  await client.connect();
  return client;
};
await main(`pg ${version('pg')}`, scenarios, connect, (client) => client.end());
