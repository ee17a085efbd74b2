// The webhook contract on fastify and better-sqlite3, for comparison. Durable as ours is: WAL with
// synchronous=FULL, a commit for each request, which is what a synchronous driver gives.
'use strict';

const crypto = require('node:crypto');
const Database = require('better-sqlite3');
const fastify = require('fastify');
const pino = require('pino');
const prometheus = require('prom-client');

const { DATABASE_PATH, PORT, WEBHOOK_SECRET } = process.env;

const database = new Database(DATABASE_PATH);
database.pragma('journal_mode = WAL');
database.pragma('synchronous = FULL');
database.pragma('busy_timeout = 30000');
database.exec(`
  CREATE TABLE IF NOT EXISTS messages (
    seq INTEGER PRIMARY KEY, message_id TEXT NOT NULL UNIQUE, from_msisdn TEXT NOT NULL, to_msisdn TEXT NOT NULL,
    ts TEXT NOT NULL, ts_us INTEGER NOT NULL, text TEXT, created_at REAL NOT NULL) STRICT;
  CREATE INDEX IF NOT EXISTS by_instant ON messages (ts_us, message_id);
  CREATE INDEX IF NOT EXISTS by_sender ON messages (from_msisdn, ts_us, message_id);
`);
const insert = database.prepare(`
  INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, ts_us, text, created_at)
  VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (message_id) DO NOTHING
`);

const httpRequests = new prometheus.Counter({
  name: 'http_requests_total', help: 'Requests answered.', labelNames: ['method', 'path', 'status'],
});
const webhookRequests = new prometheus.Counter({
  name: 'webhook_requests_total', help: 'Webhook deliveries by outcome.', labelNames: ['result'],
});
const latency = new prometheus.Histogram({
  name: 'request_latency_ms', help: 'Time to answer, ms.', buckets: [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000],
});

const TIMESTAMP = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z$/;
const msisdn = { type: 'string', pattern: '^\\+[0-9]{1,32}$' };
const messageSchema = {
  type: 'object',
  required: ['message_id', 'from', 'to', 'ts'],
  properties: {
    message_id: { type: 'string', minLength: 1, maxLength: 256 },
    from: msisdn,
    to: msisdn,
    ts: { type: 'string', pattern: TIMESTAMP.source },
    text: { type: ['string', 'null'], maxLength: 4096 },
  },
};

// Microseconds since 1970, or NaN for a date or time that does not exist.
function instantUs(ts) {
  const [, whole, fraction = ''] = TIMESTAMP.exec(ts);
  const ms = Date.parse(`${whole}Z`);
  if (Number.isNaN(ms) || new Date(ms).toISOString().slice(0, 19) !== whole) return NaN;
  return ms * 1000 + Number(fraction.slice(0, 6).padEnd(6, '0'));
}

function signed(request) {
  const expected = crypto.createHmac('sha256', WEBHOOK_SECRET).update(request.rawBody).digest();
  const given = Buffer.from(String(request.headers['x-signature'] ?? ''), 'hex');
  return given.length === expected.length && crypto.timingSafeEqual(given, expected);
}

// Pino's fast way: lines are gathered and written in bulk, once a second at the latest.
const output = pino.destination({ fd: 1, minLength: 4096, sync: false });
setInterval(() => output.flush(), 1000).unref();

const app = fastify({
  loggerInstance: pino(
    { base: null, messageKey: 'event', timestamp: () => `,"ts":"${new Date().toISOString()}"` },
    output,
  ),
  disableRequestLogging: true,
  ajv: { customOptions: { coerceTypes: false, allErrors: false } },
});

// The signature is over the bytes as received, and comes before any parsing.
app.removeAllContentTypeParsers();
app.addContentTypeParser('*', { parseAs: 'buffer' }, (request, body, done) => {
  request.rawBody = body;
  if (!signed(request)) {
    request.result = 'invalid_signature';
    done(Object.assign(new Error('invalid signature'), { statusCode: 401 }));
    return;
  }
  try {
    done(null, JSON.parse(body.toString('utf8')));
  } catch (error) {
    done(Object.assign(error, { statusCode: 422, validation: [{ instancePath: '', message: 'not JSON', keyword: 'json' }] }));
  }
});

app.setErrorHandler((error, request, reply) => {
  if (error.validation) {
    request.result = 'validation_error';
    const detail = error.validation.map((fault) => ({
      loc: ['body', ...fault.instancePath.split('/').slice(1)], msg: fault.message, type: fault.keyword,
    }));
    return reply.code(422).send({ detail });
  }
  const status = error.statusCode ?? 500;
  return reply.code(status).send({ detail: status < 500 ? error.message : 'internal error' });
});

app.addHook('onResponse', (request, reply, done) => {
  const path = request.routeOptions.url ?? 'unmatched';
  httpRequests.inc({ method: request.method, path, status: reply.statusCode });
  latency.observe(reply.elapsedTime);
  const line = {
    request_id: request.id, method: request.method, path, status: reply.statusCode,
    latency_ms: Math.round(reply.elapsedTime * 1000) / 1000,
  };
  if (path === '/webhook') {
    webhookRequests.inc({ result: request.result });
    Object.assign(line, { message_id: request.body?.message_id, dup: request.result === 'duplicate', result: request.result });
  }
  request.log.info(line);
  done();
});

app.post('/webhook', { schema: { body: messageSchema } }, (request, reply) => {
  const { message_id: id, from, to, ts, text = null } = request.body;
  const ts_us = instantUs(ts);
  if (Number.isNaN(ts_us)) {
    request.result = 'validation_error';
    return reply.code(422).send({ detail: [{ loc: ['body', 'ts'], msg: 'no such date or time', type: 'value_error' }] });
  }
  const { changes } = insert.run(id, from, to, ts, ts_us, text, Date.now() / 1000);
  request.result = changes ? 'created' : 'duplicate';
  return reply.send({ status: 'ok' });
});

app.get('/health/live', () => ({ status: 'ok' }));

app.get('/metrics', async (request, reply) => {
  reply.type(prometheus.register.contentType);
  return prometheus.register.metrics();
});

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, async () => {
    await app.close();
    database.close();
    output.flushSync();
    process.exit(0);
  });
}

app.listen({ host: '127.0.0.1', port: Number(PORT) });
