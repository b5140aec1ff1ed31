//! What a run may use, in tokens and in money: a call that might go beyond that is not made.
//!
//! Before a call goes out, what it takes at most is set aside; when it is over, what it took is
//! counted, or what was set aside where nobody says what it took.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_wire::{Ending, Observer, Prices, Record, UsageSource};

use crate::client::shape;
use crate::plan::Plan;
use crate::workload::Request;

/// What a run may use; anything where absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Caps {
    /// Tokens, input and output together.
    pub tokens: Option<u64>,
    /// US dollars, by the table of prices.
    pub usd: Option<f64>,
}

/// What is left of it.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    caps: Caps,
    used: Mutex<Used>,
}

/// Tokens and dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Amount {
    pub(crate) tokens: u64,
    /// Absent where there is no price.
    pub(crate) usd: Option<f64>,
}

#[derive(Debug, Default)]
struct Used {
    /// By calls that are over.
    tokens: u64,
    usd: f64,
    /// Set aside for those under way.
    held_tokens: u64,
    held_usd: f64,
    /// The most that one call took: an estimate is no less.
    largest: (u64, f64),
}

/// What counts against a cap, where there was one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// Input and output together.
    pub tokens: u64,
    /// US dollars.
    pub usd: f64,
}

/// Says what calls to a target take at most.
pub(crate) struct Pricing {
    prices: Arc<Prices>,
    host: String,
}

/// Why a call is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It might go beyond a cap.
    Spent,
    /// There is a cap of money, and the call has no price.
    Unpriced,
}

// === impl Budget ===

impl Budget {
    pub(crate) fn new(caps: Caps) -> Self {
        Self { caps, used: Mutex::default() }
    }

    /// What is left of it after a part of the run that spent as much.
    pub(crate) fn after(caps: Caps, spent: Spent) -> Self {
        let used = Used { tokens: spent.tokens, usd: spent.usd, ..Used::default() };
        Self { caps, used: Mutex::new(used) }
    }

    /// What was spent, with what calls under way may take at most.
    pub(crate) fn spent(&self) -> Spent {
        let used = self.used();
        Spent { tokens: used.tokens + used.held_tokens, usd: used.usd + used.held_usd }
    }

    /// Whether anything is capped.
    pub(crate) fn is_bounded(&self) -> bool {
        self.caps != Caps::default()
    }

    /// Sets aside what a call takes at most.
    pub(crate) fn reserve(&self, estimate: Amount) -> Result<Amount, Refusal> {
        let mut used = self.used();
        let tokens = estimate.tokens.max(used.largest.0);
        let usd = match (self.caps.usd, estimate.usd) {
            (Some(_), None) => return Err(Refusal::Unpriced),
            (_, usd) => usd.unwrap_or(0.0).max(used.largest.1),
        };
        let is_within =
            self.caps.tokens.is_none_or(|cap| used.tokens + used.held_tokens + tokens <= cap)
                && self.caps.usd.is_none_or(|cap| used.usd + used.held_usd + usd <= cap);
        if !is_within {
            return Err(Refusal::Spent);
        }
        used.held_tokens += tokens;
        used.held_usd += usd;
        Ok(Amount { tokens, usd: Some(usd) })
    }

    /// Counts what a call took for which this had been set aside.
    pub(crate) fn settle(&self, reserved: Amount, record: &Record) {
        let mut used = self.used();
        used.held_tokens -= reserved.tokens;
        used.held_usd -= reserved.usd.unwrap_or(0.0);
        let stated = record
            .usage_source
            .map(|_| record.input_tokens.unwrap_or(0) + record.output_tokens.unwrap_or(0));
        // A call that was answered by an error, or not at all, is not billed.
        let is_billed = record.status.is_some_and(|status| status < 400);
        let tokens = stated.unwrap_or(if is_billed { reserved.tokens } else { 0 });
        let held = if is_billed { reserved.usd.unwrap_or(0.0) } else { 0.0 };
        let usd = record.cost_usd.unwrap_or(held);
        used.tokens += tokens;
        used.usd += usd;
        used.largest = (used.largest.0.max(tokens), used.largest.1.max(usd));
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().expect("sums do not panic")
    }
}

// === impl Pricing ===

impl Pricing {
    pub(crate) fn of(plan: &Plan) -> Self {
        Self { prices: plan.prices.clone(), host: plan.target.host().to_owned() }
    }

    /// What a call takes at most, as far as its request tells.
    pub(crate) fn amount(&self, request: &Request) -> Amount {
        let mut observer = Observer::new(shape(request, Some(&self.host)));
        observer.request(&request.body);
        let mut record = Record::default();
        observer.finish(Ending::NoAnswer, Duration::ZERO, &mut record);
        if record.operation.as_deref() == Some("count_tokens") {
            return Amount { tokens: 0, usd: Some(0.0) };
        }
        let (input, output) = request.tokens();
        // Prices have days from which they hold.
        record.time = Timestamp::now();
        record.usage_source = Some(UsageSource::Reported);
        record.input_tokens = Some(input);
        record.output_tokens = Some(output);
        Amount { tokens: input + output, usd: self.prices.cost(&record).usd }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_wire::UsageSource;

    use super::*;

    fn record(tokens: Option<u64>, usd: Option<f64>, status: u16) -> Record {
        Record {
            usage_source: tokens.map(|_| UsageSource::Reported),
            input_tokens: tokens,
            cost_usd: usd,
            status: Some(status),
            ..Record::default()
        }
    }

    #[test]
    fn calls_under_way_and_over_never_go_beyond_the_cap() {
        let budget = Budget::new(Caps { tokens: Some(100), usd: None });
        let estimate = Amount { tokens: 30, usd: None };
        let held: Vec<_> =
            (0..3).map(|_| budget.reserve(estimate).expect("there is room")).collect();
        assert_eq!(budget.reserve(estimate), Err(Refusal::Spent));
        budget.settle(held[0], &record(Some(5), None, 200));
        assert!(budget.reserve(estimate).is_ok(), "it took less than was set aside");
        budget.settle(held[1], &record(None, None, 200));
        budget.settle(held[2], &record(None, None, 503));
        // 5 and 30 are used, 30 are held.
        let more = budget.reserve(Amount { tokens: 35, usd: None });
        assert!(more.is_ok());
        assert_eq!(budget.reserve(Amount { tokens: 1, usd: None }), Err(Refusal::Spent));
    }

    #[test]
    fn a_call_is_taken_to_be_no_cheaper_than_the_dearest_so_far() {
        let budget = Budget::new(Caps { tokens: None, usd: Some(1.0) });
        let estimate = Amount { tokens: 1, usd: Some(0.01) };
        let held = budget.reserve(estimate).expect("there is room");
        budget.settle(held, &record(Some(1), Some(0.5), 200));
        assert!(budget.reserve(estimate).is_ok());
        assert_eq!(budget.reserve(estimate), Err(Refusal::Spent));
        assert_eq!(budget.reserve(Amount { tokens: 1, usd: None }), Err(Refusal::Unpriced));
    }
}
