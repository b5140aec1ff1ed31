//! What providers said last of their own limits, beside which quotas are seen.

use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;
use tidegate_wire::{RateLimit, Record};

/// What was said last, by upstream and model.
#[derive(Debug, Default)]
pub(super) struct Remaining(Mutex<FxHashMap<Place, Vec<RateLimit>>>);

/// Upstream and model.
type Place = (Arc<str>, Box<str>);

/// Upstreams and models of which it is remembered.
const PLACES: usize = 256;
/// Dimensions of each, and how long their names may be: they are the provider's.
const DIMENSIONS: usize = 8;
const NAME_BYTES: usize = 32;

impl Remaining {
    /// Remembers what an answer said.
    pub(super) fn see(&self, record: &Record) {
        let limits = record.limits.0.iter().filter(|limit| limit.dimension.len() <= NAME_BYTES);
        let limits: Vec<_> = limits.take(DIMENSIONS).cloned().collect();
        let Some(upstream) = record.upstream.clone().filter(|_| !limits.is_empty()) else { return };
        let model = record.request_model.as_deref().unwrap_or_default();
        let place = (upstream, model.into());
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() < PLACES || places.contains_key(&place) {
            places.insert(place, limits);
        }
    }

    /// What was said last.
    pub(super) fn all(&self) -> Vec<(Place, Vec<RateLimit>)> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.iter().map(|(place, limits)| (place.clone(), limits.clone())).collect()
    }
}
