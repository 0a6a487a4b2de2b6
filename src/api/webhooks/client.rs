//! One POST to one URL: addresses are looked up and judged here, so that what was judged is what is connected to.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::tls::{self, Trust};
use crate::types::{is_link_local, is_metadata_service, is_public};

/// For one address to accept.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For the whole exchange.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(30);

/// What receivers of LiveKit's webhooks know and some of them check.
const USER_AGENT: &str = "LiveKit";
const CONTENT_TYPE: &str = "application/webhook+json";

/// Under these the Internet has no names: RFC 6761, RFC 6762 (with its appendix G), RFC 8375, ICANN's `internal`, and what
/// Kubernetes calls its services.
const PRIVATE_ZONES: [&str; 11] = [
    "localhost",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "svc",
    "test",
];

#[derive(Clone, Debug, thiserror::Error)]
pub enum UrlError {
    #[error("not a URL")]
    NotAUrl,
    #[error("neither http nor https")]
    Scheme,
}

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("cannot look up the host: {0}")]
    LookUp(std::io::Error),
    #[error("the host has no address that webhooks are sent to (webhook.allow_private_addresses)")]
    Refused,
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("no exchange of HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("not to be sent: {0}")]
    Request(#[from] axum::http::Error),
    #[error("no answer in time")]
    Late,
}

/// Where a webhook goes.
#[derive(Clone, Debug)]
pub struct Target {
    pub url: String,
    host: String,
    port: u16,
    secure: bool,
    /// The value of `Host`.
    authority: String,
    path: String,
}

impl Target {
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let uri: Uri = url.parse().map_err(|_| UrlError::NotAUrl)?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(UrlError::Scheme),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(UrlError::NotAUrl)?;
        Ok(Self {
            url: url.to_owned(),
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            secure,
            authority: match uri.port() {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            },
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    /// Its host is written as a private address, or as a name that only a private network knows: of one label, as containers
    /// have, or under one of `PRIVATE_ZONES`.
    fn is_written_private(&self) -> bool {
        if let Ok(address) = self.host.parse() {
            return !is_public(address);
        }
        let host = self.host.trim_end_matches('.').to_ascii_lowercase();
        let is_under = |zone: &str| host.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'));
        !host.contains('.') || PRIVATE_ZONES.into_iter().any(is_under)
    }

    /// Whether a webhook for this target may go to `address`.
    ///
    /// Whoever writes a private address or a private network's name into the configuration has allowed it by that, as
    /// Fluxer's containers do (`http://api:8080`): no further word is asked for. A public name is another matter: who
    /// answers for it may let it point at this machine or its networks at any time. What tells machines their credentials
    /// takes no webhooks, whoever names it.
    fn may_go_to(&self, address: IpAddr, allow_private: bool) -> bool {
        if is_metadata_service(address) {
            return false;
        }
        is_public(address) || allow_private || (self.is_written_private() && !is_link_local(address))
    }
}

/// Sends webhooks; holds the certificates of the machine's authorities.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
    allow_private: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("allow_private", &self.allow_private)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Reads the machine's certificates; blocks.
    pub fn new(allow_private: bool) -> Self {
        // There is no file to read, and the provider has the suites of these versions: this cannot fail.
        let tls = tls::connector(Trust::Machine).unwrap_or_else(|error| panic!("TLS: {error}"));
        Self { tls, allow_private }
    }

    /// The receiver's status. Redirections are not followed: they would lead past the judgement of addresses.
    pub async fn post(&self, target: &Target, token: &str, body: Bytes) -> Result<StatusCode, SendError> {
        tokio::time::timeout(EXCHANGE_LIMIT, self.exchange(target, token, body))
            .await
            .map_err(|_| SendError::Late)?
    }

    async fn exchange(&self, target: &Target, token: &str, body: Bytes) -> Result<StatusCode, SendError> {
        let addresses: Vec<SocketAddr> = lookup_host((target.host.as_str(), target.port))
            .await
            .map_err(SendError::LookUp)?
            .filter(|address| target.may_go_to(address.ip(), self.allow_private))
            .collect();
        let stream = connect(&addresses).await?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&target.path)
            .header(header::HOST, &target.authority)
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .header(header::CONTENT_LENGTH, body.len())
            // LiveKit: the token alone, without "Bearer".
            .header(header::AUTHORIZATION, token)
            .header(header::CONNECTION, "close")
            .body(Body::from(body))?;
        if !target.secure {
            return send(stream, request).await;
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|error| SendError::Connect(invalid(error)))?;
        let stream = self.tls.connect(name, stream).await.map_err(SendError::Connect)?;
        send(stream, request).await
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidInput, error)
}

async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, SendError> {
    let mut last = SendError::Refused;
    for address in addresses {
        match tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = SendError::Connect(error),
            Err(_) => last = SendError::Late,
        }
    }
    Err(last)
}

async fn send<S>(stream: S, request: Request<Body>) -> Result<StatusCode, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    // The status is all that counts: the body is not read.
    driver.abort();
    Ok(answer?.status())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_a_host_a_port_and_a_path() {
        for (url, host, port, authority, path) in [
            ("http://example.com", "example.com", 80, "example.com", "/"),
            (
                "https://example.com/hook?a=b",
                "example.com",
                443,
                "example.com",
                "/hook?a=b",
            ),
            ("http://[::1]:8080/x", "::1", 8080, "[::1]:8080", "/x"),
            ("http://user:pass@10.0.0.1:81/", "10.0.0.1", 81, "10.0.0.1:81", "/"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!(
                (
                    target.host.as_str(),
                    target.port,
                    target.authority.as_str(),
                    target.path.as_str()
                ),
                (host, port, authority, path)
            );
        }
        for bad in ["", "example.com/hook", "ftp://example.com/", "/hook", "http://"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_private_network_that_the_operator_has_named_is_allowed_and_no_other() {
        // Where webhooks may go without `allow_private_addresses`, and with it.
        for (url, address, by_itself, allowed) in [
            ("http://api:8080/webhooks/livekit", "172.18.0.3", true, true),
            ("http://api:8080/webhooks/livekit", "fd12::3", true, true),
            ("http://10.0.0.1:81/", "10.0.0.1", true, true),
            ("http://[::1]:8080/x", "::1", true, true),
            ("http://localhost:3000/hook", "127.0.0.1", true, true),
            ("http://api.chat.svc.cluster.local/", "10.96.0.7", true, true),
            ("http://Api.Home.Arpa./", "192.168.1.2", true, true),
            ("http://api.example.com/", "203.0.114.9", true, true),
            // A public name that leads into a private network may be another's doing.
            ("http://api.example.com/", "10.0.0.1", false, true),
            ("http://api.example.com/", "::ffff:127.0.0.1", false, true),
            ("http://notlocal.example.homelan/", "192.168.1.2", false, true),
            ("http://api:8080/", "169.254.7.7", false, true),
            // Nobody's receiver is there.
            ("http://169.254.169.254/latest", "169.254.169.254", false, false),
            ("http://metadata.google.internal/", "169.254.169.254", false, false),
            ("http://api:8080/", "::ffff:169.254.169.254", false, false),
            ("http://api:8080/", "fd00:ec2::254", false, false),
            ("http://api:8080/", "100.100.100.200", false, false),
        ] {
            let (target, address) = (Target::parse(url).unwrap(), address.parse().unwrap());
            let outcome = [false, true].map(|allow_private| target.may_go_to(address, allow_private));
            assert_eq!(outcome, [by_itself, allowed], "{url} at {address}");
        }
    }
}
