//! The configuration as the server uses it: LiveKit's keys under LiveKit's names, with LiveKit's defaults.
//!
//! Plain values. Where they come from (file, environment, flags) is in `load`; which keys exist at all, used or not, is
//! in `schema`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::voice::VoiceSection;
use crate::proto::claims::ApiKeys;
use crate::proto::livekit::RoomConfiguration;
use crate::rtc::DtlsVersions;
use crate::types::Codec;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// HTTP and WebSocket.
    pub port: u16,
    /// Where `port` is bound; empty = all addresses.
    pub bind_addresses: Vec<IpAddr>,
    /// From `keys` or `key_file`; never empty once loaded.
    #[serde(skip)]
    pub keys: ApiKeys,
    pub region: String,
    /// `--dev`: placeholder keys, loopback only, debug logging.
    pub development: bool,
    /// Ours: refuse to start with a secret under 32 bytes.
    pub strict_secrets: bool,
    pub prometheus_port: u16,
    pub prometheus: PrometheusConfig,
    pub logging: LoggingConfig,
    pub rtc: RtcConfig,
    pub audio: AudioConfig,
    pub video: VideoConfig,
    pub room: RoomConfig,
    pub limit: LimitConfig,
    pub turn: TurnConfig,
    pub tls: TlsConfig,
    pub webhook: WebhookConfig,
    pub redis: RedisConfig,
    /// Ours: the SQLite file for what outlives a restart. Empty = `patchbay.db` in `$STATE_DIRECTORY`, else in the
    /// working directory; nothing is kept in a file in development mode.
    pub database: String,
    /// Ours: how long a server that was told to stop waits until everybody has left by themselves; 0 = no limit, as in
    /// LiveKit. In development mode it does not wait.
    #[serde(with = "nanoseconds")]
    pub drain_timeout: Duration,
    pub enable_data_tracks: bool,
    pub enable_participant_data_blob: bool,
    /// Ours: voice channels and calls.
    pub voice: VoiceSection,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PrometheusConfig {
    /// 0 = no listener.
    pub port: u16,
    pub username: String,
    pub password: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoggingConfig {
    /// `debug`, `info`, `warn` or `error`; empty = info.
    pub level: String,
    pub json: bool,
    /// Level by module.
    pub component_levels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RtcConfig {
    /// One port per shard (DESIGN D5). None once loaded only when a port range is given.
    pub udp_port: Option<PortRange>,
    /// ICE over TCP; 0 = off.
    pub tcp_port: u16,
    /// Ours: everything on this port, UDP and TCP: HTTP, media, TURN; 0 = each has its own. Once loaded the other ports are
    /// this one.
    pub single_port: u16,
    /// Used when `udp_port` is not given: shards take the first ports of it. 0 = not given.
    pub port_range_start: u16,
    pub port_range_end: u16,
    /// What is advertised to clients; empty = found out at start.
    pub node_ip: NodeIp,
    pub use_external_ip: bool,
    pub external_ip_only: bool,
    pub advertise_internal_ip: bool,
    /// Offered beside all others, whatever the filters say.
    pub additional_host_ips: Vec<IpAddr>,
    /// A server without IPv4 says so at the start.
    pub require_ipv4: bool,
    pub enable_loopback_candidate: bool,
    pub interfaces: Filter,
    /// CIDRs or addresses.
    pub ips: Filter,
    /// `host:port`.
    pub stun_servers: Vec<String>,
    pub turn_servers: Vec<TurnServer>,
    pub use_ice_lite: bool,
    pub force_tcp: bool,
    pub allow_tcp_fallback: bool,
    /// Milliseconds: whose signalling takes longer is not sent to TCP; 0 = no limit.
    pub tcp_fallback_rtt_threshold: u32,
    /// Clients whose UDP loses a quarter for half a minute are sent to TCP; only with the threshold.
    pub allow_udp_unstable_fallback: bool,
    /// Ours.
    pub dtls_versions: DtlsVersionsConfig,
    /// Handshakes take fewer round trips with clients that offer it: DTLS in STUN.
    pub enable_warp: bool,
    /// Ours: data channels open without a handshake of SCTP, with clients that offer it.
    pub enable_snap: bool,
    /// Packets kept for retransmission.
    pub packet_buffer_size_video: usize,
    pub packet_buffer_size_audio: usize,
    pub pli_throttle: PliThrottle,
    pub congestion_control: CongestionControlConfig,
    pub reconnect_on_publication_error: bool,
    pub reconnect_on_subscription_error: bool,
    pub reconnect_on_data_channel_error: bool,
    /// Lossy data older than this at a slow reader is dropped; 0 = only when its buffer is full.
    #[serde(with = "nanoseconds")]
    pub datachannel_lossy_target_latency: Duration,
    #[serde(with = "nanoseconds")]
    pub datachannel_data_track_target_latency: Duration,
    /// Ours: media threads. 0 = one per UDP port.
    pub shards: usize,
    /// Ours: the load of a shard, 0.0..=1.0, from which on those who join a room of it are served by another. 1 = never,
    /// 0 = everybody by the one with the fewest.
    pub room_spill: f64,
}

/// Inclusive; `end` = `start` for a single port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    pub start: u16,
    pub end: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeIp {
    pub v4: Option<IpAddr>,
    pub v6: Option<IpAddr>,
}

/// Empty `includes` = all; `excludes` wins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    pub includes: Vec<String>,
    pub excludes: Vec<String>,
}

/// A TURN server that is not ours, passed on to clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TurnServer {
    pub host: String,
    pub port: u16,
    /// `tls`, `tcp` or `udp`.
    pub protocol: String,
    pub username: String,
    pub credential: String,
    /// With it, credentials are made per participant (HMAC-SHA1) and the two above are not used.
    pub secret: String,
    pub secret_file: String,
    /// Seconds; 0 = 4 hours.
    pub ttl: u32,
}

/// The shortest time between two key frame requests for one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PliThrottle {
    #[serde(with = "nanoseconds")]
    pub low_quality: Duration,
    #[serde(with = "nanoseconds")]
    pub mid_quality: Duration,
    #[serde(with = "nanoseconds")]
    pub high_quality: Duration,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CongestionControlConfig {
    pub enabled: bool,
    /// Video that does not fit may be paused altogether, where the client does not say. LiveKit's default is false.
    pub allow_pause: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AudioConfig {
    /// -dBov, 0..=127, smaller is louder: this or louder counts as speaking.
    pub active_level: u8,
    /// Percent of an interval that must be active.
    pub min_percentile: u8,
    /// Milliseconds.
    pub update_interval: u32,
    /// Intervals the reported level is smoothed over; 0 = not.
    pub smooth_intervals: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VideoConfig {
    /// How long a layer nobody wants is still asked for.
    #[serde(with = "nanoseconds")]
    pub dynacast_pause_delay: Duration,
    /// With fewer participants than this a publisher falls back to a codec everybody has; 0 = always.
    pub codec_regression_threshold: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoomConfig {
    pub auto_create: bool,
    pub enabled_codecs: Vec<CodecSpec>,
    /// 0 = no limit.
    pub max_participants: u32,
    /// Seconds a room that nobody ever joined is kept.
    pub empty_timeout: u32,
    /// Seconds a room is kept after its last participant left.
    pub departure_timeout: u32,
    /// Seconds a participant is kept whose network is silent.
    pub reconnect_timeout: u32,
    pub enable_remote_unmute: bool,
    pub playout_delay: PlayoutDelay,
    pub sync_streams: bool,
    /// Voices forwarded at a time, the loudest; 0 = all.
    pub audio_last_n: u16,
    pub enable_full_room_in_webhooks: bool,
    /// Bytes of one ParticipantUpdate message.
    pub update_batch_target_size: usize,
    /// Presets that a token's `roomPreset` names.
    pub room_configurations: BTreeMap<String, RoomConfiguration>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CodecSpec {
    /// `audio/opus`, `video/VP8`, …
    pub mime: String,
    pub fmtp_line: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlayoutDelay {
    pub enabled: bool,
    /// Milliseconds.
    pub min: u32,
    pub max: u32,
}

/// Sizes in bytes; 0 = no limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitConfig {
    pub num_tracks: u32,
    pub bytes_per_sec: f32,
    pub subscription_limit_video: u32,
    pub subscription_limit_audio: u32,
    pub max_metadata_size: usize,
    pub max_attributes_size: usize,
    pub max_room_name_length: usize,
    pub max_participant_identity_length: usize,
    pub max_participant_name_length: usize,
    pub max_data_blob_key_length: usize,
    /// All blobs of one participant together.
    pub max_data_blobs_size: usize,
    pub max_data_track_custom_encoding_length: usize,
    pub signal_message_size_limit: usize,
    pub max_api_request_body_size: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TurnConfig {
    pub enabled: bool,
    pub domain: String,
    pub cert_file: String,
    pub key_file: String,
    /// 0 = not offered.
    pub tls_port: u16,
    /// 0 = not offered.
    pub udp_port: u16,
    /// Somebody before us terminates TLS; `tls_port` is plain.
    pub external_tls: bool,
    /// Ours: what clients are told instead of `tls_port`; 0 = that, or 443 with `external_tls`.
    pub advertised_tls_port: u16,
    pub bind_addresses: Vec<IpAddr>,
    pub relay_range_start: u16,
    pub relay_range_end: u16,
    /// 0 = no limit.
    pub per_user_relay_allocation_limit: u32,
    pub ttl_seconds: u32,
    /// Ours: clients may reach peers elsewhere too, through ports of the relay's range.
    pub relay_to_peers: bool,
    /// With it: networks that are reached though they are not of the Internet, and networks that never are.
    pub allow_restricted_peer_cidrs: Vec<String>,
    pub deny_peer_cidrs: Vec<String>,
}

/// Ours: the certificate of HTTPS and WSS with `rtc.single_port`. PEM files: the chain, leaf first, and its key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TlsConfig {
    pub cert_file: String,
    pub key_file: String,
    pub acme: AcmeConfig,
}

/// Instead of files: a certificate from an authority (RFC 8555).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AcmeConfig {
    /// Names to get one certificate for; empty = none.
    pub domains: Vec<String>,
    /// Whom the authority may write to; may be empty.
    pub email: String,
    /// The authority's directory; empty = Let's Encrypt.
    pub directory: String,
    /// Where account and certificate are kept; empty = `acme` in the working directory.
    pub cache_dir: String,
    /// Certificates in PEM to trust the authority by, beside the machine's; for one's own authority.
    pub ca_file: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebhookConfig {
    pub urls: Vec<String>,
    /// One of `keys`; its secret signs.
    pub api_key: String,
    pub filter_params: FilterParams,
    pub resource_url_notifier: ResourceUrlNotifier,
    /// Ours: URLs may lead to this machine and its networks. Development mode allows it too.
    pub allow_private_addresses: bool,
}

/// LiveKit's way to several nodes. Here one node at a time serves with it.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RedisConfig {
    /// `host:port`; empty = there is none, unless sentinels or a cluster are named.
    pub address: String,
    pub username: String,
    pub password: String,
    pub db: u32,
    pub use_tls: bool,
    pub tls: RedisTlsConfig,
    pub sentinel_master_name: String,
    pub sentinel_username: String,
    pub sentinel_password: String,
    pub sentinel_addresses: Vec<String>,
    pub cluster_addresses: Vec<String>,
    /// Milliseconds; 0 = as LiveKit has it.
    pub dial_timeout: u64,
    pub read_timeout: u64,
}

/// Passwords must not reach a log.
impl std::fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisConfig")
            .field("address", &self.address)
            .field("sentinel_addresses", &self.sentinel_addresses)
            .field("cluster_addresses", &self.cluster_addresses)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RedisTlsConfig {
    pub enabled: bool,
    pub insecure: bool,
    /// Empty = the host of the address.
    pub server_name: String,
    /// Empty = the machine's authorities.
    pub ca_cert_file: String,
    pub client_cert_file: String,
    pub client_key_file: String,
}

/// Which events are sent; `exclude_events` wins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FilterParams {
    /// Empty = all.
    pub include_events: Vec<String>,
    pub exclude_events: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceUrlNotifier {
    /// How long an event is tried for.
    #[serde(with = "nanoseconds")]
    pub max_age: Duration,
}

impl Default for ResourceUrlNotifier {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(24 * 3600),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: 7880,
            bind_addresses: Vec::new(),
            keys: ApiKeys::default(),
            region: String::new(),
            development: false,
            strict_secrets: false,
            prometheus_port: 0,
            prometheus: PrometheusConfig::default(),
            logging: LoggingConfig::default(),
            rtc: RtcConfig::default(),
            audio: AudioConfig::default(),
            video: VideoConfig::default(),
            room: RoomConfig::default(),
            limit: LimitConfig::default(),
            turn: TurnConfig::default(),
            tls: TlsConfig::default(),
            webhook: WebhookConfig::default(),
            redis: RedisConfig::default(),
            database: String::new(),
            drain_timeout: Duration::ZERO,
            enable_data_tracks: true,
            enable_participant_data_blob: false,
            voice: VoiceSection::default(),
        }
    }
}

/// Which versions of DTLS are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DtlsVersionsConfig {
    #[default]
    #[serde(rename = "1.2")]
    Only12,
    #[serde(rename = "1.2, 1.3")]
    Either,
    #[serde(rename = "1.3")]
    Only13,
}

impl From<DtlsVersionsConfig> for DtlsVersions {
    fn from(versions: DtlsVersionsConfig) -> Self {
        match versions {
            DtlsVersionsConfig::Only12 => Self::Only12,
            DtlsVersionsConfig::Either => Self::Either,
            DtlsVersionsConfig::Only13 => Self::Only13,
        }
    }
}

impl Default for RtcConfig {
    fn default() -> Self {
        Self {
            udp_port: None,
            tcp_port: 7881,
            single_port: 0,
            port_range_start: 0,
            port_range_end: 0,
            node_ip: NodeIp::default(),
            use_external_ip: false,
            external_ip_only: false,
            additional_host_ips: Vec::new(),
            require_ipv4: false,
            advertise_internal_ip: false,
            enable_loopback_candidate: false,
            interfaces: Filter::default(),
            ips: Filter::default(),
            stun_servers: Vec::new(),
            turn_servers: Vec::new(),
            use_ice_lite: false,
            force_tcp: false,
            allow_tcp_fallback: true,
            tcp_fallback_rtt_threshold: 0,
            allow_udp_unstable_fallback: false,
            dtls_versions: DtlsVersionsConfig::default(),
            enable_warp: false,
            enable_snap: true,
            packet_buffer_size_video: 500,
            packet_buffer_size_audio: 200,
            pli_throttle: PliThrottle::default(),
            congestion_control: CongestionControlConfig::default(),
            reconnect_on_publication_error: false,
            reconnect_on_subscription_error: false,
            reconnect_on_data_channel_error: false,
            datachannel_lossy_target_latency: Duration::ZERO,
            datachannel_data_track_target_latency: Duration::from_millis(100),
            shards: 0,
            room_spill: 0.7,
        }
    }
}

impl Default for PliThrottle {
    fn default() -> Self {
        Self {
            low_quality: Duration::from_millis(500),
            mid_quality: Duration::from_secs(1),
            high_quality: Duration::from_secs(1),
        }
    }
}

impl Default for CongestionControlConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            allow_pause: true,
        }
    }
}

impl Default for AudioConfig {
    fn default() -> Self {
        Self {
            active_level: 35,
            min_percentile: 40,
            update_interval: 400,
            smooth_intervals: 2,
        }
    }
}

impl Default for VideoConfig {
    fn default() -> Self {
        Self {
            dynacast_pause_delay: Duration::from_secs(5),
            codec_regression_threshold: 5,
        }
    }
}

impl Default for RoomConfig {
    fn default() -> Self {
        Self {
            auto_create: true,
            enabled_codecs: [
                "audio/PCMU",
                "audio/PCMA",
                "audio/opus",
                "audio/red",
                "video/VP8",
                "video/H264",
                "video/VP9",
                "video/AV1",
                "video/H265",
                "video/rtx",
            ]
            .map(|mime| CodecSpec {
                mime: mime.to_owned(),
                fmtp_line: String::new(),
            })
            .to_vec(),
            max_participants: 0,
            empty_timeout: 300,
            departure_timeout: 20,
            reconnect_timeout: 60,
            enable_remote_unmute: false,
            playout_delay: PlayoutDelay::default(),
            sync_streams: false,
            audio_last_n: 0,
            enable_full_room_in_webhooks: false,
            update_batch_target_size: 128 * 1024,
            room_configurations: BTreeMap::new(),
        }
    }
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            num_tracks: 0,
            bytes_per_sec: 0.0,
            subscription_limit_video: 0,
            subscription_limit_audio: 0,
            max_metadata_size: 512 * 1024,
            max_attributes_size: 64 * 1024,
            max_room_name_length: 256,
            max_participant_identity_length: 256,
            max_participant_name_length: 256,
            max_data_blob_key_length: 256,
            max_data_blobs_size: 64_000,
            max_data_track_custom_encoding_length: 32,
            signal_message_size_limit: 2 << 20,
            max_api_request_body_size: 10 << 20,
        }
    }
}

impl Default for TurnConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            domain: String::new(),
            cert_file: String::new(),
            key_file: String::new(),
            tls_port: 0,
            udp_port: 0,
            external_tls: false,
            advertised_tls_port: 0,
            bind_addresses: vec![IpAddr::from([0, 0, 0, 0])],
            relay_range_start: 30_000,
            relay_range_end: 40_000,
            per_user_relay_allocation_limit: 12,
            ttl_seconds: 300,
            relay_to_peers: false,
            allow_restricted_peer_cidrs: Vec::new(),
            deny_peer_cidrs: Vec::new(),
        }
    }
}

impl RoomConfig {
    /// `enabled_codecs` without RTX (which follows its codec) and without names we do not know.
    pub fn codecs(&self) -> Vec<Codec> {
        self.enabled_codecs
            .iter()
            .filter_map(|spec| Codec::parse(&spec.mime))
            .collect()
    }
}

impl RtcConfig {
    /// The UDP ports to bind, one per shard, at most `max` of them.
    pub fn udp_ports(&self, max: usize) -> Vec<u16> {
        let (start, end) = match self.udp_port {
            Some(range) => (range.start, range.end),
            None => (self.port_range_start, self.port_range_end),
        };
        (start..=end.max(start)).take(max.max(1)).collect()
    }
}

impl NodeIp {
    pub fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.into_iter().chain(self.v6)
    }
}

/// Durations in the loaded document are whole nanoseconds, as in LiveKit's files where a bare number is one.
pub(super) mod nanoseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_nanos)
    }
}
