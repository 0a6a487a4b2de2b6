//! The running server: start order, the parts' wiring, and the way down.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::addresses;
use super::config::{Config, RtcConfig};
use super::http::{self, Site, ToHttps};
use super::keeping::{Kept, database_error, open_database};
use super::late::{self, Late, Reachable, asks_outside, candidates};
use super::lease::{self, RedisConfigError};
use super::metrics::{self, Metrics};
use super::relay::{self, RelayError};
use super::relay_health::RelayHealth;
use super::reload::{self, Reload};
use super::voice::{self, RunningVoice, VoiceStartError};
use crate::api::twirp::ApiStatistics;
use crate::api::webhooks::{FIRST_RETRY, Filter, Target, UrlError, WebhookSettings, Webhooks};
use crate::control::{Limits, RoomSettings, playout_delay};
use crate::io::{
    EVENT_QUEUE, Guests, Handover, LocalAddress, Offload, ShardHandle, ShardThread, ThreadConfig, UdpSocket, WEB_QUEUE,
    WayEnd, local_addresses, peers, way,
};
use crate::media::speakers::SpeakerSettings;
use crate::media::{Shard, ShardConfig};
use crate::node::voice::VoiceLink;
use crate::node::{JOURNAL, Journal, Node, NodeConfig, ShardLink};
use crate::rtc::DtlsIdentity;
use crate::store::{Lease, LeaseError, SharedDatabase, StoreError};
use crate::types::{ShardIndex, WallClock};

/// How often a server that waits for its participants to leave looks whether they have.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

/// How long open HTTP requests get to end after everybody has been told.
const HTTP_DRAIN: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
    #[error("cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("no UDP port of those configured can be used: {0}")]
    Udp(io::Error),
    #[error("cannot make a DTLS certificate: {0}")]
    Certificate(String),
    #[error("webhook URL {url}: {error}")]
    WebhookUrl { url: String, error: UrlError },
    #[error("database {}: {error}", .path.display())]
    Database { path: PathBuf, error: StoreError },
    #[error(transparent)]
    Relay(#[from] RelayError),
    #[error(transparent)]
    Voice(#[from] VoiceStartError),
    #[error(transparent)]
    Redis(#[from] RedisConfigError),
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A bug that was not contained; a supervisor should start the process again.
    #[error("a media shard has ended by itself")]
    ShardEnded,
}

/// Serves until SIGTERM or SIGINT, then waits for calls to end (`drain_timeout`), tells every participant and ends. A
/// second signal ends the waiting.
///
/// # Errors
/// What prevents the start: ports in use, no certificate.
pub fn run(config: Config, reload: Reload) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut lease = lease::take(&config).await?;
        let server = Server::start(&config).await?;
        server.announce(&config);
        let watching = tokio::spawn(reload::watch(reload, server.node.clone()));
        let mut told_to_stop = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let result = tokio::select! {
            () = told_to_stop() => Ok(()),
            () = server.shard_ended() => Err(ServeError::ShardEnded),
            error = lost(&mut lease) => Err(error),
        };
        let result = match result {
            Ok(()) if !config.development => tokio::select! {
                () = server.drained(config.drain_timeout) => Ok(()),
                () = told_to_stop() => Ok(()),
                () = server.shard_ended() => Err(ServeError::ShardEnded),
                error = lost(&mut lease) => Err(error),
            },
            result => result,
        };
        tracing::info!("stopping");
        watching.abort();
        server.stop().await;
        if let Some(lease) = lease {
            lease.release().await;
        }
        result
    });
    runtime.shutdown_timeout(HTTP_DRAIN);
    result
}

/// Another node has the Redis. Not without one.
async fn lost(lease: &mut Option<Lease>) -> ServeError {
    match lease {
        Some(lease) => lease.lost().await.into(),
        None => std::future::pending().await,
    }
}

/// One started server. Everything it owns ends with `stop`.
#[derive(Debug)]
pub struct Server {
    node: Node,
    listening: Vec<SocketAddr>,
    measured: Vec<SocketAddr>,
    /// HTTP is under TLS.
    is_secure: bool,
    stopping: watch::Sender<bool>,
    http: JoinSet<()>,
    journal: Option<Journal>,
    webhooks: Option<Webhooks>,
    voice: Option<RunningVoice>,
    shards: Vec<(ShardHandle, JoinHandle<()>)>,
}

impl Server {
    /// Media first, then rooms, then the doors: whoever gets in finds everything there.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn start(config: &Config) -> Result<Self, ServeError> {
        let single_port = config.rtc.single_port != 0;
        let (tls, acme) = match single_port {
            true => relay::single_port_tls(config)?.unzip(),
            false if !config.tls.acme.domains.is_empty() => return Err(RelayError::NoSinglePort.into()),
            false => (relay::check(&config.turn)?, None),
        };
        let identity = DtlsIdentity::with_versions(config.rtc.dtls_versions.into())
            .map_err(|error| ServeError::Certificate(error.to_string()))?;
        let metrics_listeners = match config.prometheus.port {
            0 => Vec::new(),
            port => listeners(config, port).await?,
        };
        let listeners = match single_port {
            true => Vec::new(),
            false => listeners(config, config.port).await?,
        };
        let local = local_addresses()?;
        let outside = late::outside(&config.rtc).await;
        let advertised = addresses::advertised(&config.rtc, config.development, &local, outside);
        if config.rtc.require_ipv4 && !advertised.iter().any(IpAddr::is_ipv4) {
            tracing::error!("rtc.require_ipv4 is set, and there is no IPv4 address to offer: set rtc.node_ip");
        }
        let unix = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let wall = WallClock::new(Instant::now(), unix);
        let mut links = Vec::new();
        let mut reachable = Vec::new();
        let mut shards: Vec<(ShardHandle, JoinHandle<()>)> = Vec::new();
        // Which shard has which media address, for the TURN server; the first shard is its home.
        let mut routes: Vec<(SocketAddr, Option<ShardHandle>)> = Vec::new();
        let tcp_candidates = late::tcp_candidates(&advertised, config.rtc.tcp_port);
        for (index, sockets) in bind_shards(&config.rtc)?.into_iter().enumerate() {
            let bound: Vec<SocketAddr> = sockets.iter().map(UdpSocket::local).collect();
            let known = candidates(&advertised, &bound);
            let (events_out, events) = mpsc::channel(EVENT_QUEUE);
            let thread = ThreadConfig {
                name: format!("shard-{index}"),
                // One development server among others on a machine must not share the first core with all of them.
                pin: (!config.development).then_some(index),
            };
            let shard = ShardConfig {
                index: ShardIndex(u16::try_from(index).unwrap_or(u16::MAX)),
                ..shard_config(config, &identity, &bound, &local, &known, wall)
            };
            let media = shard.addresses.clone();
            let (handle, join) = ShardThread::spawn(thread, sockets, events_out, |now| Shard::new(shard, now))?;
            let elsewhere = (index > 0).then(|| handle.clone());
            routes.extend(media.into_iter().map(|address| (address, elsewhere.clone())));
            shards.push((handle.clone(), join));
            links.push(ShardLink {
                handle: handle.clone(),
                events,
                udp_candidates: late::udp_candidates(&config.rtc, &advertised, &bound),
                tcp_candidates: tcp_candidates.clone(),
            });
            reachable.push(Reachable { shard: handle, bound });
        }
        let handles: Vec<ShardHandle> = shards.iter().map(|(handle, _)| handle.clone()).collect();
        connect_shards(&handles).await?;
        if shares_port(&config.rtc) {
            for (me, shard) in handles.iter().enumerate() {
                let all = handles.clone();
                let told = shard.hand_over(Handover::SharedPort { me, all }).await;
                told.map_err(|_| ServeError::ShardEnded)?;
            }
        }
        let media_port = if single_port { 0 } else { config.rtc.tcp_port };
        let mut doors = relay::media_doors(media_port, &handles);
        let has_tcp = single_port || !doors.is_empty();
        if !has_tcp {
            links.iter_mut().for_each(|link| link.tcp_candidates.clear());
        }
        let relay = start_relay(config, &advertised, routes, &handles).await?;
        let mut listening = Vec::new();
        let (web, handed) = mpsc::channel(WEB_QUEUE);
        match &relay {
            _ if single_port => {
                let guests = Guests {
                    media: handles.clone(),
                    turn: relay.clone(),
                    web: Some(web),
                };
                (listening, doors) = relay::single_port_doors(config, tls.as_ref(), &guests)?;
            }
            Some(home) => doors.extend(relay::turn_doors(&config.turn, tls.clone(), home).await?),
            None => {}
        }
        let ice_servers = late::ice_servers(config, &advertised)?;
        let late = (outside.is_none() && asks_outside(&config.rtc)).then(|| Late {
            config: config.clone(),
            local,
            shards: reachable,
            tcp_port: if has_tcp { config.rtc.tcp_port } else { 0 },
            relay: relay.clone(),
        });
        let webhooks = webhook_settings(config)?;
        let Kept { database, durable } = open_database(config)?;
        let records = database.rooms().map_err(|error| database_error(config, error))?;
        let database = SharedDatabase::new(database);
        let (journal, entries) = mpsc::channel(JOURNAL);
        // Rooms tell a voice system that may be on any node by webhooks.
        let alone = config.voice.enabled && !config.voice.is_shared();
        let voice_inbox = alone.then(VoiceLink::prepare);
        let voice_link = voice_inbox.as_ref().map(|(link, _)| link.clone());
        let mut node_config = NodeConfig {
            voice: voice_link,
            journal: (durable || webhooks.is_some()).then_some(journal),
            durable,
            relay,
            ..node_config(config, identity.fingerprint())
        };
        node_config.room.ice_servers = ice_servers;
        let node = Node::start(node_config, links);
        let (webhooks, letterbox) = webhooks
            .map(|settings| Webhooks::start(settings, database.clone(), node.clone()))
            .unzip();
        let keeps = node.config().journal.is_some();
        let voice = match config.voice.enabled {
            true => Some(voice::start(config, &node, database.clone(), voice_inbox).await?),
            false => None,
        };
        let journal = keeps.then(|| Journal::start(node.clone(), entries, database, letterbox));
        if !records.is_empty() {
            tracing::info!(rooms = records.len(), "rooms from before this start");
            node.restore(records);
        }

        let (stopping, stopped) = watch::channel(false);
        let statistics = Arc::<ApiStatistics>::default();
        let relays = RelayHealth::new(config)?;
        let site = Site {
            node: node.clone(),
            development: config.development,
            statistics: Arc::clone(&statistics),
            whip: Default::default(),
            relays: relays.clone(),
            voice: voice.as_ref().map(|voice| voice.site.clone()),
        };
        let metrics = Metrics {
            node: node.clone(),
            shards: shards.iter().map(|(shard, _)| shard.clone()).collect(),
            api: statistics,
            webhooks: webhooks.as_ref().map(|webhooks| Arc::clone(webhooks.counters())),
            voice: voice.as_ref().map(|voice| Arc::clone(&voice.statistics)),
            relays: relays.clone(),
            authorization: metrics::authorization(&config.prometheus),
        };
        let mut http = JoinSet::new();
        http.spawn(relays.watch(stopped.clone()));
        if single_port {
            match &tls {
                Some(_) => http.spawn(http::serve_handed(handed, site.clone(), ToHttps, stopped.clone())),
                None => http.spawn(http::serve_handed(handed, site.clone(), site.clone(), stopped.clone())),
            };
        }
        if let Some(late) = late {
            let finding = late.find(node.clone());
            let mut stopped = stopped.clone();
            http.spawn(async move {
                tokio::select! {
                    () = finding => {}
                    () = async { drop(stopped.wait_for(|stopping| *stopping).await) } => {}
                }
            });
        }
        if let (Some(tls), Some(Some(acme))) = (&tls, acme) {
            http.spawn(acme.keep(tls.clone(), stopped.clone()));
        }
        if let Some(tls) = &tls {
            http.spawn(reload::watch_certificates(tls.clone(), stopped.clone()));
        }
        for listener in listeners {
            listening.push(listener.local_addr()?);
            http.spawn(http::serve(listener, site.clone(), stopped.clone()));
        }
        for door in doors {
            http.spawn(door.serve(stopped.clone()));
        }
        let mut measured = Vec::new();
        for listener in metrics_listeners {
            measured.push(listener.local_addr()?);
            http.spawn(http::serve(listener, metrics.clone(), stopped.clone()));
        }
        Ok(Self {
            node,
            listening,
            measured,
            is_secure: single_port && tls.is_some(),
            stopping,
            http,
            journal,
            webhooks,
            voice,
            shards,
        })
    }

    /// The HTTP addresses, with the ports that were chosen.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Where metrics are read.
    pub fn measured(&self) -> &[SocketAddr] {
        &self.measured
    }

    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Waits until one of the shards ends, which none does while the server is healthy.
    pub async fn shard_ended(&self) {
        let mut ends: FuturesUnordered<_> = self.shards.iter().map(|(shard, _)| shard.ended()).collect();
        ends.next().await;
    }

    /// Makes no more rooms, and waits until everybody has left, or for `limit`; zero = for as long as it takes.
    pub async fn drained(&self, limit: Duration) {
        self.node.drain();
        let participants = || self.node.counts().participants;
        tracing::info!(
            participants = participants(),
            ?limit,
            "waiting for participants to leave"
        );
        let left = async {
            while participants() > 0 {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        match limit {
            Duration::ZERO => left.await,
            limit => {
                if tokio::time::timeout(limit, left).await.is_err() {
                    tracing::warn!(participants = participants(), "not everybody has left in time");
                }
            }
        }
    }

    /// The doors first, then everybody is told, then media ends.
    pub async fn stop(mut self) {
        let _ = self.stopping.send(true);
        if let Some(voice) = self.voice.take() {
            voice.stop().await;
        }
        self.node.shut_down().await;
        if let Some(journal) = self.journal.take() {
            journal.stop().await;
        }
        if let Some(webhooks) = self.webhooks.take() {
            webhooks.stop().await;
        }
        let drained = async { while self.http.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(HTTP_DRAIN, drained).await;
        for (shard, _) in &self.shards {
            shard.stop();
        }
        for (shard, thread) in self.shards.drain(..) {
            if tokio::task::spawn_blocking(move || thread.join().is_err())
                .await
                .unwrap_or(true)
            {
                tracing::error!("a media shard had panicked");
            }
            log_totals(&shard);
        }
    }

    fn announce(&self, config: &Config) {
        let Some(address) = self.listening.first() else { return };
        let host = match address.ip() {
            ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let port = address.port();
        let scheme = if self.is_secure { "https" } else { "http" };
        println!(
            "patchbay {} serves {scheme}://{host}:{port}/",
            env!("CARGO_PKG_VERSION")
        );
        if config.development {
            println!("development mode: open that page in a browser; clients use ws://{host}:{port}");
        }
    }
}

/// A way from every shard to every other.
async fn connect_shards(shards: &[ShardHandle]) -> Result<(), ServeError> {
    let ended = |_| ServeError::ShardEnded;
    for (from, one) in (0..).map(ShardIndex).zip(shards) {
        for (to, other) in (0..).map(ShardIndex).zip(shards).filter(|(to, _)| *to != from) {
            let (out, into) = way(from, to, other.clone());
            let ends = [(one, WayEnd::Out(out)), (other, WayEnd::In(into))];
            for (shard, end) in ends {
                shard.hand_over(Handover::Way(Box::new(end))).await.map_err(ended)?;
            }
        }
    }
    Ok(())
}

/// Makes the first shard the home of the TURN server, and tells the others; None when there is to be none.
async fn start_relay(
    config: &Config,
    advertised: &[IpAddr],
    routes: Vec<(SocketAddr, Option<ShardHandle>)>,
    shards: &[ShardHandle],
) -> Result<Option<ShardHandle>, ServeError> {
    let Some((home, others)) = shards.split_first().filter(|_| config.turn.enabled) else {
        return Ok(None);
    };
    let unix = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let (peers, sockets) = config.turn.relay_to_peers.then(peers).unzip();
    let seat = relay::home(config, advertised, routes, peers, unix)?;
    if let Some(sockets) = sockets {
        // Ends with the shard that has the other end.
        tokio::spawn(sockets.serve(home.clone()));
    }
    let ended = |_| ServeError::ShardEnded;
    home.hand_over(Handover::RelayHome(Box::new(seat)))
        .await
        .map_err(ended)?;
    for other in others {
        other.hand_over(Handover::RelayAt(home.clone())).await.map_err(ended)?;
    }
    Ok(Some(home.clone()))
}

/// What a shard has done, and why it dropped what it dropped.
fn log_totals(shard: &ShardHandle) {
    let (io, media) = (shard.counters(), shard.stats());
    let drops: Vec<String> = media
        .drops()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| format!("{reason}={count}"))
        .collect();
    tracing::info!(
        received = io.datagrams_received,
        sent = io.datagrams_sent,
        sends = io.messages_sent,
        send_dropped = io.send_dropped,
        turns = io.turns,
        drops = drops.join(" "),
        "media shard ended"
    );
}

/// Where HTTP is served. Without configured addresses: everywhere, in one dual-stack socket where there is IPv6.
async fn listeners(config: &Config, port: u16) -> Result<Vec<TcpListener>, ServeError> {
    let listen = |ip: IpAddr| async move {
        let address = SocketAddr::new(ip, port);
        TcpListener::bind(address)
            .await
            .map_err(|error| ServeError::Listen { address, error })
    };
    if config.bind_addresses.is_empty() {
        let listener = match listen(Ipv6Addr::UNSPECIFIED.into()).await {
            Ok(listener) => listener,
            Err(_) => listen(Ipv4Addr::UNSPECIFIED.into()).await?,
        };
        return Ok(vec![listener]);
    }
    let mut listeners = Vec::new();
    for ip in &config.bind_addresses {
        match listen(*ip).await {
            Ok(listener) => listeners.push(listener),
            // Development binds both loopbacks; a machine without IPv6 has only one.
            Err(error) if ip.is_ipv6() && !listeners.is_empty() => tracing::warn!("{error}"),
            Err(error) => return Err(error),
        }
    }
    Ok(listeners)
}

/// The sockets of every shard: as many shards as asked for and as there are free ports (DESIGN D5).
fn bind_shards(rtc: &RtcConfig) -> Result<Vec<Vec<UdpSocket>>, ServeError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = if rtc.shards > 0 { rtc.shards } else { cores };
    if shares_port(rtc) {
        return rtc
            .udp_ports(1)
            .first()
            .map_or(Ok(Vec::new()), |port| bind_one_port(*port, wanted));
    }
    let mut shards = Vec::new();
    let mut last_error = None;
    for port in rtc.udp_ports(usize::from(u16::MAX)) {
        if shards.len() == wanted {
            break;
        }
        match bind_port(port) {
            Ok(sockets) => shards.push(sockets),
            Err(error) => last_error = Some(error),
        }
    }
    if shards.is_empty() {
        return Err(ServeError::Udp(
            last_error.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()),
        ));
    }
    if rtc.shards > shards.len() {
        tracing::warn!(
            wanted,
            shards = shards.len(),
            "each media shard needs a UDP port of its own; running fewer"
        );
    }
    Ok(shards)
}

/// More shards than one are asked for, and there is one port only.
fn shares_port(rtc: &RtcConfig) -> bool {
    rtc.shards > 1 && rtc.udp_ports(2).len() == 1
}

/// One port for so many shards, each with sockets of its own on it.
fn bind_one_port(port: u16, shards: usize) -> Result<Vec<Vec<UdpSocket>>, ServeError> {
    // Sharing is for this process only: what another one has is not to be shared.
    let probe = bind_port(port).map_err(ServeError::Udp)?;
    let addresses: Vec<SocketAddr> = probe.iter().map(UdpSocket::local).collect();
    drop(probe);
    tracing::info!(
        shards,
        "media shards share one UDP port: what arrives is handed to the right one; a port for each is cheaper"
    );
    let bind = |address: &SocketAddr| UdpSocket::bind_shared(*address, Offload::ALL).map_err(ServeError::Udp);
    (0..shards).map(|_| addresses.iter().map(bind).collect()).collect()
}

/// One port on all addresses: IPv4, and IPv6 where the machine has it.
fn bind_port(port: u16) -> io::Result<Vec<UdpSocket>> {
    let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port).into(), Offload::ALL)?;
    let port = v4.local().port();
    match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port).into(), Offload::ALL) {
        Ok(v6) => Ok(vec![v4, v6]),
        Err(error) => {
            tracing::debug!(%error, "no IPv6");
            Ok(vec![v4])
        }
    }
}

fn shard_config(
    config: &Config,
    identity: &DtlsIdentity,
    bound: &[SocketAddr],
    local: &[LocalAddress],
    advertised: &[SocketAddr],
    wall: WallClock,
) -> ShardConfig {
    // Behind a translated address packets arrive on the machine's own: transports must know those too.
    let own: Vec<IpAddr> = local.iter().map(|address| address.ip).collect();
    let mut addresses = advertised.to_vec();
    for address in candidates(&own, bound) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    ShardConfig {
        speakers: SpeakerSettings {
            active_level: config.audio.active_level,
            min_percentile: config.audio.min_percentile,
            update_interval: Duration::from_millis(config.audio.update_interval.into()),
            smooth_intervals: config.audio.smooth_intervals,
        },
        patience: Duration::from_secs(config.room.reconnect_timeout.into()),
        ..ShardConfig::new(addresses, identity.clone(), rand::random(), wall)
    }
}

/// None without URLs.
fn webhook_settings(config: &Config) -> Result<Option<WebhookSettings>, ServeError> {
    let webhook = &config.webhook;
    if webhook.urls.is_empty() {
        return Ok(None);
    }
    let allow_private = webhook.allow_private_addresses || config.development;
    let mut targets = Vec::new();
    for url in &webhook.urls {
        let target = Target::parse(url).map_err(|error| ServeError::WebhookUrl {
            url: url.clone(),
            error,
        })?;
        targets.push(target);
    }
    Ok(Some(WebhookSettings {
        targets,
        api_key: webhook.api_key.clone(),
        filter: Filter {
            include: webhook.filter_params.include_events.clone(),
            exclude: webhook.filter_params.exclude_events.clone(),
        },
        full_room: config.room.enable_full_room_in_webhooks,
        allow_private,
        max_age: webhook.resource_url_notifier.max_age,
        first_retry: FIRST_RETRY,
    }))
}

fn node_config(config: &Config, fingerprint: [u8; 32]) -> NodeConfig {
    NodeConfig {
        keys: config.keys.clone(),
        auto_create: config.room.auto_create,
        room: room_settings(config, fingerprint),
        presets: config.room.room_configurations.clone(),
        max_room_name_length: config.limit.max_room_name_length,
        relay: None,
        room_spill: config.rtc.room_spill,
        signal_message_size_limit: config.limit.signal_message_size_limit,
        max_api_request_body_size: config.limit.max_api_request_body_size,
        max_tracks: config.limit.num_tracks.into(),
        max_bytes_per_second: config.limit.bytes_per_sec.into(),
        journal: None,
        durable: false,
        voice: None,
    }
}

fn room_settings(config: &Config, fingerprint: [u8; 32]) -> RoomSettings {
    let (room, limit) = (&config.room, &config.limit);
    RoomSettings {
        region: config.region.clone(),
        enabled_codecs: room.codecs(),
        fingerprint,
        empty_timeout: Duration::from_secs(room.empty_timeout.into()),
        departure_timeout: Duration::from_secs(room.departure_timeout.into()),
        max_participants: room.max_participants,
        dynacast_pause_delay: config.video.dynacast_pause_delay,
        codec_regression_threshold: config.video.codec_regression_threshold,
        allow_pause: config.rtc.congestion_control.allow_pause,
        tcp_fallback: config.rtc.allow_tcp_fallback,
        tcp_fallback_rtt_threshold: Duration::from_millis(config.rtc.tcp_fallback_rtt_threshold.into()),
        udp_unstable_fallback: config.rtc.allow_udp_unstable_fallback,
        warp: config.rtc.enable_warp,
        snap: config.rtc.enable_snap,
        playout_delay: room
            .playout_delay
            .enabled
            .then(|| playout_delay(room.playout_delay.min, room.playout_delay.max)),
        enable_remote_unmute: room.enable_remote_unmute,
        enable_data_tracks: config.enable_data_tracks,
        enable_participant_data_blob: config.enable_participant_data_blob,
        sync_streams: room.sync_streams,
        audio_last_n: room.audio_last_n,
        update_batch_target_size: room.update_batch_target_size,
        limits: Limits {
            max_metadata_size: limit.max_metadata_size,
            max_attributes_size: limit.max_attributes_size,
            max_participant_identity_length: limit.max_participant_identity_length,
            max_participant_name_length: limit.max_participant_name_length,
            max_data_blob_key_length: limit.max_data_blob_key_length,
            max_data_blobs_size: limit.max_data_blobs_size,
            max_data_track_custom_encoding_length: limit.max_data_track_custom_encoding_length,
            subscription_limit_video: limit.subscription_limit_video as usize,
            subscription_limit_audio: limit.subscription_limit_audio as usize,
        },
        ..RoomSettings::default()
    }
}
