//! Frames and their switching rule; sessions over real sockets are in `tests/api/`.

use axum::extract::ws::Message;
use prost::Message as _;

use super::frames::{Encoding, Incoming};
use crate::proto::livekit::{SignalRequest, SignalResponse, signal_request, signal_response};

fn ping() -> SignalRequest {
    SignalRequest {
        message: Some(signal_request::Message::Ping(7)),
    }
}

#[test]
fn json_from_the_first_message_for_those_who_ask() {
    let asked = |query: &str| Encoding::asked_for(&format!("/rtc?access_token=x{query}").parse().expect("a URI"));
    assert_eq!(asked(""), Encoding::Binary);
    assert_eq!(asked("&format=json"), Encoding::Json);
    assert_eq!(asked("&format=protobuf"), Encoding::Binary);
}

#[test]
fn answers_take_the_form_of_the_latest_frame() {
    let pong = SignalResponse {
        message: Some(signal_response::Message::Pong(7)),
    };
    let binary = Message::Binary(pong.encode_to_vec().into());
    let text = Message::Text(r#"{"pong":"7"}"#.into());
    let mut encoding = Encoding::default();
    assert_eq!(
        encoding.write(&pong),
        Some(binary.clone()),
        "the first message is binary"
    );
    assert_eq!(
        encoding.read(&Message::Text(r#"{"ping":7}"#.into())),
        Incoming::Request(Box::new(ping()))
    );
    assert_eq!(encoding.write(&pong), Some(text.clone()));
    assert_eq!(encoding.read(&Message::Ping(Vec::new().into())), Incoming::Control);
    assert_eq!(encoding.write(&pong), Some(text), "control frames change nothing");
    assert_eq!(
        encoding.read(&Message::Binary(ping().encode_to_vec().into())),
        Incoming::Request(Box::new(ping()))
    );
    assert_eq!(encoding.write(&pong), Some(binary));
}

#[test]
fn garbage_is_undecodable_and_the_unknown_is_empty() {
    let mut encoding = Encoding::default();
    assert_eq!(
        encoding.read(&Message::Binary(vec![255; 40].into())),
        Incoming::Undecodable
    );
    assert_eq!(encoding.read(&Message::Text("{".into())), Incoming::Undecodable);
    let unknown = Message::Text(r#"{"brandNew":{}}"#.into());
    assert_eq!(
        encoding.read(&unknown),
        Incoming::Request(Box::new(SignalRequest { message: None }))
    );
    // Field 900, a varint: a message of a later protocol.
    let unknown = Message::Binary(vec![0xa0, 0x38, 0x01].into());
    assert_eq!(
        encoding.read(&unknown),
        Incoming::Request(Box::new(SignalRequest { message: None }))
    );
}
