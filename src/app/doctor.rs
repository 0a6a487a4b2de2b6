//! `patchbay doctor`: looks at what the server would do with its configuration on this machine, and says in plain words what
//! will not work and what to change.
//!
//! Binds and lets go of every port, asks STUN and time servers, reads the certificate. Changes nothing, and is not run by
//! the server itself.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::lookup_host;
use tokio::time::timeout;

use super::addresses;
use super::config::Config;
use super::external::{Outside, external_address};
use super::late::{asks_outside, stun_servers};
use super::{relay, relay_health};
use crate::io::{LocalAddress, Tls, local_addresses};
use crate::tls::{self, Trust};

/// How long a name or a time server may take.
const ANSWER: Duration = Duration::from_secs(2);
/// Asked for the time (SNTP, RFC 4330).
const TIME_SERVERS: [&str; 2] = ["time.cloudflare.com:123", "pool.ntp.org:123"];
/// Tokens are good from the second they are made, give or take a minute (`claims::LEEWAY`).
const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);
/// Seconds from 1900 (NTP) to 1970 (UNIX).
const NTP_TO_UNIX: u64 = 2_208_988_800;
/// LiveKit: a receive buffer below this loses packets in bursts.
const RECEIVE_BUFFER: u64 = 5_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// Works, but not for everybody.
    Warning,
    /// Does not work.
    Fault,
    /// Could not be found out from here.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    verdict: Verdict,
    text: String,
}

impl Finding {
    fn new(verdict: Verdict, text: impl Into<String>) -> Self {
        Self {
            verdict,
            text: text.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Fine => "ok     ",
            Verdict::Warning => "warning",
            Verdict::Fault => "FAULT  ",
            Verdict::Unknown => "?      ",
        };
        write!(f, "{mark}  {}", self.text)
    }
}

/// Prints what it finds; fails when something will not work.
pub(super) fn run(config: &Config) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let findings = runtime.block_on(examine(config));
    for finding in &findings {
        println!("{finding}");
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (faults, warnings) = (count(Verdict::Fault), count(Verdict::Warning));
    println!("\n{faults} faults, {warnings} warnings");
    if faults == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = ports(config);
    findings.extend(receive_buffer());
    findings.push(clock().await);
    let local = local_addresses().unwrap_or_default();
    let (outside, answers) = stun(config).await;
    findings.extend(answers);
    let used = outside.filter(|_| asks_outside(&config.rtc));
    let advertised = addresses::advertised(&config.rtc, config.development, &local, used);
    let external = outside.map(|outside| outside.address);
    findings.extend(reachability(config, &advertised, &local, external));
    findings.extend(turn(config, &advertised).await);
    findings.extend(others_turn(config).await);
    findings
}

/// The TURN servers of others.
async fn others_turn(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tls = tls::connector(Trust::Machine).ok();
    for server in &config.rtc.turn_servers {
        let url = relay::external_url(server);
        let found = match relay::external(server) {
            Ok(source) => relay_health::examine(server, &source, tls.as_ref()).await,
            Err(error) => Err(error.into()),
        };
        findings.push(match found {
            Ok(time) => Finding::new(Verdict::Fine, format!("{url} works ({} ms)", time.as_millis())),
            Err(fault) => Finding::new(Verdict::Warning, format!("{url} does not work from here: {fault}")),
        });
    }
    findings
}

/// Every port the server would bind.
fn ports(config: &Config) -> Vec<Finding> {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let mut findings = Vec::new();
    if config.rtc.single_port != 0 {
        let what = "rtc.single_port (everything)";
        let web = config.bind_addresses.first().copied().unwrap_or(any);
        return vec![
            tcp(what, web, config.rtc.single_port),
            udp(what, any, config.rtc.single_port),
        ];
    }
    let web = config.bind_addresses.first().copied().unwrap_or(any);
    findings.push(tcp("port (HTTP and WebSocket)", web, config.port));
    if config.rtc.tcp_port != 0 {
        findings.push(tcp("rtc.tcp_port (media over TCP)", any, config.rtc.tcp_port));
    }
    // One is enough to start; more are for more cores.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for port in config.rtc.udp_ports(cores) {
        findings.push(udp("media", any, port));
    }
    if config.turn.enabled {
        let address = config.turn.bind_addresses.first().copied().unwrap_or(any);
        if config.turn.udp_port != 0 {
            findings.push(udp("turn.udp_port", address, config.turn.udp_port));
        }
        if config.turn.tls_port != 0 {
            findings.push(tcp("turn.tls_port", address, config.turn.tls_port));
        }
    }
    findings
}

fn tcp(what: &str, ip: IpAddr, port: u16) -> Finding {
    bound(what, "TCP", port, TcpListener::bind(SocketAddr::new(ip, port)).err())
}

fn udp(what: &str, ip: IpAddr, port: u16) -> Finding {
    bound(what, "UDP", port, UdpSocket::bind(SocketAddr::new(ip, port)).err())
}

fn bound(what: &str, protocol: &str, port: u16, error: Option<io::Error>) -> Finding {
    let advice = match error.as_ref().map(io::Error::kind) {
        None => return Finding::new(Verdict::Fine, format!("{protocol} port {port} is free: {what}")),
        Some(io::ErrorKind::AddrInUse) => "somebody has it already; if that is not this server, choose another",
        Some(io::ErrorKind::PermissionDenied) => {
            "ports below 1024 need a right: CAP_NET_BIND_SERVICE, or sysctl net.ipv4.ip_unprivileged_port_start"
        }
        Some(io::ErrorKind::AddrNotAvailable) => "this machine does not have the address that is to be bound",
        Some(_) => "it cannot be bound",
    };
    Finding::new(Verdict::Fault, format!("{protocol} port {port} ({what}): {advice}"))
}

fn receive_buffer() -> Option<Finding> {
    let text = std::fs::read_to_string("/proc/sys/net/core/rmem_max").ok()?;
    let size: u64 = text.trim().parse().ok()?;
    Some(if size >= RECEIVE_BUFFER {
        Finding::new(Verdict::Fine, format!("UDP receive buffers may have {size} bytes"))
    } else {
        let advice = format!("a burst of packets may be lost; sysctl -w net.core.rmem_max={RECEIVE_BUFFER}");
        Finding::new(
            Verdict::Warning,
            format!("UDP receive buffers may have only {size} bytes: {advice}"),
        )
    })
}

/// Tokens carry times: clients of a server whose clock is wrong are refused.
async fn clock() -> Finding {
    for server in TIME_SERVERS {
        let Ok(Ok(theirs)) = timeout(ANSWER, ask_time(server)).await else {
            continue;
        };
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let off = ours.abs_diff(theirs);
        return if off <= CLOCK_TOLERANCE {
            Finding::new(
                Verdict::Fine,
                format!("the clock is right ({} ms from {server})", off.as_millis()),
            )
        } else {
            let advice = "tokens would be refused as expired or not valid yet; switch on time synchronisation";
            Finding::new(
                Verdict::Fault,
                format!("the clock is {} s off: {advice}", off.as_secs()),
            )
        };
    }
    Finding::new(Verdict::Unknown, "the clock: no time server answers from here")
}

/// Time since 1970, to the second and a fraction.
async fn ask_time(server: &str) -> io::Result<Duration> {
    let socket = tokio::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    let address = lookup_host(server)
        .await?
        .find(SocketAddr::is_ipv4)
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    socket.connect(address).await?;
    let mut packet = [0; 48];
    packet[0] = 0x23; // version 4, client
    socket.send(&packet).await?;
    let length = socket.recv(&mut packet).await?;
    let transmitted: [u8; 8] = packet[40..48].try_into().unwrap_or_default();
    let [seconds, fraction] =
        [0, 4].map(|at| u64::from(u32::from_be_bytes([0, 1, 2, 3].map(|byte| transmitted[at + byte]))));
    if length < packet.len() || seconds < NTP_TO_UNIX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Duration::new(
        seconds - NTP_TO_UNIX,
        ((fraction * 1_000_000_000) >> 32) as u32,
    ))
}

/// What STUN servers say, and the address the outside sees.
async fn stun(config: &Config) -> (Option<Outside>, Vec<Finding>) {
    let servers = stun_servers(&config.rtc);
    let mut seen = None;
    let mut findings = Vec::new();
    for server in servers {
        findings.push(match external_address(std::slice::from_ref(&server)).await {
            Ok(outside) => {
                seen = seen.or(Some(outside));
                let address = outside.address;
                Finding::new(
                    Verdict::Fine,
                    format!("{server} answers: the outside sees this machine as {address}"),
                )
            }
            Err(_) => Finding::new(
                Verdict::Unknown,
                format!("{server} does not answer: it is down, or this machine's UDP does not get out"),
            ),
        });
    }
    (seen, findings)
}

/// Whether clients can use the addresses they are told.
fn reachability(
    config: &Config,
    advertised: &[IpAddr],
    local: &[LocalAddress],
    external: Option<IpAddr>,
) -> Vec<Finding> {
    let list: Vec<String> = advertised.iter().map(IpAddr::to_string).collect();
    let mut findings = vec![match advertised.is_empty() {
        true => Finding::new(
            Verdict::Fault,
            "no address is offered to clients: look at rtc.interfaces, rtc.ips and rtc.node_ip",
        ),
        false => Finding::new(Verdict::Fine, format!("clients are told {}", list.join(", "))),
    }];
    let is_public = |ip: &IpAddr| !is_private(*ip);
    let has = |ip: IpAddr| local.iter().any(|address| address.ip == ip);
    if config.rtc.use_external_ip && config.rtc.node_ip.is_empty() && external.is_none() {
        findings.push(Finding::new(
            Verdict::Warning,
            "rtc.use_external_ip is set, but no STUN server tells the address; set rtc.node_ip to it",
        ));
    }
    if !advertised.is_empty() && !advertised.iter().any(is_public) {
        let advice = match external {
            Some(ip) => format!("set rtc.node_ip: {ip}, or rtc.use_external_ip: true"),
            None => "set rtc.node_ip to the public address".to_owned(),
        };
        findings.push(Finding::new(
            Verdict::Warning,
            format!("only this network reaches those addresses; for clients on the Internet {advice}"),
        ));
    }
    if let Some(ip) = config.rtc.node_ip.iter().find(|ip| ip.is_ipv4())
        && let Some(seen) = external
        && ip != seen
        && is_public(&ip)
    {
        findings.push(Finding::new(
            Verdict::Warning,
            format!("rtc.node_ip is {ip}, but the outside sees {seen}: is it the right one?"),
        ));
    }
    for ip in advertised.iter().filter(|ip| is_public(ip) && !has(**ip)) {
        findings.push(Finding::new(
            Verdict::Fine,
            format!("{ip} is translated to this machine by somebody else: the media ports must be forwarded unchanged"),
        ));
    }
    findings
}

/// Not of the Internet.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            // 100.64.0.0/10: behind a provider's NAT.
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

async fn turn(config: &Config, advertised: &[IpAddr]) -> Vec<Finding> {
    let turn = &config.turn;
    if !turn.enabled {
        let advice =
            "clients behind strict firewalls will not connect; set turn.enabled, turn.udp_port and turn.tls_port";
        let elsewhere = !config.rtc.turn_servers.is_empty();
        return match elsewhere {
            true => vec![Finding::new(
                Verdict::Fine,
                "TURN is somebody else's (rtc.turn_servers)",
            )],
            false => vec![Finding::new(Verdict::Warning, format!("TURN is off: {advice}"))],
        };
    }
    // Then nobody has certificate files, for all that matters here.
    let by_acme = config.rtc.single_port != 0 && !config.tls.acme.domains.is_empty();
    let mut checked = turn.clone();
    checked.external_tls |= by_acme;
    if let Err(error) = relay::check(&checked) {
        return vec![Finding::new(Verdict::Fault, error.to_string())];
    }
    let mut findings = vec![Finding::new(
        Verdict::Fine,
        "TURN is on and its configuration is complete",
    )];
    if turn.tls_port == 0 {
        let advice = "networks that allow only TLS on port 443 stay out";
        findings.push(Finding::new(
            Verdict::Warning,
            format!("turn.tls_port is off: {advice}"),
        ));
        return findings;
    }
    match by_acme {
        true => findings.push(acme(config.rtc.single_port)),
        false if turn.external_tls => {}
        false => findings.push(certificate(&turn.cert_file, &turn.key_file)),
    }
    let addresses = timeout(ANSWER, lookup_host((turn.domain.as_str(), turn.tls_port))).await;
    let addresses: Vec<IpAddr> = match addresses {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        _ => Vec::new(),
    };
    let domain = &turn.domain;
    findings.push(match addresses.as_slice() {
        [] => Finding::new(
            Verdict::Fault,
            format!("turn.domain {domain} has no address: add it to the DNS"),
        ),
        found if turn.external_tls || found.iter().any(|ip| advertised.contains(ip)) => {
            Finding::new(Verdict::Fine, format!("turn.domain {domain} leads to {}", found[0]))
        }
        found => Finding::new(
            Verdict::Warning,
            format!(
                "turn.domain {domain} leads to {}, which is not an address clients are told",
                found[0]
            ),
        ),
    });
    findings
}

/// RFC 8737 §3: where an authority asks.
fn acme(port: u16) -> Finding {
    const ASKED: u16 = 443;
    match port {
        ASKED => Finding::new(
            Verdict::Fine,
            "the certificate comes by ACME: its authority must reach port 443 from the Internet",
        ),
        port => Finding::new(
            Verdict::Warning,
            format!("the certificate comes by ACME, whose authority asks at port 443: forward that to {port}"),
        ),
    }
}

fn certificate(certificate: &str, key: &str) -> Finding {
    match Tls::from_files(Path::new(certificate), Path::new(key)) {
        Err(error) => Finding::new(Verdict::Fault, format!("turn.cert_file and turn.key_file: {error}")),
        Ok(tls) if tls.chain_length() < 2 => Finding::new(
            Verdict::Warning,
            format!("{certificate} holds one certificate: clients need the chain up to their root (fullchain.pem)"),
        ),
        Ok(tls) => Finding::new(
            Verdict::Fine,
            format!("{certificate} holds a chain of {} and its key fits", tls.chain_length()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(findings: &[Finding], verdict: Verdict) -> String {
        let texts: Vec<&str> = findings
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .map(|finding| finding.text.as_str())
            .collect();
        texts.join("\n")
    }

    #[test]
    fn a_port_that_is_taken_is_a_fault() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let finding = tcp("rtc.tcp_port", [127, 0, 0, 1].into(), port);
        assert_eq!(finding.verdict, Verdict::Fault);
        assert!(finding.text.contains("somebody has it already"));
        drop(taken);
        assert_eq!(tcp("rtc.tcp_port", [127, 0, 0, 1].into(), port).verdict, Verdict::Fine);
    }

    #[test]
    fn private_addresses_are_no_use_on_the_internet() {
        let config = Config::default();
        let local = [LocalAddress {
            interface: "eth0".into(),
            ip: "10.1.2.3".parse().unwrap(),
        }];
        let seen = "203.0.113.7".parse().unwrap();
        let findings = reachability(&config, &[local[0].ip], &local, Some(seen));
        assert!(texts(&findings, Verdict::Warning).contains("rtc.node_ip: 203.0.113.7"));
        let findings = reachability(&config, &[seen], &local, Some(seen));
        assert_eq!(texts(&findings, Verdict::Warning), "");
        assert!(texts(&findings, Verdict::Fine).contains("forwarded"));
        let findings = reachability(&config, &[], &local, None);
        assert!(texts(&findings, Verdict::Fault).contains("rtc.interfaces"));
    }

    #[tokio::test]
    async fn a_turn_server_that_cannot_start_is_a_fault() {
        let mut config = Config::default();
        assert!(texts(&turn(&config, &[]).await, Verdict::Warning).contains("TURN is off"));
        config.turn.enabled = true;
        assert!(texts(&turn(&config, &[]).await, Verdict::Fault).contains("turn.udp_port"));
        config.turn.udp_port = 3478;
        assert_eq!(texts(&turn(&config, &[]).await, Verdict::Fault), "");
    }
}
