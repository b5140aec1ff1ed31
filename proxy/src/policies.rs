//! What the policies of one upstream know, shared by all workers and all routes that lead there.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::config::{Config, UpstreamConfig};
use crate::layer::retry::Budget;
use crate::upstream::{Resolver, Shown, Watched};

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
    /// How its addresses are, where there are several.
    pub(crate) watched: Option<Arc<Watched>>,
}

impl Policies {
    /// Makes them, and begins to watch addresses in the background.
    pub(crate) fn start(config: &Config, handle: &Handle, resolver: &Arc<dyn Resolver>) -> Self {
        let policies = |(name, upstream): (&String, &UpstreamConfig)| {
            let watched = Watched::start(name, upstream, handle, resolver);
            (Arc::from(name.as_str()), UpstreamPolicies { watched, ..Default::default() })
        };
        Self { by_upstream: config.upstreams.iter().map(policies).collect() }
    }

    /// Everything about them that has metrics.
    pub(crate) fn sources(&self) -> impl Iterator<Item = Shown> {
        let watched = self.by_upstream.values().filter_map(|policies| policies.watched.as_ref());
        watched.map(|watched| Shown(Arc::downgrade(&watched.balancer)))
    }

    /// Those of this upstream.
    pub(crate) fn of(&self, upstream: &str) -> UpstreamPolicies {
        self.by_upstream.get(upstream).cloned().unwrap_or_default()
    }
}
