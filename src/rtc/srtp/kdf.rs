//! Session keys from the master key (RFC 3711 §4.3), with the AES counter-mode generator that all profiles use.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;

/// RFC 3711 §4.3.2: labels of the SRTP keys; those of SRTCP are 3 higher.
pub(super) const LABEL_ENCRYPTION: u8 = 0;
pub(super) const LABEL_AUTHENTICATION: u8 = 1;
pub(super) const LABEL_SALT: u8 = 2;
pub(super) const SRTCP_LABELS: u8 = 3;

/// The length of the salt the generator works on, RFC 3711 §4.3.1. AEAD salts (12 bytes) are padded with zeros on the
/// right (RFC 7714 §11).
pub(super) const MASTER_SALT: usize = 14;

/// A key that encrypts in counter mode. Built once per session key: the key schedule is kept.
pub(super) fn counter_mode_key(key: &[u8]) -> Result<EncryptingKey, Unspecified> {
    let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
    EncryptingKey::ctr(UnboundCipherKey::new(algorithm, key)?)
}

/// Applies the keystream that starts at `counter` to `in_out`; its own inverse.
pub(super) fn apply_keystream(key: &EncryptingKey, counter: [u8; 16], in_out: &mut [u8]) -> Result<(), Unspecified> {
    key.less_safe_encrypt(in_out, EncryptionContext::Iv128(FixedLength::from(counter)))?;
    Ok(())
}

/// Fills `out` with the session key for `label`; a key derivation rate of zero, as DTLS-SRTP has it.
pub(super) fn derive(master_key: &[u8], master_salt: &[u8], label: u8, out: &mut [u8]) -> Result<(), Unspecified> {
    // x = (label || 48 zero bits) XOR salt, counter = x * 2^16.
    let mut counter = [0u8; 16];
    for (byte, salt) in counter.iter_mut().zip(master_salt.iter().take(MASTER_SALT)) {
        *byte = *salt;
    }
    if let Some(byte) = counter.get_mut(7) {
        *byte ^= label;
    }
    out.fill(0);
    apply_keystream(&counter_mode_key(master_key)?, counter, out)
}

#[cfg(test)]
mod tests {
    use super::super::tests::bytes;
    use super::*;

    /// RFC 3711 appendix B.2.
    #[test]
    fn keystream_of_rfc3711_b2() {
        let key = counter_mode_key(&bytes("2B7E151628AED2A6ABF7158809CF4F3C")).expect("a key");
        let mut counter = [0u8; 16];
        counter.copy_from_slice(&bytes("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000"));
        let mut stream = vec![0u8; 0xff02 * 16];
        apply_keystream(&key, counter, &mut stream).expect("a keystream");
        assert_eq!(stream[..16], bytes("E03EAD0935C95E80E166B16DD92B4EB4"));
        assert_eq!(stream[16..32], bytes("D23513162B02D0F72A43A2FE4A5F97AB"));
        assert_eq!(stream[32..48], bytes("41E95B3BB0A2E8DD477901E4FCA894C0"));
        assert_eq!(
            stream[0xfeff * 16..0xff00 * 16],
            bytes("EC8CDF7398607CB0F2D21675EA9EA1E4")
        );
        assert_eq!(
            stream[0xff00 * 16..0xff01 * 16],
            bytes("362B7C3C6773516318A077D7FC5073AE")
        );
        assert_eq!(stream[0xff01 * 16..], bytes("6A2CC3787889374FBEB4C81B17BA6C44"));
    }

    /// RFC 3711 appendix B.3.
    #[test]
    fn session_keys_of_rfc3711_b3() {
        let key = bytes("E1F97A0D3E018BE0D64FA32C06DE4139");
        let salt = bytes("0EC675AD498AFEEBB6960B3AABE6");
        let mut cipher = [0u8; 16];
        derive(&key, &salt, LABEL_ENCRYPTION, &mut cipher).expect("a key");
        assert_eq!(cipher[..], bytes("C61E7A93744F39EE10734AFE3FF7A087"));
        let mut session_salt = [0u8; 14];
        derive(&key, &salt, LABEL_SALT, &mut session_salt).expect("a salt");
        assert_eq!(session_salt[..], bytes("30CBBC08863D8C85D49DB34A9AE1"));
        let mut auth = [0u8; 94];
        derive(&key, &salt, LABEL_AUTHENTICATION, &mut auth).expect("a key");
        assert_eq!(
            auth[..],
            bytes(
                "CEBE321F6FF7716B6FD4AB49AF256A15 6D38BAA48F0A0ACF3C34E2359E6CDBCE \
                 E049646C43D9327AD175578EF7227098 6371C10C9A369AC2F94A8C5FBCDDDC25 \
                 6D6E919A48B610EF17C2041E47403576 6B68642C59BBFC2F34DB60DBDFB2"
            )
        );
    }
}
