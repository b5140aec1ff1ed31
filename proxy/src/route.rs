//! Which call goes where. The first match wins.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_wire::{Dialect, HeadView, Shape, glob};

use crate::activity::Activity;
use crate::bypass::Counts;
use crate::config::{Config, MatchConfig, RouteConfig, UpstreamConfig};
use crate::exchange::Notes;
use crate::generation::Generation;
use crate::head::RequestHead;
use crate::hold::Keeping;
use crate::layer::Below;
use crate::layer::cache::CacheLayer;
use crate::layer::fallback::{FallbackLayer, Target};
use crate::layer::include_usage::{IncludeUsage, IncludeUsageLayer};
use crate::layer::quota::QuotaLayer;
use crate::layer::repeatable::RepeatableLayer;
use crate::layer::shadow::{Shadow, ShadowConfig, ShadowLayer};
use crate::policies::Policies;
use crate::recorder::Recorder;
use crate::split::{Draw, Way};
use crate::stack::{self, Shadowed, Stack, shadowed, stack, target};
use crate::upstream::{Forward, Signing, Spec, Upstream};

/// The routes of one worker.
#[derive(Debug)]
pub(crate) struct Routes {
    /// In the order of the configuration.
    routes: Vec<Rc<Route>>,
    upstreams: Upstreams,
    /// What they were made of.
    generation: Arc<Generation>,
}

/// The upstreams of one worker, by name.
pub(crate) type Upstreams = BTreeMap<String, Rc<Upstream>>;

/// One route, with the policies of its own.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    /// Where its own upstreams are.
    specs: Box<[Arc<Spec>]>,
    pub(crate) strip_prefix: Option<String>,
    /// From the request's head to the end of the answer.
    pub(crate) timeout: Option<Duration>,
    /// Whether a policy must know the model, wherever it stands.
    pub(crate) asks_for_model: bool,
    matches: Match,
    /// The ways that its calls go: one, unless it has a split.
    arms: Box<[Arm]>,
    draw: Draw,
}

/// One way that calls of a route go.
#[derive(Debug)]
pub(crate) struct Arm {
    /// Absent where the route has no split.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) upstream: Arc<str>,
    /// The model that is served there, where calls name none.
    pub(crate) model: Option<String>,
    /// Calls on which policies would have acted that were bypassed.
    pub(crate) bypassed: Arc<Counts>,
    pub(crate) stack: Stack,
}

/// What a call must be.
#[derive(Debug)]
struct Match {
    dialect: Option<Dialect>,
    caller: Option<String>,
    host: Option<String>,
    path: Option<String>,
    header: BTreeMap<String, String>,
    model: Option<String>,
}

/// What can be said of the routes before the model is known.
pub(crate) enum Pick<'a> {
    /// This one, whatever the model.
    Route(&'a Route),
    /// It depends on the model.
    AsksForModel,
    /// None.
    Nowhere,
}

// === impl Routes ===

impl Routes {
    /// The routes and their upstreams, as one worker owns them.
    pub(crate) fn new(generation: Arc<Generation>) -> Self {
        Self::after(None, generation)
    }

    /// The routes of the next generation. What it says as the last one did is the same as before,
    /// with its connections and with all that it knows.
    pub(crate) fn next(&self, generation: Arc<Generation>) -> Self {
        Self::after(Some(self), generation)
    }

    fn after(old: Option<&Self>, generation: Arc<Generation>) -> Self {
        let config = &generation.config;
        let old = old.filter(|old| {
            let old = &old.generation.config;
            (&old.timeouts, &old.limits) == (&config.timeouts, &config.limits)
        });
        let upstreams: Upstreams = config
            .upstreams
            .iter()
            .map(|(name, upstream)| {
                let kept = old.and_then(|old| old.upstream(name, upstream));
                (name.clone(), kept.unwrap_or_else(|| new_upstream(&generation, name, upstream)))
            })
            .collect();
        // Those of the next reading know its prices and limits.
        let is_same = |old: &&Self| same_quotas(&old.generation, &generation);
        let route = |route: &RouteConfig| {
            let old = old.filter(|old| old.generation.config.cache == config.cache);
            let kept = old.filter(is_same).and_then(|old| old.route(route, &upstreams));
            kept.unwrap_or_else(|| Rc::new(Route::new(&generation, route, &upstreams)))
        };
        Self { routes: config.routes.iter().map(route).collect(), upstreams, generation }
    }

    /// The upstream of this name, if this is what it was made of.
    fn upstream(&self, name: &str, config: &UpstreamConfig) -> Option<Rc<Upstream>> {
        let is_same = self.generation.config.upstreams.get(name) == Some(config);
        is_same.then(|| self.upstreams.get(name).cloned()).flatten()
    }

    /// The route that was made of this, if it leads to these very upstreams.
    fn route(&self, config: &RouteConfig, upstreams: &Upstreams) -> Option<Rc<Route>> {
        let is_same = |name: &str| match (self.upstreams.get(name), upstreams.get(name)) {
            (Some(old), Some(new)) => Rc::ptr_eq(old, new),
            _ => false,
        };
        let mut made = self.generation.config.routes.iter().zip(&self.routes);
        let found = made.find(|(old, _)| *old == config)?;
        config.upstreams().all(is_same).then(|| found.1.clone())
    }

    /// The first route that takes this call; `model` is `None` while it may still be read.
    pub(crate) fn pick(
        &self,
        head: &RequestHead,
        dialect: Dialect,
        caller: Option<&str>,
        model: Option<Option<&str>>,
    ) -> Pick<'_> {
        for route in &self.routes {
            if !route.may_take(head) || !route.matches.head(head, dialect, caller) {
                continue;
            }
            match (&route.matches.model, model) {
                (None, _) => return Pick::Route(route),
                (Some(_), None) => return Pick::AsksForModel,
                (Some(pattern), Some(Some(model))) if glob(pattern, model) => {
                    return Pick::Route(route);
                }
                (Some(_), Some(_)) => {}
            }
        }
        Pick::Nowhere
    }

    /// The stack of the first one, before other ends than connections.
    pub(crate) fn first_stack<S: Below>(&self, end: impl Fn(Rc<Upstream>) -> S) -> Stack<S> {
        let ways = self.generation.config.routes[0].ways();
        Arm::stack(&self.generation, &ways[0], &self.upstreams, end)
    }

    /// What this worker alone knows of its policies, by policy and upstream.
    pub(crate) fn state(&self) -> Value {
        let connections = self.upstreams.iter().map(|(name, upstream)| (name, upstream.state()));
        json!({ "connections": connections.collect::<BTreeMap<_, _>>() })
    }

    /// Whether one of its upstreams is kept warm.
    pub(crate) fn has_warm_up(&self) -> bool {
        self.generation.config.upstreams.values().any(|upstream| upstream.warm_up.is_some())
    }

    /// Does what is due for its upstreams to be warm.
    pub(crate) fn warm_up(&self, recorder: &Recorder, activity: &Arc<Activity>) {
        self.upstreams.values().for_each(|upstream| upstream.warm_up(recorder, activity));
    }

    /// Closes upstream connections that have been idle for too long.
    pub(crate) fn sweep(&self) {
        self.upstreams.values().for_each(|upstream| upstream.sweep());
    }
}

/// Whether the routes of both charge calls to the same quotas.
fn same_quotas(one: &Generation, other: &Generation) -> bool {
    match (&one.quotas, &other.quotas) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

fn new_upstream(generation: &Generation, name: &str, config: &UpstreamConfig) -> Rc<Upstream> {
    let Config { timeouts, limits, .. } = &generation.config;
    let spec = Spec::new(name, config).expect("the configuration was checked");
    let signing = generation.credentials.of(name).map(|(credential, refusals)| {
        let (own, held) = ((credential.clone(), refusals.clone()), &generation.held.signed);
        Signing::new(spec.name.clone(), own, timeouts, limits, held)
    });
    let policies = generation.policies.of(name);
    Rc::new(Upstream::new(spec.into(), signing, &policies, (timeouts, &config.timeouts), limits))
}

// === impl Route ===

impl Route {
    fn new(generation: &Generation, config: &RouteConfig, upstreams: &Upstreams) -> Self {
        let timeouts = &generation.config.timeouts;
        let quotas = generation.quotas.as_ref();
        let asks_for_model = |name: &str| {
            let has_aliases = !upstreams[name].spec.aliases.is_empty();
            has_aliases || generation.policies.of(name).asks_for_model()
        };
        let asks_for_model = config.leads_to().any(asks_for_model)
            || quotas.is_some_and(|quotas| {
                config.leads_to().any(|upstream| quotas.asks_for_model(upstream))
            });
        Self {
            name: config.name().into(),
            specs: config
                .ways()
                .iter()
                .map(|way| upstreams[way.route.upstream()].spec.clone())
                .collect(),
            strip_prefix: config.strip_prefix.clone(),
            timeout: config.timeout.or(timeouts.total).map(|limit| limit.0),
            asks_for_model,
            matches: Match::new(&config.matches),
            arms: config.ways().iter().map(|way| Arm::new(generation, way, upstreams)).collect(),
            draw: Draw::new(config, |upstream| upstreams[upstream].has_credential()),
        }
    }

    /// Whether it may take a call that is meant for this server, or for us.
    ///
    /// A call that is meant for another server has the credential for that: it goes elsewhere only
    /// where the route says so by the server's name.
    fn may_take(&self, head: &RequestHead) -> bool {
        match &head.meant {
            None => !self.specs.iter().any(|spec| spec.is_open()),
            Some(meant) => {
                let leads_there = |spec: &Arc<Spec>| spec.has_host(&meant.host);
                self.matches.host.is_some() || self.specs.iter().all(leads_there)
            }
        }
    }

    /// The way that this call goes; another call may go another.
    pub(crate) fn arm(&self, head: &RequestHead, notes: &Notes) -> &Arm {
        match &*self.arms {
            [only] => only,
            arms => &arms[self.draw.draw(head, notes.is_grpc())],
        }
    }
}

// === impl Arm ===

impl Arm {
    fn new(generation: &Generation, way: &Way, upstreams: &Upstreams) -> Self {
        let upstream = &upstreams[way.route.upstream()];
        Self {
            name: way.name.as_deref().map(Arc::from),
            upstream: upstream.spec.name.clone(),
            model: upstream.spec.model.clone(),
            bypassed: generation.policies.of(way.route.upstream()).bypassed,
            stack: Self::stack(generation, way, upstreams, |upstream| Forward { upstream }),
        }
    }

    /// Its policies, before what sends a call to an upstream.
    fn stack<S: Below>(
        generation: &Generation,
        way: &Way,
        upstreams: &Upstreams,
        end: impl Fn(Rc<Upstream>) -> S,
    ) -> Stack<S> {
        let policies = &generation.policies;
        let upstream = &upstreams[way.route.upstream()];
        let own = policies.of(way.route.upstream());
        let keeping = Arc::new(Keeping::new(&generation.config, &generation.held));
        stack(
            target(upstream, end(upstream.clone()), &own, way, 0, &keeping),
            CacheLayer::new(generation, way, upstreams),
            quota(generation, way, upstream, &keeping),
            shadow(generation, way, upstreams, &end, &keeping),
            include_usage(&way.route, &keeping),
            repeatable(&way.route, &keeping),
            fallback(way, upstreams, policies, &keeping, &end),
        )
    }
}

/// Charges calls to the quotas that are about the upstreams of this way.
fn quota(
    generation: &Generation,
    way: &Way,
    upstream: &Upstream,
    keeping: &Arc<Keeping>,
) -> QuotaLayer {
    let others = way.route.leads_to().skip(1);
    let (quotas, asked) = (generation.quotas.as_ref(), way.names.model.as_deref());
    QuotaLayer(quotas.and_then(|quotas| quotas.of_route(&upstream.spec, asked, others, keeping)))
}

/// Copies calls where the route says so.
fn shadow<S: Below>(
    generation: &Generation,
    way: &Way,
    upstreams: &Upstreams,
    end: impl Fn(Rc<Upstream>) -> S,
    keeping: &Arc<Keeping>,
) -> ShadowLayer<Shadowed<S>> {
    let shadow = |config: &ShadowConfig| {
        let upstream = upstreams[&config.upstream].clone();
        let is_known = |own: &String| upstream.spec.has_hosts_of(&upstreams[own].spec);
        let trusts_caller = upstream.has_credential() || way.siblings.iter().all(is_known);
        let (route, end) = (way.route.name(), end(upstream.clone()));
        Rc::new(Shadow {
            end: shadowed(&upstream, end, config.names(), keeping),
            config: config.clone(),
            route: route.into(),
            upstream,
            trusts_caller,
            shared: generation.shadows.of_route(route),
        })
    };
    ShadowLayer(way.route.shadow.as_ref().map(shadow))
}

/// Asks for the usage where the route says so.
fn include_usage(route: &RouteConfig, keeping: &Arc<Keeping>) -> IncludeUsageLayer {
    let is_asked = route.include_usage == IncludeUsage::Add;
    IncludeUsageLayer(is_asked.then(|| keeping.clone()))
}

/// Keeps bodies at hand where calls may be made again.
fn repeatable(route: &RouteConfig, keeping: &Arc<Keeping>) -> RepeatableLayer {
    let is_needed = route.retry.is_some() || !route.fallback.is_empty();
    RepeatableLayer(is_needed.then(|| keeping.clone()))
}

/// The targets beside the way's own upstream.
fn fallback<S: Below>(
    way: &Way,
    upstreams: &Upstreams,
    policies: &Policies,
    keeping: &Arc<Keeping>,
    end: impl Fn(Rc<Upstream>) -> S,
) -> FallbackLayer<stack::Target<S>> {
    let is_known =
        |spec: &Spec| way.siblings.iter().any(|own| spec.has_hosts_of(&upstreams[own].spec));
    let targets = way.route.fallback.iter().zip(1..).map(|(config, place)| {
        let name = config.upstream.as_deref().unwrap_or_else(|| way.route.upstream());
        let (upstream, policies) = (&upstreams[name], policies.of(name));
        Target {
            config: config.clone(),
            upstream: upstream.spec.name.clone(),
            trusts_caller: upstream.has_credential() || is_known(&upstream.spec),
            taken: policies.taken.clone(),
            stack: target(upstream, end(upstream.clone()), &policies, way, place, keeping),
        }
    });
    FallbackLayer { targets: targets.collect() }
}

/// What kind of call this is, as its head says.
pub(crate) fn shape(head: &RequestHead) -> Shape {
    Shape::read(&HeadView {
        method: head.method.as_str(),
        host: head.host(),
        path: head.target.path(),
        query: head.target.query(),
        headers: &head.fields,
    })
}

// === impl Match ===

impl Match {
    fn new(config: &MatchConfig) -> Self {
        let MatchConfig { dialect, caller, host, path, header, model } = config.clone();
        let host = host.map(|host| host.to_ascii_lowercase());
        Self { dialect, caller, host, path, header, model }
    }

    /// Whether all holds that the head can say.
    fn head(&self, head: &RequestHead, dialect: Dialect, caller: Option<&str>) -> bool {
        self.dialect.is_none_or(|wanted| wanted == dialect)
            && self
                .caller
                .as_ref()
                .is_none_or(|pattern| caller.is_some_and(|name| glob(pattern, name)))
            && self.host.as_ref().is_none_or(|pattern| {
                head.host().is_some_and(|host| glob(pattern, &host.to_ascii_lowercase()))
            })
            && self.path.as_ref().is_none_or(|pattern| glob(pattern, head.target.path()))
            && self.header.iter().all(|(name, pattern)| {
                let value = head.fields.get(name).and_then(|value| std::str::from_utf8(value).ok());
                value.is_some_and(|value| glob(pattern, value))
            })
    }
}
