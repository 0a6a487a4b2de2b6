//! The TURN server and the TCP ports: what the configuration asks for, bound and handed to the shards; and the ICE servers
//! that clients are told.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use super::acme::{Acme, AcmeError};
use super::config::{Config, TurnConfig, TurnServer as External};
use crate::io::{
    CertificateFiles, Cover, Door, Guests, Offload, Peers, RelayHome, ShardHandle, Tls, TlsError, TurnServer,
    UdpSocket, local_addresses,
};
use crate::proto::claims::ApiKeys;
use crate::proto::livekit::IceServer;
use crate::proto::relay::{IceServerSource, password, read_username};
use crate::turn::{Account, Credentials, OtherPeers, PeerPolicy, Server, ServerConfig};
use crate::types::WallClock;

/// LiveKit's realm.
const REALM: &str = "livekit";
/// LiveKit: no credential lasts longer.
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// LiveKit: of external servers with a shared secret, when nothing else is said.
const EXTERNAL_TTL: u32 = 14_400;
/// LiveKit: where whoever terminates TLS before us listens.
const HTTPS: u16 = 443;

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("turn is enabled: set turn.udp_port, turn.tls_port or both")]
    NoPort,
    #[error("turn.tls_port needs turn.domain, which clients check the certificate against")]
    NoDomain,
    #[error("turn.tls_port needs turn.cert_file and turn.key_file, or turn.external_tls")]
    NoCertificate,
    #[error("turn: {0}")]
    Tls(#[from] TlsError),
    #[error("tls needs both cert_file and key_file")]
    HalfCertificate,
    #[error("tls has cert_file and acme.domains: use one of them")]
    TwoCertificates,
    #[error("tls.acme gets the certificate of rtc.single_port, which is not set")]
    NoSinglePort,
    #[error("tls.acme: {0}")]
    Acme(#[from] AcmeError),
    #[error("turn: {0} is neither an address nor a network such as 192.0.2.0/24")]
    NotANetwork(String),
    #[error("turn: cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
}

/// LiveKit's credentials: made with the API secrets, so that they need not be kept.
struct Scheme {
    keys: ApiKeys,
}

impl Credentials for Scheme {
    fn account(&self, username: &str, unix: Duration) -> Option<Account> {
        let user = read_username(username)?;
        let secret = self.keys.secret(&user.api_key)?;
        (unix.as_secs() < user.expiry).then(|| Account {
            password: password(secret, &user.participant, user.expiry),
            user: user.participant,
        })
    }
}

/// Checked before anything is bound.
pub(super) fn check(turn: &TurnConfig) -> Result<Option<Tls>, RelayError> {
    if !turn.enabled {
        return Ok(None);
    }
    match turn {
        TurnConfig {
            udp_port: 0,
            tls_port: 0,
            ..
        } => Err(RelayError::NoPort),
        TurnConfig { tls_port: 0, .. } => Ok(None),
        turn if turn.domain.is_empty() => Err(RelayError::NoDomain),
        turn if turn.external_tls => Ok(None),
        turn if turn.cert_file.is_empty() || turn.key_file.is_empty() => Err(RelayError::NoCertificate),
        turn => Ok(Some(Tls::from_files(
            Path::new(&turn.cert_file),
            Path::new(&turn.key_file),
        )?)),
    }
}

/// The server with its UDP sockets. `advertised`: our addresses as clients are told them. `routes`: every address and port at
/// which media is received, whoever knows it by that. `peers`: how those elsewhere are reached, where they may be.
pub(super) fn home(
    config: &Config,
    advertised: &[IpAddr],
    routes: Vec<(SocketAddr, Option<ShardHandle>)>,
    peers: Option<Peers>,
    unix: Duration,
) -> Result<RelayHome, RelayError> {
    let turn = &config.turn;
    let mut sockets = Vec::new();
    let shares_media = config.rtc.single_port != 0;
    if turn.udp_port != 0 && !shares_media {
        for (index, address) in addresses(turn, turn.udp_port).into_iter().enumerate() {
            match UdpSocket::bind(address, Offload::ALL) {
                Ok(socket) => sockets.push(socket),
                // A machine without IPv6.
                Err(error) if index > 0 => tracing::debug!(%address, %error, "no TURN there"),
                Err(error) => return Err(RelayError::Listen { address, error }),
            }
        }
    }
    let of_family = |v4: bool| advertised.iter().find(|ip| ip.is_ipv4() == v4).copied();
    let now = Instant::now();
    let server = ServerConfig {
        realm: REALM.to_owned(),
        relay_ips: [of_family(true), of_family(false)].into_iter().flatten().collect(),
        relay_ports: relay_ports(turn),
        peers: PeerPolicy {
            media: routes.iter().map(|(address, _)| *address).collect(),
            others: match &peers {
                Some(_) => Some(other_peers(turn, advertised)?),
                None => None,
            },
        },
        allocations_per_user: turn.per_user_relay_allocation_limit as usize,
        secret: rand::random(),
        wall: WallClock::new(now, unix),
    };
    let scheme = Scheme {
        keys: config.keys.clone(),
    };
    Ok(RelayHome {
        sockets,
        shares_media,
        server: TurnServer(Box::new(Server::new(server, Box::new(scheme), now))),
        routes,
        peers,
    })
}

/// LiveKit's lists. This machine is known by the addresses it has and by those that its clients know.
fn other_peers(turn: &TurnConfig, advertised: &[IpAddr]) -> Result<OtherPeers, RelayError> {
    let networks = |list: &[String]| {
        let parse = |text: &String| text.parse().map_err(|_| RelayError::NotANetwork(text.clone()));
        list.iter().map(parse).collect::<Result<Vec<_>, _>>()
    };
    let own = local_addresses().unwrap_or_default();
    Ok(OtherPeers {
        own: own
            .into_iter()
            .map(|address| address.ip)
            .chain(advertised.iter().copied())
            .collect(),
        allow: networks(&turn.allow_restricted_peer_cidrs)?,
        deny: networks(&turn.deny_peer_cidrs)?,
    })
}

/// LiveKit binds these ports, one for each allocation; here they are names, and a range for a handful of developers must not
/// be all there is.
fn relay_ports(turn: &TurnConfig) -> std::ops::RangeInclusive<u16> {
    const ENOUGH: u16 = 10_000;
    let (start, end) = (turn.relay_range_start.max(1024), turn.relay_range_end);
    start..=end.max(start.saturating_add(ENOUGH))
}

/// TURN over TCP and TLS: a door for each.
pub(super) async fn turn_doors(
    turn: &TurnConfig,
    tls: Option<Tls>,
    home: &ShardHandle,
) -> Result<Vec<Door>, RelayError> {
    let mut doors = Vec::new();
    let ports = [(turn.udp_port, None, true), (turn.tls_port, tls, false)];
    for (port, tls, optional) in ports.into_iter().filter(|(port, ..)| turn.enabled && *port != 0) {
        for (index, address) in addresses(turn, port).into_iter().enumerate() {
            match listen(address) {
                Ok(listener) => doors.push(Door {
                    listener,
                    cover: tls.clone().map_or(Cover::Plain, Cover::Tls),
                    guests: Guests {
                        turn: Some(home.clone()),
                        ..Guests::default()
                    },
                }),
                Err(error) if index > 0 => tracing::debug!(%address, %error, "no TURN there"),
                // Beside UDP on the same port, TCP is an extra.
                Err(error) if optional => tracing::warn!(%address, %error, "no TURN over TCP"),
                Err(error) => return Err(RelayError::Listen { address, error }),
            }
        }
    }
    Ok(doors)
}

/// ICE-TCP. A port that somebody else has costs the fallback, not the server.
pub(super) fn media_doors(port: u16, shards: &[ShardHandle]) -> Vec<Door> {
    if port == 0 {
        return Vec::new();
    }
    let everywhere = [
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        (Ipv6Addr::UNSPECIFIED, port).into(),
    ];
    let mut doors = Vec::new();
    for address in everywhere {
        match listen(address) {
            Ok(listener) => doors.push(Door {
                listener,
                cover: Cover::Plain,
                guests: Guests {
                    media: shards.to_vec(),
                    ..Guests::default()
                },
            }),
            Err(error) if address.is_ipv4() => tracing::warn!(%address, %error, "no media over TCP"),
            Err(error) => tracing::debug!(%address, %error, "no media over TCP there"),
        }
    }
    doors
}

/// The certificates of a single port: TURN's for whoever asks for its name, the site's for everybody else. None = plain.
/// With them, what gets new ones from an authority.
///
/// # Errors
/// When one cannot be used.
pub(super) fn single_port_tls(config: &Config) -> Result<Option<(Tls, Option<Acme>)>, RelayError> {
    if let Some(acme) = Acme::new(&config.tls.acme)? {
        if !config.tls.cert_file.is_empty() {
            return Err(RelayError::TwoCertificates);
        }
        return Ok(Some((acme.tls()?, Some(acme))));
    }
    let files = |certificate: &str, key: &str| match (certificate, key) {
        ("", "") => Ok(None),
        ("", _) | (_, "") => Err(RelayError::HalfCertificate),
        (certificate, key) => Ok(Some(CertificateFiles {
            certificate: certificate.into(),
            key: key.into(),
        })),
    };
    let site = files(&config.tls.cert_file, &config.tls.key_file)?;
    let turn = files(&config.turn.cert_file, &config.turn.key_file)?;
    let Some(first) = site.as_ref().or(turn.as_ref()) else {
        return Ok(None);
    };
    let others = turn
        .iter()
        .filter(|turn| *turn != first && !config.turn.domain.is_empty());
    let others: Vec<_> = others.map(|turn| (config.turn.domain.clone(), turn.clone())).collect();
    Ok(Some((Tls::new(first.clone(), &others)?, None)))
}

/// Everything that a single port lets in, at each address where HTTP is served. The addresses they listen on, too.
///
/// # Errors
/// When none of them can be bound.
pub(super) fn single_port_doors(
    config: &Config,
    tls: Option<&Tls>,
    guests: &Guests,
) -> Result<(Vec<SocketAddr>, Vec<Door>), RelayError> {
    let everywhere = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let ips = match config.bind_addresses.as_slice() {
        [] => &everywhere[..],
        ips => ips,
    };
    let (mut listening, mut doors) = (Vec::new(), Vec::new());
    for (index, ip) in ips.iter().enumerate() {
        let address = SocketAddr::new(*ip, config.rtc.single_port);
        match listen(address) {
            Ok(listener) => {
                listening.push(address);
                doors.push(Door {
                    listener,
                    cover: tls.cloned().map_or(Cover::Plain, Cover::Either),
                    guests: guests.clone(),
                });
            }
            // A machine without IPv6.
            Err(error) if index > 0 && ip.is_ipv6() => tracing::warn!(%address, %error, "not listening there"),
            Err(error) => return Err(RelayError::Listen { address, error }),
        }
    }
    Ok((listening, doors))
}

/// One socket for each family, as with UDP: a client's address is then in the form it has itself.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

/// Where TURN listens. LiveKit's default is all IPv4 addresses; all of IPv6 belong to it.
fn addresses(turn: &TurnConfig, port: u16) -> Vec<SocketAddr> {
    let mut ips = turn.bind_addresses.clone();
    if ips.is_empty() {
        ips.push(Ipv4Addr::UNSPECIFIED.into());
    }
    if ips.iter().all(|ip| *ip == IpAddr::V4(Ipv4Addr::UNSPECIFIED)) {
        ips.push(Ipv6Addr::UNSPECIFIED.into());
    }
    ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
}

/// What clients are told, in LiveKit's order: our TURN server, those of others, STUN.
pub(super) fn ice_servers(
    config: &Config,
    advertised: &[IpAddr],
    default_stun: &[&str],
) -> io::Result<Vec<IceServerSource>> {
    let mut servers = Vec::new();
    if config.turn.enabled {
        servers.push(IceServerSource::Embedded {
            urls: turn_urls(&config.turn, advertised, transports(config)),
            lifetime: Duration::from_secs(config.turn.ttl_seconds.into()).min(MAX_TTL),
        });
    }
    for server in &config.rtc.turn_servers {
        servers.push(external(server)?);
    }
    let stun: Vec<String> = if config.rtc.stun_servers.is_empty() {
        default_stun.iter().map(|url| (*url).to_owned()).collect()
    } else {
        config
            .rtc
            .stun_servers
            .iter()
            .map(|server| format!("stun:{server}"))
            .collect()
    };
    servers.push(IceServerSource::Fixed(IceServer {
        urls: stun,
        ..IceServer::default()
    }));
    Ok(servers)
}

/// libwebrtc takes whatever comes from a TURN server's address on the socket that it shares with its direct candidates for
/// an answer of TURN: where media has that very address, direct media would be lost. And where UDP reaches TURN at the one
/// port, it reaches media.
fn transports(config: &Config) -> &'static [&'static str] {
    match config.rtc.single_port {
        0 => &["udp", "tcp"],
        _ => &["tcp"],
    }
}

fn turn_urls(turn: &TurnConfig, advertised: &[IpAddr], transports: &[&str]) -> Vec<String> {
    let mut urls = Vec::new();
    if turn.udp_port != 0 {
        for transport in transports {
            let hosts = advertised.iter().map(|ip| match ip {
                IpAddr::V4(v4) => v4.to_string(),
                IpAddr::V6(v6) => format!("[{v6}]"),
            });
            urls.extend(hosts.map(|host| format!("turn:{host}:{}?transport={transport}", turn.udp_port)));
        }
    }
    if turn.tls_port != 0 {
        // Whoever terminates TLS for us does it where browsers get through; ours is where the configuration says.
        let port = match (turn.advertised_tls_port, turn.external_tls) {
            (0, true) => HTTPS,
            (0, false) => turn.tls_port,
            (port, _) => port,
        };
        urls.push(format!("turns:{}:{port}?transport=tcp", turn.domain));
    }
    urls
}

/// Where clients find it.
pub(super) fn external_url(server: &External) -> String {
    let (scheme, transport) = match server.protocol.as_str() {
        "tls" => ("turns", "tcp"),
        "tcp" => ("turn", "tcp"),
        _ => ("turn", "udp"),
    };
    format!("{scheme}:{}:{}?transport={transport}", server.host, server.port)
}

/// # Errors
/// When the file with its secret cannot be read.
pub(super) fn external(server: &External) -> io::Result<IceServerSource> {
    let urls = vec![external_url(server)];
    let mut secret = server.secret.trim().to_owned();
    if secret.is_empty() && !server.secret_file.is_empty() {
        let file = &server.secret_file;
        secret = std::fs::read_to_string(file)
            .map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))?
            .trim()
            .to_owned();
    }
    if secret.is_empty() {
        return Ok(IceServerSource::Fixed(IceServer {
            urls,
            username: server.username.clone(),
            credential: server.credential.clone(),
        }));
    }
    let seconds = if server.ttl == 0 { EXTERNAL_TTL } else { server.ttl };
    Ok(IceServerSource::Rest {
        urls,
        secret,
        lifetime: Duration::from_secs(seconds.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADVERTISED: [&str; 2] = ["203.0.113.5", "2001:db8::5"];

    fn urls(change: impl FnOnce(&mut TurnConfig)) -> Vec<String> {
        let mut turn = TurnConfig {
            enabled: true,
            domain: "turn.example.com".into(),
            ..TurnConfig::default()
        };
        change(&mut turn);
        turn_urls(&turn, &ADVERTISED.map(|ip| ip.parse().unwrap()), &["udp", "tcp"])
    }

    #[test]
    fn the_ports_of_the_configuration_are_advertised() {
        assert_eq!(
            urls(|turn| turn.udp_port = 3478),
            [
                "turn:203.0.113.5:3478?transport=udp",
                "turn:[2001:db8::5]:3478?transport=udp",
                "turn:203.0.113.5:3478?transport=tcp",
                "turn:[2001:db8::5]:3478?transport=tcp",
            ]
        );
        assert_eq!(
            urls(|turn| turn.tls_port = 5349),
            ["turns:turn.example.com:5349?transport=tcp"]
        );
        let external = |turn: &mut TurnConfig| (turn.tls_port, turn.external_tls) = (5349, true);
        assert_eq!(urls(external), ["turns:turn.example.com:443?transport=tcp"]);
        let named = |turn: &mut TurnConfig| (turn.tls_port, turn.advertised_tls_port) = (5349, 8443);
        assert_eq!(urls(named), ["turns:turn.example.com:8443?transport=tcp"]);
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused() {
        let refused = |change: &dyn Fn(&mut TurnConfig)| {
            let mut turn = TurnConfig {
                enabled: true,
                ..TurnConfig::default()
            };
            change(&mut turn);
            check(&turn).map_err(|error| error.to_string()).map(|_| ())
        };
        assert!(refused(&|_| {}).unwrap_err().contains("udp_port"));
        assert!(refused(&|turn| turn.tls_port = 443).unwrap_err().contains("domain"));
        let no_files = |turn: &mut TurnConfig| (turn.tls_port, turn.domain) = (443, "x".into());
        assert!(refused(&no_files).unwrap_err().contains("cert_file"));
        let external = |turn: &mut TurnConfig| {
            no_files(turn);
            turn.external_tls = true;
        };
        assert_eq!(refused(&external), Ok(()));
        assert_eq!(refused(&|turn| turn.udp_port = 3478), Ok(()));
        assert_eq!(refused(&|turn| turn.enabled = false), Ok(()));
    }

    #[test]
    fn external_servers_with_a_secret_make_credentials_for_each_participant() {
        let server = External {
            host: "turn.example.com".into(),
            port: 443,
            protocol: "tls".into(),
            secret: " shared\n".into(),
            ..External::default()
        };
        let expected = IceServerSource::Rest {
            urls: vec!["turns:turn.example.com:443?transport=tcp".into()],
            secret: "shared".into(),
            lifetime: Duration::from_secs(14_400),
        };
        assert_eq!(external(&server).unwrap(), expected);
    }

    #[test]
    fn credentials_are_ours_and_in_time() {
        let keys = ApiKeys::from_iter([("devkey", "secret")]);
        let scheme = Scheme { keys };
        let source = IceServerSource::Embedded {
            urls: Vec::new(),
            lifetime: Duration::from_secs(300),
        };
        let unix = Duration::from_secs(1_790_000_000);
        let given = source.for_participant("PA_alice", "devkey", "secret", unix);
        let account = scheme.account(&given.username, unix).unwrap();
        assert_eq!(
            (account.user.as_str(), account.password),
            ("PA_alice", given.credential)
        );
        assert_eq!(scheme.account(&given.username, unix + Duration::from_secs(300)), None);
        let foreign = source.for_participant("PA_alice", "other", "secret", unix);
        assert_eq!(scheme.account(&foreign.username, unix), None);
    }
}
