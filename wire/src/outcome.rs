//! How a call ended: the one classification that records, metrics and policies share.

use serde::{Deserialize, Serialize};

/// The five ways in which an accepted call ends; the first cause wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Status below 400, no error in band, a clean end, all handed over.
    Completed,
    /// Status of 400 and above, an error in band, or no answer.
    Failed,
    /// Bytes went to the caller, then the upstream broke off, stalled or ended unclean.
    Truncated,
    /// Answered by Tidegate; no upstream was called.
    Refused,
    /// The caller left before the end.
    Abandoned,
}

impl Outcome {
    /// All outcomes, in the order of the contract.
    pub const ALL: [Self; 5] =
        [Self::Completed, Self::Failed, Self::Truncated, Self::Refused, Self::Abandoned];

    /// The word that stands in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Truncated => "truncated",
            Self::Refused => "refused",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Who caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorOrigin {
    /// The request itself: most statuses from 400 to 499.
    Client,
    /// Tidegate.
    Sidecar,
    /// The upstream, or the way to it.
    Upstream,
    /// A limit: the provider's (429, RESOURCE_EXHAUSTED, throttling) or our own.
    Quota,
}

impl ErrorOrigin {
    /// The word that stands in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Sidecar => "sidecar",
            Self::Upstream => "upstream",
            Self::Quota => "quota",
        }
    }
}

/// How the transport of a call ended, as the one who carried it saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The response body came to its framed end and was handed over whole.
    Clean,
    /// The upstream gave no response head: refused, silent past a limit, broken off before it, or not HTTP.
    NoAnswer,
    /// The upstream broke off, stalled or sent illegal framing after its response head.
    Broken,
    /// The caller went away before the end.
    CallerLeft,
    /// Tidegate answered by itself.
    Refused,
}
