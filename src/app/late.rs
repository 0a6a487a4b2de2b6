//! The address the outside sees, asked for at the start, and when no STUN server tells it then, again until one does: rooms,
//! their clients' TURN servers and our own TURN server are told of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::addresses;
use super::config::{Config, RtcConfig};
use super::external::{Outside, external_address};
use super::relay;
use crate::control::MediaAddresses;
use crate::io::{Handover, LocalAddress, ShardHandle};
use crate::node::Node;
use crate::proto::relay::IceServerSource;

/// When the outside, which had no answer at the start, is asked again; twice as long after each time.
const FIRST_ASK: Duration = Duration::from_secs(1);
const LAST_ASK: Duration = Duration::from_secs(300);

/// What clients use when the configuration names no STUN server; LiveKit's list.
pub(super) const DEFAULT_STUN: [&str; 3] = [
    "stun:global.stun.twilio.com:3478",
    "stun:stun.l.google.com:19302",
    "stun:stun1.l.google.com:19302",
];

/// Whether the outside is to be asked what it sees: `node_ip` does not say it.
pub(super) fn asks_outside(rtc: &RtcConfig) -> bool {
    rtc.use_external_ip && rtc.node_ip.is_empty()
}

pub(super) fn stun_servers(rtc: &RtcConfig) -> Vec<String> {
    match rtc.stun_servers.as_slice() {
        [] => DEFAULT_STUN.map(str::to_owned).to_vec(),
        servers => servers.to_vec(),
    }
}

/// At the start: the server starts whatever comes of it.
pub(super) async fn outside(rtc: &RtcConfig) -> Option<Outside> {
    if !asks_outside(rtc) {
        return None;
    }
    match external_address(&stun_servers(rtc)).await {
        Ok(outside) => {
            tracing::info!(address = %outside.address, "the outside sees this server");
            Some(outside)
        }
        Err(error) => {
            tracing::warn!(%error, "no STUN server told the external address; offering the machine's own, and asking again");
            None
        }
    }
}

/// One shard as clients reach it.
pub(super) struct Reachable {
    pub shard: ShardHandle,
    /// Its media sockets.
    pub bound: Vec<SocketAddr>,
}

/// What is needed to tell everybody of an address that the outside has told late.
pub(super) struct Late {
    pub config: Config,
    pub local: Vec<LocalAddress>,
    /// In their order.
    pub shards: Vec<Reachable>,
    /// 0 = no media over TCP.
    pub tcp_port: u16,
    /// The shard that has the TURN server.
    pub relay: Option<ShardHandle>,
}

impl Late {
    /// Asks until there is an answer.
    pub(super) async fn find(self, node: Node) {
        let servers = stun_servers(&self.config.rtc);
        let mut pause = FIRST_ASK;
        let outside = loop {
            tokio::time::sleep(pause).await;
            match external_address(&servers).await {
                Ok(outside) => break outside,
                Err(error) => tracing::debug!(%error, "still no external address"),
            }
            pause = (2 * pause).min(LAST_ASK);
        };
        let address = outside.address;
        match self.tell(&node, outside).await {
            Ok(()) => tracing::info!(%address, "the outside sees this server; rooms and TURN are told"),
            Err(error) => tracing::error!(%address, %error, "the external address cannot be used"),
        }
    }

    async fn tell(&self, node: &Node, outside: Outside) -> std::io::Result<()> {
        let rtc = &self.config.rtc;
        let advertised = addresses::advertised(rtc, self.config.development, &self.local, Some(outside));
        // The TURN server first: clients are sent to it.
        if let Some(home) = &self.relay {
            let mut routes = Vec::new();
            for (index, Reachable { shard, bound }) in self.shards.iter().enumerate() {
                let elsewhere = (index > 0).then(|| shard.clone());
                let media = candidates(&[outside.address], bound).into_iter();
                routes.extend(media.map(|address| (address, elsewhere.clone())));
            }
            let ips = vec![outside.address];
            // Err: the shard has ended, and the process is about to.
            let _ = home.hand_over(Handover::RelayReached { ips, routes }).await;
        }
        let fresh = self.shards.iter().map(|Reachable { bound, .. }| MediaAddresses {
            udp: udp_candidates(rtc, &advertised, bound),
            tcp: tcp_candidates(&advertised, self.tcp_port),
        });
        let servers = ice_servers(&self.config, &advertised)?;
        node.replace_addresses(fresh.collect(), servers).await;
        Ok(())
    }
}

/// What clients are told beside media.
pub(super) fn ice_servers(config: &Config, advertised: &[IpAddr]) -> std::io::Result<Vec<IceServerSource>> {
    relay::ice_servers(config, advertised, &DEFAULT_STUN)
}

/// Every advertised address with the port of the socket of its family.
pub(super) fn candidates(ips: &[IpAddr], bound: &[SocketAddr]) -> Vec<SocketAddr> {
    ips.iter()
        .filter_map(|ip| {
            let socket = bound.iter().find(|socket| socket.is_ipv4() == ip.is_ipv4())?;
            Some(SocketAddr::new(*ip, socket.port()))
        })
        .collect()
}

/// LiveKit: `force_tcp` leaves clients nothing else.
pub(super) fn udp_candidates(rtc: &RtcConfig, advertised: &[IpAddr], bound: &[SocketAddr]) -> Vec<SocketAddr> {
    match rtc.force_tcp {
        true => Vec::new(),
        false => candidates(advertised, bound),
    }
}

pub(super) fn tcp_candidates(advertised: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    match port {
        0 => Vec::new(),
        port => advertised.iter().map(|ip| SocketAddr::new(*ip, port)).collect(),
    }
}
