//! What a caller is told whose call finds nothing left.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::amounts::Kind;
use super::budgets::Refused;
use super::clock::Now;

/// A quota of which too little is left for a call.
#[derive(Debug)]
pub(crate) struct Spent {
    quota: Arc<str>,
    /// Whose and for what, where it has several budgets.
    of: String,
    /// How long its window is.
    window: String,
    pub(crate) kind: Kind,
    limit: u64,
    spent: u64,
    wanted: u64,
    /// After how long the call may come again, and when that is; never where it wants too much.
    opens: Option<(Duration, Timestamp)>,
}

/// Characters of a name that are shown: it may be the caller's own.
const SHOWN: usize = 80;

// === impl Spent ===

impl Spent {
    pub(super) fn new(refused: &Refused, now: &Now) -> Self {
        let Refused { rule, key, kind, limit, spent, wanted, wait } = refused;
        let parts = [("caller", &key.caller), ("model", &key.model), ("upstream", &key.upstream)];
        let parts = parts.into_iter().filter_map(|(part, name)| {
            let name: String = name.as_deref()?.chars().take(SHOWN).collect();
            Some(format!("{part} `{name}`"))
        });
        let parts: Vec<_> = parts.collect();
        let of = match parts.is_empty() {
            true => String::new(),
            false => format!(" of {}", parts.join(", ")),
        };
        let opens = wait.map(|wait| (wait, now.wall.checked_add(wait).unwrap_or(Timestamp::MAX)));
        let (quota, window) = (rule.name.clone(), rule.window.to_string());
        let (kind, limit, spent, wanted) = (*kind, *limit, *spent, *wanted);
        Self { quota, of, window, kind, limit, spent, wanted, opens }
    }

    /// After how long the call may come again; absent where it never gets through as it is.
    pub(crate) fn wait(&self) -> Option<Duration> {
        self.opens.map(|(wait, _)| wait)
    }
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { quota, of, window, kind, spent, .. } = self;
        let (limit, wanted) = (kind.words(self.limit), kind.words(self.wanted));
        let Some((wait, at)) = self.opens else {
            return write!(
                f,
                "quota `{quota}`{of} has {limit} {window}, and this call asks for up to {wanted}: it \
                 can never pass; ask for fewer, or raise the quota"
            );
        };
        let spent = kind.units(*spent);
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        write!(
            f,
            "quota `{quota}`{of} is spent: of {limit} {window}, {spent} are used or held by calls \
             under way, and this call needs {wanted}; it opens again in {seconds} s, at {at:.0}"
        )
    }
}
