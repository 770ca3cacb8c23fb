// node-postgres: what scripts/auth-drivers.sh asks, a login a line of standard input, as libpq's keywords.
import { readFileSync } from 'node:fs';
import pg from 'pg';
import { version } from './common.js';

class NotThere extends Error {}

// What libpq's sslmode means to node's TLS.
function tls(mode, c) {
  if (mode === 'disable') return false;
  // It asks for TLS or does not: there is no way back to a connection without.
  if (mode === 'prefer') throw new NotThere();
  const options = mode === 'require' ? { rejectUnauthorized: false } : { ca: readFileSync(c.sslrootcert) };
  if (mode === 'verify-ca') options.checkServerIdentity = () => undefined;
  if (c.sslcert) Object.assign(options, { cert: readFileSync(c.sslcert), key: readFileSync(c.sslkey) });
  return options;
}

async function logIn(c) {
  // Whether it knows direct TLS, its newer versions say by a property.
  const direct = c.sslnegotiation === 'direct';
  const config = {
    host: c.host, port: Number(c.port), user: c.user, password: c.password, database: c.dbname,
    ssl: tls(c.sslmode, c), connectionTimeoutMillis: 20000,
    enableChannelBinding: c.channel_binding === 'require',
    ...(direct ? { sslnegotiation: 'direct', sslNegotiation: 'direct' } : {}),
  };
  const client = new pg.Client(config);
  if (direct && !('sslNegotiation' in client.connection) && !('sslnegotiation' in client.connection)) throw new NotThere();
  // It binds where it can, and cannot be told to do no less: what it chose is looked at.
  let mechanism;
  const send = client.connection.sendSASLInitialResponseMessage;
  client.connection.sendSASLInitialResponseMessage = function (chosen, ...rest) {
    mechanism = chosen;
    return send.call(this, chosen, ...rest);
  };
  client.on('error', () => {});
  await client.connect();
  try {
    if (c.channel_binding === 'require' && mechanism !== 'SCRAM-SHA-256-PLUS') throw new NotThere();
    return (await client.query('SELECT current_user AS name')).rows[0].name;
  } finally {
    await client.end();
  }
}

if (process.argv[2] === '--version') {
  console.log(`node-postgres ${version('pg')}`);
} else {
  for (const line of readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
    const c = Object.fromEntries(line.split(' ').map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]));
    let [got, text] = ['ok', ''];
    try {
      text = await logIn(c);
    } catch (e) {
      [got, text] = [e instanceof NotThere ? 'none' : 'refused', String(e?.message ?? e)];
    }
    if (got === 'none') console.log(`none ${c.name}`);
    else if (got !== c.expect) console.log(`FAILED ${c.name} is ${got}: ${text.replace(/\s+/g, ' ').slice(0, 300)}`);
    else if (got === 'ok' && text !== c.user) console.log(`FAILED ${c.name} logged in as ${text}`);
    else console.log(`ok ${c.name}`);
  }
}
