//! A connection to a Redis, as much of one as leases and pins need: one command at a time, RESP2 (redis.io/docs/reference/
//! protocol-spec), with TLS, a password, sentinels, and the redirections of a cluster.
//!
//! Connects when it is first asked for something, and anew after an error. Every wait and every size has a bound: the
//! server on the other end may be none of ours.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// One line of a reply, bytes.
const MAX_LINE: usize = 4096;
/// One text of a reply, bytes: a dispatch that is kept has up to 96 KiB with the names of those who got it.
const MAX_TEXT: usize = 128 << 10;
/// All texts of one reply, bytes: of 32 such dispatches.
const MAX_REPLY: usize = 4 << 20;
/// Elements of one reply: of a small hash Redis gives all there are at once, 512 names and values at most as it is set up.
const MAX_ELEMENTS: usize = 2048;
/// LiveKit: `dial_timeout` where none is given.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// LiveKit: `read_timeout` where none is given.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// LiveKit: `max_redirects` where none is given.
const MAX_REDIRECTS: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    Late,
    #[error("it answers {0}")]
    Refused(String),
    #[error("it does not speak RESP")]
    NotRedis,
    #[error("no sentinel knows the master {0}")]
    NoMaster(String),
}

/// Whom to speak to.
#[derive(Clone)]
pub struct RedisSettings {
    /// `host:port`; of a cluster any of its nodes. Never empty.
    pub addresses: Vec<String>,
    pub username: String,
    pub password: String,
    pub database: u32,
    pub tls: Option<(Arc<ClientConfig>, String)>,
    pub sentinel: Option<Sentinel>,
    /// Zero = as LiveKit has it.
    pub dial_limit: Duration,
    pub answer_limit: Duration,
}

/// `addresses` are then those of sentinels, which know the master's.
#[derive(Clone)]
pub struct Sentinel {
    pub master: String,
    pub username: String,
    pub password: String,
}

/// Passwords must not reach a log.
impl std::fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSettings")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Nil,
    Text(String),
    Number(i64),
    List(Vec<Reply>),
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

type Link = BufReader<Box<dyn Stream>>;

pub struct Redis {
    settings: RedisSettings,
    /// Of a cluster: the node that has the key.
    redirected: Option<String>,
    link: Option<Link>,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Redis").field(&self.settings).finish()
    }
}

impl Redis {
    pub fn new(settings: RedisSettings) -> Self {
        Self {
            settings,
            redirected: None,
            link: None,
        }
    }

    /// For texts.
    pub fn address(&self) -> String {
        self.settings.addresses.join(", ")
    }

    /// One command and its answer.
    ///
    /// # Errors
    /// After any the connection is made anew at the next call.
    pub async fn call(&mut self, command: &[&str]) -> Result<Reply, RedisError> {
        for _ in 0..=MAX_REDIRECTS {
            let mut link = match self.link.take() {
                Some(link) => link,
                None => self.connect().await?,
            };
            let answered = timeout(self.answer_limit(), exchange(&mut link, command)).await;
            match answered.map_err(|_| RedisError::Late)? {
                Err(RedisError::Refused(text)) if text.starts_with("MOVED ") => {
                    // `MOVED 3999 127.0.0.1:6381`: the node that has this key.
                    self.redirected = text.rsplit(' ').next().map(str::to_owned);
                }
                Ok(reply) => {
                    self.link = Some(link);
                    return Ok(reply);
                }
                Err(error) => return Err(error),
            }
        }
        Err(RedisError::Refused("too many redirections".to_owned()))
    }

    fn answer_limit(&self) -> Duration {
        match self.settings.answer_limit {
            Duration::ZERO => ANSWER_LIMIT,
            limit => limit,
        }
    }

    async fn connect(&mut self) -> Result<Link, RedisError> {
        let master;
        let addresses = match (&self.redirected, &self.settings.sentinel) {
            (Some(redirected), _) => std::slice::from_ref(redirected),
            (None, Some(sentinel)) => {
                master = self.ask_sentinels(sentinel).await?;
                std::slice::from_ref(&master)
            }
            (None, None) => self.settings.addresses.as_slice(),
        };
        let mut result = Err(RedisError::NotRedis);
        for address in addresses {
            let settings = &self.settings;
            let names = (
                settings.username.as_str(),
                settings.password.as_str(),
                settings.database,
            );
            result = self.open(address, names).await;
            if result.is_ok() {
                return result;
            }
        }
        self.redirected = None;
        result
    }

    async fn ask_sentinels(&self, sentinel: &Sentinel) -> Result<String, RedisError> {
        for address in &self.settings.addresses {
            let names = (sentinel.username.as_str(), sentinel.password.as_str(), 0);
            let Ok(mut link) = self.open(address, names).await else {
                continue;
            };
            let ask = ["SENTINEL", "get-master-addr-by-name", &sentinel.master];
            let answered = timeout(self.answer_limit(), exchange(&mut link, &ask)).await;
            if let Ok(Ok(Reply::List(list))) = answered
                && let [Reply::Text(host), Reply::Text(port)] = list.as_slice()
            {
                return Ok(format!("{host}:{port}"));
            }
        }
        Err(RedisError::NoMaster(sentinel.master.clone()))
    }

    async fn open(&self, address: &str, names: (&str, &str, u32)) -> Result<Link, RedisError> {
        let limit = match self.settings.dial_limit {
            Duration::ZERO => DIAL_LIMIT,
            limit => limit,
        };
        let opened = timeout(limit, self.shake_hands(address, names)).await;
        opened.map_err(|_| RedisError::Late)?
    }

    async fn shake_hands(
        &self,
        address: &str,
        (username, password, database): (&str, &str, u32),
    ) -> Result<Link, RedisError> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.settings.tls {
            None => Box::new(tcp),
            Some((config, name)) => {
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                let name = if name.is_empty() { host } else { name };
                let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned());
                let name = name.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
                Box::new(TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?)
            }
        };
        let mut link = BufReader::new(stream);
        if !password.is_empty() {
            let auth: &[&str] = match username {
                "" => &["AUTH", password],
                username => &["AUTH", username, password],
            };
            exchange(&mut link, auth).await?;
        }
        if database > 0 {
            exchange(&mut link, &["SELECT", &database.to_string()]).await?;
        }
        Ok(link)
    }
}

async fn exchange(link: &mut Link, command: &[&str]) -> Result<Reply, RedisError> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for word in command {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    link.write_all(&bytes).await?;
    link.flush().await?;
    match read_value(link).await? {
        Value::List(count) => {
            let (mut list, mut bytes) = (Vec::new(), 0);
            for _ in 0..count {
                match read_value(link).await? {
                    Value::Reply(reply) => {
                        if let Reply::Text(text) = &reply {
                            bytes += text.len();
                        }
                        if bytes > MAX_REPLY {
                            return Err(RedisError::NotRedis);
                        }
                        list.push(reply);
                    }
                    Value::List(_) => return Err(RedisError::NotRedis), // nothing we ask is answered so
                }
            }
            Ok(Reply::List(list))
        }
        Value::Reply(reply) => Ok(reply),
    }
}

enum Value {
    Reply(Reply),
    /// So many values follow.
    List(usize),
}

async fn read_value(link: &mut (impl AsyncBufRead + Unpin)) -> Result<Value, RedisError> {
    let mut line = Vec::new();
    let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    (&mut *link).take(limit).read_until(b'\n', &mut line).await?;
    let line = line.strip_suffix(b"\r\n").ok_or(RedisError::NotRedis)?;
    let line = std::str::from_utf8(line).map_err(|_| RedisError::NotRedis)?;
    let (kind, rest) = line.split_at_checked(1).ok_or(RedisError::NotRedis)?;
    let number = || rest.parse::<i64>().map_err(|_| RedisError::NotRedis);
    Ok(match kind {
        "+" => Value::Reply(Reply::Text(rest.to_owned())),
        "-" => return Err(RedisError::Refused(rest.to_owned())),
        ":" => Value::Reply(Reply::Number(number()?)),
        "$" | "*" if number()? < 0 => Value::Reply(Reply::Nil),
        "$" => {
            let len = usize::try_from(number()?).ok().filter(|len| *len <= MAX_TEXT);
            let mut text = vec![0; len.ok_or(RedisError::NotRedis)? + 2];
            link.read_exact(&mut text).await?;
            text.truncate(text.len().saturating_sub(2));
            Value::Reply(Reply::Text(String::from_utf8(text).map_err(|_| RedisError::NotRedis)?))
        }
        "*" => {
            let count = usize::try_from(number()?).ok().filter(|count| *count <= MAX_ELEMENTS);
            Value::List(count.ok_or(RedisError::NotRedis)?)
        }
        _ => return Err(RedisError::NotRedis),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Reply, String> {
        let mut bytes = bytes;
        match read_value(&mut bytes).await {
            Ok(Value::Reply(reply)) => Ok(reply),
            Ok(Value::List(count)) => Err(format!("{count} values")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[tokio::test]
    async fn replies_are_read() {
        assert_eq!(read(b"+OK\r\n").await, Ok(Reply::Text("OK".into())));
        assert_eq!(read(b":-2\r\n").await, Ok(Reply::Number(-2)));
        assert_eq!(read(b"$-1\r\n").await, Ok(Reply::Nil));
        assert_eq!(read(b"*-1\r\n").await, Ok(Reply::Nil));
        assert_eq!(read(b"$3\r\na\nb\r\n").await, Ok(Reply::Text("a\nb".into())));
        assert_eq!(read(b"*2\r\n").await, Err("2 values".into()));
        assert_eq!(
            read(b"-NOAUTH Authentication required.\r\n").await,
            Err("it answers NOAUTH Authentication required.".into())
        );
    }

    #[tokio::test]
    async fn what_is_no_redis_is_not_believed() {
        let endless = vec![b'+'; 100_000];
        let texts: [&[u8]; 8] = [
            b"HTTP/1.1 400 Bad Request\r\n",
            b"$99999999999\r\n",
            b"$999999999\r\n",
            b"*2049\r\n",
            b":x\r\n",
            b"",
            b"+\xff\r\n",
            &endless,
        ];
        for text in texts {
            assert_eq!(read(text).await, Err("it does not speak RESP".into()));
        }
        assert!(read(b"$5\r\nab").await.is_err(), "cut off");
    }
}
