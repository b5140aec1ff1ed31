//! How each limit of each budget stands, for whoever shows it.

use std::sync::Arc;

use super::Quotas;
use super::amounts::Kind;
use super::budgets::Shown;
use super::clock::Now;
use super::window::Window;

/// One limit of one budget, as it stands.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) quota: Arc<str>,
    pub(super) caller: Option<Arc<str>>,
    pub(super) model: Option<Arc<str>>,
    pub(super) upstream: Option<Arc<str>>,
    pub(super) is_common: bool,
    pub(super) kind: Kind,
    pub(super) limit: u64,
    pub(super) used: u64,
    pub(super) held: u64,
    /// Held by all calls that are under way, those of earlier windows among them.
    pub(super) open: u64,
    /// Seconds until nothing is left, at the present pace; absent where it lasts.
    pub(super) exhausted_in_s: Option<f64>,
    /// Seconds until the window begins anew; absent where it slides.
    pub(super) renewed_in_s: Option<f64>,
}

// === impl Quotas ===

impl Quotas {
    /// How every budget stands, those that are used most first.
    pub(super) fn lines(&self) -> Vec<Line> {
        let now = self.clock.now();
        let shown = self.kept.budgets.standings(&self.rules, &now);
        let mut lines: Vec<_> = shown.iter().flat_map(|shown| Line::of(shown, &now)).collect();
        lines.sort_by(|one, other| other.ratio().total_cmp(&one.ratio()));
        lines
    }
}

// === impl Line ===

impl Line {
    /// Those of one budget.
    fn of(shown: &Shown, now: &Now) -> impl Iterator<Item = Self> {
        Kind::ALL.into_iter().filter_map(|kind| {
            let Shown { rule, key, standing, pace } = shown;
            let limit = rule.limits.of(kind)?;
            let (used, held) = (standing.used[kind], standing.held[kind]);
            let left = limit.saturating_sub(used.saturating_add(held));
            Some(Self {
                quota: rule.name.clone(),
                caller: key.caller.clone(),
                model: key.model.clone(),
                upstream: key.upstream.clone(),
                is_common: key.is_common,
                kind,
                limit,
                used,
                held,
                open: standing.open[kind],
                exhausted_in_s: exhausted_in(left, limit, pace[kind as usize], &rule.window, now),
                renewed_in_s: renewed_in(&rule.window, now),
            })
        })
    }

    /// Of the limit, so much is used or held.
    pub(super) fn ratio(&self) -> f64 {
        self.used.saturating_add(self.held) as f64 / self.limit as f64
    }
}

/// Seconds until a window of the calendar begins anew.
fn renewed_in(window: &Window, now: &Now) -> Option<f64> {
    match window {
        Window::Sliding(_) | Window::Dated(_) => None,
        Window::Day(_) | Window::Month(_) => {
            Some((window.stretch(now).end - window.at(now)) as f64 / 1e3)
        }
    }
}

/// Seconds until so much that is left is spent at this pace; none where it lasts.
fn exhausted_in(left: u64, limit: u64, pace: f64, window: &Window, now: &Now) -> Option<f64> {
    if left == 0 {
        return Some(0.0);
    }
    let seconds = left as f64 / pace;
    let lasts = match (window, renewed_in(window, now)) {
        // It gives back as much as it takes, unless the pace is too fast for it.
        (Window::Sliding(length) | Window::Dated(length), _) => {
            pace * (*length as f64 / 1e3) <= limit as f64
        }
        (_, renewed) => renewed.is_some_and(|renewed| seconds > renewed),
    };
    Some(seconds).filter(|seconds| !lasts && seconds.is_finite())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    use super::*;

    #[test]
    fn what_is_left_is_said_to_end_only_where_it_does() {
        // Noon: a day has 12 hours left.
        let now = Now { steady: 0, wall: Timestamp::from_second(43_200).expect("a time") };
        let (minute, day) = (Window::Sliding(60_000), Window::Day(TimeZone::UTC));
        for (left, limit, pace, window, seconds) in [
            (0, 100, 0.0, &day, Some(0.0)),
            (50, 100, 0.0, &day, None),
            (50, 100, 0.01, &day, Some(5_000.0)),
            (50, 100, 0.001, &day, None),
            (50, 100, 1.0, &minute, None),
            (50, 100, 2.0, &minute, Some(25.0)),
        ] {
            let told = exhausted_in(left, limit, pace, window, &now);
            assert_eq!(told, seconds, "{left} of {limit} at {pace} {window}");
        }
        assert_eq!((renewed_in(&minute, &now), renewed_in(&day, &now)), (None, Some(43_200.0)));
    }
}
