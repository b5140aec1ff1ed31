//! What load generator, sidecar and simulator each counted, side by side.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tidegate_loadgen::CallRecord;
use tidegate_loadgen::report::{Grid, time};
use tidegate_wire::{ErrorOrigin, Outcome, Record, TraceId};

/// The load generator's calls by their trace.
pub(super) type Sent = HashMap<TraceId, CallRecord<'static>>;
/// The sidecar's records by their trace.
pub(super) type Recorded = HashMap<TraceId, Record>;

/// A row of the comparison: its name, and which tokens of a record it adds up.
type Tokens = (&'static str, fn(&Record) -> Option<u64>);

/// What each of the three counted.
pub(super) struct Books {
    pub(super) sent: Sent,
    pub(super) recorded: Recorded,
    pub(super) served: Served,
    /// Records that the sidecar says it could not hand over.
    pub(super) dropped: u64,
    /// What the sidecar took of the machine, where that can be known.
    pub(super) cost: Option<Cost>,
}

/// What a process took of the machine.
#[derive(Clone, Copy)]
pub(super) struct Cost {
    pub(super) cpu: Duration,
    pub(super) peak_memory_bytes: u64,
}

/// What the simulator says it served.
#[derive(Deserialize)]
pub(super) struct Served {
    pub(super) calls: u64,
    input_tokens: u64,
    output_tokens: u64,
}

/// Reads the calls that the load generator wrote down.
pub(super) fn sent(file: &Path) -> anyhow::Result<Sent> {
    Ok(lines(file)?.into_iter().map(|call: CallRecord| (call.record.trace_id, call)).collect())
}

/// Reads the records that the sidecar wrote down, those of rotated files among them.
pub(super) fn recorded(file: &Path) -> anyhow::Result<Recorded> {
    let mut recorded = Recorded::new();
    for file in rotations(file) {
        recorded.extend(lines(&file)?.into_iter().map(|record: Record| (record.trace_id, record)));
    }
    Ok(recorded)
}

/// Whether a call stands below the line of the error ratio, as users see it.
pub(super) fn counts(call: &Record) -> bool {
    let is_theirs = call.error_origin == Some(ErrorOrigin::Client);
    !is_theirs && call.outcome != Some(Outcome::Abandoned)
}

/// What the sidecar's metrics say of records that were lost.
pub(super) fn dropped(metrics: &str) -> u64 {
    metrics
        .lines()
        .filter(|line| line.starts_with("tidegate_records_dropped_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as u64
}

fn rotations(file: &Path) -> impl Iterator<Item = PathBuf> {
    let rotated = |number: u8| PathBuf::from(format!("{}.{number}", file.display()));
    [file.to_owned(), rotated(1), rotated(2)].into_iter().filter(|file| file.exists())
}

fn lines<T: DeserializeOwned>(file: &Path) -> anyhow::Result<Vec<T>> {
    let what = || format!("cannot read {}", file.display());
    let text = fs::read_to_string(file).with_context(what)?;
    // The last line may still be on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).with_context(what)).collect()
}

// === impl Books ===

impl Books {
    /// Calls that were sent and for which the sidecar has a record.
    fn matched(&self) -> usize {
        self.sent.keys().filter(|trace| self.recorded.contains_key(trace)).count()
    }

    /// Whether all three agree on the number of calls.
    pub(super) fn are_equal(&self) -> bool {
        let sent = self.sent.len();
        sent == self.matched() && sent == self.recorded.len() && sent as u64 == self.served.calls
    }

    /// The last line of a demo.
    pub(super) fn verdict(&self) -> String {
        format!(
            "sent={} recorded={} served={} {}",
            self.sent.len(),
            self.matched(),
            self.served.calls,
            if self.are_equal() { "equal" } else { "differ" }
        )
    }

    /// Says what each of them saw.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\nsidecar / load generator (from sending on); difference for each call")?;
        writeln!(out, "{}", self.by_model())?;
        writeln!(out, "{}", self.by_outcome())?;
        writeln!(
            out,
            "Not every answer states its tokens: streams without include_usage and /generate do not.",
        )?;
        let overhead = Times::of(self.recorded.values().filter_map(|record| record.overhead_s));
        writeln!(
            out,
            "overhead, as the sidecar says: p50 {}, p99 {}; records dropped: {}",
            time(overhead.at(0.5)),
            time(overhead.at(0.99)),
            self.dropped,
        )?;
        let Some(cost) = self.cost else { return Ok(()) };
        writeln!(
            out,
            "cost of the sidecar: {} of CPU for each call, {:.1} MiB of memory at most",
            time(Some(cost.cpu.as_secs_f64() / self.sent.len().max(1) as f64)),
            cost.peak_memory_bytes as f64 / f64::from(1 << 20),
        )
    }

    fn by_model(&self) -> Grid {
        let mut models: BTreeMap<&str, Pairs> = BTreeMap::new();
        let mut all = Pairs::default();
        for (trace, call) in &self.sent {
            let record = self.recorded.get(trace);
            models.entry(&call.label).or_default().add(call, record);
            all.add(call, record);
        }
        let mut grid = Grid::default();
        grid.row(["", "", "duration", "", "TTFT", "", "difference", ""]);
        grid.row(["model", "calls", "p50", "p99", "p50", "p99", "p50", "p99"]);
        for (model, pairs) in &models {
            grid.row(pairs.row(model));
        }
        grid.row(all.row("all"));
        grid
    }

    fn by_outcome(&self) -> Grid {
        let mut grid = Grid::default();
        grid.row(["", "sidecar", "load generator", "simulator"]);
        for outcome in Outcome::ALL {
            let recorded =
                self.recorded.values().filter(|one| one.outcome == Some(outcome)).count();
            let sent = self.sent.values().filter(|one| one.record.outcome == Some(outcome)).count();
            grid.row([outcome.as_str(), &recorded.to_string(), &sent.to_string(), ""]);
        }
        let served = [self.served.input_tokens, self.served.output_tokens];
        let tokens: [Tokens; 2] =
            [("input tokens", |r| r.input_tokens), ("output tokens", |r| r.output_tokens)];
        for ((name, tokens), served) in tokens.into_iter().zip(served) {
            let recorded: u64 = self.recorded.values().filter_map(tokens).sum();
            let sent: u64 = self.sent.values().filter_map(|call| tokens(&call.record)).sum();
            grid.row([name, &recorded.to_string(), &sent.to_string(), &served.to_string()]);
        }
        grid
    }
}

/// What both ends say of the calls of a model.
#[derive(Default)]
struct Pairs {
    calls: Sides<usize>,
    duration: Sides<Times>,
    first_token: Sides<Times>,
    difference: Times,
}

#[derive(Default)]
struct Sides<T> {
    sidecar: T,
    load: T,
}

/// Some times, exactly.
#[derive(Default)]
pub(super) struct Times(Vec<f64>);

// === impl Pairs ===

impl Pairs {
    fn add(&mut self, call: &CallRecord, record: Option<&Record>) {
        self.calls.load += 1;
        let completed = |record: &Record| record.outcome == Some(Outcome::Completed);
        // A call that waited in the load generator did not wait for the sidecar.
        let sent = |time: Option<f64>| time.map(|time| time - call.send_lag_s);
        let duration = sent(call.record.duration_s).filter(|_| completed(&call.record));
        if completed(&call.record) {
            self.duration.load.0.extend(duration);
            self.first_token.load.0.extend(sent(call.record.time_to_first_token_s));
        }
        let Some(record) = record else { return };
        self.calls.sidecar += 1;
        if completed(record) {
            self.duration.sidecar.0.extend(record.duration_s);
            self.first_token.sidecar.0.extend(record.time_to_first_token_s);
            self.difference.0.extend(duration.zip(record.duration_s).map(|(ours, its)| ours - its));
        }
    }

    fn row(&self, name: &str) -> [String; 8] {
        let both = |times: &Sides<Times>, quantile| {
            format!("{} / {}", time(times.sidecar.at(quantile)), time(times.load.at(quantile)))
        };
        [
            name.to_owned(),
            format!("{} / {}", self.calls.sidecar, self.calls.load),
            both(&self.duration, 0.5),
            both(&self.duration, 0.99),
            both(&self.first_token, 0.5),
            both(&self.first_token, 0.99),
            time(self.difference.at(0.5)),
            time(self.difference.at(0.99)),
        ]
    }
}

// === impl Times ===

impl Times {
    pub(super) fn of(times: impl Iterator<Item = f64>) -> Self {
        Self(times.collect())
    }

    /// The smallest time at or below which this part of all lies.
    pub(super) fn at(&self, quantile: f64) -> Option<f64> {
        let mut times = self.0.clone();
        times.sort_by(f64::total_cmp);
        let rank = (quantile * times.len() as f64).ceil() as usize;
        times.get(rank.saturating_sub(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn record(trace: u8, duration_s: f64) -> Record {
        Record {
            trace_id: tidegate_wire::Id([trace; 16]),
            outcome: Some(Outcome::Completed),
            duration_s: Some(duration_s),
            ..Record::default()
        }
    }

    fn books(sent: &[Record], recorded: &[Record], served: u64) -> Books {
        let call = |record: &Record| CallRecord {
            record: Cow::Owned(record.clone()),
            label: "m".into(),
            send_lag_s: 0.0,
            read_lag_s: None,
        };
        Books {
            sent: sent.iter().map(|one| (one.trace_id, call(one))).collect(),
            recorded: recorded.iter().map(|one| (one.trace_id, one.clone())).collect(),
            served: Served { calls: served, input_tokens: 0, output_tokens: 0 },
            dropped: 0,
            cost: None,
        }
    }

    #[test]
    fn books_with_the_same_calls_are_equal() {
        let calls = [record(1, 1.0), record(2, 1.0)];
        let verdict = books(&calls, &calls, 2).verdict();
        assert_eq!(verdict, "sent=2 recorded=2 served=2 equal");
    }

    #[test]
    fn a_call_without_a_record_shows() {
        let calls = [record(1, 1.0), record(2, 1.0)];
        let verdict = books(&calls, &calls[..1], 2).verdict();
        assert_eq!(verdict, "sent=2 recorded=1 served=2 differ");
    }

    #[test]
    fn a_record_of_a_call_that_nobody_sent_shows() {
        let calls = [record(1, 1.0), record(2, 1.0)];
        let verdict = books(&calls[..1], &calls, 1).verdict();
        assert_eq!(verdict, "sent=1 recorded=1 served=1 differ");
    }

    #[test]
    fn the_difference_is_of_each_call_and_not_of_quantiles() {
        let sent = [record(1, 1.010), record(2, 2.030)];
        let recorded = [record(1, 1.0), record(2, 2.0)];
        let mut pairs = Pairs::default();
        let books = books(&sent, &recorded, 2);
        for (trace, call) in &books.sent {
            pairs.add(call, books.recorded.get(trace));
        }
        let difference = pairs.difference.at(0.99).expect("two calls match");
        assert!((difference - 0.030).abs() < 1e-9, "{difference}");
    }

    #[test]
    fn drops_add_up_over_exporters() {
        let metrics = "# TYPE tidegate_records_dropped_total counter\n\
            tidegate_records_dropped_total{exporter=\"jsonl\"} 2\n\
            tidegate_records_dropped_total{exporter=\"otlp\"} 3\n\
            tidegate_calls_total{model=\"m\"} 9\n";
        assert_eq!(dropped(metrics), 5);
    }

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let times = Times((1..=100).map(f64::from).collect());
        assert_eq!((times.at(0.5), times.at(0.99)), (Some(50.0), Some(99.0)));
        assert_eq!(Times::default().at(0.5), None);
    }
}
