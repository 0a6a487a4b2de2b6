//! The participants of a room, and which of them is due next.
//!
//! Owned by the room, which asks for the next deadline after every input. Looking at everybody for that would make each
//! input of a room of a thousand as dear as a thousand, so only those that may have changed are looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::time::Instant;

use super::participant::Participant;
use crate::types::ParticipantHandle;

/// Reads as a map; whoever is lent mutably may have another deadline afterwards.
#[derive(Default)]
pub(super) struct Participants {
    by_handle: BTreeMap<ParticipantHandle, Participant>,
    deadlines: BTreeSet<(Instant, ParticipantHandle)>,
    /// What `deadlines` has of each.
    known: BTreeMap<ParticipantHandle, Instant>,
    touched: Touched,
}

/// Who was lent mutably, inserted or removed since the deadlines were last set right.
enum Touched {
    /// At most as many as there are participants; some more than once.
    Some(Vec<ParticipantHandle>),
    All,
}

impl Default for Touched {
    fn default() -> Self {
        Self::Some(Vec::new())
    }
}

impl Deref for Participants {
    type Target = BTreeMap<ParticipantHandle, Participant>;

    fn deref(&self) -> &Self::Target {
        &self.by_handle
    }
}

impl Participants {
    pub(super) fn insert(&mut self, handle: ParticipantHandle, participant: Participant) -> Option<Participant> {
        let before = self.by_handle.insert(handle, participant);
        self.touch(handle);
        before
    }

    pub(super) fn remove(&mut self, handle: &ParticipantHandle) -> Option<Participant> {
        self.touch(*handle);
        self.by_handle.remove(handle)
    }

    pub(super) fn get_mut(&mut self, handle: &ParticipantHandle) -> Option<&mut Participant> {
        self.touch(*handle);
        self.by_handle.get_mut(handle)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Participant> {
        self.touched = Touched::All;
        self.by_handle.values_mut()
    }

    /// The earliest deadline of all. None = nobody is here.
    pub(super) fn next_timeout(&mut self) -> Option<Instant> {
        self.settle();
        let next = self.deadlines.first().map(|(due, _)| *due);
        debug_assert_eq!(next, self.by_handle.values().map(Participant::next_timeout).min());
        next
    }

    /// Whose deadline has come, in the order of their joining.
    pub(super) fn due(&mut self, now: Instant) -> Vec<ParticipantHandle> {
        self.settle();
        let due = self.deadlines.iter().take_while(|(due, _)| *due <= now);
        let mut due: Vec<_> = due.map(|(_, handle)| *handle).collect();
        due.sort_unstable();
        due
    }

    fn touch(&mut self, handle: ParticipantHandle) {
        let Touched::Some(handles) = &mut self.touched else {
            return;
        };
        if handles.last() == Some(&handle) {
            return;
        }
        if handles.len() < self.by_handle.len().max(1) {
            handles.push(handle);
        } else {
            self.touched = Touched::All;
        }
    }

    fn settle(&mut self) {
        match &mut self.touched {
            Touched::Some(handles) => {
                let mut handles = std::mem::take(handles);
                for handle in handles.drain(..) {
                    let due = self.by_handle.get(&handle).map(Participant::next_timeout);
                    let known = match due {
                        Some(due) => self.known.insert(handle, due),
                        None => self.known.remove(&handle),
                    };
                    if known != due {
                        known.map(|known| self.deadlines.remove(&(known, handle)));
                        self.deadlines.extend(due.map(|due| (due, handle)));
                    }
                }
                self.touched = Touched::Some(handles); // it keeps its memory
            }
            Touched::All => {
                let all = self.by_handle.iter();
                self.known = all.map(|(handle, it)| (*handle, it.next_timeout())).collect();
                self.deadlines = self.known.iter().map(|(handle, due)| (*due, *handle)).collect();
                self.touched = Touched::default();
            }
        }
    }
}
