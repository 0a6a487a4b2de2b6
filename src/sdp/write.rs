//! Model to text: CRLF lines, in the order browsers and LiveKit's clients are used to.

use std::fmt::{self, Display, Formatter};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::model::{
    Direction, MediaSection, Payload, SectionKind, SessionDescription, Setup, SsrcAttribute, TransportAttributes,
};
use crate::types::Rid;

impl Display for SessionDescription {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("v=0\r\n")?;
        let origin = self.origin;
        write!(f, "o=- {} {} IN IP4 0.0.0.0\r\n", origin.session_id, origin.version)?;
        f.write_str("s=-\r\nt=0 0\r\n")?;
        if self.extmap_allow_mixed {
            f.write_str("a=extmap-allow-mixed\r\n")?;
        }
        if let Some(mids) = &self.bundle {
            f.write_str("a=group:BUNDLE")?;
            for mid in mids {
                write!(f, " {mid}")?;
            }
            f.write_str("\r\n")?;
        }
        if self.msid_semantic {
            f.write_str("a=msid-semantic:WMS *\r\n")?;
        }
        if self.ice_lite {
            f.write_str("a=ice-lite\r\n")?;
        }
        self.transport.fmt(f)?;
        self.media.iter().try_for_each(|media| media.fmt(f))
    }
}

impl Display for TransportAttributes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(setup) = self.setup {
            let word = match setup {
                Setup::Actpass => "actpass",
                Setup::Active => "active",
                Setup::Passive => "passive",
                Setup::Holdconn => "holdconn",
            };
            write!(f, "a=setup:{word}\r\n")?;
        }
        if let Some(ufrag) = &self.ufrag {
            write!(f, "a=ice-ufrag:{ufrag}\r\n")?;
        }
        if let Some(pwd) = &self.pwd {
            write!(f, "a=ice-pwd:{pwd}\r\n")?;
        }
        if !self.ice_options.is_empty() {
            write!(f, "a=ice-options:{}\r\n", self.ice_options.join(" "))?;
        }
        for fingerprint in &self.fingerprints {
            write!(f, "a=fingerprint:{} ", fingerprint.hash)?;
            for (index, byte) in fingerprint.bytes.iter().enumerate() {
                let colon = if index == 0 { "" } else { ":" };
                write!(f, "{colon}{byte:02X}")?;
            }
            f.write_str("\r\n")?;
        }
        Ok(())
    }
}

impl Display for MediaSection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            SectionKind::Audio => "audio",
            SectionKind::Video => "video",
            SectionKind::Application => "application",
            SectionKind::Other(kind) => kind,
        };
        write!(f, "m={kind} {} {}", self.port, self.protocol)?;
        for format in &self.formats {
            write!(f, " {format}")?;
        }
        f.write_str("\r\nc=IN IP4 0.0.0.0\r\n")?;
        if let Some(mid) = self.mid {
            write!(f, "a=mid:{mid}\r\n")?;
        }
        self.transport.fmt(f)?;
        if self.bundle_only {
            f.write_str("a=bundle-only\r\n")?;
        }
        if self.rtcp_mux {
            f.write_str("a=rtcp-mux\r\n")?;
        }
        if self.rtcp_rsize {
            f.write_str("a=rtcp-rsize\r\n")?;
        }
        self.payloads.iter().try_for_each(|payload| payload.fmt(f))?;
        for extension in &self.extensions {
            write!(f, "a=extmap:{}", extension.id)?;
            if let Some(direction) = extension.direction {
                write!(f, "/{}", direction.as_str())?;
            }
            write!(f, " {}\r\n", extension.uri)?;
        }
        if let Some(port) = self.sctp_port {
            write!(f, "a=sctp-port:{port}\r\n")?;
        }
        if let Some(size) = self.max_message_size {
            write!(f, "a=max-message-size:{size}\r\n")?;
        }
        if let Some(init) = &self.sctp_init {
            write!(f, "a=sctp-init:{}\r\n", STANDARD.encode(init))?;
        }
        for group in &self.ssrc_groups {
            write!(f, "a=ssrc-group:{}", group.semantics)?;
            for ssrc in &group.ssrcs {
                write!(f, " {ssrc}")?;
            }
            f.write_str("\r\n")?;
        }
        self.ssrcs.iter().try_for_each(|ssrc| ssrc.fmt(f))?;
        if let Some(msid) = &self.msid {
            write!(f, "a=msid:{}", msid.stream)?;
            if let Some(track) = &msid.track {
                write!(f, " {track}")?;
            }
            f.write_str("\r\n")?;
        }
        for line in &self.rids {
            write!(f, "a=rid:{} {}\r\n", line.rid, if line.sends { "send" } else { "recv" })?;
        }
        self.write_simulcast(f)?;
        for candidate in &self.candidates {
            write!(f, "a={candidate}\r\n")?;
        }
        if self.end_of_candidates {
            f.write_str("a=end-of-candidates\r\n")?;
        }
        write!(f, "a={}\r\n", self.direction.as_str())
    }
}

impl MediaSection {
    fn write_simulcast(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.simulcast_send.is_empty() && self.simulcast_recv.is_empty() {
            return Ok(());
        }
        f.write_str("a=simulcast:")?;
        write_rids(f, "send", &self.simulcast_send)?;
        if !self.simulcast_send.is_empty() && !self.simulcast_recv.is_empty() {
            f.write_str(" ")?;
        }
        write_rids(f, "recv", &self.simulcast_recv)?;
        f.write_str("\r\n")
    }
}

fn write_rids(f: &mut Formatter<'_>, word: &str, rids: &[Rid]) -> fmt::Result {
    for (index, rid) in rids.iter().enumerate() {
        if index == 0 {
            write!(f, "{word} {rid}")?;
        } else {
            write!(f, ";{rid}")?;
        }
    }
    Ok(())
}

impl Display for Payload {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            return Ok(());
        }
        write!(f, "a=rtpmap:{} {}/{}", self.pt, self.name, self.clock_rate)?;
        if self.channels > 1 {
            write!(f, "/{}", self.channels)?;
        }
        f.write_str("\r\n")?;
        if !self.fmtp.is_empty() {
            write!(f, "a=fmtp:{} {}\r\n", self.pt, self.fmtp)?;
        }
        for feedback in &self.feedback {
            write!(f, "a=rtcp-fb:{} {feedback}\r\n", self.pt)?;
        }
        Ok(())
    }
}

impl Display for SsrcAttribute {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "a=ssrc:{}", self.ssrc)?;
        if !self.name.is_empty() {
            write!(f, " {}", self.name)?;
        }
        if !self.value.is_empty() {
            write!(f, ":{}", self.value)?;
        }
        f.write_str("\r\n")
    }
}

impl Direction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }
}
