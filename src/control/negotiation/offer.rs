//! `Role::Subscriber`: our offers, and the client's answers to them.

use super::codecs;
use super::extensions;
use super::peer::{self, Section};
use super::remote;
use super::{AnswerOutcome, NegotiationError, PeerConnection, Role, Sender};
use crate::sdp::{Direction, MAX_SECTIONS, MediaSection, SectionKind, SessionDescription, Setup};
use crate::types::{Codec, CodecParameters, ExtensionMap, IceCredentials, MediaKind, Mid, SubscriptionHandle};

/// The kinds of m-line in our offers.
const MEDIA_PROTOCOL: &str = "UDP/TLS/RTP/SAVPF";
const DATA_PROTOCOL: &str = "UDP/DTLS/SCTP";

impl PeerConnection {
    /// Gives every waiting sender an m-line, freed ones first, lowest first, and describes the session. The first
    /// offer opens with the data-channel m-line. `ice_restart`: our credentials from now on.
    pub fn create_offer(&mut self, ice_restart: Option<IceCredentials>) -> Result<String, NegotiationError> {
        if self.config.role != Role::Subscriber {
            return Err(NegotiationError::WrongRole);
        }
        if let Some(local) = ice_restart {
            self.config.local = local;
        }
        if self.sections.is_empty() {
            self.push_section(SectionKind::Application);
        }
        let waiting: Vec<(SubscriptionHandle, MediaKind)> = peer::unbound(&self.sections, &self.senders)
            .map(|sender| (sender.subscription, sender.kind))
            .collect();
        for (subscription, kind) in waiting {
            if let Some(section) = self.section_for(kind) {
                section.sender = Some(subscription);
                section.carried = true;
                section.reported = None;
            }
        }
        self.version += 1;
        self.offer_outstanding = true;
        Ok(self.describe_offer().to_string())
    }

    /// The lowest free m-line of the kind, or a new one. None when there can be no more: the sender keeps waiting.
    fn section_for(&mut self, kind: MediaKind) -> Option<&mut Section> {
        let reuse = !self.config.quirks.no_transceiver_reuse;
        let free = self.sections.iter().position(|section| {
            section.media_kind() == Some(kind)
                && section.sender.is_none()
                && !section.rejected
                && (reuse || !section.carried)
        });
        let index = match free {
            Some(index) => index,
            None => self.push_section(codecs::section_kind(kind))?,
        };
        self.sections.get_mut(index)
    }

    fn push_section(&mut self, kind: SectionKind) -> Option<usize> {
        let index = self.sections.len();
        if index >= MAX_SECTIONS {
            return None;
        }
        let mid = Mid::new(&index.to_string())?;
        self.sections.push(Section::new(mid, kind));
        Some(index)
    }

    fn describe_offer(&self) -> SessionDescription {
        let bundle = self
            .sections
            .iter()
            .filter(|section| !section.rejected)
            .map(|section| section.mid.to_string());
        let mut description = self.description(bundle.collect());
        description.media = self
            .sections
            .iter()
            .map(|section| self.describe_section(section))
            .collect();
        self.write_candidates(&mut description.media);
        description
    }

    fn describe_section(&self, section: &Section) -> MediaSection {
        let mut transport = self.transport_attributes(Setup::Actpass);
        if self.config.warp {
            transport.ice_options = remote::SPED_OPTIONS.map(str::to_owned).to_vec();
        }
        let Some(kind) = section.media_kind() else {
            return peer::application_section(section.mid, DATA_PROTOCOL, transport);
        };
        let mut media = MediaSection::new(section.kind.clone(), MEDIA_PROTOCOL);
        media.mid = Some(section.mid);
        let sender = section.sender.and_then(|handle| self.sender(handle));
        codecs::write(&self.offered_codecs(kind, sender), &mut media);
        if section.rejected || media.formats.is_empty() {
            media.port = 0;
            media.direction = Direction::Inactive;
            if media.formats.is_empty() {
                // RFC 8866 §9: an m-line has a format, even a rejected one.
                media.formats.push("0".to_owned());
            }
            return media;
        }
        media.transport = transport;
        media.rtcp_mux = true;
        media.rtcp_rsize = true;
        media.extensions = extensions::write(&extensions::offer_map(kind));
        match sender {
            Some(sender) => {
                let with_rtx = media.payloads.iter().any(|payload| payload.name == "rtx");
                peer::write_sender(sender, with_rtx, &mut media);
                // LiveKit: clients were only ever offered `sendrecv`, and `recvonly` once the track is gone.
                media.direction = Direction::SendRecv;
            }
            None => media.direction = Direction::RecvOnly,
        }
        media
    }

    fn offered_codecs(&self, kind: MediaKind, sender: Option<&Sender>) -> Vec<CodecParameters> {
        let mut codecs = match kind {
            MediaKind::Audio => self.offered_audio.clone(),
            MediaKind::Video => self.offered_video.clone(),
        };
        if let Some(sender) = sender.filter(|sender| sender.kind == MediaKind::Audio) {
            codecs::set_opus_fmtp(&mut codecs, &codecs::opus_to_client(sender.stereo));
            let redundant =
                sender.codec == Codec::Red && codecs.iter().any(|parameters| parameters.codec == Codec::Red);
            for opus in codecs.iter_mut().filter(|parameters| parameters.codec == Codec::Opus) {
                opus.nack = !redundant;
            }
        }
        codecs
    }

    pub fn handle_answer(&mut self, sdp: &str) -> Result<AnswerOutcome, NegotiationError> {
        if self.config.role != Role::Subscriber {
            return Err(NegotiationError::WrongRole);
        }
        if !self.offer_outstanding {
            return Err(NegotiationError::NoOfferOutstanding);
        }
        let description = SessionDescription::parse(sdp)?;
        self.check_answer(&description)?;
        let bundled = remote::bundled(&description);
        let established = self.remote.as_ref().map(|remote| remote.dtls_role);
        let mut remote = remote::parameters(&description, &bundled, established)?;
        remote.sped &= self.config.warp;
        let ice_restart = self.check_remote(&remote)?;

        // Nothing is refused from here on.
        self.remote = Some(remote.clone());
        self.offer_outstanding = false;
        let mut bound = Vec::new();
        let mut rejected = Vec::new();
        let mut sections = std::mem::take(&mut self.sections);
        for ((section, media), member) in sections.iter_mut().zip(&description.media).zip(bundled) {
            let Some(kind) = section.media_kind() else { continue };
            if section.rejected || !member {
                section.rejected = true;
                rejected.extend(section.sender);
                continue;
            }
            let (accepted, map) = self.accept_section(kind, section, media);
            match accepted {
                Ok(codecs) => bound.extend(self.bind(section, codecs, map)),
                Err(sender) => rejected.extend(sender),
            }
        }
        self.sections = sections;
        for subscription in &rejected {
            self.remove_sender(*subscription);
        }
        Ok(AnswerOutcome {
            remote,
            ice_restart,
            bound,
            rejected,
            mid_to_track: self.mid_to_track(),
        })
    }

    /// RFC 3264 §6: one m-line for each offered one, in order, of the same kind.
    fn check_answer(&self, description: &SessionDescription) -> Result<(), NegotiationError> {
        let (expected, got) = (self.sections.len(), description.media.len());
        if expected != got {
            return Err(NegotiationError::SectionCount { expected, got });
        }
        for (index, (section, media)) in self.sections.iter().zip(&description.media).enumerate() {
            if media.kind != section.kind {
                return Err(NegotiationError::KindChanged(section.mid));
            }
            if let Some(got) = media.mid.filter(|mid| *mid != section.mid) {
                let expected = section.mid;
                return Err(NegotiationError::MidMismatch { index, expected, got });
            }
        }
        Ok(())
    }

    /// The codecs the client takes on this m-line, or the sender it refuses there.
    fn accept_section(
        &mut self,
        kind: MediaKind,
        section: &Section,
        answer: &MediaSection,
    ) -> (Result<Vec<CodecParameters>, Option<SubscriptionHandle>>, ExtensionMap) {
        let map = extensions::intersect_answer(&extensions::offer_map(kind), answer);
        let transport_cc = map.id(crate::types::Extension::TransportCc).is_some();
        let sender = section.sender.and_then(|handle| self.sender(handle));
        let offered = self.offered_codecs(kind, sender);
        let codecs = codecs::intersect_answer(&offered, answer, transport_cc);
        let refused =
            sender.filter(|sender| !answer.direction.receives() || !codecs::can_receive(&codecs, sender.codec));
        let result = match refused {
            Some(sender) => Err(Some(sender.subscription)),
            None => Ok(codecs.clone()),
        };
        // LiveKit: what one answer leaves out is not offered again, on any m-line.
        if !codecs.is_empty() {
            let table = match kind {
                MediaKind::Audio => &mut self.offered_audio,
                MediaKind::Video => &mut self.offered_video,
            };
            table.retain(|ours| codecs.iter().any(|kept| kept.pt == ours.pt));
        }
        (result, map)
    }
}
