//! The content encodings of a reply, undone beside what goes on to the caller.
//!
//! A decoder is given what came and hands on at once all that can be told by now: an event must
//! not wait for the next one. Only replies that are encoded have one. What it keeps is the
//! window of its format, at most 8 MiB for zstd, 16 MiB for brotli, 32 KiB for the others, and of
//! that only what the reply has filled.

mod brotli;
mod gzip;
mod inflate;
mod zstd;

use std::fmt::Debug;

use crate::frame::NotUnderstood;

use brotli::Brotli;
use gzip::Gzip;
use inflate::Deflate;
use zstd::Zstd;

/// Takes what a decoder makes.
pub(crate) type Out<'a> = dyn FnMut(&[u8]) -> Result<(), NotUnderstood> + 'a;

/// Undoes an encoding, or whatever else a body comes in.
pub(crate) trait Decoder: Debug + Send + Sync {
    /// Decodes all that can be decoded by now.
    fn decode(&mut self, bytes: &[u8], out: &mut Out<'_>) -> Result<(), NotUnderstood>;

    /// No more comes. Says whether the encoding came to its end.
    fn end(&mut self) -> bool;
}

/// How a body is encoded.
#[derive(Debug)]
pub(crate) enum Coding {
    /// Not at all.
    Identity,
    /// In a way that can be undone.
    Encoded(Box<dyn Decoder>),
    /// In a way that nobody here knows, or in several ways on top of each other.
    Unknown,
}

// === impl Coding ===

impl Coding {
    /// Reads `content-encoding`.
    pub(crate) fn read(field: Option<&[u8]>) -> Self {
        let names = field.unwrap_or_default().split(|byte| *byte == b',');
        let mut names = names.map(<[u8]>::trim_ascii).filter(|name| !is_nothing(name));
        match (names.next(), names.next()) {
            (None, _) => Self::Identity,
            (Some(name), None) => Self::named(&name.to_ascii_lowercase()),
            (Some(_), Some(_)) => Self::Unknown,
        }
    }

    fn named(name: &[u8]) -> Self {
        match name {
            b"gzip" | b"x-gzip" => Self::Encoded(Box::<Gzip>::default()),
            b"deflate" => Self::Encoded(Box::<Deflate>::default()),
            b"br" => Self::Encoded(Box::<Brotli>::default()),
            b"zstd" => Zstd::new().map_or(Self::Unknown, |zstd| Self::Encoded(Box::new(zstd))),
            _ => Self::Unknown,
        }
    }
}

fn is_nothing(name: &[u8]) -> bool {
    name.is_empty() || name.eq_ignore_ascii_case(b"identity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(field: &str, expected: &str) {
        let coding = format!("{:?}", Coding::read(Some(field.as_bytes())));
        assert!(coding.contains(expected), "{field}: {coding}");
    }

    #[test]
    fn names_are_known_in_any_case_and_a_list_of_one_is_that_one() {
        check("", "Identity");
        check("identity", "Identity");
        check("GZIP", "Gzip");
        check("x-gzip", "Gzip");
        check("Deflate", "Unsure");
        check("br", "Brotli");
        check(" zstd ", "Zstd");
        check("identity, gzip", "Gzip");
        check("gzip, br", "Unknown");
        check("compress", "Unknown");
    }
}
