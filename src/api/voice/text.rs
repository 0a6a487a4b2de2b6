//! Texts of bodies whose length the contract bounds.

use serde::Deserialize;

use crate::voice::Coordinates;

/// `MIN` to `MAX` characters: Unicode's scalar values, as JSON Schema counts them.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Text<const MIN: usize, const MAX: usize>(pub String);

#[derive(Debug, thiserror::Error)]
#[error("a text that is too short or too long")]
pub(super) struct LengthError;

impl<const MIN: usize, const MAX: usize> TryFrom<String> for Text<MIN, MAX> {
    type Error = LengthError;

    fn try_from(text: String) -> Result<Self, LengthError> {
        // Counts no more of a long one than it takes to see that.
        let characters = text.chars().take(MAX.saturating_add(1)).count();
        match (MIN..=MAX).contains(&characters) {
            true => Ok(Self(text)),
            false => Err(LengthError),
        }
    }
}

/// Half of what a client says of where it is.
pub(super) type Degrees = Text<1, 32>;

pub(super) fn place(latitude: Option<&Degrees>, longitude: Option<&Degrees>) -> Option<Coordinates> {
    Coordinates::parse(
        latitude.map(|degrees| degrees.0.as_str()),
        longitude.map(|degrees| degrees.0.as_str()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_count_and_not_bytes() {
        let read = |text: &str| serde_json::from_value::<Text<1, 3>>(text.into()).is_ok();
        for (text, good) in [
            ("", false),
            ("a", true),
            ("äöü", true),
            ("abcd", false),
            ("😀😀😀", true),
        ] {
            assert_eq!(read(text), good, "{text}");
        }
    }
}
