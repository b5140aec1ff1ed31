//! Moments as files of calls write them, in nanoseconds.

use jiff::civil::DateTime;
use jiff::{Timestamp, tz};

/// Digits of a nanosecond behind the point of a second.
const NANO_DIGITS: usize = 9;

/// Seconds as a decimal number.
pub(super) fn seconds(text: &str) -> Option<i64> {
    scaled(text, NANO_DIGITS)
}

/// Milliseconds as a decimal number.
pub(super) fn milliseconds(text: &str) -> Option<i64> {
    scaled(text, NANO_DIGITS - 3)
}

/// A date and a time with or without a zone (UTC is meant where there is none), or a number: seconds,
/// or whatever smaller unit makes it a moment since 1970 that is not in the far future.
pub(super) fn moment(text: &str) -> Option<i64> {
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let whole = text.split('.').next()?.len();
        return match whole {
            0..=11 => seconds(text),
            12..=14 => milliseconds(text),
            15..=17 => scaled(text, NANO_DIGITS - 6),
            _ => scaled(text, 0),
        };
    }
    let zoned = || text.parse::<Timestamp>().ok();
    let plain = || text.parse::<DateTime>().ok()?.to_zoned(tz::TimeZone::UTC).ok();
    let moment = zoned().or_else(|| Some(plain()?.timestamp()))?;
    i64::try_from(moment.as_nanosecond()).ok()
}

/// A decimal number, times ten to the power of `digits`, without a detour over binary fractions: two
/// calls that were a nanosecond apart stay so.
fn scaled(text: &str, digits: usize) -> Option<i64> {
    let (sign, number) = match text.strip_prefix('-') {
        Some(number) => (-1, number),
        None => (1, text),
    };
    if number.contains(['e', 'E']) {
        let value = number.parse::<f64>().ok()? * 10_f64.powi(digits as i32);
        return (value < i64::MAX as f64).then_some(sign * value.round() as i64);
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    let kept = &fraction[..fraction.len().min(digits)];
    let padded = format!("{whole}{kept:0<digits$}");
    Some(sign * padded.parse::<i64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_exact_to_the_nanosecond() {
        assert_eq!(seconds("5"), Some(5_000_000_000));
        assert_eq!(seconds("0.000000001"), Some(1));
        assert_eq!(seconds("1700000000.1234567891"), Some(1_700_000_000_123_456_789));
        assert_eq!(seconds("1.5e1"), Some(15_000_000_000));
        assert_eq!(milliseconds("27482"), Some(27_482_000_000));
        assert_eq!(milliseconds("0.5"), Some(500_000));
        for wrong in ["", ".", "x", "1.2.3", "--1", "99999999999999999999", "1e99"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_moment_has_no_zone_or_any_and_as_many_digits_as_it_likes() {
        let start = 1_700_158_623_i64;
        let at = |text: &str| moment(text).map(|at| at - start * 1_000_000_000);
        assert_eq!(at("2023-11-16 18:17:03.9799600"), Some(979_960_000));
        assert_eq!(at("2023-11-16 18:17:03"), Some(0));
        assert_eq!(at("2023-11-16T18:17:03.1Z"), Some(100_000_000));
        assert_eq!(at("2023-11-16 20:17:03.000000001+02:00"), Some(1));
        assert_eq!(at("1700158623.5"), Some(500_000_000));
        assert_eq!(at("1700158623500"), Some(500_000_000));
        assert_eq!(at("1700158623500000"), Some(500_000_000));
        assert_eq!(at("1700158623500000000"), Some(500_000_000));
        assert_eq!(at("yesterday"), None);
    }
}
