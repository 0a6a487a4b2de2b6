//! People come, publish, come back and go, for as long as is asked: the server holds afterwards what it held before.
//!
//! Every second a call of five begins (str0m: a camera or a voice, and four who receive it), in the middle of which each of
//! them loses its signalling connection, comes back and restarts ICE; and five others come whose sockets just end.
//! `CHURN_SECONDS=3600` (`make churn`) for an hour; a few seconds otherwise, which shows that the measuring works.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use patchbay::proto::livekit::signal_response::Message as Say;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Signalling, fetch};
use crate::process::{KEY, Process, SECRET};
use crate::serving::free_port;

const EVERY: Duration = Duration::from_secs(1);
/// A call takes some seven seconds. On a machine that is too busy for that, calls begin when others have ended.
const MAX_CALLS: usize = 12;
const IN_A_CALL: u64 = 5;

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    resident_mib: f64,
    files: usize,
    threads: usize,
    tasks: usize,
}

async fn held(pid: u32, metrics: std::net::SocketAddr) -> Held {
    let page = fetch(metrics, "/").await.body;
    let tasks = page.lines().find(|line| line.starts_with("patchbay_tasks{"));
    let at = PathBuf::from(format!("/proc/{pid}"));
    let pages = std::fs::read_to_string(at.join("statm")).unwrap();
    let pages: f64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    Held {
        resident_mib: pages / 256.0,
        files: std::fs::read_dir(at.join("fd")).unwrap().count(),
        threads: std::fs::read_dir(at.join("task")).unwrap().count(),
        tasks: tasks.unwrap().rsplit(' ').next().unwrap().parse().unwrap(),
    }
}

/// How many joined, and sessions that were taken up again; what went wrong where something did.
fn call(url: &str, has_video: bool) -> Result<(u64, u64), String> {
    let arguments = ["load-test", "--url", url, "--api-key", KEY, "--api-secret", SECRET];
    let call = "--publishers 1 --subscribers 4 --audio --data --ramp 10 --duration 3s --resume-every 3s --json";
    let output = Command::new(env!("CARGO_BIN_EXE_patchbay"))
        .args(arguments)
        .args(call.split(' '))
        .args(if has_video { &[][..] } else { &["--video", "none"] })
        // A machine that is busy with something else may lose packets: that is not what is looked at.
        .args(["--max-loss", "50"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if output.status.code() != Some(0) {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let count = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(count("joined"), IN_A_CALL, "{report}");
    Ok((count("joined"), count("resumed")))
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

/// What calls have come to.
#[derive(Debug, Default)]
struct Calls {
    whole: u64,
    joined: u64,
    resumed: u64,
    failed: Vec<String>,
}

impl Calls {
    fn add(&mut self, call: Result<(u64, u64), String>) {
        match call {
            Ok((joined, resumed)) => {
                self.whole += 1;
                self.joined += joined;
                self.resumed += resumed;
            }
            Err(said) => self.failed.push(said),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_of_those_who_come_and_go() {
    let asked = std::env::var("CHURN_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(asked.unwrap_or(10));
    let port = free_port();
    let settings = json!({
        "room": { "departure_timeout": 1, "empty_timeout": 1 },
        "prometheus": { "port": port },
    });
    let server = Process::start(settings).await;
    let metrics = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let url = format!("ws://{}", server.address);
    let began = Instant::now();
    let (mut samples, mut round) = (Vec::new(), 0);
    let (mut calls, mut under_way) = (Calls::default(), JoinSet::new());
    let mut pace = tokio::time::interval(EVERY);
    while samples.len() < 3 || began.elapsed() < time {
        pace.tick().await;
        round += 1;
        while under_way.len() >= MAX_CALLS
            && let Some(call) = under_way.join_next().await
        {
            calls.add(call.unwrap());
        }
        let url = url.clone();
        under_way.spawn_blocking(move || call(&url, round % 5 == 0));
        in_and_out(&server, round).await;
        while let Some(call) = under_way.try_join_next() {
            calls.add(call.unwrap());
        }
        samples.push(held(server.pid(), metrics).await);
        if round % 300 == 0 {
            let (joined, resumed, failed) = (calls.joined, calls.resumed, calls.failed.len());
            println!(
                "{:?}: {joined} joined, {resumed} resumed, {failed} calls failed, {:?}",
                began.elapsed(),
                samples[round - 1]
            );
        }
    }
    let (first, last) = (samples[0], samples[samples.len() - 1]);
    let lasted = began.elapsed();
    while let Some(call) = under_way.join_next().await {
        calls.add(call.unwrap());
    }
    let rate = |count: u64| count as f64 / lasted.as_secs_f64();
    println!(
        "{round} rounds in {lasted:?}: {} calls, {:.1} joins and {:.1} sessions taken up again a second; {first:?} … {last:?}",
        calls.whole,
        rate(calls.joined),
        rate(calls.resumed),
    );
    // A machine that stands still for seconds ends a call.
    let failed = calls.failed.len() as u64;
    assert!(failed * 50 <= calls.whole, "{:?}", calls.failed);
    assert!(calls.resumed * 2 > calls.joined, "{calls:?}");
    // Allocators keep what they once had: the last third is compared with the one before it.
    let third = samples.len() / 3;
    let of = |part: &[Held], figure: fn(&Held) -> f64| median(part.iter().map(figure).collect());
    let (before, after) = (&samples[third..2 * third], &samples[2 * third..]);
    let (was, is) = (
        of(before, |held| held.resident_mib),
        of(after, |held| held.resident_mib),
    );
    let is_long = time >= Duration::from_secs(300);
    let may_grow = if is_long { 4.0 } else { 16.0 };
    assert!(is <= was * 1.05 + may_grow, "{was:.1} MiB became {is:.1}");
    // A few seconds are the time in which calls become more; each is ten sockets and as many tasks.
    let may_grow = if is_long { 8.0 } else { 200.0 };
    for figure in [
        |held: &Held| held.files as f64,
        |held: &Held| held.threads as f64,
        |held: &Held| held.tasks as f64,
    ] {
        let (was, is) = (of(before, figure), of(after, figure));
        assert!(is <= was * 1.1 + may_grow, "{was} files, threads or tasks became {is}");
    }
}
