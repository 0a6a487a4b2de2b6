//! Where TCP connections come in: a connection shows in a few seconds what it is and moves on, media and TURN with their
//! descriptor (and TLS state) to a shard thread, HTTP to whoever answers it. Media never passes here.
//!
//! Owns what is half-open: bounded in number, per network and in time. Sends nothing but TLS handshakes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::half_open::HalfOpen;
use super::opening::{Opening, opening};
use super::shard_thread::{Handover, ShardHandle};
use super::streams::{AdoptedStream, Framing};
use super::tls::{ACME_TLS, HTTP_1_1, Tls};
use crate::{rtc, turn};

/// From the connection to its first message, and a TLS handshake before that. A slow path needs three round trips.
const FIRST_MESSAGE: Duration = Duration::from_secs(5);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which usually means that the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes read at a time before a connection moves on.
const READ: usize = 4096;
/// HTTP connections on their way to whoever answers them; with more under way than it takes, new ones are closed.
pub const WEB_QUEUE: usize = 256;

/// Whether connections are under TLS.
#[derive(Clone, Debug)]
pub enum Cover {
    Plain,
    Tls(Tls),
    /// Their first bytes say.
    Either(Tls),
}

/// What is let in, and where it goes.
#[derive(Clone, Debug, Default)]
pub struct Guests {
    /// ICE-TCP: the shards that may be meant, most likely first.
    pub media: Vec<ShardHandle>,
    /// TURN: the shard that has the server.
    pub turn: Option<ShardHandle>,
    pub web: Option<mpsc::Sender<WebConnection>>,
}

/// One listening TCP port.
#[derive(Debug)]
pub struct Door {
    pub listener: TcpListener,
    pub cover: Cover,
    pub guests: Guests,
}

/// A connection that speaks HTTP, from its first byte on.
pub struct WebConnection {
    pub stream: Box<dyn ByteStream>,
    pub peer: SocketAddr,
    /// Under TLS.
    pub is_secure: bool,
}

/// Bytes both ways.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for S {}

impl Door {
    /// Lets connections in until `stopping` becomes true.
    pub async fn serve(self, mut stopping: watch::Receiver<bool>) {
        let half_open = Arc::new(HalfOpen::default());
        let (cover, guests) = (Arc::new(self.cover), Arc::new(self.guests));
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
            let mut place = half_open.enter(peer.ip());
            let (cover, guests) = (Arc::clone(&cover), Arc::clone(&guests));
            tokio::spawn(async move {
                let admitted = tokio::select! {
                    admitted = admit(stream, peer, &cover, &guests) => admitted,
                    () = place.needed() => Err(io::ErrorKind::ConnectionAborted.into()),
                };
                if let Err(error) = admitted {
                    tracing::debug!(%peer, %error, "a connection did not show what it is");
                }
            });
        }
    }
}

async fn admit(stream: TcpStream, peer: SocketAddr, cover: &Cover, guests: &Guests) -> io::Result<()> {
    // Handshakes are small and wait for each other.
    stream.set_nodelay(true)?;
    let mut stream = Rewound::new(stream);
    let opening = match cover {
        Cover::Tls(_) => Opening::Tls,
        Cover::Plain | Cover::Either(_) => timeout(FIRST_MESSAGE, stream.opening()).await??,
    };
    match (opening, cover) {
        (Opening::Tls, Cover::Tls(tls) | Cover::Either(tls)) => admit_tls(stream, peer, tls, guests).await,
        (Opening::Http, _) => guests.welcome(WebConnection {
            stream: Box::new(stream),
            peer,
            is_secure: false,
        }),
        (Opening::Media, _) if !guests.media.is_empty() => {
            let received = timeout(FIRST_MESSAGE, stream.first_message(Framing::Media)).await??;
            adopt(stream.inner.into_std()?, None, Framing::Media, received, &guests.media).await
        }
        (Opening::Turn, _) if guests.turn.is_some() => {
            let received = timeout(FIRST_MESSAGE, stream.first_message(Framing::Turn)).await??;
            adopt(
                stream.inner.into_std()?,
                None,
                Framing::Turn,
                received,
                guests.turn.as_slice(),
            )
            .await
        }
        _ => Err(unknown()),
    }
}

async fn admit_tls(stream: Rewound<TcpStream>, peer: SocketAddr, tls: &Tls, guests: &Guests) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
    let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let protocol = stream.get_ref().1.alpn_protocol();
    // The handshake was all that it is for (RFC 8737 §3).
    if protocol == Some(ACME_TLS) {
        let mut stream = stream;
        return timeout(FIRST_MESSAGE, stream.shutdown()).await?;
    }
    let speaks_http = protocol == Some(HTTP_1_1);
    let mut stream = Rewound::new(stream);
    let opening = match speaks_http {
        true => Opening::Http,
        // TURN clients of libwebrtc offer no protocol; nor do plain HTTP clients.
        false => timeout(FIRST_MESSAGE, stream.opening()).await??,
    };
    match opening {
        Opening::Http => guests.welcome(WebConnection {
            stream: Box::new(stream),
            peer,
            is_secure: true,
        }),
        Opening::Turn if guests.turn.is_some() => {
            let received = timeout(FIRST_MESSAGE, stream.first_message(Framing::Turn)).await??;
            let (below, connection) = stream.inner.into_inner();
            if !below.is_drained() {
                return Err(unknown()); // what came before the handshake was no part of it
            }
            let connection = Some(Box::new(connection));
            adopt(
                below.inner.into_std()?,
                connection,
                Framing::Turn,
                received,
                guests.turn.as_slice(),
            )
            .await
        }
        _ => Err(unknown()),
    }
}

async fn adopt(
    socket: std::net::TcpStream,
    tls: Option<Box<ServerConnection>>,
    framing: Framing,
    received: Vec<u8>,
    shards: &[ShardHandle],
) -> io::Result<()> {
    let Some((first, others)) = shards.split_first() else {
        return Ok(());
    };
    let stream = Box::new(AdoptedStream {
        socket,
        tls,
        framing,
        received,
    });
    let others = others.to_vec();
    // Err: the shard has ended, and the process is about to.
    let _ = first.hand_over(Handover::Stream { stream, others }).await;
    Ok(())
}

impl Guests {
    fn welcome(&self, connection: WebConnection) -> io::Result<()> {
        let web = self.web.as_ref().ok_or_else(unknown)?;
        web.try_send(connection)
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))
    }
}

fn unknown() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// A stream, and what was read of it to see what it is: read again first.
struct Rewound<S> {
    seen: Vec<u8>,
    given: usize,
    inner: S,
}

impl<S: AsyncRead + Unpin> Rewound<S> {
    fn new(inner: S) -> Self {
        Self {
            seen: Vec::new(),
            given: 0,
            inner,
        }
    }

    fn is_drained(&self) -> bool {
        self.given == self.seen.len()
    }

    async fn opening(&mut self) -> io::Result<Opening> {
        loop {
            match opening(&self.seen) {
                Ok(Some(opening)) => return Ok(opening),
                Ok(None) => self.read_more().await?,
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }

    /// Everything received until the first message was whole; that message must be what an honest client begins with: STUN,
    /// and for media a connectivity check.
    async fn first_message(&mut self, framing: Framing) -> io::Result<Vec<u8>> {
        while !is_whole(&self.seen, framing)? {
            self.read_more().await?;
        }
        Ok(std::mem::take(&mut self.seen))
    }

    /// Bounded by whoever asks for more: a message is at most 2 KiB.
    async fn read_more(&mut self) -> io::Result<()> {
        let mut buffer = [0; READ];
        match self.inner.read(&mut buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.seen.extend_from_slice(buffer.get(..count).unwrap_or_default());
                Ok(())
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = this.seen.get(this.given..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut this.inner).poll_read(context, buffer);
        }
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(rest.get(..count).unwrap_or_default());
        this.given += count;
        if this.given == this.seen.len() {
            (this.seen, this.given) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

fn is_whole(received: &[u8], framing: Framing) -> io::Result<bool> {
    let length = match framing {
        Framing::Media => rtc::frame_length(received).ok(),
        Framing::Turn => turn::frame_length(received).ok(),
    };
    let Some(frame) = length.ok_or_else(unknown)?.and_then(|length| received.get(..length)) else {
        return Ok(false);
    };
    let is_honest = match framing {
        Framing::Media => frame
            .get(rtc::FRAME_HEADER..)
            .is_some_and(|message| rtc::stun_local_ufrag(message).is_some()),
        Framing::Turn => matches!(frame.first(), Some(0..=0x3f)),
    };
    if is_honest { Ok(true) } else { Err(unknown()) }
}
