//! The server: its tables, the path that data takes through them, and the end of what has expired.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::time::Instant;

use stun_types::message::{Message, MessageClass};

use super::allocation::{Allocation, Carriage};
use super::attributes::Attributes;
use super::credentials::Credentials;
use super::limiter::Limiter;
use super::nonce::Nonces;
use super::policy::PeerPolicy;
use super::refusal::{Counts, Refusal};
use super::reply::{self, is_of_family};
use crate::types::{NetPath, NetProtocol, WallClock};

/// Allocations of all users; some 1 KiB each. A shard is out of processor time long before.
pub(super) const MAX_ALLOCATIONS: usize = 16_384;
/// Participants that may hold credentials: more than a node carries. Beyond, new ones cannot use the relay.
const MAX_USERS: usize = 65_536;
/// Entries of freed allocations that are not worth cleaning up.
const EXPIRIES_KEPT: usize = 64;
/// Answers waiting for `poll_transmit`; the caller takes them after each input, so that this is never reached.
const MAX_TRANSMITS: usize = 256;

pub(super) const BINDING: u16 = 0x001;
pub(super) const ALLOCATE: u16 = 0x003;
pub(super) const REFRESH: u16 = 0x004;
pub(super) const SEND: u16 = 0x006;
pub(super) const CREATE_PERMISSION: u16 = 0x008;
pub(super) const CHANNEL_BIND: u16 = 0x009;

#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub realm: String,
    /// What relayed addresses are made of, at most one of each family: addresses of this machine, as clients see them.
    pub relay_ips: Vec<IpAddr>,
    /// Ports of relayed addresses. Nothing listens on them.
    pub relay_ports: RangeInclusive<u16>,
    /// Whom clients may speak to.
    pub peers: PeerPolicy,
    /// 0 = no limit but that of the server.
    pub allocations_per_user: usize,
    /// Of nonces; new with every start.
    pub secret: [u8; 32],
    pub wall: WallClock,
}

/// Data for one of our media addresses, or for a peer elsewhere (`PeerPolicy::is_media` says which).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// As the shard sees it: `local` is the media address or the peer, `remote` the relayed address.
    pub path: NetPath,
    /// Where in the client's message the datagram is.
    pub payload: Range<usize>,
}

/// A relayed address that a socket must listen at, or no more. Only where peers elsewhere may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortChange {
    Opened(SocketAddr),
    Closed(SocketAddr),
}

/// What is held at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Population {
    pub users: usize,
    pub allocations: usize,
    pub relayed: usize,
}

/// The TURN server.
///
/// Call order: any of `handle_*`, `admit`, `revoke`, then `poll_transmit` and `poll_port` until None. `poll_timeout` says when
/// `handle_timeout` is due. `now` must never go back. A client is its 5-tuple, a stream's or a datagram socket's; a stream
/// that ends is told by `handle_disconnect`.
pub struct Server {
    pub(super) config: ServerConfig,
    pub(super) credentials: Box<dyn Credentials>,
    pub(super) nonces: Nonces,
    limiter: Limiter,
    pub(super) allocations: HashMap<NetPath, Allocation>,
    /// The client behind a relayed address.
    pub(super) relayed: HashMap<SocketAddr, NetPath>,
    /// Participants that may allocate, and how many allocations each has.
    pub(super) users: HashMap<String, usize>,
    /// When to look whether an allocation has expired. Freed ones leave theirs behind (`expect_expiry` bounds that).
    expiries: BinaryHeap<Reverse<(Instant, OrderedPath)>>,
    pub(super) next_port: u16,
    transmits: VecDeque<(NetPath, Vec<u8>)>,
    /// At most one for each address that is open, and one for each that was when the caller last took them.
    ports: VecDeque<PortChange>,
    counts: Counts,
    next_transaction: u64,
}

/// Heap entries need an order; which one is of no matter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct OrderedPath {
    remote: SocketAddr,
    local: SocketAddr,
    is_stream: bool,
}

impl From<NetPath> for OrderedPath {
    fn from(path: NetPath) -> Self {
        Self {
            remote: path.remote,
            local: path.local,
            is_stream: path.protocol == NetProtocol::Tcp,
        }
    }
}

impl From<OrderedPath> for NetPath {
    fn from(path: OrderedPath) -> Self {
        Self {
            local: path.local,
            remote: path.remote,
            protocol: match path.is_stream {
                true => NetProtocol::Tcp,
                false => NetProtocol::Udp,
            },
        }
    }
}

impl Server {
    pub fn new(config: ServerConfig, credentials: Box<dyn Credentials>, now: Instant) -> Self {
        let salt = config
            .secret
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Self {
            nonces: Nonces::new(&config.secret),
            limiter: Limiter::new(now, salt),
            next_port: *config.relay_ports.start(),
            config,
            credentials,
            allocations: HashMap::new(),
            relayed: HashMap::new(),
            users: HashMap::new(),
            expiries: BinaryHeap::new(),
            transmits: VecDeque::new(),
            ports: VecDeque::new(),
            counts: Counts::default(),
            next_transaction: salt,
        }
    }

    /// The participant may allocate from now on.
    pub fn admit(&mut self, user: &str) {
        if self.users.len() < MAX_USERS && !self.users.contains_key(user) {
            self.users.insert(user.to_owned(), 0);
        }
    }

    /// The participant is gone: so are its allocations, and its credentials are worth nothing.
    pub fn revoke(&mut self, user: &str) {
        if self.users.remove(user).unwrap_or(0) > 0 {
            let clients: Vec<NetPath> = self
                .allocations
                .iter()
                .filter(|(_, allocation)| allocation.user == user)
                .map(|(client, _)| *client)
                .collect();
            for client in clients {
                self.free(client);
            }
        }
    }

    /// One message of a client: a datagram, or a frame of a stream (`frame_length`). Err says why it had no effect; it may
    /// have been answered all the same.
    pub fn handle_message(
        &mut self,
        now: Instant,
        client: NetPath,
        message: &[u8],
    ) -> Result<Option<Relayed>, Refusal> {
        let result = match message.first() {
            Some(0x40..=0x7f) => self.channel_data(now, client, message).map(Some),
            Some(0..=0x3f) => self.stun(now, client, message),
            _ => Err(Refusal::Malformed),
        };
        if let Err(refusal) = result {
            self.counts.add(refusal);
        }
        result
    }

    /// The client's stream has ended.
    pub fn handle_disconnect(&mut self, client: NetPath) {
        self.free(client);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(Reverse((due, client))) = self.expiries.peek().copied()
            && due <= now
        {
            self.expiries.pop();
            match self.allocations.get(&client.into()).map(|allocation| allocation.until) {
                Some(until) if until > now => self.expiries.push(Reverse((until, client))),
                Some(_) => self.free(client.into()),
                None => {}
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.expiries.peek().map(|Reverse((due, _))| *due)
    }

    /// The next answer and whom it is for.
    pub fn poll_transmit(&mut self) -> Option<(NetPath, Vec<u8>)> {
        self.transmits.pop_front()
    }

    /// The next relayed address to listen at, or no more.
    pub fn poll_port(&mut self) -> Option<PortChange> {
        self.ports.pop_front()
    }

    /// Could not be taken yet: it is the next again.
    pub fn return_port(&mut self, change: PortChange) {
        self.ports.push_front(change);
    }

    /// Addresses of this machine that have become known, at most one of each family, and media at them.
    pub fn add_addresses(&mut self, ips: &[IpAddr], media: &[SocketAddr]) {
        let config = &mut self.config;
        let replaced = |old: &IpAddr| ips.iter().any(|new| new.is_ipv4() == old.is_ipv4());
        config.relay_ips.retain(|old| !replaced(old));
        config.relay_ips.extend(ips);
        let new = media.iter().filter(|media| !config.peers.media.contains(media));
        let new: Vec<SocketAddr> = new.copied().collect();
        config.peers.media.extend(new);
        if let Some(others) = &mut config.peers.others {
            others.own.extend(ips);
        }
    }

    pub fn is_media(&self, peer: SocketAddr) -> bool {
        self.config.peers.is_media(peer)
    }

    /// How to bring a datagram that the shard sends on `path` (`local` = the media address, `remote` = the relayed address)
    /// to its client, `length` bytes of it. None when the allocation or its permission is gone, or a peer sends too much.
    pub fn carriage(&mut self, now: Instant, path: NetPath, length: usize) -> Option<Carriage> {
        let client = *self.relayed.get(&path.remote)?;
        let is_elsewhere = self.config.peers.is_elsewhere(path.local);
        let allocation = self.allocations.get_mut(&client)?;
        let channel = allocation.channel_of(now, path.local);
        if channel.is_none() && !allocation.is_permitted(now, path.local.ip()) {
            self.counts.add(Refusal::NotPermitted);
            return None;
        }
        if is_elsewhere && !allocation.spend(now, length) {
            self.counts.add(Refusal::OverRate);
            return None;
        }
        if let Some(number) = channel {
            return Some(Carriage::channel(client, number));
        }
        self.next_transaction = self.next_transaction.wrapping_add(1);
        Some(Carriage::indication(client, path.local, self.next_transaction))
    }

    pub fn has_allocation(&self, client: NetPath) -> bool {
        self.allocations.contains_key(&client)
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub fn population(&self) -> Population {
        Population {
            users: self.users.len(),
            allocations: self.allocations.len(),
            relayed: self.relayed.len(),
        }
    }

    fn channel_data(&mut self, now: Instant, client: NetPath, message: &[u8]) -> Result<Relayed, Refusal> {
        let [a, b, c, d, ..] = *message else {
            return Err(Refusal::Malformed);
        };
        let length = usize::from(u16::from_be_bytes([c, d]));
        let payload = 4..4 + length;
        message.get(payload.clone()).ok_or(Refusal::Malformed)?;
        let allocation = self.allocations.get_mut(&client).ok_or(Refusal::NoAllocation)?;
        let peer = allocation
            .peer_of(now, u16::from_be_bytes([a, b]))
            .ok_or(Refusal::NotPermitted)?;
        if self.config.peers.is_elsewhere(peer) && !allocation.spend(now, length) {
            return Err(Refusal::OverRate);
        }
        relayed(allocation, peer, payload)
    }

    fn stun(&mut self, now: Instant, client: NetPath, bytes: &[u8]) -> Result<Option<Relayed>, Refusal> {
        let message = Message::from_bytes(bytes).map_err(|_| Refusal::Malformed)?;
        let method = message.method().value();
        match (message.class(), method) {
            (MessageClass::Indication, SEND) => return self.send_indication(now, client, &message).map(Some),
            (MessageClass::Request, BINDING) => {
                self.spend(now, client)?;
                let mapped = reply::Success {
                    mapped: Some(client.remote),
                    ..reply::Success::default()
                };
                self.transmit(client, reply::success(&message, &mapped, None));
            }
            (MessageClass::Request, ALLOCATE | REFRESH | CREATE_PERMISSION | CHANNEL_BIND) => {
                self.request(now, client, &message, method)?;
            }
            // A keepalive.
            (MessageClass::Indication, BINDING) => {}
            _ => return Err(Refusal::UnknownMethod),
        }
        Ok(None)
    }

    /// RFC 8656 §11.2: never answered.
    fn send_indication(&mut self, now: Instant, client: NetPath, message: &Message<'_>) -> Result<Relayed, Refusal> {
        let allocation = self.allocations.get_mut(&client).ok_or(Refusal::NoAllocation)?;
        let attributes = Attributes::read(message.as_bytes(), message.transaction_id());
        let (Some(data), [peer, ..], false) = (attributes.data, attributes.peers.as_slice(), attributes.is_broken)
        else {
            return Err(Refusal::BadRequest);
        };
        if !attributes.unknown.is_empty() {
            return Err(Refusal::BadRequest);
        }
        if !self.config.peers.reaches(*peer) {
            return Err(Refusal::PeerRefused);
        }
        if !allocation.is_permitted(now, peer.ip()) {
            return Err(Refusal::NotPermitted);
        }
        if self.config.peers.is_elsewhere(*peer) && !allocation.spend(now, data.len()) {
            return Err(Refusal::OverRate);
        }
        let start = (data.as_ptr() as usize).saturating_sub(message.as_bytes().as_ptr() as usize);
        relayed(allocation, *peer, start..start + data.len())
    }

    /// An answer to somebody who has not shown a password, from his network's share.
    pub(super) fn spend(&mut self, now: Instant, client: NetPath) -> Result<(), Refusal> {
        match self.limiter.take(now, client.remote.ip()) {
            true => Ok(()),
            false => Err(Refusal::TooMany),
        }
    }

    pub(super) fn transmit(&mut self, client: NetPath, message: Vec<u8>) {
        if self.transmits.len() < MAX_TRANSMITS {
            self.transmits.push_back((client, message));
        }
    }

    pub(super) fn expect_expiry(&mut self, client: NetPath, at: Instant) {
        self.expiries.push(Reverse((at, client.into())));
        // More entries of the dead than of the living: begin anew with the living. Costs a constant time for each entry.
        if self.expiries.len() > 2 * self.allocations.len() + EXPIRIES_KEPT {
            let living = self.allocations.iter();
            self.expiries = living
                .map(|(client, allocation)| Reverse((allocation.until, (*client).into())))
                .collect();
        }
    }

    pub(super) fn tell_port(&mut self, change: PortChange) {
        if self.config.peers.others.is_none() {
            return;
        }
        // Nobody has listened there yet: nobody needs to stop.
        if let PortChange::Closed(relayed) = change
            && let Some(opened) = self
                .ports
                .iter()
                .position(|other| *other == PortChange::Opened(relayed))
        {
            self.ports.remove(opened);
            return;
        }
        self.ports.push_back(change);
    }

    /// Gives up one address of an allocation that has one of each family.
    pub(super) fn free_family(&mut self, client: NetPath, family: u8) {
        let Some(allocation) = self.allocations.get_mut(&client) else {
            return;
        };
        let of_family = |relayed: &&SocketAddr| is_of_family(relayed.ip(), family);
        let Some(gone) = allocation.relayed.iter().find(of_family).copied() else {
            return;
        };
        allocation.relayed.retain(|relayed| *relayed != gone);
        self.relayed.remove(&gone);
        self.tell_port(PortChange::Closed(gone));
    }

    pub(super) fn free(&mut self, client: NetPath) {
        let Some(allocation) = self.allocations.remove(&client) else {
            return;
        };
        for relayed in &allocation.relayed {
            self.relayed.remove(relayed);
            self.tell_port(PortChange::Closed(*relayed));
        }
        if let Some(count) = self.users.get_mut(&allocation.user) {
            *count = count.saturating_sub(1);
        }
    }
}

fn relayed(allocation: &Allocation, peer: SocketAddr, payload: Range<usize>) -> Result<Relayed, Refusal> {
    let remote = allocation.relayed_for(peer.ip()).ok_or(Refusal::FamilyMismatch)?;
    Ok(Relayed {
        path: NetPath {
            local: peer,
            remote,
            protocol: NetProtocol::Turn,
        },
        payload,
    })
}
