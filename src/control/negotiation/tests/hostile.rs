//! Texts nobody should send: every one gives an answer or an error, and what is refused changes nothing.

use proptest::prelude::*;

use super::*;
use crate::sdp::{MAX_SECTIONS, SdpError};

const OFFERS: [&str; 8] = [
    CHROMIUM_JOIN,
    CHROMIUM_PUBLISH,
    CHROMIUM_DUAL_DATA,
    CHROMIUM_DUAL_PUBLISH,
    FIREFOX_PUBLISH,
    LIBWEBRTC_PUBLISH,
    LIBWEBRTC_VIDEOS,
    LIBWEBRTC_UNPUBLISH,
];

fn refusal(offer: &str) -> NegotiationError {
    peer(Role::Single)
        .handle_offer(offer, &[], credentials("x"))
        .expect_err("a bad offer")
}

#[test]
fn errors_say_what_is_wrong() {
    assert_eq!(refusal(""), SdpError::NoVersion.into());
    assert_eq!(refusal("v=0\r\nnonsense"), SdpError::BadLine(2).into());
    assert_eq!(refusal("v=0\r\n"), NegotiationError::NothingUsable);
    assert_eq!(
        refusal(&CHROMIUM_JOIN.replace("a=mid:2\r\n", "")),
        NegotiationError::MissingMid(2)
    );
    let twice = CHROMIUM_JOIN.replace("a=mid:2\r\n", "a=mid:1\r\n");
    assert!(matches!(refusal(&twice), NegotiationError::DuplicateMid(mid) if mid.as_str() == "1"));
    let without = |start: &str| -> String {
        let kept = CHROMIUM_JOIN
            .split_inclusive("\r\n")
            .filter(|line| !line.starts_with(start));
        kept.collect()
    };
    assert_eq!(refusal(&without("a=ice-ufrag")), NegotiationError::MissingIce);
    assert_eq!(refusal(&without("a=ice-pwd")), NegotiationError::MissingIce);
    assert_eq!(refusal(&without("a=fingerprint")), NegotiationError::MissingFingerprint);
    let sha1 = CHROMIUM_JOIN.replace("sha-256", "SHA-1");
    assert_eq!(
        refusal(&sha1).to_string(),
        "fingerprint hash sha-1 is not supported, only sha-256"
    );
    let short = CHROMIUM_JOIN.replacen("a=ice-pwd:", "a=ice-pwd:\u{1}", 1);
    assert!(matches!(refusal(&short), NegotiationError::Sdp(SdpError::BadLine(_))));
}

#[test]
fn a_refused_offer_changes_nothing() {
    let mut peer = peer(Role::Single);
    peer.add_sender(sender(1, MediaKind::Video));
    let before = answer(&mut peer, CHROMIUM_PUBLISH, &[]);
    for bad in [
        CHROMIUM_JOIN,
        "v=0\r\n",
        &CHROMIUM_PUBLISH.replace("sha-256 ", "sha-256 00:"),
    ] {
        assert!(peer.handle_offer(bad, &[], credentials("evil")).is_err());
    }
    assert_eq!(peer.local(), &credentials("ours"));
    let after = answer(&mut peer, CHROMIUM_PUBLISH, &[]);
    assert_eq!(before.mid_to_track, after.mid_to_track);
    assert_eq!(before.received, after.received);
    assert_eq!(parse(&after.sdp).origin.version, parse(&before.sdp).origin.version + 1);
}

#[test]
fn m_lines_may_not_vanish_or_change_kind() {
    let mut peer = peer(Role::Single);
    answer(&mut peer, CHROMIUM_PUBLISH, &[]);
    assert_eq!(
        peer.handle_offer(CHROMIUM_JOIN, &[], credentials("x")).unwrap_err(),
        NegotiationError::SectionCount { expected: 9, got: 7 }
    );
    let kind = CHROMIUM_PUBLISH
        .replacen("m=audio 60188", "m=video 60188", 1)
        .replacen("m=audio 9", "m=video 9", 1);
    assert!(matches!(
        peer.handle_offer(&kind, &[], credentials("x")).unwrap_err(),
        NegotiationError::KindChanged(_)
    ));
}

#[test]
fn a_changed_certificate_is_refused() {
    let mut peer = peer(Role::Single);
    answer(&mut peer, CHROMIUM_JOIN, &[]);
    let start = CHROMIUM_JOIN.find("sha-256 ").unwrap() + 8;
    let own = &CHROMIUM_JOIN[start..start + 95];
    let other = CHROMIUM_JOIN.replace(own, &own.replacen(&own[..2], "00", 1));
    assert_eq!(
        peer.handle_offer(&other, &[], credentials("x")).unwrap_err(),
        NegotiationError::FingerprintChanged
    );
}

#[test]
fn unknown_kinds_are_rejected_in_place() {
    let text =
        "m=text 9 UDP/TLS/RTP/SAVPF 98 99\r\nc=IN IP4 0.0.0.0\r\na=mid:t\r\na=rtpmap:98 t140/1000\r\na=sendrecv\r\n";
    let offer = format!("{CHROMIUM_JOIN}{text}").replace("BUNDLE 0", "BUNDLE t 0");
    let mut peer = peer(Role::Single);
    let answer = answer(&mut peer, &offer, &[]);
    assert!(answer.sdp.contains("m=text 0 UDP/TLS/RTP/SAVPF 98\r\n"));
    let description = parse(&answer.sdp);
    assert_eq!(description.media.len(), 8);
    assert_eq!(description.bundle.unwrap().len(), 7);
}

#[test]
fn a_line_outside_the_bundle_is_rejected() {
    let offer = CHROMIUM_JOIN.replace("a=group:BUNDLE 0 1 2 3 4 5 6", "a=group:BUNDLE 0 6");
    let mut peer = peer(Role::Single);
    peer.add_sender(sender(1, MediaKind::Video));
    let description = parse(&answer(&mut peer, &offer, &[]).sdp);
    assert_eq!(description.media.iter().filter(|media| media.is_rejected()).count(), 5);
    assert_eq!(peer.outstanding(), (0, 1));
}

#[test]
fn a_line_without_a_common_codec_is_rejected() {
    let mut config = config(Role::Single);
    config.publish_codecs = vec![Codec::Opus];
    let mut peer = PeerConnection::new(config);
    let answer = answer(&mut peer, CHROMIUM_PUBLISH, &[]);
    assert!(section(&parse(&answer.sdp), "7").is_rejected());
    assert_eq!(answer.received.len(), 1);
}

#[test]
fn sizes_are_bounded() {
    let audio = CHROMIUM_JOIN
        .split("m=audio")
        .nth(1)
        .map(|rest| format!("m=audio{rest}"))
        .unwrap();
    let many: String = (0..MAX_SECTIONS)
        .map(|index| audio.replace("a=mid:0", &format!("a=mid:m{index}")))
        .collect();
    let bundle: String = (0..MAX_SECTIONS).map(|index| format!(" m{index}")).collect();
    let (head, _) = CHROMIUM_JOIN.split_once("m=audio").unwrap();
    let full = format!(
        "{}{many}",
        head.replace("BUNDLE 0 1 2 3 4 5 6", &format!("BUNDLE{bundle}"))
    );
    assert!(peer(Role::Single).handle_offer(&full, &[], credentials("x")).is_ok());
    assert_eq!(refusal(&format!("{full}{audio}")), SdpError::TooManySections.into());
    let long = format!("{CHROMIUM_JOIN}a=x:{}\r\n", "y".repeat(20_000));
    assert!(matches!(
        refusal(&long),
        NegotiationError::Sdp(SdpError::LineTooLong(_))
    ));
    assert!(matches!(
        refusal(&"v=0\r\n".repeat(1 << 20)),
        NegotiationError::Sdp(SdpError::TooLong(_))
    ));
    let attributes = format!("{CHROMIUM_JOIN}{}", "a=rtcp-fb:1 nack\r\n".repeat(2000));
    assert!(matches!(
        refusal(&attributes),
        NegotiationError::Sdp(SdpError::TooManyAttributes(_))
    ));

    let mut peer = peer(Role::Subscriber);
    let added = (0..2 * MAX_SECTIONS as u64)
        .filter(|n| peer.add_sender(sender(*n, MediaKind::Audio)))
        .count();
    assert_eq!(added, MAX_SECTIONS);
    assert_eq!(parse(&peer.create_offer(None).unwrap()).media.len(), MAX_SECTIONS);
    assert_eq!(peer.outstanding(), (1, 0), "the data channel's m-line takes one place");
}

/// One change to a real description's text.
#[derive(Clone, Debug)]
enum Mutation {
    DropLine(usize),
    RepeatLine(usize, usize),
    SwapLines(usize, usize),
    CutLine(usize, usize),
    ReplaceChar(usize, char),
    InsertAttribute(usize, String),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        any::<usize>().prop_map(Mutation::DropLine),
        (any::<usize>(), 1..40usize).prop_map(|(at, times)| Mutation::RepeatLine(at, times)),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Mutation::SwapLines(a, b)),
        (any::<usize>(), any::<usize>()).prop_map(|(at, len)| Mutation::CutLine(at, len)),
        (any::<usize>(), any::<char>()).prop_map(|(at, c)| Mutation::ReplaceChar(at, c)),
        (
            any::<usize>(),
            "(mid|rid|msid|ssrc|ssrc-group|simulcast|extmap|fmtp|rtpmap|setup|group|rtcp-fb):[ -~]{0,24}"
        )
            .prop_map(|(at, text)| Mutation::InsertAttribute(at, format!("a={text}"))),
    ]
}

fn mutate(text: &str, mutations: &[Mutation]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for mutation in mutations {
        let count = lines.len().max(1);
        match mutation {
            Mutation::DropLine(at) if !lines.is_empty() => {
                lines.remove(at % count);
            }
            Mutation::RepeatLine(at, times) if !lines.is_empty() => {
                let line = lines[at % count].clone();
                lines.splice(at % count..at % count, std::iter::repeat_n(line, *times));
            }
            Mutation::SwapLines(a, b) if !lines.is_empty() => lines.swap(a % count, b % count),
            Mutation::CutLine(at, len) if !lines.is_empty() => {
                let line = &mut lines[at % count];
                let keep = len % (line.chars().count() + 1);
                *line = line.chars().take(keep).collect();
            }
            Mutation::ReplaceChar(at, c) if !lines.is_empty() => {
                let line = &mut lines[at % count];
                let place = at / count % line.chars().count().max(1);
                *line = line
                    .chars()
                    .enumerate()
                    .map(|(index, own)| if index == place { *c } else { own })
                    .collect();
            }
            Mutation::InsertAttribute(at, text) => lines.insert(at % (lines.len() + 1), text.clone()),
            _ => {}
        }
    }
    lines.join("\r\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// A good offer, then a mutated one, then the good one again: no panic, our answers can be read, have the offer's
    /// m-lines, and the session goes on.
    #[test]
    fn mutated_offers_never_panic(which in 0..OFFERS.len(), mutations in prop::collection::vec(mutation(), 1..6)) {
        let original = OFFERS[which];
        let mut peer = peer(Role::Single);
        for number in 0..4 {
            peer.add_sender(sender(number, if number % 2 == 0 { MediaKind::Audio } else { MediaKind::Video }));
        }
        let pending = [announced(VIDEO_CID, MediaKind::Video), announced("x", MediaKind::Audio)];
        peer.handle_offer(original, &pending, credentials("first")).expect("a good offer");
        let mutated = mutate(original, &mutations);
        if let Ok(answer) = peer.handle_offer(&mutated, &pending, credentials("second")) {
            let (ours, theirs) = (parse(&answer.sdp), parse(&mutated));
            prop_assert_eq!(mids(&ours), mids(&theirs));
            for received in &answer.received {
                prop_assert!(!received.encodings.is_empty() && !received.codecs.is_empty());
            }
        }
        let _ = peer.handle_offer(original, &[], credentials("third"));
    }

    #[test]
    fn mutated_answers_never_panic(mutations in prop::collection::vec(mutation(), 1..6)) {
        let mut peer = peer(Role::Subscriber);
        peer.add_sender(sender(1, MediaKind::Audio));
        peer.add_sender(sender(2, MediaKind::Video));
        peer.create_offer(None).unwrap();
        let _ = peer.handle_answer(&mutate(CHROMIUM_DUAL_ANSWER, &mutations));
        parse(&peer.create_offer(None).unwrap());
    }

    #[test]
    fn any_text_is_answered_or_refused(text in "(v=0\r\n)?([a-z]=[ -~]{0,40}\r?\n){0,30}") {
        let _ = peer(Role::Single).handle_offer(&text, &[], credentials("x"));
    }
}
