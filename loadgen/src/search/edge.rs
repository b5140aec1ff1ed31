//! Where the edge lies between the loads that keep an objective and those that do not, and how sure that
//! is.
//!
//! Whether a single step keeps it says little: near the edge that is chance, and most short steps look
//! better than a long one, for what spoils an hour are few bad minutes. So it is not counted how many
//! steps held; the shares of calls that missed are taken together, whose mean is the same for short steps
//! and long ones. That share rises with the load by the logistic curve in the logarithm of the load; the
//! edge is where it passes what is allowed. How likely each place of the edge is, after all steps so far,
//! follows from how well a curve through it fits (a quasi-likelihood: calls of one step fare alike and
//! count for less than as many that know nothing of each other; McCullagh and Nelder, Generalized Linear
//! Models, 1989, chapter 9).

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Two neighbouring places differ by this share.
const STEP: f64 = 0.004;
/// By how much the logarithm of the odds may rise with that of the load, one as likely as the other: from
/// a gentle slope to a cliff.
const SLOPES: [f64; 9] = [3.0, 6.0, 12.0, 25.0, 50.0, 100.0, 200.0, 400.0, 1000.0];
/// Calls of one step that count as one, at least: those that wait for each other fare alike.
const CLUSTER: f64 = 3.0;
/// How much wider the bounds are made than the curve alone would have them: rehearsed searches keep to
/// them as often as they say only by that.
const CAUTION: f64 = 1.5;
/// A share is never so sure as to be none.
const LEAST: f64 = 1e-6;
/// So many times what is allowed is far too much, at least one share and at most another (and half-way to
/// all calls, where more may miss). How much more it is says nothing of where the edge is: perhaps only
/// some kinds of calls ever miss.
const FAR: f64 = 20.0;
const FAR_BETWEEN: (f64, f64) = (0.2, 0.5);
/// A number of calls in flight varies, from begin to end of a step, by so many times the number of those
/// that came: the slope of the straight line through a random walk.
const WALK: f64 = 1.2;

/// How likely each place of an edge is.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    /// The logarithm of the lowest place.
    from: f64,
    /// The chance that the edge lies no higher than a place.
    below: Vec<f64>,
}

/// What calls of one step came to, of all that an objective is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share {
    pub(crate) load: f64,
    pub(crate) missed: f64,
    pub(crate) calls: f64,
}

/// By what share of those that came the calls in flight became more, in one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Growth {
    pub(crate) load: f64,
    pub(crate) share: f64,
    pub(crate) calls: f64,
}

// === impl Edge ===

impl Edge {
    /// Where the share of calls that miss passes what is allowed.
    pub(crate) fn of_shares(shares: &[Share], allowed: f64, (low, high): (f64, f64)) -> Self {
        let places = Places::between(low, high);
        let far = far(allowed);
        let shares: Vec<_> = shares.iter().map(|one| one.at_most(far)).collect();
        let curves =
            || places.iter().flat_map(|edge| SLOPES.map(|slope| Curve { edge, slope, allowed }));
        let fits: Vec<f64> = curves().map(|curve| curve.fit(&shares)).collect();
        let best = curves().zip(&fits).max_by(|one, other| one.1.total_cmp(other.1));
        let cluster = best.map_or(CLUSTER, |(curve, _)| curve.cluster(&shares));
        Self::weigh(
            &places,
            fits.chunks(SLOPES.len()).map(|fits| fits.iter().map(|fit| fit / cluster)),
        )
    }

    /// Where calls begin to pile up: no server answers more than it can, so that beyond the edge their
    /// number grows by what is more.
    pub(crate) fn of_growth(growth: &[Growth], (low, high): (f64, f64)) -> Self {
        let places = Places::between(low, high);
        let fit = |edge: f64| -> f64 {
            let of = |one: &Growth| {
                let expected = (1.0 - edge.exp() / one.load).max(0.0);
                -(one.share - expected).powi(2) * one.calls / (2.0 * WALK)
            };
            growth.iter().map(of).sum()
        };
        Self::weigh(&places, places.iter().map(|edge| [fit(edge)]))
    }

    /// The lowest of several edges.
    pub(crate) fn lowest(edges: Vec<Self>) -> Option<Self> {
        edges.into_iter().reduce(|one, other| {
            let both = one.below.iter().zip(&other.below);
            let below = both.map(|(one, other)| 1.0 - (1.0 - one) * (1.0 - other)).collect();
            Self { from: one.from, below }
        })
    }

    /// The load below which the edge lies with this chance.
    pub(crate) fn at(&self, chance: f64) -> f64 {
        let place = self.below.partition_point(|below| *below < chance);
        (self.from + place.min(self.below.len() - 1) as f64 * STEP).exp()
    }

    /// From how well each place fits, by each of its curves: logarithms, of which only differences count.
    fn weigh<F: IntoIterator<Item = f64>>(places: &Places, fits: impl Iterator<Item = F>) -> Self {
        let fits: Vec<Vec<f64>> = fits.map(|fits| fits.into_iter().collect()).collect();
        let best = fits.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
        let weight = |fits: &Vec<f64>| -> f64 { fits.iter().map(|fit| (fit - best).exp()).sum() };
        let weights: Vec<f64> = fits.iter().map(weight).collect();
        let all: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let below = weights.iter().map(|weight| {
            sum += weight / all;
            sum
        });
        Self { from: places.from, below: below.collect() }
    }
}

// === impl Share ===

impl Share {
    /// With no larger a share of calls that missed.
    fn at_most(self, share: f64) -> Self {
        Self { missed: self.missed.min(share * self.calls), ..self }
    }
}

/// The share that is far more than what is allowed.
fn far(allowed: f64) -> f64 {
    let (least, most) = FAR_BETWEEN;
    if allowed < least { (FAR * allowed).clamp(least, most) } else { (1.0 + allowed) / 2.0 }
}

/// Places where the edge may lie, by the logarithm of the load.
struct Places {
    from: f64,
    count: usize,
}

// === impl Places ===

impl Places {
    fn between(low: f64, high: f64) -> Self {
        Self { from: low.ln(), count: ((high / low).ln() / STEP).ceil().max(1.0) as usize + 1 }
    }

    fn iter(&self) -> impl Iterator<Item = f64> {
        (0..self.count).map(|place| self.from + place as f64 * STEP)
    }
}

/// How the share of calls that miss may rise with the load.
#[derive(Clone, Copy)]
struct Curve {
    /// The logarithm of the load at which it passes what is allowed.
    edge: f64,
    slope: f64,
    allowed: f64,
}

// === impl Curve ===

impl Curve {
    /// The share at this load.
    fn at(&self, load: f64) -> f64 {
        let odds =
            (self.allowed / (1.0 - self.allowed)).ln() + self.slope * (load.ln() - self.edge);
        (1.0 / (1.0 + (-odds).exp())).clamp(LEAST, far(self.allowed))
    }

    /// The logarithm of how likely it makes what was seen, were all calls on their own.
    fn fit(&self, shares: &[Share]) -> f64 {
        let of = |one: &Share| {
            let share = self.at(one.load);
            one.missed * share.ln() + (one.calls - one.missed) * (1.0 - share).ln()
        };
        shares.iter().map(of).sum()
    }

    /// How many calls count as one: by how much more the steps differ from the curve than chance alone
    /// would have them, and some more where steps are few.
    fn cluster(&self, shares: &[Share]) -> f64 {
        let differs = |one: &Share| {
            let share = self.at(one.load);
            (one.missed - one.calls * share).powi(2) / (one.calls * share * (1.0 - share))
        };
        let free = (shares.len() as f64 - 2.0).max(1.0);
        let wider = StudentsT::new(0.0, 1.0, free).map_or(2.0, |t| t.inverse_cdf(0.975) / 1.96);
        let measured: f64 = shares.iter().map(differs).sum();
        (measured / free).max(CLUSTER) * wider * wider * CAUTION
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    const RANGE: (f64, f64) = (20.0, 500.0);

    fn share(load: f64, missed: f64, calls: f64) -> Share {
        Share { load, missed, calls }
    }

    #[test]
    fn the_edge_lies_where_the_share_passes_what_is_allowed() {
        let seen = [90.0, 95.0, 100.0, 105.0, 110.0].map(|load| {
            let odds = (0.01_f64 / 0.99).ln() + 25.0 * (load / 100.0_f64).ln();
            share(load, 5000.0 / (1.0 + (-odds).exp()), 5000.0)
        });
        let edge = Edge::of_shares(&seen, 0.01, RANGE);
        assert!((edge.at(0.5) / 100.0 - 1.0).abs() < 0.01, "{}", edge.at(0.5));
        assert!(edge.at(0.025) > 94.0 && edge.at(0.975) < 106.0);
    }

    #[test]
    fn one_bad_minute_counts_for_what_it_is() {
        // One step in ten has a tenth of its calls beyond the limit, so one in a hundred is: at the edge.
        let mut seen = vec![share(100.0, 0.0, 1000.0); 9];
        seen.push(share(100.0, 100.0, 1000.0));
        let edge = Edge::of_shares(&seen, 0.01, RANGE);
        assert!(edge.at(0.025) < 100.0 && edge.at(0.975) > 100.0);
        let alone = Edge::of_shares(&seen[..9], 0.01, RANGE);
        assert!(alone.at(0.025) > edge.at(0.025), "without it more load would seem to be borne");
    }

    #[test]
    fn an_edge_that_only_some_calls_meet_is_found_all_the_same() {
        // So much of all calls is of a kind that always fails beyond 100.
        for (part, allowed) in [(0.33, 0.01), (0.5, 0.01), (1.0, 0.1)] {
            let missed = |load: f64| if load < 100.0 { 0.0 } else { part };
            let seen = [80.0, 95.0, 98.0, 102.0, 105.0, 130.0]
                .map(|load| share(load, missed(load) * 1000.0, 1000.0));
            let edge = Edge::of_shares(&seen, allowed, RANGE);
            let bounds = (edge.at(0.025), edge.at(0.975));
            assert!(bounds.0 > 94.0 && bounds.1 < 106.0, "{part} of all: {bounds:?}");
        }
    }

    #[test]
    fn calls_pile_up_by_what_comes_beyond_the_edge() {
        let mut random = SmallRng::seed_from_u64(1);
        let seen = [96.0, 104.0, 98.0, 106.0, 97.0, 108.0, 95.0, 103.0].map(|load: f64| {
            let noise = (random.random::<f64>() - 0.5) * 0.02;
            Growth { load, share: (1.0 - 100.0 / load).max(0.0) + noise, calls: 4000.0 }
        });
        let edge = Edge::of_growth(&seen, RANGE);
        assert!((edge.at(0.5) / 100.0 - 1.0).abs() < 0.02, "{}", edge.at(0.5));
        let none = Edge::of_growth(&[Growth { load: 50.0, share: 0.0, calls: 4000.0 }], RANGE);
        assert!(none.at(0.975) > 400.0, "what does not pile up bounds nothing from above");
    }

    #[test]
    fn the_lowest_of_two_edges_is_lower_than_either() {
        let at = |load| Edge::of_shares(&[share(load, 10.0, 1000.0)], 0.01, RANGE);
        let lowest = Edge::lowest(vec![at(100.0), at(200.0)]).expect("there are two");
        assert!(lowest.at(0.5) <= at(100.0).at(0.5) + 1e-9);
        assert!(Edge::lowest(vec![]).is_none());
    }
}
