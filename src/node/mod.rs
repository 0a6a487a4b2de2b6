//! L2: the tokio driver: one task per room, placement, shard handles.
