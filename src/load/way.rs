//! How a participant's datagrams get to the server: from its socket to media's port, or in a channel of the server's own
//! relay (RFC 8656 §12), for measuring what that costs the server.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use stun_types::attribute::{AttributeStaticType, AttributeType, Nonce, RawAttribute, Realm, Username, XorSocketAddr};
use stun_types::message::{
    IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageClass, MessageType, MessageWrite, MessageWriteExt,
    MessageWriteVec, Method, TransactionId,
};

use crate::io::{DatagramBatch, UdpSocket};
use crate::proto::livekit::IceServer;

/// For one answer of the relay, on this machine or near it.
const PATIENCE: Duration = Duration::from_secs(2);
const CHANNEL: u16 = 0x4000;
const CHANNEL_HEADER: usize = 4;
const ALLOCATE: u16 = 0x003;
const CHANNEL_BIND: u16 = 0x009;
const CHANNEL_NUMBER: u16 = 0x0c;
const XOR_PEER_ADDRESS: u16 = 0x12;
const REQUESTED_TRANSPORT: u16 = 0x19;

pub struct Way {
    pub socket: Rc<UdpSocket>,
    relay: Cell<Option<Relay>>,
    /// What is sent next, with a channel's header.
    buffer: RefCell<Vec<u8>>,
}

#[derive(Clone, Copy)]
struct Relay {
    server: SocketAddr,
    peer: SocketAddr,
}

impl Way {
    pub fn direct(socket: Rc<UdpSocket>) -> Rc<Self> {
        Rc::new(Self {
            socket,
            relay: Cell::new(None),
            buffer: RefCell::new(Vec::new()),
        })
    }

    /// Through the relay that has one of these addresses, to media at `peer`. Blocks for two round trips.
    ///
    /// # Errors
    /// When there is no relay over UDP, or it refuses.
    pub fn relay(&self, servers: &[IceServer], peer: SocketAddr, batch: &mut DatagramBatch) -> io::Result<()> {
        let found = servers
            .iter()
            .find_map(|server| Some((server, server.urls.iter().find_map(|url| address(url))?)));
        let (credentials, server) = found.ok_or_else(|| io::Error::other("the server offers no relay over UDP"))?;
        let transport = (REQUESTED_TRANSPORT, vec![17, 0, 0, 0]);
        let challenge = self.ask(
            server,
            &request(ALLOCATE, 1, std::slice::from_ref(&transport), None)?,
            batch,
        )?;
        let challenge = Message::from_bytes(&challenge).map_err(io::Error::other)?;
        let text = |kind: AttributeType| {
            let found = challenge.raw_attribute(kind)?;
            String::from_utf8(found.value.to_vec()).ok()
        };
        let (Some(realm), Some(nonce)) = (text(Realm::TYPE), text(Nonce::TYPE)) else {
            return Err(io::Error::other("the relay does not ask for a password"));
        };
        let signer = Some((credentials, realm.as_str(), nonce.as_str()));
        self.ask_well(server, &request(ALLOCATE, 2, &[transport], signer)?, batch)?;
        let number = (CHANNEL_NUMBER, [&CHANNEL.to_be_bytes()[..], &[0, 0]].concat());
        let address = XorSocketAddr::new(peer, TransactionId::from(3));
        let address = address.to_raw(AttributeType::new(XOR_PEER_ADDRESS)).to_bytes();
        let address = (XOR_PEER_ADDRESS, address.get(4..).unwrap_or_default().to_vec());
        self.ask_well(server, &request(CHANNEL_BIND, 3, &[number, address], signer)?, batch)?;
        self.relay.set(Some(Relay { server, peer }));
        Ok(())
    }

    pub fn send_to(&self, datagram: &[u8], to: SocketAddr) {
        // A full buffer loses it, as a network would.
        let Some(relay) = self.relay.get() else {
            let _ = self.socket.send_to(datagram, to);
            return;
        };
        let mut buffer = self.buffer.borrow_mut();
        buffer.clear();
        buffer.extend(CHANNEL.to_be_bytes());
        buffer.extend((datagram.len() as u16).to_be_bytes());
        buffer.extend(datagram);
        let _ = self.socket.send_to(&buffer, relay.server);
    }

    /// What came, and from whom.
    pub fn open<'a>(&self, from: SocketAddr, datagram: &'a mut [u8]) -> (SocketAddr, &'a mut [u8]) {
        match self.relay.get() {
            Some(relay) if relay.server == from => (relay.peer, datagram.get_mut(CHANNEL_HEADER..).unwrap_or_default()),
            _ => (from, datagram),
        }
    }

    fn ask_well(&self, server: SocketAddr, question: &[u8], batch: &mut DatagramBatch) -> io::Result<()> {
        let answer = self.ask(server, question, batch)?;
        match Message::from_bytes(&answer).map(|answer| answer.class()) {
            Ok(MessageClass::Success) => Ok(()),
            _ => Err(io::Error::other("the relay refuses")),
        }
    }

    fn ask(&self, server: SocketAddr, question: &[u8], batch: &mut DatagramBatch) -> io::Result<Vec<u8>> {
        self.socket.send_to(question, server)?;
        let until = Instant::now() + PATIENCE;
        let mut answer = Vec::new();
        while answer.is_empty() {
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            batch.receive(&self.socket, |_, from, datagram| {
                if from == server {
                    answer = datagram.to_vec();
                }
            })?;
        }
        Ok(answer)
    }
}

/// Of `turn:192.0.2.1:3478?transport=udp`.
fn address(url: &str) -> Option<SocketAddr> {
    url.strip_prefix("turn:")?.strip_suffix("?transport=udp")?.parse().ok()
}

fn request(
    method: u16,
    transaction: u128,
    attributes: &[(u16, Vec<u8>)],
    signer: Option<(&IceServer, &str, &str)>,
) -> io::Result<Vec<u8>> {
    let kind = MessageType::from_class_method(MessageClass::Request, Method::new(method));
    let mut write = Message::builder(kind, TransactionId::from(transaction), MessageWriteVec::new());
    for (kind, value) in attributes {
        let attribute = RawAttribute::new(AttributeType::new(*kind), value);
        write.add_attribute(&attribute).map_err(io::Error::other)?;
    }
    if let Some((server, realm, nonce)) = signer {
        let username = Username::new(&server.username).map_err(io::Error::other)?;
        write.add_attribute(&username).map_err(io::Error::other)?;
        write
            .add_attribute(&Realm::new(realm).map_err(io::Error::other)?)
            .map_err(io::Error::other)?;
        write
            .add_attribute(&Nonce::new(nonce).map_err(io::Error::other)?)
            .map_err(io::Error::other)?;
        let key = LongTermKeyCredentials::new(server.username.clone(), server.credential.clone(), realm.to_owned());
        let key = key.make_key(IntegrityAlgorithm::Sha1);
        write
            .add_message_integrity_with_key(&key, IntegrityAlgorithm::Sha1)
            .map_err(io::Error::other)?;
    }
    Ok(write.finish())
}

/// The first UDP candidate of an answer.
pub fn media_address(sdp: &str) -> Option<SocketAddr> {
    sdp.lines()
        .filter_map(|line| line.trim().strip_prefix("a=candidate:"))
        .find_map(|candidate| {
            let words: Vec<&str> = candidate.split_ascii_whitespace().collect();
            match words.as_slice() {
                [_, _, "udp", _, ip, port, ..] => Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?)),
                _ => None,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found() {
        assert_eq!(
            address("turn:127.0.0.1:3478?transport=udp"),
            "127.0.0.1:3478".parse().ok()
        );
        assert_eq!(address("turn:127.0.0.1:3478?transport=tcp"), None);
        assert_eq!(address("stun:127.0.0.1:3478"), None);
        let sdp = "v=0\r\na=candidate:1 1 tcp 1 10.0.0.1 1 typ host\r\na=candidate:1 1 udp 2130706431 10.0.0.1 7882 typ host\r\n";
        assert_eq!(media_address(sdp), "10.0.0.1:7882".parse().ok());
    }
}
