// Every codec a browser sends, and simulcast.

import assert from 'node:assert/strict';
import { story } from '../harness/story.mjs';

/** MIME types of what a peer decodes now. */
async function decoded(peer, kind) {
  const codecs = new Map((await peer.stats('codec')).map((codec) => [codec.id, codec.mimeType.toLowerCase()]));
  const streams = (await peer.stats('inbound-rtp')).filter((stream) => stream.kind === kind && codecs.has(stream.codecId));
  return streams.map((stream) => codecs.get(stream.codecId));
}

for (const codec of ['vp8', 'h264', 'vp9', 'av1']) {
  story(`video in ${codec}`, {}, async (world) => {
    const [alice, bob] = await Promise.all([world.join('alice'), world.join('bob')]);
    if (!(await alice.publisherCodecs()).includes(`video/${codec}`)) {
      world.context.skip(`this browser does not encode ${codec}`);
      return;
    }
    await alice.publishPicture({ colour: 'magenta', videoCodec: codec });
    await bob.sees('alice', 'magenta');
    const { mime } = await bob.publication('alice', { source: 'camera' });
    assert.equal(mime.toLowerCase(), `video/${codec}`);
    assert.deepEqual(await decoded(bob, 'video'), [`video/${codec}`]);

    // A late subscriber needs a keyframe of its own.
    const carol = await world.join('carol');
    await carol.sees('alice', 'magenta');
  });
}

story('sound in Opus with and without redundancy', {}, async (world) => {
  const [alice, bob, carol] = await Promise.all(['alice', 'bob', 'carol'].map((identity) => world.join(identity)));
  await Promise.all([alice.publishTone({ hz: 440, red: true }), bob.publishTone({ hz: 660, red: false })]);
  await Promise.all([carol.hears('alice', 440), carol.hears('bob', 660), alice.hears('bob', 660)]);
  assert.equal((await carol.publication('alice', { source: 'microphone' })).mime.toLowerCase(), 'audio/red');
  assert.equal((await carol.publication('bob', { source: 'microphone' })).mime.toLowerCase(), 'audio/opus');
  assert.deepEqual(await decoded(alice, 'audio'), ['audio/opus']);
});

story('simulcast: each viewer gets the layer it asks for', {}, async (world) => {
  const [alice, bob, carol] = await Promise.all(['alice', 'bob', 'carol'].map((identity) => world.join(identity)));
  await alice.publishPicture({ colour: 'cyan', width: 640, height: 360, simulcast: true });
  await Promise.all([bob.sees('alice', 'cyan'), carol.sees('alice', 'cyan')]);
  assert.equal((await bob.publication('alice', { source: 'camera' })).simulcast, true);

  await bob.setQuality('alice', { source: 'camera' }, 'LOW');
  await bob.seesHeight('alice', 180);
  await carol.seesHeight('alice', 360);
  await bob.sees('alice', 'cyan');
  await bob.setQuality('alice', { source: 'camera' }, 'HIGH');
  await bob.seesHeight('alice', 360);
  await bob.sees('alice', 'cyan');
});
