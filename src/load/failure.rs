//! Why a load test has failed, and the exit code that says so.

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("the server refused {who}: {reason}")]
    Refused { who: String, reason: String },
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    #[error("the server vanished: {who}: {reason}")]
    Vanished { who: String, reason: String },
    #[error("{0}")]
    NothingArrived(String),
    #[error("{0}")]
    Lost(String),
    #[error("{0}")]
    Spoilt(String),
    /// Neither the server's fault nor the caller's.
    #[error("{0}")]
    Machine(String),
}

impl Failure {
    /// Stable: scripts tell the reasons apart by it. 2 is also what wrong flags give.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Machine(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused { .. } | Self::Unreachable(_) => 3,
            Self::Vanished { .. } => 4,
            Self::NothingArrived(_) => 5,
            Self::Lost(_) => 6,
            Self::Spoilt(_) => 7,
        }
    }
}
