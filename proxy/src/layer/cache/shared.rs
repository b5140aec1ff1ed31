//! What all workers and routes share of the caches, from one reading of the configuration to the next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::alike::{Index, Pauses};
use super::config::SharedCacheConfig;
use super::elsewhere::Elsewhere;
use super::entry::Entry;
use super::flight::Flights;
use super::key::{Key, Secret};
use super::memory::Memory;
use super::tally::Tally;
use crate::config::Config;
use crate::export::catalog::{self, Family};
use crate::export::metrics::{Source, Value, lock};
use crate::states::States;
use crate::store::{Store, StoreConfig, read_key};

/// The caches of all routes.
#[derive(Clone, Debug)]
pub(crate) struct Caches(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: SharedCacheConfig,
    store: Option<StoreConfig>,
    secret: Secret,
    memory: Memory,
    /// What other sidecars keep too.
    elsewhere: Option<Elsewhere>,
    /// Questions by which calls are known that ask the same.
    alike: Index,
    /// Until when servers are not asked what they mean.
    pauses: Pauses,
    /// Calls that are on their way.
    flights: Arc<Flights>,
    tallies: Mutex<BTreeMap<Box<str>, Arc<Tally>>>,
}

/// The cache of one route.
#[derive(Clone, Debug)]
pub(crate) struct CacheOfRoute {
    caches: Caches,
    pub(super) tally: Arc<Tally>,
}

impl Caches {
    /// Those that a configuration asks for: the ones that there are, where it says the same of them.
    pub(crate) fn of(
        config: &Config,
        store: Option<&Store>,
        before: Option<&Self>,
    ) -> Result<Option<Self>, String> {
        if config.routes.iter().all(|route| route.cache.is_none()) {
            return Ok(None);
        }
        let own = config.store.as_ref().filter(|_| config.cache.shared);
        let same = before
            .filter(|caches| caches.0.config == config.cache && caches.0.store.as_ref() == own);
        let caches = match same {
            Some(same) => same.clone(),
            None => Self::new(&config.cache, own.zip(store))?,
        };
        let is_there = |name: &str| config.routes.iter().any(|route| route.name() == name);
        lock(&caches.0.tallies).retain(|name, _| is_there(name));
        Ok(Some(caches))
    }

    fn new(
        config: &SharedCacheConfig,
        store: Option<(&StoreConfig, &Store)>,
    ) -> Result<Self, String> {
        let most = config.memory.as_u64();
        let elsewhere = |(config, store): (&StoreConfig, &Store)| {
            let path = config.seal_key.as_ref().ok_or("`seal_key` is missing")?;
            Ok::<_, String>(Elsewhere::new(store.clone(), &read_key(path)?, most))
        };
        let elsewhere = store.map(elsewhere).transpose()?;
        let secret = elsewhere.as_ref().map(|elsewhere| Secret::of(elsewhere.secret()));
        Ok(Self(Arc::new(Shared {
            config: config.clone(),
            store: store.map(|(config, _)| config.clone()),
            secret: secret.unwrap_or_else(Secret::draw),
            memory: Memory::new(most),
            elsewhere,
            alike: Index::new(config.alike_memory.as_u64()),
            pauses: Pauses::default(),
            flights: Arc::new(Flights::new(most)),
            tallies: Mutex::default(),
        })))
    }

    /// The cache of the route of this name.
    pub(crate) fn of_route(&self, name: &str) -> CacheOfRoute {
        let tally = lock(&self.0.tallies).entry(name.into()).or_default().clone();
        CacheOfRoute { caches: self.clone(), tally }
    }

    /// Has the admin address show how they stand.
    pub(crate) fn show(&self, states: &mut States) {
        let caches = self.clone();
        states.show("cache", "memory", move || {
            let (entries, bytes) = caches.0.memory.size();
            let evictions: BTreeMap<_, _> = caches.0.memory.evictions().into();
            json!({ "entries": entries, "bytes": bytes, "evictions": evictions })
        });
        let caches = self.clone();
        states.show("cache", "under_way", move || {
            let (calls, bytes) = caches.0.flights.size();
            json!({ "calls": calls, "followers": caches.0.flights.followers(), "bytes": bytes })
        });
        let caches = self.clone();
        states.show("cache", "alike", move || {
            let (texts, groups, bytes) = caches.0.alike.size();
            let paused = caches.0.pauses.are_any();
            json!({ "texts": texts, "groups": groups, "bytes": bytes, "embeddings_paused": paused })
        });
        let caches = self.clone();
        states.show("cache", "not_stored", move || {
            let counts = |tally: &Tally| {
                let words = tally.all().map(|(reason, count)| (reason.as_str(), count));
                words.collect::<BTreeMap<_, _>>()
            };
            let tallies = lock(&caches.0.tallies);
            json!(
                tallies
                    .iter()
                    .map(|(route, tally)| (route, counts(tally)))
                    .collect::<BTreeMap<_, _>>()
            )
        });
    }
}

impl CacheOfRoute {
    /// The answer to a call of this key.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.caches.0.memory.get(key)
    }

    /// The same, as other sidecars keep it, of up to so many bytes.
    pub(super) async fn get_elsewhere(&self, key: &Key, most: u64) -> Option<Arc<Entry>> {
        let entry = Arc::new(self.caches.0.elsewhere.as_ref()?.get(key, most).await?);
        self.caches.0.memory.put(key, entry.clone());
        Some(entry)
    }

    /// Keeps an answer.
    pub(super) fn put(&self, key: &Key, entry: Arc<Entry>) {
        if let Some(elsewhere) = &self.caches.0.elsewhere {
            elsewhere.put(key, entry.clone());
        }
        self.caches.0.memory.put(key, entry);
    }

    /// Questions by which calls are known that ask the same.
    pub(super) fn alike(&self) -> &Index {
        &self.caches.0.alike
    }

    /// Until when servers are not asked what questions mean.
    pub(super) fn pauses(&self) -> Pauses {
        self.caches.0.pauses.clone()
    }

    /// What keys are made with.
    pub(super) fn secret(&self) -> &Secret {
        &self.caches.0.secret
    }

    /// Calls that are on their way.
    pub(super) fn flights(&self) -> &Arc<Flights> {
        &self.caches.0.flights
    }
}

impl Source for Caches {
    fn read(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        let (entries, bytes) = self.0.memory.size();
        let gauge = |number: u64| Value::Gauge(i64::try_from(number).unwrap_or(i64::MAX));
        show(&catalog::CACHE_ENTRIES, Vec::new(), gauge(entries));
        show(&catalog::CACHE_BYTES, Vec::new(), gauge(bytes));
        for (cause, count) in self.0.memory.evictions() {
            show(&catalog::CACHE_EVICTIONS, vec![cause.to_owned()], Value::Counter(count));
        }
        for (route, tally) in lock(&self.0.tallies).iter() {
            for (reason, count) in tally.all() {
                let labels = vec![route.to_string(), reason.as_str().to_owned()];
                show(&catalog::CACHE_NOT_STORED, labels, Value::Counter(count));
            }
        }
    }
}
