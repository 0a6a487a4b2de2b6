// `turn.relay_to_peers`: a client behind a router speaks through the relay to somebody who has nothing to do with the server, and
// to nobody whom the lists leave out. With coturn's client and peer, in network namespaces.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { Lab, PUBLIC, impossible } from '../harness/lab.mjs';
import { startServer } from '../harness/server.mjs';

const PEER = '192.0.2.2'; // bob, in the open
const PEER_PORT = 3490;
const DEADLINE_MS = 60_000;
/** How coturn's client says that it may not. */
const FORBIDDEN = /error 403/;

const hasTools = ['turnutils_uclient', 'turnutils_peer'].every((tool) => !spawnSync(tool, ['-h']).error);
const why = impossible() ?? (process.env.PATCHBAY_URL ? 'the server is somewhere else' : hasTools ? null : 'needs coturn');

const OFFER = [
  'v=0', 'o=- 1 1 IN IP4 0.0.0.0', 's=-', 't=0 0', 'a=group:BUNDLE 0',
  `a=fingerprint:sha-256 ${Array(32).fill('AB').join(':')}`, 'a=setup:actpass',
  'm=audio 9 UDP/TLS/RTP/SAVPF 111', 'c=IN IP4 0.0.0.0', 'a=mid:0', 'a=ice-ufrag:abcd', 'a=ice-pwd:abcdefghijklmnopqrstuv',
  'a=sendonly', 'a=rtcp-mux', 'a=rtpmap:111 opus/48000/2', '',
].join('\r\n');

describe('peers elsewhere', { skip: why ?? false }, () => {
  let lab;
  let peer;
  before(async () => {
    lab = new Lab();
    lab.set('symmetric NAT', '1:1 NAT');
    peer = spawn('nsenter', [`--net=/proc/${lab.pid('bob')}/ns/net`, '--', 'turnutils_peer', '-L', PEER, '-p', `${PEER_PORT}`], { stdio: 'ignore' });
    await once(peer, 'spawn');
  });
  after(() => {
    peer?.kill('SIGKILL');
    lab?.close();
  });

  const run = (...command) => spawnSync('nsenter', [`--net=/proc/${lab.pid('cli')}/ns/net`, '--', ...command], { encoding: 'utf8', timeout: DEADLINE_MS });

  /** A server, and how to send `count` messages of `bytes` through its relay: what coturn's client says. */
  async function start(turn) {
    const server = await startServer('peers', () => ({ bind_addresses: [], rtc: { single_port: 443, node_ip: PUBLIC.v4 }, turn: { enabled: true, per_user_relay_allocation_limit: 0, ...turn } }), { inside: lab.pid('srv'), host: PUBLIC.v4 });
    const token = await server.token('peers', 'alice');
    const answer = run('curl', '-s', '-i', '-X', 'POST', '-H', `authorization: Bearer ${token}`, '-H', 'content-type: application/sdp', '--data-binary', OFFER, `http://${PUBLIC.v4}:443/whip/v1`);
    const [, username, credential] = /rel="ice-server"; username="([^"]+)"; credential="([^"]+)"/.exec(answer.stdout) ?? assert.fail(`no relay in ${answer.stdout}`);
    const send = (to, ...more) => {
      const { stdout, stderr } = run('turnutils_uclient', '-u', username, '-w', credential, '-p', '443', '-e', to, '-r', `${PEER_PORT}`, '-c', ...more, PUBLIC.v4);
      return `${stdout}${stderr}`;
    };
    return { server, send };
  }

  test('whoever the lists let in is reached, by channels and by indications', { timeout: DEADLINE_MS }, async (context) => {
    const { server, send } = await start({ relay_to_peers: true, allow_restricted_peer_cidrs: ['192.0.2.0/24'] });
    try {
      for (const more of [['-n', '40', '-l', '171'], ['-n', '40', '-l', '1000', '-s'], ['-m', '5', '-n', '20', '-l', '800'], ['-t', '-n', '40', '-l', '500']]) {
        const said = send(PEER, ...more);
        const last = said.trim().split('\n').findLast((line) => line.includes('Total lost packets'));
        context.diagnostic(`${more.join(' ')}: ${last}`);
        assert.match(last ?? said, /Total lost packets 0 \(0\.0+%\)/);
      }
      // A router of this network, in no list; the server's own network; and its own address.
      for (const other of ['198.51.100.1', '10.0.0.1', PUBLIC.v4]) assert.match(send(other, '-n', '2', '-l', '100'), FORBIDDEN, other);
    } finally {
      await server.stop();
    }
  });

  test('without the mode nobody is', { timeout: DEADLINE_MS }, async () => {
    const { server, send } = await start({});
    try {
      assert.match(send(PEER, '-n', '2', '-l', '100'), FORBIDDEN);
    } finally {
      await server.stop();
    }
  });
});
