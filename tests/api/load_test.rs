//! `patchbay load-test` as a program: what it prints, and the exit codes that scripts go by.

use std::process::{Command, Output, Stdio};

use crate::server::{KEY, Server};

fn load_test(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_patchbay"))
        .arg("load-test")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_small_call_arrives_whole_and_is_reported() {
    let output = load_test(&[
        "--subscribers",
        "3",
        "--verify",
        "1",
        "--audio",
        "--data",
        "--duration",
        "2s",
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["packets_lost"], 0, "{report}");
    assert_eq!(report["packets_spoilt"], 0, "{report}");
    assert_eq!(report["tracks_received"], 6, "{report}");
    assert_eq!(report["joined"], 4, "{report}");
    let count = |name: &str| report[name].as_u64().expect("a number");
    // Two seconds: some 420 packets of video and 100 of audio, three times.
    assert!(count("packets_out") > 1000, "{report}");
    // One of three opens everything.
    assert!(count("packets_verified") * 4 > count("packets_out"), "{report}");
    assert!(count("messages_received") > 30, "{report}");
    assert!(count("latency_samples") > count("packets_verified"), "{report}");
    assert!(report["latency_ms_p50"].as_f64().expect("measured") > 0.0, "{report}");
    assert!(report["server"]["cpu_seconds"].is_number(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_named() {
    let server = Server::start().await;
    let url = format!("ws://{}", server.address);
    let arguments = ["--url", url.as_str(), "--api-key", KEY, "--api-secret", "another"].map(str::to_owned);
    let output = tokio::task::spawn_blocking(move || load_test(&arguments.each_ref().map(String::as_str)))
        .await
        .expect("no panic");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("refused publisher-0"), "{}", said(&output));
    assert!(said(&output).contains("401"), "{}", said(&output));
}

#[test]
fn no_server_and_no_sense_have_codes_of_their_own() {
    // Port 9 of loopback: nobody listens.
    let output = load_test(&["--url", "ws://127.0.0.1:9"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("cannot be reached"), "{}", said(&output));
    let output = load_test(&["--video", "svc"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

/// A server as a process, which can be killed.
fn server_process() -> (std::process::Child, u16) {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = tcp.local_addr().expect("an address").port();
    let media = udp.local_addr().expect("an address").port();
    drop((tcp, udp));
    let body = format!(
        "port: {port}\ndatabase: ':memory:'\nbind_addresses: ['127.0.0.1']\nrtc:\n  udp_port: {media}\n  tcp_port: 0\n  \
         node_ip: 127.0.0.1\n  enable_loopback_candidate: true\nkeys:\n  {KEY}: a-secret-that-is-long-enough-for-a-server\n\
         logging:\n  level: warn\n"
    );
    let server = Command::new(env!("CARGO_BIN_EXE_patchbay"))
        .args(["--config-body", &body])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the program runs");
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::yield_now();
    }
    (server, port)
}

#[test]
fn a_server_that_vanishes_ends_the_test_at_once() {
    use std::io::{BufRead, BufReader};

    let (mut server, port) = server_process();
    let mut tester = Command::new(env!("CARGO_BIN_EXE_patchbay"))
        .args([
            "load-test",
            "--url",
            &format!("ws://127.0.0.1:{port}"),
            "--api-key",
            KEY,
        ])
        .args(["--api-secret", "a-secret-that-is-long-enough-for-a-server"])
        .args(["--subscribers", "3", "--verify", "1", "--duration", "60s"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let began = std::time::Instant::now();
    let mut lines = BufReader::new(tester.stderr.take().expect("standard error")).lines();
    // Its progress says when everybody receives.
    let all = lines
        .by_ref()
        .any(|line| line.is_ok_and(|line| line.contains("3/3 tracks")));
    assert!(all, "nobody received");
    server.kill().expect("a process");
    server.wait().expect("a process");
    let last = lines.map_while(Result::ok).last().unwrap_or_default();
    assert_eq!(tester.wait().expect("a process").code(), Some(4), "{last}");
    assert!(last.contains("the server vanished"), "{last}");
    assert!(began.elapsed().as_secs() < 50, "not at the end of the test");
}
