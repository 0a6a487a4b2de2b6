// Who gets through: every kind of client network against every kind of server network, with the server on one port (443).
//
// A cell passes when its client and somebody in the open see and hear each other. Times are said, not judged: they are this
// machine's. MATRIX=all (`make matrix`) runs every cell, otherwise a few. Needs root, iproute2 and nftables (harness/lab.mjs).

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { startBrowser } from '../harness/browser.mjs';
import { CLIENT_SIDES, Lab, PUBLIC, SERVER_SIDES, impossible } from '../harness/lab.mjs';
import { runLoadTest } from '../harness/load.mjs';
import { startOutside } from '../harness/outside.mjs';
import { ARTEFACTS, startServer } from '../harness/server.mjs';

const CELL_DEADLINE_MS = 60_000;
const all = process.env.MATRIX === 'all';
/** Of those that run everywhere: one that each way through is needed for. */
const FEW = new Set(['open/1:1 NAT', 'UDP blocked/published ports', 'symmetric NAT/hairpin', 'IPv6 only/1:1 NAT']);
const COLUMN = 17;

const why = impossible() ?? (process.env.PATCHBAY_URL ? 'the server is somewhere else' : null);

describe('the matrix of networks', { skip: why ?? false }, () => {
  let lab;
  let near; // the browser of the client's side
  let far; // that of somebody in the open
  const times = new Map();

  before(async () => {
    mkdirSync(ARTEFACTS, { recursive: true });
    lab = new Lab();
    lab.set('open', '1:1 NAT');
    [near, far] = await Promise.all(['cli', 'bob'].map((name) => startBrowser(`matrix-${name}`, { link: { pid: lab.pid(name), here: PUBLIC.v4 } })));
  });
  after(async () => {
    await Promise.all([near?.close(), far?.close()]);
    lab?.close();
    report(times);
  });

  for (const serverSide of Object.keys(SERVER_SIDES)) {
    describe(serverSide, () => {
      let server;
      before(async () => {
        lab.set('open', serverSide);
        const two = serverSide === 'two addresses';
        const rtc = two ? { ips: { includes: [...PUBLIC.two.map((ip) => `${ip}/32`), '2001:db8::/32'] } } : { node_ip: `${PUBLIC.v4},${PUBLIC.v6}` };
        const host = two ? PUBLIC.two[0] : PUBLIC.v4;
        server = await startServer('matrix', () => ({ bind_addresses: [], rtc: { single_port: 443, ...rtc } }), { inside: lab.pid('srv'), host });
      });
      after(() => server?.stop());

      for (const clientSide of Object.keys(CLIENT_SIDES)) {
        const cell = `${clientSide}/${serverSide}`;
        const wanted = all || FEW.has(cell);
        const url = () => (clientSide === 'IPv6 only' ? `ws://[${PUBLIC.v6}]:443` : server.signal);
        const options = { timeout: CELL_DEADLINE_MS, skip: wanted ? false : 'MATRIX=all runs it' };
        const note = (client, said) => times.set(`${client}/${cell}`, said);

        test(`Chromium, ${clientSide}`, options, async () => {
          lab.set(clientSide, serverSide);
          note('Chromium', await browserCell(server, near, far, url()));
        });
        test(`Python, ${clientSide}`, options, async () => {
          lab.set(clientSide, serverSide);
          note('Python', await pythonCell(server, lab.pid('cli'), far, url()));
        });
        test(`str0m, ${clientSide}`, options, async (context) => {
          if (['UDP blocked', 'only TCP 443'].includes(clientSide)) {
            note('str0m', 'no TCP');
            return context.skip('str0m has neither ICE-TCP nor TURN: it cannot leave this network');
          }
          lab.set(clientSide, serverSide);
          note('str0m', await loadCell(lab.pid('cli'), url()));
        });
      }
    });
  }
});

const room = () => `matrix-${randomBytes(4).toString('hex')}`;

/** Somebody in the open with a picture and a tone. */
async function openPeer(server, far, name) {
  const page = await far.open(far.peerPage, 'bob');
  await page.evaluate(async ([wishes]) => {
    await peer.connect(wishes);
    await Promise.all([peer.publishPicture({ colour: 'green' }), peer.publishTone({ hz: 660 })]);
  }, [{ url: server.signal, token: await server.token(name, 'bob'), form: 'single' }]);
  return page;
}

async function browserCell(server, near, far, url) {
  const name = room();
  const bob = await openPeer(server, far, name);
  const alice = await near.open(near.peerPage, 'alice');
  try {
    const time = await alice.evaluate(async ([wishes]) => {
      const { connected, firstFrame } = await peer.timeJoin(wishes, 'bob');
      await Promise.all([peer.publishPicture({ colour: 'red' }), peer.publishTone({ hz: 440 })]);
      await Promise.all([peer.sees('bob', 'green'), peer.hears('bob', 660)]);
      return [connected, firstFrame];
    }, [{ url, token: await server.token(name, 'alice'), form: 'single' }]);
    await bob.evaluate(() => Promise.all([peer.sees('alice', 'red'), peer.hears('alice', 440)]));
    const path = await alice.evaluate(async () => {
      const [pairs, locals] = [await peer.stats('candidate-pair'), await peer.stats('local-candidate')];
      const used = pairs.find(({ nominated, state }) => nominated && state === 'succeeded');
      const { candidateType, protocol, relayProtocol } = locals.find(({ id }) => id === used.localCandidateId);
      return candidateType === 'relay' ? `relay ${relayProtocol}` : protocol;
    });
    return `${Math.round(time[0])}/${Math.round(time[1])} ${path}`;
  } finally {
    await Promise.allSettled([alice, bob].map((page) => page.context().close()));
  }
}

async function pythonCell(server, pid, far, url) {
  const name = room();
  const bob = await openPeer(server, far, name);
  const python = await startOutside('python', { url, token: await server.token(name, 'python'), identity: 'python', form: 'single', colour: 'red', hz: 440 }, { inside: pid });
  try {
    const { ms } = await python.expect('connected');
    await Promise.all([
      python.expect('picture', { who: 'bob', colour: 'green', moving: true }),
      python.expect('tone', { who: 'bob', hz: 660 }),
      bob.evaluate(() => Promise.all([peer.sees('python', 'red'), peer.hears('python', 440)])),
    ]);
    return `${ms}`;
  } finally {
    await Promise.allSettled([python.leave(), bob.context().close()]);
  }
}

/** Two of the load tester's participants, both in the client's network: what one sends, the other receives. */
async function loadCell(pid, url) {
  const wishes = ['--url', url, '--publishers', '1', '--subscribers', '1', '--audio', '--duration', '2s', '--max-loss', '5'];
  const { ok, text, report } = await runLoadTest(wishes, { inside: pid });
  assert.ok(ok && report.tracks_received === report.tracks_expected && report.packets_out > 0, text);
  return `${Math.round(report.join_ms_p99)}`;
}

function report(times) {
  const clients = ['Chromium', 'Python', 'str0m'];
  for (const client of clients) {
    console.log(`# ${client}: ms to connected${client === 'Chromium' ? '/first frame, path' : ''}`);
    console.log(`# ${''.padEnd(COLUMN)}${Object.keys(SERVER_SIDES).map((side) => side.padEnd(COLUMN)).join('')}`);
    for (const side of Object.keys(CLIENT_SIDES)) {
      const cells = Object.keys(SERVER_SIDES).map((serverSide) => (times.get(`${client}/${side}/${serverSide}`) ?? '-').padEnd(COLUMN));
      console.log(`# ${side.padEnd(COLUMN)}${cells.join('')}`);
    }
  }
}
