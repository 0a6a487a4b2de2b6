// The built-in page in two tabs, one of them a phone: they see and hear each other and chat; and with a livekit-client participant.

import assert from 'node:assert/strict';
import { picturesScript } from '../harness/browser.mjs';
import { ARTEFACTS } from '../harness/server.mjs';
import { story } from '../harness/story.mjs';

const DEADLINE_MS = 20_000;
const PAGE = process.env.PATCHBAY_PAGE ?? '/';
const DESKTOP = { viewport: { width: 1280, height: 800 } };
const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };

/** In the page: devices that give the pictures and tones of the other stories, and a way to lose the WebSocket. */
function generatedDevices({ colour, hz }) {
  const film = (width, height, colour) => {
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const context = canvas.getContext('2d');
    let counter = 0;
    setInterval(() => paintPicture(context, width, height, colour, (counter = (counter + 1) & 0xff)), 66);
    return canvas.captureStream(15);
  };
  navigator.mediaDevices.getUserMedia = async ({ audio }) => (audio ? new MediaStream([openTone(hz).track]) : film(640, 360, colour));
  navigator.mediaDevices.getDisplayMedia = async () => film(640, 360, 'grey');
  const sockets = [];
  const Native = window.WebSocket;
  window.WebSocket = class extends Native {
    constructor(...args) {
      super(...args);
      sockets.push(this);
    }
  };
  Object.assign(window, { readPicture, listenTo, loseSocket: () => sockets.at(-1).close() });
}

async function openPage(world, name, { colour, hz, context }) {
  const pictures = await picturesScript();
  return world.open(`${world.server.url}${PAGE}#room=${world.room}`, name, {
    context,
    prepare: (page) => page.addInitScript({ content: `${pictures}\n(${generatedDevices})(${JSON.stringify({ colour, hz })});` }),
  });
}

async function joinCall(page, name) {
  await page.fill('#name', name);
  await page.click('#preview-camera');
  await page.click('#preview-mic');
  await page.waitForSelector('#preview-mic[aria-pressed=true]');
  await page.waitForSelector('#preview-camera[aria-pressed=true]');
  await page.screenshot({ path: `${ARTEFACTS}page-lobby-${name}.png` });
  await page.click('#join-button');
  await page.waitForSelector('#call:not([hidden])');
}

/** Waits for the tile of somebody whose identity begins so, in a colour and moving. */
async function sees(page, identity, colour, source = 'camera') {
  await page.evaluate((identity) => ((window.seen ??= {})[identity] = new Set()), identity);
  await page.waitForFunction(
    ([identity, colour, source]) => {
      const video = document.querySelector(`.tile[data-identity^="${identity}"][data-source=${source}].has-video video`);
      const picture = video && readPicture(video);
      if (picture?.colour === colour) window.seen[identity].add(picture.counter);
      return window.seen[identity].size >= 5;
    },
    [identity, colour, source],
    { timeout: DEADLINE_MS, polling: 50 },
  );
}

async function hears(page, hz) {
  await page.waitForFunction(
    (hz) =>
      [...document.querySelectorAll('audio')].some((element) => {
        element.ear ??= listenTo(element.srcObject.getAudioTracks()[0]);
        const heard = element.ear.read();
        return heard.rms > 0.02 && Math.abs(heard.hz - hz) < 25;
      }),
    hz,
    { timeout: DEADLINE_MS, polling: 50 },
  );
}

const message = (page, text) => page.waitForSelector(`#messages li p:text-is("${text}")`, { timeout: DEADLINE_MS, state: 'attached' });

async function say(page, text) {
  if (await page.isHidden('#chat')) await page.click('#chat-toggle');
  await page.fill('#chat-text', text);
  await page.press('#chat-text', 'Enter');
}

story('the built-in page: two tabs and a livekit-client', { forms: ['single'] }, async (world) => {
  const ada = await openPage(world, 'ada', { colour: 'red', hz: 440, context: DESKTOP });
  const bo = await openPage(world, 'bo', { colour: 'green', hz: 660, context: PHONE });
  await joinCall(ada, 'Ada');
  await joinCall(bo, 'Bo');

  await Promise.all([sees(ada, 'bo-', 'green'), hears(ada, 660), sees(bo, 'ada-', 'red'), hears(bo, 440)]);
  await ada.waitForSelector('.tile.speaking[data-identity^="bo-"]', { timeout: DEADLINE_MS });

  const carol = await world.join('carol');
  await Promise.all([carol.publishPicture({ colour: 'blue' }), carol.publishTone({ hz: 880 })]);
  const identities = await carol.others();
  const of = (name) => identities.find((identity) => identity.startsWith(name));
  await Promise.all([
    sees(ada, 'carol', 'blue'), hears(ada, 880), sees(bo, 'carol', 'blue'),
    carol.sees(of('ada-'), 'red'), carol.hears(of('bo-'), 660),
  ]);
  assert.equal(await ada.textContent('#people'), '3 people');

  await bo.screenshot({ path: `${ARTEFACTS}page-phone.png` });
  await say(ada, 'hello from the desk');
  await message(bo, 'hello from the desk');
  assert.equal(await bo.textContent('#unread'), '1');
  await say(bo, 'hello from the phone');
  await message(ada, 'hello from the phone');
  await carol.expect('chatMessage', { identity: of('ada-') });
  await carol.sendChat('hello from the library');
  await Promise.all([message(ada, 'hello from the library'), message(bo, 'hello from the library')]);
  await ada.screenshot({ path: `${ARTEFACTS}page-desktop.png` });
  await bo.screenshot({ path: `${ARTEFACTS}page-phone-chat.png` });
  await bo.click('#chat-close');

  await bo.click('#mic');
  await ada.waitForSelector('.tile.is-muted[data-identity^="bo-"]', { timeout: DEADLINE_MS });
  await bo.click('#camera');
  await ada.waitForSelector('.tile[data-identity^="bo-"]:not(.has-video)', { timeout: DEADLINE_MS });
  await bo.click('#camera');
  await bo.click('#mic');
  await ada.waitForSelector('.tile.has-video:not(.is-muted)[data-identity^="bo-"]', { timeout: DEADLINE_MS });
  await sees(ada, 'bo-', 'green');

  await bo.click('#leave');
  await bo.waitForSelector('#lobby:not([hidden])');
  await ada.waitForSelector('.tile[data-identity^="bo-"]', { state: 'detached', timeout: DEADLINE_MS });
  await carol.leave();
  await ada.waitForFunction(() => document.querySelector('#people').textContent === 'Only you are here', null, { timeout: DEADLINE_MS });
});

story('the built-in page: a shared screen, and the signalling connection lost', { forms: ['single'] }, async (world) => {
  const ada = await openPage(world, 'ada', { colour: 'red', hz: 440, context: DESKTOP });
  const bo = await openPage(world, 'bo', { colour: 'green', hz: 660, context: PHONE });
  await joinCall(ada, 'Ada');
  await joinCall(bo, 'Bo');
  for (const round of [1, 2]) {
    await ada.click('#screen');
    await sees(bo, 'ada-', 'grey', 'screen');
    await sees(bo, 'ada-', 'red');
    if (round === 1) await bo.screenshot({ path: `${ARTEFACTS}page-phone-screen.png` });
    await ada.click('#screen');
    await bo.waitForSelector('.tile.screen', { state: 'detached', timeout: DEADLINE_MS });
  }

  // The resume may be over before a look at the page would notice it.
  await ada.evaluate(() => {
    const status = document.querySelector('#status');
    window.said = [];
    new MutationObserver(() => window.said.push(status.textContent)).observe(status, { childList: true });
    loseSocket();
  });
  await ada.waitForFunction(() => window.said.length === 2, null, { timeout: DEADLINE_MS, polling: 50 });
  assert.deepEqual(await ada.evaluate(() => window.said), ['Connection lost, trying again…', '']);
  await Promise.all([sees(bo, 'ada-', 'red'), sees(ada, 'bo-', 'green'), hears(bo, 440)]);
  await say(ada, 'still here');
  await message(bo, 'still here');
});

story('the built-in page says in words what went wrong', { forms: ['single'] }, async (world) => {
  const page = await openPage(world, 'eve', { colour: 'cyan', hz: 500, context: DESKTOP });
  await page.click('#token-details summary');
  await page.fill('#token', 'not.a.token');
  await page.click('#join-button');
  await page.waitForSelector('#join-problem:has-text("does not accept this access token")', { timeout: DEADLINE_MS });

  await page.fill('#token', await world.token('eve', { name: 'Eve' }));
  await page.click('#join-button');
  await page.waitForSelector('.tile[data-identity=eve] .name:text-is("Eve (you)")', { timeout: DEADLINE_MS });
  await world.join('eve');
  await page.waitForSelector('#join-problem:has-text("joined this room again")', { timeout: DEADLINE_MS });
});

story('a tile says why its picture is as it is', { forms: ['single'] }, async (world) => {
  const [ann, phone] = await Promise.all([
    openPage(world, 'ann', { colour: 'blue', hz: 440, context: DESKTOP }),
    openPage(world, 'phone', { colour: 'orange', hz: 660, context: PHONE }),
  ]);
  await Promise.all([joinCall(ann, 'Ann'), joinCall(phone, 'Phone')]);
  await Promise.all([sees(ann, 'phone-', 'orange'), sees(phone, 'ann-', 'blue')]);

  for (const [page, other, name] of [[ann, 'Phone', 'desktop'], [phone, 'Ann', 'phone']]) {
    const tile = page.locator(`.tile[data-identity^="${other.toLowerCase()}-"]`);
    await tile.hover();
    await tile.locator('.ask').click();
    const panel = page.locator('#why');
    await panel.locator('p[data-reason]').first().waitFor({ timeout: DEADLINE_MS });
    await page.waitForFunction(() => /Picture · VP8[^]*Wanted[^]*Sent[^]*Your connection[^]*Round trip/.test(document.querySelector('#why-body').textContent), null, { timeout: DEADLINE_MS });
    assert.equal(await panel.locator('h2').textContent(), other);
    await page.screenshot({ path: `${ARTEFACTS}page-why-${name}.png` });
    const box = await panel.boundingBox();
    const { width, height } = page.viewportSize();
    assert.ok(box.x >= 0 && box.x + box.width <= width && box.y >= 0 && box.y + box.height <= height, JSON.stringify(box));

    // It goes on asking while it is open: a camera that is turned off shows.
    const source = page === ann ? phone : ann;
    await source.click('#camera');
    await panel.locator('p[data-reason=muted], p:text("Nothing is sent")').first().waitFor({ timeout: DEADLINE_MS });
    await source.click('#camera');
    await page.click('#why-close');
    await panel.waitFor({ state: 'hidden' });
  }

  // One's own tile says what is sent.
  await ann.locator('.tile.own').hover();
  await ann.locator('.tile.own .ask').click();
  await ann.waitForFunction(() => /Picture[^]*participant receives it[^]*bit\/s/.test(document.querySelector('#why-body').textContent), null, { timeout: DEADLINE_MS });
  await ann.screenshot({ path: `${ARTEFACTS}page-why-own.png` });
  await ann.keyboard.press('Escape');
  await ann.locator('#why').waitFor({ state: 'hidden' });
});
