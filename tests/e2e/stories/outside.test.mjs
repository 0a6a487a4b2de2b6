// LiveKit's Python and Node packages (libwebrtc under a Rust core) in a call with a browser, both directions.

import assert from 'node:assert/strict';
import { story } from '../harness/story.mjs';

const LONG = 'to and fro '.repeat(2000);

/** What seals the media on each of its connections: AES-CM with HMAC-SHA1 would cost the server five times as much. */
async function assertGcm(other) {
  const ciphers = await other.command('ciphers');
  assert.ok(ciphers.length > 0);
  for (const cipher of ciphers) assert.match(cipher, /GCM/);
}

async function call(world, kind) {
  const alice = await world.join('alice');
  await Promise.all([alice.publishPicture({ colour: 'red' }), alice.publishTone({ hz: 440 })]);
  const other = await world.outside(kind, kind, { form: world.form, colour: 'green', hz: 700 });

  await Promise.all([
    alice.sees(kind, 'green'),
    alice.hears(kind, 700),
    other.expect('picture', { who: 'alice', colour: 'red', moving: true }),
    other.expect('tone', { who: 'alice', hz: 440 }),
  ]);
  await assertGcm(other);

  await alice.sendData('ping', { reliable: true, topic: 'table' });
  await other.expect('data', { who: 'alice', text: 'ping', topic: 'table', reliable: true });
  await other.command('data', { text: 'pong', reliable: false, topic: 'table' });
  await alice.expect('dataReceived', { identity: kind, text: 'pong', topic: 'table', reliable: false });
  await alice.sendText(LONG);
  assert.equal((await other.expect('text', { who: 'alice' })).text, LONG);
  await other.command('text', { text: LONG });
  assert.equal((await alice.received({ type: 'text', from: kind })).text, LONG);
  assert.equal(await alice.call(kind, 'reverse', 'stressed'), 'desserts');
  assert.equal(await other.command('call', { to: 'alice', method: 'reverse', payload: 'drawer' }), 'reward');

  await alice.mute('camera');
  await other.expect('muted', { who: 'alice' });
  const after = other.mark();
  await alice.unmute('camera');
  await other.expect('unmuted', { who: 'alice' });
  await other.expect('picture', { who: 'alice', colour: 'red', moving: true }, { after });

  await other.leave();
  await alice.expect('participantDisconnected', { identity: kind });
}

story('the Python package', {}, (world) => call(world, 'python'));
story('the Node package', { forms: ['single'] }, (world) => call(world, 'node'));

story('Python and Node without a browser', { forms: ['single'] }, async (world) => {
  const python = await world.outside('python', 'python', { colour: 'yellow', hz: 500 });
  const node = await world.outside('node', 'node', { colour: 'blue', hz: 900 });
  await Promise.all([
    python.expect('picture', { who: 'node', colour: 'blue', moving: true }),
    python.expect('tone', { who: 'node', hz: 900 }),
    node.expect('picture', { who: 'python', colour: 'yellow', moving: true }),
    node.expect('tone', { who: 'python', hz: 500 }),
  ]);
  await Promise.all([assertGcm(python), assertGcm(node)]);
});
