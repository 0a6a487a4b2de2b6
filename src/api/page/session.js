// One participant in one room, over LiveKit's signalling in its JSON form and two peer connections.
//
// The server offers on the subscriber connection (what we receive), we offer on the publisher connection (what we send).
// Owns the WebSocket, both connections and the local tracks it was given; draws nothing. Events: `change` (somebody or
// something to show is different), `chat` (detail: a message), `state` (detail: connected | reconnecting), `muted-by-server` and
// `unpublished-by-server` (detail: source), `ended` (detail: a sentence for the user, or null after `leave`).

import { decodeChat, encodeChat } from './packets.js';

const PROTOCOL = 16;
const RESUME_DELAYS_MS = [0, 400, 1000, 2000, 4000];
const FIRST_MESSAGE_DEADLINE_MS = 8000;
const SOURCES = { camera: 'CAMERA', microphone: 'MICROPHONE', screen: 'SCREEN_SHARE', 'screen-audio': 'SCREEN_SHARE_AUDIO' };
const QUALITY_OF_RID = { q: 'LOW', h: 'MEDIUM', f: 'HIGH' };

const ENDINGS = {
  DUPLICATE_IDENTITY: 'You joined this room again from another tab or device, so this one has left.',
  SERVER_SHUTDOWN: 'The server is shutting down.',
  PARTICIPANT_REMOVED: 'You were removed from the room.',
  ROOM_DELETED: 'The room was closed.',
  ROOM_CLOSED: 'The room was closed.',
  JOIN_FAILURE: 'The connection for sound and video could not be made. A firewall may be in the way.',
};

export class Session extends EventTarget {
  /** { sid → participant }, oneself included; a participant: { sid, identity, name, state, version, tracks, level, quality } */
  participants = new Map();
  /** Track sid → MediaStreamTrack that arrives. */
  media = new Map();
  me = null;
  room = null;

  #server;
  #token;
  #socket = null;
  #publisher = null;
  #subscriber = null;
  #reliable = null;
  #published = new Map(); // source → { track, options, sid, cid, sender }
  #awaitingSid = new Map(); // cid → { resolve, reject }
  #candidates = { PUBLISHER: [], SUBSCRIBER: [] };
  #negotiation = Promise.resolve();
  #answered = null;
  #offerId = 0;
  #ping = 0;
  #lastHeard = 0;
  #rtt = 0;
  #recovering = false;
  #ended = false;
  #wishes = new Map(); // track sid → last size asked for

  /** `server`: URL the signalling lives under; `token`: an access token. */
  constructor(server, token) {
    super();
    this.#server = server;
    this.#token = token;
  }

  async join() {
    const first = await this.#open({});
    if (!first.join) throw new Error(endingOf(first.leave));
    this.#enter(first.join);
  }

  leave() {
    if (this.#ended) return;
    this.#send({ leave: { reason: 'CLIENT_INITIATED' } });
    this.#end(null);
  }

  get canPublish() {
    return this.me?.permission?.canPublish ?? false;
  }
  get canChat() {
    return this.me?.permission?.canPublishData ?? false;
  }

  // --- signalling -------------------------------------------------------------------------------------------------

  #url(path, parameters) {
    const url = new URL(path, this.#server);
    url.search = new URLSearchParams({
      access_token: this.#token,
      auto_subscribe: '1',
      protocol: PROTOCOL,
      sdk: 'js',
      version: '2.0.0',
      format: 'json',
      ...parameters,
    });
    return url;
  }

  /** Opens a WebSocket and gives its first message. */
  async #open(parameters) {
    const url = this.#url('rtc', parameters);
    url.protocol = url.protocol.replace('http', 'ws');
    const socket = new WebSocket(url);
    this.#socket?.close();
    this.#socket = socket;
    try {
      return await new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error('The server does not answer.')), FIRST_MESSAGE_DEADLINE_MS);
        socket.onmessage = ({ data }) => {
          clearTimeout(timer);
          socket.onmessage = (event) => this.#receive(socket, event.data);
          socket.onclose = () => this.#closed(socket);
          resolve(JSON.parse(data));
        };
        socket.onclose = () => {
          clearTimeout(timer);
          reject(new Error('The server cannot be reached.'));
        };
      });
    } catch (error) {
      socket.onclose = socket.onmessage = null;
      socket.close();
      throw new Error(await this.#whyNot(parameters, error.message));
    }
  }

  /** A WebSocket that fails says nothing; the same request over HTTP does. */
  async #whyNot(parameters, otherwise) {
    try {
      const answer = await fetch(this.#url('rtc/validate', parameters));
      if (answer.ok) return otherwise;
      if (answer.status === 401 || answer.status === 403) return `The server does not accept this access token (${await answer.text()}).`;
      return `The server refused: ${await answer.text()}`;
    } catch {
      return otherwise;
    }
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #receive(socket, data) {
    if (socket !== this.#socket) return;
    this.#lastHeard = performance.now();
    // A field set to nothing but its defaults may be an empty object: what is asked is whether it is there.
    const message = JSON.parse(data);
    const [kind] = Object.keys(message);
    this.#handlers[kind]?.(message[kind]);
  }

  #handlers = {
    answer: (answer) => this.#takeAnswer(answer),
    offer: (offer) => this.#takeOffer(offer),
    trickle: (trickle) => this.#takeCandidate(trickle),
    update: ({ participants = [] }) => this.#takeParticipants(participants),
    roomUpdate: ({ room }) => this.#changed((this.room = { ...this.room, ...room })),
    trackPublished: ({ cid, track }) => this.#settle(cid, 'resolve', track.sid),
    requestResponse: ({ addTrack, reason, message }) => {
      const refused = addTrack && reason && reason !== 'QUEUED';
      if (refused) this.#settle(addTrack.cid, 'reject', new Error(message || `The server refused the track (${reason}).`));
    },
    mute: ({ sid, muted }) => muted && this.#tell('muted-by-server', this.#sourceOf(sid)),
    trackUnpublished: ({ trackSid }) => {
      const source = this.#sourceOf(trackSid);
      if (!source) return;
      this.unpublish(source);
      this.#tell('unpublished-by-server', source);
    },
    speakersChanged: ({ speakers = [] }) => {
      for (const { sid, level = 0, active = false } of speakers) {
        const participant = this.participants.get(sid);
        if (participant) participant.level = active ? level : 0;
      }
      this.#changed();
    },
    connectionQuality: ({ updates = [] }) => {
      for (const { participantSid, quality = 'POOR' } of updates) {
        const participant = this.participants.get(participantSid);
        if (participant) participant.quality = quality;
      }
      this.#changed();
    },
    subscribedQualityUpdate: (update) => this.#sendOnly(update),
    refreshToken: (token) => (this.#token = token),
    pongResp: ({ lastPingTimestamp }) => (this.#rtt = Math.max(0, Date.now() - Number(lastPingTimestamp))),
    leave: (leave) => {
      if (leave.action === 'RESUME') this.#recover();
      else if (leave.action === 'RECONNECT') this.#recover({ afresh: true });
      else this.#end(endingOf(leave));
    },
  };

  #enter(join) {
    this.room = join.room;
    this.me = { ...join.participant, tracks: join.participant.tracks ?? [], level: 0 };
    this.participants.clear();
    this.participants.set(this.me.sid, this.me);
    this.#connect(join);
    this.#watchSocket(join);
    this.#takeParticipants(join.otherParticipants ?? []);
    if (this.canPublish || this.canChat) this.#negotiate();
    this.#tell('state', 'connected');
  }

  #watchSocket({ pingInterval = 5, pingTimeout = 15 }) {
    clearInterval(this.#ping);
    this.#lastHeard = performance.now();
    this.#ping = setInterval(() => {
      if (performance.now() - this.#lastHeard > pingTimeout * 1000) return this.#closed(this.#socket);
      this.#send({ pingReq: { timestamp: String(Date.now()), rtt: String(this.#rtt) } });
    }, pingInterval * 1000);
  }

  #takeParticipants(list) {
    for (const info of list) {
      const known = this.participants.get(info.sid);
      if (info.state === 'DISCONNECTED') {
        if (info.sid !== this.me.sid) this.participants.delete(info.sid);
        continue;
      }
      // Updates may overtake each other; an older one is dropped.
      if (known && (info.version ?? 0) < (known.version ?? 0)) continue;
      const participant = { tracks: [], level: known?.level ?? 0, quality: known?.quality, ...info };
      this.participants.set(info.sid, participant);
      if (info.sid === this.me.sid) this.me = participant;
    }
    this.#changed();
  }

  // --- connections ------------------------------------------------------------------------------------------------

  #connect({ iceServers = [], clientConfiguration }) {
    const configuration = {
      iceServers: iceServers.filter(({ urls }) => urls?.length),
      iceTransportPolicy: clientConfiguration?.forceRelay === 'ENABLED' ? 'relay' : 'all',
    };
    this.#publisher = new RTCPeerConnection(configuration);
    this.#subscriber = new RTCPeerConnection(configuration);
    for (const [target, connection] of [['PUBLISHER', this.#publisher], ['SUBSCRIBER', this.#subscriber]]) {
      this.#candidates[target] = [];
      connection.onicecandidate = ({ candidate }) => {
        if (candidate) this.#send({ trickle: { candidateInit: JSON.stringify(candidate), target } });
      };
      connection.onconnectionstatechange = () => {
        if (connection.connectionState === 'failed') this.#recover();
      };
    }
    this.#subscriber.ondatachannel = ({ channel }) => this.#listen(channel);
    this.#reliable = this.#publisher.createDataChannel('_reliable', { ordered: true });
    this.#listen(this.#reliable);
    this.#listen(this.#publisher.createDataChannel('_lossy', { ordered: false, maxRetransmits: 0 }));
  }

  #disconnect() {
    this.#publisher?.close();
    this.#subscriber?.close();
    this.#answered?.();
    this.media.clear();
    this.#wishes.clear();
    for (const { reject } of this.#awaitingSid.values()) reject(new Error('The connection was lost.'));
    this.#awaitingSid.clear();
  }

  async #takeOffer({ sdp, id, midToTrackId = {} }) {
    const connection = this.#subscriber;
    try {
      await connection.setRemoteDescription({ type: 'offer', sdp });
      await this.#addQueued('SUBSCRIBER', connection);
      await connection.setLocalDescription();
    } catch (error) {
      if (connection === this.#subscriber && !this.#ended) console.error('offer refused', error);
      return;
    }
    this.#send({ answer: { type: 'answer', sdp: connection.localDescription.sdp, id } });
    this.media.clear();
    for (const { mid, receiver } of connection.getTransceivers()) {
      if (midToTrackId[mid]) this.media.set(midToTrackId[mid], receiver.track);
    }
    this.#changed();
  }

  async #takeAnswer({ sdp }) {
    const connection = this.#publisher;
    if (connection.signalingState !== 'have-local-offer') return;
    await connection.setRemoteDescription({ type: 'answer', sdp });
    await this.#addQueued('PUBLISHER', connection);
    this.#answered?.();
  }

  async #takeCandidate({ candidateInit, target = 'PUBLISHER' }) {
    const connection = target === 'SUBSCRIBER' ? this.#subscriber : this.#publisher;
    this.#candidates[target].push(JSON.parse(candidateInit));
    if (connection.remoteDescription) await this.#addQueued(target, connection);
  }

  async #addQueued(target, connection) {
    for (const candidate of this.#candidates[target].splice(0)) {
      // A candidate of a kind this browser cannot use is no reason to stop.
      await connection.addIceCandidate(candidate).catch((error) => console.warn('candidate skipped', error));
    }
  }

  /** Offers the publisher connection; one offer at a time, the next after the answer. */
  #negotiate(options) {
    const connection = this.#publisher;
    this.#negotiation = this.#negotiation.then(async () => {
      if (connection !== this.#publisher || connection.signalingState !== 'stable') return;
      await connection.setLocalDescription(await connection.createOffer(options));
      const answered = new Promise((resolve) => (this.#answered = resolve));
      this.#send({ offer: { type: 'offer', sdp: connection.localDescription.sdp, id: ++this.#offerId } });
      await answered;
    });
    return this.#negotiation;
  }

  // --- losing and finding the server again ------------------------------------------------------------------------

  #closed(socket) {
    if (socket === this.#socket && !this.#ended) this.#recover();
  }

  /** Resumes the session, or joins afresh when the server has forgotten it. */
  async #recover({ afresh = false } = {}) {
    if (this.#recovering || this.#ended) return;
    this.#recovering = true;
    clearInterval(this.#ping);
    this.#tell('state', 'reconnecting');
    let problem = 'The server cannot be reached.';
    for (const delay of RESUME_DELAYS_MS) {
      await new Promise((resolve) => setTimeout(resolve, delay));
      if (this.#ended) return;
      try {
        const first = await this.#open(afresh ? {} : { reconnect: '1', sid: this.me.sid });
        if (first.reconnect) {
          this.#resume(first.reconnect);
        } else if (first.join) {
          this.#disconnect();
          this.#enter(first.join);
          this.#republish();
        } else {
          // The server no longer knows the session, or wants a new one.
          afresh = true;
          continue;
        }
        this.#recovering = false;
        return;
      } catch (error) {
        problem = error.message;
      }
    }
    this.#recovering = false;
    this.#end(`The connection was lost. ${problem}`);
  }

  #resume(answer) {
    this.#watchSocket({});
    const configuration = { iceServers: (answer.iceServers ?? []).filter(({ urls }) => urls?.length) };
    this.#publisher.setConfiguration(configuration);
    this.#subscriber.setConfiguration(configuration);
    this.#answered?.();
    this.#send({
      syncState: {
        subscription: { subscribe: true },
        publishTracks: [...this.#published.values()].map(({ cid, sid }) => ({ cid, track: this.me.tracks.find((track) => track.sid === sid) })).filter(({ track }) => track),
      },
    });
    // An offer that was never answered is taken back; the restart sends a new one.
    const ready = this.#publisher.signalingState === 'have-local-offer' ? this.#publisher.setLocalDescription({ type: 'rollback' }) : Promise.resolve();
    ready.then(() => this.#negotiate({ iceRestart: true }));
    this.#tell('state', 'connected');
  }

  #republish() {
    const before = [...this.#published];
    this.#published.clear();
    for (const [source, { track, options, muted }] of before) {
      if (track.readyState === 'ended') continue; // a camera switched off: published again when switched on
      this.publish(source, track, { ...options, muted }).catch((error) => console.error('not published again', error));
    }
  }

  #end(sentence) {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#ping);
    this.#disconnect();
    this.#socket?.close();
    this.#tell('ended', sentence);
  }

  // --- sending ----------------------------------------------------------------------------------------------------

  /** Publishes a local track as `camera`, `microphone`, `screen` or `screen-audio`. */
  async publish(source, track, options = {}) {
    const entry = { track, options, cid: track.id, muted: options.muted ?? false };
    this.#published.set(source, entry);
    const { width, height } = track.getSettings();
    const encodings = track.kind === 'video' ? encodingsFor(source, height ?? 720) : undefined;
    const sid = new Promise((resolve, reject) => this.#awaitingSid.set(track.id, { resolve, reject }));
    this.#send({
      addTrack: {
        cid: track.id,
        name: source,
        type: track.kind === 'video' ? 'VIDEO' : 'AUDIO',
        source: SOURCES[source],
        muted: entry.muted,
        ...(encodings && {
          width,
          height,
          layers: encodings.map(({ rid, maxBitrate, scaleResolutionDownBy: scale = 1 }) => ({
            quality: encodings.length === 1 ? 'HIGH' : QUALITY_OF_RID[rid],
            width: Math.round(width / scale),
            height: Math.round(height / scale),
            bitrate: maxBitrate,
          })),
          simulcastCodecs: [{ codec: 'vp8', cid: track.id }],
        }),
      },
    });
    try {
      entry.sid = await sid;
    } catch (error) {
      if (this.#published.get(source) === entry) this.#published.delete(source);
      throw error;
    }
    entry.sender = this.#publisher.addTransceiver(track, { direction: 'sendonly', sendEncodings: encodings }).sender;
    await this.#negotiate();
  }

  async unpublish(source) {
    const entry = this.#published.get(source);
    if (!entry) return;
    this.#published.delete(source);
    if (!entry.sender) return;
    this.#publisher.removeTrack(entry.sender);
    await this.#negotiate();
  }

  /** Mutes or unmutes what was published; `track` replaces the one sent, null sends nothing. */
  async setMuted(source, muted, track) {
    const entry = this.#published.get(source);
    if (!entry) return;
    entry.muted = muted;
    if (track !== undefined) {
      await entry.sender?.replaceTrack(track);
      if (track) entry.track = track;
    }
    this.#send({ mute: { sid: entry.sid, muted } });
  }

  isPublished(source) {
    return this.#published.has(source);
  }

  /** Asks for the layer of a received video that fits a tile of this size in device pixels. */
  wantSize(sid, width, height) {
    const wish = `${width}x${height}`;
    if (!width || !height || this.#wishes.get(sid) === wish) return;
    this.#wishes.set(sid, wish);
    this.#send({ trackSetting: { trackSids: [sid], width, height } });
  }

  /** Sends only the layers somebody watches. */
  #sendOnly({ trackSid, subscribedCodecs = [] }) {
    const entry = this.#published.get(this.#sourceOf(trackSid));
    const qualities = subscribedCodecs.find(({ codec }) => codec === 'vp8')?.qualities;
    const parameters = entry?.sender?.getParameters();
    if (!qualities || !parameters?.encodings?.length) return;
    const wanted = new Map(qualities.map(({ quality = 'LOW', enabled = false }) => [quality, enabled]));
    for (const encoding of parameters.encodings) {
      encoding.active = encoding.rid ? (wanted.get(QUALITY_OF_RID[encoding.rid]) ?? false) : [...wanted.values()].includes(true);
    }
    entry.sender.setParameters(parameters).catch((error) => console.warn('layers unchanged', error));
  }

  // --- chat -------------------------------------------------------------------------------------------------------

  #listen(channel) {
    channel.binaryType = 'arraybuffer';
    channel.onmessage = ({ data }) => {
      let message = null;
      try {
        message = decodeChat(new Uint8Array(data));
      } catch {
        return; // somebody's own data, not a packet of ours
      }
      if (message) this.#tell('chat', { ...message, name: this.#nameOf(message.from) });
    };
  }

  /** Sends a chat message to everybody; it is given back as `chat` too. */
  sendChat(message) {
    const chat = { id: crypto.randomUUID?.() ?? String(Math.random()), timestamp: Date.now(), message };
    const channel = this.#reliable;
    const deliver = () => channel.send(encodeChat(chat));
    if (channel.readyState === 'open') deliver();
    else channel.addEventListener('open', deliver, { once: true });
    this.#tell('chat', { ...chat, from: this.me.identity, name: this.#nameOf(this.me.identity), own: true });
  }

  // ----------------------------------------------------------------------------------------------------------------

  #nameOf(identity) {
    const participant = [...this.participants.values()].find((one) => one.identity === identity);
    return participant?.name || identity || 'Server';
  }

  #sourceOf(sid) {
    return [...this.#published].find(([, entry]) => entry.sid === sid)?.[0];
  }

  #settle(cid, how, value) {
    this.#awaitingSid.get(cid)?.[how](value);
    this.#awaitingSid.delete(cid);
  }

  #changed() {
    this.#tell('change');
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function endingOf(leave) {
  return ENDINGS[leave?.reason] ?? 'The server ended the call.';
}

/** Simulcast layers for a camera (q, h, f from small to large), one encoding for a screen. Bitrates in bit/s. */
function encodingsFor(source, height) {
  if (source === 'screen') return [{ maxBitrate: 2_500_000, maxFramerate: 15 }];
  const bitrate = (lines) => (lines >= 700 ? 1_700_000 : lines >= 500 ? 800_000 : lines >= 300 ? 450_000 : 160_000);
  const scales = height >= 540 ? [4, 2, 1] : height >= 300 ? [2, 1] : [1];
  return scales.map((scale, i) => ({
    ...(scales.length > 1 && { rid: 'qhf'[i] }),
    scaleResolutionDownBy: scale,
    maxBitrate: bitrate(height / scale),
  }));
}
