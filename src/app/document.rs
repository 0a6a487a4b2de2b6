//! Reads a YAML document by the schema: unknown keys and wrong values are found with their line, and what is left is a
//! plain JSON value that `config::Config` deserializes from.
//!
//! Scalars are read as their text and interpreted by the key's kind, so that a secret of digits keeps its zeros and a
//! duration may be written as LiveKit writes it.

use std::cell::RefCell;
use std::fmt;
use std::net::IpAddr;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use super::schema::{Key, Kind, SCHEMA, Status};

/// What a document says, and what is to be said about it.
#[derive(Debug, Default, PartialEq)]
pub struct Document {
    pub value: Value,
    /// Keys that neither LiveKit nor Patchbay knows, and values that are not of their key's kind.
    pub faults: Vec<Fault>,
    /// Keys of LiveKit that change nothing here.
    pub inert: Vec<Fault>,
}

/// A place in the document and what is wrong with it, or just its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// 1 is the first line.
    pub line: u64,
    /// Dotted.
    pub key: String,
    pub text: String,
    /// The key is not in the schema.
    pub unknown: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.key, self.text)
    }
}

/// Reads the document; an error is about YAML itself. An empty document is an empty configuration.
pub fn read(text: &str) -> Result<Document, String> {
    let report = RefCell::default();
    let seed = Seed {
        kind: &Kind::Section(SCHEMA),
        path: String::new(),
        line: 1,
        status: Status::Used,
        report: &report,
    };
    let value = if text
        .lines()
        .all(|line| line.trim_start().starts_with('#') || line.trim().is_empty())
    {
        None
    } else {
        serde_saphyr::with_deserializer_from_str(text, |deserializer| seed.deserialize(deserializer))
            .map_err(|error| error.to_string())?
    };
    let Report { faults, inert } = report.into_inner();
    Ok(Document {
        value: value.unwrap_or_else(|| json!({})),
        faults,
        inert,
    })
}

/// Interprets the text of a scalar by its kind; the value has the form `config::Config` deserializes.
pub fn scalar(kind: Kind, text: &str) -> Result<Value, String> {
    if matches!(kind, Kind::Text) {
        return Ok(Value::String(text.to_owned())); // spaces in a secret count
    }
    let text = text.trim();
    match kind {
        Kind::Bool => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" | "1" => Ok(Value::Bool(true)),
            "false" | "no" | "off" | "n" | "0" => Ok(Value::Bool(false)),
            _ => Err(format!("`{text}` is not a boolean")),
        },
        Kind::Int => integer(text)
            .map(|number| json!(number))
            .ok_or(format!("`{text}` is not an integer")),
        Kind::Float => text
            .parse::<f64>()
            .map(|number| json!(number))
            .map_err(|_| format!("`{text}` is not a number")),
        Kind::Duration => duration(text).map(|nanoseconds| json!(nanoseconds)),
        Kind::PortRange => port_range(text),
        Kind::NodeIp => node_ip(text),
        Kind::Text | Kind::Section(_) | Kind::List(_) | Kind::Map(_) | Kind::Free => {
            Err("is not a single value".to_owned())
        }
    }
}

fn integer(text: &str) -> Option<i64> {
    let text = text.replace('_', "");
    match text.get(..2) {
        Some("0x") => i64::from_str_radix(text.get(2..)?, 16).ok(),
        Some("0o") => i64::from_str_radix(text.get(2..)?, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// Go's `time.ParseDuration`, in nanoseconds; not negative.
fn duration(text: &str) -> Result<u64, String> {
    let fault = || format!("`{text}` is not a duration (like 500ms, 1m30s)");
    if let Ok(nanoseconds) = text.parse::<u64>() {
        return Ok(nanoseconds);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fault)?;
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| fault())?;
        let unit = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        total += number
            * match unit {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return Err(fault()),
            };
        rest = tail;
    }
    if text.is_empty() {
        Err(fault())
    } else {
        Ok(total as u64)
    }
}

fn port_range(text: &str) -> Result<Value, String> {
    let port = |part: &str, name: &str| {
        part.trim()
            .parse::<u16>()
            .map_err(|error| format!("invalid {name} {part}: {error}"))
    };
    if text.is_empty() || text == "0" {
        return Ok(Value::Null);
    }
    let Some((start, end)) = text.split_once('-') else {
        let port = port(text, "port")?;
        return Ok(json!({"start": port, "end": port}));
    };
    if end.contains('-') {
        return Err(format!("invalid port range {text}, should be <start>-<end>"));
    }
    let (start, end) = (port(start, "start port")?, port(end, "end port")?);
    if end <= start {
        return Err(format!("end port {end} must be greater than start port {start}"));
    }
    Ok(json!({"start": start, "end": end}))
}

fn node_ip(text: &str) -> Result<Value, String> {
    let (mut v4, mut v6) = (None::<IpAddr>, None::<IpAddr>);
    if text.is_empty() {
        return Ok(json!({}));
    }
    if text.split(',').count() > 2 {
        return Err(format!("invalid node ip {text}, should be <ipv4>,<ipv6>"));
    }
    for part in text.split(',') {
        let ip: IpAddr = part.trim().parse().map_err(|_| format!("invalid ip {part}"))?;
        let (slot, name) = if ip.is_ipv4() {
            (&mut v4, "ipv4")
        } else {
            (&mut v6, "ipv6")
        };
        if let Some(other) = slot.replace(ip) {
            return Err(format!("multiple {name} addresses provided: {other} and {ip}"));
        }
    }
    Ok(json!({"v4": v4, "v6": v6}))
}

#[derive(Debug, Default)]
struct Report {
    faults: Vec<Fault>,
    inert: Vec<Fault>,
}

/// Reads one value of a known kind; None for `null` or a fault.
struct Seed<'a> {
    kind: &'a Kind,
    path: String,
    line: u64,
    status: Status,
    report: &'a RefCell<Report>,
}

impl Seed<'_> {
    fn fault(&self, key: String, line: u64, text: String, unknown: bool) {
        self.report.borrow_mut().faults.push(Fault {
            line,
            key,
            text,
            unknown,
        });
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// Told once per key that is set, at its deepest name.
    fn note_inert(&self) {
        if self.status == Status::Inert {
            let text = "accepted for compatibility, has no effect".to_owned();
            self.report.borrow_mut().inert.push(Fault {
                line: self.line,
                key: self.path.clone(),
                text,
                unknown: false,
            });
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Section(_) | Kind::Map(_) => "a mapping",
            Kind::List(_) => "a list",
            _ => "a single value",
        };
        write!(f, "{kind} for `{}`", self.path)
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self.kind {
            Kind::Section(_) => deserializer.deserialize_map(self),
            Kind::Map(_) => {
                self.note_inert();
                deserializer.deserialize_map(self)
            }
            Kind::List(_) => {
                self.note_inert();
                deserializer.deserialize_seq(self)
            }
            Kind::Free => de::Deserialize::deserialize(deserializer).map(Some),
            kind => {
                self.note_inert();
                let text: String = de::Deserialize::deserialize(deserializer)?;
                match scalar(*kind, &text) {
                    Ok(value) => Ok(Some(value)),
                    Err(text) => {
                        self.fault(self.path.clone(), self.line, text, false);
                        Ok(None)
                    }
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<serde_saphyr::Spanned<String>>()? {
            let (name, line) = (key.value, key.referenced.line());
            let path = self.path_of(&name);
            let known = match self.kind {
                Kind::Map(kind) => Some((*kind, Status::Used)),
                Kind::Section(keys) => keys
                    .iter()
                    .find(|key| key.name == name)
                    .map(|Key { kind, status, .. }| (kind, *status)),
                _ => None,
            };
            let Some((kind, status)) = known else {
                map.next_value::<IgnoredAny>()?;
                self.fault(path, line, "unknown key".to_owned(), true);
                continue;
            };
            // Everything inside an inert list or map was reported with it.
            let status = if self.status == Status::Used {
                status
            } else {
                self.status
            };
            let status = if matches!(self.kind, Kind::Map(_)) {
                Status::Used
            } else {
                status
            };
            if let Some(value) = map.next_value_seed(Seed {
                kind,
                path,
                line,
                status,
                report: self.report,
            })? {
                fields.insert(name, value);
            }
        }
        Ok(Some(Value::Object(fields)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let Kind::List(kind) = self.kind else { return Ok(None) };
        let mut items = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, items.len());
            let seed = Seed {
                kind,
                path,
                line: self.line,
                status: Status::Used,
                report: self.report,
            };
            match sequence.next_element_seed(seed)? {
                Some(item) => items.extend(item),
                None => return Ok(Some(Value::Array(items))),
            }
        }
    }
}
