//! The TURN server's place among the shard threads: one of them, the home, has its sockets and its state; media for the
//! other shards is handed over by value, both ways.
//!
//! Owns the `turn::Server` (home only) and the table of which shard has which media address. What a client sends to a media
//! address of the home shard never leaves the memory it arrived in.

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::counters::{IoCounters, set};
use super::peers::Peers;
use super::shard_thread::{Handover, ShardHandle};
use super::udp::UdpSocket;
use crate::turn::{self, Relayed};
use crate::types::NetPath;

/// What makes a shard thread the home of the TURN server.
#[derive(Debug)]
pub struct RelayHome {
    pub sockets: Vec<UdpSocket>,
    /// The thread's media sockets take its datagrams too (`turn::is_for_server`).
    pub shares_media: bool,
    pub server: TurnServer,
    /// Media addresses and the shards that have them; None = the home itself.
    pub routes: Vec<(SocketAddr, Option<ShardHandle>)>,
    /// The relay's sockets, where clients may reach peers elsewhere.
    pub peers: Option<Peers>,
}

/// `turn::Server` on its way to its thread.
pub struct TurnServer(pub Box<turn::Server>);

impl std::fmt::Debug for TurnServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TurnServer").field(&self.0.population()).finish()
    }
}

/// What became of a datagram for a relayed address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrapped {
    /// It is for this client now, so many bytes.
    For(NetPath, usize),
    /// The home brings it to its client.
    Elsewhere,
    /// No such allocation, no permission, or a full queue.
    Dropped,
}

/// Where a client's data goes.
#[derive(Debug)]
pub(super) enum Destination {
    Here(Relayed),
    There(ShardHandle, Relayed),
    Elsewhere(Peers, Relayed),
}

#[derive(Default)]
pub(super) enum Relay {
    /// No TURN server, or its home is not known yet.
    #[default]
    Absent,
    Home {
        server: Box<turn::Server>,
        routes: Vec<(SocketAddr, Option<ShardHandle>)>,
        peers: Option<Peers>,
        now: Instant,
    },
    /// Another thread is the home.
    At(ShardHandle),
}

impl Relay {
    pub(super) fn home(
        server: TurnServer,
        routes: Vec<(SocketAddr, Option<ShardHandle>)>,
        peers: Option<Peers>,
        now: Instant,
    ) -> Self {
        Self::Home {
            server: server.0,
            routes,
            peers,
            now,
        }
    }

    pub(super) fn server(&mut self) -> Option<&mut turn::Server> {
        match self {
            Self::Home { server, .. } => Some(server),
            Self::Absent | Self::At(_) => None,
        }
    }

    /// The time of what is wrapped from now on.
    pub(super) fn set_now(&mut self, at: Instant) {
        if let Self::Home { now, .. } = self {
            *now = at;
        }
    }

    /// One message of a client. Answers are to be taken from the server.
    pub(super) fn handle_message(&mut self, now: Instant, client: NetPath, message: &[u8]) -> Option<Destination> {
        let Self::Home {
            server, routes, peers, ..
        } = self
        else {
            return None;
        };
        // Whoever breaks the server loses his allocation; everybody else's goes on.
        let handled = catch_unwind(AssertUnwindSafe(|| server.handle_message(now, client, message)));
        let Ok(handled) = handled else {
            tracing::error!("the TURN server has panicked over a message");
            server.handle_disconnect(client);
            return None;
        };
        let relayed = handled.ok()??;
        let mut known = routes.iter();
        let route = known.find(|(address, _)| *address == relayed.path.local);
        Some(match (route, peers) {
            (Some((_, None)), _) => Destination::Here(relayed),
            (Some((_, Some(shard))), _) => Destination::There(shard.clone(), relayed),
            (None, Some(peers)) => Destination::Elsewhere(peers.clone(), relayed),
            (None, None) => return None,
        })
    }

    /// What others are to know of the server: what it refuses, what it holds, which relayed addresses have come and gone. Those
    /// that the sockets have no room for are told the next time, which is every turn.
    /// True when there were some.
    pub(super) fn report(&mut self, counters: &IoCounters) -> bool {
        if let Self::Home { server, .. } = self {
            set(&counters.relay_refused, server.counts().total());
            set(&counters.relay_allocations, server.population().allocations as u64);
        }

        let Self::Home {
            server,
            peers: Some(peers),
            ..
        } = self
        else {
            return false;
        };
        while let Some(change) = server.poll_port() {
            if !peers.change(change) {
                server.return_port(change);
                return true;
            }
        }
        false
    }

    /// To the home: more of our addresses are known, and media at them.
    pub(super) fn add_addresses(&mut self, ips: &[IpAddr], added: Vec<(SocketAddr, Option<ShardHandle>)>) {
        if let Self::Home { server, routes, .. } = self {
            let media: Vec<SocketAddr> = added.iter().map(|(address, _)| *address).collect();
            server.add_addresses(ips, &media);
            routes.retain(|(known, _)| !media.contains(known));
            routes.extend(added);
        }
    }

    /// Wraps the `length` bytes at the start of `slot`, which the shard sends on `path`, for the client.
    pub(super) fn wrap(&mut self, path: NetPath, slot: &mut [u8], length: usize) -> Wrapped {
        match self {
            Self::Absent => Wrapped::Dropped,
            Self::Home { server, now, .. } => {
                let wrapped = server.carriage(*now, path, length).and_then(|carriage| {
                    let length = carriage.wrap(slot, length)?;
                    Some((carriage.client, length))
                });
                match wrapped {
                    Some((client, length)) => Wrapped::For(client, length),
                    None => Wrapped::Dropped,
                }
            }
            Self::At(home) => {
                let datagram = slot.get(..length).unwrap_or_default().to_vec();
                match home.try_hand_over(Handover::ToClient { path, datagram }) {
                    true => Wrapped::Elsewhere,
                    false => Wrapped::Dropped,
                }
            }
        }
    }
}
