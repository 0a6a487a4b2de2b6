//! Who may ring whom.

use serde::{Deserialize, Serialize};

use super::Directory;
use crate::voice::ids::UserId;

/// A user's choice of who may ring; bits as the backend keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncomingCalls(pub u32);

impl IncomingCalls {
    pub const FRIENDS_OF_FRIENDS: u32 = 1;
    pub const GUILD_MEMBERS: u32 = 2;
    pub const EVERYONE: u32 = 4;
    pub const FRIENDS_ONLY: u32 = 8;
    pub const NOBODY: u32 = 16;
    pub const SILENT_EVERYONE: u32 = 32;

    pub fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    /// As the backend should have saved it: the exclusive ones alone, silence beside any.
    pub fn normalised(self) -> Self {
        let silent = self.0 & Self::SILENT_EVERYONE;
        let exclusive = [Self::NOBODY, Self::FRIENDS_ONLY]
            .into_iter()
            .find(|flag| self.has(*flag));
        match exclusive {
            Some(flag) => Self(flag | silent),
            None => self,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ringable {
    pub ringable: bool,
    pub silent: bool,
}

impl Ringable {
    const NO: Self = Self {
        ringable: false,
        silent: false,
    };
    const YES: Self = Self {
        ringable: true,
        silent: false,
    };
    const SILENTLY: Self = Self {
        ringable: true,
        silent: true,
    };
}

impl Directory {
    /// Whether `caller` may make `callee`'s devices ring, and whether they then stay silent.
    pub fn ringable(&self, caller: UserId, callee: UserId) -> Ringable {
        let settings = self.user(callee).and_then(|user| user.incoming_calls);
        let Some(flags) = settings.map(IncomingCalls::normalised) else {
            return Ringable::YES;
        };
        if flags.has(IncomingCalls::NOBODY) {
            return Ringable::NO;
        }
        if self.are_friends(caller, callee) {
            return Ringable::YES;
        }
        if flags.has(IncomingCalls::FRIENDS_ONLY) {
            return Ringable::NO;
        }
        let reaches = flags.has(IncomingCalls::FRIENDS_OF_FRIENDS) && self.have_mutual_friend(caller, callee)
            || flags.has(IncomingCalls::GUILD_MEMBERS) && self.have_mutual_guild(caller, callee)
            || flags.has(IncomingCalls::EVERYONE);
        match (reaches, flags.has(IncomingCalls::SILENT_EVERYONE)) {
            (false, _) => Ringable::NO,
            (true, true) => Ringable::SILENTLY,
            (true, false) => Ringable::YES,
        }
    }
}
