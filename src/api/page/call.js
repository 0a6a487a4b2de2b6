// The page: the form before the call, the tiles, the controls, the chat. What it knows of the room it reads from Session.

import { Session } from './session.js';
import { Why } from './why.js';

const NOTICE_MS = 6000;
const MAX_MESSAGES = 500;
const TILE_ASPECTS = [0.75, 16 / 9]; // narrowest and widest tile, width by height
const CAMERA = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
const MICROPHONE = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };

const $ = (id) => document.getElementById(id);

let session = null;
const local = { camera: null, microphone: null, screen: null, 'screen-audio': null };
const tiles = new Map(); // "participant sid/source" → tile
const sounds = new Map(); // track sid → <audio>
const why = new Why($('why'));
let unread = 0;

// --- what the address and the last visit say ------------------------------------------------------------------------

const address = new URLSearchParams(location.hash.slice(1));
$('room').value = address.get('room') ?? '';
$('name').value = address.get('name') ?? localStorage.getItem('name') ?? '';
if (address.get('token')) {
  $('token').value = address.get('token');
  $('token-details').open = true;
}
($('room').value ? $('name') : $('room')).focus();

/** Room and name are not needed where a token says them. */
function tokenChanged() {
  for (const id of ['room', 'name']) $(id).required = !$('token').value.trim();
}
$('token').addEventListener('input', tokenChanged);
tokenChanged();

// --- devices --------------------------------------------------------------------------------------------------------

const DEVICE_WORDS = { camera: 'camera', microphone: 'microphone', screen: 'screen' };

/** Why a device could not be used, in words. */
function deviceProblem(what, error) {
  const device = DEVICE_WORDS[what];
  if (!navigator.mediaDevices) return `This page can use the ${device} only over https:// or on this computer itself.`;
  if (error.name === 'NotAllowedError') return `The browser does not let this page use the ${device}. Allow it beside the address, then try again.`;
  if (error.name === 'NotFoundError' || error.name === 'OverconstrainedError') return `No ${device} was found.`;
  if (error.name === 'NotReadableError') return `The ${device} is in use by another program.`;
  return `The ${device} could not be started: ${error.message}`;
}

async function capture(what) {
  const stream = await navigator.mediaDevices.getUserMedia(what === 'camera' ? { video: CAMERA } : { audio: MICROPHONE });
  const [track] = stream.getTracks();
  track.addEventListener('ended', () => local[what] === track && turnOff(what));
  return track;
}

function release(what) {
  local[what]?.stop();
  local[what] = null;
}

/** Camera or microphone on, before the call and in it. */
async function turnOn(what) {
  if (local[what]?.readyState === 'ended') local[what] = null;
  if (isOn(what)) return;
  try {
    if (local.microphone && what === 'microphone') {
      local.microphone.enabled = true;
      await session?.setMuted('microphone', false);
      return;
    }
    const track = (local[what] ??= await capture(what));
    if (!session) return;
    if (session.isPublished(what)) await session.setMuted(what, false, track);
    else await session.publish(what, track);
  } catch (error) {
    release(what);
    notice(error instanceof DOMException || !navigator.mediaDevices ? deviceProblem(what, error) : error.message);
  } finally {
    draw();
  }
}

async function turnOff(what) {
  if (what === 'microphone' && session?.isPublished('microphone')) {
    // Kept open, so that unmuting is at once; the browser sends silence.
    local.microphone.enabled = false;
    await session.setMuted('microphone', true);
  } else {
    release(what);
    await session?.setMuted(what, true, null);
  }
  draw();
}

const isOn = (what) => (what === 'microphone' ? Boolean(local.microphone?.enabled) : Boolean(local[what]));
const toggle = (what) => (isOn(what) ? turnOff(what) : turnOn(what));

async function toggleScreen() {
  if (local.screen) return stopScreen();
  try {
    const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { ideal: 15 } }, audio: true });
    const [video] = stream.getVideoTracks();
    const [audio] = stream.getAudioTracks();
    video.contentHint = 'detail';
    video.addEventListener('ended', stopScreen);
    local.screen = video;
    await session.publish('screen', video);
    if (audio) {
      local['screen-audio'] = audio;
      await session.publish('screen-audio', audio);
    }
  } catch (error) {
    const refused = error.name === 'NotAllowedError'; // the user closed the picker
    await stopScreen();
    if (!refused) notice(deviceProblem('screen', error));
  }
  draw();
}

async function stopScreen() {
  for (const source of ['screen', 'screen-audio']) {
    release(source);
    await session?.unpublish(source);
  }
  draw();
}

// --- joining and leaving --------------------------------------------------------------------------------------------

async function fetchToken(room, name) {
  const identity = `${name.toLowerCase().replace(/[^a-z0-9]+/g, '-').slice(0, 40)}-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
  const answer = await fetch('/dev/token', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ room, identity, name }),
  }).catch(() => null);
  if (!answer) throw new Error('The server cannot be reached.');
  if (answer.status === 404) {
    $('token-details').open = true;
    throw new Error('This server hands out no tokens (it does not run with --dev). Paste an access token.');
  }
  if (!answer.ok) throw new Error(`The server gave no token: ${await answer.text()}`);
  return (await answer.json()).token;
}

async function join(event) {
  event.preventDefault();
  const problem = $('join-problem');
  problem.hidden = true;
  $('join-button').disabled = true;
  $('join-button').textContent = 'Joining…';
  try {
    const name = $('name').value.trim();
    const token = $('token').value.trim() || (await fetchToken($('room').value.trim(), name));
    if (name) localStorage.setItem('name', name);
    await enter(new Session(location.origin, token));
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
  } finally {
    $('join-button').disabled = false;
    $('join-button').textContent = 'Join';
  }
}

async function enter(joining) {
  joining.addEventListener('change', draw);
  joining.addEventListener('chat', ({ detail }) => addMessage(detail));
  joining.addEventListener('state', ({ detail }) => ($('status').textContent = detail === 'reconnecting' ? 'Connection lost, trying again…' : ''));
  joining.addEventListener('muted-by-server', ({ detail }) => {
    if (!detail || !isOn(detail)) return;
    turnOff(detail);
    notice(`Your ${detail} was muted by the server.`);
  });
  joining.addEventListener('unpublished-by-server', ({ detail }) => {
    release(detail);
    notice(`You may no longer send your ${detail}.`);
    draw();
  });
  joining.addEventListener('ended', ({ detail }) => leaveScreen(detail));
  await joining.join();
  session = joining;
  document.title = `${session.room.name} – Patchbay`;
  if (!$('token').value) history.replaceState(null, '', `#room=${encodeURIComponent(session.room.name)}`);
  $('lobby').hidden = true;
  $('call').hidden = false;
  showPreview();
  draw();
  const start = ['microphone', 'camera'].filter((what) => local[what]);
  if (session.canPublish) for (const what of start) await session.publish(what, local[what]).catch((error) => notice(error.message));
  else start.forEach(release);
  draw();
}

function leaveScreen(sentence) {
  session = null;
  Object.keys(local).forEach(release);
  for (const tile of tiles.values()) tile.element.remove();
  for (const sound of sounds.values()) sound.remove();
  tiles.clear();
  sounds.clear();
  $('messages').replaceChildren();
  $('status').textContent = '';
  showChat(false);
  $('call').hidden = true;
  $('lobby').hidden = false;
  document.title = 'Patchbay';
  $('join-problem').hidden = !sentence;
  $('join-problem').textContent = sentence ?? '';
  draw();
}

// --- drawing --------------------------------------------------------------------------------------------------------

function setToggle(button, on, icon, words) {
  button.setAttribute('aria-pressed', String(on));
  button.setAttribute('aria-label', words);
  if (icon) button.querySelector('use').setAttribute('href', `#icon-${icon}${on ? '' : '-off'}`);
}

function showPreview() {
  const video = $('preview-video');
  video.srcObject = local.camera && !session ? new MediaStream([local.camera]) : null;
  $('preview-note').hidden = Boolean(local.camera);
}

function draw() {
  for (const prefix of ['', 'preview-']) {
    setToggle($(`${prefix}mic`), isOn('microphone'), 'mic', isOn('microphone') ? 'Turn microphone off' : 'Turn microphone on');
    setToggle($(`${prefix}camera`), isOn('camera'), 'camera', isOn('camera') ? 'Turn camera off' : 'Turn camera on');
  }
  setToggle($('screen'), Boolean(local.screen), null, local.screen ? 'Stop sharing the screen' : 'Share screen');
  if (!session) return showPreview();

  $('screen').hidden = !navigator.mediaDevices?.getDisplayMedia;
  for (const id of ['mic', 'camera', 'screen']) $(id).disabled = !session.canPublish;
  $('chat-text').disabled = !session.canChat;
  $('room-name').textContent = session.room.name;
  const count = session.participants.size;
  $('people').textContent = count === 1 ? 'Only you are here' : `${count} people`;
  drawTiles();
  drawSounds();
}

/** What belongs on the stage: a tile for everybody, and one for every shared screen before them. */
function wantedTiles() {
  const wanted = [];
  for (const participant of session.participants.values()) {
    const own = participant.sid === session.me.sid;
    const find = (source) => participant.tracks.find((track) => track.source === source);
    const camera = find('CAMERA');
    const screen = find('SCREEN_SHARE');
    const microphone = find('MICROPHONE');
    const shows = (publication, mine) => (own ? mine : publication && !publication.muted ? session.media.get(publication.sid) : null) ?? null;
    const shared = shows(screen, local.screen);
    const name = participant.name || participant.identity;
    if (shared) wanted.unshift({ key: `${participant.sid}/screen`, participant, own, screen: true, track: shared, publication: screen, label: own ? 'Your screen' : `${name}’s screen` });
    wanted.push({
      key: `${participant.sid}/camera`,
      participant,
      own,
      screen: false,
      track: shows(camera, local.camera),
      publication: camera,
      label: own ? `${name} (you)` : name,
      muted: own ? !isOn('microphone') : !microphone || Boolean(microphone.muted),
    });
  }
  return wanted;
}

function drawTiles() {
  const wanted = wantedTiles();
  const keys = new Set(wanted.map(({ key }) => key));
  for (const [key, tile] of tiles) {
    if (keys.has(key)) continue;
    if (why.isAbout(tile.element)) why.close();
    tile.element.remove();
    tiles.delete(key);
  }
  let before = $('stage').firstElementChild;
  for (const entry of wanted) {
    const tile = tiles.get(entry.key) ?? makeTile(entry);
    if (tile.element === before) before = before.nextElementSibling;
    else $('stage').insertBefore(tile.element, before);
    drawTile(tile, entry);
  }
  layOut();
}

function makeTile({ key, participant, own, screen }) {
  const element = $('tile').content.firstElementChild.cloneNode(true);
  element.classList.toggle('own', own);
  element.classList.toggle('screen', screen);
  element.dataset.identity = participant.identity;
  element.dataset.source = screen ? 'screen' : 'camera';
  const tile = { element, video: element.querySelector('video'), name: element.querySelector('.name'), avatar: element.querySelector('.avatar'), track: null };
  tiles.set(key, tile);
  element.querySelector('.ask').onclick = () =>
    why.isAbout(element) ? why.close() : why.open({ element, label: tile.name.textContent, room: session.room.name, me: session.me.identity, sid: participant.sid, own, screen });
  return tile;
}

function drawTile(tile, { participant, screen, track, publication, label, muted }) {
  tile.publication = publication;
  tile.name.textContent = label;
  tile.avatar.textContent = initials(participant.name || participant.identity);
  tile.element.style.setProperty('--hue', hue(participant.identity));
  tile.element.classList.toggle('is-muted', Boolean(muted));
  tile.element.classList.toggle('is-weak', ['POOR', 'LOST'].includes(participant.quality));
  tile.element.classList.toggle('speaking', !screen && participant.level > 0);
  tile.element.classList.toggle('has-video', Boolean(track));
  if (tile.track !== track) {
    tile.track = track;
    tile.video.srcObject = track && new MediaStream([track]);
    if (track) tile.video.play().catch(() => {}); // replaced before it played
  }
}

const initials = (name) => name.trim().split(/[\s_-]+/).slice(0, 2).map((word) => [...word][0]?.toUpperCase() ?? '').join('');
const hue = (text) => [...text].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);

/** The number of columns that makes the tiles largest; a shared screen makes the stage one big tile and a row. */
function layOut() {
  const stage = $('stage');
  const all = [...stage.children];
  if (!all.length) return;
  const { width, height } = stage.getBoundingClientRect();
  const gap = parseFloat(getComputedStyle(stage).columnGap) || 0;
  const inner = width - 2 * gap;
  const screens = all.filter((tile) => tile.classList.contains('screen'));
  if (screens.length) {
    const strip = Math.min(height * 0.24, 150);
    grid(screens, inner, height - strip - gap, gap, [0.2, 5]);
    grid(all.filter((tile) => !tile.classList.contains('screen')), inner, strip, gap, TILE_ASPECTS);
  } else {
    grid(all, inner, height, gap, TILE_ASPECTS);
  }
  for (const tile of tiles.values()) {
    if (!tile.track || !tile.publication || tile.element.classList.contains('own')) continue;
    const box = tile.element.getBoundingClientRect();
    session?.wantSize(tile.publication.sid, Math.round(box.width * devicePixelRatio), Math.round(box.height * devicePixelRatio));
  }
}

function grid(elements, width, height, gap, [narrowest, widest]) {
  let best = { area: 0, w: 0, h: 0 };
  for (let columns = 1; columns <= elements.length; columns += 1) {
    const rows = Math.ceil(elements.length / columns);
    let w = (width - gap * (columns - 1)) / columns;
    let h = (height - gap * (rows - 1)) / rows;
    if (w / h > widest) w = h * widest;
    else if (w / h < narrowest) h = w / narrowest;
    if (w * h > best.area) best = { area: w * h, w, h };
  }
  for (const element of elements) {
    element.style.setProperty('--tile-width', `${Math.floor(best.w)}px`);
    element.style.setProperty('--tile-height', `${Math.floor(best.h)}px`);
  }
}

function drawSounds() {
  const wanted = new Map();
  for (const { sid, tracks } of session.participants.values()) {
    if (sid === session.me.sid) continue;
    for (const track of tracks) if (track.type !== 'VIDEO' && session.media.has(track.sid)) wanted.set(track.sid, session.media.get(track.sid));
  }
  for (const [sid, element] of sounds) {
    if (element.srcObject?.getTracks()[0] === wanted.get(sid)) continue;
    element.remove();
    sounds.delete(sid);
  }
  for (const [sid, track] of wanted) {
    if (sounds.has(sid)) continue;
    const element = new Audio();
    element.autoplay = true;
    element.srcObject = new MediaStream([track]);
    document.body.append(element);
    sounds.set(sid, element);
    element.play().catch((error) => error.name === 'NotAllowedError' && askForSound());
  }
}

/** Browsers play no sound before the user has touched the page. */
function askForSound() {
  if ($('sound')) return;
  const button = Object.assign(document.createElement('button'), { id: 'sound', textContent: 'Click to hear the others' });
  button.onclick = () => {
    for (const element of sounds.values()) element.play();
    button.remove();
  };
  $('notices').append(button);
}

function notice(sentence) {
  if (!session) {
    $('join-problem').textContent = sentence;
    $('join-problem').hidden = false;
    return;
  }
  const element = Object.assign(document.createElement('p'), { textContent: sentence });
  $('notices').append(element);
  setTimeout(() => element.remove(), NOTICE_MS);
}

// --- chat -----------------------------------------------------------------------------------------------------------

function showChat(open) {
  $('chat').hidden = !open;
  $('chat-toggle').setAttribute('aria-pressed', String(open));
  if (open) {
    unread = 0;
    $('unread').hidden = true;
    $('chat-text').focus();
    $('messages').scrollTop = $('messages').scrollHeight;
  }
  layOut();
}

function closeSides() {
  why.close();
  showChat(false);
}

function addMessage({ name, timestamp, message, own }) {
  const list = $('messages');
  const item = document.createElement('li');
  const head = document.createElement('b');
  const time = document.createElement('time');
  const when = new Date(timestamp);
  const text = document.createElement('p');
  item.classList.toggle('own', Boolean(own));
  head.textContent = own ? 'You' : name;
  time.dateTime = when.toISOString();
  time.textContent = when.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  head.append(time);
  text.append(...linked(message));
  item.append(head, text);
  list.append(item);
  while (list.children.length > MAX_MESSAGES) list.firstElementChild.remove();
  list.scrollTop = list.scrollHeight;
  if ($('chat').hidden) {
    unread += 1;
    $('unread').textContent = unread > 99 ? '99+' : unread;
    $('unread').hidden = false;
  }
}

/** Text with its http addresses as links. */
function linked(message) {
  return message.split(/(https?:\/\/\S+)/).map((part, i) => {
    if (i % 2 === 0) return part;
    return Object.assign(document.createElement('a'), { href: part, textContent: part, target: '_blank', rel: 'noopener noreferrer' });
  });
}

// --- controls -------------------------------------------------------------------------------------------------------

$('join').addEventListener('submit', join);
for (const prefix of ['', 'preview-']) {
  $(`${prefix}mic`).addEventListener('click', () => toggle('microphone'));
  $(`${prefix}camera`).addEventListener('click', () => toggle('camera'));
}
$('screen').addEventListener('click', toggleScreen);
$('leave').addEventListener('click', () => session?.leave());
$('chat-toggle').addEventListener('click', () => showChat($('chat').hidden));
$('chat-close').addEventListener('click', () => showChat(false));
$('chat-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const message = $('chat-text').value.trim();
  if (message && session) session.sendChat(message);
  $('chat-text').value = '';
});
$('copy').addEventListener('click', async () => {
  const link = `${location.origin}${location.pathname}#room=${encodeURIComponent(session.room.name)}`;
  try {
    await navigator.clipboard.writeText(link);
    notice('Link copied.');
  } catch {
    notice(link);
  }
});
document.addEventListener('keydown', (event) => {
  if (!session || event.ctrlKey || event.metaKey || event.altKey || event.target.matches('input')) {
    if (event.key === 'Escape' && session) closeSides();
    return;
  }
  const act = { m: () => toggle('microphone'), v: () => toggle('camera'), c: () => (event.preventDefault(), showChat($('chat').hidden)), Escape: closeSides };
  act[event.key]?.();
});
window.addEventListener('pagehide', () => session?.leave());
new ResizeObserver(() => session && layOut()).observe($('stage'));
draw();
