//! The scenarios of LiveKit's own integration tests that need real media, each in the three forms in which clients come.

use std::time::Duration;

use patchbay::proto::livekit::{ConnectionQuality, DataPacket, DisconnectReason, UserPacket, data_packet, data_stream};
use prost::Message as _;
use serde_json::json;

use crate::client::{LIMIT, fetch, until};
use crate::media_client::{FORMS, Form, MediaClient};
use crate::process::Process;
use crate::serving::free_port;

/// Everybody hears how well they are connected, themselves and those they receive: as well as can be, on a machine's own
/// network.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_told_how_well_they_are_connected() {
    for form in FORMS {
        let server = Process::start(json!({})).await;
        let speaker = MediaClient::join(&server, form, "speaker", true).await;
        let listener = MediaClient::join(&server, form, "listener", false).await;
        listener.until(LIMIT, |seen| seen.sounds > 20).await;
        let (speaks, listens) = (speaker.seen().sid, listener.seen().sid);
        for (client, expected) in [(&listener, vec![&listens, &speaks]), (&speaker, vec![&speaks])] {
            let told = client
                .until(LIMIT, |seen| {
                    expected.iter().all(|sid| seen.qualities.contains_key(*sid))
                })
                .await;
            for sid in expected {
                let (quality, score) = told.qualities[sid];
                assert_eq!(quality, ConnectionQuality::Excellent as i32, "{form:?}: {score}");
                assert!(score > 4.0, "{form:?}: {score}");
            }
        }
    }
}

fn user_packet(number: u32, size: usize) -> Vec<u8> {
    let mut payload = vec![7; size];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    packet(data_packet::Value::User(UserPacket {
        payload,
        ..Default::default()
    }))
}

fn packet(value: data_packet::Value) -> Vec<u8> {
    let packet = DataPacket {
        value: Some(value),
        ..Default::default()
    };
    packet.encode_to_vec()
}

/// The numbers that `user_packet` wrote.
fn numbers(data: &[Vec<u8>]) -> Vec<u32> {
    let read = |bytes: &Vec<u8>| match DataPacket::decode(bytes.as_slice()).unwrap().value {
        Some(data_packet::Value::User(user)) => Some(u32::from_be_bytes(user.payload[..4].try_into().unwrap())),
        _ => None,
    };
    data.iter().filter_map(read).collect()
}

/// A sender goes at the pace of the slowest who keeps up, and nobody loses anything; who does not read at all is sent away
/// and holds nobody any longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_of_data_hold_senders_back_and_lose_nothing() {
    const COUNT: u32 = 1_500;
    let one = async |form: Form| {
        let server = Process::start(json!({})).await;
        let sender = MediaClient::join(&server, form, "sender", false).await;
        let fast = MediaClient::join(&server, form, "fast", false).await;
        let slow = MediaClient::join(&server, form, "slow", false).await;
        let stalled = MediaClient::join(&server, form, "stalled", false).await;
        slow.read(Some(6));
        stalled.read(Some(0));
        sender.send((0..COUNT).map(|number| user_packet(number, 1_000)).collect());
        // The one that reads nothing has filled what there is for it, and with it everybody waits.
        let held = sender.until(LIMIT, |seen| seen.was_held_back).await;
        assert!(held.waiting > 0, "{form:?}");
        let all = |seen: &crate::media_client::Seen| seen.data.len() >= COUNT as usize;
        let limit = Duration::from_secs(60);
        for client in [&fast, &slow] {
            let seen = client.until(limit, all).await;
            let expected: Vec<u32> = (0..COUNT).collect();
            assert_eq!(numbers(&seen.data), expected, "{form:?}");
            assert_eq!(seen.left, None, "{form:?}");
        }
        let seen = stalled.until(limit, |seen| seen.left.is_some()).await;
        assert_ne!(seen.left, Some(DisconnectReason::ClientInitiated as i32), "{form:?}");
        assert!(seen.data.len() < COUNT as usize, "{form:?}");
    };
    tokio::join!(one(Form::Address), one(Form::Request), one(Form::V1));
}

/// The metrics of streams of data, by their values.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_data_are_counted_with_their_size_and_readers() {
    let port = free_port();
    let server = Process::start(json!({ "prometheus": { "port": port } })).await;
    let measured = ([127, 0, 0, 1], port).into();
    let sender = MediaClient::join(&server, Form::V1, "sender", false).await;
    let readers = [
        MediaClient::join(&server, Form::V1, "one", false).await,
        MediaClient::join(&server, Form::Address, "two", false).await,
    ];
    let header = |length: u64, content: data_stream::header::ContentHeader| {
        packet(data_packet::Value::StreamHeader(data_stream::Header {
            stream_id: format!("of-{length}"),
            total_length: Some(length),
            content_header: Some(content),
            ..Default::default()
        }))
    };
    let text = || data_stream::header::ContentHeader::TextHeader(data_stream::TextHeader::default());
    let bytes = || data_stream::header::ContentHeader::ByteHeader(data_stream::ByteHeader::default());
    sender.send(vec![
        header(3_000, text()),
        header(5_000, text()),
        header(70_000, bytes()),
    ]);
    for reader in &readers {
        reader.until(LIMIT, |seen| seen.data.len() == 3).await;
    }
    let value = |page: &str, name: &str, kind: &str| {
        let is_it = |line: &&str| line.starts_with(&format!("{name}{{")) && line.contains(&format!("type=\"{kind}\""));
        let line = page
            .lines()
            .find(is_it)
            .unwrap_or_else(|| panic!("{name}, {kind}\n{page}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    // Shards tell what they have counted some times a second.
    let page = until(async || {
        let page = fetch(measured, "/").await.body;
        (value(&page, "livekit_datapacket_stream_bytes_count", "bytes") > 0.0).then_some(page)
    })
    .await;
    for (name, kind, expected) in [
        ("livekit_datapacket_stream_bytes_count", "text", 2.0),
        ("livekit_datapacket_stream_bytes_sum", "text", 8_000.0),
        ("livekit_datapacket_stream_bytes_count", "bytes", 1.0),
        ("livekit_datapacket_stream_bytes_sum", "bytes", 70_000.0),
        ("livekit_datapacket_stream_dest_count_count", "text", 2.0),
        ("livekit_datapacket_stream_dest_count_sum", "text", 4.0),
        ("livekit_datapacket_stream_dest_count_sum", "bytes", 2.0),
    ] {
        assert_eq!(value(&page, name, kind), expected, "{name} {kind}\n{page}");
    }
}
