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
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::AbortHandle;

use super::shard_thread::{Handover, ShardHandle};
use crate::turn::PortChange;
use crate::types::{MAX_DATAGRAM, NetPath, NetProtocol};

/// Datagrams on their way to relay sockets: some milliseconds of a full relay. One that finds the queue full is dropped.
const DATAGRAMS: usize = 1024;
/// Beside them, for sockets to be opened and closed; those that find no room wait with the TURN server.
const CHANGES: usize = 256;
/// Errors of one socket without a datagram between them, after which it is given up.
const ERRORS: u32 = 64;

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
    /// False: there was no room, and it must be said again.
    pub(super) fn change(&self, change: PortChange) -> bool {
        // Where the sockets' end is gone, so are the sockets.
        !matches!(self.wishes.try_send(Wish::Port(change)), Err(TrySendError::Full(_)))
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
    let mut patience = Patience::default();
    loop {
        let received = socket.recv_from(&mut buffer).await;
        if !patience.lasts(&received) {
            // Its client hears no more of peers, and goes on by media and what it allocates next.
            tracing::warn!(%relayed, ?received, "a relay port is given up");
            return;
        }
        let Ok((length, peer)) = received else {
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

/// How long a socket is read that does nothing but fail.
#[derive(Default)]
struct Patience {
    errors: u32,
}

impl Patience {
    /// A peer's ICMP error is an error of one packet; others, and too many of them, are the socket's.
    fn lasts<T>(&mut self, received: &io::Result<T>) -> bool {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable};
        let Err(error) = received else {
            self.errors = 0;
            return true;
        };
        self.errors += 1;
        let is_of_a_packet = matches!(
            error.kind(),
            ConnectionRefused | ConnectionReset | HostUnreachable | Interrupted | NetworkUnreachable
        );
        is_of_a_packet && self.errors < ERRORS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::TurnServer;
    use crate::io::counters::IoCounters;
    use crate::io::relay::Relay;
    use crate::turn::OtherPeers;
    use crate::turn::tests::client::{Client, World};

    /// A full queue keeps no socket open for ever.
    #[tokio::test]
    async fn what_finds_no_room_is_said_again() {
        let mut world = World::with(|config| config.peers.others = Some(OtherPeers::default()));
        let mut client = Client::new("alice", 4000);
        assert!(client.allocate(&mut world, 1).is_success());
        let (peers, mut sockets) = peers();
        while peers.change(PortChange::Closed("203.0.113.5:9".parse().unwrap())) {}
        let mut relay = Relay::home(TurnServer(Box::new(world.server)), Vec::new(), Some(peers), world.now);
        let counters = IoCounters::default();
        assert!(relay.report(&counters), "no room yet");
        assert!(relay.report(&counters));
        // Opened and gone in the meantime: nothing to say of it.
        let mut other = Client::new("bob", 4001);
        let asked = |relay: &mut Relay, client: &mut Client| {
            let server = relay.server().unwrap();
            for _ in 0..2 {
                let message = client.message(0x003, &[(0x19, vec![17, 0, 0, 0])]);
                let _ = server.handle_message(world.now, client.path, &message);
                let (_, answer) = server.poll_transmit().unwrap();
                client.read(&answer);
            }
        };
        asked(&mut relay, &mut other);
        relay.server().unwrap().handle_disconnect(other.path);
        for _ in 0..DATAGRAMS + CHANGES {
            sockets.wishes.try_recv().unwrap();
        }
        assert!(!relay.report(&counters));
        let Wish::Port(PortChange::Opened(relayed)) = sockets.wishes.try_recv().unwrap() else {
            panic!("the port is to be opened")
        };
        assert!(sockets.wishes.try_recv().is_err(), "the other's never was");
        relay.server().unwrap().handle_disconnect(client.path);
        assert!(!relay.report(&counters));
        assert!(matches!(sockets.wishes.try_recv(), Ok(Wish::Port(PortChange::Closed(closed))) if closed == relayed));
    }

    #[test]
    fn a_socket_that_only_fails_is_given_up() {
        let refused = || io::Result::<()>::Err(io::ErrorKind::ConnectionRefused.into());
        let mut patience = Patience::default();
        assert!((1..ERRORS).all(|_| patience.lasts(&refused())));
        assert!(patience.lasts(&Ok(())));
        assert!((1..ERRORS).all(|_| patience.lasts(&refused())));
        assert!(!patience.lasts(&refused()));
        let broken = io::Result::<()>::Err(io::ErrorKind::NotConnected.into());
        assert!(!Patience::default().lasts(&broken));
    }
}
