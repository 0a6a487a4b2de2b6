// Voice channels and calls: the gateway, browsers as Fluxer's client drives them, and media that really stops or moves.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { startServer } from '../harness/server.mjs';
import { configure, story } from '../harness/story.mjs';
import { enter, identity, LOSSES, median, role, SILENT, timeVoice, Town, VOICE } from '../harness/voice.mjs';

configure(() => ({ voice: VOICE }));

const MICROPHONE = { source: 'microphone' };
const gateways = [];
after(() => gateways.forEach((gateway) => gateway.close()));

/** 3 speaks in channel 10, and 4 hears it. */
async function talk(world) {
  const town = await Town.found(world.server);
  const [ann, bob] = await Promise.all([town.gateway('3'), town.gateway('4')]);
  gateways.push(ann, bob);
  const [hers, his] = [await ann.ask('10'), await bob.ask('10')];
  const [alice, ben] = await Promise.all([enter(world, 'alice', hers), enter(world, 'ben', his)]);
  await bob.event('VOICE_STATE_UPDATE', { connection_id: hers.connection_id });
  const who = identity('3', hers);
  await alice.publishTone({ hz: 440 });
  await hear(ben, who);
  return { town, ann, bob, hers, his, alice, ben, who };
}

async function hear(listener, who, after = 0, wanted = MICROPHONE, hz = 440) {
  await listener.expect('trackPublished', { identity: who }, { after });
  await listener.setSubscribed(who, wanted, true);
  await listener.hears(who, hz, wanted);
}

story('from the request for a token to sound', {}, async (world, form) => {
  const town = await Town.found(world.server);
  const open = async (name) => {
    const peer = await world.page(name);
    return (method, ...args) => peer[method](...args);
  };
  const times = await timeVoice(town, open, form, 10);
  const steps = Object.entries(times).map(([step, values]) => `${step} ${median(values)}`);
  world.context.diagnostic(`ms since the request, medians of 10: ${steps.join(', ')}`);
});

story('a moderator mutes, and the voice is gone at once', {}, async (world) => {
  const { town, bob, alice, ben, who } = await talk(world);
  const [mark, began] = [await ben.mark(), performance.now()];
  await town.moderate('3', { mute: true });
  await ben.expect('trackUnpublished', { identity: who, source: 'microphone' }, { after: mark });
  world.context.diagnostic(`mute request to the listener's event: ${Math.round(performance.now() - began)} ms`);
  assert.equal((await bob.event('VOICE_STATE_UPDATE', { mute: true })).user_id, '3');
  await alice.expect('participantPermissionsChanged');
  await assert.rejects(alice.publishTone({ hz: 440, name: 'again' }), /permission|allowed/i);
  const muted = await alice.mark();
  await town.moderate('3', { mute: false });
  await bob.event('VOICE_STATE_UPDATE', { mute: false });
  await alice.expect('participantPermissionsChanged', {}, { after: muted });
  const heard = await ben.mark();
  await alice.publishTone({ hz: 440, name: 'back' });
  await hear(ben, who, heard, { name: 'back' });
});

story('what a role loses is lost in the room', { forms: ['single'] }, async (world) => {
  const { town, ben, who } = await talk(world);
  const mark = await ben.mark();
  await town.sync([role(SILENT)]);
  await ben.expect('trackUnpublished', { identity: who, source: 'microphone' }, { after: mark });
  await town.sync([{ kind: 'member', guild_id: '900', user_id: '3', deleted: true }]);
  await ben.waitForOthers([]);
});

story('whoever takes the right to speak, the voice is gone at once', { forms: ['single'] }, async (world) => {
  const town = await Town.found(world.server);
  const [ann, bob] = await Promise.all([town.gateway('3'), town.gateway('4')]);
  gateways.push(ann, bob);
  const ben = await enter(world, 'ben', await bob.ask('10'));
  const times = [];
  for (const [way, { take, give }] of Object.entries(LOSSES)) {
    const hers = await ann.ask('10');
    const [alice, who, mark] = [await enter(world, way, hers), identity('3', hers), await ben.mark()];
    await alice.publishTone({ hz: 440 });
    await hear(ben, who, mark);
    await ben.watchPackets(who);
    const asked = Date.now();
    await take(town, hers.connection_id);
    await ben.expect('trackUnpublished', { identity: who, source: 'microphone' }, { after: mark });
    times.push([way, Math.max(0, Math.round((await ben.lastPacket()) - asked))]);
    await give(town);
    await alice.leave();
    await ben.waitForOthers([]);
  }
  world.context.diagnostic(`ms from the request to the last packet: ${times.map((time) => time.join(' ')).join(', ')}`);
});

story('a moderator moves and disconnects', { forms: ['single'] }, async (world) => {
  const { town, ann, bob, alice, ben } = await talk(world);
  await town.moderate('3', { channel_id: '11' });
  const there = await ann.event('VOICE_SERVER_UPDATE', { channel_id: '11' });
  assert.equal((await bob.event('VOICE_STATE_UPDATE', { user_id: '3', channel_id: null })).channel_id, null);
  await alice.leave();
  await ben.waitForOthers([]);
  const moved = await enter(world, 'alice moved', there);
  await bob.event('VOICE_STATE_UPDATE', { user_id: '3', channel_id: '11' });
  const his = await bob.ask('11');
  const listener = await enter(world, 'ben moved', his);
  await moved.publishTone({ hz: 440 });
  await hear(listener, identity('3', there));
  await town.moderate('3', { channel_id: null });
  await moved.expect('disconnected', { reason: 'PARTICIPANT_REMOVED' });
  await listener.waitForOthers([]);
});

story('muting oneself unpublishes, and two microphones sound at once', {}, async (world) => {
  const { alice, ben, who } = await talk(world);
  for (const round of [1, 2]) {
    const mark = await ben.mark();
    await alice.unpublish('microphone');
    await ben.expect('trackUnpublished', { identity: who, source: 'microphone' }, { after: mark });
    await alice.republish('microphone');
    await hear(ben, who, mark, { name: 'microphone' }, 440);
    assert.ok(round);
  }
  const mark = await ben.mark();
  await alice.publishTone({ hz: 880, name: 'entrance-sound' });
  await hear(ben, who, mark, { name: 'entrance-sound' }, 880);
  await ben.hears(who, 440, { name: 'microphone' });
});

story('a camera is received while it is on the screen', { forms: ['single'] }, async (world) => {
  const { alice, ben, who } = await talk(world);
  const camera = { source: 'camera' };
  const mark = await ben.mark();
  await alice.publishPicture({ colour: 'red', width: 640, height: 360, simulcast: true });
  await ben.expect('trackPublished', { identity: who, source: 'camera' }, { after: mark });
  assert.equal((await ben.publication(who, camera)).subscribed, false, 'nobody has looked yet');
  await ben.setSubscribed(who, camera, true);
  await ben.sees(who, 'red');
  await ben.show(who, camera);
  await ben.still(who);
  await ben.show(who, camera, 320, 180);
  await ben.sees(who, 'red');
  await ben.setSubscribed(who, camera, false);
  await ben.expect('trackUnsubscribed', { identity: who, source: 'camera' }, { after: mark });
  await ben.hears(who, 440);
});

story('a call rings, is taken and ends with the last one', { forms: ['single'] }, async (world) => {
  const town = await Town.found(world.server);
  const [ann, bob] = await Promise.all([town.gateway('3'), town.gateway('4')]);
  gateways.push(ann, bob);
  await town.user('3', 'POST', '/channels/20/call/ring', {});
  assert.deepEqual((await bob.event('CALL_CREATE')).ringing, ['4']);
  const [hers, his] = [await ann.ask('20', null), await bob.ask('20', null)];
  const [alice, ben] = await Promise.all([enter(world, 'alice', hers), enter(world, 'ben', his)]);
  await alice.publishTone({ hz: 440 });
  await hear(ben, identity('3', hers));
  await alice.leave();
  await bob.event('VOICE_STATE_UPDATE', { user_id: '3', channel_id: null });
  await ben.leave();
  await bob.event('CALL_DELETE');
});

story('another region is another server, and everybody goes there', { forms: ['single'] }, async (world) => {
  const second = await startServer('voice-second', () => ({
    webhook: { api_key: 'devkey', urls: [`${world.server.url}/webhooks/livekit`] },
  }));
  try {
    const { town, ann, bob } = await talk(world);
    await town.backend('POST', '/admin/voice/regions/create', { id: 'second', name: 'Second' });
    const server = { region_id: 'second', server_id: 'one', endpoint: second.signal, api_key: 'devkey', api_secret: 'secret' };
    await town.backend('POST', '/admin/voice/servers/create', server);
    await town.user('2', 'PATCH', '/channels/10', { rtc_region: 'second' });
    const [hers, his] = await Promise.all([ann, bob].map((gateway) => gateway.event('VOICE_SERVER_UPDATE')));
    assert.equal(hers.endpoint, second.signal);
    const [alice, ben] = await Promise.all([enter(world, 'alice there', hers), enter(world, 'ben there', his)]);
    await bob.event('VOICE_STATE_UPDATE', { connection_id: hers.connection_id });
    await alice.publishTone({ hz: 440 });
    await hear(ben, identity('3', hers));
    // RoomService of the other server does what the moderator wants.
    const mark = await ben.mark();
    await town.moderate('3', { mute: true });
    await ben.expect('trackUnpublished', { identity: identity('3', hers), source: 'microphone' }, { after: mark });
    await town.moderate('3', { channel_id: null });
    await alice.expect('disconnected', { reason: 'PARTICIPANT_REMOVED' });
    await town.backend('POST', '/admin/voice/regions/delete', { id: 'second' });
  } finally {
    await second.stop();
  }
});
