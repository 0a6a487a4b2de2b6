// Pictures and tones that say who made them, and how to read them back on the other side.
//
// A picture is one flat colour with a row of eight black or white blocks across its middle: a counter, one bit a
// block, highest bit left. Both survive any codec at any of the sizes used here. The Python and Node participants draw
// and read the same picture.

/* global PALETTE, COLOUR_TOLERANCE -- from palette.mjs */
/* exported paintPicture, noisePattern, paintNoise, readPicture, openTone, listenTo */

const BITS = 8;

const blockRow = (width, height) => ({ x: width / 10, y: (height * 3) / 8, block: width / 10, height: height / 4 });

function paintPicture(context, width, height, colour, counter) {
  context.fillStyle = `rgb(${PALETTE[colour].join(' ')})`;
  context.fillRect(0, 0, width, height);
  const row = blockRow(width, height);
  for (let bit = 0; bit < BITS; bit += 1) {
    context.fillStyle = (counter >> (BITS - 1 - bit)) & 1 ? '#fff' : '#000';
    context.fillRect(row.x + bit * row.block, row.y, row.block, row.height);
  }
}

const GRAIN = 256;

/** Grey dots, of which paintNoise shows another part every time. */
function noisePattern() {
  const pattern = new OffscreenCanvas(GRAIN, GRAIN);
  const context = pattern.getContext('2d');
  const dots = context.createImageData(GRAIN, GRAIN);
  for (let i = 0; i < dots.data.length; i += 4) dots.data.fill(64 + Math.random() * 128, i, i + 3).fill(255, i + 3, i + 4);
  context.putImageData(dots, 0, 0);
  return pattern;
}

/** Dots of 4 by 4 pixels. */
function paintNoise(context, pattern, x, y, width, height) {
  const [w, h] = [width / 4, height / 4];
  context.imageSmoothingEnabled = false;
  context.drawImage(pattern, Math.random() * (GRAIN - w), Math.random() * (GRAIN - h), w, h, x, y, width, height);
}

function average(context, x, y, width, height) {
  const { data } = context.getImageData(Math.round(x), Math.round(y), Math.max(1, Math.round(width)), Math.max(1, Math.round(height)));
  const sum = [0, 0, 0];
  for (let i = 0; i < data.length; i += 4) for (let c = 0; c < 3; c += 1) sum[c] += data[i + c];
  return sum.map((value) => value / (data.length / 4));
}

const distance = (a, b) => Math.max(...a.map((value, i) => Math.abs(value - b[i])));

function nameOf(rgb) {
  const [name, known] = Object.entries(PALETTE).sort((a, b) => distance(a[1], rgb) - distance(b[1], rgb))[0];
  return distance(known, rgb) <= COLOUR_TOLERANCE ? name : `rgb(${rgb.map(Math.round).join(' ')})`;
}

const scratch = document.createElement('canvas');
scratch.width = 160;
scratch.height = 90;
const scratchContext = scratch.getContext('2d', { willReadFrequently: true });

/** What a playing <video> shows now: { colour, counter }, or null before its first frame. */
function readPicture(video) {
  if (!video.videoWidth || video.readyState < 2) return null;
  const { width, height } = scratch;
  scratchContext.drawImage(video, 0, 0, width, height);
  const corners = [
    [0.05, 0.05],
    [0.75, 0.05],
    [0.05, 0.75],
    [0.75, 0.75],
  ].map(([x, y]) => average(scratchContext, x * width, y * height, width * 0.2, height * 0.2));
  const names = new Set(corners.map(nameOf));
  const row = blockRow(width, height);
  let counter = 0;
  for (let bit = 0; bit < BITS; bit += 1) {
    const [red] = average(scratchContext, row.x + (bit + 0.3) * row.block, row.y + row.height * 0.3, row.block * 0.4, row.height * 0.4);
    counter = (counter << 1) | (red > 127 ? 1 : 0);
  }
  return { colour: names.size === 1 ? [...names][0] : [...names].join('+'), counter };
}

let audioContext = null;
function sound() {
  audioContext ??= new AudioContext();
  return audioContext;
}

/** A steady sine as a MediaStreamTrack. */
function openTone(hz) {
  const context = sound();
  const oscillator = new OscillatorNode(context, { frequency: hz });
  const level = new GainNode(context, { gain: 0.3 });
  const destination = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
  oscillator.connect(level).connect(destination);
  oscillator.start();
  return { track: destination.stream.getAudioTracks()[0], stop: () => oscillator.stop() };
}

/** Reads the loudest frequency of a track: `read()` gives { hz, rms }, rms of full scale. */
function listenTo(track) {
  const context = sound();
  const source = context.createMediaStreamSource(new MediaStream([track]));
  const analyser = new AnalyserNode(context, { fftSize: 4096, smoothingTimeConstant: 0 });
  source.connect(analyser);
  const levels = new Float32Array(analyser.frequencyBinCount);
  const samples = new Float32Array(analyser.fftSize);
  return {
    read() {
      analyser.getFloatFrequencyData(levels);
      analyser.getFloatTimeDomainData(samples);
      let loudest = 0;
      for (let bin = 1; bin < levels.length; bin += 1) if (levels[bin] > levels[loudest]) loudest = bin;
      const rms = Math.sqrt(samples.reduce((sum, value) => sum + value * value, 0) / samples.length);
      return { hz: (loudest * context.sampleRate) / analyser.fftSize, rms };
    },
    stop: () => source.disconnect(),
  };
}
