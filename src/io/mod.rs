//! L2: sockets, batches, pinned shard threads, timers.
