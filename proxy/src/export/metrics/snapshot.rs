//! All metrics at one moment, of which the points are made a family at a time.
//!
//! What was counted of calls is shared with the workers: one that goes on counting a series while it
//! is held here does so in a copy. So a reader takes no more than a few pointers, and one that is slow
//! costs at most each series once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use jiff::Timestamp;

use super::series::{Labels, Series};
use super::value::Value;
use crate::export::catalog::{FAMILIES, Family};
use crate::export::names::Conventions;

/// All metrics at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// When the counters began, at zero.
    pub started: Timestamp,
    /// The conventions by which labels are named.
    pub conventions: Conventions,
    /// What was counted of calls: by each worker, so that labels may come more than once.
    pub(super) series: Vec<(Arc<Labels>, Arc<Series>)>,
    /// What else has metrics.
    pub(super) others: Points,
}

/// One series of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The values of the family's labels that are shown, in their order; an empty one is an absent
    /// one.
    pub labels: Vec<Arc<str>>,
    /// What was counted.
    pub value: Value,
}

/// Some points of a family.
#[derive(Debug)]
pub struct Slice {
    /// Whose points they are.
    pub family: &'static Family,
    /// Whether they are its first.
    pub is_first: bool,
    /// At least one.
    pub points: Vec<Point>,
}

/// The points of each family, by its name and their labels.
#[derive(Debug, Default)]
pub(super) struct Points(BTreeMap<&'static str, ByLabels>);

/// The points of one family.
type ByLabels = BTreeMap<Vec<Arc<str>>, Value>;

// === impl Snapshot ===

impl Snapshot {
    /// Every metric that has at least one point, in the order of the catalog.
    pub fn families(&self) -> impl Iterator<Item = (&'static Family, Vec<Point>)> {
        let families = FAMILIES.iter().map(|family| (*family, self.points(family)));
        families.filter(|(_, points)| !points.is_empty())
    }

    /// The points of these families, at most so many at a time; they are made when they are asked for.
    pub fn slices(
        self,
        families: impl IntoIterator<Item = &'static Family>,
        most: usize,
    ) -> impl Iterator<Item = Slice> {
        families.into_iter().flat_map(move |family| {
            let mut points = self.points(family).into_iter();
            let mut is_first = true;
            std::iter::from_fn(move || {
                let points: Vec<_> = points.by_ref().take(most).collect();
                let is_first = std::mem::take(&mut is_first);
                (!points.is_empty()).then_some(Slice { family, is_first, points })
            })
        })
    }

    /// In the order of their labels.
    fn points(&self, family: &Family) -> Vec<Point> {
        let mut points = self.others.0.get(family.prometheus).cloned().unwrap_or_default();
        let is_of_own = family.is_of_own();
        let series = self.series.iter().filter(|(labels, _)| labels.own.is_empty() != is_of_own);
        for (labels, series) in series {
            (family.read)(labels, series, &mut |part, counted| {
                if !counted.is_nothing() {
                    let shown = family.shown(self.conventions);
                    let key = shown.map(|label| (label.value)(labels, part)).collect();
                    match points.entry(key) {
                        Entry::Occupied(mut sum) => sum.get_mut().add(counted),
                        Entry::Vacant(new) => _ = new.insert(counted.to_value()),
                    }
                }
            });
        }
        points.into_iter().map(|(labels, value)| Point { labels, value }).collect()
    }
}

// === impl Points ===

impl Points {
    pub(super) fn add(&mut self, family: &Family, labels: Vec<String>, value: Value) {
        let labels = labels.into_iter().map(Arc::from).collect();
        match self.0.entry(family.prometheus).or_default().entry(labels) {
            Entry::Occupied(mut sum) => sum.get_mut().merge(&value),
            Entry::Vacant(new) => _ = new.insert(value),
        }
    }
}
