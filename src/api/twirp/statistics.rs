//! Calls of the server APIs, counted for metrics. Labels are those of the table of methods and codes: nothing a client
//! writes becomes one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::endpoint::Method;
use super::error::Code;
use crate::node::Histogram;

/// Milliseconds.
const LATENCY: &[u64] = &[5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// Service, method, and the code of what failed.
type Labels = (&'static str, &'static str, Option<&'static str>);

#[derive(Debug, Default)]
pub struct ApiStatistics {
    /// Locked for a moment, never across an await.
    calls: Mutex<BTreeMap<Labels, Series>>,
}

#[derive(Debug)]
struct Series {
    count: u64,
    latency: Histogram,
}

impl ApiStatistics {
    pub(super) fn record(&self, method: &Method, outcome: Option<Code>, took: Duration) {
        let key = (method.service, method.name, outcome.map(Code::name));
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let series = calls.entry(key).or_insert_with(|| Series {
            count: 0,
            latency: Histogram::new(LATENCY),
        });
        series.count += 1;
        series
            .latency
            .record(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    }

    /// Prometheus lines under LiveKit's names. `node` is the labels every line has.
    pub fn write(&self, out: &mut String, node: &str) {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let status = |code: &Option<&str>| if code.is_some() { "error" } else { "success" };
        let short = |service: &&'static str| service.trim_start_matches("livekit.");
        *out += "# TYPE livekit_node_twirp_request_status counter\n";
        for ((service, method, code), series) in calls.iter() {
            let _ = writeln!(
                out,
                "livekit_node_twirp_request_status{{{node},service=\"{}\",method=\"{method}\",status=\"{}\",code=\"{}\"}} {}",
                short(service),
                status(code),
                code.unwrap_or_default(),
                series.count
            );
        }
        *out += "# TYPE livekit_node_twirp_request_latency_ms histogram\n";
        for ((service, method, code), series) in calls.iter() {
            let labels = format!(
                "{node},service=\"{}\",method=\"{method}\",status=\"{}\",code=\"{}\"",
                short(service),
                status(code),
                code.unwrap_or_default()
            );
            series
                .latency
                .write(out, "livekit_node_twirp_request_latency_ms", &labels);
        }
    }
}
