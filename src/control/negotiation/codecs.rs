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
            transport_cc: true,
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
