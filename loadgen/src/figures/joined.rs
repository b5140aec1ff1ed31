//! Where the time of calls went: our record of a call joined with the one that the sidecar before the
//! target has of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_settings::Metric;
use tidegate_wire::Record;

use super::timeline::Sum;
use super::{Call, Timeline, Times};

/// What is known of calls that a sidecar saw too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// Calls of which there are both records.
    pub(crate) calls: u64,
    /// Calls of which the sidecar told nothing.
    pub(crate) missing: u64,
    /// Of the joined ones, those of which the two say another status, or other tokens.
    pub(crate) differing: u64,
    /// To the first token of streams, from when a call was sent.
    pub(crate) first_token: Parts,
    /// To the last byte, likewise.
    pub(crate) duration: Parts,
    /// The same first tokens over time.
    pub(crate) over_time: Timeline<Means>,
}

/// The parts of one time. Of each call they add up to the whole; of quantiles that need not hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parts {
    /// Between us and the sidecar, in both directions; and in our own client.
    pub(crate) network: Times,
    /// In the sidecar: what it did itself, and made the call wait for.
    pub(crate) sidecar: Times,
    /// Behind the sidecar: its connection to the model, and the model.
    pub(crate) upstream: Times,
}

/// The parts of the first tokens that were due in one slice of time, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Means {
    pub(crate) calls: u64,
    pub(crate) network_s: f64,
    pub(crate) sidecar_s: f64,
    pub(crate) upstream_s: f64,
}

/// What of a call of ours is needed once the sidecar's record is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sent {
    due: Duration,
    status: Option<u16>,
    tokens: (Option<u64>, Option<u64>),
    first_token_s: Option<f64>,
    duration_s: Option<f64>,
    is_whole: bool,
}

/// What of the sidecar's record is needed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seen {
    status: Option<u16>,
    tokens: (Option<u64>, Option<u64>),
    first_token_s: Option<f64>,
    duration_s: Option<f64>,
    /// What it added, and what it made the call wait for.
    own_s: f64,
}

/// One time, in seconds, by its parts.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Split {
    network_s: f64,
    sidecar_s: f64,
    upstream_s: f64,
}

// === impl Joined ===

impl Joined {
    /// Takes in a call of which there are both records.
    pub(crate) fn record(&mut self, sent: &Sent, seen: &Seen) {
        self.calls += 1;
        self.differing += u64::from(sent.status != seen.status || differs(sent, seen));
        if !sent.is_whole {
            return;
        }
        if let Some(split) = Split::of(sent.duration_s, seen.duration_s, seen.own_s) {
            self.duration.record(&split);
        }
        if let Some(split) = Split::of(sent.first_token_s, seen.first_token_s, seen.own_s) {
            self.first_token.record(&split);
            self.over_time.at(sent.due).record(&split);
        }
    }

    /// Whether no sidecar was asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.calls + self.missing == 0
    }

    /// Takes in another run.
    pub(crate) fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.missing += other.missing;
        self.differing += other.differing;
        self.first_token.add(&other.first_token);
        self.duration.add(&other.duration);
        self.over_time.add(other.over_time);
    }
}

/// Whether both state tokens, and not the same.
fn differs(sent: &Sent, seen: &Seen) -> bool {
    let differ = |one: Option<u64>, other: Option<u64>| one.zip(other).is_some_and(|(a, b)| a != b);
    differ(sent.tokens.0, seen.tokens.0) || differ(sent.tokens.1, seen.tokens.1)
}

// === impl Sent ===

impl Sent {
    pub(crate) fn of(call: &Call) -> Self {
        Self {
            due: call.due,
            status: call.record.status,
            tokens: (call.record.input_tokens, call.record.output_tokens),
            first_token_s: call.seconds(Metric::ServiceTimeToFirstToken),
            duration_s: call.seconds(Metric::ServiceDuration),
            is_whole: call.is_whole(),
        }
    }
}

// === impl Seen ===

impl Seen {
    pub(crate) fn of(record: &Record) -> Self {
        let waits =
            [record.overhead_s, record.wait_queue_s, record.wait_pool_s, record.wait_retry_s];
        Self {
            status: record.status,
            tokens: (record.input_tokens, record.output_tokens),
            first_token_s: record.time_to_first_token_s,
            duration_s: record.duration_s,
            own_s: waits.into_iter().flatten().sum(),
        }
    }
}

// === impl Split ===

impl Split {
    /// Where both measured the time. The two clocks are read a little before and after what they time, so
    /// a part may seem to be a little less than nothing.
    fn of(sent: Option<f64>, seen: Option<f64>, own_s: f64) -> Option<Self> {
        let (sent, seen) = (sent?, seen?);
        let sidecar_s = own_s.min(seen);
        Some(Self { network_s: (sent - seen).max(0.0), sidecar_s, upstream_s: seen - sidecar_s })
    }
}

// === impl Parts ===

impl Parts {
    fn record(&mut self, split: &Split) {
        self.network.seconds(split.network_s);
        self.sidecar.seconds(split.sidecar_s);
        self.upstream.seconds(split.upstream_s);
    }

    fn add(&mut self, other: &Self) {
        self.network.add(&other.network);
        self.sidecar.add(&other.sidecar);
        self.upstream.add(&other.upstream);
    }

    /// Each with its name.
    pub(crate) fn all(&self) -> [(&'static str, &Times); 3] {
        [("network", &self.network), ("sidecar", &self.sidecar), ("upstream", &self.upstream)]
    }
}

// === impl Means ===

impl Means {
    fn record(&mut self, split: &Split) {
        self.calls += 1;
        self.network_s += split.network_s;
        self.sidecar_s += split.sidecar_s;
        self.upstream_s += split.upstream_s;
    }

    /// Network, sidecar and upstream, on average; nothing where there were no calls.
    pub(crate) fn parts(&self) -> Option<[f64; 3]> {
        let mean = |sum: f64| sum / self.calls as f64;
        (self.calls > 0).then(|| [self.network_s, self.sidecar_s, self.upstream_s].map(mean))
    }
}

impl Sum for Means {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.network_s += other.network_s;
        self.sidecar_s += other.sidecar_s;
        self.upstream_s += other.upstream_s;
    }
}

#[cfg(test)]
mod tests {
    use tidegate_wire::Outcome;

    use super::*;
    use crate::figures::tests::call;

    /// Sent 100 ms after it was due, and over 900 ms after that.
    fn ours() -> Call {
        let mut call = call(1.0, Outcome::Completed);
        call.record.status = Some(200);
        call.record.time_to_first_token_s = Some(0.4);
        call
    }

    fn theirs() -> Record {
        Record {
            status: Some(200),
            output_tokens: Some(10),
            duration_s: Some(0.85),
            time_to_first_token_s: Some(0.28),
            overhead_s: Some(0.01),
            wait_queue_s: Some(0.04),
            ..Record::default()
        }
    }

    fn near(times: &Times, seconds: f64) -> bool {
        times.at(1.0).is_some_and(|time| (time - seconds).abs() < 0.002)
    }

    #[test]
    fn the_parts_of_a_call_add_up_to_it() {
        let mut joined = Joined::default();
        joined.record(&Sent::of(&ours()), &Seen::of(&theirs()));
        let Joined { first_token, duration, .. } = &joined;
        assert!(near(&duration.network, 0.05) && near(&duration.sidecar, 0.05), "{duration:?}");
        assert!(near(&duration.upstream, 0.8), "{duration:?}");
        assert!(near(&first_token.network, 0.02) && near(&first_token.upstream, 0.23));
        assert_eq!((joined.calls, joined.differing), (1, 0));
        let (_, means) = joined.over_time.slices().last().expect("a slice");
        assert_eq!(means.parts().map(|parts| (parts[1] * 1e3).round()), Some(50.0));
    }

    #[test]
    fn it_is_counted_where_the_two_do_not_agree() {
        let mut joined = Joined::default();
        let seen = [
            Record { status: Some(502), ..theirs() },
            Record { output_tokens: Some(11), ..theirs() },
            Record { output_tokens: None, ..theirs() },
        ];
        seen.iter().for_each(|record| joined.record(&Sent::of(&ours()), &Seen::of(record)));
        assert_eq!((joined.calls, joined.differing), (3, 2), "who says nothing does not disagree");
    }

    #[test]
    fn several_runs_are_as_one() {
        let one = |calls: usize| {
            let mut joined = Joined::default();
            (0..calls).for_each(|_| joined.record(&Sent::of(&ours()), &Seen::of(&theirs())));
            joined
        };
        let mut sum = one(2);
        sum.add(one(3));
        let whole = one(5);
        assert_eq!((sum.calls, &sum.duration), (5, &whole.duration));
        assert_eq!(sum.first_token, whole.first_token);
    }
}
