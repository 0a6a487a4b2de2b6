//! Nonces that need no memory: an expiry and a keyed hash of it with the client's address.

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// RFC 8656 §5: at most an hour. A client that refreshes later gets a 438 with the next one.
pub(super) const NONCE_LIFETIME: Duration = Duration::from_secs(600);

/// Bytes: 4 of expiry (seconds since 1970), 8 of hash. 12 bytes are 16 characters without padding.
const EXPIRY: usize = 4;
const NONCE: usize = 12;

pub(super) struct Nonces {
    key: hmac::Key,
}

impl Nonces {
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    pub(super) fn issue(&self, client: SocketAddr, unix: Duration) -> String {
        // Seconds since 1970 fit 32 bits until 2106; the comparison below wraps with them.
        let expiry = ((unix + NONCE_LIFETIME).as_secs() as u32).to_be_bytes();
        STANDARD.encode(self.whole(client, expiry))
    }

    pub(super) fn is_fresh(&self, nonce: &[u8], client: SocketAddr, unix: Duration) -> bool {
        let mut given = [0; NONCE];
        let Ok(NONCE) = STANDARD.decode_slice(nonce, &mut given) else {
            return false;
        };
        let Some(expiry) = given.first_chunk::<EXPIRY>() else {
            return false;
        };
        let left = u32::from_be_bytes(*expiry).wrapping_sub(unix.as_secs() as u32);
        left <= NONCE_LIFETIME.as_secs() as u32
            && aws_lc_rs::constant_time::verify_slices_are_equal(&self.whole(client, *expiry), &given).is_ok()
    }

    fn whole(&self, client: SocketAddr, expiry: [u8; EXPIRY]) -> [u8; NONCE] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&expiry);
        match client {
            SocketAddr::V4(v4) => context.update(&v4.ip().octets()),
            SocketAddr::V6(v6) => context.update(&v6.ip().octets()),
        }
        context.update(&client.port().to_be_bytes());
        let tag = context.sign();
        let mut nonce = [0; NONCE];
        for (target, source) in nonce.iter_mut().zip(expiry.iter().chain(tag.as_ref())) {
            *target = *source;
        }
        nonce
    }
}
