//! Chance that comes from the seed also where code asks the operating system for it.
//!
//! Replaces libc's `getrandom` in this test program, for each thread by itself; the standard library looks the symbol up so
//! that this can be done. So the hash tables of the peers (whose order is the order of their reports), their credentials
//! and the first numbers of SCTP replay. What AWS-LC draws for itself does not: the keys of DTLS, and with them the sealed
//! bytes, whose sizes do not depend on it.

#![allow(unsafe_code)] // a symbol that C code knows, and a buffer of it

use std::cell::Cell;

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// Calls `story` in a thread of its own, with chance from this seed.
pub fn replayable<T: Send>(seed: u64, story: impl FnOnce() -> T + Send) -> T {
    let result = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            STATE.set(seed);
            story()
        });
        thread.join()
    });
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// SplitMix64.
fn next() -> u64 {
    STATE
        .try_with(|state| {
            state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
            let mut z = state.get();
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        })
        .unwrap_or_default()
}

// SAFETY: no other function of this program has the name; libc's own is not called by libc itself under it.
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller's contract: `length` bytes that may be written.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    for chunk in buffer.chunks_mut(8) {
        chunk.copy_from_slice(&next().to_ne_bytes()[..chunk.len()]);
    }
    length as isize
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn hash_tables_and_random_numbers_replay() {
        let drawn = |seed| replayable(seed, || (RandomState::new().hash_one(7), rand::random::<u64>()));
        assert_eq!(drawn(1), drawn(1));
        let (first, second) = (drawn(1), drawn(2));
        assert!(first.0 != second.0 && first.1 != second.1);
    }
}
