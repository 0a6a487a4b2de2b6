//! What this server says of its media threads on its Prometheus page: how much leaves with one send, how busy they are.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);
/// Longer than the page is with a hundred shards.
const MAX_PAGE: u64 = 1 << 20;

/// Sums over all shards, since the server started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    pub datagrams: f64,
    pub sends: f64,
    pub dropped: f64,
    pub busy_seconds: f64,
}

impl Counters {
    /// From a server on this machine; None when it does not answer.
    pub fn read(port: u16) -> Option<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.take(MAX_PAGE).read_to_string(&mut page).ok()?;
        Self::parse(&page)
    }

    fn parse(page: &str) -> Option<Self> {
        let sum = |name: &str, label: &str| {
            let lines = page
                .lines()
                .filter(|line| line.starts_with(name) && line.contains(label));
            let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            values.reduce(|sum, value| sum + value)
        };
        let outgoing = "direction=\"outgoing\"";
        Some(Self {
            datagrams: sum("patchbay_shard_datagrams_total{", outgoing)?,
            sends: sum("patchbay_shard_messages_total{", outgoing)?,
            dropped: sum("patchbay_shard_dropped_total{", outgoing)?,
            busy_seconds: sum("patchbay_shard_busy_seconds_total{", "")?,
        })
    }

    /// Datagrams in one send since `before`; None when nothing was sent.
    pub fn segments_since(&self, before: &Self) -> Option<f64> {
        let sends = self.sends - before.sends;
        (sends > 0.0).then(|| (self.datagrams - before.datagrams) / sends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_added_up_and_directions_kept_apart() {
        let page = "HTTP/1.0 200 OK\r\n\r\n# TYPE patchbay_shard_datagrams_total counter\n\
            patchbay_shard_datagrams_total{shard=\"0\",direction=\"incoming\"} 7\n\
            patchbay_shard_datagrams_total{shard=\"0\",direction=\"outgoing\"} 100\n\
            patchbay_shard_datagrams_total{shard=\"1\",direction=\"outgoing\"} 60\n\
            patchbay_shard_messages_total{shard=\"0\",direction=\"outgoing\"} 40\n\
            patchbay_shard_dropped_total{shard=\"0\",direction=\"outgoing\"} 0\n\
            patchbay_shard_busy_seconds_total{shard=\"0\"} 1.5\n";
        let counters = Counters::parse(page).expect("a page");
        assert_eq!(
            (counters.datagrams, counters.sends, counters.busy_seconds),
            (160.0, 40.0, 1.5)
        );
        assert_eq!(counters.segments_since(&Counters::default()), Some(4.0));
        assert_eq!(counters.segments_since(&counters), None);
        assert_eq!(Counters::parse("patchbay_rooms_total 1\n"), None);
    }
}
