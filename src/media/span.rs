//! A room's commands to the shards it spans, and their events back as if from one.
//!
//! Owns which of a room's participants, transports, tracks and subscriptions is on which shard, and makes a track known to
//! the shards that it is not published on. Driven by the room's task (or a test) between control, which knows no shards,
//! and the shards; holds no packet. With one shard commands and events go through as they are.
//!
//! Commands must reach a shard's queue in the order they are polled in; shards take what others relay to them only when
//! their queue is empty. So a frame never comes before the command that its sender acted on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::edge::{Command, DataParticipant, Event, Explanation, OpenTransport, Publish, Subscribe};
use crate::types::{
    DataTrackHandle, ParticipantHandle, RoomHandle, ShardIndex, SubscriptionHandle, TrackHandle, TransportHandle,
};

/// Explanations that are being collected. Control has fewer under way; what a shard that has ended does not answer is
/// forgotten oldest first.
const MAX_QUERIES: usize = 64;

/// Call order: `place` before the participant's first command; `handle_command`, then `poll_command` until None; `handle_event`, whose answer is for control, then
/// `poll_command` again.
#[derive(Debug)]
pub struct Span {
    home: ShardIndex,
    /// None until the room is opened.
    room: Option<OpenRoom>,
    /// Those that have the room, in order; `home` always.
    shards: Vec<ShardIndex>,
    participants: BTreeMap<ParticipantHandle, ShardIndex>,
    /// Whose, and where.
    transports: BTreeMap<TransportHandle, (ParticipantHandle, ShardIndex)>,
    tracks: BTreeMap<TrackHandle, PublishedTrack>,
    subscriptions: BTreeMap<SubscriptionHandle, SubscribedTrack>,
    data_tracks: BTreeMap<DataTrackHandle, DataTrack>,
    /// Calls of the server's own that are under way.
    calls: BTreeSet<String>,
    queries: BTreeMap<u64, Query>,
    commands: VecDeque<(ShardIndex, Command)>,
    is_bound: bool,
}

#[derive(Debug)]
struct OpenRoom {
    handle: RoomHandle,
    sif_trailer: Vec<u8>,
    audio_last_n: u16,
}

#[derive(Debug)]
struct PublishedTrack {
    shard: ShardIndex,
    publish: Box<Publish>,
}

#[derive(Clone, Copy, Debug)]
struct SubscribedTrack {
    shard: ShardIndex,
    transport: TransportHandle,
    track: TrackHandle,
}

#[derive(Debug)]
struct DataTrack {
    shard: ShardIndex,
    publisher: ParticipantHandle,
    publisher_handle: u16,
    subscribers: BTreeMap<ParticipantHandle, ShardIndex>,
}

impl DataTrack {
    fn has_subscriber_on(&self, shard: ShardIndex) -> bool {
        self.subscribers.values().any(|its| *its == shard)
    }
}

#[derive(Debug)]
struct Query {
    waiting: Vec<ShardIndex>,
    report: Box<Explanation>,
}

impl Span {
    /// `home` decides for the whole room what cannot be decided apart: who speaks, and who is heard.
    pub fn new(home: ShardIndex) -> Self {
        Self {
            home,
            room: None,
            shards: vec![home],
            participants: BTreeMap::new(),
            transports: BTreeMap::new(),
            tracks: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            data_tracks: BTreeMap::new(),
            calls: BTreeSet::new(),
            queries: BTreeMap::new(),
            commands: VecDeque::new(),
            is_bound: false,
        }
    }

    /// It is on more than one shard.
    pub fn is_apart(&self) -> bool {
        self.shards.len() > 1
    }

    /// Somebody or something from another room of its home is in it, so that it stays there.
    pub fn is_bound(&self) -> bool {
        self.is_bound
    }

    /// The participant goes to another room of the same shard, with all that is its own. Only while the room is on one.
    pub fn let_go(&mut self, participant: ParticipantHandle) {
        self.participants.remove(&participant);
        self.transports.retain(|_, (whose, _)| *whose != participant);
        self.tracks.retain(|_, track| track.publish.participant != participant);
        self.data_tracks.retain(|_, track| track.publisher != participant);
    }

    /// The shards that have the room.
    pub fn shards(&self) -> &[ShardIndex] {
        &self.shards
    }

    /// The next command, and for which shard.
    pub fn poll_command(&mut self) -> Option<(ShardIndex, Command)> {
        self.commands.pop_front()
    }

    /// Where a participant is served from its first transport on, unless it is served already. Others are at home.
    /// Returns where it is.
    pub fn place(&mut self, participant: ParticipantHandle, shard: ShardIndex) -> ShardIndex {
        let shard = if self.is_bound { self.home } else { shard };
        *self.participants.entry(participant).or_insert(shard)
    }

    /// A command of control's.
    pub fn handle_command(&mut self, command: Command) {
        match command {
            Command::OpenRoom {
                room,
                ref sif_trailer,
                audio_last_n,
            } => {
                self.room = Some(OpenRoom {
                    handle: room,
                    sif_trailer: sif_trailer.clone(),
                    audio_last_n,
                });
                self.send(self.home, command);
            }
            Command::CloseRoom { .. } => self.send_all(&command),
            Command::OpenTransport(open) => self.open_transport(open),
            Command::SetRemote { transport, .. }
            | Command::RestartIce { transport, .. }
            | Command::AddRemoteCandidate { transport, .. }
            | Command::UpdateReception { transport, .. } => self.send(self.of_transport(transport), command),
            Command::CloseTransport { transport } => {
                self.send(self.of_transport(transport), command);
                self.transports.remove(&transport);
                self.subscriptions.retain(|_, its| its.transport != transport);
            }
            Command::MoveTransport(ref its) => {
                self.is_bound = true;
                self.participants.insert(its.participant, self.home);
                self.transports.insert(its.transport, (its.participant, self.home));
                self.send(self.home, command);
            }
            Command::ShowTrack { .. } => {
                self.is_bound = true;
                self.send(self.home, command);
            }
            Command::Publish(publish) => self.publish(publish),
            Command::MuteTrack { track, muted } => {
                if let Some(track) = self.tracks.get_mut(&track) {
                    track.publish.muted = muted;
                }
                self.send_all(&command);
            }
            Command::Unpublish { track } => {
                self.tracks.remove(&track);
                self.subscriptions.retain(|_, its| its.track != track);
                self.send_all(&command);
            }
            Command::RequestKeyframe { track } => {
                let shard = self.tracks.get(&track).map_or(self.home, |track| track.shard);
                self.send(shard, command);
            }
            Command::Subscribe(subscribe) => self.subscribe(subscribe),
            Command::UpdateSubscription { subscription, .. } => self.send(self.of_subscription(subscription), command),
            Command::Unsubscribe { subscription } => {
                self.send(self.of_subscription(subscription), command);
                self.subscriptions.remove(&subscription);
            }
            Command::SetParticipant(participant) => self.set_participant(participant),
            Command::RemoveParticipant { participant, .. } => {
                self.send_all(&command);
                self.remove_participant(participant);
            }
            Command::SendData {
                room,
                to,
                reliable,
                packet,
            } => self.send_data(room, to, reliable, packet),
            Command::AwaitRpc { ref call, .. } => {
                self.calls.insert(call.clone());
                self.send_all(&command);
            }
            Command::EndRpc { ref call, .. } => {
                self.calls.remove(call);
                self.send_all(&command);
            }
            Command::PublishDataTrack {
                publisher,
                track,
                publisher_handle,
                ..
            } => {
                let shard = self.of_participant(publisher);
                let its = DataTrack {
                    shard,
                    publisher,
                    publisher_handle,
                    subscribers: BTreeMap::new(),
                };
                self.data_tracks.insert(track, its);
                self.send(shard, command);
            }
            Command::UnpublishDataTrack { track } => {
                let its = self.data_tracks.remove(&track);
                let mut shards: Vec<ShardIndex> =
                    its.iter().flat_map(|its| its.subscribers.values().copied()).collect();
                shards.push(its.map_or(self.home, |its| its.shard));
                shards.sort_unstable();
                shards.dedup();
                for shard in shards {
                    self.send(shard, command.clone());
                }
            }
            Command::SubscribeDataTrack { track, subscriber, .. } => {
                let shard = self.of_participant(subscriber);
                self.carry_data_track(track, subscriber, shard);
                self.send(shard, command);
            }
            Command::UnsubscribeDataTrack { track, subscriber } => {
                self.send(self.of_participant(subscriber), command);
                self.leave_data_track(track, subscriber);
            }
            Command::Explain { query, .. } => {
                while self.queries.len() >= MAX_QUERIES {
                    self.queries.pop_first();
                }
                let waiting = self.shards.clone();
                let report = Box::default();
                self.queries.insert(query, Query { waiting, report });
                self.send_all(&command);
            }
            // Made here only.
            Command::SpanRoom { .. } | Command::MirrorTrack { .. } | Command::RelayDataTrack { .. } => {}
        }
    }

    /// An event of a shard: what control is to be told, if anything.
    pub fn handle_event(&mut self, from: ShardIndex, event: Event) -> Option<Event> {
        match event {
            Event::TransportClosed { transport, .. } => {
                self.transports.remove(&transport);
                self.subscriptions.retain(|_, its| its.transport != transport);
                Some(event)
            }
            Event::Explanation { query, report, .. } => {
                let collected = self.queries.get_mut(&query)?;
                collected.waiting.retain(|shard| *shard != from);
                merge(&mut collected.report, *report);
                self.explained(query)
            }
            // What is left of it on other shards is of no use alone.
            Event::RoomPanicked { room } => {
                for shard in self.shards.clone() {
                    if shard != from {
                        self.send(shard, Command::CloseRoom { room });
                    }
                }
                Some(event)
            }
            event => Some(event),
        }
    }

    fn explained(&mut self, query: u64) -> Option<Event> {
        let room = self.room.as_ref()?.handle;
        if !self.queries.get(&query)?.waiting.is_empty() {
            return None;
        }
        let Query { report, .. } = self.queries.remove(&query)?;
        Some(Event::Explanation { room, query, report })
    }

    fn send(&mut self, shard: ShardIndex, command: Command) {
        self.commands.push_back((shard, command));
    }

    fn send_all(&mut self, command: &Command) {
        for at in 0..self.shards.len() {
            if let Some(shard) = self.shards.get(at) {
                self.commands.push_back((*shard, command.clone()));
            }
        }
    }

    /// A shard refuses, and counts, what names something unknown here too.
    fn of_transport(&self, transport: TransportHandle) -> ShardIndex {
        self.transports.get(&transport).map_or(self.home, |(_, shard)| *shard)
    }

    fn of_participant(&self, participant: ParticipantHandle) -> ShardIndex {
        self.participants.get(&participant).copied().unwrap_or(self.home)
    }

    fn of_subscription(&self, subscription: SubscriptionHandle) -> ShardIndex {
        self.subscriptions.get(&subscription).map_or(self.home, |its| its.shard)
    }

    fn open_transport(&mut self, open: Box<OpenTransport>) {
        // All transports of a participant are on one shard.
        let shard = *self.participants.entry(open.participant).or_insert(self.home);
        self.transports.insert(open.transport, (open.participant, shard));
        self.reach(shard);
        self.send(shard, Command::OpenTransport(open));
    }

    fn set_participant(&mut self, participant: Box<DataParticipant>) {
        let shard = *self.participants.entry(participant.participant).or_insert(self.home);
        self.reach(shard);
        self.send(shard, Command::SetParticipant(participant));
    }

    /// The room is on this shard from now on.
    fn reach(&mut self, shard: ShardIndex) {
        let Some(room) = &self.room else { return };
        if self.shards.contains(&shard) {
            return;
        }
        let (handle, sif_trailer, audio_last_n) = (room.handle, room.sif_trailer.clone(), room.audio_last_n);
        self.shards.push(shard);
        let open = Command::OpenRoom {
            room: handle,
            sif_trailer,
            audio_last_n,
        };
        self.send(shard, open);
        self.tell_span(handle);
        let calls: Vec<String> = self.calls.iter().cloned().collect();
        for call in calls {
            self.send(shard, Command::AwaitRpc { room: handle, call });
        }
        let mirrors = self.tracks.values().map(|track| Command::MirrorTrack {
            publish: track.publish.clone(),
            home: track.shard,
        });
        for mirror in mirrors.collect::<Vec<_>>() {
            self.send(shard, mirror);
        }
    }

    /// The newest shard first: what the others relay to it on hearing of it finds the room there.
    fn tell_span(&mut self, room: RoomHandle) {
        let (home, shards) = (self.home, self.shards.clone());
        for shard in shards.iter().rev() {
            let shards = shards.clone();
            self.send(*shard, Command::SpanRoom { room, home, shards });
        }
    }

    fn publish(&mut self, publish: Box<Publish>) {
        let shard = self.of_transport(publish.transport);
        self.send(shard, Command::Publish(publish.clone()));
        for at in 0..self.shards.len() {
            let Some(other) = self.shards.get(at).copied().filter(|other| *other != shard) else {
                continue;
            };
            let publish = publish.clone();
            self.send(other, Command::MirrorTrack { publish, home: shard });
        }
        self.tracks.insert(publish.track, PublishedTrack { shard, publish });
    }

    fn subscribe(&mut self, subscribe: Box<Subscribe>) {
        let shard = self.of_transport(subscribe.transport);
        let its = SubscribedTrack {
            shard,
            transport: subscribe.transport,
            track: subscribe.track,
        };
        self.subscriptions.insert(subscribe.subscription, its);
        self.send(shard, Command::Subscribe(subscribe));
    }

    /// The last one takes the room off its shard.
    fn remove_participant(&mut self, participant: ParticipantHandle) {
        let subscribed: Vec<DataTrackHandle> = self.data_tracks.keys().copied().collect();
        for track in subscribed {
            self.leave_data_track(track, participant);
        }
        self.data_tracks.retain(|_, track| track.publisher != participant);
        let Some(shard) = self.participants.remove(&participant) else {
            return;
        };
        let is_used = self.participants.values().any(|its| *its == shard);
        let Some(room) = self.room.as_ref().map(|room| room.handle) else {
            return;
        };
        if is_used || shard == self.home {
            return;
        }
        self.send(shard, Command::CloseRoom { room });
        self.shards.retain(|known| *known != shard);
        self.tracks.retain(|_, track| track.shard != shard);
        self.tell_span(room);
        // It has closed before it could answer.
        let queries: Vec<u64> = self.queries.keys().copied().collect();
        for query in queries {
            if let Some(query) = self.queries.get_mut(&query) {
                query.waiting.retain(|waiting| *waiting != shard);
            }
        }
    }

    fn send_data(&mut self, room: RoomHandle, to: Vec<ParticipantHandle>, reliable: bool, packet: Vec<u8>) {
        if to.is_empty() {
            return self.send_all(&Command::SendData {
                room,
                to,
                reliable,
                packet,
            });
        }
        for shard in self.shards.clone() {
            let to: Vec<ParticipantHandle> = to
                .iter()
                .copied()
                .filter(|participant| self.of_participant(*participant) == shard)
                .collect();
            if !to.is_empty() {
                let packet = packet.clone();
                self.send(
                    shard,
                    Command::SendData {
                        room,
                        to,
                        reliable,
                        packet,
                    },
                );
            }
        }
    }

    /// The track's packets come to the subscriber's shard from now on.
    fn carry_data_track(&mut self, track: DataTrackHandle, subscriber: ParticipantHandle, shard: ShardIndex) {
        let Some(room) = self.room.as_ref().map(|room| room.handle) else {
            return;
        };
        let Some(its) = self.data_tracks.get_mut(&track) else {
            return;
        };
        let is_carried = its.has_subscriber_on(shard) || its.shard == shard;
        its.subscribers.insert(subscriber, shard);
        let (home, publisher, publisher_handle) = (its.shard, its.publisher, its.publisher_handle);
        if is_carried {
            return;
        }
        self.send(
            shard,
            Command::PublishDataTrack {
                room,
                publisher,
                track,
                publisher_handle,
            },
        );
        let relayed = Command::RelayDataTrack {
            track,
            to: shard,
            relayed: true,
        };
        self.send(home, relayed);
    }

    fn leave_data_track(&mut self, track: DataTrackHandle, subscriber: ParticipantHandle) {
        let Some(its) = self.data_tracks.get_mut(&track) else {
            return;
        };
        let Some(shard) = its.subscribers.remove(&subscriber) else {
            return;
        };
        let home = its.shard;
        if home == shard || its.has_subscriber_on(shard) {
            return;
        }
        self.send(shard, Command::UnpublishDataTrack { track });
        let relayed = Command::RelayDataTrack {
            track,
            to: shard,
            relayed: false,
        };
        self.send(home, relayed);
    }
}

/// A track is reported by its own shard and by those that mirror it: the own one's report is the fuller.
fn merge(collected: &mut Explanation, report: Explanation) {
    collected.truncated |= report.truncated;
    collected.subscriptions.extend(report.subscriptions);
    collected.receptions.extend(report.receptions);
    for track in report.tracks {
        match collected.tracks.iter_mut().find(|known| known.track == track.track) {
            Some(known) => {
                let subscribers = known.subscribers + track.subscribers;
                if known.is_mirrored {
                    *known = track;
                }
                known.subscribers = subscribers;
            }
            None => collected.tracks.push(track),
        }
    }
}

#[cfg(test)]
mod tests;
