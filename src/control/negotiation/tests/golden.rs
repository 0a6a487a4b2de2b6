//! Whole texts: every line of what we say to real clients.

use super::*;

/// Compares with the file, which is how the text was when somebody last read all of it.
fn assert_golden(name: &str, text: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("writable golden files");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (ours, theirs)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(ours, theirs, "{name}, line {}", number + 1);
    }
    assert_eq!(text.lines().count(), expected.lines().count(), "{name}");
}

#[test]
fn chromium_single_join_with_two_tracks_waiting() {
    let mut peer = peer(Role::Single);
    peer.add_sender(sender(1, MediaKind::Audio));
    peer.add_sender(sender(2, MediaKind::Video));
    let answer = answer(&mut peer, CHROMIUM_JOIN, &[]);
    assert_golden("chromium-single-join-answer-ours.sdp", &answer.sdp);
}

#[test]
fn chromium_single_publish() {
    let mut peer = peer(Role::Single);
    answer(&mut peer, CHROMIUM_JOIN, &[]);
    let pending = [
        announced(VIDEO_CID, MediaKind::Video),
        announced(AUDIO_CID, MediaKind::Audio),
    ];
    let answer = answer(&mut peer, CHROMIUM_PUBLISH, &pending);
    assert_golden("chromium-single-publish-answer-ours.sdp", &answer.sdp);
}

#[test]
fn chromium_dual_publish() {
    let mut peer = peer(Role::Publisher);
    answer(&mut peer, CHROMIUM_DUAL_DATA, &[]);
    let mut pending = [
        announced(VIDEO_CID, MediaKind::Video),
        announced(AUDIO_CID, MediaKind::Audio),
    ];
    pending[1].stereo = true;
    let answer = answer(&mut peer, CHROMIUM_DUAL_PUBLISH, &pending);
    assert_golden("chromium-dual-publish-answer-ours.sdp", &answer.sdp);
}

#[test]
fn firefox_dual_publish() {
    let mut config = config(Role::Publisher);
    config.ice_lite = false;
    config.quirks = ClientQuirks::detect(ClientDescription {
        browser: "Firefox",
        browser_version: "140.0",
        os: "macOS",
        device_model: "",
    });
    let mut peer = PeerConnection::new(config);
    let answer = answer(&mut peer, FIREFOX_PUBLISH, &[]);
    assert_golden("firefox-dual-publish-answer-ours.sdp", &answer.sdp);
}

#[test]
fn libwebrtc_single_publish() {
    let mut peer = peer(Role::Single);
    let join = answer(&mut peer, LIBWEBRTC_JOIN, &[]);
    assert_golden("libwebrtc-single-join-answer-ours.sdp", &join.sdp);
    // Offered in earnest by this client: the first is answered, the others not acted on by us.
    assert!(join.sdp.contains("a=sctp-init:") && join.remote.sctp_init.is_some());
    for promise in ["goog-sped", "ice-options", "rtcp-xr", "toffset"] {
        assert!(!join.sdp.contains(promise), "{promise}");
    }
    let publish = answer(&mut peer, LIBWEBRTC_PUBLISH, &[announced(VIDEO_CID, MediaKind::Audio)]);
    assert_golden("libwebrtc-single-publish-answer-ours.sdp", &publish.sdp);
    // It is of the association, which does not change.
    assert_eq!(publish.remote.sctp_init, join.remote.sctp_init);
}

#[test]
fn subscriber_offers() {
    let mut peer = peer(Role::Subscriber);
    peer.add_sender(sender(1, MediaKind::Audio));
    peer.add_sender(sender(2, MediaKind::Video));
    let offer = peer.create_offer(None).unwrap();
    assert_golden("subscriber-offer-ours.sdp", &offer);
    peer.handle_answer(CHROMIUM_DUAL_ANSWER).unwrap();
    peer.remove_sender(SubscriptionHandle(2));
    let offer = peer.create_offer(None).unwrap();
    assert_golden("subscriber-freed-offer-ours.sdp", &offer);
    peer.handle_answer(CHROMIUM_DUAL_FREED).unwrap();
}
