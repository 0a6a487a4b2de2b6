//! What WHIP (RFC 9725) says in descriptions and fragments, as a room's own words: its offer is one of a client with a
//! single connection, whose tracks are announced by what the offer sends.

use livekit_protocol::{AddTrackRequest, AudioTrackFeature, TrackSource, TrackType, VideoLayer, VideoQuality};

use crate::sdp::{MediaSection, Msid, SectionKind, SessionDescription};

/// Candidates taken from one description or fragment; a machine has one for each address.
const MAX_CANDIDATES: usize = 64;

/// A publisher's offer.
#[derive(Clone, Debug)]
pub struct WhipOffer {
    description: SessionDescription,
    /// One for each m-line that sends, under the name that its `a=msid` has.
    pub tracks: Vec<AddTrackRequest>,
    /// `candidate:…`, of a publisher that does not trickle.
    pub candidates: Vec<String>,
}

/// `application/trickle-ice-sdpfrag` (RFC 8840).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IceFragment {
    pub ufrag: String,
    pub pwd: String,
    pub candidates: Vec<String>,
}

impl WhipOffer {
    /// # Errors
    /// A text for the publisher.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut description = SessionDescription::parse(text).map_err(|error| error.to_string())?;
        let mut tracks = Vec::new();
        for (index, section) in description.media.iter_mut().enumerate() {
            let kind = match section.kind {
                SectionKind::Audio => TrackType::Audio,
                SectionKind::Video => TrackType::Video,
                _ => continue,
            };
            if section.is_rejected() || !section.direction.sends() {
                continue;
            }
            let cid = named(section, index);
            tracks.push(match kind {
                TrackType::Audio => audio(section, cid),
                _ => video(section, cid),
            });
        }
        if tracks.is_empty() {
            return Err("the offer sends nothing".to_owned());
        }
        Ok(Self {
            description,
            tracks,
            candidates: candidates(text),
        })
    }

    pub fn sdp(&self) -> String {
        self.description.to_string()
    }

    /// From now on with these credentials: an ICE restart (RFC 9725 §4.3.3).
    pub fn restart(&mut self, fragment: &IceFragment) {
        self.description.origin.version += 1;
        let media = self.description.media.iter_mut().map(|section| &mut section.transport);
        for transport in std::iter::once(&mut self.description.transport).chain(media) {
            if transport.ufrag.is_some() {
                transport.ufrag = Some(fragment.ufrag.clone());
                transport.pwd = Some(fragment.pwd.clone());
            }
        }
    }
}

impl IceFragment {
    /// None: it has no credentials, which every fragment begins with.
    pub fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| lines(text).find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        Some(Self {
            ufrag: value("a=ice-ufrag:")?,
            pwd: value("a=ice-pwd:")?,
            candidates: candidates(text),
        })
    }

    /// Of a whole description.
    pub fn of(description: &str) -> Option<Self> {
        Self::parse(description)
    }

    /// As the body of an answer. Everything is bundled: one m-line stands for all.
    pub fn write(&self, mid: &str) -> String {
        let Self { ufrag, pwd, candidates } = self;
        let mut text =
            format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:{mid}\r\n");
        for candidate in candidates {
            text += &format!("a={candidate}\r\n");
        }
        text + "a=end-of-candidates\r\n"
    }
}

/// The name that its AddTrack must have; given one where it has none.
fn named(section: &mut MediaSection, index: usize) -> String {
    let of_ssrc = || {
        let line = section.ssrcs.iter().find(|line| line.name == "msid")?;
        line.value.split(' ').nth(1).map(str::to_owned)
    };
    let known = section
        .msid
        .as_ref()
        .and_then(|msid| msid.track.clone())
        .or_else(of_ssrc);
    known.unwrap_or_else(|| {
        let track = format!("whip-{index}");
        section.msid = Some(Msid {
            stream: "whip".to_owned(),
            track: Some(track.clone()),
        });
        track
    })
}

fn audio(section: &MediaSection, cid: String) -> AddTrackRequest {
    let stereo = section.payloads.iter().any(|payload| {
        ["stereo", "sprop-stereo"]
            .iter()
            .any(|name| payload.parameter(name) == Some("1"))
    });
    AddTrackRequest {
        cid,
        r#type: TrackType::Audio as i32,
        source: TrackSource::Microphone as i32,
        audio_features: match stereo {
            true => vec![AudioTrackFeature::TfStereo as i32],
            false => Vec::new(),
        },
        ..Default::default()
    }
}

fn video(section: &MediaSection, cid: String) -> AddTrackRequest {
    let qualities = [VideoQuality::Low, VideoQuality::Medium, VideoQuality::High];
    let count = section.simulcast_send.len().clamp(1, qualities.len());
    // A single encoding is the best there is.
    let offered = match count {
        1 => &qualities[2..],
        count => &qualities[..count],
    };
    let layers = offered.iter().map(|quality| VideoLayer {
        quality: *quality as i32,
        ..Default::default()
    });
    AddTrackRequest {
        cid,
        r#type: TrackType::Video as i32,
        source: TrackSource::Camera as i32,
        layers: layers.collect(),
        ..Default::default()
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_end)
}

fn candidates(text: &str) -> Vec<String> {
    let found = lines(text)
        .filter_map(|line| line.strip_prefix("a="))
        .filter(|line| line.starts_with("candidate:"));
    found.take(MAX_CANDIDATES).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\na=ice-ufrag:abcd\r\n\
        a=ice-pwd:abcdefghijklmnopqrstuv\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=sendonly\r\na=rtpmap:111 opus/48000/2\r\n\
        a=fmtp:111 stereo=1\r\na=candidate:1 1 udp 1 192.0.2.1 5000 typ host\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=sendonly\r\na=msid:- picture\r\na=rtpmap:96 VP8/90000\r\n\
        a=rid:q send\r\na=rid:h send\r\na=simulcast:send q;h\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:2\r\na=recvonly\r\na=rtpmap:96 VP8/90000\r\n";

    #[test]
    fn what_an_offer_sends_is_announced() {
        let offer = WhipOffer::parse(OFFER).unwrap();
        let [sound, picture] = &offer.tracks[..] else {
            panic!("{:?}", offer.tracks)
        };
        assert_eq!(
            (sound.cid.as_str(), sound.source()),
            ("whip-0", TrackSource::Microphone)
        );
        assert_eq!(sound.audio_features, [AudioTrackFeature::TfStereo as i32]);
        assert_eq!((picture.cid.as_str(), picture.layers.len()), ("picture", 2));
        assert!(
            offer.sdp().contains("a=msid:whip whip-0\r\n"),
            "the m-line has the name too"
        );
        assert_eq!(offer.candidates, ["candidate:1 1 udp 1 192.0.2.1 5000 typ host"]);
        let nothing = OFFER.replace("sendonly", "recvonly");
        assert!(WhipOffer::parse(&nothing).is_err() && WhipOffer::parse("x").is_err());
    }

    #[test]
    fn a_restart_changes_the_credentials_and_nothing_else() {
        let mut offer = WhipOffer::parse(OFFER).unwrap();
        let before = offer.sdp();
        let text =
            "a=ice-ufrag:EFGH\r\na=ice-pwd:ABCDEFGHIJKLMNOPQRSTUV\r\nm=audio 9 X 0\r\na=mid:0\r\na=candidate:9 x\r\n";
        let fragment = IceFragment::parse(text).unwrap();
        assert_eq!(fragment.candidates, ["candidate:9 x"]);
        offer.restart(&fragment);
        let expected = before
            .replace("abcdefghijklmnopqrstuv", &fragment.pwd)
            .replace("abcd", "EFGH")
            .replace("o=- 1 1 ", "o=- 1 2 ");
        assert_eq!(offer.sdp(), expected);
        assert_eq!(IceFragment::parse(&fragment.write("0")), Some(fragment));
        assert_eq!(IceFragment::parse("a=candidate:1"), None);
    }
}
