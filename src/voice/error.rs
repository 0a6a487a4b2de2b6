//! Why something was refused: once, with its code towards the gateway and its status towards HTTP.

use std::time::Duration;

use super::directory::SyncError;
use super::topology::RecordError;

/// Every documented refusal, and nothing else. The texts are part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoiceError {
    InvalidSnowflake,
    InvalidParameters,
    GuildIdMissing,
    InvalidGuildId,
    InvalidChannelId,
    GuildNotFound,
    MemberNotFound,
    UserUnknown,
    ChannelNotFound,
    InvalidChannelType,
    MissingConnectionId,
    ConnectionNotFound,
    UserMismatch,
    TimedOut,
    PermissionDenied,
    ModeratorCannotConnect,
    ChannelFull,
    CameraLimit,
    InvalidState,
    UnclaimedOneOnOne,
    UnclaimedChannel,
    Suspicious,
    DmChannelNotFound,
    DmNotRecipient,
    DmInvalidChannelType,
    /// No server for whoever asks.
    FeatureDisabled,
    UnknownRegion,
    UnknownServer,
    /// Of a PATCH: not there, or not for whoever asks.
    RestrictedRegion,
    UserNotInVoice,
    NoActiveCall,
    CallAlreadyExists,
    InvalidChannelTypeForCall,
    CannotSendToUser,
    NonceMismatch,
    PendingExpired,
    UpdateRateLimited,
    RateLimited(Duration),
    /// The database cannot be written; calls go on, nobody new is let in.
    StorageDown,
    /// Too much of something that is bounded.
    Full,
    Record(RecordError),
    Sync(SyncError),
    Unauthorized,
}

impl VoiceError {
    /// One of each kind.
    pub const ALL: &[Self] = &[
        Self::InvalidSnowflake,
        Self::InvalidParameters,
        Self::GuildIdMissing,
        Self::InvalidGuildId,
        Self::InvalidChannelId,
        Self::GuildNotFound,
        Self::MemberNotFound,
        Self::UserUnknown,
        Self::ChannelNotFound,
        Self::InvalidChannelType,
        Self::MissingConnectionId,
        Self::ConnectionNotFound,
        Self::UserMismatch,
        Self::TimedOut,
        Self::PermissionDenied,
        Self::ModeratorCannotConnect,
        Self::ChannelFull,
        Self::CameraLimit,
        Self::InvalidState,
        Self::UnclaimedOneOnOne,
        Self::UnclaimedChannel,
        Self::Suspicious,
        Self::DmChannelNotFound,
        Self::DmNotRecipient,
        Self::DmInvalidChannelType,
        Self::FeatureDisabled,
        Self::UnknownRegion,
        Self::UnknownServer,
        Self::RestrictedRegion,
        Self::UserNotInVoice,
        Self::NoActiveCall,
        Self::CallAlreadyExists,
        Self::InvalidChannelTypeForCall,
        Self::CannotSendToUser,
        Self::NonceMismatch,
        Self::PendingExpired,
        Self::UpdateRateLimited,
        Self::RateLimited(Duration::ZERO),
        Self::StorageDown,
        Self::Full,
        Self::Record(RecordError::Id),
        Self::Sync(SyncError::TooLarge),
        Self::Unauthorized,
    ];

    /// Code and text of an op 12.
    pub fn gateway(self) -> (&'static str, &'static str) {
        match self {
            Self::InvalidSnowflake => ("VALIDATION_INVALID_SNOWFLAKE", "Invalid snowflake ID"),
            Self::InvalidParameters | Self::Record(_) | Self::Sync(_) => {
                ("VALIDATION_INVALID_PARAMS", "Invalid parameters")
            }
            Self::GuildIdMissing => ("VOICE_GUILD_ID_MISSING", "Guild ID is required"),
            Self::InvalidGuildId => ("VOICE_INVALID_GUILD_ID", "Invalid guild ID"),
            Self::UserUnknown => ("VOICE_INVALID_USER_ID", "Invalid user ID"),
            Self::InvalidChannelId => ("VOICE_INVALID_CHANNEL_ID", "Invalid channel ID"),
            Self::GuildNotFound => ("VOICE_GUILD_NOT_FOUND", "Guild not found"),
            Self::MemberNotFound => ("VOICE_MEMBER_NOT_FOUND", "Member not found"),
            Self::ChannelNotFound => ("VOICE_CHANNEL_NOT_FOUND", "Voice channel not found"),
            Self::InvalidChannelType => ("VOICE_INVALID_CHANNEL_TYPE", "Channel is not a voice channel"),
            Self::MissingConnectionId => ("VOICE_MISSING_CONNECTION_ID", "Connection ID is required"),
            Self::ConnectionNotFound => ("VOICE_CONNECTION_NOT_FOUND", "Voice connection not found"),
            Self::UserMismatch => ("VOICE_USER_MISMATCH", "User does not match connection"),
            Self::TimedOut => ("VOICE_MEMBER_TIMED_OUT", "Voice member is timed out"),
            Self::PermissionDenied | Self::Unauthorized => ("VOICE_PERMISSION_DENIED", "Missing voice permissions"),
            Self::ModeratorCannotConnect => ("VOICE_PERMISSION_DENIED", "Moderator missing connect permission"),
            Self::ChannelFull => ("VOICE_CHANNEL_FULL", "Voice channel is full"),
            Self::CameraLimit => ("VOICE_CAMERA_USER_LIMIT", "Too many users in channel to enable camera"),
            Self::InvalidState => ("VOICE_INVALID_STATE", "Invalid voice state"),
            Self::UnclaimedOneOnOne | Self::UnclaimedChannel => {
                ("VOICE_UNCLAIMED_ACCOUNT", "Claim your account to join voice")
            }
            Self::DmChannelNotFound => ("DM_CHANNEL_NOT_FOUND", "DM channel not found"),
            Self::DmNotRecipient => ("DM_NOT_RECIPIENT", "Not a recipient of this channel"),
            Self::DmInvalidChannelType | Self::InvalidChannelTypeForCall => {
                ("DM_INVALID_CHANNEL_TYPE", "Not a DM or Group DM channel")
            }
            Self::UserNotInVoice => ("VOICE_USER_NOT_IN_VOICE", "User is not in a voice channel"),
            Self::NonceMismatch => ("VOICE_NONCE_MISMATCH", "Voice token nonce mismatch"),
            Self::PendingExpired => ("VOICE_PENDING_EXPIRED", "Voice pending connection expired"),
            Self::UpdateRateLimited | Self::RateLimited(_) => {
                ("VOICE_UPDATE_RATE_LIMITED", "Voice updates are rate limited")
            }
            Self::Suspicious
            | Self::FeatureDisabled
            | Self::UnknownRegion
            | Self::UnknownServer
            | Self::RestrictedRegion
            | Self::StorageDown => ("VOICE_TOKEN_FAILED", "Failed to obtain voice token"),
            Self::NoActiveCall | Self::CallAlreadyExists | Self::CannotSendToUser => ("UNKNOWN_ERROR", "Unknown error"),
            Self::Full => ("INTERNAL_ERROR", "Internal error"),
        }
    }

    /// Status, code and text of an HTTP answer.
    pub fn http(self) -> (u16, &'static str, String) {
        let (status, code, text) = match self {
            Self::InvalidSnowflake => (400, "INVALID_FORM_BODY", "Invalid snowflake ID"),
            Self::InvalidParameters => (400, "INVALID_FORM_BODY", "Invalid form body"),
            Self::GuildIdMissing => (400, "INVALID_FORM_BODY", "Guild ID is required"),
            Self::InvalidGuildId => (400, "INVALID_FORM_BODY", "Invalid guild ID"),
            Self::InvalidChannelId => (400, "INVALID_FORM_BODY", "Channel does not exist"),
            Self::InvalidChannelType => (400, "INVALID_FORM_BODY", "Channel must be a voice channel"),
            Self::InvalidState => (400, "INVALID_FORM_BODY", "Invalid voice state"),
            Self::MissingConnectionId => (400, "INVALID_FORM_BODY", "Connection ID is required"),
            Self::RestrictedRegion => (400, "INVALID_FORM_BODY", "Invalid or restricted RTC region"),
            Self::Record(error) => return (400, "INVALID_FORM_BODY", error.to_string()),
            Self::Sync(error) => return (400, "INVALID_FORM_BODY", error.to_string()),
            Self::GuildNotFound => (404, "UNKNOWN_GUILD", "Unknown Guild"),
            Self::MemberNotFound => (404, "UNKNOWN_MEMBER", "Unknown Guild Member"),
            Self::UserUnknown => (404, "UNKNOWN_USER", "Unknown User"),
            Self::ChannelNotFound | Self::DmChannelNotFound | Self::DmNotRecipient => {
                (404, "UNKNOWN_CHANNEL", "Unknown Channel")
            }
            Self::ConnectionNotFound => (404, "VOICE_CONNECTION_NOT_FOUND", "Voice connection not found"),
            Self::UnknownRegion => (404, "UNKNOWN_VOICE_REGION", "Unknown voice region"),
            Self::UnknownServer => (404, "UNKNOWN_VOICE_SERVER", "Unknown voice server"),
            Self::NoActiveCall => (404, "NO_ACTIVE_CALL", "No active call in this channel"),
            Self::UserMismatch => (403, "VOICE_USER_MISMATCH", "User does not match connection"),
            Self::TimedOut => (403, "VOICE_MEMBER_TIMED_OUT", "Voice member is timed out"),
            Self::PermissionDenied | Self::ModeratorCannotConnect => {
                (403, "MISSING_PERMISSIONS", "Missing permissions")
            }
            Self::Suspicious => (
                403,
                "ACCOUNT_SUSPICIOUS_ACTIVITY",
                "Suspicious activity on this account",
            ),
            Self::CannotSendToUser => (403, "CANNOT_SEND_MESSAGES_TO_USER", "Cannot send messages to this user"),
            Self::ChannelFull => (400, "VOICE_CHANNEL_FULL", "Voice channel is full"),
            Self::CameraLimit => (
                400,
                "VOICE_CAMERA_USER_LIMIT",
                "Too many users in channel to enable camera",
            ),
            Self::UnclaimedOneOnOne => (
                400,
                "UNCLAIMED_ACCOUNT_CANNOT_JOIN_ONE_ON_ONE_VOICE_CALLS",
                "Unclaimed accounts cannot join 1:1 voice calls",
            ),
            Self::UnclaimedChannel => (
                400,
                "UNCLAIMED_ACCOUNT_CANNOT_JOIN_VOICE_CHANNELS",
                "Unclaimed accounts cannot join voice channels you do not own",
            ),
            Self::UserNotInVoice => (
                400,
                "USER_NOT_IN_VOICE",
                "User is not connected to voice in this guild.",
            ),
            Self::CallAlreadyExists => (400, "CALL_ALREADY_EXISTS", "A call already exists in this channel"),
            Self::InvalidChannelTypeForCall | Self::DmInvalidChannelType => (
                400,
                "INVALID_CHANNEL_TYPE_FOR_CALL",
                "Calls can only be created in DM or Group DM channels",
            ),
            Self::NonceMismatch => (400, "VOICE_NONCE_MISMATCH", "Voice token nonce mismatch"),
            Self::PendingExpired => (400, "VOICE_PENDING_EXPIRED", "Voice pending connection expired"),
            Self::UpdateRateLimited => (429, "RATE_LIMITED", "Voice updates are rate limited"),
            Self::RateLimited(_) => (429, "RATE_LIMITED", "You are being rate limited"),
            Self::FeatureDisabled => (503, "FEATURE_TEMPORARILY_DISABLED", "Feature is temporarily disabled"),
            Self::StorageDown | Self::Full => (503, "SERVICE_UNAVAILABLE", "Service is temporarily unavailable"),
            Self::Unauthorized => (401, "UNAUTHORIZED", "Unauthorized"),
        };
        (status, code, text.to_owned())
    }

    /// When to ask again, where that would help.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::RateLimited(wait) => Some(wait),
            Self::UpdateRateLimited => Some(Duration::from_secs(1)),
            Self::FeatureDisabled | Self::StorageDown | Self::Full => Some(Duration::from_secs(5)),
            _ => None,
        }
    }
}

impl From<RecordError> for VoiceError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::NoRegion => Self::UnknownRegion,
            error => Self::Record(error),
        }
    }
}

impl From<SyncError> for VoiceError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Full => Self::Full,
            error => Self::Sync(error),
        }
    }
}
