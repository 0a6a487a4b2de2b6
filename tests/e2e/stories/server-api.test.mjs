// A call steered from outside through the room service, with LiveKit's own server SDK.

import assert from 'node:assert/strict';
import { AgentDispatchClient, DataPacket_Kind, EgressClient, IngressClient, SipClient } from 'livekit-server-sdk';
import { runBackend } from '../harness/outside.mjs';
import { story } from '../harness/story.mjs';

story('permissions taken away and given back in the middle of a call', {}, async (world) => {
  const [alice, bob] = await Promise.all([world.join('alice'), world.join('bob')]);
  await alice.publishPicture({ colour: 'red' });
  await bob.sees('alice', 'red');

  await world.api.updateParticipant(world.room, 'alice', { permission: { canPublish: false, canPublishData: true, canSubscribe: true } });
  await bob.expect('trackUnpublished', { identity: 'alice', source: 'camera' });
  await alice.expect('localTrackUnpublished', { source: 'camera' });
  const revoked = await alice.mark();
  await world.api.updateParticipant(world.room, 'alice', { permission: { canPublish: true, canPublishData: true, canSubscribe: true } });
  await alice.expect('participantPermissionsChanged', { identity: 'alice' }, { after: revoked });
  const after = await bob.mark();
  await alice.publishPicture({ colour: 'yellow', name: 'second' });
  await bob.expect('trackSubscribed', { identity: 'alice' }, { after });
  await bob.sees('alice', 'yellow', { name: 'second' });

  await world.api.updateParticipant(world.room, 'bob', { permission: { canPublish: true, canPublishData: true, canSubscribe: false } });
  await bob.expect('trackUnsubscribed', { identity: 'alice' }, { after });
  await world.api.updateParticipant(world.room, 'bob', { permission: { canPublish: true, canPublishData: true, canSubscribe: true } });
  await bob.sees('alice', 'yellow', { name: 'second' });
});

story('muted by the server', {}, async (world) => {
  const [alice, bob] = await Promise.all([world.join('alice'), world.join('bob')]);
  await alice.publishTone({ hz: 440 });
  await bob.hears('alice', 440);
  const { sid } = await alice.publication('alice', { source: 'microphone' });
  await world.api.mutePublishedTrack(world.room, 'alice', sid, true);
  await Promise.all([bob.expect('trackMuted', { identity: 'alice', trackSid: sid }), alice.expect('trackMuted', { identity: 'alice', trackSid: sid })]);
  await bob.silent('alice');
  assert.equal(await alice.isMuted('microphone'), true);
});

story('what the server says of the room and its people', {}, async (world) => {
  const [alice, bob] = await Promise.all([world.join('alice'), world.join('bob')]);
  await Promise.all([alice.waitForOthers(['bob']), bob.waitForOthers(['alice'])]);
  await alice.publishTone({ hz: 440 });
  await bob.hears('alice', 440);
  const known = await world.api.listParticipants(world.room);
  assert.deepEqual(Object.fromEntries(known.map(({ identity, tracks }) => [identity, tracks.map(({ name }) => name)])), { alice: ['microphone'], bob: [] });

  await world.api.updateRoomMetadata(world.room, 'a room with a view');
  await Promise.all([alice, bob].map((peer) => peer.expect('roomMetadataChanged')));
  assert.equal((await bob.roomInfo()).metadata, 'a room with a view');
  await world.api.updateParticipant(world.room, 'bob', { name: 'Robert', metadata: 'by the server' });
  await alice.expect('participantNameChanged', { identity: 'bob' });
  assert.equal((await alice.participant('bob')).name, 'Robert');

  const text = new TextEncoder().encode('from the server');
  await world.api.sendData(world.room, text, DataPacket_Kind.RELIABLE, { topic: 'server', destinationIdentities: ['bob'] });
  await bob.expect('dataReceived', { text: 'from the server', topic: 'server' });
  assert.equal(await alice.happened('dataReceived', {}), false);
});

story('put out by the server', {}, async (world) => {
  const [alice, bob] = await Promise.all([world.join('alice'), world.join('bob')]);
  await bob.waitForOthers(['alice']);
  assert.ok((await world.api.listRooms([world.room])).length === 1);
  await world.api.removeParticipant(world.room, 'alice');
  await alice.expect('disconnected', { reason: 'PARTICIPANT_REMOVED' });
  await bob.expect('participantDisconnected', { identity: 'alice' });
  await world.api.deleteRoom(world.room);
  await bob.expect('disconnected', { reason: 'ROOM_DELETED' });
  assert.equal((await world.api.listRooms([world.room])).length, 0);
});

story('subscribed and unsubscribed by the server', { forms: ['single'] }, async (world) => {
  const [alice, bob] = await Promise.all([world.join('alice'), world.join('bob')]);
  await alice.publishPicture({ colour: 'red' });
  await bob.sees('alice', 'red');
  const { sid } = await alice.publication('alice', { source: 'camera' });
  await world.api.updateSubscriptions(world.room, 'bob', [sid], false);
  await bob.expect('trackUnsubscribed', { identity: 'alice' });
  const after = await bob.mark();
  await world.api.updateSubscriptions(world.room, 'bob', [sid], true);
  await bob.expect('trackSubscribed', { identity: 'alice' }, { after });
  await bob.sees('alice', 'red');
});

story('a method of a participant is called by the server', {}, async (world) => {
  const alice = await world.join('alice');
  // This call is newer than the SDK.
  const token = await world.token('backend', { grant: { roomAdmin: true } });
  const call = async (identity, method) => {
    const body = JSON.stringify({ room: world.room, destinationIdentity: identity, method, payload: 'stressed' });
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    const answer = await fetch(`${world.server.url}/twirp/livekit.RoomService/PerformRpc`, { method: 'POST', headers, body });
    return [answer.status, await answer.json()];
  };
  assert.deepEqual(await call('alice', 'reverse'), [200, { payload: 'desserts' }]);
  const unknown = 'twirp error unknown: RpcError 1400: Method not supported at destination';
  assert.deepEqual(await call('alice', 'nothing'), [400, { code: 'invalid_argument', msg: unknown }]);
  assert.equal((await call('nobody', 'reverse'))[0], 503);
  assert.equal((await world.api.listParticipants(world.room)).length, 1, 'the caller is nobody in the room');
  await alice.leave();
});

story('moved to another room, with what it has', {}, async (world) => {
  const [alice, bob] = await Promise.all([world.join('alice'), world.join('bob')]);
  await Promise.all([alice.publishPicture({ colour: 'red', simulcast: true, width: 640, height: 360 }), bob.publishPicture({ colour: 'green' })]);
  await Promise.all([bob.sees('alice', 'red'), alice.sees('bob', 'green')]);
  const { sid } = await alice.publication('alice', { source: 'camera' });
  const elsewhere = `${world.room}-elsewhere`;
  const carol = await world.page('carol');
  await carol.connect({ url: world.server.signal, token: await world.server.token(elsewhere, 'carol'), form: world.form });
  await carol.publishPicture({ colour: 'yellow' });
  await world.api.moveParticipant(world.room, 'alice', elsewhere);
  await Promise.all([alice.expect('moved'), bob.expect('participantDisconnected', { identity: 'alice' })]);
  await Promise.all([carol.sees('alice', 'red'), alice.sees('carol', 'yellow')]);
  assert.equal((await carol.publication('alice', { source: 'camera' })).sid, sid);
  await alice.publishTone({ hz: 440 });
  await carol.hears('alice', 440);
  for (const event of ['signalReconnecting', 'reconnecting', 'disconnected']) {
    assert.equal(await alice.happened(event, {}), false, `${event}: nothing was connected anew`);
  }
  const names = async (room) => (await world.api.listParticipants(room)).map(({ identity }) => identity).sort();
  assert.deepEqual([await names(world.room), await names(elsewhere)], [['bob'], ['alice', 'carol']]);
  assert.equal((await alice.roomInfo()).name, elsewhere);
});

story('shown in another room, with what it publishes', {}, async (world) => {
  const alice = await world.join('alice');
  await alice.publishPicture({ colour: 'red', simulcast: true, width: 640, height: 360 });
  const elsewhere = `${world.room}-elsewhere`;
  const carol = await world.page('carol');
  await carol.connect({ url: world.server.signal, token: await world.server.token(elsewhere, 'carol'), form: world.form });
  // The SDK has no call for it.
  const token = await world.token('backend', { grant: { roomAdmin: true, destinationRoom: elsewhere } });
  const body = JSON.stringify({ room: world.room, identity: 'alice', destinationRoom: elsewhere });
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  const answer = await fetch(`${world.server.url}/twirp/livekit.RoomService/ForwardParticipant`, { method: 'POST', headers, body });
  assert.deepEqual([answer.status, await answer.json()], [200, {}]);
  await carol.sees('alice', 'red');
  await alice.publishTone({ hz: 440 });
  await carol.hears('alice', 440);
  await alice.mute('microphone');
  await Promise.all([carol.expect('trackMuted', { identity: 'alice' }), carol.silent('alice')]);
  await alice.unmute('microphone');
  await carol.hears('alice', 440);
  await alice.unpublish('camera');
  await carol.expect('trackUnpublished', { identity: 'alice', source: 'camera' });
  await alice.leave();
  await carol.expect('participantDisconnected', { identity: 'alice' });
});

story('rooms, agents, and services that are not there', { forms: ['single'] }, async (world) => {
  const { url, key, secret } = world.server;
  const made = await world.api.createRoom({ name: world.room, emptyTimeout: 60, maxParticipants: 1, metadata: 'm', agents: [{ agentName: 'echo' }] });
  assert.deepEqual([made.name, made.emptyTimeout, made.maxParticipants, made.metadata], [world.room, 60, 1, 'm']);
  assert.equal((await world.api.createRoom({ name: world.room, metadata: 'other' })).metadata, 'm');
  const dispatches = new AgentDispatchClient(url, key, secret);
  const { id } = await dispatches.createDispatch(world.room, 'second', { metadata: 'for the agent' });
  assert.deepEqual((await dispatches.listDispatch(world.room)).map(({ agentName }) => agentName), ['echo', 'second']);
  assert.equal((await dispatches.getDispatch(id, world.room)).metadata, 'for the agent');
  await dispatches.deleteDispatch(id, world.room);
  assert.equal((await dispatches.listDispatch(world.room)).length, 1);
  await assert.rejects(world.api.getParticipant(world.room, 'nobody'), { status: 404, code: 'not_found' });

  await world.join('alice');
  await assert.rejects(world.join('bob'), 'the room is full');
  const absent = { status: 500, code: 'internal' };
  await assert.rejects(new EgressClient(url, key, secret).listEgress(), absent);
  await assert.rejects(new IngressClient(url, key, secret).listIngress(), absent);
  await assert.rejects(new SipClient(url, key, secret).listSipInboundTrunk(), absent);
});

story("every call of the room service with LiveKit's Python package", { forms: ['single'] }, async (world) => {
  const [alice, bob] = await Promise.all([world.join('alice'), world.join('bob')]);
  await Promise.all([alice.publishTone({ hz: 440 }), alice.waitForOthers(['bob']), bob.waitForOthers(['alice'])]);
  await bob.hears('alice', 440);
  const { sid } = await alice.publication('alice', { source: 'microphone' });
  const said = await runBackend({ url: world.server.url, key: world.server.key, secret: world.server.secret, room: world.room, track: sid });
  assert.deepEqual(said.participants, ['alice', 'bob']);
  assert.deepEqual([said.unknown, said.forwarded], ['not_found', ['bob']]);
  assert.deepEqual(said.dispatches, ['', 'from python']);
  await Promise.all([
    alice.expect('trackMuted', { identity: 'alice', trackSid: sid }),
    bob.expect('dataReceived', { text: 'from python', topic: 'table' }),
    alice.expect('participantNameChanged', { identity: 'bob' }),
    alice.expect('roomMetadataChanged'),
    bob.expect('disconnected', { reason: 'PARTICIPANT_REMOVED' }),
    alice.expect('disconnected', { reason: 'ROOM_DELETED' }),
  ]);
});
