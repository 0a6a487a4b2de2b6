// A call: everybody hears and sees everybody, and so does somebody who comes late.

import assert from 'node:assert/strict';
import { story } from '../harness/story.mjs';

const PEOPLE = { alice: ['red', 440], bob: ['green', 660], carol: ['blue', 880], dave: ['yellow', 1100] };

async function arrive(world, identity) {
  const [colour, hz] = PEOPLE[identity];
  const peer = await world.join(identity);
  await Promise.all([peer.publishPicture({ colour }), peer.publishTone({ hz })]);
  return peer;
}

async function noticesEverybody(peer, identity, present) {
  const others = present.filter((one) => one !== identity);
  await peer.waitForOthers(others);
  await Promise.all(
    others.flatMap((one) => {
      const [colour, hz] = PEOPLE[one];
      return [peer.sees(one, colour), peer.hears(one, hz)];
    }),
  );
}

story('three participants hear and see each other, and a late one too', {}, async (world) => {
  const present = ['alice', 'bob', 'carol'];
  const peers = Object.fromEntries(await Promise.all(present.map(async (one) => [one, await arrive(world, one)])));
  await Promise.all(present.map((one) => noticesEverybody(peers[one], one, present)));

  peers.dave = await arrive(world, 'dave');
  present.push('dave');
  await Promise.all(present.map((one) => noticesEverybody(peers[one], one, present)));

  const speakers = await peers.alice.expect('activeSpeakersChanged');
  assert.ok(speakers.identities.length > 0, 'somebody who sends a tone is an active speaker');
});

story('somebody who only watches', {}, async (world) => {
  const alice = await arrive(world, 'alice');
  const watcher = await world.join('watcher', { token: { grant: { canPublish: false, canPublishData: false } } });
  await Promise.all([watcher.sees('alice', 'red'), watcher.hears('alice', 440), alice.waitForOthers(['watcher'])]);
});
