//! Who may subscribe to what a participant publishes: the publisher's own word (`SubscriptionPermission`).

use std::collections::{BTreeMap, BTreeSet};

use livekit_protocol::SubscriptionPermission;

use crate::types::{Identity, ParticipantId, TrackId};

use super::settings::MAX_TRACK_PERMISSIONS;

/// Everybody, until the publisher says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Acl {
    /// None = all participants.
    listed: Option<Listed>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Listed {
    by_identity: BTreeMap<Identity, Tracks>,
    by_sid: BTreeMap<ParticipantId, Tracks>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tracks {
    All,
    Only(BTreeSet<TrackId>),
}

impl Tracks {
    fn allow(&self, track: &TrackId) -> bool {
        match self {
            Self::All => true,
            Self::Only(tracks) => tracks.contains(track),
        }
    }
}

impl Acl {
    pub(super) fn new(permission: SubscriptionPermission) -> Self {
        if permission.all_participants {
            return Self::default();
        }
        let mut listed = Listed::default();
        let mut room_left = MAX_TRACK_PERMISSIONS;
        for entry in permission.track_permissions {
            if room_left == 0 {
                break;
            }
            room_left -= 1;
            let tracks = if entry.all_tracks {
                Tracks::All
            } else {
                let taken: BTreeSet<TrackId> = entry.track_sids.into_iter().take(room_left).map(TrackId).collect();
                room_left -= taken.len();
                Tracks::Only(taken)
            };
            // LiveKit: the identity counts where both are given, since it outlives a reconnect.
            if entry.participant_identity.is_empty() {
                listed.by_sid.insert(ParticipantId(entry.participant_sid), tracks);
            } else {
                listed.by_identity.insert(Identity(entry.participant_identity), tracks);
            }
        }
        Self { listed: Some(listed) }
    }

    pub(super) fn allows(&self, identity: &Identity, sid: &ParticipantId, track: &TrackId) -> bool {
        let Some(listed) = &self.listed else {
            return true;
        };
        [listed.by_identity.get(identity), listed.by_sid.get(sid)]
            .into_iter()
            .flatten()
            .any(|tracks| tracks.allow(track))
    }
}

#[cfg(test)]
mod tests {
    use livekit_protocol::TrackPermission;

    use super::*;

    #[test]
    fn a_list_denies_whom_it_does_not_name() {
        let acl = Acl::new(SubscriptionPermission {
            all_participants: false,
            track_permissions: vec![TrackPermission {
                participant_identity: "bob".into(),
                track_sids: vec!["TR_a".into()],
                ..Default::default()
            }],
        });
        let allows = |identity: &str, track: &str| acl.allows(&identity.into(), &"PA_x".into(), &track.into());
        assert!(allows("bob", "TR_a"));
        assert!(!allows("bob", "TR_b"));
        assert!(!allows("carol", "TR_a"));
        assert!(Acl::default().allows(&"carol".into(), &"PA_x".into(), &"TR_a".into()));
    }

    #[test]
    fn a_long_list_is_cut() {
        let track_permissions = (0..3)
            .map(|index| TrackPermission {
                participant_identity: format!("p{index}"),
                track_sids: (0..MAX_TRACK_PERMISSIONS).map(|track| format!("TR_{track}")).collect(),
                ..Default::default()
            })
            .collect();
        let acl = Acl::new(SubscriptionPermission {
            all_participants: false,
            track_permissions,
        });
        assert!(acl.allows(&"p0".into(), &"".into(), &"TR_0".into()));
        assert!(!acl.allows(&"p1".into(), &"".into(), &"TR_0".into()));
    }
}
