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
    /// Waits until it answers.
    pub fn start() -> Result<Self, Failure> {
        let machine = |what: &str, error: std::io::Error| Failure::Machine(format!("{what}: {error}"));
        let program = std::env::current_exe().map_err(|error| machine("this program's file", error))?;
        let (port, media, metrics) = free_ports().map_err(|error| machine("free ports", error))?;
        let body = format!(
            "port: {port}\ndatabase: ':memory:'\nprometheus:\n  port: {metrics}\nbind_addresses: ['127.0.0.1']\nrtc:\n  udp_port: {media}\n  tcp_port: 0\n  node_ip: 127.0.0.1\n  \
             enable_loopback_candidate: true\nkeys:\n  {KEY}: {SECRET}\nlogging:\n  level: warn\n"
        );
        // Pinned where that is possible: a scheduler that moves it between cores makes figures that cannot be compared.
        let pinned = cores() > 1;
        let mut command = if pinned {
            let mut command = Command::new("taskset");
            command.arg("-c").arg("0").arg(&program);
            command
        } else {
            Command::new(&program)
        };
        let command = command
            .arg("--config-body")
            .arg(&body)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let process = match command.spawn() {
            Err(_) if pinned => Command::new(&program)
                .arg("--config-body")
                .arg(&body)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn(),
            other => other,
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

/// Puts this process (all its threads so far) on the last core, away from the server.
pub fn step_aside() {
    let cores = cores();
    if cores > 1 {
        let _ = Command::new("taskset")
            .args(["-apc", &(cores - 1).to_string(), &std::process::id().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Signalling, media and metrics; somebody else could take one before the server does, which then fails clearly.
fn free_ports() -> std::io::Result<(u16, u16, u16)> {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let metrics = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok((
        tcp.local_addr()?.port(),
        udp.local_addr()?.port(),
        metrics.local_addr()?.port(),
    ))
}
