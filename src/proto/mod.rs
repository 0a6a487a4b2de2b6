//! L0: LiveKit's protobuf messages, their JSON forms, token claims, the data-packet envelope.
