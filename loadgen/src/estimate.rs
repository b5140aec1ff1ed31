//! What a run would come to, without a single call.
//!
//! Calls are drawn as the run would draw them. Where a capture or a trace says how long answers were,
//! they are taken to be as long again; else as long as is asked for at most.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::budget::Pricing;
use crate::plan::Plan;
use crate::report::Grid;
use crate::schedule::Schedule;
use crate::tickets::tickets;
use crate::workload::{Answer, RecordingError, Request};

/// Calls that are drawn where nobody knows how many there will be.
const DRAWN: usize = 1_000;
/// Calls whose requests are made up at most; those beyond are taken to be like these.
const MOST_DRAWN: u64 = 50_000;

/// What some calls would come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Calls.
    pub calls: u64,
    /// Input tokens.
    pub input_tokens: u64,
    /// Output tokens, at most where nobody knows better.
    pub output_tokens: u64,
    /// US dollars, of the calls that have a price.
    pub usd: f64,
    /// Calls without a price.
    pub unpriced: u64,
}

/// What a run would come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forecast {
    /// All calls.
    pub total: Estimate,
    /// The same by model.
    pub models: BTreeMap<Arc<str>, Estimate>,
    /// Whether these are the calls of the run. In a closed loop nobody knows how many there will be, and
    /// these are a thousand of them.
    pub is_whole: bool,
}

// === impl Forecast ===

impl Forecast {
    /// That of a plan.
    pub fn of(plan: &Plan) -> Result<Self, RecordingError> {
        let pricing = Pricing::of(plan);
        let is_whole = plan.schedule != Schedule::Closed;
        let most = if is_whole { usize::MAX } else { DRAWN };
        let mut forecast = Self { is_whole, ..Self::default() };
        let mut calls = 0;
        for ticket in tickets(plan).take(most) {
            let ticket = ticket?;
            if calls < MOST_DRAWN {
                forecast.add_conversation(ticket.outline(plan), &pricing);
            }
            calls += 1;
        }
        if calls > MOST_DRAWN {
            forecast.scale(calls as f64 / MOST_DRAWN as f64);
        }
        Ok(forecast)
    }

    /// A call, and those that follow it: answers are as long as they may be.
    fn add_conversation(&mut self, mut request: Request, pricing: &Pricing) {
        loop {
            self.add(&request, pricing);
            let Some(then) = request.then.take() else { return };
            request = Arc::unwrap_or_clone(then).after(Answer::default());
        }
    }

    fn add(&mut self, request: &Request, pricing: &Pricing) {
        let (input, output) = request.tokens();
        let amount = pricing.amount(request);
        let model = self.models.entry(request.label.clone()).or_default();
        for estimate in [&mut self.total, model] {
            estimate.calls += 1;
            estimate.input_tokens += input;
            estimate.output_tokens += output;
            estimate.usd += amount.usd.unwrap_or(0.0);
            estimate.unpriced += u64::from(amount.usd.is_none());
        }
    }

    fn scale(&mut self, factor: f64) {
        let scaled = |count: u64| (count as f64 * factor).round() as u64;
        for estimate in self.models.values_mut().chain([&mut self.total]) {
            *estimate = Estimate {
                calls: scaled(estimate.calls),
                input_tokens: scaled(estimate.input_tokens),
                output_tokens: scaled(estimate.output_tokens),
                usd: estimate.usd * factor,
                unpriced: scaled(estimate.unpriced),
            };
        }
    }
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut grid = Grid::default();
        grid.row(["model", "calls", "tokens in", "tokens out", "USD"]);
        self.models.iter().for_each(|(name, estimate)| grid.row(estimate.row(name)));
        grid.row(self.total.row("all"));
        writeln!(f, "{grid}")?;
        if !self.is_whole {
            writeln!(
                f,
                "Of {} calls: in a closed loop nobody knows how many there will be. Cap them by \
                 --max-tokens or --max-cost.",
                self.total.calls
            )?;
        }
        if self.total.unpriced > 0 {
            writeln!(f, "`+`: some calls have no price for this target, and are not in the sum.")?;
        }
        write!(
            f,
            "Answers are as long as they were where the file says that, else as long as they may be at \
             most. Where nobody says it, a prompt has a token for each four bytes.\nNothing was sent."
        )
    }
}

// === impl Estimate ===

impl Estimate {
    fn row(&self, name: &str) -> [String; 5] {
        let usd = match (self.calls - self.unpriced, self.unpriced) {
            (0, _) => "-".to_owned(),
            (_, 0) => format!("{:.4}", self.usd),
            _ => format!("{:.4}+", self.usd),
        };
        [
            name.to_owned(),
            self.calls.to_string(),
            self.input_tokens.to_string(),
            self.output_tokens.to_string(),
            usd,
        ]
    }
}
