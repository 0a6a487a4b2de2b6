use proptest::prelude::*;

use super::*;
use crate::types::{DropReason, Ssrc};

fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buf = [0xee; 1500];
    let mut writer = Writer::new(&mut buf);
    write(&mut writer);
    let len = writer.len();
    assert_eq!(len % 4, 0);
    buf[..len].to_vec()
}

fn one(bytes: &[u8]) -> Packet<'_> {
    let mut packets = parse(bytes);
    let packet = packets.next().unwrap().unwrap();
    assert!(packets.next().is_none());
    packet
}

const BLOCK: ReportBlock = ReportBlock {
    ssrc: Ssrc(9),
    fraction_lost: 64,
    cumulative_lost: -2,
    highest_sequence: 0x0001_0005,
    jitter: 33,
    last_sender_report: 0x1234_5678,
    delay_since_last_sender_report: 65_536,
};

#[test]
fn sender_report_and_cname() {
    let info = SenderInfo {
        ssrc: Ssrc(1),
        ntp: 0x0102_0304_0506_0708,
        rtp_timestamp: 90_000,
        packets: 10,
        octets: 1000,
    };
    let bytes = written(|writer| {
        writer.sender_report(&info, &[BLOCK, BLOCK]).unwrap();
        writer.source_description(Ssrc(1), "abcde").unwrap();
        writer.goodbye(Ssrc(1)).unwrap();
    });
    let mut packets = parse(&bytes).map(Result::unwrap);
    let Some(Packet::SenderReport { info: read, blocks }) = packets.next() else {
        panic!()
    };
    assert_eq!((read, blocks.collect::<Vec<_>>()), (info, vec![BLOCK, BLOCK]));
    let Some(Packet::SourceDescription(mut chunks)) = packets.next() else {
        panic!()
    };
    assert_eq!(chunks.next(), Some((Ssrc(1), &b"abcde"[..])));
    assert_eq!(chunks.next(), None);
    let Some(Packet::Goodbye(mut ssrcs)) = packets.next() else {
        panic!()
    };
    assert_eq!(ssrcs.next(), Some(Ssrc(1)));
    assert!(packets.next().is_none());
}

#[test]
fn a_source_description_of_two_chunks() {
    // A chunk whose list ends exactly on a word boundary still has its null octet: RFC 3550 §6.5.
    let bytes = [
        0x82, 202, 0, 6, 0, 0, 0, 1, 1, 1, b'a', 0, 0, 0, 0, 2, 1, 2, b'b', b'c', 2, 1, b'x', 0, 0, 0, 0, 0,
    ];
    let Packet::SourceDescription(chunks) = one(&bytes) else {
        panic!()
    };
    let chunks: Vec<_> = chunks.collect();
    assert_eq!(chunks, [(Ssrc(1), &b"a"[..]), (Ssrc(2), b"bc")]);
}

#[test]
fn receiver_report_takes_at_most_31_blocks() {
    let bytes = written(|writer| writer.receiver_report(Ssrc(5), &[BLOCK; 40]).unwrap());
    let Packet::ReceiverReport { sender, blocks } = one(&bytes) else {
        panic!()
    };
    assert_eq!((sender, blocks.count()), (Ssrc(5), 31));
}

#[test]
fn feedback_messages() {
    let pairs = [
        NackPair {
            pid: 65_535,
            blp: 0b101,
        },
        NackPair { pid: 40, blp: 0 },
    ];
    let fir = FirRequest {
        media: Ssrc(2),
        sequence: 200,
    };
    let bytes = written(|writer| {
        writer.nack(Ssrc(1), Ssrc(2), &pairs).unwrap();
        writer.nack(Ssrc(1), Ssrc(2), &[]).unwrap();
        writer.pli(Ssrc(1), Ssrc(2)).unwrap();
        writer.fir(Ssrc(1), fir).unwrap();
    });
    let mut packets = parse(&bytes).map(Result::unwrap);
    let Some(Packet::Nack {
        sender: Ssrc(1),
        media: Ssrc(2),
        pairs: read,
    }) = packets.next()
    else {
        panic!()
    };
    let sequences: Vec<_> = read.flat_map(NackPair::sequences).collect();
    assert_eq!(sequences, [65_535, 0, 2, 40]);
    assert!(matches!(
        packets.next(),
        Some(Packet::Pli {
            sender: Ssrc(1),
            media: Ssrc(2)
        })
    ));
    let Some(Packet::Fir { requests, .. }) = packets.next() else {
        panic!()
    };
    assert_eq!(requests.collect::<Vec<_>>(), [fir]);
    assert!(packets.next().is_none());
}

#[test]
fn a_reference_time_is_read_behind_other_blocks_and_answered() {
    // RFC 3611 §4.1: a loss report of one word behind its head; §4.4: the time.
    let asked = [
        0x80, 207, 0, 6, 0, 0, 0, 3, //
        1, 0, 0, 1, 9, 9, 9, 9, //
        4, 0, 0, 2, 0, 1, 2, 3, 4, 5, 6, 7,
    ];
    let Packet::ExtendedReport { sender, reference_time } = one(&asked) else {
        panic!()
    };
    assert_eq!((sender, reference_time), (Ssrc(3), Some(0x0203_0405)));
    let answer = written(|writer| writer.reference_time_answer(Ssrc(1), sender, 0x0203_0405).unwrap());
    assert_eq!(
        answer,
        [
            0x80, 207, 0, 5, 0, 0, 0, 1, 5, 0, 0, 3, 0, 0, 0, 3, 2, 3, 4, 5, 0, 0, 0, 1
        ]
    );
    // Cut short within the block.
    let cut = [0x80, 207, 0, 3, 0, 0, 0, 3, 4, 0, 0, 2, 0, 1, 2, 3];
    assert!(matches!(
        one(&cut),
        Packet::ExtendedReport {
            reference_time: None,
            ..
        }
    ));
}

#[test]
fn remb_keeps_18_bits() {
    for (bitrate, want) in [
        (0, 0),
        (262_143, 262_143),
        (262_145, 262_144),
        (2_500_000, 2_500_000),
        (u64::MAX, 0x3_ffff << 46),
    ] {
        let bytes = written(|writer| writer.remb(Ssrc(1), bitrate, &[Ssrc(7), Ssrc(8)]).unwrap());
        let Packet::Remb {
            bitrate: read, ssrcs, ..
        } = one(&bytes)
        else {
            panic!()
        };
        assert_eq!((read, ssrcs.collect::<Vec<_>>()), (want, vec![Ssrc(7), Ssrc(8)]));
    }
}

#[test]
fn remb_beyond_64_bits_is_no_limit() {
    // Exponent 63 overflows 64 bits: no limit, not zero.
    let bytes = [
        0x8f, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 0, 0xff, 0xff, 0xff,
    ];
    let Packet::Remb { bitrate, .. } = one(&bytes) else {
        panic!()
    };
    assert_eq!(bitrate, u64::MAX);
}

#[test]
fn a_bad_packet_does_not_hide_the_next() {
    let mut bytes = vec![0x81, 201, 0, 1, 0, 0, 0, 1]; // says one block, has none
    bytes.extend(written(|writer| writer.pli(Ssrc(1), Ssrc(2)).unwrap()));
    bytes.extend([0x80, 199, 0, 0]);
    bytes.extend([0x80, 207, 0, 1, 0, 0, 0, 3]);
    bytes.extend([0x80, 201, 0, 9, 0]);
    let packets: Vec<_> = parse(&bytes).collect();
    assert!(matches!(packets[0], Err(DropReason::Malformed)));
    assert!(matches!(packets[1], Ok(Packet::Pli { .. })));
    assert!(matches!(packets[2], Ok(Packet::Unknown { packet_type: 199, .. })));
    assert!(matches!(
        packets[3],
        Ok(Packet::ExtendedReport {
            sender: Ssrc(3),
            reference_time: None
        })
    ));
    assert!(matches!(packets[4], Err(DropReason::Truncated)));
    assert_eq!(packets.len(), 5);
}

#[test]
fn a_packet_that_does_not_fit_leaves_the_rest() {
    let mut buf = [0; 20];
    let mut writer = Writer::new(&mut buf);
    writer.pli(Ssrc(1), Ssrc(2)).unwrap();
    assert_eq!(writer.pli(Ssrc(1), Ssrc(3)), Err(DropReason::TooLarge));
    assert_eq!(writer.len(), 12);
    writer.goodbye(Ssrc(4)).unwrap();
    assert_eq!(writer.len(), 20);
    assert_eq!(parse(&buf).filter(Result::is_ok).count(), 2);
}

#[test]
fn round_trip_time() {
    // RFC 3550 §6.4.1, figure 2: A = b710:8000, DLSR = 5.250 s, LSR = b705:2000 gives 6.125 s.
    let block = ReportBlock {
        last_sender_report: 0xb705_2000,
        delay_since_last_sender_report: 0x0005_4000,
        ..BLOCK
    };
    assert_eq!(block.round_trip(0x44a1_b710_8000_0000), Some(0x0006_2000));
    assert_eq!(
        ReportBlock {
            last_sender_report: 0,
            ..block
        }
        .round_trip(0x44a1_b710_8000_0000),
        None
    );
    assert_eq!(
        block.round_trip(0x44a1_b70a_5fff_0000),
        Some(0),
        "a rounding error is no round trip"
    );
}

/// Writes `arrivals` in as many feedback packets as it takes and reads them back.
fn feedback_round_trip(base: u16, arrivals: &[Option<i64>], room: usize) -> Vec<(u16, Option<i64>)> {
    let mut read = Vec::new();
    let mut at = 0;
    let mut extender = ReferenceTimeExtender::new();
    while at < arrivals.len() {
        let Some(first) = arrivals[at..].iter().copied().flatten().next() else {
            read.push((base.wrapping_add(at as u16), None));
            at += 1;
            continue;
        };
        let mut buf = vec![0; room];
        let mut writer = Writer::new(&mut buf);
        let sequence = base.wrapping_add(at as u16);
        let taken = writer
            .transport_feedback(Ssrc(1), Ssrc(2), sequence, 7, &arrivals[at..])
            .unwrap();
        assert!(taken > 0);
        let len = writer.len();
        assert_eq!(len % 4, 0);
        let Packet::TransportFeedback(feedback) = one(&buf[..len]) else {
            panic!()
        };
        assert_eq!(
            (feedback.base_sequence, usize::from(feedback.status_count)),
            (sequence, taken)
        );
        assert_eq!((feedback.media, feedback.feedback_count), (Ssrc(2), 7));
        // The reference in the packet has 24 bits; the first arrival says which cycle the test is in.
        let reference = extender.extend(feedback.reference_time);
        let cycle = first.div_euclid(TICKS_PER_REFERENCE) - reference;
        assert_eq!(cycle % 0x100_0000, 0);
        let statuses: Vec<_> = feedback.statuses().collect();
        assert_eq!(statuses.len(), taken);
        for status in statuses {
            let arrival = status
                .arrival
                .map(|ticks| ticks + (reference + cycle) * TICKS_PER_REFERENCE);
            read.push((status.sequence, arrival));
        }
        at += taken;
    }
    read
}

fn expected(base: u16, arrivals: &[Option<i64>]) -> Vec<(u16, Option<i64>)> {
    arrivals
        .iter()
        .enumerate()
        .map(|(at, arrival)| (base.wrapping_add(at as u16), *arrival))
        .collect()
}

#[test]
fn feedback_over_the_sequence_wrap_with_gaps() {
    let arrivals = [
        Some(1000),
        None,
        None,
        Some(1001),
        Some(1256),
        Some(1257),
        Some(900),
        Some(40_000),
        None,
        Some(39_999),
    ];
    assert_eq!(
        feedback_round_trip(65_532, &arrivals, 1200),
        expected(65_532, &arrivals)
    );
}

#[test]
fn a_difference_beyond_16_bits_starts_another_packet() {
    let arrivals = [
        Some(0),
        Some(32_767),
        Some(65_535),
        Some(65_535 + 32_768 + 256),
        Some(5),
    ];
    assert_eq!(feedback_round_trip(0, &arrivals, 1200), expected(0, &arrivals));
}

#[test]
fn long_runs_and_long_gaps() {
    let mut arrivals = vec![Some(77); 300];
    arrivals.extend([None; 400]);
    arrivals.push(Some(500));
    arrivals.extend((0..600).map(|at| Some(500 + at * 300)));
    assert_eq!(
        feedback_round_trip(60_000, &arrivals, 1200),
        expected(60_000, &arrivals)
    );
}

#[test]
fn the_reference_time_wraps_at_24_bits() {
    let mut extender = ReferenceTimeExtender::new();
    assert_eq!(extender.extend(0x7f_ffff), 0x7f_ffff);
    assert_eq!(extender.extend(-0x80_0000), 0x80_0000);
    assert_eq!(extender.extend(0x7f_fffe), 0x7f_fffe);
    assert_eq!(extender.extend(-0x40_0000), 0xc0_0000);
    assert_eq!(extender.extend(-1), 0xff_ffff);
    assert_eq!(extender.extend(0), 0x100_0000);
    let arrivals: Vec<_> = (0..20)
        .map(|at| Some(0x7f_fffe * TICKS_PER_REFERENCE + at * 200))
        .collect();
    assert_eq!(feedback_round_trip(0, &arrivals, 1200), expected(0, &arrivals));
}

#[test]
fn a_report_needs_an_arrival_and_room() {
    let mut buf = [0; 100];
    let mut writer = Writer::new(&mut buf);
    let result = writer.transport_feedback(Ssrc(1), Ssrc(2), 0, 0, &[None, None]);
    assert_eq!((result, writer.len()), (Err(DropReason::Malformed), 0));
    let mut small = [0; 22];
    let result = Writer::new(&mut small).transport_feedback(Ssrc(1), Ssrc(2), 0, 0, &[Some(1)]);
    assert_eq!(result, Err(DropReason::TooLarge));
}

#[test]
fn hostile_status_counts_are_refused() {
    let mut bytes = vec![
        0x8f, 205, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0x1f, 0xff, 0x1f, 0xff,
    ];
    assert!(matches!(parse(&bytes).next(), Some(Err(DropReason::Malformed))));
    // Run lengths of zero must not spin, and truncated chunks end the list.
    bytes[14..16].copy_from_slice(&[0x10, 0]);
    bytes[20..24].fill(0);
    let Some(Ok(Packet::TransportFeedback(feedback))) = parse(&bytes).next() else {
        panic!()
    };
    assert_eq!(feedback.statuses().count(), 0);
}

proptest! {
    #[test]
    fn feedback_round_trips(
        base in any::<u16>(),
        start in -(1i64 << 40)..1i64 << 40,
        steps in proptest::collection::vec((0u8..5, -300i64..40_000), 1..700),
        room in 40usize..1200,
    ) {
        let mut arrival = start;
        let arrivals: Vec<_> = steps.iter().map(|(kind, step)| {
            match kind {
                0 => return None,
                1 => arrival += step,
                2 => arrival -= step / 4,
                _ => arrival += step.rem_euclid(256),
            }
            Some(arrival)
        }).collect();
        prop_assert_eq!(feedback_round_trip(base, &arrivals, room), expected(base, &arrivals));
    }

    #[test]
    fn any_bytes_are_read_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 198u8..208) {
        if let [first, second, _, low, ..] = &mut bytes[..] {
            *first = 0x80 | (*first & 0x3f);
            *second = kind;
            *low &= 0x1f;
        }
        for packet in parse(&bytes).flatten() {
            match packet {
                Packet::SenderReport { blocks, .. } | Packet::ReceiverReport { blocks, .. } => {
                    prop_assert!(blocks.filter_map(|block| block.round_trip(u64::from(block.jitter) << 16)).count() <= 31);
                }
                Packet::SourceDescription(chunks) => prop_assert!(chunks.count() <= 31),
                Packet::Goodbye(ssrcs) | Packet::Remb { ssrcs, .. } => prop_assert!(ssrcs.count() <= 255),
                Packet::Nack { pairs, .. } => prop_assert!(pairs.flat_map(NackPair::sequences).count() <= 850),
                Packet::Fir { requests, .. } => prop_assert!(requests.count() <= 25),
                Packet::TransportFeedback(feedback) => prop_assert!(feedback.statuses().count() <= MAX_FEEDBACK_STATUSES),
                _ => {}
            }
        }
    }

    #[test]
    fn a_second_feedback_body_of_any_bytes(body in proptest::collection::vec(any::<u8>(), 0..25), count in 0u16..200) {
        let mut bytes = vec![0x8f, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 9];
        bytes.extend(count.to_be_bytes());
        bytes.extend([0, 0, 5, 0]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes[3] = (bytes.len() / 4 - 1) as u8;
        let Packet::TransportFeedback(feedback) = one(&bytes) else { panic!() };
        prop_assert!(feedback.statuses().count() <= usize::from(count));
    }
}
