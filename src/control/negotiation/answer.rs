//! `Role::Publisher` and `Role::Single`: the client's offers, and our answers to them.

use std::collections::{HashSet, VecDeque};

use super::codecs::{self, OpusWishes};
use super::encodings;
use super::extensions::{self, Flow};
use super::peer::{self, Received, Section, Wishes};
use super::remote;
use super::{Answer, BoundSender, NegotiationError, PeerConnection, PendingTrack, ReceivedSection, Role, Sender};
use crate::sdp::{Direction, MediaSection, RidLine, SectionKind, SessionDescription, TransportAttributes};
use crate::types::{
    Codec, CodecParameters, DtlsRole, Extension, IceCredentials, MediaKind, Mid, SctpInit, SubscriptionHandle,
};

impl PeerConnection {
    /// Answers an offer. `pending` are the announced tracks that no m-line carries yet, oldest first. `fresh` becomes
    /// our credentials if the offer restarts ICE (`Answer::ice_restart`), and is not used otherwise.
    pub fn handle_offer(
        &mut self,
        sdp: &str,
        pending: &[PendingTrack],
        fresh: IceCredentials,
    ) -> Result<Answer, NegotiationError> {
        if self.config.role == Role::Subscriber {
            return Err(NegotiationError::WrongRole);
        }
        let offer = SessionDescription::parse(sdp)?;
        let bundled = remote::bundled(&offer);
        let established = self.remote.as_ref().map(|remote| remote.dtls_role);
        let mut remote = remote::parameters(&offer, &bundled, established)?;
        // As DTLS client we would send data before a str0m of today is ready for it: half a second of DTLS and two of SCTP.
        if self.config.snap && remote.dtls_role == DtlsRole::Passive {
            remote.sctp_init = self.sctp_init(&offer);
        }
        // Settled with the association.
        remote.sped &= self.config.warp && self.remote.as_ref().is_none_or(|known| known.sped);
        let ice_restart = self.check_remote(&remote)?;
        let mut plan = Plan::new(&self.sections, &offer, &bundled)?;

        // Nothing is refused from here on.
        if ice_restart {
            self.config.local = fresh;
        }
        self.remote = Some(remote.clone());
        self.learn_receivable(&offer);
        let matched = plan.match_pending(pending);
        let rejected = self.bind_senders(&mut plan, &offer);

        let mut transport = self.transport_attributes(peer::dtls_setup(remote.dtls_role));
        if remote.sped
            && let Some(levels) = remote::levels(&offer, &bundled)
        {
            transport.ice_options = remote::sped_options(levels);
        }
        let mut received = Vec::new();
        let mut bound = Vec::new();
        let mut media = Vec::with_capacity(offer.media.len());
        for ((section, offered), matched) in plan.sections.iter_mut().zip(&offer.media).zip(matched) {
            let answered = self.answer_section(section, offered, matched, &transport);
            received.extend(answered.received);
            bound.extend(answered.bound);
            media.push(answered.media);
        }
        let before = std::mem::replace(&mut self.sections, plan.sections);
        for subscription in &rejected {
            self.remove_sender(*subscription);
        }

        self.version += 1;
        let accepted = media
            .iter()
            .filter(|section| !section.is_rejected())
            .filter_map(|section| section.mid);
        let mut description = self.description(accepted.map(|mid| mid.to_string()).collect());
        description.media = media;
        self.write_candidates(&mut description.media);
        Ok(Answer {
            sdp: description.to_string(),
            remote,
            ice_restart,
            received,
            stopped: stopped(&before, &self.sections),
            bound,
            unbound: self.unbound_since(&before),
            rejected,
            mid_to_track: self.mid_to_track(),
        })
    }

    /// What makes the SCTP handshake unnecessary: settled with the association, that is when its m-line first comes.
    fn sctp_init(&self, offer: &SessionDescription) -> Option<SctpInit> {
        match &self.remote {
            Some(remote) if remote.sctp_max_message_size.is_some() => remote.sctp_init.clone(),
            _ => {
                let offered = offer.media.iter().find(|media| is_data_channel(media))?;
                SctpInit::answering(offered.sctp_init.as_deref()?, &self.config.local.pwd)
            }
        }
    }

    fn learn_receivable(&mut self, offer: &SessionDescription) {
        for kind in [MediaKind::Audio, MediaKind::Video] {
            if self.receivable.iter().any(|codec| codec.kind() == kind) {
                continue;
            }
            let sections = offer.media.iter().filter(|media| {
                media.kind == codecs::section_kind(kind) && is_media(media) && media.direction.receives()
            });
            for section in sections {
                for parameters in codecs::select(section, &self.subscribe_codecs, true) {
                    if !self.receivable.contains(&parameters.codec) {
                        self.receivable.push(parameters.codec);
                    }
                }
            }
        }
    }

    /// The senders that had an m-line before and wait for one now.
    fn unbound_since(&self, before: &[Section]) -> Vec<SubscriptionHandle> {
        let waiting: HashSet<_> = peer::unbound(&self.sections, &self.senders)
            .map(|sender| sender.subscription)
            .collect();
        before
            .iter()
            .filter_map(|section| section.sender)
            .filter(|sender| waiting.contains(sender))
            .collect()
    }

    /// Gives waiting senders the lowest free m-lines that take their codec, and returns those that none takes.
    fn bind_senders(&self, plan: &mut Plan, offer: &SessionDescription) -> Vec<SubscriptionHandle> {
        if self.config.role != Role::Single {
            return Vec::new();
        }
        let reuse = !self.config.quirks.no_transceiver_reuse;
        let (mut free_audio, mut free_video) = (VecDeque::new(), VecDeque::new());
        for (index, (section, media)) in plan.sections.iter().zip(&offer.media).enumerate() {
            let takes = media.direction == Direction::RecvOnly && section.is_free();
            if !takes || (section.carried && !reuse) {
                continue;
            }
            let queue = match section.media_kind() {
                Some(MediaKind::Audio) => &mut free_audio,
                Some(MediaKind::Video) => &mut free_video,
                None => continue,
            };
            queue.push_back((index, codecs::select(media, &self.subscribe_codecs, true)));
        }
        let mut rejected = Vec::new();
        for sender in peer::unbound(&plan.sections, &self.senders) {
            let queue = match sender.kind {
                MediaKind::Audio => &mut free_audio,
                MediaKind::Video => &mut free_video,
            };
            if queue.is_empty() {
                continue;
            }
            let fitting = queue
                .iter()
                .position(|(_, codecs)| codecs::can_receive(codecs, sender.codec));
            let Some((index, _)) = fitting.and_then(|position| queue.remove(position)) else {
                rejected.push(sender.subscription);
                continue;
            };
            if let Some(section) = plan.sections.get_mut(index) {
                section.sender = Some(sender.subscription);
                section.carried = true;
                section.reported = None;
            }
        }
        rejected
    }

    fn answer_section(
        &self,
        section: &mut Section,
        offered: &MediaSection,
        matched: Option<usize>,
        transport: &TransportAttributes,
    ) -> Answered {
        let kind = match (section.rejected, section.media_kind()) {
            (false, Some(kind)) => kind,
            (false, None) if is_data_channel(offered) => {
                let mut media = peer::application_section(section.mid, &offered.protocol, transport.clone());
                media.direction = Direction::SendRecv;
                let init = self.remote.as_ref().and_then(|remote| remote.sctp_init.as_ref());
                media.sctp_init = init.map(|init| init.local.clone());
                return Answered::only(media);
            }
            _ => return Answered::only(reject(section, offered)),
        };
        let flow = if section.received.is_some() {
            Flow::FromClient
        } else {
            Flow::ToClient
        };
        let (map, lines) = extensions::select(offered, kind, flow);
        let transport_cc = map.id(Extension::TransportCc).is_some();
        let allowed = match flow {
            Flow::FromClient => &self.publish_codecs,
            Flow::ToClient => &self.subscribe_codecs,
        };
        let mut kept = codecs::select(offered, allowed, transport_cc);
        let mut media = MediaSection::new(section.kind.clone(), &offered.protocol);
        media.mid = Some(section.mid);
        media.transport = transport.clone();
        media.rtcp_mux = true;
        media.rtcp_rsize = offered.rtcp_rsize;
        media.extensions = lines;

        let mut answered = Answered::only(media);
        match &section.received {
            Some(received) => {
                let wishes = received.wishes.clone().unwrap_or_default();
                self.apply_wishes(&wishes, &mut kept);
                if kept.is_empty() {
                    return Answered::only(reject(section, offered));
                }
                let media = &mut answered.media;
                media.direction = Direction::RecvOnly;
                media.simulcast_recv = encodings::offered_rids(offered);
                media.rids = media
                    .simulcast_recv
                    .iter()
                    .map(|rid| RidLine {
                        rid: *rid,
                        sends: false,
                    })
                    .collect();
                if offered.simulcast_send.is_empty() {
                    media.simulcast_recv.clear();
                }
                answered.received = Some(ReceivedSection {
                    mid: section.mid,
                    kind,
                    cid: received.cid.clone(),
                    pending: matched,
                    codecs: kept.clone(),
                    extensions: map,
                    encodings: encodings::encodings(offered, &wishes.rids),
                });
            }
            None => {
                let sender = section.sender.and_then(|handle| self.sender(handle));
                let stereo = sender.is_some_and(|sender| sender.stereo);
                codecs::set_opus_fmtp(&mut kept, &codecs::opus_to_client(stereo));
                if kept.is_empty() {
                    return Answered::only(reject(section, offered));
                }
                answered.media.direction = self.sending_direction(section, offered, sender);
                if let Some(sender) = sender {
                    let with_rtx = kept.iter().any(|parameters| parameters.rtx.is_some());
                    peer::write_sender(sender, with_rtx, &mut answered.media);
                    answered.bound = self.bind(section, kept.clone(), map);
                }
            }
        }
        codecs::write(&kept, &mut answered.media);
        answered
    }

    /// LiveKit: an m-line that was never used is answered `sendonly` (without a track); one whose track is gone,
    /// `inactive`.
    fn sending_direction(&self, section: &Section, offered: &MediaSection, sender: Option<&Sender>) -> Direction {
        let takes = self.config.role == Role::Single && offered.direction.receives();
        let spare = !section.carried && !section.published;
        Direction::new(takes && (sender.is_some() || spare), false)
    }

    /// The codec to be sent goes first; clients that do not heed the order get nothing else.
    fn apply_wishes(&self, wishes: &Wishes, kept: &mut Vec<CodecParameters>) {
        codecs::set_opus_fmtp(kept, &codecs::opus_from_client(wishes.opus));
        let preferred = if wishes.red { Some(Codec::Red) } else { wishes.codec };
        let Some(codec) = preferred.filter(|codec| kept.iter().any(|parameters| parameters.codec == *codec)) else {
            return;
        };
        codecs::prefer(kept, codec);
        if self.config.quirks.preferred_codec_only && codec.kind() == MediaKind::Video {
            kept.retain(|parameters| parameters.codec == codec);
        }
    }
}

struct Answered {
    media: MediaSection,
    received: Option<ReceivedSection>,
    bound: Option<BoundSender>,
}

impl Answered {
    fn only(media: MediaSection) -> Self {
        Self {
            media,
            received: None,
            bound: None,
        }
    }
}

/// RFC 3264 §6: port 0, the rest as offered. Whatever the m-line carried is gone.
fn reject(section: &mut Section, offered: &MediaSection) -> MediaSection {
    section.rejected = true;
    section.received = None;
    section.sender = None;
    section.reported = None;
    let mut media = MediaSection::new(section.kind.clone(), &offered.protocol);
    media.mid = Some(section.mid);
    media.port = 0;
    media.formats = offered.formats.iter().take(1).cloned().collect();
    media.direction = Direction::Inactive;
    media
}

/// RFC 8841 §4: the older `DTLS/SCTP 5000` form is not supported.
fn is_data_channel(media: &MediaSection) -> bool {
    media.kind == SectionKind::Application
        && media.protocol.ends_with("DTLS/SCTP")
        && media.formats.iter().any(|format| format == "webrtc-datachannel")
}

fn is_media(media: &MediaSection) -> bool {
    matches!(media.kind, SectionKind::Audio | SectionKind::Video) && media.protocol.ends_with("RTP/SAVPF")
}

/// The m-lines whose track of before is not received any more: the client stopped, or sends another one there.
fn stopped(before: &[Section], now: &[Section]) -> Vec<Mid> {
    let tracks: HashSet<_> = now
        .iter()
        .filter_map(|section| Some((section.mid, section.received.as_ref()?.cid.as_deref())))
        .collect();
    before
        .iter()
        .filter_map(|section| Some((section.mid, section.received.as_ref()?.cid.as_deref())))
        .filter(|track| !tracks.contains(track))
        .map(|(mid, _)| mid)
        .collect()
}

/// The m-lines as the offer leaves them, before anything is committed.
struct Plan {
    sections: Vec<Section>,
}

impl Plan {
    fn new(known: &[Section], offer: &SessionDescription, bundled: &[bool]) -> Result<Self, NegotiationError> {
        // RFC 3264 §8: m-lines are never removed.
        if offer.media.len() < known.len() {
            return Err(NegotiationError::SectionCount {
                expected: known.len(),
                got: offer.media.len(),
            });
        }
        let mut plan = Self {
            sections: Vec::with_capacity(offer.media.len()),
        };
        let mut mids = HashSet::new();
        for (index, (media, member)) in offer.media.iter().zip(bundled).enumerate() {
            let mid = media.mid.ok_or(NegotiationError::MissingMid(index))?;
            if !mids.insert(mid) {
                return Err(NegotiationError::DuplicateMid(mid));
            }
            let section = match known.get(index) {
                Some(section) if section.mid == mid => {
                    if section.kind != media.kind {
                        return Err(NegotiationError::KindChanged(mid));
                    }
                    section.clone()
                }
                // RFC 8829 §5.2.2: a stopped m-line is recycled under a new mid.
                _ => Section::new(mid, media.kind.clone()),
            };
            plan.push(section, media, *member);
        }
        Ok(plan)
    }

    fn push(&mut self, mut section: Section, media: &MediaSection, member: bool) {
        section.rejected = !member || !(is_media(media) || is_data_channel(media));
        let sends = !section.rejected && is_media(media) && media.direction.sends();
        if section.rejected || !media.direction.receives() || sends {
            section.sender = None;
            section.reported = None;
        }
        if sends {
            let cid = encodings::cid(media);
            let same = section.received.as_ref().is_some_and(|received| received.cid == cid);
            if !same {
                section.received = Some(Received { cid, wishes: None });
            }
            section.published = true;
        } else {
            section.received = None;
        }
        self.sections.push(section);
    }

    /// For every m-line the index of the announced track it carries: by cid, then (LiveKit: Firefox may rename tracks)
    /// the first one of the kind that no m-line names.
    fn match_pending(&mut self, pending: &[PendingTrack]) -> Vec<Option<usize>> {
        let mut taken = HashSet::new();
        let mut matched: Vec<Option<usize>> = Vec::with_capacity(self.sections.len());
        for section in &mut self.sections {
            let kind = section.media_kind();
            let named = section.received.as_mut().and_then(|received| {
                let cid = received.cid.as_deref()?;
                let (index, track) = pending
                    .iter()
                    .enumerate()
                    .find(|(_, track)| Some(track.kind) == kind && names(track, cid))?;
                received.wishes = Some(wishes(track, Some(cid)));
                Some(index)
            });
            taken.extend(named);
            matched.push(named);
        }
        for (section, matched) in self.sections.iter_mut().zip(&mut matched) {
            let kind = section.media_kind();
            let Some(received) = section.received.as_mut().filter(|received| received.wishes.is_none()) else {
                continue;
            };
            let first = pending
                .iter()
                .enumerate()
                .find(|(index, track)| Some(track.kind) == kind && !taken.contains(index));
            if let Some((index, track)) = first {
                received.wishes = Some(wishes(track, None));
                taken.insert(index);
                *matched = Some(index);
            }
        }
        matched
    }
}

fn names(track: &PendingTrack, cid: &str) -> bool {
    track.cid == cid || track.codecs.iter().any(|codec| codec.cid == cid)
}

fn wishes(track: &PendingTrack, cid: Option<&str>) -> Wishes {
    let by_cid = track
        .codecs
        .iter()
        .find(|codec| Some(codec.cid.as_str()) == cid)
        .map(|codec| codec.codec);
    Wishes {
        codec: by_cid.or(track.codec),
        red: track.red && track.kind == MediaKind::Audio,
        opus: OpusWishes {
            dtx: track.dtx,
            stereo: track.stereo,
        },
        rids: track.rids.clone(),
    }
}

impl Section {
    pub(super) fn is_free(&self) -> bool {
        !self.rejected && self.sender.is_none() && self.received.is_none() && !self.published
    }
}
