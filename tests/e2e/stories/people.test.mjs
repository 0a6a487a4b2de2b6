// Who is in the room: coming, leaving, being thrown out, what one may do, and what the others know of one.

import assert from 'node:assert/strict';
import { AccessToken, TrackSource } from 'livekit-server-sdk';
import { story } from '../harness/story.mjs';

story('somebody leaves, somebody vanishes', {}, async (world) => {
  const [alice, bob, carol] = await Promise.all(['alice', 'bob', 'carol'].map((identity) => world.join(identity)));
  await alice.waitForOthers(['bob', 'carol']);
  await bob.publishPicture({ colour: 'green' });
  await alice.sees('bob', 'green');

  await bob.leave();
  await bob.expect('disconnected', { reason: 'CLIENT_INITIATED' });
  await Promise.all([alice, carol].map((peer) => peer.expect('participantDisconnected', { identity: 'bob' })));
  await alice.waitForOthers(['carol']);
  await carol.leave();
  await alice.waitForOthers([]);
  assert.equal((await world.api.listParticipants(world.room)).length, 1);
});

story('the same identity again puts the first one out', {}, async (world) => {
  const [first, bob] = await Promise.all([world.join('alice'), world.join('bob')]);
  await first.publishPicture({ colour: 'red' });
  await bob.sees('alice', 'red');
  const second = await world.join('alice');
  await first.expect('disconnected', { reason: 'DUPLICATE_IDENTITY' });
  await second.publishPicture({ colour: 'blue' });
  await bob.sees('alice', 'blue');
  assert.deepEqual(await bob.others(), ['alice']);
});

story('who may not publish cannot, whatever the client thinks', {}, async (world) => {
  const [alice, bob] = await Promise.all([
    world.join('alice', { token: { grant: { canPublish: false } } }),
    world.join('bob', { token: { grant: { canPublishSources: [TrackSource.MICROPHONE] } } }),
  ]);
  for (const peer of [alice, bob]) {
    await peer.forgetPermissions();
    // The client gives up on it after ten seconds; the server's answer comes at once.
    peer.publishPicture({ colour: 'red' }).catch(() => {});
    await peer.expect('requestResponse', { values: ['NOT_ALLOWED'] });
  }
  await bob.publishTone({ hz: 660 });
  await alice.hears('bob', 660);
  const known = await world.api.listParticipants(world.room);
  const sources = Object.fromEntries(known.map(({ identity, tracks }) => [identity, tracks.map(({ source }) => source)]));
  assert.deepEqual(sources, { alice: [], bob: [TrackSource.MICROPHONE] });
});

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

story('metadata, attributes and names', {}, async (world) => {
  const grant = { canUpdateOwnMetadata: true };
  const [alice, bob] = await Promise.all([
    world.join('alice', { token: { grant, name: 'Alice', metadata: 'first', attributes: { seat: '1', hat: 'red' } } }),
    world.join('bob'),
  ]);
  await Promise.all([bob.waitForOthers(['alice']), alice.waitForOthers(['bob'])]);
  const { name, metadata, attributes } = await bob.participant('alice');
  assert.deepEqual({ name, metadata, attributes }, { name: 'Alice', metadata: 'first', attributes: { seat: '1', hat: 'red' } });

  await alice.setMetadata('second');
  await bob.expect('participantMetadataChanged', { identity: 'alice' });
  await alice.setName('Alice Liddell');
  await bob.expect('participantNameChanged', { identity: 'alice' });
  await alice.setAttributes({ seat: '2', hat: '' });
  await bob.expect('participantAttributesChanged', { identity: 'alice' });
  const known = await bob.participant('alice');
  assert.equal(known.metadata, 'second');
  assert.equal(known.name, 'Alice Liddell');
  assert.deepEqual(known.attributes, { seat: '2' });
  await assert.rejects(bob.setName('Bobby'), /permission|not allowed|does not have/i);

  await world.api.updateRoomMetadata(world.room, 'a room with a view');
  await Promise.all([alice, bob].map((peer) => peer.expect('roomMetadataChanged')));
  assert.equal((await bob.roomInfo()).metadata, 'a room with a view');
  await world.api.updateParticipant(world.room, 'bob', { name: 'Robert', metadata: 'by the server' });
  await alice.expect('participantNameChanged', { identity: 'bob' });
  assert.equal((await alice.participant('bob')).name, 'Robert');
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

story('a token the server does not accept', {}, async (world, form) => {
  const page = await world.page('mallory');
  const { key, secret, url } = world.server;
  const forged = new AccessToken(key, `${secret}!`, { identity: 'mallory' });
  forged.addGrant({ roomJoin: true, room: world.room });
  await assert.rejects(page.connect({ url: url.replace(/^http/, 'ws'), token: await forged.toJwt(), form }), /invalid authorization token|not allowed|unauthorized/i);
});
