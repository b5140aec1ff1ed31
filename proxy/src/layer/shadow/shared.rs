//! What all workers share of the shadows, from one reading of the configuration to the next.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::config::Config;
use crate::export::catalog::{self, Family};
use crate::export::metrics::{Source, Value, lock};
use crate::states::States;

/// The shadows of all routes, by the routes' names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shadows(Arc<Mutex<BTreeMap<Box<str>, OfRoute>>>);

/// The shadow of one route.
#[derive(Clone, Debug, Default)]
pub(crate) struct OfRoute(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: AtomicU32,
    sent: AtomicU64,
    not_sent: [AtomicU64; Reason::ALL.len()],
}

/// The place of one copy among those of its route.
#[derive(Debug)]
pub(super) struct Place(OfRoute);

/// Why a call that was drawn was not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// So many copies are under way already.
    Busy,
    /// The body is longer than a copy may be.
    BodyTooLarge,
    /// The body never came whole, or its upstream answered before it had.
    BodyNotRead,
    /// It would leave something behind at its server: `store: true`.
    NotRepeatable,
    /// It brings its caller's credential, which goes to no other host.
    Credential,
    /// Its names cannot be changed: it is signed, or encoded.
    Names,
    /// It is a call by gRPC, whose body may go on for as long as its answer.
    Grpc,
}

// === impl Shadows ===

impl Shadows {
    /// From now on there are no others than those of this configuration.
    pub(crate) fn keep(&self, config: &Config) {
        let is_there = |name: &str| {
            config.routes.iter().any(|route| route.shadow.is_some() && route.name() == name)
        };
        lock(&self.0).retain(|name, _| is_there(name));
    }

    /// The shadow of the route of this name.
    pub(crate) fn of_route(&self, name: &str) -> OfRoute {
        lock(&self.0).entry(name.into()).or_default().clone()
    }

    /// Has the admin address show how they stand.
    pub(crate) fn show(&self, config: &Config, states: &mut States) {
        for route in &config.routes {
            let Some(shadow) = route.shadow.clone() else { continue };
            let OfRoute(counts) = self.of_route(route.name());
            states.show("shadow", route.name(), move || {
                let reasons = counts.reasons().map(|(reason, count)| (reason.as_str(), count));
                json!({
                    "upstream": shadow.upstream,
                    "share": shadow.share.share(),
                    "open": counts.open.load(Relaxed),
                    "sent": counts.sent.load(Relaxed),
                    "not_sent": reasons.collect::<BTreeMap<_, _>>(),
                })
            });
        }
    }
}

impl Source for Shadows {
    fn read(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        for (route, OfRoute(counts)) in lock(&self.0).iter() {
            for (reason, count) in counts.reasons() {
                let labels = vec![route.to_string(), reason.as_str().to_owned()];
                show(&catalog::SHADOW_NOT_SENT, labels, Value::Counter(count));
            }
            let open = Value::Gauge(counts.open.load(Relaxed).into());
            show(&catalog::SHADOW_OPEN, vec![route.to_string()], open);
        }
    }
}

// === impl OfRoute ===

impl OfRoute {
    /// A place, if there are fewer than so many.
    pub(super) fn take(&self, limit: u32) -> Option<Place> {
        let another = |open| (open < limit).then_some(open + 1);
        self.0.open.fetch_update(Relaxed, Relaxed, another).ok()?;
        Some(Place(self.clone()))
    }

    /// A copy was sent.
    pub(super) fn sent(&self) {
        self.0.sent.fetch_add(1, Relaxed);
    }

    /// A call that was drawn was not copied.
    pub(super) fn count(&self, reason: Reason) {
        self.0.not_sent[reason as usize].fetch_add(1, Relaxed);
    }
}

// === impl Counts ===

impl Counts {
    /// Each reason that there was, and how often.
    fn reasons(&self) -> impl Iterator<Item = (Reason, u64)> {
        let count = |reason: Reason| (reason, self.not_sent[reason as usize].load(Relaxed));
        Reason::ALL.into_iter().map(count).filter(|(_, count)| *count > 0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Relaxed);
    }
}

// === impl Reason ===

impl Reason {
    const ALL: [Self; 7] = [
        Self::Busy,
        Self::BodyTooLarge,
        Self::BodyNotRead,
        Self::NotRepeatable,
        Self::Credential,
        Self::Names,
        Self::Grpc,
    ];

    /// One of few fixed words.
    fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyNotRead => "body_not_read",
            Self::NotRepeatable => "not_repeatable",
            Self::Credential => "credential",
            Self::Names => "names",
            Self::Grpc => "grpc",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_places_than_so_many_and_each_is_free_again() {
        let shadow = OfRoute::default();
        let places: Vec<_> = (0..3).filter_map(|_| shadow.take(2)).collect();
        assert_eq!(places.len(), 2);
        drop(places);
        assert!(shadow.take(1).is_some());
        assert!(shadow.take(1).is_some(), "the one before was let go");
    }

    #[test]
    fn every_reason_has_a_count_and_a_word_of_its_own() {
        let shadow = OfRoute::default();
        for (times, reason) in Reason::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| shadow.count(reason));
        }
        let counts: Vec<_> = shadow.0.reasons().map(|(_, count)| count).collect();
        assert_eq!(counts, (1..=Reason::ALL.len() as u64).collect::<Vec<_>>());
        let words: std::collections::BTreeSet<_> = Reason::ALL.map(Reason::as_str).into();
        assert_eq!(words.len(), Reason::ALL.len());
    }
}
