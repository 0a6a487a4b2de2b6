// A publisher that speaks HTTP (WHIP): a browser's own peer connection, seen by a livekit-client.

import assert from 'node:assert/strict';
import { story } from '../harness/story.mjs';

/* global paintPicture, RTCPeerConnection, document, window -- of the page */

/** In the page: publishes a picture; what it says is kept in `window.whip`. */
async function publish({ url, token }) {
  const canvas = document.createElement('canvas');
  Object.assign(canvas, { width: 320, height: 180 });
  const context = canvas.getContext('2d');
  let counter = 0;
  setInterval(() => paintPicture(context, 320, 180, 'red', (counter = (counter + 1) & 0xff)), 66);
  const stream = canvas.captureStream(15);
  const connection = new RTCPeerConnection();
  connection.addTransceiver(stream.getVideoTracks()[0], { direction: 'sendonly', streams: [stream] });
  await connection.setLocalDescription();
  const authorization = `Bearer ${token}`;
  const headers = { authorization, 'content-type': 'application/sdp' };
  const response = await fetch(`${url}/whip/v1`, { method: 'POST', headers, body: connection.localDescription.sdp });
  const [answer, location, etag] = [await response.text(), response.headers.get('location'), response.headers.get('etag')];
  if (response.status !== 201) return { status: response.status, answer };
  await connection.setRemoteDescription({ type: 'answer', sdp: answer });
  const connected = () =>
    new Promise((resolve) => {
      const check = () => connection.connectionState === 'connected' && resolve();
      connection.addEventListener('connectionstatechange', check);
      check();
    });
  await connected();
  window.whip = { connection, answer, etag, resource: `${url}${location}`, authorization };
  return { status: response.status, location, etag };
}

/** In the page: an ICE restart by PATCH. */
async function restart() {
  const { connection, answer, resource, authorization } = window.whip;
  const before = connection.localDescription.sdp.match(/a=ice-ufrag:(.*)/)[1];
  connection.restartIce();
  await connection.setLocalDescription();
  const pick = (text, name) => text.match(new RegExp(`a=${name}:(.*)\\r\\n`))[0];
  const { sdp } = connection.localDescription;
  const body = `${pick(sdp, 'ice-ufrag')}${pick(sdp, 'ice-pwd')}m=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n`;
  const headers = { authorization, 'content-type': 'application/trickle-ice-sdpfrag', 'if-match': '*' };
  const response = await fetch(resource, { method: 'PATCH', headers, body });
  const fragment = await response.text();
  const renewed = answer
    .replace(/a=ice-ufrag:.*\r\n/g, pick(fragment, 'ice-ufrag'))
    .replace(/a=ice-pwd:.*\r\n/g, pick(fragment, 'ice-pwd'));
  await connection.setRemoteDescription({ type: 'answer', sdp: renewed });
  await new Promise((resolve) => {
    const check = () => {
      const pair = connection.sctp?.transport ?? connection.getSenders()[0].transport;
      if (pair.iceTransport.getSelectedCandidatePair() && pair.iceTransport.state === 'connected') resolve();
      else setTimeout(check, 50);
    };
    check();
  });
  return { status: response.status, etag: response.headers.get('etag'), changed: before !== sdp.match(/a=ice-ufrag:(.*)/)[1] };
}

async function end() {
  const { connection, resource, authorization } = window.whip;
  const response = await fetch(resource, { method: 'DELETE', headers: { authorization } });
  connection.close();
  return response.status;
}

story('a browser publishes over HTTP', { forms: ['single'] }, async (world) => {
  const alice = await world.join('alice');
  const page = await world.open(world.peerPage, 'camera');
  const created = await page.evaluate(publish, { url: world.server.url, token: await world.token('camera') });
  assert.equal(created.status, 201, JSON.stringify(created));
  const participants = await world.api.listParticipants(world.room);
  const camera = participants.find(({ identity }) => identity === 'camera');
  assert.equal(created.location, `/whip/v1/${camera.sid}`);
  await alice.sees('camera', 'red');

  const restarted = await page.evaluate(restart);
  assert.ok(restarted.status === 200 && restarted.changed && restarted.etag !== created.etag, JSON.stringify(restarted));
  await alice.sees('camera', 'red');

  assert.equal(await page.evaluate(end), 200);
  await alice.expect('participantDisconnected', { identity: 'camera' });
});
