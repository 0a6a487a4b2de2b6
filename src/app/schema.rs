//! Every key a configuration file may hold: LiveKit's, whole, and the few that are ours.
//!
//! One table, read by the YAML loader (unknown keys, types), the command line (a flag for every scalar) and the test of
//! `config/patchbay.yaml`. Says nothing of defaults; those are in `config`.

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Bool,
    Int,
    Float,
    Text,
    /// `1m30s`, `500ms`; a bare number is nanoseconds (Go).
    Duration,
    /// `7882` or `7882-7889`.
    PortRange,
    /// `1.2.3.4`, or an IPv4 and an IPv6 address with a comma.
    NodeIp,
    Section(&'static [Key]),
    List(&'static Kind),
    /// Any keys, values of one kind.
    Map(&'static Kind),
    /// Anything; read by whoever uses it.
    Free,
}

impl Kind {
    /// Has a flag and an environment variable of its own, as in LiveKit: not lists, maps and sections.
    pub fn is_scalar(self) -> bool {
        !matches!(
            self,
            Self::Section(_) | Self::List(_) | Self::Map(_) | Self::Free | Self::PortRange | Self::NodeIp
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Does what it says.
    Used,
    /// Known from LiveKit; setting it changes nothing here, and the log says so once.
    Inert,
    /// Known from LiveKit where it has been replaced by another key.
    Deprecated,
}

#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub status: Status,
}

pub(super) const fn used(name: &'static str, kind: Kind) -> Key {
    Key {
        name,
        kind,
        status: Status::Used,
    }
}

const fn inert(name: &'static str, kind: Kind) -> Key {
    Key {
        name,
        kind,
        status: Status::Inert,
    }
}

const fn deprecated(name: &'static str, kind: Kind) -> Key {
    Key {
        name,
        kind,
        status: Status::Deprecated,
    }
}

use Kind::{Bool, Duration, Float, Free, Int, List, Map, NodeIp, PortRange, Section, Text};

/// Keys LiveKit does not have. A file with them does not load there.
pub const OURS: &[&str] = &[
    "strict_secrets",
    "rtc.shards",
    "room.audio_last_n",
    "database",
    "drain_timeout",
    "webhook.allow_private_addresses",
    "voice.enabled",
    "rtc.single_port",
    "rtc.enable_snap",
    "rtc.dtls_versions",
    "tls.cert_file",
    "tls.key_file",
    "tls.acme.domains",
    "tls.acme.email",
    "tls.acme.directory",
    "tls.acme.cache_dir",
    "tls.acme.ca_file",
    "turn.advertised_tls_port",
    "turn.relay_to_peers",
];

pub const SCHEMA: &[Key] = &[
    used("port", Int),
    used("bind_addresses", List(&Text)),
    used("keys", Map(&Text)),
    used("key_file", Text),
    used("strict_secrets", Bool),
    used("region", Text),
    used("development", Bool),
    used("logging", Section(LOGGING)),
    deprecated("log_level", Text),
    used("rtc", Section(RTC)),
    used("audio", Section(AUDIO)),
    used("video", Section(VIDEO)),
    used("room", Section(ROOM)),
    used("limit", Section(LIMIT)),
    used("enable_data_tracks", Bool),
    used("enable_participant_data_blob", Bool),
    used("turn", Section(TURN)),
    used(
        "tls",
        Section(&[
            used("cert_file", Text),
            used("key_file", Text),
            used("acme", Section(ACME)),
        ]),
    ),
    used(
        "prometheus",
        Section(&[used("port", Int), used("username", Text), used("password", Text)]),
    ),
    deprecated("prometheus_port", Int),
    inert("debug_handler", Section(&[inert("port", Int)])),
    used("webhook", Section(WEBHOOK)),
    used("database", Text),
    used("drain_timeout", Duration),
    used("voice", Section(super::voice::KEYS)),
    used("redis", Section(REDIS)),
    inert(
        "ingress",
        Section(&[inert("rtmp_base_url", Text), inert("whip_base_url", Text)]),
    ),
    inert("sip", Section(&[])),
    inert("node_selector", Section(NODE_SELECTOR)),
    inert("signal_relay", Section(SIGNAL_RELAY)),
    inert("psrpc", Section(PSRPC)),
    inert("agents", Section(AGENTS)),
    inert("metric", Section(METRIC)),
    inert("trace", Section(&[inert("jaeger_url", Text)])),
    inert("node_stats", Section(NODE_STATS)),
    inert("api", Section(API)),
];

const LOGGING: &[Key] = &[
    used("level", Text),
    used("json", Bool),
    used("component_levels", Map(&Text)),
    inert("pion_level", Text),
    inert("sample", Bool),
    inert("sample_initial", Int),
    inert("sample_interval", Int),
    inert("item_sample_seconds", Int),
    inert("item_sample_initial", Int),
    inert("item_sample_interval", Int),
];

const FILTER: &[Key] = &[used("includes", List(&Text)), used("excludes", List(&Text))];

const RTC: &[Key] = &[
    used("udp_port", PortRange),
    used("shards", Int),
    used("room_spill", Float),
    used("port_range_start", Int),
    used("port_range_end", Int),
    used("tcp_port", Int),
    used("single_port", Int),
    used("node_ip", NodeIp),
    used("use_external_ip", Bool),
    used("external_ip_only", Bool),
    used("advertise_internal_ip", Bool),
    inert("skip_external_ip_validation", Bool),
    used("additional_host_ips", List(&Text)),
    used("require_ipv4", Bool),
    used("enable_loopback_candidate", Bool),
    used("interfaces", Section(FILTER)),
    used("ips", Section(FILTER)),
    used("stun_servers", List(&Text)),
    used("turn_servers", List(&Section(TURN_SERVER))),
    inert("use_stun_port_as_ice", Bool),
    inert("use_ice_lite", Bool),
    inert("use_mdns", Bool),
    used("force_tcp", Bool),
    used("allow_tcp_fallback", Bool),
    used("tcp_fallback_rtt_threshold", Int),
    used("allow_udp_unstable_fallback", Bool),
    inert("host_acceptance_min_wait", Duration),
    inert("srflx_acceptance_min_wait", Duration),
    inert("prflx_acceptance_min_wait", Duration),
    inert("relay_acceptance_min_wait", Duration),
    inert(
        "batch_io",
        Section(&[inert("batch_size", Int), inert("max_flush_interval", Duration)]),
    ),
    inert("sctp_min_cwnd", Int),
    inert("sctp_fast_rtx_wnd", Int),
    inert("sctp_cwnd_ca_step", Int),
    used("enable_warp", Bool),
    used("enable_snap", Bool),
    used("dtls_versions", Text),
    inert("packet_buffer_size_video", Int),
    inert("packet_buffer_size_audio", Int),
    deprecated("packet_buffer_size", Int),
    inert("pli_throttle", Section(PLI_THROTTLE)),
    used("congestion_control", Section(CONGESTION_CONTROL)),
    inert("reconnect_on_publication_error", Bool),
    inert("reconnect_on_subscription_error", Bool),
    inert("reconnect_on_data_channel_error", Bool),
    inert("datachannel_slow_threshold", Int),
    inert("datachannel_lossy_target_latency", Duration),
    inert("datachannel_data_track_target_latency", Duration),
    deprecated("data_channel_max_buffered_amount", Int),
    deprecated("strict_acks", Bool),
    inert("forward_stats", Section(FORWARD_STATS)),
    inert("enable_rtp_stream_restart_detection", Bool),
];

const TURN_SERVER: &[Key] = &[
    used("host", Text),
    used("port", Int),
    used("protocol", Text),
    used("username", Text),
    used("credential", Text),
    used("secret", Text),
    used("secret_file", Text),
    used("ttl", Int),
];

const PLI_THROTTLE: &[Key] = &[
    inert("low_quality", Duration),
    inert("mid_quality", Duration),
    inert("high_quality", Duration),
];

const FORWARD_STATS: &[Key] = &[
    inert("summary_interval", Duration),
    inert("report_interval", Duration),
    inert("report_window", Duration),
];

const CONGESTION_CONTROL: &[Key] = &[
    inert("enabled", Bool),
    used("allow_pause", Bool),
    inert("use_send_side_bwe", Bool),
    inert("use_send_side_bwe_interceptor", Bool),
    inert("send_side_bwe_pacer", Text),
    inert("stream_allocator", Section(STREAM_ALLOCATOR)),
    inert("remote_bwe", Section(REMOTE_BWE)),
    inert(
        "send_side_bwe",
        Section(&[inert("congestion_detector", Section(CONGESTION_DETECTOR))]),
    ),
];

const STREAM_ALLOCATOR: &[Key] = &[
    inert("min_channel_capacity", Int),
    inert("disable_etimation_unmanaged_tracks", Bool), // LiveKit spells it so
    inert("probe_mode", Text),
    inert("probe_overage_pct", Int),
    inert("probe_min_bps", Int),
    inert("paused_min_wait", Duration),
];

const REMOTE_BWE: &[Key] = &[
    inert("nack_ratio_attenuator", Float),
    inert("expected_usage_threshold", Float),
    inert("channel_observer_probe", Section(CHANNEL_OBSERVER)),
    inert("channel_observer_non_probe", Section(CHANNEL_OBSERVER)),
    inert("probe_controller", Section(PROBE_CONTROLLER)),
];

const CHANNEL_OBSERVER: &[Key] = &[
    inert("estimate", Section(TREND_DETECTOR)),
    inert(
        "nack",
        Section(&[
            inert("window_min_duration", Duration),
            inert("window_max_duration", Duration),
            inert("ratio_threshold", Float),
        ]),
    ),
];

const TREND_DETECTOR: &[Key] = &[
    inert("required_samples", Int),
    inert("required_samples_min", Int),
    inert("downward_trend_threshold", Float),
    inert("downward_trend_max_wait", Duration),
    inert("collapse_threshold", Duration),
    inert("validity_window", Duration),
];

const PROBE_CONTROLLER: &[Key] = &[
    inert("probe_regulator", Section(PROBE_REGULATOR)),
    inert("settle_wait_num_rtt", Int),
    inert("settle_wait_min", Duration),
    inert("settle_wait_max", Duration),
];

const PROBE_REGULATOR: &[Key] = &[
    inert("base_interval", Duration),
    inert("backoff_factor", Float),
    inert("max_interval", Duration),
    inert("min_duration", Duration),
    inert("max_duration", Duration),
    inert("duration_increase_factor", Float),
];

const PACKET_GROUP: &[Key] = &[inert("min_packets", Int), inert("max_window_duration", Duration)];

const WEIGHTED_LOSS: &[Key] = &[
    inert("min_duration_for_loss_validity", Duration),
    inert("base_duration", Duration),
    inert("base_pps", Int),
    inert("loss_penalty_factor", Float),
];

const CONGESTION_SIGNAL: &[Key] = &[inert("min_number_of_groups", Int), inert("min_duration", Duration)];

const CONGESTION_DETECTOR: &[Key] = &[
    inert("packet_group", Section(PACKET_GROUP)),
    inert("packet_group_max_age", Duration),
    inert(
        "probe_packet_group",
        Section(&[
            inert("packet_group", Section(PACKET_GROUP)),
            inert("settle_wait_num_rtt", Int),
            inert("settle_wait_min", Duration),
            inert("settle_wait_max", Duration),
        ]),
    ),
    inert("probe_regulator", Section(PROBE_REGULATOR)),
    inert(
        "probe_signal",
        Section(&[
            inert("min_bytes_ratio", Float),
            inert("min_duration_ratio", Float),
            inert("jqr_min_delay", Duration),
            inert("dqr_max_delay", Duration),
            inert("weighted_loss", Section(WEIGHTED_LOSS)),
            inert("jqr_min_weighted_loss", Float),
            inert("dqr_max_weighted_loss", Float),
        ]),
    ),
    inert("jqr_min_delay", Duration),
    inert("jqr_min_trend_coefficient", Float),
    inert("dqr_max_delay", Duration),
    inert("weighted_loss", Section(WEIGHTED_LOSS)),
    inert("jqr_min_weighted_loss", Float),
    inert("dqr_max_weighted_loss", Float),
    inert("queuing_delay_early_warning_jqr", Section(CONGESTION_SIGNAL)),
    inert("queuing_delay_early_warning_dqr", Section(CONGESTION_SIGNAL)),
    inert("loss_early_warning_jqr", Section(CONGESTION_SIGNAL)),
    inert("loss_early_warning_dqr", Section(CONGESTION_SIGNAL)),
    inert("queuing_delay_congested_jqr", Section(CONGESTION_SIGNAL)),
    inert("queuing_delay_congested_dqr", Section(CONGESTION_SIGNAL)),
    inert("loss_congested_jqr", Section(CONGESTION_SIGNAL)),
    inert("loss_congested_dqr", Section(CONGESTION_SIGNAL)),
    inert("congested_ctr_trend", Section(TREND_DETECTOR)),
    inert("congested_ctr_epsilon", Float),
    inert("congested_packet_group", Section(PACKET_GROUP)),
    inert("estimaton_window_duration", Duration), // LiveKit spells it so
];

const AUDIO: &[Key] = &[
    used("active_level", Int),
    used("min_percentile", Int),
    used("update_interval", Int),
    used("smooth_intervals", Int),
    inert("active_red_encoding", Bool),
    inert("enable_loss_proxying", Bool),
];

const VIDEO: &[Key] = &[
    used("dynacast_pause_delay", Duration),
    used("codec_regression_threshold", Int),
    inert(
        "stream_tracker_manager",
        Section(&[
            inert("video", Section(STREAM_TRACKER)),
            inert("screenshare", Section(STREAM_TRACKER)),
        ]),
    ),
];

const STREAM_TRACKER: &[Key] = &[
    inert("stream_tracker_type", Text),
    inert("bitrate_report_interval", Map(&Duration)),
    inert(
        "packet_tracker",
        Map(&Section(&[
            inert("samples_required", Int),
            inert("cycles_required", Int),
            inert("cycle_duration", Duration),
        ])),
    ),
    inert("frame_tracker", Map(&Section(&[inert("min_fps", Float)]))),
];

const ROOM: &[Key] = &[
    used("auto_create", Bool),
    used(
        "enabled_codecs",
        List(&Section(&[used("mime", Text), inert("fmtp_line", Text)])),
    ),
    used("max_participants", Int),
    used("empty_timeout", Int),
    used("departure_timeout", Int),
    used("reconnect_timeout", Int),
    used("enable_remote_unmute", Bool),
    used(
        "playout_delay",
        Section(&[used("enabled", Bool), used("min", Int), used("max", Int)]),
    ),
    used("sync_streams", Bool),
    used("audio_last_n", Int),
    inert("create_room_timeout", Duration),
    inert("create_room_attempts", Int),
    used("enable_full_room_in_webhooks", Bool),
    used("update_batch_target_size", Int),
    used("room_configurations", Map(&Free)),
    deprecated("max_metadata_size", Int),
    deprecated("max_room_name_length", Int),
    deprecated("max_participant_identity_length", Int),
];

const LIMIT: &[Key] = &[
    used("num_tracks", Int),
    used("bytes_per_sec", Float),
    used("subscription_limit_video", Int),
    used("subscription_limit_audio", Int),
    used("max_metadata_size", Int),
    used("max_attributes_size", Int),
    used("max_room_name_length", Int),
    used("max_participant_identity_length", Int),
    used("max_participant_name_length", Int),
    used("max_data_blob_key_length", Int),
    used("max_data_blobs_size", Int),
    used("max_data_track_custom_encoding_length", Int),
    used("signal_message_size_limit", Int),
    inert("agent_signal_message_size_limit", Int),
    used("max_api_request_body_size", Int),
];

const TURN: &[Key] = &[
    used("enabled", Bool),
    used("domain", Text),
    used("cert_file", Text),
    used("key_file", Text),
    used("tls_port", Int),
    used("udp_port", Int),
    used("external_tls", Bool),
    used("advertised_tls_port", Int),
    used("bind_addresses", List(&Text)),
    used("relay_range_start", Int),
    used("relay_range_end", Int),
    used("per_user_relay_allocation_limit", Int),
    used("ttl_seconds", Int),
    used("relay_to_peers", Bool),
    used("allow_restricted_peer_cidrs", List(&Text)),
    used("deny_peer_cidrs", List(&Text)),
];

const ACME: &[Key] = &[
    used("domains", List(&Text)),
    used("email", Text),
    used("directory", Text),
    used("cache_dir", Text),
    used("ca_file", Text),
];

const WEBHOOK: &[Key] = &[
    used("urls", List(&Text)),
    used("api_key", Text),
    used("allow_private_addresses", Bool),
    inert(
        "url_notifier",
        Section(&[inert("num_workers", Int), inert("queue_size", Int)]),
    ),
    used(
        "resource_url_notifier",
        Section(&[used("max_age", Duration), inert("max_depth", Int)]),
    ),
    used(
        "filter_params",
        Section(&[used("include_events", List(&Text)), used("exclude_events", List(&Text))]),
    ),
];

pub(super) const REDIS: &[Key] = &[
    used("address", Text),
    used("username", Text),
    used("password", Text),
    used("db", Int),
    deprecated("use_tls", Bool),
    used(
        "tls",
        Section(&[
            used("enabled", Bool),
            used("insecure", Bool),
            used("server_name", Text),
            used("ca_cert_file", Text),
            used("client_cert_file", Text),
            used("client_key_file", Text),
        ]),
    ),
    used("sentinel_master_name", Text),
    used("sentinel_username", Text),
    used("sentinel_password", Text),
    used("sentinel_addresses", List(&Text)),
    used("cluster_addresses", List(&Text)),
    used("dial_timeout", Int),
    used("read_timeout", Int),
    inert("write_timeout", Int),
    inert("max_redirects", Int),
    inert("pool_timeout", Duration),
    inert("pool_size", Int),
];

const NODE_SELECTOR: &[Key] = &[
    inert("kind", Text),
    inert("sort_by", Text),
    inert("algorithm", Text),
    inert("cpu_load_limit", Float),
    inert("sysload_limit", Float),
    inert(
        "regions",
        List(&Section(&[
            inert("name", Text),
            inert("lat", Float),
            inert("lon", Float),
        ])),
    ),
];

const SIGNAL_RELAY: &[Key] = &[
    inert("retry_timeout", Duration),
    inert("min_retry_interval", Duration),
    inert("max_retry_interval", Duration),
    inert("stream_buffer_size", Int),
    inert("connect_attempts", Int),
];

const PSRPC: &[Key] = &[
    inert("max_attempts", Int),
    inert("timeout", Duration),
    inert("backoff", Duration),
    inert("buffer_size", Int),
    inert(
        "compression",
        Section(&[
            inert("quality", Int),
            inert("threshold", Int),
            inert("max_decompressed_size", Int),
        ]),
    ),
];

const AGENTS: &[Key] = &[
    inert("enable_user_data_recording", Bool),
    inert("enable_user_data_redaction", Bool),
    inert("target_load", Float),
];

const METRIC: &[Key] = &[
    inert(
        "timestamper_config",
        Section(&[
            inert("one_way_delay_estimator_min_interval", Duration),
            inert("one_way_delay_estimator_max_batch", Int),
        ]),
    ),
    inert(
        "collector",
        Section(&[inert("sampling_interval_ms", Int), inert("batch_interval_ms", Int)]),
    ),
    inert("reporter", Section(&[inert("reporting_interval_ms", Int)])),
];

const NODE_STATS: &[Key] = &[
    inert("stats_update_interval", Duration),
    inert("stats_rate_measurement_intervals", List(&Duration)),
    inert("stats_max_delay", Duration),
];

const API: &[Key] = &[
    inert("execution_timeout", Duration),
    inert("check_interval", Duration),
    inert("max_check_interval", Duration),
    inert("enable_psrpc_for_get_list_participants", Bool),
];

/// A key with its full name, sections left out: what can be set.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// `rtc.udp_port`.
    pub path: String,
    pub kind: Kind,
    pub status: Status,
}

/// Every leaf of the table in its order; those inside lists and maps are not reachable by one name and are left out.
pub fn leaves() -> Vec<Leaf> {
    fn walk(prefix: &str, keys: &[Key], out: &mut Vec<Leaf>) {
        for key in keys {
            let path = if prefix.is_empty() {
                key.name.to_owned()
            } else {
                format!("{prefix}.{}", key.name)
            };
            match key.kind {
                Section(keys) if !keys.is_empty() => walk(&path, keys, out),
                kind => out.push(Leaf {
                    path,
                    kind,
                    status: key.status,
                }),
            }
        }
    }
    let mut out = Vec::new();
    walk("", SCHEMA, &mut out);
    out
}
