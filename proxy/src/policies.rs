//! What the policies of one upstream know, shared by all workers and all routes that lead there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::config::{Config, UpstreamConfig};
use crate::export::catalog::{self, Family};
use crate::export::metrics::{Registry, Source, Value};
use crate::layer::breaker::{self, Breakers};
use crate::layer::limit::{LimitMetrics, Limits};
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
    /// Whether they are let through.
    pub(crate) breakers: Option<Arc<Breakers>>,
    /// How many calls it may have at a time.
    pub(crate) limits: Option<Arc<Limits>>,
    /// How its addresses are; absent where it has but one, and nobody watches that.
    pub(crate) addresses: Option<Arc<Addresses>>,
}

impl UpstreamPolicies {
    /// Those that an upstream is configured with.
    fn start(
        name: &Arc<str>,
        upstream: &UpstreamConfig,
        handle: &Handle,
        resolver: &Arc<dyn Resolver>,
    ) -> Self {
        let limits = upstream.limit.as_ref();
        Self {
            breakers: breaker::of_upstream(name, upstream, Instant::now()),
            limits: limits.map(|limit| Arc::new(Limits::new(name.clone(), limit))),
            addresses: Addresses::watch(name, upstream, handle, resolver),
            ..Self::default()
        }
    }

    /// Whether one of them must know the model of a call, wherever it stands.
    pub(crate) fn asks_for_model(&self) -> bool {
        let limits = self.limits.as_ref();
        self.breakers.is_some() || limits.is_some_and(|limits| limits.asks_for_model())
    }
}

impl Policies {
    /// Makes them, and begins to watch addresses in the background.
    pub(crate) fn start(config: &Config, handle: &Handle, resolver: &Arc<dyn Resolver>) -> Self {
        let policies = |(name, upstream): (&String, &UpstreamConfig)| {
            let name: Arc<str> = name.as_str().into();
            let policies = UpstreamPolicies::start(&name, upstream, handle, resolver);
            (name, policies)
        };
        Self { by_upstream: config.upstreams.iter().map(policies).collect() }
    }

    /// Has the metrics say what the policies did.
    pub(crate) fn watch(&self, registry: &Registry) {
        for (name, policies) in &self.by_upstream {
            // Who only counts should not keep watch.
            let counts = UpstreamPolicies { addresses: None, ..policies.clone() };
            registry.watch(Watched { upstream: name.clone(), policies: counts });
            if let Some(breakers) = &policies.breakers {
                registry.watch(breakers.clone());
            }
            if let Some(limits) = policies.limits.clone() {
                registry.watch(LimitMetrics { limits, models: registry.models().clone() });
            }
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
