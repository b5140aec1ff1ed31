//! How much the simulated server can do in truth: its capacity and queue driven in virtual time, by
//! more calls than anybody would wait for.
//!
//! What a search for the capacity finds on a real clock can be held against this. Calls come by
//! chance, as those of a load test at a rate; no call takes longer than the model says, nobody is late,
//! and every answer states its usage.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tidegate_settings::{Metric, Objective, Objectives, Unit};
use tidegate_wire::{ErrorOrigin, Outcome, Record};

use super::Options;
use crate::figures::{Call, Key};
use crate::schedule::{STAGE, Schedule};
use crate::search::{Goals, Unsearchable};
use crate::verdict::is_good;
use crate::workload::{Entry, Mix};

/// The rate is known to this share of itself.
const PRECISION: f64 = 1e-3;
/// Before, it is looked for by so much fewer calls, to this share of itself.
const FEWER: u64 = 20;
const ABOUT: f64 = 0.03;
/// A server of which every rate up to this is kept has no limit that objectives could tell.
const FASTEST: f64 = 1e6;

/// The highest rate at which the simulated server keeps all objectives.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// Calls a second; 0 where the objectives are missed by a call that comes alone, and infinite where
    /// no rate is too high.
    pub rate: f64,
    /// The objectives that are missed at the next higher rate.
    pub missed_beyond: Vec<String>,
    /// Calls that came at each rate.
    pub calls: u64,
}

/// A load that the simulated server is under, in virtual time.
pub(crate) struct Rehearsal<'a> {
    options: &'a Options,
    mix: &'a Mix,
    goals: &'a Goals,
    kinds: Vec<KindOfCall>,
}

/// Calls of one entry of the mix.
struct KindOfCall {
    /// One that did not wait.
    model: Call,
    /// From the start of its sequence to its end; absent where it takes no place among the sequences.
    service: Option<Duration>,
    /// Of each objective, whether it applies.
    applies: Vec<bool>,
}

/// What calls of a rehearsal came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcomes {
    /// Of each objective, the calls that did as it says, and all that it is about.
    pub(crate) scores: Vec<(u64, u64)>,
    /// When each call was due and when it ended.
    #[cfg(test)]
    spans: Vec<(Duration, Duration)>,
}

/// So many sequences at once, then a queue, then no more: [`Capacity`](super::capacity::Capacity) in
/// virtual time. All times are in nanoseconds.
struct Server {
    sequences: usize,
    places: usize,
    /// When each sequence comes free.
    free: BinaryHeap<Reverse<u64>>,
    /// When each call that is inside, running or waiting, will have left.
    ends: BinaryHeap<Reverse<u64>>,
}

// === impl Truth ===

impl Truth {
    /// That of a server under this mix, from so many calls at each rate.
    pub fn of(
        options: &Options,
        mix: &Mix,
        objectives: &Objectives,
        calls: u64,
    ) -> Result<Self, Unsearchable> {
        let goals = Goals::of(objectives)?;
        let rehearsal = Rehearsal::new(options, mix, &goals)?;
        let few = (calls / FEWER).max(1);
        let (mut low, mut high) = (0.0, rehearsal.fastest() / 512.0);
        while rehearsal.missed(high, few).is_empty() {
            if high >= FASTEST {
                return Ok(Self { rate: f64::INFINITY, missed_beyond: Vec::new(), calls });
            }
            (low, high) = (high, high * 2.0);
        }
        if low == 0.0 {
            return Ok(Self { rate: 0.0, missed_beyond: rehearsal.missed(high, few), calls });
        }
        // What few calls say is not far from the truth; all of them tell where in there it is.
        (low, high) = rehearsal.narrow((low, high), few, ABOUT);
        while !rehearsal.missed(low, calls).is_empty() {
            low /= 1.0 + ABOUT;
        }
        while rehearsal.missed(high, calls).is_empty() {
            high *= 1.0 + ABOUT;
        }
        (low, high) = rehearsal.narrow((low, high), calls, PRECISION);
        Ok(Self { rate: low, missed_beyond: rehearsal.missed(high, calls), calls })
    }
}

impl fmt::Display for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, missed_beyond, calls } = self;
        let missed = missed_beyond.join("; ");
        match *rate {
            0.0 => write!(f, "0 calls/s: not even calls that come alone keep {missed}"),
            rate if rate.is_infinite() => write!(f, "inf calls/s: no rate is too high"),
            rate => write!(
                f,
                "{rate:.2} calls/s: the highest rate that keeps all objectives, by {calls} calls in virtual \
                 time; beyond, it misses {missed}"
            ),
        }
    }
}

// === impl Rehearsal ===

impl<'a> Rehearsal<'a> {
    pub(crate) fn new(
        options: &'a Options,
        mix: &'a Mix,
        goals: &'a Goals,
    ) -> Result<Self, Unsearchable> {
        let objectives = &goals.objectives().objectives;
        if let Some(other) = objectives.iter().find(|one| !is_modelled(one.metric)) {
            return Err(Unsearchable::NotModelled { metric: other.metric });
        }
        let kinds = mix.entries().iter().map(|entry| KindOfCall::of(entry, options, objectives));
        Ok(Self { options, mix, goals, kinds: kinds.collect() })
    }

    /// Calls a second that would keep every sequence busy.
    fn fastest(&self) -> f64 {
        let shares = self.mix.entries().iter().map(Entry::share);
        let all: f64 = shares.clone().sum();
        let busy = shares
            .zip(&self.kinds)
            .map(|(share, kind)| share / all * kind.service.unwrap_or_default().as_secs_f64());
        let busy: f64 = busy.sum();
        if busy > 0.0 { self.options.capacity as f64 / busy } else { FASTEST }
    }

    /// Two rates as near to each other as that, of which the lower keeps all and the higher does not.
    fn narrow(&self, (mut low, mut high): (f64, f64), calls: u64, precision: f64) -> (f64, f64) {
        while high / low > 1.0 + precision {
            let middle = (low * high).sqrt();
            if self.missed(middle, calls).is_empty() {
                low = middle;
            } else {
                high = middle;
            }
        }
        (low, high)
    }

    /// What is missed by so many calls at this rate.
    fn missed(&self, rate: f64, calls: u64) -> Vec<String> {
        let outcomes =
            self.offer(rate, Duration::ZERO, |number, _| number < calls, self.options.seed);
        self.goals.missed(&outcomes.scores)
    }

    /// What the calls of a stretch of time come to, once others have come for a while.
    #[cfg(test)]
    pub(crate) fn step(
        &self,
        rate: f64,
        (warm_up, length): (Duration, Duration),
        seed: u64,
    ) -> Outcomes {
        self.offer(rate, warm_up, |_, due| due < warm_up + length, seed)
    }

    /// Lets calls come by chance, as long as this holds of number and time, and counts those that were
    /// due after `warm_up`.
    fn offer(
        &self,
        rate: f64,
        warm_up: Duration,
        goes_on: impl Fn(u64, Duration) -> bool,
        seed: u64,
    ) -> Outcomes {
        let mut server = Server::new(self.options);
        let mut random = SmallRng::seed_from_u64(!seed);
        let arrivals = Schedule::Poisson { rate }.arrivals(None, seed).expect("time decides them");
        let objectives = self.goals.objectives();
        let mut outcomes = Outcomes::of(objectives.objectives.len());
        // One of each kind for all calls of it: they differ in their times alone.
        let mut calls: Vec<_> = self.kinds.iter().map(|kind| kind.model.clone()).collect();
        for (number, due) in (0..).zip(arrivals) {
            if !goes_on(number, due) {
                break;
            }
            let number = self.mix.number_at(random.random());
            let (kind, call) = (&self.kinds[number], &mut calls[number]);
            let fails = random.random::<f64>() < self.options.error_rate;
            let wait = kind.wait(due, fails, &mut server);
            kind.set(call, wait);
            if due >= warm_up {
                outcomes.count(call, kind, objectives);
            }
            #[cfg(test)]
            outcomes.remember(due, call);
        }
        outcomes
    }
}

/// Whether the model says anything of it. When the first event comes is a dialect's own business.
fn is_modelled(metric: Metric) -> bool {
    !matches!(metric, Metric::TimeToFirstEvent | Metric::ServiceTimeToFirstEvent)
}

// === impl KindOfCall ===

impl KindOfCall {
    fn of(entry: &Entry, options: &Options, objectives: &[Objective]) -> Self {
        let key = Key::of_entry(entry, STAGE);
        let tokens = options.output_tokens.min(u64::from(entry.output_tokens.get())).max(1);
        let between = options.tpot * (tokens - 1) as u32;
        let service = match (entry.call.generates(), entry.call.counts()) {
            (true, _) => Some(options.ttft + between),
            (_, true) => None,
            _ => Some(options.ttft),
        };
        let duration = service.unwrap_or_default().as_secs_f64();
        let first = Some(options.ttft.as_secs_f64()).filter(|_| entry.stream);
        let record = Record {
            outcome: Some(Outcome::Completed),
            stream: Some(entry.stream),
            duration_s: Some(duration),
            time_to_first_byte_s: Some(if entry.stream { 0.0 } else { duration }),
            time_to_first_token_s: first,
            time_to_first_visible_token_s: first,
            time_per_output_token_s: first
                .filter(|_| tokens > 1)
                .map(|_| options.tpot.as_secs_f64()),
            ..Record::default()
        };
        let gaps = if entry.stream && tokens > 1 { vec![options.tpot] } else { Vec::new() };
        let applies = objectives.iter().map(|objective| key.is_of(objective)).collect();
        let (due, send_lag) = (Duration::ZERO, Duration::ZERO);
        Self {
            model: Call {
                key,
                due,
                record,
                send_lag,
                read_lag: None,
                gaps,
                kind: None,
                answer: None,
            },
            service,
            applies,
        }
    }

    /// How long one that comes at this time waits for its sequence; nothing where it fails.
    fn wait(&self, due: Duration, fails: bool, server: &mut Server) -> Option<Duration> {
        match self.service {
            _ if fails => None,
            Some(service) => server.admit(due, service),
            None => Some(Duration::ZERO),
        }
    }

    /// Makes a call one that waited so long, or failed.
    fn set(&self, call: &mut Call, wait: Option<Duration>) {
        let (record, model) = (&mut call.record, &self.model.record);
        let later = |time: Option<f64>| Some(time? + wait.unwrap_or_default().as_secs_f64());
        record.outcome = Some(if wait.is_some() { Outcome::Completed } else { Outcome::Failed });
        record.error_origin = wait.is_none().then_some(ErrorOrigin::Upstream);
        record.duration_s = later(model.duration_s);
        record.time_to_first_byte_s = later(model.time_to_first_byte_s);
        record.time_to_first_token_s = later(model.time_to_first_token_s);
        record.time_to_first_visible_token_s = later(model.time_to_first_visible_token_s);
    }
}

// === impl Outcomes ===

impl Outcomes {
    fn of(objectives: usize) -> Self {
        let mut outcomes = Self::default();
        outcomes.scores.resize(objectives, (0, 0));
        outcomes
    }

    /// Takes one call in.
    fn count(&mut self, call: &Call, kind: &KindOfCall, objectives: &Objectives) {
        for (at, objective) in objectives.objectives.iter().enumerate() {
            if !kind.applies[at] {
                continue;
            }
            let did = match objective.metric {
                Metric::ErrorRatio => Some(!call.is_bad()),
                Metric::Goodput => Some(is_good(call, objectives)),
                metric => Self::was_below(call, metric, objective),
            };
            let Some(did) = did else { continue };
            self.scores[at].0 += u64::from(did);
            self.scores[at].1 += 1;
        }
    }

    #[cfg(test)]
    fn remember(&mut self, due: Duration, call: &Call) {
        let lasted = call.record.duration_s.unwrap_or_default();
        self.spans.push((due, due + Duration::from_secs_f64(lasted)));
    }

    /// The calls in flight, looked at from time to time.
    #[cfg(test)]
    pub(crate) fn in_flight(&self, from: Duration, to: Duration) -> Vec<(Duration, u64)> {
        const LOOKS: u32 = 50;
        let mut due: Vec<_> = self.spans.iter().map(|span| span.0).collect();
        let mut ends: Vec<_> = self.spans.iter().map(|span| span.1).collect();
        due.sort();
        ends.sort();
        let before = |times: &[Duration], at| times.partition_point(|time| *time <= at) as u64;
        let looks = (0..=LOOKS).map(|look| from + (to - from) * look / LOOKS);
        looks.map(|at| (at, before(&due, at) - before(&ends, at))).collect()
    }

    /// Whether a time of a whole answer was below its limit.
    fn was_below(call: &Call, metric: Metric, objective: &Objective) -> Option<bool> {
        let limit = objective.below.filter(|_| metric.unit() == Unit::Time)?.value();
        let measured = match metric {
            Metric::Gap => call.gap(objective.quantile.unwrap_or(1.0)),
            metric => call.seconds(metric),
        };
        Some(measured.filter(|_| call.is_whole())? < limit)
    }
}

// === impl Server ===

impl Server {
    fn new(options: &Options) -> Self {
        let sequences = options.capacity.max(1);
        Self {
            sequences,
            places: sequences.saturating_add(options.queue),
            free: BinaryHeap::new(),
            ends: BinaryHeap::new(),
        }
    }

    /// How long a call waits for its sequence, unless too many wait already.
    fn admit(&mut self, now: Duration, service: Duration) -> Option<Duration> {
        let (now, service) = (now.as_nanos() as u64, service.as_nanos() as u64);
        while self.ends.peek().is_some_and(|end| end.0 <= now) {
            self.ends.pop();
        }
        if self.ends.len() >= self.places {
            return None;
        }
        let start = match self.free.len() < self.sequences {
            true => now,
            false => self.free.pop().map_or(now, |free| free.0.max(now)),
        };
        self.free.push(Reverse(start + service));
        self.ends.push(Reverse(start + service));
        Some(Duration::from_nanos(start - now))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::{Instant, sleep, sleep_until};

    use super::*;
    use crate::sim::capacity::Capacity;

    fn options(capacity: usize, queue: usize) -> Options {
        Options {
            ttft: Duration::from_millis(100),
            tpot: Duration::from_millis(10),
            output_tokens: 11,
            capacity,
            queue,
            ..Options::default()
        }
    }

    fn truth(options: &Options, list: &str) -> Truth {
        let mix = Mix::of_model("gpt-4o");
        let objectives = Objectives::parse(&format!("objectives: [{list}]")).expect("good ones");
        Truth::of(options, &mix, &objectives, 100_000).expect("they can be searched")
    }

    #[tokio::test(start_paused = true)]
    async fn it_lets_calls_wait_and_refuses_them_as_the_simulator_itself_does() {
        let options = options(3, 4);
        let service = Duration::from_millis(200);
        let capacity = Arc::new(Capacity::new(options.capacity, options.queue));
        let (mut server, start) = (Server::new(&options), Instant::now());
        let arrivals =
            Schedule::Poisson { rate: 16.0 }.arrivals(None, 7).expect("time decides them");
        let mut last = Duration::ZERO;
        let waits: Vec<_> = arrivals
            .take(3000)
            .map(|due| {
                // The clock of tests has milliseconds, and who comes as another leaves has no order.
                last = last.max(Duration::from_millis(due.as_millis() as u64));
                while server.ends.iter().any(|end| u128::from(end.0) == last.as_nanos()) {
                    last += Duration::from_millis(1);
                }
                (last, server.admit(last, service))
            })
            .collect();
        let calls = waits.iter().map(|(due, _)| {
            let (capacity, due) = (capacity.clone(), *due);
            tokio::spawn(async move {
                sleep_until(start + due).await;
                let slot = capacity.admit().await.ok()?;
                let waited = start.elapsed() - due;
                sleep(service).await;
                drop(slot);
                Some(waited)
            })
        });
        let calls: Vec<_> = calls.collect();
        let (mut refused, mut waited) = (0, 0);
        for ((due, expected), call) in waits.into_iter().zip(calls) {
            let told = call.await.expect("no call panics");
            assert_eq!(told, expected, "due at {due:?}");
            refused += u32::from(told.is_none());
            waited += u32::from(told > Some(Duration::ZERO));
        }
        assert!(refused > 100 && waited > 1000, "{refused} refused, {waited} waited");
    }

    #[test]
    fn a_server_that_nobody_waits_for_is_bounded_by_its_sequences() {
        // Each call takes 200 ms, so ten sequences answer fifty a second; errors come beyond that.
        let told = truth(&options(10, 10), "{ metric: error_ratio, below: 1% }");
        assert!((40.0..50.0).contains(&told.rate), "{told:?}");
        assert_eq!(told.missed_beyond, ["error_ratio below 1%"]);
    }

    #[test]
    fn a_single_sequence_is_the_queue_of_the_books() {
        // M/D/1 without a queue is Erlang's B: at an offered load a it refuses a/(1+a) of all, and one in
        // ten where a is 1/9.
        let told = truth(&options(1, 0), "{ metric: error_ratio, below: 10% }");
        assert!((told.rate * 0.2 * 9.0 - 1.0).abs() < 0.03, "{told:?}");
        // With one, a call waits at all with the probability of its load: half of them at half.
        let median = "{ metric: time_to_first_token, quantile: 0.5, below: 100.001ms }";
        let told = truth(&options(1, 1000), median);
        assert!((told.rate * 0.2 / 0.5 - 1.0).abs() < 0.03, "{told:?}");
    }

    #[test]
    fn what_one_call_alone_misses_has_no_rate_and_what_nothing_misses_has_no_bound() {
        let alone = "{ metric: duration, quantile: 0.5, below: 199ms }";
        assert_eq!(truth(&options(4, 4), alone).rate, 0.0);
        let never = "{ metric: time_per_output_token, quantile: 0.5, below: 1s }, \
                     { metric: error_ratio, below: 100% }";
        assert_eq!(truth(&options(4, 4), never).rate, f64::INFINITY);
    }
}
