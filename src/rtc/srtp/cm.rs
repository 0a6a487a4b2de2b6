//! AES_CM_128_HMAC_SHA1_80 (RFC 3711 §4.1.1, §4.2.1), for peers that have no AEAD. Five times the work of GCM.

use aws_lc_rs::cipher::EncryptingKey;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;

use super::kdf;
use crate::types::DropReason;

/// 80 bits of HMAC-SHA1.
pub(super) const TAG: usize = 10;
pub(super) const SALT: usize = 14;
/// RFC 3711 §8.2: 160 bits.
pub(super) const AUTHENTICATION_KEY: usize = 20;

/// One direction's session keys of RTP or RTCP, key schedules kept.
pub(super) struct Cm {
    cipher: EncryptingKey,
    salt: [u8; SALT],
    authentication: hmac::Key,
}

impl Cm {
    pub(super) fn new(
        key: &[u8],
        salt: [u8; SALT],
        authentication: &[u8; AUTHENTICATION_KEY],
    ) -> Result<Self, Unspecified> {
        Ok(Self {
            cipher: kdf::counter_mode_key(key)?,
            salt,
            authentication: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, authentication),
        })
    }

    /// En- or decrypts in place. RFC 3711 §4.1.1: counter = (salt * 2^16) XOR (SSRC * 2^64) XOR (index * 2^16).
    pub(super) fn crypt(&self, ssrc: u32, index: u64, in_out: &mut [u8]) -> Result<(), DropReason> {
        let mut counter = [0u8; 16];
        let value = ((u128::from(ssrc) << 64) | (u128::from(index & 0xffff_ffff_ffff) << 16)).to_be_bytes();
        let salt = self.salt.iter().chain([0u8; 2].iter());
        for ((byte, salt), value) in counter.iter_mut().zip(salt).zip(value) {
            *byte = salt ^ value;
        }
        kdf::apply_keystream(&self.cipher, counter, in_out).map_err(|_| DropReason::TooLarge)
    }

    /// Of the authenticated portion followed by `trailer`: the rollover counter for RTP, nothing for RTCP.
    pub(super) fn tag(&self, portion: &[u8], trailer: &[u8]) -> [u8; TAG] {
        let mut context = hmac::Context::with_key(&self.authentication);
        context.update(portion);
        context.update(trailer);
        let full = context.sign();
        let mut tag = [0u8; TAG];
        for (byte, full) in tag.iter_mut().zip(full.as_ref()) {
            *byte = *full;
        }
        tag
    }

    pub(super) fn verify(&self, portion: &[u8], trailer: &[u8], tag: &[u8]) -> Result<(), DropReason> {
        verify_slices_are_equal(&self.tag(portion, trailer), tag).map_err(|_| DropReason::BadTag)
    }
}
