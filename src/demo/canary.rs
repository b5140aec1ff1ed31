//! The chapter `canary`: a new version of a model gets a tenth of the calls, turns out to be worse, and
//! is taken back, without a restart.

use std::io::{Write, stdout};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tidegate_loadgen::report::{Grid, time};
use tidegate_wire::{Outcome, Record};
use tokio::time::{Instant, sleep};

use super::compare::{Times, counts};
use super::process::{Server, get};
use super::stand::Stand;
use super::{Files, Size, percent};
use crate::Exit;

/// The users' calls: streams, so that there is a first token to wait for.
const MIX: &str = "\
- call: openai/chat
  model: gpt-4o
  stream: true
  input_tokens: 50
  think: 20ms
";

/// The sidecar's configuration. Of the two versions the canary gets this weight.
const SPLIT: &str = "\
upstreams:
  stable: { url: http://$stable, provider: openai }
  canary: { url: http://$canary, provider: openai }
routes:
  - name: chat
    include_usage: add
    split:
      - { upstream: stable, weight: 90 }
      - { upstream: canary, weight: $weight }
";

/// How the versions serve. The new one is slower and more talkative, and fails at times.
const STABLE: [&str; 6] = ["--ttft", "40ms", "--tpot", "2ms", "--output-tokens", "16"];
const CANARY: [&str; 8] =
    ["--ttft", "120ms", "--tpot", "2ms", "--output-tokens", "32", "--error-rate", "0.1"];

/// How long a sidecar may take to read its configuration anew.
const RELOAD: Duration = Duration::from_secs(10);
/// Calls without which the shares of two arms say nothing.
const FEWEST: usize = 50;

pub(super) const DEFINITIONS: &str = "\
Error ratio: failed and truncated calls among all that were not given up by users. First token and duration:
of calls that had one. Tokens and cost: of a call, on average, as stated and by the price table.
";

/// What the calls of one arm came to.
#[derive(Default)]
struct Arm {
    calls: usize,
    counted: usize,
    errors: usize,
    first_token: Times,
    duration: Times,
    output_tokens: u64,
    cost_usd: f64,
}

/// Both arms, while the canary had this weight.
struct Phase {
    weight: u32,
    stable: Arm,
    canary: Arm,
}

/// Shows the chapter, and whether the two sides could be told apart.
pub(super) async fn show(size: Size) -> anyhow::Result<Exit> {
    let files = Files::create()?;
    let capacity = (2 * size.users.get()).to_string();
    let simulator = |name, times: &[&str]| {
        let place = ["sim", "--listen", "127.0.0.1:0", "--capacity", &capacity];
        Server::start(name, &[&place[..], times].concat())
    };
    let (stable, canary) = (simulator("stable", &STABLE)?, simulator("canary", &CANARY)?);
    let at = [stable.address("listening on ").await?, canary.address("listening on ").await?];
    let configuration = |weight: u32| {
        let (stable, canary) = (at[0].to_string(), at[1].to_string());
        let text = SPLIT.replace("$stable", &stable).replace("$canary", &canary);
        text.replace("$weight", &weight.to_string())
    };
    let (users, text) = (size.users, configuration(10));
    eprintln!(
        "two versions of a model, and {users} users behind a sidecar that splits their calls:\n\n{text}"
    );
    let mix = files.write("mix.yaml", MIX)?;
    let config = files.write("split.yaml", &text)?;
    let stand = Stand::start("canary".to_owned(), &config, &files).await?;

    let (mut phases, mut known) = (Vec::new(), 0);
    for weight in [10, 0] {
        files.write("split.yaml", &configuration(weight))?;
        wait_for_weight(stand.admin, weight).await?;
        eprintln!("{} s with weight {weight} for the canary", size.duration.as_secs_f64());
        stand.load(size, &["--mix".as_ref(), mix.as_ref()]).await?;
        let (sent, recorded) = stand.books(known).await?;
        known = recorded.len();
        phases.push(Phase::of(
            weight,
            recorded.values().filter(|one| sent.contains_key(&one.trace_id)),
        ));
    }
    stand.end().await?;

    let mut results = stdout().lock();
    writeln!(results, "\n{}", grid(&phases))?;
    results.write_all(DEFINITIONS.as_bytes())?;
    writeln!(results, "{}", sentence(&phases))?;
    Ok(if is_shown(&phases) { Exit::Good } else { Exit::NotSo })
}

/// Waits until the sidecar goes by this weight: it watches its file.
async fn wait_for_weight(admin: SocketAddr, weight: u32) -> anyhow::Result<()> {
    let share = f64::from(weight) / f64::from(90 + weight);
    let deadline = Instant::now() + RELOAD;
    loop {
        let policies: Value = serde_json::from_str(&get(admin, "/policies").await?)
            .context("cannot read the state of the policies")?;
        let shown = policies["split"]["chat"]["arms"]["canary"]["share"].as_f64();
        if shown.is_some_and(|shown| (shown - share).abs() < 1e-9) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the sidecar did not take up its new weights");
        sleep(Duration::from_millis(50)).await;
    }
}

/// The table of both phases, the canary below the stable version.
fn grid(phases: &[Phase]) -> Grid {
    let mut grid = Grid::default();
    let heads = ["weight", "arm", "calls", "of all", "error ratio", "first token p50", "p99"];
    grid.row(heads.into_iter().chain(["duration p50", "output tokens", "cost"]));
    for phase in phases {
        let all = phase.stable.calls + phase.canary.calls;
        let (own, other) = (90.to_string(), phase.weight.to_string());
        for (weight, name, arm) in
            [(own, "stable", &phase.stable), (other, "canary", &phase.canary)]
        {
            let share = percent(arm.calls as f64 / all.max(1) as f64);
            let cells = [weight, name.to_owned(), arm.calls.to_string(), share];
            grid.row(cells.into_iter().chain(arm.cells()));
        }
    }
    grid
}

/// Whether the canary had its part, was seen to be worse, and got no more once it had no weight.
fn is_shown(phases: &[Phase]) -> bool {
    let [with, without] = phases else { return false };
    let share = with.canary.calls as f64 / (with.stable.calls + with.canary.calls).max(1) as f64;
    let is_worse = with.canary.first_token.at(0.5) > with.stable.first_token.at(0.5);
    (0.02..0.25).contains(&share)
        && is_worse
        && without.canary.calls == 0
        && without.stable.calls > 0
}

/// What is to be learnt, in plain words. It is the last line.
fn sentence(phases: &[Phase]) -> String {
    let [with, without] = phases else { return String::new() };
    let Phase { stable, canary, .. } = with;
    let all = stable.calls + canary.calls;
    if all < FEWEST {
        return format!("Only {all} calls: too few to compare two arms.");
    }
    format!(
        "The canary got {} of {all} calls: {} of them failed ({} at the stable version), a first token \
         took {} ({}), and a call cost {} ({}). With its weight at 0 it got {} of {}.",
        canary.calls,
        percent(canary.error_ratio()),
        percent(stable.error_ratio()),
        time(canary.first_token.at(0.5)),
        time(stable.first_token.at(0.5)),
        canary.cost(),
        stable.cost(),
        without.canary.calls,
        without.stable.calls + without.canary.calls,
    )
}

// === impl Phase ===

impl Phase {
    fn of<'a>(weight: u32, records: impl Iterator<Item = &'a Record>) -> Self {
        let (canary, stable): (Vec<_>, Vec<_>) =
            records.partition(|record| record.split.as_deref() == Some("canary"));
        Self { weight, stable: Arm::of(&stable), canary: Arm::of(&canary) }
    }
}

// === impl Arm ===

impl Arm {
    fn of(records: &[&Record]) -> Self {
        let counted = || records.iter().filter(|record| counts(record));
        Self {
            calls: records.len(),
            counted: counted().count(),
            errors: counted().filter(|call| call.outcome != Some(Outcome::Completed)).count(),
            first_token: Times::of(records.iter().filter_map(|call| call.time_to_first_token_s)),
            duration: Times::of(records.iter().filter_map(|call| call.duration_s)),
            output_tokens: records.iter().filter_map(|call| call.output_tokens).sum(),
            cost_usd: records.iter().filter_map(|call| call.cost_usd).sum(),
        }
    }

    fn error_ratio(&self) -> f64 {
        self.errors as f64 / self.counted.max(1) as f64
    }

    fn cost(&self) -> String {
        format!("${:.6}", self.cost_usd / self.calls.max(1) as f64)
    }

    /// Its cells from the error ratio on; a dash where there were no calls.
    fn cells(&self) -> [String; 6] {
        if self.calls == 0 {
            return std::array::from_fn(|_| "-".to_owned());
        }
        [
            percent(self.error_ratio()),
            time(self.first_token.at(0.5)),
            time(self.first_token.at(0.99)),
            time(self.duration.at(0.5)),
            format!("{:.1}", self.output_tokens as f64 / self.calls as f64),
            self.cost(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(arm: &str, calls: usize, first_token_s: f64) -> Vec<Record> {
        let record = |at: usize| Record {
            split: Some(arm.into()),
            outcome: Some(if at == 0 { Outcome::Truncated } else { Outcome::Completed }),
            time_to_first_token_s: Some(first_token_s),
            ..Record::default()
        };
        (0..calls).map(record).collect()
    }

    fn phase(weight: u32, stable: usize, canary: usize, first_token_s: f64) -> Phase {
        let all =
            [records("stable", stable, 0.04), records("canary", canary, first_token_s)].concat();
        Phase::of(weight, all.iter())
    }

    #[test]
    fn a_canary_that_is_worse_and_drained_is_shown_and_nothing_else() {
        let good = [phase(10, 90, 10, 0.12), phase(0, 100, 0, 0.12)];
        assert!(is_shown(&good));
        let said = sentence(&good);
        assert!(
            said.starts_with("The canary got 10 of 100 calls: 10.0% of them failed (1.1% at"),
            "{said}"
        );
        assert!(said.ends_with("With its weight at 0 it got 0 of 100."), "{said}");
        for bad in [
            [phase(10, 90, 10, 0.01), phase(0, 100, 0, 0.12)],
            [phase(10, 90, 10, 0.12), phase(0, 99, 1, 0.12)],
            [phase(10, 100, 0, 0.12), phase(0, 100, 0, 0.12)],
            [phase(10, 50, 50, 0.12), phase(0, 100, 0, 0.12)],
            [phase(10, 90, 10, 0.12), phase(0, 0, 0, 0.12)],
        ] {
            assert!(!is_shown(&bad));
        }
        assert!(
            sentence(&[phase(10, 9, 1, 0.12), phase(0, 9, 0, 0.12)]).starts_with("Only 10 calls")
        );
    }
}
