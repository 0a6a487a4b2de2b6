// What viewers ask for, what publishers encode because of it, and in which codec.

import assert from 'node:assert/strict';
import { story } from '../harness/story.mjs';

const CAMERA = { source: 'camera' };
const LAYERS = { width: 640, height: 360, simulcast: true };

story('a size asked for chooses the layer', {}, async (world) => {
  const [alice, bob] = await Promise.all(['alice', 'bob'].map((identity) => world.join(identity)));
  await alice.publishPicture({ colour: 'cyan', ...LAYERS });
  await bob.seesHeight('alice', 360);
  await bob.setDimensions('alice', CAMERA, 300, 190);
  await bob.seesHeight('alice', 180);
  await bob.setDimensions('alice', CAMERA, 640, 360);
  await bob.seesHeight('alice', 360);
  await bob.sees('alice', 'cyan');
});

story('an adaptive viewer gets what its element shows', {}, async (world) => {
  const alice = await world.join('alice');
  const bob = await world.join('bob', { options: { adaptiveStream: { pixelDensity: 1 } } });
  await alice.publishPicture({ colour: 'magenta', ...LAYERS });
  await bob.sees('alice', 'magenta');
  await bob.show('alice', CAMERA, 160, 90);
  await bob.seesHeight('alice', 180);
  await bob.show('alice', CAMERA, 640, 360);
  await bob.seesHeight('alice', 360);
  await bob.show('alice', CAMERA);
  await bob.still('alice');
  await bob.show('alice', CAMERA, 640, 360);
  await bob.sees('alice', 'magenta');
});

story('a frame rate asked for leaves the rest out', {}, async (world) => {
  const [alice, bob] = await Promise.all(['alice', 'bob'].map((identity) => world.join(identity)));
  await alice.publishPicture({ colour: 'cyan', ...LAYERS, fps: 24 });
  await bob.seesHeight('alice', 360);
  await bob.seesRate('alice', 17, 30);
  await bob.setFps('alice', CAMERA, 5);
  await bob.seesRate('alice', 3, 9);
  await bob.sees('alice', 'cyan');
  await bob.setFps('alice', CAMERA, 30);
  await bob.seesRate('alice', 17, 30);
});

const capped = (kbps) => ({ 'patchbay.max_bitrate_kbps': String(kbps) });

story('what does not fit a viewer\'s cap is paused, and says so', {}, async (world) => {
  const alice = await world.join('alice');
  await alice.publishPicture({ colour: 'magenta', ...LAYERS, noise: 0.3 });
  await alice.sends(['vp8 h', 'vp8 q']);
  const bob = await world.join('bob', { token: { attributes: capped(3_000) } });
  await bob.seesHeight('alice', 360);
  assert.equal((await world.explain('bob')).reception.cap_kbps, 3_000);

  // Less than the lowest layer takes.
  await world.api.updateParticipant(world.room, 'bob', { attributes: capped(64) });
  await bob.expect('trackStreamStateChanged', { identity: 'alice', values: ['paused'] });
  await bob.still('alice');
  const { receives } = await world.explain('bob');
  assert.equal(receives[0].reason, 'paused');

  // Enough for the lower layer and not for the upper one.
  const after = await bob.mark();
  await world.api.updateParticipant(world.room, 'bob', { attributes: capped(260) });
  await bob.expect('trackStreamStateChanged', { identity: 'alice', values: ['active'] }, { after });
  await bob.seesHeight('alice', 180);
  await bob.sees('alice', 'magenta');
  const limited = (await world.explain('bob')).receives[0];
  assert.equal(limited.reason, 'participant_cap');
  await world.api.updateParticipant(world.room, 'bob', { attributes: { 'patchbay.max_bitrate_kbps': '' } });
  await bob.seesHeight('alice', 360);
});

story('what nobody watches is not encoded', {}, async (world) => {
  const alice = await world.join('alice', { options: { dynacast: true } });
  const bob = await world.join('bob');
  await alice.publishPicture({ colour: 'green', ...LAYERS });
  await bob.sees('alice', 'green');
  await alice.sends(['vp8 h', 'vp8 q']);
  await bob.setQuality('alice', CAMERA, 'LOW');
  await bob.seesHeight('alice', 180);
  await alice.sends(['vp8 q']);
  await bob.setQuality('alice', CAMERA, 'HIGH');
  await bob.seesHeight('alice', 360);
  await alice.sends(['vp8 h', 'vp8 q']);
  await bob.setSubscribed('alice', CAMERA, false);
  await alice.sends([]);
  await bob.setSubscribed('alice', CAMERA, true);
  await bob.sees('alice', 'green');
});

const backup = (policy) => ({
  videoCodec: 'vp9',
  scalabilityMode: 'L1T3',
  backupCodec: { codec: 'vp8' },
  backupCodecPolicy: policy,
});
const [PREFER_REGRESSION, SIMULCAST, REGRESSION] = [0, 1, 2]; // livekit.BackupCodecPolicy

story('a viewer without the codec gets the backup, the others keep the codec', {}, async (world) => {
  const [alice, bob] = await Promise.all(['alice', 'bob'].map((identity) => world.join(identity)));
  await alice.publishPicture({ colour: 'red', ...LAYERS, ...backup(SIMULCAST) });
  await bob.sees('alice', 'red');
  await bob.decodes(['video/vp9']);
  const carol = await world.join('carol', { lacks: ['video/vp9'] });
  await carol.sees('alice', 'red');
  await carol.decodes(['video/vp8']);
  await bob.decodes(['video/vp9']);
});

for (const [name, policy] of Object.entries({ PREFER_REGRESSION, REGRESSION })) {
  story(`everybody gets the backup while one viewer needs it, and then the codec again: ${name}`, {}, async (world) => {
    const alice = await world.join('alice', { options: { dynacast: true } });
    const bob = await world.join('bob');
    await alice.publishPicture({ colour: 'blue', ...LAYERS, ...backup(policy) });
    await bob.sees('alice', 'blue');
    await bob.decodes(['video/vp9']);
    const carol = await world.join('carol', { lacks: ['video/vp9'] });
    await carol.sees('alice', 'blue');
    await carol.decodes(['video/vp8']);
    await bob.decodes(['video/vp8']);
    await bob.sees('alice', 'blue');
    const dave = await world.join('dave');
    await dave.decodes(['video/vp8']);
    await carol.leave();
    await bob.decodes(['video/vp9']);
    await Promise.all([bob.sees('alice', 'blue'), dave.sees('alice', 'blue')]);
  });
}
