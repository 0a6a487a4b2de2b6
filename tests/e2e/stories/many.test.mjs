// More tracks than the three spare media sections a single-connection client offers for each kind: the server has to ask
// for more (MediaSectionsRequirement) and to fill freed ones again, and every picture must stay under its own name.

import assert from 'node:assert/strict';
import { story } from '../harness/story.mjs';

const SMALL = { width: 160, height: 90, fps: 10, source: 'unknown' };
const FIRST = { one: 'red', two: 'green', three: 'blue', four: 'yellow', five: 'magenta' };
const SECOND = { six: 'cyan', seven: 'orange', eight: 'grey' };

const publish = (peer, videos) => Promise.all(Object.entries(videos).map(([name, colour]) => peer.publishPicture({ name, colour, ...SMALL })));
const seesAll = (peer, videos) => Promise.all(Object.entries(videos).map(([name, colour]) => peer.sees('alice', colour, { name, advances: 3 })));

story('five videos and five sounds of one participant, some going and others coming', {}, async (world, form) => {
  const [alice, bob] = await Promise.all([world.join('alice'), world.join('bob')]);
  const tones = { a: 300, b: 500, c: 700, d: 900, e: 1200 };
  await publish(alice, FIRST);
  await Promise.all(Object.entries(tones).map(([name, hz]) => alice.publishTone({ name, hz, source: 'unknown' })));
  await seesAll(bob, FIRST);
  await Promise.all(Object.entries(tones).map(([name, hz]) => bob.hears('alice', hz, { name })));

  if (form === 'single') {
    const [sections, ...more] = await bob.sections();
    assert.equal(more.length, 0, 'one connection');
    assert.ok(sections.filter(({ kind, direction }) => kind === 'video' && direction === 'recvonly').length >= 5);
  }

  await alice.unpublish('two');
  await alice.unpublish('four');
  await Promise.all(['two', 'four'].map((trackName) => bob.expect('trackUnpublished', { trackName })));
  await publish(alice, SECOND);
  const { two, four, ...left } = FIRST;
  const all = { ...left, ...SECOND };
  await seesAll(bob, all);
  const carol = await world.join('carol');
  await seesAll(carol, all);
});
