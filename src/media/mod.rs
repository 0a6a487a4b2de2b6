//! L1, sans-IO: what an SFU is: shard, tracks, fanout, subscriptions, retransmission, data, speakers.

pub mod edge;
