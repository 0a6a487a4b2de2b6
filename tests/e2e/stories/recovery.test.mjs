// Networks and servers that go away and come back, with a browser behind a link (harness/link.mjs): how long the picture stays
// away, what of that is the server's, that sessions and tracks stay the same ones, and that nobody is there twice afterwards.
//
// Needs root, /dev/net/tun and iproute2. One trial of each is kept here, with room for a busy machine; RECOVERY_TRIALS=50
// (`make recovery`) makes more, and from 10 on the 95th percentile has to be at its goal.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual, promisify } from 'node:util';
import { startBrowser } from '../harness/browser.mjs';
import { startLink } from '../harness/link.mjs';
import { configure, story } from '../harness/story.mjs';

const CLEAN = 'rate=none delay=5ms cut=no';
const CAMERA = { source: 'camera' };
const trials = Number(process.env.RECOVERY_TRIALS ?? 1);
const options = { forms: ['single'], skip: process.env.PATCHBAY_URL ? 'the server is somewhere else' : false, timeout: 60_000 + trials * 60_000 };

/** From the client's first valid packet, or its connection, to the first packet of media, ms. */
const SHARE_MS = 300;
/** A picture that stands longer than this was away. At 20 frames a second, on a machine that is busy. */
const AWAY_MS = 500;

let link = null;
let far = null;
configure(async () => {
  link = await startLink(CLEAN);
  far = await startBrowser('recovery-far', { link });
  return { bind_addresses: ['127.0.0.1', link.here] };
});
after(async () => {
  await far?.close();
  await link?.stop();
});

const run = promisify(execFile);
const inLink = (...command) => run('nsenter', [`--net=/proc/${link.pid}/ns/net`, '--', ...command]);

/** alice here and bob behind the link see each other. */
async function meet(world) {
  link.set(CLEAN);
  const [alice, bob] = await Promise.all([world.join('alice'), world.join('bob', { browser: far })]);
  await Promise.all([alice.publishPicture({ colour: 'red', fps: 20 }), bob.publishPicture({ colour: 'green', fps: 20 })]);
  await Promise.all([bob.sees('alice', 'red'), alice.sees('bob', 'green')]);
  return [alice, bob];
}

/** Everything that has to stay: who is there, and their tracks. */
async function standing(world) {
  const there = await world.api.listParticipants(world.room);
  assert.deepEqual(there.map(({ identity }) => identity).sort(), ['alice', 'bob'], 'everybody is there once');
  return there.flatMap(({ identity, sid, tracks }) => [`${identity} ${sid}`, ...tracks.map((track) => `${identity} ${track.sid}`)]).sort();
}

/**
 * `breaks` takes the network away (and gives it back) before it returns. How long `who` had no picture of `whom` after that,
 * for each pair in ms: when a second of it has been seen, the end of its longest gap. 0: it was never away.
 */
async function away(breaks, pairs) {
  const starts = await Promise.all(pairs.map(([who]) => who.now()));
  await Promise.all(pairs.map(([who, whom]) => who.framesOf(whom, CAMERA)));
  const held = await breaks();
  const back = await Promise.all(pairs.map(([who]) => who.now()));
  const times = pairs.map(async ([who, whom, colour], at) => {
    await who.sees(whom, colour, { advances: 20, deadline: 40_000 });
    const { frames } = await who.framesOf(whom, CAMERA);
    const moments = [starts[at], ...frames.map(([moment]) => moment)];
    const gaps = moments.slice(1).map((moment, i) => [moment - moments[i], moment]);
    const [gap, end] = gaps.reduce((longest, one) => (one[0] > longest[0] ? one : longest));
    return gap < AWAY_MS ? 0 : Math.round(end - (held ? back[at] : starts[at]));
  });
  return Promise.all(times);
}

/**
 * Trials of one kind. `breaks` returns true when the time counts from its end; `from` is when the server's share begins, in ms
 * from there (see link.report).
 */
async function tell(world, name, { breaks, goal, bound, from, same, picture = (alice, bob) => [[bob, 'alice', 'red'], [alice, 'bob', 'green']] }) {
  const [alice, bob] = await meet(world);
  const [times, shares, traces, changed] = [[], [], [], []];
  let before = await standing(world);
  for (let trial = 0; trial < trials; trial += 1) {
    const mark = await bob.mark();
    let since = 0;
    const each = await away(async () => {
      const held = await breaks(trial);
      since = Date.now();
      return held;
    }, picture(alice, bob));
    times.push(Math.max(...each));
    const { first } = await link.report();
    traces.push({ each, first });
    const began = await from(first, { since, bob, mark });
    if (first.media !== null && began !== null) shares.push(Math.max(0, first.media - began));
    await sleep(1_500);
    const now = await standing(world);
    if (same && !isDeepStrictEqual(now, before)) changed.push(trial);
    before = now;
  }
  const figures = { name, trials, goal, times: summary(times), shares: summary(shares) };
  world.context.diagnostic(JSON.stringify(figures));
  if (process.env.RECOVERY_TRACE) world.context.diagnostic(JSON.stringify({ traces, changed }));
  assert.deepEqual(changed, [], 'the same sessions and tracks in every trial');
  const [atMost, share] = trials >= 10 ? [goal, SHARE_MS] : [bound, 10 * SHARE_MS];
  assert.ok(figures.times.p95 <= atMost, `${name}: ${figures.times.p95} ms (${goal})`);
  assert.ok(shares.length > 0 && figures.shares.p95 <= share, `${name}: of that the server ${figures.shares.p95} ms (${SHARE_MS})`);
}

function summary(times) {
  const sorted = times.toSorted((a, b) => a - b);
  return { count: sorted.length, median: sorted[Math.floor(sorted.length / 2)], p95: sorted[Math.ceil(sorted.length * 0.95) - 1], max: sorted.at(-1) };
}

story('an address translator that forgets: the picture is back', options, (world) =>
  tell(world, 'rebinding', { breaks: async () => void link.rebind(), goal: 4_000, bound: 15_000, from: ({ check }) => check, same: true }));

story('thirty seconds of silence: the session goes on', options, (world) =>
  tell(world, 'silence', {
    breaks: async () => {
      link.set('cut=yes');
      await sleep(30_000);
      link.set('cut=no');
      return true;
    },
    // The client's next try may be seven seconds away.
    goal: 7_000 + 1_500,
    bound: 20_000,
    from: ({ check }) => check,
    same: true,
  }));

story('a server that is killed and started again', options, (world) =>
  tell(world, 'restart', {
    breaks: async () => {
      await world.server.restart();
      link.set(CLEAN); // from here on what comes first is of interest
      return true;
    },
    goal: 3_000,
    bound: 15_000,
    // Media has to be there to be sent: alice's client has its own pace too.
    from: async ({ answer }, { since, bob, mark }) => Math.max(answer, (await bob.expect('trackSubscribed', { identity: 'alice' }, { after: mark })).at - since),
    same: false,
  }));

// Last: it leaves another address behind.
story('a network that goes and another that comes: the picture is back within seconds', options, (world) => {
  let now = link.there;
  return tell(world, 'another address', {
    breaks: async (trial) => {
      // Never one that it has had: sockets of the time before must not wake up.
      const next = link.there.replace(/\d+$/, String(3 + trial));
      await run('ip', ['route', 'replace', next, 'dev', `pb${link.pid}`]);
      await inLink('ip', 'link', 'set', 'link0', 'down');
      await inLink('ip', 'address', 'del', now, 'peer', link.here, 'dev', 'link0');
      // Long enough for the browser to notice: it has no network in between.
      await sleep(3_000);
      link.set(CLEAN);
      await inLink('ip', 'address', 'add', next, 'peer', link.here, 'dev', 'link0');
      await inLink('ip', 'link', 'set', 'link0', 'up');
      await inLink('ip', 'route', 'replace', 'default', 'via', link.here, 'dev', 'link0');
      now = next;
      return true;
    },
    goal: 3_000,
    bound: 20_000,
    from: ({ check }) => check,
    same: true,
  });
});
