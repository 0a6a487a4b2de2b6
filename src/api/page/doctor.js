// Whether and how this browser gets through to the server: signalling, clock, media over UDP and TCP, and every TURN server that
// clients are told. Each way is tried alone, with a connection of its own (WHIP) that ends at once.
//
// `examine` finds out, the rest draws. A finding: { name, ok, ms, text }.

const CONNECT_DEADLINE_MS = 8_000;
const CLOCK_TOLERANCE_MS = 30_000;

/** What to do about a way that is closed. */
const ADVICE = {
  signal: 'The server cannot be reached over WebSocket. A proxy before it must pass on the headers Upgrade and Connection.',
  udp: 'UDP does not get through. Open the server’s media port (rtc.udp_port) for UDP, and check the address that it tells clients (rtc.node_ip). Some networks allow no UDP at all: the other ways are for them.',
  tcp: 'Media over TCP does not get through. Open rtc.tcp_port for TCP, without a proxy before it.',
  'turn udp': 'TURN over UDP does not get through. Open turn.udp_port for UDP.',
  'turn tcp': 'TURN over TCP does not get through. Open turn.udp_port for TCP as well.',
  'turns tcp': 'TURN under TLS does not get through. Open turn.tls_port, and check that turn.domain leads to this server and that its certificate is one that browsers trust, with the whole chain (fullchain.pem).',
};

/** Tries everything; `tell` is given each finding as it is known. */
export async function examine(token, tell) {
  const findings = [];
  const add = (finding) => {
    findings.push(finding);
    tell(finding);
  };
  add(await clock());
  add(await signal(token));
  if (!findings.at(-1).ok) return findings;
  // The first session is also how the servers are learned.
  const first = await attempt('Media over UDP', 'udp', token, { direct: 'udp' });
  add(first.finding);
  add((await attempt('Media over TCP', 'tcp', token, { direct: 'tcp' })).finding);
  for (const { urls: url } of first.servers) {
    const [scheme, transport] = [url.split(':')[0], /transport=(\w+)/.exec(url)?.[1] ?? 'udp'];
    if (scheme.startsWith('turn')) add((await attempt(url, `${scheme} ${transport}`, token, { relay: url })).finding);
  }
  // Of those of others, what the server finds itself: whether the fault is on this side or on that.
  for (const { url, ok, ms, text } of await seen(token)) add({ name: url, ok, ms, text });
  return findings;
}

async function seen(token) {
  const answer = await fetch('/doctor/relays', { headers: { authorization: `Bearer ${token}` } }).catch(() => null);
  return answer?.ok ? answer.json() : [];
}

/** A sentence for all of it. */
export function verdict(findings) {
  const media = findings.filter(({ way }) => way);
  const open = media.filter(({ ok }) => ok);
  if (!open.length) return 'No way for sound and pictures is open: calls from this browser will not work.';
  if (open.length === media.length) return 'Every way is open.';
  return open.some(({ way }) => way === 'udp') ? 'Calls will work, and well; some ways that others may need are closed.' : 'Calls will work, but not over UDP: on a bad network they will suffer.';
}

async function clock() {
  const name = 'Clocks';
  try {
    const answer = await fetch('/', { cache: 'no-store', headers: { accept: 'text/plain' } });
    const off = Math.abs(new Date(answer.headers.get('date')) - Date.now());
    if (!Number.isFinite(off)) return { name, ok: true, text: 'the server does not say what time it is' };
    const text = off <= CLOCK_TOLERANCE_MS ? 'agree' : `differ by ${Math.round(off / 1000)} s: access tokens made by one may be refused by the other. Switch on time synchronisation.`;
    return { name, ok: off <= CLOCK_TOLERANCE_MS, text };
  } catch {
    return { name, ok: false, text: 'The server does not answer.' };
  }
}

async function signal(token) {
  const name = 'Signalling';
  const parameters = new URLSearchParams({ access_token: token, protocol: '16', sdk: 'js', version: '2.0.0', format: 'json' });
  const refusal = await fetch(`/rtc/validate?${parameters}`).then(async (answer) => (answer.ok ? null : answer.text()), () => null);
  if (refusal !== null) return { name, ok: false, text: `The server refuses this access token: ${refusal}` };
  const start = performance.now();
  const url = new URL(`/rtc?${parameters}`, location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  const socket = new WebSocket(url);
  const message = await new Promise((resolve) => {
    const timer = setTimeout(resolve, CONNECT_DEADLINE_MS, null);
    socket.onmessage = ({ data }) => (clearTimeout(timer), resolve(JSON.parse(data)));
    socket.onclose = () => (clearTimeout(timer), resolve(null));
  });
  const ms = Math.round(performance.now() - start);
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ leave: { reason: 'CLIENT_INITIATED' } }));
  socket.close();
  return message?.join ? { name, ok: true, ms, text: location.protocol === 'https:' ? 'under TLS' : 'without TLS: browsers give cameras to pages from https only' } : { name, ok: false, text: ADVICE.signal };
}

/**
 * One connection by one way: `direct` = the only protocol of the server's own addresses, `relay` = the URL of the only TURN
 * server. A TURN server takes what it has given a session for as long as that lasts: so each attempt uses its own, and tries
 * nothing before the answer is there (the server learns from the checks where they come from).
 */
async function attempt(name, way, token, { direct, relay }) {
  const connection = new RTCPeerConnection();
  let place = null;
  let servers = [];
  const fail = (text) => ({ finding: { name, way, ok: false, text }, servers });
  try {
    connection.addTransceiver('audio', { direction: 'sendonly' });
    const offer = await connection.createOffer();
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/sdp' };
    const answer = await fetch('/whip/v1', { method: 'POST', headers, body: offer.sdp });
    if (!answer.ok) return fail(`The server refuses: ${await answer.text()}`);
    place = answer.headers.get('location');
    servers = serversOf(answer.headers.get('link') ?? '');
    const sdp = only(await answer.text(), relay ? 'udp' : direct);
    if (!sdp.includes('a=candidate:')) return fail('The server does not offer this.');
    if (relay) connection.setConfiguration({ iceServers: servers.filter(({ urls }) => urls === relay), iceTransportPolicy: 'relay' });
    const start = performance.now();
    await connection.setLocalDescription(offer);
    await connection.setRemoteDescription({ type: 'answer', sdp });
    if (!(await connected(connection))) return fail(ADVICE[way]);
    return { finding: { name, way, ok: true, ms: Math.round(performance.now() - start), text: 'open' }, servers };
  } catch (error) {
    return fail(error.message);
  } finally {
    connection.close();
    if (place) await fetch(place, { method: 'DELETE', headers: { authorization: `Bearer ${token}` } }).catch(() => {});
  }
}

/** The description with the server's candidates of one protocol. */
const only = (sdp, protocol) => sdp.split('\r\n').filter((line) => !line.startsWith('a=candidate:') || line.split(' ')[2].toLowerCase() === protocol).join('\r\n');

/** RFC 9725 §4.6: the ICE servers of Link headers. */
function serversOf(links) {
  const servers = links.matchAll(/<([^>]+)>([^<]*)/g);
  const value = (text, name) => new RegExp(`${name}="([^"]*)"`).exec(text)?.[1];
  return [...servers].map(([, url, rest]) => ({ urls: decodeURIComponent(url), username: value(rest, 'username'), credential: value(rest, 'credential') }));
}

const connected = (connection) => settled(connection, 'connectionstatechange', () => ({ connected: true, failed: false })[connection.connectionState], CONNECT_DEADLINE_MS);

/** Waits until `state` says something, at most `deadline`: false then. */
function settled(target, event, state, deadline) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, deadline, false);
    const look = () => {
      const found = state();
      if (found === undefined) return;
      clearTimeout(timer);
      target.removeEventListener(event, look);
      resolve(found);
    };
    target.addEventListener(event, look);
    look();
  });
}

// --- the page -------------------------------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);

/** In development the server makes tokens itself. */
async function tokenFromServer() {
  const body = JSON.stringify({ room: 'doctor', identity: `doctor-${crypto.getRandomValues(new Uint32Array(1))[0]}`, name: 'Doctor' });
  const answer = await fetch('/dev/token', { method: 'POST', headers: { 'content-type': 'application/json' }, body }).catch(() => null);
  return answer?.ok ? (await answer.json()).token : null;
}

function draw({ name, ok, ms, text }) {
  const item = document.createElement('li');
  item.dataset.ok = ok;
  item.textContent = `${ok ? '✓' : '✗'} ${name}: ${text}${ms === undefined ? '' : ` (${ms} ms)`}`;
  $('findings').append(item);
}

$('token').value = new URLSearchParams(location.hash.slice(1)).get('token') ?? '';

$('join').addEventListener('submit', async (event) => {
  event.preventDefault();
  $('start').disabled = true;
  $('findings').replaceChildren();
  $('verdict').textContent = '';
  $('problem').hidden = true;
  const token = $('token').value.trim() || (await tokenFromServer());
  if (token) {
    const findings = await examine(token, draw);
    $('verdict').textContent = verdict(findings);
  } else {
    $('problem').textContent = 'An access token is needed that may join a room and publish. “patchbay create-join-token” makes one.';
    $('problem').hidden = false;
  }
  $('start').disabled = false;
});
