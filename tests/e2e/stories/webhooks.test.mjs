// What happens in a room, told to a backend: LiveKit's own receivers verify it, in Node and in Python.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, test } from 'node:test';
import { RoomServiceClient, WebhookReceiver } from 'livekit-server-sdk';
import { runBackend, startOutside } from '../harness/outside.mjs';
import { startServer } from '../harness/server.mjs';

const DEADLINE_MS = 20_000;

/** Keeps every POST; the first is answered as by a receiver in trouble. */
async function startReceiver() {
  const posts = [];
  const waiting = new Set();
  const http = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request.setEncoding('utf8')) body += chunk;
    posts.push({ token: request.headers.authorization, type: request.headers['content-type'], body, event: JSON.parse(body) });
    response.writeHead(posts.length === 1 ? 503 : 200).end();
    waiting.forEach((check) => check());
  });
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  /** Waits until `count` posts have been taken. */
  const taken = (count) =>
    new Promise((resolve, reject) => {
      const check = () => posts.length > count && (clearTimeout(late), waiting.delete(check), resolve(posts.slice(1)));
      const late = setTimeout(() => reject(new Error(`only ${posts.map(({ event }) => event.event)}`)), DEADLINE_MS);
      waiting.add(check);
      check();
    });
  return { url: `http://127.0.0.1:${http.address().port}/hook`, posts, taken, close: () => http.close() };
}

/** Changed in every part, or put together of two: [what, body, token]. */
function mangled({ body, token }, other) {
  const flipped = (text, at) => text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1);
  const places = (text, count) => Array.from({ length: count }, (_, at) => Math.floor((at * (text.length - 2)) / count) + 1);
  const [head, payload, signature] = token.split('.');
  const none = Buffer.from('{"alg":"none"}').toString('base64url');
  const bodies = [
    ...places(body, 10).map((at) => flipped(body, at)), '', ' ', '{}', body + body, body.slice(0, body.length / 2), `${body}\n`,
    `\ufeff${body}`, [...body].reverse().join(''), JSON.stringify(body), other.body,
  ];
  const tokens = [
    ...places(head, 3).map((at) => `${flipped(head, at)}.${payload}.${signature}`),
    ...places(payload, 5).map((at) => `${head}.${flipped(payload, at)}.${signature}`),
    ...places(signature, 5).map((at) => `${head}.${payload}.${flipped(signature, at)}`),
    `${head}.${payload}.`, `${none}.${payload}.`, `${none}.${payload}.${signature}`, `${head}.${payload}`, '', 'x', other.token,
  ];
  return [...bodies.map((one) => [`body ${one.slice(0, 40)}`, one, token]), ...tokens.map((one) => [`token ${one}`, body, one])];
}

let receiver;
let server;
after(async () => {
  await server?.stop();
  receiver?.close();
});

test('the life of a room in webhooks', { timeout: 60_000 }, async () => {
  receiver = await startReceiver();
  server = await startServer('webhooks', () => ({ webhook: { urls: [receiver.url], api_key: 'devkey' } }));
  const api = new RoomServiceClient(server.url, server.key, server.secret);
  await api.createRoom({ name: 'told', metadata: 'm' });
  const wishes = { url: server.signal, token: await server.token('told', 'node'), identity: 'node', form: 'single', colour: 'green', hz: 700 };
  const peer = await startOutside('node', wishes);
  await receiver.taken(4);
  await peer.leave();
  await receiver.taken(7);
  await api.deleteRoom('told');
  const posts = await receiver.taken(8);

  const names = posts.map(({ event }) => event.event);
  assert.deepEqual(names.slice(0, 2), ['room_started', 'participant_joined']);
  assert.deepEqual(names.slice(2, 4), ['track_published', 'track_published']);
  assert.deepEqual(names.slice(4, 7).sort(), ['participant_left', 'track_unpublished', 'track_unpublished']);
  assert.equal(names[7], 'room_finished');
  assert.equal(receiver.posts[0].event.id, posts[0].event.id, 'a repeat has the same id');
  assert.equal(new Set(posts.map(({ event }) => event.id)).size, 8);
  assert.ok(posts.every(({ type }) => type === 'application/webhook+json'));
  assert.equal(posts[0].event.room.metadata, 'm');
  assert.deepEqual(Object.keys(posts[2].event.room).sort(), ['name', 'sid']);

  const verifier = new WebhookReceiver(server.key, server.secret);
  const verified = await Promise.all(posts.map(({ body, token }) => verifier.receive(body, token)));
  assert.deepEqual(verified.map(({ event }) => event), names);
  await assert.rejects(verifier.receive(`${posts[0].body} `, posts[0].token));
  for (const [what, body, token] of mangled(posts[0], posts[1])) await assert.rejects(verifier.receive(body, token), what);
  await assert.rejects(new WebhookReceiver(server.key, 'another secret').receive(posts[0].body, posts[0].token));

  const webhooks = posts.map(({ body, token }) => ({ body, token }));
  const python = await runBackend({ key: server.key, secret: server.secret, webhooks });
  assert.deepEqual(python.events, names);
});
