//! The values of header extension elements: reading them from, and writing them as, the bytes of one element.
//!
//! Mid, rid and repaired rid are text: `Mid::from_bytes`, `Rid::from_bytes`. The dependency descriptor has a module of
//! its own. A value that is longer than needed is read by its first bytes: extensions grow at their end.

use std::time::Duration;

use super::cursor::Reader;

/// Client-to-mixer audio level, RFC 6464.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioLevel {
    /// The sender's own opinion; many set it always or never.
    pub voice: bool,
    /// -dBov: 0 is the loudest, 127 silence.
    pub level: u8,
}

impl AudioLevel {
    pub fn read(value: &[u8]) -> Option<Self> {
        let byte = *value.first()?;
        Some(Self {
            voice: byte & 0x80 != 0,
            level: byte & 0x7f,
        })
    }

    pub fn to_bytes(self) -> [u8; 1] {
        [u8::from(self.voice) << 7 | self.level & 0x7f]
    }
}

/// The transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01 §2).
pub fn transport_cc(value: &[u8]) -> Option<u16> {
    Reader::new(value).u16()
}

/// The 24 bits of abs-send-time: seconds modulo 64 in 6.18 fixed point.
pub fn read_abs_send_time(value: &[u8]) -> Option<u32> {
    Reader::new(value).u24()
}

/// A time as abs-send-time, 6.18 fixed point, wrapping every 64 s; any epoch does as long as it is kept.
pub fn abs_send_time(since_epoch: Duration) -> u32 {
    let seconds = since_epoch.as_secs() as u32 & 0x3f; // modulo 64: the upper bits are not sent
    let fraction = (u64::from(since_epoch.subsec_nanos()) << 18) / 1_000_000_000;
    seconds << 18 | fraction as u32
}

/// `http://www.webrtc.org/experiments/rtp-hdrext/playout-delay`: the range the receiver's jitter buffer may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlayoutDelay {
    /// Milliseconds, kept in steps of 10, at most 40 950.
    pub min_ms: u16,
    pub max_ms: u16,
}

impl PlayoutDelay {
    const MAX_STEPS: u32 = 0xfff;

    pub fn read(value: &[u8]) -> Option<Self> {
        let both = Reader::new(value).u24()?;
        Some(Self {
            min_ms: (both >> 12) as u16 * 10,
            max_ms: (both & Self::MAX_STEPS) as u16 * 10,
        })
    }

    pub fn to_bytes(self) -> [u8; 3] {
        let steps = |ms: u16| u32::from(ms / 10).min(Self::MAX_STEPS);
        let [_, a, b, c] = (steps(self.min_ms) << 12 | steps(self.max_ms)).to_be_bytes();
        [a, b, c]
    }
}

/// `urn:3gpp:video-orientation`, 3GPP TS 26.114 §7.4.5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VideoOrientation {
    pub back_camera: bool,
    /// Mirrored horizontally before rotation.
    pub flipped: bool,
    /// Quarter turns clockwise that the receiver has to make, 0..=3.
    pub quarter_turns: u8,
}

impl VideoOrientation {
    pub fn read(value: &[u8]) -> Option<Self> {
        let byte = *value.first()?;
        Some(Self {
            back_camera: byte & 8 != 0,
            flipped: byte & 4 != 0,
            quarter_turns: byte & 3,
        })
    }

    pub fn to_bytes(self) -> [u8; 1] {
        [u8::from(self.back_camera) << 3 | u8::from(self.flipped) << 2 | self.quarter_turns & 3]
    }
}

/// `http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsCaptureTime {
    /// 64-bit NTP time of capture on the capturer's clock.
    pub ntp: u64,
    /// The capturer's clock minus the sender's, in signed 32.32 fixed point seconds.
    pub clock_offset: Option<i64>,
}

/// An encoded [`AbsCaptureTime`]: 8 or 16 bytes.
#[derive(Clone, Copy, Debug)]
pub struct AbsCaptureTimeBytes {
    bytes: [u8; 16],
    len: usize,
}

impl AbsCaptureTimeBytes {
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl AbsCaptureTime {
    pub fn read(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value);
        Some(Self {
            ntp: reader.u64()?,
            clock_offset: reader.u64().map(u64::cast_signed),
        })
    }

    pub fn to_bytes(self) -> AbsCaptureTimeBytes {
        let both = u128::from(self.ntp) << 64 | u128::from(self.clock_offset.unwrap_or(0).cast_unsigned());
        AbsCaptureTimeBytes {
            bytes: both.to_be_bytes(),
            len: if self.clock_offset.is_some() { 16 } else { 8 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_level() {
        let level = AudioLevel::read(&[0xa3]).unwrap();
        assert_eq!((level.voice, level.level), (true, 35));
        assert_eq!(level.to_bytes(), [0xa3]);
        assert_eq!(AudioLevel::read(&[]), None);
    }

    #[test]
    fn send_times() {
        assert_eq!(abs_send_time(Duration::from_secs(1)), 1 << 18);
        assert_eq!(abs_send_time(Duration::from_millis(64_500)), 1 << 17);
        assert_eq!(abs_send_time(Duration::new(63, 999_999_999)), 0xff_ffff);
        assert_eq!(read_abs_send_time(&[1, 2, 3]), Some(0x01_0203));
        assert_eq!(read_abs_send_time(&[1, 2]), None);
        assert_eq!(transport_cc(&[1, 2]), Some(0x0102));
        assert_eq!(transport_cc(&[1]), None);
    }

    #[test]
    fn playout_delay_is_in_steps_of_10_ms() {
        let delay = PlayoutDelay {
            min_ms: 100,
            max_ms: 40_950,
        };
        assert_eq!(delay.to_bytes(), [0x00, 0xaf, 0xff]);
        assert_eq!(PlayoutDelay::read(&delay.to_bytes()), Some(delay));
        assert_eq!(
            PlayoutDelay {
                min_ms: 0,
                max_ms: u16::MAX
            }
            .to_bytes(),
            [0, 0x0f, 0xff]
        );
    }

    #[test]
    fn orientation() {
        let orientation = VideoOrientation {
            back_camera: true,
            flipped: false,
            quarter_turns: 3,
        };
        assert_eq!(orientation.to_bytes(), [0x0b]);
        assert_eq!(VideoOrientation::read(&[0xfb]), Some(orientation));
    }

    #[test]
    fn capture_time_with_and_without_offset() {
        for clock_offset in [None, Some(-5)] {
            let time = AbsCaptureTime {
                ntp: 0x0102_0304_0506_0708,
                clock_offset,
            };
            let bytes = time.to_bytes();
            assert_eq!(bytes.as_bytes().len(), if clock_offset.is_some() { 16 } else { 8 });
            assert_eq!(AbsCaptureTime::read(bytes.as_bytes()), Some(time));
        }
        assert_eq!(AbsCaptureTime::read(&[0; 7]), None);
    }
}
