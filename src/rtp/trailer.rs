//! LiveKit's packet trailer: frame metadata that clients append to the last packet of a frame.

const MAGIC: &[u8] = b"LKTS";
/// The length byte and the magic.
const ENVELOPE: usize = 5;

/// Bytes to cut off the end of a payload for subscribers that do not understand the trailer; 0 = there is none.
///
// LiveKit: only packets with the marker bit carry one; the last bytes are the trailer's whole length XOR 0xFF and
// "LKTS". End-to-end encryption leaves it readable.
pub fn len(payload: &[u8], marker: bool) -> usize {
    if !marker {
        return 0;
    }
    match payload.strip_suffix(MAGIC).and_then(<[u8]>::last) {
        Some(byte) => {
            let len = usize::from(byte ^ 0xff);
            if (ENVELOPE..=payload.len()).contains(&len) {
                len
            } else {
                0
            }
        }
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(before: &[u8], len: u8) -> Vec<u8> {
        let mut bytes = before.to_vec();
        bytes.push(len ^ 0xff);
        bytes.extend_from_slice(MAGIC);
        bytes
    }

    #[test]
    fn found_only_where_it_can_be() {
        assert_eq!(len(&payload(&[1, 2, 3], 7), true), 7);
        assert_eq!(len(&payload(&[1, 2, 3], 8), true), 8);
        assert_eq!(len(&payload(&[1, 2, 3], 7), false), 0, "no marker");
        assert_eq!(len(&payload(&[1, 2, 3], 9), true), 0, "longer than the payload");
        assert_eq!(len(&payload(&[1, 2, 3], 4), true), 0, "shorter than itself");
        assert_eq!(len(MAGIC, true), 0);
        assert_eq!(len(&[], true), 0);
    }
}
