// A chat backend and its users, for stories of the voice system: a small directory, gateway clients, moderators.
//
// Guild 900 of owner 1 with voice channels 10 and 11; members 2 (moderator) to 6; conversation 20 of 3 and 4.

import { createHmac } from 'node:crypto';
import WebSocket from 'ws';

export const SECRET = 'the secret of the backend';
const USERS = 'the key of the tokens of users';
const GUILD = '900';
const DEADLINE_MS = 20_000;
const EVERYONE = (1n << 9n) | (1n << 10n) | (1n << 20n) | (1n << 21n);

/** For `configure`. */
export const VOICE = { enabled: true, secret: SECRET, token_secret: USERS };

const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

export function userToken(user) {
  const message = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode({ sub: user, exp: Math.floor(Date.now() / 1000) + 600 })}`;
  return `${message}.${createHmac('sha256', USERS).update(message).digest('base64url')}`;
}

export const role = (permissions) => ({ kind: 'role', guild_id: GUILD, id: GUILD, permissions: String(permissions) });
const SPEAK = 1n << 21n;
export const SILENT = EVERYONE & ~SPEAK;

const member = (more) => ({ kind: 'member', guild_id: GUILD, user_id: '3', ...more });
const channel = (overwrites) => ({ kind: 'channel', id: '10', guild_id: GUILD, type: 2, permission_overwrites: overwrites });
const denied = (id, type) => [channel([{ id, type, deny: String(SPEAK) }])];

/** Every way in which 3 may lose the right to speak in channel 10: how it is taken, and how it is given back. */
export const LOSSES = {
  'a role': { take: (town) => town.sync([role(SILENT)]), give: (town) => town.sync([role(EVERYONE)]) },
  'an overwrite for a role': { take: (town) => town.sync(denied(GUILD, 0)), give: (town) => town.sync([channel([])]) },
  'an overwrite for the member': { take: (town) => town.sync(denied('3', 1)), give: (town) => town.sync([channel([])]) },
  'a timeout': { take: (town) => town.sync([member({ communication_disabled_until: Date.now() + 60_000 })]), give: (town) => town.sync([member({})]) },
  'a kick': { take: (town) => town.sync([member({ deleted: true })]), give: (town) => town.sync([member({})]) },
  'a mute in the directory': { take: (town) => town.sync([member({ mute: true })]), give: (town) => town.sync([member({})]) },
  'a moderator who mutes': { take: (town) => town.moderate('3', { mute: true }), give: (town) => town.moderate('3', { mute: false }) },
  'a moderator who moves': { take: (town) => town.moderate('3', { channel_id: '11' }), give: () => null },
  'a moderator who disconnects': { take: (town) => town.moderate('3', { channel_id: null }), give: () => null },
  'the backend': {
    take: (town, connection) =>
      town.backend('PATCH', '/channels/10/voice/participants/3/permissions', { connection_id: connection, can_speak: false, can_stream: true, can_video: true }),
    give: () => null,
  },
};

export class Town {
  #version = 0;

  constructor(server) {
    this.server = server;
  }

  static async found(server) {
    const town = new Town(server);
    const users = ['1', '2', '3', '4', '5', '6'];
    await town.sync([
      { kind: 'guild', id: GUILD, owner_id: '1' },
      role(EVERYONE),
      { kind: 'role', guild_id: GUILD, id: '70', permissions: String((7n << 22n) | (1n << 53n)) },
      ...users.map((id) => ({ kind: 'user', id, username: `user${id}` })),
      ...users.map((id) => ({ kind: 'member', guild_id: GUILD, user_id: id, roles: id === '2' ? ['70'] : [] })),
      ...['10', '11'].map((id) => ({ kind: 'channel', id, guild_id: GUILD, type: 2 })),
      { kind: 'channel', id: '20', type: 1, recipients: ['3', '4'] },
    ]);
    return town;
  }

  async #call(method, path, token, body) {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    const answer = await fetch(this.server.url + path, { method, headers, body: body && JSON.stringify(body) });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : null;
  }

  user(user, method, path, body) {
    return this.#call(method, path, userToken(user), body);
  }

  backend(method, path, body) {
    return this.#call(method, path, SECRET, body);
  }

  /** Facts newer than all before. */
  sync(facts) {
    this.#version = Math.max(this.#version + 1, Date.now());
    return this.backend('POST', '/voice/directory/sync', { entries: facts.map((fact) => ({ ...fact, version: this.#version })) });
  }

  /** What a moderator does to a member. */
  moderate(user, what) {
    return this.user('2', 'PATCH', `/guilds/${GUILD}/members/${user}`, what);
  }

  gateway(user) {
    return Gateway.open(`${this.server.signal}/gateway?v=1&encoding=json`, user);
  }
}

/** A gateway client of one user. */
export class Gateway {
  #socket;
  #events = [];
  #waiting = new Set();

  static async open(url, user) {
    const gateway = new Gateway();
    const socket = new WebSocket(url);
    gateway.#socket = socket;
    socket.on('message', (text) => gateway.#read(JSON.parse(text)));
    gateway.send({ token: userToken(user), properties: { os: '', browser: '', device: '' } }, 2);
    await gateway.event('READY');
    return gateway;
  }

  #read({ op, t, d }) {
    if (op === 10) return;
    if (op === 1) return this.send(null, 1);
    this.#events.push(op === 12 ? { t: 'ERROR', d } : { t, d });
    this.#waiting.forEach((check) => check());
  }

  async send(d, op) {
    if (this.#socket.readyState === WebSocket.CONNECTING) await new Promise((resolve) => this.#socket.once('open', resolve));
    this.#socket.send(JSON.stringify({ op, d }));
  }

  /** Takes the next event of that kind which has the given fields. */
  event(kind, wanted = {}) {
    return new Promise((resolve, reject) => {
      const check = () => {
        const index = this.#events.findIndex(({ t, d }) => t === kind && Object.entries(wanted).every(([key, value]) => d?.[key] === value));
        if (index < 0) return;
        clearTimeout(timer);
        this.#waiting.delete(check);
        resolve(this.#events.splice(index, 1)[0].d);
      };
      const timer = setTimeout(() => {
        this.#waiting.delete(check);
        reject(new Error(`no ${kind} ${JSON.stringify(wanted)}; there was ${JSON.stringify(this.#events)}`));
      }, DEADLINE_MS);
      this.#waiting.add(check);
      check();
    });
  }

  /** Op 4 into a channel; what VOICE_SERVER_UPDATE says. */
  async ask(channel, guild = GUILD) {
    await this.send({ guild_id: guild, channel_id: channel, connection_id: null }, 4);
    return this.event('VOICE_SERVER_UPDATE', { channel_id: channel });
  }

  close() {
    this.#socket.close();
  }
}

/** Connects as Fluxer's own client does. */
export async function enter(world, name, update) {
  const peer = await world.page(name);
  await peer.connect({
    url: update.endpoint,
    token: update.token,
    form: world.form,
    options: { adaptiveStream: true, dynacast: true },
    connect: { autoSubscribe: false },
  });
  return peer;
}

export const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

export const identity = (user, update) => `user_${user}_${update.connection_id}`;

const CLIENT = { options: { adaptiveStream: true, dynacast: true }, connect: { autoSubscribe: false } };
/** Rooms of different forms do not meet. */
const CHANNELS = { single: '10', dual: '11' };

/**
 * How long it takes from the request for a token to sound: 4 is in the channel and listens, 3 comes with an open
 * microphone, is heard and leaves, `rounds` times after one that does not count. `open(name)` gives a page as
 * `(method, ...args)`. Of each time, measured from the request, a list in ms.
 */
export async function timeVoice(town, open, form, rounds, how = {}) {
  const [speaker, listener] = [await open(`${form} speaker`), await open(`${form} listener`)];
  const enter = async (user) => {
    const path = `/channels/${CHANNELS[form]}/voice/token`;
    const { token, endpoint, connection_id: connection } = await town.user(user, 'POST', path, { guild_id: GUILD });
    return { who: `user_${user}_${connection}`, wishes: { url: endpoint, token, form, ...CLIENT } };
  };
  await listener('connect', (await enter('4')).wishes);
  const times = { token: [], connected: [], published: [], known: [], subscribed: [], heard: [] };
  for (let round = 0; round <= rounds; round += 1) {
    await speaker('prepareTone', 440);
    const asked = Date.now();
    const { who, wishes } = await enter('3');
    const token = Date.now();
    const [spoken, listened] = await Promise.all([speaker('timeSpeaking', wishes, how), listener('timeHearing', who)]);
    await speaker('leave');
    await listener('waitForOthers', []);
    if (round === 0) continue;
    for (const [name, at] of Object.entries({ token, ...spoken, ...listened })) times[name]?.push(at - asked);
  }
  await listener('leave');
  return times;
}
