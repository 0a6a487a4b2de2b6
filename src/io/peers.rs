//! Relay sockets, for the TURN server's optional mode in which clients reach peers elsewhere.
//!
//! Owns one UDP socket for each relayed address. Runs beside the shards, on tokio: what peers send is handed to the shard
//! that has the server, which knows whether its client wants it. Never judges a peer; the server has.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::shard_thread::{Handover, ShardHandle};
use crate::turn::PortChange;
use crate::types::{MAX_DATAGRAM, NetPath, NetProtocol};

/// Datagrams on their way to relay sockets: some milliseconds of a full relay. One that finds the queue full is dropped.
const DATAGRAMS: usize = 1024;
/// Beside them, for sockets to be opened and closed, which must not be lost.
const CHANGES: usize = 256;

#[derive(Debug)]
enum Wish {
    Port(PortChange),
    Send { path: NetPath, datagram: Vec<u8> },
}

/// The shard's end.
#[derive(Clone, Debug)]
pub struct Peers {
    wishes: mpsc::Sender<Wish>,
}

/// The sockets' end.
#[derive(Debug)]
pub struct PeerSockets {
    wishes: mpsc::Receiver<Wish>,
}

pub fn peers() -> (Peers, PeerSockets) {
    let (sender, receiver) = mpsc::channel(DATAGRAMS + CHANGES);
    (Peers { wishes: sender }, PeerSockets { wishes: receiver })
}

impl Peers {
    pub(super) fn change(&self, change: PortChange) {
        if self.wishes.try_send(Wish::Port(change)).is_err() {
            tracing::warn!(?change, "a relay socket is not looked after");
        }
    }

    /// `path.local` is the peer, `path.remote` the relayed address. False: there was no room.
    pub(super) fn send(&self, path: NetPath, datagram: &[u8]) -> bool {
        let datagram = datagram.to_vec();
        self.wishes.capacity() > CHANGES && self.wishes.try_send(Wish::Send { path, datagram }).is_ok()
    }
}

impl PeerSockets {
    /// Until the shard's end is gone. What comes from peers goes to `home`.
    pub async fn serve(mut self, home: ShardHandle) {
        let mut sockets: HashMap<SocketAddr, Open> = HashMap::new();
        while let Some(wish) = self.wishes.recv().await {
            match wish {
                Wish::Port(PortChange::Opened(relayed)) => match Open::new(relayed, &home) {
                    Ok(open) => {
                        sockets.insert(relayed, open);
                    }
                    Err(error) => tracing::warn!(%relayed, %error, "a relay port cannot be used"),
                },
                Wish::Port(PortChange::Closed(relayed)) => {
                    sockets.remove(&relayed);
                }
                Wish::Send { path, datagram } => {
                    if let Some(open) = sockets.get(&path.remote) {
                        // A full socket drops, as the network would.
                        let _ = open.socket.try_send_to(&datagram, path.local);
                    }
                }
            }
        }
    }
}

struct Open {
    socket: Arc<UdpSocket>,
    reader: AbortHandle,
}

impl Open {
    /// At the port of the relayed address, whose IP may be a router's.
    fn new(relayed: SocketAddr, home: &ShardHandle) -> io::Result<Self> {
        use socket2::{Domain, Protocol, Socket, Type};
        let everywhere = match relayed {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = Socket::new(Domain::for_address(relayed), Type::DGRAM, Some(Protocol::UDP))?;
        if relayed.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(everywhere, relayed.port()).into())?;
        let socket = Arc::new(UdpSocket::from_std(socket.into())?);
        let reader = tokio::spawn(read(Arc::clone(&socket), relayed, home.clone())).abort_handle();
        Ok(Self { socket, reader })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(socket: Arc<UdpSocket>, relayed: SocketAddr, home: ShardHandle) {
    let mut buffer = [0; MAX_DATAGRAM + 1];
    loop {
        // A peer's ICMP error is an error of one packet.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let Some(datagram) = buffer.get(..length).filter(|_| length <= MAX_DATAGRAM) else {
            continue;
        };
        let path = NetPath {
            local: peer,
            remote: relayed,
            protocol: NetProtocol::Turn,
        };
        let datagram = datagram.to_vec();
        home.try_hand_over(Handover::ToClient { path, datagram });
    }
}
