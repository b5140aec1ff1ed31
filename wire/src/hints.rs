//! What the head of an answer says of the provider's limits: how much is left, and when to come back.
//!
//! Every provider has names and units of its own. What cannot be told for sure is absent: a moment
//! is only worth something beside the answer's own `date`, for no clock is read here.

use std::cell::OnceCell;

use crate::{Headers, RateLimits};

mod time;

use time::{Decimal, SECOND, decimal, http_date, length, rfc_3339, whole};

/// Dimensions that one answer may name; the most that any provider was seen to send is nine.
const MAX_DIMENSIONS: usize = 16;
/// Bytes of the name of a dimension.
const MAX_DIMENSION: usize = 40;
/// Bytes of a field name behind `ratelimit`.
const MAX_REST: usize = 64;
/// The longest window that is believed: a year. A larger number is no length of time.
const LONGEST: u64 = 366 * 86_400 * SECOND;
/// How far a window may have begun anew before the answer says so: clocks and seconds are coarse.
const LATE: u64 = 60 * SECOND;
/// The dimension of fields that name none.
const DEFAULT: &[u8] = b"default";

/// One of the three figures of a dimension.
#[derive(Clone, Copy)]
enum Figure {
    Limit,
    Remaining,
    Reset,
}

/// When the answer was made, by its own word; read only where a figure needs it.
struct Made<'a> {
    headers: &'a dyn Headers,
    at: OnceCell<Option<i128>>,
}

/// The rate limits that an answer names.
pub(crate) fn rate_limits(headers: &dyn Headers) -> RateLimits {
    let mut limits = RateLimits::default();
    let made = Made { headers, at: OnceCell::new() };
    headers.each(&mut |name, value| {
        if let Some(rest) = rest(name) {
            field(rest, value.trim_ascii(), &made, &mut limits);
        }
    });
    limits
}

/// How many seconds to wait before the next try.
pub(crate) fn retry_after(headers: &dyn Headers) -> Option<f64> {
    let value = |name| Some(std::str::from_utf8(headers.value(name)?).ok()?.trim());
    let figure = |text: &str| -> Option<f64> {
        text.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)
    };
    let milliseconds = value("retry-after-ms").and_then(figure).map(|value| value / 1000.0);
    milliseconds.or_else(|| {
        let text = value("retry-after")?;
        let until = |moment| Some(Made { headers, at: OnceCell::new() }.until(moment)?.max(0));
        figure(text).or_else(|| Some(until(http_date(text.as_bytes())?)? as f64 / SECOND as f64))
    })
}

/// Whether the call should be made again, by the word that the SDKs of OpenAI and Anthropic go by
/// before all else (`_should_retry` in their `_base_client.py`).
pub(crate) fn should_retry(headers: &dyn Headers) -> Option<bool> {
    match headers.value("x-should-retry")?.trim_ascii() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// What follows `ratelimit` in the name of a field, in the three spellings that providers have. Of
/// most fields no more than the first letters are looked at.
fn rest(name: &[u8]) -> Option<&[u8]> {
    match name.first()? | 0x20 {
        b'x' => behind(name, b"x-ratelimit"),
        b'r' => behind(name, b"ratelimit"),
        b'a' => behind(name, b"anthropic-ratelimit"),
        _ => None,
    }
}

/// What follows this front, in whatever case; most names come in lower case.
fn behind<'a, const N: usize>(name: &'a [u8], front: &[u8; N]) -> Option<&'a [u8]> {
    let (start, rest) = name.split_first_chunk::<N>()?;
    (start == front || start.eq_ignore_ascii_case(front)).then_some(rest)
}

fn field(rest: &[u8], value: &[u8], made: &Made<'_>, limits: &mut RateLimits) {
    let mut lower = [0; MAX_REST];
    let Some(lower) = lower.get_mut(..rest.len()) else { return };
    lower.copy_from_slice(rest);
    lower.make_ascii_lowercase();
    match &*lower {
        [] => list(value, made, limits),
        [b'-', words @ ..] => {
            if let Some((figure, dimension)) = meaning(words) {
                set(limits, dimension.unwrap_or(DEFAULT), figure, value, made);
            }
        }
        // Mistral limits large requests beside all requests.
        [b'b', b'y', b's', b'i', b'z', b'e', b'-', words @ ..] => match meaning(words) {
            Some((figure, None)) => set(limits, b"bysize", figure, value, made),
            Some((figure, Some(dimension))) => {
                set(limits, &[b"bysize-", dimension].concat(), figure, value, made);
            }
            None => {}
        },
        _ => {}
    }
}

/// `limit-requests`, `requests-limit`, `limit`.
fn meaning(words: &[u8]) -> Option<(Figure, Option<&[u8]>)> {
    let (figure, behind) = match words {
        [b'l', b'i', b'm', b'i', b't', behind @ ..] => (Figure::Limit, behind),
        [b'r', b'e', b's', b'e', b't', behind @ ..] => (Figure::Reset, behind),
        [b'r', b'e', b'm', b'a', b'i', b'n', b'i', b'n', b'g', behind @ ..] => {
            (Figure::Remaining, behind)
        }
        [front @ .., b'-', b'l', b'i', b'm', b'i', b't'] => {
            return Some((Figure::Limit, Some(front)));
        }
        [front @ .., b'-', b'r', b'e', b's', b'e', b't'] => {
            return Some((Figure::Reset, Some(front)));
        }
        [front @ .., b'-', b'r', b'e', b'm', b'a', b'i', b'n', b'i', b'n', b'g'] => {
            return Some((Figure::Remaining, Some(front)));
        }
        _ => return None,
    };
    match behind {
        [] => Some((figure, None)),
        [b'-', dimension @ ..] => Some((figure, Some(dimension))),
        _ => None,
    }
}

/// The one field of the IETF's drafts: `limit=10, remaining=5, reset=30`, or `"name";r=5;t=30`.
fn list(value: &[u8], made: &Made<'_>, limits: &mut RateLimits) {
    let mut dimension = DEFAULT;
    for part in value.split(|byte| matches!(byte, b',' | b';')).map(<[u8]>::trim_ascii) {
        let mut sides = part.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
        let figure = match (sides.next(), sides.next()) {
            (Some(b"limit"), Some(value)) => (Figure::Limit, value),
            (Some(b"remaining" | b"r"), Some(value)) => (Figure::Remaining, value),
            (Some(b"reset" | b"t"), Some(value)) => (Figure::Reset, value),
            (Some([b'"', name @ .., b'"']), None) => {
                dimension = name;
                continue;
            }
            _ => continue,
        };
        set(limits, dimension, figure.0, figure.1, made);
    }
}

/// Sets a figure, unless an earlier field has; what cannot be read names no dimension.
fn set(limits: &mut RateLimits, dimension: &[u8], figure: Figure, value: &[u8], made: &Made<'_>) {
    let Some(value) = figure.read(value, made) else { return };
    let known = limits.0.iter().position(|limit| limit.dimension.as_bytes() == dimension);
    let limit = match known {
        Some(at) => &mut limits.0[at],
        None if limits.0.len() < MAX_DIMENSIONS && is_word(dimension) => {
            limits.entry(std::str::from_utf8(dimension).expect("a word is ASCII"))
        }
        None => return,
    };
    match figure {
        Figure::Limit => _ = limit.limit.get_or_insert(value),
        Figure::Remaining => _ = limit.remaining.get_or_insert(value),
        Figure::Reset => _ = limit.reset_s.get_or_insert(value as f64 / SECOND as f64),
    }
}

/// Whether this may stand in a key of a record.
fn is_word(dimension: &[u8]) -> bool {
    let is_of_word = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=MAX_DIMENSION).contains(&dimension.len()) && dimension.iter().all(is_of_word)
}

// === impl Figure ===

impl Figure {
    /// A number, or nanoseconds.
    fn read(self, value: &[u8], made: &Made<'_>) -> Option<u64> {
        match self {
            Self::Limit | Self::Remaining => whole(value),
            Self::Reset => reset(value, made).filter(|time| *time <= LONGEST),
        }
    }
}

/// Until a window begins anew: a number, a length of time with its units, or a moment.
fn reset(text: &[u8], made: &Made<'_>) -> Option<u64> {
    match decimal(text) {
        Some((number, [])) => seconds(number, made),
        Some(_) => length(text).or_else(|| made.time_to(rfc_3339(text)?)),
        None => None,
    }
}

/// A number of seconds, or a moment as seconds or milliseconds since 1970. In between it is
/// nothing that can be told.
fn seconds(number: Decimal, made: &Made<'_>) -> Option<u64> {
    const EPOCH: u64 = 1_000_000_000;
    match number.whole() {
        0..EPOCH => number.times(SECOND),
        EPOCH..10_000_000_000 => made.time_to(number.times(SECOND)?.into()),
        1_000_000_000_000..10_000_000_000_000 => made.time_to(number.times(SECOND / 1000)?.into()),
        _ => None,
    }
}

// === impl Made ===

impl Made<'_> {
    /// Nanoseconds from the answer to a moment; negative where that had passed.
    fn until(&self, moment: i128) -> Option<i128> {
        let read = || http_date(self.headers.value("date")?.trim_ascii());
        Some(moment - (*self.at.get_or_init(read))?)
    }

    /// The same for a window; one that has just begun anew does so now.
    fn time_to(&self, moment: i128) -> Option<u64> {
        let time = self.until(moment).filter(|time| *time >= -i128::from(LATE))?;
        u64::try_from(time.max(0)).ok()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;
    use crate::RateLimit;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&str, &str)| {
            let name: HeaderName = name.parse().expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        };
        lines.iter().map(line).collect()
    }

    fn read(lines: &[(&str, &str)]) -> Vec<RateLimit> {
        rate_limits(&headers(lines)).0
    }

    fn limit(
        dimension: &str,
        limit: impl Into<Option<u64>>,
        remaining: impl Into<Option<u64>>,
        reset_s: impl Into<Option<f64>>,
    ) -> RateLimit {
        RateLimit {
            dimension: dimension.to_owned(),
            limit: limit.into(),
            remaining: remaining.into(),
            reset_s: reset_s.into(),
        }
    }

    const DATE: (&str, &str) = ("date", "Sat, 15 Mar 2025 09:38:16 GMT");

    #[test]
    fn every_provider_is_read_by_its_own_names() {
        assert_eq!(
            read(&[
                ("x-ratelimit-limit-requests", "10000"),
                ("X-RateLimit-Remaining-Requests", "9999"),
                ("x-ratelimit-reset-requests", "1m30s"),
                ("x-ratelimit-remaining-tokens", "9223372036854767616"),
                ("x-ratelimit-limit-tokens_usage_based", "250000"),
            ]),
            [
                limit("requests", 10_000, 9_999, 90.0),
                limit("tokens", None, 9_223_372_036_854_767_616, None),
                limit("tokens_usage_based", 250_000, None, None),
            ],
        );
        assert_eq!(
            read(&[
                DATE,
                ("anthropic-ratelimit-input-tokens-limit", "400000"),
                ("anthropic-ratelimit-input-tokens-remaining", "399000"),
                ("anthropic-ratelimit-input-tokens-reset", "2025-03-15T09:38:18Z"),
            ]),
            [limit("input-tokens", 400_000, 399_000, 2.0)],
        );
        assert_eq!(
            read(&[
                ("x-ratelimit-limit-req-10-second", "60"),
                ("ratelimitbysize-limit", "500000"),
                ("ratelimitbysize-reset", "46"),
                ("ratelimitbysize-query-cost", "32010"),
                ("x-ratelimitbysize-remaining-month", "997278920"),
            ]),
            [
                limit("req-10-second", 60, None, None),
                limit("bysize", 500_000, None, 46.0),
                limit("bysize-month", None, 997_278_920, None),
            ],
        );
        assert_eq!(
            read(&[("x-ratelimit-limit", "2"), ("x-ratelimit-reset", "1"), ("x-ratelimit", "no")]),
            [limit("default", 2, None, 1.0)],
        );
        let drafts = [
            ("limit=10, remaining=5, reset=30", limit("default", 10, 5, 30.0)),
            ("\"burst\";r=5;t=30", limit("burst", None, 5, 30.0)),
        ];
        for (value, expected) in drafts {
            assert_eq!(read(&[("ratelimit", value)]), [expected], "{value}");
        }
    }

    #[test]
    fn what_is_no_limit_is_none() {
        for (name, value) in [
            ("x-ratelimit-renewalperiod-requests", "60"),
            ("x-ratelimit-key", "gpt-5"),
            ("x-ratelimit-abusepenalty-active", "False"),
            ("x-ratelimit-tokens-query-cost", "10"),
            ("x-ratelimit-limit-requests", "many"),
            ("x-ratelimit-limit-requests", "-1"),
            ("x-ratelimit-limit-requests", "+1"),
            ("x-ratelimit-limit-requests", "1.5"),
            ("x-ratelimit-limit-requests", "18446744073709551616"),
            ("x-ratelimit-limit-a.b", "1"),
            ("x-ratelimit-limit-", "1"),
            ("x-ratelimit-limits", "1"),
            ("x-ratelimited-limit-a", "1"),
            ("y-ratelimit-limit-a", "1"),
            ("ratelimit", ""),
        ] {
            assert_eq!(read(&[(name, value)]), [], "{name}: {value}");
        }
    }

    #[test]
    fn a_reset_is_right_or_absent() {
        for (text, seconds) in [
            ("4ms", Some(0.004)),
            ("7.66s", Some(7.66)),
            ("2m59.56s", Some(179.56)),
            ("6h0m0s", Some(21_600.0)),
            ("0s", Some(0.0)),
            ("500", Some(500.0)),
            ("0.5", Some(0.5)),
            // Moments: seconds and milliseconds since 1970, and RFC 3339.
            ("1742031526", Some(30.0)),
            ("1742031496500", Some(0.5)),
            ("2025-03-15T09:38:15Z", Some(0.0)),
            ("2025-03-15T09:30:15Z", None),
            ("2035-03-15T09:30:15Z", None),
            ("99999999", None),
            ("99999999999", None),
            ("99999999999999999999", None),
            ("2025-03-15T09:38:17.5Z", Some(1.5)),
            ("2025-03-15T10:38:17+01:00", Some(1.0)),
            ("2025-02-30T09:38:17Z", None),
            ("2025-03-15T24:38:17Z", None),
            ("1e3", None),
            ("inf", None),
            ("soon", None),
            ("5", Some(5.0)),
            ("5x", None),
            ("s", None),
            ("1.2.3", None),
            ("-5s", None),
            ("", None),
        ] {
            let limits = read(&[DATE, ("x-ratelimit-reset-tokens", text)]);
            assert_eq!(limits.first().and_then(|limit| limit.reset_s), seconds, "{text}");
        }
        assert_eq!(read(&[("x-ratelimit-reset", "1742031526")]), [], "without a date");
    }

    #[test]
    fn an_answer_names_so_many_dimensions_and_no_more() {
        let names: Vec<_> = (0..100).map(|at| format!("x-ratelimit-limit-d{at}")).collect();
        let lines: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
        assert_eq!(read(&lines).len(), MAX_DIMENSIONS);
        let long = format!("x-ratelimit-limit-{}", "d".repeat(MAX_DIMENSION + 1));
        assert_eq!(read(&[(&long, "1")]), []);
        let longest = format!("x-ratelimit-limit-{}", "d".repeat(1000));
        assert_eq!(read(&[(&longest, "1")]), []);
    }

    #[test]
    fn the_wait_is_read_in_all_its_forms() {
        for (lines, seconds) in [
            (&[("retry-after", "13")][..], Some(13.0)),
            (&[("retry-after", "1.5")], Some(1.5)),
            (&[("retry-after", "2"), ("retry-after-ms", "1250")], Some(1.25)),
            (&[("retry-after", "2"), ("retry-after-ms", "x")], Some(2.0)),
            (&[DATE, ("retry-after", "Sat, 15 Mar 2025 09:39:16 GMT")], Some(60.0)),
            (&[DATE, ("retry-after", "Sat, 15 Mar 2025 09:38:10 GMT")], Some(0.0)),
            (&[DATE, ("retry-after", "Sat, 15 Mar 2025 10:39:16 +0100")], Some(60.0)),
            (&[DATE, ("retry-after", "Sat, 31 Feb 2025 09:39:16 GMT")], None),
            (&[("retry-after", "Sat, 15 Mar 2025 09:39:16 GMT")], None),
            (&[("retry-after", "-1")], None),
            (&[("retry-after", "nan")], None),
            (&[], None),
        ] {
            assert_eq!(retry_after(&headers(lines)), seconds, "{lines:?}");
        }
    }
}
