//! Coturn's own clients (`turnutils_uclient`, `turnutils_stunclient`, …) against our server, and our own questions to
//! coturn's server, where they are installed.

use std::path::PathBuf;
use std::process::{Child, Command as Process, Output, Stdio};

use super::door::Files;
use super::relay::{World, open_door, serve_door};
use super::*;
use crate::turn::tests::client::{Answer, Client};

/// None where coturn's tools are not installed.
fn run(tool: &str, arguments: &[&str]) -> Option<Output> {
    run_for("60", tool, arguments)
}

/// For so many seconds at most: some of the tools wait for an answer for ever.
fn run_for(seconds: &str, tool: &str, arguments: &[&str]) -> Option<Output> {
    let output = Process::new("timeout")
        .arg(seconds)
        .arg(tool)
        .args(arguments)
        .output()
        .ok()?;
    (output.status.code() != Some(127)).then_some(output)
}

fn report(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn is_installed() -> bool {
    run("turnutils_stunclient", &[]).is_some()
}

/// One row of clients: whether they ended well, and what they said.
fn client(server: &str, port: &str, password: &str, more: &[&str]) -> (bool, String) {
    client_for("60", server, port, password, more)
}

/// A row that is only to be survived.
fn nonsense(port: &str, more: &[&str]) {
    let _ = client_for("5", "127.0.0.1", port, "ecila", more);
}

fn client_for(seconds: &str, server: &str, port: &str, password: &str, more: &[&str]) -> (bool, String) {
    let arguments = [&["-u", "alice", "-w", password, "-p", port][..], more, &[server]].concat();
    let output = run_for(seconds, "turnutils_uclient", &arguments).expect("it is installed");
    (output.status.success(), report(&output))
}

/// A row that must succeed: nothing lost on the way there and back.
fn clean(server: &str, port: &str, more: &[&str]) {
    let (done, text) = client(server, port, "ecila", more);
    assert!(
        done && text.contains("Total lost packets 0 (0.000000%)"),
        "{more:?}: {text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn coturns_clients_lose_nothing() {
    if !is_installed() {
        return;
    }
    let world = World::new().await;
    let (tcp, _door) = open_door(Framing::Turn, vec![world.shards[0].0.clone()]).await;
    let files = Files::new();
    let guests = Guests {
        turn: Some(world.shards[0].0.clone()),
        ..Guests::default()
    };
    let cover = Cover::Tls(Tls::new(files.files.clone(), &[]).unwrap());
    let (tls, _tls_door) = serve_door(cover, guests).await;
    let (udp, tcp, tls) = (
        world.turn.port().to_string(),
        tcp.port().to_string(),
        tls.port().to_string(),
    );
    let (here, there) = (world.media[0].port().to_string(), world.media[1].port().to_string());
    let output = run("turnutils_stunclient", &["-p", &udp, "127.0.0.1"]).unwrap();
    assert!(report(&output).contains("reflexive"));
    let with = |peer: &str, more: &[&str]| -> Vec<String> {
        let all = [&["-c", "-e", "127.0.0.1", "-r", peer], more].concat();
        all.into_iter().map(str::to_owned).collect()
    };
    let good = |port: &str, peer: &str, more: &[&str]| {
        let all = with(peer, more);
        clean("127.0.0.1", port, &all.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let bad = |port: &str, peer: &str, password: &str, more: &[&str]| {
        let all = with(peer, more);
        let (done, text) = client(
            "127.0.0.1",
            port,
            password,
            &all.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        assert!(!done, "{more:?}: {text}");
    };
    // Each waits for seconds, so they run side by side: all of them here, and for the shard beside it one that is not padded.
    std::thread::scope(|rows| {
        for (peer, lengths) in [(&here, &["171", "172", "801"][..]), (&there, &["171"])] {
            for length in lengths {
                for (port, way) in [(&udp, &[][..]), (&tcp, &["-t"]), (&tls, &["-t", "-S"])] {
                    let channel = [&["-n", "20", "-l", length], way].concat();
                    let good = &good;
                    rows.spawn(move || {
                        good(port, peer, &channel);
                        good(port, peer, &[&channel[..], &["-s"]].concat());
                    });
                }
            }
        }
        for more in ["-G", "-g", "-D", "-X", "-M"] {
            let (good, here, udp) = (&good, &here, &udp);
            rows.spawn(move || good(udp, here, &["-n", "10", "-l", "171", more]));
        }
        // Two addresses; each run refreshes another of them, or both.
        rows.spawn(|| (0..5).for_each(|_| good(&udp, &here, &["-n", "10", "-l", "171", "-Z"])));
    });
    good(&udp, &here, &["-m", "50", "-n", "50", "-l", "800", "-z", "5"]);
    good(&tls, &here, &["-m", "10", "-n", "20", "-l", "800", "-t", "-S"]);
    bad(&udp, &here, "guess", &["-n", "1"]);
    bad(&udp, "9", "ecila", &["-n", "1"]); // a port that is not media's
    // TCP relays (RFC 6062), both kinds.
    bad(&tcp, &here, "ecila", &["-n", "1", "-t", "-T"]);
    bad(&tcp, &here, "ecila", &["-n", "1", "-t", "-P"]);
    // Third parties' tokens (RFC 7635), another scheme's secret, from client to client: none is offered, and nothing breaks.
    for more in [&["-J"][..], &["-W", "secret"], &["-y"]] {
        let all = with(&here, &[&["-n", "1"], more].concat());
        nonsense(&udp, &all.iter().map(String::as_str).collect::<Vec<_>>());
        good(&udp, &here, &["-n", "5", "-l", "171"]);
    }
    // On purpose nonsense, in a hurry, without goodbye: the server lives, and serves.
    for more in ["-N", "-R", "-O", "-B"] {
        for (port, stream) in [(&udp, None), (&tcp, Some("-t"))] {
            let all = with(&here, &["-n", "2", "-l", "171", more]);
            let all: Vec<&str> = all.iter().map(String::as_str).chain(stream).collect();
            nonsense(port, &all);
        }
        good(&udp, &here, &["-n", "5", "-l", "171"]);
    }
    // Streams take their allocations with them; those of datagrams that nobody gave back last ten minutes at most, or until
    // their participant leaves.
    let home = &world.shards[0].0;
    let held = home.counters().relay_allocations;
    println!("allocations left by those who left without goodbye: {held}");
    home.hand_over(Handover::Revoke("alice".into())).await.unwrap();
    let none_left = async {
        while home.counters().relay_allocations > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, none_left)
        .await
        .expect("every allocation is freed");
    home.hand_over(Handover::Admit("alice".into())).await.unwrap();
    // RFC 5780 needs two addresses: its questions are answered plainly or not at all, and nothing breaks.
    let _ = run_for("5", "turnutils_stunclient", &["-f", "-p", &udp, "127.0.0.1"]);
    let _ = run_for("5", "turnutils_natdiscovery", &["-m", "-f", "-p", &udp, "127.0.0.1"]);
    good(&udp, &here, &["-n", "5", "-l", "171"]);
    world.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn coturns_clients_over_ipv6() {
    if !is_installed() {
        return;
    }
    let world = World::new().await;
    let udp = world.turn.port().to_string();
    let there = world.media_v6.port().to_string();
    clean(
        "127.0.0.1",
        &udp,
        &["-c", "-x", "-e", "::1", "-r", &there, "-n", "10", "-l", "171"],
    );
    world.stop();
}

/// What the relay never serves, asked of both servers.
const INSIDE: &[&str] = &[
    "[::ffff:127.0.0.1]:80",
    "[::ffff:10.1.2.3]:80",
    "[::ffff:169.254.169.254]:80",
    "[::ffff:0.0.0.0]:80",
    "[64:ff9b::7f00:1]:80",
    "[2002:7f00:1::]:80",
    "[fe80::1]:80",
    "[fd00::1]:80",
];

/// Which of `INSIDE` an IPv6 allocation of this server gets a permission or a channel for.
fn holes(server: SocketAddr) -> Vec<&'static str> {
    let socket = StdSocket::bind(SocketAddr::new(server.ip(), 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut client = Client::new("alice", 1);
    let ask = |client: &mut Client, method: u16, attributes: &[(u16, Vec<u8>)]| {
        let message = client.message(method, attributes);
        socket.send(&message).unwrap();
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer).unwrap();
        client.read(&buffer[..length])
    };
    let allocate = [(0x19, vec![17, 0, 0, 0]), (0x17, vec![2, 0, 0, 0])];
    assert_eq!(ask(&mut client, 0x003, &allocate), Answer::Error(401));
    assert!(ask(&mut client, 0x003, &allocate).is_success(), "an IPv6 allocation");
    let mut found = Vec::new();
    for (number, text) in (0x4000u16..).zip(INSIDE) {
        let peer = client.peer(text.parse().unwrap());
        let permitted = ask(&mut client, 0x008, &[peer]).is_success();
        let number = (0x0c, [&number.to_be_bytes()[..], &[0, 0]].concat());
        let peer = client.peer(text.parse().unwrap());
        let bound = ask(&mut client, 0x009, &[number, peer]).is_success();
        if permitted || bound {
            found.push(*text);
        }
    }
    found
}

/// Debian's coturn, with what its administrators are told to deny; ended when dropped.
struct Coturn {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Coturn {
    fn start() -> Option<Self> {
        let address = StdSocket::bind("[::1]:0").unwrap().local_addr().unwrap();
        let directory = std::env::temp_dir().join(format!("patchbay-coturn-{}", address.port()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = |name: &str| directory.join(name).display().to_string();
        let child = Process::new("turnserver")
            .args([
                "-n",
                "--no-tls",
                "--no-dtls",
                "--no-cli",
                "--lt-cred-mech",
                "--user",
                "alice:ecila",
            ])
            .args([
                "--realm",
                "livekit",
                "--listening-ip",
                "::1",
                "--relay-ip",
                "::1",
                "--relay-ip",
                "127.0.0.1",
            ])
            .args([
                "--listening-port",
                &address.port().to_string(),
                "--min-port",
                "49152",
                "--max-port",
                "49200",
            ])
            .args([
                "--denied-peer-ip=127.0.0.0-127.255.255.255",
                "--denied-peer-ip=10.0.0.0-10.255.255.255",
            ])
            .args([
                "--denied-peer-ip=169.254.0.0-169.254.255.255",
                "--denied-peer-ip=0.0.0.0-0.255.255.255",
            ])
            .args([
                "--pidfile",
                &file("pid"),
                "--userdb",
                &file("db"),
                "--log-file",
                &file("log"),
                "--simple-log",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self {
            child,
            address,
            directory,
        })
    }

    /// It answers a Binding request.
    fn is_up(&self) -> bool {
        let socket = StdSocket::bind("[::1]:0").unwrap();
        socket.connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let question = Client::new("x", 1).message(0x001, &[]);
        (0..100).any(|_| {
            let answered = socket.send(&question).is_ok() && socket.recv(&mut [0; 2048]).is_ok();
            if !answered {
                // Until its socket is open the kernel refuses at once, and another program's start has no event.
                std::thread::sleep(Duration::from_millis(100));
            }
            answered
        })
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The same questions find holes in Debian's coturn (CVE-2026-27624 and what its lists do not name), so that they would find
/// some here.
#[tokio::test(flavor = "multi_thread")]
async fn the_questions_find_holes_where_there_are_some() {
    let Some(coturn) = Coturn::start() else {
        return; // not installed
    };
    assert!(coturn.is_up(), "turnserver does not answer");
    let found = holes(coturn.address);
    println!("coturn: {found:?}");
    assert!(found.contains(&"[::ffff:127.0.0.1]:80"), "{found:?}");
    drop(coturn);

    let world = World::new().await;
    assert_eq!(holes(world.turn_v6), Vec::<&str>::new());
    world.stop();
}

/// The optional mode: coturn's own peer, behind a relay socket.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_elsewhere_is_reached_through_a_socket() {
    let peer = StdSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let Ok(child) = Process::new("turnutils_peer")
        .args(["-L", "127.0.0.1", "-p", &peer.port().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
    else {
        return; // not installed
    };
    let mut child = Ended(child);
    let world = World::with_peer(peer).await;
    let port = world.turn.port().to_string();
    let there = peer.port().to_string();
    for more in [
        &["-n", "20", "-l", "171"][..],
        &["-n", "20", "-l", "801", "-s"],
        &["-m", "10", "-n", "20", "-l", "800"],
    ] {
        clean(
            "127.0.0.1",
            &port,
            &[&["-c", "-e", "127.0.0.1", "-r", &there], more].concat(),
        );
    }
    world.stop();
    let _ = child.0.kill();
}

/// A program that does not outlive the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
