//! What is counted of the calls that a quota is about.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::amounts::Kind;
use super::config::Mode;

/// What came of the calls of one quota.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Calls for which nothing was left, by the caller as metrics name it.
    pub(super) refusals: BTreeMap<Arc<str>, Refusals>,
    /// Calls that were charged, by what the charge goes by.
    pub(super) charged: [u64; Basis::ALL.len()],
    /// Calls that found no room for a budget of their own.
    pub(super) overflowed: u64,
}

/// By mode, then by what there was too little of.
pub(super) type Refusals = [[u64; Kind::ALL.len()]; Mode::ALL.len()];

/// What a charge goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Basis {
    /// What the provider stated, or nothing where the call used nothing.
    Stated,
    /// What was expected of the call, or came of it: the provider stated no usage, or not the last.
    Estimated,
    /// As above, and its cost is not among it: there is no price.
    Unpriced,
}

// === impl Tally ===

impl Tally {
    pub(super) fn refuse(&mut self, mode: Mode, caller: &Arc<str>, kind: Kind) {
        if !self.refusals.contains_key(caller) {
            self.refusals.insert(caller.clone(), Refusals::default());
        }
        let refusals = self.refusals.get_mut(caller).expect("it was there or has been inserted");
        refusals[mode as usize][kind as usize] += 1;
    }
}

// === impl Basis ===

impl Basis {
    pub(super) const ALL: [Self; 3] = [Self::Stated, Self::Estimated, Self::Unpriced];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stated => "stated",
            Self::Estimated => "estimated",
            Self::Unpriced => "unpriced",
        }
    }
}
