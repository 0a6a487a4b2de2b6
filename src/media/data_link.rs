//! The data plane's way to transports, and a room's calls into its data plane.

use std::time::Instant;

use super::data::DataLink;
use super::edge::Command;
use super::fanout::Fanout;
use super::outside::Outside;
use super::relay::Worth;
use super::relay::frame::Frame;
use super::shard::contain;
use super::slots::Slot;
use super::transport::MediaTransport;
use crate::proto::envelope::StreamHeader;
use crate::rtc::{self, ChannelId, SendDataError, TransportEvent};
use crate::types::{CloseReason, DropReason, RoomHandle, ShardIndex, TransportHandle};

impl Outside<'_> {
    /// The transport, noted as one whose protocols have run in this call.
    fn touch(&mut self, handle: TransportHandle) -> Option<&mut MediaTransport> {
        let slot = *self.index.transports.get(&handle)?;
        let transport = self.transports.get_mut(slot)?;
        if !transport.is_touched {
            transport.is_touched = true;
            self.touched.push(slot);
        }
        Some(transport)
    }

    /// Calls into a transport's protocols from a room's turn; a panic in there costs that transport, not the room
    /// (DESIGN D10).
    fn with_rtc<T>(&mut self, handle: TransportHandle, call: impl FnOnce(&mut rtc::Transport) -> T) -> Option<T> {
        let transport = self.touch(handle).filter(|transport| !transport.has_panicked)?;
        let result = contain(|| {
            #[cfg(test)]
            assert!(!transport.panics, "asked for by a test");
            call(&mut transport.rtc)
        });
        transport.has_panicked |= result.is_none();
        result
    }
}

impl DataLink for Outside<'_> {
    fn send_data(
        &mut self,
        now: Instant,
        transport: TransportHandle,
        channel: ChannelId,
        binary: bool,
        data: &[u8],
    ) -> Result<(), SendDataError> {
        let sent = self.with_rtc(transport, |rtc| rtc.send_data(now, channel, binary, data));
        sent.unwrap_or(Err(SendDataError::Closed))
    }

    fn buffered_amount(&mut self, transport: TransportHandle, channel: ChannelId) -> usize {
        self.with_rtc(transport, |rtc| rtc.buffered_amount(channel))
            .unwrap_or(0)
    }

    fn set_reading(&mut self, transport: TransportHandle, channel: ChannelId, reading: bool) {
        self.with_rtc(transport, |rtc| rtc.set_reading(channel, reading));
    }

    fn cut(&mut self, transport: TransportHandle, reason: CloseReason) {
        let now = self.now;
        if let Some(transport) = self.touch(transport) {
            transport.close_reason = Some(reason);
        }
        self.with_rtc(transport, |rtc| rtc.close(now));
    }

    fn count_drop(&mut self, reason: DropReason) {
        self.stats.count_drop(reason);
    }

    fn count_stream(&mut self, stream: StreamHeader, receivers: usize) {
        let [texts, bytes] = &mut self.stats.streams;
        let spreads = if stream.is_text { texts } else { bytes };
        if let Some(length) = stream.length {
            spreads.length.record(length);
        }
        spreads.receivers.record(receivers as u64);
    }

    fn way_has_room(&self, to: ShardIndex, worth: Worth) -> bool {
        self.relays.has_room(to, worth)
    }

    fn relay(&mut self, to: ShardIndex, room: RoomHandle, frame: &Frame<'_>) {
        Outside::relay(self, to, room, frame);
    }

    fn wait_for_way(&mut self) {
        self.waits_for_way = true;
    }
}

impl Fanout {
    /// A data channel event of a transport of this room.
    pub fn on_channel_event(&mut self, outside: &mut Outside<'_>, slot: Slot, event: TransportEvent) {
        let now = outside.now;
        let Some(transport) = outside.transports.get(slot) else {
            return;
        };
        let (handle, participant) = (transport.handle, transport.participant);
        match event {
            TransportEvent::ChannelOpen { channel, label } => {
                self.data
                    .on_channel_open(now, outside, handle, participant, channel, label);
            }
            TransportEvent::ChannelData { channel, data, .. } => {
                if let Err(reason) = self.data.on_message(now, outside, handle, channel, &data) {
                    outside.stats.count_drop(reason);
                }
            }
            TransportEvent::ChannelClosed { channel } => self.data.on_channel_closed(outside, handle, channel),
            TransportEvent::ChannelWritable { channel } => self.data.on_writable(now, outside, handle, channel),
            TransportEvent::Connected { .. }
            | TransportEvent::Silent
            | TransportEvent::Heard
            | TransportEvent::Closed(_) => {}
        }
        self.data_changed(outside);
    }

    /// One of the data commands; None = it names something gone.
    pub fn on_data_command(&mut self, outside: &mut Outside<'_>, command: Command) -> Option<()> {
        let now = outside.now;
        let found = match command {
            Command::SetParticipant(participant) => {
                self.data.set_participant(now, outside, *participant);
                true
            }
            Command::RemoveParticipant { participant, .. } => {
                self.data.remove_participant(outside, participant);
                let (data, room) = (&self.data, self.slot);
                outside
                    .index
                    .data_tracks
                    .retain(|track, of| *of != room || data.has_track(*track));
                true
            }
            Command::SendData {
                to, reliable, packet, ..
            } => {
                self.data.send(now, outside, &to, reliable, packet);
                true
            }
            Command::AwaitRpc { call, .. } => {
                self.data.expect_rpc(call);
                true
            }
            Command::EndRpc { call, .. } => self.data.end_rpc(&call),
            Command::PublishDataTrack {
                publisher,
                track,
                publisher_handle,
                ..
            } => {
                outside.index.data_tracks.insert(track, self.slot);
                self.data.publish_track(publisher, track, publisher_handle);
                true
            }
            Command::UnpublishDataTrack { track } => {
                outside.index.data_tracks.remove(&track);
                self.data.unpublish_track(track)
            }
            Command::SubscribeDataTrack {
                track,
                subscriber,
                subscriber_handle,
            } => self.data.subscribe_track(track, subscriber, subscriber_handle),
            Command::UnsubscribeDataTrack { track, subscriber } => self.data.unsubscribe_track(track, subscriber),
            _ => false,
        };
        self.data_changed(outside);
        found.then_some(())
    }

    /// Events and deadline of the data plane after a call into it.
    pub fn data_changed(&mut self, outside: &mut Outside<'_>) {
        while let Some(event) = self.data.poll_event() {
            outside.events.push(event);
        }
        if std::mem::take(&mut outside.waits_for_way) && !outside.relays.held.contains(&self.slot) {
            outside.relays.held.push(self.slot);
        }
        outside.arm(self.timer, self.data.poll_timeout());
    }
}
