//! What caches did for calls, and what they keep.

use tidegate_wire::CacheSource;

use super::labels::{CACHE, MODEL, PROVIDER, REASON, REGION, ROUTE, TYPE, UPSTREAM};
use super::{Family, Kind};
use crate::export::metrics::Counted;

/// The types of [`CACHE_SAVED_TOKENS`], in the order in which a series keeps them.
pub(in crate::export) const SAVED_TYPES: [&str; 2] = ["input", "output"];

/// What became of calls at the cache of their route.
pub static CACHE_CALLS: Family = Family {
    name: "tidegate.cache.calls",
    prometheus: "tidegate_cache_calls_total",
    unit: "{call}",
    help: "Calls of routes with a cache, by where their answer came from.",
    kind: Kind::Counter,
    labels: &[&MODEL, &ROUTE, &UPSTREAM, &CACHE],
    read: |_, series, put| {
        let counts =
            series.cached.iter().flat_map(|cached| CacheSource::ALL.iter().zip(cached.calls));
        for (source, count) in counts.filter(|(_, count)| *count > 0) {
            put(source.as_str(), Counted::Counter(count));
        }
    },
};

/// Tokens that were not spent.
pub static CACHE_SAVED_TOKENS: Family = Family {
    name: "tidegate.cache.saved_tokens",
    prometheus: "tidegate_cache_saved_tokens_total",
    unit: "{token}",
    help: "Tokens that calls would have used, had a cache not answered them.",
    kind: Kind::Counter,
    labels: &[&MODEL, &PROVIDER, &REGION, &ROUTE, &UPSTREAM, &TYPE],
    read: |_, series, put| {
        let saved =
            series.cached.iter().flat_map(|cached| SAVED_TYPES.iter().zip(cached.saved_tokens));
        for (kind, tokens) in saved {
            tokens.into_iter().for_each(|tokens| put(kind, Counted::Counter(tokens)));
        }
    },
};

/// Money that was not spent.
pub static CACHE_SAVED_COST: Family = Family {
    name: "tidegate.cache.saved_cost.usd",
    prometheus: "tidegate_cache_saved_cost_usd_total",
    unit: "{USD}",
    help: "What calls would have cost by the price table, had a cache not answered them, in US dollars.",
    kind: Kind::Counter,
    labels: &[&MODEL, &PROVIDER, &REGION, &ROUTE, &UPSTREAM],
    read: |_, series, put| {
        let saved = series.cached.iter().filter_map(|cached| cached.saved_cost);
        saved.for_each(|cost| put("", Counted::Amount(cost)));
    },
};

/// Calls that a cache did not look at, and answers that it did not keep.
pub static CACHE_NOT_STORED: Family = Family {
    name: "tidegate.cache.not_stored",
    prometheus: "tidegate_cache_not_stored_total",
    unit: "{call}",
    help: "Calls of routes with a cache whose answer was not kept, by reason.",
    kind: Kind::Counter,
    labels: &[&ROUTE, &REASON],
    read: |_, _, _| {},
};

/// Answers that are kept.
pub static CACHE_ENTRIES: Family = Family {
    name: "tidegate.cache.entries",
    prometheus: "tidegate_cache_entries",
    unit: "{answer}",
    help: "Answers that are kept in memory.",
    kind: Kind::Gauge,
    labels: &[],
    read: |_, _, _| {},
};

/// The memory that they take.
pub static CACHE_BYTES: Family = Family {
    name: "tidegate.cache.memory",
    prometheus: "tidegate_cache_memory_bytes",
    unit: "By",
    help: "Memory that kept answers take.",
    kind: Kind::Gauge,
    labels: &[],
    read: |_, _, _| {},
};

/// Answers that are kept no longer.
pub static CACHE_EVICTIONS: Family = Family {
    name: "tidegate.cache.evictions",
    prometheus: "tidegate_cache_evictions_total",
    unit: "{answer}",
    help: "Answers that are kept no longer: others needed their room (size), or their time was over (expired).",
    kind: Kind::Counter,
    labels: &[&REASON],
    read: |_, _, _| {},
};
