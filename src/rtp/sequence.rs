//! Extending wrapping counters to 64 bits: sequence numbers (16 bits) and timestamps (32 bits).

/// Extends 16-bit sequence numbers: each is taken as the one nearest to the highest seen.
///
/// The first number lands in cycle 1, so that packets reordered before it still have a number: the cycle count of
/// RFC 3550 §6.4.1 is `(extended >> 16) - 1`.
#[derive(Clone, Debug, Default)]
pub struct Extender {
    highest: Option<u64>,
}

impl Extender {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn extend(&mut self, sequence: u16) -> u64 {
        let extended = self.peek(sequence);
        self.highest = self.highest.max(Some(extended));
        extended
    }

    /// As `extend`, without moving the highest: for numbers that only refer to packets, as NACKs do.
    pub fn peek(&self, sequence: u16) -> u64 {
        match self.highest {
            // The low 16 bits of `highest` are its sequence number.
            Some(highest) => {
                let distance = sequence.wrapping_sub(highest as u16) as i16;
                highest.saturating_add_signed(i64::from(distance))
            }
            None => 1 << 16 | u64::from(sequence),
        }
    }

    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// Extends 32-bit RTP timestamps in the same way; the first lands in cycle 1.
#[derive(Clone, Debug, Default)]
pub struct TimestampExtender {
    highest: Option<u64>,
}

impl TimestampExtender {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn extend(&mut self, timestamp: u32) -> u64 {
        let extended = self.peek(timestamp);
        self.highest = self.highest.max(Some(extended));
        extended
    }

    /// As `extend`, without moving the highest.
    pub fn peek(&self, timestamp: u32) -> u64 {
        match self.highest {
            Some(highest) => {
                let distance = timestamp.wrapping_sub(highest as u32) as i32;
                highest.saturating_add_signed(i64::from(distance))
            }
            None => 1 << 32 | u64::from(timestamp),
        }
    }

    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wraps_forward_and_back() {
        let mut extender = Extender::new();
        assert_eq!(extender.extend(65_534), 0x1_fffe);
        assert_eq!(extender.extend(1), 0x2_0001);
        assert_eq!(extender.extend(65_535), 0x1_ffff);
        assert_eq!(extender.highest(), Some(0x2_0001));
        assert_eq!(extender.extend(0), 0x2_0000);
    }

    #[test]
    fn packets_before_the_first_have_a_number() {
        let mut extender = Extender::new();
        assert_eq!(extender.extend(0), 0x1_0000);
        assert_eq!(extender.extend(65_535), 0x0_ffff);
        assert_eq!(extender.peek(5), 0x1_0005);
        assert_eq!(extender.highest(), Some(0x1_0000));
    }

    proptest! {
        #[test]
        fn follows_any_walk_of_less_than_half_a_cycle(start in any::<u16>(), steps in proptest::collection::vec(-30_000i64..30_000, 0..200)) {
            let mut extender = Extender::new();
            let mut highest = extender.extend(start);
            for step in steps {
                let want = highest.saturating_add_signed(step);
                prop_assert_eq!(extender.extend(want as u16), want);
                highest = highest.max(want);
                prop_assert_eq!(extender.highest(), Some(highest));
            }
        }

        #[test]
        fn timestamps_too(start in any::<u32>(), steps in proptest::collection::vec(-2_000_000_000i64..2_000_000_000, 0..200)) {
            let mut extender = TimestampExtender::new();
            let mut highest = extender.extend(start);
            for step in steps {
                let want = highest.saturating_add_signed(step);
                prop_assert_eq!(extender.extend(want as u32), want);
                highest = highest.max(want);
            }
        }

        #[test]
        fn any_numbers_are_taken(numbers in proptest::collection::vec(any::<u16>(), 0..500)) {
            let mut extender = Extender::new();
            for number in numbers {
                prop_assert_eq!(extender.extend(number) as u16, number);
            }
        }
    }
}
