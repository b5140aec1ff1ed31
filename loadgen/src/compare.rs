//! Whether a run was worse than another one of the same load, how sure that is, and what difference
//! could have been seen at all.
//!
//! Calls of the same moment fare alike, so they are no independent witnesses: what is drawn again and
//! again, to learn how much a figure varies, are whole stretches of time (a block bootstrap). All
//! statements together are as sure as is said (Bonferroni). What varies from run to run and not within
//! one, no single pair of runs can tell: give several baselines.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};
use tidegate_settings::Metric;

use crate::figures::{Figures, Point};

/// How sure all statements together are.
const CONFIDENCE: f64 = 0.95;
/// In how many of as many pairs of runs the smallest difference that is named would be seen.
const POWER: f64 = 0.8;
/// Stretches of time that a run is cut into.
const BLOCKS: usize = 40;
/// Fewer of them with calls in them say nothing.
const FEWEST_BLOCKS: usize = 15;
const DRAWS: usize = 200;
/// Calls beyond a quantile, at least, that it takes to say something of it.
const BEYOND: f64 = 20.0;
/// A smaller change is none: two runs of a target that did not change differ by as much.
const INDIFFERENT: f64 = 0.03;

/// How a run compares with others of the same load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The ids of the runs that it is compared with.
    pub baseline: Vec<String>,
    /// What follows of all figures together: worse if one of them is.
    pub finding: Change,
    /// How sure all statements together are.
    pub confidence: f64,
    /// Each figure.
    pub figures: Vec<Compared>,
    /// In words.
    pub sentence: String,
}

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is surely worse.
    Worse,
    /// It is surely better.
    Better,
    /// No difference was seen.
    None,
    /// It cannot be told.
    Unknown,
}

/// One figure of two runs. Times in seconds, the error ratio as a share.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// What is compared.
    pub metric: Metric,
    /// Of a time, which quantile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantile: Option<f64>,
    /// What it was.
    pub baseline: f64,
    /// What it is.
    pub measured: f64,
    /// By how much it rose: a time by a share of what it was, the error ratio by what it was less.
    pub change: f64,
    /// It rose by surely no less than this.
    pub at_least: f64,
    /// It rose by surely no more than this.
    pub at_most: f64,
    /// A rise by this would have been seen in four of five such pairs of runs.
    pub smallest_seen: f64,
    /// What follows.
    pub finding: Change,
}

/// A figure that is compared.
#[derive(Clone, Copy)]
struct Figure {
    metric: Metric,
    quantile: Option<f64>,
}

/// The calls of a run by the stretch of time in which they were due.
struct Blocks<'a>(Vec<Vec<&'a Point>>);

const FIGURES: [Figure; 6] = [
    Figure { metric: Metric::TimeToFirstToken, quantile: Some(0.5) },
    Figure { metric: Metric::TimeToFirstToken, quantile: Some(0.95) },
    Figure { metric: Metric::TimePerOutputToken, quantile: Some(0.5) },
    Figure { metric: Metric::Duration, quantile: Some(0.5) },
    Figure { metric: Metric::Duration, quantile: Some(0.95) },
    Figure { metric: Metric::ErrorRatio, quantile: None },
];

// === impl Comparison ===

impl Comparison {
    /// Of a run with others, whose ids these are.
    pub(crate) fn of(ids: Vec<String>, baseline: &[&Figures], run: &Figures) -> Self {
        let before: Vec<_> = baseline.iter().map(|figures| Blocks::of(figures)).collect();
        let before = Blocks(before.into_iter().flat_map(|blocks| blocks.0).collect());
        let after = Blocks::of(run);
        let figures: Vec<_> =
            FIGURES.iter().filter_map(|figure| figure.compare(&before, &after)).collect();
        let has_times = figures.iter().any(|figure| figure.quantile.is_some());
        let finding = match Change::of_all(figures.iter().map(|figure| figure.finding)) {
            // That there were no errors in either says nothing of how fast they were.
            Change::None if !has_times => Change::Unknown,
            finding => finding,
        };
        let sentence = sentence(finding, &figures);
        Self { baseline: ids, finding, confidence: CONFIDENCE, figures, sentence }
    }

    /// Of runs that cannot be compared, and why.
    pub(crate) fn none(ids: Vec<String>, why: &str) -> Self {
        let sentence = format!("Not compared with the baseline: {why}.");
        let finding = Change::Unknown;
        Self { baseline: ids, finding, confidence: CONFIDENCE, figures: Vec::new(), sentence }
    }
}

fn sentence(finding: Change, figures: &[Compared]) -> String {
    let told = |finding: Change| {
        let those = figures.iter().filter(|one| one.finding == finding);
        those.map(Compared::sentence).collect::<Vec<_>>().join("; ")
    };
    let smallest = figures.iter().filter(|one| one.metric == Metric::Duration);
    let smallest = smallest.map(|one| one.smallest_seen).reduce(f64::min);
    match (finding, smallest) {
        (Change::Worse, _) => format!("Worse than the baseline: {}.", told(Change::Worse)),
        (Change::Better, _) => format!("Better than the baseline: {}.", told(Change::Better)),
        (Change::None, Some(smallest)) => format!(
            "No difference from the baseline was seen; a duration longer by {} would have been, in four \
             of five such runs.",
            percent(smallest.max(INDIFFERENT))
        ),
        _ => "Too few calls to compare with the baseline.".to_owned(),
    }
}

// === impl Change ===

impl Change {
    fn of_all(changes: impl IntoIterator<Item = Self>) -> Self {
        let changes: Vec<_> = changes.into_iter().collect();
        [Self::Worse, Self::Better, Self::None]
            .into_iter()
            .find(|change| changes.contains(change))
            .unwrap_or(Self::Unknown)
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worse => "worse",
            Self::Better => "better",
            Self::None => "no difference seen",
            Self::Unknown => "unknown",
        }
    }
}

// === impl Compared ===

impl Compared {
    /// The figure's name.
    pub fn name(&self) -> String {
        let quantile = self.quantile.map(|quantile| format!(" p{}", quantile * 100.0));
        format!("{}{}", self.metric.as_str().replace('_', " "), quantile.unwrap_or_default())
    }

    fn sentence(&self) -> String {
        let direction = if self.change > 0.0 { "more" } else { "less" };
        let unit = if self.quantile.is_some() { "" } else { " of all calls" };
        let (low, high) = match self.change > 0.0 {
            true => (self.at_least, self.at_most),
            false => (-self.at_most, -self.at_least),
        };
        format!(
            "{} is {}{unit} {direction} ({} to {})",
            self.name(),
            percent(self.change.abs()),
            percent(low),
            percent(high)
        )
    }
}

/// A share in percent, with as many digits as say something.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent.abs() {
        size if size >= 10.0 => format!("{percent:.0}%"),
        size if size >= 1.0 => format!("{percent:.1}%"),
        _ => format!("{percent:.2}%"),
    }
}

// === impl Figure ===

impl Figure {
    fn compare(self, before: &Blocks<'_>, after: &Blocks<'_>) -> Option<Compared> {
        let (baseline, measured) = (self.of(before.all())?, self.of(after.all())?);
        let blocks = before.0.len().min(after.0.len());
        if blocks < FEWEST_BLOCKS || self.quantile.is_some() && baseline <= 0.0 {
            return None;
        }
        let change = self.change(baseline, measured);
        let deviation = self.deviation(before, after)?;
        let alpha = (1.0 - CONFIDENCE) / FIGURES.len() as f64;
        let student = StudentsT::new(0.0, 1.0, (blocks - 1) as f64).expect("it has a deviation");
        let sure = student.inverse_cdf(1.0 - alpha / 2.0);
        let seen = sure + Normal::standard().inverse_cdf(POWER);
        let (low, high) = (change - sure * deviation, change + sure * deviation);
        // Without an error nothing varies; but one in so many could have hidden.
        let hidden =
            if self.quantile.is_none() { rule_of_three(before, after, alpha) } else { 0.0 };
        let shown = |change: f64| match self.quantile {
            Some(_) => change.exp_m1(),
            None => change,
        };
        let is_large = self.quantile.is_none() || shown(change).abs() >= INDIFFERENT;
        let finding = match () {
            () if low > 0.0 && is_large => Change::Worse,
            () if high < 0.0 && is_large => Change::Better,
            () => Change::None,
        };
        Some(Compared {
            metric: self.metric,
            quantile: self.quantile,
            baseline,
            measured,
            change: shown(change),
            at_least: shown(low),
            at_most: shown(high),
            smallest_seen: shown(seen * deviation).max(hidden),
            finding,
        })
    }

    /// What it is of these calls; absent where there are too few.
    fn of<'a>(self, points: impl Iterator<Item = &'a Point>) -> Option<f64> {
        let Some(quantile) = self.quantile else {
            let (bad, all) = points.fold((0_u64, 0_u64), |(bad, all), point| {
                let (is_accountable, is_bad) = point.errors;
                (bad + u64::from(is_bad), all + u64::from(is_accountable))
            });
            return crate::report::ratio(bad, all);
        };
        let mut times: Vec<_> = points.filter_map(|point| self.time(point)).collect();
        if (times.len() as f64) * (1.0 - quantile) < BEYOND {
            return None;
        }
        let place = (quantile * times.len() as f64).ceil() as usize - 1;
        Some(*times.select_nth_unstable_by(place, f64::total_cmp).1)
    }

    fn time(self, point: &Point) -> Option<f64> {
        match self.metric {
            Metric::TimeToFirstToken => point.first_token,
            Metric::TimePerOutputToken => point.per_output_token,
            _ => point.duration,
        }
    }

    /// A time changes by a factor, whose logarithm this is; a ratio by a difference.
    fn change(self, before: f64, after: f64) -> f64 {
        match self.quantile {
            Some(_) => (after / before).ln(),
            None => after - before,
        }
    }

    /// How much the change would vary from one pair of runs to another.
    fn deviation(self, before: &Blocks<'_>, after: &Blocks<'_>) -> Option<f64> {
        let mut random = SmallRng::seed_from_u64(1);
        let changes: Vec<_> = (0..DRAWS)
            .filter_map(|_| {
                let one = self.of(before.drawn(&mut random).into_iter())?;
                let other = self.of(after.drawn(&mut random).into_iter())?;
                Some(self.change(one, other)).filter(|change| change.is_finite())
            })
            .collect();
        // Where some draws say nothing, the others would say too much.
        (changes.len() == DRAWS).then(|| deviation(&changes))
    }
}

fn deviation(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt()
}

/// The share of errors of which so many calls may just not have had one.
fn rule_of_three(before: &Blocks<'_>, after: &Blocks<'_>, alpha: f64) -> f64 {
    let calls = before.all().count().min(after.all().count()).max(1);
    -alpha.ln() / calls as f64
}

// === impl Blocks ===

impl<'a> Blocks<'a> {
    fn of(figures: &'a Figures) -> Self {
        let end = figures.points.all().map(|point| point.due).fold(0.0, f64::max);
        let mut blocks = vec![Vec::new(); BLOCKS];
        for point in figures.points.all() {
            let place = (point.due / end.max(1e-9) * BLOCKS as f64) as usize;
            blocks[place.min(BLOCKS - 1)].push(point);
        }
        blocks.retain(|block| !block.is_empty());
        Self(blocks)
    }

    fn all(&self) -> impl Iterator<Item = &'a Point> {
        self.0.iter().flatten().copied()
    }

    /// As many blocks, each drawn from all of them.
    fn drawn(&self, random: &mut SmallRng) -> Vec<&'a Point> {
        let draw = |_| &self.0[random.random_range(0..self.0.len())];
        (0..self.0.len()).flat_map(draw).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_wire::{ErrorOrigin, Id, Outcome};

    use super::*;
    use crate::figures::tests::call;

    /// A run of 1,200 calls, whose times vary by chance and, for all calls together, over time.
    fn run(seed: u64, slower: f64, errors: u32) -> Figures {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut figures = Figures::default();
        let phase = random.random::<f64>() * 6.3;
        for number in 0..1200_u32 {
            let noise = -(1.0 - random.random::<f64>()).ln();
            let swing = 1.0 + 0.1 * (f64::from(number) / 100.0 + phase).sin();
            let failed = number < errors * 2 && number % 2 == 0;
            let outcome = if failed { Outcome::Failed } else { Outcome::Completed };
            let mut call = call((0.5 + 0.2 * noise) * swing * slower, outcome);
            call.due = Duration::from_millis(u64::from(number) * 20);
            call.record.trace_id = Id(random.random());
            call.record.time_to_first_token_s = Some((0.1 + 0.05 * noise) * swing * slower);
            call.record.error_origin = failed.then_some(ErrorOrigin::Upstream);
            figures.record(&call, true);
        }
        figures
    }

    fn compare(before: &Figures, after: &Figures) -> Comparison {
        Comparison::of(vec!["a".to_owned()], &[before], after)
    }

    #[test]
    fn equal_runs_are_hardly_ever_told_apart_and_ten_percent_are_seen() {
        let (mut worse, mut seen) = (0, 0);
        for seed in 0..10 {
            let before = run(seed, 1.0, 0);
            worse += u32::from(compare(&before, &run(seed + 100, 1.0, 0)).finding == Change::Worse);
            let slower = compare(&before, &run(seed + 200, 1.1, 0));
            seen += u32::from(slower.finding == Change::Worse);
        }
        assert!(worse <= 1, "{worse} of 10 equal runs are said to be worse");
        assert!(seen >= 9, "10 % more were seen in {seen} of 10 runs");
    }

    #[test]
    fn what_changed_is_said_with_its_bounds() {
        let slower = compare(&run(1, 1.0, 0), &run(2, 1.3, 0));
        let duration = slower.figures.iter().find(|one| one.name() == "duration p50").expect("it");
        assert!((0.25..0.35).contains(&duration.change), "{duration:?}");
        assert!(duration.at_least < 0.3 && duration.at_most > 0.3, "{duration:?}");
        assert!(slower.sentence.starts_with("Worse than the baseline: "), "{}", slower.sentence);
        let faster = compare(&run(1, 1.0, 0), &run(2, 0.7, 0));
        assert_eq!(faster.finding, Change::Better);
        let same = compare(&run(1, 1.0, 0), &run(1, 1.0, 0));
        assert_eq!(same.finding, Change::None);
        assert!(same.sentence.contains("would have been"), "{}", same.sentence);
    }

    #[test]
    fn errors_are_a_change_of_their_own_and_a_few_are_none() {
        let finding = |errors| {
            let compared = compare(&run(1, 1.0, 0), &run(1, 1.0, errors));
            let ratio = compared.figures.iter().find(|one| one.metric == Metric::ErrorRatio);
            ratio.expect("it is compared").finding
        };
        assert_eq!(finding(0), Change::None);
        assert_eq!(finding(1), Change::None);
        assert_eq!(finding(500), Change::Worse);
    }

    #[test]
    fn too_few_calls_say_nothing() {
        let mut few = Figures::default();
        few.record(&call(1.0, Outcome::Completed), true);
        let compared = compare(&few, &run(1, 1.0, 0));
        assert_eq!((compared.finding, compared.figures.len()), (Change::Unknown, 0));
    }
}
