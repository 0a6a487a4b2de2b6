//! The ways between shard threads: batches of relayed frames one way, their empty buffers back.
//!
//! Owns a bounded queue per ordered pair of shards. A full one is told to the core, which keeps the batch and leaves out
//! what can be spared; nothing waits here, and nothing is shared but the two ends.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};

use super::counters::{IoCounters, add};
use super::shard_thread::ShardHandle;
use crate::media::RelayLink;
use crate::types::ShardIndex;

/// Batches under way from one shard to another: as many turns as a shard that is 10 ms behind has missed of a busy one.
const WAY_QUEUE: usize = 64;

/// Taken from one way in one turn, so that sockets and timers are not kept waiting.
const BATCHES_PER_TURN: usize = 32;

/// The sending end.
#[derive(Debug)]
pub struct WayOut {
    to: ShardIndex,
    batches: SyncSender<Vec<u8>>,
    empties: Receiver<Vec<u8>>,
    /// A buffer that came back and was not needed.
    spare: Option<Vec<u8>>,
    other: ShardHandle,
}

/// The receiving end.
#[derive(Debug)]
pub struct WayIn {
    from: ShardIndex,
    batches: Receiver<Vec<u8>>,
    empties: SyncSender<Vec<u8>>,
}

/// From one shard to another, whose handle is `other`.
pub fn way(from: ShardIndex, to: ShardIndex, other: ShardHandle) -> (WayOut, WayIn) {
    let (batches, taken) = sync_channel(WAY_QUEUE);
    let (returned, empties) = sync_channel(WAY_QUEUE);
    let out = WayOut {
        to,
        batches,
        empties,
        spare: None,
        other,
    };
    let into = WayIn {
        from,
        batches: taken,
        empties: returned,
    };
    (out, into)
}

/// Those of one shard.
#[derive(Debug, Default)]
pub(super) struct Ways {
    out: Vec<WayOut>,
    into: Vec<WayIn>,
}

impl Ways {
    pub(super) fn add(&mut self, end: WayEnd) {
        match end {
            WayEnd::Out(way) => self.out.push(way),
            WayEnd::In(way) => self.into.push(way),
        }
    }

    /// Gives the batches that have come to `take`. True when some are left for the next turn.
    pub(super) fn receive(&mut self, counters: &IoCounters, mut take: impl FnMut(ShardIndex, &[u8])) -> bool {
        let mut more = false;
        self.into.retain_mut(|way| {
            for _ in 0..BATCHES_PER_TURN {
                match way.batches.try_recv() {
                    Ok(mut batch) => {
                        add(&counters.crossed_in, 1);
                        take(way.from, &batch);
                        batch.clear();
                        let _ = way.empties.try_send(batch); // as many as are under way fit
                    }
                    Err(TryRecvError::Empty) => return true,
                    Err(TryRecvError::Disconnected) => return false,
                }
            }
            more = true;
            true
        });
        more
    }

    pub(super) fn sender<'a>(&'a mut self, counters: &'a IoCounters) -> WaySender<'a> {
        WaySender {
            out: &mut self.out,
            counters,
        }
    }
}

/// One end, on its way to its thread.
#[derive(Debug)]
pub enum WayEnd {
    Out(WayOut),
    In(WayIn),
}

pub(super) struct WaySender<'a> {
    out: &'a mut Vec<WayOut>,
    counters: &'a IoCounters,
}

impl RelayLink for WaySender<'_> {
    fn send(&mut self, to: ShardIndex, batch: &mut Vec<u8>) -> bool {
        let Some(way) = self.out.iter_mut().find(|way| way.to == to) else {
            batch.clear(); // that shard has ended
            return true;
        };
        let empty = way.spare.take().or_else(|| way.empties.try_recv().ok());
        let full = std::mem::replace(batch, empty.unwrap_or_default());
        let len = full.len() as u64;
        match way.batches.try_send(full) {
            Ok(()) => {
                add(&self.counters.crossed_out, 1);
                add(&self.counters.crossed_bytes, len);
                way.other.wake();
                true
            }
            Err(TrySendError::Full(full)) => {
                way.spare = Some(std::mem::replace(batch, full));
                false
            }
            Err(TrySendError::Disconnected(_)) => true,
        }
    }
}
