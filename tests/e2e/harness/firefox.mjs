// One Firefox for a story file, where there is one: `open` gives a page of its own cookie jar, as browser.mjs does.
//
// It owns the browser and a sound server without a sound card: Firefox's AudioContext has no clock without one.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { launch } from 'puppeteer-core';
import { ARTEFACTS } from './server.mjs';

const BINARY = process.env.FIREFOX_BIN ?? '/usr/bin/firefox-esr';
const SOUND_SERVER = '/usr/bin/pulseaudio';
const SOUND_DEADLINE_MS = 15_000;
/** A machine with a few busy cores needs most of a minute for a first start. */
const START_DEADLINE_MS = 80_000;

const PREFERENCES = {
  // ICE: gather and use 127.0.0.1, in the open.
  'media.peerconnection.ice.loopback': true,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  // H264 would be downloaded.
  'media.gmp-manager.updateEnabled': false,
  // Sound and pictures start by themselves, also in a page that nobody looks at.
  'media.autoplay.default': 0,
  'media.autoplay.blocking_policy': 0,
  'media.autoplay.block-webaudio': false,
  'media.suspend-background-video.enabled': false,
  'dom.min_background_timeout_value': 4,
  'dom.timeout.enable_budget_timer_throttling': false,
};

/** Why the Firefox stories are left out, or false. Debian has a package of Firefox, Ubuntu has only a snap. */
export const firefoxIsMissing = !existsSync(BINARY)
  ? `there is no ${BINARY} (Debian's package firefox-esr; FIREFOX_BIN names another Firefox)`
  : !existsSync(SOUND_SERVER)
    ? `there is no ${SOUND_SERVER}, which gives Firefox a sound card that is none (package pulseaudio)`
    : false;

async function startSound() {
  const home = mkdtempSync(join(tmpdir(), 'patchbay-sound-'));
  const socket = join(home, 'native');
  const child = spawn(
    SOUND_SERVER,
    [
      // Nothing of this machine's configuration.
      ...['-n', '--daemonize=no', '--use-pid-file=no', '--exit-idle-time=-1', '--disable-shm=yes'],
      ...['-L', `module-native-protocol-unix socket=${socket} auth-anonymous=1`, '-L', 'module-null-sink'],
    ],
    { env: { PATH: process.env.PATH, HOME: home, PULSE_RUNTIME_PATH: home }, stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const said = [];
  child.stderr.setEncoding('utf8').on('data', (text) => said.push(text));
  let error = null;
  child.once('error', (failure) => (error = failure));
  const exited = once(child, 'close').catch(() => {});
  const deadline = Date.now() + SOUND_DEADLINE_MS;
  while (!existsSync(socket)) {
    if (error || child.exitCode !== null || Date.now() > deadline) {
      child.kill('SIGKILL');
      throw new Error(`the sound server did not start: ${error?.message ?? said.join('')}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return {
    address: `unix:${socket}`,
    async stop() {
      child.kill('SIGTERM');
      await exited;
      rmSync(home, { recursive: true, force: true });
    },
  };
}

export async function startFirefox(label) {
  const sound = await startSound();
  const browser = await launch({
    browser: 'firefox',
    executablePath: BINARY,
    headless: true,
    extraPrefsFirefox: PREFERENCES,
    env: { ...process.env, PULSE_SERVER: sound.address },
    timeout: START_DEADLINE_MS,
  }).catch(async (error) => {
    await sound.stop();
    throw error;
  });
  const log = createWriteStream(`${ARTEFACTS}${label}.firefox.log`);
  return {
    async open(url, name) {
      const context = await browser.createBrowserContext();
      const page = await context.newPage();
      page.on('console', (message) => log.write(`${name} ${message.type()}: ${message.text()}\n`));
      page.on('pageerror', (error) => log.write(`${name} uncaught: ${error.stack}\n`));
      await page.goto(url);
      return { evaluate: (...args) => page.evaluate(...args), context: () => context };
    },
    async close() {
      await browser.close();
      await sound.stop();
      log.end();
    },
  };
}
