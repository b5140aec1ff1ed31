//! Ties the polls of a long-running job to its submit, by its name, and counts how jobs come out.
//!
//! One table for all workers, behind a lock that only calls of jobs take. It holds so many jobs and
//! no more: the one that was not seen for longest makes room, and is counted as forgotten. A job
//! that nobody asks for any longer is abandoned. What another sidecar saw is not known here; its
//! records bear the same name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tidegate_wire::{Job, JobOutcome, Outcome, Record};
use tokio::time::Instant;

use crate::export::catalog::{self, Family};
use crate::export::metrics::{
    Amount, Histogram, Names, OTHER, SECONDS, UNKNOWN, Value, is_answered, lock,
};

/// Longer names are not kept: those of the providers have a tenth of it.
const MAX_NAME: usize = 1024;
/// Models, providers and regions that are told apart, together.
const MAX_SERIES: usize = 500;

/// How many jobs are kept in mind, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct JobLimits {
    /// Jobs at a time.
    pub jobs: usize,
    /// How long after its last poll a job that is not done counts as abandoned.
    pub idle: Duration,
}

/// The jobs that this sidecar has seen.
#[derive(Debug)]
pub struct Jobs {
    limits: JobLimits,
    models: Arc<Names>,
    regions: Arc<Names>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: FxHashMap<Box<str>, Known>,
    counts: BTreeMap<Who, Counts>,
    forgotten: u64,
}

/// What is known of one job.
#[derive(Debug)]
struct Known {
    who: Who,
    /// When its submit began, if it went by here.
    submitted: Option<Instant>,
    /// When a call of it was seen last.
    seen: Instant,
    polls: u64,
    video_length: Option<f64>,
    video_count: Option<u64>,
    /// Kept for a while, lest a second look at the end count it again.
    is_done: bool,
    duration: Option<f64>,
}

/// Whose job it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Who {
    model: Arc<str>,
    provider: Arc<str>,
    region: Arc<str>,
}

/// How a job ended for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done(JobOutcome),
    Abandoned,
}

#[derive(Debug)]
struct Counts {
    polls: u64,
    videos_s: Option<Amount>,
    ends: [u64; End::ALL.len()],
    durations: [Histogram; End::ALL.len()],
}

// === impl JobLimits ===

impl Default for JobLimits {
    fn default() -> Self {
        Self { jobs: 4_096, idle: Duration::from_secs(3_600) }
    }
}

// === impl Jobs ===

impl Jobs {
    pub(crate) fn new(limits: JobLimits, models: Arc<Names>, regions: Arc<Names>) -> Self {
        Self { limits, models, regions, state: Mutex::default() }
    }

    /// Takes note of a call that has ended, and adds to its record what other calls of the same job
    /// have told.
    pub fn see(&self, record: &mut Record, now: Instant) {
        let Some(mut job) = record.job.take() else { return };
        if record.outcome != Some(Outcome::Refused) && job.name.len() <= MAX_NAME {
            let who = self.who(record);
            lock(&self.state).see(&mut job, record, who, now, self.limits);
        }
        record.job = Some(job);
    }

    /// Gives up the jobs that nobody has asked for in a long time.
    pub fn sweep(&self, now: Instant) {
        let State { known, counts, .. } = &mut *lock(&self.state);
        known.retain(|_, job| {
            let is_current = now.saturating_duration_since(job.seen) < self.limits.idle;
            if !is_current && !job.is_done {
                counts_of(counts, &job.who).end(End::Abandoned, None);
            }
            is_current
        });
    }

    /// Shows what has been counted.
    pub(crate) fn read(&self, put: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        let state = lock(&self.state);
        for job in state.known.values() {
            put(&catalog::JOBS_OPEN, job.who.labels(), Value::Gauge(i64::from(!job.is_done)));
        }
        put(&catalog::JOBS_FORGOTTEN, Vec::new(), Value::Counter(state.forgotten));
        for (who, counts) in &state.counts {
            put(&catalog::JOB_POLLS, who.labels(), Value::Counter(counts.polls));
            if let Some(made) = counts.videos_s {
                put(&catalog::VIDEO_SECONDS, who.labels(), Value::Amount(made));
            }
            for (at, end) in End::ALL.iter().enumerate() {
                let labels = || [who.labels(), vec![end.as_str().to_owned()]].concat();
                if counts.ends[at] > 0 {
                    put(&catalog::JOBS, labels(), Value::Counter(counts.ends[at]));
                }
                if counts.durations[at].count() > 0 {
                    let durations = counts.durations[at].clone();
                    put(&catalog::JOB_DURATION, labels(), Value::Histogram(durations));
                }
            }
        }
    }

    /// Words that callers choose become label values as they do for calls.
    fn who(&self, record: &Record) -> Who {
        let is_answered = is_answered(record);
        let bounded = |names: &Names, word: &str| {
            names.admit(word, is_answered).unwrap_or_else(|| OTHER.into())
        };
        let model = record.request_model.as_deref();
        let region = record.region.as_deref();
        Who {
            model: model.map_or_else(|| UNKNOWN.into(), |model| bounded(&self.models, model)),
            provider: record.provider.clone().unwrap_or_default(),
            region: region.map_or_else(Arc::default, |region| bounded(&self.regions, region)),
        }
    }
}

// === impl State ===

impl State {
    fn see(
        &mut self,
        job: &mut Job,
        record: &mut Record,
        who: Who,
        now: Instant,
        limits: JobLimits,
    ) {
        let is_submit = is_submit(record);
        if !self.known.contains_key(job.name.as_str()) {
            // What does not say that there is such a job is no reason to wait for its end.
            if job.done.is_none() || ended_long_ago(job, record, limits.idle) {
                return;
            }
            self.make_room(limits.jobs);
            self.known.insert(job.name.as_str().into(), Known::new(who.clone(), now));
        }
        let known = self.known.get_mut(job.name.as_str()).expect("it was there or was inserted");
        known.seen = now;
        if is_submit {
            known.submitted(job, record, who, now);
        }
        let counts = counts_of(&mut self.counts, &known.who);
        if !is_submit {
            known.polls += 1;
            job.polls = Some(known.polls);
            counts.polls += 1;
        }
        if let (Some(true), Some(outcome)) = (job.done, job.outcome) {
            known.done(job, record, now, outcome, counts);
        }
    }

    /// Forgets the job that was not seen for longest, those first that are done.
    fn make_room(&mut self, most: usize) {
        while self.known.len() >= most.max(1) {
            let oldest = self.known.iter().min_by_key(|(_, job)| (!job.is_done, job.seen));
            let Some(name) = oldest.map(|(name, _)| name.clone()) else { return };
            let was_open = self.known.remove(&name).is_some_and(|job| !job.is_done);
            self.forgotten += u64::from(was_open);
        }
    }
}

/// The counts of these labels; beyond a number of them, those of all others.
fn counts_of<'a>(counts: &'a mut BTreeMap<Who, Counts>, who: &Who) -> &'a mut Counts {
    let is_known = counts.contains_key(who) || counts.len() < MAX_SERIES;
    let who = if is_known { who.clone() } else { Who::other() };
    counts.entry(who).or_insert_with(Counts::new)
}

/// Whether the job may have been seen to its end before, and been forgotten since.
fn ended_long_ago(job: &Job, record: &Record, idle: Duration) -> bool {
    job.ended
        .is_some_and(|ended| record.time.duration_since(ended).as_secs_f64() > idle.as_secs_f64())
}

fn is_submit(record: &Record) -> bool {
    let submits = ["predict_long_running", "async_invoke", "generate_video"];
    record.operation.as_deref().is_some_and(|operation| submits.contains(&operation))
}

// === impl Known ===

impl Known {
    fn new(who: Who, now: Instant) -> Self {
        Self {
            who,
            submitted: None,
            seen: now,
            polls: 0,
            video_length: None,
            video_count: None,
            is_done: false,
            duration: None,
        }
    }

    /// The submit names the model best, and alone says what was asked for.
    fn submitted(&mut self, job: &Job, record: &Record, who: Who, now: Instant) {
        let took = record.duration_s.and_then(|took| Duration::try_from_secs_f64(took).ok());
        self.submitted = now.checked_sub(took.unwrap_or_default());
        self.video_length = job.video_length_s;
        self.video_count = job.video_count;
        self.who = who;
    }

    /// The job is seen done; only the first look counts.
    fn done(
        &mut self,
        job: &mut Job,
        record: &mut Record,
        now: Instant,
        outcome: JobOutcome,
        counts: &mut Counts,
    ) {
        let is_first = !std::mem::replace(&mut self.is_done, true);
        if is_first {
            let since_submit = self.submitted.map(|submitted| (now - submitted).as_secs_f64());
            self.duration = job.duration_s.or(since_submit);
            counts.end(End::Done(outcome), self.duration);
        }
        job.ends_here = is_first;
        job.duration_s = job.duration_s.or(self.duration);
        // Some state the length again.
        let length = self.video_length.or(job.video_length_s);
        if let (true, JobOutcome::Succeeded, Some(length)) = (is_first, outcome, length) {
            let media = record.media.get_or_insert_default();
            let made = media.videos_made.or(self.video_count).unwrap_or(1);
            let seconds = length * made as f64;
            media.video_seconds = Some(seconds);
            counts.made(seconds);
        }
    }
}

// === impl Who ===

impl Who {
    fn other() -> Self {
        Self { model: OTHER.into(), provider: OTHER.into(), region: OTHER.into() }
    }

    fn labels(&self) -> Vec<String> {
        [&self.model, &self.provider, &self.region].map(|label| label.to_string()).to_vec()
    }
}

// === impl End ===

impl End {
    const ALL: [Self; 4] = [
        Self::Done(JobOutcome::Succeeded),
        Self::Done(JobOutcome::Failed),
        Self::Done(JobOutcome::Filtered),
        Self::Abandoned,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Done(outcome) => outcome.as_str(),
            Self::Abandoned => "abandoned",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Done(JobOutcome::Succeeded) => 0,
            Self::Done(JobOutcome::Failed) => 1,
            Self::Done(JobOutcome::Filtered) => 2,
            Self::Abandoned => 3,
        }
    }
}

// === impl Counts ===

impl Counts {
    fn new() -> Self {
        Self {
            polls: 0,
            videos_s: None,
            ends: [0; End::ALL.len()],
            durations: std::array::from_fn(|_| Histogram::new(SECONDS)),
        }
    }

    fn end(&mut self, end: End, duration: Option<f64>) {
        self.ends[end.index()] += 1;
        self.durations[end.index()].observe(duration);
    }

    fn made(&mut self, seconds: f64) {
        self.videos_s.get_or_insert_default().add(Amount::new(seconds));
    }
}

#[cfg(test)]
mod tests;
