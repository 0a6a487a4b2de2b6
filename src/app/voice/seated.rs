//! The voice system of several nodes that serve one API: it runs on the one that has the seat, and the others lead to that.
//!
//! Looks at the seat once a second. A node that gets it takes up what the one before kept; a node that loses it ends its
//! part, whose clients come again and are led to the next. Redis away changes nothing but that nobody new is let in.

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{System, VoiceStartError};
use crate::node::voice::{Place, PlaceWatch, Url, VoiceLink, VoiceTask};
use crate::store::{SEAT_LOOK, Sat, Seat, VoiceStore};

/// Looks after the seat until it is told to stop.
#[derive(Debug)]
pub(super) struct Seated {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

struct Sitter {
    system: System,
    seat: Seat,
    place: watch::Sender<Place>,
    running: Option<VoiceTask>,
    /// The last look was not answered.
    blind: bool,
}

impl Seated {
    /// # Errors
    /// There is no such Redis, or the voice system cannot start here.
    pub async fn start(system: System, seat: Seat) -> Result<(Self, PlaceWatch), VoiceStartError> {
        let (place, watched) = watch::channel(Place::Nowhere);
        let mut sitter = Sitter {
            system,
            seat,
            place,
            running: None,
            blind: false,
        };
        sitter.look().await?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(sitter.run(stopped));
        Ok((Self { stop, task }, watched))
    }

    /// The voice system ends here, and may begin elsewhere.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

impl Sitter {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                () = sleep(SEAT_LOOK) => {}
            }
            if let Err(error) = self.look().await {
                if let Some(running) = &self.running {
                    // Somebody else may have it, and pins would not be shared.
                    let _ = running.link().ask(|voice, _| voice.set_storage_down(true)).await;
                }
                if !self.blind {
                    tracing::warn!(%error, "the voice system's seat cannot be looked after");
                }
                self.blind = true;
            }
        }
        self.leave().await;
        self.seat.release().await;
    }

    async fn look(&mut self) -> Result<(), VoiceStartError> {
        match self.seat.look().await? {
            Sat::Elsewhere(url) => {
                self.leave().await;
                let url = Url::parse(&url).map_err(VoiceStartError::NodeUrl)?;
                self.place.send_replace(Place::There(url));
            }
            sat => {
                if sat == Sat::Anew {
                    // What we know is old, and must not be written over what the other one has.
                    self.abandon().await;
                }
                match &self.running {
                    Some(running) if self.blind => {
                        let _ = running.link().ask(|voice, _| voice.set_storage_down(false)).await;
                    }
                    Some(_) => {}
                    None => self.sit_down().await?,
                }
            }
        }
        self.blind = false;
        Ok(())
    }

    async fn sit_down(&mut self) -> Result<(), VoiceStartError> {
        let (link, inbox) = VoiceLink::prepare();
        let store = VoiceStore::Shared {
            rest: Box::new(self.system.database()?),
            pins: Box::new(self.seat.pins()),
            sessions: Some(Box::new(self.seat.sessions(self.system.config.voice.resume_window))),
        };
        match self.system.start(store, link, inbox).await {
            Ok(task) => {
                tracing::info!("the voice system of all nodes runs here now");
                self.place.send_replace(Place::Here(task.link().clone()));
                self.running = Some(task);
                Ok(())
            }
            Err(error) => {
                // Another node may be able to.
                self.seat.release().await;
                Err(error)
            }
        }
    }

    async fn abandon(&mut self) {
        let Some(task) = self.running.take() else { return };
        self.place.send_replace(Place::Nowhere);
        task.abandon().await;
    }

    async fn leave(&mut self) {
        let Some(task) = self.running.take() else { return };
        self.place.send_replace(Place::Nowhere);
        task.stop().await;
    }
}
