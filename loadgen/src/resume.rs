//! Runs that go on from where one was stopped, and what they save meanwhile to make that possible.
//!
//! A report that is written while a run goes on holds all that a run is: its figures add up, its calls
//! are drawn from a seed, and their times count from one start. A resumed run has the same start, less
//! the pause.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::interval;

use crate::budget::Spent;
use crate::figures::Figures;
use crate::plan::Plan;
use crate::report::{Generator, Report};
use crate::run::{Phase, Run};

/// How often a run saves how far it has come.
const EVERY: Duration = Duration::from_secs(10);

/// Where a run was stopped, and what it had come to.
#[derive(Clone, Debug)]
pub struct Resume {
    pub(crate) figures: Figures,
    pub(crate) generator: Generator,
    /// How much of its time is over, what does not count included.
    pub(crate) done: Duration,
    /// From its start to the end of its last call.
    pub(crate) lasted: Duration,
    /// How often it had gone on before.
    pub(crate) resumed: u32,
    pub(crate) ids: Vec<String>,
    pub(crate) began: Timestamp,
}

/// Why a run does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Unresumable {
    /// It is another one.
    #[error("that run was of another load: its {0} differs")]
    Differs(&'static str),
    /// Its figures are no good.
    #[error("that run is invalid: {0}")]
    Invalid(String),
}

// === impl Resume ===

impl Resume {
    /// Goes on from this report, by a plan that must be the same.
    pub fn of(report: Report, plan: &Plan) -> Result<Self, Unresumable> {
        if let Some(what) = report.difference_of_plan(plan) {
            return Err(Unresumable::Differs(what));
        }
        if let Some(reason) = report.invalid {
            return Err(Unresumable::Invalid(reason));
        }
        let Report { run, mut generator, figures, .. } = report;
        // Of calls that were under way nobody will know more: they were due, and that is all.
        generator.forgotten += std::mem::take(&mut generator.under_way);
        let seconds = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Ok(Self {
            figures,
            generator,
            done: seconds(run.done_s),
            lasted: seconds(run.lasted_s),
            resumed: run.resumed,
            ids: run.ids,
            began: run.began,
        })
    }

    /// What counts against the caps: what counted before, and no less than what answers stated.
    pub(crate) fn spent(&self) -> Spent {
        let total = self.figures.total();
        let stated = total.tokens.input.unwrap_or(0) + total.tokens.output.unwrap_or(0);
        let Spent { tokens, usd } = self.generator.spent;
        Spent { tokens: tokens.max(stated), usd: usd.max(total.cost.unwrap_or(0.0)) }
    }

    /// Calls that were made.
    pub(crate) fn calls(&self) -> u64 {
        self.figures.total().calls() + self.generator.unsent + self.generator.forgotten
    }
}

/// Writes the report to this file from time to time, until the run is over. Must be waited for: what is
/// still being written would else take the place of the last one.
pub(crate) async fn save(run: Arc<Run>, path: PathBuf, id: String, began: Timestamp) {
    let mut phase = run.phase();
    let mut ticks = interval(EVERY);
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = phase.wait_for(|phase| *phase == Phase::Over) => return,
            _ = ticks.tick() => {}
        }
        let (run, path, id) = (run.clone(), path.clone(), id.clone());
        // To reckon a report takes a while, in which no user may have to wait.
        let saved =
            tokio::task::spawn_blocking(move || write(&Report::of(&run, &id, began), &path));
        let saved = saved.await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "cannot save how far the run has come");
        }
    }
}

/// In one step: who reads it meanwhile, or after a crash, finds the last one whole.
fn write(report: &Report, path: &std::path::Path) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    std::fs::write(&beside, report.json())?;
    std::fs::rename(&beside, path)
}
