// Firefox in a call with Chromium: it offers other codecs, other payload types, and wants a full ICE agent.

import assert from 'node:assert/strict';
import { firefoxIsMissing } from '../harness/firefox.mjs';
import { story } from '../harness/story.mjs';

// Two browsers start in the first story, and Firefox takes its time.
const options = { skip: firefoxIsMissing, timeout: 240_000 };
const PATIENCE = { deadline: 60_000 };

const publish = (peer, colour, hz) => Promise.all([peer.publishPicture({ colour }), peer.publishTone({ hz })]);

const meet = (fox, chrome) =>
  Promise.all([
    fox.sees('chrome', 'green', PATIENCE), fox.hears('chrome', 660, PATIENCE),
    chrome.sees('fox', 'red', PATIENCE), chrome.hears('fox', 440, PATIENCE),
  ]);

/** Who comes second finds the tracks of the first there already. */
async function both(world, [first, second]) {
  const peers = {};
  for (const [identity, browser, colour, hz] of [first, second]) {
    peers[identity] = await world.join(identity, { browser });
    await publish(peers[identity], colour, hz);
  }
  await meet(peers.fox, peers.chrome);
  return peers;
}

const FOX = ['fox', 'firefox', 'red', 440];
const CHROME = ['chrome', 'chromium', 'green', 660];

story('Firefox and Chromium hear and see each other, whoever comes first', options, async (world) => {
  const { fox, chrome } = await both(world, [FOX, CHROME]);

  const transports = await fox.stats('transport');
  assert.ok(transports.length > 0);
  for (const transport of transports) assert.match(transport.srtpCipher, /GCM/);
  // LiveKit: Firefox neither sends nor gets RED, and an agent that is not lite checks the path too.
  assert.equal((await chrome.publication('fox', { source: 'microphone' })).mime, 'audio/opus');
  const descriptions = await fox.descriptions();
  assert.equal(descriptions.length, world.form === 'single' ? 1 : 2);
  for (const { remote } of descriptions) {
    assert.doesNotMatch(remote, /a=ice-lite/);
    assert.doesNotMatch(remote, /a=rtpmap:\d+ red\//i);
  }
  for (const { offer, answer } of descriptions) {
    const type = (text) => [...text.matchAll(/a=rtpmap:(\d+) opus\//gi)].map(([, number]) => number);
    for (const number of type(answer)) assert.ok(type(offer).includes(number), `Opus is ${number}, the offer says ${type(offer)}`);
  }

  await fox.mute('microphone');
  await chrome.silent('fox');
  await fox.unmute('microphone');
  await chrome.hears('fox', 440, PATIENCE);

  // A second track needs an m-line more, and one taken back frees one.
  await fox.publishPicture({ colour: 'blue', name: 'second', source: 'screen_share' });
  await chrome.sees('fox', 'blue', { name: 'second', ...PATIENCE });
  await fox.unpublish('second');
  await chrome.expect('trackUnpublished', { trackName: 'second' });

  await chrome.unpublish('camera');
  await fox.expect('trackUnpublished', { identity: 'chrome', source: 'camera' });
  await chrome.publishPicture({ colour: 'magenta', name: 'again' });
  await fox.sees('chrome', 'magenta', { name: 'again', ...PATIENCE });

  await fox.leave();
  await chrome.expect('participantDisconnected', { identity: 'fox' });

  // Now the other way round.
  const late = await world.join('fox2', { browser: 'firefox' });
  await Promise.all([late.sees('chrome', 'magenta', { name: 'again', ...PATIENCE }), late.hears('chrome', 660, PATIENCE)]);
  await publish(late, 'yellow', 880);
  await Promise.all([chrome.sees('fox2', 'yellow', PATIENCE), chrome.hears('fox2', 880, PATIENCE)]);
});

story('data between Firefox and Chromium', options, async (world) => {
  const [fox, chrome] = [await world.join('fox', { browser: 'firefox' }), await world.join('chrome')];
  await Promise.all([fox.waitForOthers(['chrome']), chrome.waitForOthers(['fox'])]);
  for (const [from, to, identity] of [[fox, chrome, 'fox'], [chrome, fox, 'chrome']]) {
    for (const reliable of [true, false]) {
      await from.sendData(`${identity} ${reliable}`, { reliable });
      await to.expect('dataReceived', { text: `${identity} ${reliable}`, identity, reliable }, PATIENCE);
    }
    // Many SCTP fragments.
    const sum = await from.sendBytes(200_000, `of ${identity}`);
    await to.received({ type: 'bytes', from: identity, size: 200_000, sum });
  }
  assert.equal(await fox.call('chrome', 'reverse', 'patch'), 'hctap');
  assert.equal(await chrome.call('fox', 'reverse', 'bay'), 'yab');
});

story('Firefox resumes after its signalling connection is lost', options, async (world) => {
  const { fox, chrome } = await both(world, [CHROME, FOX]);
  const { sid } = await fox.participant('fox');
  const after = await chrome.mark();
  await fox.simulate('signal-reconnect');
  await fox.expect('reconnected', {}, PATIENCE);
  assert.equal((await fox.participant('fox')).sid, sid);
  await meet(fox, chrome);
  assert.equal(await chrome.happened('participantDisconnected', {}, after), false);
});
