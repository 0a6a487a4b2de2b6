// What a story file uses: one server and one browser for the file, a fresh room for every story.
//
//   story('a story', { forms: ['single', 'dual'] }, async (world) => { const alice = await world.join('alice'); … });
//
// `single` is one peer connection (/rtc/v1), `dual` is two (/rtc).

import { randomBytes } from 'node:crypto';
import { basename } from 'node:path';
import { after, test } from 'node:test';
import { RoomServiceClient } from 'livekit-server-sdk';
import { startBrowser } from './browser.mjs';
import { startFirefox } from './firefox.mjs';
import { startOutside } from './outside.mjs';
import { startServer } from './server.mjs';

const STORY_DEADLINE_MS = 90_000;
const label = basename(process.argv[1] ?? 'story', '.test.mjs');

let started = null;
let configuration = null;
let firefox = null;
/** Further configuration for this file's server (see startServer); to be said before the first story. */
export function configure(more) {
  configuration = more;
}

/** The server and browser of this file, started by the first story that needs them. */
function start() {
  started ??= (async () => {
    const server = await startServer(label, configuration);
    return { server, browser: await startBrowser(label) };
  })();
  return started;
}

after(async () => {
  if (!started) return;
  const { server, browser } = await started;
  await (await firefox)?.close();
  await browser.close();
  await server.stop();
});

export function story(title, { forms = ['single', 'dual'], ...options }, body) {
  for (const form of forms) {
    test(forms.length > 1 ? `${title} (${form})` : title, { timeout: STORY_DEADLINE_MS, ...options }, async (context) => {
      const { server, browser } = await start();
      const world = new World(server, browser, form, context);
      try {
        await body(world, form);
        server.check();
      } finally {
        await world.end();
      }
    });
  }
}

class World {
  #browser;
  #pages = [];
  #ends = [];

  constructor(server, browser, form, context) {
    this.server = server;
    this.form = form;
    this.room = `e2e-${randomBytes(5).toString('hex')}`;
    this.api = new RoomServiceClient(server.url, server.key, server.secret);
    this.context = context;
    this.#browser = browser;
  }

  /** Where pages of participants come from. */
  get peerPage() {
    return this.#browser.peerPage;
  }

  /** An access token for this story's room. */
  token(identity, options) {
    return this.server.token(this.room, identity, options);
  }

  /** What the server says of who is sent what and why, for one participant. */
  async explain(identity) {
    const headers = { authorization: `Bearer ${await this.token('admin', { grant: { roomAdmin: true } })}` };
    const answer = await fetch(`${this.server.url}/debug/rooms/${this.room}/participants/${identity}/explain`, { headers });
    if (!answer.ok) throw new Error(`no explanation: ${answer.status} ${await answer.text()}`);
    return (await answer.json()).participants[0];
  }

  /**
   * A page with a participant who has not connected yet: for joins that must fail. `browser`: chromium, firefox, or one
   * that the story file has started itself (startBrowser).
   */
  async page(name, { browser = 'chromium' } = {}) {
    const own = typeof browser === 'object' ? browser : this.#browser;
    const opener = browser === 'firefox' ? await (firefox ??= startFirefox(label)) : own;
    const page = await opener.open(own.peerPage, name);
    this.#pages.push(page);
    const said = [];
    // Firefox is driven without it.
    page.on?.('console', (message) => said.push(message.text()));
    const peer = new Proxy({ console: () => said }, {
      // A promise's own names must not look like methods of the page.
      get: (own, method) =>
        method === 'then' || method in own || typeof method === 'symbol'
          ? own[method]
          : (...args) => page.evaluate(([name, list]) => peer[name](...list), [method, args]),
    });
    this.#ends.push(() => peer.leave());
    return peer;
  }

  /**
   * A browser participant. `token` options: grant, metadata, attributes, name. `lacks`: video codecs it cannot receive.
   * `via`: the only TURN servers it may use, and nothing else: { scheme: 'turn:' | 'turns:', transport: 'udp' | 'tcp' }.
   */
  async join(identity, { token, form = this.form, secret, options, connect, browser, lacks, via } = {}) {
    const peer = await this.page(identity, { browser });
    const url = browser?.serverHost ? this.server.signal.replace('127.0.0.1', browser.serverHost) : this.server.signal;
    await peer.connect({ url, token: await this.token(identity, token), form, secret, options, connect, lacks, via });
    return peer;
  }

  /** Any other page, in a context of its own. */
  async open(url, name, options) {
    const page = await this.#browser.open(url, name, options);
    this.#pages.push(page);
    return page;
  }

  /** A participant of another SDK, `python` or `node`, in a process of its own. */
  async outside(kind, identity, wishes) {
    const peer = await startOutside(kind, { url: this.server.signal, token: await this.token(identity), identity, ...wishes });
    this.#ends.push(() => peer.leave());
    return peer;
  }

  async end() {
    await Promise.allSettled(this.#ends.map((end) => end()));
    await Promise.allSettled(this.#pages.map((page) => page.context().close()));
  }
}
