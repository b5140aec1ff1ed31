//! For how long what was spent counts.
//!
//! A window either slides or is one of the calendar. One that slides is cut into slots, each a
//! twentieth of its length; a slot counts until all of it is older than the window. So no window of
//! that length ever has more than its limit, wherever it begins, and what was spent comes free up to
//! a twentieth later than it must. A window of the calendar is one slot: a day or a month of its
//! zone.

use std::fmt;

use jiff::Zoned;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::clock::Now;

/// Slots of a window that slides.
const SLOTS: i64 = 20;
/// The last moment that can be told, in place of one that cannot.
const NEVER: i64 = i64::MAX / 4;

/// For how long what was spent counts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Window {
    /// The last so many milliseconds, at any moment.
    Sliding(i64),
    /// The same by the date, which several machines have alike.
    Dated(i64),
    /// Since midnight, in this zone.
    Day(TimeZone),
    /// Since the first of the month, in this zone.
    Month(TimeZone),
}

/// A stretch of time whose amounts are counted together, in milliseconds of the window's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) start: i64,
    /// What comes from here on belongs to the next one.
    pub(crate) end: i64,
    /// From here on it no longer counts.
    pub(crate) gone: i64,
}

// === impl Window ===

impl Window {
    /// Where this moment lies, by the clock that the window goes by.
    pub(crate) fn at(&self, now: &Now) -> i64 {
        match self {
            Self::Sliding(_) => now.steady,
            Self::Dated(_) | Self::Day(_) | Self::Month(_) => now.wall.as_millisecond(),
        }
    }

    /// The stretch in which this moment lies.
    pub(crate) fn stretch(&self, now: &Now) -> Stretch {
        match self {
            Self::Sliding(length) => sliding(*length, now.steady),
            Self::Dated(length) => sliding(*length, now.wall.as_millisecond()),
            Self::Day(zone) => calendar(zone, now, |date| (date, date.tomorrow().ok())),
            Self::Month(zone) => calendar(zone, now, |date| {
                let next = date.last_of_month().tomorrow().ok();
                (date.first_of_month(), next)
            }),
        }
    }

    /// The stretches that count at this moment, the present one first.
    pub(crate) fn counting(&self, now: &Now) -> Vec<Stretch> {
        let (at, present) = (self.at(now), self.stretch(now));
        let step = present.end - present.start;
        let earlier = |stretch: &Stretch| {
            let Stretch { start, end, gone } = *stretch;
            Some(Stretch { start: start - step, end: end - step, gone: gone - step })
        };
        match self {
            Self::Sliding(_) | Self::Dated(_) => std::iter::successors(Some(present), earlier)
                .take_while(|stretch| at < stretch.gone)
                .collect(),
            Self::Day(_) | Self::Month(_) => vec![present],
        }
    }

    /// Stretches that are worth remembering: those that may count, and one that the clock may be set
    /// back to.
    pub(crate) fn stretches(&self) -> usize {
        match self {
            Self::Sliding(_) | Self::Dated(_) => SLOTS as usize + 1,
            Self::Day(_) | Self::Month(_) => 2,
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sliding(length) | Self::Dated(length) => {
                write!(f, "in {} s", *length as f64 / 1e3)
            }
            Self::Day(_) => f.write_str("a day"),
            Self::Month(_) => f.write_str("a month"),
        }
    }
}

fn sliding(length: i64, now: i64) -> Stretch {
    let slot = (length / SLOTS).max(1);
    let start = now.div_euclid(slot) * slot;
    Stretch { start, end: start + slot, gone: start + slot + length }
}

/// From the start of one date to that of another.
fn calendar(zone: &TimeZone, now: &Now, dates: impl Fn(Date) -> (Date, Option<Date>)) -> Stretch {
    let (first, next) = dates(now.wall.to_zoned(zone.clone()).date());
    let start_of = |date: Date| Some(midnight(date, zone)?.timestamp().as_millisecond());
    let end = next.and_then(start_of).unwrap_or(NEVER);
    Stretch { start: start_of(first).unwrap_or(i64::MIN), end, gone: end }
}

/// The first moment of a date: not every day of every zone has a midnight.
fn midnight(date: Date, zone: &TimeZone) -> Option<Zoned> {
    date.to_zoned(zone.clone()).ok()?.start_of_day().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: &str) -> Now {
        Now { steady: 0, wall: wall.parse().expect("a time") }
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).expect("a zone that is built in")
    }

    fn text(milliseconds: i64) -> String {
        jiff::Timestamp::from_millisecond(milliseconds).expect("a time").to_string()
    }

    #[test]
    fn a_slot_counts_until_all_of_it_is_older_than_the_window() {
        let window = Window::Sliding(60_000);
        let now = |steady| Now { steady, wall: jiff::Timestamp::UNIX_EPOCH };
        let first = window.stretch(&now(2_999));
        assert_eq!(first, Stretch { start: 0, end: 3_000, gone: 63_000 });
        assert_eq!(window.stretch(&now(3_000)).start, 3_000);
    }

    #[test]
    fn all_stretches_that_count_are_told_the_present_one_first() {
        let now = at("2026-11-26T12:00:01Z");
        let counting = Window::Dated(60_000).counting(&now);
        assert_eq!(counting.len(), Window::Dated(60_000).stretches());
        assert_eq!(text(counting[0].start), "2026-11-26T12:00:00Z");
        assert_eq!(text(counting[20].start), "2026-11-26T11:59:00Z");
        assert!(counting.iter().all(|stretch| stretch.gone > now.wall.as_millisecond()));
        assert_eq!(Window::Day(TimeZone::UTC).counting(&now).len(), 1);
    }

    #[test]
    fn days_and_months_begin_at_midnight_of_their_zone() {
        for (window, now, start, end) in [
            (
                Window::Day(TimeZone::UTC),
                "2026-11-26T23:59:59.999Z",
                "2026-11-26T00:00:00Z",
                "2026-11-27T00:00:00Z",
            ),
            (
                Window::Month(TimeZone::UTC),
                "2026-12-31T23:00:00Z",
                "2026-12-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
            ),
            (
                Window::Month(TimeZone::UTC),
                "2028-02-29T12:00:00Z",
                "2028-02-01T00:00:00Z",
                "2028-03-01T00:00:00Z",
            ),
            (
                Window::Day(zone("Asia/Tokyo")),
                "2026-11-26T15:00:00Z",
                "2026-11-26T15:00:00Z",
                "2026-11-27T15:00:00Z",
            ),
            // The day on which summer begins has 23 hours.
            (
                Window::Day(zone("Europe/Berlin")),
                "2026-03-29T12:00:00Z",
                "2026-03-28T23:00:00Z",
                "2026-03-29T22:00:00Z",
            ),
            // Here it has no midnight.
            (
                Window::Day(zone("Africa/Cairo")),
                "2026-04-24T12:00:00Z",
                "2026-04-23T22:00:00Z",
                "2026-04-24T21:00:00Z",
            ),
        ] {
            let stretch = window.stretch(&at(now));
            let found = (text(stretch.start), text(stretch.end));
            assert_eq!(found, (start.to_owned(), end.to_owned()), "{window:?} {now}");
        }
    }
}
