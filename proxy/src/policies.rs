//! What the policies of one upstream know, shared by all workers and all routes that lead there.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{Config, UpstreamConfig};
use crate::layer::limit::Limits;
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
    /// How many calls it may have at a time.
    pub(crate) limits: Option<Arc<Limits>>,
}

impl Policies {
    pub(crate) fn new(config: &Config) -> Self {
        let policies = |(name, upstream): (&String, &UpstreamConfig)| {
            let name: Arc<str> = name.as_str().into();
            let limits = upstream.limit.as_ref();
            let limits = limits.map(|limit| Arc::new(Limits::new(name.clone(), limit)));
            (name, UpstreamPolicies { limits, ..UpstreamPolicies::default() })
        };
        Self { by_upstream: config.upstreams.iter().map(policies).collect() }
    }

    /// Every limit that there is.
    pub(crate) fn limits(&self) -> impl Iterator<Item = &Arc<Limits>> {
        self.by_upstream.values().filter_map(|policies| policies.limits.as_ref())
    }

    /// Those of this upstream.
    pub(crate) fn of(&self, upstream: &str) -> UpstreamPolicies {
        self.by_upstream.get(upstream).cloned().unwrap_or_default()
    }
}
