//! Permission bits, and what a member may do in a channel.

use std::ops::{BitAnd, BitOr, Not};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::directory::{Channel, Guild, Member, OverwriteKind};
use super::ids::RoleId;

/// 64 bits, written as a decimal string: `UPDATE_RTC_REGION` is above what a JavaScript number holds exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Permissions(pub u64);

impl Permissions {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(u64::MAX);
    pub const ADMINISTRATOR: Self = Self(1 << 3);
    pub const PRIORITY_SPEAKER: Self = Self(1 << 8);
    /// Camera and screen alike: there is no bit of its own for video.
    pub const STREAM: Self = Self(1 << 9);
    pub const VIEW_CHANNEL: Self = Self(1 << 10);
    pub const CONNECT: Self = Self(1 << 20);
    pub const SPEAK: Self = Self(1 << 21);
    pub const MUTE_MEMBERS: Self = Self(1 << 22);
    pub const DEAFEN_MEMBERS: Self = Self(1 << 23);
    pub const MOVE_MEMBERS: Self = Self(1 << 24);
    pub const USE_VAD: Self = Self(1 << 25);
    pub const MODERATE_MEMBERS: Self = Self(1 << 40);
    pub const UPDATE_RTC_REGION: Self = Self(1 << 53);

    pub fn contains(self, wanted: Self) -> bool {
        self & wanted == wanted
    }
}

impl BitOr for Permissions {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Permissions {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for Permissions {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0)
    }
}

impl Serialize for Permissions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(bits) => Ok(Self(bits)),
            Form::Text(text) => text.parse().map(Self).map_err(D::Error::custom),
        }
    }
}

/// What `member` may do in all of `guild`.
pub fn guild_permissions(guild: &Guild, member: &Member) -> Permissions {
    if guild.owner_id == Some(member.user_id) {
        return Permissions::ALL;
    }
    let of_role = |role: &RoleId| guild.roles.get(role).map_or(Permissions::NONE, |role| role.permissions);
    let everyone = of_role(&guild.everyone());
    let granted = member.roles.iter().map(of_role).fold(everyone, BitOr::bitor);
    match granted.contains(Permissions::ADMINISTRATOR) {
        true => Permissions::ALL,
        false => granted,
    }
}

/// What `member` may do in `channel`: roles, then the channel's overwrites in the order everyone, roles, member; within
/// each a permission that is both denied and allowed is allowed.
pub fn channel_permissions(guild: &Guild, member: &Member, channel: &Channel) -> Permissions {
    let granted = guild_permissions(guild, member);
    if granted.contains(Permissions::ADMINISTRATOR) {
        return Permissions::ALL;
    }
    let mut levels = [(Permissions::NONE, Permissions::NONE); 3];
    let [everyone, roles, own] = &mut levels;
    for overwrite in &channel.overwrites {
        let level = match overwrite.kind {
            OverwriteKind::Role if overwrite.id == guild.everyone().0 => &mut *everyone,
            OverwriteKind::Role if member.roles.contains(&RoleId(overwrite.id)) => &mut *roles,
            OverwriteKind::Member if overwrite.id == member.user_id.0 => &mut *own,
            _ => continue,
        };
        *level = (level.0 | overwrite.deny, level.1 | overwrite.allow);
    }
    levels
        .iter()
        .fold(granted, |granted, (deny, allow)| (granted & !*deny) | *allow)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::voice::directory::{Overwrite, Role};
    use crate::voice::ids::{ChannelId, GuildId, UserId};

    const GUILD: u64 = 1;
    const USER: u64 = 50;

    /// One bit at a time, told as sentences.
    fn reference(bit: u64, guild: &Guild, member: &Member, overwrites: &[Overwrite]) -> bool {
        if guild.owner_id == Some(member.user_id) {
            return true;
        }
        let holds = |bit: u64| {
            let of_everyone = guild.roles[&RoleId(GUILD)].permissions.0 & bit != 0;
            of_everyone
                || member
                    .roles
                    .iter()
                    .any(|role| guild.roles[role].permissions.0 & bit != 0)
        };
        if holds(Permissions::ADMINISTRATOR.0) {
            return true;
        }
        let says = |concerns: &dyn Fn(&Overwrite) -> bool| {
            let concerned = || overwrites.iter().filter(|overwrite| concerns(overwrite));
            if concerned().any(|overwrite| overwrite.allow.0 & bit != 0) {
                Some(true)
            } else if concerned().any(|overwrite| overwrite.deny.0 & bit != 0) {
                Some(false)
            } else {
                None
            }
        };
        let of_member = says(&|o| o.kind == OverwriteKind::Member && o.id == USER);
        let of_roles =
            says(&|o| o.kind == OverwriteKind::Role && o.id != GUILD && member.roles.contains(&RoleId(o.id)));
        let of_everyone = says(&|o| o.kind == OverwriteKind::Role && o.id == GUILD);
        of_member.or(of_roles).or(of_everyone).unwrap_or(holds(bit))
    }

    fn bits() -> impl Strategy<Value = Permissions> {
        // A few interesting bits, so that allow and deny meet.
        prop::collection::vec(prop::sample::select(vec![3, 9, 10, 20, 21, 53]), 0..4)
            .prop_map(|bits| Permissions(bits.into_iter().fold(0, |all, bit: u32| all | (1 << bit))))
    }

    fn overwrite() -> impl Strategy<Value = Overwrite> {
        let target = prop::sample::select(vec![
            (OverwriteKind::Role, GUILD),
            (OverwriteKind::Role, 10),
            (OverwriteKind::Role, 11),
            (OverwriteKind::Role, 12),
            (OverwriteKind::Member, USER),
            (OverwriteKind::Member, 51),
            // A member whose id is that of a role, and the reverse.
            (OverwriteKind::Member, 10),
            (OverwriteKind::Role, USER),
        ]);
        (target, bits(), bits()).prop_map(|((kind, id), allow, deny)| Overwrite { id, kind, allow, deny })
    }

    proptest! {
        #[test]
        fn every_bit_is_as_the_sentences_say(
            roles in prop::collection::vec(bits(), 4),
            held in prop::collection::btree_set(10u64..13, 0..4),
            overwrites in prop::collection::vec(overwrite(), 0..8),
            is_owner in prop::bool::weighted(0.1),
        ) {
            let ids = [GUILD, 10, 11, 12];
            let guild = Guild {
                id: GuildId(GUILD),
                owner_id: Some(UserId(if is_owner { USER } else { 99 })),
                roles: ids.into_iter().zip(roles).map(|(id, permissions)| (RoleId(id), Role { permissions })).collect(),
                ..Guild::new(GuildId(GUILD))
            };
            let member = Member { roles: held.into_iter().map(RoleId).collect(), ..Member::new(UserId(USER)) };
            let channel = Channel { overwrites: overwrites.clone(), ..Channel::new(ChannelId(7)) };
            let computed = channel_permissions(&guild, &member, &channel);
            for bit in [3, 9, 10, 20, 21, 22, 53] {
                prop_assert_eq!(computed.0 & (1 << bit) != 0, reference(1 << bit, &guild, &member, &overwrites), "bit {}", bit);
            }
        }
    }

    #[test]
    fn bits_are_decimal_strings() {
        assert_eq!(
            serde_json::to_string(&Permissions::UPDATE_RTC_REGION).unwrap(),
            "\"9007199254740992\""
        );
        let read: Permissions = serde_json::from_str("\"9007199254740993\"").unwrap();
        assert_eq!(read.0, 9_007_199_254_740_993);
    }
}
