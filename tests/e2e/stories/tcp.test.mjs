// Media over TCP: a server that offers nothing else, as a network without UDP would leave it.

import assert from 'node:assert/strict';
import { configure, story } from '../harness/story.mjs';

configure(() => ({ rtc: { force_tcp: true } }));

story('two browsers over ICE-TCP', {}, async (world) => {
  const [alice, bob] = await Promise.all([world.join('alice'), world.join('bob')]);
  await Promise.all([
    alice.publishPicture({ colour: 'red' }), alice.publishTone({ hz: 440 }),
    bob.publishPicture({ colour: 'green' }), bob.publishTone({ hz: 660 }),
  ]);
  await Promise.all([alice.sees('bob', 'green'), alice.hears('bob', 660), bob.sees('alice', 'red'), bob.hears('alice', 440)]);
  const pairs = (await alice.stats('candidate-pair')).filter(({ nominated, state }) => nominated && state === 'succeeded');
  const locals = await alice.stats('local-candidate');
  assert.ok(pairs.length > 0);
  for (const { localCandidateId } of pairs) {
    assert.equal(locals.find(({ id }) => id === localCandidateId).protocol, 'tcp');
  }
  await alice.sendData('over TCP', { reliable: true });
  await bob.expect('dataReceived', { text: 'over TCP' });
});

story('the Python package over ICE-TCP', {}, async (world) => {
  const alice = await world.join('alice');
  await Promise.all([alice.publishPicture({ colour: 'red' }), alice.publishTone({ hz: 440 })]);
  const other = await world.outside('python', 'python', { form: world.form, colour: 'green', hz: 700 });
  await Promise.all([
    alice.sees('python', 'green'),
    alice.hears('python', 700),
    other.expect('picture', { who: 'alice', colour: 'red', moving: true }),
    other.expect('tone', { who: 'alice', hz: 440 }),
  ]);
});
