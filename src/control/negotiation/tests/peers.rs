//! Against independent implementations of offer and answer: str0m and webrtc-rs take what we write, and we what they
//! write.

use std::time::Instant;

use ::rtc::peer_connection::configuration::media_engine::MediaEngine;
use ::rtc::peer_connection::sdp::RTCSessionDescription;
use ::rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use ::rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use ::rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use str0m::Rtc;
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::media::{Direction, MediaKind as TheirKind};

use super::*;

fn rtc() -> Rtc {
    Rtc::builder().build(Instant::now())
}

#[test]
fn str0m_accepts_our_answer() {
    let mut theirs = rtc();
    let mut change = theirs.sdp_api();
    change.add_media(TheirKind::Audio, Direction::SendOnly, None, None, None);
    change.add_media(TheirKind::Video, Direction::RecvOnly, None, None, None);
    change.add_channel("_reliable".to_owned());
    let (offer, waiting) = change.apply().expect("changes");
    let mut ours = peer(Role::Single);
    ours.add_sender(sender(1, MediaKind::Video));
    let answer = answer(&mut ours, &offer.to_sdp_string(), &[]);
    assert_eq!(answer.received.len(), 1);
    assert_eq!(answer.bound.len(), 1);
    let text = SdpAnswer::from_sdp_string(&answer.sdp).expect("a description str0m can read");
    theirs
        .sdp_api()
        .accept_answer(waiting, text)
        .expect("an answer str0m accepts");
}

#[test]
fn str0m_answers_our_offer() {
    let mut ours = peer(Role::Subscriber);
    ours.add_sender(sender(1, MediaKind::Audio));
    ours.add_sender(sender(2, MediaKind::Video));
    let mut theirs = rtc();
    for round in 0..3u64 {
        let offer = SdpOffer::from_sdp_string(&ours.create_offer(None).unwrap()).expect("an offer str0m can read");
        let answer = theirs.sdp_api().accept_offer(offer).expect("an offer str0m accepts");
        let outcome = ours.handle_answer(&answer.to_sdp_string()).expect("an answer");
        assert!(outcome.rejected.is_empty());
        assert_eq!(outcome.bound.len(), if round == 0 { 2 } else { 1 });
        ours.remove_sender(SubscriptionHandle(round + 2));
        ours.add_sender(sender(round + 3, MediaKind::Video));
    }
}

fn webrtc_rs() -> RTCPeerConnection {
    let mut media = MediaEngine::default();
    media.register_default_codecs().expect("codecs");
    let builder = RTCPeerConnectionBuilder::new().with_media_engine(media);
    builder.build(Instant::now()).expect("a peer connection")
}

#[test]
fn webrtc_rs_accepts_our_answer() {
    let mut theirs = webrtc_rs();
    for kind in [RtpCodecKind::Audio, RtpCodecKind::Video, RtpCodecKind::Video] {
        let init = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Recvonly,
            ..Default::default()
        };
        theirs
            .add_transceiver_from_kind(kind, Some(init))
            .expect("a transceiver");
    }
    theirs.create_data_channel("_reliable", None).expect("a channel");
    let mut ours = peer(Role::Single);
    for round in 0..3u64 {
        ours.add_sender(sender(round, MediaKind::Video));
        let offer = theirs.create_offer(None).expect("an offer");
        theirs
            .set_local_description(Instant::now(), offer.clone())
            .expect("its own offer");
        let answer = answer(&mut ours, &offer.sdp, &[]);
        assert_eq!(answer.bound.len(), 1);
        ours.remove_sender(SubscriptionHandle(round));
        let text = RTCSessionDescription::answer(answer.sdp).expect("a description webrtc-rs can read");
        theirs
            .set_remote_description(Instant::now(), text)
            .expect("an answer webrtc-rs accepts");
    }
}

#[test]
fn webrtc_rs_answers_our_offer() {
    let mut theirs = webrtc_rs();
    let mut ours = peer(Role::Subscriber);
    ours.add_sender(sender(1, MediaKind::Audio));
    ours.add_sender(sender(2, MediaKind::Video));
    for round in 0..3u64 {
        let offer = RTCSessionDescription::offer(ours.create_offer(None).unwrap()).expect("an offer it can read");
        theirs
            .set_remote_description(Instant::now(), offer)
            .expect("an offer webrtc-rs accepts");
        let answer = theirs.create_answer(None).expect("an answer");
        theirs
            .set_local_description(Instant::now(), answer.clone())
            .expect("its own answer");
        let outcome = ours.handle_answer(&answer.sdp).expect("an answer we accept");
        assert!(outcome.rejected.is_empty(), "{}", answer.sdp);
        assert_eq!(outcome.mid_to_track.len(), 2);
        ours.remove_sender(SubscriptionHandle(round + 2));
        ours.add_sender(sender(round + 3, MediaKind::Video));
    }
}
