//! Requests to servers that the operator has named: a media server's RoomService, the backend, another node.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::tls::{self, Trust};

/// For the whole exchange.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of an answer: a thousand participants with their tracks.
const MAX_ANSWER: usize = 8 << 20;

/// For the head of an answer to a request that is passed on, whose body may take half a minute to arrive.
const PASS_LIMIT: Duration = Duration::from_secs(45);

/// The answer to a request that was passed on.
pub type Passed = axum::http::Response<Incoming>;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a URL of http or https")]
pub struct UrlError;

#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    #[error("no exchange of HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("not to be sent: {0}")]
    Request(#[from] axum::http::Error),
    #[error("the answer is too long, or breaks off")]
    Answer,
    #[error("no answer in time")]
    Late,
}

#[derive(Clone, Debug)]
pub struct Url {
    host: String,
    port: u16,
    secure: bool,
    authority: String,
    path: String,
}

impl Url {
    /// # Errors
    /// Not a URL of http or https.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let uri: Uri = url.parse().map_err(|_| UrlError)?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(UrlError),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(UrlError)?;
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            secure,
            authority: uri.port().map_or(host.to_owned(), |port| format!("{host}:{port}")),
            path: uri
                .path_and_query()
                .map_or(String::new(), |path| path.as_str().to_owned()),
        })
    }
}

pub struct Request {
    pub content_type: &'static str,
    pub authorization: String,
    pub body: Vec<u8>,
}

/// Reads the machine's certificates when they are first needed.
#[derive(Clone, Default)]
pub struct Https {
    tls: Arc<OnceLock<Option<TlsConnector>>>,
}

impl Https {
    /// Status and body. `path` is added to that of the URL.
    pub(super) async fn post(&self, url: &Url, path: &str, request: Request) -> Result<(u16, Bytes), ExchangeError> {
        tokio::time::timeout(LIMIT, self.exchange(url, path, request))
            .await
            .map_err(|_| ExchangeError::Late)?
    }

    async fn exchange(&self, url: &Url, path: &str, request: Request) -> Result<(u16, Bytes), ExchangeError> {
        let target = match path {
            "" if url.path.is_empty() => "/".to_owned(),
            path => format!("{}{path}", url.path.trim_end_matches('/')),
        };
        let request = axum::http::Request::builder()
            .method(Method::POST)
            .uri(target)
            .header(header::HOST, &url.authority)
            .header(header::CONTENT_TYPE, request.content_type)
            .header(header::CONTENT_LENGTH, request.body.len())
            .header(header::AUTHORIZATION, request.authorization)
            .header(header::CONNECTION, "close")
            .body(Body::from(request.body))?;
        send(self.connect(url).await?, request).await
    }

    /// A whole request passed on as it is; the answer's body comes as it arrives, and an upgrade can be taken up.
    ///
    /// # Errors
    /// The other end cannot be reached, or does not answer in time.
    pub async fn pass(&self, url: &Url, mut request: axum::http::Request<Body>) -> Result<Passed, ExchangeError> {
        let stream = tokio::time::timeout(LIMIT, self.connect(url)).await;
        let stream = stream.map_err(|_| ExchangeError::Late)??;
        let host = url.authority.parse().map_err(axum::http::Error::from)?;
        request.headers_mut().insert(header::HOST, host);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        let answer = tokio::time::timeout(PASS_LIMIT, sender.send_request(request)).await;
        Ok(answer.map_err(|_| ExchangeError::Late)??)
    }

    async fn connect(&self, url: &Url) -> Result<Box<dyn Stream>, ExchangeError> {
        let stream = TcpStream::connect((url.host.as_str(), url.port)).await?;
        let _ = stream.set_nodelay(true);
        if !url.secure {
            return Ok(Box::new(stream));
        }
        let invalid = |error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error);
        let name = ServerName::try_from(url.host.clone()).map_err(invalid)?;
        let connector = || tls::connector(Trust::Machine).ok(); // it has no file to read and cannot fail
        let tls = self.tls.get_or_init(connector).as_ref().ok_or(ExchangeError::Late)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }
}

async fn send(stream: Box<dyn Stream>, request: axum::http::Request<Body>) -> Result<(u16, Bytes), ExchangeError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    let body = to_bytes(Body::new(answer.into_body()), MAX_ANSWER).await;
    driver.abort();
    Ok((status, body.map_err(|_| ExchangeError::Answer)?))
}
