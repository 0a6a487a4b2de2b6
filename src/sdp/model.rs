//! A description as values. Fields are public: it is data, made by the parser or by the negotiator.

use crate::types::{Mid, Pt, Rid, Ssrc};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionDescription {
    pub origin: Origin,
    /// The mids of `a=group:BUNDLE`; None when there is no such group.
    pub bundle: Option<Vec<String>>,
    pub extmap_allow_mixed: bool,
    /// `a=msid-semantic:WMS *` is written when set; what it says is not read.
    pub msid_semantic: bool,
    pub ice_lite: bool,
    /// What applies to every m-line that does not say otherwise.
    pub transport: TransportAttributes,
    pub media: Vec<MediaSection>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub session_id: u64,
    pub version: u64,
}

/// ICE and DTLS attributes, at session or media level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransportAttributes {
    pub ufrag: Option<String>,
    pub pwd: Option<String>,
    pub fingerprints: Vec<Fingerprint>,
    pub setup: Option<Setup>,
    /// `a=ice-options` (RFC 8839 §5.6), without `trickle`: at most `MAX_ICE_OPTIONS`.
    pub ice_options: Vec<String>,
}

/// There are five in all of IANA's registry.
pub const MAX_ICE_OPTIONS: usize = 16;

/// RFC 8122 §5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Lower case, `sha-256`.
    pub hash: String,
    pub bytes: Vec<u8>,
}

/// RFC 4145 §4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    Actpass,
    Active,
    Passive,
    Holdconn,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionKind {
    Audio,
    Video,
    Application,
    Other(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    pub fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// Whether the side that wrote it sends.
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the side that wrote it receives.
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// As the other side would write it.
    pub fn reversed(self) -> Self {
        Self::new(self.receives(), self.sends())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaSection {
    pub kind: SectionKind,
    /// 0 = rejected, unless `bundle_only`.
    pub port: u16,
    pub bundle_only: bool,
    pub protocol: String,
    /// The formats of the m-line; for audio and video payload types.
    pub formats: Vec<String>,
    pub mid: Option<Mid>,
    pub direction: Direction,
    pub transport: TransportAttributes,
    /// In the order of the m-line's formats.
    pub payloads: Vec<Payload>,
    pub extensions: Vec<ExtMap>,
    pub rtcp_mux: bool,
    pub rtcp_rsize: bool,
    pub msid: Option<Msid>,
    pub ssrc_groups: Vec<SsrcGroup>,
    pub ssrcs: Vec<SsrcAttribute>,
    pub rids: Vec<RidLine>,
    /// `a=simulcast` from its writer's side: first alternatives, in order, without the `~` of paused ones.
    pub simulcast_send: Vec<Rid>,
    pub simulcast_recv: Vec<Rid>,
    /// RFC 8841 §5.
    pub sctp_port: Option<u16>,
    /// Bytes, 0 = any (RFC 8841 §6).
    pub max_message_size: Option<u32>,
    /// An SCTP INIT chunk (draft-hancke-tsvwg-snap); what is not base64 is as if it were not there.
    pub sctp_init: Option<Vec<u8>>,
    /// Written only; `candidate:…` without `a=`. A peer's candidates come by trickle or are learned from its checks.
    pub candidates: Vec<String>,
    /// Written only.
    pub end_of_candidates: bool,
}

impl MediaSection {
    pub fn new(kind: SectionKind, protocol: &str) -> Self {
        Self {
            kind,
            port: 9,
            bundle_only: false,
            protocol: protocol.to_owned(),
            formats: Vec::new(),
            mid: None,
            direction: Direction::SendRecv,
            transport: TransportAttributes::default(),
            payloads: Vec::new(),
            extensions: Vec::new(),
            rtcp_mux: false,
            rtcp_rsize: false,
            msid: None,
            ssrc_groups: Vec::new(),
            ssrcs: Vec::new(),
            rids: Vec::new(),
            simulcast_send: Vec::new(),
            simulcast_recv: Vec::new(),
            sctp_port: None,
            max_message_size: None,
            sctp_init: None,
            candidates: Vec::new(),
            end_of_candidates: false,
        }
    }

    /// RFC 8843 §6: a bundle-only m-line has port 0 and is not rejected.
    pub fn is_rejected(&self) -> bool {
        self.port == 0 && !self.bundle_only
    }
}

/// A payload type with everything an m-line says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    pub pt: Pt,
    /// Encoding name as written; empty when there was neither `a=rtpmap` nor a static type.
    pub name: String,
    /// Hz.
    pub clock_rate: u32,
    /// 1 when not written.
    pub channels: u8,
    /// Without the payload type; empty when none.
    pub fmtp: String,
    /// `nack pli`, `transport-cc`, …; lines for `*` are copied to every payload.
    pub feedback: Vec<String>,
}

impl Payload {
    /// The value of an fmtp parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.fmtp.split(';').find_map(|part| {
            let (key, value) = part.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn has_feedback(&self, name: &str) -> bool {
        self.feedback.iter().any(|offered| offered.eq_ignore_ascii_case(name))
    }
}

/// RFC 8285 §5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtMap {
    pub id: u8,
    /// None = as the m-line.
    pub direction: Option<Direction>,
    pub uri: String,
}

/// RFC 8830 §2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Msid {
    /// `-` = no stream.
    pub stream: String,
    pub track: Option<String>,
}

/// RFC 5576 §4.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SsrcGroup {
    /// `FID` (media, retransmission) or `SIM`.
    pub semantics: String,
    pub ssrcs: Vec<Ssrc>,
}

/// RFC 5576 §4.1: one line of an SSRC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SsrcAttribute {
    pub ssrc: Ssrc,
    pub name: String,
    /// Empty when the attribute has none.
    pub value: String,
}

/// RFC 8851 §10; restrictions are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RidLine {
    pub rid: Rid,
    /// `send` or `recv`, from its writer's side.
    pub sends: bool,
}
