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
  const late = await world.join('late');
  await late.hears('bob', 660);
  for (const identity of ['alice', 'bob']) assert.equal(await late.publication(identity, { source: 'camera' }), undefined);
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

});

story('a token the server does not accept', {}, async (world, form) => {
  const page = await world.page('mallory');
  const { key, secret, url } = world.server;
  const forged = new AccessToken(key, `${secret}!`, { identity: 'mallory' });
  forged.addGrant({ roomJoin: true, room: world.room });
  await assert.rejects(page.connect({ url: url.replace(/^http/, 'ws'), token: await forged.toJwt(), form }), /invalid authorization token|not allowed|unauthorized/i);
});
