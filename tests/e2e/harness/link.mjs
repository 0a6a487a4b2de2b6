// A bad network around a browser: the simulator's impairment as a relay of packets (tests/relay/impaired_link.rs), with a
// Chromium in the namespace at its far end.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const REPOSITORY = fileURLToPath(new URL('../../../', import.meta.url));
const ANSWER_DEADLINE_MS = 10_000;

/** `conditions` as the relay's command line takes them. */
export async function startLink(conditions = '') {
  const target = process.env.CARGO_TARGET_DIR ?? `${REPOSITORY}target`;
  const program = process.env.IMPAIRED_LINK_BIN ?? `${target}/debug/examples/impaired_link`;
  if (!existsSync(program)) throw new Error(`${program} is not there: cargo build --example impaired_link`);
  const link = new Link(spawn(program, [conditions], { stdio: ['pipe', 'pipe', 'pipe'] }));
  return Object.assign(link, await link.answer());
}

class Link {
  #child;
  #answers = [];
  #waiting = [];
  #errors = '';
  #ended;

  constructor(child) {
    this.#child = child;
    createInterface({ input: child.stdout }).on('line', (line) => {
      const waiting = this.#waiting.shift();
      if (waiting) waiting.resolve(JSON.parse(line));
      else this.#answers.push(JSON.parse(line));
    });
    child.stderr.setEncoding('utf8').on('data', (text) => (this.#errors += text));
    child.stdin.on('error', () => {}); // said by its end
    this.#ended = new Promise((resolve) => child.once('close', resolve)).then(() => {
      const error = new Error(`the relay ended: ${this.#errors || `exit code ${child.exitCode}`}`);
      this.#waiting.splice(0).forEach(({ reject }) => reject(error));
    });
  }

  /** What the relay prints next. */
  answer() {
    if (this.#answers.length) return Promise.resolve(this.#answers.shift());
    return new Promise((resolve, reject) => {
      const late = () => reject(new Error(`no answer of the relay within ${ANSWER_DEADLINE_MS} ms\n${this.#errors}`));
      const timer = setTimeout(late, ANSWER_DEADLINE_MS);
      const end = (settle) => (value) => (clearTimeout(timer), settle(value));
      this.#waiting.push({ resolve: end(resolve), reject: end(reject) });
    });
  }

  /** From now on, with changes to come: `rate=10M delay=20ms; at=5s rate=400k`. */
  set(conditions) {
    this.check();
    this.#child.stdin.write(`${conditions}\n`);
  }

  /** Whoever translates addresses at the far end forgets every flow: the next packet of each has another port. */
  rebind() {
    this.check();
    this.#child.stdin.write('rebind\n');
  }

  /**
   * What became of the packets of both directions since the report before; and in `first`, in ms since the conditions last
   * changed, when a connection was accepted, when a connectivity check of the client came, when it was answered and when
   * media went to where it came from.
   */
  report() {
    this.check();
    this.#child.stdin.write('report\n');
    return this.answer();
  }

  check() {
    if (this.#child.exitCode !== null) throw new Error(`the relay ended in the middle: ${this.#errors}`);
  }

  /** Takes the namespace away; what still runs in it should be ended before. */
  async stop() {
    this.#child.stdin.end();
    await this.#ended;
  }
}
