// A worker of LiveKit's agents package is given a job, joins, and answers a browser. Left out where the package is not
// installed (see setup.sh).

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { AgentDispatchClient, RoomAgentDispatch, RoomConfiguration } from 'livekit-server-sdk';
import { story } from '../harness/story.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const PYTHON = process.env.AGENTS_PYTHON ?? here('../.venv-agents/bin/python');
const DEADLINE_MS = 30_000;

/** The worker's process; `expect` waits for one of its events. */
async function startWorker(world, agent) {
  const child = spawn(PYTHON, ['-W', 'ignore', here('../harness/agent_worker.py')], { stdio: ['pipe', 'pipe', 'pipe'] });
  const { signal: url, key, secret } = world.server;
  child.stdin.write(`${JSON.stringify({ url, key, secret, agent })}\n`);
  const events = [];
  let errors = '';
  let nudge = () => {};
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (!line.startsWith('{"event"')) return;
    events.push(JSON.parse(line));
    nudge();
  });
  child.stderr.setEncoding('utf8').on('data', (text) => (errors = (errors + text).slice(-4000)));
  const worker = {
    expect: (event) =>
      new Promise((resolve, reject) => {
        const late = setTimeout(() => reject(new Error(`no ${event}: ${JSON.stringify(events)}\n${errors}`)), DEADLINE_MS);
        nudge = () => {
          const found = events.find((one) => one.event === event);
          if (found) clearTimeout(late), resolve(found);
        };
        nudge();
      }),
    stop: () => child.kill('SIGKILL'),
  };
  await worker.expect('registered');
  return worker;
}

story('an agent of the Python package', { forms: ['single'], skip: !existsSync(PYTHON) }, async (world) => {
  const worker = await startWorker(world, 'greeter');
  try {
    const roomConfig = new RoomConfiguration({ agents: [new RoomAgentDispatch({ agentName: 'greeter', metadata: 'as agreed' })] });
    const alice = await world.page('alice');
    const token = await world.token('alice', { roomConfig });
    await alice.connect({ url: world.server.signal, token, form: world.form });
    const joined = await worker.expect('joined');
    assert.deepEqual([joined.room, joined.metadata], [world.room, 'as agreed']);
    await alice.expect('participantConnected', { identity: joined.identity });
    await alice.sendData('stressed', { reliable: true, topic: 'word' });
    await alice.expect('dataReceived', { identity: joined.identity, text: 'desserts', topic: 'turned', reliable: true });

    const dispatches = new AgentDispatchClient(world.server.url, world.server.key, world.server.secret);
    const [dispatch] = await dispatches.listDispatch(world.room);
    assert.equal(dispatch.agentName, 'greeter');
    const [job] = dispatch.state.jobs;
    assert.equal(job.state.participantIdentity, joined.identity);
    await dispatches.deleteDispatch(dispatch.id, world.room);
    await alice.expect('participantDisconnected', { identity: joined.identity });
    await worker.expect('ended');
  } finally {
    worker.stop();
  }
});
