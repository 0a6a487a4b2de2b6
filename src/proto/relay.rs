//! Credentials of TURN servers, made and read: LiveKit's scheme for the one in this process, the REST scheme for those of
//! others. And what of it clients are told.

use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::livekit::IceServer;

/// What one entry of `ice_servers` is made from, for each participant anew.
#[derive(Clone, PartialEq)]
pub enum IceServerSource {
    /// The same for everybody: STUN, or TURN with a fixed password.
    Fixed(IceServer),
    /// The TURN server in this process.
    Embedded { urls: Vec<String>, lifetime: Duration },
    /// TURN with a shared secret (draft-uberti-behave-turn-rest).
    Rest {
        urls: Vec<String>,
        secret: String,
        lifetime: Duration,
    },
}

/// Secrets must not reach a log.
impl std::fmt::Debug for IceServerSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(server) => f.debug_tuple("Fixed").field(&server.urls).finish(),
            Self::Embedded { urls, lifetime } => f.debug_tuple("Embedded").field(urls).field(lifetime).finish(),
            Self::Rest { urls, lifetime, .. } => f.debug_tuple("Rest").field(urls).field(lifetime).finish(),
        }
    }
}

impl From<IceServer> for IceServerSource {
    fn from(server: IceServer) -> Self {
        Self::Fixed(server)
    }
}

impl IceServerSource {
    /// It is a relay that is reached by TCP.
    pub fn relays_streams(&self) -> bool {
        let urls = match self {
            Self::Fixed(server) => &server.urls,
            Self::Embedded { urls, .. } | Self::Rest { urls, .. } => urls,
        };
        urls.iter()
            .any(|url| url.starts_with("turn") && url.ends_with("transport=tcp"))
    }

    /// The entry for `participant` (its sid), whose token `api_key` with `secret` has signed. `unix`: now, since 1970.
    pub fn for_participant(&self, participant: &str, api_key: &str, secret: &str, unix: Duration) -> IceServer {
        match self {
            Self::Fixed(server) => server.clone(),
            Self::Embedded { urls, lifetime } => {
                let expiry = (unix + *lifetime).as_secs();
                IceServer {
                    urls: urls.clone(),
                    username: username(api_key, participant, expiry),
                    credential: password(secret, participant, expiry),
                }
            }
            Self::Rest { urls, secret, lifetime } => {
                let username = format!("{}:{participant}", (unix + *lifetime).as_secs());
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
                IceServer {
                    urls: urls.clone(),
                    credential: STANDARD.encode(hmac::sign(&key, username.as_bytes())),
                    username,
                }
            }
        }
    }
}

/// What a username says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayUser {
    pub api_key: String,
    /// `PA_…`
    pub participant: String,
    /// Seconds since 1970.
    pub expiry: u64,
}

/// LiveKit: base62 of `apiKey|participantID|expiry`. Clients do not look inside; only `read_username` must.
pub fn username(api_key: &str, participant: &str, expiry: u64) -> String {
    base62(format!("{api_key}|{participant}|{expiry}").as_bytes())
}

/// LiveKit: base62 of the SHA-256 of `secret|participantID|expiry`.
pub fn password(secret: &str, participant: &str, expiry: u64) -> String {
    let text = format!("{secret}|{participant}|{expiry}");
    base62(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

/// None for what `username` never makes.
pub fn read_username(username: &str) -> Option<RelayUser> {
    let text = String::from_utf8(from_base62(username)?).ok()?;
    let (rest, expiry) = text.rsplit_once('|')?;
    let (api_key, participant) = rest.rsplit_once('|')?;
    Some(RelayUser {
        api_key: api_key.to_owned(),
        participant: participant.to_owned(),
        expiry: expiry.parse().ok()?,
    })
}

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Eight bytes are eleven digits: 62^11 > 2^64.
const BLOCK: usize = 8;
const DIGITS: usize = 11;

/// Digits that n bytes of a block need.
fn digits(bytes: usize) -> usize {
    // log62(256) = 1.3436
    (bytes * 13_436).div_ceil(10_000)
}

fn base62(bytes: &[u8]) -> String {
    let mut out = String::new();
    for block in bytes.chunks(BLOCK) {
        let mut value = block.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        let mut text = [0; DIGITS];
        let text = &mut text[..digits(block.len())];
        for digit in text.iter_mut().rev() {
            *digit = ALPHABET[(value % 62) as usize];
            value /= 62;
        }
        out.extend(text.iter().map(|digit| char::from(*digit)));
    }
    out
}

fn from_base62(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for block in text.as_bytes().chunks(DIGITS) {
        let length = (1..=BLOCK).find(|length| digits(*length) == block.len())?;
        let mut value = 0u128;
        for digit in block {
            let digit = ALPHABET.iter().position(|known| known == digit)?;
            value = value * 62 + digit as u128;
        }
        if value >> (8 * length) != 0 {
            return None;
        }
        out.extend_from_slice(&(value as u64).to_be_bytes()[BLOCK - length..]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_username_says_who_and_until_when() {
        for (api_key, participant) in [("devkey", "PA_abcdefghijkl"), ("with|bar", "PA_x"), ("", "")] {
            let name = username(api_key, participant, 1_790_000_300);
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            let read = read_username(&name).unwrap();
            assert_eq!(
                (read.api_key.as_str(), read.participant.as_str()),
                (api_key, participant)
            );
            assert_eq!(read.expiry, 1_790_000_300);
        }
        for wrong in ["", "1790000300:PA_x", "zzzzzzzzzzz", "abc def", "0"] {
            assert_eq!(read_username(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_length_comes_back() {
        for length in 0..40u8 {
            let bytes: Vec<u8> = (0..length).map(|byte| byte.wrapping_mul(37) ^ 0xff).collect();
            assert_eq!(from_base62(&base62(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn credentials_are_of_one_participant_for_a_time() {
        let unix = Duration::from_secs(1_790_000_000);
        let embedded = IceServerSource::Embedded {
            urls: vec!["turn:203.0.113.5:3478?transport=udp".into()],
            lifetime: Duration::from_secs(300),
        };
        let alice = embedded.for_participant("PA_alice", "devkey", "secret", unix);
        assert_eq!(read_username(&alice.username).unwrap().expiry, 1_790_000_300);
        assert_eq!(alice.credential, password("secret", "PA_alice", 1_790_000_300));
        assert_ne!(alice.credential, password("secret", "PA_bob", 1_790_000_300));

        let rest = IceServerSource::Rest {
            urls: Vec::new(),
            secret: "shared".into(),
            lifetime: Duration::from_secs(14_400),
        };
        let alice = rest.for_participant("PA_alice", "devkey", "secret", unix);
        assert_eq!(alice.username, "1790014400:PA_alice");
        // printf '1790014400:PA_alice' | openssl dgst -sha1 -hmac shared -binary | base64
        assert_eq!(alice.credential, "ASThil1+bnuhF9zY+oP7Hh/p0zE=");
    }
}
