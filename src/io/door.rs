//! Where TCP connections come in: a connection shows in a few seconds what it is, then its descriptor moves to a shard
//! thread. Media never passes here.
//!
//! Owns what is half-open: bounded in number, per address and in time. Sends nothing but TLS handshakes.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::shard_thread::{Handover, ShardHandle};
use super::streams::{AdoptedStream, Framing};
use crate::{rtc, turn};

/// Connections of one door that have not shown yet what they are. Beyond it new ones are closed at once.
const MAX_HALF_OPEN: usize = 1024;
/// Of these, those of one network (/24, /56): an attacker must not have them all.
const MAX_HALF_OPEN_PER_NETWORK: usize = 64;
/// From the connection to its first message, and a TLS handshake before that. A slow path needs three round trips.
const FIRST_MESSAGE: Duration = Duration::from_secs(5);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which usually means that the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes read at a time before a connection is handed over.
const READ: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{0}: {1}")]
    File(String, rustls::pki_types::pem::Error),
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// A certificate to serve TLS with.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    chain_length: usize,
}

impl Tls {
    /// From PEM files: the chain, leaf first, and its private key.
    ///
    /// # Errors
    /// When a file cannot be read or the two do not belong together.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let fault = |path: &Path| {
            let path = path.display().to_string();
            move |error| TlsError::File(path.clone(), error)
        };
        let chain = CertificateDer::pem_file_iter(certificate)
            .map_err(fault(certificate))?
            .collect::<Result<Vec<_>, _>>()
            .map_err(fault(certificate))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(fault(key))?;
        let chain_length = chain.len();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Self {
            config: Arc::new(config),
            chain_length,
        })
    }

    /// Certificates in the chain; a root that clients have need not be among them.
    pub fn chain_length(&self) -> usize {
        self.chain_length
    }
}

/// One listening TCP port.
#[derive(Debug)]
pub struct Door {
    pub listener: TcpListener,
    pub framing: Framing,
    pub tls: Option<Tls>,
    /// Who may be meant, most likely first. TURN's home, alone, for TURN.
    pub shards: Vec<ShardHandle>,
}

/// How many connections of each network are half-open.
#[derive(Debug, Default)]
struct HalfOpen {
    by_network: Mutex<HashMap<IpAddr, usize>>,
}

/// One half-open connection; gives its place back when it is dropped.
struct Place {
    of: Arc<HalfOpen>,
    network: IpAddr,
}

impl HalfOpen {
    /// None = there is no room.
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let network = network(address);
        // Counters only: a panic elsewhere cannot leave them half changed. Never held across an await.
        let mut open = self.by_network.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= MAX_HALF_OPEN {
            return None;
        }
        let count = open.entry(network).or_insert(0);
        if *count >= MAX_HALF_OPEN_PER_NETWORK {
            return None;
        }
        *count += 1;
        Some(Place {
            of: Arc::clone(self),
            network,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.of.by_network.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.network);
            }
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::from((u32::from(v4) & !0xff).to_be_bytes()),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 72 << 72).into(),
    }
}

impl Door {
    /// Lets connections in until `stopping` becomes true.
    pub async fn serve(self, mut stopping: watch::Receiver<bool>) {
        let half_open = Arc::new(HalfOpen::default());
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                // A sender that is gone has given the word.
                _ = stopping.wait_for(|stopping| *stopping) => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = half_open.enter(peer.ip()) else {
                continue;
            };
            let (framing, tls, shards) = (self.framing, self.tls.clone(), self.shards.clone());
            tokio::spawn(async move {
                if let Err(error) = admit(stream, framing, tls, shards).await {
                    tracing::debug!(%peer, %error, "a connection did not show what it is");
                }
                drop(place);
            });
        }
    }
}

async fn admit(stream: TcpStream, framing: Framing, tls: Option<Tls>, mut shards: Vec<ShardHandle>) -> io::Result<()> {
    // Handshakes are small and wait for each other.
    stream.set_nodelay(true)?;
    let mut tls = match tls {
        Some(tls) => Some(timeout(HANDSHAKE, handshake(&stream, &tls)).await??),
        None => None,
    };
    let received = timeout(FIRST_MESSAGE, first_message(&stream, tls.as_deref_mut(), framing)).await??;
    let stream = AdoptedStream {
        socket: stream.into_std()?,
        tls,
        framing,
        received,
    };
    let others = shards.split_off(1.min(shards.len()));
    let Some(first) = shards.pop() else { return Ok(()) };
    let stream = Box::new(stream);
    // Err: the shard has ended, and the process is about to.
    let _ = first.hand_over(Handover::Stream { stream, others }).await;
    Ok(())
}

async fn handshake(stream: &TcpStream, tls: &Tls) -> io::Result<Box<ServerConnection>> {
    let mut connection = Box::new(ServerConnection::new(Arc::clone(&tls.config)).map_err(io::Error::other)?);
    let mut buffer = [0; READ];
    while connection.is_handshaking() {
        let mut bytes = read(stream, &mut buffer).await?;
        while !bytes.is_empty() {
            connection.read_tls(&mut bytes)?;
            let processed = connection.process_new_packets();
            write_tls(stream, &mut connection).await?; // the alert too
            processed.map_err(io::Error::other)?;
        }
    }
    Ok(connection)
}

async fn write_tls(stream: &TcpStream, connection: &mut ServerConnection) -> io::Result<()> {
    let mut out = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut out)?;
    }
    let mut rest = out.as_slice();
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn read<'b>(stream: &TcpStream, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    loop {
        stream.readable().await?;
        match stream.try_read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => return Ok(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Everything received until the first message was whole; that message must be what an honest client begins with: STUN, and
/// for media a connectivity check.
async fn first_message(
    stream: &TcpStream,
    mut tls: Option<&mut ServerConnection>,
    framing: Framing,
) -> io::Result<Vec<u8>> {
    let mut received = Vec::new();
    let mut buffer = [0; READ];
    if let Some(connection) = &mut tls {
        take_plain(connection, &mut received)?;
    }
    loop {
        if is_whole(&received, framing)? {
            return Ok(received);
        }
        let mut bytes = read(stream, &mut buffer).await?;
        match &mut tls {
            None => received.extend_from_slice(bytes),
            Some(connection) => {
                while !bytes.is_empty() {
                    connection.read_tls(&mut bytes)?;
                    take_plain(connection, &mut received)?;
                }
            }
        }
    }
}

fn take_plain(connection: &mut ServerConnection, received: &mut Vec<u8>) -> io::Result<()> {
    let state = connection.process_new_packets().map_err(io::Error::other)?;
    let start = received.len();
    received.resize(start + state.plaintext_bytes_to_read(), 0);
    io::Read::read_exact(&mut connection.reader(), received.get_mut(start..).unwrap_or_default())
}

fn is_whole(received: &[u8], framing: Framing) -> io::Result<bool> {
    let length = match framing {
        Framing::Media => rtc::frame_length(received).ok(),
        Framing::Turn => turn::frame_length(received).ok(),
    };
    let nonsense = || io::Error::from(io::ErrorKind::InvalidData);
    let Some(frame) = length.ok_or_else(nonsense)?.and_then(|length| received.get(..length)) else {
        return Ok(false);
    };
    let is_honest = match framing {
        Framing::Media => frame
            .get(rtc::FRAME_HEADER..)
            .is_some_and(|message| rtc::stun_local_ufrag(message).is_some()),
        Framing::Turn => matches!(frame.first(), Some(0..=0x3f)),
    };
    if is_honest { Ok(true) } else { Err(nonsense()) }
}
