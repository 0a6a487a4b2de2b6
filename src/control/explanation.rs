//! Who is sent what and why not more, for those who run the server: what the shard reports, with names instead of numbers,
//! and what has not come as far as the shard.

use livekit_protocol::{TrackInfo, TrackSource, VideoQuality};

use crate::media::edge::{Command, EncodingReport, Explanation, ReceptionReport, SubscriptionReport, TrackReport};
use crate::types::{
    Codec, Identity, MediaKind, ParticipantHandle, ParticipantId, RoomId, RoomName, TrackHandle, TrackId,
};

use super::administration::AdministrationError;
use super::layers::layers;
use super::output::Output;
use super::participant::Participant;
use super::publication::Publication;
use super::room::Room;

/// Explanations the shard was asked for and has not given. A room's shard answers in its next turn, so that more than
/// these are not waited for; the oldest is forgotten, and its answer passed over.
const MAX_QUERIES: usize = 16;

/// A room, or one participant's part of it.
#[derive(Clone, Debug)]
pub struct RoomExplanation {
    pub name: RoomName,
    pub sid: RoomId,
    /// In the order in which they joined.
    pub participants: Vec<ParticipantExplanation>,
    /// There are more subscriptions than one answer holds: ask by participant.
    pub truncated: bool,
}

#[derive(Clone, Debug)]
pub struct ParticipantExplanation {
    pub identity: Identity,
    pub sid: ParticipantId,
    /// None while nothing is sent to it.
    pub reception: Option<ReceptionReport>,
    pub receives: Vec<ReceivedTrack>,
    pub waits: Vec<WaitingTrack>,
    pub publishes: Vec<PublishedTrack>,
}

/// What a track is called.
#[derive(Clone, Debug)]
pub struct TrackNames {
    pub sid: TrackId,
    pub name: String,
    pub source: TrackSource,
    pub kind: MediaKind,
    pub codec: Option<Codec>,
    pub publisher: Identity,
    pub publisher_sid: ParticipantId,
    /// By spatial layer, as the publisher declared them.
    pub layers: Vec<LayerName>,
}

#[derive(Clone, Copy, Debug)]
pub struct LayerName {
    pub quality: VideoQuality,
    /// Pixels; 0 = not declared.
    pub width: u32,
    pub height: u32,
}

#[derive(Clone, Debug)]
pub struct ReceivedTrack {
    pub track: TrackNames,
    pub report: SubscriptionReport,
    /// What comes of it; only where one participant is asked about.
    pub arrives: Vec<EncodingReport>,
}

/// One of the codecs of a published track.
#[derive(Clone, Debug)]
pub struct PublishedTrack {
    pub track: TrackNames,
    pub report: TrackReport,
}

#[derive(Clone, Debug)]
pub struct WaitingTrack {
    pub track: TrackNames,
    pub reason: WaitingReason,
}

/// Why a participant that wants a track has no part in its forwarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitingReason {
    /// Its m-line is not there yet.
    Negotiating,
    /// The publisher was asked for the codec that this participant takes.
    AwaitingCodec,
    /// The publisher does not allow it.
    NotAllowed,
    /// It has as many tracks as `limit.subscription_limit_*` lets it have.
    Limit,
}

impl Room {
    /// Asks the shard. The answer comes as `Output::Explained` with the number this gives.
    ///
    /// # Errors
    /// `NoParticipant`.
    pub fn explain(&mut self, identity: Option<&Identity>) -> Result<u64, AdministrationError> {
        let participant = match identity {
            Some(identity) => {
                let known = self.identities.get(identity).copied();
                Some(known.ok_or(AdministrationError::NoParticipant)?)
            }
            None => None,
        };
        self.last_query += 1;
        let query = self.last_query;
        if self.queries.len() >= MAX_QUERIES {
            self.queries.pop_first();
        }
        self.queries.insert(query, participant);
        self.out.media(Command::Explain {
            room: self.handle,
            participant,
            query,
        });
        Ok(query)
    }

    pub(super) fn explained(&mut self, query: u64, report: Explanation) {
        let Some(asked) = self.queries.remove(&query) else {
            return;
        };
        let concerned = self.participants.values();
        let concerned = concerned.filter(|participant| asked.is_none_or(|asked| asked == participant.handle));
        let explanation = RoomExplanation {
            name: self.name.clone(),
            sid: self.sid.clone(),
            participants: concerned
                .map(|participant| self.explain_participant(participant, &report, asked.is_some()))
                .collect(),
            truncated: report.truncated,
        };
        self.out.push(Output::Explained {
            query,
            explanation: Box::new(explanation),
        });
    }

    fn explain_participant(
        &self,
        participant: &Participant,
        report: &Explanation,
        with_arrivals: bool,
    ) -> ParticipantExplanation {
        let handle = participant.handle;
        let sending = participant
            .subscriber
            .as_ref()
            .unwrap_or(&participant.publisher)
            .transport;
        let receptions = report.receptions.iter();
        let received = report.subscriptions.iter();
        let received = received.filter(|subscription| subscription.subscriber == handle);
        let published = report.tracks.iter().filter(|track| track.publisher == handle);
        let arrivals = |track: TrackHandle| {
            let known = report.tracks.iter().find(|report| report.track == track);
            known.filter(|_| with_arrivals).map(|report| report.encodings.clone())
        };
        ParticipantExplanation {
            identity: participant.identity.clone(),
            sid: participant.sid.clone(),
            reception: receptions
                .clone()
                .find(|reception| reception.participant == handle && reception.transport == sending)
                .cloned(),
            receives: received
                .filter_map(|subscription| {
                    Some(ReceivedTrack {
                        track: self.names(subscription.track)?,
                        report: subscription.clone(),
                        arrives: arrivals(subscription.track).unwrap_or_default(),
                    })
                })
                .collect(),
            waits: self.waiting(participant),
            publishes: published
                .filter_map(|track| {
                    Some(PublishedTrack {
                        track: self.names(track.track)?,
                        report: track.clone(),
                    })
                })
                .collect(),
        }
    }

    fn names(&self, handle: TrackHandle) -> Option<TrackNames> {
        let sid = self.track_handles.get(&handle)?;
        let publisher = self.participants.get(self.tracks.get(sid)?)?;
        let publication = publisher.publications.get(sid)?;
        Some(track_names(publisher, publication, publication.codec_of(handle)?))
    }

    /// What it wants and is not sent.
    fn waiting(&self, participant: &Participant) -> Vec<WaitingTrack> {
        let publication = |track: &TrackId| -> Option<(&Participant, &Publication)> {
            let publisher = self.participants.get(self.tracks.get(track)?)?;
            let publication = publisher.publications.get(track)?;
            (publication.live && publisher.handle != participant.handle).then_some((publisher, publication))
        };
        self.tracks
            .keys()
            .filter_map(|track| {
                let (publisher, publication) = publication(track)?;
                let subscription = participant.subscriptions.get(track);
                let (reason, codec) = match subscription {
                    Some(subscription) if subscription.sending.is_some() => return None,
                    Some(subscription) if subscription.bound.is_some() => {
                        (WaitingReason::AwaitingCodec, subscription.codec)
                    }
                    Some(subscription) => (WaitingReason::Negotiating, subscription.codec),
                    None => (self.kept_from(publisher, participant, publication)?, 0),
                };
                Some(WaitingTrack {
                    track: track_names(publisher, publication, codec),
                    reason,
                })
            })
            .collect()
    }
}

fn track_names(publisher: &Participant, publication: &Publication, codec: usize) -> TrackNames {
    let info: &TrackInfo = &publication.info;
    TrackNames {
        sid: publication.sid.clone(),
        name: info.name.clone(),
        source: info.source(),
        kind: publication.kind,
        codec: publication.codecs.get(codec).and_then(|codec| codec.sent()),
        publisher: publisher.identity.clone(),
        publisher_sid: publisher.sid.clone(),
        layers: layers(info, codec)
            .iter()
            .map(|layer| LayerName {
                quality: layer.quality(),
                width: layer.width,
                height: layer.height,
            })
            .collect(),
    }
}

/// Whom an explanation is about; None = everybody.
pub(super) type Asked = Option<ParticipantHandle>;
