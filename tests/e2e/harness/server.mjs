// The server under test: started on free loopback ports with a log of its own, or already running (PATCHBAY_URL).
//
// It owns the child process. It never retries: a server that does not become ready, prints a panic or exits with anything
// but 0 fails the stories.

import { spawn, spawnSync } from 'node:child_process';
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
 * A certificate for this machine that nobody has signed: { cert_file, key_file }. From here on this process takes any; a
 * browser has to be told (startBrowser).
 */
function makeCertificate(label) {
  const [certificate, key] = [`${ARTEFACTS}${label}.cert.pem`, `${ARTEFACTS}${label}.key.pem`];
  const wishes = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost'];
  const made = spawnSync('openssl', [...wishes, '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', key, '-out', certificate]);
  if (made.status !== 0) throw new Error(`openssl: ${made.error ?? made.stderr}`);
  process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
  return { cert_file: certificate, key_file: key };
}

/**
 * A server to run stories against. `url` is its http:// address, `signal` the ws:// one. `more` makes further configuration
 * from { udp, tcp, certificate }, which find free ports and make a certificate. With `rtc.single_port` the server is there,
 * under TLS when there is a certificate. With `inside` it is in the network namespace of that process, whose clients know it
 * as `host`; nobody here can ask it anything.
 */
export async function startServer(label, more = null, { inside = null, host = '127.0.0.1' } = {}) {
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
  const { rtc = {}, ...others } = (await more?.({ udp: freeUdpPort, tcp: freeTcpPort, certificate: () => makeCertificate(label) })) ?? {};
  Object.assign(config.rtc, rtc);
  Object.assign(config, others);
  // JSON is YAML: the body needs no writer of its own.
  const command = [binary(), '--dev', '--config-body', JSON.stringify(config)];
  const [program, ...args] = inside ? ['nsenter', `--net=/proc/${inside}/ns/net`, '--', ...command] : command;
  const launch = () => spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const scheme = rtc.single_port && config.tls ? 'https' : 'http';
  const server = new Server(`${scheme}://${host}:${rtc.single_port ?? port}`, 'devkey', 'secret', launch, `${ARTEFACTS}${label}.server.log`);
  await (inside ? server.announced() : server.ready());
  return server;
}

/** The server's program. */
export const binary = () => process.env.PATCHBAY_BIN ?? `${process.env.CARGO_TARGET_DIR ?? `${REPOSITORY}target`}/debug/patchbay`;

class Server {
  #launch;
  #file;
  #child;
  #exited;
  #panic = null;
  #log = [];

  constructor(url, key, secret, launch = null, logPath = null) {
    this.url = url;
    this.signal = url.replace(/^http/, 'ws');
    this.key = key;
    this.secret = secret;
    this.#launch = launch;
    if (!launch) return;
    this.#file = createWriteStream(logPath);
    this.#start();
  }

  #start() {
    const child = (this.#child = this.#launch());
    for (const stream of [child.stdout, child.stderr]) {
      stream.pipe(this.#file, { end: false });
      stream.setEncoding('utf8').on('data', (text) => this.#read(text));
    }
    this.#exited = new Promise((resolve) => {
      child.once('error', (error) => resolve({ error }));
      child.once('exit', (code, signal) => resolve({ code, signal }));
    });
  }

  /** Kills it in the middle of everything, and starts it anew at the same ports. Returns when it answers. */
  async restart() {
    this.#child.kill('SIGKILL');
    await this.#exited;
    this.#start();
    await this.ready();
  }

  #read(text) {
    this.#log.push(text);
    if (this.#log.length > 200) this.#log.shift();
    if (PANIC.test(text)) this.#panic ??= text.trim();
  }

  /** Waits until it says that it serves. */
  async announced() {
    const deadline = Date.now() + READY_DEADLINE_MS;
    while (!this.#log.join('').includes(' serves http')) {
      if (this.#child.exitCode !== null || Date.now() > deadline) throw new Error(`the server did not start\n${this.#log.join('')}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
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
