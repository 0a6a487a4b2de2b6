//! What the relay reads of the IPv4 packets that pass, and what an address translator writes in them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::{Value, json};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// RFC 9293 §3.1: SYN and ACK.
const ACCEPTED: u8 = 0x12;
/// RFC 8489 §5, §18.2.
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// The transport of an unfragmented packet: its protocol, and where its header begins.
fn transport(packet: &[u8]) -> Option<(u8, usize)> {
    let start = usize::from(packet.first()? & 0x0f) * 4;
    let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x1fff;
    let protocol = *packet.get(9)?;
    (fragment == 0 && [TCP, UDP].contains(&protocol)).then_some((protocol, start))
}

fn number(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?))
}

/// RFC 1624: the sums of IPv4's transports cover the port, and are corrected by what it changes.
fn replace_port(packet: &mut [u8], protocol: u8, start: usize, at: usize, port: u16) -> Option<()> {
    let sum_at = start + if protocol == TCP { 16 } else { 6 };
    let (before, sum) = (number(packet, at)?, number(packet, sum_at)?);
    packet[at..at + 2].copy_from_slice(&port.to_be_bytes());
    // UDP: 0 = there is none.
    if protocol == TCP || sum != 0 {
        let mut total = u32::from(!sum) + u32::from(!before) + u32::from(port);
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        packet[sum_at..sum_at + 2].copy_from_slice(&(!(total as u16)).to_be_bytes());
    }
    Some(())
}

/// An address translator at the far end. It translates nothing until it has forgotten everything once.
#[derive(Default)]
pub struct Translator {
    /// Outer port = inner port ^ this.
    key: u16,
    /// Protocols and outer ports in use since then; what comes for others is dropped.
    open: BTreeSet<(u8, u16)>,
}

impl Translator {
    /// Every flow gets another port with its next packet, and what comes for the port before reaches nobody.
    pub fn forget(&mut self) {
        // Among 255 keys each differs from the ones before.
        self.key = self.key % 255 + 1;
        self.open.clear();
    }

    pub fn up(&mut self, packet: &mut [u8]) {
        let Some((protocol, start)) = transport(packet).filter(|_| self.key != 0) else {
            return;
        };
        if let Some(port) = number(packet, start) {
            let outer = port ^ self.key;
            self.open.insert((protocol, outer));
            replace_port(packet, protocol, start, start, outer);
        }
    }

    /// False: it is for nobody.
    pub fn down(&self, packet: &mut [u8]) -> bool {
        let Some((protocol, start)) = transport(packet).filter(|_| self.key != 0) else {
            return true;
        };
        let Some(outer) = number(packet, start + 2).filter(|port| self.open.contains(&(protocol, *port))) else {
            return false;
        };
        replace_port(packet, protocol, start, start + 2, outer ^ self.key).is_some()
    }
}

/// When something passed the server's end for the first time since the conditions changed.
pub struct Marks {
    since: Instant,
    /// Names (RFC 8445 §7.2.2) of generations of ICE that were over when the conditions changed: clients go on checking under
    /// those from sockets that they have kept, and nothing of that is valid.
    over: BTreeSet<Vec<u8>>,
    /// Names of all others, by transaction while there is no answer; and the one that was answered last.
    asked: BTreeMap<[u8; 12], Vec<u8>>,
    answered: Option<Vec<u8>>,
    /// Where the client's connectivity checks came from.
    checked: BTreeSet<[u8; 6]>,
    /// A connection over TCP was accepted.
    connected: Option<Instant>,
    /// A connectivity check came, and was answered.
    check: Option<Instant>,
    answer: Option<Instant>,
    /// RTP went to where a check had come from.
    media: Option<Instant>,
}

impl Marks {
    pub fn new(since: Instant) -> Self {
        Self {
            since,
            over: BTreeSet::new(),
            asked: BTreeMap::new(),
            answered: None,
            checked: BTreeSet::new(),
            connected: None,
            check: None,
            answer: None,
            media: None,
        }
    }

    /// The conditions have changed.
    pub fn renew(&mut self, since: Instant) {
        let answered = self.answered.take();
        let mut over = std::mem::take(&mut self.over);
        over.extend(std::mem::take(&mut self.asked).into_values());
        if let Some(current) = &answered {
            over.remove(current);
        }
        *self = Self {
            over,
            answered,
            ..Self::new(since)
        };
    }

    pub fn up(&mut self, now: Instant, packet: &[u8]) {
        if let Some((UDP, start)) = transport(packet)
            && is_binding(packet, start + 8, BINDING_REQUEST)
        {
            let name = username(packet, start + 8).unwrap_or_default().to_vec();
            if self.over.contains(&name) {
                return;
            }
            if let Some(transaction) = transaction(packet, start + 8) {
                self.asked.insert(transaction, name);
            }
            self.check.get_or_insert(now);
            self.checked.extend(place(packet, 12, start));
        }
    }

    pub fn down(&mut self, now: Instant, packet: &[u8]) {
        match transport(packet) {
            Some((TCP, start)) if packet.get(start + 13).is_some_and(|flags| flags & ACCEPTED == ACCEPTED) => {
                self.connected.get_or_insert(now);
            }
            Some((UDP, start)) if place(packet, 16, start + 2).is_some_and(|to| self.checked.contains(&to)) => {
                if is_binding(packet, start + 8, BINDING_SUCCESS) {
                    self.answer.get_or_insert(now);
                    let asked = transaction(packet, start + 8).and_then(|its| self.asked.get(&its));
                    if let Some(asked) = asked.cloned() {
                        // The one before is over with that.
                        let before = self.answered.replace(asked.clone());
                        self.over.extend(before.filter(|before| *before != asked));
                    }
                } else if is_media(packet, start + 8) {
                    self.media.get_or_insert(now);
                }
            }
            _ => {}
        }
    }

    /// Milliseconds.
    pub fn report(&self) -> Value {
        let ms = |at: Option<Instant>| at.map(|at| (at - self.since).as_millis() as u64);
        json!({
            "connected": ms(self.connected),
            "check": ms(self.check),
            "answer": ms(self.answer),
            "media": ms(self.media),
        })
    }
}

/// Address and port.
fn place(packet: &[u8], address: usize, port: usize) -> Option<[u8; 6]> {
    let [a, b, c, d] = packet.get(address..address + 4)?.try_into().ok()?;
    let [e, f] = packet.get(port..port + 2)?.try_into().ok()?;
    Some([a, b, c, d, e, f])
}

fn is_binding(packet: &[u8], at: usize, kind: u16) -> bool {
    number(packet, at) == Some(kind) && packet.get(at + 4..at + 8) == Some(&COOKIE)
}

fn transaction(packet: &[u8], at: usize) -> Option<[u8; 12]> {
    packet.get(at + 8..at + 20)?.try_into().ok()
}

/// RFC 8489 §14.3.
fn username(packet: &[u8], at: usize) -> Option<&[u8]> {
    const USERNAME: u16 = 6;
    let mut at = at + 20;
    loop {
        let (kind, length) = (number(packet, at)?, usize::from(number(packet, at + 2)?));
        if kind == USERNAME {
            return packet.get(at + 4..at + 4 + length);
        }
        at += 4 + length.next_multiple_of(4);
    }
}

/// RFC 7983 §7, and RFC 5761 §4: RTP, not RTCP.
fn is_media(packet: &[u8], at: usize) -> bool {
    let is_rtp = packet.get(at).is_some_and(|byte| (128..192).contains(byte));
    is_rtp
        && packet
            .get(at + 1)
            .is_some_and(|byte| !(64..96).contains(&(byte & 0x7f)))
}
