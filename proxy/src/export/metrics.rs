//! Counters and histograms of calls: a shard per worker, summed when they are read.
//!
//! Adding a record takes a lock that only a reader ever contends for, one look-up, and no
//! allocation once its series is there. A record is added whole or not at all, so every reader
//! sees metrics that agree with each other. Every label value is bounded: words that callers
//! choose become values only once an upstream has answered them with a 2xx, and only so many.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use jiff::Timestamp;
use rustc_hash::{FxHashMap, FxHashSet};
use tidegate_wire::{ErrorOrigin, Media, Outcome, Record, SIZE_CLASSES};
use tokio::time::Instant;

use super::catalog::{self, FAMILIES, Family, MEDIA_KINDS};
use super::names::Conventions;
use crate::jobs::{JobLimits, Jobs};

/// The label value for words that found no room.
pub const OTHER: &str = "other";
/// The model of a call that names none.
pub const UNKNOWN: &str = "unknown";

/// Models beside the configured ones that may become label values.
pub const MODELS: usize = 200;
/// Regions beside the configured ones that may become label values.
pub const REGIONS: usize = 64;

/// Upper bounds of times in seconds: 2 s and 3 s are exact, for objectives.
pub const SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0,
    15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 900.0,
];
/// Upper bounds of seconds per output token.
pub const SECONDS_PER_TOKEN: &[f64] =
    &[0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5];
/// Upper bounds of the seconds that Tidegate adds.
pub const SECONDS_ADDED: &[f64] =
    &[0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0];
/// Upper bounds of tokens per call, as the GenAI conventions advise.
pub const TOKENS: &[f64] = &[
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0,
    16777216.0, 67108864.0,
];

/// Picodollars in a dollar.
const PICODOLLARS: f64 = 1e12;
/// Longer words never become label values.
const WORD_BYTES: usize = 128;
/// Series of one worker; beyond it, what callers choose counts as [`OTHER`].
const SERIES: usize = 2_000;
/// Words of one kind that a worker counts; who writes them into records has fewer.
const WORDS: usize = 32;

/// All metrics of this process.
#[derive(Debug)]
pub struct Registry {
    started: Timestamp,
    conventions: Conventions,
    models: Arc<Names>,
    regions: Arc<Names>,
    shards: Mutex<Vec<Arc<Mutex<Shard>>>>,
    dropped: Mutex<BTreeMap<&'static str, Arc<AtomicU64>>>,
    jobs: Arc<Jobs>,
}

/// The metrics that one worker adds to.
#[derive(Debug)]
pub struct Shard {
    models: LocalNames,
    regions: LocalNames,
    series: FxHashMap<Labels, Series>,
    not_understood: Words,
    warnings: Words,
    in_flight: FxHashMap<Arc<str>, FxHashMap<Arc<str>, Arc<AtomicI64>>>,
}

/// How often a record had which word of a small vocabulary.
#[derive(Debug, Default)]
struct Words(FxHashMap<Arc<str>, u64>);

/// One call in flight, for as long as it is held.
#[derive(Debug)]
pub struct InFlight(Arc<AtomicI64>);

/// All metrics at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// When the counters began, at zero.
    pub started: Timestamp,
    /// The conventions by which labels are named.
    pub conventions: Conventions,
    /// Every metric that has at least one point.
    pub families: Vec<(&'static Family, Vec<Point>)>,
}

/// One series of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The values of the family's labels that are shown, in their order; an empty one is an absent
    /// one.
    pub labels: Vec<String>,
    /// What was counted.
    pub value: Value,
}

/// What was counted.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number that only grows.
    Counter(u64),
    /// A time that only grows: whole numbers add up the same in any order.
    Milliseconds(u64),
    /// An amount of money that only grows, in picodollars: whole numbers add up the same in any order.
    Cost(u64),
    /// A number that goes up and down.
    Gauge(i64),
    /// How often which size occurred.
    Histogram(Histogram),
}

/// How often which size occurred, by upper bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One count a bound and one beyond them; empty until the first value comes.
    counts: Vec<u64>,
    sum: f64,
}

/// What tells the series of calls apart.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    pub(super) model: Arc<str>,
    pub(super) provider: Arc<str>,
    pub(super) operation: Arc<str>,
    pub(super) region: Arc<str>,
    pub(super) route: Arc<str>,
    pub(super) upstream: Arc<str>,
    pub(super) stream: Option<bool>,
    pub(super) status: Option<u16>,
    pub(super) outcome: Option<Outcome>,
    pub(super) error_origin: Option<ErrorOrigin>,
}

/// All that is counted of calls with the same labels; each metric is a sum over some of these.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) calls: u64,
    pub(super) usage_absent: u64,
    /// By the types of [`catalog::TOKEN_TYPES`]; absent until one was stated.
    pub(super) tokens: [Option<u64>; 5],
    /// In picodollars; absent until a call had a cost.
    pub(super) cost: Option<u64>,
    pub(super) unpriced: u64,
    /// By the types of [`catalog::UNPRICED_TYPES`].
    pub(super) unpriced_tokens: [u64; 2],
    pub(super) duration: Histogram,
    pub(super) time_to_first_token: Histogram,
    pub(super) time_per_output_token: Histogram,
    pub(super) overhead: Histogram,
    pub(super) input_usage: Histogram,
    pub(super) output_usage: Histogram,
    /// Times to the first token, by [`SIZE_CLASSES`]; absent until there is one.
    pub(super) by_input: Option<Box<[Histogram; SIZE_CLASSES.len()]>>,
    /// By the kinds of [`catalog::MEDIA_KINDS`].
    pub(super) media: [u64; MEDIA_KINDS.len()],
}

/// Words that may become label values: those known from the start, and a number of others.
#[derive(Debug)]
pub(crate) struct Names {
    admitted: RwLock<FxHashSet<Arc<str>>>,
    limit: usize,
}

/// What one worker knows of [`Names`], so that workers do not meet at every call.
#[derive(Debug)]
struct LocalNames {
    shared: Arc<Names>,
    admitted: FxHashSet<Arc<str>>,
    other: Arc<str>,
}

/// [`Labels`], borrowed from a record.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key<'a> {
    model: &'a str,
    provider: &'a str,
    operation: &'a str,
    region: &'a str,
    route: &'a str,
    upstream: &'a str,
    stream: Option<bool>,
    status: Option<u16>,
    outcome: Option<Outcome>,
    error_origin: Option<ErrorOrigin>,
}

/// Lets a map of [`Labels`] be asked with a [`Key`], so that looking up allocates nothing.
trait Keyed {
    fn key(&self) -> Key<'_>;
}

// === impl Registry ===

impl Registry {
    /// A registry in which these models and regions always are label values.
    pub fn new(
        models: impl IntoIterator<Item = Arc<str>>,
        regions: impl IntoIterator<Item = Arc<str>>,
    ) -> Self {
        let models = Arc::new(Names::new(models, MODELS));
        let regions = Arc::new(Names::new(regions, REGIONS));
        Self {
            started: Timestamp::now(),
            conventions: Conventions::default(),
            jobs: Arc::new(Jobs::new(JobLimits::default(), models.clone(), regions.clone())),
            models,
            regions,
            shards: Mutex::default(),
            dropped: Mutex::default(),
        }
    }

    /// The same registry, with these limits to the jobs that it keeps in mind.
    pub fn with_job_limits(mut self, limits: JobLimits) -> Self {
        self.jobs = Arc::new(Jobs::new(limits, self.models.clone(), self.regions.clone()));
        self
    }

    /// The long-running jobs that were seen.
    pub fn jobs(&self) -> &Arc<Jobs> {
        &self.jobs
    }

    /// The same registry, with labels named by these conventions.
    pub fn with_conventions(self, conventions: Conventions) -> Self {
        Self { conventions, ..self }
    }

    /// The conventions by which labels are named.
    pub fn conventions(&self) -> Conventions {
        self.conventions
    }

    /// A shard for one more worker.
    pub fn shard(&self) -> Arc<Mutex<Shard>> {
        let shard = Arc::new(Mutex::new(Shard {
            models: LocalNames::new(self.models.clone()),
            regions: LocalNames::new(self.regions.clone()),
            series: FxHashMap::default(),
            not_understood: Words::default(),
            warnings: Words::default(),
            in_flight: FxHashMap::default(),
        }));
        lock(&self.shards).push(shard.clone());
        shard
    }

    /// The counter of records that this exporter lost.
    pub fn dropped(&self, exporter: &'static str) -> Arc<AtomicU64> {
        lock(&self.dropped).entry(exporter).or_default().clone()
    }

    /// Adds up what all workers have counted.
    pub fn snapshot(&self) -> Snapshot {
        let mut series: FxHashMap<Labels, Series> = FxHashMap::default();
        let mut points = BTreeMap::new();
        for shard in lock(&self.shards).iter() {
            let shard = lock(shard);
            for (labels, counted) in &shard.series {
                match series.get_mut(labels) {
                    Some(sum) => sum.merge(counted),
                    None => _ = series.insert(labels.clone(), counted.clone()),
                }
            }
            for (family, words) in [
                (&catalog::NOT_UNDERSTOOD, &shard.not_understood),
                (&catalog::WARNINGS, &shard.warnings),
            ] {
                for (word, count) in &words.0 {
                    add(&mut points, family, vec![word.to_string()], Value::Counter(*count));
                }
            }
            for (upstream, models) in &shard.in_flight {
                for (model, count) in models {
                    let labels = vec![model.to_string(), upstream.to_string()];
                    let value = Value::Gauge(count.load(Ordering::Relaxed));
                    add(&mut points, &catalog::CALLS_IN_FLIGHT, labels, value);
                }
            }
        }
        for (exporter, count) in lock(&self.dropped).iter() {
            let value = Value::Counter(count.load(Ordering::Relaxed));
            add(&mut points, &catalog::RECORDS_DROPPED, vec![(*exporter).into()], value);
        }
        // Nobody but a reader could tell when a job was given up.
        self.jobs.sweep(Instant::now());
        self.jobs.read(&mut |family, labels, value| add(&mut points, family, labels, value));
        let build = vec![catalog::VERSION.into(), catalog::REVISION.into()];
        add(&mut points, &catalog::BUILD_INFO, build, Value::Gauge(1));
        for (labels, counted) in &series {
            for family in FAMILIES {
                (family.read)(labels, counted, &mut |part, value| {
                    if matches!(&value, Value::Histogram(counted) if counted.count() == 0) {
                        return;
                    }
                    let labels =
                        family.shown(self.conventions).map(|label| (label.value)(labels, part));
                    add(&mut points, family, labels.collect(), value);
                });
            }
        }
        Snapshot {
            started: self.started,
            conventions: self.conventions,
            families: FAMILIES
                .iter()
                .filter_map(|family| Some((*family, points.remove(family.prometheus)?)))
                .map(|(family, points)| (family, points.into_iter().map(Point::from).collect()))
                .collect(),
        }
    }
}

/// An amount of money as exporters show it.
pub(super) fn dollars(picodollars: u64) -> f64 {
    picodollars as f64 / PICODOLLARS
}

type Points = BTreeMap<&'static str, BTreeMap<Vec<String>, Value>>;

fn add(points: &mut Points, family: &Family, labels: Vec<String>, value: Value) {
    use std::collections::btree_map::Entry;

    match points.entry(family.prometheus).or_default().entry(labels) {
        Entry::Occupied(mut sum) => sum.get_mut().merge(&value),
        Entry::Vacant(new) => _ = new.insert(value),
    }
}

// === impl Shard ===

impl Shard {
    /// Counts one call that has ended.
    pub fn add(&mut self, record: &Record) {
        // An upstream that changes to another protocol has taken the call, too.
        let answered = record.status.is_some_and(|status| matches!(status, 101 | 200..300))
            && record.grpc_status.is_none_or(|status| status == 0);
        let model = match record.request_model.as_deref() {
            Some(model) => self.models.value(model, answered),
            None => UNKNOWN,
        };
        let region = match record.region.as_deref() {
            Some(region) => self.regions.value(region, answered),
            None => "",
        };
        let mut key = Key::of(record, model, region);
        if self.series.len() >= SERIES && !self.series.contains_key(&key as &dyn Keyed) {
            key = Key { model: OTHER, region: OTHER, ..key };
        }
        match self.series.get_mut(&key as &dyn Keyed) {
            Some(series) => series.add(record),
            None => {
                let mut series = Series::new();
                series.add(record);
                self.series.insert(Labels::from(key), series);
            }
        }
        if let Some(reason) = &record.not_understood {
            self.not_understood.count(reason);
        }
        record.warnings.iter().for_each(|warning| self.warnings.count(warning));
    }

    /// Counts one call for as long as the guard is held.
    pub fn open(&mut self, model: Option<&str>, upstream: &str) -> InFlight {
        let model = match model {
            Some(model) => self.models.value(model, false),
            None => UNKNOWN,
        };
        let models = match self.in_flight.get_mut(upstream) {
            Some(models) => models,
            None => self.in_flight.entry(upstream.into()).or_default(),
        };
        let count = match models.get(model) {
            Some(count) => count,
            None => models.entry(model.into()).or_default(),
        };
        count.fetch_add(1, Ordering::Relaxed);
        InFlight(count.clone())
    }
}

impl Words {
    fn count(&mut self, word: &Arc<str>) {
        let words = &mut self.0;
        if let Some(count) = words.get_mut(word) {
            *count += 1;
        } else if words.len() < WORDS {
            words.insert(word.clone(), 1);
        } else {
            *words.entry(OTHER.into()).or_default() += 1;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Series ===

impl Series {
    fn new() -> Self {
        Self {
            calls: 0,
            usage_absent: 0,
            tokens: [None; 5],
            cost: None,
            unpriced: 0,
            unpriced_tokens: [0; 2],
            duration: Histogram::new(SECONDS),
            time_to_first_token: Histogram::new(SECONDS),
            time_per_output_token: Histogram::new(SECONDS_PER_TOKEN),
            overhead: Histogram::new(SECONDS_ADDED),
            input_usage: Histogram::new(TOKENS),
            output_usage: Histogram::new(TOKENS),
            by_input: None,
            media: [0; MEDIA_KINDS.len()],
        }
    }

    fn add(&mut self, record: &Record) {
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
        self.duration.observe(record.duration_s);
        self.time_to_first_token.observe(record.time_to_first_token_s);
        self.time_per_output_token.observe(record.time_per_output_token_s);
        self.overhead.observe(record.overhead_s);
        self.input_usage.observe(record.input_tokens.map(|tokens| tokens as f64));
        self.output_usage.observe(record.output_tokens.map(|tokens| tokens as f64));
        self.add_by_input(record);
        if let Some(media) = record.media.as_deref() {
            self.add_media(media);
        }
    }

    fn add_by_input(&mut self, record: &Record) {
        let Some(class) = record.size_class.as_deref() else { return };
        if record.time_to_first_token_s.is_some()
            && let Some(at) = SIZE_CLASSES.iter().position(|known| *known == class)
        {
            self.by_input.get_or_insert_with(by_input)[at].observe(record.time_to_first_token_s);
        }
    }

    fn add_media(&mut self, media: &Media) {
        let counts = [media.images, media.audios, media.videos, media.documents];
        for (sum, count) in self.media.iter_mut().zip(counts) {
            *sum = sum.saturating_add(count.unwrap_or(0));
        }
    }

    fn add_cost(&mut self, record: &Record) {
        // Beyond 18 million dollars the number stands still.
        merge_stated(&mut self.cost, record.cost_usd.map(|usd| (usd * PICODOLLARS).round() as u64));
        if record.unpriced == Some(true) {
            self.unpriced += 1;
            let tokens = [record.input_tokens, record.output_tokens];
            for (sum, stated) in self.unpriced_tokens.iter_mut().zip(tokens) {
                *sum = sum.saturating_add(stated.unwrap_or(0));
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.usage_absent += other.usage_absent;
        for (sum, stated) in self.tokens.iter_mut().zip(other.tokens) {
            merge_stated(sum, stated);
        }
        merge_stated(&mut self.cost, other.cost);
        self.unpriced += other.unpriced;
        for (sum, tokens) in self.unpriced_tokens.iter_mut().zip(other.unpriced_tokens) {
            *sum = sum.saturating_add(tokens);
        }
        self.duration.merge(&other.duration);
        self.time_to_first_token.merge(&other.time_to_first_token);
        self.time_per_output_token.merge(&other.time_per_output_token);
        self.overhead.merge(&other.overhead);
        self.input_usage.merge(&other.input_usage);
        self.output_usage.merge(&other.output_usage);
        if let Some(others) = &other.by_input {
            let mine = self.by_input.get_or_insert_with(by_input);
            mine.iter_mut().zip(others.iter()).for_each(|(mine, other)| mine.merge(other));
        }
        for (sum, count) in self.media.iter_mut().zip(other.media) {
            *sum = sum.saturating_add(count);
        }
    }
}

fn by_input() -> Box<[Histogram; SIZE_CLASSES.len()]> {
    Box::new(std::array::from_fn(|_| Histogram::new(SECONDS)))
}

fn merge_stated(sum: &mut Option<u64>, stated: Option<u64>) {
    if let Some(stated) = stated {
        // A provider that states nonsense must not bring a worker down.
        *sum = Some(sum.unwrap_or(0).saturating_add(stated));
    }
}

// === impl Histogram ===

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: Vec::new(), sum: 0.0 }
    }

    /// Counts a value, where there is one and it is a number: one NaN would spoil the sum for good.
    pub(crate) fn observe(&mut self, value: Option<f64>) {
        let Some(value) = value.filter(|value| value.is_finite()) else { return };
        if self.counts.is_empty() {
            self.counts = vec![0; self.bounds.len() + 1];
        }
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
        } else {
            for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
                *sum += count;
            }
        }
        self.sum += other.sum;
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all values.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The upper bounds; values beyond the last one are counted too.
    pub fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// How many values lie between each bound and the one before it, and last, beyond them all.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }
}

// === impl Value ===

impl Value {
    /// Adds another worker's part of the same series.
    fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Counter(sum), Self::Counter(count))
            | (Self::Milliseconds(sum), Self::Milliseconds(count))
            | (Self::Cost(sum), Self::Cost(count)) => *sum = sum.saturating_add(*count),
            (Self::Gauge(sum), Self::Gauge(count)) => *sum += count,
            (Self::Histogram(sum), Self::Histogram(counted)) => sum.merge(counted),
            _ => debug_assert!(false, "a family has one kind of value"),
        }
    }
}

impl From<(Vec<String>, Value)> for Point {
    fn from((labels, value): (Vec<String>, Value)) -> Self {
        Self { labels, value }
    }
}

// === impl Names ===

impl Names {
    fn new(known: impl IntoIterator<Item = Arc<str>>, others: usize) -> Self {
        let known: FxHashSet<_> = known.into_iter().collect();
        Self { limit: known.len() + others, admitted: RwLock::new(known) }
    }

    /// The word, if it is admitted or, where it may `join`, there still is room.
    pub(crate) fn admit(&self, word: &str, join: bool) -> Option<Arc<str>> {
        let admitted = self.admitted.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = admitted.get(word) {
            return Some(name.clone());
        }
        if !join || word.len() > WORD_BYTES || admitted.len() >= self.limit {
            return None;
        }
        drop(admitted);

        let mut admitted = self.admitted.write().unwrap_or_else(PoisonError::into_inner);
        if !admitted.contains(word) && admitted.len() >= self.limit {
            return None;
        }
        let name: Arc<str> = word.into();
        admitted.insert(name.clone());
        Some(name)
    }
}

impl LocalNames {
    fn new(shared: Arc<Names>) -> Self {
        Self { shared, admitted: FxHashSet::default(), other: OTHER.into() }
    }

    /// The label value for this word, which may `join` the others if there is room.
    fn value(&mut self, word: &str, join: bool) -> &str {
        if !self.admitted.contains(word) {
            match self.shared.admit(word, join) {
                Some(name) => _ = self.admitted.insert(name),
                None => return &self.other,
            }
        }
        self.admitted.get(word).expect("it was there or has been inserted")
    }
}

// === impl Labels ===

impl<'a> Key<'a> {
    fn of(record: &'a Record, model: &'a str, region: &'a str) -> Self {
        Self {
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

impl<'a> Borrow<dyn Keyed + 'a> for Labels {
    fn borrow(&self) -> &(dyn Keyed + 'a) {
        self
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

/// What a panic left behind in a metric is better than no metrics.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
