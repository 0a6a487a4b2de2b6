//! `Role::Single`: spare m-lines, their reuse, publishing beside them.

use std::collections::HashMap;

use super::*;
use crate::sdp::Direction;
use crate::types::{DtlsRole, Extension, Pt, Rid};

fn direction(sdp: &str, mid: &str) -> Direction {
    section(&parse(sdp), mid).direction
}

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(mid, track)| (mid.to_string(), track.to_string()))
        .collect()
}

#[test]
fn the_join_offer_is_answered_as_a_whole() {
    let mut peer = peer(Role::Single);
    let answer = answer(&mut peer, CHROMIUM_JOIN, &[]);
    let description = parse(&answer.sdp);
    assert!(description.ice_lite && description.extmap_allow_mixed);
    assert_eq!(mids(&description), ["0", "1", "2", "3", "4", "5", "6"]);
    assert_eq!(
        description.bundle.as_ref().unwrap(),
        &["0", "1", "2", "3", "4", "5", "6"]
    );
    let audio = section(&description, "0");
    assert_eq!(payload_types(audio), "111 63 0 8");
    assert_eq!(audio.direction, Direction::SendOnly, "a spare m-line");
    assert!(audio.msid.is_none() && audio.ssrcs.is_empty());
    let video = section(&description, "3");
    assert_eq!(payload_types(video), "96 97 98 99 108 109 114 115 45 46");
    assert_eq!(section(&description, "6").max_message_size, Some(65_535));
    assert_eq!(answer.remote.dtls_role, DtlsRole::Passive);
    assert_eq!(answer.remote.sctp_max_message_size, Some(262_144));
    assert!(answer.received.is_empty() && answer.bound.is_empty() && answer.mid_to_track.is_empty());
}

#[test]
fn the_second_unchanged_offer_changes_only_the_version() {
    let mut peer = peer(Role::Single);
    let first = parse(&answer(&mut peer, CHROMIUM_JOIN, &[]).sdp);
    let second = parse(&answer(&mut peer, CHROMIUM_SECOND, &[]).sdp);
    assert_eq!(second.origin.version, first.origin.version + 1);
    assert_eq!(second.origin.session_id, first.origin.session_id);
    assert_eq!(mids(&first), mids(&second));
}

#[test]
fn senders_take_the_lowest_spare_lines_and_the_rest_is_outstanding() {
    let mut peer = peer(Role::Single);
    for number in 1..=5 {
        assert!(peer.add_sender(sender(number, MediaKind::Video)));
    }
    peer.add_sender(sender(6, MediaKind::Audio));
    assert_eq!(peer.outstanding(), (1, 5));
    let first = answer(&mut peer, CHROMIUM_JOIN, &[]);
    assert_eq!(peer.outstanding(), (0, 2));
    let expected = map(&[("0", "TR_6"), ("3", "TR_1"), ("4", "TR_2"), ("5", "TR_3")]);
    assert_eq!(first.mid_to_track, expected);

    let video = first.bound.iter().find(|bound| bound.mid.as_str() == "3").unwrap();
    assert_eq!(video.ssrc, Ssrc(1001));
    assert_eq!(video.rtx_ssrc, Some(Ssrc(2001)));
    let vp8 = &video.codecs[0];
    assert_eq!((vp8.pt, vp8.rtx, vp8.codec), (Pt(96), Some(Pt(97)), Codec::Vp8));
    assert!(vp8.nack && vp8.pli && vp8.fir && vp8.transport_cc && !vp8.remb);
    assert_eq!(video.extensions.id(Extension::DependencyDescriptor), Some(12));
    assert_eq!(video.extensions.id(Extension::TransportCc), Some(3));
    assert_eq!(video.extensions.id(Extension::Mid), Some(4));
    assert_eq!(video.extensions.id(Extension::AbsSendTime), Some(2));
    assert_eq!(video.extensions.id(Extension::VideoOrientation), Some(13));

    assert_eq!(video.extensions.id(Extension::Rid), None, "nothing for us to write");

    let described = parse(&first.sdp);
    let media = section(&described, "3");
    assert_eq!(media.direction, Direction::SendOnly);
    // Chromium could not offer simulcast on a later m-line otherwise.
    let rid = |line: &&crate::sdp::ExtMap| line.uri.ends_with(":rtp-stream-id");
    assert_eq!(media.extensions.iter().find(rid).map(|line| line.id), Some(10));
    let msid = media.msid.as_ref().unwrap();
    assert_eq!(
        (msid.stream.as_str(), msid.track.as_deref()),
        ("PA_a|TR_1", Some("TR_1"))
    );
    assert_eq!(media.ssrc_groups[0].ssrcs, [Ssrc(1001), Ssrc(2001)]);
    assert_eq!(media.ssrcs.len(), 8);

    // Nothing new: nothing is reported again, and everything is still there.
    let again = answer(&mut peer, CHROMIUM_JOIN, &[]);
    assert!(again.bound.is_empty() && again.unbound.is_empty());
    assert_eq!(again.mid_to_track, expected);
}

#[test]
fn a_freed_line_is_inactive_and_then_used_again() {
    let mut peer = peer(Role::Single);
    peer.add_sender(sender(1, MediaKind::Video));
    peer.add_sender(sender(2, MediaKind::Video));
    answer(&mut peer, CHROMIUM_JOIN, &[]);
    assert!(peer.remove_sender(SubscriptionHandle(1)));
    assert!(!peer.remove_sender(SubscriptionHandle(1)));
    let freed = answer(&mut peer, CHROMIUM_JOIN, &[]);
    assert_eq!(direction(&freed.sdp, "3"), Direction::Inactive);
    assert_eq!(direction(&freed.sdp, "4"), Direction::SendOnly);
    assert_eq!(freed.mid_to_track, map(&[("4", "TR_2")]));

    peer.add_sender(sender(3, MediaKind::Video));
    let reused = answer(&mut peer, CHROMIUM_JOIN, &[]);
    assert_eq!(reused.mid_to_track, map(&[("3", "TR_3"), ("4", "TR_2")]));
    assert_eq!(reused.bound.len(), 1);
    assert_eq!(reused.bound[0].ssrc, Ssrc(1003));
    assert!(!reused.sdp.contains("1001"), "no SSRC of the track before");
}

#[test]
fn safari_gets_a_new_line_instead() {
    let mut config = config(Role::Single);
    config.quirks.no_transceiver_reuse = true;
    let mut peer = PeerConnection::new(config);
    peer.add_sender(sender(1, MediaKind::Video));
    answer(&mut peer, CHROMIUM_JOIN, &[]);
    peer.remove_sender(SubscriptionHandle(1));
    peer.add_sender(sender(2, MediaKind::Video));
    let next = answer(&mut peer, CHROMIUM_JOIN, &[]);
    assert_eq!(next.mid_to_track, map(&[("4", "TR_2")]));
}

#[test]
fn publishing_simulcast_and_audio() {
    let mut peer = peer(Role::Single);
    answer(&mut peer, CHROMIUM_JOIN, &[]);
    let pending = [
        announced(AUDIO_CID, MediaKind::Audio),
        announced(VIDEO_CID, MediaKind::Video),
    ];
    let answer = answer(&mut peer, CHROMIUM_PUBLISH, &pending);
    assert_eq!(answer.received.len(), 2);
    let [video, audio] = answer.received.as_slice() else {
        panic!("two m-lines")
    };
    assert_eq!(
        (video.mid.as_str(), video.kind, video.pending),
        ("7", MediaKind::Video, Some(1))
    );
    assert_eq!(video.cid.as_deref(), Some(VIDEO_CID));
    let rids: Vec<_> = video.encodings.iter().map(|encoding| encoding.rid.unwrap()).collect();
    assert_eq!(rids, ["q", "h", "f"].map(|rid| Rid::new(rid).unwrap()));
    assert_eq!(video.extensions.id(Extension::RepairedRid), Some(11));
    assert_eq!(
        video.extensions.id(Extension::AbsSendTime),
        None,
        "transport-wide feedback instead"
    );
    assert_eq!(video.codecs[0].fmtp, "x-google-start-bitrate=1000");

    assert_eq!((audio.mid.as_str(), audio.pending), ("8", Some(0)));
    assert_eq!(audio.encodings.len(), 1);
    assert!(audio.encodings[0].ssrc.is_some());
    let described = parse(&answer.sdp);
    let media = section(&described, "8");
    assert_eq!(payload_types(media), "63 111 0 8", "RED first");
    assert_eq!(media.payloads[1].fmtp, "minptime=10;useinbandfec=1;usedtx=1");
    assert_eq!(media.direction, Direction::RecvOnly);
    let media = section(&described, "7");
    assert_eq!(media.simulcast_recv.len(), 3);
    assert!(media.rids.iter().all(|rid| !rid.sends));
}

#[test]
fn wishes_outlive_the_announcement() {
    let mut peer = peer(Role::Single);
    answer(&mut peer, CHROMIUM_JOIN, &[]);
    let mut pending = [
        announced(VIDEO_CID, MediaKind::Video),
        announced(AUDIO_CID, MediaKind::Audio),
    ];
    pending[0].codec = Some(Codec::H264);
    pending[1].dtx = false;
    pending[1].red = false;
    pending[1].stereo = true;
    let first = answer(&mut peer, CHROMIUM_PUBLISH, &pending);
    let second = answer(&mut peer, CHROMIUM_PUBLISH, &[]);
    assert_eq!(second.received[0].pending, None);
    assert_eq!(first.received[0].codecs, second.received[0].codecs);
    assert_eq!(second.received[0].codecs[0].codec, Codec::H264);
    let described = parse(&second.sdp);
    assert_eq!(payload_types(section(&described, "8")), "111 63 0 8");
    let opus = &section(&described, "8").payloads[0].fmtp;
    assert_eq!(opus, "minptime=10;useinbandfec=1;stereo=1;maxaveragebitrate=510000");
}

#[test]
fn a_backup_codec_has_a_cid_of_its_own() {
    let mut peer = peer(Role::Single);
    let mut track = announced("primary", MediaKind::Video);
    track.codecs = vec![
        PendingCodec {
            cid: "primary".to_owned(),
            codec: Codec::Av1,
        },
        PendingCodec {
            cid: VIDEO_CID.to_owned(),
            codec: Codec::Vp9,
        },
    ];
    let answer = answer(&mut peer, CHROMIUM_PUBLISH, &[track]);
    assert_eq!(answer.received[0].pending, Some(0));
    assert_eq!(answer.received[0].codecs[0].codec, Codec::Vp9);
}

#[test]
fn an_unnamed_track_is_the_first_of_its_kind() {
    let mut peer = peer(Role::Single);
    let pending = [
        announced("a", MediaKind::Audio),
        announced("b", MediaKind::Video),
        announced("c", MediaKind::Video),
    ];
    let answer = answer(&mut peer, CHROMIUM_PUBLISH, &pending);
    assert_eq!(answer.received[0].pending, Some(1));
    assert_eq!(answer.received[1].pending, Some(0));
}

#[test]
fn unpublishing_ends_the_line_and_never_lends_it() {
    let mut peer = peer(Role::Single);
    let published = answer(&mut peer, LIBWEBRTC_VIDEOS, &[]);
    assert_eq!(published.received.len(), 5);
    assert!(
        published
            .received
            .iter()
            .all(|video| video.codecs.len() == 1 && video.codecs[0].rtx.is_none())
    );
    // This client turns the m-line `recvonly` when it unpublishes.
    let stopped = answer(&mut peer, LIBWEBRTC_UNPUBLISH, &[]);
    assert_eq!(
        stopped.stopped.iter().map(|mid| mid.as_str()).collect::<Vec<_>>(),
        ["7"]
    );
    assert_eq!(direction(&stopped.sdp, "7"), Direction::Inactive);
    for number in 1..=4 {
        peer.add_sender(sender(number, MediaKind::Video));
    }
    let next = answer(&mut peer, LIBWEBRTC_UNPUBLISH, &[]);
    assert_eq!(next.mid_to_track, map(&[("3", "TR_1"), ("4", "TR_2"), ("5", "TR_3")]));
    assert_eq!(peer.outstanding(), (0, 1));
}

#[test]
fn another_track_on_the_same_line_ends_the_first() {
    let mut peer = peer(Role::Single);
    answer(&mut peer, CHROMIUM_PUBLISH, &[]);
    let renamed = CHROMIUM_PUBLISH.replace(VIDEO_CID, "another");
    let next = answer(&mut peer, &renamed, &[announced("another", MediaKind::Video)]);
    assert_eq!(next.stopped.len(), 1);
    assert_eq!(
        (next.received[0].cid.as_deref(), next.received[0].pending),
        (Some("another"), Some(0))
    );
}

#[test]
fn a_codec_the_client_lacks_is_refused_at_once() {
    let mut peer = peer(Role::Single);
    let mut h265 = sender(1, MediaKind::Video);
    h265.codec = Codec::H265;
    peer.add_sender(h265);
    peer.add_sender(sender(2, MediaKind::Video));
    let answer = answer(&mut peer, CHROMIUM_JOIN, &[]);
    assert_eq!(answer.rejected, [SubscriptionHandle(1)]);
    assert_eq!(answer.mid_to_track, map(&[("3", "TR_2")]));
    assert_eq!(peer.outstanding(), (0, 0));
}

#[test]
fn a_stopped_line_gives_its_sender_back() {
    let mut peer = peer(Role::Single);
    for number in 1..=3 {
        peer.add_sender(sender(number, MediaKind::Audio));
    }
    answer(&mut peer, CHROMIUM_JOIN, &[]);
    let offer = CHROMIUM_JOIN.replacen("a=recvonly", "a=inactive", 1);
    let next = answer(&mut peer, &offer, &[]);
    assert_eq!(next.unbound, [SubscriptionHandle(1)]);
    assert_eq!(peer.outstanding(), (1, 0));
    assert_eq!(direction(&next.sdp, "0"), Direction::Inactive);
}

#[test]
fn a_recycled_line_starts_anew() {
    let mut peer = peer(Role::Single);
    let first = answer(&mut peer, CHROMIUM_PUBLISH, &[]);
    assert_eq!(first.received.len(), 2);
    // Stopped: port 0 and out of the bundle.
    let stopped = CHROMIUM_PUBLISH
        .replace("a=group:BUNDLE 0 1 2 3 4 5 6 7 8", "a=group:BUNDLE 0 1 2 3 4 5 6 8")
        .replace(
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97 102",
            "m=video 0 UDP/TLS/RTP/SAVPF 96 97 102",
        );
    let second = answer(&mut peer, &stopped, &[]);
    assert_eq!(second.stopped.len(), 1);
    let described = parse(&second.sdp);
    assert!(section(&described, "7").is_rejected());
    assert_eq!(described.bundle.unwrap().len(), 8);
    // Recycled: the same place under another mid.
    let recycled = CHROMIUM_PUBLISH
        .replace("a=group:BUNDLE 0 1 2 3 4 5 6 7 8", "a=group:BUNDLE 0 1 2 3 4 5 6 9 8")
        .replace("a=mid:7\r\n", "a=mid:9\r\n");
    let third = answer(&mut peer, &recycled, &[]);
    assert_eq!(third.received[0].mid.as_str(), "9");
    assert!(!section(&parse(&third.sdp), "9").is_rejected());
}

#[test]
fn an_ice_restart_takes_the_fresh_credentials() {
    let mut peer = peer(Role::Single);
    let before = answer(&mut peer, CHROMIUM_JOIN, &[]).remote.ice;
    let offer = CHROMIUM_JOIN
        .replace(&before.pwd, "0123456789abcdefghijklmn")
        .replace(&before.ufrag, "wxyz");
    let restarted = peer.handle_offer(&offer, &[], credentials("next")).unwrap();
    assert!(restarted.ice_restart);
    assert_eq!(restarted.remote.ice.ufrag, "wxyz");
    assert!(restarted.sdp.contains("a=ice-ufrag:next\r\n") && !restarted.sdp.contains("ours"));
    assert!(
        peer.candidates()
            .iter()
            .all(|candidate| candidate.ends_with(" ufrag next"))
    );
    let again = peer.handle_offer(&offer, &[], credentials("unused")).unwrap();
    assert!(!again.ice_restart);
}

#[test]
fn a_client_that_insists_on_waiting_is_called() {
    let mut peer = peer(Role::Single);
    let offer = CHROMIUM_JOIN.replace("a=setup:actpass", "a=setup:passive");
    let first = answer(&mut peer, &offer, &[]);
    assert_eq!(first.remote.dtls_role, DtlsRole::Active);
    assert!(first.sdp.contains("a=setup:active") && !first.sdp.contains("a=setup:passive"));
    // Later offers say actpass again; the roles stay (RFC 8842 §5.5).
    assert_eq!(answer(&mut peer, CHROMIUM_JOIN, &[]).remote.dtls_role, DtlsRole::Active);
}

#[test]
fn remb_only_without_transport_cc() {
    let mut peer = peer(Role::Single);
    let offer: String = CHROMIUM_PUBLISH
        .lines()
        .filter(|line| !line.contains("transport-wide-cc") && !line.contains("transport-cc"))
        .map(|line| format!("{line}\r\n"))
        .collect();
    let answer = answer(&mut peer, &offer, &[]);
    let video = answer
        .received
        .iter()
        .find(|received| received.kind == MediaKind::Video)
        .unwrap();
    assert!(video.codecs[0].remb && !video.codecs[0].transport_cc);
    assert!(video.extensions.id(Extension::AbsSendTime).is_some());
}

#[test]
fn firefox_bundle_only_lines_are_accepted() {
    let mut peer = peer(Role::Publisher);
    let answer = answer(&mut peer, FIREFOX_PUBLISH, &[]);
    let described = parse(&answer.sdp);
    assert_eq!(described.bundle.as_ref().unwrap(), &["0", "1", "2"]);
    let video = answer
        .received
        .iter()
        .find(|received| received.kind == MediaKind::Video)
        .unwrap();
    assert_eq!(video.encodings.len(), 3);
    assert_eq!(
        video.extensions.id(Extension::PlayoutDelay),
        None,
        "the client only receives it"
    );
    assert_eq!(video.extensions.id(Extension::Rid), Some(8));
    assert!(
        answer
            .sdp
            .contains("a=extmap:8/recvonly urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id")
    );
    let codecs: Vec<_> = video.codecs.iter().map(|codec| codec.pt.0).collect();
    assert_eq!(codecs, [120, 121, 126, 97, 99]);
    assert_eq!(answer.remote.sctp_max_message_size, Some(1_073_741_823));
}

#[test]
fn old_clients_name_simulcast_by_ssrc() {
    let mut peer = peer(Role::Publisher);
    let lines = "a=ssrc-group:SIM 11 12 13\r\na=ssrc-group:FID 11 21\r\na=ssrc-group:FID 12 22\r\n\
                 a=ssrc-group:FID 13 23\r\na=ssrc:11 cname:x\r\na=ssrc:21 cname:x\r\na=ssrc:11 msid:s cid-by-ssrc\r\n";
    let offer: String = CHROMIUM_DUAL_PUBLISH
        .split_inclusive("\r\n")
        .filter(|line| !line.starts_with("a=rid") && !line.starts_with("a=simulcast"))
        .map(|line| match line.starts_with("a=msid:") && line.contains(VIDEO_CID) {
            true => lines.to_owned(),
            false => line.to_owned(),
        })
        .collect();
    let answer = answer(&mut peer, &offer, &[]);
    let video = answer
        .received
        .iter()
        .find(|received| received.kind == MediaKind::Video)
        .unwrap();
    assert_eq!(video.cid.as_deref(), Some("cid-by-ssrc"));
    let pairs: Vec<_> = video
        .encodings
        .iter()
        .map(|encoding| (encoding.ssrc, encoding.rtx_ssrc))
        .collect();
    assert_eq!(
        pairs,
        [(11, 21), (12, 22), (13, 23)].map(|(ssrc, rtx)| (Some(Ssrc(ssrc)), Some(Ssrc(rtx))))
    );
}

#[test]
fn only_the_preferred_codec_for_clients_that_ignore_the_order() {
    let mut config = config(Role::Publisher);
    config.quirks.preferred_codec_only = true;
    let mut peer = PeerConnection::new(config);
    let mut track = announced("any", MediaKind::Video);
    track.codec = Some(Codec::Vp9);
    let answer = answer(&mut peer, FIREFOX_PUBLISH, &[track]);
    let codecs: Vec<_> = answer.received[0].codecs.iter().map(|codec| codec.codec).collect();
    assert_eq!(codecs, [Codec::Vp9]);
}

#[test]
fn the_configured_codecs_filter_both_ways() {
    let mut config = config(Role::Single);
    config.publish_codecs = vec![Codec::Opus, Codec::Vp8];
    config.subscribe_codecs = vec![Codec::Opus, Codec::Red, Codec::H264];
    let mut peer = PeerConnection::new(config);
    let described = parse(&answer(&mut peer, CHROMIUM_PUBLISH, &[]).sdp);
    assert_eq!(payload_types(section(&described, "0")), "111 63");
    assert_eq!(payload_types(section(&described, "3")), "108 109 114 115");
    assert_eq!(payload_types(section(&described, "7")), "96 97");
    assert_eq!(payload_types(section(&described, "8")), "111");
}
