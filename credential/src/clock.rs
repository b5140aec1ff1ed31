//! The time that a signature bears, where our own clock is wrong.
//!
//! AWS refuses what is signed five minutes off. Its answer says what time it is there, and from
//! then on that clock counts: for this credential alone, and until an answer says otherwise.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// A smaller difference is no reason for a refusal.
const TOLERATED_S: u64 = 240;
/// What AWS calls a refusal that a wrong clock explains.
const REFUSALS: &[&str] = &[
    "RequestTimeTooSkewed",
    "RequestExpired",
    "RequestInTheFuture",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "AuthFailure",
];

/// A clock that learns how far it is off.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// How much later it is there, in seconds.
    offset_s: AtomicI64,
}

impl Clock {
    /// How much later it is there, in seconds, as far as is known.
    pub(crate) fn offset_s(&self) -> i64 {
        self.offset_s.load(Relaxed)
    }

    /// Takes in a refusal, by its kind and its `Date`; how much later it is there, in seconds,
    /// where that is news.
    pub(crate) fn refused(&self, kind: &str, date: &str) -> Option<i64> {
        self.refused_at(kind, date, SystemTime::now())
    }

    fn refused_at(&self, kind: &str, date: &str, ours: SystemTime) -> Option<i64> {
        // `InvalidSignatureException:http://internal.amazon.com/...`
        let kind = kind.split(':').next().unwrap_or_default().trim();
        if !REFUSALS.contains(&kind) {
            return None;
        }
        let theirs = DateTimeParser::new().parse_timestamp(date).ok()?;
        let offset_s = theirs.as_second() - Timestamp::try_from(ours).ok()?.as_second();
        let known_s = self.offset_s.load(Relaxed);
        if offset_s.abs_diff(known_s) <= TOLERATED_S {
            return None;
        }
        // Of calls that were refused at once, one tells.
        let is_first = self.offset_s.compare_exchange(known_s, offset_s, Relaxed, Relaxed).is_ok();
        is_first.then_some(offset_s)
    }
}

/// This time, so many seconds later.
pub(crate) fn moved(time: SystemTime, seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moved = if seconds < 0 { time.checked_sub(distance) } else { time.checked_add(distance) };
    moved.unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &str = "InvalidSignatureException:http://internal.amazon.com/coral/";

    /// 2026-01-02T03:04:05Z.
    fn ours() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045)
    }

    fn learn(clock: &Clock, kind: &str, date: &str) -> Option<i64> {
        clock.refused_at(kind, date, ours())
    }

    #[test]
    fn a_refusal_by_another_clock_is_learned_once() {
        let clock = Clock::default();
        assert_eq!(learn(&clock, SIGNATURE, "Fri, 02 Jan 2026 05:04:05 GMT"), Some(7200));
        assert_eq!(learn(&clock, SIGNATURE, "Fri, 02 Jan 2026 05:04:15 GMT"), None);
        assert_eq!(clock.offset_s(), 7200);
        // Our own clock was set right meanwhile.
        assert_eq!(learn(&clock, "RequestTimeTooSkewed", "Fri, 02 Jan 2026 03:04:05 GMT"), Some(0));
        let behind = learn(&clock, "SignatureDoesNotMatch", "Thu, 01 Jan 2026 03:04:05 GMT");
        assert_eq!(behind, Some(-86_400));
        assert_eq!(clock.offset_s(), -86_400);
    }

    #[test]
    fn what_no_clock_explains_changes_nothing() {
        let clock = Clock::default();
        for (kind, date) in [
            (SIGNATURE, "Fri, 02 Jan 2026 03:07:00 GMT"),
            (SIGNATURE, "yesterday"),
            (SIGNATURE, ""),
            (SIGNATURE, "Fri, 02 Jan 99999999 05:04:05 GMT"),
            ("AccessDeniedException", "Fri, 02 Jan 2026 05:04:05 GMT"),
            ("ExpiredTokenException", "Fri, 02 Jan 2026 05:04:05 GMT"),
            ("", "Fri, 02 Jan 2026 05:04:05 GMT"),
        ] {
            assert_eq!(learn(&clock, kind, date), None, "{kind} {date}");
        }
        assert_eq!(clock.offset_s(), 0);
    }

    #[test]
    fn a_time_beyond_all_is_no_panic() {
        for seconds in [i64::MIN, i64::MAX, 0] {
            moved(SystemTime::now(), seconds);
        }
    }
}
