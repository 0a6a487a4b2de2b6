//! The session's state and what offers and answers share.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::codecs::{self, OpusWishes};
use super::{BoundSender, NegotiationError, PeerConfig, Role, Sender};
use crate::control::MediaAddresses;
use crate::sdp::{
    Fingerprint, HostCandidate, MAX_SECTIONS, MediaSection, Msid, Origin, SectionKind, SessionDescription, Setup,
    SsrcAttribute, SsrcGroup, TransportAttributes,
};
use crate::types::{
    Codec, CodecParameters, DtlsRole, ExtensionMap, IceCredentials, MediaKind, Mid, NetProtocol, RemoteParameters, Rid,
    SubscriptionHandle,
};

/// Bytes of a data-channel message we take, as LiveKit says it.
const MAX_MESSAGE_SIZE: u32 = 65_535;
/// RFC 8841 §5.2: the SCTP port of WebRTC.
const SCTP_PORT: u16 = 5000;
/// Senders waiting for an m-line or holding one. More than there can be m-lines would never be bound; `add_sender`
/// refuses them.
const MAX_SENDERS: usize = MAX_SECTIONS;

/// One SDP session.
///
/// `Role::Publisher` and `Role::Single`: `handle_offer` for every offer of the client, in order. `Role::Subscriber`:
/// `create_offer`, then `handle_answer`; a new offer while one is outstanding replaces it, so wait for the answer
/// unless ICE restarts. `add_sender` and `remove_sender` may come at any time and take effect in the next
/// description of ours. A description that is refused changes nothing.
pub struct PeerConnection {
    pub(super) config: PeerConfig,
    /// Publish and subscribe codecs after `quirks`.
    pub(super) publish_codecs: Vec<Codec>,
    pub(super) subscribe_codecs: Vec<Codec>,
    /// Of the last description of ours; 0 before the first.
    pub(super) version: u64,
    /// In m-line order; never shrinks.
    pub(super) sections: Vec<Section>,
    /// In the order they were added; at most `MAX_SENDERS`.
    pub(super) senders: Vec<Sender>,
    pub(super) remote: Option<RemoteParameters>,
    /// `Role::Subscriber`: what our offers list, less what the client's answers have left out.
    pub(super) offered_audio: Vec<CodecParameters>,
    pub(super) offered_video: Vec<CodecParameters>,
    pub(super) offer_outstanding: bool,
    /// UDP candidates are kept to ourselves.
    only_tcp: bool,
    /// `Role::Single`: what the client's first receiving m-lines of each kind take.
    pub(super) receivable: Vec<Codec>,
}

/// What one m-line is used for.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) mid: Mid,
    pub(super) kind: SectionKind,
    /// Port 0 in the last exchange; it may come back under another mid.
    pub(super) rejected: bool,
    /// The client sends here.
    pub(super) received: Option<Received>,
    /// The client has sent here at some time: the m-line is its own and carries none of our senders.
    pub(super) published: bool,
    pub(super) sender: Option<SubscriptionHandle>,
    /// It has carried a sender: once that is gone the m-line is `inactive`, not merely unused.
    pub(super) carried: bool,
    /// What was last reported of `sender`.
    pub(super) reported: Option<BoundSender>,
}

#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) cid: Option<String>,
    /// None until the m-line is matched with an announced track.
    pub(super) wishes: Option<Wishes>,
}

/// What AddTrack asked for, kept for later offers of the same m-line.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    pub(super) codec: Option<Codec>,
    pub(super) red: bool,
    pub(super) opus: OpusWishes,
    pub(super) rids: Vec<Rid>,
}

impl Section {
    pub(super) fn new(mid: Mid, kind: SectionKind) -> Self {
        Self {
            mid,
            kind,
            rejected: false,
            received: None,
            published: false,
            sender: None,
            carried: false,
            reported: None,
        }
    }

    pub(super) fn media_kind(&self) -> Option<MediaKind> {
        match self.kind {
            SectionKind::Audio => Some(MediaKind::Audio),
            SectionKind::Video => Some(MediaKind::Video),
            SectionKind::Application | SectionKind::Other(_) => None,
        }
    }
}

impl PeerConnection {
    pub fn new(mut config: PeerConfig) -> Self {
        config.session_id &= i64::MAX as u64;
        config.candidates.truncate(MAX_CANDIDATES);
        config.tcp_candidates.truncate(MAX_CANDIDATES);
        let quirks = &config.quirks;
        let allowed =
            |codec: &Codec| !quirks.disabled_codecs.contains(codec) && (*codec != Codec::Red || !quirks.no_red);
        let publish_codecs = config
            .publish_codecs
            .iter()
            .copied()
            .filter(|codec| allowed(codec) && !quirks.disabled_publish_codecs.contains(codec))
            .collect();
        let subscribe_codecs: Vec<Codec> = config.subscribe_codecs.iter().copied().filter(allowed).collect();
        Self {
            offered_audio: codecs::offer_table(MediaKind::Audio, &subscribe_codecs),
            offered_video: codecs::offer_table(MediaKind::Video, &subscribe_codecs),
            publish_codecs,
            subscribe_codecs,
            version: 0,
            sections: Vec::new(),
            senders: Vec::new(),
            remote: None,
            offer_outstanding: false,
            only_tcp: false,
            receivable: Vec::new(),
            config,
        }
    }

    pub fn role(&self) -> Role {
        self.config.role
    }

    /// The credentials of our last description, or of the next one before there is any.
    pub fn local(&self) -> &IceCredentials {
        &self.config.local
    }

    /// Our last offer has no answer yet.
    pub fn is_offer_outstanding(&self) -> bool {
        self.offer_outstanding
    }

    /// Our candidates as `RTCIceCandidateInit.candidate` texts (`candidate:…`), for clients that want them trickled.
    /// Every description of ours lists them too.
    pub fn candidates(&self) -> Vec<String> {
        let list = |addresses: &[SocketAddr], protocol| {
            addresses
                .iter()
                .zip(0u16..)
                .map(|(address, index)| {
                    HostCandidate {
                        address: *address,
                        protocol,
                        index,
                        ufrag: self.config.local.ufrag.clone(),
                    }
                    .to_string()
                })
                .collect::<Vec<_>>()
        };
        let udp: &[_] = if self.only_tcp && self.has_tcp_candidates() {
            &[]
        } else {
            &self.config.candidates
        };
        let mut texts = list(udp, NetProtocol::Udp);
        texts.extend(list(&self.config.tcp_candidates, NetProtocol::Tcp));
        texts
    }

    /// Descriptions from now on name no UDP candidates, as long as there are others.
    pub fn prefer_tcp(&mut self, only_tcp: bool) {
        self.only_tcp = only_tcp;
    }

    /// Descriptions from now on name `fresh`, if those before named `old`.
    pub fn replace_candidates(&mut self, old: &MediaAddresses, fresh: &MediaAddresses) {
        let cut = |addresses: &[SocketAddr]| addresses.get(..MAX_CANDIDATES).unwrap_or(addresses).to_vec();
        let config = &mut self.config;
        if config.candidates == cut(&old.udp) && config.tcp_candidates == cut(&old.tcp) {
            (config.candidates, config.tcp_candidates) = (cut(&fresh.udp), cut(&fresh.tcp));
        }
    }

    pub fn has_tcp_candidates(&self) -> bool {
        !self.config.tcp_candidates.is_empty()
    }

    /// Queues a track for the next description. A known subscription is replaced, its m-line kept. False when there
    /// are as many senders as there can be m-lines (or in `Role::Publisher`): it was not added.
    pub fn add_sender(&mut self, sender: Sender) -> bool {
        if self.config.role == Role::Publisher {
            return false;
        }
        if let Some(known) = self
            .senders
            .iter_mut()
            .find(|known| known.subscription == sender.subscription)
        {
            *known = sender;
            return true;
        }
        if self.senders.len() >= MAX_SENDERS {
            return false;
        }
        self.senders.push(sender);
        true
    }

    /// Frees the sender's m-line; the client is told by the next description. False when there is no such sender.
    pub fn remove_sender(&mut self, subscription: SubscriptionHandle) -> bool {
        let known = self.senders.len();
        self.senders.retain(|sender| sender.subscription != subscription);
        for section in &mut self.sections {
            if section.sender == Some(subscription) {
                section.sender = None;
                section.reported = None;
            }
        }
        self.senders.len() != known
    }

    /// Puts a sender in the place of another, on whose m-line the next description of ours shows it.
    pub fn replace_sender(&mut self, old: SubscriptionHandle, sender: Sender) {
        let Some(known) = self.senders.iter_mut().find(|known| known.subscription == old) else {
            return;
        };
        let new = sender.subscription;
        *known = sender;
        for section in self.sections.iter_mut().filter(|section| section.sender == Some(old)) {
            section.sender = Some(new);
            section.reported = None;
        }
    }

    /// False: the client's descriptions have shown that it does not take the codec.
    pub fn may_receive(&self, codec: Codec) -> bool {
        let known: Vec<Codec> = match (self.config.role, codec.kind()) {
            (Role::Subscriber, MediaKind::Audio) => self.offered_audio.iter().map(|ours| ours.codec).collect(),
            (Role::Subscriber, MediaKind::Video) => self.offered_video.iter().map(|ours| ours.codec).collect(),
            (_, kind) => self
                .receivable
                .iter()
                .copied()
                .filter(|known| known.kind() == kind)
                .collect(),
        };
        let primary_block = codec == Codec::Red && known.contains(&Codec::Opus);
        // `Role::Single` before the first offer: anything is possible.
        (known.is_empty() && self.config.role != Role::Subscriber) || known.contains(&codec) || primary_block
    }

    /// mid → track id of every sender that has an m-line.
    pub fn mid_to_track(&self) -> HashMap<String, String> {
        mid_to_track(&self.sections, &self.senders)
    }

    /// How many audio and video senders have no m-line yet.
    pub fn outstanding(&self) -> (u32, u32) {
        let mut counts = (0, 0);
        for sender in unbound(&self.sections, &self.senders) {
            match sender.kind {
                MediaKind::Audio => counts.0 += 1,
                MediaKind::Video => counts.1 += 1,
            }
        }
        counts
    }

    /// How many audio and video m-lines the client has to add for the senders that have none: those beyond its spare
    /// ones, which its next offer brings anyway.
    pub fn missing_sections(&self) -> (u32, u32) {
        let reuse = !self.config.quirks.no_transceiver_reuse;
        let spare = |kind: MediaKind| {
            let free = self.sections.iter().filter(|section| {
                section.media_kind() == Some(kind) && section.is_free() && (reuse || !section.carried)
            });
            u32::try_from(free.count()).unwrap_or(u32::MAX)
        };
        let (audio, video) = self.outstanding();
        (
            audio.saturating_sub(spare(MediaKind::Audio)),
            video.saturating_sub(spare(MediaKind::Video)),
        )
    }

    /// A description of ours without m-lines. `bundle` lists the mids of the accepted ones, in order.
    pub(super) fn description(&self, bundle: Vec<String>) -> SessionDescription {
        SessionDescription {
            origin: Origin {
                session_id: self.config.session_id,
                version: self.version,
            },
            bundle: Some(bundle),
            // Always, whatever was offered: without it Chromium sends no dependency descriptor at all.
            extmap_allow_mixed: true,
            msid_semantic: true,
            ice_lite: self.config.ice_lite,
            transport: TransportAttributes {
                fingerprints: vec![Fingerprint {
                    hash: "sha-256".to_owned(),
                    bytes: self.config.fingerprint.to_vec(),
                }],
                ..TransportAttributes::default()
            },
            media: Vec::new(),
        }
    }

    /// `setup` and our ICE credentials, the same in every m-line.
    pub(super) fn transport_attributes(&self, setup: Setup) -> TransportAttributes {
        TransportAttributes {
            ufrag: Some(self.config.local.ufrag.clone()),
            pwd: Some(self.config.local.pwd.clone()),
            fingerprints: Vec::new(),
            setup: Some(setup),
            ice_options: Vec::new(),
        }
    }

    /// All candidates, in the m-line that stands for the bundle. They are known, so nobody needs to wait for trickle.
    pub(super) fn write_candidates(&self, media: &mut [MediaSection]) {
        if let Some(first) = media.iter_mut().find(|section| !section.is_rejected()) {
            first.candidates = self.candidates();
            first.end_of_candidates = !first.candidates.is_empty();
        }
    }

    pub(super) fn sender(&self, handle: SubscriptionHandle) -> Option<&Sender> {
        self.senders.iter().find(|sender| sender.subscription == handle)
    }

    /// What is new about the section's sender.
    pub(super) fn bind(
        &self,
        section: &mut Section,
        codecs: Vec<CodecParameters>,
        extensions: ExtensionMap,
    ) -> Option<BoundSender> {
        let handle = section.sender?;
        let sender = self.sender(handle)?;
        let with_rtx = codecs.iter().any(|parameters| parameters.rtx.is_some());
        let now = BoundSender {
            subscription: handle,
            mid: section.mid,
            ssrc: sender.ssrc,
            rtx_ssrc: sender.rtx_ssrc.filter(|_| with_rtx),
            codecs,
            extensions,
        };
        if section.reported.as_ref() == Some(&now) {
            return None;
        }
        section.reported = Some(now.clone());
        Some(now)
    }

    /// Compares the peer's parameters with its last description's. True = it restarts ICE.
    pub(super) fn check_remote(&self, remote: &RemoteParameters) -> Result<bool, NegotiationError> {
        let Some(known) = &self.remote else { return Ok(false) };
        if known.fingerprint != remote.fingerprint {
            return Err(NegotiationError::FingerprintChanged);
        }
        Ok(known.ice != remote.ice)
    }
}

/// More local addresses than any host is reached by; bounds the description. The most preferred are kept.
const MAX_CANDIDATES: usize = 32;

pub(super) fn mid_to_track(sections: &[Section], senders: &[Sender]) -> HashMap<String, String> {
    let tracks: HashMap<_, _> = senders
        .iter()
        .map(|sender| (sender.subscription, &sender.track))
        .collect();
    sections
        .iter()
        .filter_map(|section| {
            let track = tracks.get(&section.sender?)?;
            Some((section.mid.to_string(), track.as_str().to_owned()))
        })
        .collect()
}

/// The senders that have no m-line, in the order they were added.
pub(super) fn unbound<'a>(sections: &[Section], senders: &'a [Sender]) -> impl Iterator<Item = &'a Sender> + use<'a> {
    let bound: std::collections::HashSet<_> = sections.iter().filter_map(|section| section.sender).collect();
    senders
        .iter()
        .filter(move |sender| !bound.contains(&sender.subscription))
}

pub(super) fn dtls_setup(role: DtlsRole) -> Setup {
    match role {
        DtlsRole::Active => Setup::Active,
        DtlsRole::Passive => Setup::Passive,
    }
}

/// The data-channel m-line. Nothing of the peer's is repeated but its mid: other attributes are promises.
pub(super) fn application_section(mid: Mid, protocol: &str, transport: TransportAttributes) -> MediaSection {
    MediaSection {
        formats: vec!["webrtc-datachannel".to_owned()],
        mid: Some(mid),
        transport,
        sctp_port: Some(SCTP_PORT),
        max_message_size: Some(MAX_MESSAGE_SIZE),
        ..MediaSection::new(SectionKind::Application, protocol)
    }
}

/// The identification of a track we send, as LiveKit's clients read it: participant and track from the stream id, and
/// for older ones the same again per SSRC.
pub(super) fn write_sender(sender: &Sender, with_rtx: bool, media: &mut MediaSection) {
    let track = token(sender.track.as_str());
    let stream = sender.stream.as_deref().map_or_else(|| track.clone(), token);
    // LiveKit: clients take the participant from the part before `|`.
    let stream = format!("{}|{stream}", token(sender.publisher.as_str()));
    let rtx = sender.rtx_ssrc.filter(|_| with_rtx);
    if let Some(rtx) = rtx {
        media.ssrc_groups.push(SsrcGroup {
            semantics: "FID".to_owned(),
            ssrcs: vec![sender.ssrc, rtx],
        });
    }
    let cname = token(&sender.cname);
    for ssrc in [Some(sender.ssrc), rtx].into_iter().flatten() {
        let lines = [
            ("cname", cname.clone()),
            ("msid", format!("{stream} {track}")),
            ("mslabel", stream.clone()),
            ("label", track.clone()),
        ];
        media.ssrcs.extend(lines.into_iter().map(|(name, value)| SsrcAttribute {
            ssrc,
            name: name.to_owned(),
            value,
        }));
    }
    media.msid = Some(Msid {
        stream,
        track: Some(track),
    });
}

/// Stream names come from publishers: a space or a line break in one would write attributes of its own.
fn token(text: &str) -> String {
    let clean: String = text
        .chars()
        .take(256)
        .map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c })
        .collect();
    if clean.is_empty() { "-".to_owned() } else { clean }
}
