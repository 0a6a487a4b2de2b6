// Through the server's own TURN: clients that may use nothing but a relay.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { configure, story } from '../harness/story.mjs';

// The same number for UDP and TCP.
configure(async ({ tcp }) => ({ turn: { enabled: true, udp_port: await tcp() } }));

const WAY_DEADLINE_MS = 15_000;
const RELAY = { connect: { rtcConfig: { iceTransportPolicy: 'relay' } } };

/** Of the pairs that media takes: how the client reaches its relay, or `direct`. */
async function paths(peer) {
  const [pairs, locals] = await Promise.all([peer.stats('candidate-pair'), peer.stats('local-candidate')]);
  const used = pairs.filter(({ nominated, state }) => nominated && state === 'succeeded');
  const local = (pair) => locals.find(({ id }) => id === pair.localCandidateId);
  return used.map(local).map(({ candidateType, relayProtocol }) => (candidateType === 'relay' ? relayProtocol : 'direct'));
}

const meet = (a, b, [from, colour, hz], [other, seen, heard]) =>
  Promise.all([a.sees(other, seen), a.hears(other, heard), b.sees(from, colour), b.hears(from, hz)]);

story('relayed and direct participants see and hear each other', {}, async (world) => {
  const [alice, bob] = await Promise.all([world.join('alice', RELAY), world.join('bob')]);
  await Promise.all([
    alice.publishPicture({ colour: 'red' }), alice.publishTone({ hz: 440 }),
    bob.publishPicture({ colour: 'green' }), bob.publishTone({ hz: 660 }),
  ]);
  await meet(alice, bob, ['alice', 'red', 440], ['bob', 'green', 660]);
  const used = await paths(alice);
  assert.ok(used.length > 0);
  // Over UDP or TCP: which of its relays a browser has first is a race, and it may stay there.
  for (const path of used) assert.notEqual(path, 'direct');
  for (const path of await paths(bob)) assert.equal(path, 'direct');
  await alice.sendData('through the relay', { reliable: true });
  await bob.expect('dataReceived', { text: 'through the relay' });

  // A new relay after a new session; credentials of the old one are gone with it.
  await alice.simulate('full-reconnect');
  await alice.expect('reconnected');
  await meet(alice, bob, ['alice', 'red', 440], ['bob', 'green', 660]);
});

/** Of the pairs that media takes: the protocol to us, or to the relay. */
async function protocols(peer) {
  const [pairs, locals] = await Promise.all([peer.stats('candidate-pair'), peer.stats('local-candidate')]);
  const used = pairs.filter(({ nominated, state }) => nominated && state === 'succeeded').map(({ localCandidateId }) => locals.find(({ id }) => id === localCandidateId));
  return [...new Set(used.map(({ candidateType, protocol, relayProtocol }) => (candidateType === 'relay' ? `relay ${relayProtocol}` : protocol)))];
}

/** Until media takes that way and no other: pairs have no event. */
async function takes(peer, way) {
  const deadline = Date.now() + WAY_DEADLINE_MS;
  for (;;) {
    const used = await protocols(peer);
    if (used.length === 1 && used[0] === way) return;
    assert.ok(Date.now() < deadline, `media takes ${used}, not ${way}`);
    await sleep(100);
  }
}

story('a client is led to TCP, then to a relay over it, and the call goes on', {}, async (world) => {
  const [alice, bob] = await Promise.all([world.join('alice'), world.join('bob')]);
  await Promise.all([
    alice.publishPicture({ colour: 'red' }), alice.publishTone({ hz: 440 }),
    bob.publishPicture({ colour: 'green' }), bob.publishTone({ hz: 660 }),
  ]);
  await meet(alice, bob, ['alice', 'red', 440], ['bob', 'green', 660]);
  assert.deepEqual(await protocols(alice), ['udp']);
  for (const [scenario, expected] of [['force-tcp', 'tcp'], ['force-tls', 'relay tcp']]) {
    const seen = await alice.mark();
    await alice.simulate(scenario);
    await alice.expect('reconnected', {}, { after: seen });
    await takes(alice, expected);
    await meet(alice, bob, ['alice', 'red', 440], ['bob', 'green', 660]);
  }
});

story('the Python package through the relay', {}, async (world) => {
  const alice = await world.join('alice', RELAY);
  await Promise.all([alice.publishPicture({ colour: 'red' }), alice.publishTone({ hz: 440 })]);
  const other = await world.outside('python', 'python', { form: world.form, relay: true, colour: 'green', hz: 700 });
  await Promise.all([
    alice.sees('python', 'green'),
    alice.hears('python', 700),
    other.expect('picture', { who: 'alice', colour: 'red', moving: true }),
    other.expect('tone', { who: 'alice', hz: 440 }),
  ]);
});

story('the doctor finds every way from a browser', { forms: ['single'] }, async (world) => {
  const page = await world.open(`${world.server.url}/doctor`, 'doctor');
  await page.fill('#token', await world.token('doctor'));
  await page.click('#start');
  await page.waitForFunction(() => document.getElementById('verdict').textContent);
  const findings = await page.$$eval('#findings li', (items) => items.map((item) => item.textContent));
  assert.equal(await page.textContent('#verdict'), 'Every way is open.', findings.join('\n'));
  // Clocks, signalling, UDP, TCP, and two for each address of the relay.
  assert.ok(findings.length >= 6, findings.join('\n'));
});
