//! A server of this binary, started for one test: on loopback, on the first core, gone when the test is.

use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::failure::Failure;

pub const KEY: &str = "loadtest";
pub const SECRET: &str = "only-for-this-test-and-only-on-loopback";

const START: Duration = Duration::from_secs(10);

pub struct Server {
    process: Child,
    port: u16,
    metrics: u16,
}

impl Server {
    /// Waits until it answers. `core`: where it may run.
    pub fn start(core: Option<usize>) -> Result<Self, Failure> {
        let machine = |what: &str, error: std::io::Error| Failure::Machine(format!("{what}: {error}"));
        let program = std::env::current_exe().map_err(|error| machine("this program's file", error))?;
        let (port, media, metrics, relay) = free_ports().map_err(|error| machine("free ports", error))?;
        let body = format!(
            "port: {port}\ndatabase: ':memory:'\nprometheus:\n  port: {metrics}\nbind_addresses: ['127.0.0.1']\nrtc:\n  udp_port: {media}\n  tcp_port: 0\n  node_ip: 127.0.0.1\n  \
             enable_loopback_candidate: true\nturn:\n  enabled: true\n  udp_port: {relay}\n  bind_addresses: ['127.0.0.1']\nkeys:\n  {KEY}: {SECRET}\nlogging:\n  level: warn\n"
        );
        let command = |mut command: Command| {
            command
                .arg("--config-body")
                .arg(&body)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
        };
        // Pinned where that is possible: a scheduler that moves it between cores makes figures that cannot be compared.
        let pinned = core.map(|core| {
            let mut taskset = Command::new("taskset");
            taskset.arg("-c").arg(core.to_string()).arg(&program);
            taskset
        });
        let process = match pinned.map(command) {
            Some(Ok(process)) => Ok(process),
            _ => command(Command::new(&program)),
        };
        let mut server = Self {
            process: process.map_err(|error| machine("starting a server", error))?,
            port,
            metrics,
        };
        let limit = Instant::now() + START;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if let Ok(Some(status)) = server.process.try_wait() {
                return Err(Failure::Machine(format!("the server did not start: {status}")));
            }
            if Instant::now() >= limit {
                return Err(Failure::Machine("the server did not start within 10 s".into()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// Where its Prometheus page is.
    pub fn metrics_port(&self) -> u16 {
        self.metrics
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Puts this process (all its threads so far) on the last core it may use, away from the server; the core that is the
/// server's, when there are two.
pub fn step_aside() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cores = allowed_cores(&status);
    let (first, last) = (*cores.first()?, *cores.last()?);
    if first == last {
        return None;
    }
    let _ = Command::new("taskset")
        .args(["-apc", &last.to_string(), &std::process::id().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    Some(first)
}

/// Of /proc/self/status: `0-1`, `0,2-5`.
fn allowed_cores(status: &str) -> Vec<usize> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let ranges = list.unwrap_or_default().trim().split(',');
    let ends = ranges.filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
    });
    ends.flat_map(|(first, last)| first..=last).collect()
}

/// Signalling, media, metrics and the relay; somebody else could take one before the server does, which then fails clearly.
fn free_ports() -> std::io::Result<(u16, u16, u16, u16)> {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let metrics = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let relay = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok((
        tcp.local_addr()?.port(),
        udp.local_addr()?.port(),
        metrics.local_addr()?.port(),
        relay.local_addr()?.port(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_those_that_may_be_used() {
        assert_eq!(allowed_cores("Name:\tx\nCpus_allowed_list:\t0-1\n"), [0, 1]);
        assert_eq!(allowed_cores("Cpus_allowed_list:\t1,4-6\n"), [1, 4, 5, 6]);
        assert_eq!(allowed_cores("Cpus_allowed_list:\t3\n"), [3]);
        assert!(allowed_cores("").is_empty());
    }
}
