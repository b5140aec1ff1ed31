//! Which call goes where. The first match wins.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_wire::{Dialect, HeadView, Shape, glob};

use crate::config::{Config, MatchConfig, RouteConfig, UpstreamConfig};
use crate::generation::Generation;
use crate::head::RequestHead;
use crate::layer::include_usage::IncludeUsageLayer;
use crate::stack::{Stack, stack};
use crate::upstream::{Signing, Spec, Upstream};

/// The routes of one worker.
#[derive(Debug)]
pub(crate) struct Routes {
    /// In the order of the configuration.
    routes: Vec<Rc<Route>>,
    upstreams: BTreeMap<String, Rc<Upstream>>,
    /// What they were made of.
    generation: Arc<Generation>,
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
        let upstreams: BTreeMap<_, _> = config
            .upstreams
            .iter()
            .map(|(name, upstream)| {
                let kept = old.and_then(|old| old.upstream(name, upstream));
                (name.clone(), kept.unwrap_or_else(|| new_upstream(&generation, name, upstream)))
            })
            .collect();
        let route = |route: &RouteConfig| {
            let upstream = &upstreams[&route.upstream];
            let kept = old.and_then(|old| old.route(route, upstream));
            kept.unwrap_or_else(|| Rc::new(Route::new(&generation, route, upstream)))
        };
        Self { routes: config.routes.iter().map(route).collect(), upstreams, generation }
    }

    /// The upstream of this name, if this is what it was made of.
    fn upstream(&self, name: &str, config: &UpstreamConfig) -> Option<Rc<Upstream>> {
        let is_same = self.generation.config.upstreams.get(name) == Some(config);
        is_same.then(|| self.upstreams.get(name).cloned()).flatten()
    }

    /// The route that was made of this, if it leads to this very upstream.
    fn route(&self, config: &RouteConfig, upstream: &Rc<Upstream>) -> Option<Rc<Route>> {
        let is_same =
            self.upstreams.get(&config.upstream).is_some_and(|old| Rc::ptr_eq(old, upstream));
        let mut made = self.generation.config.routes.iter().zip(&self.routes);
        let found = made.find(|(old, _)| is_same && *old == config)?;
        Some(found.1.clone())
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

    /// What this worker alone knows of its policies, by policy and upstream.
    pub(crate) fn state(&self) -> Value {
        let connections = self.upstreams.iter().map(|(name, upstream)| (name, upstream.state()));
        json!({ "connections": connections.collect::<BTreeMap<_, _>>() })
    }

    /// Closes upstream connections that have been idle for too long.
    pub(crate) fn sweep(&self) {
        self.upstreams.values().for_each(|upstream| upstream.sweep());
    }
}

fn new_upstream(generation: &Generation, name: &str, config: &UpstreamConfig) -> Rc<Upstream> {
    let Config { timeouts, limits, .. } = &generation.config;
    let spec = Spec::new(name, config).expect("the configuration was checked");
    let signing = generation.credentials.of(name).map(|credential| {
        let (credential, held) = (credential.clone(), &generation.held.signed);
        Signing::new(spec.name.clone(), credential, timeouts, limits, held)
    });
    Rc::new(Upstream::new(spec.into(), signing, timeouts, limits))
}

// === impl Route ===

impl Route {
    fn new(generation: &Generation, config: &RouteConfig, upstream: &Rc<Upstream>) -> Self {
        let Config { timeouts, limits, .. } = &generation.config;
        let held = &generation.held.policies;
        let include_usage = IncludeUsageLayer::new(config.include_usage, timeouts, limits, held);
        Self {
            name: config.name.as_deref().unwrap_or(&config.upstream).into(),
            upstream: upstream.spec.name.clone(),
            model: upstream.spec.model.clone(),
            strip_prefix: config.strip_prefix.clone(),
            stack: stack(upstream.clone(), include_usage),
            matches: Match::new(&config.matches),
        }
    }
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
