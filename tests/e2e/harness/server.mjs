// The server under test: started on free loopback ports with a log of its own, or already running (PATCHBAY_URL).
//
// It owns the child process. It never retries: a server that does not become ready, prints a panic or exits with anything
// but 0 fails the stories.

import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createWriteStream, mkdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { AccessToken } from 'livekit-server-sdk';

export const ARTEFACTS = fileURLToPath(new URL('../artefacts/', import.meta.url));
const REPOSITORY = fileURLToPath(new URL('../../../', import.meta.url));

const READY_DEADLINE_MS = 15_000;
const STOP_DEADLINE_MS = 10_000;
const PANIC = /panicked at|thread '.*' panicked|"panic"/;

async function freeTcpPort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  return port;
}

async function freeUdpPort() {
  const probe = createSocket('udp4').bind(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  return port;
}

/**
 * A server to run stories against. `url` is its http:// address, `signal` the ws:// one. `more` makes further configuration
 * from { udp, tcp }, which find free ports.
 */
export async function startServer(label, more = null) {
  mkdirSync(ARTEFACTS, { recursive: true });
  const running = process.env.PATCHBAY_URL;
  if (running) {
    const url = running.replace(/^ws/, 'http').replace(/\/+$/, '');
    const server = new Server(url, process.env.PATCHBAY_API_KEY ?? 'devkey', process.env.PATCHBAY_API_SECRET ?? 'secret');
    await server.ready();
    return server;
  }

  const port = await freeTcpPort();
  const config = {
    port,
    bind_addresses: ['127.0.0.1'],
    rtc: { udp_port: await freeUdpPort(), tcp_port: await freeTcpPort(), use_external_ip: false },
    keys: { devkey: 'secret' },
  };
  const { rtc = {}, ...others } = (await more?.({ udp: freeUdpPort, tcp: freeTcpPort })) ?? {};
  Object.assign(config.rtc, rtc);
  Object.assign(config, others);
  const binary = process.env.PATCHBAY_BIN ?? `${process.env.CARGO_TARGET_DIR ?? `${REPOSITORY}target`}/debug/patchbay`;
  // JSON is YAML: the body needs no writer of its own.
  const child = spawn(binary, ['--dev', '--config-body', JSON.stringify(config)], { stdio: ['ignore', 'pipe', 'pipe'] });
  const server = new Server(`http://127.0.0.1:${port}`, 'devkey', 'secret', child, `${ARTEFACTS}${label}.server.log`);
  await server.ready();
  return server;
}

class Server {
  #child;
  #exited;
  #panic = null;
  #log = [];

  constructor(url, key, secret, child = null, logPath = null) {
    this.url = url;
    this.signal = url.replace(/^http/, 'ws');
    this.key = key;
    this.secret = secret;
    this.#child = child;
    if (!child) return;
    const file = createWriteStream(logPath);
    for (const stream of [child.stdout, child.stderr]) {
      stream.pipe(file, { end: false });
      stream.setEncoding('utf8').on('data', (text) => this.#read(text));
    }
    this.#exited = new Promise((resolve) => {
      child.once('error', (error) => resolve({ error }));
      child.once('exit', (code, signal) => resolve({ code, signal }));
    });
  }

  #read(text) {
    this.#log.push(text);
    if (this.#log.length > 200) this.#log.shift();
    if (PANIC.test(text)) this.#panic ??= text.trim();
  }

  /** Waits for `GET /` to answer 200 OK. */
  async ready() {
    const deadline = Date.now() + READY_DEADLINE_MS;
    let gone = null;
    this.#exited?.then((how) => (gone = how));
    for (;;) {
      if (gone) throw new Error(`the server did not start: ${describe(gone)}\n${this.#log.join('')}`);
      try {
        const answer = await fetch(`${this.url}/`);
        if (answer.ok) return;
      } catch {
        // Not listening yet.
      }
      if (Date.now() > deadline) throw new Error(`the server at ${this.url} is not ready\n${this.#log.join('')}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** A signed access token; `grant` is merged over the right to join `room`. */
  async token(room, identity, { grant = {}, roomConfig, ...options } = {}) {
    const token = new AccessToken(this.key, this.secret, { identity, ttl: '1h', ...options });
    token.addGrant({ roomJoin: true, room, ...grant });
    if (roomConfig) token.roomConfig = roomConfig;
    return token.toJwt();
  }

  /** Throws when the server has panicked or ended by itself. */
  check() {
    if (this.#panic) throw new Error(`the server panicked:\n${this.#panic}`);
    if (this.#child && this.#child.exitCode !== null) {
      throw new Error(`the server ended in the middle: exit code ${this.#child.exitCode}\n${this.#log.join('')}`);
    }
  }

  /** Stops what `startServer` started and checks how it ended. */
  async stop() {
    if (!this.#child) return;
    this.check();
    this.#child.kill('SIGTERM');
    // LiveKit: the first signal waits for the participants to leave, the second does not.
    const insist = setTimeout(() => this.#child.kill('SIGTERM'), STOP_DEADLINE_MS / 3);
    const giveUp = setTimeout(() => this.#child.kill('SIGKILL'), STOP_DEADLINE_MS);
    const how = await this.#exited;
    clearTimeout(insist);
    clearTimeout(giveUp);
    if (this.#panic) throw new Error(`the server panicked:\n${this.#panic}`);
    if (how.code !== 0) throw new Error(`the server did not stop cleanly: ${describe(how)}\n${this.#log.slice(-20).join('')}`);
  }
}

function describe({ error, code, signal }) {
  return error ? error.message : code === null ? `signal ${signal}` : `exit code ${code}`;
}
