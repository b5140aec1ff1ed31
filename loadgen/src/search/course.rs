//! Which load to try next: first twice as much again and again, until one is too much; then around the
//! middle of where the edge may lie, until that is known as well as was asked for.

use super::backlog;
use super::edge::{Edge, Growth, Share};
use super::goals::Goals;

/// How sure the bounds of the edge are, both together.
pub(crate) const SURE: f64 = 0.95;
/// Steps near the edge, at least: fewer cannot tell chance from load.
const FEWEST_NEAR: usize = 8;
/// By how much the load grows until it is too much.
const GROWTH: f64 = 2.0;
/// How far from the middle steps lie: to both sides by turns, so that it is seen how steep the edge is.
const ASIDE: f64 = 0.04;
/// Steps in the middle itself, before.
const IN_THE_MIDDLE: usize = 3;
/// How much lower than the first load it is tried at all.
const LOWER: f64 = 64.0;

/// What loads are tried, and how far to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bounds {
    /// The first load.
    pub(crate) from: f64,
    /// No load is above this one.
    pub(crate) most: f64,
    /// To what share of itself the edge is to be known.
    pub(crate) precision: f64,
    /// Steps, at most.
    pub(crate) steps: usize,
    /// Whether loads are users, and so whole numbers, of which a closed loop lets no more than that be in
    /// flight.
    pub(crate) is_of_users: bool,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Next {
    /// A step at this load.
    Try {
        load: f64,
        /// Whether it lies near the edge, so that it must last as long as objectives demand.
        is_near: bool,
    },
    /// The edge is known.
    Found,
    /// Even the highest load holds.
    AllHold,
    /// Not even the lowest one does.
    NoneHolds,
    /// The edge is not known, but there were as many steps as there may be.
    Spent,
}

/// What a step came to, as far as the search goes by it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) load: f64,
    pub(crate) is_near: bool,
    /// Of each objective, the calls that missed it, and all that it is about.
    pub(crate) shares: Vec<(f64, f64)>,
    /// By how many the calls in flight grew, and how many were to come, where the step says that.
    pub(crate) growth: Option<(f64, f64)>,
}

/// Where the edge lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) at_least: f64,
    pub(crate) load: f64,
    pub(crate) at_most: f64,
}

/// A search on its way.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    bounds: Bounds,
    /// Of each objective, the share of calls that may miss it.
    allowed: Vec<f64>,
    near: Vec<Seen>,
    /// The highest load that held, and the lowest that did not, until there were both.
    held: Option<f64>,
    missed: Option<f64>,
    /// A load that was missed once: as that may be chance, it has another step.
    doubted: Option<f64>,
    steps: usize,
    place: Option<Place>,
}

// === impl Course ===

impl Course {
    pub(crate) fn new(bounds: Bounds, goals: &Goals) -> Self {
        Self {
            bounds,
            allowed: goals.allowed(),
            near: Vec::new(),
            held: None,
            missed: None,
            doubted: None,
            steps: 0,
            place: None,
        }
    }

    /// What to do next.
    pub(crate) fn next(&self) -> Next {
        let Bounds { from, most, .. } = self.bounds;
        let least = self.least();
        let far = |load| Next::Try { load: self.rounded(load), is_near: false };
        match (self.held, self.missed, self.doubted) {
            (Some(held), None, None) if held >= most => Next::AllHold,
            (None, Some(missed), None) if missed <= least => Next::NoneHolds,
            _ if self.is_found() => Next::Found,
            _ if self.steps >= self.bounds.steps => Next::Spent,
            (_, _, Some(doubted)) => far(doubted),
            (None, None, _) => far(from.min(most)),
            (Some(held), None, _) => far((held * GROWTH).min(most)),
            (None, Some(missed), _) => far((missed / GROWTH).max(least)),
            (Some(held), Some(missed), _) => {
                let middle = self.place.map_or((held * missed).sqrt(), |place| place.load);
                Next::Try { load: self.aside(middle).clamp(least, most), is_near: true }
            }
        }
    }

    /// Takes in what a step came to.
    pub(crate) fn learn(&mut self, seen: Seen) {
        self.steps += 1;
        if seen.is_near {
            self.near.push(seen);
            self.place = self.find();
            return;
        }
        let (load, is_kept) = (seen.load, self.keeps(&seen));
        if is_kept {
            self.held = Some(load);
            // What was missed once and held then is no bound.
            self.doubted = None;
        } else if self.doubted.take().is_none() && !self.is_hopeless(&seen) {
            self.doubted = Some(load);
        } else {
            self.missed = Some(load);
        }
    }

    /// Counts a step that said nothing.
    pub(crate) fn waste(&mut self) {
        self.steps += 1;
    }

    /// Whether what a step came to, taken by itself, keeps all objectives and piles up no calls.
    pub(crate) fn keeps(&self, seen: &Seen) -> bool {
        let mut shares = seen.shares.iter().zip(&self.allowed);
        shares.all(|((missed, all), allowed)| missed <= &(allowed * all))
            && (self.bounds.is_of_users || !seen.growth.is_some_and(backlog::piles_up))
    }

    /// Where the edge lies, and between what bounds that is sure.
    pub(crate) fn place(&self) -> Option<Place> {
        self.place
    }

    /// The highest load that held on the way up.
    pub(crate) fn held(&self) -> Option<f64> {
        self.held
    }

    /// The lowest load that did not.
    pub(crate) fn missed(&self) -> Option<f64> {
        self.missed
    }

    /// Whether so much was missed that no other step is needed to be sure.
    fn is_hopeless(&self, seen: &Seen) -> bool {
        const MUCH: f64 = 10.0;
        let mut shares = seen.shares.iter().zip(&self.allowed);
        shares.any(|((missed, all), allowed)| *missed > (MUCH * allowed).min(0.5) * all)
    }

    fn find(&self) -> Option<Place> {
        let range = (self.held? / GROWTH, self.missed? * GROWTH);
        let mut edges: Vec<Edge> = Vec::new();
        for (number, allowed) in self.allowed.iter().enumerate() {
            let share = |seen: &Seen| {
                let (missed, calls) = seen.shares[number];
                Share { load: seen.load, missed, calls }
            };
            let shares: Vec<_> =
                self.near.iter().map(share).filter(|share| share.calls > 0.0).collect();
            edges.push(Edge::of_shares(&shares, *allowed, range));
        }
        if !self.bounds.is_of_users {
            let growth = |seen: &Seen| {
                let (growth, calls) = seen.growth?;
                Some(Growth { load: seen.load, share: growth / calls, calls })
            };
            let growth: Vec<_> = self.near.iter().filter_map(growth).collect();
            edges.push(Edge::of_growth(&growth, range));
        }
        let edge = Edge::lowest(edges)?;
        let doubt = (1.0 - SURE) / 2.0;
        let [at_least, load, at_most] = [doubt, 0.5, 1.0 - doubt].map(|chance| edge.at(chance));
        Some(Place { at_least, load, at_most })
    }

    fn is_found(&self) -> bool {
        let Some(Place { at_least, load, at_most }) = self.place else { return false };
        let wide = 1.0 + self.bounds.precision;
        let is_one = self.bounds.is_of_users && at_least.floor() == at_most.floor();
        self.near.len() >= FEWEST_NEAR
            && (is_one || at_most / load <= wide && load / at_least <= wide)
    }

    /// The lowest load that is tried.
    fn least(&self) -> f64 {
        if self.bounds.is_of_users { 1.0 } else { self.rounded(self.bounds.from / LOWER) }
    }

    /// A little beside the middle of the edge, to either side by turns; of users the whole numbers to either
    /// side, where they are few.
    fn aside(&self, middle: f64) -> f64 {
        let turn = self.near.len();
        let is_up = turn.is_multiple_of(2);
        if self.bounds.is_of_users && middle * ASIDE < 1.0 {
            return if is_up { middle.floor() + 1.0 } else { middle.floor() };
        }
        let aside = if turn < IN_THE_MIDDLE { 0.0 } else { ASIDE };
        self.rounded(middle * if is_up { aside.exp() } else { (-aside).exp() })
    }

    fn rounded(&self, load: f64) -> f64 {
        if self.bounds.is_of_users { load.round().max(1.0) } else { digits(load) }
    }
}

/// A load with as many digits as it is worth: `71.93`.
pub(crate) fn digits(load: f64) -> f64 {
    if load <= 0.0 || !load.is_finite() {
        return load;
    }
    let unit = 10_f64.powf(3.0 - load.log10().floor());
    (load * unit).round() / unit
}

#[cfg(test)]
mod tests {
    use tidegate_settings::Objectives;

    use super::*;

    const BOUNDS: Bounds =
        Bounds { from: 8.0, most: 1000.0, precision: 0.05, steps: 40, is_of_users: false };

    fn course(bounds: Bounds) -> Course {
        let text = "objectives: [{ metric: error_ratio, below: 1% }]";
        let objectives = Objectives::parse(text).expect("good objectives");
        Course::new(bounds, &Goals::of(&objectives).expect("goals"))
    }

    /// Takes the next step, of which this part of a thousand calls misses.
    fn step(course: &mut Course, missed: impl Fn(f64) -> f64) -> (f64, bool) {
        let Next::Try { load, is_near } = course.next() else { panic!("{:?}", course.next()) };
        let shares = vec![(missed(load) * 1000.0, 1000.0)];
        course.learn(Seen { load, is_near, shares, growth: Some((0.0, 1000.0)) });
        (load, is_near)
    }

    #[test]
    fn the_load_doubles_until_it_is_too_much_and_then_the_edge_is_searched() {
        let mut course = course(BOUNDS);
        let missed = |load: f64| if load < 50.0 { 0.0 } else { 0.9 };
        let loads: Vec<_> = (0..4).map(|_| step(&mut course, missed).0).collect();
        assert_eq!(loads, [8.0, 16.0, 32.0, 64.0]);
        let (middle, is_near) = step(&mut course, missed);
        assert!(is_near && (middle / 45.25 - 1.0).abs() < 0.01, "{middle}");
        while course.next() != Next::Found {
            step(&mut course, missed);
        }
        let place = course.place().expect("an edge");
        assert!((place.load / 50.0 - 1.0).abs() < 0.05, "{place:?}");
    }

    #[test]
    fn a_load_that_is_missed_a_little_has_another_step() {
        let mut course = course(BOUNDS);
        let little = |load: f64| if load < 16.0 { 0.0 } else { 0.02 };
        let loads: Vec<_> = (0..3).map(|_| step(&mut course, little).0).collect();
        assert_eq!(loads, [8.0, 16.0, 16.0]);
        assert!(matches!(course.next(), Next::Try { is_near: true, .. }));

        let mut lucky = self::course(BOUNDS);
        step(&mut lucky, little);
        step(&mut lucky, little);
        assert_eq!(step(&mut lucky, |_| 0.0), (16.0, false));
        assert_eq!(step(&mut lucky, |_| 0.0), (32.0, false), "it was chance");
    }

    #[test]
    fn what_all_loads_hold_or_none_does_has_no_edge() {
        let mut course = course(Bounds { most: 20.0, ..BOUNDS });
        let loads: Vec<_> = (0..3).map(|_| step(&mut course, |_| 0.0).0).collect();
        assert_eq!((loads, course.next()), (vec![8.0, 16.0, 20.0], Next::AllHold));

        let mut course = self::course(Bounds { is_of_users: true, ..BOUNDS });
        let loads: Vec<_> = (0..4).map(|_| step(&mut course, |_| 0.9).0).collect();
        assert_eq!((loads, course.next()), (vec![8.0, 4.0, 2.0, 1.0], Next::NoneHolds));
        assert_eq!(course.place(), None);
    }

    #[test]
    fn the_most_users_are_found_between_two_whole_numbers() {
        let bounds = Bounds { from: 1.0, is_of_users: true, ..BOUNDS };
        let mut course = course(bounds);
        let missed = |users: f64| if users < 6.5 { 0.0 } else { 0.5 };
        while course.next() != Next::Found {
            step(&mut course, missed);
        }
        assert_eq!(course.place().expect("an edge").load.floor(), 6.0);
        assert!(course.steps <= 16, "{} steps", course.steps);
    }

    #[test]
    fn there_are_no_more_steps_than_there_may_be() {
        let mut course = course(Bounds { steps: 5, ..BOUNDS });
        let missed = |load: f64| if load < 50.0 { 0.0 } else { 0.9 };
        (0..4).for_each(|_| _ = step(&mut course, missed));
        course.waste();
        assert_eq!(course.next(), Next::Spent);
    }
}
