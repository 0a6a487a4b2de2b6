// Data packets as LiveKit clients send them over the `_reliable` channel: protobuf, of which a chat needs four messages.
//
// DataPacket: user 2, participant_identity 4, chat_message 9. UserPacket: payload 2, topic 4.
// ChatMessage: id 1, timestamp 2 (ms), message 4.

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function varint(value) {
  const bytes = [];
  // Numbers up to 2^53: bit operations would cut a timestamp to 32 bits.
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
}

function field(number, value) {
  if (typeof value === 'number') return [...varint((number << 3) | VARINT), ...varint(value)];
  const bytes = typeof value === 'string' ? encoder.encode(value) : value;
  return [...varint((number << 3) | BYTES), ...varint(bytes.length), ...bytes];
}

/** The fields of one message: number → value, the last one of each. Throws on a message that is cut short. */
function readFields(bytes) {
  const fields = new Map();
  let at = 0;
  const readVarint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      if (at >= bytes.length || scale > 2 ** 63) throw new RangeError('not a protobuf message');
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  const take = (length) => {
    if (at + length > bytes.length) throw new RangeError('not a protobuf message');
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const key = readVarint();
    const kind = key % 8;
    if (kind === VARINT) fields.set(Math.floor(key / 8), readVarint());
    else if (kind === BYTES) fields.set(Math.floor(key / 8), take(readVarint()));
    else if (kind === FIXED64) take(8);
    else if (kind === FIXED32) take(4);
    else throw new RangeError('not a protobuf message');
  }
  return fields;
}

const text = (bytes) => (bytes ? decoder.decode(bytes) : '');

/** A chat message as a DataPacket. */
export function encodeChat({ id, timestamp, message }) {
  const chat = [...field(1, id), ...field(2, timestamp), ...field(4, message)];
  return Uint8Array.from(field(9, chat));
}

/** `{ from, id, timestamp, message }` of a packet that is chat, null of any other. `from` is an identity. */
export function decodeChat(bytes) {
  const packet = readFields(bytes);
  const from = text(packet.get(4));
  if (packet.has(9)) {
    const chat = readFields(packet.get(9));
    return { from, id: text(chat.get(1)), timestamp: chat.get(2) ?? Date.now(), message: text(chat.get(4)) };
  }
  if (packet.has(2)) {
    const user = readFields(packet.get(2));
    // LiveKit: its React components send chat as JSON under this topic; clients that also send the newer form mark this one.
    if (text(user.get(4)) !== 'lk-chat-topic') return null;
    const chat = JSON.parse(text(user.get(2)));
    if (typeof chat.message !== 'string') return null;
    return { from, id: String(chat.id ?? ''), timestamp: Number(chat.timestamp) || Date.now(), message: chat.message };
  }
  return null;
}
