//! Calls of a backend to a participant, and a participant that is moved.

use livekit_protocol::data_packet::Value;
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{DataPacket, DisconnectReason, PerformRpcRequest, RpcAck, RpcError, RpcResponse, rpc_response};
use prost::Message as _;

use super::world::{World, entry, name};
use crate::control::AdministrationError;
use crate::media::edge::{Command, Event};
use crate::types::{Identity, ParticipantHandle};

fn call(world: &mut World, identity: &str) -> Result<String, AdministrationError> {
    let request = PerformRpcRequest {
        destination_identity: identity.into(),
        method: "echo".into(),
        payload: "hi".into(),
        ..Default::default()
    };
    let call = world.room.perform_rpc(world.now, request);
    world.pump();
    call
}

fn answer(world: &mut World, participant: ParticipantHandle, value: Value) {
    let packet = DataPacket {
        value: Some(value),
        ..Default::default()
    };
    world.event(Event::RpcAnswer {
        participant,
        packet: packet.encode_to_vec(),
    });
}

fn acknowledge(world: &mut World, participant: ParticipantHandle, call: &str) {
    let request_id = call.to_owned();
    answer(world, participant, Value::RpcAck(RpcAck { request_id }));
}

fn respond(world: &mut World, participant: ParticipantHandle, call: &str, value: rpc_response::Value) {
    let response = RpcResponse {
        request_id: call.into(),
        value: Some(value),
    };
    answer(world, participant, Value::RpcResponse(response));
}

fn payload(text: &str) -> rpc_response::Value {
    rpc_response::Value::Payload(text.into())
}

#[test]
fn a_call_reaches_its_participant_and_its_response_comes_back() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    let (alice, bob) = (world.client(alice).handle, world.client(bob).handle);
    let id = call(&mut world, "alice").unwrap();
    let sent = world.commands(|command| match command {
        Command::SendData {
            to,
            reliable: true,
            packet,
            ..
        } => Some((to.clone(), DataPacket::decode(packet.as_slice()).unwrap())),
        _ => None,
    });
    let [(to, packet)] = sent.as_slice() else {
        panic!("{sent:?}")
    };
    assert_eq!((to.as_slice(), &packet.participant_identity), ([alice].as_slice(), &id));
    let Some(Value::RpcRequest(request)) = &packet.value else {
        panic!("{packet:?}")
    };
    assert_eq!((request.id.as_str(), request.version), (id.as_str(), 1));
    assert_eq!(
        (
            request.method.as_str(),
            request.payload.as_str(),
            request.response_timeout_ms
        ),
        ("echo", "hi", 10_000)
    );

    respond(&mut world, bob, &id, payload("a lie"));
    assert_eq!(world.answers, [], "only the one who was called answers");
    acknowledge(&mut world, alice, &id);
    world.after_ms(9_000);
    respond(&mut world, alice, &id, payload("echo:hi"));
    respond(&mut world, alice, &id, payload("again"));
    assert_eq!(world.answers, [(id.clone(), Ok("echo:hi".into()))]);
    let ended = world.commands(|command| match command {
        Command::EndRpc { call, .. } => Some(call.clone()),
        _ => None,
    });
    assert_eq!(ended, [id]);
}

#[test]
fn a_call_ends_with_the_participants_error_or_with_ours() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let handle = world.client(alice).handle;
    assert_eq!(call(&mut world, "zz"), Err(AdministrationError::NoParticipant));

    let failing = call(&mut world, "alice").unwrap();
    let error = RpcError {
        code: 1400,
        message: "Method not supported at destination".into(),
        ..Default::default()
    };
    respond(&mut world, handle, &failing, rpc_response::Value::Error(error));
    let unheard = call(&mut world, "alice").unwrap();
    world.after_ms(1_900);
    let slow = call(&mut world, "alice").unwrap();
    acknowledge(&mut world, handle, &slow);
    world.after_ms(200);
    let left = call(&mut world, "alice").unwrap();
    acknowledge(&mut world, handle, &left);
    world.after_ms(9_900);
    let ended: Vec<_> = world.answers.drain(..).collect();
    assert_eq!(ended, [(failing, Err(1400)), (unheard, Err(1501)), (slow, Err(1502))]);
    world.leave(alice);
    assert_eq!(world.answers, [(left, Err(1503))]);
}

#[test]
fn calls_of_a_room_are_bounded() {
    let mut world = World::new();
    world.join(entry("alice"));
    for _ in 0..256 {
        call(&mut world, "alice").unwrap();
    }
    assert_eq!(call(&mut world, "alice"), Err(AdministrationError::TooManyCalls));
    world.after_ms(2_100);
    assert_eq!(world.answers.len(), 256);
    call(&mut world, "alice").unwrap();
}

#[test]
fn a_moved_participant_is_told_where_it_belongs() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    world.client(alice).told();
    let destination = livekit_protocol::Room {
        name: "elsewhere".into(),
        ..Default::default()
    };
    let carol = livekit_protocol::ParticipantInfo {
        identity: "carol".into(),
        ..Default::default()
    };
    let identity = Identity("alice".into());
    world
        .room
        .move_participant(world.now, &identity, destination, vec![carol])
        .unwrap();
    world.pump();
    let told = world.client(alice).told();
    assert_eq!(
        told.iter().map(name).collect::<Vec<_>>(),
        ["refresh_token", "room_moved", "leave"]
    );
    let Message::RoomMoved(moved) = &told[1] else { panic!() };
    assert_eq!(moved.other_participants[0].identity, "carol");
    assert_eq!(moved.participant.as_ref().unwrap().identity, "alice");
    let Message::Leave(leave) = &told[2] else { panic!() };
    assert_eq!(
        (leave.action(), leave.reason()),
        (Action::Reconnect, DisconnectReason::Migration)
    );
    assert!(world.client(alice).closed);
    world.after_ms(3_000);
    let gone = world.client(bob).update_about("alice").unwrap();
    assert_eq!(gone.disconnect_reason(), DisconnectReason::Migration);
}
