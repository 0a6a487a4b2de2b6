// One room on two media threads: whoever comes second is served by the other one, and notices nothing.

import assert from 'node:assert/strict';
import { configure, story } from '../harness/story.mjs';

// Each shard takes a free port of the range; everybody is served by the one with the fewest participants.
configure(() => ({ rtc: { udp_port: '41000-41999', shards: 2, room_spill: 0 } }));

const meet = (alice, bob) => Promise.all([
  alice.sees('bob', 'green'), alice.hears('bob', 660),
  bob.sees('alice', 'red'), bob.hears('alice', 440),
]);

/** Who is served by which shard. */
async function shards(world, ...names) {
  const explained = await Promise.all(names.map((name) => world.explain(name)));
  return explained.map(({ reception }) => reception.shard);
}

async function two(world) {
  const alice = await world.join('alice');
  const bob = await world.join('bob');
  await Promise.all([
    alice.publishPicture({ colour: 'red' }), alice.publishTone({ hz: 440 }),
    bob.publishPicture({ colour: 'green' }), bob.publishTone({ hz: 660 }),
  ]);
  await meet(alice, bob);
  return [alice, bob];
}

story('participants on different shards see and hear each other', {}, async (world) => {
  const [alice, bob] = await two(world);
  assert.deepEqual((await shards(world, 'alice', 'bob')).sort(), [0, 1]);
  for (const reliable of [true, false]) {
    await alice.sendData(`from alice ${reliable}`, { reliable });
    await bob.expect('dataReceived', { text: `from alice ${reliable}`, identity: 'alice' });
  }
  // Who comes late finds a picture at once, wherever it is served.
  const carol = await world.join('carol');
  await Promise.all([carol.sees('alice', 'red'), carol.sees('bob', 'green'), carol.hears('bob', 660)]);
  // Who publishes nothing is announced in a batch, as by LiveKit: what they say may be there before.
  for (const other of [alice, bob]) await other.expect('participantConnected', { identity: 'carol' });
  await carol.sendData('from carol', { reliable: true });
  for (const other of [alice, bob]) await other.expect('dataReceived', { text: 'from carol', identity: 'carol' });
  for (const [identity, other] of [['alice', alice], ['bob', bob]]) {
    await other.sendData('to carol', { reliable: true });
    await carol.expect('dataReceived', { text: 'to carol', identity });
  }
});

story('a session that crosses shards resumes, and begins anew', {}, async (world) => {
  const [alice, bob] = await two(world);
  const before = await shards(world, 'alice', 'bob');
  const { sid } = await alice.participant('alice');
  await alice.simulate('signal-reconnect');
  await alice.expect('reconnected');
  assert.equal((await alice.participant('alice')).sid, sid);
  await meet(alice, bob);
  assert.deepEqual(await shards(world, 'alice', 'bob'), before);

  await bob.simulate('full-reconnect');
  await bob.expect('reconnected');
  await meet(alice, bob);
});

story('a picture that ends on one shard ends on the other', {}, async (world) => {
  const [alice, bob] = await two(world);
  await alice.leave();
  await bob.expect('participantDisconnected', { identity: 'alice' });
  const again = await world.join('again');
  await again.publishPicture({ colour: 'blue' });
  await bob.sees('again', 'blue');
});
