use std::net::IpAddr;

use super::*;
use crate::app::schema::{Kind, OURS};

const SAMPLE: &str = include_str!("../../../config/patchbay.yaml");

fn loaded(document: &str) -> Loaded {
    load(&Sources {
        document: document.to_owned(),
        ..Sources::default()
    })
    .unwrap()
}

fn refused(document: &str) -> String {
    load(&Sources {
        document: document.to_owned(),
        ..Sources::default()
    })
    .unwrap_err()
    .to_string()
}

/// The sample with its commented-out keys switched on: `#` in the first column, then a key or its indentation.
fn uncommented() -> String {
    let lines = SAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') || rest.starts_with("  ") => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_sample_is_the_defaults() {
    let mut sample = loaded(SAMPLE);
    assert_eq!(sample.notices, []);
    assert_eq!(sample.config.logging.level, "info");
    sample.config.logging.level.clear();
    assert_eq!(sample.config, loaded("").config);
}

#[test]
fn the_sample_names_every_key() {
    let document = document::read(&uncommented()).unwrap();
    assert_eq!(document.faults, []);
    for leaf in schema::leaves() {
        assert!(
            look_up(&document.value, &leaf.path).is_some(),
            "{} is not in config/patchbay.yaml",
            leaf.path
        );
    }
    let loaded = loaded(&uncommented().replace("key_file: /etc/patchbay/keys.yaml", ""));
    assert_eq!(loaded.config.rtc.udp_port, Some(PortRange { start: 7882, end: 7882 }));
    assert_eq!(loaded.config.rtc.turn_servers.len(), 1);
    assert_eq!(loaded.config.webhook.api_key, "APIexample");
}

/// The comments say what the code does: examples that are defaults (no prose says otherwise) match `Config::default`.
#[test]
fn commented_defaults_are_those_of_the_code() {
    let document = document::read(&uncommented()).unwrap().value;
    let defaults = serde_json::to_value(loaded("").config).unwrap();
    for section in [
        "rtc.pli_throttle",
        "rtc.congestion_control.allow_pause",
        "video.dynacast_pause_delay",
        "limit",
        "room.playout_delay",
    ] {
        let (shown, code) = (
            look_up(&document, section).unwrap(),
            look_up(&defaults, section).unwrap(),
        );
        match (shown, code) {
            (Value::Object(shown), Value::Object(code)) => {
                for (key, value) in code {
                    let same = shown.get(key).and_then(Value::as_f64) == value.as_f64();
                    assert!(same, "{section}.{key}: {:?} is not {value}", shown.get(key));
                }
            }
            _ => assert_eq!(shown, code, "{section}"),
        }
    }
}

#[test]
fn every_used_key_reaches_the_configuration() {
    let shape = serde_json::to_value(Config::default()).unwrap();
    for leaf in schema::leaves() {
        let elsewhere = ["keys", "key_file"].contains(&leaf.path.as_str());
        if leaf.status == Status::Used && !elsewhere {
            assert!(
                look_up(&shape, &leaf.path).is_some(),
                "{} is marked used but is not in Config",
                leaf.path
            );
        }
    }
    for key in OURS {
        assert!(schema::leaves().iter().any(|leaf| leaf.path == *key), "{key}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let text = refused("port: 7000\n\nrtc:\n  udp_prot: 5\n  tcp_port: 1\nextra: {a: 1}\n");
    assert_eq!(
        text,
        "could not parse config: line 4: rtc.udp_prot: unknown key; line 6: extra: unknown key"
    );
    let lenient = Sources {
        document: "nonsense: 1\nport: 7000\n".into(),
        lenient: true,
        ..Sources::default()
    };
    assert_eq!(load(&lenient).unwrap().config.port, 7000);
}

#[test]
fn a_wrong_value_is_refused_with_its_key() {
    assert_eq!(
        refused("port: seven"),
        "could not parse config: line 1: port: `seven` is not an integer"
    );
    assert!(refused("audio:\n  active_level: 300\n").starts_with("could not parse config: audio.active_level: "));
    assert_eq!(
        refused("rtc:\n  udp_port: 9-5"),
        "could not parse config: line 2: rtc.udp_port: end port 5 must be greater than start port 9"
    );
    assert_eq!(
        refused("rtc:\n  node_ip: 1.1.1.1,2.2.2.2"),
        "could not parse config: line 2: rtc.node_ip: multiple ipv4 addresses provided: 1.1.1.1 and 2.2.2.2"
    );
    assert!(refused("rtc: 5").starts_with("could not parse config: "));
    assert!(refused("port: [1]").starts_with("could not parse config: "));
    assert!(refused("port: 1\nport: 2\n").starts_with("could not parse config: "));
    assert!(refused("a: b: c").starts_with("could not parse config: "));
}

#[test]
fn an_inert_key_is_named_once() {
    let notices = loaded("redis:\n  pool_size: 5\nrtc:\n  turn_servers: []\n").notices;
    let expected = "config line 2: redis.pool_size: accepted for compatibility, has no effect";
    assert_eq!(notices, [Notice::Warning(expected.to_owned())]);
}

#[test]
fn values_are_read_as_livekit_writes_them() {
    let config = loaded(
        "keys:\n  k1: 0123\n  k2: yes\n  k3: ' s '\nrtc:\n  udp_port: 7882-7889\n  node_ip: '1.2.3.4, ::1'\n  \
         pli_throttle: {low_quality: 1.5s, mid_quality: 250000000, high_quality: 1m1s}\nroom:\n  auto_create: off\n\
         redis:\nwebhook: ~\nbind_addresses: ['']\n",
    )
    .config;
    assert_eq!(config.keys.secret("k1"), Some("0123"), "digits keep their zeros");
    assert_eq!(config.keys.secret("k2"), Some("yes"));
    assert_eq!(config.keys.secret("k3"), Some(" s "));
    assert_eq!(config.rtc.udp_ports(3), [7882, 7883, 7884]);
    assert_eq!(config.rtc.node_ip.iter().count(), 2);
    let throttle = [
        config.rtc.pli_throttle.low_quality,
        config.rtc.pli_throttle.mid_quality,
        config.rtc.pli_throttle.high_quality,
    ];
    assert_eq!(throttle.map(|duration| duration.as_millis()), [1500, 250, 61_000]);
    assert!(!config.room.auto_create && config.bind_addresses.is_empty());
}

#[test]
fn old_names_still_count() {
    let config =
        loaded("log_level: warn\nprometheus_port: 9\nroom: {max_metadata_size: 7, max_room_name_length: 0}\n").config;
    assert_eq!((config.logging.level.as_str(), config.prometheus.port), ("warn", 9));
    assert_eq!(
        (config.limit.max_metadata_size, config.limit.max_room_name_length),
        (7, 256)
    );
}

#[test]
fn development_uses_placeholders_and_stays_local() {
    let config = loaded("development: true").config;
    assert_eq!(config.keys.secret("devkey"), Some("secret"));
    assert_eq!(
        config
            .bind_addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["127.0.0.1", "::1"]
    );
    assert_eq!(config.rtc.udp_ports(8), [7882]);
    assert_eq!(config.logging.level, "debug");

    let own = loaded("development: true\nkeys: {a: b}\n").config;
    assert!(own.bind_addresses.is_empty() && own.keys.secret("devkey").is_none());

    let production = loaded("").config;
    assert_eq!(
        (production.rtc.port_range_start, production.rtc.port_range_end),
        (50_000, 60_000)
    );
}

#[test]
fn short_secrets_are_told_or_refused() {
    let mut short = loaded("keys: {a: short}");
    check_keys(&mut short).unwrap();
    assert!(matches!(short.notices.as_slice(), [Notice::Error(text)] if text.ends_with("API key a")));
    let mut strict = loaded("keys: {a: short}\nstrict_secrets: true\n");
    assert!(matches!(check_keys(&mut strict), Err(LoadError::ShortSecret(_))));
    let mut none = loaded("");
    assert_eq!(
        check_keys(&mut none).unwrap_err().to_string(),
        "one of key-file or keys must be provided"
    );
    let mut placeholder = loaded("development: true\nstrict_secrets: true\n");
    check_keys(&mut placeholder).unwrap();
    let mut hook = loaded("keys: {a: 0123456789abcdef0123456789abcdef}\nwebhook: {urls: [x], api_key: b}\n");
    assert_eq!(
        check_keys(&mut hook).unwrap_err().to_string(),
        "api_key is required to use webhooks"
    );
}

#[test]
fn overrides_and_keys_win_over_the_document() {
    let sources = Sources {
        document: "port: 1\nkeys: {a: b}\n".into(),
        overrides: vec![
            ("port".into(), json!(2)),
            ("rtc.congestion_control.enabled".into(), json!(false)),
        ],
        keys: Some("c: d\ne: f".into()),
        ..Sources::default()
    };
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.config.port, 2);
    assert!(!loaded.config.rtc.congestion_control.enabled);
    assert_eq!(loaded.config.keys.iter().count(), 2);
    let bad = Sources {
        keys: Some("key:secret".into()),
        ..Sources::default()
    };
    assert!(load(&bad).unwrap_err().to_string().starts_with("Could not parse keys"));
}

#[test]
fn a_key_file_must_be_private() {
    let path = std::env::temp_dir().join(format!("patchbay-keys-{}", std::process::id()));
    fs::write(&path, "filekey: filesecret\n").unwrap();
    let document = format!("keys: {{a: b}}\nkey_file: {}\n", path.display());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(refused(&document), "key file others permissions must be set to 0");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let config = loaded(&document).config;
    fs::remove_file(&path).unwrap();
    assert_eq!(config.keys.iter().collect::<Vec<_>>(), [("filekey", "filesecret")]);
    assert!(refused("key_file: /nowhere/keys.yaml").starts_with("key file /nowhere/keys.yaml: "));
}

#[test]
fn turn_servers_need_credentials() {
    assert!(refused("rtc:\n  turn_servers: [{host: t, port: 1, username: u}]\n").starts_with("turn server \"t\": "));
}

#[test]
fn file_names_may_hold_variables() {
    let home = std::env::var("HOME").unwrap_or_default();
    assert_eq!(expand("~/a"), format!("{home}/a"));
    assert_eq!(expand("$HOME/a/${HOME}b"), format!("{home}/a/{home}b"));
    assert_eq!(expand("/a/$"), "/a/");
}

#[test]
fn every_scalar_has_a_reader() {
    for leaf in schema::leaves().into_iter().filter(|leaf| leaf.kind.is_scalar()) {
        assert!(
            !matches!(leaf.kind, Kind::Free) && document::scalar(leaf.kind, "1").is_ok(),
            "{}",
            leaf.path
        );
    }
}

#[test]
fn a_single_port_stands_for_all() {
    let config = loaded(
        "rtc: {single_port: 443, shards: 4}\ntls: {cert_file: a, key_file: b}\nturn: {domain: turn.example.com}",
    )
    .config;
    let ports = (
        config.port,
        config.rtc.tcp_port,
        config.turn.udp_port,
        config.turn.tls_port,
    );
    assert_eq!(ports, (443, 443, 443, 443));
    assert_eq!(config.rtc.udp_ports(9), [443]);
    assert_eq!((config.rtc.shards, config.turn.enabled), (1, true));
    assert_eq!(config.turn.cert_file, "a");
    // Nothing to check a certificate against, or no certificate: no TURN under TLS.
    assert_eq!(
        loaded("rtc: {single_port: 443}\ntls: {cert_file: a, key_file: b}")
            .config
            .turn
            .tls_port,
        0
    );
    assert_eq!(
        loaded("rtc: {single_port: 443}\nturn: {domain: turn.example.com}")
            .config
            .turn
            .tls_port,
        0
    );
}

/// The keys of the files that Fluxer starts its media server with, in development and in production.
#[test]
fn files_of_fluxer_load() {
    let development = loaded(
        "port: 7880\nredis:\n  address: redis:6379\n  db: 0\nkeys:\n  key: a secret of at least thirty-two bytes\nrtc:\n  tcp_port: 7881\n\
         webhook:\n  api_key: key\n  urls: ['http://api:8080/webhooks/livekit']\nroom:\n  auto_create: true\n  max_participants: 100\n  \
         empty_timeout: 300\ndevelopment: true\n",
    );
    assert_eq!(development.config.room.max_participants, 100);
    assert_eq!(development.config.webhook.urls, ["http://api:8080/webhooks/livekit"]);
    let production = loaded(
        "port: 7880\nbind_addresses: ['']\nkeys:\n  key: a secret of at least thirty-two bytes\nredis:\n  address: redis:6379\n  password: \
         word\nrtc:\n  tcp_port: 7881\n  udp_port: 7882\n  use_external_ip: false\n  node_ip: 203.0.113.5\n  enable_loopback_candidate: \
         false\nturn:\n  enabled: true\n  domain: turn.example.com\n  tls_port: 5349\n  udp_port: 3478\n  external_tls: true\nroom:\n  \
         auto_create: true\n  empty_timeout: 300\n  departure_timeout: 20\nwebhook:\n  api_key: key\n  urls: \
         ['http://api:8080/webhooks/livekit']\n",
    );
    assert_eq!(production.config.bind_addresses, [] as [IpAddr; 0]);
    assert_eq!(production.config.room.departure_timeout, 20);
    assert!(production.config.turn.enabled && production.config.turn.external_tls);
    assert!(!production.config.voice.enabled);
}
