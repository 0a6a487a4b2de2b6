//! Whether the TURN servers of others (`rtc.turn_servers`) work: each is asked for an allocation now and then, as a client
//! would ask, and given it back at once.
//!
//! Owns what was found out last; the metrics and the page `/doctor` read it. Says in the log when one stops working and when
//! it works again. Changes nothing of what clients are told: what does not work from here may work from there.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use stun_types::attribute::{AttributeType, RawAttribute};
use stun_types::message::{
    IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageClass, MessageType, MessageWrite, MessageWriteExt,
    MessageWriteVec, Method, TransactionId,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::config::{Config, TurnServer};
use super::relay;
use crate::io::ByteStream;
use crate::proto::relay::IceServerSource;
use crate::tls::{self, Trust};
use crate::turn;

/// How often each server is asked.
const INTERVAL: Duration = Duration::from_secs(60);
/// For all of one examination.
const LIMIT: Duration = Duration::from_secs(5);
/// A datagram is sent again after this time, so often.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
const ATTEMPTS: usize = 3;

/// RFC 8656 §17, §18; RFC 8489 §18.
const ALLOCATE: u16 = 0x003;
const REFRESH: u16 = 0x004;
const USERNAME: u16 = 0x0006;
const ERROR_CODE: u16 = 0x0009;
const LIFETIME: u16 = 0x000d;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
const REQUESTED_TRANSPORT: u16 = 0x0019;
const UDP: [u8; 4] = [17, 0, 0, 0];

/// Why a server is of no use to us.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("its name has no address")]
    NoAddress,
    #[error("there is no TLS here to speak to it with")]
    NoTls,
    #[error("it does not answer")]
    Silent,
    #[error("what answers there is no TURN server")]
    NotTurn,
    #[error("it refuses our credentials: look at secret, or username and credential")]
    Credentials,
    #[error("it refuses with error {0}")]
    Refused(u16),
}

/// What was found out last: how long the first answer took, or what is wrong.
type Health = Result<Duration, String>;

/// All of them. Clones share what is known.
#[derive(Clone, Debug, Default)]
pub struct RelayHealth {
    watched: Arc<[Watched]>,
}

#[derive(Debug)]
struct Watched {
    server: TurnServer,
    source: IceServerSource,
    /// None = not asked yet.
    health: Mutex<Option<Health>>,
}

impl Watched {
    fn health(&self) -> Option<Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn examine(&self, tls: Option<&TlsConnector>) {
        let url = relay::external_url(&self.server);
        let found = examine(&self.server, &self.source, tls)
            .await
            .map_err(|fault| fault.to_string());
        let before = self
            .health
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(found.clone());
        match (before, found) {
            (None | Some(Ok(_)), Err(fault)) => {
                tracing::warn!(%url, %fault, "a TURN server that clients are sent to does not work from here")
            }
            (Some(Err(_)), Ok(_)) => tracing::info!(%url, "the TURN server works again"),
            _ => {}
        }
    }
}

impl RelayHealth {
    /// # Errors
    /// When a file with a secret cannot be read.
    pub(super) fn new(config: &Config) -> io::Result<Self> {
        let watched = config.rtc.turn_servers.iter().map(|server| {
            Ok(Watched {
                server: server.clone(),
                source: relay::external(server)?,
                health: Mutex::default(),
            })
        });
        Ok(Self {
            watched: watched.collect::<io::Result<_>>()?,
        })
    }

    /// Asks until `stopping` becomes true.
    pub(super) async fn watch(self, mut stopping: watch::Receiver<bool>) {
        if self.watched.is_empty() {
            return;
        }
        let tls = tls::connector(Trust::Machine).ok();
        let mut next = interval(INTERVAL);
        next.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = next.tick() => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
            for watched in self.watched.iter() {
                watched.examine(tls.as_ref()).await;
            }
        }
    }

    /// URL and whether it works; those that were asked.
    pub(super) fn up(&self) -> Vec<(String, Health)> {
        let known = self.watched.iter();
        known
            .filter_map(|watched| Some((relay::external_url(&watched.server), watched.health()?)))
            .collect()
    }

    /// For the page.
    pub(super) fn answer(&self) -> Response {
        let told = self.up().into_iter().map(|(url, health)| match health {
            Ok(time) => {
                json!({ "url": url, "ok": true, "ms": time.as_millis() as u64, "text": "works from the server" })
            }
            Err(fault) => json!({ "url": url, "ok": false, "text": format!("from the server: {fault}") }),
        });
        Json(told.collect::<Value>()).into_response()
    }
}

/// Allocates and frees, with credentials as a participant gets them.
pub(super) async fn examine(
    server: &TurnServer,
    source: &IceServerSource,
    tls: Option<&TlsConnector>,
) -> Result<Duration, Fault> {
    let unix = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    // With LiveKit's external servers neither key nor secret plays a part.
    let given = source.for_participant("doctor", "", "", unix);
    let asked = async {
        let mut wire = Wire::connect(server, tls).await?;
        let transport = [(REQUESTED_TRANSPORT, &UDP[..])];
        let started = Instant::now();
        let first = wire.ask(ALLOCATE, &transport, None).await?;
        let time = started.elapsed();
        let signed = match first {
            // It asks nobody for a password.
            Answer::Success => None,
            Answer::Error(401, Some(challenge)) => Some(Signed {
                username: given.username,
                password: given.credential,
                challenge,
            }),
            Answer::Error(code, _) => return Err(Fault::Refused(code)),
        };
        if signed.is_some() {
            match wire.ask(ALLOCATE, &transport, signed.as_ref()).await? {
                Answer::Success => {}
                Answer::Error(401 | 438, _) => return Err(Fault::Credentials),
                Answer::Error(code, _) => return Err(Fault::Refused(code)),
            }
        }
        // Given back; should that get lost, it ends by itself in ten minutes.
        let _ = wire.ask(REFRESH, &[(LIFETIME, &[0; 4])], signed.as_ref()).await;
        Ok(time)
    };
    timeout(LIMIT, asked).await.map_err(|_| Fault::Silent)?
}

/// RFC 8489 §9.2: what a server says to whoever has not shown a password.
struct Challenge {
    realm: String,
    nonce: Vec<u8>,
}

struct Signed {
    username: String,
    password: String,
    challenge: Challenge,
}

enum Answer {
    Success,
    Error(u16, Option<Challenge>),
}

/// The way to one server.
enum Wire {
    Datagrams(UdpSocket),
    Stream(Box<dyn ByteStream>),
}

impl Wire {
    async fn connect(server: &TurnServer, tls: Option<&TlsConnector>) -> Result<Self, Fault> {
        let host = server.host.trim_matches(['[', ']']);
        let mut found = lookup_host((host, server.port)).await?;
        let address = found.next().ok_or(Fault::NoAddress)?;
        if !matches!(server.protocol.as_str(), "tls" | "tcp") {
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any).await?;
            socket.connect(address).await?;
            return Ok(Self::Datagrams(socket));
        }
        let stream = TcpStream::connect(address).await?;
        if server.protocol == "tcp" {
            return Ok(Self::Stream(Box::new(stream)));
        }
        let tls = tls.ok_or(Fault::NoTls)?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Self::Stream(Box::new(tls.connect(name, stream).await?)))
    }

    async fn ask(
        &mut self,
        method: u16,
        attributes: &[(u16, &[u8])],
        signed: Option<&Signed>,
    ) -> Result<Answer, Fault> {
        let transaction = TransactionId::from(u128::from(rand::random::<u64>()));
        let request = request(transaction, method, attributes, signed);
        match self {
            Self::Datagrams(socket) => {
                let mut buffer = [0; turn::MAX_FRAME];
                for _ in 0..ATTEMPTS {
                    socket.send(&request).await?;
                    let deadline = tokio::time::Instant::now() + ANSWER_LIMIT;
                    // Answers to what was asked before may be late.
                    while let Ok(length) = tokio::time::timeout_at(deadline, socket.recv(&mut buffer)).await {
                        if let Some(answer) = read(buffer.get(..length?).unwrap_or_default(), transaction) {
                            return Ok(answer);
                        }
                    }
                }
                Err(Fault::Silent)
            }
            Self::Stream(stream) => {
                stream.write_all(&request).await?;
                let mut received = Vec::new();
                loop {
                    match turn::frame_length(&received) {
                        Ok(Some(length)) if received.len() >= length => break,
                        Ok(_) if stream.read_buf(&mut received).await? > 0 => {}
                        Ok(_) => return Err(Fault::Silent),
                        Err(_) => return Err(Fault::NotTurn),
                    }
                }
                read(&received, transaction).ok_or(Fault::NotTurn)
            }
        }
    }
}

fn request(transaction: TransactionId, method: u16, attributes: &[(u16, &[u8])], signed: Option<&Signed>) -> Vec<u8> {
    let kind = MessageType::from_class_method(MessageClass::Request, Method::new(method));
    let mut message = Message::builder(kind, transaction, MessageWriteVec::new());
    let own = signed.into_iter().flat_map(|signed| {
        let Challenge { realm, nonce } = &signed.challenge;
        [
            (USERNAME, signed.username.as_bytes()),
            (REALM, realm.as_bytes()),
            (NONCE, nonce.as_slice()),
        ]
    });
    for (kind, value) in attributes.iter().copied().chain(own) {
        // Err: there is one already, which does not happen.
        let _ = message.add_attribute(&RawAttribute::new(AttributeType::new(kind), value));
    }
    if let Some(Signed {
        username,
        password,
        challenge,
    }) = signed
    {
        let key = LongTermKeyCredentials::new(username.clone(), password.clone(), challenge.realm.clone());
        let key = key.make_key(IntegrityAlgorithm::Sha1);
        let _ = message.add_message_integrity_with_key(&key, IntegrityAlgorithm::Sha1);
    }
    message.finish()
}

/// None for what is no answer to that.
fn read(bytes: &[u8], transaction: TransactionId) -> Option<Answer> {
    let message = Message::from_bytes(bytes).ok()?;
    if message.transaction_id() != transaction {
        return None;
    }
    let value = |kind: u16| Some(message.raw_attribute(AttributeType::new(kind))?.value.to_vec());
    match message.class() {
        MessageClass::Success => Some(Answer::Success),
        MessageClass::Error => {
            let code = value(ERROR_CODE)?;
            let code = u16::from(*code.get(2)?) * 100 + u16::from(*code.get(3)?);
            let realm = value(REALM).and_then(|realm| String::from_utf8(realm).ok());
            let challenge = realm.zip(value(NONCE)).map(|(realm, nonce)| Challenge { realm, nonce });
            Some(Answer::Error(code, challenge))
        }
        MessageClass::Request | MessageClass::Indication => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::tests::client::World;
    use crate::types::{NetPath, NetProtocol};

    /// Our own server in their place, as `alice`, whose password is her name backwards; ends with its socket's owner.
    async fn serve(socket: UdpSocket) {
        let mut world = World::new();
        let mut buffer = [0; 2048];
        loop {
            let (length, remote) = socket.recv_from(&mut buffer).await.unwrap();
            let path = NetPath {
                local: socket.local_addr().unwrap(),
                remote,
                protocol: NetProtocol::Udp,
            };
            let _ = world.server.handle_message(world.now, path, &buffer[..length]);
            while let Some((path, answer)) = world.server.poll_transmit() {
                socket.send_to(&answer, path.remote).await.unwrap();
            }
            assert!(world.server.population().allocations <= 1, "given back");
        }
    }

    fn at(address: SocketAddr, protocol: &str, credential: &str) -> TurnServer {
        TurnServer {
            host: address.ip().to_string(),
            port: address.port(),
            protocol: protocol.into(),
            username: "alice".into(),
            credential: credential.into(),
            ..TurnServer::default()
        }
    }

    async fn asked(server: &TurnServer) -> Result<(), String> {
        let source = relay::external(server).unwrap();
        let found = examine(server, &source, None).await;
        found.map(|_| ()).map_err(|fault| fault.to_string())
    }

    #[tokio::test]
    async fn a_server_works_refuses_or_is_silent() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let serving = tokio::spawn(serve(socket));
        let good = at(address, "udp", "ecila");
        for _ in 0..3 {
            assert_eq!(asked(&good).await, Ok(()));
        }
        let refused = asked(&at(address, "udp", "guess")).await;
        assert!(refused.unwrap_err().contains("credentials"));
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        assert!(asked(&good).await.is_err(), "nobody is there");
    }

    #[tokio::test]
    async fn what_speaks_something_else_is_no_turn_server() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let web = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            stream
        };
        let server = at(address, "tcp", "ecila");
        let (found, _stream) = tokio::join!(asked(&server), web);
        assert_eq!(found, Err(Fault::NotTurn.to_string()));
    }

    #[tokio::test]
    async fn what_was_found_out_is_shown() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(serve(socket));
        let mut config = Config::default();
        config.rtc.turn_servers = vec![at(address, "udp", "ecila"), at(address, "udp", "guess")];
        let health = RelayHealth::new(&config).unwrap();
        assert_eq!(health.up().len(), 0, "nothing is known yet");
        for watched in health.watched.iter() {
            watched.examine(None).await;
        }
        let [(url, Ok(_)), (_, Err(fault))] = &health.up()[..] else {
            panic!("{:?}", health.up());
        };
        assert_eq!(*url, format!("turn:{address}?transport=udp"));
        assert!(fault.contains("credentials"));
    }
}
