// How long it takes to get another layer: from setVideoQuality() to the first frame of the new height.
//
// livekit-client in one Chromium over loopback; one participant sends 1280x720 at 20 frames a second (VP8, three layers), another
// watches and changes its mind. With dynacast the publisher stops what nobody watches 5 s after the last who did: `up, 8 s
// later` includes the start of its encoder then. SWITCHES=<n> changes the number. Run by `make bench`.

import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';

const target = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL('../target', import.meta.url));
process.env.PATCHBAY_BIN ??= `${target}/release/patchbay`;
const { startServer } = await import('../tests/e2e/harness/server.mjs');
const { startBrowser } = await import('../tests/e2e/harness/browser.mjs');

const SWITCHES = Number(process.env.SWITCHES ?? 20);
// Long enough for the server's limit of keyframe requests (0.5 s a layer) and short enough for dynacast's 5 s.
const PAUSE_MS = 1_500;
const STOPPED_MS = 8_000;
const CAMERA = { colour: 'red', width: 1280, height: 720, fps: 20, noise: 0.2, simulcast: true };

/** The value below which the fraction `part` of the values lie (nearest rank). */
function quantile(values, part) {
  const sorted = values.toSorted((a, b) => a - b);
  return Math.round(sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)]);
}

const server = await startServer('quality-bench');
const browser = await startBrowser('quality-bench');

async function open(name, room, options) {
  const page = await browser.open(browser.peerPage, name);
  const peer = (method, ...args) => page.evaluate(([method, args]) => peer[method](...args), [method, args]);
  await peer('connect', { url: server.signal, token: await server.token(room, name), form: 'single', options });
  return peer;
}

for (const dynacast of [false, true]) {
  const room = `quality-bench-${dynacast}`;
  const sender = await open('sender', room, { dynacast });
  await sender('publishPicture', CAMERA);
  const viewer = await open('viewer', room);
  await viewer('seesHeight', 'sender', 720);
  await sender('sends', ['vp8 f', 'vp8 h', 'vp8 q']);
  const times = {};
  const change = async (quality, lines, pause, name) => {
    (times[name] ??= []).push(await viewer('timeQuality', 'sender', quality, lines));
    await sleep(pause);
  };
  for (let turn = 0; turn < SWITCHES; turn += 1) {
    await change('LOW', 180, PAUSE_MS, '720 to 180');
    await change('MEDIUM', 360, PAUSE_MS, '180 to 360');
    await change('HIGH', 720, PAUSE_MS, '360 to 720');
    await change('LOW', 180, PAUSE_MS, '720 to 180');
    await change('HIGH', 720, PAUSE_MS, '180 to 720');
  }
  if (dynacast) {
    for (let turn = 0; turn < SWITCHES / 2; turn += 1) {
      await change('LOW', 180, STOPPED_MS, '720 to 180');
      await change('HIGH', 720, PAUSE_MS, '180 to 720, 8 s later');
    }
  }
  for (const [name, values] of Object.entries(times)) {
    const [p50, p95] = [quantile(values, 0.5), quantile(values, 0.95)];
    console.log(`dynacast ${dynacast ? 'on' : 'off'}: ${name} lines p50 / p95 ${p50} / ${p95} ms (${values.length})`);
  }
  await Promise.all([viewer('leave'), sender('leave')]);
}

await browser.close();
await server.stop();
