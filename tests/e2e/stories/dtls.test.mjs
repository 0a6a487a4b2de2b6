// DTLS 1.3 where it is asked for: which version and which cipher a browser ends up with, and that the call is one as before.

import assert from 'node:assert/strict';
import { configure, story } from '../harness/story.mjs';

configure(async () => ({ rtc: { dtls_versions: '1.2, 1.3' } }));

const DTLS_1_3 = 'FEFC';

const meet = (alice, bob) => Promise.all([alice.sees('bob', 'green'), alice.hears('bob', 660), bob.sees('alice', 'red'), bob.hears('alice', 440)]);

story('a call over DTLS 1.3', {}, async (world) => {
  const [alice, bob] = await Promise.all([world.join('alice'), world.join('bob')]);
  await Promise.all([
    alice.publishPicture({ colour: 'red' }), alice.publishTone({ hz: 440 }),
    bob.publishPicture({ colour: 'green' }), bob.publishTone({ hz: 660 }),
  ]);
  await meet(alice, bob);
  for (const peer of [alice, bob]) {
    const transports = await peer.stats('transport');
    assert.ok(transports.length > 0);
    for (const { tlsVersion, dtlsCipher, srtpCipher } of transports) {
      world.context.diagnostic(`${tlsVersion} ${dtlsCipher} ${srtpCipher}`);
      assert.equal(tlsVersion, DTLS_1_3);
    }
  }
  await alice.sendData('over DTLS 1.3', { reliable: true });
  await bob.expect('dataReceived', { text: 'over DTLS 1.3' });

  // A resumed session keeps its association, a new one makes another.
  for (const scenario of ['signal-reconnect', 'full-reconnect']) {
    await alice.simulate(scenario);
    await alice.expect('reconnected');
    await meet(alice, bob);
  }
});
