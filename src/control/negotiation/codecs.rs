//! Which payload types of an m-line are kept, and how our own offers list them.

use crate::sdp::{MediaSection, Payload, SectionKind};
use crate::types::{Codec, CodecParameters, MediaKind, Pt};

/// LiveKit: clients look for these in every Opus line; the offer's own parameters (`stereo=1` above all) are not echoed.
const OPUS_FMTP: &str = "minptime=10;useinbandfec=1";

/// What a publishing m-line asks of the client's Opus encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpusWishes {
    pub dtx: bool,
    pub stereo: bool,
}

/// The codecs of `section` that are in `allowed`, in its order, with its payload types. One entry per codec, two for
/// H264 (packetization modes), so that a payload type says all a forwarder has to know.
/// `transport_cc`: the section's header extensions allow transport-wide feedback.
pub fn select(section: &MediaSection, allowed: &[Codec], transport_cc: bool) -> Vec<CodecParameters> {
    let mut kept: Vec<(Form, CodecParameters)> = Vec::new();
    for payload in &section.payloads {
        let Some(form) = Form::of(payload) else { continue };
        if section.kind != section_kind(form.codec.kind()) || !allowed.contains(&form.codec) {
            continue;
        }
        if let Some(position) = kept.iter().position(|(other, _)| other.replaces_same(form)) {
            let better = kept.get(position).is_some_and(|(other, _)| form.rank < other.rank);
            if !better {
                continue;
            }
            kept.remove(position);
        }
        let transport_cc = transport_cc && payload.has_feedback("transport-cc");
        let video = form.codec.kind() == MediaKind::Video;
        let parameters = CodecParameters {
            pt: payload.pt,
            codec: form.codec,
            rtx: if video { rtx_of(section, payload.pt) } else { None },
            nack: payload.has_feedback("nack"),
            pli: video && payload.has_feedback("nack pli"),
            fir: video && payload.has_feedback("ccm fir"),
            transport_cc,
            remb: video && !transport_cc && payload.has_feedback("goog-remb"),
            fmtp: payload.fmtp.clone(),
        };
        kept.push((form, parameters));
    }
    let opus = kept
        .iter()
        .find(|(form, _)| form.codec == Codec::Opus)
        .map(|(_, opus)| opus.pt);
    // RFC 2198 §5: RED names the payload types it carries; it is only of use around the Opus that is kept.
    kept.retain(|(form, parameters)| form.codec != Codec::Red || carries(&parameters.fmtp, opus));
    kept.into_iter().map(|(_, parameters)| parameters).collect()
}

pub fn section_kind(kind: MediaKind) -> SectionKind {
    match kind {
        MediaKind::Audio => SectionKind::Audio,
        MediaKind::Video => SectionKind::Video,
    }
}

/// A codec in the form that matters to forwarding.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Form {
    codec: Codec,
    packetization_mode: u8,
    /// Among payload types of one form the lowest is kept.
    rank: u8,
}

impl Form {
    fn of(payload: &Payload) -> Option<Self> {
        let codec = Codec::parse(&payload.name).filter(|codec| codec.clock_rate() == payload.clock_rate)?;
        let mut form = Self {
            codec,
            packetization_mode: 0,
            rank: 0,
        };
        let profile_is = |name, wanted| payload.parameter(name).is_none_or(|value| value == wanted);
        let fits = match codec {
            Codec::Opus => payload.channels == 2,
            Codec::Red | Codec::Vp8 => true,
            Codec::Pcmu | Codec::Pcma => payload.channels == 1,
            // RFC 9628 §7.2. Profile 1 (4:4:4) is not kept: subscribers are told of one VP9.
            Codec::Vp9 => profile_is("profile-id", "0"),
            Codec::Av1 => profile_is("profile", "0"),
            // RFC 7798 §7.1: Main.
            Codec::H265 => profile_is("profile-id", "1"),
            Codec::H264 => {
                form.packetization_mode = match payload.parameter("packetization-mode") {
                    None | Some("0") => 0,
                    Some("1") => 1,
                    _ => return None,
                };
                form.rank = h264_rank(payload.parameter("profile-level-id"))?;
                true
            }
        };
        fits.then_some(form)
    }

    fn replaces_same(self, other: Self) -> bool {
        self.codec == other.codec && self.packetization_mode == other.packetization_mode
    }
}

/// Constrained baseline whatever its level is 0; baseline, which no browser encodes as such, is 1; others are not kept.
fn h264_rank(profile_level_id: Option<&str>) -> Option<u8> {
    // RFC 6184 §8.1: absent = baseline, level 1.
    let Some(text) = profile_level_id else { return Some(1) };
    let value = u32::from_str_radix(text, 16).ok()?;
    let (profile, constraints) = ((value >> 16) & 0xff, (value >> 8) & 0xff);
    // constraint_set1_flag makes baseline constrained.
    (profile == 0x42).then_some(if constraints & 0x40 != 0 { 0 } else { 1 })
}

fn carries(red_fmtp: &str, opus: Option<Pt>) -> bool {
    let Some(opus) = opus else { return false };
    let primary = red_fmtp.split('/').next().unwrap_or_default();
    primary.is_empty() || primary.trim().parse() == Ok(opus.0)
}

/// RFC 4588 §8: the `rtx` whose `apt` names `pt`.
fn rtx_of(section: &MediaSection, pt: Pt) -> Option<Pt> {
    section
        .payloads
        .iter()
        .find(|payload| {
            payload.name.eq_ignore_ascii_case("rtx")
                && payload.parameter("apt").and_then(|apt| apt.parse().ok()) == Some(pt.0)
        })
        .map(|payload| payload.pt)
}

/// Moves the payload types of `codec` to the front, the others keeping their order.
pub fn prefer(codecs: &mut [CodecParameters], codec: Codec) {
    codecs.sort_by_key(|parameters| parameters.codec != codec);
}

/// The Opus line of an m-line the client sends on.
pub fn opus_from_client(wishes: OpusWishes) -> String {
    let mut fmtp = OPUS_FMTP.to_owned();
    if wishes.dtx {
        fmtp.push_str(";usedtx=1");
    }
    if wishes.stereo {
        fmtp.push_str(";stereo=1;maxaveragebitrate=510000");
    }
    fmtp
}

/// The Opus line of an m-line we send on. LiveKit: clients look for `sprop-stereo=1` and then ask for `stereo=1`.
pub fn opus_to_client(stereo: bool) -> String {
    let suffix = if stereo { ";sprop-stereo=1" } else { "" };
    format!("{OPUS_FMTP}{suffix}")
}

pub fn set_opus_fmtp(codecs: &mut [CodecParameters], fmtp: &str) {
    for parameters in codecs.iter_mut().filter(|parameters| parameters.codec == Codec::Opus) {
        fmtp.clone_into(&mut parameters.fmtp);
    }
}

/// Writes the m-line's formats and payload attributes.
pub fn write(codecs: &[CodecParameters], section: &mut MediaSection) {
    for parameters in codecs {
        let codec = parameters.codec;
        let feedback = [
            (parameters.remb, "goog-remb"),
            (parameters.transport_cc, "transport-cc"),
            (parameters.fir, "ccm fir"),
            (parameters.nack, "nack"),
            (parameters.pli, "nack pli"),
        ];
        push(
            section,
            Payload {
                pt: parameters.pt,
                name: codec.rtpmap_name().to_owned(),
                clock_rate: codec.clock_rate(),
                channels: if matches!(codec, Codec::Opus | Codec::Red) {
                    2
                } else {
                    1
                },
                fmtp: parameters.fmtp.clone(),
                feedback: feedback
                    .iter()
                    .filter(|(on, _)| *on)
                    .map(|(_, text)| (*text).to_owned())
                    .collect(),
            },
        );
        if let Some(rtx) = parameters.rtx {
            push(
                section,
                Payload {
                    pt: rtx,
                    name: "rtx".to_owned(),
                    clock_rate: codec.clock_rate(),
                    channels: 1,
                    fmtp: format!("apt={}", parameters.pt),
                    feedback: Vec::new(),
                },
            );
        }
    }
}

fn push(section: &mut MediaSection, payload: Payload) {
    section.formats.push(payload.pt.to_string());
    section.payloads.push(payload);
}

/// The payload types of our own offers: LiveKit's numbers, with packetization mode 1 before mode 0.
pub fn offer_table(kind: MediaKind, allowed: &[Codec]) -> Vec<CodecParameters> {
    let rows: &[(u8, Codec, &str)] = match kind {
        MediaKind::Audio => &[
            (111, Codec::Opus, OPUS_FMTP),
            (63, Codec::Red, "111/111"),
            (0, Codec::Pcmu, ""),
            (8, Codec::Pcma, ""),
        ],
        MediaKind::Video => &[
            (96, Codec::Vp8, ""),
            (98, Codec::Vp9, "profile-id=0"),
            (
                108,
                Codec::H264,
                "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
            ),
            (
                125,
                Codec::H264,
                "level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f",
            ),
            (35, Codec::Av1, ""),
            (116, Codec::H265, ""),
        ],
    };
    let video = kind == MediaKind::Video;
    rows.iter()
        .filter(|(_, codec, _)| allowed.contains(codec))
        .filter(|(_, codec, _)| *codec != Codec::Red || allowed.contains(&Codec::Opus))
        .map(|(pt, codec, fmtp)| CodecParameters {
            pt: Pt(*pt),
            codec: *codec,
            rtx: video.then_some(Pt(pt + 1)),
            // On Opus only where RED does not already repair losses; the sender decides.
            nack: video,
            pli: video,
            fir: video,
            // As browsers list it: of the audio codecs only Opus.
            transport_cc: video || *codec == Codec::Opus,
            remb: false,
            fmtp: (*fmtp).to_owned(),
        })
        .collect()
}

/// What of our offered `table` the client's answer keeps, in the answer's order.
pub fn intersect_answer(table: &[CodecParameters], answer: &MediaSection, transport_cc: bool) -> Vec<CodecParameters> {
    answer
        .payloads
        .iter()
        .filter_map(|payload| {
            let ours = table.iter().find(|ours| ours.pt == payload.pt)?;
            if !payload.name.eq_ignore_ascii_case(ours.codec.rtpmap_name()) {
                return None;
            }
            Some(CodecParameters {
                rtx: ours.rtx.filter(|rtx| rtx_of(answer, payload.pt) == Some(*rtx)),
                nack: ours.nack && payload.has_feedback("nack"),
                pli: ours.pli && payload.has_feedback("nack pli"),
                fir: ours.fir && payload.has_feedback("ccm fir"),
                transport_cc: transport_cc && ours.transport_cc && payload.has_feedback("transport-cc"),
                fmtp: payload.fmtp.clone(),
                ..ours.clone()
            })
        })
        .collect()
}

/// Whether a client that accepts `codecs` can be sent a track in `codec`.
pub fn can_receive(codecs: &[CodecParameters], codec: Codec) -> bool {
    codecs
        .iter()
        .any(|parameters| parameters.codec == codec || (codec == Codec::Red && parameters.codec == Codec::Opus))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdp::SessionDescription;

    fn video(lines: &str) -> MediaSection {
        let formats: Vec<&str> = lines
            .lines()
            .filter_map(|line| line.strip_prefix("a=rtpmap:")?.split(' ').next())
            .collect();
        let text = format!("v=0\nm=video 9 UDP/TLS/RTP/SAVPF {}\n{lines}\n", formats.join(" "));
        SessionDescription::parse(&text).unwrap().media.remove(0)
    }

    fn kept(section: &MediaSection) -> Vec<(u8, Codec, Option<u8>)> {
        let codecs = select(section, &Codec::ALL, true);
        codecs
            .iter()
            .map(|codec| (codec.pt.0, codec.codec, codec.rtx.map(|rtx| rtx.0)))
            .collect()
    }

    fn h264(entries: &[(u8, &str)]) -> Vec<u8> {
        let lines = entries
            .iter()
            .map(|(pt, fmtp)| format!("a=rtpmap:{pt} H264/90000\na=fmtp:{pt} {fmtp}\n"));
        kept(&video(&lines.collect::<String>()))
            .iter()
            .map(|(pt, ..)| *pt)
            .collect()
    }

    #[test]
    fn h264_constrained_baseline_of_any_level_once_per_packetization_mode() {
        let all = [
            (102, "packetization-mode=1;profile-level-id=42001f"),
            (104, "packetization-mode=0;profile-level-id=42001f"),
            (108, "packetization-mode=1;profile-level-id=42E034"),
            (114, "profile-level-id=42c02a"),
            (116, "packetization-mode=1;profile-level-id=4d001f"),
            (118, "packetization-mode=1;profile-level-id=640c1f"),
            (120, "packetization-mode=1;profile-level-id=42e01f"),
            (122, "packetization-mode=2;profile-level-id=42e01f"),
        ];
        assert_eq!(h264(&all), [108, 114]);
        // Baseline where there is nothing better; no profile at all means baseline.
        assert_eq!(h264(&all[..2]), [102, 104]);
        assert_eq!(h264(&[(97, "packetization-mode=1")]), [97]);
        assert_eq!(
            h264(&[(97, "profile-level-id=nonsense"), (98, "profile-level-id=640034")]),
            [0u8; 0]
        );
    }

    #[test]
    fn profiles_that_browsers_do_not_all_have_are_left_out() {
        let section = video(
            "a=rtpmap:98 VP9/90000\na=fmtp:98 profile-id=0\na=rtpmap:100 VP9/90000\na=fmtp:100 profile-id=2\n\
             a=rtpmap:35 VP9/90000\na=fmtp:35 profile-id=1\na=rtpmap:45 AV1/90000\na=fmtp:45 profile=1\n\
             a=rtpmap:46 AV1/90000\na=rtpmap:49 H265/90000\na=fmtp:49 level-id=180;profile-id=1;tx-mode=SRST\n\
             a=rtpmap:51 H265/90000\na=fmtp:51 profile-id=2\na=rtpmap:96 vp8/90000\na=rtpmap:97 VP8/48000\n\
             a=rtpmap:118 red/90000\na=rtpmap:120 ulpfec/90000\na=rtpmap:121 flexfec-03/90000",
        );
        let codecs: Vec<_> = kept(&section).into_iter().map(|(pt, codec, _)| (pt, codec)).collect();
        assert_eq!(
            codecs,
            [(98, Codec::Vp9), (46, Codec::Av1), (49, Codec::H265), (96, Codec::Vp8)]
        );
    }

    #[test]
    fn retransmission_goes_by_apt() {
        let section = video(
            "a=rtpmap:96 VP8/90000\na=rtpmap:97 rtx/90000\na=fmtp:97 apt=98\na=rtpmap:98 VP9/90000\n\
             a=rtpmap:99 rtx/90000\na=fmtp:99 rtx-time=200;apt=96",
        );
        assert_eq!(kept(&section), [(96, Codec::Vp8, Some(99)), (98, Codec::Vp9, Some(97))]);
    }

    #[test]
    fn red_needs_the_opus_it_wraps() {
        let audio = |lines: &str| {
            let text = format!("v=0\nm=audio 9 UDP/TLS/RTP/SAVPF 63 111\na=rtpmap:63 red/48000/2\n{lines}");
            kept(&SessionDescription::parse(&text).unwrap().media.remove(0)).len()
        };
        assert_eq!(audio("a=rtpmap:111 opus/48000/2\na=fmtp:63 111/111\n"), 2);
        assert_eq!(audio("a=rtpmap:111 opus/48000/2\n"), 2);
        assert_eq!(audio("a=rtpmap:111 opus/48000/2\na=fmtp:63 9/9\n"), 1);
        assert_eq!(audio("a=rtpmap:111 G722/8000\na=fmtp:63 111/111\n"), 0);
        // RFC 7587 §4.1: Opus is always written with two channels.
        assert_eq!(audio("a=rtpmap:111 opus/48000\na=fmtp:63 111/111\n"), 0);
    }
}
