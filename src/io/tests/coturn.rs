//! Coturn's own clients (`turnutils_uclient`, `turnutils_stunclient`) against our server, where they are installed.

use std::process::{Command as Process, Output};

use super::relay::{World, open_door};
use super::*;

/// None where coturn's tools are not installed.
fn run(tool: &str, arguments: &[&str]) -> Option<Output> {
    Process::new(tool).args(arguments).output().ok()
}

fn report(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn coturns_clients_lose_nothing() {
    let world = World::new().await;
    let (tcp, _door) = open_door(Framing::Turn, vec![world.shards[0].0.clone()]).await;
    let (udp, tcp) = (world.turn.port().to_string(), tcp.port().to_string());
    let (here, there) = (world.media[0].port().to_string(), world.media[1].port().to_string());
    if run("turnutils_stunclient", &["-p", &udp, "127.0.0.1"])
        .is_none_or(|output| !report(&output).contains("reflexive"))
    {
        world.stop();
        return; // not installed
    }
    let client = |port: &str, peer: &str, password: &str, more: &[&str]| {
        let base = [
            "-u",
            "alice",
            "-w",
            password,
            "-c",
            "-p",
            port,
            "-e",
            "127.0.0.1",
            "-r",
            peer,
        ];
        let output = run("turnutils_uclient", &[&base[..], more, &["127.0.0.1"]].concat()).expect("it is installed");
        (output.status.success(), report(&output))
    };
    let clean = |port: &str, peer: &str, more: &[&str]| {
        let (done, text) = client(port, peer, "ecila", more);
        assert!(
            done && text.contains("Total lost packets 0 (0.000000%)"),
            "{more:?}: {text}"
        );
    };
    for peer in [&here, &there] {
        for length in ["171", "172", "801"] {
            clean(&udp, peer, &["-n", "20", "-l", length]);
            clean(&udp, peer, &["-n", "20", "-l", length, "-s"]);
            clean(&tcp, peer, &["-n", "20", "-l", length, "-t"]);
            clean(&tcp, peer, &["-n", "20", "-l", length, "-t", "-s"]);
        }
    }
    for more in [&["-g"][..], &["-D"]] {
        clean(&udp, &here, &[&["-n", "10", "-l", "171"], more].concat());
    }
    clean(&udp, &here, &["-m", "50", "-n", "50", "-l", "800", "-z", "5"]);
    assert!(!client(&udp, &here, "guess", &["-n", "1"]).0, "a wrong password");
    assert!(
        !client(&udp, "9", "ecila", &["-n", "1"]).0,
        "a port that is not media's"
    );
    assert!(!client(&tcp, &here, "ecila", &["-n", "1", "-t", "-T"]).0, "a TCP relay");
    // On purpose nonsense, in a hurry, without goodbye: the server lives, and serves.
    for more in [&["-G"][..], &["-N"], &["-R"], &["-O"], &["-B"]] {
        let _ = client(&udp, &here, "ecila", &[&["-n", "2", "-l", "171"], more].concat());
        clean(&udp, &here, &["-n", "5", "-l", "171"]);
    }
    // RFC 5780 needs two addresses: its questions are answered plainly or not at all, and nothing breaks.
    let _ = run("turnutils_natdiscovery", &["-m", "-f", "-p", &udp, "127.0.0.1"]);
    clean(&udp, &here, &["-n", "5", "-l", "171"]);
    world.stop();
}
