//! What the policies of one upstream know, shared by all workers and all routes that lead there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::runtime::Handle;

use crate::config::{Config, UpstreamConfig};
use crate::export::catalog::{self, Family};
use crate::export::metrics::{Registry, Source, Value};
use crate::layer::retry::{Budget, Tally};
use crate::upstream::{Addresses, Resolver, Shown};

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
    /// How often they were.
    pub(crate) tally: Arc<Tally>,
    /// Calls that came here because another target would not do.
    pub(crate) taken: Arc<AtomicU64>,
    /// How its addresses are; absent where it has but one, and nobody watches that.
    pub(crate) addresses: Option<Arc<Addresses>>,
}

impl Policies {
    /// Makes them, and begins to watch addresses in the background.
    pub(crate) fn start(config: &Config, handle: &Handle, resolver: &Arc<dyn Resolver>) -> Self {
        let policies = |(name, upstream): (&String, &UpstreamConfig)| {
            let addresses = Addresses::watch(name, upstream, handle, resolver);
            (Arc::from(name.as_str()), UpstreamPolicies { addresses, ..Default::default() })
        };
        Self { by_upstream: config.upstreams.iter().map(policies).collect() }
    }

    /// Has the metrics say what the policies did.
    pub(crate) fn watch(&self, registry: &Registry) {
        for (name, policies) in &self.by_upstream {
            // Who only counts should not keep watch.
            let counts = UpstreamPolicies { addresses: None, ..policies.clone() };
            registry.watch(Watched { upstream: name.clone(), policies: counts });
            if let Some(addresses) = &policies.addresses {
                registry.watch(Shown(Arc::downgrade(&addresses.balancer)));
            }
        }
    }

    /// Those of this upstream.
    pub(crate) fn of(&self, upstream: &str) -> UpstreamPolicies {
        self.by_upstream.get(upstream).cloned().unwrap_or_default()
    }
}

/// The policies of one upstream, for the metrics.
struct Watched {
    upstream: Arc<str>,
    policies: UpstreamPolicies,
}

impl Source for Watched {
    fn read(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        let UpstreamPolicies { tally, taken, .. } = &self.policies;
        let mut count = |family, word: Option<&str>, count| {
            // What never happened has no series.
            if count > 0 {
                let labels = [Some(&*self.upstream), word].into_iter().flatten();
                show(family, labels.map(str::to_owned).collect(), Value::Counter(count));
            }
        };
        for (word, made) in tally.all_made() {
            count(&catalog::RETRIES, Some(word), made);
        }
        for (word, denied) in tally.all_denied() {
            count(&catalog::RETRIES_DENIED, Some(word), denied);
        }
        count(&catalog::FALLBACKS, None, taken.load(Relaxed));
    }
}
