//! The layer table of the house: each module may use those named beside it and no other.
//!
//! Walks `src/`, reads `crate::…` paths and fails with file and line.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// module, modules it may use (itself always). A `::` narrows the permission to one submodule.
const LAYERS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("tls", &[]),
    ("proto", &["types"]),
    ("rtp", &["types"]),
    ("sdp", &["types"]),
    ("rtc", &["types", "rtp"]),
    ("media", &["types", "proto::envelope", "rtp", "rtc"]),
    ("turn", &["types"]),
    ("control", &["types", "proto", "sdp", "media::edge"]),
    ("voice", &["types"]),
    ("io", &["types", "rtc", "media", "turn"]),
    ("store", &["types", "tls", "proto", "voice"]),
    (
        "node",
        &[
            "types",
            "tls",
            "proto",
            "control",
            "voice",
            "media::edge",
            "io",
            "store",
        ],
    ),
    ("signal", &["types", "proto", "node"]),
    ("api", &["types", "tls", "proto", "voice", "node", "store"]),
    (
        "load",
        &[
            "types",
            "tls",
            "proto",
            "rtp",
            "io::DatagramBatch",
            "io::IoCounters",
            "io::Offload",
            "io::SendBatch",
            "io::UdpSocket",
        ],
    ),
    (
        "app",
        &[
            "types", "tls", "proto", "rtp", "sdp", "rtc", "media", "turn", "control", "voice", "io", "store", "node",
            "signal", "api", "load",
        ],
    ),
];

/// Cores hold none of these (DESIGN §2 D3, D4): what to look for, and why it may not be there.
const BANNED_IN_CORES: &[(&str, &str)] = &[
    ("Instant::now(", "a clock read: `now` is an argument"),
    ("SystemTime::now(", "a clock read: wall time comes from `WallClock`"),
    ("std::thread", "a thread"),
    ("std::net::UdpSocket", "a socket"),
    ("std::net::TcpStream", "a socket"),
    ("Mutex<", "a lock: one owner instead"),
    ("RwLock<", "a lock: one owner instead"),
    ("tokio::", "an async runtime"),
    (".await", "an await"),
    ("rand::rng(", "OS randomness: a seed is an argument"),
    ("from_os_rng", "OS randomness: a seed is an argument"),
];

const CORES: &[&str] = &["types", "rtp", "sdp", "rtc", "media", "turn", "control", "voice"];

#[derive(Debug, PartialEq)]
struct Use {
    line: usize,
    /// Path segments after `crate::`, at most two.
    path: Vec<String>,
}

#[test]
fn modules_use_only_the_layers_below_them() {
    let mut faults = Vec::new();
    for file in sources() {
        let module = top_module(&file);
        if module == "lib" || module == "main" {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            faults.push(format!(
                "{}: module `{module}` is not in the layer table",
                file.display()
            ));
            continue;
        };
        let text = fs::read_to_string(&file).expect("a readable source file");
        for used in uses(production_part(&file, &text)) {
            if !is_allowed(&module, allowed, &used.path) {
                faults.push(format!(
                    "{}:{}: `{module}` may not use `crate::{}`",
                    file.display(),
                    used.line,
                    used.path.join("::")
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn cores_hold_no_clock_thread_socket_lock_or_os_randomness() {
    let mut faults = Vec::new();
    for file in sources() {
        if !CORES.contains(&top_module(&file).as_str()) {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a readable source file");
        for (number, line) in production_part(&file, &text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (pattern, why) in BANNED_IN_CORES {
                if code.contains(pattern) {
                    faults.push(format!("{}:{}: `{pattern}` is {why}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_check_sees_paths_in_every_form() {
    let seen = uses(
        "use crate::rtp::RtpPacket;\nlet a = crate::media::edge::Event;\nuse crate::{\n    types::Mid,\n    sdp,\n    proto::{json::a, claims},\n};\n",
    );
    let paths: Vec<String> = seen
        .iter()
        .map(|used| format!("{}@{}", used.path.join("::"), used.line))
        .collect();
    assert_eq!(
        paths,
        [
            "rtp::RtpPacket@1",
            "media::edge@2",
            "types::Mid@4",
            "sdp@5",
            "proto::json@6",
            "proto::claims@6"
        ]
    );
    assert!(!is_allowed(
        "media",
        &["proto::envelope"],
        &["proto".into(), "claims".into()]
    ));
    assert!(is_allowed(
        "media",
        &["proto::envelope"],
        &["proto".into(), "envelope".into()]
    ));
    assert!(is_allowed("media", &[], &["media".into(), "ring".into()]));
}

fn is_allowed(module: &str, allowed: &[&str], path: &[String]) -> bool {
    let Some(first) = path.first() else { return true };
    first == module
        || allowed.iter().any(|entry| match entry.split_once("::") {
            Some((top, sub)) => top == first && path.get(1).is_some_and(|second| second == sub),
            None => entry == first,
        })
}

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).expect("a readable directory") {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn top_module(file: &Path) -> String {
    let relative = file
        .strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .expect("a file under src");
    let first = relative.iter().next().expect("a path segment").to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// Tests beside the code may reach further (a peer, a clock): everything from the first `#[cfg(test)] mod` on, and
/// files that hold nothing but tests.
fn production_part<'a>(file: &Path, text: &'a str) -> &'a str {
    let is_test_file = file.iter().any(|segment| segment == "tests" || segment == "tests.rs");
    if is_test_file {
        return "";
    }
    match text.find("#[cfg(test)]\nmod ") {
        Some(end) if !text[end..].lines().nth(1).is_some_and(|line| line.ends_with(';')) => &text[..end],
        _ => text,
    }
}

/// Every `crate::…` path, those inside `use crate::{…}` included.
fn uses(text: &str) -> Vec<Use> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut offset = 0;
    while let Some(at) = rest.find("crate::") {
        let start = offset + at + "crate::".len();
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let in_comment = text[line_start..start].contains("//");
        if !in_comment {
            read_path(text, start, &mut Vec::new(), &mut found);
        }
        offset = start;
        rest = &text[start..];
    }
    found
}

/// Reads one use-tree at `at`; returns the index behind it. Two segments are enough for the table.
fn read_path(text: &str, mut at: usize, prefix: &mut Vec<String>, found: &mut Vec<Use>) -> usize {
    let depth = prefix.len();
    loop {
        let rest = &text[at..];
        if rest.starts_with('{') {
            at += 1;
            loop {
                at += text[at..].find(|c: char| !c.is_whitespace() && c != ',').unwrap_or(0);
                if text[at..].starts_with('}') || at >= text.len() {
                    at += 1;
                    break;
                }
                let behind = read_path(text, at, prefix, found);
                if behind == at {
                    return at;
                }
                at = behind;
            }
            prefix.truncate(depth);
            return at;
        }
        let length = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*'))
            .unwrap_or(rest.len());
        prefix.push(rest[..length].to_owned());
        let line = text[..at].matches('\n').count() + 1;
        at += length;
        if text[at..].starts_with("::") && prefix.len() < 2 {
            at += 2;
            continue;
        }
        found.push(Use {
            line,
            path: prefix.clone(),
        });
        prefix.truncate(depth);
        // Skip what is left of this item: deeper segments, a nested group, `as name`.
        let mut open = 0;
        for (index, c) in text[at..].char_indices() {
            match c {
                '{' => open += 1,
                '}' | ',' | ';' | ')' | '(' | '<' | '>' | ' ' | '\n' if open == 0 => return at + index,
                '}' => open -= 1,
                _ => {}
            }
        }
        return text.len();
    }
}
