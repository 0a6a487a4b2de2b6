//! A track that is published in one room and shown in others of the same shard.
//!
//! The room of the publisher does everything that concerns the publisher; each other room stores what arrives once more
//! and forwards it as its own. Called by the shard with every packet of a transport that is shown elsewhere; holds nothing.

use std::time::Instant;

use super::edge::Publish;
use super::encoding::SenderReportAnchor;
use super::fanout::Fanout;
use super::outside::{Outside, Place, TimerKey};
use super::shard::Shard;
use super::slots::Slot;
use super::track::{MAX_ENCODINGS, Track};
use super::transport::{MAX_SHOWINGS, Showing, Stream};
use crate::rtp::RtpPacket;
use crate::types::{DropReason, TrackHandle};

impl Shard {
    /// None = the track, its transport or the room is gone.
    pub(super) fn show(&mut self, now: Instant, source: TrackHandle, publish: Publish) -> Option<()> {
        if let Some(place) = self.index.tracks.get(&publish.track).copied() {
            return self.in_room(now, place.room, |fanout, outside| {
                fanout.republish(outside, place.slot, publish);
            });
        }
        let from = *self.index.tracks.get(&source)?;
        let room = *self.index.rooms.get(&publish.room)?;
        let transport = self.rooms.get(from.room)?.tracks.get(from.slot)?.transport;
        if self.transports.get(transport)?.showings.len() >= MAX_SHOWINGS {
            return None;
        }
        let track = self.in_room(now, room, |fanout, outside| fanout.show(outside, publish, transport))?;
        let source = from.slot;
        self.transports
            .get_mut(transport)?
            .showings
            .push(Showing { source, room, track });
        Some(())
    }

    /// A packet that the transport's own room has had.
    pub(super) fn show_rtp(&mut self, now: Instant, transport: Slot, packet: &[u8]) {
        let mut at = 0;
        while let Some((showing, stream)) = self.shown_at(transport, at, packet) {
            at += 1;
            if let Some(stream) = stream.filter(|stream| stream.track == showing.source) {
                let result = self.with_packet(now, showing.room, |fanout, outside| {
                    fanout.on_shown(outside, showing.track, stream, packet)
                });
                if let Some(Err(reason)) = result {
                    self.stats.count_drop(reason);
                }
            }
        }
    }

    /// Where it is shown, the one at this place, and what the packet belongs to.
    fn shown_at(&self, transport: Slot, at: usize, packet: &[u8]) -> Option<(Showing, Option<Stream>)> {
        let transport = self.transports.get(transport)?;
        let showing = *transport.showings.get(at)?;
        let ssrc = RtpPacket::parse(packet).ok()?.ssrc();
        Some((showing, transport.receiving.streams.get(&ssrc).copied()))
    }

    /// What the publisher has said of its clock is true in every room.
    pub(super) fn show_reports(&mut self, transport: Slot) {
        let Some(its) = self.transports.get(transport) else {
            return;
        };
        for showing in &its.showings {
            let mut reports: [Option<SenderReportAnchor>; MAX_ENCODINGS] = [None; MAX_ENCODINGS];
            let source = self
                .rooms
                .get(its.room)
                .and_then(|room| room.tracks.get(showing.source));
            let Some(source) = source else { continue };
            for (report, encoding) in reports.iter_mut().zip(&source.encodings) {
                *report = encoding.sender_report;
            }
            let shown = self.rooms.get_mut(showing.room);
            let Some(shown) = shown.and_then(|room| room.tracks.get_mut(showing.track)) else {
                continue;
            };
            for (encoding, report) in shown.encodings.iter_mut().zip(reports) {
                encoding.sender_report = report.or(encoding.sender_report);
            }
        }
    }
}

impl Fanout {
    /// The place of a new track that is `transport`'s in another room.
    fn show(&mut self, outside: &mut Outside<'_>, publish: Publish, transport: Slot) -> Slot {
        let (handle, room, now) = (publish.track, self.slot, outside.now);
        let slot = self.tracks.insert_with(|track| {
            let timer = outside.timers.insert(TimerKey::Track { room, track });
            let mut track = Track::new(publish, transport, timer, now);
            track.is_shown = true;
            track
        });
        outside.index.tracks.insert(handle, Place { room, slot });
        self.start_quality(outside);
        slot
    }

    /// `stream` as the publisher's room knows it; `slot` is the track's place here.
    fn on_shown(
        &mut self,
        outside: &mut Outside<'_>,
        slot: Slot,
        stream: Stream,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let packet = RtpPacket::parse(packet)?;
        let ssrc = packet.ssrc();
        let track = self.tracks.get(slot).ok_or(DropReason::NotPublished)?;
        let encoding = track.encodings.get(usize::from(stream.encoding));
        if encoding.is_none_or(|encoding| encoding.ssrc != Some(ssrc)) {
            self.forward_pending(outside); // the encoding may start over
        }
        let track = self.tracks.get_mut(slot).ok_or(DropReason::NotPublished)?;
        let encoding = track.encodings.get_mut(usize::from(stream.encoding));
        let encoding = encoding.ok_or(DropReason::NotPublished)?;
        if stream.retransmission {
            encoding.rtx_ssrc = Some(ssrc);
        } else if encoding.ssrc.is_none() {
            encoding.ssrc = Some(ssrc);
        } else if encoding.ssrc != Some(ssrc) {
            encoding.restart(ssrc);
        }
        self.take(outside, Stream { track: slot, ..stream }, &packet)
    }
}
