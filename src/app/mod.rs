//! L4: configuration, command line, wiring, shutdown order.
