//! The ids of traces and spans, as W3C Trace Context writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The trace that a call belongs to.
pub type TraceId = Id<16>;
/// One call within a trace.
pub type SpanId = Id<8>;

/// An identifier of `N` bytes, written as lower-case hexadecimal (W3C Trace Context).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id<const N: usize>(pub [u8; N]);

impl SpanId {
    /// The id of a part of this span: another one for each, and none of them the span's own.
    pub fn of_child(self, place: usize) -> Self {
        // An odd factor gives each number another product.
        let offset = (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let id = u64::from_be_bytes(self.0).wrapping_add(offset);
        Self(id.max(1).to_be_bytes())
    }
}

/// The text is no identifier of that length.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidId;

// === impl Id ===

impl<const N: usize> Default for Id<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> fmt::Display for Id<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text[..2 * N]).expect("digits are ASCII"))
    }
}

impl<const N: usize> fmt::Debug for Id<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> FromStr for Id<N> {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.len() != 2 * N {
            return Err(InvalidId);
        }
        let mut bytes = [0; N];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl<const N: usize> Serialize for Id<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Id<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|InvalidId| serde::de::Error::custom("not an id in lower-case hexadecimal"))
    }
}

fn digit(byte: u8) -> Result<u8, InvalidId> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(InvalidId),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_the_wrong_length_or_case_is_none() {
        for text in ["", "00", "00F067AA0BA902B7", "00f067aa0ba902bg", "00f067aa0ba902b70"] {
            assert_eq!(text.parse::<SpanId>(), Err(InvalidId), "{text}");
        }
    }
}
