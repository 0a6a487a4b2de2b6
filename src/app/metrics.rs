//! The Prometheus page: LiveKit's names and labels for what it counts too, so that its dashboards work, and ours for
//! what only this server has. Nothing a client can choose is a label.

use std::fmt::{Display, Write as _};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::config::PrometheusConfig;
use super::http::Answers;
use super::relay_health::RelayHealth;
use crate::api::twirp::ApiStatistics;
use crate::api::webhooks::WebhookCounters;
use crate::io::{IoSnapshot, ShardHandle};
use crate::media::{ShardStats, Spread};
use crate::node::voice::VoiceStatistics;
use crate::node::{Node, ShardLoad};

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Pages and kernel ticks of /proc/self; both are these on every Linux we run on.
const PAGE: u64 = 4096;
const TICKS_PER_SECOND: f64 = 100.0;

/// Everything that is counted, and who may read it.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub node: Node,
    pub shards: Vec<ShardHandle>,
    pub api: Arc<ApiStatistics>,
    pub webhooks: Option<Arc<WebhookCounters>>,
    pub voice: Option<Arc<VoiceStatistics>>,
    pub relays: RelayHealth,
    /// The value of `Authorization`; None = anybody.
    pub authorization: Option<String>,
}

/// What `Authorization` must be, where the configuration asks for a password.
pub fn authorization(config: &PrometheusConfig) -> Option<String> {
    let pair = format!("{}:{}", config.username, config.password);
    (pair != ":").then(|| format!("Basic {}", STANDARD.encode(pair)))
}

impl Answers for Metrics {
    /// LiveKit: whatever the path.
    async fn answer(&self, request: Request) -> Response {
        if let Some(expected) = &self.authorization {
            let given = request.headers().get(header::AUTHORIZATION);
            let given = given.map(|value| value.as_bytes()).unwrap_or_default();
            if aws_lc_rs::constant_time::verify_slices_are_equal(given, expected.as_bytes()).is_err() {
                let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"metrics\"")];
                return (StatusCode::UNAUTHORIZED, challenge, "Unauthorized").into_response();
            }
        }
        ([(header::CONTENT_TYPE, CONTENT_TYPE)], self.page()).into_response()
    }
}

/// One of the numbers of a shard's sockets.
type Reading = fn(&IoSnapshot) -> u64;

/// Lines of one metric after the other.
struct Page {
    text: String,
    /// Labels of every line.
    node: String,
}

impl Page {
    fn metric(&mut self, name: &str, kind: &str) {
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let comma = if labels.is_empty() { "" } else { "," };
        let _ = writeln!(self.text, "{name}{{{}{comma}{labels}}} {value}", self.node);
    }

    /// Of each of those labels.
    fn spread<'a>(&mut self, name: &str, lines: impl IntoIterator<Item = (String, &'a Spread)>) {
        self.scaled_spread(name, 1.0, lines);
    }

    /// Values and bounds were counted as so many times what they stand for.
    fn scaled_spread<'a>(&mut self, name: &str, scale: f64, lines: impl IntoIterator<Item = (String, &'a Spread)>) {
        self.metric(name, "histogram");
        let (bucket, sum, count) = (format!("{name}_bucket"), format!("{name}_sum"), format!("{name}_count"));
        for (labels, spread) in lines {
            let comma = if labels.is_empty() { "" } else { "," };
            let mut total = 0;
            for (bound, values) in spread.cumulative() {
                let bound = bound.map_or("+Inf".to_owned(), |bound| (bound as f64 / scale).to_string());
                self.line(&bucket, &format!("{labels}{comma}le=\"{bound}\""), values);
                total = values;
            }
            self.line(&sum, &labels, spread.sum() as f64 / scale);
            self.line(&count, &labels, total);
        }
    }

    fn gauge(&mut self, name: &str, value: impl Display) {
        self.metric(name, "gauge");
        self.line(name, "", value);
    }

    fn counter<V: Display>(&mut self, name: &str, lines: impl IntoIterator<Item = (String, V)>) {
        self.metric(name, "counter");
        for (labels, value) in lines {
            self.line(name, &labels, value);
        }
    }
}

impl Metrics {
    fn page(&self) -> String {
        let mut page = Page {
            text: String::new(),
            node: format!("node_id=\"{}\",node_type=\"SERVER\"", self.node.config().room.node_id),
        };
        self.rooms(&mut page);
        self.packets(&mut page);
        self.api.write(&mut page.text, &page.node);
        self.deliveries(&mut page);
        self.shards(&mut page);
        self.voice(&mut page);
        self.relays(&mut page);
        machine(&mut page);
        process(&mut page);
        page.text
    }

    /// TURN servers of others, as the configuration names them.
    fn relays(&self, page: &mut Page) {
        let known = self.relays.up();
        if known.is_empty() {
            return;
        }
        let labels = |url: &str| format!("url=\"{}\"", url.replace(['"', '\\', '\n'], ""));
        page.metric("patchbay_turn_server_up", "gauge");
        for (url, health) in &known {
            page.line("patchbay_turn_server_up", &labels(url), u8::from(health.is_ok()));
        }
        page.metric("patchbay_turn_server_answer_seconds", "gauge");
        for (url, health) in &known {
            if let Ok(time) = health {
                page.line("patchbay_turn_server_answer_seconds", &labels(url), time.as_secs_f64());
            }
        }
    }

    fn voice(&self, page: &mut Page) {
        let Some(voice) = &self.voice else { return };
        let counts = voice.counts();
        for (name, count) in [
            ("patchbay_voice_sockets", counts.sockets),
            ("patchbay_voice_sessions", counts.sessions),
            ("patchbay_voice_states", counts.states),
            ("patchbay_voice_pending_joins", counts.pending),
            ("patchbay_voice_pins", counts.pins),
            ("patchbay_voice_calls", counts.calls),
        ] {
            page.gauge(name, count);
        }
        let refusals = voice.refusals().into_iter();
        let labels = |told: &str, code: &str| format!("told=\"{told}\",code=\"{code}\"");
        page.counter(
            "patchbay_voice_refusals_total",
            refusals.map(|((told, code), count)| (labels(told.name(), code), count)),
        );
        page.counter("patchbay_voice_sockets_cut_total", [(String::new(), voice.cut_off())]);
        page.counter(
            "patchbay_voice_room_events_lost_total",
            [(String::new(), counts.lost_events)],
        );
        page.counter(
            "patchbay_voice_sessions_not_shared_total",
            [(String::new(), voice.unshared_batches())],
        );
    }

    fn rooms(&self, page: &mut Page) {
        let counts = self.node.counts();
        page.gauge("livekit_room_total", counts.rooms);
        page.gauge("livekit_participant_total", counts.participants);
        let kind = |kind: &str| format!("kind=\"{kind}\"");
        page.metric("livekit_track_published_total", "gauge");
        page.line("livekit_track_published_total", &kind("audio"), counts.audio_tracks);
        page.line("livekit_track_published_total", &kind("video"), counts.video_tracks);
        // Not told apart by kind.
        page.metric("livekit_track_subscribed_total", "gauge");
        page.line("livekit_track_subscribed_total", &kind(""), counts.subscriptions);
        let published = |kind: &str| format!("kind=\"{kind}\",state=\"success\"");
        page.counter(
            "livekit_track_publish_counter",
            [
                (published("audio"), counts.audio_published),
                (published("video"), counts.video_published),
            ],
        );
        let subscribed = |state: &str, error: &str| format!("state=\"{state}\",error=\"{error}\"");
        page.counter(
            "livekit_track_subscribe_counter",
            [
                (subscribed("success", ""), counts.subscribed),
                (subscribed("failure", "unsupported_codec"), counts.unsubscribable),
            ],
        );
        let state = |state: &str| format!("state=\"{state}\",warp=\"false\"");
        page.counter(
            "livekit_participant_join_total",
            [
                (state("signal_connected"), counts.sessions_started),
                (state("signal_failed"), counts.sessions_refused),
                (state("rtc_connected"), counts.participants_joined),
            ],
        );
        for (name, histogram) in self.node.histograms() {
            page.metric(name, "histogram");
            histogram.write(&mut page.text, name, &page.node);
        }
        page.metric("livekit_pubsubtime_ms", "histogram");
        self.node
            .write_media_waits(&mut page.text, "livekit_pubsubtime_ms", &page.node);
        let kind = |kind: &str| format!("kind=\"{kind}\"");
        page.counter(
            "livekit_connection_total",
            [
                (kind("udp"), counts.udp_connected),
                (kind("tcp"), counts.tcp_connected),
                (kind("turn"), counts.turn_connected),
            ],
        );
        let connected = counts.udp_connected + counts.tcp_connected + counts.turn_connected;
        let transport = |state: &str| format!("transport=\"\",state=\"{state}\"");
        page.counter(
            "livekit_peer_connection_state",
            [
                (transport("connected"), connected),
                (transport("closed"), counts.transports_closed),
            ],
        );
        // LiveKit: `rtc` is what goes between its signalling and its rooms, which are one step here.
        let undecodable = self.node.undecodable_frames();
        let message = |kind: &str, status: &str, direction: &str| {
            format!("type=\"{kind}\",status=\"{status}\",direction=\"{direction}\"")
        };
        let messages = ["rtc", "signal"].into_iter().flat_map(|kind| {
            let failed = if kind == "signal" { undecodable } else { 0 };
            [
                (message(kind, "success", "incoming"), counts.messages_received),
                (message(kind, "success", "outgoing"), counts.messages_sent),
                (message(kind, "failure", "incoming"), failed),
                (message(kind, "failure", "outgoing"), counts.messages_lost),
            ]
        });
        page.counter("livekit_node_messages", messages);
        // LiveKit: its dashboard asks for the bus between its nodes. There is none.
        let bus = |status: &str| format!("type=\"out\",status=\"{status}\"");
        page.counter(
            "livekit_messagebus_messages",
            [(bus("success"), 0), (bus("failure"), 0)],
        );
        let operation =
            |status: &str, error: &str| format!("type=\"signal_ws\",status=\"{status}\",error_type=\"{error}\"");
        page.counter(
            "livekit_node_service_operation",
            [
                (operation("success", ""), counts.sessions_started),
                (operation("error", "reject"), counts.sessions_refused),
            ],
        );
        page.counter(
            "patchbay_rooms_total",
            [
                ("event=\"started\"".to_owned(), counts.rooms_started),
                ("event=\"finished\"".to_owned(), counts.rooms_finished),
            ],
        );
        page.counter(
            "patchbay_participants_total",
            [
                ("event=\"joined\"".to_owned(), counts.participants_joined),
                ("event=\"left\"".to_owned(), counts.participants_left),
                ("event=\"aborted\"".to_owned(), counts.participants_aborted),
            ],
        );
        page.counter(
            "patchbay_signal_undecodable_frames_total",
            [(String::new(), self.node.undecodable_frames())],
        );
    }

    /// Sums over the shards. LiveKit has a label for the country of an address, which is not looked up.
    fn packets(&self, page: &mut Page) {
        let stats: Vec<_> = self.shards.iter().map(ShardHandle::stats).collect();
        let sum = |read: fn(&_) -> u64| stats.iter().map(read).sum::<u64>();
        let recovered = sum(|stats| stats.recovered);
        let retransmitted = sum(|stats| stats.retransmitted);
        let labels = |direction: &str, transmission: &str| {
            format!("direction=\"{direction}\",transmission=\"{transmission}\",country=\"\"")
        };
        page.counter(
            "livekit_packet_total",
            [
                (
                    labels("incoming", "initial"),
                    sum(|stats| stats.rtp_received).saturating_sub(recovered),
                ),
                (labels("incoming", "retransmit"), recovered),
                (
                    labels("outgoing", "initial"),
                    sum(|stats| stats.rtp_sent).saturating_sub(retransmitted),
                ),
                (labels("outgoing", "retransmit"), retransmitted),
            ],
        );
        page.counter(
            "livekit_packet_bytes",
            [
                (labels("incoming", "initial"), sum(|stats| stats.bytes_received)),
                (labels("outgoing", "initial"), sum(|stats| stats.bytes_sent)),
            ],
        );
        // LiveKit: outgoing is what is asked of publishers.
        let asked = |direction: &str| format!("direction=\"{direction}\",country=\"\"");
        let mut requests = |name: &str, incoming: u64, outgoing: u64| {
            let lines = [(asked("incoming"), incoming), (asked("outgoing"), outgoing)];
            page.counter(name, lines);
        };
        let firs = sum(|stats| stats.firs_sent);
        let plis = sum(|stats| stats.keyframe_requests).saturating_sub(firs);
        requests(
            "livekit_nack_total",
            sum(|stats| stats.nacks_received),
            sum(|stats| stats.nacks_sent),
        );
        requests("livekit_pli_total", sum(|stats| stats.plis_received), plis);
        requests("livekit_fir_total", sum(|stats| stats.firs_received), firs);
        let lost = |direction: &str| format!("direction=\"{direction}\",source=\"\",type=\"\",country=\"\"");
        page.counter(
            "livekit_packet_loss_total",
            [
                (lost("incoming"), sum(|stats| stats.loss_incoming[1])),
                (lost("outgoing"), sum(|stats| stats.loss_outgoing[1])),
            ],
        );
        page.counter(
            "livekit_packet_out_of_order_total",
            [(lost("incoming"), sum(|stats| stats.out_of_order))],
        );
        let merged = |read: fn(&ShardStats) -> &Spread| {
            let mut spreads = stats.iter().map(read);
            let mut all = spreads.next()?.clone();
            spreads.for_each(|spread| all.add(spread));
            Some(all)
        };
        let mut paths = |name: &str, incoming: Option<Spread>, outgoing: Option<Spread>| {
            let lines = [(lost("incoming"), incoming), (lost("outgoing"), outgoing)];
            let lines = lines
                .iter()
                .filter_map(|(labels, spread)| Some((labels.clone(), spread.as_ref()?)));
            page.spread(name, lines);
        };
        paths(
            "livekit_jitter_us",
            merged(|stats| &stats.incoming.jitter),
            merged(|stats| &stats.outgoing.jitter),
        );
        // Publishers do not report it.
        paths("livekit_rtt_ms", None, merged(|stats| &stats.outgoing.rtt));
        paths(
            "livekit_packet_loss_percent",
            merged(|stats| &stats.incoming.loss),
            merged(|stats| &stats.outgoing.loss),
        );
        // Receivers do not report it.
        if let Some(spread) = merged(|stats| &stats.incoming.out_of_order) {
            let lines = [(lost("incoming"), &spread)];
            page.scaled_spread("livekit_packet_out_of_order_percent", 10.0, lines);
        }
        // LiveKit: with the MIME type, which is any text that a client likes.
        let streams = |kind: &str| format!("type=\"{kind}\",mime_type=\"\"");
        let [texts, bytes] = [0, 1].map(|at| {
            let length = merged(match at {
                0 => |stats| &stats.streams[0].length,
                _ => |stats| &stats.streams[1].length,
            });
            let receivers = merged(match at {
                0 => |stats| &stats.streams[0].receivers,
                _ => |stats| &stats.streams[1].receivers,
            });
            (length, receivers)
        });
        if let ((Some(text), Some(readers)), (Some(byte), Some(takers))) = (&texts, &bytes) {
            let name = "livekit_datapacket_stream_bytes";
            page.spread(name, [(streams("text"), text), (streams("bytes"), byte)]);
            let name = "livekit_datapacket_stream_dest_count";
            page.spread(name, [(streams("text"), readers), (streams("bytes"), takers)]);
        }
        if let Some(forwarding) = merged(|stats| &stats.forwarding) {
            page.spread("livekit_forward_latency_ns", [(String::new(), &forwarding)]);
        }
        // Of the slowest shard.
        let worst = |read: fn(&ShardStats) -> u64| stats.iter().map(read).max().unwrap_or_default();
        page.gauge("livekit_forward_latency", worst(|stats| stats.forward_latency));
        page.gauge("livekit_forward_jitter", worst(|stats| stats.forward_jitter));
        page.counter(
            "patchbay_packets_expected_total",
            [
                (lost("incoming"), sum(|stats| stats.loss_incoming[0])),
                (lost("outgoing"), sum(|stats| stats.loss_outgoing[0])),
            ],
        );
        page.counter(
            "patchbay_probe_packets_total",
            [(String::new(), sum(|stats| stats.probes))],
        );
        page.counter(
            "patchbay_replayed_keyframes_total",
            [(String::new(), sum(|stats| stats.replayed_keyframes))],
        );

        let mut drops = std::collections::BTreeMap::new();
        for (reason, count) in stats.iter().flat_map(|stats| stats.drops()) {
            *drops.entry(reason.as_str()).or_insert(0) += count;
        }
        let drops = drops
            .into_iter()
            .map(|(reason, count)| (format!("reason=\"{reason}\""), count));
        page.counter("patchbay_dropped_total", drops);
        page.counter(
            "patchbay_panics_total",
            [
                ("part=\"transport\"".to_owned(), sum(|stats| stats.transport_panics)),
                ("part=\"room\"".to_owned(), sum(|stats| stats.room_panics)),
            ],
        );
        page.counter(
            "patchbay_relayed_packets_total",
            [
                ("direction=\"outgoing\"".to_owned(), sum(|stats| stats.relayed_out)),
                ("direction=\"incoming\"".to_owned(), sum(|stats| stats.relayed_in)),
            ],
        );
        page.counter(
            "patchbay_padded_packets_total",
            [(String::new(), sum(|stats| stats.padded))],
        );
    }

    fn deliveries(&self, page: &mut Page) {
        let Some(webhooks) = &self.webhooks else { return };
        let totals = webhooks.totals();
        let status = |status: &str| format!("status=\"{status}\"");
        page.counter(
            "livekit_webhook_dispatch_total",
            [
                (status("success"), totals.delivered),
                (status("rejected"), totals.rejected),
                (status("failure"), totals.failures),
                (status("expired"), totals.expired),
                (status("lost"), totals.lost),
            ],
        );
        page.metric("livekit_webhook_queue_length", "histogram");
        webhooks.write_queue(&mut page.text, "livekit_webhook_queue_length", &page.node);
        page.gauge("patchbay_webhooks_waiting", totals.waiting);
    }

    /// What each shard's thread and sockets have done. Datagrams by messages is what GRO and GSO gain.
    fn shards(&self, page: &mut Page) {
        let io: Vec<_> = self.shards.iter().map(ShardHandle::counters).collect();
        let sum = |read: fn(&IoSnapshot) -> u64| io.iter().map(read).sum::<u64>();
        page.counter(
            "patchbay_turn_refused_total",
            [(String::new(), sum(|io| io.relay_refused))],
        );
        page.gauge("patchbay_turn_allocations", sum(|io| io.relay_allocations));
        let mut each = |name: &str, values: &[(&str, Reading)]| {
            page.metric(name, "counter");
            for (shard, io) in io.iter().enumerate() {
                for (label, read) in values {
                    let comma = if label.is_empty() { "" } else { "," };
                    page.line(name, &format!("shard=\"{shard}\"{comma}{label}"), read(io));
                }
            }
        };
        let (incoming, outgoing) = ("direction=\"incoming\"", "direction=\"outgoing\"");
        each(
            "patchbay_shard_datagrams_total",
            &[
                (incoming, |io| io.datagrams_received),
                (outgoing, |io| io.datagrams_sent),
            ],
        );
        each(
            "patchbay_shard_bytes_total",
            &[(incoming, |io| io.bytes_received), (outgoing, |io| io.bytes_sent)],
        );
        each(
            "patchbay_shard_messages_total",
            &[(incoming, |io| io.messages_received), (outgoing, |io| io.messages_sent)],
        );
        each(
            "patchbay_shard_dropped_total",
            &[(incoming, |io| io.receive_dropped), (outgoing, |io| io.send_dropped)],
        );
        each(
            "patchbay_shard_datagrams_grouped_total",
            &[("", |io| io.datagrams_grouped)],
        );
        each("patchbay_shard_groups_split_total", &[("", |io| io.groups_split)]);
        each("patchbay_shard_events_dropped_total", &[("", |io| io.events_dropped)]);
        each(
            "patchbay_shard_strays_total",
            &[(incoming, |io| io.strays_in), (outgoing, |io| io.strays_out)],
        );
        each(
            "patchbay_shard_relay_batches_total",
            &[(incoming, |io| io.crossed_in), (outgoing, |io| io.crossed_out)],
        );
        each("patchbay_shard_relay_bytes_total", &[("", |io| io.crossed_bytes)]);
        each("patchbay_shard_turns_total", &[("", |io| io.turns)]);
        page.metric("patchbay_shard_busy_seconds_total", "counter");
        for (shard, io) in io.iter().enumerate() {
            let seconds = io.busy_nanos as f64 / 1e9;
            page.line(
                "patchbay_shard_busy_seconds_total",
                &format!("shard=\"{shard}\""),
                seconds,
            );
        }
        let loads = self.node.shard_loads();
        let mut each = |name: &str, read: fn(&ShardLoad) -> f64| {
            page.metric(name, "gauge");
            for (shard, load) in loads.iter().enumerate() {
                page.line(name, &format!("shard=\"{shard}\""), read(load));
            }
        };
        // What placement goes by.
        each("patchbay_shard_load_ratio", |load| load.share);
        each("patchbay_shard_packets_per_second", |load| {
            f64::from(load.packets_per_second)
        });
        each("patchbay_shard_connections", |load| load.connections as f64);
    }
}

/// What the whole machine has sent and thrown away on the way out, as its kernel counts it (`/proc/net/dev`).
/// LiveKit: it counts from its own start, which is all the same to who looks at how it grows.
fn machine(page: &mut Page) {
    let Ok(text) = std::fs::read_to_string("/proc/net/dev") else {
        return;
    };
    let [out, dropped] = sent_packets(&text);
    page.metric("livekit_node_packet_total", "gauge");
    page.line("livekit_node_packet_total", "type=\"out\"", out);
    page.line("livekit_node_packet_total", "type=\"dropped\"", dropped);
}

/// Over all interfaces: packets sent, and those not sent. Columns of proc_pid_net(5): eight of what is received come first.
fn sent_packets(text: &str) -> [u64; 2] {
    let interfaces = text.lines().filter_map(|line| line.split_once(':'));
    let sums = interfaces.map(|(_, columns)| {
        let columns: Vec<u64> = columns.split_whitespace().map_while(|text| text.parse().ok()).collect();
        [9, 11].map(|at| columns.get(at).copied().unwrap_or_default())
    });
    sums.fold([0, 0], |[out, dropped], [more, lost]| [out + more, dropped + lost])
}

/// Under the names that every Prometheus client library gives them; and tasks, which only such a process has.
fn process(page: &mut Page) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        page.gauge("patchbay_tasks", runtime.metrics().num_alive_tasks());
    }
    if let Ok(text) = std::fs::read_to_string("/proc/self/statm") {
        let pages: Option<u64> = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        if let Some(pages) = pages {
            page.gauge("process_resident_memory_bytes", pages * PAGE);
        }
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        page.gauge("process_open_fds", files.count());
    }
    if let Ok(text) = std::fs::read_to_string("/proc/self/stat") {
        // Behind the name, which may hold spaces: utime and stime are fields 14 and 15 (proc(5)).
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| {
            fields
                .get(at)
                .and_then(|field| field.parse::<f64>().ok())
                .unwrap_or_default()
        };
        let seconds = (ticks(11) + ticks(12)) / TICKS_PER_SECOND;
        page.counter("process_cpu_seconds_total", [(String::new(), seconds)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_interfaces_send_is_added_up() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
                    lo: 100 1 0 0 0 0 0 0 100 7 0 0 0 0 0 0\n  eth0: 100 1 0 0 0 0 0 0 100 30 1 2 0 0 0 0\n";
        assert_eq!(sent_packets(text), [37, 2]);
        assert_eq!(sent_packets("lo:\nlo: 1 2\n"), [0, 0]);
    }
}
