//! What is wrong with a description's text.

/// Always the peer's fault; sending the same text again gives the same error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    #[error("the description is {0} bytes long, the limit is {max}", max = super::MAX_DESCRIPTION_BYTES)]
    TooLong(usize),
    #[error("line {0} is too long")]
    LineTooLong(usize),
    #[error("more than {max} m-lines", max = super::MAX_SECTIONS)]
    TooManySections,
    #[error("more than {max} attributes in one section, at line {0}", max = super::MAX_ATTRIBUTES)]
    TooManyAttributes(usize),
    #[error("the description does not begin with v=0")]
    NoVersion,
    #[error("line {0} has no `type=value` form")]
    BadLine(usize),
    #[error("line {line}: cannot read {what}")]
    BadValue { line: usize, what: &'static str },
}
