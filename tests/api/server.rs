//! A server on a free loopback port, with shards that swallow everything and know of no media.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use patchbay::app::http::{Site, serve};
use patchbay::io::{DatagramCore, EVENT_QUEUE, Offload, SendBatch, ShardHandle, ShardThread, ThreadConfig, UdpSocket};
use patchbay::media::edge::{Command, Event};
use patchbay::node::{Node, NodeConfig, ShardLink};
use patchbay::proto::claims::{ApiKeys, Claims, VideoGrant, sign};
use patchbay::types::{NetPath, NetProtocol, SrtpProfile};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

pub const KEY: &str = "key";
pub const SECRET: &str = "a secret of the tests";

#[derive(Default)]
struct Silent {
    answers: VecDeque<Event>,
    /// Says of every transport that it is up as soon as the peer's description is there.
    connects: bool,
}

impl DatagramCore for Silent {
    fn handle_command(&mut self, _now: Instant, command: Command) {
        match command {
            Command::Explain { room, query, .. } => {
                let report = Box::default();
                self.answers.push_back(Event::Explanation { room, query, report });
            }
            Command::SetRemote { transport, .. } if self.connects => {
                self.answers.push_back(Event::TransportConnected {
                    transport,
                    srtp_profile: SrtpProfile::AeadAes256Gcm,
                    remote: "127.0.0.1:9".parse().unwrap(),
                    protocol: NetProtocol::Udp,
                });
            }
            _ => {}
        }
    }
    fn handle_datagram(&mut self, _now: Instant, _path: NetPath, _datagram: &mut [u8]) {}
    fn handle_timeout(&mut self, _now: Instant) {}
    fn poll_transmit(&mut self, _now: Instant, _batch: &mut SendBatch) {}
    fn poll_event(&mut self) -> Option<Event> {
        self.answers.pop_front()
    }
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub node: Node,
    shard: ShardHandle,
    /// Kept: the listener takes its end for a stop.
    _stopping: watch::Sender<bool>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shard.stop();
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut NodeConfig)) -> Self {
        Self::make(false, change).await
    }

    /// Media is silent here too, but connections come up: participants are ACTIVE.
    pub async fn connecting(change: impl FnOnce(&mut NodeConfig)) -> Self {
        Self::make(true, change).await
    }

    async fn make(connects: bool, change: impl FnOnce(&mut NodeConfig)) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), Offload::ALL).unwrap();
        let udp_candidates = vec![socket.local()];
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let (shard, _) = ShardThread::spawn(ThreadConfig::default(), vec![socket], sender, move |_| Silent {
            connects,
            ..Silent::default()
        })
        .unwrap();
        let mut config = NodeConfig {
            keys: [(KEY, SECRET)].into_iter().collect::<ApiKeys>(),
            ..NodeConfig::default()
        };
        change(&mut config);
        let link = ShardLink {
            handle: shard.clone(),
            events,
            udp_candidates,
            tcp_candidates: Vec::new(),
        };
        let node = Node::start(config, vec![link]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let site = Site {
            node: node.clone(),
            development: false,
            statistics: Default::default(),
            whip: Default::default(),
            relays: Default::default(),
            voice: None,
        };
        let (stopping, stopped) = watch::channel(false);
        tokio::spawn(serve(listener, site, stopped));
        Self {
            address,
            node,
            shard,
            _stopping: stopping,
        }
    }

    /// A good token for `identity` in the room "room", after `change`.
    pub fn token_with(&self, identity: &str, change: impl FnOnce(&mut Claims)) -> String {
        let mut claims = Claims {
            identity: identity.into(),
            video: Some(VideoGrant {
                room_join: true,
                room: "room".into(),
                ..VideoGrant::default()
            }),
            ..Claims::default()
        };
        change(&mut claims);
        sign(&claims, KEY, SECRET, self.node.unix(), Duration::from_secs(600))
    }

    pub fn token(&self, identity: &str) -> String {
        self.token_with(identity, |_| {})
    }
}
