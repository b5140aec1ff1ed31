//! What the policies of one upstream know, shared by all workers and all routes that lead there.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::config::Config;
use crate::layer::breaker::{self, Breakers};
use crate::layer::retry::Budget;

/// The policies of every upstream.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    by_upstream: BTreeMap<Arc<str>, UpstreamPolicies>,
}

/// The policies of one upstream; what is absent is not configured.
#[derive(Clone, Debug, Default)]
pub(crate) struct UpstreamPolicies {
    /// How often its calls may be made again.
    pub(crate) budget: Arc<Budget>,
    /// Whether they are let through.
    pub(crate) breakers: Option<Arc<Breakers>>,
}

impl Policies {
    pub(crate) fn new(config: &Config) -> Self {
        let now = Instant::now();
        let policies = config.upstreams.iter().map(|(name, upstream)| {
            let breakers = breaker::of_upstream(name, upstream, now);
            (Arc::from(name.as_str()), UpstreamPolicies { breakers, ..Default::default() })
        });
        Self { by_upstream: policies.collect() }
    }

    /// The breakers of all upstreams that have some.
    pub(crate) fn breakers(&self) -> impl Iterator<Item = &Arc<Breakers>> {
        self.by_upstream.values().filter_map(|policies| policies.breakers.as_ref())
    }

    /// Those of this upstream.
    pub(crate) fn of(&self, upstream: &str) -> UpstreamPolicies {
        self.by_upstream.get(upstream).cloned().unwrap_or_default()
    }
}
