//! What we write, read by webrtc-rs: an independent reading of the same documents.

use proptest::prelude::*;
use rtc::rtcp::payload_feedbacks::{
    full_intra_request::FullIntraRequest, picture_loss_indication::PictureLossIndication,
    receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate,
};
use rtc::rtcp::transport_feedbacks::transport_layer_cc::{PacketStatusChunk, SymbolTypeTcc, TransportLayerCc};
use rtc::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use rtc::rtcp::{receiver_report::ReceiverReport, sender_report::SenderReport};

use super::*;
use crate::types::Ssrc;

/// Ticks of 250 µs from the epoch of `reference_time`, one entry per packet.
fn arrivals(feedback: &TransportLayerCc) -> Vec<Option<i64>> {
    let mut symbols = Vec::new();
    for chunk in &feedback.packet_chunks {
        match chunk {
            PacketStatusChunk::RunLengthChunk(run) => {
                symbols.extend((0..run.run_length).map(|_| run.packet_status_symbol));
            }
            PacketStatusChunk::StatusVectorChunk(vector) => symbols.extend(&vector.symbol_list),
        }
    }
    symbols.truncate(usize::from(feedback.packet_status_count));
    let mut deltas = feedback.recv_deltas.iter();
    let mut arrival = i64::from(feedback.reference_time) * TICKS_PER_REFERENCE;
    symbols
        .into_iter()
        .map(|symbol| {
            (symbol != SymbolTypeTcc::PacketNotReceived).then(|| {
                arrival += deltas.next().unwrap().delta / 250; // µs
                arrival
            })
        })
        .collect()
}

proptest! {
    #[test]
    fn transport_feedback(
        base in any::<u16>(),
        start in 0i64..1 << 30,
        steps in proptest::collection::vec((0u8..4, 0i64..2000), 1..300),
    ) {
        let mut arrival = start;
        let mut wrote: Vec<_> = steps.iter().map(|(kind, step)| {
            arrival += match kind {
                0 => return None,
                1 => *step,
                2 => -step.min(&arrival),
                _ => step % 256,
            };
            Some(arrival)
        }).collect();
        wrote.push(Some(arrival));
        let mut buf = [0; 1400];
        let mut writer = Writer::new(&mut buf);
        let taken = writer.transport_feedback(Ssrc(1), Ssrc(2), base, 9, &wrote).unwrap();
        prop_assert_eq!(taken, wrote.len());
        let len = writer.len();
        let packets = rtc::rtcp::packet::unmarshal(&mut &buf[..len]).unwrap();
        let feedback = packets[0].as_any().downcast_ref::<TransportLayerCc>().unwrap();
        prop_assert_eq!((feedback.base_sequence_number, feedback.fb_pkt_count, feedback.media_ssrc), (base, 9, 2));
        prop_assert_eq!(arrivals(feedback), wrote);
    }
}

#[test]
fn everything_else() {
    let block = ReportBlock {
        ssrc: Ssrc(9),
        fraction_lost: 64,
        cumulative_lost: 70_000,
        highest_sequence: 0x0001_0005,
        jitter: 33,
        last_sender_report: 0x1234_5678,
        delay_since_last_sender_report: 65_536,
    };
    let info = SenderInfo {
        ssrc: Ssrc(1),
        ntp: 0x0102_0304_0506_0708,
        rtp_timestamp: 90_000,
        packets: 10,
        octets: 1000,
    };
    let mut buf = [0; 500];
    let mut writer = Writer::new(&mut buf);
    writer.sender_report(&info, &[block]).unwrap();
    writer.source_description(Ssrc(1), "cname").unwrap();
    writer.receiver_report(Ssrc(4), &[block]).unwrap();
    writer
        .nack(
            Ssrc(1),
            Ssrc(2),
            &[NackPair {
                pid: 65_530,
                blp: 0x8001,
            }],
        )
        .unwrap();
    writer.pli(Ssrc(1), Ssrc(2)).unwrap();
    writer
        .fir(
            Ssrc(1),
            FirRequest {
                media: Ssrc(2),
                sequence: 3,
            },
        )
        .unwrap();
    writer.remb(Ssrc(1), 2_500_000, &[Ssrc(7), Ssrc(8)]).unwrap();
    writer.goodbye(Ssrc(1)).unwrap();
    let len = writer.len();
    let packets = rtc::rtcp::packet::unmarshal(&mut &buf[..len]).unwrap();
    assert_eq!(packets.len(), 8);

    let sender = packets[0].as_any().downcast_ref::<SenderReport>().unwrap();
    assert_eq!(
        (
            sender.ntp_time,
            sender.rtp_time,
            sender.packet_count,
            sender.octet_count
        ),
        (info.ntp, 90_000, 10, 1000)
    );
    let receiver = packets[2].as_any().downcast_ref::<ReceiverReport>().unwrap();
    for report in [&sender.reports[0], &receiver.reports[0]] {
        assert_eq!((report.ssrc, report.fraction_lost, report.total_lost), (9, 64, 70_000));
        assert_eq!((report.last_sequence_number, report.jitter), (0x0001_0005, 33));
        assert_eq!((report.last_sender_report, report.delay), (0x1234_5678, 65_536));
    }
    let nack = packets[3].as_any().downcast_ref::<TransportLayerNack>().unwrap();
    let sequences: Vec<_> = nack.nacks.iter().flat_map(|pair| pair.packet_list()).collect();
    assert_eq!((nack.media_ssrc, sequences), (2, vec![65_530, 65_531, 10]));
    let pli = packets[4].as_any().downcast_ref::<PictureLossIndication>().unwrap();
    assert_eq!((pli.sender_ssrc, pli.media_ssrc), (1, 2));
    let fir = packets[5].as_any().downcast_ref::<FullIntraRequest>().unwrap();
    assert_eq!((fir.fir[0].ssrc, fir.fir[0].sequence_number), (2, 3));
    let remb = packets[6]
        .as_any()
        .downcast_ref::<ReceiverEstimatedMaximumBitrate>()
        .unwrap();
    assert_eq!((remb.bitrate as u64, remb.ssrcs.as_slice()), (2_500_000, &[7, 8][..]));
}
