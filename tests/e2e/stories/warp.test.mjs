// Fewer round trips: how long LiveKit's Python package takes to join over a link of 100 ms there and back, with SCTP's first
// chunks in the descriptions (SNAP) and the DTLS handshake in the connectivity checks (SPED), each off and on.
//
// Needs root and /dev/net/tun. NETWORK=all (`make network`) runs it; the figures are said.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { randomBytes } from 'node:crypto';
import { startLink } from '../harness/link.mjs';
import { startOutside } from '../harness/outside.mjs';
import { startServer } from '../harness/server.mjs';

const LINK = 'rate=none queue=1s delay=50ms jitter=0ms loss=0% burst=1/0% reorder=0%/0ms duplicate=0% cut=no';
const JOINS = 5;
/** ms: a round trip of the link, less what a busy machine adds here and there. */
const SAVED = 70;

const skip = process.env.PATCHBAY_URL ? 'the server is somewhere else' : process.env.NETWORK !== 'all' && 'NETWORK=all runs it';
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

let link = null;
before(async () => {
  if (!skip) link = await startLink(LINK);
});
after(() => link?.stop());

/** Medians, ms since the client began to connect: its promise, its first message sent, its first picture of another. */
async function join(enable_snap, enable_warp) {
  const server = await startServer('warp', () => ({ bind_addresses: ['127.0.0.1', link.here], rtc: { enable_snap, enable_warp } }));
  const times = { connected: [], sent: [], seen: [] };
  try {
    const room = `warp-${randomBytes(5).toString('hex')}`;
    const wishes = async (identity, host) => ({ url: server.signal.replace('127.0.0.1', host), token: await server.token(room, identity), identity, form: 'single' });
    const bob = await startOutside('python', { ...(await wishes('bob', '127.0.0.1')), colour: 'green' });
    for (let i = 0; i < JOINS; i += 1) {
      const alice = await startOutside('python', { ...(await wishes(`alice-${i}`, link.here)), first: 'hello' }, { inside: link.pid });
      for (const [event, name] of [['connected', 'connected'], ['sent', 'sent'], ['picture', 'seen']]) {
        times[name].push((await alice.expect(event)).ms);
      }
      await alice.leave();
    }
    await bob.leave();
  } finally {
    await server.stop();
  }
  return Object.fromEntries(Object.entries(times).map(([name, values]) => [name, median(values)]));
}

test('joins over 100 ms', { skip: skip || false, timeout: 180_000 }, async (context) => {
  const times = {};
  for (const [snap, sped] of [[false, false], [true, false], [false, true], [true, true]]) {
    const name = `SNAP ${snap ? 'on' : 'off'}, SPED ${sped ? 'on' : 'off'}`;
    times[name] = await join(snap, sped);
    context.diagnostic(`${name}: ${JSON.stringify(times[name])}`);
  }
  const [none, snap, sped, both] = Object.values(times);
  assert.ok(snap.sent <= none.sent - SAVED, 'SNAP opens data channels sooner');
  assert.ok(sped.sent <= none.sent - SAVED && sped.seen <= none.seen - SAVED, 'SPED brings both sooner');
  assert.ok(both.sent <= none.sent - 2 * SAVED, 'both open data channels sooner than one');
});
