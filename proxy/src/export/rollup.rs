//! What came to pass in a minute, added up by model, place and caller: what history keeps and pages
//! show.
//!
//! Calls that Tidegate makes itself are none of anybody's, and in none of this. A call stands in the
//! minute in which it ended: before that nobody knows what it came to, and a minute that is over stays
//! as it is.

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;
use tidegate_wire::{ErrorOrigin, JobOutcome, Outcome, Record};

use super::metrics::{OTHER, Registry, UNKNOWN};

mod times;

pub(crate) use times::Times;

/// Seconds of a minute.
const MINUTE_S: i64 = 60;
/// Statuses of calls that were refused for what their head said, whatever it asked for.
const MALFORMED: [u16; 4] = [400, 405, 408, 431];

/// What calls are told apart by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The model that was asked for; `unknown` where none was.
    pub(crate) model: Arc<str>,
    pub(crate) provider: Arc<str>,
    pub(crate) region: Arc<str>,
    pub(crate) route: Arc<str>,
    pub(crate) upstream: Arc<str>,
    pub(crate) caller: Arc<str>,
}

/// What calls came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sums {
    pub(crate) calls: u64,
    /// By [`Outcome::ALL`].
    pub(crate) outcomes: [u64; Outcome::ALL.len()],
    /// By the status that the caller got, in order; 0 where it got none.
    pub(crate) statuses: Vec<(u16, u64)>,
    /// The upper side of the error ratio: failed by the upstream, the sidecar or a quota, or truncated.
    pub(crate) errors: u64,
    /// The lower side: all but those abandoned, failed by their caller, or refused for a malformed head.
    pub(crate) judged: u64,
    /// Calls of a load test.
    pub(crate) load_test: u64,
    /// Calls that asked for a stream.
    pub(crate) streams: u64,
    pub(crate) tokens: Tokens,
    /// In US dollars, of calls that have a price.
    pub(crate) cost_usd: f64,
    /// Calls that used what the price table has no price for.
    pub(crate) unpriced: u64,
    /// Completed calls that should state their usage and did not.
    pub(crate) usage_absent: u64,
    /// Calls that a cache answered, and what they would have used and cost.
    pub(crate) saved: Saved,
    /// Long-running jobs that came to their end, and of these, those that made what was asked for.
    pub(crate) jobs: u64,
    pub(crate) jobs_good: u64,
    /// From start to last byte, of completed calls that an upstream answered: of streams, and of all
    /// others.
    pub(crate) duration_of_streams: Times,
    pub(crate) duration_of_others: Times,
    /// From start to first token, of the same streams.
    pub(crate) first_token: Times,
}

/// Tokens as providers stated them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) cache_read: u64,
    pub(crate) cache_creation: u64,
    pub(crate) reasoning: u64,
}

/// What caches saved.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Saved {
    pub(crate) calls: u64,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) cost_usd: f64,
}

/// The calls of one minute, or of several together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rollup(HashMap<Key, Sums, FxBuildHasher>);

/// The words that keys are made of: the same that labels of metrics have, so that what callers make up
/// takes no room.
#[derive(Clone, Debug)]
pub(crate) struct Keys(Arc<Registry>);

/// The minute in which a call ended, in minutes since 1970 (UTC).
pub(crate) fn minute(record: &Record) -> i64 {
    let length = record.duration_s.unwrap_or(0.0).max(0.0);
    (record.time.as_second() + length.min(1e9) as i64).div_euclid(MINUTE_S)
}

// === impl Keys ===

impl Keys {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self(registry)
    }

    /// Where this call is counted.
    pub(crate) fn of(&self, record: &Record) -> Key {
        let text = |text: &Option<Arc<str>>| text.clone().unwrap_or_default();
        let known = |word: Option<&str>, absent: &str, admit: &dyn Fn(&str) -> Option<Arc<str>>| {
            word.map_or_else(|| absent.into(), |word| admit(word).unwrap_or_else(|| OTHER.into()))
        };
        Key {
            model: known(record.request_model.as_deref(), UNKNOWN, &|word| {
                self.0.known_model(word)
            }),
            region: known(record.region.as_deref(), "", &|word| self.0.known_region(word)),
            caller: known(record.caller.as_deref(), "", &|word| self.0.known_caller(word)),
            provider: text(&record.provider),
            route: text(&record.route),
            upstream: text(&record.upstream),
        }
    }
}

// === impl Key ===

impl Key {
    /// Whatever there is no room for.
    fn other() -> Self {
        let other: Arc<str> = OTHER.into();
        Self { model: other.clone(), caller: other, ..Self::default() }
    }
}

// === impl Rollup ===

impl Rollup {
    /// Adds a call, unless Tidegate made it itself. Beyond `most` keys those that are new are counted
    /// as `other`.
    pub(crate) fn add(&mut self, record: &Record, keys: &Keys, most: usize) {
        if record.own().is_some() {
            return;
        }
        self.sums(keys.of(record), most).add(record);
    }

    /// Adds what others came to.
    pub(crate) fn merge(&mut self, key: Key, sums: &Sums, most: usize) {
        self.sums(key, most).merge(sums);
    }

    /// What each key came to.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Sums)> {
        self.0.iter()
    }

    /// Keys that there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Bytes that it takes, near enough.
    pub(crate) fn bytes(&self) -> usize {
        self.0.values().map(|sums| size_of::<Key>() + sums.bytes()).sum()
    }

    fn sums(&mut self, key: Key, most: usize) -> &mut Sums {
        let is_there = self.0.len() < most || self.0.contains_key(&key);
        let key = if is_there { key } else { Key::other() };
        self.0.entry(key).or_default()
    }
}

// === impl Sums ===

impl Sums {
    fn add(&mut self, record: &Record) {
        self.calls += 1;
        let outcome = record.outcome.unwrap_or(Outcome::Failed);
        self.outcomes[outcome as usize] += 1;
        self.add_status(record.status.unwrap_or(0), 1);
        self.judge(record, outcome);
        self.load_test += u64::from(record.load_test == Some(true));
        self.streams += u64::from(record.stream == Some(true));
        self.tokens.add(&Tokens {
            input: record.input_tokens.unwrap_or(0),
            output: record.output_tokens.unwrap_or(0),
            cache_read: record.cache_read_tokens.unwrap_or(0),
            cache_creation: record.cache_creation_tokens.unwrap_or(0),
            reasoning: record.reasoning_tokens.unwrap_or(0),
        });
        self.cost_usd += record.cost_usd.unwrap_or(0.0);
        self.unpriced += u64::from(record.unpriced == Some(true));
        self.usage_absent += u64::from(record.lacks_usage());
        if record.is_from_cache() {
            self.saved.add(&Saved::of(record));
        } else if outcome == Outcome::Completed {
            let duration = match record.stream {
                Some(true) => &mut self.duration_of_streams,
                _ => &mut self.duration_of_others,
            };
            record.duration_s.into_iter().for_each(|time| duration.add(time));
            record.time_to_first_token_s.into_iter().for_each(|time| self.first_token.add(time));
        }
        let job = record.job.as_ref().filter(|job| job.ends_here);
        if let Some(outcome) = job.and_then(|job| job.outcome) {
            self.jobs += 1;
            self.jobs_good += u64::from(outcome == JobOutcome::Succeeded);
        }
    }

    /// Adds what others came to.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        let outcomes = self.outcomes.iter_mut().zip(other.outcomes);
        outcomes.for_each(|(sum, count)| *sum += count);
        other.statuses.iter().for_each(|(status, count)| self.add_status(*status, *count));
        self.errors += other.errors;
        self.judged += other.judged;
        self.load_test += other.load_test;
        self.streams += other.streams;
        self.tokens.add(&other.tokens);
        self.cost_usd += other.cost_usd;
        self.unpriced += other.unpriced;
        self.usage_absent += other.usage_absent;
        self.saved.add(&other.saved);
        self.jobs += other.jobs;
        self.jobs_good += other.jobs_good;
        self.duration_of_streams.merge(&other.duration_of_streams);
        self.duration_of_others.merge(&other.duration_of_others);
        self.first_token.merge(&other.first_token);
    }

    /// The share of calls that failed, as alerts and objectives reckon it; absent where none can be
    /// judged.
    pub(crate) fn error_ratio(&self) -> Option<f64> {
        (self.judged > 0).then(|| self.errors as f64 / self.judged as f64)
    }

    /// From start to last byte, of all that was measured.
    pub(crate) fn duration(&self) -> Times {
        self.duration_of_streams.and(&self.duration_of_others)
    }

    /// What callers waited for, as alerts have it: of a stream its first token, of others their end.
    pub(crate) fn latency(&self) -> Times {
        self.first_token.and(&self.duration_of_others)
    }

    fn bytes(&self) -> usize {
        let times = [&self.duration_of_streams, &self.duration_of_others, &self.first_token];
        let times: usize = times.iter().map(|times| times.bytes()).sum();
        size_of::<Self>() + self.statuses.capacity() * size_of::<(u16, u64)>() + times
    }

    fn judge(&mut self, record: &Record, outcome: Outcome) {
        let is_by_caller = record.error_origin == Some(ErrorOrigin::Client);
        let is_malformed = || record.status.is_some_and(|status| MALFORMED.contains(&status));
        let (is_judged, is_error) = match outcome {
            Outcome::Completed => (true, false),
            Outcome::Truncated => (true, true),
            Outcome::Failed => (!is_by_caller, !is_by_caller),
            Outcome::Refused => (!is_malformed(), false),
            Outcome::Abandoned => (false, false),
        };
        self.judged += u64::from(is_judged);
        self.errors += u64::from(is_error);
    }

    fn add_status(&mut self, status: u16, count: u64) {
        match self.statuses.binary_search_by_key(&status, |(known, _)| *known) {
            Ok(at) => self.statuses[at].1 += count,
            Err(at) => self.statuses.insert(at, (status, count)),
        }
    }
}

// === impl Tokens ===

impl Tokens {
    // A provider that states nonsense brings nothing down.
    fn add(&mut self, other: &Self) {
        let Self { input, output, cache_read, cache_creation, reasoning } = other;
        for (sum, count) in [
            (&mut self.input, input),
            (&mut self.output, output),
            (&mut self.cache_read, cache_read),
            (&mut self.cache_creation, cache_creation),
            (&mut self.reasoning, reasoning),
        ] {
            *sum = sum.saturating_add(*count);
        }
    }
}

// === impl Saved ===

impl Saved {
    fn of(record: &Record) -> Self {
        let cached = record.cached.as_deref();
        let tokens = |tokens: Option<Option<u64>>| tokens.flatten().unwrap_or(0);
        Self {
            calls: 1,
            input_tokens: tokens(cached.map(|cached| cached.saved_input_tokens)),
            output_tokens: tokens(cached.map(|cached| cached.saved_output_tokens)),
            cost_usd: cached.and_then(|cached| cached.saved_cost_usd).unwrap_or(0.0),
        }
    }

    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.cost_usd += other.cost_usd;
    }
}

#[cfg(test)]
mod tests;
