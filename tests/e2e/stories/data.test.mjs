// Data of every kind: packets, chat, text and byte streams, remote calls, data tracks.

import assert from 'node:assert/strict';
import { story } from '../harness/story.mjs';

async function three(world) {
  const peers = await Promise.all(['alice', 'bob', 'carol'].map((identity) => world.join(identity)));
  await Promise.all([peers[0].waitForOthers(['bob', 'carol']), peers[1].waitForOthers(['alice', 'carol']), peers[2].waitForOthers(['alice', 'bob'])]);
  return peers;
}

story('reliable and lossy packets go to everybody, or to whom they are for', {}, async (world) => {
  const [alice, bob, carol] = await three(world);
  for (const reliable of [true, false]) {
    const wanted = { text: `to all ${reliable}`, identity: 'alice', topic: 'greeting', reliable };
    await alice.sendData(wanted.text, { reliable, topic: 'greeting' });
    await Promise.all([bob.expect('dataReceived', wanted), carol.expect('dataReceived', wanted)]);

    await alice.sendData('for bob', { reliable, destinationIdentities: ['bob'], topic: `${reliable}` });
    await alice.sendData('done', { reliable, topic: `${reliable}` });
    await Promise.all([
      bob.expect('dataReceived', { text: 'for bob', identity: 'alice', topic: `${reliable}`, reliable }),
      carol.expect('dataReceived', { text: 'done', topic: `${reliable}` }),
    ]);
    assert.equal(await carol.happened('dataReceived', { text: 'for bob' }), false, 'carol was not meant');
    assert.equal(await alice.happened('dataReceived', {}), false, 'nobody hears himself');
  }

  // As many as fit in a second, in order, none missing.
  const texts = Array.from({ length: 100 }, (_, i) => `number ${i}`);
  for (const text of texts) await carol.sendData(text, { reliable: true, topic: 'many' });
  await bob.expect('dataReceived', { text: texts.at(-1) });
  for (const text of texts) assert.ok(await bob.happened('dataReceived', { text, topic: 'many' }), `${text} arrived`);
});

story('who may not send data is not heard', {}, async (world) => {
  const [alice, bob] = await Promise.all([
    world.join('alice', { token: { grant: { canPublishData: false } } }),
    world.join('bob'),
  ]);
  const carol = await world.join('carol');
  await alice.forgetPermissions();
  await alice.sendData('forbidden', { reliable: true });
  // Two round trips between others through the same room, behind the forbidden packet.
  await carol.sendData('allowed', { reliable: true });
  await bob.expect('dataReceived', { text: 'allowed' });
  await bob.sendData('answer', { reliable: true });
  await carol.expect('dataReceived', { text: 'answer' });
  for (const peer of [bob, carol]) assert.equal(await peer.happened('dataReceived', { text: 'forbidden' }), false);
});

story('chat, text streams, byte streams and remote calls', {}, async (world) => {
  const [alice, bob, carol] = await three(world);
  await alice.sendChat('hello');
  await Promise.all([bob, carol].map((peer) => peer.expect('chatMessage', { text: 'hello', identity: 'alice' })));

  const long = 'all work and no play '.repeat(3000);
  await bob.sendText(long, { attributes: { mood: 'dull' } });
  const text = await alice.received({ type: 'text', from: 'bob', attributes: { mood: 'dull' } });
  assert.equal(text.text, long);

  const sum = await carol.sendBytes(300_000, 'noise.bin');
  await Promise.all([alice, bob].map((peer) => peer.received({ type: 'bytes', from: 'carol', name: 'noise.bin', size: 300_000, sum })));

  assert.equal(await alice.call('bob', 'reverse', 'abc'), 'cba');
  const payload = 'x'.repeat(9_999) + 'y';
  assert.equal(await bob.call('carol', 'reverse', payload), 'y' + 'x'.repeat(9_999));
  await assert.rejects(alice.call('bob', 'no-such-method', ''), /Method not supported/);
});

story('data tracks', {}, async (world) => {
  const [alice, bob] = await three(world);
  await alice.publishDataTrack('position');
  await bob.expect('dataTrackPublished', { dataTrack: 'position', identity: 'alice' });
  const numbers = await bob.readDataTrack('alice', 'position', 10);
  assert.deepEqual(numbers, numbers.toSorted((a, b) => a - b), 'in order');
  await alice.unpublishDataTrack('position');
  await bob.expect('dataTrackUnpublished');
});
