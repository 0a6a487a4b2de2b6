use super::*;

fn window(packets: u64, lost: u64) -> Window {
    Window {
        duration: QUALITY_INTERVAL,
        packets,
        lost,
        bytes: packets * 1000,
        ..Window::default()
    }
}

struct Bench {
    scorer: QualityScorer,
    now: Instant,
}

impl Bench {
    fn new(codec: Codec) -> Self {
        let now = Instant::now();
        Self {
            scorer: QualityScorer::new(codec, codec != Codec::Vp8, now),
            now,
        }
    }

    fn next(&mut self, window: Window) -> ConnectionScore {
        self.now += QUALITY_INTERVAL;
        self.scorer.update(&window, self.now)
    }

    /// The score as LiveKit names it.
    fn quality(&self) -> &'static str {
        match self.scorer.score {
            score if score > 80.0 => "excellent",
            score if score > 40.0 => "good",
            score if score > 20.0 => "poor",
            _ => "lost",
        }
    }

    fn settle(&mut self, window: Window) -> &'static str {
        for _ in 0..30 {
            self.next(window);
        }
        self.quality()
    }
}

#[test]
fn a_clean_connection_has_the_best_score() {
    let mut bench = Bench::new(Codec::Vp8);
    assert_eq!(bench.next(window(500, 0)), ConnectionScore { mos: 4.5, lost: false });
}

#[test]
fn loss_thresholds_of_each_codec() {
    // Percent at which quality falls to good and to poor.
    for (codec, good, poor) in [(Codec::Vp8, 20, 60), (Codec::Opus, 38, 113), (Codec::Red, 75, 225)] {
        for (lost, quality) in [
            (good - 2, "excellent"),
            (good + 2, "good"),
            (poor - 2, "good"),
            (poor + 2, "poor"),
        ] {
            assert_eq!(
                Bench::new(codec).settle(window(1000, lost)),
                quality,
                "{codec:?} {lost}"
            );
        }
    }
}

#[test]
fn delay_counts_when_given() {
    let bad = Window {
        rtt: Some(Duration::from_millis(600)),
        jitter: Some(Duration::from_millis(60)),
        ..window(500, 0)
    };
    // 300 + 120 ms of delay cost 30 points.
    assert_eq!(Bench::new(Codec::Opus).settle(bad), "good");
    let fair = Window {
        rtt: Some(Duration::from_millis(160)),
        jitter: Some(Duration::from_millis(20)),
        ..window(500, 0)
    };
    assert_eq!(Bench::new(Codec::Opus).settle(fair), "excellent");
}

#[test]
fn falling_is_faster_than_rising_and_has_a_floor() {
    let mut bench = Bench::new(Codec::Vp8);
    let down = bench.next(window(500, 250)).mos;
    assert!(down < 2.0);
    assert_eq!(bench.scorer.score, MIN_SCORE);
    bench.next(window(500, 0));
    assert_eq!(bench.quality(), "good");
    bench.next(window(500, 0));
    bench.next(window(500, 0));
    assert_eq!(bench.quality(), "excellent");
}

#[test]
fn no_packets_is_poor_and_no_sign_of_life_is_lost() {
    let mut bench = Bench::new(Codec::Opus);
    let dry = bench.next(Window {
        last_rtcp: Some(bench.now + QUALITY_INTERVAL),
        ..window(0, 0)
    });
    assert!(!dry.lost);
    assert_eq!(bench.quality(), "poor");
    let start = bench.now;
    let lost = bench.next(Window {
        last_rtcp: Some(start - Duration::from_secs(1)),
        ..window(0, 0)
    });
    assert!(lost.lost && lost.mos < 1.7);
    // Muting does not make a lost connection excellent; a disabled track is.
    bench.scorer.set_muted(true, bench.now);
    assert!(bench.scorer.current().lost);
    bench.scorer.set_disabled(true, bench.now);
    assert_eq!(bench.scorer.current().mos, 4.5);
}

#[test]
fn muted_windows_do_not_count_nor_ones_with_a_late_unmute() {
    let mut bench = Bench::new(Codec::Opus);
    bench.scorer.set_muted(true, bench.now);
    assert_eq!(bench.next(window(0, 0)).mos, 4.5);
    bench.scorer.set_muted(false, bench.now + Duration::from_millis(2600));
    assert_eq!(bench.next(window(10, 10)).mos, 4.5, "live for less than half of it");
    assert!(bench.next(window(10, 10)).mos < 4.0);
}

#[test]
fn pausing_is_poor_at_once() {
    let mut bench = Bench::new(Codec::Vp8);
    bench.scorer.set_paused(true);
    assert_eq!(bench.quality(), "poor");
    bench.next(window(500, 0));
    assert_eq!(bench.quality(), "poor");
    bench.scorer.set_paused(false);
    bench.next(window(500, 0));
    assert_eq!(bench.quality(), "good");
}

#[test]
fn missing_layers_and_bitrate() {
    assert_eq!(
        Bench::new(Codec::Vp8).settle(Window {
            layers_missing: 1.0,
            ..window(500, 0)
        }),
        "good"
    );
    assert_eq!(
        Bench::new(Codec::Vp8).settle(Window {
            layers_missing: 2.0,
            ..window(500, 0)
        }),
        "poor"
    );
    let starved = Window {
        expected_bits: Some(500 * 8000 * 4),
        ..window(500, 0)
    };
    assert_eq!(Bench::new(Codec::Vp8).settle(starved), "good");
    let full = Window {
        expected_bits: Some(500 * 8000),
        ..window(500, 0)
    };
    assert_eq!(Bench::new(Codec::Vp8).settle(full), "excellent");
}

#[test]
fn losses_at_a_fraction_of_the_usual_rate_weigh_less() {
    let mut bench = Bench::new(Codec::Opus);
    for _ in 0..12 {
        bench.next(window(250, 0));
    }
    assert_eq!(bench.scorer.rates.usual, Some(50.0));
    // 2.5 packets a second and one in twelve lost: 8 % with about a fifth of the weight.
    bench.next(window(12, 1));
    assert_eq!(bench.quality(), "excellent");
    let mut fresh = Bench::new(Codec::Opus);
    fresh.next(window(12, 1));
    assert_eq!(fresh.quality(), "good");
}

#[test]
fn the_usual_rate_is_the_most_frequent_one() {
    // One odd window at a high rate must not become the rate that all others are compared with.
    let mut bench = Bench::new(Codec::Vp8);
    for at in 0..30 {
        bench.next(window(if at == 3 { 2000 } else { 500 }, 0));
    }
    bench.now += MODE_INTERVAL;
    bench.next(window(500, 0));
    assert_eq!(bench.scorer.rates.usual, Some(100.0));
    for _ in 0..1000 {
        bench.next(window(500, 0));
    }
}

#[test]
fn the_worst_track_counts() {
    let best = ConnectionScore { mos: 4.5, lost: false };
    assert_eq!(worst(std::iter::empty()), best);
    let tracks = [
        best,
        ConnectionScore { mos: 3.0, lost: false },
        ConnectionScore { mos: 4.0, lost: true },
    ];
    assert_eq!(worst(tracks.into_iter()), ConnectionScore { mos: 3.0, lost: true });
}
