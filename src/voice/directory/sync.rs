//! Directory sync: versioned facts, which may arrive twice and in any order.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    Channel, ChannelType, Directory, Guild, IncomingCalls, MAX_FACTS, Member, Overwrite, OverwriteKind, Role, User,
};
use crate::voice::ids::{ChannelId, GuildId, RoleId, UnixMillis, UserId};
use crate::voice::permissions::Permissions;

/// Overwrites or recipients of one channel, roles of one member: ten times what Fluxer allows.
const MAX_PARTS: usize = 1000;
/// Characters of a name.
const MAX_NAME: usize = 512;
/// Characters of a guild's feature and of a region's id, as in the records of regions.
const MAX_ID: usize = 64;

/// One fact of the backend. Ids only in a deletion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fact {
    User {
        id: UserId,
        #[serde(default)]
        username: String,
        #[serde(default)]
        bot: bool,
        #[serde(default)]
        unclaimed: bool,
        #[serde(default)]
        suspicious: bool,
        #[serde(default)]
        incoming_call_flags: Option<IncomingCalls>,
    },
    Guild {
        id: GuildId,
        #[serde(default)]
        name: String,
        #[serde(default)]
        owner_id: Option<UserId>,
        #[serde(default)]
        features: BTreeSet<String>,
    },
    /// The role with the guild's own id is everyone's.
    Role {
        guild_id: GuildId,
        id: RoleId,
        #[serde(default)]
        permissions: Permissions,
    },
    Member {
        guild_id: GuildId,
        user_id: UserId,
        #[serde(default)]
        roles: BTreeSet<RoleId>,
        #[serde(default)]
        mute: bool,
        #[serde(default)]
        deaf: bool,
        #[serde(default)]
        nick: Option<String>,
        /// UNIX milliseconds.
        #[serde(default)]
        communication_disabled_until: Option<UnixMillis>,
    },
    Channel {
        id: ChannelId,
        #[serde(default)]
        guild_id: Option<GuildId>,
        #[serde(default, rename = "type")]
        kind: u16,
        #[serde(default)]
        name: String,
        #[serde(default)]
        user_limit: u32,
        #[serde(default)]
        rtc_region: Option<String>,
        #[serde(default)]
        permission_overwrites: Vec<OverwriteFact>,
        #[serde(default)]
        recipients: BTreeSet<UserId>,
    },
    /// In both directions.
    Friendship { user_id: UserId, other_id: UserId },
    /// `user_id` has blocked `other_id`.
    Block { user_id: UserId, other_id: UserId },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OverwriteFact {
    pub id: RoleId,
    /// 0 = role, 1 = member.
    #[serde(rename = "type")]
    pub kind: u8,
    #[serde(default)]
    pub allow: Permissions,
    #[serde(default)]
    pub deny: Permissions,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Grows with every change of this fact; what is not newer than what is known is passed over.
    pub version: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    #[serde(flatten)]
    pub fact: Fact,
}

/// What a fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    User(UserId),
    Guild(GuildId),
    Role(GuildId, RoleId),
    Member(GuildId, UserId),
    Channel(ChannelId),
    Friendship(UserId, UserId),
    Block(UserId, UserId),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Version {
    number: u64,
    deleted: bool,
}

/// One entry as it is kept, under a name that its successor shares.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub name: String,
    pub entry: Entry,
}

/// Whose rights may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    pub users: BTreeSet<UserId>,
    pub guilds: BTreeSet<GuildId>,
    pub channels: BTreeSet<ChannelId>,
    /// Channels whose region was changed by the backend.
    pub regions: BTreeSet<ChannelId>,
}

#[derive(Clone, Debug, Default)]
pub struct SyncOutcome {
    pub applied: Vec<Stored>,
    /// Entries that were not newer.
    pub passed_over: usize,
    pub touched: Touched,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    #[error("the directory is full")]
    Full,
    #[error("a name is too long, or a list has too many parts")]
    TooLarge,
    #[error("the type of an overwrite is neither 0 (role) nor 1 (member)")]
    OverwriteType,
}

impl Fact {
    fn key(&self) -> Key {
        match self {
            Self::User { id, .. } => Key::User(*id),
            Self::Guild { id, .. } => Key::Guild(*id),
            Self::Role { guild_id, id, .. } => Key::Role(*guild_id, *id),
            Self::Member { guild_id, user_id, .. } => Key::Member(*guild_id, *user_id),
            Self::Channel { id, .. } => Key::Channel(*id),
            Self::Friendship { user_id, other_id } => Key::Friendship(*user_id.min(other_id), *user_id.max(other_id)),
            Self::Block { user_id, other_id } => Key::Block(*user_id, *other_id),
        }
    }

    fn check(&self) -> Result<(), SyncError> {
        let (name, parts) = match self {
            Self::User { username, .. } => (username.chars().count(), 0),
            Self::Guild { features, .. } if features.iter().any(|feature| feature.chars().count() > MAX_ID) => {
                return Err(SyncError::TooLarge);
            }
            Self::Guild { name, features, .. } => (name.chars().count(), features.len()),
            Self::Member { nick, roles, .. } => (nick.as_ref().map_or(0, |nick| nick.chars().count()), roles.len()),
            Self::Channel {
                name,
                rtc_region,
                permission_overwrites,
                recipients,
                ..
            } => {
                if rtc_region
                    .as_ref()
                    .is_some_and(|region| region.chars().count() > MAX_ID)
                {
                    return Err(SyncError::TooLarge);
                }
                if permission_overwrites.iter().any(|overwrite| overwrite.kind > 1) {
                    return Err(SyncError::OverwriteType);
                }
                (name.chars().count(), permission_overwrites.len().max(recipients.len()))
            }
            Self::Role { .. } | Self::Friendship { .. } | Self::Block { .. } => (0, 0),
        };
        match name > MAX_NAME || parts > MAX_PARTS {
            true => Err(SyncError::TooLarge),
            false => Ok(()),
        }
    }
}

impl Key {
    fn name(self) -> String {
        match self {
            Self::User(user) => format!("user:{user}"),
            Self::Guild(guild) => format!("guild:{guild}"),
            Self::Role(guild, role) => format!("role:{guild}:{role}"),
            Self::Member(guild, user) => format!("member:{guild}:{user}"),
            Self::Channel(channel) => format!("channel:{channel}"),
            Self::Friendship(a, b) => format!("friendship:{a}:{b}"),
            Self::Block(a, b) => format!("block:{a}:{b}"),
        }
    }
}

impl Directory {
    /// Takes what is newer than what is known.
    ///
    /// # Errors
    /// Nothing is taken when any entry is not acceptable.
    pub fn sync(&mut self, entries: Vec<Entry>) -> Result<SyncOutcome, SyncError> {
        let mut added = 0;
        for entry in &entries {
            entry.fact.check()?;
            added += usize::from(!self.versions.contains_key(&entry.fact.key()));
        }
        if self.versions.len() + added > MAX_FACTS {
            return Err(SyncError::Full);
        }
        let mut outcome = SyncOutcome::default();
        for entry in entries {
            let key = entry.fact.key();
            if self
                .versions
                .get(&key)
                .is_some_and(|known| known.number >= entry.version)
            {
                outcome.passed_over += 1;
                continue;
            }
            let version = Version {
                number: entry.version,
                deleted: entry.deleted,
            };
            self.versions.insert(key, version);
            self.touch(&entry.fact, &mut outcome.touched);
            match entry.deleted {
                true => self.delete(key),
                false => self.take(entry.fact.clone()),
            }
            outcome.applied.push(Stored {
                name: key.name(),
                entry,
            });
        }
        Ok(outcome)
    }

    fn stored(&self, fact: Fact) -> Stored {
        let key = fact.key();
        let version = self.versions.get(&key).map_or(0, |version| version.number);
        let entry = Entry {
            version,
            deleted: false,
            fact,
        };
        Stored {
            name: key.name(),
            entry,
        }
    }

    pub(super) fn stored_member(&self, guild_id: GuildId, member: Member) -> Stored {
        self.stored(Fact::Member {
            guild_id,
            user_id: member.user_id,
            roles: member.roles,
            mute: member.mute,
            deaf: member.deaf,
            nick: member.nick,
            communication_disabled_until: member.communication_disabled_until,
        })
    }

    pub(super) fn stored_channel(&self, channel: Channel) -> Stored {
        let overwrites = channel.overwrites.into_iter().map(|overwrite| OverwriteFact {
            id: RoleId(overwrite.id),
            kind: match overwrite.kind {
                OverwriteKind::Role => 0,
                OverwriteKind::Member => 1,
            },
            allow: overwrite.allow,
            deny: overwrite.deny,
        });
        self.stored(Fact::Channel {
            id: channel.id,
            guild_id: channel.guild,
            kind: channel.kind.number(),
            name: channel.name,
            user_limit: channel.user_limit,
            rtc_region: channel.rtc_region,
            permission_overwrites: overwrites.collect(),
            recipients: channel.recipients,
        })
    }

    /// Facts that are true, without tombstones.
    pub fn facts(&self) -> usize {
        self.versions.values().filter(|version| !version.deleted).count()
    }

    fn touch(&self, fact: &Fact, touched: &mut Touched) {
        match fact {
            Fact::User { id, .. } => {
                touched.users.insert(*id);
            }
            Fact::Guild { id, .. } | Fact::Role { guild_id: id, .. } => {
                touched.guilds.insert(*id);
            }
            Fact::Member { user_id, .. } => {
                touched.users.insert(*user_id);
            }
            Fact::Channel { id, rtc_region, .. } => {
                touched.channels.insert(*id);
                if self.channel(*id).is_some_and(|known| known.rtc_region != *rtc_region) {
                    touched.regions.insert(*id);
                }
            }
            Fact::Friendship { .. } | Fact::Block { .. } => {}
        }
    }

    fn guild_mut(&mut self, guild: GuildId) -> &mut Guild {
        self.guilds.entry(guild).or_insert_with(|| Guild::new(guild))
    }

    fn take(&mut self, fact: Fact) {
        match fact {
            Fact::User {
                id,
                username,
                bot,
                unclaimed,
                suspicious,
                incoming_call_flags,
            } => {
                let user = User {
                    id,
                    username,
                    bot,
                    unclaimed,
                    suspicious,
                    incoming_calls: incoming_call_flags,
                };
                self.users.insert(id, user);
            }
            Fact::Guild {
                id,
                name,
                owner_id,
                features,
            } => {
                let guild = self.guild_mut(id);
                (guild.known, guild.name, guild.owner_id, guild.features) = (true, name, owner_id, features);
            }
            Fact::Role {
                guild_id,
                id,
                permissions,
            } => {
                self.guild_mut(guild_id).roles.insert(id, Role { permissions });
            }
            Fact::Member {
                guild_id,
                user_id,
                roles,
                mute,
                deaf,
                nick,
                communication_disabled_until,
            } => {
                let member = Member {
                    user_id,
                    roles,
                    mute,
                    deaf,
                    nick,
                    communication_disabled_until,
                };
                self.guild_mut(guild_id).members.insert(user_id, member);
                self.relations.entry(user_id).or_default().guilds.insert(guild_id);
            }
            Fact::Channel {
                id,
                guild_id,
                kind,
                name,
                user_limit,
                rtc_region,
                permission_overwrites,
                recipients,
            } => {
                // It may have had other recipients, or another guild.
                self.delete(Key::Channel(id));
                for user in &recipients {
                    self.relations.entry(*user).or_default().conversations.insert(id);
                }
                if let Some(guild) = guild_id {
                    self.guild_mut(guild).channels.insert(id);
                }
                let overwrites = permission_overwrites.into_iter().map(|overwrite| Overwrite {
                    id: overwrite.id.0,
                    kind: match overwrite.kind {
                        0 => OverwriteKind::Role,
                        _ => OverwriteKind::Member,
                    },
                    allow: overwrite.allow,
                    deny: overwrite.deny,
                });
                let channel = Channel {
                    id,
                    guild: guild_id,
                    kind: ChannelType::of(kind),
                    name,
                    user_limit,
                    rtc_region,
                    overwrites: overwrites.collect(),
                    recipients,
                };
                self.channels.insert(id, channel);
            }
            Fact::Friendship { user_id, other_id } => {
                self.relations.entry(user_id).or_default().friends.insert(other_id);
                self.relations.entry(other_id).or_default().friends.insert(user_id);
            }
            Fact::Block { user_id, other_id } => {
                self.relations.entry(user_id).or_default().blocked.insert(other_id);
            }
        }
    }

    fn delete(&mut self, key: Key) {
        match key {
            Key::User(user) => {
                self.users.remove(&user);
            }
            Key::Guild(guild) => {
                // Its parts are still told one by one; nobody sees them without it.
                if let Some(guild) = self.guilds.get_mut(&guild) {
                    guild.known = false;
                }
            }
            Key::Role(guild, role) => {
                self.guild_mut(guild).roles.remove(&role);
            }
            Key::Member(guild, user) => {
                self.guild_mut(guild).members.remove(&user);
                if let Some(relations) = self.relations.get_mut(&user) {
                    relations.guilds.remove(&guild);
                }
            }
            Key::Channel(id) => {
                let Some(channel) = self.channels.remove(&id) else {
                    return;
                };
                if let Some(guild) = channel.guild {
                    self.guild_mut(guild).channels.remove(&id);
                }
                for user in channel.recipients {
                    if let Some(relations) = self.relations.get_mut(&user) {
                        relations.conversations.remove(&id);
                    }
                }
            }
            Key::Friendship(a, b) => {
                for (one, other) in [(a, b), (b, a)] {
                    if let Some(relations) = self.relations.get_mut(&one) {
                        relations.friends.remove(&other);
                    }
                }
            }
            Key::Block(who, whom) => {
                if let Some(relations) = self.relations.get_mut(&who) {
                    relations.blocked.remove(&whom);
                }
            }
        }
    }
}
