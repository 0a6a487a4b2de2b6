//! What the media sockets have done, readable from any thread.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Totals since start. Written by one shard thread, read by anyone.
        #[derive(Debug, Default)]
        pub struct IoCounters {
            $($(#[$doc])* pub(super) $name: AtomicU64,)*
        }

        /// The values of [`IoCounters`] at one moment (each of its own; they are not a transaction).
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct IoSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl IoCounters {
            pub fn snapshot(&self) -> IoSnapshot {
                IoSnapshot { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    datagrams_received,
    bytes_received,
    /// Messages that recvmmsg returned; fewer than datagrams where GRO grouped them.
    messages_received,
    /// Datagrams larger than `MAX_DATAGRAM`, empty, or without an IP source.
    receive_dropped,
    datagrams_sent,
    bytes_sent,
    /// Messages that sendmmsg took; fewer than datagrams where GSO grouped them.
    messages_sent,
    /// Of the datagrams sent, those that shared their message with others.
    datagrams_grouped,
    /// Datagrams that no socket would take (`DropReason::SendFailed`).
    send_dropped,
    /// GSO groups that were sent again one by one because the path or the device refused the group.
    groups_split,
    /// Coalescable events that found the node's queue full.
    events_dropped,
    /// Datagrams that came from or went to a client of the TURN server.
    relayed_in,
    relayed_out,
    /// Of those, the ones that were for another shard than the one with the TURN server's sockets, each way.
    relayed_across,
    /// Messages to the TURN server that had no effect; and its allocations, now.
    relay_refused,
    relay_allocations,
    /// What a TCP client's full queue, or a connection that is gone, did not take.
    stream_dropped,
    /// TCP connections taken over.
    streams_opened,
    /// Datagrams on a shared port that were for another shard's thread, and that other threads have handed over.
    strays_out,
    strays_in,
    /// Batches of relayed frames that went to other shards, their bytes, and batches that came.
    crossed_out,
    crossed_bytes,
    crossed_in,
    turns,
    /// Time between two waits, in nanoseconds: divided by the time passed, how busy the shard is.
    busy_nanos,
}

/// Says a value that only this thread writes.
pub(super) fn set(value: &AtomicU64, now: u64) {
    value.store(now, Ordering::Relaxed);
}

/// Adds to a counter that only this thread writes.
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    // One writer: a plain load and store is enough, and cheaper than a locked add.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}
