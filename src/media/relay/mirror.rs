//! The mirror of a track: what comes of it from its home, what its subscribers here want of it, and the levels of voices
//! that the room's home listens to.

use std::time::{Duration, Instant};

use super::SUBSCRIBED;
use super::frame::{Frame, Level, Media, Report};
use crate::media::edge::Publish;
use crate::media::encoding::{Arrived, SenderReportAnchor};
use crate::media::fanout::Fanout;
use crate::media::layers::Offered;
use crate::media::loudest::Verdict;
use crate::media::outside::{Outside, Place, TimerKey};
use crate::media::slots::Slot;
use crate::media::subscription::Subscription;
use crate::media::track::Track;
use crate::media::transport::Stream;
use crate::rtp::RtpPacket;
use crate::types::{Bitrate, DropReason, MediaKind, ShardIndex, Ssrc};

/// How long an encoding still comes that nobody here is to be sent any more: layers go down and up again.
const LINGER: Duration = Duration::from_millis(1000);
/// How often it is looked whether all that comes is still wanted.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// What a mirror knows of the track at its home.
#[derive(Debug)]
pub struct Mirror {
    pub home: ShardIndex,
    /// The encodings that were asked for, a bit each, and `SUBSCRIBED`.
    demand: u8,
    /// Of those, the ones of which nothing has come yet: the home asks for key frames itself.
    fresh: u8,
    /// When what is not wanted any more is given up.
    lower_at: Option<Instant>,
    pub flowing: u8,
    pub offered: Offered,
    /// On the room's home: the track's home was told that it is among the loudest.
    heard: bool,
}

impl Fanout {
    /// Makes a track known that is published on another shard.
    pub fn mirror(&mut self, outside: &mut Outside<'_>, publish: Publish, home: ShardIndex) {
        let (handle, room, now) = (publish.track, self.slot, outside.now);
        let slot = self.tracks.insert_with(|track| {
            let timer = outside.timers.insert(TimerKey::Track { room, track });
            let mut track = Track::new(publish, Slot::NOWHERE, timer, now);
            for encoding in &mut track.encodings {
                encoding.ssrc = None; // until packets begin
            }
            track.mirror = Some(Box::new(Mirror {
                home,
                demand: 0,
                fresh: 0,
                lower_at: None,
                flowing: 0,
                offered: Offered {
                    spatial: 1,
                    temporal: 1,
                    ..Offered::default()
                },
                heard: false,
            }));
            track
        });
        outside.index.tracks.insert(handle, Place { room, slot });
        outside.relays.reach(home);
        self.start_quality(outside);
        self.tell_demand(outside, slot);
    }

    fn tell_demand(&self, outside: &mut Outside<'_>, slot: Slot) {
        let Some((track, mirror)) = self.mirrored(slot) else {
            return;
        };
        let frame = Frame::Demand {
            track: track.handle,
            encodings: mirror.demand,
            present: true,
        };
        outside.relay(mirror.home, self.handle, &frame);
    }

    fn mirrored(&self, slot: Slot) -> Option<(&Track, &Mirror)> {
        let track = self.tracks.get(slot)?;
        Some((track, track.mirror.as_deref()?))
    }

    /// A subscription here may want more of the track than comes.
    pub fn raise_demand(&mut self, outside: &mut Outside<'_>, subscription: Slot) {
        let Some(subscription) = self.subscriptions.get(subscription) else {
            return;
        };
        let (slot, wanted) = (subscription.track, wanted(subscription));
        let mirror = self.tracks.get_mut(slot).and_then(|track| track.mirror.as_deref_mut());
        let Some(mirror) = mirror.filter(|mirror| wanted & !mirror.demand != 0) else {
            return;
        };
        mirror.fresh |= wanted & !mirror.demand & !SUBSCRIBED;
        mirror.demand |= wanted;
        self.tell_demand(outside, slot);
        self.arm_track(outside, slot);
    }

    /// The timer of a track: gives up what has not been wanted for a while.
    pub fn mirror_timeout(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let now = outside.now;
        let Some(track) = self.tracks.get_mut(slot) else { return };
        let Some(mirror) = track.mirror.as_deref_mut() else {
            return;
        };
        let subscriptions = &self.subscriptions;
        let subscribers = track.subscribers.iter();
        let all = subscribers.filter_map(|slot| subscriptions.get(*slot));
        let all = all.fold(0, |all, subscription| all | wanted(subscription));
        if mirror.demand & !all == 0 {
            mirror.lower_at = None;
        } else if *mirror.lower_at.get_or_insert(now + LINGER) <= now {
            mirror.lower_at = None;
            mirror.demand &= all;
            mirror.fresh &= all;
            self.tell_demand(outside, slot);
        }
    }

    /// Its track is gone here.
    pub fn end_mirror(&self, outside: &mut Outside<'_>, track: &Track) {
        let Some(mirror) = &track.mirror else { return };
        let frame = Frame::Demand {
            track: track.handle,
            encodings: 0,
            present: false,
        };
        outside.relay(mirror.home, self.handle, &frame);
    }

    /// `Frame::Begin`.
    pub fn begin_mirror(&mut self, outside: &Outside<'_>, slot: Slot, encoding: u8, ssrc: u32, layers: u16) {
        let Some(track) = self.tracks.get_mut(slot) else { return };
        let Some(its) = track.encodings.get_mut(usize::from(encoding)) else {
            return;
        };
        if its.has_started() {
            its.restart(Ssrc(ssrc));
        }
        its.ssrc = Some(Ssrc(ssrc));
        if layers != 0 {
            its.expect_layers(layers, outside.now);
        }
        if let Some(mirror) = track.mirror.as_deref_mut() {
            mirror.fresh &= !bit(encoding);
        }
    }

    /// `Frame::Media`: one packet, as if it had just arrived.
    pub fn on_relayed_media(
        &mut self,
        outside: &mut Outside<'_>,
        slot: Slot,
        media: &Media<'_>,
    ) -> Result<(), DropReason> {
        let packet = RtpPacket::parse(media.rtp)?;
        let Some(track) = self.tracks.get_mut(slot) else {
            return Err(DropReason::NotPublished);
        };
        outside.stats.relayed_in += 1;
        if let Some(mirror) = track.mirror.as_deref_mut() {
            mirror.fresh &= !bit(media.encoding);
        }
        // Another machine's clock may be ahead.
        let arrival = outside.relays.instant(media.arrival).min(outside.now);
        let arrived = track.on_relayed(arrival, media.encoding, &packet, media.recovered);
        if arrived == Err(DropReason::PaddingOnly) {
            let stream = Stream {
                track: slot,
                encoding: media.encoding,
                retransmission: false,
            };
            self.close_up(stream, packet.sequence());
        }
        self.arm_track(outside, slot);
        if !media.stored {
            self.forward(outside, slot, &arrived?);
        }
        if media.last_stored {
            self.bring_all(outside, slot);
        }
        Ok(())
    }

    fn bring_all(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let mut at = 0;
        while let Some(&subscriber) = self.tracks.get(slot).and_then(|track| track.subscribers.get(at)) {
            at += 1;
            self.bring(outside, subscriber);
        }
    }

    /// `Frame::Report`.
    pub fn on_relayed_report(&mut self, outside: &mut Outside<'_>, slot: Slot, report: &Report) {
        let arrival = outside.relays.instant(report.arrival);
        let track = self.tracks.get_mut(slot);
        let its = track.and_then(|track| track.encodings.get_mut(usize::from(report.encoding)));
        if let Some(its) = its {
            its.sender_report = Some(SenderReportAnchor {
                ntp: report.ntp,
                timestamp: report.timestamp,
                arrival,
            });
        }
    }

    /// `Frame::State`.
    pub fn on_relayed_state(&mut self, outside: &mut Outside<'_>, slot: Slot, flowing: u8, offered: Offered) {
        let mirror = self.tracks.get_mut(slot).and_then(|track| track.mirror.as_deref_mut());
        let Some(mirror) = mirror else { return };
        let flows = |offered: &Offered| offered.rate.map(|row| row.map(|rate| rate > Bitrate::ZERO));
        let is_news = flows(&mirror.offered) != flows(&offered);
        (mirror.flowing, mirror.offered) = (flowing, offered);
        self.flow_changed(outside, slot);
        let mut at = 0;
        while let Some(&subscriber) = self.tracks.get(slot).and_then(|track| track.subscribers.get(at)) {
            at += 1;
            let subscription = self.subscriptions.get(subscriber);
            // What it costs was not known when bandwidth was allocated.
            if let Some(transport) = subscription.map(|its| its.transport).filter(|_| is_news) {
                self.allocate_soon(outside, transport);
            }
        }
    }

    /// `Frame::Voice`.
    pub fn on_relayed_voice(&mut self, outside: &mut Outside<'_>, slot: Slot, heard: bool) {
        if !heard {
            return self.silence(outside, slot);
        }
        let Some(track) = self.tracks.get_mut(slot) else { return };
        if !std::mem::take(&mut track.is_unheard) {
            return;
        }
        // What led up to it follows, and is shown as if it came now.
        for &subscriber in &track.subscribers {
            if let Some(subscription) = self.subscriptions.get_mut(subscriber) {
                subscription.timeline.restart();
            }
        }
    }

    /// A voice's level, to the room's home. False: it is decided about here.
    pub fn pass_level(&self, outside: &mut Outside<'_>, slot: Slot, level: u8, packet: &Arrived) -> bool {
        let Some(home) = self.decided_at(outside) else {
            return false;
        };
        if let Some(track) = self.tracks.get(slot).filter(|track| track.kind == MediaKind::Audio) {
            let level = Level {
                track: track.handle,
                level,
                timestamp: packet.info.timestamp,
                late: packet.late,
            };
            outside.relay(home, self.handle, &Frame::Level(level));
        }
        true
    }

    /// `Frame::Level`: as the level of a packet that arrived here.
    pub fn on_relayed_level(&mut self, outside: &mut Outside<'_>, slot: Slot, level: &Level) {
        let now = outside.now;
        let settings = *self.speakers.settings();
        let Some(track) = self.tracks.get_mut(slot) else { return };
        if let Some(measured) = track.level.as_mut() {
            measured.observe(&settings, level.level, level.timestamp, now);
        }
        self.speakers.handle_audio(now);
        outside.arm(self.timer, self.speakers.poll_timeout());
        let (Some(loudest), Some(mirror)) = (&mut self.loudest, track.mirror.as_deref()) else {
            return;
        };
        if track.is_screen || track.kind != MediaKind::Audio {
            return;
        }
        let verdict = if level.late && !mirror.heard {
            Verdict::Drop
        } else {
            loudest.handle_packet(slot, level.level, settings.active_level, now)
        };
        match verdict {
            Verdict::Forward => self.tell_heard(outside, slot, true),
            Verdict::Drop => self.tell_heard(outside, slot, false),
            Verdict::Begin { instead_of } => {
                if let Some(other) = instead_of {
                    self.give_way(outside, other);
                }
                self.tell_heard(outside, slot, true);
            }
        }
    }

    /// A voice is not among the loudest any more, wherever it is published.
    pub fn give_way(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        if self.mirrored(slot).is_some() {
            self.tell_heard(outside, slot, false);
        } else {
            self.silence(outside, slot);
        }
    }

    /// Tells a track's home what was decided, if that is new.
    fn tell_heard(&mut self, outside: &mut Outside<'_>, slot: Slot, heard: bool) {
        let Some(track) = self.tracks.get_mut(slot) else { return };
        let Some(mirror) = track.mirror.as_deref_mut() else {
            return;
        };
        if std::mem::replace(&mut mirror.heard, heard) != heard {
            let frame = Frame::Heard {
                track: track.handle,
                heard,
            };
            outside.relay(mirror.home, self.handle, &frame);
        }
    }

    /// Asks a mirrored track's home for a key frame.
    pub fn relay_keyframe_request(&self, outside: &mut Outside<'_>, slot: Slot, encoding: u8) {
        if let Some((track, mirror)) = self.mirrored(slot) {
            let frame = Frame::Keyframe {
                track: track.handle,
                encoding,
            };
            outside.relay(mirror.home, self.handle, &frame);
        }
    }
}

impl Mirror {
    /// The home asks for a key frame of this encoding by itself.
    pub fn is_fresh(&self, encoding: u8) -> bool {
        self.fresh.checked_shr(encoding.into()).unwrap_or(0) & 1 == 1
    }

    /// When the timer of the track is due.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        (self.demand != 0).then_some(now + LOOK_INTERVAL)
    }
}

fn bit(encoding: u8) -> u8 {
    1u8.checked_shl(encoding.into()).unwrap_or(0)
}

/// What a subscription makes its track's demand: what it is given, and what it is to be given.
fn wanted(subscription: &Subscription) -> u8 {
    if subscription.settings.disabled || !subscription.is_connected || subscription.target().is_none() {
        return SUBSCRIBED;
    }
    let sent = subscription.rewriter.source().map(|source| source.encoding);
    SUBSCRIBED | bit(subscription.wanted_encoding()) | sent.map_or(0, bit)
}
