// A viewer whose only way is TCP and who has 1 Mbit/s: the picture gets smaller, and nothing waits in a queue for long.
//
// Chromium behind the simulator's impairment, as a relay of packets (harness/link.mjs). Needs root and /dev/net/tun.
// NETWORK=all (`make network`) runs it.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startBrowser } from '../harness/browser.mjs';
import { startLink } from '../harness/link.mjs';
import { configure, story } from '../harness/story.mjs';

const WIDE = 'rate=none queue=300ms delay=1ms jitter=0ms loss=0% burst=1/0% reorder=0%/0ms duplicate=0% cut=no';
// The link's own buffer is short: what waits longer waits in the server.
const SLOW = 'rate=1M queue=150ms delay=20ms';
const TOP = 720;
/** ms, there and back, of a check that stands behind media in the server's queue, on a link of 40 ms. */
const LONGEST = 40 + 150 + 500;
const SECONDS = 20;

let link = null;
let far = null;

configure(async () => {
  link = await startLink(WIDE);
  far = await startBrowser('slow-tcp-far', { link });
  return { bind_addresses: ['127.0.0.1', link.here], rtc: { force_tcp: true } };
});

after(async () => {
  await far?.close();
  await link?.stop();
});

const skip = process.env.PATCHBAY_URL ? 'the server is somewhere else' : process.env.NETWORK !== 'all' && 'NETWORK=all runs it';

story('1 Mbit/s over ICE-TCP', { forms: ['single'], skip }, async (world) => {
  const alice = await world.join('alice');
  await alice.publishPicture({ colour: 'cyan', width: 1280, height: TOP, fps: 20, noise: 0.2, simulcast: true });
  await alice.publishTone({ hz: 440 });
  await alice.sends(['vp8 f', 'vp8 h', 'vp8 q']);
  const bob = await world.join('bob', { browser: far });
  await bob.seesHeight('alice', TOP);
  link.set(SLOW);
  // The largest layer alone is 1.7 Mbit/s.
  await bob.seesHeight('alice', TOP / 2, { deadline: 20_000 });
  const trips = [];
  const before = (await bob.stats('inbound-rtp')).find(({ kind }) => kind === 'video').framesDecoded;
  for (let i = 0; i < SECONDS; i += 1) {
    await sleep(1000);
    const pair = (await bob.stats('candidate-pair')).find(({ nominated, state }) => nominated && state === 'succeeded');
    trips.push(Math.round(pair.currentRoundTripTime * 1000));
    const local = (await bob.stats('local-candidate')).find(({ id }) => id === pair.localCandidateId);
    assert.equal(local.protocol, 'tcp');
  }
  const frames = (await bob.stats('inbound-rtp')).find(({ kind }) => kind === 'video').framesDecoded - before;
  const sent = (await world.explain('bob')).receives.find(({ kind }) => kind === 'video').sent;
  world.context.diagnostic(`round trips ${trips} ms; ${(frames / SECONDS).toFixed(1)} frames a second, ${sent.height} lines`);
  assert.ok(Math.max(...trips) <= LONGEST, `checks took ${trips} ms`);
  assert.ok(frames / SECONDS > 5, `${frames} frames`);
  await bob.hears('alice', 440);
});
