// What becomes of a published track: muted, unsubscribed, unpublished, and back.

import assert from 'node:assert/strict';
import { story } from '../harness/story.mjs';

const CAMERA = { source: 'camera' };

async function two(world) {
  const [alice, bob] = await Promise.all([world.join('alice'), world.join('bob')]);
  await Promise.all([alice.publishPicture({ colour: 'red' }), alice.publishTone({ hz: 440 })]);
  await Promise.all([bob.sees('alice', 'red'), bob.hears('alice', 440)]);
  return [alice, bob];
}

story('mute and unmute', {}, async (world) => {
  const [alice, bob] = await two(world);

  await alice.mute('microphone');
  await bob.expect('trackMuted', { identity: 'alice', source: 'microphone' });
  await bob.silent('alice');
  await bob.sees('alice', 'red');
  await alice.unmute('microphone');
  await bob.expect('trackUnmuted', { identity: 'alice', source: 'microphone' });
  await bob.hears('alice', 440);

  await alice.mute('camera');
  await bob.expect('trackMuted', { identity: 'alice', source: 'camera' });
  await bob.still('alice');
  await bob.hears('alice', 440);
  await alice.unmute('camera');
  await bob.expect('trackUnmuted', { identity: 'alice', source: 'camera' });
  await bob.sees('alice', 'red');

  const late = await world.join('late');
  await alice.mute('camera');
  await late.expect('trackMuted', { identity: 'alice', source: 'camera' });
  assert.equal((await bob.publication('alice', CAMERA)).muted, true);
});

story('unsubscribe and subscribe again', {}, async (world) => {
  const [alice, bob] = await two(world);
  for (const round of [1, 2]) {
    const after = await bob.mark();
    await bob.setSubscribed('alice', CAMERA, false);
    await bob.expect('trackUnsubscribed', { identity: 'alice', source: 'camera' }, { after });
    await bob.hears('alice', 440);
    await bob.setSubscribed('alice', CAMERA, true);
    await bob.expect('trackSubscribed', { identity: 'alice', source: 'camera' }, { after });
    await bob.sees('alice', 'red', { advances: 3 + round });
  }
  assert.equal((await alice.publication('alice', CAMERA)).muted, false, 'the publisher noticed nothing');
});

story('unpublish and publish again', {}, async (world) => {
  const [alice, bob] = await two(world);
  for (const name of ['camera', 'microphone']) {
    const after = await bob.mark();
    await alice.unpublish(name);
    await bob.expect('trackUnpublished', { identity: 'alice', source: name }, { after });
    await alice.republish(name);
    await bob.expect('trackSubscribed', { identity: 'alice', source: name }, { after });
  }
  await Promise.all([bob.sees('alice', 'red'), bob.hears('alice', 440)]);
});

story('publishing while nobody is there, with automatic subscription off', {}, async (world) => {
  const alice = await world.join('alice');
  await alice.publishPicture({ colour: 'orange' });
  const bob = await world.join('bob', { connect: { autoSubscribe: false } });
  await bob.waitForOthers(['alice']);
  assert.equal((await bob.publication('alice', CAMERA)).subscribed, false);
  await bob.setSubscribed('alice', CAMERA, true);
  await bob.sees('alice', 'orange');
});
