// Frames that are encrypted end to end: the server cannot read them and must not touch them.

import assert from 'node:assert/strict';
import { story } from '../harness/story.mjs';

const SECRET = 'only alice and bob know';
const CAMERA = { source: 'camera' };
/** Long enough for many key frames: a picture that has not come by then does not come. */
const NEVER_MS = 4_000;

async function two(world, picture = {}) {
  const [alice, bob] = await Promise.all(['alice', 'bob'].map((identity) => world.join(identity, { secret: SECRET })));
  await Promise.all([alice.publishPicture({ colour: 'red', ...picture }), alice.publishTone({ hz: 440 })]);
  await Promise.all([bob.sees('alice', 'red'), bob.hears('alice', 440)]);
  assert.equal((await bob.publication('alice', CAMERA)).encrypted, true);
  return [alice, bob];
}

/** Frames reach the peer, and it can make no picture of them. (Sound decodes to noise, which may be any tone at times.) */
async function assertShutOut(peer) {
  await peer.expect('trackSubscribed', { identity: 'alice', source: 'camera' });
  await peer.expect('trackSubscribed', { identity: 'alice', source: 'microphone' });
  await assert.rejects(peer.sees('alice', 'red', { advances: 1, deadline: NEVER_MS }), /waited/);
  // A second's worth: a small picture is a packet, and a busy machine draws few of them.
  const received = (await peer.stats('inbound-rtp')).map(({ kind, packetsReceived }) => [kind, packetsReceived > 15]);
  assert.deepEqual(received.sort(), [['audio', true], ['video', true]]);
}

story('a picture and a voice between those who have the key', {}, async (world) => {
  const [alice, bob] = await two(world);
  await Promise.all([bob.publishPicture({ colour: 'green' }), bob.publishTone({ hz: 660 })]);
  await Promise.all([alice.sees('bob', 'green'), alice.hears('bob', 660)]);

  // A late one needs a key frame of its own, which the server cannot recognise by its content alone.
  const late = await world.join('late', { secret: SECRET });
  await Promise.all([late.sees('alice', 'red'), late.hears('alice', 440), late.sees('bob', 'green'), late.hears('bob', 660)]);
  assert.equal(await bob.happened('encryptionError'), false);
});

story('without the key there is nothing to see', {}, async (world) => {
  const [, bob] = await two(world);
  const [stranger, guesser] = await Promise.all([world.join('stranger'), world.join('guesser', { secret: 'a guess' })]);
  await Promise.all([assertShutOut(stranger), assertShutOut(guesser)]);
  await Promise.all([bob.sees('alice', 'red'), bob.hears('alice', 440)]);
});

story('mute and unmute while encrypted', {}, async (world) => {
  const [alice, bob] = await two(world);
  for (const round of [1, 2]) {
    const after = await bob.mark();
    // The server's own silence ends in the room's trailer, by which a decryptor lets it pass.
    await alice.mute('microphone');
    await bob.expect('trackMuted', { identity: 'alice', source: 'microphone' }, { after });
    await bob.silent('alice', 1500);
    await alice.unmute('microphone');
    await bob.hears('alice', 440);

    await alice.mute('camera');
    await bob.expect('trackMuted', { identity: 'alice', source: 'camera' }, { after });
    await bob.still('alice');
    await alice.unmute('camera');
    await bob.sees('alice', 'red', { advances: 4 + round });
  }
  // The blank picture of an ended track too.
  await alice.unpublish('camera');
  await bob.expect('trackUnpublished', { identity: 'alice', source: 'camera' });
  await bob.hears('alice', 440);
  assert.equal(await bob.happened('encryptionError'), false);
  assert.deepEqual(bob.console().filter((line) => /SIF/.test(line)), [], 'the client knows what the server made');
});

for (const codec of ['h264', 'vp9']) {
  story(`an encrypted picture in ${codec}`, { forms: ['single'] }, async (world) => {
    const [, bob] = await two(world, { videoCodec: codec });
    assert.equal((await bob.publication('alice', CAMERA)).mime.toLowerCase(), `video/${codec}`);
    const late = await world.join('late', { secret: SECRET });
    await late.sees('alice', 'red');
  });
}
