//! The figures of a test: their arithmetic, the table, the JSON, and whether the test has failed.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::failure::Failure;
use super::histogram::Histogram;
use super::metrics::Counters;
use super::options::Scenario;
use super::process::Sample;
use super::tally::Tally;

/// A tester that is busier than this measures itself.
const SATURATED: f64 = 0.9;

/// Names are stable, units are in them; what was not measured is null.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub rooms: usize,
    pub publishers: usize,
    pub subscribers: usize,
    pub verifying: usize,
    pub seconds: f64,
    pub joined: usize,
    pub clients: usize,
    pub join_ms_p50: Option<f64>,
    pub join_ms_p99: Option<f64>,
    pub tracks_expected: usize,
    pub tracks_received: usize,
    pub key_frames_asked: u64,
    pub packets_in: u64,
    pub packets_out: u64,
    pub packets_verified: u64,
    pub megabits_in_per_second: f64,
    pub megabits_out_per_second: f64,
    pub packets_lost: u64,
    pub loss_percent: f64,
    /// Of those lost, at most: datagrams this machine's sockets had no room for.
    pub receive_overruns: u64,
    pub packets_reordered: u64,
    pub packets_repeated: u64,
    pub packets_not_media: u64,
    pub packets_spoilt: u64,
    pub latency_ms_p50: Option<f64>,
    pub latency_ms_p99: Option<f64>,
    pub latency_samples: u64,
    pub freezes: u64,
    pub messages_sent: u64,
    pub messages_received: u64,
    pub messages_expected: u64,
    pub garbage_sent: u64,
    /// Sessions taken up again, since the start.
    pub resumed: usize,
    pub tester_cores: Option<f64>,
    /// What a packet that arrived cost the tester, all else it does included.
    pub tester_ns_per_packet: Option<f64>,
    pub server: Option<ServerCost>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct ServerCost {
    pub cpu_seconds: f64,
    pub cores: f64,
    pub busiest_thread: String,
    pub busiest_thread_cores: f64,
    pub ns_per_packet: Option<f64>,
    /// Forwarded in a second in which a core does nothing else.
    pub packets_per_core_second: Option<f64>,
    /// Datagrams in one send (GSO), and the part of the time in which its media threads did not wait; only of a server
    /// that was started for the test.
    pub segments_per_send: Option<f64>,
    pub shards_busy: Option<f64>,
    pub send_dropped: Option<f64>,
    pub rss_mib: f64,
    pub rss_idle_mib: f64,
    /// Above idle.
    pub rss_kib_per_client: f64,
}

impl Report {
    /// `own` = this process before and after; `server` = the server idle, before and after; `counters` = its
    /// own, before and after.
    pub(super) fn new(
        scenario: &Scenario,
        tally: &Tally,
        elapsed: Duration,
        overruns: u64,
        own: Option<(Sample, Sample)>,
        server: Option<((Sample, Sample), Sample)>,
        counters: Option<(Counters, Counters)>,
    ) -> Self {
        let seconds = elapsed.as_secs_f64();
        let lost = tally.lost();
        let cost = |((idle, before), after): ((Sample, Sample), Sample)| {
            let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
            let (busiest_thread, busiest) = after.busiest_since(&before).unwrap_or_default();
            let packets = tally.received as f64;
            let above = after.resident_kib.saturating_sub(idle.resident_kib) as f64;
            ServerCost {
                cpu_seconds,
                cores: cpu_seconds / seconds,
                busiest_thread,
                busiest_thread_cores: busiest / seconds,
                ns_per_packet: (packets > 0.0).then(|| cpu_seconds * 1e9 / packets),
                packets_per_core_second: (cpu_seconds > 0.0).then(|| packets / cpu_seconds),
                segments_per_send: counters.and_then(|(before, after)| after.segments_since(&before)),
                shards_busy: counters.map(|(before, after)| (after.busy_seconds - before.busy_seconds) / seconds),
                send_dropped: counters.map(|(before, after)| after.dropped - before.dropped),
                rss_mib: after.resident_kib as f64 / 1024.0,
                rss_idle_mib: idle.resident_kib as f64 / 1024.0,
                rss_kib_per_client: above / scenario.clients() as f64,
            }
        };
        Self {
            rooms: scenario.rooms,
            publishers: scenario.publishers,
            subscribers: scenario.subscribers,
            verifying: scenario.verify.min(scenario.subscribers),
            seconds,
            joined: tally.joined,
            clients: scenario.clients(),
            join_ms_p50: millis(&tally.join_times, 0.5),
            join_ms_p99: millis(&tally.join_times, 0.99),
            tracks_expected: scenario.tracks_expected(),
            tracks_received: tally.tracks,
            key_frames_asked: tally.key_frames_asked,
            packets_in: tally.sent,
            packets_out: tally.received,
            packets_verified: tally.verified,
            megabits_in_per_second: tally.sent_bytes as f64 * 8e-6 / seconds,
            megabits_out_per_second: tally.received_bytes as f64 * 8e-6 / seconds,
            packets_lost: lost,
            loss_percent: percent(lost, tally.received),
            receive_overruns: overruns,
            packets_reordered: tally.reordered,
            packets_repeated: tally.repeated,
            packets_not_media: tally.other,
            packets_spoilt: tally.spoilt,
            latency_ms_p50: millis(&tally.latency, 0.5),
            latency_ms_p99: millis(&tally.latency, 0.99),
            latency_samples: tally.latency.count(),
            freezes: tally.freezes,
            messages_sent: tally.messages_sent,
            messages_received: tally.messages_received,
            messages_expected: tally.messages_sent * scenario.subscribers as u64,
            garbage_sent: tally.garbage,
            resumed: tally.resumed,
            tester_ns_per_packet: own
                .as_ref()
                .filter(|_| tally.received > 0)
                .map(|(before, after)| (after.cpu_seconds - before.cpu_seconds) * 1e9 / tally.received as f64),
            tester_cores: own.map(|(before, after)| (after.cpu_seconds - before.cpu_seconds) / seconds),
            server: server.map(cost),
        }
    }

    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    pub fn table(&self) -> String {
        let mut rows: Vec<(&str, String)> = Vec::new();
        let rate = |count: u64| format!("{count} ({:.0}/s)", count as f64 / self.seconds);
        let pair = |p50: Option<f64>, p99: Option<f64>| match p50.zip(p99) {
            Some((p50, p99)) => format!("{p50:.2} ms, {p99:.2} ms"),
            None => "not measured".to_owned(),
        };
        rows.push((
            "rooms × (publishers → subscribers)",
            format!("{} × ({} → {})", self.rooms, self.publishers, self.subscribers),
        ));
        rows.push(("measured for", format!("{:.1} s", self.seconds)));
        rows.push(("joined", format!("{} of {}", self.joined, self.clients)));
        rows.push((
            "join to first media, p50, p99",
            pair(self.join_ms_p50, self.join_ms_p99),
        ));
        rows.push((
            "tracks received",
            format!("{} of {}", self.tracks_received, self.tracks_expected),
        ));
        rows.push(("packets in", rate(self.packets_in)));
        rows.push(("packets out", rate(self.packets_out)));
        rows.push((
            "of which opened and checked",
            format!("{} ({} spoilt)", self.packets_verified, self.packets_spoilt),
        ));
        rows.push((
            "Mbit/s in, out",
            format!(
                "{:.1}, {:.1}",
                self.megabits_in_per_second, self.megabits_out_per_second
            ),
        ));
        rows.push(("lost", format!("{} ({:.4} %)", self.packets_lost, self.loss_percent)));
        rows.push(("no room in this machine's sockets", self.receive_overruns.to_string()));
        rows.push((
            "reordered, repeated",
            format!("{}, {}", self.packets_reordered, self.packets_repeated),
        ));
        rows.push(("retransmissions and probes", self.packets_not_media.to_string()));
        rows.push(("added latency p50, p99", pair(self.latency_ms_p50, self.latency_ms_p99)));
        rows.push(("freezes", self.freezes.to_string()));
        if self.messages_sent > 0 {
            rows.push((
                "data messages received",
                format!("{} of {}", self.messages_received, self.messages_expected),
            ));
        }
        if self.garbage_sent > 0 {
            rows.push(("garbage sent", rate(self.garbage_sent)));
        }
        if self.resumed > 0 {
            rows.push(("sessions taken up again", self.resumed.to_string()));
        }
        if let Some(cores) = self.tester_cores {
            let note = if cores > SATURATED {
                " (saturated: the figures are its own)"
            } else {
                ""
            };
            let each = self.tester_ns_per_packet.unwrap_or_default();
            rows.push((
                "tester CPU, per packet",
                format!("{cores:.2} cores{note}, {each:.0} ns"),
            ));
        }
        if let Some(server) = &self.server {
            rows.push((
                "server CPU",
                format!("{:.2} s, {:.3} cores", server.cpu_seconds, server.cores),
            ));
            rows.push((
                "its busiest thread",
                format!("{}, {:.3} cores", server.busiest_thread, server.busiest_thread_cores),
            ));
            if let Some((ns, per_core)) = server.ns_per_packet.zip(server.packets_per_core_second) {
                rows.push(("server CPU per forwarded packet", format!("{ns:.0} ns")));
                rows.push(("packets per busy core-second", format!("{per_core:.0}")));
            }
            if let Some((segments, busy)) = server.segments_per_send.zip(server.shards_busy) {
                rows.push(("datagrams in one send", format!("{segments:.2}")));
                rows.push((
                    "its media threads are busy",
                    format!("{:.0} % of one core", busy * 100.0),
                ));
            }
            rows.push((
                "server RSS, idle, above it per client",
                format!(
                    "{:.1} MiB, {:.1} MiB, {:.0} KiB",
                    server.rss_mib, server.rss_idle_mib, server.rss_kib_per_client
                ),
            ));
        }
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, value) in rows {
            let _ = writeln!(text, "{name:width$}  {value}");
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// An error when the server has lost or spoilt what it was to forward, or forwarded nothing.
    pub fn judge(&self, max_loss: f64) -> Result<(), Failure> {
        if self.packets_out == 0 {
            return Err(Failure::NothingArrived("no packet arrived while measuring".into()));
        }
        if self.packets_spoilt > 0 {
            return Err(Failure::Spoilt(format!(
                "{} packets were not what had been sent",
                self.packets_spoilt
            )));
        }
        if self.packets_lost > 0 && self.loss_percent > max_loss {
            let own = match self.receive_overruns {
                0 => String::new(),
                overruns => format!("; sockets on this machine had no room for {overruns}"),
            };
            return Err(Failure::Lost(format!(
                "{} packets were lost, {:.4} %{own}",
                self.packets_lost, self.loss_percent
            )));
        }
        Ok(())
    }
}

fn millis(histogram: &Histogram, part: f64) -> Option<f64> {
    histogram.quantile(part).map(|value| value.as_secs_f64() * 1e3)
}

fn percent(lost: u64, received: u64) -> f64 {
    match lost + received {
        0 => 0.0,
        all => lost as f64 * 100.0 / all as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::options::{Video, VideoCodec};

    fn scenario() -> Scenario {
        Scenario {
            rooms: 2,
            publishers: 1,
            subscribers: 4,
            verify: 1,
            video: Video::P720,
            audio: true,
            data: true,
            codec: VideoCodec::Vp8,
            duration: Duration::from_secs(10),
            join_every: Duration::ZERO,
            gro: true,
            relay: false,
            garbage: 0,
            resume_every: None,
        }
    }

    fn sample(cpu_seconds: f64, resident_kib: u64) -> Sample {
        Sample {
            cpu_seconds,
            resident_kib,
            ..Sample::default()
        }
    }

    #[test]
    fn figures_are_what_they_say() {
        let mut tally = Tally {
            sent: 1_000,
            received: 99_000,
            received_bytes: 125_000_000,
            missing: 1_000,
            messages_sent: 10,
            ..Tally::default()
        };
        tally.latency.add(Duration::from_micros(250));
        let server = (
            (sample(0.0, 20_480), sample(1.0, 0)),
            sample(1.0 + 0.495, 20_480 + 10 * 1024),
        );
        let report = Report::new(
            &scenario(),
            &tally,
            Duration::from_secs(10),
            5,
            None,
            Some(server),
            None,
        );
        assert_eq!((report.packets_lost, report.loss_percent), (1_000, 1.0));
        assert_eq!(report.megabits_out_per_second, 100.0);
        assert_eq!(
            (report.tracks_expected, report.clients, report.messages_expected),
            (16, 10, 40)
        );
        assert!((report.latency_ms_p50.expect("one sample") - 0.25).abs() < 0.01);
        let cost = report.server.as_ref().expect("a server");
        assert!((cost.ns_per_packet.expect("packets") - 5_000.0).abs() < 1e-6);
        assert!((cost.packets_per_core_second.expect("packets") - 200_000.0).abs() < 1e-6);
        assert!((cost.cores - 0.0495).abs() < 1e-9 && (cost.rss_kib_per_client - 1024.0).abs() < 1e-9);
        for text in ["1000 (1.0000 %)", "0.25 ms", "5000 ns", "200000", "1024 KiB"] {
            assert!(report.table().contains(text), "{text}\n{}", report.table());
        }
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(json["packets_lost"], 1_000);
        assert!(json["tester_cores"].is_null());
    }

    #[test]
    fn loss_spoilt_packets_and_silence_fail_with_codes_of_their_own() {
        let good = Report {
            packets_out: 100,
            ..Report::default()
        };
        assert_eq!(good.judge(0.0), Ok(()));
        let lossy = Report {
            packets_lost: 1,
            loss_percent: 0.99,
            receive_overruns: 1,
            ..good.clone()
        };
        assert_eq!(lossy.judge(1.0), Ok(()));
        let failure = lossy.judge(0.5).expect_err("too much");
        assert_eq!(failure.exit_code(), 6);
        assert!(failure.to_string().contains("had no room"));
        let spoilt = Report {
            packets_spoilt: 1,
            ..good
        };
        assert_eq!(spoilt.judge(100.0).expect_err("spoilt").exit_code(), 7);
        assert_eq!(Report::default().judge(100.0).expect_err("silence").exit_code(), 5);
    }
}
