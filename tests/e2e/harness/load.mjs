// The load tester's clients (str0m) as participants somewhere else: inside the network namespace of another process.

import { spawn } from 'node:child_process';
import { binary } from './server.mjs';

/** Runs it to its end: { ok, text, report }. */
export async function runLoadTest(args, { inside }) {
  const child = spawn('nsenter', [`--net=/proc/${inside}/ns/net`, '--', binary(), 'load-test', ...args, '--json'], { stdio: ['ignore', 'pipe', 'pipe'] });
  let [said, errors] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text) => (said += text));
  child.stderr.setEncoding('utf8').on('data', (text) => (errors += text));
  const code = await new Promise((resolve) => child.once('close', resolve));
  const text = `${said}\n${errors}`;
  return { ok: code === 0, text, report: code === 0 ? JSON.parse(said) : null };
}
