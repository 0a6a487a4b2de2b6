//! What control's commands change: rooms, transports, bindings, subscriptions.
//!
//! Called by `Shard::handle_command`; holds nothing of its own.

use std::time::Instant;

use super::{Shard, contain};
use crate::media::allocation::Allocation;
use crate::media::edge::{Command, Event, MoveTransport, OpenTransport, Publish, Subscribe};
use crate::media::fanout::Fanout;
use crate::media::loudest::Loudest;
use crate::media::outside::{Place, TimerKey};
use crate::media::transport::MediaTransport;
use crate::rtc::{self, TransportConfig};
use crate::types::{CloseReason, IceCredentials, RoomHandle, SubscriptionHandle, TransportHandle};

impl Shard {
    /// None = it names something gone.
    pub(super) fn apply(&mut self, now: Instant, command: Command) -> Option<()> {
        match command {
            Command::OpenRoom {
                room,
                sif_trailer,
                audio_last_n,
            } => self.open_room(room, sif_trailer, audio_last_n),
            Command::CloseRoom { room } => self.close_room(now, room),
            Command::OpenTransport(open) => self.open_transport(now, *open),
            Command::SetRemote { transport, remote } => {
                self.with_transport(now, transport, |transport| transport.rtc.set_remote(now, &remote))
            }
            Command::RestartIce {
                transport,
                local,
                remote,
            } => self.restart_ice(now, transport, local, remote),
            Command::AddRemoteCandidate { transport, candidate } => self.with_transport(now, transport, |transport| {
                transport.rtc.add_remote_candidate(now, &candidate);
            }),
            Command::CloseTransport { transport } => {
                self.with_transport(now, transport, |transport| transport.rtc.close(now))
            }
            Command::MoveTransport(its) => self.move_transport(now, *its),
            Command::UpdateReception { transport, reception } => {
                self.with_transport(now, transport, |transport| transport.reception = reception)?;
                let slot = *self.index.transports.get(&transport)?;
                self.allocation_timeout(now, slot);
                Some(())
            }
            Command::Publish(publish) => self.publish(now, *publish),
            Command::ShowTrack { source, publish } => self.show(now, source, *publish),
            Command::MuteTrack { track, muted } => {
                let place = *self.index.tracks.get(&track)?;
                self.in_room(now, place.room, |fanout, outside| {
                    fanout.mute(outside, place.slot, muted)
                })
            }
            Command::Unpublish { track } => {
                let place = *self.index.tracks.get(&track)?;
                self.in_room(now, place.room, |fanout, outside| fanout.unpublish(outside, place.slot))
            }
            Command::RequestKeyframe { track } => {
                let place = *self.index.tracks.get(&track)?;
                self.in_room(now, place.room, |fanout, outside| {
                    fanout.request_keyframes(outside, place.slot);
                })
            }
            Command::Subscribe(subscribe) => self.subscribe(now, *subscribe),
            Command::UpdateSubscription { subscription, settings } => {
                let place = self.subscription(subscription)?;
                self.in_room(now, place.room, |fanout, outside| {
                    fanout.update_subscription(outside, place.slot, settings);
                })
            }
            Command::Unsubscribe { subscription } => {
                let place = self.subscription(subscription)?;
                self.in_room(now, place.room, |fanout, outside| {
                    fanout.end_subscription(outside, place.slot);
                })
            }
            Command::SetParticipant(ref participant) => self.data_command(now, participant.room, command),
            Command::RemoveParticipant { room, .. }
            | Command::SendData { room, .. }
            | Command::AwaitRpc { room, .. }
            | Command::EndRpc { room, .. }
            | Command::PublishDataTrack { room, .. } => self.data_command(now, room, command),
            Command::SpanRoom { room, home, shards } => {
                let slot = *self.index.rooms.get(&room)?;
                self.in_room(now, slot, |fanout, outside| fanout.span(outside, home, &shards))
            }
            Command::MirrorTrack { publish, home } => {
                if let Some(place) = self.index.tracks.get(&publish.track).copied() {
                    return self.in_room(now, place.room, |fanout, outside| {
                        fanout.republish(outside, place.slot, *publish);
                    });
                }
                let slot = *self.index.rooms.get(&publish.room)?;
                self.in_room(now, slot, |fanout, outside| fanout.mirror(outside, *publish, home))
            }
            Command::RelayDataTrack { track, .. } => {
                let room = *self.index.data_tracks.get(&track)?;
                self.in_room(now, room, |fanout, outside| fanout.relay_data_track(outside, &command))?
            }
            Command::Explain {
                room,
                participant,
                query,
            } => {
                let slot = *self.index.rooms.get(&room)?;
                self.in_room(now, slot, |fanout, outside| fanout.explain(outside, participant, query))
            }
            Command::UnpublishDataTrack { track }
            | Command::SubscribeDataTrack { track, .. }
            | Command::UnsubscribeDataTrack { track, .. } => {
                let room = *self.index.data_tracks.get(&track)?;
                self.in_room(now, room, |fanout, outside| fanout.on_data_command(outside, command))?
            }
        }
    }

    fn data_command(&mut self, now: Instant, room: RoomHandle, command: Command) -> Option<()> {
        let room = *self.index.rooms.get(&room)?;
        self.in_room(now, room, |fanout, outside| fanout.on_data_command(outside, command))?
    }

    fn subscription(&self, handle: SubscriptionHandle) -> Option<Place> {
        self.index.subscriptions.get(&handle).copied()
    }

    fn open_room(&mut self, handle: RoomHandle, sif_trailer: Vec<u8>, audio_last_n: u16) -> Option<()> {
        if self.index.rooms.contains_key(&handle) {
            return None;
        }
        let timers = &mut self.timers;
        let settings = self.config.speakers;
        let slot = self.rooms.insert_with(|slot| {
            let timer = timers.insert(TimerKey::Room(slot));
            let mut fanout = Fanout::new(handle, slot, sif_trailer, settings, timer);
            fanout.loudest = (audio_last_n > 0).then(|| Loudest::new(usize::from(audio_last_n)));
            fanout
        });
        self.index.rooms.insert(handle, slot);
        Some(())
    }

    fn close_room(&mut self, now: Instant, handle: RoomHandle) -> Option<()> {
        let room = self.index.rooms.remove(&handle)?;
        for slot in self.transports_of(room) {
            if let Some(transport) = self.transports.get_mut(slot) {
                transport.rtc.close(now);
            }
            self.after_input(now, slot);
        }
        self.forget_room(room);
        Some(())
    }

    fn open_transport(&mut self, now: Instant, open: OpenTransport) -> Option<()> {
        let room = *self.index.rooms.get(&open.room)?;
        if self.index.transports.contains_key(&open.transport) || self.ufrags.contains_key(&open.local.ufrag) {
            return None;
        }
        let ufrag = open.local.ufrag.clone();
        let config = TransportConfig {
            local: open.local,
            ice_lite: open.ice_lite,
            ice_controlling: open.ice_controlling,
            local_addresses: self.config.addresses.clone(),
            open_channels: open.open_channels,
        };
        let mut rtc = rtc::Transport::new(config, &self.config.identity, now);
        rtc.set_patience(self.config.patience);
        let timers = &mut self.timers;
        let slot = self.transports.insert_with(|slot| {
            let timer = timers.insert(TimerKey::Transport(slot));
            let allocation = Allocation::new(timers.insert(TimerKey::Allocation(slot)));
            let mut transport =
                MediaTransport::new(open.transport, open.participant, room, rtc, (timer, allocation), now);
            transport.ufrags.push(ufrag.clone());
            transport.learns_from_sent = !open.ice_lite;
            transport.reception = open.reception;
            transport
        });
        self.ufrags.insert(ufrag, slot);
        self.index.transports.insert(open.transport, slot);
        self.after_input(now, slot);
        Some(())
    }

    fn move_transport(&mut self, now: Instant, its: MoveTransport) -> Option<()> {
        let lost = Event::TransportClosed {
            transport: its.transport,
            reason: CloseReason::Requested,
        };
        let slot = self.index.transports.get(&its.from).copied();
        let Some((slot, transport)) = slot.and_then(|slot| Some((slot, self.transports.get_mut(slot)?))) else {
            self.events.push(lost);
            return None;
        };
        let before = transport.room;
        // Descriptors, and what was sent of late, name subscriptions of the room that it leaves.
        transport.queue.clear();
        transport.waiting.clear();
        let names = (its.from, its.tracks.as_slice());
        let baggage = self.in_room(now, before, |fanout, outside| fanout.let_go(outside, slot, names));
        let Some(transport) = self.transports.get_mut(slot) else {
            self.events.push(lost);
            return None;
        };
        transport.handle = its.transport;
        transport.participant = its.participant;
        self.index.transports.remove(&its.from);
        self.index.transports.insert(its.transport, slot);
        let Some(room) = self.index.rooms.get(&its.room).copied() else {
            self.with_transport(now, its.transport, |transport| transport.rtc.close(now));
            return None;
        };
        transport.room = room;
        let path = transport.rtc.path().filter(|_| transport.is_connected);
        if let Some((path, srtp_profile)) = path.zip(transport.profile) {
            // It may have been said under the old handle only.
            self.events.push(Event::TransportConnected {
                transport: its.transport,
                srtp_profile,
                remote: path.remote,
                protocol: path.protocol,
            });
        }
        let names = (its.transport, its.participant);
        let baggage = baggage.unwrap_or_default();
        self.in_room(now, room, |fanout, outside| {
            fanout.take_in(outside, slot, names, baggage)
        })
    }

    fn restart_ice(
        &mut self,
        now: Instant,
        handle: TransportHandle,
        local: IceCredentials,
        remote: Option<IceCredentials>,
    ) -> Option<()> {
        let slot = *self.index.transports.get(&handle)?;
        let transport = self.transports.get_mut(slot)?;
        // Checks with the ufrag before the last are history; with the last they may still be on their way.
        while transport.ufrags.len() > 1 {
            self.ufrags.remove(&transport.ufrags.remove(0));
        }
        transport.ufrags.push(local.ufrag.clone());
        self.ufrags.insert(local.ufrag.clone(), slot);
        self.with_transport(now, handle, |transport| transport.rtc.restart_ice(now, local, remote))
    }

    /// Calls into a transport's protocols, contained.
    fn with_transport(
        &mut self,
        now: Instant,
        handle: TransportHandle,
        call: impl FnOnce(&mut MediaTransport),
    ) -> Option<()> {
        let slot = *self.index.transports.get(&handle)?;
        let transport = self.transports.get_mut(slot)?;
        if contain(|| call(transport)).is_none() {
            self.transport_panicked(now, slot);
        } else {
            self.after_input(now, slot);
        }
        Some(())
    }

    fn publish(&mut self, now: Instant, publish: Publish) -> Option<()> {
        if let Some(place) = self.index.tracks.get(&publish.track).copied() {
            return self.in_room(now, place.room, |fanout, outside| {
                fanout.republish(outside, place.slot, publish);
            });
        }
        let room = *self.index.rooms.get(&publish.room)?;
        let transport = *self.index.transports.get(&publish.transport)?;
        if self.transports.get(transport)?.room != room {
            return None;
        }
        self.in_room(now, room, |fanout, outside| fanout.publish(outside, publish, transport))??;
        Some(())
    }

    fn subscribe(&mut self, now: Instant, subscribe: Subscribe) -> Option<()> {
        if let Some(place) = self.subscription(subscribe.subscription) {
            return self.in_room(now, place.room, |fanout, outside| {
                fanout.resubscribe(outside, place.slot, subscribe);
            });
        }
        let room = *self.index.rooms.get(&subscribe.room)?;
        let transport = *self.index.transports.get(&subscribe.transport)?;
        let track = *self.index.tracks.get(&subscribe.track)?;
        if track.room != room || self.transports.get(transport)?.room != room {
            return None;
        }
        self.in_room(now, room, |fanout, outside| {
            fanout.subscribe(outside, subscribe, track.slot, transport)
        })??;
        Some(())
    }
}
