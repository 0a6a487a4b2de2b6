//! A TURN client and the server it speaks to, in virtual time. Messages are written with `stun-types`, the attributes of
//! TURN by hand.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use stun_types::attribute::{AttributeType, RawAttribute, XorSocketAddr};
use stun_types::message::{
    IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageClass, MessageType, MessageWrite, MessageWriteExt,
    MessageWriteVec, Method, TransactionId,
};

use crate::turn::attributes::{
    CHANNEL_NUMBER, DATA, ERROR_CODE, LIFETIME, NONCE, REALM, REQUESTED_ADDRESS_FAMILY, REQUESTED_TRANSPORT, USERNAME,
    XOR_PEER_ADDRESS, XOR_RELAYED_ADDRESS, iterate,
};
use crate::turn::server::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH, SEND};
use crate::turn::{Account, Credentials, Refusal, Relayed, Server, ServerConfig};
use crate::types::{NetPath, NetProtocol, WallClock};

/// `user` or `user|expiry` (seconds since 1970); the password is the name backwards.
pub(crate) struct Scheme;

impl Credentials for Scheme {
    fn account(&self, username: &str, unix: Duration) -> Option<Account> {
        let (user, expiry) = username.split_once('|').unwrap_or((username, ""));
        if expiry.parse().is_ok_and(|expiry: u64| expiry <= unix.as_secs()) {
            return None;
        }
        Some(Account {
            user: user.to_owned(),
            password: username.chars().rev().collect(),
        })
    }
}

pub(crate) const START: Duration = Duration::from_secs(1_790_000_000);
pub(crate) const MEDIA_V4: &str = "203.0.113.5:7882";
pub(crate) const MEDIA_V6: &str = "[2001:db8::5]:7882";

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) now: Instant,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let now = Instant::now();
        let mut config = ServerConfig {
            realm: "livekit".into(),
            relay_ips: vec!["203.0.113.5".parse().unwrap(), "2001:db8::5".parse().unwrap()],
            relay_ports: 30_000..=40_000,
            peers: vec![address(MEDIA_V4), address(MEDIA_V6)].into(),
            allocations_per_user: 3,
            secret: [7; 32],
            wall: WallClock::new(now, START),
        };
        change(&mut config);
        let mut server = Server::new(config, Box::new(Scheme), now);
        for user in ["alice", "bob"] {
            server.admit(user);
        }
        Self { server, now }
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now += time;
        if self.server.poll_timeout().is_some_and(|due| due <= self.now) {
            self.server.handle_timeout(self.now);
        }
    }

    pub(crate) fn refused(&self, refusal: Refusal) -> u64 {
        self.server.counts().of(refusal)
    }
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) path: NetPath,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) realm: String,
    pub(crate) nonce: String,
    next: u128,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Success(Vec<(u16, Vec<u8>)>),
    Error(u16),
    Silence,
}

impl Answer {
    pub(crate) fn relayed(&self) -> Vec<(u16, Vec<u8>)> {
        match self {
            Self::Success(attributes) => attributes
                .iter()
                .filter(|(kind, _)| *kind == XOR_RELAYED_ADDRESS)
                .cloned()
                .collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn is_success(&self) -> bool {
        matches!(self, Self::Success(_))
    }
}

impl Client {
    pub(crate) fn new(user: &str, port: u16) -> Self {
        Self {
            path: NetPath {
                local: address("203.0.113.5:3478"),
                remote: SocketAddr::new("198.51.100.7".parse().unwrap(), port),
                protocol: NetProtocol::Udp,
            },
            username: user.into(),
            password: user.chars().rev().collect(),
            realm: String::new(),
            nonce: String::new(),
            next: u128::from(port) << 32,
        }
    }

    /// A request with these attributes, signed when a nonce is known.
    pub(crate) fn message(&mut self, method: u16, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        self.next += 1;
        self.message_as(self.next, method, attributes)
    }

    pub(crate) fn message_as(&self, transaction: u128, method: u16, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut write = Message::builder(
            MessageType::from_class_method(MessageClass::Request, Method::new(method)),
            TransactionId::from(transaction),
            MessageWriteVec::new(),
        );
        let mut put = |kind: u16, value: &[u8]| {
            write
                .add_attribute(&RawAttribute::new(AttributeType::new(kind), value))
                .unwrap();
        };
        for (kind, value) in attributes {
            put(*kind, value);
        }
        if !self.nonce.is_empty() {
            put(USERNAME, self.username.as_bytes());
            put(REALM, self.realm.as_bytes());
            put(NONCE, self.nonce.as_bytes());
            let key = LongTermKeyCredentials::new(self.username.clone(), self.password.clone(), self.realm.clone())
                .make_key(IntegrityAlgorithm::Sha1);
            write
                .add_message_integrity_with_key(&key, IntegrityAlgorithm::Sha1)
                .unwrap();
        }
        write.finish()
    }

    pub(crate) fn indication(&mut self, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        self.next += 1;
        let mut write = Message::builder(
            MessageType::from_class_method(MessageClass::Indication, Method::new(SEND)),
            TransactionId::from(self.next),
            MessageWriteVec::new(),
        );
        for (kind, value) in attributes {
            write
                .add_attribute(&RawAttribute::new(AttributeType::new(*kind), value))
                .unwrap();
        }
        write.finish()
    }

    pub(crate) fn peer(&self, peer: SocketAddr) -> (u16, Vec<u8>) {
        self.peer_in(self.next + 1, peer)
    }

    pub(crate) fn peer_in(&self, transaction: u128, peer: SocketAddr) -> (u16, Vec<u8>) {
        let value = XorSocketAddr::new(peer, TransactionId::from(transaction));
        let raw = value.to_raw(AttributeType::new(XOR_PEER_ADDRESS));
        (XOR_PEER_ADDRESS, raw.to_bytes()[4..].to_vec())
    }

    /// Gives bytes to the server; its answer, and that answer's length.
    pub(crate) fn give(&mut self, world: &mut World, bytes: &[u8]) -> (Answer, usize) {
        let _ = world.server.handle_message(world.now, self.path, bytes);
        let Some((to, answer)) = world.server.poll_transmit() else {
            return (Answer::Silence, 0);
        };
        assert_eq!(to, self.path);
        assert_eq!(world.server.poll_transmit(), None, "one answer");
        (self.read(&answer), answer.len())
    }

    /// What an answer says; realm and nonce are learned.
    pub(crate) fn read(&mut self, answer: &[u8]) -> Answer {
        let message = Message::from_bytes(answer).expect("a STUN message");
        let attributes: Vec<(u16, Vec<u8>)> = iterate(answer).map(|(kind, value)| (kind, value.to_vec())).collect();
        let value = |wanted: u16| {
            attributes
                .iter()
                .find(|(kind, _)| *kind == wanted)
                .map(|(_, value)| value.clone())
        };
        if let (Some(realm), Some(nonce)) = (value(REALM), value(NONCE)) {
            self.realm = String::from_utf8(realm).unwrap();
            self.nonce = String::from_utf8(nonce).unwrap();
        }
        match message.class() {
            MessageClass::Success => Answer::Success(attributes),
            MessageClass::Error => {
                let code = value(ERROR_CODE).expect("an error code");
                Answer::Error(u16::from(code[2]) * 100 + u16::from(code[3]))
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn ask(&mut self, world: &mut World, method: u16, attributes: &[(u16, Vec<u8>)]) -> Answer {
        let message = self.message(method, attributes);
        self.give(world, &message).0
    }

    /// Allocates as clients do: asks, is challenged, asks again.
    pub(crate) fn allocate(&mut self, world: &mut World, family: u8) -> Answer {
        let attributes = [
            (REQUESTED_TRANSPORT, vec![17, 0, 0, 0]),
            (REQUESTED_ADDRESS_FAMILY, vec![family, 0, 0, 0]),
        ];
        if self.nonce.is_empty() {
            assert_eq!(self.ask(world, ALLOCATE, &attributes), Answer::Error(401));
        }
        self.ask(world, ALLOCATE, &attributes)
    }

    pub(crate) fn refresh(&mut self, world: &mut World, seconds: u32) -> Answer {
        self.ask(world, REFRESH, &[(LIFETIME, seconds.to_be_bytes().to_vec())])
    }

    pub(crate) fn permit(&mut self, world: &mut World, peer: SocketAddr) -> Answer {
        let peer = self.peer(peer);
        self.ask(world, CREATE_PERMISSION, &[peer])
    }

    pub(crate) fn bind(&mut self, world: &mut World, number: u16, peer: SocketAddr) -> Answer {
        let peer = self.peer(peer);
        self.ask(
            world,
            CHANNEL_BIND,
            &[(CHANNEL_NUMBER, [&number.to_be_bytes()[..], &[0, 0]].concat()), peer],
        )
    }

    /// What the shard would get.
    pub(crate) fn send(
        &mut self,
        world: &mut World,
        peer: SocketAddr,
        data: &[u8],
    ) -> Result<(Relayed, Vec<u8>), Refusal> {
        let peer = self.peer(peer);
        let message = self.indication(&[peer, (DATA, data.to_vec())]);
        self.relay(world, &message)
    }

    pub(crate) fn send_on(
        &mut self,
        world: &mut World,
        number: u16,
        data: &[u8],
    ) -> Result<(Relayed, Vec<u8>), Refusal> {
        let length = data.len() as u16;
        let message = [&number.to_be_bytes()[..], &length.to_be_bytes(), data].concat();
        self.relay(world, &message)
    }

    fn relay(&mut self, world: &mut World, message: &[u8]) -> Result<(Relayed, Vec<u8>), Refusal> {
        let relayed = world.server.handle_message(world.now, self.path, message)?;
        assert_eq!(world.server.poll_transmit(), None, "data is not answered");
        let relayed = relayed.expect("data for a peer");
        let payload = message[relayed.payload.clone()].to_vec();
        Ok((relayed, payload))
    }
}

pub(crate) fn family_of(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 1 } else { 2 }
}
