//! The command line: LiveKit's flags and environment names, a flag for every scalar key of the configuration, and the
//! commands that are not serving.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};

use super::config::Config;
use super::document;
use super::load::{self, LoadError, Loaded, Sources};
use super::schema::{self, Kind, Leaf, Status};
use crate::proto::claims::{self, Claims, VideoGrant};

/// What the arguments ask for.
pub enum Action {
    Serve(Box<Loaded>),
    /// Look for what would not work.
    Examine(Box<Loaded>),
    /// Measure a server.
    #[cfg(feature = "load-test")]
    Load(Box<crate::load::Options>),
    /// Done already; the text belongs on standard output.
    Print(String),
}

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Help and version too; clap knows the stream and the exit code.
    #[error("{0}")]
    Arguments(#[from] clap::Error),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{0}")]
    Other(String),
}

/// A scalar key as a flag: `--rtc.tcp_port`, `LIVEKIT_RTC_TCP_PORT`.
struct KeyFlag {
    leaf: Leaf,
    environment: String,
}

/// clap keeps names for as long as the process lives.
static KEY_FLAGS: LazyLock<Vec<KeyFlag>> = LazyLock::new(|| {
    schema::leaves()
        .into_iter()
        .filter(|leaf| leaf.kind.is_scalar() && !BASE_NAMES.contains(&leaf.path.as_str()))
        .map(|leaf| KeyFlag {
            environment: format!("LIVEKIT_{}", leaf.path.to_uppercase().replace('.', "_")),
            leaf,
        })
        .collect()
});

/// Keys whose flag is one of LiveKit's own under the same name.
const BASE_NAMES: &[&str] = &["region", "keys"];

/// LiveKit's own flags that set one key: flag, environment, key, help.
const BASE_FLAGS: &[(&str, Option<&str>, &str, &str)] = &[
    (
        "key-file",
        None,
        "key_file",
        "Path to a file that holds API keys and secrets",
    ),
    ("region", Some("LIVEKIT_REGION"), "region", "Region of this node"),
    (
        "node-ip",
        Some("NODE_IP"),
        "rtc.node_ip",
        "IP address to advertise to clients; found out by default",
    ),
    (
        "udp-port",
        Some("UDP_PORT"),
        "rtc.udp_port",
        "UDP port or ports for media: 7882 or 7882-7889",
    ),
    (
        "redis-host",
        Some("REDIS_HOST"),
        "redis.address",
        "host:port of a Redis server",
    ),
    (
        "redis-password",
        Some("REDIS_PASSWORD"),
        "redis.password",
        "Password for Redis",
    ),
    (
        "turn-cert",
        Some("LIVEKIT_TURN_CERT"),
        "turn.cert_file",
        "TLS certificate file of the TURN server",
    ),
    (
        "turn-key",
        Some("LIVEKIT_TURN_KEY"),
        "turn.key_file",
        "TLS key file of the TURN server",
    ),
];

/// Reads the arguments (the first is the program's name) and does what they ask, short of serving.
pub fn run(arguments: impl IntoIterator<Item = String>) -> Result<Action, CliError> {
    let matches = command(true).try_get_matches_from(arguments)?;
    match matches.subcommand() {
        None | Some(("serve", _)) => {
            let matches = matches.subcommand_matches("serve").unwrap_or(&matches);
            let mut loaded = load_from(matches)?;
            load::check_keys(&mut loaded)?;
            Ok(Action::Serve(Box::new(loaded)))
        }
        Some(("token", token)) => match token.subcommand() {
            Some(("create", matches)) => create_token(matches).map(Action::Print),
            _ => Err(CliError::Other("token: say `create`".to_owned())),
        },
        Some(("create-join-token", matches)) => {
            create_join_token(matches).map(|token| Action::Print(format!("Token: {token}")))
        }
        Some(("generate-keys", _)) => generate_keys().map(Action::Print),
        Some(("ports", matches)) => Ok(Action::Print(ports(&load_from(matches)?.config))),
        Some(("doctor", matches)) => Ok(Action::Examine(Box::new(load_from(matches)?))),
        #[cfg(feature = "load-test")]
        Some(("load-test", matches)) => {
            let options = <crate::load::Options as clap::FromArgMatches>::from_arg_matches(matches)?;
            Ok(Action::Load(Box::new(options)))
        }
        Some(("help-verbose", _)) => Ok(Action::Print(command(false).render_long_help().to_string())),
        Some((name, _)) => Err(CliError::Other(format!("unknown command {name}"))),
    }
}

/// `hidden` = the generated flags are not listed, as there are some two hundred.
fn command(hidden: bool) -> Command {
    let room = || Arg::new("room").long("room").help("Room the token is for");
    let identity = || {
        Arg::new("identity")
            .long("identity")
            .required(true)
            .help("Identity of its holder")
    };
    let grant =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let create = Command::new("create")
        .about("Sign an access token with the first API key")
        .arg(room())
        .arg(identity())
        .arg(Arg::new("name").long("name").help("Display name"))
        .arg(
            Arg::new("metadata")
                .long("metadata")
                .help("Metadata of the participant"),
        )
        .arg(
            Arg::new("attribute")
                .long("attribute")
                .action(ArgAction::Append)
                .help("Attribute as name=value; repeatable"),
        )
        .arg(
            Arg::new("kind")
                .long("kind")
                .help("standard, agent, egress, ingress or sip"),
        )
        .arg(
            Arg::new("valid-for")
                .long("valid-for")
                .default_value("6h")
                .help("How long it is good: 10m, 6h"),
        )
        .arg(
            Arg::new("publish-source")
                .long("publish-source")
                .action(ArgAction::Append)
                .help("Restrict publishing to camera, microphone, screen_share or screen_share_audio; repeatable"),
        )
        .arg(grant("no-join", "Not for joining: only for the API"))
        .arg(grant("no-publish", "May not publish tracks"))
        .arg(grant("no-subscribe", "May not receive tracks"))
        .arg(grant("no-publish-data", "May not send data"))
        .arg(grant(
            "can-update-metadata",
            "May change its own name, metadata and attributes",
        ))
        .arg(grant("hidden", "Not shown to others"))
        .arg(grant("recorder", "A recorder"))
        .arg(grant("agent", "An agent"))
        .arg(grant("room-admin", "May administer the room"))
        .arg(grant("room-create", "May create and delete rooms"))
        .arg(grant("room-list", "May list rooms"))
        .arg(grant("room-record", "May record rooms"))
        .arg(grant("ingress-admin", "May administer ingress"));
    let command = Command::new("patchbay")
        .about("WebRTC media server; without a command it serves")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .args(configuration_flags(hidden))
        .subcommand(Command::new("serve").about("Serve (also without a command)"))
        .subcommand(
            Command::new("token")
                .about("Access tokens")
                .subcommand_required(true)
                .subcommand(create),
        )
        .subcommand(
            Command::new("create-join-token")
                .hide(true)
                .about("Token to join a room, for development")
                .arg(room().required(true))
                .arg(identity())
                .arg(grant("recorder", "A hidden participant that only receives")),
        )
        .subcommand(Command::new("generate-keys").about("Make a new API key and secret"))
        .subcommand(Command::new("ports").about("Print the ports the server is configured to use"))
        .subcommand(
            Command::new("doctor")
                .about("Look for what would keep clients from connecting: ports, addresses, clock, STUN, TURN and TLS"),
        )
        .subcommand(Command::new("help-verbose").about("Print help with all configuration flags"));
    #[cfg(feature = "load-test")]
    let command = command.subcommand(<crate::load::Options as clap::Args>::augment_args(
        Command::new("load-test")
            .about("Measure a server with clients by the hundred: this one or any that speaks LiveKit's protocol"),
    ));
    command
}

fn configuration_flags(hidden: bool) -> Vec<Arg> {
    let text = |name: &'static str, help: &'static str| Arg::new(name).long(name).global(true).help(help);
    let mut flags = vec![
        text("bind", "IP address to listen on; repeatable").action(ArgAction::Append),
        text("config", "Path to the configuration file"),
        text("config-body", "The configuration itself, in YAML")
            .env("LIVEKIT_CONFIG")
            .hide_env_values(true),
        text("keys", "API keys (key: secret\\n)")
            .env("LIVEKIT_KEYS")
            .hide_env_values(true),
        text(
            "dev",
            "Development: placeholder keys, debug logging, loopback only. Not for production",
        )
        .action(ArgAction::SetTrue),
        text("disable-strict-config", "Pass over unknown keys")
            .action(ArgAction::SetTrue)
            .hide(true),
        text("cpuprofile", "Accepted for compatibility").hide(true),
        text("memprofile", "Accepted for compatibility").hide(true),
    ];
    for (name, environment, _, help) in BASE_FLAGS {
        let flag = text(name, help).hide_env_values(true);
        flags.push(match environment {
            Some(environment) => flag.env(environment),
            None => flag,
        });
    }
    for KeyFlag { leaf, environment } in KEY_FLAGS.iter() {
        let name = leaf.path.as_str();
        let kind = leaf.kind;
        let mut flag = Arg::new(name)
            .long(name)
            .env(environment.as_str())
            .hide_env_values(true)
            .global(true)
            .hide(hidden)
            .help("generated")
            .allow_hyphen_values(true)
            .value_parser(move |text: &str| document::scalar(kind, text));
        if matches!(kind, Kind::Bool) {
            flag = flag.num_args(0..=1).require_equals(true).default_missing_value("true");
        }
        flags.push(flag);
    }
    flags
}

fn load_from(matches: &ArgMatches) -> Result<Loaded, CliError> {
    let text = |name: &str| matches.get_one::<String>(name);
    let mut sources = Sources {
        document: match (text("config-body").filter(|body| !body.is_empty()), text("config")) {
            (Some(body), _) => body.clone(),
            (None, Some(path)) => {
                std::fs::read_to_string(path).map_err(|error| CliError::Other(format!("{path}: {error}")))?
            }
            (None, None) => String::new(),
        },
        lenient: matches.get_flag("disable-strict-config"),
        overrides: Vec::new(),
        keys: text("keys").cloned(),
    };
    for flag in KEY_FLAGS.iter() {
        if let Some(value) = matches.get_one::<Value>(&flag.leaf.path) {
            sources.overrides.push((flag.leaf.path.clone(), value.clone()));
        }
    }
    for (name, _, key, _) in BASE_FLAGS {
        if let Some(text) = text(name) {
            let kind = schema::leaves()
                .into_iter()
                .find(|leaf| leaf.path == *key)
                .map_or(Kind::Text, |leaf| leaf.kind);
            let value = document::scalar(kind, text).map_err(|error| CliError::Other(format!("--{name}: {error}")))?;
            sources.overrides.push(((*key).to_owned(), value));
        }
    }
    if let Some(addresses) = matches.get_many::<String>("bind") {
        sources
            .overrides
            .push(("bind_addresses".to_owned(), json!(addresses.collect::<Vec<_>>())));
    }
    if matches.get_flag("dev") {
        sources.overrides.push(("development".to_owned(), json!(true)));
    }
    let mut loaded = load::load(&sources)?;
    if text("config-body").is_none_or(String::is_empty) {
        loaded.files.extend(text("config").map(Into::into));
    }
    Ok(loaded)
}

fn create_token(matches: &ArgMatches) -> Result<String, CliError> {
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let list = |name: &str| matches.get_many::<String>(name).into_iter().flatten().cloned();
    let flag = |name: &str| matches.get_flag(name);
    let mut attributes = BTreeMap::new();
    for attribute in list("attribute") {
        let (name, value) = attribute
            .split_once('=')
            .ok_or_else(|| CliError::Other(format!("--attribute {attribute}: should be name=value")))?;
        attributes.insert(name.to_owned(), value.to_owned());
    }
    let denied = |name: &str| flag(name).then_some(false);
    let claims = Claims {
        identity: text("identity"),
        name: text("name"),
        metadata: text("metadata"),
        kind: text("kind"),
        attributes,
        video: Some(VideoGrant {
            room_join: !flag("no-join"),
            room: text("room"),
            can_publish: denied("no-publish"),
            can_subscribe: denied("no-subscribe"),
            can_publish_data: denied("no-publish-data"),
            can_publish_sources: list("publish-source").collect(),
            can_update_own_metadata: flag("can-update-metadata").then_some(true),
            hidden: flag("hidden"),
            recorder: flag("recorder"),
            agent: flag("agent"),
            room_admin: flag("room-admin"),
            room_create: flag("room-create"),
            room_list: flag("room-list"),
            room_record: flag("room-record"),
            ingress_admin: flag("ingress-admin"),
            ..VideoGrant::default()
        }),
        ..Claims::default()
    };
    let ttl = document::scalar(Kind::Duration, &text("valid-for")).map_err(CliError::Other)?;
    sign(matches, &claims, Duration::from_nanos(ttl.as_u64().unwrap_or(0)))
}

/// As LiveKit's command of this name: good for thirty days.
fn create_join_token(matches: &ArgMatches) -> Result<String, CliError> {
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let recorder = matches.get_flag("recorder");
    let claims = Claims {
        identity: text("identity"),
        video: Some(VideoGrant {
            room_join: true,
            room: text("room"),
            hidden: recorder,
            recorder,
            can_publish: recorder.then_some(false),
            can_publish_data: recorder.then_some(false),
            ..VideoGrant::default()
        }),
        ..Claims::default()
    };
    sign(matches, &claims, Duration::from_secs(30 * 24 * 3600))
}

fn sign(matches: &ArgMatches, claims: &Claims, ttl: Duration) -> Result<String, CliError> {
    let config = load_from(matches)?.config;
    let (key, secret) = config.keys.first().ok_or(LoadError::NoKeys)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|_| CliError::Other("the clock stands before 1970".to_owned()))?;
    Ok(claims::sign(claims, key, secret, now, ttl))
}

/// Key as LiveKit's (`API` + 12 characters); the secret has more than 256 bits.
fn generate_keys() -> Result<String, CliError> {
    const UNAMBIGUOUS: &[u8] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    const ALPHANUMERIC: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let key = random_text(UNAMBIGUOUS, 12)?;
    let secret = random_text(ALPHANUMERIC, 44)?;
    Ok(format!("API Key:  API{key}\nAPI Secret:  {secret}"))
}

fn random_text(alphabet: &[u8], len: usize) -> Result<String, CliError> {
    let mut out = String::new();
    while out.len() < len {
        let mut byte = [0_u8];
        aws_lc_rs::rand::fill(&mut byte).map_err(|_| CliError::Other("no randomness".to_owned()))?;
        // Equal chances: bytes beyond the last whole multiple are drawn again.
        let usable = 256 / alphabet.len() * alphabet.len();
        let byte = usize::from(byte[0]);
        if let Some(character) = alphabet.get(byte % alphabet.len()).filter(|_| byte < usable) {
            out.push(char::from(*character));
        }
    }
    Ok(out)
}

fn ports(config: &Config) -> String {
    if config.rtc.single_port != 0 {
        let port = config.rtc.single_port;
        return format!("TCP Ports\n{port} - everything\nUDP Ports\n{port} - everything");
    }
    let mut out = format!("TCP Ports\n{} - HTTP service\n", config.port);
    // A port that is only accepted in the file is not one to open in a firewall.
    let serves_tcp = schema::leaves()
        .iter()
        .any(|leaf| leaf.path == "rtc.tcp_port" && leaf.status == Status::Used);
    if serves_tcp && config.rtc.tcp_port != 0 {
        out += &format!("{} - ICE/TCP\n", config.rtc.tcp_port);
    }
    if config.turn.enabled && config.turn.tls_port != 0 {
        out += &format!("{} - TURN/TLS\n", config.turn.tls_port);
    }
    out += "UDP Ports\n";
    out += &match config.rtc.udp_port {
        Some(range) if range.start == range.end => format!("{} - ICE/UDP\n", range.start),
        Some(range) => format!("{}-{} - ICE/UDP\n", range.start, range.end),
        None => format!(
            "{}-{} - ICE/UDP range\n",
            config.rtc.port_range_start, config.rtc.port_range_end
        ),
    };
    if config.turn.enabled && config.turn.udp_port != 0 {
        out += &format!("{} - TURN/UDP\n", config.turn.udp_port);
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests;
