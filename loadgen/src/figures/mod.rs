//! What a run measured: counts and distributions by model, route and stage, over time, and single
//! calls. All of it adds up exactly: the figures of several runs are as those of one.

mod fault;
mod joined;
mod kind;
mod points;
mod strain;
mod tally;
mod timeline;
mod times;
mod watched;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_settings::{Metric, Objective};
use tidegate_wire::{ErrorOrigin, Outcome, Record, glob};

use crate::workload::{Answer, Entry, Mix, Request};

pub use fault::{Fault, FaultCount};
pub use kind::Kind;
pub use strain::{Strain, Strained};
pub use tally::{Outcomes, Tokens};
pub use times::Quantiles;

pub(crate) use fault::Faults;
pub(crate) use joined::{Joined, Parts, Seen, Sent};
pub(crate) use points::{Point, Points};
pub(crate) use strain::together;
pub(crate) use tally::Tally;
pub(crate) use timeline::{OVER_TIME, Slice, Timeline};
pub(crate) use times::Times;
pub(crate) use watched::{Series, SeriesId, Shows, Watched};

/// All that is kept of the calls of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    #[serde(with = "as_list")]
    pub(crate) series: BTreeMap<Key, Tally>,
    pub(crate) faults: Faults,
    pub(crate) timeline: Timeline,
    pub(crate) points: Points,
    /// Of each answer, the longest that anything of it lay here unread.
    #[serde(default)]
    pub(crate) read_lag: Times,
    /// Calls that a sidecar saw too.
    #[serde(default)]
    pub(crate) joined: Joined,
    /// What the other side said of itself.
    #[serde(default)]
    pub(crate) watched: Watched,
}

/// By what calls are told apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Key {
    /// The model, or the name under which its calls are counted.
    pub(crate) model: Arc<str>,
    /// The kind of call, or the name that the mix has for it.
    pub(crate) route: Arc<str>,
    /// The part of the run in which the call was due.
    pub(crate) stage: Arc<str>,
    /// Whether the answer was asked for as a stream.
    pub(crate) stream: bool,
}

/// One call that is over.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) key: Key,
    /// When it was due, from the start of the run.
    pub(crate) due: Duration,
    /// As the wire showed it; all its times count from when it was due.
    pub(crate) record: Record,
    /// How long after it was due it was sent.
    pub(crate) send_lag: Duration,
    /// The longest that anything of a whole answer lay here unread; absent where no kernel tells.
    pub(crate) read_lag: Option<Duration>,
    /// The times between tokens.
    pub(crate) gaps: Vec<Duration>,
    /// The trouble that it was in.
    pub(crate) kind: Option<Kind>,
    /// What was answered, where somebody goes on from it.
    pub(crate) answer: Option<Answer>,
}

// === impl Figures ===

impl Figures {
    /// Takes one call in; `is_good` says whether it met all that was asked of it.
    pub(crate) fn record(&mut self, call: &Call, is_good: bool) {
        let tally = self.series.entry(call.key.clone()).or_default();
        tally.record(call);
        tally.good += u64::from(is_good);
        self.faults.record(&call.record, call.kind);
        self.timeline.record(call);
        self.points.record(call);
        call.read_lag.iter().for_each(|lag| self.read_lag.record(*lag));
    }

    /// Takes in another run.
    pub(crate) fn add(&mut self, other: Self) {
        for (key, tally) in &other.series {
            self.series.entry(key.clone()).or_default().add(tally);
        }
        self.faults.add(other.faults);
        self.timeline.add(other.timeline);
        self.points.add(other.points);
        self.read_lag.add(&other.read_lag);
        self.joined.add(other.joined);
        self.watched.add(other.watched);
    }

    /// Whether what goes over time is what this program writes.
    pub(crate) fn is_sound(&self) -> bool {
        let joined = &self.joined.over_time;
        self.timeline.is_sound() && joined.is_sound() && self.watched.is_sound()
    }

    /// The calls of all series that this holds of, as one.
    pub(crate) fn sum(&self, of: impl Fn(&Key) -> bool) -> Tally {
        let mut sum = Tally::default();
        self.series.iter().filter(|(key, _)| of(key)).for_each(|(_, tally)| sum.add(tally));
        sum
    }

    /// The same with no other times than what an objective about this metric goes by: each is a long list.
    pub(crate) fn sum_for(&self, metric: Metric, of: impl Fn(&Key) -> bool) -> Tally {
        let mut sum = Tally::default();
        let tallies = self.series.iter().filter(|(key, _)| of(key));
        tallies.for_each(|(_, tally)| sum.add_for(metric, tally));
        sum
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> u64 {
        self.series.values().map(Tally::calls).sum()
    }

    /// All calls.
    pub(crate) fn total(&self) -> Tally {
        self.sum(|_| true)
    }

    /// The calls by what this says of their series.
    pub(crate) fn by(&self, part: impl Fn(&Key) -> Arc<str>) -> BTreeMap<Arc<str>, Tally> {
        let mut parts = BTreeMap::<_, Tally>::new();
        for (key, tally) in &self.series {
            parts.entry(part(key)).or_default().add(tally);
        }
        parts
    }

    /// One distribution of all calls.
    pub(crate) fn times(&self, metric: Metric) -> Times {
        let mut sum = Times::default();
        let series = self.series.values().filter_map(|tally| tally.times(metric));
        series.for_each(|times| sum.add(times));
        sum
    }

    /// How late all calls were sent.
    pub(crate) fn send_lag(&self) -> Times {
        let mut sum = Times::default();
        self.series.values().for_each(|tally| sum.add(&tally.send_lag));
        sum
    }
}

// === impl Key ===

impl Key {
    /// Those of the calls that this mix has.
    pub(crate) fn of_mix(mix: &Mix, stage: &str) -> Vec<Self> {
        mix.entries().iter().map(|entry| Self::of_entry(entry, stage)).collect()
    }

    /// That of the calls of one entry.
    pub(crate) fn of_entry(entry: &Entry, stage: &str) -> Self {
        Self {
            model: entry.label(),
            route: entry.route(),
            stage: stage.into(),
            stream: entry.stream,
        }
    }

    /// That of a call to be made in this stage.
    pub(crate) fn of(request: &Request, stage: &str) -> Self {
        Self {
            model: request.label.clone(),
            route: request.route.clone(),
            stage: stage.into(),
            stream: request.stream,
        }
    }

    /// Whether an objective applies to its calls.
    pub(crate) fn is_of(&self, objective: &Objective) -> bool {
        let fits = |pattern: &Option<String>, text: &str| {
            pattern.as_ref().is_none_or(|pattern| glob(pattern, text))
        };
        fits(&objective.model, &self.model)
            && fits(&objective.route, &self.route)
            && fits(&objective.stage, &self.stage)
            && objective.stream.is_none_or(|stream| stream == self.stream)
    }
}

// === impl Call ===

impl Call {
    /// Whether it came to a whole answer to what was asked: only those have times.
    pub(crate) fn is_whole(&self) -> bool {
        self.record.outcome == Some(Outcome::Completed) && self.kind.is_none()
    }

    /// Whether it stands on the upper side of the error ratio: the upstream, a sidecar or a quota failed
    /// it, or it broke off.
    pub(crate) fn is_bad(&self) -> bool {
        match self.outcome() {
            Outcome::Failed | Outcome::Refused => {
                self.record.error_origin != Some(ErrorOrigin::Client)
            }
            Outcome::Truncated => true,
            Outcome::Completed | Outcome::Abandoned => false,
        }
    }

    /// Whether it stands on the lower side: so do all but those that we gave up ourselves, and those
    /// whose request was at fault.
    pub(crate) fn is_accountable(&self) -> bool {
        self.is_bad() || self.outcome() == Outcome::Completed
    }

    fn outcome(&self) -> Outcome {
        self.record.outcome.unwrap_or(Outcome::Failed)
    }

    /// What it measured, in seconds; of gaps see [`Self::gap`].
    pub(crate) fn seconds(&self, metric: Metric) -> Option<f64> {
        let record = &self.record;
        let lag = self.send_lag.as_secs_f64();
        let sent = |at: Option<f64>| at.map(|at| at - lag);
        match metric {
            Metric::TimeToFirstByte => record.time_to_first_byte_s,
            Metric::TimeToFirstEvent => record.time_to_first_event_s,
            Metric::TimeToFirstToken => record.time_to_first_token_s,
            Metric::TimeToFirstVisibleToken => record.time_to_first_visible_token_s,
            Metric::TimePerOutputToken => record.time_per_output_token_s,
            Metric::Duration => record.duration_s,
            Metric::ServiceTimeToFirstByte => sent(record.time_to_first_byte_s),
            Metric::ServiceTimeToFirstEvent => sent(record.time_to_first_event_s),
            Metric::ServiceTimeToFirstToken => sent(record.time_to_first_token_s),
            Metric::ServiceTimeToFirstVisibleToken => sent(record.time_to_first_visible_token_s),
            Metric::ServiceDuration => sent(record.duration_s),
            Metric::Gap
            | Metric::ErrorRatio
            | Metric::Goodput
            | Metric::CallsPerSecond
            | Metric::OutputTokensPerSecond => None,
        }
    }

    /// The gap that this share of its gaps is no longer than, in seconds.
    pub(crate) fn gap(&self, quantile: f64) -> Option<f64> {
        let mut gaps = self.gaps.clone();
        let place = (quantile * gaps.len() as f64).ceil() as usize;
        let place = place.clamp(1, gaps.len().max(1)) - 1;
        (place < gaps.len()).then(|| gaps.select_nth_unstable(place).1.as_secs_f64())
    }
}

/// Series as a list: a key of several parts is no key of JSON.
mod as_list {
    use serde::{Deserializer, Serializer};

    use super::*;

    #[derive(Serialize)]
    struct Written<'a> {
        #[serde(flatten)]
        key: &'a Key,
        tally: &'a Tally,
    }

    #[derive(Deserialize)]
    struct Read {
        #[serde(flatten)]
        key: Key,
        tally: Tally,
    }

    pub(super) fn serialize<S: Serializer>(
        series: &BTreeMap<Key, Tally>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(series.iter().map(|(key, tally)| Written { key, tally }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Key, Tally>, D::Error> {
        let list = Vec::<Read>::deserialize(deserializer)?;
        Ok(list.into_iter().map(|Read { key, tally }| (key, tally)).collect())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn call(duration_s: f64, outcome: Outcome) -> Call {
        Call {
            key: Key {
                model: "m".into(),
                route: "openai/chat".into(),
                stage: "main".into(),
                stream: true,
            },
            due: Duration::from_millis(500),
            record: Record {
                outcome: Some(outcome),
                duration_s: Some(duration_s),
                output_tokens: Some(10),
                stream: Some(true),
                ..Record::default()
            },
            send_lag: Duration::from_millis(100),
            read_lag: Some(Duration::from_millis(1)),
            gaps: vec![Duration::from_millis(20); 3],
            kind: None,
            answer: None,
        }
    }

    fn figures(models: &[&str]) -> Figures {
        let mut figures = Figures::default();
        for model in models {
            let mut call = call(1.0, Outcome::Completed);
            call.key.model = (*model).into();
            call.record.trace_id = tidegate_wire::Id(rand::random());
            figures.record(&call, true);
        }
        figures
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let figures = figures(&["m", "n", "m"]);
        let models = figures.by(|key| key.model.clone());
        let calls: Vec<_> = models.iter().map(|(model, tally)| (&**model, tally.calls())).collect();
        assert_eq!(calls, [("m", 2), ("n", 1)]);
        assert_eq!((figures.total().calls(), figures.total().good), (3, 3));
        assert_eq!(figures.times(Metric::Duration).count(), 3);
        assert_eq!(figures.send_lag().count(), 3);
    }

    #[test]
    fn what_is_written_is_what_is_read_and_several_runs_are_as_one() {
        let (one, other) = (figures(&["m", "n"]), figures(&["n", "o"]));
        let again = |figures: &Figures| -> Figures {
            let text = serde_json::to_string(figures).expect("they are written");
            serde_json::from_str(&text).expect("they are read")
        };
        let mut sum = again(&one);
        sum.add(again(&other));
        assert_eq!(sum.total().calls(), 4);
        assert_eq!(sum.points.count(), 4);
        let models: Vec<_> = sum.by(|key| key.model.clone()).into_keys().collect();
        assert_eq!(models, ["m".into(), "n".into(), "o".into()]);
        let mut twice = one.clone();
        twice.add(other);
        assert_eq!(
            sum.times(Metric::Duration).quantiles(),
            twice.times(Metric::Duration).quantiles()
        );
        assert_eq!(sum.timeline, twice.timeline);
    }

    #[test]
    fn a_call_has_a_gap_for_each_share_of_its_gaps() {
        let gaps = [10, 30, 20, 40].map(Duration::from_millis).to_vec();
        let call = Call { gaps, ..call(1.0, Outcome::Completed) };
        let gaps = [0.25, 0.5, 0.51, 0.99].map(|quantile| call.gap(quantile));
        assert_eq!(gaps, [Some(0.01), Some(0.02), Some(0.03), Some(0.04)]);
        assert_eq!(Call { gaps: vec![], ..call }.gap(0.5), None);
    }

    #[test]
    fn an_objective_applies_where_all_of_its_patterns_fit() {
        let key = call(1.0, Outcome::Completed).key;
        let applies = |scope: &str| {
            let text = format!("metric: error_ratio\nbelow: 1%\n{scope}");
            let objective =
                tidegate_settings::parse_yaml::<Objective>(&text).expect("an objective");
            key.is_of(&objective)
        };
        assert!(applies("") && applies("model: m*") && applies("route: openai/*\nstream: true"));
        assert!(
            !applies("model: n") && !applies("model: m\nstream: false") && !applies("stage: x")
        );
    }
}
