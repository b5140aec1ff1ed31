//! `tidegate load --search`: flags, and what becomes of the report.

use std::fs::File;
use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::ensure;
use tidegate_loadgen::{Load, Plan, Search};

use crate::outputs::Outputs;
use crate::{Exit, units};

/// The flags of a search.
#[derive(clap::Args)]
#[command(next_help_heading = "Search for the capacity")]
pub(crate) struct SearchArgs {
    /// Find the highest rate (`rate`, which is meant where nothing stands here) or the most users
    /// (`users`) that keep the objectives of --slo, with an interval that holds it. Each step counts for
    /// --duration, by default as long as the objectives need. Exit code 0: it was found; 1: not even the
    /// lowest load keeps the objectives; 3: it is not known well enough; 4: the generator was the limit.
    #[arg(long, value_name = "WHAT", num_args = 0..=1, default_missing_value = "rate", requires = "slo",
          conflicts_with_all = ["rate", "speed", "closed", "records", "dry_run", "shard", "start_at"],
          env = "TIDEGATE_LOAD_SEARCH")]
    search: Option<What>,
    /// The first load: calls a second, or users.
    #[arg(long, value_name = "LOAD", value_parser = load, default_value = "1",
          env = "TIDEGATE_LOAD_SEARCH_FROM")]
    search_from: f64,
    /// The highest load that may be tried.
    #[arg(long, value_name = "LOAD", value_parser = load, default_value = "10000",
          env = "TIDEGATE_LOAD_SEARCH_TO")]
    search_to: f64,
    /// How well the capacity is to be known, to either side.
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "5%",
          env = "TIDEGATE_LOAD_SEARCH_PRECISION")]
    search_precision: f64,
    /// Steps, at most.
    #[arg(long, value_name = "N", default_value = "60", env = "TIDEGATE_LOAD_SEARCH_STEPS")]
    search_steps: NonZeroUsize,
    /// Between two steps, once all calls of the first have ended.
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "1s",
          env = "TIDEGATE_LOAD_SEARCH_PAUSE")]
    search_pause: Duration,
    /// The capacity that is needed. Exit code 0: it surely is as high; 1: it surely is lower; 3: that
    /// cannot be told.
    #[arg(long, value_name = "LOAD", value_parser = load, requires = "search",
          env = "TIDEGATE_LOAD_SEARCH_NEEDS")]
    search_needs: Option<f64>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// Calls a second, in an open loop.
    Rate,
    /// Users, in a closed loop.
    Users,
}

/// Calls at once, at most, where nobody says how many there may be.
const MOST_USERS: usize = 5_000;

// === impl SearchArgs ===

impl SearchArgs {
    /// The search that is asked for, if one is. Steps have this length, and may have so many users.
    pub(crate) fn search(
        &self,
        step: Option<Duration>,
        warm_up: Option<Duration>,
        users: Option<NonZeroUsize>,
    ) -> anyhow::Result<Option<Search>> {
        let Some(what) = self.search else { return Ok(None) };
        ensure!(
            self.search_from <= self.search_to,
            "--search-from {} is above --search-to {}",
            self.search_from,
            self.search_to
        );
        let what = match what {
            What::Rate => Load::Rate,
            What::Users => Load::Users,
        };
        ensure!(
            what == Load::Rate || users.is_none(),
            "--users: a search for users finds out how many there are; --search-from and --search-to bound it"
        );
        ensure!(
            what == Load::Rate || self.search_to < f64::from(u32::MAX),
            "--search-to: there are no so many users"
        );
        Ok(Some(Search {
            what,
            from: self.search_from,
            most: self.search_to,
            precision: self.search_precision,
            steps: self.search_steps.get(),
            step,
            warm_up,
            pause: self.search_pause,
            most_users: users.map_or(MOST_USERS, NonZeroUsize::get),
            needed: self.search_needs,
        }))
    }
}

/// Searches, and writes the report to where it was asked for.
pub(crate) fn run(
    plan: Plan,
    search: Search,
    outputs: &Outputs,
    results: &mut File,
) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(tidegate_loadgen::search(plan, search))?;
    outputs.publish_search(results, &report)
}

fn load(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(load) if load > 0.0 && load <= 1e6 => Ok(load),
        _ => Err(format!("`{text}` is no load; write calls a second, or users, such as 50")),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: Option<f64> = text.strip_suffix('%').and_then(|number| number.parse().ok());
    match percent {
        Some(percent) if (0.5..=50.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(format!("`{text}` is not from 0.5% to 50%; write 5%")),
    }
}
