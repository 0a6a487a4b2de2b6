//! Data tracks, data blobs, and the rights the data path is given.

use livekit_protocol::request_response::Reason;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message;
use livekit_protocol::update_data_subscription::Update;
use livekit_protocol::{
    PublishDataTrackRequest, SendDataRequest, StoreDataBlobRequest, UnpublishDataTrackRequest, UpdateDataSubscription,
};

use super::world::{World, entry, name};
use crate::media::edge::Command;

fn publish(handle: u32, name: &str) -> Request {
    Request::PublishDataTrackRequest(PublishDataTrackRequest {
        pub_handle: handle,
        name: name.into(),
        ..Default::default()
    })
}

fn subscribe(sid: &str, subscribe: bool) -> Request {
    Request::UpdateDataSubscription(UpdateDataSubscription {
        updates: vec![Update {
            track_sid: sid.into(),
            subscribe,
            options: None,
        }],
    })
}

#[test]
fn a_data_track_from_publication_to_its_end() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    world.client(alice).told();
    world.client(bob).told();
    world.send(alice, publish(1, "positions"));
    let told = world.client(alice).told();
    assert_eq!(
        told.iter().map(name).collect::<Vec<_>>(),
        ["publish_data_track_response", "update"]
    );
    let Message::PublishDataTrackResponse(response) = &told[0] else {
        panic!()
    };
    let sid = response.info.as_ref().unwrap().sid.clone();
    assert!(sid.starts_with("DTR_"));
    assert!(world.client(bob).update_about("alice").unwrap().is_publisher);

    world.client(bob).told();
    world.send(bob, subscribe(&sid, true));
    let told = world.client(bob).told();
    assert_eq!(
        told.iter().map(name).collect::<Vec<_>>(),
        ["subscription_permission_update", "data_track_subscriber_handles"]
    );
    let Message::DataTrackSubscriberHandles(handles) = &told[1] else {
        panic!()
    };
    assert_eq!(handles.sub_handles.values().next().unwrap().track_sid, sid);
    assert!(
        world
            .media
            .iter()
            .any(|command| matches!(command, Command::SubscribeDataTrack { .. }))
    );

    world.client(alice).told();
    let unpublish = UnpublishDataTrackRequest { pub_handle: 1 };
    world.send(alice, Request::UnpublishDataTrackRequest(unpublish));
    assert_eq!(world.client(alice).names(), ["update", "unpublish_data_track_response"]);
    let told = world.client(bob).told();
    let Some(Message::DataTrackSubscriberHandles(handles)) = told.first() else {
        panic!("{told:?}")
    };
    assert!(handles.sub_handles.is_empty());
    world.send(alice, Request::UnpublishDataTrackRequest(unpublish));
    let told = world.client(alice).told();
    assert!(matches!(&told[..], [Message::RequestResponse(response)] if response.reason() == Reason::NotFound));
}

#[test]
fn what_is_wrong_with_a_data_track_is_named() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let reason = |world: &mut World, request: Request| {
        world.client(alice).told();
        world.send(alice, request);
        world.client(alice).told().iter().find_map(|message| match message {
            Message::RequestResponse(response) => Some(response.reason()),
            _ => None,
        })
    };
    assert_eq!(reason(&mut world, publish(0, "a")), Some(Reason::InvalidHandle));
    assert_eq!(reason(&mut world, publish(65_536, "a")), Some(Reason::InvalidHandle));
    assert_eq!(reason(&mut world, publish(1, "")), Some(Reason::InvalidName));
    assert_eq!(reason(&mut world, publish(1, "a")), None);
    assert_eq!(reason(&mut world, publish(1, "b")), Some(Reason::DuplicateHandle));
    assert_eq!(reason(&mut world, publish(2, "a")), Some(Reason::DuplicateName));
    let blob = Request::StoreDataBlobRequest(StoreDataBlobRequest::default());
    assert_eq!(reason(&mut world, blob), Some(Reason::NotAllowed));
}

#[test]
fn server_data_goes_to_those_it_names() {
    let mut world = World::new();
    world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    let bob = world.client(bob).handle;
    let request = SendDataRequest {
        data: b"hello".to_vec(),
        destination_identities: vec!["bob".into()],
        ..Default::default()
    };
    world.room.send_data(request);
    world.room.send_data(SendDataRequest::default());
    let nobody = SendDataRequest {
        destination_identities: vec!["zoe".into()],
        ..Default::default()
    };
    world.room.send_data(nobody);
    world.pump();
    let to = world.commands(|command| match command {
        Command::SendData { to, .. } => Some(to.clone()),
        _ => None,
    });
    assert_eq!(to, [vec![bob], Vec::new()]);
}
