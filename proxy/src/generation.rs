//! One reading of the configuration, and what all workers share of it.
//!
//! A configuration that is read anew makes the next generation: each worker builds its own routes
//! of it, on its own thread, and serves by them whatever begins from then on. A call keeps the
//! generation that it began with, and the last one to hold it ends it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_credential::Credential;
use tidegate_wire::Prices;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::bypass::Switch;
use crate::callers::Callers;
use crate::config::{Config, ConfigError};
use crate::credentials::{self, Credentials};
use crate::export::metrics::Registry;
use crate::going_on::AllPlaces;
use crate::hold::Held;
use crate::intercept::Intercept;
use crate::layer::cache::Caches;
use crate::layer::quota::{Clock, Quotas};
use crate::layer::shadow::Shadows;
use crate::policies::Policies;
use crate::split;
use crate::states::States;
use crate::store::Store;
use crate::upstream::Resolver;

/// One reading of the configuration.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) config: Config,
    pub(crate) credentials: Credentials,
    pub(crate) prices: Arc<Prices>,
    /// Bytes of held bodies, whichever generation their calls began with.
    pub(crate) held: Held,
    /// What the policies of its upstreams know.
    pub(crate) policies: Policies,
    /// Who may call; absent where callers have no names.
    pub(crate) callers: Option<Arc<Callers>>,
    /// What was answered before, and is kept; absent where no route keeps anything.
    pub(crate) caches: Option<Caches>,
    /// What other sidecars share with this one; absent where nothing is shared.
    pub(crate) store: Option<Store>,
    /// What calls may use; absent where nothing is said of it.
    pub(crate) quotas: Option<Arc<Quotas>>,
    /// Copies of calls.
    pub(crate) shadows: Shadows,
    /// What its workers share and the admin address shows.
    pub(crate) states: States,
    means: Means,
    /// When it was read.
    pub(crate) loaded: jiff::Timestamp,
    /// A permit for each worker that serves by it.
    taken: Semaphore,
}

/// What every generation needs.
#[derive(Clone, Debug)]
pub(crate) struct Means {
    /// Where addresses are watched.
    pub(crate) background: Handle,
    /// How names are resolved.
    pub(crate) resolver: Arc<dyn Resolver>,
    /// For calls that go on though their callers have left.
    pub(crate) places: AllPlaces,
    /// Whether policies act.
    pub(crate) switch: Arc<Switch>,
    /// What time it is.
    pub(crate) clock: Clock,
    /// What was counted of calls.
    pub(crate) registry: Arc<Registry>,
    /// What takes in calls that are made to others; absent where nothing does.
    pub(crate) intercept: Option<Arc<Intercept>>,
}

/// What one reading of the configuration leaves to the next.
#[derive(Default)]
struct Before {
    credentials: Credentials,
    policies: Policies,
    caches: Option<Caches>,
    store: Option<Store>,
    quotas: Option<Arc<Quotas>>,
    shadows: Shadows,
    held: Held,
}

/// Why a configuration that reads well cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A credential cannot be had.
    #[error(transparent)]
    Credentials(#[from] credentials::Error),
    /// The table of prices cannot be used.
    #[error(transparent)]
    Prices(#[from] ConfigError),
    /// A file that the store needs cannot be used.
    #[error("store: {0}")]
    Store(String),
}

impl Generation {
    /// The first one.
    pub(crate) fn first(config: Config, means: Means) -> Result<Self, Error> {
        Self::new(config.with_way_out(), Before::default(), means)
    }

    /// The one after this, which keeps of it what the configuration says again.
    pub(crate) fn next(&self, config: Config) -> Result<Self, Error> {
        let config = config.with_way_out();
        let is_same = |name: &str| config.upstreams.get(name) == self.config.upstreams.get(name);
        let before = Before {
            credentials: self.credentials.clone(),
            policies: self.policies.kept(is_same),
            caches: self.caches.clone(),
            store: self.store.clone(),
            quotas: self.quotas.clone(),
            shadows: self.shadows.clone(),
            held: self.held.clone(),
        };
        Self::new(config, before, self.means.clone())
    }

    fn new(config: Config, before: Before, means: Means) -> Result<Self, Error> {
        let Before { credentials, policies, caches, store, quotas, shadows, held } = before;
        let prices = crate::prices(config.prices.as_deref())?;
        let credentials = credentials.next(&config)?;
        means.places.allow(config.limits.drains.get() as usize);
        let policies = policies.with(&config, &means);
        let store = Store::of(&config, store.as_ref(), &means.background);
        let caches = Caches::of(&config, store.as_ref(), caches.as_ref()).map_err(Error::Store)?;
        let quotas = Quotas::new(
            &config,
            prices.clone(),
            means.clock.clone(),
            store.as_ref(),
            quotas.as_deref(),
        );
        shadows.keep(&config);
        let mut states = States::default();
        shadows.show(&config, &mut states);
        for (upstream, credential, refusals) in credentials.all() {
            let (credential, refusals) = (credential.clone(), refusals.clone());
            let state = move || {
                let mut state = freshness(&credential);
                state["refused"] = refusals.state();
                state
            };
            states.show("credentials", upstream, state);
        }
        policies.show(&mut states);
        let switch = means.switch.clone();
        states.show("bypass", "switch", move || json!(switch.setting()));
        for route in config.routes.iter().filter(|route| !route.split.is_empty()) {
            let (route, registry) = (route.clone(), means.registry.clone());
            let name = route.name().to_owned();
            states.show("split", &name, move || split::glance(&route, &registry));
        }
        if let Some(intercept) = means.intercept.clone() {
            states.show("intercept", "proxy", move || intercept.state());
        }
        if let Some(store) = &store {
            store.show(&mut states);
        }
        if let Some(caches) = &caches {
            caches.show(&mut states);
        }
        if let Some(quotas) = &quotas {
            quotas.show(&mut states);
        }
        Ok(Self {
            prices,
            credentials,
            held,
            policies,
            callers: Callers::of(&config),
            caches,
            store,
            quotas,
            shadows,
            states,
            means,
            loaded: jiff::Timestamp::now(),
            taken: Semaphore::new(0),
            config,
        })
    }

    /// What takes in calls that are made to others.
    pub(crate) fn intercept(&self) -> Option<&Arc<Intercept>> {
        self.means.intercept.as_ref()
    }

    /// Whether policies act.
    pub(crate) fn switch(&self) -> &Arc<Switch> {
        &self.means.switch
    }

    /// What is in use, as it may be shown.
    pub(crate) fn shown(&self) -> Value {
        json!({ "loaded": self.loaded.to_string(), "config": self.config.effective() })
    }

    /// A worker serves by it from now on.
    pub(crate) fn taken_up(&self) {
        self.taken.add_permits(1);
    }

    /// Whether so many workers serve by it before the limit.
    pub(crate) async fn is_taken_up(&self, workers: usize, limit: Duration) -> bool {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        tokio::time::timeout(limit, self.taken.acquire_many(workers)).await.is_ok()
    }
}

/// How fresh a credential is; one that never changes says so.
fn freshness(credential: &Credential) -> Value {
    let Some(fresh) = credential.freshness() else { return json!({ "is_fixed": true }) };
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
    json!({
        "age_s": seconds(fresh.age),
        "expires_in_s": seconds(fresh.expires_in),
        "failures": fresh.failures,
    })
}
