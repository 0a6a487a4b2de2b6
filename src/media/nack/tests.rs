use super::*;

struct Bench {
    nack: NackGenerator,
    now: Instant,
}

impl Bench {
    fn new(kind: MediaKind) -> Self {
        Self {
            nack: NackGenerator::new(kind),
            now: Instant::now(),
        }
    }

    fn packet(&mut self, sequence: u64) -> Arrival {
        self.nack.handle_packet(sequence, false, self.now)
    }

    fn after(&mut self, ms: u64) -> &mut Self {
        self.now += Duration::from_millis(ms);
        self
    }

    fn asked(&mut self) -> Vec<u16> {
        let mut pairs = Vec::new();
        self.nack.handle_timeout(self.now, &mut pairs);
        pairs.into_iter().flat_map(NackPair::sequences).collect()
    }

    /// Runs timers until the list is empty and returns when requests went out, in ms.
    fn run(&mut self) -> Vec<u128> {
        let start = self.now;
        let mut times = Vec::new();
        while let Some(at) = self.nack.poll_timeout() {
            self.now = self.now.max(at);
            if !self.asked().is_empty() {
                times.push((self.now - start).as_millis());
            }
        }
        times
    }
}

#[test]
fn a_reordered_packet_is_not_asked_for() {
    let mut bench = Bench::new(MediaKind::Video);
    bench.packet(100);
    bench.packet(102);
    assert!(bench.after(9).asked().is_empty());
    assert_eq!(bench.packet(101), Arrival::Filled);
    assert_eq!(bench.packet(101), Arrival::Old);
    assert_eq!((bench.nack.poll_timeout(), bench.nack.missing()), (None, 0));
    assert!(bench.after(100).asked().is_empty());
}

#[test]
fn a_network_that_reorders_is_given_more_time() {
    let mut bench = Bench::new(MediaKind::Video);
    bench.packet(100);
    bench.packet(102);
    assert_eq!(bench.after(10).asked(), [101], "nothing is known yet");
    assert_eq!(bench.after(9).packet(101), Arrival::Filled);
    bench.packet(104);
    assert!(bench.after(21).asked().is_empty());
    assert_eq!(bench.packet(103), Arrival::Filled);
    // What comes a round trip after a request is its answer, whatever SSRC it comes on.
    bench.packet(106);
    assert_eq!(bench.after(30).asked(), [105]);
    assert_eq!(bench.after(100).packet(105), Arrival::Filled);
    bench.packet(108);
    assert_eq!(bench.after(25).asked(), [107], "not learned from");
    // Real losses let it fade.
    for sequence in (110..900).step_by(2) {
        bench.packet(sequence);
        bench.after(25).asked();
        bench.nack.handle_recovered(sequence - 1, bench.now);
    }
    bench.packet(900);
    assert_eq!(bench.after(11).asked(), [899]);
}

#[test]
fn a_burst_is_asked_for_in_pairs_over_the_wrap() {
    let mut bench = Bench::new(MediaKind::Video);
    bench.packet(0x1_fffd);
    bench.packet(0x2_0010);
    let mut pairs = Vec::new();
    bench.after(10);
    bench.nack.handle_timeout(bench.now, &mut pairs);
    assert_eq!(
        pairs,
        [
            NackPair {
                pid: 0xfffe,
                blp: 0xffff
            },
            NackPair { pid: 15, blp: 0 }
        ]
    );
    assert!(bench.asked().is_empty(), "not again in the same moment");
}

#[test]
fn tries_back_off_from_the_round_trip_and_end() {
    let mut bench = Bench::new(MediaKind::Video);
    bench.nack.set_rtt(Duration::from_millis(100));
    bench.packet(1);
    bench.packet(3);
    let times = bench.run();
    assert_eq!(times, [10, 110, 210, 310, 410, 510, 635, 791, 986, 1230]);
    assert_eq!(bench.nack.missing(), 0);
    assert!(bench.nack.take_keyframe_request(), "given up for good");
    assert!(!bench.nack.take_keyframe_request());
}

#[test]
fn the_last_packets_of_a_burst_are_asked_for_without_further_arrivals() {
    let mut bench = Bench::new(MediaKind::Audio);
    bench.packet(1);
    bench.packet(3);
    assert_eq!(bench.nack.poll_timeout(), Some(bench.now + REORDER_TOLERANCE));
    assert_eq!(bench.run().len(), 10);
    assert!(!bench.nack.take_keyframe_request(), "audio has no key frames");
}

#[test]
fn short_round_trips_are_measured_and_retries_have_a_floor() {
    let mut bench = Bench::new(MediaKind::Video);
    bench.packet(0);
    for sequence in (2..60).step_by(2) {
        bench.packet(sequence);
        assert_eq!(bench.after(10).asked(), [sequence as u16 - 1]);
        bench.after(4);
        assert_eq!(bench.nack.handle_recovered(sequence - 1, bench.now), Arrival::Filled);
    }
    assert!(bench.nack.rtt() < Duration::from_millis(6));
    bench.packet(62);
    assert_eq!(bench.after(10).asked(), [59, 60, 61]);
    assert!(bench.after(19).asked().is_empty());
    assert_eq!(bench.after(1).asked(), [59, 60, 61]);
}

/// Every second request fails; then nearly none.
#[test]
fn where_requests_fail_packets_are_asked_for_twice_in_a_round_trip() {
    let mut bench = Bench::new(MediaKind::Video);
    bench.nack.set_rtt(Duration::from_millis(80));
    let mut sequence = 0;
    let mut lose = |bench: &mut Bench, fails: bool| {
        bench.packet(sequence);
        sequence += 2;
        bench.packet(sequence);
        bench.after(10).asked();
        if fails {
            let at = bench.nack.poll_timeout().expect("asked again");
            bench.now = at;
            bench.asked();
        }
        bench.after(80);
        bench.nack.handle_recovered(sequence - 1, bench.now);
        sequence += 1;
    };
    let interval = |bench: &mut Bench, sequence: u64| {
        bench.nack.reset();
        bench.packet(sequence - 1);
        bench.packet(sequence + 1);
        let times = bench.run();
        (times.len(), times[1] - times[0])
    };
    assert_eq!(interval(&mut bench, 1001), (10, 80));
    bench.nack.reset();
    (0..100).for_each(|n| lose(&mut bench, n % 2 == 0));
    assert_eq!(interval(&mut bench, 1001), (10, 40));
    assert_eq!(interval(&mut bench, 1000), (10, 80), "one that is measured");
    bench.nack.reset();
    (0..1000).for_each(|_| lose(&mut bench, false));
    assert_eq!(interval(&mut bench, 1001), (10, 80));
}

#[test]
fn a_late_answer_to_a_second_request_is_no_round_trip() {
    let mut bench = Bench::new(MediaKind::Video);
    bench.packet(0);
    bench.packet(2);
    bench.after(10).asked();
    bench.after(100).asked();
    bench.after(1);
    bench.nack.handle_recovered(1, bench.now);
    assert_eq!(bench.nack.rtt(), DEFAULT_RTT);
    assert_eq!(bench.nack.handle_recovered(1, bench.now), Arrival::Old);
}

#[test]
fn a_retransmission_that_overtakes_is_not_asked_for_again() {
    let mut bench = Bench::new(MediaKind::Video);
    assert_eq!(
        bench.nack.handle_recovered(1, bench.now),
        Arrival::Old,
        "it starts no stream"
    );
    bench.packet(1);
    assert_eq!(bench.nack.handle_recovered(2, bench.now), Arrival::Newest);
    bench.packet(3);
    assert_eq!(bench.nack.missing(), 0);
    assert_eq!(bench.packet(2), Arrival::Old);
}

#[test]
fn a_full_list_keeps_what_follows_the_key_frame() {
    let mut bench = Bench::new(MediaKind::Video);
    bench.packet(0);
    for sequence in (2..1600).step_by(2) {
        bench.packet(sequence); // 799 missing
    }
    bench.nack.handle_packet(1601, true, bench.now);
    bench.packet(1900); // 298 more: does not fit, but for the key frame
    assert_eq!(bench.nack.missing(), 298);
    assert!(!bench.nack.take_keyframe_request());
    bench.packet(2700);
    assert_eq!(
        bench.nack.missing(),
        799,
        "nothing of it is before a key frame: all given up but the new gap"
    );
    assert!(bench.nack.take_keyframe_request());
}

#[test]
fn a_jump_asks_for_a_key_frame_and_nothing_else() {
    let mut bench = Bench::new(MediaKind::Video);
    bench.packet(0);
    bench.packet(5000);
    assert_eq!((bench.nack.missing(), bench.nack.poll_timeout()), (0, None));
    assert!(bench.nack.take_keyframe_request());
}

#[test]
fn a_full_audio_list_forgets_the_oldest() {
    let mut bench = Bench::new(MediaKind::Audio);
    bench.packet(0);
    bench.packet(901);
    bench.packet(1202);
    assert_eq!(bench.nack.missing(), MAX_MISSING);
    assert_eq!(bench.packet(200), Arrival::Old);
    assert_eq!(bench.packet(201), Arrival::Filled);
}

#[test]
fn more_pairs_than_fit_are_due_at_once_again() {
    let mut bench = Bench::new(MediaKind::Video);
    for sequence in (0..20_000).step_by(20) {
        bench.packet(sequence); // 19 missing in two pairs each time
        if bench.nack.missing() > 900 {
            break;
        }
    }
    for filled in 0..900 {
        if filled % 17 != 1 {
            bench.packet(filled);
        }
    }
    let missing = bench.nack.missing();
    bench.after(10);
    let mut asked = bench.asked().len();
    while bench.nack.poll_timeout() == Some(bench.now) || bench.nack.poll_timeout().is_some_and(|at| at <= bench.now) {
        asked += bench.asked().len();
    }
    assert_eq!(asked, missing);
}

#[test]
fn a_lost_packet_before_a_newer_key_frame_needs_no_other() {
    let mut bench = Bench::new(MediaKind::Video);
    bench.packet(0);
    bench.packet(2);
    bench.nack.handle_packet(3, true, bench.now);
    bench.run();
    assert!(!bench.nack.take_keyframe_request());
}

#[test]
fn a_reset_forgets_the_stream() {
    let mut bench = Bench::new(MediaKind::Video);
    bench.packet(0);
    bench.packet(2);
    bench.nack.reset();
    assert_eq!(bench.packet(90_000), Arrival::Newest);
    assert_eq!((bench.nack.missing(), bench.nack.poll_timeout()), (0, None));
}
