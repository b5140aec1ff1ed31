//! How often calls were made again at one upstream, and why they were not.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::verdict::Again;

/// Why a call was made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Unsent,
    Failed,
    Limited,
    Conflict,
}

/// Why a call was not made again that might have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Its body was too large to be held.
    Body,
    /// So many had been made again already.
    Budget,
    /// The time that it has would have been over.
    Deadline,
    /// The provider asked to wait for too long.
    Wait,
    /// What it does would be done twice.
    Unsafe,
}

const REASONS: [(Reason, &str); 4] = [
    (Reason::Unsent, "unsent"),
    (Reason::Failed, "failed"),
    (Reason::Limited, "limited"),
    (Reason::Conflict, "conflict"),
];
const DENIED: [(Denied, &str); 5] = [
    (Denied::Body, "body_too_large"),
    (Denied::Budget, "budget"),
    (Denied::Deadline, "deadline"),
    (Denied::Wait, "wait_too_long"),
    (Denied::Unsafe, "not_repeatable"),
];

/// The counts of one upstream.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    made: [AtomicU64; REASONS.len()],
    denied: [AtomicU64; DENIED.len()],
}

impl Reason {
    pub(super) fn of(again: Again) -> Option<Self> {
        match again {
            Again::Unsent => Some(Self::Unsent),
            Again::Soon => Some(Self::Failed),
            Again::Later => Some(Self::Limited),
            Again::Same => Some(Self::Conflict),
            Again::Never | Again::Elsewhere => None,
        }
    }
}

impl Tally {
    pub(crate) fn made(&self, reason: Reason) {
        self.made[reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn denied(&self, denied: Denied) {
        self.denied[denied as usize].fetch_add(1, Relaxed);
    }

    /// Calls made again, by the reason's word.
    pub(crate) fn all_made(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.iter().map(|&(reason, word)| (word, self.made[reason as usize].load(Relaxed)))
    }

    /// Calls not made again, by the reason's word.
    pub(crate) fn all_denied(&self) -> impl Iterator<Item = (&'static str, u64)> {
        DENIED.iter().map(|&(denied, word)| (word, self.denied[denied as usize].load(Relaxed)))
    }
}
