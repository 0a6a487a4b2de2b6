// Participants that are not browsers: one child process each, JSON lines in both directions.
//
// To the child: first its wishes ({ url, token, identity, form, colour, hz, palette, tolerance }), then commands ({ do: … }). From the child:
// { event: …, … }. Pictures and tones are the ones of page/pictures.js.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { COLOUR_TOLERANCE, PALETTE } from './palette.mjs';

const DEADLINE_MS = 25_000;
const LEAVE_DEADLINE_MS = 5_000;
const PROGRAMS = {
  python: ['../.venv/bin/python', 'python_peer.py'],
  node: [null, 'node_peer.mjs'],
};
const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** With `inside` it is in the network namespace of that process. */
export async function startOutside(kind, wishes, { inside } = {}) {
  const [program, script] = PROGRAMS[kind];
  const command = [program ? here(program) : process.execPath, here(script)];
  const [first, ...args] = inside ? ['nsenter', `--net=/proc/${inside}/ns/net`, '--', ...command] : command;
  const child = spawn(first, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  const peer = new OutsidePeer(`${kind} ${wishes.identity}`, child);
  peer.send({ ...wishes, palette: PALETTE, tolerance: COLOUR_TOLERANCE });
  await peer.expect('connected');
  return peer;
}

/** What LiveKit's Python server package says to all of `wishes` (see python_backend.py). */
export async function runBackend(wishes) {
  const program = here('../.venv/bin/python');
  // The development secret is short, which the package warns of.
  const child = spawn(program, ['-W', 'ignore', here('python_backend.py')], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.end(JSON.stringify(wishes));
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text) => (said += text));
  const code = await new Promise((resolve) => child.once('close', resolve));
  if (code !== 0) throw new Error(`the Python backend ended with ${code}: ${said}`);
  return JSON.parse(said);
}

class OutsidePeer {
  #name;
  #child;
  #events = [];
  #errors = '';
  #waiting = new Set();
  #exited;

  constructor(name, child) {
    this.#name = name;
    this.#child = child;
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (line.startsWith('{')) this.#events.push(JSON.parse(line));
      this.#waiting.forEach((check) => check());
    });
    child.stderr.setEncoding('utf8').on('data', (text) => (this.#errors = (this.#errors + text).slice(-4000)));
    this.#exited = new Promise((resolve) => child.once('exit', resolve)).then((code) => {
      this.#events.push({ event: 'exit', code });
      this.#waiting.forEach((check) => check());
    });
  }

  send(message) {
    this.#child.stdin.write(`${JSON.stringify(message)}\n`);
  }

  mark() {
    return this.#events.length;
  }

  /** The first event of that name with the given fields. */
  expect(event, wanted = {}, { after = 0, deadline = DEADLINE_MS } = {}) {
    const fits = (entry) =>
      entry.event === event && Object.entries(wanted).every(([key, value]) => JSON.stringify(entry[key]) === JSON.stringify(value));
    return new Promise((resolve, reject) => {
      const end = (settle, value) => {
        clearTimeout(timer);
        this.#waiting.delete(check);
        settle(value);
      };
      const fail = (why) =>
        end(reject, new Error(`${this.#name}: ${why} waiting for ${event} ${JSON.stringify(wanted)}; last seen:\n` +
          `${this.#events.slice(-12).map((entry) => JSON.stringify(entry)).join('\n')}\n${this.#errors}`));
      const check = () => {
        const found = this.#events.slice(after).find(fits);
        if (found) end(resolve, found);
        else if (this.#events.at(-1)?.event === 'exit') fail('ended while');
      };
      const timer = setTimeout(() => fail(`${deadline} ms`), deadline);
      this.#waiting.add(check);
      check();
    });
  }

  /** Runs a command and waits for its { event: 'done' }. */
  async command(name, args = {}) {
    const after = this.mark();
    this.send({ do: name, ...args });
    const { result } = await this.expect('done', { command: name }, { after });
    return result;
  }

  async leave() {
    if (this.#child.exitCode !== null) return;
    this.send({ do: 'leave' });
    this.#child.stdin.end();
    const giveUp = setTimeout(() => this.#child.kill('SIGKILL'), LEAVE_DEADLINE_MS);
    await this.#exited;
    clearTimeout(giveUp);
  }
}
