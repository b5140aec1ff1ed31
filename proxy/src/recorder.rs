//! What becomes of a call that has ended: it is counted at once, and its record is handed over to
//! the exporters, off the data path.
//!
//! A worker never waits here: it holds locks that only a reader ever contends for, and does not
//! wake the exporters' thread for a record while that thread is busy. A full queue drops its newest
//! record and counts it, by exporter.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tidegate_wire::capture::Captured;
use tidegate_wire::content::Budget;
use tidegate_wire::{Prices, Record, TraceId};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::export::capture::CaptureConfig;
use crate::export::history::{History, HistoryConfig};
use crate::export::logs::{self, Logs};
use crate::export::metrics::{InFlight, Registry, Shard, lock};
use crate::export::names::Conventions;
use crate::export::otlp::{Otlp, Pusher};
use crate::export::recent::Recent;
use crate::export::rollup::Keys;
use crate::export::spans::{self, Pusher as Batches, Sampler, Traces};
use crate::export::{Exporter, stand_back};
use crate::head::RequestHead;
use crate::jobs::{JobLimits, Jobs};
use crate::scrape::{ScrapeConfig, Scrapes};

/// Records of all workers that may wait for the exporters.
const QUEUE: usize = 8_192;
/// Bytes of captured content, of all calls that are open or wait for the exporters.
const CONTENT_BYTES: usize = 16 << 20;
/// Bytes of captured requests, likewise.
const CAPTURE_BYTES: usize = 32 << 20;
/// How often the exporters are fed while there is traffic: seldom enough to wake for many calls at
/// once, often enough not to stand in their way for long.
const DRAIN: Duration = Duration::from_millis(5);
/// How much later than its limit the end may come, for what ends at that limit.
const GRACE: Duration = Duration::from_millis(100);
/// A worker's list of waiting records gives memory back beyond so many.
const SPARE_RECORDS: usize = 256;

/// What is recorded, and for whom.
#[derive(Default)]
pub struct Options {
    /// Models that are label values whatever happens.
    pub models: Vec<Arc<str>>,
    /// Regions that are label values whatever happens.
    pub regions: Vec<Arc<str>>,
    /// How many long-running jobs are kept in mind, and for how long.
    pub jobs: JobLimits,
    /// Who takes records. Without any, none is queued.
    pub exporters: Vec<Box<dyn Exporter>>,
    /// Whether the last hour is kept in memory.
    pub keeps_recent: bool,
    /// Where metrics are pushed.
    pub otlp: Option<Otlp>,
    /// Whose figures are pushed beside them.
    pub scrape: Vec<ScrapeConfig>,
    /// Where log events are pushed.
    pub logs: Option<Logs>,
    /// Where spans are pushed.
    pub traces: Option<Traces>,
    /// Whether what is said in calls is kept for their spans.
    pub captures_content: bool,
    /// Which requests are kept to be captured by an exporter.
    pub capture: Option<CaptureConfig>,
    /// Where minutes are kept.
    pub history: HistoryConfig,
    /// Whether calls are counted by exponential buckets too.
    pub exponential_histograms: bool,
    /// Whose names labels have.
    pub conventions: Conventions,
    /// What calls cost.
    pub prices: Arc<Prices>,
}

/// The recorders of all workers, and the threads of the exporters.
pub struct Recorders {
    registry: Arc<Registry>,
    scrapes: Scrapes,
    sampler: Option<Sampler>,
    recent: Option<Arc<Recent>>,
    prices: Arc<Prices>,
    queue: Option<Arc<Queue>>,
    drained: Option<mpsc::Receiver<()>>,
    content: Option<Budget>,
    capture: Option<Arc<Capturing>>,
    history: Option<History>,
    background: Background,
}

/// The part that one worker owns.
#[derive(Clone, Debug)]
pub struct Recorder {
    shard: Arc<Mutex<Shard>>,
    jobs: Arc<Jobs>,
    prices: Arc<Prices>,
    /// Which calls become spans; absent where none are pushed.
    sampler: Option<Sampler>,
    lane: Option<Lane>,
    content: Option<Budget>,
    capture: Option<Arc<Capturing>>,
}

/// Which requests are kept, and what all of them may take.
#[derive(Debug)]
struct Capturing {
    config: CaptureConfig,
    budget: Budget,
}

/// One worker's way into the queue.
#[derive(Clone, Debug)]
struct Lane {
    waiting: Arc<Waiting>,
    queue: Arc<Queue>,
}

/// One worker's records that wait; absent once the queue has closed.
type Waiting = Mutex<Option<Vec<Record>>>;

/// What the workers and the exporters' thread share.
#[derive(Debug)]
struct Queue {
    lanes: Mutex<Vec<Arc<Waiting>>>,
    /// Records that are waiting or being exported.
    length: AtomicUsize,
    /// Whether the thread sleeps until it is woken, rather than until the next drain.
    asleep: AtomicBool,
    reopen: AtomicBool,
    stop: AtomicBool,
    thread: OnceLock<Thread>,
    losses: Vec<Loss>,
}

/// What one exporter lost.
#[derive(Debug)]
struct Loss {
    records: Arc<AtomicU64>,
    takes: fn(&Record) -> bool,
}

/// The exporters' thread, which may block as it likes.
struct Drain {
    queue: Arc<Queue>,
    exporters: Vec<Box<dyn Exporter>>,
}

/// A runtime for what only reads: the push of metrics, and the administration.
struct Background {
    runtime: Handle,
    stop: oneshot::Sender<Instant>,
    stopped: mpsc::Receiver<()>,
}

// === impl Recorder ===

impl Recorder {
    /// The same recorder, for which calls cost what these prices say.
    pub(crate) fn with_prices(self, prices: Arc<Prices>) -> Self {
        Self { prices, ..self }
    }

    /// Counts a call as in flight for as long as the guard is held.
    pub fn in_flight(&self, model: Option<&str>, upstream: &str) -> InFlight {
        lock(&self.shard).open(model, upstream)
    }

    /// What content may take, where it is captured.
    pub(crate) fn content(&self) -> Option<&Budget> {
        self.content.as_ref()
    }

    /// What is kept of this request, where it is captured.
    pub(crate) fn capture(&self, head: &RequestHead, trace: TraceId) -> Option<Captured> {
        let Capturing { config, budget } = &**self.capture.as_ref()?;
        let drawn = u64::from_be_bytes(*trace.0.last_chunk().expect("sixteen bytes"));
        // To 53 bits, which is what a share has.
        let is_drawn = (drawn >> 11) as f64 / ((1_u64 << 53) as f64) < config.sample.share();
        let target = std::str::from_utf8(head.target.as_bytes()).ok().filter(|_| is_drawn)?;
        let target = tidegate_credential::without_credentials(target).into_owned();
        let limit = usize::try_from(config.max_body.as_u64()).unwrap_or(usize::MAX);
        Some(Captured::new(target, &head.fields, &config.headers, limit, budget))
    }

    /// Counts a call that has ended, and offers its record to the exporters. What other calls of
    /// the same long-running job have told, and what the call costs, is added to the record first.
    pub fn close(&self, record: Record) {
        self.close_after(record, |_| {});
    }

    /// The same, where somebody waits to see the record first.
    pub(crate) fn close_after(&self, mut record: Record, see: impl FnOnce(&mut Record)) {
        if record.job.is_some() && record.own().is_none() {
            self.jobs.see(&mut record, tokio::time::Instant::now());
        }
        self.prices.apply(&mut record);
        see(&mut record);
        let has_span = self.sampler.is_some_and(|sampler| sampler.takes(&record));
        lock(&self.shard).add_call(&record, has_span);
        if let Some(lane) = &self.lane {
            lane.offer(record);
        }
    }
}

// === impl Lane ===

impl Lane {
    fn offer(&self, record: Record) {
        let queue = &self.queue;
        let length = queue.length.fetch_add(1, Ordering::SeqCst) + 1;
        let refused = if length > QUEUE { Some(record) } else { self.push(record) };
        if let Some(record) = refused {
            queue.length.fetch_sub(1, Ordering::SeqCst);
            for loss in queue.losses.iter().filter(|loss| (loss.takes)(&record)) {
                loss.records.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        // Waking costs a system call: only who finds the thread asleep pays it, and who sees the
        // queue fill faster than it is drained.
        if queue.asleep.load(Ordering::SeqCst) || length == QUEUE / 2 {
            queue.wake();
        }
    }

    /// Gives the record back where the queue has closed.
    fn push(&self, record: Record) -> Option<Record> {
        match lock(&self.waiting).as_mut() {
            Some(waiting) => waiting.push(record),
            None => return Some(record),
        }
        None
    }
}

// === impl Queue ===

impl Queue {
    fn wake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

// === impl Loss ===

impl Loss {
    fn of(exporter: &dyn Exporter, registry: &Registry) -> Self {
        Self { records: registry.dropped(exporter.name()), takes: exporter.takes() }
    }
}

// === impl Drain ===

impl Drain {
    fn run(mut self) {
        let mut batch = Vec::new();
        while !self.queue.stop.load(Ordering::SeqCst) {
            if self.queue.reopen.swap(false, Ordering::SeqCst) {
                self.exporters.iter_mut().for_each(|exporter| exporter.reopen());
            }
            let taken = self.take(&mut batch);
            self.sleep(taken == 0);
        }
        self.take(&mut batch);
        // With it end the exporters: what they hold is written, or counted as lost.
        self.close();
    }

    /// Exports what is waiting, lane by lane.
    fn take(&mut self, batch: &mut Vec<Record>) -> usize {
        let mut taken = 0;
        let lanes = lock(&self.queue.lanes).clone();
        for lane in lanes {
            if let Some(waiting) = lock(&lane).as_mut() {
                std::mem::swap(waiting, batch);
            }
            taken += batch.len();
            self.export(batch);
            batch.clear();
            batch.shrink_to(SPARE_RECORDS);
        }
        taken
    }

    /// Exports what is still waiting; who comes later finds the queue closed.
    fn close(mut self) {
        let lanes = lock(&self.queue.lanes).clone();
        for lane in lanes {
            let waiting = lock(&lane).take().unwrap_or_default();
            self.export(&waiting);
        }
    }

    fn export(&mut self, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        for (exporter, loss) in self.exporters.iter_mut().zip(&self.queue.losses) {
            loss.records.fetch_add(exporter.export(records), Ordering::Relaxed);
        }
        self.queue.length.fetch_sub(records.len(), Ordering::SeqCst);
    }

    /// Sleeps until the next drain; without traffic, until a worker wakes it.
    fn sleep(&self, idle: bool) {
        self.queue.asleep.store(idle, Ordering::SeqCst);
        // Whoever came before the flag was up has not seen it, but has been counted.
        if idle && self.queue.length.load(Ordering::SeqCst) == 0 {
            std::thread::park();
        } else {
            std::thread::park_timeout(DRAIN);
        }
        self.queue.asleep.store(false, Ordering::SeqCst);
    }
}

// === impl Recorders ===

impl Recorders {
    /// Starts the threads of the exporters.
    pub fn start(mut options: Options) -> io::Result<Self> {
        let registry = Registry::new(options.models, options.regions).with_job_limits(options.jobs);
        let is_exponential = options.exponential_histograms
            || options.otlp.as_ref().is_some_and(Otlp::is_exponential);
        let registry = registry.with_exponential(is_exponential);
        let registry = Arc::new(registry.with_conventions(options.conventions));
        let recent = options.keeps_recent.then(|| Recent::new(jiff::Timestamp::now()));
        let feed = recent.as_ref().map(|recent| recent.exporter(registry.clone()));
        options.exporters.extend(feed);
        let scrapes = match &options.otlp {
            Some(_) => Scrapes::new(&options.scrape),
            None => Scrapes::default(),
        };
        if scrapes.is_empty() && !options.scrape.is_empty() {
            warn!("nothing is scraped: there is no OTLP endpoint to pass it on to");
        }
        let pusher = options.otlp.map(|otlp| Pusher::new(otlp, registry.clone()));
        let pusher = pusher.map(|pusher| pusher.with_scrapes(scrapes.clone()));
        let sampler = options.traces.as_ref().map(Traces::sampler);
        let traces = options.traces.map(|traces| traces.start(registry.dropped(spans::NAME)));
        let (exporter, span_pusher) = traces.unzip();
        options.exporters.extend(exporter.map(|exporter| Box::new(exporter) as _));
        let events = options.logs.map(|logs| logs.start(registry.dropped(logs::NAME)));
        let (exporter, event_pusher) = events.unzip();
        options.exporters.extend(exporter.map(|exporter| Box::new(exporter) as _));
        let batches = [span_pusher, event_pusher].into_iter().flatten().collect();
        let history = options
            .history
            .path
            .as_deref()
            .map(|path| History::start(path, &options.history, Keys::new(registry.clone())));
        let (history, keeper) = history.unzip();
        options.exporters.extend(keeper.map(|keeper| Box::new(keeper) as _));
        let background = Background::start(pusher, batches, scrapes.clone())?;
        let (queue, drained) = match options.exporters {
            exporters if exporters.is_empty() => (None, None),
            exporters => {
                let (queue, drained) = Queue::start(exporters, &registry)?;
                (Some(queue), Some(drained))
            }
        };
        let content = options.captures_content.then(|| Budget::new(CONTENT_BYTES));
        let budget = Budget::new(CAPTURE_BYTES);
        let capture = options.capture.map(|config| Arc::new(Capturing { config, budget }));
        let prices = options.prices;
        Ok(Self {
            registry,
            scrapes,
            sampler,
            prices,
            queue,
            drained,
            content,
            capture,
            recent,
            history,
            background,
        })
    }

    /// Those whose figures are read.
    pub(crate) fn scrapes(&self) -> &Scrapes {
        &self.scrapes
    }

    /// The last hour, where it is kept.
    pub(crate) fn recent(&self) -> Option<&Arc<Recent>> {
        self.recent.as_ref()
    }

    /// A recorder for one more worker.
    pub fn worker(&self) -> Recorder {
        let lane = self.queue.as_ref().map(|queue| {
            let waiting = Arc::new(Mutex::new(Some(Vec::new())));
            lock(&queue.lanes).push(waiting.clone());
            Lane { waiting, queue: queue.clone() }
        });
        Recorder {
            shard: self.registry.shard(),
            jobs: self.registry.jobs().clone(),
            prices: self.prices.clone(),
            sampler: self.sampler,
            lane,
            content: self.content.clone(),
            capture: self.capture.clone(),
        }
    }

    /// What has been counted so far.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// What is known of the history; absent where none is kept.
    pub(crate) fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }

    /// The runtime beside the data path, for administration. It ends with [`Recorders::shutdown`].
    pub fn background(&self) -> &Handle {
        &self.background.runtime
    }

    /// Has exporters take up their files anew: what SIGHUP asks for.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue {
            queue.reopen.store(true, Ordering::SeqCst);
            queue.wake();
        }
    }

    /// Exports what is waiting and pushes metrics once more, within the limit. Blocks.
    pub fn shutdown(self, limit: Duration) {
        let deadline = Instant::now() + limit;
        if let (Some(queue), Some(drained)) = (&self.queue, &self.drained) {
            queue.stop.store(true, Ordering::SeqCst);
            queue.wake();
            // Half of the time: a pipe that nobody reads must not cost the last push as well.
            if drained.recv_timeout(limit / 2).is_err() {
                let records = queue.length.load(Ordering::SeqCst);
                warn!(records, "records were not exported in time");
            }
        }
        self.background.stop(deadline);
    }
}

impl Queue {
    fn start(
        mut exporters: Vec<Box<dyn Exporter>>,
        registry: &Registry,
    ) -> io::Result<(Arc<Self>, mpsc::Receiver<()>)> {
        for exporter in &mut exporters {
            exporter.count_in(registry.dropped(exporter.name()));
        }
        let queue = Arc::new(Self {
            lanes: Mutex::default(),
            length: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            thread: OnceLock::new(),
            losses: exporters.iter().map(|exporter| Loss::of(&**exporter, registry)).collect(),
        });
        let drain = Drain { queue: queue.clone(), exporters };
        let (done, drained) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("records".into()).spawn(move || {
            stand_back();
            drain.run();
            _ = done.send(());
        })?;
        _ = queue.thread.set(thread.thread().clone());
        Ok((queue, drained))
    }
}

/// A task beside the others: should it panic, administration lives on.
struct Task {
    stop: oneshot::Sender<Instant>,
    task: JoinHandle<()>,
}

// === impl Task ===

impl Task {
    fn start<F>(run: impl FnOnce(oneshot::Receiver<Instant>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopping) = oneshot::channel();
        Self { stop, task: tokio::spawn(run(stopping)) }
    }

    /// Tells it to stop, and until when it may go on.
    fn stop(self, deadline: Instant) -> JoinHandle<()> {
        _ = self.stop.send(deadline);
        self.task
    }
}

// === impl Background ===

impl Background {
    fn start(metrics: Option<Pusher>, batches: Vec<Batches>, scrapes: Scrapes) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopping) = oneshot::channel();
        let (done, stopped) = mpsc::sync_channel(1);
        std::thread::Builder::new().name("background".into()).spawn(move || {
            runtime.block_on(async {
                let metrics = metrics.map(|pusher| Task::start(|stop| pusher.run(stop)));
                let batches =
                    batches.into_iter().map(|batches| Task::start(|stop| batches.run(stop)));
                let tasks: Vec<_> = metrics.into_iter().chain(batches).collect();
                tokio::spawn(scrapes.run());
                let Ok(deadline) = stopping.await else { return };
                let stopped = tasks.into_iter().map(|task| task.stop(deadline));
                for task in stopped.collect::<Vec<_>>() {
                    _ = task.await;
                }
            });
            _ = done.send(());
        })?;
        Ok(Self { runtime: handle, stop, stopped })
    }

    fn stop(self, deadline: Instant) {
        _ = self.stop.send(deadline);
        // What runs there ends by itself at the deadline, and says so where it came too late.
        let left = deadline.saturating_duration_since(Instant::now()) + GRACE;
        _ = self.stopped.recv_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::metrics::Value;

    /// Counts records, and waits before each batch where it is given something to wait for.
    struct Counting {
        records: Arc<AtomicU64>,
        gate: Option<mpsc::Receiver<()>>,
        seen: mpsc::Sender<usize>,
    }

    impl Exporter for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }

        fn export(&mut self, records: &[Record]) -> u64 {
            _ = self.seen.send(records.len());
            if let Some(gate) = &self.gate {
                _ = gate.recv();
            }
            self.records.fetch_add(records.len() as u64, Ordering::Relaxed);
            0
        }
    }

    struct Test {
        recorders: Recorders,
        registry: Arc<Registry>,
        records: Arc<AtomicU64>,
        seen: mpsc::Receiver<usize>,
    }

    fn start(gate: Option<mpsc::Receiver<()>>) -> Test {
        let records = Arc::new(AtomicU64::new(0));
        let (saw, seen) = mpsc::channel();
        let exporter = Counting { records: records.clone(), gate, seen: saw };
        let options = Options { exporters: vec![Box::new(exporter)], ..Options::default() };
        let recorders = Recorders::start(options).expect("threads can be started");
        Test { registry: recorders.registry().clone(), recorders, records, seen }
    }

    fn counter(registry: &Registry, name: &str) -> u64 {
        let snapshot = registry.snapshot();
        let points = snapshot.families().filter(|(family, _)| family.prometheus == name);
        let counts = points.flat_map(|(_, points)| points).map(|point| match point.value {
            Value::Counter(count) => count,
            _ => panic!("{name} is no counter"),
        });
        counts.sum()
    }

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn a_record_is_exported_without_waiting_for_more() {
        let test = start(None);
        let worker = test.recorders.worker();
        for _ in 0..3 {
            worker.close(Record::default());
            assert_eq!(test.seen.recv_timeout(LIMIT), Ok(1));
        }
        test.recorders.shutdown(LIMIT);
    }

    #[test]
    fn all_records_of_all_workers_are_exported_before_the_end() {
        const EACH: u64 = 2_000;
        let test = start(None);
        let workers = [0; 4].map(|_| {
            let worker = test.recorders.worker();
            std::thread::spawn(move || (0..EACH).for_each(|_| worker.close(Record::default())))
        });
        workers.into_iter().for_each(|worker| worker.join().expect("a worker ends well"));
        test.recorders.shutdown(LIMIT);

        assert_eq!(test.records.load(Ordering::Relaxed), 4 * EACH);
        assert_eq!(counter(&test.registry, "tidegate_calls_total"), 4 * EACH);
        assert_eq!(counter(&test.registry, "tidegate_records_dropped_total"), 0);
    }

    #[test]
    fn what_a_full_queue_drops_is_counted_and_nothing_else_is_lost() {
        const SENT: u64 = QUEUE as u64 + 1_000;
        let (open, gate) = mpsc::channel();
        let test = start(Some(gate));
        let worker = test.recorders.worker();
        for _ in 0..SENT {
            worker.close(Record::default());
        }
        assert_eq!(counter(&test.registry, "tidegate_records_dropped_total"), 1_000);
        drop(open);
        test.recorders.shutdown(LIMIT);

        assert_eq!(test.records.load(Ordering::Relaxed), QUEUE as u64);
        assert_eq!(counter(&test.registry, "tidegate_calls_total"), SENT);
    }

    #[test]
    fn what_is_lost_after_it_was_taken_is_counted_before_the_end() {
        /// Holds what it takes, and loses it when it ends.
        #[derive(Default)]
        struct Holding(Arc<AtomicU64>, u64);

        impl Exporter for Holding {
            fn name(&self) -> &'static str {
                "holding"
            }

            fn export(&mut self, records: &[Record]) -> u64 {
                self.1 += records.len() as u64;
                0
            }

            fn count_in(&mut self, lost: Arc<AtomicU64>) {
                self.0 = lost;
            }
        }

        impl Drop for Holding {
            fn drop(&mut self) {
                self.0.fetch_add(self.1, Ordering::Relaxed);
            }
        }

        let exporters = vec![Box::new(Holding::default()) as _];
        let options = Options { exporters, ..Options::default() };
        let recorders = Recorders::start(options).expect("threads can be started");
        let registry = recorders.registry().clone();
        recorders.worker().close(Record::default());
        recorders.shutdown(LIMIT);
        assert_eq!(counter(&registry, "tidegate_records_dropped_total"), 1);
    }

    #[test]
    fn a_record_that_comes_after_the_end_is_counted_as_dropped() {
        let test = start(None);
        let worker = test.recorders.worker();
        test.recorders.shutdown(LIMIT);
        worker.close(Record::default());

        assert_eq!(test.records.load(Ordering::Relaxed), 0);
        assert_eq!(counter(&test.registry, "tidegate_calls_total"), 1);
        assert_eq!(counter(&test.registry, "tidegate_records_dropped_total"), 1);
    }

    #[test]
    fn an_exporter_that_hangs_does_not_hold_up_the_end() {
        let (open, gate) = mpsc::channel();
        let test = start(Some(gate));
        test.recorders.worker().close(Record::default());
        assert_eq!(test.seen.recv_timeout(LIMIT), Ok(1));
        test.recorders.shutdown(Duration::from_millis(20));
        drop(open);
    }
}
