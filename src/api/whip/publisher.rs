//! The client's part of signalling, in a publisher's place.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Fault, Session};
use crate::node::{Connection, IceFragment, ToClient, WhipOffer};
use crate::proto::livekit::signal_request::Message as Ask;
use crate::proto::livekit::signal_response::Message as Say;
use crate::proto::livekit::{LeaveRequest, SessionDescription, SignalRequest, TrickleRequest};

/// How long a room may take to answer an offer.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) enum Call {
    Trickle {
        etag: String,
        fragment: IceFragment,
        answer: oneshot::Sender<Result<(), Fault>>,
    },
    Restart {
        fragment: IceFragment,
        answer: oneshot::Sender<Result<Session, Fault>>,
    },
    End(oneshot::Sender<()>),
}

/// None: the room has ended the session.
pub(super) async fn next_answer(connection: &mut Connection) -> Option<String> {
    loop {
        match connection.next().await? {
            ToClient::Message(message) => match message.message {
                Some(Say::Answer(answer)) => return Some(answer.sdp),
                Some(Say::Leave(_)) => return None,
                _ => {}
            },
            ToClient::Close => return None,
        }
    }
}

pub(super) fn description(offer: &WhipOffer, id: u32) -> SessionDescription {
    SessionDescription {
        r#type: "offer".to_owned(),
        sdp: offer.sdp(),
        id,
        ..Default::default()
    }
}

/// The client's part of one session.
pub(super) struct Publisher {
    connection: Connection,
    etag: String,
    offer: WhipOffer,
    /// Made until now.
    offers: u32,
    /// Who waits for the answer to the last one, and for how long.
    restart: Option<(oneshot::Sender<Result<Session, Fault>>, Instant)>,
}

impl Publisher {
    /// `offer` has been answered with `etag`.
    pub(super) fn new(connection: Connection, offer: WhipOffer, etag: String) -> Self {
        Self {
            connection,
            etag,
            offer,
            offers: 1,
            restart: None,
        }
    }

    /// Until the room or the publisher ends it.
    pub(super) async fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        let candidates = std::mem::take(&mut self.offer.candidates);
        self.trickle(candidates).await;
        loop {
            let late = self.restart.as_ref().map(|(_, until)| *until);
            tokio::select! {
                what = self.connection.next() => match what {
                    Some(ToClient::Message(said)) => match said.message {
                        Some(Say::Answer(answer)) => self.answered(answer.sdp),
                        Some(Say::Leave(_)) => return,
                        // A publisher hears of nobody else.
                        _ => {}
                    },
                    Some(ToClient::Close) | None => return,
                },
                call = calls.recv() => match call {
                    Some(Call::Trickle { etag, fragment, answer }) => {
                        let outcome = self.take_candidates(&etag, fragment).await;
                        let _ = answer.send(outcome);
                    }
                    Some(Call::Restart { fragment, answer }) => {
                        self.offer.restart(&fragment);
                        self.offers += 1;
                        self.restart = Some((answer, Instant::now() + ANSWER_LIMIT));
                        self.ask(Ask::Offer(description(&self.offer, self.offers))).await;
                        self.trickle(fragment.candidates).await;
                    }
                    Some(Call::End(answer)) => {
                        self.ask(Ask::Leave(LeaveRequest::default())).await;
                        while self.connection.next().await.is_some_and(|what| matches!(what, ToClient::Message(_))) {}
                        let _ = answer.send(());
                        return;
                    }
                    None => return,
                },
                () = until(late) => self.restart = None,
            }
        }
    }

    fn answered(&mut self, answer: String) {
        let Some((waiting, _)) = self.restart.take() else {
            return;
        };
        let fragment = IceFragment::of(&answer).unwrap_or_default();
        self.etag.clone_from(&fragment.ufrag);
        let session = Session {
            etag: self.etag.clone(),
            body: fragment.write("0"),
        };
        let _ = waiting.send(Ok(session));
    }

    async fn take_candidates(&mut self, etag: &str, fragment: IceFragment) -> Result<(), Fault> {
        if etag != self.etag {
            let text = "entity tag does not match the ICE session";
            return Err(Fault::new(StatusCode::PRECONDITION_FAILED, text));
        }
        self.trickle(fragment.candidates).await;
        Ok(())
    }

    async fn trickle(&mut self, candidates: Vec<String>) {
        for candidate in candidates {
            let init = serde_json::json!({ "candidate": candidate, "sdpMid": "0", "sdpMLineIndex": 0 });
            let trickle = TrickleRequest {
                candidate_init: init.to_string(),
                ..Default::default()
            };
            self.ask(Ask::Trickle(trickle)).await;
        }
    }

    async fn ask(&mut self, message: Ask) {
        // A room that has ended closes the connection, too.
        let _ = self.connection.request(SignalRequest { message: Some(message) }).await;
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
