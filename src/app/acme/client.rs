//! HTTP as the ACME engine wants it: one request, one connection, with the certificates of the machine's authorities and
//! one more, for an authority of one's own.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, Response, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::AcmeError;
use crate::tls::{self, Trust};

/// For one exchange.
const LIMIT: Duration = Duration::from_secs(30);
/// Bytes of an answer: the largest are chains of certificates.
const MAX_ANSWER: usize = 256 << 10;

type Answer = Result<BytesResponse, instant_acme::Error>;

#[derive(Clone)]
pub(super) struct AcmeClient {
    tls: TlsConnector,
}

impl AcmeClient {
    /// `authority`: a file with certificates to trust beside those of the machine; may be empty. Blocks.
    pub(super) fn new(authority: &str) -> Result<Self, AcmeError> {
        let trust = match authority {
            "" => Trust::Machine,
            file => Trust::MachineAnd(file),
        };
        let tls = tls::connector(trust).map_err(|error| AcmeError::Client(error.to_string()))?;
        Ok(Self { tls })
    }

    async fn exchange(self, request: Request<BodyWrapper<Bytes>>) -> io::Result<Response<Bytes>> {
        let uri = request.uri().clone();
        let host = uri
            .host()
            .ok_or(io::ErrorKind::InvalidInput)?
            .trim_matches(['[', ']'])
            .to_owned();
        let is_secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        if !is_secure {
            return send(stream, &uri, request).await;
        }
        let name = ServerName::try_from(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = self.tls.connect(name, stream).await?;
        send(stream, &uri, request).await
    }
}

impl HttpClient for AcmeClient {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let answer = tokio::time::timeout(LIMIT, client.exchange(request)).await;
            let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let (parts, body) = answer
                .map_err(|error| instant_acme::Error::Other(Box::new(error)))?
                .into_parts();
            Ok(BytesResponse {
                parts,
                body: Box::new(body),
            })
        })
    }
}

async fn send<S>(stream: S, uri: &Uri, mut request: Request<BodyWrapper<Bytes>>) -> io::Result<Response<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let authority = uri.authority().ok_or(io::ErrorKind::InvalidInput)?.as_str();
    request
        .headers_mut()
        .insert(header::HOST, authority.parse().map_err(invalid)?);
    request
        .headers_mut()
        .insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    // RFC 9112 §3.2.1: a server is asked for a path.
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let (parts, body) = answer.into_parts();
    let body = to_bytes(Body::new(body), MAX_ANSWER).await.map_err(io::Error::other)?;
    driver.abort();
    Ok(Response::from_parts(parts, body))
}
