//! What is counted of calls that look alike.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use tidegate_wire::{
    CacheSource, Cached, Drain, DrainEnd, ErrorOrigin, Media, OUTPUT_CLASSES, Outcome, Record,
    SIZE_CLASSES, output_class,
};

use super::value::{Amount, ByClass, Histogram, SECONDS, SECONDS_ADDED, SECONDS_PER_TOKEN, TOKENS};
use crate::export::catalog::{
    MEDIA_KINDS, SAVED_TYPES, TOKEN_TYPES, UNPRICED_TYPES, WAITS, WASTE_SOURCES,
};

/// What tells the series of calls apart.
#[derive(Clone, Debug)]
pub(in crate::export) struct Labels {
    /// Why Tidegate made these calls itself; empty where callers did.
    pub(in crate::export) own: &'static str,
    pub(in crate::export) caller: Arc<str>,
    /// The arm that answered; empty where none did.
    pub(in crate::export) split: Arc<str>,
    pub(in crate::export) model: Arc<str>,
    pub(in crate::export) provider: Arc<str>,
    pub(in crate::export) operation: Arc<str>,
    pub(in crate::export) region: Arc<str>,
    pub(in crate::export) route: Arc<str>,
    pub(in crate::export) upstream: Arc<str>,
    pub(in crate::export) stream: Option<bool>,
    pub(in crate::export) status: Option<u16>,
    pub(in crate::export) outcome: Option<Outcome>,
    pub(in crate::export) error_origin: Option<ErrorOrigin>,
}

/// All that is counted of calls with the same labels; each metric is a sum over some of these.
#[derive(Clone, Debug)]
pub(in crate::export) struct Series {
    pub(in crate::export) calls: u64,
    pub(in crate::export) usage_absent: u64,
    /// By the types of [`TOKEN_TYPES`]; absent until one was stated.
    pub(in crate::export) tokens: [Option<u64>; TOKEN_TYPES.len()],
    /// In dollars; absent until a call had a cost.
    pub(in crate::export) cost: Option<Amount>,
    /// What caches did; absent until one had a say.
    pub(in crate::export) cached: Option<Box<CachedCalls>>,
    pub(in crate::export) unpriced: u64,
    /// By the types of [`UNPRICED_TYPES`].
    pub(in crate::export) unpriced_tokens: [u64; UNPRICED_TYPES.len()],
    pub(in crate::export) duration: Histogram,
    pub(in crate::export) time_to_first_token: Histogram,
    pub(in crate::export) time_per_output_token: Histogram,
    pub(in crate::export) overhead: Histogram,
    pub(in crate::export) input_usage: Histogram,
    pub(in crate::export) output_usage: Histogram,
    /// Of each stream, the longest gap between two tokens.
    pub(in crate::export) longest_gap: Histogram,
    pub(in crate::export) stalls: u64,
    /// Times to the first token, by [`SIZE_CLASSES`].
    pub(in crate::export) by_input: ByClass<{ SIZE_CLASSES.len() }>,
    /// Durations of completed calls, by [`OUTPUT_CLASSES`].
    pub(in crate::export) by_output: ByClass<{ OUTPUT_CLASSES.len() }>,
    /// By [`WAITS`].
    pub(in crate::export) waits: ByClass<{ WAITS.len() }>,
    /// By the kinds of [`MEDIA_KINDS`].
    pub(in crate::export) media: [u64; MEDIA_KINDS.len()],
    /// Answers that were read on without their callers, by [`DrainEnd::ALL`].
    pub(in crate::export) drains: [u64; DrainEnd::ALL.len()],
    /// Output tokens of them that nobody got, by [`WASTE_SOURCES`].
    pub(in crate::export) wasted: [u64; WASTE_SOURCES.len()],
}

/// What caches did for calls with the same labels.
#[derive(Clone, Debug, Default)]
pub(in crate::export) struct CachedCalls {
    /// By [`CacheSource::ALL`].
    pub(in crate::export) calls: [u64; CacheSource::ALL.len()],
    /// Input and output tokens that were not spent.
    pub(in crate::export) saved_tokens: [Option<u64>; SAVED_TYPES.len()],
    /// In dollars.
    pub(in crate::export) saved_cost: Option<Amount>,
}

/// [`Labels`], borrowed from a record.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key<'a> {
    pub(super) own: &'static str,
    pub(super) caller: &'a str,
    pub(super) split: &'a str,
    pub(super) model: &'a str,
    pub(super) provider: &'a str,
    pub(super) operation: &'a str,
    pub(super) region: &'a str,
    pub(super) route: &'a str,
    pub(super) upstream: &'a str,
    pub(super) stream: Option<bool>,
    pub(super) status: Option<u16>,
    pub(super) outcome: Option<Outcome>,
    pub(super) error_origin: Option<ErrorOrigin>,
}

/// Lets a map of [`Labels`] be asked with a [`Key`], so that looking up allocates nothing.
pub(super) trait Keyed {
    fn key(&self) -> Key<'_>;
}

// === impl Series ===

impl Series {
    /// Whether times and sizes are counted by exponential buckets too.
    pub(super) fn new(is_exponential: bool) -> Self {
        let histogram = |bounds| Histogram::new(bounds).with_exponential(is_exponential);
        Self {
            calls: 0,
            usage_absent: 0,
            tokens: [None; TOKEN_TYPES.len()],
            cost: None,
            cached: None,
            unpriced: 0,
            unpriced_tokens: [0; UNPRICED_TYPES.len()],
            duration: histogram(SECONDS),
            time_to_first_token: histogram(SECONDS),
            time_per_output_token: histogram(SECONDS_PER_TOKEN),
            overhead: histogram(SECONDS_ADDED),
            input_usage: histogram(TOKENS),
            output_usage: histogram(TOKENS),
            longest_gap: histogram(SECONDS),
            stalls: 0,
            by_input: ByClass::new(is_exponential),
            by_output: ByClass::new(is_exponential),
            waits: ByClass::new(is_exponential),
            media: [0; MEDIA_KINDS.len()],
            drains: [0; DrainEnd::ALL.len()],
            wasted: [0; WASTE_SOURCES.len()],
        }
    }

    /// Counts a call, which is an example of its times where it has a span.
    pub(super) fn add(&mut self, record: &Record, has_span: bool) {
        self.calls += 1;
        self.usage_absent += u64::from(record.lacks_usage());
        let tokens = [
            record.input_tokens,
            record.output_tokens,
            record.cache_read_tokens,
            record.cache_creation_tokens,
            record.reasoning_tokens,
        ];
        for (sum, stated) in self.tokens.iter_mut().zip(tokens) {
            merge_stated(sum, stated);
        }
        self.add_cost(record);
        if let Some(cached) = record.cached.as_deref() {
            self.cached.get_or_insert_default().add(cached);
        }
        let example = has_span.then_some(record);
        self.duration.observe_call(record.duration_s, example);
        self.time_to_first_token.observe_call(record.time_to_first_token_s, example);
        self.time_per_output_token.observe_call(record.time_per_output_token_s, example);
        self.overhead.observe(record.overhead_s);
        self.input_usage.observe(record.input_tokens.map(|tokens| tokens as f64));
        self.output_usage.observe(record.output_tokens.map(|tokens| tokens as f64));
        self.longest_gap.observe(record.gap_max_s);
        self.stalls = self.stalls.saturating_add(record.stalls.unwrap_or(0));
        self.add_by_size(record);
        self.add_waits(record);
        if let Some(media) = record.media.as_deref() {
            self.add_media(media);
        }
        if let Some(drain) = record.drain.as_deref() {
            self.add_drain(drain);
        }
    }

    fn add_by_size(&mut self, record: &Record) {
        if let (Some(class), Some(time)) = (&record.size_class, record.time_to_first_token_s)
            && let Some(at) = SIZE_CLASSES.iter().position(|known| **known == **class)
        {
            self.by_input.observe(at, time);
        }
        if let (Some(tokens), Some(time), Some(Outcome::Completed)) =
            (record.output_tokens, record.duration_s, record.outcome)
        {
            self.by_output.observe(output_class(tokens), time);
        }
    }

    fn add_waits(&mut self, record: &Record) {
        let waits = [
            record.wait_pool_s,
            record.wait_dns_s,
            record.wait_connect_s,
            record.wait_tls_s,
            record.wait_queue_s,
            record.wait_retry_s,
        ];
        for (at, waited) in waits.into_iter().enumerate() {
            if let Some(waited) = waited {
                self.waits.observe(at, waited);
            }
        }
    }

    fn add_media(&mut self, media: &Media) {
        let counts = [media.images, media.audios, media.videos, media.documents];
        for (sum, count) in self.media.iter_mut().zip(counts) {
            *sum = sum.saturating_add(count.unwrap_or(0));
        }
    }

    fn add_drain(&mut self, drain: &Drain) {
        if let Some(at) = DrainEnd::ALL.iter().position(|end| drain.end == Some(*end)) {
            self.drains[at] += 1;
        }
        let tokens = [drain.wasted_tokens, drain.estimated_wasted_tokens];
        for (sum, tokens) in self.wasted.iter_mut().zip(tokens) {
            *sum = sum.saturating_add(tokens.unwrap_or(0));
        }
    }

    fn add_cost(&mut self, record: &Record) {
        merge_cost(&mut self.cost, record.cost_usd.map(Amount::new));
        if record.unpriced == Some(true) {
            self.unpriced += 1;
            let tokens = [record.input_tokens, record.output_tokens];
            for (sum, stated) in self.unpriced_tokens.iter_mut().zip(tokens) {
                *sum = sum.saturating_add(stated.unwrap_or(0));
            }
        }
    }
}

// === impl CachedCalls ===

impl CachedCalls {
    fn add(&mut self, cached: &Cached) {
        let Cached { source, saved_input_tokens, saved_output_tokens, saved_cost_usd, .. } = cached;
        if let Some(at) = CacheSource::ALL.iter().position(|known| Some(*known) == *source) {
            self.calls[at] += 1;
        }
        let tokens = [*saved_input_tokens, *saved_output_tokens];
        for (sum, saved) in self.saved_tokens.iter_mut().zip(tokens) {
            merge_stated(sum, saved);
        }
        merge_cost(&mut self.saved_cost, saved_cost_usd.map(Amount::new));
    }
}

fn merge_cost(sum: &mut Option<Amount>, stated: Option<Amount>) {
    if let Some(stated) = stated {
        sum.get_or_insert_default().add(stated);
    }
}

fn merge_stated(sum: &mut Option<u64>, stated: Option<u64>) {
    if let Some(stated) = stated {
        // A provider that states nonsense must not bring a worker down.
        *sum = Some(sum.unwrap_or(0).saturating_add(stated));
    }
}

// === impl Labels ===

impl<'a> Key<'a> {
    pub(super) fn of(record: &'a Record, caller: &'a str, model: &'a str, region: &'a str) -> Self {
        Self {
            own: record.own().unwrap_or_default(),
            caller,
            // What was kept is no answer that an arm gave to this call.
            split: record.split.as_deref().filter(|_| !record.is_from_cache()).unwrap_or_default(),
            model,
            provider: record.provider.as_deref().unwrap_or_default(),
            operation: record.operation.as_deref().unwrap_or_default(),
            region,
            route: record.route.as_deref().unwrap_or_default(),
            upstream: record.upstream.as_deref().unwrap_or_default(),
            stream: record.stream,
            status: record.status,
            outcome: record.outcome,
            error_origin: record.error_origin,
        }
    }
}

impl From<Key<'_>> for Labels {
    fn from(key: Key<'_>) -> Self {
        Self {
            own: key.own,
            caller: key.caller.into(),
            split: key.split.into(),
            model: key.model.into(),
            provider: key.provider.into(),
            operation: key.operation.into(),
            region: key.region.into(),
            route: key.route.into(),
            upstream: key.upstream.into(),
            stream: key.stream,
            status: key.status,
            outcome: key.outcome,
            error_origin: key.error_origin,
        }
    }
}

impl Keyed for Key<'_> {
    fn key(&self) -> Key<'_> {
        *self
    }
}

impl Keyed for Labels {
    fn key(&self) -> Key<'_> {
        Key {
            own: self.own,
            caller: &self.caller,
            split: &self.split,
            model: &self.model,
            provider: &self.provider,
            operation: &self.operation,
            region: &self.region,
            route: &self.route,
            upstream: &self.upstream,
            stream: self.stream,
            status: self.status,
            outcome: self.outcome,
            error_origin: self.error_origin,
        }
    }
}

impl<'a> Borrow<dyn Keyed + 'a> for Arc<Labels> {
    fn borrow(&self) -> &(dyn Keyed + 'a) {
        &**self
    }
}

impl Hash for dyn Keyed + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for dyn Keyed + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for dyn Keyed + '_ {}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Labels {}
