//! Issuer and end of a certificate: as much of X.509 as stands before its keys.
//!
//! `Certificate ::= { { [0] version?, serial, algorithm, issuer, { notBefore, notAfter }, ...`
//! (RFC 5280, section 4.1)

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
/// Names of an issuer, the better first: organisation, common name.
const NAMES: [&[u8]; 2] = [&[0x55, 0x04, 0x0a], &[0x55, 0x04, 0x03]];
const MAX_NAME: usize = 64;

/// What is told of a certificate.
#[derive(Debug, PartialEq)]
pub(super) struct Certificate {
    pub(super) issuer: String,
    pub(super) not_after: SystemTime,
}

impl Certificate {
    /// Reads one; nothing where it is not understood.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let mut whole = Reader(Reader(der).take(SEQUENCE)?);
        let mut inner = Reader(whole.take(SEQUENCE)?);
        if inner.0.first() == Some(&VERSION) {
            inner.take(VERSION)?;
        }
        inner.take(INTEGER)?;
        inner.take(SEQUENCE)?;
        let issuer = inner.take(SEQUENCE)?;
        let mut validity = Reader(inner.take(SEQUENCE)?);
        validity.next()?;
        let (tag, end) = validity.next()?;
        Some(Self { issuer: name(issuer), not_after: time(end, tag == UTC_TIME)? })
    }
}

/// `2026-12-01`
pub(super) fn day(time: SystemTime) -> String {
    let stamp = Timestamp::try_from(time).unwrap_or_default().to_string();
    stamp.get(..10).unwrap_or(&stamp).to_owned()
}

/// Elements of DER, one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next element's tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next element, if it is of this kind.
    fn take(&mut self, expected: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == expected).map(|(_, content)| content)
    }
}

fn name(issuer: &[u8]) -> String {
    let found = NAMES.iter().find_map(|wanted| attribute(issuer, wanted));
    found
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "an authority without a name".to_owned())
}

fn attribute(issuer: &[u8], wanted: &[u8]) -> Option<String> {
    let mut sets = Reader(issuer);
    while let Some(set) = sets.take(SET) {
        let mut pair = Reader(Reader(set).take(SEQUENCE)?);
        let ((_, kind), (_, value)) = (pair.next()?, pair.next()?);
        if kind == wanted {
            let text = String::from_utf8_lossy(value);
            let legal = |letter: &char| letter.is_alphanumeric() || " .-,&'()".contains(*letter);
            return Some(text.chars().filter(legal).take(MAX_NAME).collect());
        }
    }
    None
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`.
fn time(text: &[u8], is_short: bool) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?;
    let text = match (is_short, text.get(..2)?) {
        (true, year) if year < "50" => format!("20{text}"),
        (true, _) => format!("19{text}"),
        (false, _) => text.to_owned(),
    };
    let part = |at: usize, length: usize| text.get(at..at + length);
    let stamp = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 2)?,
        part(6, 2)?,
        part(8, 2)?,
        part(10, 2)?,
        part(12, 2)?
    );
    let stamp: Timestamp = stamp.parse().ok()?;
    let seconds = u64::try_from(stamp.as_second()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_standard_has_them() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(time(b"260102030405Z", true), at(1_767_323_045));
        assert_eq!(time(b"20260102030405Z", false), at(1_767_323_045));
        assert_eq!(time(b"700101000000Z", true), at(0));
        for bad in [&b""[..], b"26", b"2601020304", b"261302030405Z", b"\xff\xff"] {
            assert_eq!(time(bad, true), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        for bad in
            [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x01\x02", b"\x30\x80"]
        {
            assert_eq!(Certificate::read(bad), None, "{bad:?}");
        }
    }
}
