//! Transports against other WebRTC stacks, in virtual time.
