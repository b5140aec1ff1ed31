//! Axes: where a number stands, and which numbers are written beside.

use crate::report::time;

/// The numbers of one axis, from one end to the other.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    kind: Kind,
    from: f64,
    to: f64,
    /// Numbers that are written there, as they are written.
    pub(super) ticks: Vec<(f64, String)>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Equal distances are equal differences.
    Linear,
    /// Equal distances are equal factors of what is missing from one: half, 90 %, 99 %, 99.9 %.
    Quantile,
}

/// Ticks of an axis, about.
const TICKS: f64 = 5.0;

// === impl Scale ===

impl Scale {
    /// From nothing up to a number, or a little further.
    pub(super) fn up_to(most: f64, write: fn(f64) -> String) -> Self {
        let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
        let step = round_step(most / TICKS);
        let steps = (most / step).ceil().max(1.0);
        let tick = |number: u32| (f64::from(number) * step, write(f64::from(number) * step));
        let ticks = (0..=steps as u32).map(tick).collect();
        Self { kind: Kind::Linear, from: 0.0, to: steps * step, ticks }
    }

    /// From the smallest to the largest, as far as so many measurements can tell.
    pub(super) fn quantiles(count: u64) -> Self {
        const ALL: [(f64, &str); 6] = [
            (0.0, "0"),
            (0.5, "50%"),
            (0.9, "90%"),
            (0.99, "99%"),
            (0.999, "99.9%"),
            (0.9999, "99.99%"),
        ];
        // One more would be the largest alone.
        let last = 1.0 - 1.0 / (count.max(2) as f64);
        let seen = ALL.into_iter().filter(|(quantile, _)| *quantile <= last);
        let ticks = seen.map(|(quantile, name)| (quantile, name.to_owned())).collect();
        Self { kind: Kind::Quantile, from: 0.0, to: last, ticks }
    }

    /// Where a number stands, from 0 to 1.
    pub(super) fn place(&self, number: f64) -> f64 {
        let at = |number: f64| match self.kind {
            Kind::Linear => number,
            Kind::Quantile => -(1.0 - number.min(self.to)).log10(),
        };
        let (from, to) = (at(self.from), at(self.to));
        ((at(number) - from) / (to - from)).clamp(0.0, 1.0)
    }

    /// So many numbers at equal distances.
    pub(super) fn steps(&self, count: u32) -> impl Iterator<Item = f64> {
        let (kind, from, to) = (self.kind, self.from, self.to);
        (0..=count).map(move |step| {
            let place = f64::from(step) / f64::from(count);
            match kind {
                Kind::Linear => from + place * (to - from),
                Kind::Quantile => 1.0 - (1.0 - to).powf(place),
            }
        })
    }
}

/// The next larger of 1, 2 and 5, whatever the power of ten.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factor = step / power;
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().find(|round| factor <= round * (1.0 + 1e-9));
    round.unwrap_or(10.0) * power
}

/// Seconds, as an axis has them.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        0.0 => "0".to_owned(),
        // A tick is a round number: no digits that say nothing.
        s if s < 0.9995e-3 => format!("{}µs", rounded(s * 1e6)),
        s if s < 0.9995 => format!("{}ms", rounded(s * 1e3)),
        s => format!("{}s", rounded(s)),
    }
}

/// A time in a sentence.
pub(super) fn exactly(seconds: f64) -> String {
    time(Some(seconds))
}

/// A count, as an axis has it.
pub(super) fn count(count: f64) -> String {
    match count {
        c if c < 1e4 => rounded(c),
        c if c < 1e6 => format!("{}k", rounded(c / 1e3)),
        c => format!("{}M", rounded(c / 1e6)),
    }
}

/// A share, as an axis has it.
pub(super) fn percent(share: f64) -> String {
    format!("{}%", rounded(share * 100.0))
}

fn rounded(number: f64) -> String {
    format!("{}", (number * 1e4).round() / 1e4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_over_the_largest() {
        let written = |most| {
            let scale = Scale::up_to(most, seconds);
            scale.ticks.into_iter().map(|(_, text)| text).collect::<Vec<_>>()
        };
        assert_eq!(written(0.93), ["0", "200ms", "400ms", "600ms", "800ms", "1s"]);
        assert_eq!(written(1.2e-4), ["0", "50µs", "100µs", "150µs"]);
        assert_eq!(written(f64::NAN).first().map(String::as_str), Some("0"));
        assert_eq!(count(12_500.0), "12.5k");
    }

    #[test]
    fn quantiles_part_by_what_is_missing() {
        let scale = Scale::quantiles(10_000);
        let places = [0.0, 0.9, 0.99, 0.999, 1.0].map(|quantile| scale.place(quantile));
        for (place, expected) in places.into_iter().zip([0.0, 0.25, 0.5, 0.75, 1.0]) {
            assert!((place - expected).abs() < 1e-9, "{places:?}");
        }
        assert_eq!(scale.ticks.last().map(|(_, text)| &**text), Some("99.99%"));
        let few: Vec<_> = Scale::quantiles(20).ticks.into_iter().map(|(_, text)| text).collect();
        assert_eq!(few, ["0", "50%", "90%"], "twenty calls have no p99");
        let steps: Vec<_> = scale.steps(4).collect();
        assert!((steps[2] - 0.99).abs() < 1e-9, "{steps:?}");
    }
}
