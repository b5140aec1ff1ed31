//! Which call goes where. The first match wins.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_wire::{Dialect, HeadView, Shape, glob};

use crate::config::{Config, MatchConfig, RouteConfig};
use crate::credentials::Credentials;
use crate::head::RequestHead;
use crate::hold::Held;
use crate::layer::fallback::{FallbackLayer, Target};
use crate::layer::include_usage::IncludeUsageLayer;
use crate::layer::repeatable::{Keeping, RepeatableLayer};
use crate::policies::Policies;
use crate::stack::{self, Stack, stack, target};
use crate::upstream::{Signing, Spec, Upstream};

/// The routes of one worker.
#[derive(Debug)]
pub(crate) struct Routes {
    routes: Vec<Route>,
    upstreams: Vec<Rc<Upstream>>,
}

/// One route, with the policies of its own.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    pub(crate) upstream: Arc<str>,
    /// The model that is served there, where calls name none.
    pub(crate) model: Option<String>,
    pub(crate) strip_prefix: Option<String>,
    pub(crate) stack: Stack,
    /// Whether a policy must know the model, wherever it stands.
    pub(crate) asks_for_model: bool,
    matches: Match,
}

/// What a call must be.
#[derive(Debug)]
struct Match {
    dialect: Option<Dialect>,
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
    pub(crate) fn new(
        config: &Config,
        credentials: &Credentials,
        held: &Held,
        policies: &Policies,
    ) -> Self {
        let upstreams: BTreeMap<&str, Rc<Upstream>> = config
            .upstreams
            .iter()
            .map(|(name, upstream)| {
                let spec = Spec::new(name, upstream).expect("the configuration was checked");
                let (timeouts, limits) = (&config.timeouts, &config.limits);
                let signing = credentials.of(name).map(|credential| {
                    let credential = credential.clone();
                    Signing::new(spec.name.clone(), credential, timeouts, limits, &held.signed)
                });
                let balancer = policies.of(name).addresses.map(|all| all.balancer.clone());
                let upstream = Upstream::new(spec.into(), signing, balancer, timeouts, limits);
                (name.as_str(), Rc::new(upstream))
            })
            .collect();
        let routes = config.routes.iter().map(|route| {
            let upstream = &upstreams[route.upstream.as_str()];
            let (timeouts, limits) = (&config.timeouts, &config.limits);
            let include_usage =
                IncludeUsageLayer::new(route.include_usage, timeouts, limits, &held.policies);
            Route {
                name: route.name.as_deref().unwrap_or(&route.upstream).into(),
                upstream: upstream.spec.name.clone(),
                model: upstream.spec.model.clone(),
                strip_prefix: route.strip_prefix.clone(),
                stack: stack(
                    target(upstream.clone(), &policies.of(&route.upstream), route, None),
                    include_usage,
                    repeatable(config, route, held),
                    fallback(route, &upstreams, policies),
                ),
                asks_for_model: asks_for_model(route, policies),
                matches: Match::new(&route.matches),
            }
        });
        Self { routes: routes.collect(), upstreams: upstreams.into_values().collect() }
    }

    /// The first route that takes this call; `model` is `None` while it may still be read.
    pub(crate) fn pick(
        &self,
        head: &RequestHead,
        dialect: Dialect,
        model: Option<Option<&str>>,
    ) -> Pick<'_> {
        for route in &self.routes {
            if !route.matches.head(head, dialect) {
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

    /// Closes upstream connections that have been idle for too long.
    pub(crate) fn sweep(&self) {
        self.upstreams.iter().for_each(|upstream| upstream.sweep());
    }
}

/// Keeps bodies at hand where calls may be made again.
fn repeatable(config: &Config, route: &RouteConfig, held: &Held) -> RepeatableLayer {
    let is_needed = route.retry.is_some() || !route.fallback.is_empty();
    RepeatableLayer(is_needed.then(|| {
        Arc::new(Keeping {
            limits: config.limits.clone(),
            body_idle: config.timeouts.request_body_idle.0,
            held: held.policies.clone(),
        })
    }))
}

/// Whether one of the upstreams that this route leads to has policies for each model.
fn asks_for_model(route: &RouteConfig, policies: &Policies) -> bool {
    let others = route.fallback.iter().filter_map(|target| target.upstream.as_ref());
    std::iter::once(&route.upstream).chain(others).any(|name| policies.of(name).asks_for_model())
}

/// The targets beside the route's own upstream.
fn fallback(
    route: &RouteConfig,
    upstreams: &BTreeMap<&str, Rc<Upstream>>,
    policies: &Policies,
) -> FallbackLayer<stack::Target> {
    let own = &upstreams[route.upstream.as_str()];
    let targets = route.fallback.iter().map(|config| {
        let name = config.upstream.as_ref().unwrap_or(&route.upstream);
        let (upstream, policies) = (upstreams[name.as_str()].clone(), policies.of(name));
        Target {
            config: config.clone(),
            upstream: upstream.spec.name.clone(),
            trusts_caller: upstream.has_credential() || upstream.spec.has_hosts_of(&own.spec),
            taken: policies.taken.clone(),
            stack: target(upstream, &policies, route, config.model.as_deref()),
        }
    });
    let attempts = route.retry.clone().unwrap_or_default().attempts.get();
    FallbackLayer { targets: targets.collect(), attempts }
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
        let MatchConfig { dialect, host, path, header, model } = config.clone();
        Self { dialect, host: host.map(|host| host.to_ascii_lowercase()), path, header, model }
    }

    /// Whether all holds that the head can say.
    fn head(&self, head: &RequestHead, dialect: Dialect) -> bool {
        self.dialect.is_none_or(|wanted| wanted == dialect)
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
