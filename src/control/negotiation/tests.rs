//! Sessions played through: text in, text and values out. The descriptions in `tests/golden` are real clients' offers
//! and answers; `*-answer-ours.sdp` and `*-offer-ours.sdp` are what we say to them (write them anew with
//! `UPDATE_GOLDEN=1`, then read the difference).

mod dual;
mod golden;
mod hostile;
mod peers;
mod single;

use super::*;
use crate::sdp::{MediaSection, SessionDescription};
use crate::types::{Codec, IceCredentials, MediaKind, Ssrc, SubscriptionHandle};

pub(super) const CHROMIUM_JOIN: &str = include_str!("../../../tests/golden/chromium-single-join-offer.sdp");
pub(super) const CHROMIUM_SECOND: &str = include_str!("../../../tests/golden/chromium-single-second-offer.sdp");
pub(super) const CHROMIUM_PUBLISH: &str = include_str!("../../../tests/golden/chromium-single-publish-offer.sdp");
pub(super) const CHROMIUM_DUAL_DATA: &str = include_str!("../../../tests/golden/chromium-dual-data-offer.sdp");
pub(super) const CHROMIUM_DUAL_PUBLISH: &str = include_str!("../../../tests/golden/chromium-dual-publish-offer.sdp");
pub(super) const CHROMIUM_DUAL_ANSWER: &str = include_str!("../../../tests/golden/chromium-dual-answer.sdp");
pub(super) const CHROMIUM_DUAL_FREED: &str = include_str!("../../../tests/golden/chromium-dual-freed-answer.sdp");
pub(super) const FIREFOX_PUBLISH: &str = include_str!("../../../tests/golden/firefox-dual-publish-offer.sdp");
pub(super) const LIBWEBRTC_JOIN: &str = include_str!("../../../tests/golden/libwebrtc-single-join-offer.sdp");
pub(super) const LIBWEBRTC_PUBLISH: &str = include_str!("../../../tests/golden/libwebrtc-single-publish-offer.sdp");
pub(super) const LIBWEBRTC_VIDEOS: &str = include_str!("../../../tests/golden/libwebrtc-five-videos-offer.sdp");
pub(super) const LIBWEBRTC_UNPUBLISH: &str = include_str!("../../../tests/golden/libwebrtc-unpublish-offer.sdp");

pub(super) fn config(role: Role) -> PeerConfig {
    PeerConfig {
        role,
        local: credentials("ours"),
        fingerprint: [0xab; 32],
        ice_lite: true,
        candidates: vec!["192.0.2.1:7882".parse().unwrap(), "[2001:db8::1]:7882".parse().unwrap()],
        warp: false,
        snap: true,
        tcp_candidates: vec!["192.0.2.1:7881".parse().unwrap()],
        publish_codecs: Codec::ALL.to_vec(),
        subscribe_codecs: Codec::ALL.to_vec(),
        quirks: ClientQuirks::default(),
        session_id: 4_611_686_018_427_387_904,
    }
}

pub(super) fn credentials(name: &str) -> IceCredentials {
    IceCredentials {
        ufrag: name.to_owned(),
        pwd: format!("{name}{}", "p".repeat(22)),
    }
}

pub(super) fn peer(role: Role) -> PeerConnection {
    PeerConnection::new(config(role))
}

/// Answers an offer that is expected to be fine and not to restart ICE.
pub(super) fn answer(peer: &mut PeerConnection, offer: &str, pending: &[PendingTrack]) -> Answer {
    let answer = peer
        .handle_offer(offer, pending, credentials("unused"))
        .expect("a good offer");
    assert!(!answer.ice_restart);
    answer
}

pub(super) fn parse(sdp: &str) -> SessionDescription {
    SessionDescription::parse(sdp).expect("a good description")
}

pub(super) fn section<'a>(description: &'a SessionDescription, mid: &str) -> &'a MediaSection {
    let found = description
        .media
        .iter()
        .find(|media| media.mid.is_some_and(|own| own.as_str() == mid));
    found.expect("an m-line of that mid")
}

pub(super) fn payload_types(media: &MediaSection) -> String {
    media.formats.join(" ")
}

pub(super) fn sender(number: u64, kind: MediaKind) -> Sender {
    Sender {
        subscription: SubscriptionHandle(number),
        track: format!("TR_{number}").into(),
        publisher: "PA_a".into(),
        kind,
        codec: match kind {
            MediaKind::Audio => Codec::Red,
            MediaKind::Video => Codec::Vp8,
        },
        stream: None,
        ssrc: Ssrc(1000 + number as u32),
        rtx_ssrc: (kind == MediaKind::Video).then_some(Ssrc(2000 + number as u32)),
        cname: format!("cname{number}"),
        stereo: false,
    }
}

pub(super) fn announced(cid: &str, kind: MediaKind) -> PendingTrack {
    PendingTrack {
        cid: cid.to_owned(),
        kind,
        codecs: Vec::new(),
        codec: None,
        red: kind == MediaKind::Audio,
        dtx: true,
        stereo: false,
        rids: Vec::new(),
    }
}

/// The cids in the golden offers.
pub(super) const VIDEO_CID: &str = "1b95bc50-c157-d62c-759f-67e139e85c44";
pub(super) const AUDIO_CID: &str = "ecde2b6f-7973-31ce-1a2a-dd07e546ffdb";

pub(super) fn mids(description: &SessionDescription) -> Vec<String> {
    description
        .media
        .iter()
        .filter_map(|media| media.mid.map(|mid| mid.to_string()))
        .collect()
}
