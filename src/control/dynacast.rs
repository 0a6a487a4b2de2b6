//! What a publisher is asked to encode: the best quality any subscriber wants, per codec (`SubscribedQualityUpdate`).
//!
//! A higher wish is passed on at once; a lower one after a delay, because a viewer who switches tiles comes back soon.
//! A publisher sends everything until it is told otherwise, so that the first thing it hears is HIGH, or, when nobody has
//! subscribed for a while, nothing. Muting changes none of this. What somebody is still shown is not stopped: who has
//! asked for less is sent the old layer until the new one has begun.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use livekit_protocol::signal_response::Message;
use livekit_protocol::{
    SubscribedAudioCodec, SubscribedAudioCodecUpdate, SubscribedCodec, SubscribedQuality, SubscribedQualityUpdate,
    VideoQuality,
};

use crate::types::{MediaKind, ParticipantHandle, TrackId};

use super::layers::{quality_of, wanted_quality};
use super::publication::Publication;
use super::room::Room;
use super::settings::FIRST_QUALITY_WAIT;

/// When to look again whether a layer that nobody wants is still sent to somebody. A key frame takes a fraction of that.
const SHOWN_AGAIN: Duration = Duration::from_millis(1000);

/// Wanted quality by index of the publication's codec; None = nothing. Codecs nobody ever subscribed to are not in it.
pub(super) type Wanted = BTreeMap<usize, Option<VideoQuality>>;

#[derive(Clone, Debug, Default)]
pub(super) struct Dynacast {
    /// What the publisher was told last.
    told: Wanted,
    pub downgrade_at: Option<Instant>,
    /// Told by then that nobody watches, unless somebody does.
    pub unwatched_at: Option<Instant>,
}

impl Dynacast {
    /// The track is there from now on.
    pub(super) fn start(&mut self, now: Instant) {
        self.unwatched_at = self.told.is_empty().then_some(now + FIRST_QUALITY_WAIT);
    }

    /// `start` was long ago. True when the publisher has to be told.
    fn is_unwatched(&mut self) -> bool {
        self.unwatched_at = None;
        let unwatched = self.told.is_empty();
        if unwatched {
            self.told.insert(0, None);
        }
        unwatched
    }

    /// True when the publisher has to be told now: `told` has been brought up to date for that.
    fn update(&mut self, now: Instant, wanted: &Wanted, pause_delay: Duration) -> bool {
        let mut changed = false;
        let mut lower = false;
        for (codec, quality) in wanted {
            let told = match self.told.get(codec).copied() {
                Some(told) => told,
                None => {
                    changed = true;
                    let all = Some(VideoQuality::High);
                    self.told.insert(*codec, all);
                    all
                }
            };
            if told > *quality {
                lower = true;
            } else if told < *quality {
                self.told.insert(*codec, *quality);
                changed = true;
            }
        }
        let unwanted = |(codec, told): (&usize, &Option<VideoQuality>)| told.is_some() && !wanted.contains_key(codec);
        lower |= self.told.iter().any(unwanted);
        if !lower {
            self.downgrade_at = None;
        } else if self.downgrade_at.is_none() {
            self.downgrade_at = Some(now + pause_delay);
        }
        changed
    }

    /// The delay is over. `shown`: what is still being sent to those who have asked for less. True when the publisher has
    /// to be told.
    fn downgrade(&mut self, now: Instant, wanted: &Wanted, shown: &Wanted) -> bool {
        self.downgrade_at = None;
        let mut changed = false;
        for (codec, told) in &mut self.told {
            let wanted = wanted.get(codec).copied().flatten();
            let shown = shown.get(codec).copied().flatten().min(*told);
            if shown > wanted {
                self.downgrade_at = Some(now + SHOWN_AGAIN);
            }
            let least = wanted.max(shown);
            changed |= std::mem::replace(told, least) != least;
        }
        changed
    }
}

fn qualities(best: Option<VideoQuality>) -> Vec<SubscribedQuality> {
    [VideoQuality::Low, VideoQuality::Medium, VideoQuality::High]
        .into_iter()
        .map(|quality| SubscribedQuality {
            quality: quality as i32,
            enabled: best.is_some_and(|best| quality <= best),
        })
        .collect()
}

/// The codec's short name as `SubscribedCodec.codec` has it: `vp8`.
fn codec_name(publication: &Publication, index: usize) -> Option<String> {
    let codec = publication.codecs.get(index)?.sent()?;
    Some(codec.rtpmap_name().to_ascii_lowercase())
}

fn quality_message(publication: &Publication) -> Message {
    let codecs: Vec<SubscribedCodec> = publication
        .dynacast
        .told
        .iter()
        .filter_map(|(index, best)| {
            Some(SubscribedCodec {
                codec: codec_name(publication, *index)?,
                qualities: qualities(*best),
            })
        })
        .collect();
    Message::SubscribedQualityUpdate(SubscribedQualityUpdate {
        track_sid: publication.sid.0.clone(),
        subscribed_qualities: codecs.first().map(|codec| codec.qualities.clone()).unwrap_or_default(),
        subscribed_codecs: codecs,
    })
}

/// Only for tracks with more than one audio codec.
fn audio_message(publication: &Publication) -> Message {
    let subscribed_audio_codecs = publication
        .dynacast
        .told
        .iter()
        .filter_map(|(index, wanted)| {
            Some(SubscribedAudioCodec {
                codec: codec_name(publication, *index)?,
                enabled: wanted.is_some(),
            })
        })
        .collect();
    Message::SubscribedAudioCodecUpdate(SubscribedAudioCodecUpdate {
        track_sid: publication.sid.0.clone(),
        subscribed_audio_codecs,
    })
}

impl Room {
    /// What the bound subscribers of a track want, here and in the rooms that show it.
    fn wanted(&self, publication: &Publication) -> Wanted {
        let mut wanted = Wanted::new();
        for subscriber in &publication.subscribers {
            let Some(subscriber) = self.participants.get(subscriber) else {
                continue;
            };
            let Some(subscription) = subscriber.subscriptions.get(&publication.sid) else {
                continue;
            };
            if subscription.bound.is_none() {
                continue;
            }
            let quality = wanted_quality(&publication.source(subscription.codec), &subscription.settings);
            let best = wanted.entry(subscription.codec).or_insert(None);
            *best = (*best).max(quality);
        }
        self.demands.add_to(&mut wanted, &publication.sid);
        publication.regression.complete(&mut wanted);
        wanted
    }

    /// What is sent of a track to those who want something of it.
    fn shown(&self, publication: &Publication) -> Wanted {
        let mut shown = Wanted::new();
        let subscribers = publication.subscribers.iter();
        let subscribers = subscribers.filter_map(|subscriber| self.participants.get(subscriber));
        for subscription in subscribers.filter_map(|subscriber| subscriber.subscriptions.get(&publication.sid)) {
            let source = publication.source(subscription.codec);
            let wants = wanted_quality(&source, &subscription.settings).is_some();
            if let Some(spatial) = subscription.shown.filter(|_| wants) {
                let best = shown.entry(subscription.codec).or_insert(None);
                *best = (*best).max(Some(quality_of(&source, spatial)));
            }
        }
        shown
    }

    /// Somebody's subscription to the track, or its settings, changed.
    pub(super) fn update_dynacast(&mut self, now: Instant, publisher: ParticipantHandle, track: &TrackId) {
        self.review_regression(now, publisher, track);
        self.refresh_dynacast(now, publisher, track, false);
    }

    pub(super) fn downgrade_dynacast(&mut self, now: Instant, publisher: ParticipantHandle, track: &TrackId) {
        self.refresh_dynacast(now, publisher, track, true);
    }

    /// Nobody has subscribed since the track came.
    pub(super) fn tell_unwatched(&mut self, publisher: ParticipantHandle, track: &TrackId) {
        let Some(participant) = self.participants.get_mut(&publisher) else {
            return;
        };
        let Some(publication) = participant.publications.get_mut(track) else {
            return;
        };
        if !publication.dynacast.is_unwatched() {
            return;
        }
        if let Some(source) = participant.original.as_ref().map(|original| original.source) {
            let wanted = publication.dynacast.told.clone();
            self.demands.say(source, track, wanted);
        } else if publication.kind == MediaKind::Video {
            let message = quality_message(publication);
            self.out.signal(participant, message);
        }
    }

    fn refresh_dynacast(&mut self, now: Instant, publisher: ParticipantHandle, track: &TrackId, downgrade: bool) {
        let Some(publication) = self
            .participants
            .get(&publisher)
            .and_then(|participant| participant.publications.get(track))
        else {
            return;
        };
        let wanted = self.wanted(publication);
        let shown = self.shown(publication);
        let pause_delay = self.settings.dynacast_pause_delay;
        let Some(participant) = self.participants.get_mut(&publisher) else {
            return;
        };
        let Some(publication) = participant.publications.get_mut(track) else {
            return;
        };
        let tell = if downgrade {
            publication.dynacast.downgrade(now, &wanted, &shown)
        } else {
            publication.dynacast.update(now, &wanted, pause_delay)
        };
        if !tell {
            return;
        }
        if let Some(source) = participant.original.as_ref().map(|original| original.source) {
            let wanted = publication.dynacast.told.clone();
            return self.demands.say(source, track, wanted);
        }
        let message = match publication.kind {
            MediaKind::Video => quality_message(publication),
            MediaKind::Audio if publication.codecs.len() > 1 => audio_message(publication),
            MediaKind::Audio => return,
        };
        self.out.signal(participant, message);
    }

    /// After a resume the client has to hear again what it should encode.
    pub(super) fn repeat_dynacast(&mut self, publisher: ParticipantHandle) {
        let Some(participant) = self.participants.get(&publisher) else {
            return;
        };
        for publication in participant.publications.values() {
            if publication.kind == MediaKind::Video && !publication.dynacast.told.is_empty() {
                self.out.signal(participant, quality_message(publication));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(5);

    #[test]
    fn up_at_once_down_after_the_delay() {
        let start = Instant::now();
        let high = Wanted::from([(0, Some(VideoQuality::High))]);
        let low = Wanted::from([(0, Some(VideoQuality::Low))]);
        let mut dynacast = Dynacast::default();
        assert!(dynacast.update(start, &low, DELAY));
        assert_eq!(
            dynacast.told, high,
            "until now it has sent everything: less is a downgrade"
        );
        let none = Wanted::new();
        assert!(dynacast.downgrade(start, &low, &none));
        assert!(dynacast.update(start, &high, DELAY));
        assert!(!dynacast.update(start, &low, DELAY));
        assert_eq!(dynacast.downgrade_at, Some(start + DELAY));
        // Back before the delay is over: nothing was said, nothing is.
        assert!(!dynacast.update(start, &high, DELAY));
        assert_eq!(dynacast.downgrade_at, None);
        assert!(!dynacast.update(start, &Wanted::new(), DELAY));
        assert!(dynacast.downgrade(start, &none, &none));
        assert_eq!(dynacast.told.get(&0), Some(&None));
    }

    #[test]
    fn what_is_still_shown_goes_on() {
        let start = Instant::now();
        let of = |quality| Wanted::from([(0, Some(quality))]);
        let (low, medium, high) = (of(VideoQuality::Low), of(VideoQuality::Medium), of(VideoQuality::High));
        let mut dynacast = Dynacast::default();
        assert!(dynacast.update(start, &high, DELAY));
        assert!(!dynacast.update(start, &low, DELAY));
        let due = start + DELAY;
        assert!(!dynacast.downgrade(due, &low, &high), "there is nothing to tell");
        assert_eq!(
            (&dynacast.told, dynacast.downgrade_at),
            (&high, Some(due + SHOWN_AGAIN))
        );
        assert!(dynacast.downgrade(due, &low, &medium));
        assert_eq!(dynacast.told, medium);
        assert!(dynacast.downgrade(due, &low, &low));
        assert_eq!((&dynacast.told, dynacast.downgrade_at), (&low, None));
        // What is shown is no wish: nothing is asked for because of it.
        assert!(!dynacast.downgrade(due, &low, &high));
        assert_eq!(dynacast.told, low);
    }

    #[test]
    fn a_second_downgrade_does_not_wait_longer() {
        let start = Instant::now();
        let wanted = |quality| Wanted::from([(0, Some(quality))]);
        let mut dynacast = Dynacast::default();
        assert!(dynacast.update(start, &wanted(VideoQuality::High), DELAY));
        assert!(!dynacast.update(start, &wanted(VideoQuality::Medium), DELAY));
        let later = start + Duration::from_secs(3);
        assert!(!dynacast.update(later, &wanted(VideoQuality::Low), DELAY));
        assert_eq!(dynacast.downgrade_at, Some(start + DELAY));
    }
}
