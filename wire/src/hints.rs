//! What the head of an answer says of the provider's limits: how much is left, and when to come back.
//!
//! Every provider has names and units of its own. What cannot be told for sure is absent: a moment
//! is only worth something beside the answer's own `date`, for no clock is read here.

use std::borrow::Cow;
use std::cell::OnceCell;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::{Headers, RateLimits};

/// Dimensions that one answer may name; the most that any provider was seen to send is nine.
const MAX_DIMENSIONS: usize = 16;
/// Bytes of the name of a dimension.
const MAX_DIMENSION: usize = 40;
/// Bytes of a field name behind `ratelimit`.
const MAX_REST: usize = 64;
/// The longest window that is believed, in seconds: a year. A larger number is no length of time.
const LONGEST: f64 = 366.0 * 86_400.0;
/// How far a window may have begun anew before the answer says so: clocks and seconds are coarse.
const LATE: f64 = 60.0;
/// The dimension of fields that name none.
const DEFAULT: &str = "default";

/// One of the three figures of a dimension.
#[derive(Clone, Copy)]
enum Figure {
    Limit,
    Remaining,
    Reset,
}

const FIGURES: [(&str, Figure); 3] =
    [("limit", Figure::Limit), ("remaining", Figure::Remaining), ("reset", Figure::Reset)];

/// When the answer was made, by its own word; read only where a figure needs it.
struct Made<'a> {
    headers: &'a dyn Headers,
    at: OnceCell<Option<Timestamp>>,
}

/// The rate limits that an answer names.
pub(crate) fn rate_limits(headers: &dyn Headers) -> RateLimits {
    let mut limits = RateLimits::default();
    let made = Made::new(headers);
    headers.each(&mut |name, value| {
        if let Some(rest) = rest(name) {
            field(rest, value, &made, &mut limits);
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
        figure(text).or_else(|| Made::new(headers).until(http_date(text)?))
    })
}

/// What follows `ratelimit` in the name of a field, in the three spellings that providers have. Of
/// most fields no more than the first letter is looked at.
fn rest(name: &[u8]) -> Option<&[u8]> {
    const WORD: &[u8] = b"ratelimit";
    let front: &[u8] = match name.first()? | 0x20 {
        b'x' => b"x-",
        b'r' => b"",
        b'a' => b"anthropic-",
        _ => return None,
    };
    let (start, rest) = name.split_at_checked(front.len() + WORD.len())?;
    let (before, word) = start.split_at(front.len());
    let is_it = word.eq_ignore_ascii_case(WORD) && before.eq_ignore_ascii_case(front);
    is_it.then_some(rest)
}

fn field(rest: &[u8], value: &[u8], made: &Made<'_>, limits: &mut RateLimits) {
    let mut lower = [0; MAX_REST];
    let Some(lower) = lower.get_mut(..rest.len()) else { return };
    lower.copy_from_slice(rest);
    lower.make_ascii_lowercase();
    let (Ok(rest), Ok(value)) = (std::str::from_utf8(lower), std::str::from_utf8(value)) else {
        return;
    };
    if rest.is_empty() {
        list(value, made, limits);
    } else if let Some((figure, dimension)) = meaning(rest) {
        set(limits, &dimension, figure, value, made);
    }
}

/// `-limit-requests`, `-requests-limit`, `-limit`, `bysize-remaining-minute`.
fn meaning(rest: &str) -> Option<(Figure, Cow<'_, str>)> {
    let (family, rest) = match rest.strip_prefix("bysize") {
        Some(rest) => ("bysize", rest),
        None => ("", rest),
    };
    let words = rest.strip_prefix('-')?;
    let (figure, dimension) = FIGURES.into_iter().find_map(|(word, figure)| {
        let dimension = match words.strip_prefix(word) {
            Some("") => None,
            Some(behind) => Some(behind.strip_prefix('-')?),
            None => Some(words.strip_suffix(word)?.strip_suffix('-')?),
        };
        Some((figure, dimension))
    })?;
    let dimension = match (family, dimension) {
        ("", dimension) => dimension.unwrap_or(DEFAULT).into(),
        (family, None) => family.into(),
        (family, Some(dimension)) => format!("{family}-{dimension}").into(),
    };
    Some((figure, dimension))
}

/// The one field of the IETF's drafts: `limit=10, remaining=5, reset=30`, or `"name";r=5;t=30`.
fn list(value: &str, made: &Made<'_>, limits: &mut RateLimits) {
    let mut dimension = DEFAULT;
    for part in value.split([',', ';']).map(str::trim) {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) => (key.trim(), value.trim()),
            None => {
                dimension = part.trim_matches('"');
                continue;
            }
        };
        let figure = match key {
            "limit" => Figure::Limit,
            "remaining" | "r" => Figure::Remaining,
            "reset" | "t" => Figure::Reset,
            _ => continue,
        };
        set(limits, dimension, figure, value, made);
    }
}

/// Sets a figure, unless an earlier field has; what cannot be read names no dimension.
fn set(limits: &mut RateLimits, dimension: &str, figure: Figure, value: &str, made: &Made<'_>) {
    let value = value.trim();
    let is_known = limits.0.iter().any(|limit| limit.dimension == dimension);
    if !is_known && (limits.0.len() >= MAX_DIMENSIONS || !is_word(dimension)) {
        return;
    }
    match figure {
        Figure::Limit => {
            if let Some(limit) = whole(value) {
                limits.entry(dimension).limit.get_or_insert(limit);
            }
        }
        Figure::Remaining => {
            if let Some(remaining) = whole(value) {
                limits.entry(dimension).remaining.get_or_insert(remaining);
            }
        }
        Figure::Reset => {
            if let Some(reset) = reset(value, made) {
                limits.entry(dimension).reset_s.get_or_insert(reset);
            }
        }
    }
}

/// Whether this may stand in a key of a record.
fn is_word(dimension: &str) -> bool {
    let is_of_word = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=MAX_DIMENSION).contains(&dimension.len()) && dimension.bytes().all(is_of_word)
}

fn whole(text: &str) -> Option<u64> {
    // The parser would take a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Seconds until a window begins anew: a number, a length of time with its units, or a moment.
fn reset(text: &str, made: &Made<'_>) -> Option<f64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = match is_number {
        true => number(text.parse().ok()?, made),
        false => length(text).or_else(|| made.until(text.parse().ok()?)),
    };
    seconds.filter(|seconds| (0.0..=LONGEST).contains(seconds))
}

/// A number of seconds, or a moment as seconds or milliseconds since 1970. In between it is nothing
/// that can be told.
fn number(number: f64, made: &Made<'_>) -> Option<f64> {
    let moment = |seconds: f64| made.until(Timestamp::from_second(seconds as i64).ok()?);
    match number {
        0.0..=LONGEST => Some(number),
        1e9..1e10 => moment(number),
        1e12..1e13 => moment(number / 1000.0),
        _ => None,
    }
}

/// `4ms`, `1m30s`, `7.66s`.
fn length(text: &str) -> Option<f64> {
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let (number, behind) = rest.split_at(digits);
        let letters = behind.bytes().take_while(|byte| !byte.is_ascii_digit()).count();
        let (unit, behind) = behind.split_at(letters);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        // To divide by a thousand is exact where to multiply by a thousandth is not.
        sum += if unit < 1.0 { number / (1.0 / unit) } else { number * unit };
        rest = behind;
    }
    (!text.is_empty()).then_some(sum)
}

fn http_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

// === impl Made ===

impl<'a> Made<'a> {
    fn new(headers: &'a dyn Headers) -> Self {
        Self { headers, at: OnceCell::new() }
    }

    /// Seconds from the answer to a moment. One that has just passed is now.
    fn until(&self, moment: Timestamp) -> Option<f64> {
        let read = || http_date(std::str::from_utf8(self.headers.value("date")?).ok()?.trim());
        let made = (*self.at.get_or_init(read))?;
        let seconds = (moment - made).total(jiff::Unit::Second).ok()?;
        (seconds >= -LATE).then_some(seconds.max(0.0))
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
            ("1742031496500", Some(0.0)),
            ("2025-03-15T09:38:15Z", Some(0.0)),
            ("2025-03-15T09:30:15Z", None),
            ("2035-03-15T09:30:15Z", None),
            ("99999999", None),
            ("99999999999", None),
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
            (&[("retry-after", "Sat, 15 Mar 2025 09:39:16 GMT")], None),
            (&[("retry-after", "-1")], None),
            (&[("retry-after", "nan")], None),
            (&[], None),
        ] {
            assert_eq!(retry_after(&headers(lines)), seconds, "{lines:?}");
        }
    }
}
