//! AEAD_AES_128_GCM and AEAD_AES_256_GCM (RFC 7714).

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;

use crate::types::DropReason;

pub(super) const TAG: usize = 16;
pub(super) const SALT: usize = 12;

/// One direction's session key of RTP or RTCP, its key schedule kept.
pub(super) struct Gcm {
    key: LessSafeKey,
    salt: [u8; SALT],
}

impl Gcm {
    pub(super) fn new(key: &[u8], salt: [u8; SALT]) -> Result<Self, Unspecified> {
        let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
        Ok(Self {
            key: LessSafeKey::new(UnboundKey::new(algorithm, key)?),
            salt,
        })
    }

    /// RFC 7714 §8.1: 16 zero bits, SSRC, rollover counter, sequence number; XOR salt. That is 16 zero bits, SSRC and the
    /// 48-bit packet index.
    pub(super) fn rtp_nonce(&self, ssrc: u32, index: u64) -> [u8; SALT] {
        self.nonce((u128::from(ssrc) << 48) | u128::from(index & 0xffff_ffff_ffff))
    }

    /// RFC 7714 §9.1: 16 zero bits, SSRC, 16 zero bits, 31-bit SRTCP index; XOR salt.
    pub(super) fn rtcp_nonce(&self, ssrc: u32, index: u32) -> [u8; SALT] {
        self.nonce((u128::from(ssrc) << 48) | u128::from(index))
    }

    fn nonce(&self, value: u128) -> [u8; SALT] {
        let mut nonce = self.salt;
        // The low 96 bits, in network order.
        for (byte, value) in nonce.iter_mut().zip(value.to_be_bytes().into_iter().skip(4)) {
            *byte ^= value;
        }
        nonce
    }

    /// Encrypts `in_out` in place; its tag.
    pub(super) fn seal(
        &self,
        nonce: [u8; SALT],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), DropReason> {
        let sealed = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), in_out)
            .map_err(|_| DropReason::TooLarge)?;
        tag.copy_from_slice(sealed.as_ref());
        Ok(())
    }

    /// Decrypts `in_out` = ciphertext and tag in place. After an error its content is worthless.
    pub(super) fn open(&self, nonce: [u8; SALT], aad: &[u8], in_out: &mut [u8]) -> Result<(), DropReason> {
        self.key
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), in_out)
            .map(|_| ())
            .map_err(|_| DropReason::BadTag)
    }
}
