//! Text to model. Unknown attributes are skipped; known ones that cannot be read are errors only where a session could
//! not work without them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::model::{
    Direction, ExtMap, Fingerprint, MAX_ICE_OPTIONS, MediaSection, Msid, Origin, Payload, RidLine, SectionKind,
    SessionDescription, Setup, SsrcAttribute, SsrcGroup, TransportAttributes,
};
use super::{MAX_ATTRIBUTES, MAX_DESCRIPTION_BYTES, MAX_LINE_BYTES, MAX_SECTIONS, SdpError};
use crate::types::{Mid, Pt, Rid, Ssrc};

impl SessionDescription {
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        if text.len() > MAX_DESCRIPTION_BYTES {
            return Err(SdpError::TooLong(text.len()));
        }
        let mut reader = Reader::default();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            // RFC 8866 §5: a line ends in CRLF, and parsers should accept LF; some clients add a blank line at the end.
            let line = line.trim_end();
            if line.is_empty() {
                continue;
            }
            if line.len() > MAX_LINE_BYTES {
                return Err(SdpError::LineTooLong(number));
            }
            // A lone CR (or another control character) would end a line for whoever reads what we echo.
            if line.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
                return Err(SdpError::BadLine(number));
            }
            let (kind, value) = line.split_once('=').ok_or(SdpError::BadLine(number))?;
            reader.line(number, kind, value)?;
        }
        reader.finish()
    }
}

#[derive(Default)]
struct Reader {
    session: SessionDescription,
    version_seen: bool,
    /// Attributes of the current section.
    attributes: usize,
    /// A direction at session level applies to the sections that have none.
    session_direction: Option<Direction>,
    session_extensions: Vec<ExtMap>,
    section: Option<Section>,
}

/// A section while it is read: attributes of payloads may come before and after each other.
struct Section {
    media: MediaSection,
    direction: Option<Direction>,
    /// `a=rtcp-fb:*`
    feedback_for_all: Vec<String>,
}

impl Reader {
    fn line(&mut self, number: usize, kind: &str, value: &str) -> Result<(), SdpError> {
        let bad = |what| SdpError::BadValue { line: number, what };
        if !self.version_seen {
            if (kind, value) != ("v", "0") {
                return Err(SdpError::NoVersion);
            }
            self.version_seen = true;
            return Ok(());
        }
        match kind {
            "o" if self.section.is_none() => {
                // Not acted on, so an unusual one is no reason to refuse.
                self.session.origin = parse_origin(value).unwrap_or_default();
            }
            "m" => {
                self.close_section();
                if self.session.media.len() >= MAX_SECTIONS {
                    return Err(SdpError::TooManySections);
                }
                self.attributes = 0;
                self.section = Some(Section {
                    media: parse_media_line(value).ok_or(bad("m="))?,
                    direction: None,
                    feedback_for_all: Vec::new(),
                });
            }
            "a" => {
                self.attributes += 1;
                if self.attributes > MAX_ATTRIBUTES {
                    return Err(SdpError::TooManyAttributes(number));
                }
                let (name, value) = value.split_once(':').unwrap_or((value, ""));
                let value = value.trim_start();
                match &mut self.section {
                    Some(section) => section.attribute(name, value).map_err(bad)?,
                    None => self.attribute(name, value).map_err(bad)?,
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn attribute(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        match name {
            "group" => {
                let mut words = value.split_ascii_whitespace();
                if words.next() == Some("BUNDLE") && self.session.bundle.is_none() {
                    self.session.bundle = Some(words.map(str::to_owned).collect());
                }
            }
            "extmap-allow-mixed" => self.session.extmap_allow_mixed = true,
            "msid-semantic" => self.session.msid_semantic = true,
            "ice-lite" => self.session.ice_lite = true,
            "extmap" => self.session_extensions.push(parse_extmap(value).ok_or("a=extmap")?),
            _ => match parse_direction(name) {
                Some(direction) => self.session_direction = Some(direction),
                None => transport_attribute(&mut self.session.transport, name, value)?,
            },
        }
        Ok(())
    }

    fn close_section(&mut self) {
        let Some(section) = self.section.take() else { return };
        let mut media = section.media;
        media.direction = section.direction.or(self.session_direction).unwrap_or_default();
        for payload in &mut media.payloads {
            payload.feedback.extend(section.feedback_for_all.iter().cloned());
        }
        media.extensions.extend(self.session_extensions.iter().cloned());
        self.session.media.push(media);
    }

    fn finish(mut self) -> Result<SessionDescription, SdpError> {
        if !self.version_seen {
            return Err(SdpError::NoVersion);
        }
        self.close_section();
        Ok(self.session)
    }
}

impl Section {
    fn attribute(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        let media = &mut self.media;
        match name {
            "mid" => media.mid = Some(Mid::new(value).ok_or("a=mid")?),
            "rtpmap" => {
                let (pt, map) = split_pt(value).ok_or("a=rtpmap")?;
                if let Some(payload) = payload_mut(media, pt) {
                    let mut parts = map.trim().split('/');
                    payload.name = parts.next().unwrap_or_default().to_owned();
                    payload.clock_rate = parts.next().and_then(|text| text.parse().ok()).ok_or("a=rtpmap")?;
                    payload.channels = parts.next().and_then(|text| text.parse().ok()).unwrap_or(1);
                }
            }
            "fmtp" => {
                let Some((pt, parameters)) = split_pt(value) else {
                    return Ok(());
                };
                if let Some(payload) = payload_mut(media, pt) {
                    // Chromium's munging clients write two lines for one payload type.
                    if !payload.fmtp.is_empty() {
                        payload.fmtp.push(';');
                    }
                    payload.fmtp.push_str(parameters.trim());
                }
            }
            "rtcp-fb" => {
                let Some((target, feedback)) = value.split_once(' ') else {
                    return Ok(());
                };
                let feedback = feedback.trim().to_owned();
                if target == "*" {
                    self.feedback_for_all.push(feedback);
                } else {
                    let pt = parse_pt(target).ok_or("a=rtcp-fb")?;
                    if let Some(payload) = payload_mut(media, pt) {
                        payload.feedback.push(feedback);
                    }
                }
            }
            "extmap" => media.extensions.push(parse_extmap(value).ok_or("a=extmap")?),
            "rtcp-mux" => media.rtcp_mux = true,
            "rtcp-rsize" => media.rtcp_rsize = true,
            "bundle-only" => media.bundle_only = true,
            "msid" if media.msid.is_none() => media.msid = parse_msid(value),
            "ssrc" => media.ssrcs.extend(parse_ssrc(value)),
            "ssrc-group" => media.ssrc_groups.extend(parse_ssrc_group(value)),
            "rid" => media.rids.extend(parse_rid(value)),
            "simulcast" => {
                let mut words = value.split_ascii_whitespace();
                while let (Some(direction), Some(list)) = (words.next(), words.next()) {
                    match direction {
                        "send" => media.simulcast_send = parse_simulcast_list(list),
                        "recv" => media.simulcast_recv = parse_simulcast_list(list),
                        _ => {}
                    }
                }
            }
            "sctp-port" => media.sctp_port = Some(value.trim().parse().map_err(|_| "a=sctp-port")?),
            "sctp-init" => media.sctp_init = STANDARD.decode(value.trim()).ok(),
            "max-message-size" => {
                // RFC 8841 §6 sets no bound: what does not fit is larger than anything we send.
                media.max_message_size = Some(match value.trim().parse::<u64>() {
                    Ok(size) => u32::try_from(size).unwrap_or(u32::MAX),
                    Err(_) => return Err("a=max-message-size"),
                });
            }
            _ => match parse_direction(name) {
                Some(direction) => self.direction = Some(direction),
                None => transport_attribute(&mut media.transport, name, value)?,
            },
        }
        Ok(())
    }
}

fn transport_attribute(transport: &mut TransportAttributes, name: &str, value: &str) -> Result<(), &'static str> {
    let value = value.trim();
    match name {
        "ice-ufrag" => transport.ufrag = Some(parse_ice_text(value, 4).ok_or("a=ice-ufrag")?),
        "ice-options" => {
            let options = value.split_ascii_whitespace().filter(|option| *option != "trickle");
            transport.ice_options = options.take(MAX_ICE_OPTIONS).map(str::to_owned).collect();
        }
        "ice-pwd" => transport.pwd = Some(parse_ice_text(value, 22).ok_or("a=ice-pwd")?),
        "fingerprint" => transport
            .fingerprints
            .push(parse_fingerprint(value).ok_or("a=fingerprint")?),
        "setup" => {
            transport.setup = Some(match value {
                "actpass" => Setup::Actpass,
                "active" => Setup::Active,
                "passive" => Setup::Passive,
                "holdconn" => Setup::Holdconn,
                _ => return Err("a=setup"),
            });
        }
        _ => {}
    }
    Ok(())
}

fn parse_origin(value: &str) -> Option<Origin> {
    let mut words = value.split_ascii_whitespace();
    words.next()?;
    Some(Origin {
        session_id: words.next()?.parse().ok()?,
        version: words.next()?.parse().ok()?,
    })
}

fn parse_media_line(value: &str) -> Option<MediaSection> {
    let mut words = value.split_ascii_whitespace();
    let kind = match words.next()? {
        "audio" => SectionKind::Audio,
        "video" => SectionKind::Video,
        "application" => SectionKind::Application,
        other => SectionKind::Other(other.to_owned()),
    };
    // `9/2` names two ports (RFC 8866 §5.14); nobody means it.
    let port = words.next()?.split('/').next()?.parse().ok()?;
    let mut media = MediaSection::new(kind, words.next()?);
    media.port = port;
    for word in words.take(MAX_ATTRIBUTES) {
        media.formats.push(word.to_owned());
        if matches!(media.kind, SectionKind::Audio | SectionKind::Video) {
            let pt = parse_pt(word)?;
            if payload_mut(&mut media, pt).is_none() {
                media.payloads.push(static_payload(pt));
            }
        }
    }
    // RFC 8866 §9: at least one format.
    (!media.formats.is_empty()).then_some(media)
}

/// RFC 3551 §6: what a payload type means without `a=rtpmap`.
fn static_payload(pt: Pt) -> Payload {
    let (name, clock_rate) = match pt.0 {
        0 => ("PCMU", 8_000),
        8 => ("PCMA", 8_000),
        _ => ("", 0),
    };
    Payload {
        pt,
        name: name.to_owned(),
        clock_rate,
        channels: 1,
        fmtp: String::new(),
        feedback: Vec::new(),
    }
}

fn payload_mut(media: &mut MediaSection, pt: Pt) -> Option<&mut Payload> {
    media.payloads.iter_mut().find(|payload| payload.pt == pt)
}

fn parse_pt(text: &str) -> Option<Pt> {
    text.parse().ok().filter(|pt| *pt < 128).map(Pt)
}

fn split_pt(value: &str) -> Option<(Pt, &str)> {
    let (pt, rest) = value.split_once(' ')?;
    Some((parse_pt(pt)?, rest))
}

fn parse_direction(name: &str) -> Option<Direction> {
    match name {
        "sendrecv" => Some(Direction::SendRecv),
        "sendonly" => Some(Direction::SendOnly),
        "recvonly" => Some(Direction::RecvOnly),
        "inactive" => Some(Direction::Inactive),
        _ => None,
    }
}

fn parse_extmap(value: &str) -> Option<ExtMap> {
    let mut words = value.split_ascii_whitespace();
    let target = words.next()?;
    let (id, direction) = match target.split_once('/') {
        Some((id, direction)) => (id, Some(parse_direction(direction)?)),
        None => (target, None),
    };
    // RFC 8285 §5 allows 4096..=4351 as provisional ids; they mean "none yet", which 0 says too.
    let id: u16 = id.parse().ok()?;
    Some(ExtMap {
        id: u8::try_from(id).unwrap_or(0),
        direction,
        uri: words.next()?.to_owned(),
    })
}

fn parse_msid(value: &str) -> Option<Msid> {
    let mut words = value.split_ascii_whitespace();
    Some(Msid {
        stream: words.next()?.to_owned(),
        track: words.next().map(str::to_owned),
    })
}

fn parse_ssrc(value: &str) -> Option<SsrcAttribute> {
    let (ssrc, rest) = value.split_once(' ').unwrap_or((value, ""));
    let (name, value) = rest.split_once(':').unwrap_or((rest, ""));
    Some(SsrcAttribute {
        ssrc: Ssrc(ssrc.parse().ok()?),
        name: name.trim().to_owned(),
        value: value.trim().to_owned(),
    })
}

/// A simulcast group names three SSRCs, a retransmission group two; the rest of a longer line is not read.
const MAX_GROUP_SSRCS: usize = 8;

fn parse_ssrc_group(value: &str) -> Option<SsrcGroup> {
    let mut words = value.split_ascii_whitespace();
    let semantics = words.next()?.to_owned();
    let ssrcs = words
        .take(MAX_GROUP_SSRCS)
        .map(|word| word.parse().ok().map(Ssrc))
        .collect::<Option<Vec<_>>>()?;
    Some(SsrcGroup { semantics, ssrcs })
}

fn parse_rid(value: &str) -> Option<RidLine> {
    let mut words = value.split_ascii_whitespace();
    let rid = Rid::new(words.next()?)?;
    let sends = match words.next()? {
        "send" => true,
        "recv" => false,
        _ => return None,
    };
    Some(RidLine { rid, sends })
}

/// RFC 8853 §5.1: `a,b;~c`: alternatives by comma, `~` = begins paused.
fn parse_simulcast_list(list: &str) -> Vec<Rid> {
    list.split(';')
        .filter_map(|alternatives| Rid::new(alternatives.split(',').next()?.trim_start_matches('~')))
        .collect()
}

/// RFC 8839 §5.4: ice-char, up to 256 of them.
fn parse_ice_text(value: &str, least: usize) -> Option<String> {
    let fits = (least..=256).contains(&value.len());
    // Wider than ice-char: some stacks use `-` and `_`; anything printable is safe to compare and to hash.
    (fits && value.bytes().all(|byte| byte.is_ascii_graphic())).then(|| value.to_owned())
}

fn parse_fingerprint(value: &str) -> Option<Fingerprint> {
    let (hash, text) = value.split_once(' ')?;
    let bytes = text
        .trim()
        .split(':')
        .map(|pair| (pair.len() == 2).then(|| u8::from_str_radix(pair, 16).ok()).flatten())
        .collect::<Option<Vec<u8>>>()?;
    Some(Fingerprint {
        hash: hash.to_ascii_lowercase(),
        bytes,
    })
}
