//! Two associations back to back, with packets changed or made up between them.

use std::time::Duration;

use super::*;

struct Pair {
    now: Instant,
    /// The DTLS client's end, then the server's.
    ends: [Sctp; 2],
    events: [VecDeque<TransportEvent>; 2],
    lost: [bool; 2],
    /// The last packet that each end has sent.
    last: [Vec<u8>; 2],
}

impl Pair {
    fn new() -> Self {
        let end = |role| Sctp::new(role, 0, vec![ChannelLabel::Reliable], None);
        let mut pair = Self {
            now: Instant::now(),
            ends: [end(DtlsRole::Active), end(DtlsRole::Passive)],
            events: Default::default(),
            lost: [false; 2],
            last: Default::default(),
        };
        pair.ends[0].start();
        pair.ends[1].start();
        pair.settle();
        pair
    }

    /// Until both are quiet.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut quiet = true;
            for (from, to) in [(0, 1), (1, 0)] {
                self.lost[from] |= self.ends[from].progress(&mut self.events[from]).is_err();
                for packet in self.ends[from].poll_transmit(self.now) {
                    quiet = false;
                    self.last[from] = packet.to_vec();
                    let _ = self.ends[to].handle(self.now, &packet);
                    self.lost[to] |= self.ends[to].progress(&mut self.events[to]).is_err();
                }
            }
            if quiet {
                return;
            }
        }
        panic!("never quiet");
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        for end in &mut self.ends {
            end.handle_timeout(self.now);
        }
        self.settle();
    }

    /// A packet with the given chunks, as `from` would send it, its checksum right.
    fn forge(&self, from: usize, chunks: &[u8]) -> Vec<u8> {
        let mut packet = self.last[from][..12].to_vec();
        packet[8..12].fill(0);
        packet.extend(chunks);
        let checksum = crc32c(&packet);
        packet[8..12].copy_from_slice(&checksum.to_le_bytes());
        packet
    }

    fn inject(&mut self, to: usize, packet: &[u8]) -> Result<(), DropReason> {
        let result = self.ends[to].handle(self.now, packet);
        self.lost[to] |= self.ends[to].progress(&mut self.events[to]).is_err();
        result
    }
}

/// RFC 9260 appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

fn data_chunk(flags: u8, tsn: u32, stream: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    let mut chunk = vec![0, flags];
    chunk.extend((16 + data.len() as u16).to_be_bytes());
    chunk.extend(tsn.to_be_bytes());
    chunk.extend(stream.to_be_bytes());
    chunk.extend(sequence.to_be_bytes());
    // Binary.
    chunk.extend(53u32.to_be_bytes());
    chunk.extend(data);
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    chunk
}

#[test]
fn both_ends_open_their_channels() {
    let mut pair = Pair::new();
    let open = |channel, label| TransportEvent::ChannelOpen {
        channel: ChannelId(channel),
        label: Some(label),
    };
    for events in &pair.events {
        assert_eq!(events.len(), 2);
        for channel in [0, 1] {
            assert!(events.contains(&open(channel, ChannelLabel::Reliable)));
        }
    }
    pair.events = Default::default();
    for from in [0, 1] {
        for id in [ChannelId(0), ChannelId(1)] {
            assert_eq!(pair.ends[from].send(id, false, b"text"), Ok(()));
            assert_eq!(pair.ends[from].send(id, false, b""), Ok(()));
        }
    }
    pair.settle();
    for events in &pair.events {
        let text = events.iter().filter(
            |event| matches!(event, TransportEvent::ChannelData { binary: false, data, .. } if &data[..] == b"text"),
        );
        let empty = events.iter().filter(
            |event| matches!(event, TransportEvent::ChannelData { binary: false, data, .. } if data.is_empty()),
        );
        assert_eq!((text.count(), empty.count()), (2, 2));
    }
    pair.wait(Duration::from_millis(500));
    assert_eq!(pair.ends[0].buffered(), 0);
}

#[test]
fn an_abort_ends_the_association() {
    let mut pair = Pair::new();
    let abort = pair.forge(0, &[6, 0, 0, 4]);
    assert_eq!(pair.inject(1, &abort), Ok(()));
    assert!(pair.lost[1]);
}

#[test]
fn a_bad_checksum_or_tag_changes_nothing() {
    let mut pair = Pair::new();
    let mut abort = pair.forge(0, &[6, 0, 0, 4]);
    abort[9] ^= 1;
    let _ = pair.inject(1, &abort);
    let mut abort = pair.forge(0, &[6, 0, 0, 4]);
    abort[5] ^= 1;
    let checksum = {
        abort[8..12].fill(0);
        crc32c(&abort)
    };
    abort[8..12].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(pair.inject(1, &abort), Err(DropReason::BadSctp));
    assert!(!pair.lost[1]);
    assert_eq!(pair.inject(1, &[]), Err(DropReason::BadSctp));
    assert_eq!(pair.inject(1, &[0; 13]), Err(DropReason::BadSctp));
}

#[test]
fn further_inits_are_ignored() {
    let mut pair = Pair::new();
    for tag in 1..500u32 {
        let mut init = vec![1, 0, 0, 20];
        init.extend(tag.to_be_bytes());
        init.extend([0, 1, 0, 0, 0, 10, 0, 10]);
        init.extend(tag.to_be_bytes());
        let mut packet = pair.forge(0, &init);
        packet[4..12].fill(0);
        let checksum = crc32c(&packet);
        packet[8..12].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(pair.inject(1, &packet), Err(DropReason::BadSctp));
    }
    assert_eq!(pair.ends[0].send(ChannelId(0), true, b"still there"), Ok(()));
    pair.settle();
    assert!(matches!(
        pair.events[1].back(),
        Some(TransportEvent::ChannelData { .. })
    ));
}

#[test]
fn stream_ids_and_channels_are_bounded() {
    let mut pair = Pair::new();
    let far = pair.forge(0, &data_chunk(3, 1, MAX_STREAM_ID, 0, b"x"));
    assert_eq!(pair.inject(1, &far), Err(DropReason::BadSctp));
    // Opened by the client's engine directly, one more than there may be.
    let (_, association) = pair.ends[0].association.as_mut().expect("up");
    for id in (2..2 * MAX_CHANNELS as u16 + 4).step_by(2) {
        let mut stream = association
            .open_stream(id, PayloadProtocolIdentifier::Unknown)
            .expect("a stream");
        let open = dcep::open_message(ChannelLabel::Lossy).to_bytes();
        stream
            .write_with_ppi(&open, PayloadProtocolIdentifier::Dcep)
            .expect("written");
    }
    pair.settle();
    assert_eq!(pair.ends[1].channels.len(), MAX_CHANNELS);
}

/// One-byte fragments of a message that never ends.
#[test]
fn tiny_fragments_end_the_association() {
    let mut pair = Pair::new();
    // Where the client's TSNs are: its last DATA chunk was the acknowledgement of our channel.
    assert_eq!(pair.ends[0].send(ChannelId(0), true, b"find the sequence"), Ok(()));
    let packet = pair.ends[0].poll_transmit(pair.now).remove(0);
    pair.last[0] = packet.to_vec();
    let data = chunks(&packet)
        .flatten()
        .find(|chunk| chunk[0] == 0)
        .expect("a DATA chunk");
    let mut tsn = u32::from_be_bytes(data[4..8].try_into().expect("four bytes"));
    let sequence = u16::from_be_bytes(data[10..12].try_into().expect("two bytes"));
    let mut taken = 0;
    while !pair.lost[1] && taken < 100_000 {
        let mut all = Vec::new();
        for _ in 0..50 {
            all.extend(data_chunk(if taken == 0 { 2 } else { 0 }, tsn, 0, sequence, b"x"));
            tsn = tsn.wrapping_add(1);
            taken += 1;
        }
        let packet = pair.forge(0, &all);
        let _ = pair.inject(1, &packet);
        let _ = pair.ends[1].poll_transmit(pair.now);
    }
    assert!(pair.lost[1] && taken <= MAX_HELD_CHUNKS + 100, "{taken} taken");
}

/// Nothing adds up over a long exchange: the count of held chunks is right again whenever the window is open.
#[test]
fn held_chunks_return_to_zero() {
    let mut pair = Pair::new();
    for round in 0..300 {
        assert_eq!(
            pair.ends[0].send(ChannelId(0), true, &vec![1; 20_000]),
            Ok(()),
            "round {round}"
        );
        assert_eq!(pair.ends[0].send(ChannelId(1), true, &[2; 10]), Ok(()));
        pair.settle();
        pair.wait(Duration::from_millis(250));
    }
    assert_eq!(pair.ends[1].held_chunks, 0);
    assert!(!pair.lost[0] && !pair.lost[1]);
}

/// More than may wait is dropped, counted, and sent again.
#[test]
fn what_finds_no_place_among_the_waiting_is_counted_and_comes_later() {
    let mut pair = Pair::new();
    let message = vec![1; 60_000];
    for _ in 0..8 {
        pair.ends[0].send(ChannelId(0), true, &message).expect("sent"); // the window opens
        pair.ends[0].send(ChannelId(0), true, &message).expect("sent");
        pair.settle();
        pair.wait(Duration::from_millis(250));
    }
    let received = |pair: &Pair| {
        let events = pair.events[1].iter();
        events
            .filter(|event| matches!(event, TransportEvent::ChannelData { .. }))
            .count()
    };
    let before = received(&pair);
    assert_eq!(pair.ends[0].take_refused(), 0);
    pair.ends[0].set_allowance(Some(0));
    for _ in 0..2 {
        pair.ends[0].send(ChannelId(0), true, &message).expect("sent");
    }
    pair.settle();
    assert!(pair.ends[0].is_held());
    assert!(pair.ends[0].take_refused() > 0);
    assert_eq!(received(&pair), before);
    pair.ends[0].set_allowance(None);
    for _ in 0..40 {
        pair.wait(Duration::from_millis(500));
    }
    assert_eq!(received(&pair), before + 2);
}
