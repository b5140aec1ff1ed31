//! Every metric that there is: its names, its labels, and how it is read off what was counted.
//!
//! Prometheus and OTLP show this one list, so they cannot disagree.

use std::sync::Arc;

use super::metrics::{Counted, Labels, Series};
use super::names::Conventions;

mod cache;
mod calls;
mod conventions;
mod drains;
mod history;
mod intercept;
mod jobs;
mod labels;
mod own;
mod policies;
mod quotas;
mod scrape;
mod sidecar;
mod store;
mod upstreams;

pub use cache::*;
pub use calls::*;
pub use conventions::*;
pub use drains::*;
pub use history::*;
pub use intercept::*;
pub use jobs::*;
pub use own::*;
pub use policies::*;
pub use quotas::*;
pub use scrape::*;
pub use sidecar::*;
pub use store::*;
pub use upstreams::*;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit of this build, where the build was told.
pub const REVISION: &str = match option_env!("TIDEGATE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Every metric, in the order of the contract.
pub static FAMILIES: &[&Family] = &[
    &CALLS,
    &CALL_DURATION,
    &TIME_TO_FIRST_TOKEN,
    &TIME_PER_OUTPUT_TOKEN,
    &OVERHEAD,
    &TOKENS,
    &USAGE_ABSENT,
    &TIME_TO_FIRST_TOKEN_BY_INPUT,
    &CALL_DURATION_BY_OUTPUT,
    &LONGEST_GAP,
    &STALLS,
    &WAIT_TIME,
    &INPUT_MEDIA,
    &JOBS,
    &JOB_DURATION,
    &JOB_POLLS,
    &JOBS_OPEN,
    &JOBS_FORGOTTEN,
    &VIDEO_SECONDS,
    &COST,
    &UNPRICED_CALLS,
    &UNPRICED_TOKENS,
    &CALLS_IN_FLIGHT,
    &DRAINS,
    &DRAINS_OPEN,
    &TOKENS_WASTED,
    &BREAKER_STATE,
    &BREAKER_TRANSITIONS,
    &BREAKER_REFUSALS,
    &RATE_GATE_CLOSED,
    &LIMIT,
    &LIMIT_IN_USE,
    &LIMIT_QUEUE,
    &LIMIT_SHED,
    &CACHE_CALLS,
    &CACHE_SAVED_TOKENS,
    &CACHE_SAVED_COST,
    &CACHE_NOT_STORED,
    &CACHE_ENTRIES,
    &CACHE_BYTES,
    &CACHE_EVICTIONS,
    &OWN_CALLS,
    &OWN_CALL_DURATION,
    &OWN_TIME_TO_FIRST_TOKEN,
    &OWN_TOKENS,
    &OWN_COST,
    &WARM_UP_CONNECTIONS,
    &SHADOW_OPEN,
    &SHADOW_NOT_SENT,
    &STORE_UP,
    &STORE_OUTAGES,
    &STORE_OPERATIONS,
    &STORE_TIME,
    &BYPASS,
    &BYPASSED,
    &RETRIES,
    &RETRIES_DENIED,
    &FALLBACKS,
    &QUOTA_USED_RATIO,
    &QUOTA_LIMIT,
    &QUOTA_USED,
    &QUOTA_RESERVED,
    &QUOTA_EXHAUSTED_IN,
    &QUOTA_REFUSALS,
    &QUOTA_CHARGED,
    &QUOTA_BUDGETS,
    &QUOTA_WITHOUT_ROOM,
    &RATE_LIMIT,
    &RATE_LIMIT_REMAINING,
    &CONNECT_FAILURES,
    &UPSTREAM_ADDRESSES,
    &UPSTREAM_USES_ALL,
    &UPSTREAM_FORCED_CALLS,
    &UPSTREAM_EJECTIONS,
    &UPSTREAM_EJECTIONS_SPARED,
    &UPSTREAM_CHECK_FAILURES,
    &UPSTREAM_LOOKUP_FAILURES,
    &UPSTREAM_STEERING_FAILURES,
    &CREDENTIAL_AGE,
    &CREDENTIAL_EXPIRES_IN,
    &CREDENTIAL_FAILURES,
    &CREDENTIAL_REFUSED,
    &INTERCEPT_CONNECTIONS,
    &INTERCEPT_PASSED_BY,
    &CONFIG_RELOADS,
    &CONFIG_LAST_RELOAD_GOOD,
    &CONFIG_LOADED,
    &HISTORY_UP,
    &HISTORY_SIZE,
    &BASELINE_VALUE,
    &BASELINE_LIMIT,
    &BASELINE_UNUSUAL,
    &SCRAPE_UP,
    &SCRAPE_DURATION,
    &SCRAPE_SAMPLES,
    &SCRAPE_FAILURES,
    &RECORDS_DROPPED,
    &NOT_UNDERSTOOD,
    &WARNINGS,
    &BUILD_INFO,
    &CLIENT_OPERATION_DURATION,
    &CLIENT_TOKEN_USAGE,
    &SERVER_TIME_TO_FIRST_TOKEN,
    &SERVER_TIME_PER_OUTPUT_TOKEN,
];

/// One metric.
#[derive(Debug)]
pub struct Family {
    /// Its name in OTLP.
    pub name: &'static str,
    /// Its name in Prometheus.
    pub prometheus: &'static str,
    /// Its unit, as UCUM writes it.
    pub unit: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// What kind of metric it is.
    pub kind: Kind,
    /// What tells its series apart.
    pub labels: &'static [&'static Label],
    /// Reads it off a series of calls, in parts where it has a type.
    pub(super) read: Read,
}

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It counts sizes.
    Histogram,
}

/// What tells series apart.
#[derive(Debug)]
pub struct Label {
    /// Its name in OTLP.
    pub name: &'static str,
    /// Its name in Prometheus.
    pub prometheus: &'static str,
    /// Its value for a series of calls, and the part of it that is read.
    pub(super) value: fn(&Labels, &'static str) -> Arc<str>,
}

impl Family {
    /// Whether it is read off calls that Tidegate makes itself, and off no others.
    pub(super) fn is_of_own(&self) -> bool {
        own::OF_OWN.iter().any(|own| std::ptr::eq(*own, self))
    }

    /// The labels that it has under these conventions.
    pub(super) fn shown(&self, conventions: Conventions) -> impl Iterator<Item = &'static Label> {
        self.labels.iter().copied().filter(move |label| conventions.shows(label.name))
    }
}

type Read = fn(&Labels, &Series, &mut dyn FnMut(&'static str, Counted<'_>));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::names;

    #[test]
    fn a_metric_that_names_the_provider_names_it_under_all_conventions() {
        for family in FAMILIES {
            let has = |name: &str| family.labels.iter().any(|label| label.name == name);
            assert_eq!(has(names::PROVIDER), has(names::SYSTEM), "{}", family.name);
        }
    }
}
