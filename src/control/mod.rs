//! L1, sans-IO: rooms, participants, permissions, negotiation, wanted subscriptions.
