//! What limits all that one participant is sent: whether its video may be stopped, a bit rate it may not exceed, and how
//! long its player is asked to wait.

use crate::media::edge::{Command, PlayoutDelay, Reception};
use crate::proto::claims::Claims;
use crate::types::{Bitrate, ParticipantHandle};

use super::client::Client;
use super::participant::Participant;
use super::room::Room;
use super::settings::RoomSettings;

/// The participant attribute that caps what it is sent, all media together: kilobits per second, in digits. Set by the
/// token or the API; the participant's own changes of it are refused.
pub const MAX_BITRATE_ATTRIBUTE: &str = "patchbay.max_bitrate_kbps";

/// A cap below this would stop the voices too; smaller numbers count as this.
const MIN_CAP: Bitrate = Bitrate::kbps(64);

/// LiveKit: the longest wait the extension can say (12 bits of 10 ms), and the one meant by "no longest" beside a
/// shortest.
const MAX_PLAYOUT_DELAY: u32 = 40_950;
const DEFAULT_MAX_PLAYOUT_DELAY: u16 = 10_000;

/// `room.playout_delay` and `min_playout_delay`/`max_playout_delay` of a `CreateRoom`, in milliseconds.
pub fn playout_delay(min: u32, max: u32) -> PlayoutDelay {
    let clamped = |ms: u32| u16::try_from(ms.min(MAX_PLAYOUT_DELAY)).unwrap_or(u16::MAX);
    let (min, max) = (clamped(min), clamped(max));
    PlayoutDelay {
        min,
        max: match max {
            0 if min > 0 => DEFAULT_MAX_PLAYOUT_DELAY.max(min),
            max => max.max(min),
        },
    }
}

/// None = no cap: there is no such attribute, or it is not a number above 0.
fn cap(claims: &Claims) -> Option<Bitrate> {
    let text = claims.attributes.get(MAX_BITRATE_ATTRIBUTE)?;
    let kbps: u32 = text.trim().parse().ok().filter(|kbps| *kbps > 0)?;
    Some(Bitrate::kbps(kbps.into()).max(MIN_CAP))
}

pub(super) fn reception(settings: &RoomSettings, client: &Client, claims: &Claims, may_pause: bool) -> Reception {
    // LiveKit: Firefox does not play in step what it is asked to delay.
    let unplayable = settings.sync_streams && client.is_firefox();
    Reception {
        may_pause,
        max_bitrate: cap(claims),
        playout_delay: settings.playout_delay.filter(|_| !unplayable),
    }
}

impl Room {
    /// The participant's attributes have changed.
    pub(super) fn update_reception(&mut self, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let now = reception(
            &self.settings,
            &participant.client,
            &participant.claims,
            participant.may_pause,
        );
        if std::mem::replace(&mut participant.reception, now) == now {
            return;
        }
        // One that is not open yet is opened with what counts then.
        for peer in participant.peers().filter(|peer| peer.opened) {
            self.out.media(Command::UpdateReception {
                transport: peer.transport,
                reception: now,
            });
        }
    }
}

impl Participant {
    /// The attribute's value; empty where it has none.
    pub(super) fn cap_attribute(&self) -> &str {
        let value = self.claims.attributes.get(MAX_BITRATE_ATTRIBUTE);
        value.map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_is_a_number_of_kilobits() {
        let capped = |text: &str| {
            let mut claims = Claims::default();
            claims.attributes.insert(MAX_BITRATE_ATTRIBUTE.into(), text.into());
            cap(&claims)
        };
        assert_eq!(capped("800"), Some(Bitrate::kbps(800)));
        assert_eq!(capped(" 800 "), Some(Bitrate::kbps(800)));
        assert_eq!(capped("1"), Some(MIN_CAP));
        for no_cap in ["", "0", "-5", "much", "99999999999999"] {
            assert_eq!(capped(no_cap), None, "{no_cap:?}");
        }
        assert_eq!(cap(&Claims::default()), None);
    }

    #[test]
    fn a_playout_delay_fits_the_extension() {
        assert_eq!(playout_delay(100, 2000), PlayoutDelay { min: 100, max: 2000 });
        assert_eq!(playout_delay(100, 0), PlayoutDelay { min: 100, max: 10_000 });
        assert_eq!(playout_delay(0, 0), PlayoutDelay { min: 0, max: 0 });
        assert_eq!(
            playout_delay(90_000, 1),
            PlayoutDelay {
                min: 40_950,
                max: 40_950
            }
        );
    }
}
