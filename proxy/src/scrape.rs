//! Figures of others: what a model server, a GPU exporter or anybody else shows for Prometheus is read
//! on the pod's behalf, and passed on by OTLP beside our own.
//!
//! Nothing is taken that is not allowed by name, and of what is allowed no more than a bound in bytes,
//! samples and time. A server that is away is told of (`tidegate.scrape.up`) and leaves a gap: nothing
//! old is told as new. It all runs beside the data path.

mod config;
mod families;
mod fetch;
pub(crate) mod fuzzing;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry_proto::tonic::metrics::v1::Metric;
use tokio::task::JoinSet;
use tracing::{info, warn};

pub use self::config::ScrapeConfig;
use self::families::{RESULTS, Reader};
use self::fetch::{FAILURES, Failure, Fetch};
use crate::export::catalog::{Family, SCRAPE_DURATION, SCRAPE_FAILURES, SCRAPE_SAMPLES, SCRAPE_UP};
use crate::export::metrics::{Source, Value, lock};

/// All who are asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scrapes(Arc<[Arc<Target>]>);

/// One who is asked, and what came of it.
#[derive(Debug)]
pub(crate) struct Target {
    config: ScrapeConfig,
    /// Its name in our own figures, and the `target` of its own.
    pub(crate) name: String,
    /// The newest of its figures, until they are pushed.
    fresh: Mutex<Vec<Metric>>,
    /// Whether it was asked at all.
    was_asked: AtomicBool,
    is_up: AtomicBool,
    microseconds: AtomicU64,
    samples: [AtomicU64; RESULTS.len()],
    failures: [AtomicU64; FAILURES.len()],
}

// === impl Scrapes ===

impl Scrapes {
    pub(crate) fn new(configs: &[ScrapeConfig]) -> Self {
        Self(configs.iter().map(|config| Arc::new(Target::new(config))).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.0.iter()
    }

    /// Asks all of them, each at its pace; ends with whoever runs it.
    pub(crate) async fn run(self) {
        let mut asking: JoinSet<()> = self.0.iter().map(|target| target.clone().run()).collect();
        while asking.join_next().await.is_some() {}
    }
}

impl Source for Scrapes {
    fn read(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        self.0.iter().filter(|target| target.was_asked.load(Relaxed)).for_each(|target| {
            target.show(show);
        });
    }
}

// === impl Target ===

impl Target {
    fn new(config: &ScrapeConfig) -> Self {
        Self {
            name: config.target(),
            config: config.clone(),
            fresh: Mutex::default(),
            was_asked: AtomicBool::default(),
            is_up: AtomicBool::default(),
            microseconds: AtomicU64::default(),
            samples: Default::default(),
            failures: Default::default(),
        }
    }

    /// What was read since it was last taken.
    pub(crate) fn take(&self) -> Vec<Metric> {
        std::mem::take(&mut lock(&self.fresh))
    }

    /// What could not be pushed waits for the next push, unless newer has come.
    pub(crate) fn put_back(&self, metrics: Vec<Metric>) {
        let mut fresh = lock(&self.fresh);
        if fresh.is_empty() {
            *fresh = metrics;
        }
    }

    async fn run(self: Arc<Self>) {
        let fetch = match Fetch::new(&self.config) {
            Ok(fetch) => fetch,
            Err(error) => return warn!(target_name = self.name, %error, "it is not scraped"),
        };
        info!(url = %self.config.shown_url(), "figures are scraped");
        let mut reader = Reader::new(&self.config, &self.name);
        let mut every = tokio::time::interval(self.config.every.0.max(Duration::from_millis(100)));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.ask(&fetch, &mut reader).await;
        }
    }

    async fn ask(&self, fetch: &Fetch, reader: &mut Reader) {
        let start = Instant::now();
        let read = fetch.page().await.and_then(|page| {
            let (metrics, counts) = reader.read(&page, SystemTime::now());
            let is_nothing = counts.is_no_page_of_metrics();
            if is_nothing { Err(Failure::NotMetrics) } else { Ok((metrics, counts)) }
        });
        let took = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.microseconds.store(took, Relaxed);
        let was_asked = self.was_asked.swap(true, Relaxed);
        let was_up = self.is_up.swap(read.is_ok(), Relaxed);
        match read {
            Ok((metrics, counts)) => {
                for (sum, count) in self.samples.iter().zip(counts.0) {
                    sum.fetch_add(count, Relaxed);
                }
                *lock(&self.fresh) = metrics;
                if was_asked && !was_up {
                    info!(target_name = self.name, "it is scraped again");
                }
            }
            Err(failure) => {
                self.failures[failure.index()].fetch_add(1, Relaxed);
                // Said once, not for every try.
                if was_up || !was_asked {
                    warn!(target_name = self.name, reason = failure.word(), "it cannot be scraped");
                }
            }
        }
    }

    fn show(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        let target = || self.name.clone();
        show(&SCRAPE_UP, vec![target()], Value::Gauge(self.is_up.load(Relaxed).into()));
        let seconds = self.microseconds.load(Relaxed) as f64 / 1e6;
        show(&SCRAPE_DURATION, vec![target()], Value::Measure(seconds));
        for (count, result) in self.samples.iter().zip(RESULTS) {
            let count = Value::Counter(count.load(Relaxed));
            show(&SCRAPE_SAMPLES, vec![target(), result.into()], count);
        }
        for (count, failure) in self.failures.iter().zip(FAILURES) {
            let count = Value::Counter(count.load(Relaxed));
            show(&SCRAPE_FAILURES, vec![target(), failure.word().into()], count);
        }
    }
}
