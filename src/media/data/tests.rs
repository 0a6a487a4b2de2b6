use prost::Message;

use super::*;
use crate::media::edge::DataRights;
use crate::proto::livekit::{ChatMessage, DataPacket, MetricsBatch, Transcription, UserPacket, data_packet};
use crate::types::RoomHandle;

const RELIABLE: ChannelId = ChannelId(1);
const LOSSY: ChannelId = ChannelId(3);
const TRACK: ChannelId = ChannelId(5);
const OWN: ChannelId = ChannelId(7);

/// Transports that take what the script says: unlimited, or so many bytes until `drain`.
#[derive(Default)]
struct Link {
    sent: Vec<(u64, ChannelId, Vec<u8>)>,
    /// Bytes the channel's buffer takes; absent = no limit.
    room: BTreeMap<(u64, u16), usize>,
    buffered: BTreeMap<(u64, u16), usize>,
    reading: BTreeMap<(u64, u16), bool>,
    cut: Vec<(u64, CloseReason)>,
    drops: Vec<DropReason>,
}

impl DataLink for Link {
    fn send_data(
        &mut self,
        _now: Instant,
        transport: TransportHandle,
        channel: ChannelId,
        binary: bool,
        data: &[u8],
    ) -> Result<(), SendDataError> {
        assert!(binary);
        let key = (transport.0, channel.0);
        if let Some(room) = self.room.get_mut(&key) {
            if *room < data.len() {
                return Err(SendDataError::Full);
            }
            *room -= data.len();
        }
        *self.buffered.entry(key).or_default() += data.len();
        self.sent.push((transport.0, channel, data.to_vec()));
        Ok(())
    }

    fn buffered_amount(&mut self, transport: TransportHandle, channel: ChannelId) -> usize {
        self.buffered.get(&(transport.0, channel.0)).copied().unwrap_or(0)
    }

    fn set_reading(&mut self, transport: TransportHandle, channel: ChannelId, reading: bool) {
        self.reading.insert((transport.0, channel.0), reading);
    }

    fn cut(&mut self, transport: TransportHandle, reason: CloseReason) {
        self.cut.push((transport.0, reason));
    }

    fn count_drop(&mut self, reason: DropReason) {
        self.drops.push(reason);
    }
}

/// A room in virtual time. Participant `n` has identity `pn`, sid `PA_n` and transport `n`.
struct Room {
    plane: DataPlane,
    link: Link,
    now: Instant,
}

fn rights() -> DataRights {
    DataRights {
        can_publish_data: true,
        hidden: false,
        agent: false,
        can_receive: true,
    }
}

impl Room {
    fn of(participants: u64) -> Self {
        let mut room = Self {
            plane: DataPlane::default(),
            link: Link::default(),
            now: Instant::now(),
        };
        for number in 1..=participants {
            room.join(number, rights());
            room.connect(number);
        }
        while room.plane.poll_event().is_some() {}
        room
    }

    fn join(&mut self, number: u64, rights: DataRights) {
        let info = DataParticipant {
            room: RoomHandle(1),
            participant: ParticipantHandle(number),
            sid: format!("PA_{number}"),
            identity: format!("p{number}"),
            transport: TransportHandle(number),
            rights,
        };
        self.plane.set_participant(self.now, &mut self.link, info);
    }

    fn connect(&mut self, number: u64) {
        for (channel, label) in [
            (RELIABLE, Some(ChannelLabel::Reliable)),
            (LOSSY, Some(ChannelLabel::Lossy)),
            (TRACK, Some(ChannelLabel::DataTrack)),
            (OWN, None),
        ] {
            let (transport, participant) = (TransportHandle(number), ParticipantHandle(number));
            self.plane
                .on_channel_open(self.now, &mut self.link, transport, participant, channel, label);
        }
    }

    fn message(&mut self, from: u64, channel: ChannelId, data: &[u8]) -> Result<(), DropReason> {
        self.plane
            .on_message(self.now, &mut self.link, TransportHandle(from), channel, data)
    }

    fn send(&mut self, from: u64, channel: ChannelId, packet: &DataPacket) -> Result<(), DropReason> {
        self.message(from, channel, &packet.encode_to_vec())
    }

    /// Reliable user data of so many bytes to everybody.
    fn fill(&mut self, from: u64, len: usize) {
        self.send(from, RELIABLE, &user(0, vec![0; len])).unwrap();
    }

    /// The channel takes so many bytes more, and says so.
    fn drain(&mut self, number: u64, channel: ChannelId, bytes: usize) {
        self.link.room.insert((number, channel.0), bytes);
        self.plane
            .on_writable(self.now, &mut self.link, TransportHandle(number), channel);
    }

    fn block(&mut self, number: u64, channel: ChannelId) {
        self.link.room.insert((number, channel.0), 0);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.plane.handle_timeout(self.now, &mut self.link);
    }

    /// Who has got what since the last call, decoded.
    fn got(&mut self) -> Vec<(u64, ChannelId, DataPacket)> {
        let decode = |(to, channel, data): (u64, ChannelId, Vec<u8>)| {
            (to, channel, DataPacket::decode(data.as_slice()).unwrap())
        };
        std::mem::take(&mut self.link.sent).into_iter().map(decode).collect()
    }

    fn receivers(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.link.sent)
            .into_iter()
            .map(|(to, _, _)| to)
            .collect()
    }

    fn is_read(&self, number: u64, channel: ChannelId) -> bool {
        self.link.reading.get(&(number, channel.0)).copied().unwrap_or(true)
    }
}

fn user(sequence: u32, payload: Vec<u8>) -> DataPacket {
    let user = UserPacket {
        payload,
        ..Default::default()
    };
    DataPacket {
        sequence,
        value: Some(data_packet::Value::User(user)),
        ..Default::default()
    }
}

fn drops(room: &mut Room) -> Vec<DropReason> {
    std::mem::take(&mut room.link.drops)
}

#[test]
#[allow(deprecated)]
fn everybody_else_gets_a_packet_in_the_senders_true_name() {
    let mut room = Room::of(3);
    let forged = DataPacket {
        participant_identity: "p3".into(),
        participant_sid: "PA_3".into(),
        ..user(1, vec![7])
    };
    room.send(1, RELIABLE, &forged).unwrap();
    let got = room.got();
    assert_eq!(
        got.iter().map(|(to, channel, _)| (*to, *channel)).collect::<Vec<_>>(),
        [(2, RELIABLE), (3, RELIABLE)]
    );
    for (_, _, packet) in got {
        assert_eq!(
            (packet.participant_identity.as_str(), packet.participant_sid.as_str()),
            ("p1", "PA_1")
        );
        assert_eq!((packet.kind, packet.sequence), (0, 1));
    }
    room.send(2, LOSSY, &user(0, vec![1])).unwrap();
    let got = room.got();
    assert!(
        got.iter()
            .all(|(_, channel, packet)| *channel == LOSSY && packet.kind == 1)
            && got.len() == 2
    );
}

#[test]
#[allow(deprecated)]
fn destinations_are_a_union_without_the_sender() {
    let mut room = Room::of(5);
    let addressed = |identities: &[&str], sids: &[&str]| {
        let user = UserPacket {
            destination_sids: sids.iter().map(|it| (*it).into()).collect(),
            ..Default::default()
        };
        DataPacket {
            destination_identities: identities.iter().map(|it| (*it).into()).collect(),
            value: Some(data_packet::Value::User(user)),
            ..Default::default()
        }
    };
    for (packet, receivers) in [
        (addressed(&["p2"], &["PA_4"]), &[2, 4][..]),
        (addressed(&["p2", "p2"], &["PA_2"]), &[2]),
        (addressed(&["p1"], &["PA_1"]), &[]),
        (addressed(&["nobody"], &[]), &[]),
        (addressed(&[], &[]), &[2, 3, 4, 5]),
    ] {
        room.send(1, RELIABLE, &packet).unwrap();
        assert_eq!(room.receivers(), receivers, "{packet:?}");
    }
}

#[test]
fn rights_decide() {
    let mut room = Room::of(2);
    let transcription = DataPacket {
        value: Some(data_packet::Value::Transcription(Transcription::default())),
        ..Default::default()
    };
    let metrics = DataPacket {
        value: Some(data_packet::Value::Metrics(MetricsBatch::default())),
        ..Default::default()
    };
    assert_eq!(room.send(1, RELIABLE, &transcription), Err(DropReason::DataNotAllowed));
    assert_eq!(room.send(1, RELIABLE, &metrics), Err(DropReason::DataNotForwarded));
    assert_eq!(room.message(1, RELIABLE, &[0xff]), Err(DropReason::Malformed));
    assert_eq!(room.message(1, RELIABLE, &vec![0; 65_536]), Err(DropReason::TooLarge));
    room.join(
        1,
        DataRights {
            agent: true,
            ..rights()
        },
    );
    room.send(1, RELIABLE, &transcription).unwrap();
    assert_eq!(room.receivers(), [2]);
    room.join(
        1,
        DataRights {
            can_publish_data: false,
            ..rights()
        },
    );
    assert_eq!(
        room.send(1, RELIABLE, &user(0, vec![])),
        Err(DropReason::DataNotAllowed)
    );
    room.join(1, rights());
    room.join(
        2,
        DataRights {
            can_receive: false,
            ..rights()
        },
    );
    room.send(1, RELIABLE, &user(0, vec![])).unwrap();
    room.send(1, LOSSY, &user(0, vec![])).unwrap();
    assert!(room.receivers().is_empty());
}

#[test]
fn only_agents_speak_for_others_and_hidden_ones_are_not_named() {
    let mut room = Room::of(2);
    let chat = DataPacket {
        participant_identity: "p2".into(),
        value: Some(data_packet::Value::ChatMessage(ChatMessage::default())),
        ..Default::default()
    };
    let mut chat_from = |rights: DataRights| {
        room.join(1, rights);
        room.send(1, RELIABLE, &chat).unwrap();
        let (_, _, packet) = room.got().remove(0);
        let Some(data_packet::Value::ChatMessage(chat)) = packet.value else {
            panic!("no chat")
        };
        (packet.participant_identity, chat.generated)
    };
    assert_eq!(chat_from(rights()), ("p1".into(), false));
    assert_eq!(
        chat_from(DataRights {
            agent: true,
            ..rights()
        }),
        ("p2".into(), true)
    );
    assert_eq!(
        chat_from(DataRights {
            hidden: true,
            ..rights()
        }),
        (String::new(), false)
    );
}

#[test]
fn repeated_packets_are_dropped_and_sequences_reported() {
    let mut room = Room::of(2);
    room.send(1, RELIABLE, &user(4, vec![])).unwrap();
    room.send(1, RELIABLE, &user(5, vec![])).unwrap();
    assert_eq!(room.send(1, RELIABLE, &user(5, vec![])), Err(DropReason::DataDuplicate));
    assert_eq!(room.send(1, RELIABLE, &user(2, vec![])), Err(DropReason::DataDuplicate));
    room.send(1, RELIABLE, &user(0, vec![])).unwrap();
    room.send(2, RELIABLE, &user(1, vec![])).unwrap();
    assert!(room.plane.poll_event().is_none());
    assert_eq!(room.plane.poll_timeout(), Some(room.now + SEQUENCE_REPORT_INTERVAL));
    room.pass(SEQUENCE_REPORT_INTERVAL);
    let mut reported = Vec::new();
    while let Some(Event::DataSequence { participant, sequence }) = room.plane.poll_event() {
        reported.push((participant.0, sequence));
    }
    assert_eq!(reported, [(1, 5), (2, 1)]);
    assert_eq!(room.plane.poll_timeout(), None);
}

#[test]
fn a_nonce_counts_once_within_a_hundred() {
    let mut room = Room::of(2);
    let with_nonce = |number: u8| {
        let user = UserPacket {
            nonce: vec![number; 16],
            ..Default::default()
        };
        DataPacket {
            value: Some(data_packet::Value::User(user)),
            ..Default::default()
        }
    };
    room.send(1, RELIABLE, &with_nonce(0)).unwrap();
    assert_eq!(room.send(2, LOSSY, &with_nonce(0)), Err(DropReason::DataDuplicate));
    let (plane, link) = (&mut room.plane, &mut room.link);
    plane.send(room.now, link, &[], true, with_nonce(0).encode_to_vec());
    assert_eq!(drops(&mut room), [DropReason::DataDuplicate]);
    for number in 1..=100 {
        room.send(1, RELIABLE, &with_nonce(number)).unwrap();
    }
    room.send(1, RELIABLE, &with_nonce(0)).unwrap();
}

#[test]
fn the_servers_own_data_goes_as_it_is() {
    let mut room = Room::of(3);
    let packet = user(0, vec![5]).encode_to_vec();
    let to = [ParticipantHandle(2), ParticipantHandle(9)];
    room.plane.send(room.now, &mut room.link, &to, true, packet.clone());
    assert_eq!(std::mem::take(&mut room.link.sent), [(2, RELIABLE, packet.clone())]);
    assert_eq!(drops(&mut room), [DropReason::StaleCommand]);
    room.plane.send(room.now, &mut room.link, &[], false, packet);
    assert_eq!(room.receivers(), [1, 2, 3]);
}

#[test]
fn channels_of_the_clients_own_are_wrapped() {
    let mut room = Room::of(2);
    room.message(1, OWN, b"raw").unwrap();
    let (to, channel, packet) = room.got().remove(0);
    let Some(data_packet::Value::User(user)) = packet.value else {
        panic!("no user")
    };
    assert_eq!((to, channel, user.payload.as_slice()), (2, RELIABLE, &b"raw"[..]));
    assert_eq!(packet.participant_identity, "p1");
    assert_eq!(room.message(1, ChannelId(99), b"raw"), Err(DropReason::DataNotAllowed));
}

#[test]
fn channels_open_is_said_once() {
    let mut room = Room::of(0);
    room.join(1, rights());
    room.connect(1);
    room.connect(1);
    let said = std::iter::from_fn(|| room.plane.poll_event()).count();
    assert_eq!(said, 1);
}

#[test]
fn a_joiner_gets_the_last_two_seconds_and_what_the_server_said() {
    let mut room = Room::of(2);
    room.join(3, rights());
    room.send(1, RELIABLE, &user(1, vec![1])).unwrap();
    room.send(1, LOSSY, &user(0, vec![9])).unwrap();
    room.plane.send(
        room.now,
        &mut room.link,
        &[ParticipantHandle(3)],
        true,
        user(0, vec![2]).encode_to_vec(),
    );
    room.pass(Duration::from_millis(1500));
    room.send(1, RELIABLE, &user(2, vec![3])).unwrap();
    room.pass(Duration::from_millis(1000));
    room.got();
    room.connect(3);
    let payloads: Vec<_> = room
        .got()
        .into_iter()
        .map(|(to, channel, packet)| match packet.value {
            Some(data_packet::Value::User(user)) => (to, channel, user.payload),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(payloads, [(3, RELIABLE, vec![2]), (3, RELIABLE, vec![3])]);
}

#[test]
fn what_waits_for_a_joiner_is_bounded() {
    let mut room = Room::of(1);
    room.join(2, rights());
    for sequence in 1..=300 {
        room.send(1, RELIABLE, &user(sequence, vec![0; 1000])).unwrap();
    }
    for _ in 0..300 {
        room.plane.send(
            room.now,
            &mut room.link,
            &[],
            true,
            user(0, vec![0; 1000]).encode_to_vec(),
        );
    }
    let dropped = drops(&mut room);
    assert!(dropped.contains(&DropReason::QueueFull) && dropped.contains(&DropReason::DataSlowReader));
    room.got();
    room.connect(2);
    let got = room.got();
    let bytes: usize = got.iter().map(|(_, _, packet)| packet.encoded_len()).sum();
    assert!((150_000..=200_000).contains(&bytes), "{bytes}");
    let last = got.iter().map(|(_, _, packet)| packet.sequence).max();
    assert_eq!(last, Some(300), "the newest of the sequenced ones are kept");
}

#[test]
fn a_slow_reliable_reader_holds_its_senders_back_and_loses_nothing() {
    let mut room = Room::of(3);
    room.block(3, RELIABLE);
    for number in 0..14_u8 {
        room.send(1, RELIABLE, &user(u32::from(number) + 1, vec![number; 10_000]))
            .unwrap();
    }
    assert!(!room.is_read(1, RELIABLE) && !room.is_read(1, OWN), "held back");
    assert!(
        room.is_read(1, LOSSY) && room.is_read(2, RELIABLE),
        "lossy data and other senders go on"
    );
    assert_eq!(room.receivers(), [2; 14], "others are served meanwhile");

    room.drain(3, RELIABLE, 50_000);
    assert!(!room.is_read(1, RELIABLE), "still above the mark");
    room.drain(3, RELIABLE, 50_000);
    assert!(room.is_read(1, RELIABLE));
    room.drain(3, RELIABLE, 1_000_000);
    let sequences: Vec<_> = room.got().into_iter().map(|(_, _, packet)| packet.sequence).collect();
    assert_eq!(sequences, (1..=14).collect::<Vec<_>>());
    room.pass(Duration::from_secs(60));
    assert_eq!((room.link.cut.len(), drops(&mut room).len()), (0, 0));
}

#[test]
fn a_reader_that_stays_behind_for_ten_seconds_is_cut() {
    let mut room = Room::of(3);
    room.block(3, RELIABLE);
    room.fill(1, 60_000);
    room.fill(1, 60_000);
    assert_eq!(room.plane.poll_timeout(), None, "within its budget it may wait");
    room.fill(1, 60_000);
    room.fill(2, 60_000);
    assert!(!room.is_read(1, RELIABLE) && !room.is_read(2, RELIABLE));
    assert_eq!(room.plane.poll_timeout(), Some(room.now + STUCK));
    room.pass(STUCK - Duration::from_millis(1));
    assert!(room.link.cut.is_empty());
    room.pass(Duration::from_millis(1));
    assert_eq!(room.link.cut, [(3, CloseReason::DataReaderStuck)]);
    assert!(room.is_read(1, RELIABLE) && room.is_read(2, RELIABLE));
    assert_eq!(room.plane.poll_timeout(), None);
    room.plane.on_transport_closed(&mut room.link, TransportHandle(3));
}

#[test]
fn memory_does_not_follow_the_slowest_reader() {
    let mut room = Room::of(3);
    room.block(3, RELIABLE);
    // Whatever senders have in flight when they are held back.
    for _ in 0..200 {
        room.fill(1, 60_000);
    }
    assert_eq!(room.link.cut.first(), Some(&(3, CloseReason::DataReaderStuck)));
    assert!(room.is_read(1, RELIABLE));
}

#[test]
fn a_sender_waits_for_all_its_slow_readers() {
    let mut room = Room::of(3);
    room.block(2, RELIABLE);
    room.block(3, RELIABLE);
    for _ in 0..3 {
        room.fill(1, 60_000);
    }
    room.drain(2, RELIABLE, 1_000_000);
    assert!(!room.is_read(1, RELIABLE));
    // A channel it opens meanwhile is not read either.
    let (transport, participant) = (TransportHandle(11), ParticipantHandle(1));
    let label = Some(ChannelLabel::Reliable);
    room.plane
        .on_channel_open(room.now, &mut room.link, transport, participant, RELIABLE, label);
    assert!(!room.is_read(11, RELIABLE));
    room.plane.remove_participant(&mut room.link, ParticipantHandle(3));
    assert!(room.is_read(1, RELIABLE) && room.is_read(11, RELIABLE));
}

#[test]
fn a_reader_whose_channel_is_gone_holds_nobody() {
    for close in [
        |room: &mut Room| {
            room.plane
                .on_channel_closed(&mut room.link, TransportHandle(2), RELIABLE)
        },
        |room: &mut Room| room.plane.on_transport_closed(&mut room.link, TransportHandle(2)),
    ] {
        let mut room = Room::of(2);
        room.block(2, RELIABLE);
        for _ in 0..3 {
            room.fill(1, 60_000);
        }
        assert!(!room.is_read(1, RELIABLE));
        close(&mut room);
        assert!(room.is_read(1, RELIABLE));
    }
}

#[test]
fn a_slow_lossy_reader_loses_the_oldest() {
    let mut room = Room::of(2);
    room.block(2, LOSSY);
    for number in 0..20_u8 {
        room.send(1, LOSSY, &user(0, vec![number; 10_000])).unwrap();
    }
    let dropped = drops(&mut room);
    assert_eq!(dropped, [DropReason::DataSlowReader; 14]);
    room.drain(2, LOSSY, 1_000_000);
    let kept: Vec<_> = room
        .got()
        .into_iter()
        .filter_map(|(_, _, packet)| match packet.value {
            Some(data_packet::Value::User(user)) => user.payload.first().copied(),
            _ => None,
        })
        .collect();
    assert_eq!(kept, (14..20).collect::<Vec<_>>());
}

#[test]
fn a_newer_session_keeps_the_identity() {
    let mut room = Room::of(1);
    room.join(2, rights());
    let newer = DataParticipant {
        room: RoomHandle(1),
        participant: ParticipantHandle(3),
        sid: "PA_3".into(),
        identity: "p2".into(),
        transport: TransportHandle(3),
        rights: rights(),
    };
    room.plane.set_participant(room.now, &mut room.link, newer);
    room.connect(3);
    room.plane.remove_participant(&mut room.link, ParticipantHandle(2));
    let to = DataPacket {
        destination_identities: vec!["p2".into()],
        ..user(0, vec![])
    };
    room.send(1, RELIABLE, &to).unwrap();
    assert_eq!(room.receivers(), [3]);
}

mod tracks {
    use super::*;

    const A_TRACK: DataTrackHandle = DataTrackHandle(50);

    /// flags: 0x10 start of frame, 0x08 end of frame, 0x04 extensions.
    fn packet(flags: u8, handle: u16, payload: usize) -> Vec<u8> {
        let mut packet = vec![flags, 0];
        packet.extend(handle.to_be_bytes());
        packet.extend([0; 8]);
        packet.extend(vec![0xab; payload]);
        packet
    }

    fn room() -> Room {
        let mut room = Room::of(3);
        room.plane.publish_track(ParticipantHandle(1), A_TRACK, 7);
        assert!(room.plane.subscribe_track(A_TRACK, ParticipantHandle(2), 1000));
        assert!(room.plane.subscribe_track(A_TRACK, ParticipantHandle(3), 2));
        room
    }

    #[test]
    fn the_handle_is_the_subscribers() {
        let mut room = room();
        room.message(1, TRACK, &packet(0x18, 7, 5)).unwrap();
        let sent = std::mem::take(&mut room.link.sent);
        assert_eq!(
            sent,
            [(2, TRACK, packet(0x18, 1000, 5)), (3, TRACK, packet(0x18, 2, 5))]
        );
        assert!(room.plane.unsubscribe_track(A_TRACK, ParticipantHandle(2)));
        assert!(!room.plane.unsubscribe_track(A_TRACK, ParticipantHandle(2)));
        room.message(1, TRACK, &packet(0x18, 7, 5)).unwrap();
        assert_eq!(room.receivers(), [3]);
        assert!(room.plane.unpublish_track(A_TRACK) && !room.plane.unpublish_track(A_TRACK));
        assert_eq!(
            room.message(1, TRACK, &packet(0x18, 7, 5)),
            Err(DropReason::NotPublished)
        );
        assert!(!room.plane.subscribe_track(A_TRACK, ParticipantHandle(2), 1));
    }

    #[test]
    fn only_what_is_published_and_well_formed() {
        let mut room = room();
        assert_eq!(
            room.message(2, TRACK, &packet(0x18, 7, 5)),
            Err(DropReason::NotPublished)
        );
        assert_eq!(
            room.message(1, TRACK, &packet(0x18, 8, 5)),
            Err(DropReason::NotPublished)
        );
        assert_eq!(
            room.message(1, TRACK, &packet(0x18, 7, 5)[..11]),
            Err(DropReason::Truncated)
        );
        assert_eq!(room.message(1, TRACK, &packet(0x1c, 7, 0)), Err(DropReason::Truncated));
        let mut long = packet(0x1c, 7, 4);
        long[12..14].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(room.message(1, TRACK, &long), Err(DropReason::Truncated));
        long[12..14].copy_from_slice(&[0, 0]);
        room.message(1, TRACK, &long).unwrap();
        assert_eq!(room.receivers(), [2, 3]);
        room.plane.remove_participant(&mut room.link, ParticipantHandle(1));
        assert!(!room.plane.unpublish_track(A_TRACK));
    }

    #[test]
    fn a_slow_subscriber_loses_whole_frames_others_none() {
        let mut room = room();
        // Nothing drains at subscriber 2: 32 KiB are taken, then the frame that does not fit is skipped to its end.
        for flags in [0x10, 0x00, 0x00, 0x08] {
            room.link.buffered.insert((3, TRACK.0), 0);
            room.message(1, TRACK, &packet(flags, 7, 12_000)).unwrap();
        }
        assert_eq!(room.receivers(), [2, 3, 2, 3, 3, 3]);
        assert_eq!(drops(&mut room).len(), 2);
        room.link.buffered.insert((2, TRACK.0), 0);
        room.message(1, TRACK, &packet(0x18, 7, 100)).unwrap();
        assert_eq!(room.receivers(), [2, 3], "the next frame is whole again");
    }

    #[test]
    fn a_fast_subscriber_is_given_a_larger_buffer() {
        let mut room = room();
        for _ in 0..20 {
            for _ in 0..10 {
                room.message(1, TRACK, &packet(0x18, 7, 10_000)).unwrap();
                room.link.buffered.insert((2, TRACK.0), 0);
            }
            room.now += Duration::from_millis(100);
        }
        room.link.sent.clear();
        drops(&mut room);
        // 100 kB drained in each 100 ms: 90 kB in the buffer are no longer than that.
        room.link.buffered.insert((2, TRACK.0), 80_000);
        room.message(1, TRACK, &packet(0x18, 7, 10_000)).unwrap();
        assert!(room.receivers().contains(&2));
        room.link.buffered.insert((2, TRACK.0), 100_000);
        room.message(1, TRACK, &packet(0x18, 7, 10_000)).unwrap();
        assert!(!room.receivers().contains(&2));
    }

    #[test]
    fn a_subscriber_without_a_channel_is_passed_over() {
        let mut room = room();
        room.plane.on_channel_closed(&mut room.link, TransportHandle(2), TRACK);
        room.message(1, TRACK, &packet(0x18, 7, 5)).unwrap();
        assert_eq!(room.receivers(), [3]);
        assert_eq!(drops(&mut room), [DropReason::Disabled]);
    }
}

mod calls {
    use super::*;
    use crate::proto::livekit::{RpcAck, RpcResponse, data_packet::Value};

    fn to_call(value: Value, call: &str) -> DataPacket {
        DataPacket {
            destination_identities: vec![call.into()],
            value: Some(value),
            ..Default::default()
        }
    }

    #[test]
    fn an_answer_to_a_call_of_the_server_reaches_it_and_nobody_else() {
        let mut room = Room::of(2);
        room.plane.expect_rpc("RPC_1".into());
        let ack = to_call(Value::RpcAck(RpcAck::default()), "RPC_1");
        let response = to_call(Value::RpcResponse(RpcResponse::default()), "RPC_1");
        let other = to_call(Value::RpcAck(RpcAck::default()), "RPC_2");
        for packet in [&other, &ack, &response, &response] {
            room.send(1, RELIABLE, packet).unwrap();
        }
        let passed: Vec<Event> = std::iter::from_fn(|| room.plane.poll_event()).collect();
        let [
            Event::RpcAnswer { participant, packet },
            Event::RpcAnswer { packet: second, .. },
        ] = passed.as_slice()
        else {
            panic!("one acknowledgement, one response, no more: {passed:?}");
        };
        assert_eq!(*participant, ParticipantHandle(1));
        assert_eq!((packet, second), (&ack.encode_to_vec(), &response.encode_to_vec()));
        assert!(room.link.sent.is_empty());

        assert!(room.plane.end_rpc("RPC_1"));
        assert!(!room.plane.end_rpc("RPC_1"));
        room.send(1, RELIABLE, &ack).unwrap();
        assert!(room.plane.poll_event().is_none());
    }
}
