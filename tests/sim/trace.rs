//! What a server sent, as far as it does not depend on keys: when, to whom, how much, and every byte in the clear.

use std::time::{Duration, Instant};

/// One line a datagram.
#[derive(Clone, Debug)]
pub struct Trace {
    from: Instant,
    pub lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub at: Duration,
    pub peer: usize,
    pub len: usize,
    /// The header of RTP with its extensions, of RTCP up to the sender's SSRC, the content type of DTLS.
    pub clear: Vec<u8>,
}

impl Trace {
    pub fn new(from: Instant) -> Self {
        Self {
            from,
            lines: Vec::new(),
        }
    }

    pub fn note(&mut self, at: Instant, peer: usize, datagram: &[u8]) {
        let clear = match datagram.first() {
            // RFC 7983. Connectivity checks and handshakes are their engines'; data channels are application data.
            Some(23) => 1,
            Some(128..192) => clear_len(datagram),
            _ => return,
        };
        self.lines.push(Line {
            at: at - self.from,
            peer,
            len: datagram.len(),
            clear: datagram[..clear.min(datagram.len())].to_vec(),
        });
    }
}

/// What SRTP and SRTCP leave readable (RFC 3711 §3.1, §3.4).
fn clear_len(datagram: &[u8]) -> usize {
    let second = datagram.get(1).copied().unwrap_or_default();
    if (64..96).contains(&(second & 0x7f)) {
        return 8;
    }
    let extension = datagram.get(14..16).filter(|_| datagram[0] & 0x10 != 0);
    extension.map_or(12, |words| {
        16 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]))
    })
}
