// What lies under a call: the cipher, and losing the signalling connection.

import assert from 'node:assert/strict';
import { story } from '../harness/story.mjs';

async function two(world) {
  const [alice, bob] = await Promise.all([world.join('alice'), world.join('bob')]);
  await Promise.all([
    alice.publishPicture({ colour: 'red' }), alice.publishTone({ hz: 440 }),
    bob.publishPicture({ colour: 'green' }), bob.publishTone({ hz: 660 }),
  ]);
  await meet(alice, bob);
  return [alice, bob];
}

const meet = (alice, bob) => Promise.all([alice.sees('bob', 'green'), alice.hears('bob', 660), bob.sees('alice', 'red'), bob.hears('alice', 440)]);

story('media is sealed with AES-GCM', {}, async (world) => {
  const [alice] = await two(world);
  const transports = await alice.stats('transport');
  assert.ok(transports.length > 0);
  for (const transport of transports) assert.match(transport.srtpCipher, /GCM/);
});

story('the signalling connection is lost: the session resumes and media goes on', {}, async (world) => {
  const [alice, bob] = await two(world);
  const { sid } = await alice.participant('alice');
  const after = await bob.mark();
  await alice.simulate('signal-reconnect');
  await alice.expect('reconnected');
  assert.equal((await alice.participant('alice')).sid, sid, 'still the same participant');
  await meet(alice, bob);
  assert.equal(await bob.happened('participantDisconnected', {}, after), false);

  // What is published after a resume arrives as well.
  await alice.publishPicture({ colour: 'blue', name: 'second', source: 'unknown' });
  await bob.sees('alice', 'blue', { name: 'second' });
  await alice.sendData('still here', { reliable: true });
  await bob.expect('dataReceived', { text: 'still here' });
});

story('a full reconnect is a new participant with the old tracks', {}, async (world) => {
  const [alice, bob] = await two(world);
  const { sid } = await alice.participant('alice');
  await alice.simulate('full-reconnect');
  await alice.expect('reconnected');
  assert.notEqual((await alice.participant('alice')).sid, sid);
  await meet(alice, bob);
});
