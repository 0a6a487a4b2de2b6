//! `Role::Subscriber`: our offers and the client's answers.

use super::*;
use crate::sdp::{Direction, Setup};
use crate::types::{DtlsRole, Extension, Pt};

/// A browser's answer: every m-line of the offer, less the payload types in `without`.
fn browser_answer(offer: &str, ufrag: &str, without: &[&str]) -> String {
    let mut description = parse(offer);
    description.ice_lite = false;
    description.transport.fingerprints[0].bytes = vec![0x11; 32];
    for media in &mut description.media {
        media.transport.setup = Some(Setup::Active);
        media.transport.ufrag = Some(ufrag.to_owned());
        media.transport.pwd = Some(format!("{ufrag}{}", "q".repeat(24)));
        media.direction = match media.direction {
            Direction::RecvOnly => Direction::Inactive,
            _ if media.payloads.is_empty() => Direction::SendRecv,
            _ => Direction::RecvOnly,
        };
        media.msid = None;
        media.ssrcs.clear();
        media.ssrc_groups.clear();
        media.formats.retain(|format| !without.contains(&format.as_str()));
        media
            .payloads
            .retain(|payload| !without.contains(&payload.pt.to_string().as_str()));
    }
    description.to_string()
}

fn exchange(peer: &mut PeerConnection) -> (String, AnswerOutcome) {
    let offer = peer.create_offer(None).unwrap();
    let outcome = peer.handle_answer(&browser_answer(&offer, "them", &[])).unwrap();
    (offer, outcome)
}

#[test]
fn the_first_offer_has_only_data_channels() {
    let mut peer = peer(Role::Subscriber);
    let (offer, outcome) = exchange(&mut peer);
    let description = parse(&offer);
    assert_eq!(mids(&description), ["0"]);
    assert!(offer.contains("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"));
    assert!(offer.contains("a=setup:actpass"));
    assert_eq!(outcome.remote.dtls_role, DtlsRole::Passive);
    assert!(outcome.bound.is_empty() && outcome.mid_to_track.is_empty() && !outcome.ice_restart);
}

#[test]
fn chromium_takes_two_tracks() {
    let mut peer = peer(Role::Subscriber);
    peer.add_sender(sender(1, MediaKind::Audio));
    peer.add_sender(sender(2, MediaKind::Video));
    let offer = peer.create_offer(None).unwrap();
    assert!(peer.is_offer_outstanding());
    assert_eq!(peer.mid_to_track().len(), 2, "sent beside the offer");
    let outcome = peer.handle_answer(CHROMIUM_DUAL_ANSWER).unwrap();
    assert!(!peer.is_offer_outstanding());
    assert!(outcome.rejected.is_empty());
    let [audio, video] = outcome.bound.as_slice() else {
        panic!("two senders")
    };
    assert_eq!(
        (audio.mid.as_str(), audio.ssrc, audio.rtx_ssrc),
        ("1", Ssrc(1001), None)
    );
    assert_eq!(audio.extensions.id(Extension::AudioLevel), Some(1));
    assert_eq!((video.mid.as_str(), video.rtx_ssrc), ("2", Some(Ssrc(2002))));
    let pts: Vec<_> = video.codecs.iter().map(|codec| (codec.pt.0, codec.rtx)).collect();
    let rtx = |pt| Some(Pt(pt));
    assert_eq!(
        pts,
        [
            (96, rtx(97)),
            (98, rtx(99)),
            (125, rtx(126)),
            (108, rtx(109)),
            (35, rtx(36))
        ]
    );
    assert_eq!(video.extensions.id(Extension::TransportCc), Some(3));
    assert_eq!(video.extensions.id(Extension::DependencyDescriptor), Some(12));
    assert!(video.codecs[0].transport_cc && video.codecs[0].nack && !video.codecs[0].remb);
    // H265 was offered and not answered: it is not offered again.
    assert!(offer.contains("H265"));
    assert!(!peer.create_offer(None).unwrap().contains("H265"));
}

#[test]
fn unsubscribing_frees_the_line_for_the_next_track() {
    let mut peer = peer(Role::Subscriber);
    peer.add_sender(sender(1, MediaKind::Video));
    peer.add_sender(sender(2, MediaKind::Video));
    let (_, first) = exchange(&mut peer);
    assert_eq!(first.bound.len(), 2);
    peer.remove_sender(SubscriptionHandle(1));
    let (offer, outcome) = exchange(&mut peer);
    let freed = parse(&offer);
    assert_eq!(section(&freed, "1").direction, Direction::RecvOnly);
    assert!(section(&freed, "1").msid.is_none() && section(&freed, "1").ssrcs.is_empty());
    assert_eq!(section(&freed, "2").direction, Direction::SendRecv);
    assert_eq!(outcome.mid_to_track.len(), 1);
    assert!(outcome.bound.is_empty(), "nothing changed for the other one");
    peer.add_sender(sender(3, MediaKind::Video));
    peer.add_sender(sender(4, MediaKind::Audio));
    let (offer, outcome) = exchange(&mut peer);
    assert_eq!(mids(&parse(&offer)), ["0", "1", "2", "3"]);
    assert_eq!(outcome.mid_to_track["1"], "TR_3");
    assert_eq!(outcome.mid_to_track["3"], "TR_4");
    assert_eq!(
        outcome.bound.iter().map(|bound| bound.ssrc).collect::<Vec<_>>(),
        [Ssrc(1003), Ssrc(1004)]
    );
}

#[test]
fn what_the_client_cannot_decode_is_reported() {
    let mut peer = peer(Role::Subscriber);
    let mut av1 = sender(1, MediaKind::Video);
    av1.codec = Codec::Av1;
    peer.add_sender(av1);
    peer.add_sender(sender(2, MediaKind::Video));
    peer.add_sender(sender(3, MediaKind::Audio));
    let offer = peer.create_offer(None).unwrap();
    // No AV1, and no RED: a RED track can be sent as Opus.
    let outcome = peer
        .handle_answer(&browser_answer(&offer, "them", &["35", "36", "63"]))
        .unwrap();
    assert_eq!(outcome.rejected, [SubscriptionHandle(1)]);
    assert_eq!(outcome.bound.len(), 2);
    assert!(!outcome.mid_to_track.values().any(|track| track == "TR_1"));
    let next = peer.create_offer(None).unwrap();
    assert!(!next.contains("AV1") && !next.contains("red/48000"));
}

#[test]
fn a_refused_line_is_gone_for_good() {
    let mut peer = peer(Role::Subscriber);
    peer.add_sender(sender(1, MediaKind::Video));
    let offer = peer.create_offer(None).unwrap();
    let refused = browser_answer(&offer, "them", &[]).replace("m=video 9", "m=video 0");
    let outcome = peer.handle_answer(&refused).unwrap();
    assert_eq!(outcome.rejected, [SubscriptionHandle(1)]);
    peer.add_sender(sender(2, MediaKind::Video));
    let offer = parse(&peer.create_offer(None).unwrap());
    assert!(section(&offer, "1").is_rejected());
    assert_eq!(offer.bundle.unwrap(), ["0", "2"]);
}

#[test]
fn an_ice_restart_goes_through_both_descriptions() {
    let mut peer = peer(Role::Subscriber);
    peer.add_sender(sender(1, MediaKind::Audio));
    exchange(&mut peer);
    let offer = peer.create_offer(Some(credentials("next"))).unwrap();
    assert!(offer.contains("a=ice-ufrag:next\r\n"));
    let outcome = peer.handle_answer(&browser_answer(&offer, "they2", &[])).unwrap();
    assert!(outcome.ice_restart);
    assert_eq!(outcome.remote.ice.ufrag, "they2");
    assert!(outcome.bound.is_empty());
}

#[test]
fn opus_is_retransmitted_only_without_red() {
    let mut peer = peer(Role::Subscriber);
    let mut plain = sender(1, MediaKind::Audio);
    plain.codec = Codec::Opus;
    plain.stereo = true;
    peer.add_sender(plain);
    peer.add_sender(sender(2, MediaKind::Audio));
    let (offer, outcome) = exchange(&mut peer);
    let described = parse(&offer);
    assert!(section(&described, "1").payloads[0].has_feedback("nack"));
    assert_eq!(
        section(&described, "1").payloads[0].fmtp,
        "minptime=10;useinbandfec=1;sprop-stereo=1"
    );
    assert!(!section(&described, "2").payloads[0].has_feedback("nack"));
    assert!(outcome.bound[0].codecs[0].nack);
}

#[test]
fn stream_names_cannot_write_attributes() {
    let mut peer = peer(Role::Subscriber);
    let mut named = sender(1, MediaKind::Audio);
    named.stream = Some("camera\r\na=ice-ufrag:evil".to_owned());
    peer.add_sender(named);
    let offer = peer.create_offer(None).unwrap();
    assert!(offer.contains("a=msid:PA_a|camera__a=ice-ufrag:evil TR_1\r\n"));
    assert!(!offer.contains("\na=ice-ufrag:evil"));
}

#[test]
fn answers_must_fit_the_offer() {
    let mut peer = peer(Role::Subscriber);
    assert_eq!(
        peer.handle_answer(CHROMIUM_DUAL_ANSWER).unwrap_err(),
        NegotiationError::NoOfferOutstanding
    );
    peer.create_offer(None).unwrap();
    let error = peer.handle_answer(CHROMIUM_DUAL_ANSWER).unwrap_err();
    assert_eq!(error, NegotiationError::SectionCount { expected: 1, got: 3 });
    assert!(peer.is_offer_outstanding(), "a refused answer changes nothing");
    assert_eq!(
        peer.handle_offer(CHROMIUM_JOIN, &[], credentials("x")).unwrap_err(),
        NegotiationError::WrongRole
    );
    peer.add_sender(sender(1, MediaKind::Audio));
    peer.add_sender(sender(2, MediaKind::Video));
    let offer = peer.create_offer(None).unwrap();
    let swapped = browser_answer(&offer, "them", &[]).replace("a=mid:1", "a=mid:x");
    assert!(matches!(
        peer.handle_answer(&swapped),
        Err(NegotiationError::MidMismatch { index: 1, .. })
    ));
    let holding = browser_answer(&offer, "them", &[]).replace("setup:active", "setup:holdconn");
    assert_eq!(
        peer.handle_answer(&holding).unwrap_err(),
        NegotiationError::UnsupportedSetup
    );
    let sha1 = browser_answer(&offer, "them", &[]).replace("sha-256", "sha-1");
    assert_eq!(
        peer.handle_answer(&sha1).unwrap_err(),
        NegotiationError::UnsupportedFingerprint("sha-1".to_owned())
    );
}
