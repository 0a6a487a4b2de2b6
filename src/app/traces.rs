//! Spans of the server for an OpenTelemetry collector: OTLP over HTTP in its JSON form.
//!
//! Where `OTEL_EXPORTER_OTLP_ENDPOINT` names one, [`layer`] is put beside the log. Owns a thread that sends what has ended; a
//! collector that is slow or away costs spans, never the server's time. Plain HTTP only: collectors stand beside what
//! they collect from.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use axum::http::Uri;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The OpenTelemetry specification's own names.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

/// Spans of this target are traces; others are none of a collector's business.
const TARGET: &str = "patchbay::trace";

/// Spans that have ended and wait for the thread: two busy seconds. Further ones are dropped, and counted in the next warning.
const QUEUE: usize = 4096;
/// Spans of one request.
const BATCH: usize = 512;
/// How long a span waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// For each step of an exchange with the collector.
const LIMIT: Duration = Duration::from_secs(5);
/// What cannot be sent is said at most this often.
const QUIET: Duration = Duration::from_secs(60);

/// None where nobody asked for it.
pub fn layer<S>() -> Option<impl Layer<S>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let endpoint = std::env::var(ENDPOINT).ok().filter(|endpoint| !endpoint.is_empty())?;
    let service = std::env::var(SERVICE_NAME).unwrap_or_else(|_| "patchbay".to_owned());
    match Collector::parse(&endpoint, service) {
        Some(collector) => Some(exporting(collector)),
        None => {
            eprintln!("{ENDPOINT}: {endpoint:?} is no http:// address; nothing is traced");
            None
        }
    }
}

fn exporting<S>(collector: Collector) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let (ended, waiting) = sync_channel(QUEUE);
    let sending = std::thread::Builder::new().name("traces".to_owned());
    // Without the thread spans are dropped as with a full queue.
    let _ = sending.spawn(move || collector.send_all(&waiting));
    let is_span = filter_fn(|metadata: &Metadata<'_>| metadata.is_span());
    let is_trace = filter_fn(|metadata: &Metadata<'_>| metadata.target() == TARGET);
    Traces { ended }.with_filter(is_span.and(is_trace))
}

struct Traces {
    ended: SyncSender<Span>,
}

/// One that has begun.
#[derive(Clone, Debug)]
struct Span {
    trace: u128,
    id: u64,
    /// 0 = it is the first of its trace.
    parent: u64,
    name: &'static str,
    began: SystemTime,
    ended: SystemTime,
    fields: BTreeMap<&'static str, Value>,
}

impl<S> Layer<S> for Traces
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(new) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let parent = new
            .parent()
            .and_then(|parent| parent.extensions().get::<Span>().cloned());
        // W3C: a caller's own span, where it names one.
        let caller = fields
            .0
            .remove("traceparent")
            .and_then(|text| traceparent(text.as_str()?));
        let (trace, parent) = match (parent, caller) {
            (Some(parent), _) => (parent.trace, parent.id),
            (None, Some(caller)) => caller,
            (None, None) => (rand::random::<u128>().max(1), 0),
        };
        let now = SystemTime::now();
        new.extensions_mut().insert(Span {
            trace,
            id: rand::random::<u64>().max(1),
            parent,
            name: attributes.metadata().name(),
            began: now,
            ended: now,
            fields: fields.0,
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(known) = context.span(id) else { return };
        let mut fields = Fields::default();
        values.record(&mut fields);
        if let Some(span) = known.extensions_mut().get_mut::<Span>() {
            span.fields.append(&mut fields.0);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(known) = context.span(&id) else { return };
        if let Some(mut span) = known.extensions_mut().remove::<Span>() {
            span.ended = SystemTime::now();
            let _ = self.ended.try_send(span);
        }
    }
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name(), value.into());
    }
}

/// `00-<trace>-<span>-<flags>`: the trace and the caller's span. None = not one, or zeros.
fn traceparent(text: &str) -> Option<(u128, u64)> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if (version.len(), trace.len(), span.len(), flags.len()) != (2, 32, 16, 2) || version == "ff" {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
    Some((trace, span))
}

/// Whom spans are sent to, and as whose.
#[derive(Clone, Debug)]
struct Collector {
    authority: String,
    /// Host and port to connect to.
    address: String,
    path: String,
    service: String,
}

impl Collector {
    /// The specification: `/v1/traces` is added to whatever path there is.
    fn parse(endpoint: &str, service: String) -> Option<Self> {
        let uri: Uri = endpoint.parse().ok()?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"))?;
        let port = uri.port_u16().unwrap_or(80);
        Some(Self {
            authority: authority.to_string(),
            address: format!("{}:{port}", authority.host()),
            path: format!("{}/v1/traces", uri.path().trim_end_matches('/')),
            service,
        })
    }

    /// Until the last sender is gone.
    fn send_all(&self, waiting: &Receiver<Span>) {
        let mut said: Option<Instant> = None;
        let mut lost = 0;
        while let Ok(first) = waiting.recv() {
            let mut batch = vec![first];
            let until = Instant::now() + LINGER;
            while batch.len() < BATCH {
                match waiting.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(span) => batch.push(span),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            let Err(error) = self.post(&self.render(&batch)) else {
                continue;
            };
            lost += batch.len();
            if said.is_none_or(|said| said.elapsed() >= QUIET) {
                said = Some(Instant::now());
                tracing::warn!(%error, spans = lost, "the collector of traces does not take them");
                lost = 0;
            }
        }
    }

    fn render(&self, spans: &[Span]) -> String {
        let spans: Vec<Value> = spans.iter().map(Span::render).collect();
        let resource = json!({ "attributes": [attribute("service.name", &self.service.as_str().into())] });
        let scope = json!({ "name": "patchbay", "version": env!("CARGO_PKG_VERSION") });
        json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "scope": scope, "spans": spans }] }] })
            .to_string()
    }

    fn post(&self, body: &str) -> io::Result<()> {
        let address = std::net::ToSocketAddrs::to_socket_addrs(self.address.as_str())?.next();
        let address = address.ok_or_else(|| io::Error::other("the host has no address"))?;
        let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.path,
            self.authority,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut status = String::new();
        BufReader::new(stream.take(1024)).read_line(&mut status)?;
        match status.split(' ').nth(1) {
            Some(code) if code.starts_with('2') => Ok(()),
            _ => Err(io::Error::other(format!("it answers {:?}", status.trim()))),
        }
    }
}

impl Span {
    /// OTLP's JSON: ids in hexadecimal, 64-bit integers as strings.
    fn render(&self) -> Value {
        let nanos = |at: SystemTime| {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            since.as_nanos().to_string()
        };
        // `error` says why it failed.
        let status = match self.fields.get("error") {
            Some(error) => json!({ "code": 2, "message": error }),
            None => json!({}),
        };
        let attributes: Vec<Value> = self.fields.iter().map(|(name, value)| attribute(name, value)).collect();
        let mut span = json!({
            "traceId": format!("{:032x}", self.trace),
            "spanId": format!("{:016x}", self.id),
            "name": self.name,
            // SPAN_KIND_SERVER
            "kind": 2,
            "startTimeUnixNano": nanos(self.began),
            "endTimeUnixNano": nanos(self.ended),
            "attributes": attributes,
            "status": status,
        });
        if self.parent != 0 {
            span["parentSpanId"] = format!("{:016x}", self.parent).into();
        }
        span
    }
}

fn attribute(name: &str, value: &Value) -> Value {
    let value = match value {
        Value::Bool(value) => json!({ "boolValue": value }),
        Value::Number(value) => json!({ "intValue": value.to_string() }),
        Value::String(value) => json!({ "stringValue": value }),
        other => json!({ "stringValue": other.to_string() }),
    };
    json!({ "key": name, "value": value })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Answers one request; its first line and its body.
    fn one_request(listener: &TcpListener) -> (String, Value) {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut first, mut length) = (String::new(), 0);
        reader.read_line(&mut first).unwrap();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let mut stream = stream;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            .unwrap();
        (first.trim().to_owned(), serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn spans_arrive_at_a_collector() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/otlp/", listener.local_addr().unwrap());
        let collector = Collector::parse(&endpoint, "here".to_owned()).unwrap();
        let subscriber = tracing_subscriber::registry().with(exporting(collector));
        tracing::subscriber::with_default(subscriber, || {
            let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            let outer = tracing::trace_span!(target: TARGET, "outer", room = "r", traceparent = caller, code = tracing::field::Empty);
            outer.in_scope(|| {
                let inner = tracing::trace_span!(target: TARGET, "inner", error = "it is late");
                inner.in_scope(|| tracing::info_span!("of no trace").in_scope(|| ()));
            });
            outer.record("code", 7u64);
        });
        let (first, body) = one_request(&listener);
        assert_eq!(first, "POST /otlp/v1/traces HTTP/1.1");
        let of = &body["resourceSpans"][0];
        assert_eq!(of["resource"]["attributes"][0]["value"]["stringValue"], "here");
        let spans = of["scopeSpans"][0]["spans"].as_array().unwrap();
        let names: Vec<&str> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["inner", "outer"], "as they have ended");
        let (inner, outer) = (&spans[0], &spans[1]);
        assert_eq!(outer["traceId"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(outer["parentSpanId"], "b7ad6b7169203331");
        assert_eq!(
            (&inner["traceId"], &inner["parentSpanId"]),
            (&outer["traceId"], &outer["spanId"])
        );
        assert_eq!(inner["status"], json!({ "code": 2, "message": "it is late" }));
        let attributes = outer["attributes"].as_array().unwrap();
        assert!(attributes.contains(&json!({ "key": "code", "value": { "intValue": "7" } })));
        assert!(attributes.contains(&json!({ "key": "room", "value": { "stringValue": "r" } })));
        let time = |name: &str| outer[name].as_str().unwrap().parse::<u128>().unwrap();
        assert!(time("startTimeUnixNano") <= time("endTimeUnixNano"));
    }

    #[test]
    fn what_is_no_parent_or_no_collector_is_none() {
        for text in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c8031zz-b7ad6b7169203331-01",
        ] {
            assert_eq!(traceparent(text), None, "{text}");
        }
        for endpoint in ["https://collector:4318", "collector:4318", "/v1", ""] {
            assert!(Collector::parse(endpoint, String::new()).is_none(), "{endpoint}");
        }
        let plain = Collector::parse("http://collector:4318", String::new()).unwrap();
        assert_eq!(
            (plain.address.as_str(), plain.path.as_str()),
            ("collector:4318", "/v1/traces")
        );
    }
}
