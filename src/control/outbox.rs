//! The queue of a room's outputs. Drained by the driver after every input; what one input can add is bounded by the
//! room's size.

use std::collections::VecDeque;

use livekit_protocol::SignalResponse;
use livekit_protocol::signal_response::Message;

use crate::media::edge::Command;

use super::output::{ConnectionHandle, Output, RoomEvent};
use super::participant::Participant;

#[derive(Default)]
pub(super) struct Outbox {
    queue: VecDeque<Output>,
}

impl Outbox {
    pub(super) fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    pub(super) fn media(&mut self, command: Command) {
        self.push(Output::Media(command));
    }

    pub(super) fn happened(&mut self, event: RoomEvent) {
        self.push(Output::Happened(event));
    }

    pub(super) fn signal_connection(&mut self, connection: ConnectionHandle, message: Message) {
        self.push(Output::Signal {
            connection,
            message: Box::new(SignalResponse { message: Some(message) }),
        });
    }

    /// Lost while the participant has no connection: a resuming client is told the whole state anyway.
    pub(super) fn signal(&mut self, to: &Participant, message: Message) {
        if let Some(connection) = to.connection {
            self.signal_connection(connection, message);
        }
    }
}
