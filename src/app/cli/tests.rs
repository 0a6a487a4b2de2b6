use super::*;
use crate::proto::claims::verify;

fn run_with(arguments: &[&str]) -> Result<Action, CliError> {
    run(std::iter::once("patchbay")
        .chain(arguments.iter().copied())
        .map(str::to_owned))
}

fn serve(arguments: &[&str]) -> Config {
    match run_with(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}")) {
        Action::Serve(loaded) => loaded.config,
        Action::Print(text) => panic!("{arguments:?} printed {text}"),
        Action::Examine(_) => panic!("{arguments:?} examines"),
        #[cfg(feature = "load-test")]
        Action::Load(_) => panic!("{arguments:?} measures"),
    }
}

fn printed(arguments: &[&str]) -> String {
    match run_with(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}")) {
        Action::Print(text) => text,
        Action::Serve(_) | Action::Examine(_) => panic!("{arguments:?} serves"),
        #[cfg(feature = "load-test")]
        Action::Load(_) => panic!("{arguments:?} measures"),
    }
}

const KEYS: &str = "k1: a-secret-of-at-least-32-characters";

#[test]
fn the_command_line_is_consistent() {
    command(true).debug_assert();
}

#[test]
fn livekits_flags_set_their_keys() {
    for arguments in [&["--dev"][..], &["serve", "--dev"], &["--dev", "serve"]] {
        assert!(serve(arguments).development, "{arguments:?}");
    }
    let config = serve(&[
        "--keys",
        KEYS,
        "--udp-port",
        "7000-7003",
        "--node-ip",
        "1.2.3.4",
        "--bind",
        "10.0.0.1",
        "--bind",
        "::1",
        "--region",
        "eu",
        "--rtc.tcp_port",
        "0",
        "--room.auto_create=false",
        "--enable_data_tracks",
        "--audio.update_interval",
        "500",
        "--rtc.pli_throttle.low_quality",
        "2s",
    ]);
    assert_eq!(config.rtc.udp_ports(9).len(), 4);
    assert_eq!(config.rtc.node_ip.v4, Some([1, 2, 3, 4].into()));
    assert_eq!(config.bind_addresses.len(), 2);
    assert_eq!(
        (
            config.region.as_str(),
            config.rtc.tcp_port,
            config.audio.update_interval
        ),
        ("eu", 0, 500)
    );
    assert!(!config.room.auto_create && config.enable_data_tracks);
    assert_eq!(config.rtc.pli_throttle.low_quality, Duration::from_secs(2));
}

#[test]
fn the_body_wins_over_the_file_and_flags_over_both() {
    let body = format!("port: 1\nregion: a\nkeys: {{{KEYS}}}\n");
    let config = serve(&["--config", "/nowhere", "--config-body", &body, "--port", "2"]);
    assert_eq!((config.port, config.region.as_str()), (2, "a"));
    assert!(run_with(&["--config", "/nowhere"]).is_err());
}

#[test]
fn refusals() {
    let text = |arguments: &[&str]| {
        run_with(arguments)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    assert_eq!(text(&["--port", "1"]), "one of key-file or keys must be provided");
    assert!(text(&["--udp-port", "x"]).starts_with("--udp-port: invalid port x"));
    assert!(text(&["--port", "x"]).contains("is not an integer"));
    assert!(text(&["--no-such-flag"]).contains("--no-such-flag"));
}

#[test]
fn tokens_are_good_for_the_server_that_made_them() {
    let token = printed(&[
        "token",
        "create",
        "--room",
        "r",
        "--identity",
        "alice",
        "--no-publish",
        "--attribute",
        "a=b=c",
        "--room-admin",
        "--valid-for",
        "10m",
        "--keys",
        KEYS,
    ]);
    let keys = serve(&["--keys", KEYS]).keys;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let claims = verify(&token, &keys, now).unwrap();
    let video = claims.video.clone().unwrap();
    assert_eq!((claims.identity.as_str(), video.room.as_str()), ("alice", "r"));
    assert!(video.room_join && video.room_admin && !video.can_publish() && video.can_subscribe());
    assert_eq!(claims.attributes["a"], "b=c");
    assert!(claims.remaining(now) <= Duration::from_secs(600));

    let join = printed(&[
        "--dev",
        "create-join-token",
        "--room",
        "r",
        "--identity",
        "rec",
        "--recorder",
    ]);
    let claims = verify(join.strip_prefix("Token: ").unwrap(), &serve(&["--dev"]).keys, now).unwrap();
    assert!(claims.is_recorder() && claims.video.unwrap().hidden);
}

#[test]
fn other_commands_print() {
    let keys = printed(&["generate-keys"]);
    let secret = keys.rsplit(' ').next().unwrap();
    assert!(keys.starts_with("API Key:  API") && secret.len() == 44);
    assert_ne!(keys, printed(&["generate-keys"]));
    assert_eq!(
        printed(&["ports"]),
        "TCP Ports\n7880 - HTTP service\n7881 - ICE/TCP\nUDP Ports\n50000-60000 - ICE/UDP range"
    );
    assert!(printed(&["ports", "--dev"]).ends_with("7882 - ICE/UDP"));
    let help = printed(&["help-verbose"]);
    assert!(help.contains("--rtc.congestion_control.allow_pause") && help.contains("LIVEKIT_RTC_TCP_PORT"));
}
