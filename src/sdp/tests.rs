//! The text form: what is read is written again, and what is unknown is not.

use super::*;
use crate::types::{Mid, NetProtocol, Pt, Rid, Ssrc};

const OFFER: &str = include_str!("../../tests/golden/chromium-single-publish-offer.sdp");
const FIREFOX: &str = include_str!("../../tests/golden/firefox-dual-publish-offer.sdp");

fn session(section: &str) -> String {
    format!("v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n{section}")
}

fn media(section: &str) -> MediaSection {
    SessionDescription::parse(&session(section)).unwrap().media.remove(0)
}

#[test]
fn written_text_reads_the_same() {
    for text in [OFFER, FIREFOX] {
        let mut first = SessionDescription::parse(text).unwrap();
        let second = SessionDescription::parse(&first.to_string()).unwrap();
        // A level an attribute stood on is kept; only what is never read is lost.
        for media in &mut first.media {
            media.candidates.clear();
        }
        assert_eq!(first, second);
    }
}

#[test]
fn payloads_gather_their_lines_in_any_order() {
    let media = media(
        "m=video 9 UDP/TLS/RTP/SAVPF 97 96\r\na=rtcp-fb:* transport-cc\r\na=fmtp:97 apt=96\r\na=rtcp-fb:96 nack pli\r\n\
         a=rtpmap:97 rtx/90000\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:99 none/1\r\n",
    );
    assert_eq!(media.formats, ["97", "96"]);
    let [rtx, vp8] = media.payloads.as_slice() else {
        panic!("two")
    };
    assert_eq!(
        (rtx.pt, rtx.name.as_str(), rtx.parameter("apt")),
        (Pt(97), "rtx", Some("96"))
    );
    assert_eq!(vp8.feedback, ["nack pli", "transport-cc"]);
    assert!(vp8.has_feedback("transport-cc") && !vp8.has_feedback("nack"));
}

#[test]
fn static_payload_types_need_no_map() {
    let media = media("m=audio 9 UDP/TLS/RTP/SAVPF 0 8\r\n");
    assert_eq!(media.payloads[1].name, "PCMA");
    assert_eq!(media.payloads[1].clock_rate, 8_000);
}

#[test]
fn simulcast_lists() {
    let media = media(
        "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rid:a send pt=96;max-width=320\r\na=rid:b recv\r\na=rid:c sideways\r\n\
         a=simulcast:send ~a,x;f;~h recv b\r\n",
    );
    let rid = |name| Rid::new(name).unwrap();
    assert_eq!(media.rids.len(), 2);
    assert_eq!(media.simulcast_send, [rid("a"), rid("f"), rid("h")]);
    assert_eq!(media.simulcast_recv, [rid("b")]);
}

#[test]
fn directions_and_ports() {
    let text =
        session("a=inactive\r\nm=audio 0 UDP/TLS/RTP/SAVPF 0\r\na=bundle-only\r\nm=audio 9 X 0\r\na=sendonly\r\n");
    let description = SessionDescription::parse(&text).unwrap();
    assert_eq!(description.media[0].direction, Direction::Inactive);
    assert!(!description.media[0].is_rejected());
    assert_eq!(description.media[1].direction, Direction::SendOnly);
    assert_eq!(Direction::SendOnly.reversed(), Direction::RecvOnly);
    assert_eq!(Direction::SendRecv.reversed(), Direction::SendRecv);
}

#[test]
fn ssrc_lines() {
    let media = media("m=video 9 X 96\r\na=ssrc:5 cname:a b\r\na=ssrc:6\r\na=ssrc:x y:z\r\na=ssrc-group:FID 5 6\r\n");
    assert_eq!(media.ssrcs.len(), 2);
    assert_eq!(
        (media.ssrcs[0].name.as_str(), media.ssrcs[0].value.as_str()),
        ("cname", "a b")
    );
    assert_eq!(media.ssrc_groups[0].ssrcs, [Ssrc(5), Ssrc(6)]);
}

#[test]
fn what_is_not_acted_on_is_not_kept() {
    let text = session(
        "a=secret:1\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\na=sctp-init:AQAA\r\na=x-promise:1\r\n\
         a=ice-options:trickle goog-sped-v1\r\na=sctp-port:5000\r\na=max-message-size:99999999999\r\n",
    );
    let description = SessionDescription::parse(&text).unwrap();
    assert_eq!(description.media[0].mid, Mid::new("0"));
    assert_eq!(description.media[0].max_message_size, Some(u32::MAX));
    assert_eq!(description.media[0].sctp_init, Some(vec![1, 0, 0]));
    let written = description.to_string();
    assert!(!written.contains("secret") && !written.contains("x-promise") && !written.contains("trickle"));
    assert_eq!(description.media[0].transport.ice_options, ["goog-sped-v1"]);
    let broken = SessionDescription::parse(&text.replace("AQAA", "not base64")).unwrap();
    assert_eq!(broken.media[0].sctp_init, None);
}

#[test]
fn bad_values_name_their_line() {
    let cases = [
        ("m=audio x UDP/TLS/RTP/SAVPF 0\r\n", "m="),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 128\r\n", "m="),
        ("m=audio 9 UDP/TLS/RTP/SAVPF\r\n", "m="),
        ("a=fingerprint:sha-256 0\r\n", "a=fingerprint"),
        ("a=ice-pwd:short\r\n", "a=ice-pwd"),
        ("a=setup:both\r\n", "a=setup"),
        ("a=extmap:x urn:y\r\n", "a=extmap"),
    ];
    for (line, what) in cases {
        let error = SessionDescription::parse(&session(line)).unwrap_err();
        assert_eq!(error, SdpError::BadValue { line: 5, what });
    }
    assert_eq!(
        SdpError::BadValue { line: 5, what: "m=" }.to_string(),
        "line 5: cannot read m="
    );
    // A lone CR would break out of an echoed fmtp.
    let text = session("m=audio 9 X 0\r\na=fmtp:0 x\ra=ice-lite\r\n");
    assert_eq!(SessionDescription::parse(&text).unwrap_err(), SdpError::BadLine(6));
}

#[test]
fn candidates_as_browsers_read_them() {
    let mut candidate = HostCandidate {
        address: "192.0.2.1:7882".parse().unwrap(),
        protocol: NetProtocol::Udp,
        index: 0,
        ufrag: "abcd".to_owned(),
    };
    assert_eq!(
        candidate.to_string(),
        "candidate:1 1 udp 2130706431 192.0.2.1 7882 typ host ufrag abcd"
    );
    candidate.index = 1;
    candidate.address = "[2001:db8::1]:7882".parse().unwrap();
    assert_eq!(
        candidate.to_string(),
        "candidate:2 1 udp 2130706175 2001:db8::1 7882 typ host ufrag abcd"
    );
    candidate.index = 0;
    candidate.protocol = NetProtocol::Tcp;
    assert_eq!(
        candidate.to_string(),
        "candidate:100001 1 tcp 1671430143 2001:db8::1 7882 typ host tcptype passive ufrag abcd"
    );
}
