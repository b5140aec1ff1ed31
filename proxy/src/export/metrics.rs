//! Counters and histograms of calls: a shard per worker, summed when they are read.
//!
//! Adding a record takes a lock that only a reader ever contends for, one look-up, and no
//! allocation once its series is there. A record is added whole or not at all, so every reader
//! sees metrics that agree with each other. Every label value is bounded: words that callers
//! choose become values only once an upstream has answered them with a 2xx, and only so many.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rustc_hash::FxHashMap;
use tidegate_credential::Freshness;
use tidegate_wire::Record;
use tokio::time::Instant;

use super::catalog::{self, Family};
use super::names::Conventions;
use crate::jobs::{JobLimits, Jobs};

mod arms;
mod exponential;
mod reloads;
mod series;
mod snapshot;
mod value;
mod words;

use reloads::Reloads;
use series::{Key, Keyed};
use snapshot::Points;
use words::{LocalNames, Words};

pub use exponential::Exponential;
pub(super) use series::{Labels, Series};
pub use snapshot::{Point, Slice, Snapshot};
pub(super) use value::Counted;
pub use value::{
    Amount, Exemplar, Histogram, SECONDS, SECONDS_ADDED, SECONDS_PER_TOKEN, TOKENS, Value,
};
pub(crate) use words::Names;

/// The label value for words that found no room.
pub const OTHER: &str = "other";
/// The model of a call that names none.
pub const UNKNOWN: &str = "unknown";

/// Models beside the configured ones that may become label values.
pub const MODELS: usize = 200;
/// Regions beside the configured ones that may become label values.
pub const REGIONS: usize = 64;

/// Series of one worker; beyond it, what callers choose counts as [`OTHER`].
const SERIES: usize = 2_000;

/// All metrics of this process.
#[derive(Debug)]
pub struct Registry {
    started: Timestamp,
    conventions: Conventions,
    is_exponential: bool,
    models: Arc<Names>,
    regions: Arc<Names>,
    /// Those that the configuration names.
    callers: Arc<Names>,
    shards: Mutex<Vec<Arc<Mutex<Shard>>>>,
    dropped: Mutex<BTreeMap<&'static str, Arc<AtomicU64>>>,
    jobs: Arc<Jobs>,
    sources: Mutex<Vec<Box<dyn Source>>>,
    reloads: Reloads,
}

/// Something beside the calls that has metrics of its own: a credential, a policy.
pub trait Source: Send + Sync {
    /// Shows each of its points: the family, the values of its labels in their order, and the value.
    /// Points of one family and the same labels add up.
    fn read(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value));
}

/// The credential of an upstream, as far as it is anybody's business.
struct Watched<F> {
    upstream: Arc<str>,
    freshness: F,
}

/// The metrics that one worker adds to.
#[derive(Debug)]
pub struct Shard {
    models: LocalNames,
    regions: LocalNames,
    callers: LocalNames,
    series: AllSeries,
    /// Whether times and sizes are counted by exponential buckets too.
    is_exponential: bool,
    not_understood: Words,
    warnings: Words,
    in_flight: FxHashMap<Arc<str>, FxHashMap<Arc<str>, Arc<AtomicI64>>>,
}

/// One call in flight, for as long as it is held.
#[derive(Debug)]
pub struct InFlight(Arc<AtomicI64>);

/// All that was counted of calls.
type AllSeries = FxHashMap<Arc<Labels>, Arc<Series>>;

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
            is_exponential: false,
            jobs: Arc::new(Jobs::new(JobLimits::default(), models.clone(), regions.clone())),
            models,
            regions,
            callers: Arc::new(Names::new([], 0)),
            shards: Mutex::default(),
            dropped: Mutex::default(),
            sources: Mutex::default(),
            reloads: Reloads::new(),
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

    /// The same registry, which counts calls by exponential buckets too, if that is so.
    pub fn with_exponential(self, is_exponential: bool) -> Self {
        Self { is_exponential, ..self }
    }

    /// Whether calls are counted by exponential buckets too.
    pub fn is_exponential(&self) -> bool {
        self.is_exponential
    }

    /// Has the metrics say how fresh the credential of this upstream is.
    pub fn watch_credential(
        &self,
        upstream: Arc<str>,
        freshness: impl Fn() -> Option<Freshness> + Send + Sync + 'static,
    ) {
        self.watch(Watched { upstream, freshness });
    }

    /// Has the metrics show what this has to say, whenever they are read.
    pub fn watch(&self, source: impl Source + 'static) {
        lock(&self.sources).push(Box::new(source));
    }

    /// The models that may be label values.
    pub(crate) fn models(&self) -> &Arc<Names> {
        &self.models
    }

    /// The label value of this model, once it is one.
    pub(crate) fn known_model(&self, model: &str) -> Option<Arc<str>> {
        self.models.admit(model, false)
    }

    /// Likewise of a region.
    pub(crate) fn known_region(&self, region: &str) -> Option<Arc<str>> {
        self.regions.admit(region, false)
    }

    /// Likewise of a caller.
    pub(crate) fn known_caller(&self, caller: &str) -> Option<Arc<str>> {
        self.callers.admit(caller, false)
    }

    /// Has the metrics say no more of what was watched so far.
    pub fn watch_afresh(&self) {
        lock(&self.sources).clear();
    }

    /// From now on these callers are label values.
    pub fn know_callers(&self, callers: impl IntoIterator<Item = Arc<str>>) {
        self.callers.know(callers);
    }

    /// From now on these models and regions are label values whatever happens.
    pub fn know(&self, models: Vec<Arc<str>>, regions: Vec<Arc<str>>) {
        self.models.know(models);
        self.regions.know(regions);
    }

    /// The configuration was read anew, and is in use since then.
    pub fn reloaded(&self, loaded: Timestamp) {
        self.reloads.good(loaded);
    }

    /// The configuration was read anew and cannot be used: the one before it still is.
    pub fn reload_failed(&self) {
        self.reloads.bad();
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
            callers: LocalNames::new(self.callers.clone()),
            series: AllSeries::default(),
            is_exponential: self.is_exponential,
            not_understood: Words::default(),
            warnings: Words::default(),
            in_flight: FxHashMap::default(),
        }));
        lock(&self.shards).push(shard.clone());
        shard
    }

    /// Shows the series of each worker.
    fn each_series(&self, mut show: impl FnMut(&AllSeries)) {
        lock(&self.shards).iter().for_each(|shard| show(&lock(shard).series));
    }

    /// Calls in flight, by model and upstream.
    pub(crate) fn in_flight(&self) -> BTreeMap<(Arc<str>, Arc<str>), i64> {
        let mut sums = BTreeMap::new();
        for shard in lock(&self.shards).iter() {
            for (upstream, models) in &lock(shard).in_flight {
                for (model, count) in models {
                    let sum = sums.entry((model.clone(), upstream.clone())).or_default();
                    *sum += count.load(Ordering::Relaxed);
                }
            }
        }
        sums.retain(|_, calls| *calls > 0);
        sums
    }

    /// The counter of records that this exporter lost.
    pub fn dropped(&self, exporter: &'static str) -> Arc<AtomicU64> {
        lock(&self.dropped).entry(exporter).or_default().clone()
    }

    /// What all workers have counted by now, and all else that has metrics.
    pub fn snapshot(&self) -> Snapshot {
        let mut series = Vec::new();
        let mut others = Points::default();
        for shard in lock(&self.shards).iter() {
            lock(shard).read(&mut series, &mut others);
        }
        for (exporter, count) in lock(&self.dropped).iter() {
            let value = Value::Counter(count.load(Ordering::Relaxed));
            others.add(&catalog::RECORDS_DROPPED, vec![(*exporter).into()], value);
        }
        for source in lock(&self.sources).iter() {
            source.read(&mut |family, labels, value| others.add(family, labels, value));
        }
        self.reloads.read(&mut others);
        // Nobody but a reader could tell when a job was given up.
        self.jobs.sweep(Instant::now());
        self.jobs.read(&mut |family, labels, value| others.add(family, labels, value));
        let build = vec![catalog::VERSION.into(), catalog::REVISION.into()];
        others.add(&catalog::BUILD_INFO, build, Value::Gauge(1));
        Snapshot { started: self.started, conventions: self.conventions, series, others }
    }
}

// === impl Watched ===

impl<F: Fn() -> Option<Freshness> + Send + Sync> Source for Watched<F> {
    fn read(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        let Some(Freshness { age, expires_in, failures }) = (self.freshness)() else { return };
        let labels = || vec![self.upstream.to_string()];
        for (family, time) in
            [(&catalog::CREDENTIAL_AGE, age), (&catalog::CREDENTIAL_EXPIRES_IN, expires_in)]
        {
            if let Some(time) = time {
                let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
                show(family, labels(), Value::Gauge(seconds));
            }
        }
        show(&catalog::CREDENTIAL_FAILURES, labels(), Value::Counter(failures));
    }
}

impl std::fmt::Debug for dyn Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

// === impl Shard ===

impl Shard {
    /// Counts one call that has ended, and that no span is made of.
    pub fn add(&mut self, record: &Record) {
        self.add_call(record, false);
    }

    /// Counts one call that has ended. Only one that has a span leads anywhere as an example.
    pub(crate) fn add_call(&mut self, record: &Record, has_span: bool) {
        let answered = is_answered(record);
        let model = match record.request_model.as_deref() {
            Some(model) => self.models.value(model, answered),
            None => UNKNOWN,
        };
        let region = match record.region.as_deref() {
            Some(region) => self.regions.value(region, answered),
            None => "",
        };
        let caller = match record.caller.as_deref() {
            Some(caller) => self.callers.value(caller, false),
            None => "",
        };
        let mut key = Key::of(record, caller, model, region);
        if self.series.len() >= SERIES && !self.series.contains_key(&key as &dyn Keyed) {
            key = Key { model: OTHER, region: OTHER, ..key };
        }
        match self.series.get_mut(&key as &dyn Keyed) {
            // A copy, where a reader holds what it was.
            Some(series) => Arc::make_mut(series).add(record, has_span),
            None => {
                let mut series = Series::new(self.is_exponential);
                series.add(record, has_span);
                self.series.insert(Labels::from(key).into(), series.into());
            }
        }
        if record.own().is_some() {
            return;
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

    /// Adds what this worker has counted.
    fn read(&self, series: &mut Vec<(Arc<Labels>, Arc<Series>)>, points: &mut Points) {
        series
            .extend(self.series.iter().map(|(labels, counted)| (labels.clone(), counted.clone())));
        for (family, words) in
            [(&catalog::NOT_UNDERSTOOD, &self.not_understood), (&catalog::WARNINGS, &self.warnings)]
        {
            for (word, count) in words.counts() {
                points.add(family, vec![word.to_owned()], Value::Counter(count));
            }
        }
        for (upstream, models) in &self.in_flight {
            for (model, count) in models {
                let labels = vec![model.to_string(), upstream.to_string()];
                let value = Value::Gauge(count.load(Ordering::Relaxed));
                points.add(&catalog::CALLS_IN_FLIGHT, labels, value);
            }
        }
    }
}

/// Whether an upstream has taken the call: only then its words become label values.
pub(crate) fn is_answered(record: &Record) -> bool {
    // One that changes to another protocol has, too.
    record.status.is_some_and(|status| matches!(status, 101 | 200..300))
        && record.grpc_status.is_none_or(|status| status == 0)
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a panic left behind in a metric is better than no metrics.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
