//! What came to pass, minute by minute, in a file that outlives the process.
//!
//! Minutes are added up in memory and written every few seconds by a thread of their own: a slow disk
//! holds up nobody. A minute that is still open is written too, and added to. So a process that is
//! killed loses what it has counted since the last time, and several sidecars may share one file. A
//! file that cannot be used costs the history, and no call.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_wire::Record;
use tracing::{error, info, warn};

use super::Exporter;
use super::catalog::{
    BASELINE_LIMIT, BASELINE_UNUSUAL, BASELINE_VALUE, Family, HISTORY_SIZE, HISTORY_UP,
};
use super::metrics::{Source, Value, lock};
use super::rollup::{Key, Keys, Rollup, Sums, minute};
use crate::baseline::{Baseline, BaselineConfig};
use crate::config::Size;
use crate::spend::{BudgetConfig, Spend};
use file::File;

pub(crate) mod columns;
mod file;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use file::written;
pub use file::{Error, Reason};
pub(crate) use file::{failed, open_to_read};

/// The value of the label `exporter`.
const NAME: &str = "history";
/// How often what was counted is written: what a process that is killed loses.
const FLUSH: Duration = Duration::from_secs(5);
/// Keys that a minute tells apart before it has been written; the rest is `other`.
const KEYS: usize = 4_000;
/// Keys of all minutes together that wait to be written: beyond that the oldest minute is lost.
const PENDING: usize = 20_000;
/// Minutes of a day.
const DAY: i64 = 1_440;

/// Where history is kept, and how much of it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryConfig {
    /// The file. Nothing is kept where this is absent.
    pub path: Option<PathBuf>,
    /// Days that are kept.
    pub days: NonZeroU32,
    /// What it may take on the disk: the oldest minutes make room.
    pub size: Size,
    /// What may be spent in a month: shown beside what is, and nothing is refused by it.
    pub budget: BudgetConfig,
    /// What is told of models that are out of the ordinary.
    pub baseline: BaselineConfig,
}

/// What is known of the file from outside.
#[derive(Clone, Debug)]
pub struct History {
    path: Arc<Path>,
    shared: Arc<Shared>,
    budget: Arc<BudgetConfig>,
}

/// Minutes that are written: what each key came to in them.
type Minutes = BTreeMap<i64, Rollup>;

/// Adds records up for the file.
#[derive(Debug)]
pub(crate) struct Keeper {
    keys: Keys,
    shared: Arc<Shared>,
    /// Taken when it ends; absent where there is no file that could be used.
    thread: Option<JoinHandle<()>>,
}

/// What the recorder's thread and the file's own share.
#[derive(Debug)]
struct Shared {
    pending: Mutex<Pending>,
    woken: Condvar,
    /// Whether the file is written.
    is_well: AtomicBool,
    bytes: AtomicU64,
    baseline: Mutex<Baseline>,
    spend: Mutex<Spend>,
}

/// What was counted and not written.
#[derive(Debug, Default)]
struct Pending {
    minutes: Minutes,
    /// Calls whose minutes could not be kept until they were written.
    lost: u64,
    /// Whether nothing will be written again.
    is_given_up: bool,
    /// Whether nothing will come again.
    is_over: bool,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            path: None,
            days: NonZeroU32::new(62).expect("it is not zero"),
            size: Size::mib(1024),
            budget: BudgetConfig::default(),
            baseline: BaselineConfig::default(),
        }
    }
}

// === impl HistoryConfig ===

impl HistoryConfig {
    /// Refuses what would leave no room for a day, and a look back that finds nothing: the key, and what
    /// is wrong with it.
    pub(crate) fn check(&self) -> Result<(), (Vec<&'static str>, String)> {
        const LEAST: Size = Size::mib(16);
        if self.size.as_u64() < LEAST.as_u64() {
            return Err((vec!["size"], "a history needs 16MiB at least".to_owned()));
        }
        self.baseline.check().map_err(|message| (vec!["baseline", "days"], message))
    }

    /// What it says in vain: the key, and why.
    pub(crate) fn in_vain(&self) -> Vec<(Vec<&'static str>, String)> {
        /// Of the longest month.
        const MONTH: u32 = 31;
        let (days, mut told) = (self.days.get(), Vec::new());
        if self.path.is_none() {
            return told;
        }
        if self.budget != BudgetConfig::default() && days < MONTH {
            let message = format!(
                "no month is known from its beginning: `/spend` holds the last {days} days against \
                 the budget of a month; say {MONTH} or more"
            );
            told.push((vec!["days"], message));
        }
        if self.baseline.days_back().is_some_and(|back| back > days) {
            let message = format!(
                "looks back further than `history.days` keeps: that is {days}, and of three days at \
                 least something must be known"
            );
            told.push((vec!["baseline", "days"], message));
        }
        told
    }
}

// === impl History ===

impl History {
    /// Opens the file and starts to keep it. Where it cannot be used, that is said, and all records
    /// count as lost.
    pub(crate) fn start(path: &Path, config: &HistoryConfig, keys: Keys) -> (Self, Keeper) {
        let shared = Arc::new(Shared {
            pending: Mutex::default(),
            woken: Condvar::new(),
            is_well: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            baseline: Mutex::new(Baseline::new(config.baseline.clone())),
            spend: Mutex::default(),
        });
        let thread = match open(path, config, shared.clone()) {
            Ok(thread) => Some(thread),
            Err(error) => {
                error!(%error, "there is no history; calls are served without");
                lock(&shared.pending).is_given_up = true;
                None
            }
        };
        let budget = Arc::new(config.budget.clone());
        let history = Self { path: path.into(), shared: shared.clone(), budget };
        (history, Keeper { keys, shared, thread })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is written.
    pub(crate) fn is_well(&self) -> bool {
        self.shared.is_well.load(Ordering::Relaxed)
    }

    /// What was spent since the month began, and what it will come to.
    pub(crate) fn spend(&self, now: Timestamp) -> Result<serde_json::Value, Error> {
        let connection = open_to_read(&self.path)?;
        let spend = lock(&self.shared.spend).read(&connection, &self.budget, now);
        spend.map_err(failed(&self.path))
    }

    /// Which models are out of the ordinary, and by what.
    pub(crate) fn baseline(&self) -> serde_json::Value {
        lock(&self.shared.baseline).json()
    }

    /// What it takes on the disk, without its log of at most 4 MiB.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }
}

impl Source for History {
    fn read(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        show(&HISTORY_UP, Vec::new(), Value::Gauge(i64::from(self.is_well())));
        let bytes = i64::try_from(self.bytes()).unwrap_or(i64::MAX);
        show(&HISTORY_SIZE, Vec::new(), Value::Gauge(bytes));
        for (model, signal, finding) in lock(&self.shared.baseline).findings() {
            let labels = || vec![model.to_string(), signal.as_str().to_owned()];
            let Some(limit) = finding.limit else { continue };
            show(&BASELINE_LIMIT, labels(), Value::Measure(limit));
            if let Some(value) = finding.value {
                show(&BASELINE_VALUE, labels(), Value::Measure(value));
            }
            let is_unusual = finding.unusual_since.is_some();
            show(&BASELINE_UNUSUAL, labels(), Value::Gauge(is_unusual.into()));
        }
    }
}

fn open(path: &Path, config: &HistoryConfig, shared: Arc<Shared>) -> Result<JoinHandle<()>, Error> {
    let file = File::open(path)?;
    let writing = Writing {
        file,
        shared,
        days: i64::from(config.days.get()),
        bytes: config.size.as_u64(),
        looked_through: None,
        failing: false,
    };
    let thread = std::thread::Builder::new().name(NAME.to_owned()).spawn(|| writing.run());
    let failed = |error: std::io::Error| Error {
        path: path.to_owned(),
        reason: Reason::Io(error.to_string()),
    };
    thread.map_err(failed)
}

// === impl Keeper ===

impl Exporter for Keeper {
    fn name(&self) -> &'static str {
        NAME
    }

    fn export(&mut self, records: &[Record]) -> u64 {
        let takes = self.takes();
        let mut pending = lock(&self.shared.pending);
        for record in records.iter().filter(|record| takes(record)) {
            if pending.is_given_up {
                pending.lost += 1;
            } else {
                pending.minutes.entry(minute(record)).or_default().add(record, &self.keys, KEYS);
            }
        }
        pending.bound();
        std::mem::take(&mut pending.lost)
    }

    fn takes(&self) -> fn(&Record) -> bool {
        |record| record.own().is_none()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        lock(&self.shared.pending).is_over = true;
        self.shared.woken.notify_all();
        _ = self.thread.take().map(JoinHandle::join);
    }
}

// === impl Pending ===

impl Pending {
    /// Lets the oldest minutes go where more wait than may.
    fn bound(&mut self) {
        while self.minutes.values().map(Rollup::len).sum::<usize>() > PENDING {
            let Some((_, oldest)) = self.minutes.pop_first() else { return };
            self.lost += calls(&oldest);
        }
    }

    /// Puts back what could not be written.
    fn put_back(&mut self, minutes: Minutes) {
        for (minute, rollup) in minutes {
            let kept = self.minutes.entry(minute).or_default();
            rollup.iter().for_each(|(key, sums)| kept.merge(key.clone(), sums, KEYS));
        }
        self.bound();
    }

    fn give_up(&mut self) {
        self.is_given_up = true;
        self.lost += self.minutes.values().map(calls).sum::<u64>();
        self.minutes.clear();
    }
}

fn calls(rollup: &Rollup) -> u64 {
    rollup.iter().map(|(_, sums): (&Key, &Sums)| sums.calls).sum()
}

/// The file's own thread.
struct Writing {
    file: File,
    shared: Arc<Shared>,
    days: i64,
    bytes: u64,
    /// The minute in which it was last looked through for what is to go.
    looked_through: Option<i64>,
    /// Whether the last attempt failed: said once, not every time.
    failing: bool,
}

// === impl Writing ===

impl Writing {
    fn run(mut self) {
        if let Err(error) = self.file.check() {
            return self.give_up(&error);
        }
        self.shared.is_well.store(true, Ordering::Relaxed);
        loop {
            let (minutes, is_over) = self.wait();
            let done = self.write(minutes).and_then(|()| self.look_through(Timestamp::now()));
            if let Err(error) = done
                && !self.goes_on_after(&error)
            {
                return self.give_up(&error);
            }
            if is_over {
                return;
            }
        }
    }

    /// What was counted until the next time to write.
    fn wait(&self) -> (Minutes, bool) {
        let pending = lock(&self.shared.pending);
        let goes_on = |pending: &mut Pending| !pending.is_over;
        let waited = self.shared.woken.wait_timeout_while(pending, FLUSH, goes_on);
        let (mut pending, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut pending.minutes), pending.is_over)
    }

    fn write(&mut self, minutes: Minutes) -> Result<(), Error> {
        if minutes.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.add(&minutes) {
            lock(&self.shared.pending).put_back(minutes);
            return Err(error);
        }
        if self.failing {
            info!("history is written again");
            self.failing = false;
            self.shared.is_well.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Once a minute.
    fn look_through(&mut self, now: Timestamp) -> Result<(), Error> {
        let now = now.as_second().div_euclid(60);
        if self.looked_through == Some(now) {
            return Ok(());
        }
        self.looked_through = Some(now);
        let extent = self.file.prune(now - self.days * DAY, self.bytes)?;
        self.shared.bytes.store(extent.bytes, Ordering::Relaxed);
        // Whoever reads it does not wait until the file has been.
        let mut baseline = lock(&self.shared.baseline).clone();
        match baseline.judge(now, &self.file) {
            Ok(()) => *lock(&self.shared.baseline) = baseline,
            // Whether the file is well shows when it is written.
            Err(error) => warn!(%error, "what was ordinary cannot be read; next minute again"),
        }
        Ok(())
    }

    fn goes_on_after(&mut self, error: &Error) -> bool {
        if error.reason.is_final() {
            return false;
        }
        if !self.failing {
            warn!(%error, "history cannot be written; it is tried again");
            self.failing = true;
            self.shared.is_well.store(false, Ordering::Relaxed);
        }
        true
    }

    fn give_up(self, error: &Error) {
        error!(%error, "there is no more history; calls are served without");
        self.shared.is_well.store(false, Ordering::Relaxed);
        lock(&self.shared.pending).give_up();
    }
}
