//! What a user writes: listeners, upstreams, routes. Empty is a good configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_credential::{CredentialConfig, Place};
use tidegate_settings::nearest;
use tidegate_wire::Dialect;

pub use crate::baseline::{BaselineConfig, Ordinary};
pub use crate::callers::{CallerConfig, CallersConfig, KeyDigest, Others};
pub use crate::export::capture::{CaptureConfig, EncryptConfig};
pub use crate::export::history::HistoryConfig;
use crate::export::names::Conventions;
use crate::export::otlp::{self, Otlp, OtlpConfig};
pub use crate::intercept::{InterceptConfig, Unlisted};
pub use crate::layer::breaker::{BreakerConfig, SlowConfig, Steps, WhenAllOpen};
pub use crate::layer::cache::{
    AlikeConfig, Allow, CacheConfig, EmbeddingsConfig, SharedCacheConfig,
};
pub use crate::layer::fallback::TargetConfig;
pub use crate::layer::include_usage::IncludeUsage;
pub use crate::layer::limit::{AdaptiveConfig, LimitConfig};
pub use crate::layer::quota::{
    Dollars, Mode, Part, Parts, QuotaConfig, QuotaMatch, Reserve, WindowConfig,
};
pub use crate::layer::retry::{LimitedConfig, RetryConfig};
pub use crate::layer::shadow::ShadowConfig;
pub use crate::scrape::ScrapeConfig;
pub use crate::spend::BudgetConfig;
pub use crate::split::{ArmConfig, StickyConfig};
pub use crate::store::StoreConfig;
pub use crate::tls::{CaConfig, TlsConfig, UpstreamTlsConfig};
pub use crate::upstream::{
    BalanceConfig, DnsConfig, DrainConfig, EjectConfig, HealthConfig, Metrics, OnDisconnect,
    SteerConfig, WarmUpCall, WarmUpConfig,
};

#[cfg(test)]
mod mistake;
mod schema;
mod show;
mod warnings;

pub use tidegate_settings::{ConfigError, Ratio, Size, Span};
pub(crate) use tidegate_settings::{parse_yaml, within_file};

use crate::split::Way;
use crate::upstream::ORIGIN;
pub(crate) use schema::Address;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where callers connect.
    #[schemars(with = "Address")]
    pub listen: SocketAddr,
    /// Where metrics and probes are served.
    #[schemars(with = "Address")]
    pub admin: SocketAddr,
    /// A third address that serves `/livez`, `/readyz` and `/metrics` alone.
    #[schemars(with = "Option<Address>")]
    pub health: Option<SocketAddr>,
    /// Where the token stands that the admin address asks for before it switches anything; nothing can
    /// be switched there where absent. The environment variable TIDEGATE_ADMIN_TOKEN counts more.
    pub admin_token: Option<Place>,
    /// Threads that carry traffic; as many as the container has cores where absent.
    pub workers: Option<NonZeroU16>,
    /// Whether all policies look on only: they judge and count, and act on no call.
    pub bypass: bool,
    /// Whether the last hour is kept in memory, for the page at the admin address.
    pub recent: bool,
    /// A file for one JSON object per call; `-` is standard output.
    pub records: Option<PathBuf>,
    /// Calls that are made to others: taken in as their proxy, and measured; none where absent.
    pub intercept: Option<InterceptConfig>,
    /// TLS on `listen`, beside what is in the clear; none where absent.
    pub tls: Option<TlsConfig>,
    /// Who signs the certificates that callers are shown.
    pub ca: CaConfig,
    /// The places that calls go to, by name.
    pub upstreams: BTreeMap<String, UpstreamConfig>,
    /// Which call goes where; the first match wins.
    pub routes: Vec<RouteConfig>,
    /// Who calls, where one sidecar serves several.
    pub callers: CallersConfig,
    /// How much of their answers all routes with a `cache` keep together.
    pub cache: SharedCacheConfig,
    /// A Redis or Valkey that several sidecars share, for caches and quotas that say so.
    pub store: Option<StoreConfig>,
    /// How much calls may use in a window, by name.
    pub quotas: BTreeMap<String, QuotaConfig>,
    /// How long things may take.
    pub timeouts: TimeoutsConfig,
    /// How much there may be of things.
    pub limits: LimitsConfig,
    /// Metrics and spans by OTLP; the `OTEL_*` variables say the same.
    pub otlp: OtlpConfig,
    /// Whose figures are read on the pod's behalf, and passed on by OTLP.
    pub scrape: Vec<ScrapeConfig>,
    /// Whether times and sizes of calls are counted by exponential buckets too: by OTLP in place of fixed
    /// bounds, and for a Prometheus that asks for native histograms.
    pub exponential_histograms: bool,
    /// Whose names metrics and spans have: the newest GenAI conventions', version 1.36's, or both.
    pub semantic_conventions: Conventions,
    /// Whether spans carry what was said: prompts, answers, tools.
    pub capture_content: bool,
    /// A file in which calls are captured, to be made again as a load test.
    pub capture: CaptureConfig,
    /// A file in which what came to pass is kept, minute by minute.
    pub history: HistoryConfig,
    /// A table of prices in place of the one that is built in; beside this file, unless it says where.
    pub prices: Option<PathBuf>,
}

/// One place that calls go to: a URL, or several addresses of one service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamConfig {
    /// `https://host[:port]`; `{location}` in it is filled from the call's path. `{origin}` is the server
    /// that a call was meant for which came by `intercept`.
    #[schemars(extend("pattern" = "^(https?://|\\{origin\\}$)"))]
    pub url: Option<String>,
    /// Several URLs of one service.
    pub addresses: Vec<String>,
    /// Another host or IP (and port) to dial, while Host and SNI stay the URL's.
    pub address: Option<String>,
    /// The locations that `{location}` may be filled with.
    pub locations: Vec<String>,
    /// The model that is served here, where calls name none.
    pub model: Option<String>,
    /// What models are called here, by the names that callers ask for.
    pub aliases: BTreeMap<String, String>,
    /// Who serves here: the `gen_ai.provider.name` of its calls.
    pub provider: Option<String>,
    /// The region of its calls.
    pub region: Option<String>,
    /// HTTP/2 without TLS, for servers known to speak it.
    pub http2: bool,
    /// Who signs its calls; the caller where absent.
    pub credential: Option<CredentialConfig>,
    /// When calls are kept from it; never where absent.
    pub breaker: Option<BreakerConfig>,
    /// How many calls it may have at a time; any number where absent.
    pub limit: Option<LimitConfig>,
    /// How calls are spread over its addresses.
    pub balance: BalanceConfig,
    /// What is done for it to be warm before calls come; nothing where absent.
    pub warm_up: Option<WarmUpConfig>,
    /// What becomes of a call whose caller leaves before the end.
    pub on_disconnect: OnDisconnect,
    /// How long it may take, where that is not as for all.
    pub timeouts: UpstreamTimeoutsConfig,
    /// Where the url is `{origin}`: whether callers may so reach this machine, and addresses that serve
    /// machines alone, such as metadata.
    pub local: bool,
    /// What TLS to it needs beyond the system's roots.
    pub tls: Option<UpstreamTlsConfig>,
}

/// Which calls go to which upstream.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = serde_json::json!([{ "required": ["upstream"] }, { "required": ["split"] }])))]
pub struct RouteConfig {
    /// The name in records and metrics; the upstream's where absent.
    #[serde(default)]
    pub name: Option<String>,
    /// All that is said here must hold.
    #[serde(default, rename = "match")]
    pub matches: MatchConfig,
    /// Taken off the front of the path.
    #[serde(default)]
    pub strip_prefix: Option<String>,
    /// The name of an upstream; may be absent where the arms of a `split` name theirs.
    #[serde(default)]
    pub upstream: Option<String>,
    /// Several ways for its calls, each of which gets its share of them.
    #[serde(default)]
    pub split: Vec<ArmConfig>,
    /// Which calls always go the same way of a split; by default each is drawn for itself.
    #[serde(default)]
    pub sticky: Option<StickyConfig>,
    /// Copies of a share of its calls, which are made elsewhere to be measured; none where absent.
    #[serde(default)]
    pub shadow: Option<ShadowConfig>,
    /// Which answers are kept, to be given to equal calls; none where absent.
    #[serde(default)]
    pub cache: Option<CacheConfig>,
    /// Whether streams of OpenAI's interface are asked for their usage.
    #[serde(default)]
    pub include_usage: IncludeUsage,
    /// When calls are made again; where absent, only those that were never sent.
    #[serde(default)]
    pub retry: Option<RetryConfig>,
    /// From the request's head to the end of the answer, all attempts included; for ever where
    /// absent here and in `timeouts`.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// Where calls go that the upstream cannot take, in order.
    #[serde(default)]
    pub fallback: Vec<TargetConfig>,
}

/// What a call must be for a route to take it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MatchConfig {
    /// Whose interface it speaks.
    pub dialect: Option<Dialect>,
    /// The caller's name, as `callers` tells it; `*` stands for any characters.
    pub caller: Option<String>,
    /// The host that the caller names; `*` stands for any characters.
    pub host: Option<String>,
    /// The path; `*` stands for any characters.
    pub path: Option<String>,
    /// Headers and their values; `*` stands for any characters.
    pub header: BTreeMap<String, String>,
    /// The requested model; `*` stands for any characters.
    pub model: Option<String>,
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsConfig {
    /// From a request's first byte to the end of its head.
    pub request_head: Span,
    /// Between two pieces of a request body.
    pub request_body_idle: Span,
    /// To resolve, connect and shake hands.
    pub connect: Span,
    /// From the sent request to the response head.
    pub response_head: Span,
    /// Between two pieces of a response body, and for a caller to take one.
    pub idle: Span,
    /// Between two calls on a caller's connection.
    pub keep_alive: Span,
    /// Between two calls on an upstream's connection.
    pub upstream_keep_alive: Span,
    /// On a connection that was upgraded, a WebSocket's for example, in both directions.
    pub upgraded_idle: Span,
    /// After the last poll of a long-running job that is not done; then it counts as abandoned.
    pub job_idle: Span,
    /// From the start of an attempt to the first token of a stream; for ever where absent.
    pub first_token: Option<Span>,
    /// From a request's head to the end of the answer, all attempts included; for ever where absent.
    pub total: Option<Span>,
}

/// How long one upstream may take; what is absent is as in `timeouts`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTimeoutsConfig {
    /// To resolve, connect and shake hands.
    pub connect: Option<Span>,
    /// From the sent request to the response head.
    pub response_head: Option<Span>,
    /// From the start of an attempt to the first token of a stream.
    pub first_token: Option<Span>,
    /// Between two pieces of a response body.
    pub idle: Option<Span>,
}

/// How much there may be of things.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Callers' connections at a time.
    pub connections: NonZeroU32,
    /// Bytes of one body that may be held where a policy must see it first.
    pub held_body: Size,
    /// Bytes of all held bodies together.
    pub held_bodies: Size,
    /// Bytes of one body that is held to be signed.
    pub signed_body: Size,
    /// Bytes of all such bodies together.
    pub signed_bodies: Size,
    /// Idle connections that each worker keeps to one upstream address.
    pub idle_connections: NonZeroU32,
    /// HTTP/2 connections that each worker opens to one upstream address.
    pub http2_connections: NonZeroU32,
    /// Long-running jobs whose submit and polls are tied together, at a time.
    pub jobs: NonZeroU32,
    /// Calls that go on though their callers have left, at a time.
    pub drains: NonZeroU32,
    /// Budgets of all quotas together: one for each caller, model or upstream that they tell apart.
    pub quota_budgets: NonZeroU32,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4100)),
            admin: SocketAddr::from(([127, 0, 0, 1], 4101)),
            health: None,
            admin_token: None,
            workers: None,
            bypass: false,
            recent: true,
            records: None,
            intercept: None,
            tls: None,
            ca: CaConfig::default(),
            upstreams: BTreeMap::new(),
            routes: Vec::new(),
            callers: CallersConfig::default(),
            cache: SharedCacheConfig::default(),
            store: None,
            quotas: BTreeMap::new(),
            timeouts: TimeoutsConfig::default(),
            limits: LimitsConfig::default(),
            otlp: OtlpConfig::default(),
            scrape: Vec::new(),
            exponential_histograms: false,
            semantic_conventions: Conventions::default(),
            capture_content: false,
            capture: CaptureConfig::default(),
            history: HistoryConfig::default(),
            prices: None,
        }
    }
}

impl RouteConfig {
    /// Takes everything to this upstream.
    fn to(upstream: &str) -> Self {
        Self {
            name: None,
            matches: MatchConfig::default(),
            strip_prefix: None,
            upstream: Some(upstream.to_owned()),
            split: Vec::new(),
            sticky: None,
            shadow: None,
            cache: None,
            include_usage: IncludeUsage::default(),
            retry: None,
            timeout: None,
            fallback: Vec::new(),
        }
    }

    /// Its name in records and metrics.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.upstream())
    }

    /// Its own upstream: of several ways, that of the first.
    pub(crate) fn upstream(&self) -> &str {
        let first = || self.split.first().and_then(|arm| arm.upstream.as_deref());
        self.upstream.as_deref().or_else(first).unwrap_or_default()
    }

    /// The upstreams that its calls may go to, its own first, by whichever way; some more than once.
    pub(crate) fn leads_to(&self) -> impl Iterator<Item = &str> {
        let of_arms = self.split.iter().flat_map(|arm| {
            arm.upstream.as_deref().into_iter().chain(named(arm.fallback.iter().flatten()))
        });
        std::iter::once(self.upstream()).chain(of_arms).chain(named(&self.fallback))
    }

    /// The same, and those that copies of its calls go to, or that say what is asked by them.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = &str> {
        let embeddings = self.cache.as_ref().and_then(CacheConfig::embeddings);
        let beside = self.shadow.iter().map(|shadow| &*shadow.upstream);
        self.leads_to().chain(beside).chain(embeddings.map(|config| &*config.upstream))
    }
}

/// The upstreams that these targets name.
fn named<'a>(targets: impl IntoIterator<Item = &'a TargetConfig>) -> impl Iterator<Item = &'a str> {
    targets.into_iter().filter_map(|target| target.upstream.as_deref())
}

impl Config {
    /// What calls get, by whichever way of a route, to go to this upstream.
    pub(crate) fn targets_at(&self, upstream: &str) -> Vec<TargetConfig> {
        let ways = self.routes.iter().flat_map(RouteConfig::ways);
        let targets = ways.flat_map(|Way { names, route, .. }| {
            let own = route.upstream().to_owned();
            std::iter::once(names).chain(route.fallback).map(move |target| {
                let upstream = target.upstream.clone().unwrap_or_else(|| own.clone());
                TargetConfig { upstream: Some(upstream), ..target }
            })
        });
        targets.filter(|target| target.upstream.as_deref() == Some(upstream)).collect()
    }

    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::of_file(path, Self::check_variables)
    }

    /// The same, whatever the environment lacks: for those who look into just that.
    pub fn read_without_variables(path: &Path) -> Result<Self, ConfigError> {
        Self::of_file(path, |_| Ok(()))
    }

    fn of_file(
        path: &Path,
        check: impl FnOnce(&Self) -> Result<(), ConfigError>,
    ) -> Result<Self, ConfigError> {
        let mut config = within_file(path, |text| {
            let config = Self::parse(text)?;
            check(&config).map_err(|error| error.within(text))?;
            Ok(config)
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        if let Some(prices) = &mut config.prices {
            *prices = folder.join(&*prices);
            crate::prices(Some(prices))?;
        }
        let credentials =
            config.upstreams.values_mut().filter_map(|upstream| upstream.credential.as_mut());
        for file in credentials.filter_map(CredentialConfig::file_mut) {
            *file = folder.join(&*file);
        }
        if let Some(Place::File(file)) = &mut config.admin_token {
            *file = folder.join(&*file);
        }
        for (name, upstream) in &mut config.upstreams {
            let Some(tls) = &mut upstream.tls else { continue };
            tls.files_mut().for_each(|file| *file = folder.join(&*file));
            let key = ["upstreams", name, "tls"];
            let unusable = |error: crate::tls::Error| {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                ConfigError::at(&key, error.to_string()).within(&text).of(path)
            };
            tls.try_out().map_err(unusable)?;
        }
        config.ca.files_mut().for_each(|file| *file = folder.join(&*file));
        config.tls.iter_mut().flat_map(TlsConfig::files_mut).for_each(|file| {
            *file = folder.join(&*file);
        });
        if let Some(encrypt) = &mut config.capture.encrypt {
            let unusable = |(key, message)| {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                ConfigError::at(&["capture", "encrypt", key], message).within(&text).of(path)
            };
            encrypt.read_file(folder).map_err(unusable)?;
        }
        for file in config.store.iter_mut().flat_map(StoreConfig::files_mut) {
            *file = folder.join(&*file);
        }
        if let Some(tls) = config.store.as_ref().and_then(|store| store.tls.as_ref()) {
            let unusable = |error: crate::tls::Error| {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                ConfigError::at(&["store", "tls"], error.to_string()).within(&text).of(path)
            };
            tls.try_out().map_err(unusable)?;
        }
        Ok(config)
    }

    /// The files beside its own that it was read with.
    pub fn files(&self) -> Vec<PathBuf> {
        let encrypt = self.capture.encrypt.as_ref();
        let recipients = encrypt.and_then(|encrypt| encrypt.recipients_file.as_ref());
        self.prices.iter().chain(recipients).cloned().collect()
    }

    /// Reads and checks a text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        let config: Self = parse_yaml(text)?;
        config.check().map_err(|error| error.within(text))?;
        Ok(config)
    }

    /// One upstream that takes everything.
    pub fn everything_to(mut self, url: &str) -> Result<Self, ConfigError> {
        let upstream = UpstreamConfig { url: Some(url.to_owned()), ..UpstreamConfig::default() };
        self.upstreams.insert(DEFAULT.to_owned(), upstream);
        self.routes = vec![RouteConfig::to(DEFAULT)];
        self.check()?;
        Ok(self)
    }

    /// Leaves what only a restart changes as it is in the running configuration, and names the keys
    /// that ask for something else.
    pub(crate) fn keep_fixed(&mut self, running: &Self) -> Vec<&'static str> {
        fn keep<T: Clone + PartialEq>(own: &mut T, running: &T) -> bool {
            let differs = own != running;
            own.clone_from(running);
            differs
        }
        let Self { timeouts, limits, .. } = self;
        let kept = [
            ("listen", keep(&mut self.listen, &running.listen)),
            ("admin", keep(&mut self.admin, &running.admin)),
            ("health", keep(&mut self.health, &running.health)),
            ("workers", keep(&mut self.workers, &running.workers)),
            ("records", keep(&mut self.records, &running.records)),
            ("intercept", keep(&mut self.intercept, &running.intercept)),
            ("tls", keep(&mut self.tls, &running.tls)),
            ("ca", keep(&mut self.ca, &running.ca)),
            ("timeouts.job_idle", keep(&mut timeouts.job_idle, &running.timeouts.job_idle)),
            ("limits.connections", keep(&mut limits.connections, &running.limits.connections)),
            ("limits.jobs", keep(&mut limits.jobs, &running.limits.jobs)),
            ("otlp", keep(&mut self.otlp, &running.otlp)),
            ("scrape", keep(&mut self.scrape, &running.scrape)),
            (
                "exponential_histograms",
                keep(&mut self.exponential_histograms, &running.exponential_histograms),
            ),
            (
                "semantic_conventions",
                keep(&mut self.semantic_conventions, &running.semantic_conventions),
            ),
            ("capture_content", keep(&mut self.capture_content, &running.capture_content)),
            ("capture", keep(&mut self.capture, &running.capture)),
            ("history", keep(&mut self.history, &running.history)),
        ];
        kept.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }

    /// The same, with what takes calls that are meant for others to where they are meant.
    pub(crate) fn with_way_out(mut self) -> Self {
        let Some(intercept) = &self.intercept else { return self };
        let direct = || UpstreamConfig {
            url: Some(ORIGIN.to_owned()),
            local: intercept.local,
            ..UpstreamConfig::default()
        };
        self.upstreams.entry(DIRECT.to_owned()).or_insert_with(direct);
        if !self.routes.iter().any(|route| route.leads_to().any(|name| name == DIRECT)) {
            self.routes.push(RouteConfig::to(DIRECT));
        }
        self
    }

    /// Models and regions that it names, which are label values whatever happens.
    pub(crate) fn labels(&self) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let upstreams = || self.upstreams.values();
        let models = upstreams().filter_map(|upstream| upstream.model.as_deref());
        let regions =
            upstreams().flat_map(|upstream| upstream.region.iter().chain(&upstream.locations));
        (models.map(Arc::from).collect(), regions.map(|region| region.as_str().into()).collect())
    }

    /// What it says in vain: routes that take no call, upstreams that none gets to.
    pub fn warnings(&self) -> Vec<ConfigError> {
        warnings::of(self)
    }

    /// The same, with file and line.
    pub fn warnings_of(&self, path: &Path) -> Vec<ConfigError> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        self.warnings().into_iter().map(|warning| warning.within(&text).of(path)).collect()
    }

    /// All that it says, defaults among it, without secrets. It reads as a configuration.
    pub fn effective(&self) -> serde_json::Value {
        show::effective(self)
    }

    /// The JSON Schema of what may be configured.
    pub fn schema() -> serde_json::Value {
        schema::whole()
    }

    /// Whether the environment variables are there that it names.
    fn check_variables(&self) -> Result<(), ConfigError> {
        if let Some(Place::Env(variable)) = &self.admin_token {
            is_set(variable)
                .map_err(|message| ConfigError::at(&["admin_token", "env"], message))?;
        }
        let password = self.store.as_ref().and_then(|store| store.password.as_ref());
        if let Some(Place::Env(variable)) = password {
            let key = ["store", "password", "env"];
            is_set(variable).map_err(|message| ConfigError::at(&key, message))?;
        }
        for (name, upstream) in &self.upstreams {
            let Some(credential) = &upstream.credential else { continue };
            let key = ["upstreams", name, "credential", credential.kind(), "env"];
            let variable = credential.variable().map_or(Ok(()), is_set);
            variable.map_err(|message| ConfigError::at(&key, message))?;
        }
        Ok(())
    }

    fn check_scrapes(&self) -> Result<(), ConfigError> {
        for (at, scrape) in self.scrape.iter().enumerate() {
            let at = format!("[{at}]");
            let wrong = |(key, message)| ConfigError::at(&["scrape", &at, key], message);
            scrape.check().map_err(wrong)?;
            let same = |other: &&ScrapeConfig| other.target() == scrape.target();
            if self.scrape.iter().filter(same).count() > 1 {
                let message = format!("`{}` is scraped twice", scrape.target());
                return Err(ConfigError::at(&["scrape", &at, "url"], message));
            }
        }
        Ok(())
    }

    /// What one key cannot say of itself.
    fn check(&self) -> Result<(), ConfigError> {
        for (name, upstream) in &self.upstreams {
            let spec = crate::upstream::Spec::new(name, upstream)
                .map_err(|message| ConfigError::at(&["upstreams", name], message))?;
            let limit = upstream.limit.as_ref().map_or(Ok(()), LimitConfig::check);
            limit.map_err(|message| ConfigError::at(&["upstreams", name, "limit"], message))?;
            if let Some(warm_up) = &upstream.warm_up {
                warm_up.check(&spec).map_err(|(key, message)| {
                    ConfigError::at(&[&["upstreams", name, "warm_up"], &key[..]].concat(), message)
                })?;
            }
            let Some(credential) = &upstream.credential else { continue };
            let key = ["upstreams", name, "credential", credential.kind()];
            for address in 0..spec.addresses() {
                credential
                    .check(&spec.origin(address, None).host)
                    .map_err(|message| ConfigError::at(&key, message))?;
            }
        }
        if let Some(intercept) = &self.intercept {
            let wrong = |(key, message)| ConfigError::at(&["intercept", key], message);
            intercept.check().map_err(wrong)?;
        }
        if let Some(tls) = &self.tls {
            tls.check().map_err(|(key, message)| ConfigError::at(&["tls", key], message))?;
        }
        self.ca.check().map_err(|(key, message)| ConfigError::at(&["ca", key], message))?;
        self.capture
            .check()
            .map_err(|(key, message)| ConfigError::at(&[&["capture"], key].concat(), message))?;
        self.history.check().map_err(|(key, message)| {
            ConfigError::at(&[&["history"], &key[..]].concat(), message)
        })?;
        Otlp::settle(&self.otlp, |_| None).map_err(|error| {
            let key = match error {
                otlp::Error::Endpoint { .. } => &["otlp", "endpoint"][..],
                otlp::Error::Header { .. } => &["otlp", "headers"],
                _ => &["otlp"],
            };
            ConfigError::at(key, error.to_string())
        })?;
        self.otlp.traces.check().map_err(|message| {
            let (key, message) = message.split_once(": ").unwrap_or(("", &message));
            ConfigError::at(&["otlp", "traces", key], message)
        })?;
        self.check_scrapes()?;
        self.callers.check().map_err(|(key, message)| {
            ConfigError::at(&[&["callers"], &key[..]].concat(), message)
        })?;
        self.check_certificates()?;
        self.check_store()?;
        for (name, quota) in &self.quotas {
            quota.check().map_err(|(key, message)| {
                let own = ["quotas", name.as_str(), key];
                ConfigError::at(&own[..if key.is_empty() { 2 } else { 3 }], message)
            })?;
        }
        for (at, route) in self.routes.iter().enumerate() {
            self.check_route(at, route)?;
        }
        Ok(())
    }

    /// Whether callers are asked for the certificates that they are known by.
    fn check_certificates(&self) -> Result<(), ConfigError> {
        let asks = self.tls.as_ref().is_some_and(|tls| tls.callers.is_some());
        let known = self.callers.known.iter();
        let mut by_certificate = known.filter(|(_, caller)| !caller.certificates.is_empty());
        match by_certificate.next() {
            Some((name, _)) if !asks => {
                let key = ["callers", "known", name, "certificates"];
                let message = "nobody is asked for a certificate: say in `tls.callers` whose \
                               certificates are good";
                Err(ConfigError::at(&key, message))
            }
            _ => Ok(()),
        }
    }

    /// Whether there is what caches and quotas share.
    fn check_store(&self) -> Result<(), ConfigError> {
        const NONE: &str = "there is no `store` that it could be shared by";
        let quota = self.quotas.iter().find(|(_, quota)| quota.shared).map(|(name, _)| name);
        let Some(store) = &self.store else {
            return match quota {
                _ if self.cache.shared => {
                    Err(ConfigError::at(&["cache", "shared"], NONE.to_owned()))
                }
                Some(name) => Err(ConfigError::at(&["quotas", name, "shared"], NONE.to_owned())),
                None => Ok(()),
            };
        };
        store.check().map_err(|(key, message)| ConfigError::at(&["store", key], message))?;
        if self.cache.shared && store.seal_key.is_none() {
            let message =
                "needs `store.seal_key`: answers leave this process only sealed".to_owned();
            return Err(ConfigError::at(&["cache", "shared"], message));
        }
        Ok(())
    }

    fn check_route(&self, at: usize, route: &RouteConfig) -> Result<(), ConfigError> {
        let number = format!("[{at}]");
        let own = ["routes", &number];
        let wrong = |rest: &[&str], message| ConfigError::at(&[&own, rest].concat(), message);
        if let Some(upstream) = &route.upstream {
            self.check_name(upstream).map_err(|message| wrong(&["upstream"], message))?;
        }
        route.check_split().map_err(|(key, message)| {
            let key: Vec<_> = key.iter().map(String::as_str).collect();
            wrong(&key, message)
        })?;
        if let Some(cache) = &route.cache {
            let wrong = |key: &[&str], message| wrong(&[&["cache"], key].concat(), message);
            cache.check(&self.cache).map_err(|(key, message)| wrong(&key, message))?;
            if let Some(embeddings) = cache.embeddings() {
                let key = ["alike", "embeddings", "upstream"];
                self.check_name(&embeddings.upstream).map_err(|message| wrong(&key, message))?;
            }
        }
        if let Some(retry) = &route.retry {
            retry.check().map_err(|(key, message)| wrong(&["retry", key], message))?;
        }
        if let Some(shadow) = &route.shadow {
            self.check_name(&shadow.upstream)
                .map_err(|message| wrong(&["shadow", "upstream"], message))?;
        }
        let spoken = self.speaks(route.upstream()).or(route.matches.dialect);
        let check = |key: &[&str], list: &[TargetConfig], own: &str| {
            self.check_targets(list, own, spoken).map_err(|(rest, message)| {
                wrong(
                    &[key, &rest.iter().map(String::as_str).collect::<Vec<_>>()].concat(),
                    message,
                )
            })
        };
        for (at, arm) in route.split.iter().enumerate() {
            let number = format!("[{at}]");
            let upstream = arm.upstream.as_deref().unwrap_or_else(|| route.upstream());
            self.check_name(upstream)
                .map_err(|message| wrong(&["split", &number, "upstream"], message))?;
            self.check_dialect(upstream, spoken)
                .map_err(|message| wrong(&["split", &number], message))?;
            check(
                &["split", &number, "fallback"],
                arm.fallback.as_deref().unwrap_or_default(),
                upstream,
            )?;
        }
        if let Some(shadow) = &route.shadow {
            self.check_dialect(&shadow.upstream, spoken)
                .map_err(|message| wrong(&["shadow"], message))?;
        }
        check(&["fallback"], &route.fallback, route.upstream())
    }

    /// Whether these targets can be had where their own upstream is this: else the way to what is wrong,
    /// and what that is.
    fn check_targets(
        &self,
        targets: &[TargetConfig],
        own: &str,
        spoken: Option<Dialect>,
    ) -> Result<(), (Vec<String>, String)> {
        for (at, target) in targets.iter().enumerate() {
            let number = format!("[{at}]");
            let name = target.upstream.as_deref().unwrap_or(own);
            self.check_name(name)
                .map_err(|message| (vec![number.clone(), "upstream".to_owned()], message))?;
            if *target == TargetConfig::default() {
                return Err((vec![number], "says nothing that is not so already".to_owned()));
            }
            self.check_dialect(name, spoken).map_err(|message| (vec![number], message))?;
        }
        Ok(())
    }

    /// Whether calls that speak this dialect can go to this upstream.
    fn check_dialect(&self, upstream: &str, spoken: Option<Dialect>) -> Result<(), String> {
        match (spoken, self.speaks(upstream)) {
            (Some(own), Some(other)) if own != other => Err(format!(
                "`{upstream}` speaks {other:?}, but the calls of this route {own:?}; \
                 the targets of one list speak one dialect"
            )),
            _ => Ok(()),
        }
    }

    fn check_name(&self, upstream: &str) -> Result<(), String> {
        if self.upstreams.contains_key(upstream) {
            return Ok(());
        }
        let hint = nearest(upstream, self.upstreams.keys().map(String::as_str));
        Err(format!("there is no upstream `{upstream}`{hint}"))
    }

    /// The one dialect of an upstream, where its hosts are known to speak no other.
    fn speaks(&self, upstream: &str) -> Option<Dialect> {
        let spec = crate::upstream::Spec::new(upstream, self.upstreams.get(upstream)?).ok()?;
        spec.dialect()
    }
}

fn is_set(variable: &str) -> Result<(), String> {
    let is_there = std::env::var_os(variable).is_some();
    is_there.then_some(()).ok_or_else(|| format!("the environment variable {variable} is not set"))
}

/// The name of the upstream that `--upstream` makes.
const DEFAULT: &str = "default";
/// The name of the upstream that takes calls where they are meant to go.
const DIRECT: &str = "direct";

// === impl TimeoutsConfig ===

impl Default for TimeoutsConfig {
    fn default() -> Self {
        let seconds = |seconds| Span(Duration::from_secs(seconds));
        Self {
            request_head: seconds(10),
            request_body_idle: seconds(60),
            connect: seconds(5),
            response_head: seconds(900),
            idle: seconds(300),
            keep_alive: seconds(600),
            upstream_keep_alive: seconds(60),
            upgraded_idle: seconds(3600),
            job_idle: seconds(3600),
            first_token: None,
            total: None,
        }
    }
}

// === impl LimitsConfig ===

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: NonZeroU32::new(10_000).expect("not zero"),
            held_body: Size::mib(8),
            held_bodies: Size::mib(16),
            signed_body: Size::mib(32),
            signed_bodies: Size::mib(64),
            idle_connections: NonZeroU32::new(1024).expect("not zero"),
            http2_connections: NonZeroU32::new(64).expect("not zero"),
            jobs: NonZeroU32::new(4096).expect("not zero"),
            drains: NonZeroU32::new(256).expect("not zero"),
            quota_budgets: NonZeroU32::new(4096).expect("not zero"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_configuration_is_a_good_one() {
        for text in ["", "\n", "# nothing\n", "{}"] {
            let config = Config::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert_eq!(config.listen.port(), 4100);
        }
    }

    #[test]
    fn the_example_of_the_contract_is_read() {
        let config = Config::parse(
            r#"
listen: 127.0.0.1:0
upstreams:
  vertex:  { url: "https://{location}-aiplatform.googleapis.com", locations: [us-central1, global] }
  gemma:   { url: "http://gemma-service.default.svc:8000", model: gemma-3-12b }
  pool:    { addresses: ["http://10.0.0.1:8000", "http://10.0.0.2:8000"] }
routes:
  - { match: { path: "/openai/*", header: { x-team: a }, model: "gpt-*" }, strip_prefix: /openai, upstream: pool }
  - { match: { path: "/generate" }, upstream: gemma }
  - { match: { dialect: vertex }, upstream: vertex }
timeouts: { idle: 1.5s, connect: 20ms }
limits: { held_body: 1MiB }
"#,
        )
        .expect("a good configuration");
        assert_eq!(config.routes.len(), 3);
        assert_eq!(config.timeouts.idle, Span(Duration::from_millis(1500)));
        assert_eq!(config.limits.held_body.as_u64(), 1 << 20);
    }

    #[test]
    fn an_error_names_line_key_and_the_nearest_right_key() {
        let error =
            Config::parse("listen: 127.0.0.1:1\nupstream:\n  a: {}\n").expect_err("unknown key");
        let text = error.to_string();
        assert!(text.contains("upstream") && text.contains("did you mean `upstreams`"), "{text}");
        assert!(text.contains("line 2"), "{text}");
    }

    #[test]
    fn a_route_to_nowhere_is_told() {
        let text = "upstreams: { gemma: { url: 'http://a' } }\nroutes: [{ upstream: gema }]";
        let error = Config::parse(text).expect_err("no such upstream").to_string();
        assert_eq!(
            error,
            "line 2 column 12: routes[0].upstream: there is no upstream `gema`; did you mean `gemma`?"
        );
    }

    #[test]
    fn keys_that_know_no_region_to_sign_for_are_told() {
        let of = |url: &str| {
            Config::parse(&format!(
                "upstreams: {{ a: {{ url: '{url}', credential: {{ aws: {{}} }} }} }}"
            ))
        };
        let error = of("http://localhost:4102").expect_err("no region").to_string();
        assert!(error.contains("upstreams.a.credential.aws: no region to sign for"), "{error}");
        of("https://bedrock-runtime.eu-west-1.amazonaws.com").expect("the host says it");
    }

    #[test]
    fn a_ratio_beyond_all_is_told() {
        let error = Config::parse("otlp: { traces: { ratio: 10 } }").expect_err("no ratio");
        assert_eq!(
            error.to_string(),
            "line 1 column 19: otlp.traces.ratio: 10 is not between 0 and 1"
        );
    }

    #[test]
    fn durations_need_a_unit() {
        let error = Config::parse("timeouts: { idle: 300 }").expect_err("no unit").to_string();
        assert!(error.contains("is not a duration above zero"), "{error}");
    }
}
