//! What the policies of one upstream know, shared by all workers and all routes that lead there.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Config;
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
}

impl Policies {
    pub(crate) fn new(config: &Config) -> Self {
        let policies = |name: &String| (Arc::from(name.as_str()), UpstreamPolicies::default());
        Self { by_upstream: config.upstreams.keys().map(policies).collect() }
    }

    /// Those of this upstream.
    pub(crate) fn of(&self, upstream: &str) -> UpstreamPolicies {
        self.by_upstream.get(upstream).cloned().unwrap_or_default()
    }
}
