//! Whether a model is out of the ordinary, by what was ordinary for it.
//!
//! Ordinary is the same time of day on the last days, which knows mornings and evenings, or the last
//! 24 hours, which know what is new. Beyond the third quartile by three times the distance of the
//! quartiles (Q3 + 3·IQR), or below the first likewise, is not; and a limit keeps a distance of its own
//! besides, for what is always the same has quartiles without distance. There is no limit without
//! enough history. The rules of `dashboards/prometheus` for latency and cost reckon the same way.
//!
//! Nothing here reads a clock or a file: who asks says what time it is, and what was.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::config::Span;
use crate::export::rollup::Sums;

/// Minutes of a day and of an hour.
const DAY: i64 = 1_440;
const HOUR: i64 = 60;
/// Minutes after which what was ordinary is read anew: to read it costs more than to judge by it.
const REREAD: i64 = 5;
/// Days, of those that are looked back upon, of which something must be known.
const DAYS_NEEDED: usize = 3;
/// Hours, of the last 24.
const HOURS_NEEDED: usize = 12;
/// Long-running jobs that a share is reckoned from, at least.
const JOBS: u64 = 5;

/// How what is out of the ordinary is found.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BaselineConfig {
    /// What is ordinary.
    pub by: Ordinary,
    /// Days whose same time of day is looked back upon.
    pub days: NonZeroU32,
    /// For how long something must be out of the ordinary to be told.
    pub hold: Span,
    /// Calls within five minutes that quantiles and shares are reckoned from, at least.
    pub calls: NonZeroU64,
}

/// What is ordinary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ordinary {
    /// The same time of day, on the last days.
    #[default]
    SameTime,
    /// The last 24 hours.
    LastDay,
    /// Nothing: nothing is looked for.
    Off,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Signal {
    DurationP99,
    FirstTokenP99,
    ErrorRatio,
    SuccessRatio,
    JobSuccessRatio,
    Tokens,
    Cost,
}

/// Which way is out of the ordinary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    High,
    Low,
}

/// How one signal is looked at.
struct Measure {
    /// How far back it reaches now, in minutes.
    window: i64,
    side: Side,
    /// A limit is at least so many times the quartile, and so much more than that.
    times: f64,
    more: f64,
    /// And at least this, whatever was ordinary.
    floor: f64,
}

/// What was, by model.
pub(crate) trait Past {
    /// Why it cannot be told.
    type Error;

    /// What the calls of each model came to from this minute to before that one.
    fn between(&self, from: i64, until: i64) -> Result<Models, Self::Error>;
}

/// What calls came to, by model.
pub(crate) type Models = BTreeMap<Arc<str>, Sums>;

/// All that is looked at, and what is out of the ordinary.
#[derive(Clone, Debug)]
pub(crate) struct Baseline {
    config: BaselineConfig,
    judged: Option<i64>,
    history: Option<Arc<History>>,
    findings: BTreeMap<(Arc<str>, Signal), Finding>,
}

/// What was, as it was read last.
#[derive(Debug)]
struct History {
    read: i64,
    /// Around this time of day, for what happens within minutes.
    around: Vec<Models>,
    /// Before it, for what adds up over an hour.
    before: Vec<Models>,
}

/// How one signal of a model is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Finding {
    /// Absent where too few calls came.
    pub(crate) value: Option<f64>,
    /// Absent without enough history.
    pub(crate) limit: Option<f64>,
    /// Of how much history the limit was made: days, or hours.
    samples: usize,
    /// Since which minute it has been beyond the limit, or within it again.
    since: Option<i64>,
    /// Since when it has been out of the ordinary, as it was told.
    pub(crate) unusual_since: Option<i64>,
}

impl Default for BaselineConfig {
    fn default() -> Self {
        Self {
            by: Ordinary::default(),
            days: NonZeroU32::new(7).expect("it is not zero"),
            hold: Span(Duration::from_secs(600)),
            calls: NonZeroU64::new(20).expect("it is not zero"),
        }
    }
}

// === impl BaselineConfig ===

impl BaselineConfig {
    /// Refuses to look back upon fewer days than must be known.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.days_back() {
            Some(days) if (days as usize) < DAYS_NEEDED => Err(format!(
                "{DAYS_NEEDED} days at least must be known, so that of {days} nothing is ever told: \
                 say {DAYS_NEEDED} or more, or `by: last_day`, which goes by the last 24 hours"
            )),
            _ => Ok(()),
        }
    }

    /// How many days it looks back, where it goes by days.
    pub(crate) fn days_back(&self) -> Option<u32> {
        (self.by == Ordinary::SameTime).then(|| self.days.get())
    }
}

// === impl Signal ===

impl Signal {
    /// All there are.
    pub(crate) const ALL: [Self; 7] = [
        Self::DurationP99,
        Self::FirstTokenP99,
        Self::ErrorRatio,
        Self::SuccessRatio,
        Self::JobSuccessRatio,
        Self::Tokens,
        Self::Cost,
    ];

    /// Its word in metrics and on pages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::DurationP99 => "duration_p99_s",
            Self::FirstTokenP99 => "first_token_p99_s",
            Self::ErrorRatio => "error_ratio",
            Self::SuccessRatio => "success_ratio",
            Self::JobSuccessRatio => "job_success_ratio",
            Self::Tokens => "tokens_1h",
            Self::Cost => "cost_usd_1h",
        }
    }

    fn measure(self) -> Measure {
        let (window, side) = (5, Side::High);
        let seconds = Measure { window, side, times: 1.5, more: 0.0, floor: 0.5 };
        let share = Measure { window, side: Side::Low, times: 1.0, more: 0.05, floor: 0.0 };
        let hour = |more| Measure { window: HOUR, side, times: 2.0, more, floor: 0.0 };
        match self {
            Self::DurationP99 | Self::FirstTokenP99 => seconds,
            Self::ErrorRatio => Measure { side, floor: 0.05, times: 1.5, ..share },
            Self::SuccessRatio => share,
            Self::JobSuccessRatio => Measure { window: HOUR, ..share },
            Self::Tokens => hour(100_000.0),
            Self::Cost => hour(1.0),
        }
    }

    /// Its value, where enough calls came.
    fn value(self, sums: &Sums, calls: u64) -> Option<f64> {
        let share = |part: u64, all: u64, least: u64| {
            (all >= least.max(1)).then(|| part as f64 / all as f64)
        };
        match self {
            Self::DurationP99 => {
                let times = sums.duration();
                (times.count() >= calls).then(|| times.quantile(0.99))?
            }
            Self::FirstTokenP99 => {
                let times = &sums.first_token;
                (times.count() >= calls).then(|| times.quantile(0.99))?
            }
            Self::ErrorRatio => share(sums.errors, sums.judged, calls),
            Self::SuccessRatio => share(sums.outcomes[0], sums.judged, calls),
            Self::JobSuccessRatio => share(sums.jobs_good, sums.jobs, JOBS),
            Self::Tokens => Some(sums.tokens.input.saturating_add(sums.tokens.output) as f64),
            Self::Cost => Some(sums.cost_usd),
        }
    }
}

// === impl Measure ===

impl Measure {
    /// What is still ordinary, by what was.
    fn limit(&self, samples: &mut [f64]) -> f64 {
        samples.sort_by(f64::total_cmp);
        let [first, third] = [0.25, 0.75].map(|share| quantile(samples, share));
        let wide = 3.0 * (third - first);
        match self.side {
            Side::High => (third + wide).max(self.times * third + self.more).max(self.floor),
            Side::Low => (first - wide).min(self.times * first - self.more),
        }
    }

    fn is_beyond(&self, value: f64, limit: f64) -> bool {
        match self.side {
            Side::High => value > limit,
            Side::Low => value < limit,
        }
    }
}

/// Between two of them in proportion, as Prometheus has it.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = share * (sorted.len() - 1) as f64;
    let (below, part) = (rank as usize, rank.fract());
    let above = sorted[(below + 1).min(sorted.len() - 1)];
    sorted[below] + part * (above - sorted[below])
}

// === impl Baseline ===

impl Baseline {
    pub(crate) fn new(config: BaselineConfig) -> Self {
        Self { config, judged: None, history: None, findings: BTreeMap::new() }
    }

    /// Judges the minutes that have ended before this one.
    pub(crate) fn judge<P: Past>(&mut self, now: i64, past: &P) -> Result<(), P::Error> {
        if self.config.by == Ordinary::Off {
            return Ok(());
        }
        let recent = [5, HOUR].map(|window| past.between(now - window, now));
        let [minutes, hour] = recent;
        let (minutes, hour) = (minutes?, hour?);
        let history = self.history(now, past)?;
        let none = Sums::default();
        let mut findings = std::mem::take(&mut self.findings);
        let known = findings.keys().map(|(model, _)| model.clone());
        let models: std::collections::BTreeSet<_> = hour.keys().cloned().chain(known).collect();
        for model in models {
            for signal in Signal::ALL {
                let measure = signal.measure();
                let (recent, samples) = match measure.window {
                    HOUR => (&hour, &history.before),
                    _ => (&minutes, &history.around),
                };
                let of = |models: &Models| {
                    signal.value(models.get(&model).unwrap_or(&none), self.config.calls.get())
                };
                let mut ordinary: Vec<_> =
                    since_known(samples, &model).iter().filter_map(of).collect();
                let value = of(recent);
                let limit = (ordinary.len() >= self.needed()).then(|| measure.limit(&mut ordinary));
                let entry = findings.entry((model.clone(), signal));
                let finding = entry.or_default();
                finding.samples = ordinary.len();
                (finding.value, finding.limit) = (value, limit);
                let is_beyond =
                    value.zip(limit).is_some_and(|(value, limit)| measure.is_beyond(value, limit));
                finding.settle(is_beyond, now, self.hold(), (&model, signal));
            }
        }
        // A model of which nothing came for an hour, and nothing is wrong with it, is not kept in mind.
        findings.retain(|(model, _), finding| {
            hour.contains_key(model) || finding.unusual_since.is_some()
        });
        self.findings = findings;
        self.judged = Some(now);
        Ok(())
    }

    fn history<P: Past>(&mut self, now: i64, past: &P) -> Result<Arc<History>, P::Error> {
        let is_fresh = |history: &&Arc<History>| (0..REREAD).contains(&(now - history.read));
        if let Some(history) = self.history.as_ref().filter(is_fresh) {
            return Ok(history.clone());
        }
        let (around, before) = (self.samples(now, HOUR / 2, past)?, self.samples(now, 0, past)?);
        let history = Arc::new(History { read: now, around, before });
        self.history = Some(history.clone());
        Ok(history)
    }

    /// What each sample holds: the hour that reaches so far beyond this time of day on each of the days,
    /// or each of the last 24 hours. Where nothing is known of any model, there was no history.
    fn samples<P: Past>(&self, now: i64, beyond: i64, past: &P) -> Result<Vec<Models>, P::Error> {
        let ends: Vec<_> = match self.config.by {
            Ordinary::LastDay => (1..=24).map(|hour| now - hour * HOUR).collect(),
            _ => (1..=i64::from(self.config.days.get()))
                .map(|day| now - day * DAY + beyond)
                .collect(),
        };
        let mut samples = Vec::with_capacity(ends.len());
        for end in ends {
            let models = past.between(end - HOUR, end)?;
            if !models.is_empty() {
                samples.push(models);
            }
        }
        Ok(samples)
    }

    fn needed(&self) -> usize {
        match self.config.by {
            Ordinary::LastDay => HOURS_NEEDED,
            _ => DAYS_NEEDED,
        }
    }

    /// In minutes.
    fn hold(&self) -> i64 {
        i64::try_from(self.config.hold.0.as_secs().div_ceil(60)).unwrap_or(i64::MAX)
    }

    /// How everything is, by model and signal.
    pub(crate) fn findings(&self) -> impl Iterator<Item = (&Arc<str>, Signal, &Finding)> {
        self.findings.iter().map(|((model, signal), finding)| (model, *signal, finding))
    }

    /// The same as JSON.
    pub(crate) fn json(&self) -> Value {
        let time = |minute: i64| Timestamp::from_second(minute * 60).ok().map(|at| at.to_string());
        let findings = self.findings().map(|(model, signal, finding)| {
            let state = match (finding.unusual_since, finding.limit, finding.value) {
                (Some(_), _, _) => "unusual",
                (None, None, _) => "too_little_history",
                (None, Some(_), None) => "too_few_calls",
                _ => "usual",
            };
            json!({
                "model": model,
                "signal": signal.as_str(),
                "state": state,
                "value": finding.value,
                "limit": finding.limit,
                "side": if signal.measure().side == Side::High { "high" } else { "low" },
                "samples": finding.samples,
                "unusual_since": finding.unusual_since.and_then(time),
            })
        });
        json!({
            "by": self.config.by,
            "judged": self.judged.and_then(time),
            "samples_needed": self.needed(),
            "findings": findings.collect::<Vec<_>>(),
        })
    }
}

/// The samples, the latest first, without those before the model was heard of for the first time:
/// what is new has no history, and was not nought.
fn since_known<'a>(samples: &'a [Models], model: &str) -> &'a [Models] {
    let first = samples.iter().rposition(|models| models.contains_key(model));
    &samples[..first.map_or(0, |first| first + 1)]
}

// === impl Finding ===

impl Finding {
    /// Whether it is out of the ordinary changes once it has looked otherwise for so many minutes.
    fn settle(&mut self, is_beyond: bool, now: i64, hold: i64, of: (&Arc<str>, Signal)) {
        if is_beyond == self.unusual_since.is_some() {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert(now);
        if now - since < hold {
            return;
        }
        self.since = None;
        let (model, signal, value, limit) = (of.0, of.1.as_str(), self.value, self.limit);
        if is_beyond {
            self.unusual_since = Some(now);
            warn!(%model, signal, value, limit, "out of the ordinary");
        } else {
            self.unusual_since = None;
            info!(%model, signal, value, limit, "ordinary again");
        }
    }
}

#[cfg(test)]
mod tests;
