//! People come, publish, come back and go, for as long as is asked: the server holds afterwards what it held before.
//!
//! `CHURN_SECONDS=3600` (`make churn`) for an hour; a few seconds otherwise, which shows that the measuring works.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use patchbay::proto::livekit::signal_response::Message as Say;
use serde_json::json;

use crate::client::Signalling;
use crate::process::{KEY, Process, SECRET};

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    resident_mib: f64,
    files: usize,
    threads: usize,
}

fn held(pid: u32) -> Held {
    let at = PathBuf::from(format!("/proc/{pid}"));
    let pages = std::fs::read_to_string(at.join("statm")).unwrap();
    let pages: f64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    Held {
        resident_mib: pages / 256.0,
        files: std::fs::read_dir(at.join("fd")).unwrap().count(),
        threads: std::fs::read_dir(at.join("task")).unwrap().count(),
    }
}

/// Five clients of an independent WebRTC stack, one after the other within a second: a camera with a voice, four who
/// watch; they leave after two.
fn call(url: &str) {
    let arguments = ["load-test", "--url", url, "--api-key", KEY, "--api-secret", SECRET];
    let call = [
        "--publishers",
        "1",
        "--subscribers",
        "4",
        "--audio",
        "--data",
        "--ramp",
        "5",
        "--duration",
        "2s",
    ];
    let output = Command::new(env!("CARGO_BIN_EXE_patchbay"))
        .args(arguments)
        .args(call)
        // A machine that is busy with something else may lose packets: that is not what is looked at.
        .args(["--max-loss", "50"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
}

/// Sockets that end in the middle of a session, and sessions that are asked for again.
async fn in_and_out(server: &Process, round: usize) {
    for at in 0..5 {
        let identity = format!("{round}-{at}");
        let mut first = server.join(&identity, "churn").await.unwrap();
        assert!(matches!(first.next().await, Say::Join(_)));
        drop(first);
        let grant = patchbay::proto::claims::VideoGrant {
            room_join: true,
            room: "churn".into(),
            ..Default::default()
        };
        let again = crate::client::join_request(|request| request.reconnect = true);
        let target = format!("/rtc/v1?join_request={again}");
        let mut again = Signalling::open(server.address, &target, &server.token(&identity, grant))
            .await
            .unwrap();
        assert!(matches!(again.next().await, Say::Leave(_) | Say::Reconnect(_)));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_of_those_who_come_and_go() {
    let asked = std::env::var("CHURN_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(asked.unwrap_or(10));
    let quiet = json!({ "room": { "departure_timeout": 1, "empty_timeout": 1 } });
    let server = Process::start(quiet).await;
    let url = format!("ws://{}", server.address);
    let began = Instant::now();
    let (mut samples, mut round) = (Vec::new(), 0);
    while samples.len() < 3 || began.elapsed() < time {
        round += 1;
        let url = url.clone();
        let calling = tokio::task::spawn_blocking(move || call(&url));
        in_and_out(&server, round).await;
        calling.await.unwrap();
        samples.push(held(server.pid()));
    }
    let (first, last) = (samples[0], samples[samples.len() - 1]);
    println!("{round} rounds in {:?}: {first:?} … {last:?}", began.elapsed());
    // Allocators keep what they once had: the last third is compared with the one before it.
    let third = samples.len() / 3;
    let of = |part: &[Held], figure: fn(&Held) -> f64| median(part.iter().map(figure).collect());
    let (before, after) = (&samples[third..2 * third], &samples[2 * third..]);
    let (was, is) = (
        of(before, |held| held.resident_mib),
        of(after, |held| held.resident_mib),
    );
    let may_grow = if time >= Duration::from_secs(300) { 4.0 } else { 16.0 };
    assert!(is <= was * 1.05 + may_grow, "{was:.1} MiB became {is:.1}");
    for figure in [|held: &Held| held.files as f64, |held: &Held| held.threads as f64] {
        let (was, is) = (of(before, figure), of(after, figure));
        assert!(is <= was + 8.0, "{was} files or threads became {is}");
    }
}
