//! Who may allocate: asked of whoever made the credentials.

use std::time::Duration;

/// Knows the scheme that usernames and passwords are made by. One server makes and checks them, so that no list of users
/// is kept.
pub trait Credentials: Send {
    /// The account behind a username at `unix` (time since 1970). None when the name is not one of ours, or is past its
    /// time. Whether the participant is still there is the server's to know.
    fn account(&self, username: &str, unix: Duration) -> Option<Account>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The participant: quotas count by it, and revoking names it.
    pub user: String,
    pub password: String,
}
