// "Why this quality?": what the server says of one tile, asked for again every second while the panel is open.
//
// The server answers those who hold a token for the room's administration; in development it gives one to the page.

const REFRESH_MS = 1000;
const SCREEN = ['SCREEN_SHARE', 'SCREEN_SHARE_AUDIO'];

const rate = (kbps) => (kbps === null || kbps === undefined ? 'not known' : kbps >= 1000 ? `${(kbps / 1000).toFixed(1)} Mbit/s` : `${kbps} kbit/s`);
const time = (ms) => (ms === null || ms === undefined ? 'not known' : ms >= 10000 ? `${(ms / 1000).toFixed(0)} s` : ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms)} ms`);
const percent = (part) => `${(part * 100).toFixed(1)} %`;
const words = (text) => text.replaceAll('_', ' ');

/** "high 1280×720", and where that is not all of its frames, so. */
function layer(layer, wanted) {
  if (!layer) return 'nothing';
  const size = layer.width && layer.height ? `${layer.width}×${layer.height}` : `layer ${layer.spatial}`;
  const frames = wanted && layer.temporal < wanted.temporal ? ', fewer frames' : '';
  return `${layer.quality ? `${layer.quality.toLowerCase()} ` : ''}${size}${frames}`;
}

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

function facts(pairs) {
  return element('dl', ...pairs.flatMap(([name, value]) => [element('dt', name), element('dd', String(value))]));
}

export class Why {
  #panel;
  #body;
  #about = null;
  #timer = null;
  #tokens = new Map(); // room → token for its administration
  #listOpen = false;

  constructor(panel) {
    this.#panel = panel;
    this.#body = panel.querySelector('#why-body');
    panel.querySelector('#why-close').onclick = () => this.close();
  }

  isAbout(tile) {
    return this.#about?.element === tile;
  }

  /** `about`: { element, label, room, me (identity), sid (of the publisher), own, screen }. */
  open(about) {
    this.close();
    this.#about = about;
    about.element.querySelector('.ask').setAttribute('aria-expanded', 'true');
    this.#panel.querySelector('h2').textContent = about.label;
    this.#body.replaceChildren(element('p', 'Asking the server…'));
    this.#panel.hidden = false;
    this.#refresh(about);
  }

  close() {
    clearTimeout(this.#timer);
    this.#about?.element.querySelector('.ask').setAttribute('aria-expanded', 'false');
    this.#about = null;
    this.#panel.hidden = true;
  }

  async #refresh(about) {
    let content;
    try {
      content = this.#describe(about, await this.#ask(about));
    } catch (error) {
      content = [element('p', error.message)];
    }
    if (this.#about !== about) return;
    this.#listOpen = this.#body.querySelector('details')?.open ?? this.#listOpen;
    this.#body.replaceChildren(...content);
    const list = this.#body.querySelector('details');
    if (list) list.open = this.#listOpen;
    this.#timer = setTimeout(() => this.#refresh(about), REFRESH_MS);
  }

  async #ask({ room, me }) {
    const path = `debug/rooms/${encodeURIComponent(room)}/participants/${encodeURIComponent(me)}/explain`;
    const response = await fetch(path, { headers: { Authorization: `Bearer ${await this.#token(room)}` } });
    if (!response.ok) throw new Error(`The server says: ${await response.text()}`);
    const { participants } = await response.json();
    if (!participants.length) throw new Error('The server does not know of you.');
    return participants[0];
  }

  async #token(room) {
    if (!this.#tokens.has(room)) {
      const body = JSON.stringify({ room, identity: 'the page', admin: true });
      const response = await fetch('dev/token', { method: 'POST', body });
      if (!response.ok) throw new Error('Only a server in development mode explains itself to this page.');
      this.#tokens.set(room, (await response.json()).token);
    }
    return this.#tokens.get(room);
  }

  #describe({ own, sid, screen }, mine) {
    const ofTile = (track) => SCREEN.includes(track.source) === screen;
    if (own) {
      const published = mine.publishes.filter(ofTile);
      return published.length ? published.flatMap((track) => this.#published(track)) : [element('p', 'You send nothing here.')];
    }
    const ofPublisher = (track) => track.publisher_sid === sid && ofTile(track);
    const video = (a, b) => Number(b.kind === 'video') - Number(a.kind === 'video');
    const received = mine.receives.filter(ofPublisher).sort(video);
    const waiting = mine.waits_for.filter(ofPublisher);
    const parts = received.flatMap((track) => this.#received(track));
    parts.push(...waiting.flatMap((track) => [element('h3', this.#title(track)), element('p', track.explanation)]));
    if (!parts.length) return [element('p', 'Nothing is sent to you of this.')];
    return mine.reception ? [...parts, ...this.#path(mine.reception)] : parts;
  }

  #title({ kind, codec }) {
    return `${kind === 'video' ? 'Picture' : 'Sound'}${codec ? ` · ${codec}` : ''}`;
  }

  #received(track) {
    const rows = [];
    if (track.kind === 'video') rows.push(['Wanted', layer(track.wanted)], ['Sent', layer(track.sent, track.wanted)]);
    rows.push(['Lost', percent(track.loss)], ['Jitter', time(track.jitter_ms)]);
    if (track.retransmitted) rows.push(['Sent again', `${track.retransmitted} packets`]);
    if (track.kind === 'video') rows.push(['Freezes', track.freezes ? `${track.freezes}, ${time(track.frozen_ms)} in all` : 'none']);
    const why = element('p', track.explanation);
    why.dataset.reason = track.reason;
    const parts = [element('h3', this.#title(track)), why, facts(rows)];
    if (track.kind === 'video' && track.decisions.length) parts.push(this.#decisions(track.decisions));
    return parts;
  }

  #decisions(decisions) {
    const lines = decisions.toReversed().map(({ ago_ms, wanted, sent, reason, estimate_kbps }) => {
      const estimate = estimate_kbps === null ? '' : ` at ${rate(estimate_kbps)}`;
      return element('li', `${time(ago_ms)} ago: ${layer(sent, wanted)} (${words(reason)})${estimate}`);
    });
    return element('details', element('summary', `Last ${lines.length} decisions`), element('ol', ...lines));
  }

  #path(path) {
    const rows = [
      ['Estimate', path.estimate_kbps === null ? 'no feedback yet' : rate(path.estimate_kbps)],
      ['Given out', `${rate(path.allocated_kbps)} of ${rate(path.wanted_kbps)} wanted`],
      ['Round trip', time(path.rtt_ms)],
      ['Lost', percent(path.loss)],
    ];
    if (path.cap_kbps !== null) rows.push(['Limit', rate(path.cap_kbps)]);
    if (path.queued_packets) rows.push(['Waiting to leave', `${path.queued_packets} packets, ${time(path.queue_ms)}`]);
    return [element('h3', 'Your connection'), facts(rows)];
  }

  #published(track) {
    const rows = track.encodings.map((encoding, index) => {
      const name = encoding.rid ?? (track.encodings.length > 1 ? `layer ${index}` : 'stream');
      return [name, encoding.flowing ? `${rate(encoding.kbps)}, ${encoding.lost} lost` : 'not sent now'];
    });
    const watched = track.subscribers === 1 ? 'One participant receives it.' : `${track.subscribers || 'No'} participants receive it.`;
    return [element('h3', this.#title(track)), element('p', track.muted ? 'It is muted.' : watched), facts(rows)];
  }
}
