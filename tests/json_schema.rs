//! The tables behind our JSON are LiveKit's own: they are written from the `.proto` files that come with the
//! `livekit-protocol` package, and this test fails when they have grown apart from it.
//!
//! After an update of that package: `UPDATE_JSON_SCHEMA=1 cargo test --test json_schema`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Messages that are written as JSON from here; what they hold follows.
const ROOTS: &[&str] = &[
    "AgentDispatch",
    "DeleteRoomResponse",
    "EgressInfo",
    "ForwardParticipantResponse",
    "IngressInfo",
    "ListAgentDispatchResponse",
    "ListEgressResponse",
    "ListIngressResponse",
    "ListParticipantsResponse",
    "ListRoomsResponse",
    "MoveParticipantResponse",
    "MuteRoomTrackResponse",
    "ParticipantInfo",
    "PerformRpcResponse",
    "RemoveParticipantResponse",
    "Room",
    "SendDataResponse",
    "TrackInfo",
    "UpdateSubscriptionsResponse",
    "WebhookEvent",
];

const FILES: &[&str] = &[
    "livekit_agent.proto",
    "livekit_agent_dispatch.proto",
    "livekit_egress.proto",
    "livekit_ingress.proto",
    "livekit_models.proto",
    "livekit_room.proto",
    "livekit_webhook.proto",
];

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/proto/json/schema.rs");

#[test]
fn the_tables_are_those_of_livekits_proto_files() {
    let directory = package("livekit-protocol").join("protocol/protobufs");
    let mut types = Types::default();
    for file in FILES {
        let text = std::fs::read_to_string(directory.join(file)).expect("a .proto file");
        Parser::new(&text).file(&mut types);
    }
    let written = write(&types);
    if std::env::var_os("UPDATE_JSON_SCHEMA").is_some() {
        std::fs::write(TABLE, &written).expect("a writable table");
    }
    let kept = std::fs::read_to_string(TABLE).unwrap_or_default();
    let difference = kept
        .lines()
        .zip(written.lines())
        .enumerate()
        .find(|(_, (kept, written))| kept != written);
    assert!(
        kept == written,
        "{TABLE} is not what the .proto files say; first difference (line, kept, expected): {difference:?}"
    );
}

#[test]
fn every_construct_of_the_language_is_read() {
    let mut types = Types::default();
    let text = r#"
        syntax = "proto3"; // comment; with { braces }
        option go_package = "{";
        service S { rpc A(B) returns (C) { option deprecated = true; }; }
        message Outer {
          /* a block; */
          enum Inner { option allow_alias = true; ZERO = 0; ONE = 1 [deprecated = true]; MINUS = -1; }
          message Nested { Inner inner = 1; }
          reserved 3, 5 to 7;
          optional Nested nested = 1 [(x) = "}", (y).z = { a: 1 }];
          repeated Inner inners = 2;
          map<string, Nested> by_name = 4;
          oneof choice { string text = 8; Outer again = 9; }
        }
    "#;
    Parser::new(text).file(&mut types);
    let outer: Vec<String> = types.messages["Outer"]
        .iter()
        .map(|field| format!("{} {:?} {} {}", field.number, field.shape, field.kind, field.name))
        .collect();
    assert_eq!(
        outer,
        [
            "1 Optional Nested nested",
            "2 Repeated Inner inners",
            "4 Map Nested by_name",
            "8 Optional string text",
            "9 Optional Outer again"
        ]
    );
    assert_eq!(types.messages["Outer.Nested"].len(), 1);
    assert_eq!(
        types.enums["Outer.Inner"],
        [(0, "ZERO".to_owned()), (1, "ONE".to_owned()), (-1, "MINUS".to_owned())]
    );
    assert_eq!(types.resolve("Outer.Nested", "Inner").as_deref(), Some("Outer.Inner"));
    assert_eq!(
        types.resolve("Outer", "livekit.Outer.Nested").as_deref(),
        Some("Outer.Nested")
    );
}

/// Where cargo keeps the sources of a package of ours.
fn package(name: &str) -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    // Packages of other platforms are not on this machine.
    let version = Command::new("rustc").arg("-vV").output().expect("rustc");
    let version = String::from_utf8(version.stdout).expect("text");
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("a host");
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--filter-platform",
            host,
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata");
    let text = String::from_utf8(output.stdout).expect("text");
    let path = text
        .split("\"manifest_path\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(Path::new)
        .find(|path| {
            let directory = path.parent().and_then(Path::file_name).unwrap_or_default();
            directory.to_string_lossy().starts_with(&format!("{name}-"))
        });
    path.and_then(Path::parent)
        .unwrap_or_else(|| {
            panic!(
                "{name} is among the packages: {}",
                String::from_utf8_lossy(&output.stderr)
            )
        })
        .to_owned()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Single,
    /// Explicit presence: `optional`, or a member of a `oneof`.
    Optional,
    Repeated,
    /// From strings.
    Map,
}

#[derive(Debug)]
struct Field {
    number: u32,
    name: String,
    kind: String,
    shape: Shape,
}

/// By name without the package, `Outer.Inner` for nested ones.
#[derive(Default)]
struct Types {
    messages: BTreeMap<String, Vec<Field>>,
    enums: BTreeMap<String, Vec<(i32, String)>>,
}

impl Types {
    fn resolve(&self, scope: &str, name: &str) -> Option<String> {
        let name = name.trim_start_matches('.');
        let name = name.strip_prefix("livekit.").unwrap_or(name);
        let mut scope = scope.to_owned();
        loop {
            let candidate = if scope.is_empty() {
                name.to_owned()
            } else {
                format!("{scope}.{name}")
            };
            if self.messages.contains_key(&candidate) || self.enums.contains_key(&candidate) {
                return Some(candidate);
            }
            if scope.is_empty() {
                return None;
            }
            scope = scope
                .rsplit_once('.')
                .map(|(outer, _)| outer.to_owned())
                .unwrap_or_default();
        }
    }
}

struct Parser {
    tokens: Vec<String>,
    at: usize,
}

impl Parser {
    fn new(text: &str) -> Self {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let length = if rest.starts_with("//") {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                rest.find("*/").map_or(rest.len(), |end| end + 2)
            } else if first.is_whitespace() {
                first.len_utf8()
            } else {
                let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '.' || c == '-';
                let length = match first {
                    '"' => rest[1..].find('"').expect("the end of a string") + 2,
                    c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                    c => c.len_utf8(),
                };
                tokens.push(rest[..length].to_owned());
                length
            };
            rest = &rest[length..];
        }
        Self { tokens, at: 0 }
    }

    fn peek(&self) -> &str {
        self.tokens.get(self.at).map_or("", String::as_str)
    }

    fn next(&mut self) -> String {
        self.at += 1;
        self.tokens[self.at - 1].clone()
    }

    fn expect(&mut self, token: &str) {
        assert_eq!(
            self.next(),
            token,
            "around {:?}",
            &self.tokens[self.at.saturating_sub(8)..self.at]
        );
    }

    /// To the end of a statement: its `;`, or its block.
    fn skip(&mut self) {
        let mut depth = 0;
        loop {
            match self.next().as_str() {
                "{" | "[" | "(" => depth += 1,
                "]" | ")" => depth -= 1,
                "}" => {
                    depth -= 1;
                    if depth == 0 {
                        return;
                    }
                }
                ";" if depth == 0 => return,
                _ => {}
            }
        }
    }

    fn file(&mut self, types: &mut Types) {
        while !self.peek().is_empty() {
            match self.next().as_str() {
                "message" => self.message("", types),
                "enum" => self.enumeration("", types),
                ";" => {}
                _ => self.skip(),
            }
        }
    }

    fn scoped(&mut self, scope: &str) -> String {
        let name = self.next();
        if scope.is_empty() {
            name
        } else {
            format!("{scope}.{name}")
        }
    }

    fn enumeration(&mut self, scope: &str, types: &mut Types) {
        let name = self.scoped(scope);
        let mut values = Vec::new();
        self.expect("{");
        while self.peek() != "}" {
            match self.next().as_str() {
                "option" | "reserved" => self.skip(),
                ";" => {}
                value => {
                    self.expect("=");
                    values.push((self.next().parse().expect("a number"), value.to_owned()));
                    self.skip();
                }
            }
        }
        self.expect("}");
        types.enums.insert(name, values);
    }

    fn message(&mut self, scope: &str, types: &mut Types) {
        let name = self.scoped(scope);
        let mut fields = Vec::new();
        self.expect("{");
        while self.peek() != "}" {
            match self.next().as_str() {
                "message" => self.message(&name, types),
                "enum" => self.enumeration(&name, types),
                "option" | "reserved" => self.skip(),
                ";" => {}
                "oneof" => {
                    self.next();
                    self.expect("{");
                    while self.peek() != "}" {
                        let first = self.next();
                        if first == "option" {
                            self.skip();
                        } else {
                            fields.push(self.field(Shape::Optional, first));
                        }
                    }
                    self.expect("}");
                }
                "optional" => {
                    let kind = self.next();
                    fields.push(self.field(Shape::Optional, kind));
                }
                "repeated" => {
                    let kind = self.next();
                    fields.push(self.field(Shape::Repeated, kind));
                }
                "map" => {
                    self.expect("<");
                    let key = self.next();
                    self.expect(",");
                    let kind = self.next();
                    // Unknown further on, should one that is written as JSON have it.
                    let kind = if key == "string" {
                        kind
                    } else {
                        format!("map from {key}")
                    };
                    self.expect(">");
                    fields.push(self.field(Shape::Map, kind));
                }
                kind => fields.push(self.field(Shape::Single, kind.to_owned())),
            }
        }
        self.expect("}");
        types.messages.insert(name, fields);
    }

    fn field(&mut self, shape: Shape, kind: String) -> Field {
        let name = self.next();
        self.expect("=");
        let number = self.next().parse().expect("a field number");
        self.skip();
        Field {
            number,
            name,
            kind,
            shape,
        }
    }
}

fn write(types: &Types) -> String {
    let mut reached = BTreeSet::new();
    let mut open: Vec<String> = ROOTS.iter().map(|&root| root.to_owned()).collect();
    while let Some(name) = open.pop() {
        if !reached.insert(name.clone()) {
            continue;
        }
        for field in types.messages.get(&name).into_iter().flatten() {
            if scalar(&field.kind).is_none() {
                let known = types.resolve(&name, &field.kind);
                open.push(known.unwrap_or_else(|| panic!("{name}.{}: unknown type {}", field.name, field.kind)));
            }
        }
    }
    let mut out = String::from(
        "//! Fields of LiveKit's messages that are written as JSON. Made by `tests/json_schema.rs`: not to be edited.\n\n\
         use super::render::{Enum, Kind::*, Message, many, map, maybe, one};\n",
    );
    for name in &reached {
        if let Some(values) = types.enums.get(name) {
            let values: Vec<String> = values
                .iter()
                .map(|(number, name)| format!("({number}, {name:?})"))
                .collect();
            write!(out, "\nstatic {}: Enum = Enum(&[\n", constant(name)).unwrap();
            values.iter().for_each(|value| writeln!(out, "    {value},").unwrap());
            out += "]);\n";
        }
    }
    for name in &reached {
        if let Some(fields) = types.messages.get(name) {
            write!(out, "\nstatic {}: Message = Message(&[\n", constant(name)).unwrap();
            for field in fields {
                let shape = match field.shape {
                    Shape::Single => "one",
                    Shape::Optional => "maybe",
                    Shape::Repeated => "many",
                    Shape::Map => "map",
                };
                let kind = scalar(&field.kind).map(str::to_owned).unwrap_or_else(|| {
                    let known = types.resolve(name, &field.kind).expect("resolved before");
                    let family = if types.enums.contains_key(&known) {
                        "Named"
                    } else {
                        "Nested"
                    };
                    format!("{family}(&{})", constant(&known))
                });
                writeln!(out, "    {shape}({}, {:?}, {kind}),", field.number, field.name).unwrap();
            }
            out += "]);\n";
        }
    }
    out += "\nsuper::render::described! {\n";
    ROOTS
        .iter()
        .for_each(|root| writeln!(out, "    {root} => {},", constant(root)).unwrap());
    out + "}\n"
}

fn scalar(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "bool" => "Bool",
        "int32" => "Int32",
        "int64" => "Int64",
        "uint32" => "Uint32",
        "double" => "Double",
        "string" => "Text",
        _ => return None,
    })
}

/// `SimulcastCodecInfo.Mode` → `SIMULCAST_CODEC_INFO_MODE`.
fn constant(name: &str) -> String {
    let mut constant = String::new();
    let mut before = '.';
    for c in name.chars() {
        if c == '.' {
            constant.push('_');
        } else {
            if c.is_uppercase() && (before.is_lowercase() || before.is_numeric()) {
                constant.push('_');
            }
            constant.extend(c.to_uppercase());
        }
        before = c;
    }
    constant
}
