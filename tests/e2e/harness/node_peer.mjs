// A participant with LiveKit's Node package: see outside.mjs for what is said on stdin and stdout.

import { createInterface } from 'node:readline';
import {
  AudioFrame, AudioSource, AudioStream, DataPacketKind, DisconnectReason, LocalAudioTrack, LocalVideoTrack, Room, RoomEvent, TrackKind,
  TrackPublishOptions, TrackSource, VideoBufferType, VideoFrame, VideoSource, VideoStream, dispose,
} from '@livekit/rtc-node';
import { COLOUR_TOLERANCE, PALETTE } from './palette.mjs';

const [WIDTH, HEIGHT, FPS] = [320, 180, 15];
const RATE = 48_000;
const TONE_WINDOW = 9_600;

const say = (event, fields = {}) => process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
const distance = (a, b) => Math.max(...a.map((value, i) => Math.abs(value - b[i])));

/** The picture of pictures.js as RGBA. */
function paint(colour, counter) {
  const pixels = new Uint8Array(WIDTH * HEIGHT * 4);
  const [top, bottom] = [(HEIGHT * 3) >> 3, ((HEIGHT * 3) >> 3) + (HEIGHT >> 2)];
  for (let y = 0, i = 0; y < HEIGHT; y += 1) {
    for (let x = 0; x < WIDTH; x += 1, i += 4) {
      const bit = Math.floor((x * 10) / WIDTH) - 1;
      const inBlock = y >= top && y < bottom && bit >= 0 && bit < 8;
      const shade = (counter >> (7 - bit)) & 1 ? 255 : 0;
      pixels.set(inBlock ? [shade, shade, shade, 255] : [...PALETTE[colour], 255], i);
    }
  }
  return pixels;
}

/** { colour, counter } of a received frame. */
function read(frame) {
  const { data, width, height } = frame.convert(VideoBufferType.RGBA);
  const sum = [0, 0, 0];
  const rows = height >> 2;
  for (let i = 0; i < rows * width * 4; i += 4) for (let c = 0; c < 3; c += 1) sum[c] += data[i + c];
  const mean = sum.map((value) => value / (rows * width));
  const [name, known] = Object.entries(PALETTE).sort((a, b) => distance(a[1], mean) - distance(b[1], mean))[0];
  const colour = distance(known, mean) <= COLOUR_TOLERANCE ? name : `rgb(${mean.map(Math.round)})`;
  let counter = 0;
  for (let bit = 0; bit < 8; bit += 1) {
    const at = ((height >> 1) * width + Math.floor((width * (bit + 1.5)) / 10)) * 4;
    counter = (counter << 1) | (data[at] > 127 ? 1 : 0);
  }
  return { colour, counter };
}

/** Strength of one frequency: Goertzel's filter. */
function strength(samples, hz) {
  const factor = 2 * Math.cos((2 * Math.PI * hz) / RATE);
  let [last, before] = [0, 0];
  for (const sample of samples) [last, before] = [sample / 32768 + factor * last - before, last];
  return last * last + before * before - factor * last * before;
}

async function watch(track, who) {
  let [colour, seen, frames] = [null, new Set(), 0];
  for await (const { frame } of new VideoStream(track)) {
    const picture = read(frame);
    frames += 1;
    if (picture.colour !== colour) [colour, seen] = [picture.colour, new Set()];
    seen.add(picture.counter);
    if (seen.size % 5 === 0 || frames === 1) say('picture', { who, colour, moving: seen.size >= 5, width: frame.width, height: frame.height });
  }
}

async function listen(track, who) {
  let kept = [];
  for await (const frame of new AudioStream(track, RATE, 1)) {
    kept.push(...frame.data);
    if (kept.length < TONE_WINDOW) continue;
    const window = kept.slice(0, TONE_WINDOW);
    kept = kept.slice(TONE_WINDOW);
    if (Math.sqrt(window.reduce((sum, value) => sum + (value / 32768) ** 2, 0) / window.length) < 0.02) continue;
    let loudest = [0, 0];
    for (let hz = 100; hz <= 2000; hz += 10) {
      const power = strength(window, hz);
      if (power > loudest[1]) loudest = [hz, power];
    }
    say('tone', { who, hz: loudest[0] });
  }
}

async function sendTone(source, hz) {
  const samples = RATE / 50;
  for (let position = 0; ; position += samples) {
    const wave = Int16Array.from({ length: samples }, (_, i) => Math.sin((2 * Math.PI * hz * (position + i)) / RATE) * 0.3 * 32767);
    await source.captureFrame(new AudioFrame(wave, RATE, 1, samples));
  }
}

function publishOptions(source) {
  const options = new TrackPublishOptions();
  options.source = source;
  options.simulcast = false;
  return options;
}

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const wishes = JSON.parse((await lines.next()).value);
const room = new Room();

room.on(RoomEvent.TrackSubscribed, (track, _, { identity: who }) => {
  const video = track.kind === TrackKind.KIND_VIDEO;
  say('subscribed', { who, kind: video ? 'video' : 'audio' });
  (video ? watch : listen)(track, who).catch((error) => say('failed', { error: String(error) }));
});
room.on(RoomEvent.TrackUnsubscribed, (track, _, { identity: who }) => say('unsubscribed', { who }));
room.on(RoomEvent.TrackMuted, (_, { identity: who }) => say('muted', { who }));
room.on(RoomEvent.TrackUnmuted, (_, { identity: who }) => say('unmuted', { who }));
room.on(RoomEvent.ParticipantConnected, ({ identity: who }) => say('joined', { who }));
room.on(RoomEvent.ParticipantDisconnected, ({ identity: who }) => say('left', { who }));
room.on(RoomEvent.DataReceived, (payload, who, kind, topic) =>
  say('data', { who: who?.identity, text: new TextDecoder().decode(payload), topic: topic ?? '', reliable: kind === DataPacketKind.KIND_RELIABLE }));
room.on(RoomEvent.Disconnected, (reason) => say('disconnected', { reason: DisconnectReason[reason] }));
room.registerTextStreamHandler('text', async (reader, { identity: who }) => say('text', { who, text: await reader.readAll() }));

await room.connect(wishes.url, wishes.token, { autoSubscribe: true, dynacast: false });
const me = room.localParticipant;
me.registerRpcMethod('reverse', async (call) => [...call.payload].reverse().join(''));
say('connected', { others: [...room.remoteParticipants.keys()].sort() });

if (wishes.colour) {
  const source = new VideoSource(WIDTH, HEIGHT);
  await me.publishTrack(LocalVideoTrack.createVideoTrack('camera', source), publishOptions(TrackSource.SOURCE_CAMERA));
  let counter = 0;
  setInterval(() => {
    counter = (counter + 1) & 0xff;
    source.captureFrame(new VideoFrame(paint(wishes.colour, counter), WIDTH, HEIGHT, VideoBufferType.RGBA));
  }, 1000 / FPS);
}
if (wishes.hz) {
  const source = new AudioSource(RATE, 1);
  await me.publishTrack(LocalAudioTrack.createAudioTrack('microphone', source), publishOptions(TrackSource.SOURCE_MICROPHONE));
  sendTone(source, wishes.hz).catch(() => {});
}
say('published');

for (;;) {
  const { value, done } = await lines.next();
  const command = done ? { do: 'leave' } : JSON.parse(value);
  let result;
  if (command.do === 'leave') break;
  if (command.do === 'data') await me.publishData(new TextEncoder().encode(command.text), { reliable: command.reliable ?? true, topic: command.topic });
  else if (command.do === 'text') await me.sendText(command.text, { topic: 'text' });
  else if (command.do === 'ciphers') {
    const { publisherStats, subscriberStats } = await room.getRtcStats();
    const transports = [...publisherStats, ...subscriberStats].filter(({ stats }) => stats.case === 'transport').map(({ stats }) => stats.value.transport);
    result = transports.filter(({ packetsSent }) => packetsSent > 0).map(({ srtpCipher }) => srtpCipher);
  } else if (command.do === 'call') result = await me.performRpc({ destinationIdentity: command.to, method: command.method, payload: command.payload });
  say('done', { command: command.do, result });
}
await room.disconnect();
await dispose();
process.exit(0);
