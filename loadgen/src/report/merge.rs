//! One report of several: shards of one load that ran at the same time on different machines.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Ended, Generator, Report, Setup};
use crate::budget::Spent;
use crate::figures::Figures;
use crate::plan::Plan;
use crate::schedule::Schedule;

/// Why reports are no shards of one load.
#[derive(Debug, thiserror::Error)]
pub enum Unmergeable {
    /// There is nothing to join.
    #[error("there is no report to join")]
    Nothing,
    /// Some run is in two of them.
    #[error("report {number} has a run in it that another one has, too: it would count twice")]
    Twice {
        /// Which one, counted from 1.
        number: usize,
    },
    /// They are not of one load.
    #[error("report {number} is of another load than the first: its {what} differs")]
    Differs {
        /// Which one, counted from 1.
        number: usize,
        /// In what.
        what: &'static str,
    },
}

impl Report {
    /// Joins shards of one load: counts and distributions are added, nothing is averaged.
    pub fn merge(shards: Vec<Self>) -> Result<Self, Unmergeable> {
        let first = shards.first().ok_or(Unmergeable::Nothing)?;
        let mut seen = BTreeSet::new();
        for (number, shard) in (1..).zip(&shards) {
            if !shard.run.ids.iter().all(|id| seen.insert(id.clone())) {
                return Err(Unmergeable::Twice { number });
            }
            if let Some(what) = difference(first, shard) {
                return Err(Unmergeable::Differs { number, what });
            }
        }
        let invalid = (1..).zip(&shards).find_map(|(number, shard)| {
            let reason = shard.invalid.as_ref()?;
            Some(if shards.len() == 1 {
                reason.clone()
            } else {
                format!("report {number}: {reason}")
            })
        });
        let (run, slo) = (setup(&shards), first.slo.clone());
        let ended = shards.iter().map(|shard| shard.ended).max().unwrap_or(Ended::Complete);
        let generator = generator(&shards);
        let mut figures = Figures::default();
        shards.into_iter().for_each(|shard| figures.add(shard.figures));
        let sum = Self::new(run, ended, generator, slo, figures);
        Ok(Self { invalid: invalid.or(sum.invalid.clone()), ..sum })
    }
}

/// In what these are no shards of one load.
fn difference(one: &Report, other: &Report) -> Option<&'static str> {
    let (run, others) = (&one.run, &other.run);
    let parts = [
        ("schedule", run.schedule == others.schedule),
        ("duration", run.duration_s == others.duration_s),
        ("stages", run.stages == others.stages),
        ("warm-up", run.warm_up_s == others.warm_up_s),
        ("mix", run.mix == others.mix),
        ("file of calls", run.from == others.from),
        ("file of objectives", one.slo == other.slo),
    ];
    parts.into_iter().find_map(|(what, is_same)| (!is_same).then_some(what))
}

/// In what these are not two runs of one load, which may have lasted longer or been judged otherwise.
pub(super) fn difference_of_load(one: &Report, other: &Report) -> Option<&'static str> {
    let (run, others) = (&one.run, &other.run);
    let is_same_rate = match (run.rate, others.rate) {
        (Some(rate), Some(other)) => (rate / other - 1.0).abs() < 1e-6,
        (rate, other) => rate == other,
    };
    let closed = Schedule::Closed.as_str();
    let parts = [
        ("schedule", run.schedule == others.schedule),
        ("rate", is_same_rate),
        ("stages", run.stages == others.stages),
        ("number of users", run.schedule != closed || run.users == others.users),
        ("mix", run.mix == others.mix),
        ("file of calls", run.from == others.from),
    ];
    parts.into_iter().find_map(|(what, is_same)| (!is_same).then_some(what))
}

impl Report {
    /// In what the run is none of this plan, if so.
    pub(crate) fn difference_of_plan(&self, plan: &Plan) -> Option<&'static str> {
        let run = Setup::of(plan, "", self.run.began, Duration::ZERO, Duration::ZERO);
        let others = &self.run;
        let parts = [
            ("target", run.target == others.target),
            ("schedule", run.schedule == others.schedule),
            ("rate", run.rate == others.rate),
            ("stages", run.stages == others.stages),
            ("number of users", run.users == others.users),
            ("seed", run.seed == others.seed),
            ("duration", run.duration_s == others.duration_s),
            ("warm-up", run.warm_up_s == others.warm_up_s),
            ("mix", run.mix == others.mix),
            ("file of calls", run.from == others.from),
            ("file of objectives", self.slo == plan.objectives),
        ];
        parts.into_iter().find_map(|(what, is_same)| (!is_same).then_some(what))
    }
}

fn setup(shards: &[Report]) -> Setup {
    let runs = || shards.iter().map(|shard| &shard.run);
    let targets: BTreeSet<_> = runs().map(|run| &*run.target).collect();
    let rates: Option<Vec<_>> = runs().map(|run| run.rate).collect();
    let first = shards[0].run.clone();
    Setup {
        ids: runs().flat_map(|run| run.ids.clone()).collect(),
        target: targets.into_iter().collect::<Vec<_>>().join(", "),
        users: runs().map(|run| run.users).sum(),
        rate: rates.map(|rates| rates.iter().sum()),
        resumed: runs().map(|run| run.resumed).max().unwrap_or(0),
        began: runs().map(|run| run.began).min().unwrap_or(first.began),
        lasted_s: runs().map(|run| run.lasted_s).fold(0.0, f64::max),
        ..first
    }
}

fn generator(shards: &[Report]) -> Generator {
    let each = || shards.iter().map(|shard| &shard.generator);
    Generator {
        send_lag_s: None,
        read_lag_s: None,
        found_no_user: each().map(|one| one.found_no_user).sum(),
        unsent: each().map(|one| one.unsent).sum(),
        lost_users: each().map(|one| one.lost_users).sum(),
        records_lost: each().any(|one| one.records_lost),
        spent: Spent {
            tokens: each().map(|one| one.spent.tokens).sum(),
            usd: each().map(|one| one.spent.usd).sum(),
        },
        forgotten: each().map(|one| one.forgotten).sum(),
        under_way: each().map(|one| one.under_way).sum(),
        source_lost: each().any(|one| one.source_lost),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_settings::Metric;
    use tidegate_wire::{Id, Outcome};

    use super::*;
    use crate::figures::tests::call;
    use crate::workload::Mix;

    fn shard(id: &str, durations_s: impl IntoIterator<Item = u32>) -> Report {
        let mut figures = Figures::default();
        for seconds in durations_s {
            let mut call = call(f64::from(seconds), Outcome::Completed);
            call.record.trace_id = Id(rand::random());
            call.record.status = Some(200);
            call.send_lag = std::time::Duration::from_millis(1);
            figures.record(&call, seconds < 50);
        }
        let run = Setup {
            ids: vec![id.to_owned()],
            target: format!("http://{id}"),
            schedule: "poisson".to_owned(),
            from: None,
            users: 10,
            stages: None,
            rate: Some(5.0),
            seed: 1,
            mix: Mix::default().entries().to_vec(),
            began: "2026-11-21T10:00:00Z".parse().expect("a time"),
            duration_s: 30.0,
            warm_up_s: 0.0,
            lasted_s: 31.0,
            resumed: 0,
            done_s: 30.0,
        };
        Report::new(run, Ended::Complete, Generator::default(), None, figures)
    }

    /// As it is after it has been a file.
    fn again(report: &Report) -> Report {
        let folder = std::env::temp_dir();
        let path = folder.join(format!("tidegate-merge-{:x}.json", rand::random::<u64>()));
        std::fs::write(&path, report.json()).expect("a folder to write to");
        let read = Report::read(&path);
        std::fs::remove_file(&path).expect("it was written");
        read.expect("a report")
    }

    #[test]
    fn shards_are_as_one_run_of_all_their_calls() {
        let (one, other) = (again(&shard("a", 1..60)), again(&shard("b", 60..200)));
        let sum = again(&Report::merge(vec![one, other]).expect("shards of one load"));
        let whole = shard("c", 1..200);
        assert_eq!(sum.total.time(Metric::Duration), whole.total.time(Metric::Duration));
        assert_eq!(sum.total.time(Metric::Gap), whole.total.time(Metric::Gap));
        assert_eq!(sum.total.outcomes, whole.total.outcomes);
        assert_eq!(sum.figures.timeline, whole.figures.timeline);
        assert_eq!((sum.run.users, sum.run.rate, sum.run.lasted_s), (20, Some(10.0), 31.0));
        assert_eq!(sum.run.target, "http://a, http://b");
        assert_eq!(sum.invalid, None);
    }

    #[test]
    fn what_is_no_shard_is_refused() {
        let told = |shards| Report::merge(shards).expect_err("no shards").to_string();
        assert!(told(vec![]).contains("no report"));
        let twice = vec![shard("a", 1..3), shard("b", 1..3), shard("a", 1..3)];
        assert!(told(twice).contains("report 3 has a run in it that another one has, too"));
        let mut other = shard("b", 1..3);
        other.run.duration_s = 60.0;
        assert!(told(vec![shard("a", 1..3), other]).contains("report 2 is of another load"));
    }

    #[test]
    fn one_invalid_shard_makes_an_invalid_run() {
        let late = Report { invalid: Some("too late".to_owned()), ..shard("b", 1..3) };
        let sum = Report::merge(vec![shard("a", 1..3), again(&late)]).expect("shards");
        assert_eq!(sum.invalid.as_deref(), Some("report 2: too late"));
    }
}
