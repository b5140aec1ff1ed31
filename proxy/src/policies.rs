//! What the policies of one upstream know, shared by all workers and all routes that lead there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::json;
use tokio::time::Instant;

use crate::bypass::Counts;
use crate::config::{Config, TargetConfig, UpstreamConfig};
use crate::export::catalog::{self, Family};
use crate::export::metrics::{Registry, Source, Value};
use crate::generation::Means;
use crate::layer::breaker::{self, Breakers};
use crate::layer::limit::{LimitMetrics, Limits};
use crate::layer::retry::{Budget, Tally};
use crate::states::States;
use crate::upstream::{Addresses, ConnectFailures, Drains, Shown, Warmth};

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
    /// Attempts that got no connection.
    pub(crate) connect_failures: Arc<ConnectFailures>,
    /// Calls on which policies would have acted that were bypassed, of the routes to this upstream.
    pub(crate) bypassed: Arc<Counts>,
    /// Whether they are let through.
    pub(crate) breakers: Option<Arc<Breakers>>,
    /// How many calls it may have at a time.
    pub(crate) limits: Option<Arc<Limits>>,
    /// How its addresses are; absent where it has but one, and nobody watches that.
    pub(crate) addresses: Option<Arc<Addresses>>,
    /// How warm it is kept.
    pub(crate) warmth: Option<Arc<Warmth>>,
    /// Its answers that are read on though their callers have left.
    pub(crate) drains: Option<Arc<Drains>>,
}

impl UpstreamPolicies {
    /// Those that an upstream is configured with.
    fn start(
        name: &Arc<str>,
        upstream: &UpstreamConfig,
        targets: &[TargetConfig],
        means: &Means,
    ) -> Self {
        let bypassed = Arc::<Counts>::default();
        let limits =
            |limit| Limits::new(name.clone(), limit, means.switch.clone(), bypassed.clone());
        Self {
            breakers: breaker::of_upstream(name, upstream, targets, Instant::now()),
            limits: upstream.limit.as_ref().map(limits).map(Arc::new),
            addresses: Addresses::watch(name, upstream, &means.background, &means.resolver),
            drains: Drains::of(&upstream.on_disconnect, &means.places).map(Arc::new),
            bypassed,
            warmth: upstream.warm_up.as_ref().map(Warmth::new).map(Arc::new),
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
    /// Those of upstreams for which this holds.
    pub(crate) fn kept(&self, is_same: impl Fn(&str) -> bool) -> Self {
        let kept = self.by_upstream.iter().filter(|(name, _)| is_same(name));
        Self { by_upstream: kept.map(|(name, kept)| (name.clone(), kept.clone())).collect() }
    }

    /// These, and those of all other upstreams, which begin now.
    pub(crate) fn with(mut self, config: &Config, means: &Means) -> Self {
        for (name, upstream) in &config.upstreams {
            let name: Arc<str> = name.as_str().into();
            let targets = config.targets_at(&name);
            let begin = || UpstreamPolicies::start(&name, upstream, &targets, means);
            self.by_upstream.entry(name.clone()).or_insert_with(begin);
        }
        self
    }

    /// Has the admin address show how the policies stand.
    pub(crate) fn show(&self, states: &mut States) {
        for (name, policies) in &self.by_upstream {
            if let Some(breakers) = policies.breakers.clone() {
                states.show("breakers", name, move || json!(breakers.snapshot(Instant::now())));
            }
            if let Some(limits) = policies.limits.clone() {
                states.show("limits", name, move || json!(limits.states()));
            }
            if let Some(addresses) = policies.addresses.clone() {
                states.show("addresses", name, move || {
                    json!(addresses.balancer.snapshot(Instant::now()))
                });
            }
            if let Some(drains) = policies.drains.clone() {
                states.show("drains", name, move || json!({ "open": drains.open() }));
            }
            if let Some(warmth) = policies.warmth.clone() {
                states.show("warm_up", name, move || warmth.state());
            }
            let bypassed = policies.bypassed.clone();
            states.show("bypassed", name, move || {
                json!(bypassed.all().filter(|(_, count)| *count > 0).collect::<BTreeMap<_, _>>())
            });
            let tally = policies.tally.clone();
            states.show("retries", name, move || {
                let counts = |counts: &mut dyn Iterator<Item = (&'static str, u64)>| {
                    counts.collect::<BTreeMap<_, _>>()
                };
                json!({
                    "made": counts(&mut tally.all_made()),
                    "denied": counts(&mut tally.all_denied()),
                })
            });
        }
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

    /// Whether some calls go on though their callers have left.
    pub(crate) fn may_go_on(&self) -> bool {
        self.by_upstream.values().any(|policies| policies.drains.is_some())
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
        let UpstreamPolicies { tally, taken, drains, bypassed, connect_failures, warmth, .. } =
            &self.policies;
        if let Some(drains) = drains {
            let open = i64::try_from(drains.open()).unwrap_or(i64::MAX);
            show(&catalog::DRAINS_OPEN, vec![self.upstream.to_string()], Value::Gauge(open));
        }
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
        for (word, bypassed) in bypassed.all() {
            count(&catalog::BYPASSED, Some(word), bypassed);
        }
        for (word, opened) in warmth.iter().flat_map(|warmth| warmth.counts()) {
            count(&catalog::WARM_UP_CONNECTIONS, Some(word), opened);
        }
        for (word, failures) in connect_failures.all() {
            count(&catalog::CONNECT_FAILURES, Some(word), failures);
        }
        count(&catalog::FALLBACKS, None, taken.load(Relaxed));
    }
}
