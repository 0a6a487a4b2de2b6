//! L3: HTTP beside the signalling socket: health, validate, the built-in page.
