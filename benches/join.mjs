// How long it takes to join: from connect() to its return and to the first video frame on the screen.
//
// livekit-client in one Chromium over loopback; one participant sends 640x360 at 15 frames a second (VP8, one layer), another joins
// and leaves. One join of each form goes ahead uncounted. JOINS=<n> changes the number, EVERY=<ms> their distance. Run by `make bench`.
//
// Joins that follow each other closely wait for the sender's next keyframe, which servers ask for at most every 0.5 to
// 1 s: EVERY=0 measures that.

import { fileURLToPath } from 'node:url';

const target = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL('../target', import.meta.url));
process.env.PATCHBAY_BIN ??= `${target}/release/patchbay`;
const { startServer } = await import('../tests/e2e/harness/server.mjs');
const { startBrowser } = await import('../tests/e2e/harness/browser.mjs');

const JOINS = Number(process.env.JOINS ?? 20);
const EVERY_MS = Number(process.env.EVERY ?? 1500);
const ROOM = 'join-bench';

/** The value below which the fraction `part` of the values lie (nearest rank). */
function quantile(values, part) {
  const sorted = values.toSorted((a, b) => a - b);
  return Math.round(sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)]);
}

const server = await startServer('join-bench');
const browser = await startBrowser('join-bench');

async function open(name) {
  const page = await browser.open(browser.peerPage, name);
  return (method, ...args) => page.evaluate(([method, args]) => peer[method](...args), [method, args]);
}

async function wishes(identity, form) {
  return { url: server.signal, token: await server.token(ROOM, identity), form };
}

const sender = await open('sender');
await sender('connect', await wishes('sender', 'single'));
await sender('publishPicture', { colour: 'red', width: 640, height: 360 });

for (const form of ['single', 'dual']) {
  const joiner = await open(form);
  const times = [];
  for (let join = 0; join <= JOINS; join += 1) {
    const spaced = new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    times.push(await joiner('timeJoin', await wishes(`joiner-${form}-${join}`, form), 'sender'));
    await joiner('leave');
    await spaced;
  }
  const of = (name) => {
    const values = times.slice(1).map((time) => time[name]);
    return `${quantile(values, 0.5)} / ${quantile(values, 0.95)} ms`;
  };
  console.log(`${form}: connect() p50 / p95 ${of('connected')}, first frame p50 / p95 ${of('firstFrame')} (${JOINS} joins)`);
}

await sender('leave');
await browser.close();
await server.stop();
