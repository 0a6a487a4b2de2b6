// One livekit-client participant, driven from the stories through `peer.<method>`.
//
// Every method that waits does so on room events, video frames and sound, with a deadline, and on failure says what it
// had seen instead. Nothing is tried twice.

/* global LivekitClient, paintPicture, noisePattern, paintNoise, readPicture, openTone, listenTo */
/* exported peer */

const connections = [];
let lacking = []; // MIME types of video that this client is made unable to receive
let relays = null; // what the addresses of the TURN servers begin with that this client may use, and nothing but those
{
  const Native = window.RTCPeerConnection;
  const limit = (transceiver) => {
    if (!lacking.length || transceiver.receiver.track.kind !== 'video') return;
    const { codecs } = RTCRtpReceiver.getCapabilities('video');
    transceiver.setCodecPreferences(codecs.filter(({ mimeType }) => !lacking.includes(mimeType.toLowerCase())));
  };
  const only = (configuration) => {
    if (!relays || !configuration?.iceServers) return configuration;
    const servers = configuration.iceServers.map((server) => ({ ...server, urls: [server.urls].flat().filter((url) => url.startsWith(relays.scheme) && url.includes(`transport=${relays.transport}`)) }));
    return { ...configuration, iceTransportPolicy: 'relay', iceServers: servers.filter(({ urls }) => urls.length) };
  };
  window.RTCPeerConnection = class extends Native {
    constructor(configuration, ...more) {
      super(only(configuration), ...more);
      connections.push(this);
    }
    setConfiguration(configuration) {
      super.setConfiguration(only(configuration));
    }
    addTransceiver(...args) {
      const transceiver = super.addTransceiver(...args);
      if (transceiver.direction === 'recvonly') limit(transceiver);
      return transceiver;
    }
    async setRemoteDescription(description) {
      await super.setRemoteDescription(description);
      if (description.type === 'offer') this.getTransceivers().forEach(limit);
    }
  };
}

const peer = (() => {
  const { Room, RoomEvent, Track, DisconnectReason, Participant, TrackPublication } = LivekitClient;
  LivekitClient.setLogLevel('warn');

  const DEADLINE_MS = 20_000;
  const REASONS = ['OK', 'NOT_FOUND', 'NOT_ALLOWED', 'LIMIT_EXCEEDED', 'QUEUED']; // of RequestResponse
  const TICK_MS = 50; // sound has no event of its own
  const MOMENTS = 20_000; // frames remembered of a track: ten minutes

  let room = null;
  const events = [];
  const sources = new Map(); // published track name → generator
  const watched = new Map(); // remote track sid → what is watched of it
  const received = []; // texts, files and data-track frames that reached a handler
  const waiting = new Set();
  let packets = null; // of the microphone that is watched

  const nudge = () => waiting.forEach((check) => check());
  setInterval(nudge, TICK_MS);

  /** Resolves with the first value of `probe` that is neither undefined, null nor false. */
  function until(what, probe, deadline = DEADLINE_MS) {
    return new Promise((resolve, reject) => {
      let timer = 0;
      const end = (settle, value) => {
        clearTimeout(timer);
        waiting.delete(check);
        settle(value);
      };
      const check = () => {
        let value;
        try {
          value = probe();
        } catch (error) {
          return end(reject, error);
        }
        if (value !== undefined && value !== null && value !== false) end(resolve, value);
      };
      timer = setTimeout(() => end(reject, new Error(`waited ${deadline} ms for ${what}\n${report()}`)), deadline);
      waiting.add(check);
      check();
    });
  }

  function report() {
    const tracks = [...watched.values()].map(({ who, source, name, frames, seen, video, ear }) => {
      const detail = video ? { frames, seen, size: `${video.videoWidth}x${video.videoHeight}` } : ear.read();
      return JSON.stringify({ who, source, name, ...detail });
    });
    return [`state ${room?.state}`, ...tracks, 'last events:', ...events.slice(-12).map((event) => JSON.stringify(event))].join('\n');
  }

  // --- events ---------------------------------------------------------------------------------------------------

  function describe(value) {
    if (value instanceof Participant) return { identity: value.identity };
    if (value instanceof TrackPublication) {
      return { trackSid: value.trackSid, source: value.source, kind: value.kind, trackName: value.trackName };
    }
    if (value instanceof Uint8Array) return { text: new TextDecoder().decode(value) };
    if (Array.isArray(value) && value.every((item) => item instanceof Participant)) {
      return { identities: value.map((item) => item.identity) };
    }
    if (value instanceof LivekitClient.RemoteDataTrack) return { dataTrack: value.info.name, identity: value.publisherIdentity };
    if (value === null || value === undefined || value instanceof Track) return {};
    if (typeof value === 'object') {
      const plain = Object.entries(value).filter(([, item]) => ['string', 'number', 'boolean'].includes(typeof item));
      return { object: Object.fromEntries(plain) };
    }
    return { values: [typeof value === 'bigint' ? Number(value) : value] };
  }

  function record(event, args) {
    const entry = { event, values: [], at: Date.now() };
    for (const arg of args) {
      const { values = [], ...rest } = describe(arg);
      Object.assign(entry, { ...rest, ...entry });
      entry.values.push(...values);
    }
    if (event === RoomEvent.Disconnected) entry.reason = DisconnectReason[args[0]];
    if (event === RoomEvent.DataReceived) Object.assign(entry, { reliable: args[2] === 0, topic: args[3] ?? '' });
    if (event === RoomEvent.ChatMessage) entry.text = args[0].message;
    events.push(entry);
    nudge();
  }

  const matches = (entry, wanted) =>
    Object.entries(wanted).every(([key, value]) => JSON.stringify(entry[key]) === JSON.stringify(value));

  // --- remote media ---------------------------------------------------------------------------------------------

  function watch(track, publication, participant) {
    unwatch(track);
    const entry = { who: participant.identity, source: publication.source, name: publication.trackName, track, frames: 0, lastFrame: 0, seen: [], subscribed: performance.now(), moments: [] };
    const element = track.attach();
    element.muted = track.kind === Track.Kind.Video;
    document.body.append(element);
    if (track.kind === Track.Kind.Video) {
      entry.video = element;
      const onFrame = (now, { height }) => {
        entry.frames += 1;
        entry.lastFrame = performance.now();
        entry.moments.push([entry.lastFrame, height]);
        if (entry.moments.length > MOMENTS) entry.moments.shift();
        entry.firstFrame ??= entry.lastFrame;
        nudge();
        if (watched.get(track.sid) === entry) element.requestVideoFrameCallback(onFrame);
      };
      element.requestVideoFrameCallback(onFrame);
    } else {
      entry.ear = listenTo(track.mediaStreamTrack);
    }
    watched.set(track.sid, entry);
  }

  function unwatch(track) {
    const entry = watched.get(track.sid);
    if (!entry) return;
    watched.delete(track.sid);
    entry.ear?.stop();
    track.detach().forEach((element) => element.remove());
  }

  function find(identity, wanted) {
    return [...watched.values()].find(
      (entry) => entry.who === identity && (wanted.name ? entry.name === wanted.name : entry.source === wanted.source),
    );
  }

  function remotePublication(identity, { source, name }) {
    const participant = room.remoteParticipants.get(identity);
    return name ? participant?.getTrackPublicationByName(name) : participant?.getTrackPublication(source);
  }

  function localPublication(name) {
    return room.localParticipant.getTrackPublicationByName(name);
  }

  // --- what stories call ----------------------------------------------------------------------------------------

  return {
    /** `secret`: frames are encrypted end to end with a key made of it. */
    async connect({ url, token, form, secret, options = {}, connect = {}, lacks = [], via = null }) {
      lacking = lacks;
      relays = via;
      let e2ee;
      if (secret) {
        const keyProvider = new LivekitClient.ExternalE2EEKeyProvider();
        await keyProvider.setKey(secret);
        e2ee = { keyProvider, worker: new Worker('/livekit-client.e2ee.worker.js') };
      }
      room = new Room({
        e2ee,
        singlePeerConnection: form === 'single',
        publishDefaults: { simulcast: false, backupCodec: false, stopMicTrackOnMute: false },
        ...options,
      });
      for (const event of Object.values(RoomEvent)) room.on(event, (...args) => record(event, args));
      room.on(RoomEvent.TrackSubscribed, watch);
      room.on(RoomEvent.TrackUnsubscribed, unwatch);
      room.registerTextStreamHandler('text', async (reader, from) => {
        received.push({ type: 'text', from: from.identity, attributes: reader.info.attributes, text: await reader.readAll() });
        nudge();
      });
      room.registerByteStreamHandler('bytes', async (reader, from) => {
        const bytes = new Uint8Array(await new Blob(await reader.readAll()).arrayBuffer());
        const sum = bytes.reduce((total, byte) => (total * 31 + byte) >>> 0, 0);
        received.push({ type: 'bytes', from: from.identity, name: reader.info.name, size: bytes.length, sum });
        nudge();
      });
      room.registerRpcMethod('reverse', async (call) => [...call.payload].reverse().join(''));
      if (secret) await room.setE2EEEnabled(true);
      await room.connect(url, token, { maxRetries: 0, ...connect });
      // The client keeps the server's refusals to itself.
      room.engine.on('signalRequestResponse', ({ reason }) => record('requestResponse', [REASONS[reason] ?? reason]));
      return { sid: room.localParticipant.sid, identity: room.localParticipant.identity };
    },

    /** Joins and waits for `identity`'s picture: ms from the call of connect() to its return and to the first frame. */
    async timeJoin(wishes, identity) {
      const start = performance.now();
      await this.connect(wishes);
      const connected = performance.now() - start;
      const firstFrame = await until(`${identity}'s first frame`, () => find(identity, { source: Track.Source.Camera })?.firstFrame);
      return { connected, firstFrame: firstFrame - start };
    },

    /**
     * Joins and publishes the prepared microphone: when each step was done, ms since the epoch. `ahead`: the track is
     * offered while the connection is being made.
     */
    async timeSpeaking(wishes, { ahead = false } = {}) {
      const times = { begun: Date.now() };
      const connecting = this.connect(wishes).then(() => (times.connected = Date.now()));
      if (!ahead) await connecting;
      const { track } = sources.get('microphone');
      await room.localParticipant.publishTrack(track, { name: 'microphone', source: Track.Source.Microphone });
      times.published = Date.now();
      await connecting;
      return times;
    },
    /**
     * Subscribes to the first microphone of `identity` as soon as it is known, as Fluxer's client does: when it was known,
     * when its track came, and when its first decoded sound was played, ms since the epoch.
     */
    async timeHearing(identity) {
      const wanted = { source: Track.Source.Microphone };
      const times = {};
      const publication = await until(`${identity}'s microphone`, () => room.remoteParticipants.has(identity) && remotePublication(identity, wanted));
      times.known = Date.now();
      publication.setSubscribed(true);
      const { track } = await until(`${identity}'s track`, () => find(identity, wanted));
      times.subscribed = Date.now();
      // What has been played of a receiver has no event.
      while (!track.receiver.getSynchronizationSources().length) await new Promise((resolve) => setTimeout(resolve));
      times.heard = Date.now();
      return times;
    },

    /** From now on it is remembered when the last packet of `identity`'s microphone came. */
    watchPackets(identity) {
      const { receiver } = find(identity, { source: Track.Source.Microphone }).track;
      const own = { last: 0 };
      own.timer = setInterval(async () => {
        for (const { type, lastPacketReceivedTimestamp: last } of (await receiver.getStats()).values()) {
          if (type === 'inbound-rtp' && last > own.last) own.last = last;
        }
      }, 10);
      packets = own;
    },
    /** When the last one came, ms since the epoch, `forMs` after anybody could know that it was the last. */
    async lastPacket(forMs = 300) {
      await new Promise((resolve) => setTimeout(resolve, forMs));
      clearInterval(packets.timer);
      return packets.last;
    },

    /** The clock of everything below that is in ms. */
    now: () => performance.now(),
    /** `identity`'s frames since the call before: when it was subscribed to, and [when, lines] of each frame. */
    framesOf(identity, wanted = { source: Track.Source.Camera }) {
      const entry = find(identity, wanted);
      return { subscribed: entry.subscribed, now: performance.now(), frames: entry.moments.splice(0) };
    },
    /** Waits until `identity`'s picture moves at a rate for which `from` ≤ frames a second ≤ `to`; over a second each time. */
    async seesRate(identity, from, to) {
      const rates = [];
      const deadline = performance.now() + DEADLINE_MS;
      for (;;) {
        const before = find(identity, { source: Track.Source.Camera }).frames;
        const start = performance.now();
        await new Promise((resolve) => setTimeout(resolve, 1_000));
        const rate = ((find(identity, { source: Track.Source.Camera }).frames - before) * 1_000) / (performance.now() - start);
        rates.push(Math.round(rate * 10) / 10);
        if (rate >= from && rate <= to) return;
        if (performance.now() > deadline) throw new Error(`waited for ${from} to ${to} frames a second, not ${rates}`);
      }
    },
    /** Asks for a quality: ms until the first frame of `height` lines. */
    async timeQuality(identity, quality, height) {
      const entry = find(identity, { source: Track.Source.Camera });
      entry.moments.length = 0;
      const start = performance.now();
      this.setQuality(identity, { source: Track.Source.Camera }, quality);
      const [at] = await until(`${identity}'s picture at ${height} lines`, () => entry.moments.find(([, lines]) => lines === height));
      return at - start;
    },

    /** Leaves, and stops the generators. */
    async leave() {
      await room?.disconnect();
      sources.forEach((source) => source.stop());
    },

    /** `noise`: the share of the picture that no encoder can predict, so that an encoding takes the rate it may take. */
    async publishPicture({ colour, name = 'camera', source = Track.Source.Camera, width = 320, height = 180, fps = 15, noise = 0, ...options }) {
      const canvas = document.createElement('canvas');
      canvas.width = width;
      canvas.height = height;
      const context = canvas.getContext('2d');
      let counter = 0;
      const grain = noise > 0 ? noisePattern() : null;
      const paint = () => {
        paintPicture(context, width, height, colour, (counter = (counter + 1) & 0xff));
        if (grain) paintNoise(context, grain, width / 4, height * (1 - noise), width / 2, height * noise);
      };
      paint();
      const timer = setInterval(paint, 1000 / fps);
      const track = canvas.captureStream(fps).getVideoTracks()[0];
      sources.set(name, { track, stop: () => (clearInterval(timer), track.stop()) });
      const publication = await room.localParticipant.publishTrack(track, { name, source, ...options });
      return { sid: publication.trackSid, mime: publication.mimeType };
    },

    async publishTone({ hz, name = 'microphone', source = Track.Source.Microphone, ...options }) {
      this.prepareTone(hz, name);
      const publication = await room.localParticipant.publishTrack(sources.get(name).track, { name, source, ...options });
      return { sid: publication.trackSid, mime: publication.mimeType };
    },
    /** A track for `republish`: a microphone that is open before anybody connects. */
    prepareTone(hz, name = 'microphone') {
      sources.set(name, openTone(hz));
    },

    async unpublish(name) {
      await room.localParticipant.unpublishTrack(sources.get(name).track, false);
    },
    async republish(name, options = {}) {
      const source = name === 'microphone' ? Track.Source.Microphone : Track.Source.Camera;
      await room.localParticipant.publishTrack(sources.get(name).track, { name, source, ...options });
    },
    mute: async (name) => void (await localPublication(name).mute()),
    unmute: async (name) => void (await localPublication(name).unmute()),
    isMuted: (name) => localPublication(name).isMuted,
    setSubscribed(identity, wanted, subscribed) {
      remotePublication(identity, wanted).setSubscribed(subscribed);
    },
    setQuality(identity, wanted, quality) {
      remotePublication(identity, wanted).setVideoQuality(LivekitClient.VideoQuality[quality]);
    },

    setFps(identity, wanted, fps) {
      remotePublication(identity, wanted).setVideoFPS(fps);
    },
    setDimensions(identity, wanted, width, height) {
      remotePublication(identity, wanted).setVideoDimensions({ width, height });
    },
    /** The size at which `identity`'s picture is shown; none = not at all. */
    show(identity, wanted, width, height) {
      const { style } = find(identity, wanted).video;
      Object.assign(style, width ? { display: 'block', width: `${width}px`, height: `${height}px` } : { display: 'none' });
    },
    /** MIME types of the video that is decoded while this waits, when they are `wanted`. */
    async decodes(wanted) {
      const deadline = performance.now() + DEADLINE_MS;
      for (let before = null; ; await new Promise((resolve) => setTimeout(resolve, 250))) {
        const frames = new Map();
        const codecs = new Map((await this.stats('codec')).map((codec) => [codec.id, codec.mimeType.toLowerCase()]));
        for (const stream of await this.stats('inbound-rtp')) {
          if (stream.kind === 'video' && codecs.has(stream.codecId)) frames.set(stream.id + stream.ssrc, [codecs.get(stream.codecId), stream.framesDecoded]);
        }
        const growing = [...frames].filter(([id, [, count]]) => before?.has(id) && count > before.get(id)[1]).map(([, [codec]]) => codec);
        if (JSON.stringify(growing.sort()) === JSON.stringify([...wanted].sort())) return;
        if (performance.now() > deadline) throw new Error(`waited for ${wanted} to be decoded, not ${growing}\n${report()}`);
        before = frames;
      }
    },
    /** Waits until exactly these video encodings (codec and rid, `vp8 q`) are being sent. */
    async sends(wanted) {
      const deadline = performance.now() + DEADLINE_MS;
      for (let before = null; ; await new Promise((resolve) => setTimeout(resolve, 400))) {
        const codecs = new Map((await this.stats('codec')).map((codec) => [codec.id, codec.mimeType.toLowerCase().replace('video/', '')]));
        const frames = new Map();
        for (const stream of await this.stats('outbound-rtp')) {
          if (stream.kind === 'video') frames.set(stream.ssrc, [[codecs.get(stream.codecId), stream.rid].filter(Boolean).join(' '), stream.framesSent ?? 0]);
        }
        const growing = [...frames].filter(([ssrc, [, count]]) => before?.has(ssrc) && count > before.get(ssrc)[1]).map(([, [name]]) => name);
        if (JSON.stringify(growing.sort()) === JSON.stringify([...wanted].sort())) return;
        if (performance.now() > deadline) throw new Error(`waited for ${wanted} to be sent, not ${growing}\n${report()}`);
        before = frames;
      }
    },

    /** Waits until `identity`'s picture has the colour and its counter has taken `advances` values. */
    async sees(identity, colour, { source = Track.Source.Camera, name, advances = 5, deadline } = {}) {
      const counters = new Set();
      let frames = -1;
      return until(
        `${identity}'s ${name ?? source} in ${colour}`,
        () => {
          const entry = find(identity, { source, name });
          if (!entry || entry.frames === frames) return null;
          frames = entry.frames;
          const picture = (entry.seen = readPicture(entry.video));
          if (picture?.colour !== colour) return null;
          counters.add(picture.counter);
          if (counters.size < advances) return null;
          return { width: entry.video.videoWidth, height: entry.video.videoHeight };
        },
        deadline,
      );
    },

    /** Waits until `identity`'s picture is `height` lines high. */
    seesHeight: (identity, height, { source = Track.Source.Camera, name, deadline } = {}) =>
      until(`${identity}'s picture at ${height} lines`, () => find(identity, { source, name })?.video?.videoHeight === height, deadline),

    /** Waits until a frame of `identity`'s camera that came at `since` or later has `height` lines; `framesOf` has it then. */
    seesFrame: (identity, height, since) =>
      until(`a frame of ${identity}'s of ${height} lines`, () =>
        find(identity, { source: Track.Source.Camera }).moments.some(([at, lines]) => at >= since && lines === height),
      ),

    /** Waits until the loudest frequency of `identity`'s sound is `hz`. */
    hears: (identity, hz, { source = Track.Source.Microphone, name, deadline } = {}) =>
      until(
        `${identity}'s tone of ${hz} Hz`,
        () => {
          const heard = find(identity, { source, name })?.ear.read();
          return heard && heard.rms > 0.02 && Math.abs(heard.hz - hz) < 25 && heard;
        },
        deadline,
      ),

    /** Waits until nothing has been heard of `identity` for `forMs`. */
    silent(identity, forMs = 500, { source = Track.Source.Microphone, name } = {}) {
      let since = performance.now();
      return until(`${identity} to fall silent`, () => {
        const heard = find(identity, { source, name })?.ear.read();
        if (heard && heard.rms > 0.002) since = performance.now();
        return performance.now() - since >= forMs;
      });
    },

    /** Waits until no frame of `identity`'s video has come for `forMs`. */
    still(identity, forMs = 1000, { source = Track.Source.Camera, name } = {}) {
      const start = performance.now();
      return until(`${identity}'s video to stop`, () => {
        const last = find(identity, { source, name })?.lastFrame ?? 0;
        return performance.now() - Math.max(start, last) >= forMs;
      });
    },

    /** Position in the list of events, for `expect(…, { after })`. */
    mark: () => events.length,
    /** Waits for a room event whose record has the given fields. */
    expect: (event, wanted = {}, { after = 0, deadline } = {}) =>
      until(`event ${event} ${JSON.stringify(wanted)}`, () => events.slice(after).find((entry) => entry.event === event && matches(entry, wanted)), deadline),
    happened: (event, wanted = {}, after = 0) => events.slice(after).some((entry) => entry.event === event && matches(entry, wanted)),
    others: () => [...room.remoteParticipants.keys()].sort(),
    waitForOthers: (identities) =>
      until(`the others to be ${identities}`, () => JSON.stringify([...room.remoteParticipants.keys()].sort()) === JSON.stringify([...identities].sort())),
    state: () => room.state,

    participant(identity) {
      const who = identity === room.localParticipant.identity ? room.localParticipant : room.remoteParticipants.get(identity);
      return who && { sid: who.sid, name: who.name, metadata: who.metadata, attributes: { ...who.attributes }, speaking: who.isSpeaking, permissions: { ...who.permissions } };
    },
    roomInfo: () => ({ name: room.name, metadata: room.metadata, recording: room.isRecording }),
    publication(identity, wanted) {
      const who = identity === room.localParticipant.identity ? room.localParticipant : room.remoteParticipants.get(identity);
      const found = wanted.name ? who?.getTrackPublicationByName(wanted.name) : who?.getTrackPublication(wanted.source);
      return found && { sid: found.trackSid, mime: found.mimeType, encrypted: found.isEncrypted, muted: found.isMuted, simulcast: found.simulcasted, subscribed: found.isSubscribed };
    },
    /** Makes the client forget what it may not do, so that the server has to say it. */
    forgetPermissions() {
      const all = { canPublish: true, canPublishData: true, canSubscribe: true, canUpdateMetadata: true, canPublishSources: [] };
      Object.defineProperty(room.localParticipant, 'permissions', { get: () => all, set() {} });
    },
    setMetadata: (metadata) => room.localParticipant.setMetadata(metadata),
    setName: (name) => room.localParticipant.setName(name),
    setAttributes: (attributes) => room.localParticipant.setAttributes(attributes),

    // --- data ---
    sendData: (text, options) => room.localParticipant.publishData(new TextEncoder().encode(text), options),
    sendChat: async (text) => void (await room.localParticipant.sendChatMessage(text)),
    sendText: async (text, options) => void (await room.localParticipant.sendText(text, { topic: 'text', ...options })),
    /** Sends `size` generated bytes as a stream; returns the checksum the receivers should get. */
    async sendBytes(size, name) {
      const bytes = Uint8Array.from({ length: size }, (_, i) => (i * 7 + (i >> 8)) & 0xff);
      const writer = await room.localParticipant.streamBytes({ name, topic: 'bytes', totalSize: size, mimeType: 'application/octet-stream' });
      await writer.write(bytes);
      await writer.close();
      return bytes.reduce((total, byte) => (total * 31 + byte) >>> 0, 0);
    },
    received: (wanted) => until(`a stream ${JSON.stringify(wanted)}`, () => received.find((entry) => matches(entry, wanted))),
    call: (identity, method, payload) => room.localParticipant.performRpc({ destinationIdentity: identity, method, payload }),
    /** Publishes a data track that carries a growing number, 20 times a second. */
    async publishDataTrack(name) {
      const track = await room.localParticipant.publishDataTrack({ name });
      let number = 0;
      const push = () => track.tryPush({ payload: new TextEncoder().encode(String((number += 1))) }).catch(() => {});
      const timer = setInterval(push, 50);
      sources.set(`data ${name}`, { track, stop: () => clearInterval(timer) });
    },
    unpublishDataTrack: (name) => (sources.get(`data ${name}`).stop(), sources.get(`data ${name}`).track.unpublish()),
    /** The next `count` numbers of a remote data track. */
    async readDataTrack(identity, name, count) {
      const track = await room.remoteParticipants.get(identity).dataTracks.getDeferred(name);
      const reader = track.subscribe().getReader();
      const numbers = [];
      const reading = (async () => {
        while (numbers.length < count) {
          const { done, value } = await reader.read();
          if (done) break;
          numbers.push(Number(new TextDecoder().decode(value.payload)));
          nudge();
        }
      })();
      await until(`${count} frames of data track ${name}`, () => numbers.length >= count);
      await reading;
      await reader.cancel();
      return numbers;
    },

    // --- transport ---
    simulate: (scenario, arg) => room.simulateScenario(scenario, arg),
    publisherCodecs: () => RTCRtpSender.getCapabilities('video').codecs.map((codec) => codec.mimeType.toLowerCase()),
    /** Every statistics record of every open peer connection. */
    async stats(type) {
      const open = connections.filter((connection) => connection.connectionState === 'connected');
      const reports = await Promise.all(open.map((connection) => connection.getStats()));
      return reports.flatMap((report) => [...report.values()]).filter((entry) => entry.type === type);
    },
    /** The last descriptions of every open peer connection, by who made them and by what they were. */
    descriptions: () =>
      connections
        .filter((connection) => connection.connectionState === 'connected')
        .map(({ localDescription, remoteDescription }) => {
          const [local, remote] = [localDescription.sdp, remoteDescription.sdp];
          return localDescription.type === 'offer' ? { local, remote, offer: local, answer: remote } : { local, remote, offer: remote, answer: local };
        }),
    /** The m-lines of every open peer connection: [[{ kind, direction }]]. */
    sections: () =>
      connections
        .filter((connection) => connection.connectionState === 'connected')
        .map((connection) => connection.getTransceivers().map((one) => ({ kind: one.receiver.track.kind, direction: one.currentDirection }))),
  };
})();
