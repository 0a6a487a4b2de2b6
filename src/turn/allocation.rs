//! One client's allocation: its relayed addresses, permissions and channels; and how data to it is wrapped.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use stun_types::message::{IntegrityKey, TransactionId};

use super::attributes::{DATA, MAX_PEERS, XOR_PEER_ADDRESS};
use crate::types::{NetPath, NetProtocol};

/// RFC 8656 §9 and §12.
const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// Media addresses a client may talk to by one allocation: a server has a few, and each has one port.
const MAX_PERMISSIONS: usize = MAX_PEERS;
const MAX_CHANNELS: usize = 16;

/// What one allocation may bring to peers elsewhere and back: a call of several pictures of high definition. More would be a
/// tunnel at this machine's cost. Our own media has the limits of its shard.
const PEER_BYTES_PER_SECOND: f64 = 2_500_000.0;
/// At once: a key frame of each, a quarter of a second.
const PEER_BURST: f64 = PEER_BYTES_PER_SECOND / 4.0;

/// The full set of an allocation: a client would have to be bound to more of our addresses than there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

/// Why a channel cannot be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoChannel {
    /// The number or the peer is bound to another.
    Conflict,
    Full,
}

#[derive(Clone, Copy)]
struct Permission {
    peer: IpAddr,
    until: Instant,
}

#[derive(Clone, Copy)]
struct Channel {
    number: u16,
    peer: SocketAddr,
    until: Instant,
}

pub(super) struct Allocation {
    pub(super) user: String,
    pub(super) username: String,
    pub(super) key: IntegrityKey,
    /// Of the Allocate that made it, whose retransmission gets the same answer.
    pub(super) transaction: TransactionId,
    pub(super) granted: Duration,
    /// One, or one of each family.
    pub(super) relayed: Vec<SocketAddr>,
    pub(super) until: Instant,
    permissions: Vec<Permission>,
    channels: Vec<Channel>,
    /// Bytes that peers elsewhere may be sent and may send, at that time.
    credit: (f64, Instant),
}

impl Allocation {
    pub(super) fn new(
        user: String,
        username: String,
        key: IntegrityKey,
        transaction: TransactionId,
        relayed: Vec<SocketAddr>,
        granted: Duration,
        now: Instant,
    ) -> Self {
        Self {
            user,
            username,
            key,
            transaction,
            granted,
            relayed,
            until: now + granted,
            permissions: Vec::new(),
            channels: Vec::new(),
            credit: (PEER_BURST, now),
        }
    }

    /// The relayed address that talks to peers of this family.
    pub(super) fn relayed_for(&self, peer: IpAddr) -> Option<SocketAddr> {
        let mut relayed = self.relayed.iter();
        relayed.find(|relayed| relayed.is_ipv4() == peer.is_ipv4()).copied()
    }

    /// Takes what a datagram to or from a peer elsewhere costs; false when there is no more at this moment.
    pub(super) fn spend(&mut self, now: Instant, bytes: usize) -> bool {
        let (credit, at) = self.credit;
        let passed = now.saturating_duration_since(at).as_secs_f64();
        let credit = (credit + passed * PEER_BYTES_PER_SECOND).min(PEER_BURST);
        let left = credit - bytes as f64;
        self.credit = (if left < 0.0 { credit } else { left }, now);
        left >= 0.0
    }

    /// Permissions for all of `peers`, or for none.
    pub(super) fn permit(&mut self, now: Instant, peers: &[SocketAddr]) -> Result<(), NoRoom> {
        self.permissions.retain(|permission| permission.until > now);
        let mut new: Vec<IpAddr> = Vec::new();
        for peer in peers.iter().map(SocketAddr::ip) {
            if !new.contains(&peer) && !self.permissions.iter().any(|known| known.peer == peer) {
                new.push(peer);
            }
        }
        if self.permissions.len() + new.len() > MAX_PERMISSIONS {
            return Err(NoRoom);
        }
        let until = now + PERMISSION_LIFETIME;
        for known in &mut self.permissions {
            if peers.iter().any(|peer| peer.ip() == known.peer) {
                known.until = until;
            }
        }
        self.permissions
            .extend(new.into_iter().map(|peer| Permission { peer, until }));
        Ok(())
    }

    pub(super) fn is_permitted(&self, now: Instant, peer: IpAddr) -> bool {
        let mut permissions = self.permissions.iter();
        permissions.any(|permission| permission.peer == peer && permission.until > now)
    }

    /// RFC 8656 §12.2: binds or refreshes, and permits the peer with it.
    pub(super) fn bind(&mut self, now: Instant, number: u16, peer: SocketAddr) -> Result<(), NoChannel> {
        self.channels.retain(|channel| channel.until > now);
        let until = now + CHANNEL_LIFETIME;
        let known = self
            .channels
            .iter()
            .position(|channel| channel.number == number || channel.peer == peer);
        match known.and_then(|at| self.channels.get(at)) {
            Some(known) if known.number != number || known.peer != peer => return Err(NoChannel::Conflict),
            None if self.channels.len() >= MAX_CHANNELS => return Err(NoChannel::Full),
            _ => {}
        }
        self.permit(now, &[peer]).map_err(|NoRoom| NoChannel::Full)?;
        match known.and_then(|at| self.channels.get_mut(at)) {
            Some(known) => known.until = until,
            None => self.channels.push(Channel { number, peer, until }),
        }
        Ok(())
    }

    pub(super) fn peer_of(&self, now: Instant, number: u16) -> Option<SocketAddr> {
        let mut channels = self.channels.iter();
        channels
            .find(|channel| channel.number == number && channel.until > now)
            .map(|channel| channel.peer)
    }

    pub(super) fn channel_of(&self, now: Instant, peer: SocketAddr) -> Option<u16> {
        let mut channels = self.channels.iter();
        channels
            .find(|channel| channel.peer == peer && channel.until > now)
            .map(|channel| channel.number)
    }
}

/// The most that wrapping adds to a datagram: the Data indication's header, an IPv6 peer, the attribute's head, padding.
pub const MAX_CARRIAGE: usize = 20 + 24 + 4 + 3;

/// How a datagram of one peer is brought to the client of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carriage {
    /// The client: where to send what `wrap` has made.
    pub client: NetPath,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Channel(u16),
    /// Transaction ids of indications need only be unlikely to repeat (RFC 8489 §5).
    Indication {
        peer: SocketAddr,
        transaction: u64,
    },
}

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const DATA_INDICATION: u16 = 0x0017;

impl Carriage {
    pub(super) fn channel(client: NetPath, number: u16) -> Self {
        Self {
            client,
            form: Form::Channel(number),
        }
    }

    pub(super) fn indication(client: NetPath, peer: SocketAddr, transaction: u64) -> Self {
        Self {
            client,
            form: Form::Indication { peer, transaction },
        }
    }

    /// Wraps the `length` bytes at the start of `buffer` where they lie; the new length. None when `buffer` is not
    /// `MAX_CARRIAGE` bytes longer.
    pub fn wrap(&self, buffer: &mut [u8], length: usize) -> Option<usize> {
        let size = u16::try_from(length).ok()?;
        match self.form {
            Form::Channel(number) => {
                // RFC 8656 §12.5: padded in streams only.
                let padded = match self.client.protocol {
                    NetProtocol::Tcp => length.next_multiple_of(4),
                    NetProtocol::Udp | NetProtocol::Turn => length,
                };
                let frame = shift(buffer, length, 4, padded)?;
                let (head, rest) = frame.split_first_chunk_mut::<4>()?;
                let [a, b] = number.to_be_bytes();
                let [c, d] = size.to_be_bytes();
                *head = [a, b, c, d];
                rest.get_mut(length..)?.fill(0);
                Some(4 + padded)
            }
            Form::Indication { peer, transaction } => {
                let (address, address_length) = xor_address(peer, transaction);
                let address = address.get(..address_length)?;
                let padded = length.next_multiple_of(4);
                let head = 20 + 4 + address_length + 4;
                let frame = shift(buffer, length, head, padded)?;
                let mut write = Writer { rest: frame };
                write.put(&DATA_INDICATION.to_be_bytes())?;
                write.put(&u16::try_from(head - 20 + padded).ok()?.to_be_bytes())?;
                write.put(&COOKIE)?;
                write.put(&[0; 4])?;
                write.put(&transaction.to_be_bytes())?;
                write.put(&XOR_PEER_ADDRESS.to_be_bytes())?;
                write.put(&(address_length as u16).to_be_bytes())?;
                write.put(address)?;
                write.put(&DATA.to_be_bytes())?;
                write.put(&size.to_be_bytes())?;
                write.rest.get_mut(length..)?.fill(0);
                Some(head + padded)
            }
        }
    }
}

/// Moves the first `length` bytes `by` to the right; what they and their padding now take, from the start.
fn shift(buffer: &mut [u8], length: usize, by: usize, padded: usize) -> Option<&mut [u8]> {
    let frame = buffer.get_mut(..by + padded)?;
    frame.copy_within(..length, by);
    Some(frame)
}

struct Writer<'a> {
    rest: &'a mut [u8],
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let (target, rest) = std::mem::take(&mut self.rest).split_at_mut_checked(bytes.len())?;
        target.copy_from_slice(bytes);
        self.rest = rest;
        Some(())
    }
}

/// RFC 8489 §14.2, without the attribute's head.
fn xor_address(address: SocketAddr, transaction: u64) -> ([u8; 20], usize) {
    let mut out = [0; 20];
    let mut mask = [0; 16];
    for (target, source) in mask
        .iter_mut()
        .zip(COOKIE.into_iter().chain([0; 4]).chain(transaction.to_be_bytes()))
    {
        *target = source;
    }
    let port = (address.port() ^ 0x2112).to_be_bytes();
    let (family, ip, length) = match address.ip() {
        IpAddr::V4(v4) => {
            let mut ip = [0; 16];
            for (target, source) in ip.iter_mut().zip(v4.octets()) {
                *target = source;
            }
            (1, ip, 4)
        }
        IpAddr::V6(v6) => (2, v6.octets(), 16),
    };
    let value = [0, family].into_iter().chain(port);
    let ip = ip.iter().zip(mask).map(|(byte, mask)| byte ^ mask).take(length);
    for (target, source) in out.iter_mut().zip(value.chain(ip)) {
        *target = source;
    }
    (out, 4 + length)
}
