//! Numbers, words and what they count.

use super::Error;

/// A value without parts, as it stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// A string, unescaped; cut off where it is very long.
    Text(&'a [u8]),
    /// A number as written.
    Number(&'a [u8]),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

// === impl Scalar ===

impl<'a> Scalar<'a> {
    /// What stands without quotes.
    pub(super) fn of(word: &'a [u8]) -> Result<Self, Error> {
        match word {
            b"true" => Ok(Self::Bool(true)),
            b"false" => Ok(Self::Bool(false)),
            // Some servers write what Python calls JSON.
            b"null" | b"NaN" | b"Infinity" | b"-Infinity" => Ok(Self::Null),
            [b'-' | b'0'..=b'9', rest @ ..] if rest.iter().all(is_numeric) => {
                Ok(Self::Number(word))
            }
            _ => Err(Error::Malformed),
        }
    }

    /// A count: a number that is not negative, floats such as `6.0` among them.
    pub fn count(self) -> Option<u64> {
        let Self::Number(text) = self else { return None };
        let text = std::str::from_utf8(text).ok()?;
        text.parse().ok().or_else(|| {
            let float: f64 = text.parse().ok()?;
            (float >= 0.0 && float < u64::MAX as f64).then_some(float as u64)
        })
    }
}

fn is_numeric(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')
}
