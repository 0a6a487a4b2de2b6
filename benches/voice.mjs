// How long it takes to be heard in a voice channel: from the request for a token to the first decoded sound at somebody who is
// in the channel already.
//
// livekit-client in one Chromium over loopback, driven as Fluxer's client drives it: `autoSubscribe: false`, a microphone that
// is open before, published after connect(); the listener subscribes when it hears of the track. One round of each form goes
// ahead uncounted. ROUNDS=<n> changes the number. Run by `make bench`.

import { fileURLToPath } from 'node:url';

const target = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL('../target', import.meta.url));
process.env.PATCHBAY_BIN ??= `${target}/release/patchbay`;
const { startServer } = await import('../tests/e2e/harness/server.mjs');
const { startBrowser } = await import('../tests/e2e/harness/browser.mjs');
const { median, timeVoice, Town, VOICE } = await import('../tests/e2e/harness/voice.mjs');

const ROUNDS = Number(process.env.ROUNDS ?? 20);

const server = await startServer('voice-bench', () => ({ voice: VOICE }));
const browser = await startBrowser('voice-bench');
const town = await Town.found(server);

async function open(name) {
  const page = await browser.open(browser.peerPage, name);
  return (method, ...args) => page.evaluate(([method, args]) => peer[method](...args), [method, args]);
}

for (const form of ['single', 'dual']) {
  const times = await timeVoice(town, open, form, ROUNDS);
  const steps = Object.entries(times).map(([name, values]) => `${name} ${median(values)}`);
  console.log(`${form}: ms since the request, medians of ${ROUNDS}: ${steps.join(', ')} (slowest ${Math.max(...times.heard)})`);
}

await browser.close();
await server.stop();
