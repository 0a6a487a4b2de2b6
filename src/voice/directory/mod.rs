//! What the voice system knows of users, guilds and channels: a read-only projection of the backend's own data.
//!
//! Owns the projection and its versions. Fed by directory sync (`sync`), asked by everything else; never changed by what
//! an end user sends.

mod calling;
mod sync;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::ids::{ChannelId, GuildId, RoleId, UnixMillis, UserId};
use super::permissions::{Permissions, channel_permissions};
pub use calling::{IncomingCalls, Ringable};
pub use sync::{Entry, Fact, Stored, SyncError, Touched};

/// Facts kept, tombstones among them: a large backend's 2 million members in 1 GiB. Further ones are refused whole.
const MAX_FACTS: usize = 2_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelType {
    Text,
    Dm,
    Voice,
    GroupDm,
    /// Category, link, notes: nothing to do with voice.
    Other,
}

impl ChannelType {
    pub fn of(number: u16) -> Self {
        match number {
            0 => Self::Text,
            1 => Self::Dm,
            2 => Self::Voice,
            3 => Self::GroupDm,
            _ => Self::Other,
        }
    }

    /// What is neither of those we know is a category.
    pub fn number(self) -> u16 {
        match self {
            Self::Text => 0,
            Self::Dm => 1,
            Self::Voice => 2,
            Self::GroupDm => 3,
            Self::Other => 4,
        }
    }

    /// A conversation outside of guilds, where calls are.
    pub fn is_call(self) -> bool {
        matches!(self, Self::Dm | Self::GroupDm)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub username: String,
    pub bot: bool,
    /// A guest, who has no password yet.
    pub unclaimed: bool,
    /// Held back by the backend for suspicious activity.
    pub suspicious: bool,
    /// None: the user has no settings.
    pub incoming_calls: Option<IncomingCalls>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    pub permissions: Permissions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub user_id: UserId,
    pub roles: BTreeSet<RoleId>,
    /// Muted by a moderator.
    pub mute: bool,
    pub deaf: bool,
    pub nick: Option<String>,
    pub communication_disabled_until: Option<UnixMillis>,
}

impl Member {
    pub fn new(user_id: UserId) -> Self {
        Self {
            user_id,
            roles: BTreeSet::new(),
            mute: false,
            deaf: false,
            nick: None,
            communication_disabled_until: None,
        }
    }

    pub fn is_timed_out(&self, now: UnixMillis) -> bool {
        self.communication_disabled_until.is_some_and(|until| until > now)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverwriteKind {
    Role,
    Member,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overwrite {
    pub id: u64,
    pub kind: OverwriteKind,
    pub allow: Permissions,
    pub deny: Permissions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    pub id: ChannelId,
    pub guild: Option<GuildId>,
    pub kind: ChannelType,
    pub name: String,
    /// Distinct users; 0 = no limit.
    pub user_limit: u32,
    pub rtc_region: Option<String>,
    pub overwrites: Vec<Overwrite>,
    /// Of a conversation.
    pub recipients: BTreeSet<UserId>,
}

impl Channel {
    pub fn new(id: ChannelId) -> Self {
        Self {
            id,
            guild: None,
            kind: ChannelType::Voice,
            name: String::new(),
            user_limit: 0,
            rtc_region: None,
            overwrites: Vec::new(),
            recipients: BTreeSet::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guild {
    pub id: GuildId,
    /// False: only parts of it have been told yet.
    pub known: bool,
    pub name: String,
    pub owner_id: Option<UserId>,
    pub features: BTreeSet<String>,
    pub roles: BTreeMap<RoleId, Role>,
    pub members: HashMap<UserId, Member>,
    pub channels: BTreeSet<ChannelId>,
}

impl Guild {
    pub fn new(id: GuildId) -> Self {
        Self {
            id,
            known: false,
            name: String::new(),
            owner_id: None,
            features: BTreeSet::new(),
            roles: BTreeMap::new(),
            members: HashMap::new(),
            channels: BTreeSet::new(),
        }
    }

    /// The role that every member has.
    pub fn everyone(&self) -> RoleId {
        RoleId(self.id.0)
    }
}

#[derive(Clone, Debug, Default)]
struct Relations {
    friends: HashSet<UserId>,
    /// Whom this user has blocked.
    blocked: HashSet<UserId>,
    guilds: BTreeSet<GuildId>,
    conversations: BTreeSet<ChannelId>,
}

#[derive(Clone, Debug, Default)]
pub struct Directory {
    users: HashMap<UserId, User>,
    guilds: HashMap<GuildId, Guild>,
    channels: HashMap<ChannelId, Channel>,
    relations: HashMap<UserId, Relations>,
    /// Version and deletion of everything that was ever told.
    versions: HashMap<sync::Key, sync::Version>,
}

impl Directory {
    pub fn user(&self, user: UserId) -> Option<&User> {
        self.users.get(&user)
    }

    pub fn guild(&self, guild: GuildId) -> Option<&Guild> {
        self.guilds.get(&guild).filter(|guild| guild.known)
    }

    pub fn channel(&self, channel: ChannelId) -> Option<&Channel> {
        self.channels.get(&channel)
    }

    pub fn member(&self, guild: GuildId, user: UserId) -> Option<&Member> {
        self.guild(guild)?.members.get(&user)
    }

    /// Guilds that `user` is a member of.
    pub fn guilds_of(&self, user: UserId) -> impl Iterator<Item = &Guild> {
        let guilds = self.relations.get(&user).map(|relations| &relations.guilds);
        guilds.into_iter().flatten().filter_map(|guild| self.guild(*guild))
    }

    /// Conversations outside of guilds that `user` takes part in.
    pub fn conversations_of(&self, user: UserId) -> impl Iterator<Item = &Channel> {
        let conversations = self.relations.get(&user).map(|relations| &relations.conversations);
        conversations
            .into_iter()
            .flatten()
            .filter_map(|channel| self.channel(*channel))
    }

    /// What `user` may do in a channel of a guild; None: not a member, or no such channel there.
    pub fn permissions(&self, guild: GuildId, channel: ChannelId, user: UserId) -> Option<Permissions> {
        let guild = self.guild(guild)?;
        let member = guild.members.get(&user)?;
        let channel = self
            .channel(channel)
            .filter(|channel| channel.guild == Some(guild.id))?;
        Some(channel_permissions(guild, member, channel))
    }

    /// May know that the channel exists and who is in it.
    pub fn can_see(&self, channel: ChannelId, user: UserId) -> bool {
        let Some(found) = self.channel(channel) else {
            return false;
        };
        match found.guild {
            Some(guild) => self
                .permissions(guild, channel, user)
                .is_some_and(|permissions| permissions.contains(Permissions::VIEW_CHANNEL)),
            None => found.recipients.contains(&user),
        }
    }

    pub fn are_friends(&self, a: UserId, b: UserId) -> bool {
        self.relations
            .get(&a)
            .is_some_and(|relations| relations.friends.contains(&b))
    }

    pub fn has_blocked(&self, who: UserId, whom: UserId) -> bool {
        self.relations
            .get(&who)
            .is_some_and(|relations| relations.blocked.contains(&whom))
    }

    pub fn have_mutual_friend(&self, a: UserId, b: UserId) -> bool {
        let (Some(a), Some(b)) = (self.relations.get(&a), self.relations.get(&b)) else {
            return false;
        };
        !a.friends.is_disjoint(&b.friends)
    }

    pub fn have_mutual_guild(&self, a: UserId, b: UserId) -> bool {
        self.guilds_of(a).any(|guild| guild.members.contains_key(&b))
    }

    /// The backend's own record follows by sync; until then what a moderator did here counts. As it is to be kept; None:
    /// no such member.
    pub fn set_member_voice(
        &mut self,
        guild: GuildId,
        user: UserId,
        mute: Option<bool>,
        deaf: Option<bool>,
    ) -> Option<Stored> {
        let member = self.guilds.get_mut(&guild)?.members.get_mut(&user)?;
        member.mute = mute.unwrap_or(member.mute);
        member.deaf = deaf.unwrap_or(member.deaf);
        let member = member.clone();
        Some(self.stored_member(guild, member))
    }

    /// As it is to be kept; None: no such channel.
    pub fn set_rtc_region(&mut self, channel: ChannelId, region: Option<String>) -> Option<Stored> {
        let channel = self.channels.get_mut(&channel)?;
        channel.rtc_region = region;
        let channel = channel.clone();
        Some(self.stored_channel(channel))
    }
}

#[cfg(test)]
mod tests;
