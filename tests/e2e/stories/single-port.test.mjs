// One port for everything, under TLS: signalling, API, media over UDP and TCP, TURN.

import assert from 'node:assert/strict';
import { configure, story } from '../harness/story.mjs';

configure(async ({ tcp, certificate }) => ({
  rtc: { single_port: await tcp() },
  tls: certificate(),
  turn: { domain: 'localhost' },
}));

const meet = (a, b, [from, colour, hz], [other, seen, heard]) =>
  Promise.all([a.sees(other, seen), a.hears(other, heard), b.sees(from, colour), b.hears(from, hz)]);

/** How media leaves the client: `udp` or `tcp` for direct ones, `relay tcp` or `relay tls`. */
async function paths(peer) {
  const [pairs, locals] = await Promise.all([peer.stats('candidate-pair'), peer.stats('local-candidate')]);
  const used = pairs.filter(({ nominated, state }) => nominated && state === 'succeeded');
  return used
    .map((pair) => locals.find(({ id }) => id === pair.localCandidateId))
    .map(({ candidateType, protocol, relayProtocol }) => (candidateType === 'relay' ? `relay ${relayProtocol}` : protocol));
}

const WAYS = [
  ['directly', {}, 'udp'],
  ['through TURN over TCP', { via: { scheme: 'turn:', transport: 'tcp' } }, 'relay tcp'],
  ['through TURN under TLS', { via: { scheme: 'turns:', transport: 'tcp' } }, 'relay tls'],
];

for (const [title, options, expected] of WAYS) {
  story(`one port, ${title}`, {}, async (world) => {
    assert.match(world.server.url, /^https:/);
    const [alice, bob] = await Promise.all([world.join('alice', options), world.join('bob')]);
    await Promise.all([
      alice.publishPicture({ colour: 'red' }), alice.publishTone({ hz: 440 }),
      bob.publishPicture({ colour: 'green' }), bob.publishTone({ hz: 660 }),
    ]);
    await meet(alice, bob, ['alice', 'red', 440], ['bob', 'green', 660]);
    const [used, others] = await Promise.all([paths(alice), paths(bob)]);
    assert.ok(used.length > 0);
    for (const path of used) assert.equal(path, expected);
    for (const path of others) assert.equal(path, 'udp');
    await alice.sendData('one port', { reliable: true });
    await bob.expect('dataReceived', { text: 'one port' });
    // The API is there too.
    assert.deepEqual((await world.api.listParticipants(world.room)).map(({ identity }) => identity).sort(), ['alice', 'bob']);
  });
}

story('without TLS a client is sent to where it is', { forms: ['single'] }, async (world) => {
  const plain = await fetch(`${world.server.url.replace('https', 'http')}/rtc/validate`, { redirect: 'manual' });
  assert.equal(plain.status, 308);
  assert.equal(plain.headers.get('location'), `${world.server.url}/rtc/validate`);
});
