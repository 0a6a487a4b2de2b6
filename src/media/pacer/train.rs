//! Packets that leave for the first time, those of a picture together: found once, padded to one size, sealed one behind the
//! other, so that they leave as one GSO send (DESIGN D6).
//!
//! Part of `Release`. Of a train's headers only the numbers differ mostly: each is made of the one before.

use super::{
    Descriptor, Elements, Kind, MAX_DESCRIPTOR, Release, primary, send_time, shown_descriptor, shown_payload, stored,
};
use crate::media::beside::Share;
use crate::media::encoding::Encoding;
use crate::media::fanout::Fanout;
use crate::media::resend::Mark;
use crate::media::ring::Stored;
use crate::media::subscription::Subscription;
use crate::media::transport::MediaTransport;
use crate::rtc::SEAL_OVERHEAD;
use crate::rtp::{FIXED_HEADER_LEN, RtpHeader, WrittenHeader, patch_transport_cc};
use crate::types::{Batch, DropReason, MAX_DATAGRAM, MediaKind};

/// Packets looked up at once: the largest usual picture has 20. A longer one is several trains.
const MAX_TRAIN: usize = 32;

/// A header without anything that is longer: fixed part, mid, times and numbers.
const MAX_TEMPLATE: usize = 64;

/// How many at the front of the queue belong together: media of one subscription and source.
pub(super) fn len(queue: &[Descriptor]) -> usize {
    let Some(first) = queue.first() else { return 0 };
    let belongs = |other: &&Descriptor| {
        other.kind == Kind::Media && other.subscription == first.subscription && other.source == first.source
    };
    let others = queue.iter().take(MAX_TRAIN).take_while(belongs).count();
    others.max(1)
}

impl Release<'_> {
    /// Sends first packets of one subscription and source.
    pub(super) fn train(
        &mut self,
        fanout: &mut Fanout,
        transport: &mut MediaTransport,
        train: &[Descriptor],
        batch: &mut impl Batch,
    ) {
        let subscription = train
            .first()
            .and_then(|first| fanout.subscriptions.get_mut(first.subscription));
        let Some(subscription) = subscription else {
            return train
                .iter()
                .for_each(|_| self.stats.count_drop(DropReason::StaleCommand));
        };
        let track = fanout.tracks.get(subscription.track);
        let mut found = [None; MAX_TRAIN];
        for (place, descriptor) in found.iter_mut().zip(train) {
            let encoding = track.and_then(|track| track.encodings.get(usize::from(descriptor.source.encoding)));
            match stored(encoding, descriptor, self.now) {
                Ok(stored) => *place = encoding.zip(Some(stored)),
                Err(reason) => self.stats.count_drop(reason),
            }
        }
        self.plan(subscription, found.iter().take(train.len()));
        let mut before = Template::default();
        for (at, (found, descriptor)) in found.into_iter().zip(train).enumerate() {
            let Some(found) = found else { continue };
            let padding = self.sizes.get(at).copied().unwrap_or(0).min(1) as u8;
            let sent = self.packet(
                subscription,
                transport,
                (descriptor, padding),
                found,
                &mut before,
                batch,
            );
            if let Err(reason) = sent {
                self.stats.count_drop(reason);
            }
        }
    }

    /// Finds the runs of video packets whose sizes differ by at most a byte, which is how Chromium splits a frame: `sizes`
    /// then says how many bytes each is short of its run's largest.
    fn plan<'f>(
        &mut self,
        subscription: &Subscription,
        found: impl ExactSizeIterator<Item = &'f Option<(&'f Encoding, Stored<'f>)>>,
    ) {
        self.sizes.clear();
        if !self.pad || found.len() < 2 || subscription.kind != MediaKind::Video {
            return;
        }
        let mut last = None;
        let size = |found: &Option<(_, Stored<'_>)>| clear_size(subscription, &found.as_ref()?.1, &mut last);
        self.sizes.extend(found.map(size).map(Option::unwrap_or_default));
        let mut rest = self.sizes.as_mut_slice();
        while let Some(first) = rest.first().copied() {
            let (mut low, mut high, mut len) = (first, first, 0);
            for size in rest.iter() {
                let (lower, higher) = (low.min(*size), high.max(*size));
                if *size == 0 || higher - lower > 1 {
                    break;
                }
                (low, high, len) = (lower, higher, len + 1);
            }
            let Some((run, behind)) = rest.split_at_mut_checked(len.max(1)) else {
                return;
            };
            run.iter_mut()
                .for_each(|size| *size = if *size == 0 { 0 } else { high - *size });
            rest = behind;
        }
    }

    fn packet(
        &mut self,
        subscription: &mut Subscription,
        transport: &mut MediaTransport,
        (descriptor, padding): (&Descriptor, u8),
        (encoding, mut stored): (&Encoding, Stored<'_>),
        before: &mut Template,
        batch: &mut impl Batch,
    ) -> Result<(), DropReason> {
        let path = transport.rtc.path().ok_or(DropReason::Disabled)?;
        let buf = batch.slot();
        // Room for the seal behind the packet.
        let limit = buf.len().min(MAX_DATAGRAM).saturating_sub(SEAL_OVERHEAD);
        let packet = buf.get_mut(..limit).ok_or(DropReason::TooLarge)?;
        let mut room;
        if !stored.dependency_descriptor.is_empty() {
            room = [0; MAX_DESCRIPTOR];
            stored.dependency_descriptor =
                shown_descriptor(Some(encoding), subscription, descriptor, &stored, &mut room)?;
        }
        let output = subscription
            .output(stored.info.codec)
            .ok_or(DropReason::CodecNotNegotiated)?;
        let mark = Mark {
            transport_cc: transport.next_transport_cc(),
            abs_send_time: send_time(self.wall, self.now),
            with_mid: !subscription.acknowledged,
            padding,
            ..Mark::default()
        };
        let written = primary(subscription, &output, descriptor, stored, &mark, Some(before), packet)?;
        self.note(subscription, descriptor, &written, output, mark);
        let sealed = transport
            .rtc
            .seal_rtp(buf, written.header_len, written.len, written.rollover())?;
        self.handle_sent(subscription, transport, descriptor, &written, sealed);
        batch.commit(path, sealed);
        let share = match subscription.kind {
            MediaKind::Video => Share::Picture,
            MediaKind::Audio => Share::Voice,
        };
        transport.waiting.spend(share, sealed);
        self.stats.bytes_sent += sealed as u64;
        Ok(())
    }
}

/// The bytes of a packet before sealing, without padding. None = it is not to be padded. `last` is of the packet before: its
/// header is mostly this one's.
fn clear_size(
    subscription: &Subscription,
    stored: &Stored<'_>,
    last: &mut Option<(HeaderShape, usize)>,
) -> Option<u16> {
    let output = subscription.output(stored.info.codec)?;
    let info = stored.info;
    let shape = HeaderShape {
        codec: info.codec,
        descriptor: stored.dependency_descriptor.len(),
        capture_time: stored.abs_capture_time.len(),
        has: (
            info.audio_level.is_some(),
            info.video_orientation.is_some(),
            info.playout_delay.is_some(),
        ),
    };
    let header = match last {
        Some((known, header)) if *known == shape => *header,
        _ => {
            let mid = if subscription.acknowledged {
                &[]
            } else {
                subscription.mid.as_bytes()
            };
            let mark = Mark::default();
            let elements = Elements::of(subscription, stored, &mark, mid);
            let header = FIXED_HEADER_LEN + elements.block_len(subscription);
            *last = Some((shape, header));
            header
        }
    };
    let payload = shown_payload(subscription, &output, stored).ok()?;
    u16::try_from(header + payload.len()).ok()
}

/// What the size of a packet's header depends on.
#[derive(Clone, Copy, PartialEq, Eq)]
struct HeaderShape {
    codec: u8,
    descriptor: usize,
    capture_time: usize,
    has: (bool, bool, bool),
}

/// What a header holds beside numbers and times.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    with_mid: bool,
    audio_level: Option<u8>,
    video_orientation: Option<u8>,
    playout_delay: Option<[u8; 3]>,
}

impl Shape {
    /// None = it differs from packet to packet.
    pub(super) fn of(subscription: &Subscription, stored: &Stored<'_>, mark: &Mark) -> Option<Self> {
        let is_plain = stored.dependency_descriptor.is_empty()
            && stored.abs_capture_time.is_empty()
            && subscription.playout.is_none();
        is_plain.then_some(Self {
            with_mid: mark.with_mid,
            audio_level: stored.info.audio_level,
            video_orientation: stored.info.video_orientation,
            playout_delay: stored.info.playout_delay,
        })
    }
}

/// The header of the packet before, to the same subscriber at the same time.
pub(super) struct Template {
    shape: Option<Shape>,
    bytes: [u8; MAX_TEMPLATE],
    len: usize,
    transport_cc: Option<u16>,
}

impl Default for Template {
    fn default() -> Self {
        Self {
            shape: None,
            bytes: [0; MAX_TEMPLATE],
            len: 0,
            transport_cc: None,
        }
    }
}

impl Template {
    /// Writes the header as one of the same shape with other numbers; its length. None = there is none such.
    pub(super) fn write(&self, shape: &Shape, header: &RtpHeader, mark: &Mark, buf: &mut [u8]) -> Option<usize> {
        if self.shape.as_ref() != Some(shape) {
            return None;
        }
        let target = buf.get_mut(..self.len)?;
        target.copy_from_slice(self.bytes.get(..self.len)?);
        header.patch(target);
        if let Some(offset) = self.transport_cc {
            patch_transport_cc(target, offset, u16::from_be_bytes(mark.transport_cc));
        }
        Some(self.len)
    }

    pub(super) fn keep(&mut self, shape: &Shape, written: &WrittenHeader, buf: &[u8]) {
        self.shape = None;
        let (Some(target), Some(header)) = (self.bytes.get_mut(..written.len), buf.get(..written.len)) else {
            return;
        };
        target.copy_from_slice(header);
        self.shape = Some(*shape);
        self.len = written.len;
        self.transport_cc = written.transport_cc;
    }
}
