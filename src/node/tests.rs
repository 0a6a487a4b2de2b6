//! Rooms driven through the node, over a shard that swallows everything.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::*;
use crate::io::{DatagramCore, EVENT_QUEUE, Offload, SendBatch, ShardHandle, ShardThread, ThreadConfig, UdpSocket};
use crate::media::edge::{Command, Event};
use crate::proto::claims::{ApiKeys, Claims, VideoGrant};
use crate::proto::join_request::JoinParameters;
use crate::proto::livekit::{MuteTrackRequest, SignalRequest, signal_request, signal_response};
use crate::types::NetPath;

const LIMIT: Duration = Duration::from_secs(10);

struct Silent;

impl DatagramCore for Silent {
    fn handle_command(&mut self, _now: Instant, _command: Command) {}
    fn handle_datagram(&mut self, _now: Instant, _path: NetPath, _datagram: &mut [u8]) {}
    fn handle_timeout(&mut self, _now: Instant) {}
    fn poll_transmit(&mut self, _now: Instant, _batch: &mut SendBatch) {}
    fn poll_event(&mut self) -> Option<Event> {
        None
    }
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

/// Ends the shard's thread with the test.
struct World {
    node: Node,
    shard: ShardHandle,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shard.stop();
    }
}

fn world(change: impl FnOnce(&mut NodeConfig)) -> World {
    let socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), Offload::ALL).unwrap();
    let (sender, events) = mpsc::channel(EVENT_QUEUE);
    let (shard, _) = ShardThread::spawn(ThreadConfig::default(), vec![socket], sender, |_| Silent).unwrap();
    let mut config = NodeConfig {
        keys: [("key", "secret")].into_iter().collect::<ApiKeys>(),
        ..NodeConfig::default()
    };
    change(&mut config);
    let link = ShardLink {
        handle: shard.clone(),
        events,
        udp_candidates: vec!["127.0.0.1:7882".parse().unwrap()],
        tcp_candidates: Vec::new(),
    };
    World {
        node: Node::start(config, vec![link]),
        shard,
    }
}

fn claims(identity: &str) -> Claims {
    Claims {
        api_key: "key".into(),
        identity: identity.into(),
        video: Some(VideoGrant {
            room_join: true,
            room: "room".into(),
            ..VideoGrant::default()
        }),
        ..Claims::default()
    }
}

fn parameters() -> JoinParameters {
    let mut parameters = JoinParameters {
        single_connection: true,
        ..JoinParameters::default()
    };
    parameters.client_info.protocol = 17;
    parameters
}

async fn join(node: &Node, identity: &str) -> (Connection, Box<crate::proto::livekit::JoinResponse>) {
    let (connection, first) = node.join(claims(identity), parameters()).await.unwrap();
    match first {
        ToClient::Message(message) => match message.message {
            Some(signal_response::Message::Join(join)) => (connection, Box::new(join)),
            other => panic!("{other:?}"),
        },
        ToClient::Close => panic!("closed"),
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_the_room_goes_on() {
    let world = world(|_| {});
    let (mut stuck, _) = join(&world.node, "stuck").await;
    let unknown = SignalRequest {
        message: Some(signal_request::Message::Mute(MuteTrackRequest {
            sid: "TR_nobody".into(),
            muted: true,
        })),
    };
    // Every one is answered; the queue holds 4,096 answers.
    for _ in 0..5_000 {
        stuck.request(unknown.clone()).await.unwrap();
    }
    let mut told = 0;
    let cut = async {
        while let Some(what) = stuck.next().await {
            assert!(matches!(what, ToClient::Message(_)));
            told += 1;
        }
    };
    tokio::time::timeout(LIMIT, cut).await.expect("the queue ends");
    assert!((4_000..5_000).contains(&told), "{told}");
    let (_other, response) = join(&world.node, "other").await;
    assert!(response.other_participants.is_empty(), "the stuck one has left");
}

#[tokio::test]
async fn a_room_that_is_over_is_made_again() {
    let world = world(|_| {});
    let (connection, first) = join(&world.node, "alice").await;
    // While the room ends, alice's socket is still open and bob is on the way in.
    let (_, (_bob, second)) = tokio::join!(
        async {
            let ended = world.node.shut_down();
            drop(connection);
            ended.await;
        },
        async {
            tokio::task::yield_now().await;
            join(&world.node, "bob").await
        }
    );
    let (first, second) = (first.room.unwrap(), second.room.unwrap());
    assert_eq!(first.name, second.name);
    let (_carol, third) = join(&world.node, "carol").await;
    assert_ne!(first.sid, third.room.unwrap().sid);
}

#[tokio::test]
async fn a_token_shapes_the_room_it_creates() {
    let world = world(|config| config.auto_create = false);
    assert_eq!(
        world.node.join(claims("alice"), parameters()).await.unwrap_err(),
        JoinFailure::NoSuchRoom
    );
    let mut creator = claims("alice");
    creator.video.as_mut().unwrap().room_create = true;
    creator.room_config = Some(crate::proto::livekit::RoomConfiguration {
        max_participants: 1,
        metadata: "from the token".into(),
        ..Default::default()
    });
    let (_connection, first) = world.node.join(creator, parameters()).await.unwrap();
    let ToClient::Message(message) = first else { panic!() };
    let Some(signal_response::Message::Join(response)) = message.message else {
        panic!()
    };
    assert_eq!(response.room.unwrap().metadata, "from the token");
    assert_eq!(
        world.node.join(claims("bob"), parameters()).await.unwrap_err(),
        JoinFailure::Refused(JoinError::RoomFull),
        "the room exists now, and is full"
    );
}
