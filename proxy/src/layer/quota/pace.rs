//! How fast a budget is spent at present.

use super::amounts::{Amounts, Kind};
use super::clock::Now;
use super::window::Window;

/// The present, in milliseconds: no shorter and no longer, however long the window is.
const PRESENT: (i64, i64) = (60_000, 3_600_000);

/// What was spent, of which more and more is forgotten as time goes by.
#[derive(Debug, Default)]
pub(super) struct Pace {
    sums: [f64; Kind::ALL.len()],
    /// When it began, and when something was added last.
    began: Option<i64>,
    last: i64,
}

impl Pace {
    /// So much was spent.
    pub(super) fn add(&mut self, window: &Window, spent: &Amounts, now: &Now) {
        let kept = self.kept(window, now);
        self.began.get_or_insert(now.steady);
        self.last = self.last.max(now.steady);
        for kind in Kind::ALL {
            let sum = &mut self.sums[kind as usize];
            *sum = *sum * kept + spent[kind] as f64;
        }
    }

    /// So much a second.
    pub(super) fn per_second(&self, window: &Window, kind: Kind, now: &Now) -> f64 {
        let Some(began) = self.began else { return 0.0 };
        // Who has just begun has had less than a whole present, and no less than a second of it.
        let present = present(window);
        let age = (now.steady - began).max(1_000) as f64;
        let seconds = present * -(-age / present).exp_m1() / 1e3;
        self.sums[kind as usize] * self.kept(window, now) / seconds
    }

    /// The share of the sums that is not forgotten by now.
    fn kept(&self, window: &Window, now: &Now) -> f64 {
        (-((now.steady - self.last).max(0) as f64) / present(window)).exp()
    }
}

/// What counts as the present, in milliseconds.
fn present(window: &Window) -> f64 {
    let (least, most) = PRESENT;
    match window {
        Window::Sliding(length) | Window::Dated(length) => (*length).clamp(least, most) as f64,
        Window::Day(_) | Window::Month(_) => most as f64,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_steady_pace_is_told_from_the_start_and_a_rest_is_noticed() {
        let window = Window::Sliding(60_000);
        let now = |seconds: i64| Now { steady: seconds * 1_000, wall: Timestamp::UNIX_EPOCH };
        let mut pace = Pace::default();
        assert_eq!(pace.per_second(&window, Kind::Tokens, &now(0)), 0.0);
        for second in 0..300 {
            pace.add(&window, &Amounts::of_request(5, 5, 0), &now(second));
            let told = pace.per_second(&window, Kind::Tokens, &now(second + 1));
            assert!((9.0..11.0).contains(&told), "{told} after {second} s");
        }
        assert!(pace.per_second(&window, Kind::Tokens, &now(600)) < 0.1);
    }
}
