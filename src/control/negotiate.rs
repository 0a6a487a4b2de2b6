//! Offers, answers and candidates: between a client's descriptions and commands to the shard.
//!
//! Commands go out before the description that lets the client use what they set up.

use std::collections::HashMap;
use std::time::Instant;

use livekit_protocol::participant_info::State;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{
    DisconnectReason, MediaSectionsRequirement, SessionDescription, SignalTarget, TrickleRequest, request_response,
};

use crate::media::edge::Command;
use crate::types::{IceCredentials, ParticipantHandle, RemoteParameters};

use super::participant::Participant;
use super::room::Room;
use super::settings::{EARLY_PUBLISH_DELAY, MAX_CANDIDATE_TEXT, MAX_EARLY_CANDIDATES};

/// Which of a participant's peer connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The one the client offers; the only one in single form.
    Publisher,
    Subscriber,
}

impl Room {
    /// The client's offer, in either form.
    pub(super) fn handle_offer(&mut self, now: Instant, handle: ParticipantHandle, offer: SessionDescription) {
        let publishes = !self.pending_tracks(handle).is_empty();
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        // In order, should there be another one.
        let held = participant.held_offer.take();
        let is_early =
            participant.is_single() && participant.publisher.remote.is_some() && participant.state != State::Active;
        if held.is_none() && publishes && is_early && participant.client.waits_after_early_answer() {
            participant.held_offer = Some((now + EARLY_PUBLISH_DELAY, offer));
            return;
        }
        if let Some((_, held)) = held {
            self.answer_offer(now, handle, held);
        }
        self.answer_offer(now, handle, offer);
    }

    pub(super) fn answer_offer(&mut self, now: Instant, handle: ParticipantHandle, offer: SessionDescription) {
        let pending = self.pending_tracks(handle);
        let fresh = self.ids.ice_credentials();
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let wishes: Vec<_> = pending.iter().map(|pending| pending.wish.clone()).collect();
        let answer = match participant
            .publisher
            .negotiator
            .handle_offer(&offer.sdp, &wishes, fresh)
        {
            Ok(answer) => answer,
            Err(error) => {
                tracing::info!(participant = %participant.sid, %error, "offer refused");
                return self.full_reconnect(now, handle, DisconnectReason::StateMismatch);
            }
        };
        if answer.ice_restart {
            participant.publisher.local = participant.publisher.negotiator.local().clone();
            participant.publisher.candidates_sent = false;
        }
        let local = participant.publisher.local.clone();
        let transport = participant.publisher.transport;
        self.open_transport(handle, false);
        if answer.ice_restart {
            self.out.media(Command::RestartIce {
                transport,
                local,
                remote: Some(answer.remote.ice.clone()),
            });
        }
        self.set_remote(handle, Side::Publisher, answer.remote);

        let published = self.bind_received(now, handle, &pending, &answer.received, &answer.stopped);
        for subscription in &answer.unbound {
            self.unbind_sender(handle, *subscription);
        }
        let sent = self.bind_senders(now, handle, &answer.bound);
        self.send_description(
            handle,
            Side::Publisher,
            SessionDescription {
                r#type: "answer".into(),
                sdp: answer.sdp,
                id: offer.id,
                mid_to_track_id: answer.mid_to_track,
            },
        );
        self.ask_for_sections(handle);
        self.has_arrived(now, handle);
        self.announce_all(now, handle, published);
        self.tell_publishers(now, handle, sent);
        for subscription in answer.rejected {
            self.try_next_codec(now, subscription);
        }
    }

    /// The client's answer to our offer (dual form); one in single form answers nothing and is ignored.
    pub(super) fn handle_answer(&mut self, now: Instant, handle: ParticipantHandle, answer: &SessionDescription) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let Some(peer) = &mut participant.subscriber else {
            return;
        };
        if answer.id != 0 && answer.id != peer.turn.offer_id {
            tracing::debug!(participant = %participant.sid, id = answer.id, "answer to another offer");
        }
        let outcome = match peer.negotiator.handle_answer(&answer.sdp) {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::info!(participant = %participant.sid, %error, "answer refused");
                return self.full_reconnect(now, handle, DisconnectReason::StateMismatch);
            }
        };
        peer.turn.answered(now);
        self.set_remote(handle, Side::Subscriber, outcome.remote);
        let sent = self.bind_senders(now, handle, &outcome.bound);
        self.tell_publishers(now, handle, sent);
        for subscription in outcome.rejected {
            self.try_next_codec(now, subscription);
        }
        // An offer made before it came is followed by another.
        let is_settled = |participant: &Participant| {
            let subscriber = participant.subscriber.as_ref();
            subscriber.is_some_and(|peer| peer.turn.is_settled())
        };
        if self.participants.get(&handle).is_some_and(is_settled) {
            self.has_arrived(now, handle);
        }
    }

    /// The peer's description reaches the shard when it says something new.
    fn set_remote(&mut self, handle: ParticipantHandle, side: Side, remote: RemoteParameters) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let peer = match &mut participant.subscriber {
            Some(peer) if side == Side::Subscriber => peer,
            _ => &mut participant.publisher,
        };
        let transport = peer.transport;
        if peer.remote.as_ref() != Some(&remote) {
            peer.remote = Some(remote.clone());
            self.out.media(Command::SetRemote {
                transport,
                remote: Box::new(remote),
            });
        }
        for candidate in std::mem::take(&mut peer.early_candidates) {
            self.out.media(Command::AddRemoteCandidate { transport, candidate });
        }
    }

    /// The first offer of the dual form: data channels only; what exists already follows in the next one.
    pub(super) fn open_subscriber(&mut self, now: Instant, handle: ParticipantHandle) {
        // Otherwise it is opened when there is something to send.
        if self
            .participants
            .get(&handle)
            .is_some_and(|participant| participant.subscriber_primary)
        {
            self.send_offer(now, handle, None);
        }
    }

    /// After a resume the network path may have changed: the server's connection restarts ICE.
    pub(super) fn restart_subscriber(&mut self, now: Instant, handle: ParticipantHandle) {
        let fresh = self.ids.ice_credentials();
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        participant.publisher.turn.resume(now);
        let Some(peer) = participant.subscriber.as_mut().filter(|peer| peer.opened) else {
            return;
        };
        peer.turn.settled();
        peer.local = fresh.clone();
        peer.candidates_sent = false;
        let transport = peer.transport;
        self.out.media(Command::RestartIce {
            transport,
            local: fresh.clone(),
            remote: None,
        });
        self.send_offer(now, handle, Some(fresh));
    }

    fn send_offer(&mut self, now: Instant, handle: ParticipantHandle, restart: Option<IceCredentials>) {
        self.open_transport(handle, true);
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let Some(peer) = &mut participant.subscriber else {
            return;
        };
        let Ok(sdp) = peer.negotiator.create_offer(restart) else {
            return;
        };
        peer.turn.offered(now);
        let offer = SessionDescription {
            r#type: "offer".into(),
            sdp,
            id: peer.turn.offer_id,
            mid_to_track_id: peer.negotiator.mid_to_track(),
        };
        self.send_description(handle, Side::Subscriber, offer);
    }

    /// A description of ours, followed by our candidates when its credentials are new.
    fn send_description(&mut self, handle: ParticipantHandle, side: Side, mut description: SessionDescription) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let single = participant.is_single();
        let (peer, target) = match &mut participant.subscriber {
            Some(peer) if side == Side::Subscriber => (peer, SignalTarget::Subscriber),
            _ => (&mut participant.publisher, SignalTarget::Publisher),
        };
        let candidates = match std::mem::replace(&mut peer.candidates_sent, true) {
            true => Vec::new(),
            false => peer.negotiator.candidates(),
        };
        if side == Side::Publisher && !single {
            description.mid_to_track_id = HashMap::new();
        }
        let message = match side {
            Side::Subscriber => Message::Offer(description),
            Side::Publisher => Message::Answer(description),
        };
        self.out.signal(participant, message);
        let last = candidates.len().saturating_sub(1);
        for (index, candidate) in candidates.into_iter().enumerate() {
            let init = serde_json::json!({ "candidate": candidate, "sdpMid": "", "sdpMLineIndex": 0 });
            let trickle = TrickleRequest {
                candidate_init: init.to_string(),
                target: target as i32,
                r#final: index == last,
            };
            self.out.signal(participant, Message::Trickle(trickle));
        }
    }

    /// The time to negotiate what has changed has come.
    pub(super) fn negotiate_due(&mut self, now: Instant, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let single = participant.is_single();
        let connected = participant.connection.is_some();
        let peer = participant.sending_peer();
        if peer.turn.due.is_none_or(|due| due > now) {
            return;
        }
        if !connected {
            return peer.turn.postpone();
        }
        if !peer.turn.take(now) {
            return;
        }
        if single {
            // Even without new m-lines: the client answers with an offer, which the changes ride on.
            self.send_sections_requirement(handle, true);
        } else {
            self.send_offer(now, handle, None);
        }
    }

    /// Single form, after an answer: m-lines that are still missing are asked for; all other changes rode on it.
    fn ask_for_sections(&mut self, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        if !participant.is_single() {
            return;
        }
        participant.publisher.turn.settled();
        self.send_sections_requirement(handle, false);
    }

    /// `before_offer`: the client's spare m-lines will serve first, and it is told even if they suffice.
    fn send_sections_requirement(&mut self, handle: ParticipantHandle, before_offer: bool) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let peer = &mut participant.publisher;
        let missing = match before_offer {
            true => peer.negotiator.missing_sections(),
            // What the offer just answered had no m-line for.
            false => peer.negotiator.outstanding(),
        };
        // What the client was asked for already is on its way with its next offer.
        let requested = (
            peer.turn.requested.0.min(missing.0),
            peer.turn.requested.1.min(missing.1),
        );
        let requirement = MediaSectionsRequirement {
            num_audios: missing.0 - requested.0,
            num_videos: missing.1 - requested.1,
        };
        peer.turn.requested = missing;
        if before_offer || requirement.num_audios + requirement.num_videos > 0 {
            self.out
                .signal(participant, Message::MediaSectionsRequirement(requirement));
        }
    }

    /// Something about what is sent to this participant has to be negotiated.
    pub(super) fn want_negotiation(&mut self, now: Instant, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        // In single form the client speaks first; its first offer carries everything until then.
        if !participant.is_single() || participant.publisher.remote.is_some() {
            participant.sending_peer().turn.want(now);
        }
    }

    pub(super) fn handle_trickle(&mut self, handle: ParticipantHandle, request: TrickleRequest) {
        let candidate = serde_json::from_str::<serde_json::Value>(&request.candidate_init).ok();
        let candidate = candidate
            .as_ref()
            .and_then(|init| init.get("candidate"))
            .and_then(|candidate| candidate.as_str());
        let Some(candidate) = candidate.map(str::to_owned) else {
            return self.refuse(
                handle,
                0,
                request_response::Reason::UnclassifiedError,
                "invalid candidate",
                Some(request_response::Request::Trickle(request)),
            );
        };
        // An empty text is the end of candidates, which changes nothing here.
        if candidate.is_empty() || candidate.len() > MAX_CANDIDATE_TEXT {
            return;
        }
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let peer = match &mut participant.subscriber {
            Some(peer) if request.target() == SignalTarget::Subscriber => peer,
            _ => &mut participant.publisher,
        };
        if peer.remote.is_some() {
            let transport = peer.transport;
            self.out.media(Command::AddRemoteCandidate { transport, candidate });
        } else if peer.early_candidates.len() < MAX_EARLY_CANDIDATES {
            peer.early_candidates.push(candidate);
        }
    }
}
