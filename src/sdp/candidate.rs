//! ICE host candidates as text (RFC 8839 §5.1, RFC 6544 §4.5).

use std::fmt;
use std::net::SocketAddr;

use crate::types::NetProtocol;

/// One of our addresses. `Display` gives the candidate-attribute with its `candidate:` prefix, as `a=` lines and
/// `RTCIceCandidateInit.candidate` carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCandidate {
    pub address: SocketAddr,
    pub protocol: NetProtocol,
    /// Position among the addresses of this protocol, 0 = most preferred; makes priority and foundation distinct.
    pub index: u16,
    pub ufrag: String,
}

impl HostCandidate {
    /// RFC 8445 §5.1.2.1, component 1.
    pub fn priority(&self) -> u32 {
        // Type preference 126 for host; TCP stays below every UDP type (RFC 6544 §4.2), 99 as LiveKit gives it,
        // with direction preference 4 (passive) in the upper bits of the local preference.
        let (kind, local) = match self.protocol {
            NetProtocol::Udp | NetProtocol::Turn => (126u32, 65_535u32),
            NetProtocol::Tcp => (99, (4 << 13) | 8_191),
        };
        (kind << 24) | (local.saturating_sub(u32::from(self.index)) << 8) | 255
    }
}

impl fmt::Display for HostCandidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, base) = match self.protocol {
            NetProtocol::Udp | NetProtocol::Turn => ("udp", 1u32),
            NetProtocol::Tcp => ("tcp", 100_001),
        };
        let foundation = base + u32::from(self.index);
        let (address, port) = (self.address.ip(), self.address.port());
        let priority = self.priority();
        write!(
            f,
            "candidate:{foundation} 1 {name} {priority} {address} {port} typ host"
        )?;
        if self.protocol == NetProtocol::Tcp {
            f.write_str(" tcptype passive")?;
        }
        write!(f, " ufrag {}", self.ufrag)
    }
}
