//! The address the outside sees: asked of a STUN server at start (RFC 8489), for servers behind a translated address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;

/// How long one request is waited for, and how often it is sent (RFC 8489 §6.2.1 waits longer; here the start waits).
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
const ATTEMPTS: usize = 3;

/// How long a name may take to resolve.
const LOOKUP_LIMIT: Duration = Duration::from_secs(2);

const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const HEADER: usize = 20;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const FAMILY_IPV4: u8 = 1;

/// What the outside sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outside {
    pub address: IpAddr,
    /// The machine's own address, for which that stands.
    pub local: IpAddr,
}

/// Asks the servers (`host:port`, an optional `stun:` in front) in turn; the first answer counts. IPv4 only: IPv6 is not
/// translated.
///
/// # Errors
/// When none of them answers.
pub(super) async fn external_address(servers: &[String]) -> io::Result<Outside> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no STUN server is known");
    for server in servers {
        match ask(server.strip_prefix("stun:").unwrap_or(server)).await {
            Ok(address) => return Ok(address),
            Err(error) => last = io::Error::new(error.kind(), format!("{server}: {error}")),
        }
    }
    Err(last)
}

async fn ask(server: &str) -> io::Result<Outside> {
    let server = timeout(LOOKUP_LIMIT, lookup_host(server))
        .await??
        .find(SocketAddr::is_ipv4)
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(server).await?;
    let transaction: [u8; 12] = rand::random();
    let mut request = [0; HEADER];
    request[..2].copy_from_slice(&BINDING_REQUEST);
    request[4..8].copy_from_slice(&MAGIC_COOKIE);
    request[8..].copy_from_slice(&transaction);
    let mut buffer = [0; 1500];
    for _ in 0..ATTEMPTS {
        socket.send(&request).await?;
        if let Ok(length) = timeout(ANSWER_LIMIT, socket.recv(&mut buffer)).await
            && let Some(address) = mapped_address(buffer.get(..length?).unwrap_or_default(), transaction)
        {
            let local = socket.local_addr()?.ip();
            return Ok(Outside { address, local });
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// The XOR-MAPPED-ADDRESS of the answer to `transaction`. RFC 8489 §5, §14.2.
fn mapped_address(answer: &[u8], transaction: [u8; 12]) -> Option<IpAddr> {
    let (header, mut attributes) = answer.split_at_checked(HEADER)?;
    let expected = header.starts_with(&BINDING_SUCCESS) && header.get(4..8)? == MAGIC_COOKIE;
    if !expected || header.get(8..)? != transaction {
        return None;
    }
    loop {
        let (head, rest) = attributes.split_at_checked(4)?;
        let kind = u16::from_be_bytes([*head.first()?, *head.get(1)?]);
        let length = usize::from(u16::from_be_bytes([*head.get(2)?, *head.get(3)?]));
        let value = rest.get(..length)?;
        if kind == XOR_MAPPED_ADDRESS {
            return xored(value, transaction);
        }
        // Padded to four bytes.
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
}

fn xored(value: &[u8], transaction: [u8; 12]) -> Option<IpAddr> {
    let family = *value.get(1)?;
    let address = value.get(4..)?;
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE);
    mask[4..].copy_from_slice(&transaction);
    if family == FAMILY_IPV4 {
        let bytes: [u8; 4] = address.try_into().ok()?;
        Some(Ipv4Addr::from(u32::from_be_bytes(bytes) ^ u32::from_be_bytes(MAGIC_COOKIE)).into())
    } else {
        let bytes: [u8; 16] = address.try_into().ok()?;
        Some(Ipv6Addr::from(u128::from_be_bytes(bytes) ^ u128::from_be_bytes(mask)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with an attribute we do not know before the address 203.0.113.7:5000.
    fn answer(transaction: &[u8]) -> Vec<u8> {
        let mut answer = vec![1, 1, 0, 20];
        answer.extend(MAGIC_COOKIE);
        answer.extend(transaction);
        answer.extend([0x80, 0x22, 0, 3, b'x', b'y', b'z', 0]);
        answer.extend([0, 0x20, 0, 8, 0, 1, 0x32, 0x9a]);
        let xored = u32::from(Ipv4Addr::new(203, 0, 113, 7)) ^ u32::from_be_bytes(MAGIC_COOKIE);
        answer.extend(xored.to_be_bytes());
        answer
    }

    #[tokio::test]
    async fn the_first_server_that_answers_counts() {
        let stun = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let name = format!("stun:{}", stun.local_addr().unwrap());
        let serve = async {
            let mut buffer = [0; 1500];
            let (length, from) = stun.recv_from(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..2], length), (&BINDING_REQUEST[..], HEADER));
            stun.send_to(&answer(&buffer[8..HEADER]), from).await.unwrap();
        };
        let servers = ["not a name".to_owned(), name];
        let (found, ()) = tokio::join!(external_address(&servers), serve);
        let [address, local] = [[203, 0, 113, 7], [127, 0, 0, 1]].map(IpAddr::from);
        assert_eq!(found.unwrap(), Outside { address, local });
    }

    #[test]
    fn answers_to_others_and_broken_ones_are_not_believed() {
        let whole = answer(&[7; 12]);
        assert!(mapped_address(&whole, [7; 12]).is_some());
        assert_eq!(mapped_address(&whole, [8; 12]), None);
        for length in 0..whole.len() {
            assert_eq!(mapped_address(&whole[..length], [7; 12]), None);
        }
    }
}
