//! What is counted against quotas, and how much of it.

use std::ops::{Index, IndexMut};

/// What a quota may limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Requests,
    InputTokens,
    OutputTokens,
    /// Input and output together.
    Tokens,
    /// In US dollars.
    Cost,
}

/// So much of each kind. Money is in whole nanodollars, so that sums are exact in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts([u64; Kind::ALL.len()]);

/// Nanodollars in a dollar.
const DOLLAR: f64 = 1e9;

// === impl Kind ===

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Requests, Self::InputTokens, Self::OutputTokens, Self::Tokens, Self::Cost];

    /// The word of metrics, and the key of the configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Tokens => "tokens",
            Self::Cost => "cost_usd",
        }
    }

    /// The `tidegate.block_reason` of a call that such a limit keeps out.
    pub(crate) fn block_reason(self) -> &'static str {
        match self {
            Self::Requests => "quota_requests",
            Self::InputTokens => "quota_input_tokens",
            Self::OutputTokens => "quota_output_tokens",
            Self::Tokens => "quota_tokens",
            Self::Cost => "quota_cost_usd",
        }
    }

    /// What an amount of it is in the unit that people read: dollars for money, else as it is.
    pub(crate) fn units(self, amount: u64) -> f64 {
        match self {
            Self::Cost => amount as f64 / DOLLAR,
            _ => amount as f64,
        }
    }

    /// An amount in words: `12000 input tokens`, `0.25 US dollars`.
    pub(crate) fn words(self, amount: u64) -> String {
        match self {
            Self::Requests => format!("{amount} requests"),
            Self::InputTokens => format!("{amount} input tokens"),
            Self::OutputTokens => format!("{amount} output tokens"),
            Self::Tokens => format!("{amount} tokens"),
            Self::Cost => format!("{} US dollars", self.units(amount)),
        }
    }
}

// === impl Amounts ===

impl Amounts {
    /// One request of so many tokens, which costs so many nanodollars.
    pub(crate) fn of_request(input: u64, output: u64, nanodollars: u64) -> Self {
        Self([1, input, output, input.saturating_add(output), nanodollars])
    }

    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.each(other, u64::saturating_add);
    }

    /// Never below nothing.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.each(other, u64::saturating_sub);
    }

    /// What this has beyond the other.
    pub(crate) fn beyond(mut self, other: &Self) -> Self {
        self.subtract(other);
        self
    }

    /// The lesser of each kind.
    pub(crate) fn at_most(mut self, other: &Self) -> Self {
        self.each(other, u64::min);
        self
    }

    fn each(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, other)| *mine = with(*mine, other));
    }
}

impl Index<Kind> for Amounts {
    type Output = u64;

    fn index(&self, kind: Kind) -> &u64 {
        &self.0[kind as usize]
    }
}

impl IndexMut<Kind> for Amounts {
    fn index_mut(&mut self, kind: Kind) -> &mut u64 {
        &mut self.0[kind as usize]
    }
}

/// Dollars in nanodollars; what is below zero, or no number, is nothing.
pub(crate) fn nanodollars(dollars: f64) -> u64 {
    (dollars * DOLLAR).round() as u64
}
