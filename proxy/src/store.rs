//! A Redis or Valkey that several sidecars share: what caches keep, and what quotas have spent.
//!
//! No call needs it. Whoever asks has an answer within the deadline, or goes on without one; and once
//! it has failed a few times nobody asks any more (`store/health.rs`) until a look beside the data
//! path has found it well.
//!
//! Each worker has a connection of its own, on which many questions are under way at a time: no
//! answer wakes another thread first.

use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, ThreadId};

use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use rustc_hash::FxHashMap;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::config::Config;
use crate::export::catalog::{self, Family};
use crate::export::metrics::{Source, Value, lock};
use crate::states::States;

mod config;
mod connect;
mod health;
mod tally;
mod trouble;

pub use config::StoreConfig;
pub(crate) use config::read_key;
pub(crate) use tally::Operation;
pub(crate) use trouble::Trouble;

use connect::Door;
use health::{Health, next_look};
use tally::Tally;

/// What is told when it is asked no more.
const UNWELL: &str = "store is not well: caches miss, and quotas go by what is known here";

/// A store that several sidecars share.
#[derive(Clone, Debug)]
pub(crate) struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: StoreConfig,
    door: Door,
    health: Health,
    tally: Tally,
    /// By the threads of workers.
    connections: Mutex<FxHashMap<ThreadId, Opening>>,
    background: Handle,
}

/// A connection that is there or will be.
type Opening = watch::Receiver<Opened>;

#[derive(Clone)]
enum Opened {
    NotYet,
    Open(MultiplexedConnection),
    Failed(Trouble),
}

impl Store {
    /// That which a configuration asks for: the one that there is, where it says the same of it.
    pub(crate) fn of(config: &Config, before: Option<&Self>, background: &Handle) -> Option<Self> {
        let config = config.store.as_ref()?;
        if let Some(same) = before.filter(|store| store.0.config == *config) {
            return Some(same.clone());
        }
        let store = Self(Arc::new(Shared {
            config: config.clone(),
            door: Door::new(config),
            health: Health::new(),
            tally: Tally::default(),
            connections: Mutex::default(),
            background: background.clone(),
        }));
        // Whether it is there is known before the first call needs it.
        background.spawn(look_once(Arc::downgrade(&store.0)));
        Some(store)
    }

    /// Whether both are the same connection to the same place.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What all of our keys begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.0.config.prefix
    }

    /// Whether it is asked at present.
    pub(crate) fn is_well(&self) -> bool {
        self.0.health.is_well()
    }

    /// Where what only writes is done.
    pub(crate) fn background(&self) -> &Handle {
        &self.0.background
    }

    /// Asks it, on this thread's connection; nothing where it gives no answer in time.
    pub(crate) async fn ask<T, F>(
        &self,
        operation: Operation,
        ask: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Option<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let Shared { config, health, tally, .. } = &*self.0;
        if !health.is_well() {
            tally.skip(operation);
            return None;
        }
        let start = Instant::now();
        let answer = async {
            let connection = self.connection().await?;
            ask(connection).await.map_err(|error| Trouble::from(&error))
        };
        let answer = timeout(config.deadline.0, answer).await.unwrap_or(Err(Trouble::Timeout));
        let result = answer.as_ref().map(|_| ()).map_err(|trouble| *trouble);
        tally.count(operation, result, start.elapsed());
        match answer {
            Ok(answer) => {
                health.succeeded();
                Some(answer)
            }
            Err(trouble) => {
                self.failed(trouble);
                None
            }
        }
    }

    /// It is not asked, for too much waits for it.
    pub(crate) fn skip(&self, operation: Operation) {
        self.0.tally.skip(operation);
    }

    fn failed(&self, trouble: Trouble) {
        let Shared { config, door, health, connections, background, .. } = &*self.0;
        if health.failed(trouble, config.deadline.0, Instant::now()) {
            let (store, trouble) = (door.address(), trouble.as_str());
            warn!(%store, trouble, "{UNWELL}");
            // What waits on them has been given up.
            lock(connections).clear();
            background.spawn(look_until_well(Arc::downgrade(&self.0)));
        }
    }

    async fn connection(&self) -> Result<MultiplexedConnection, Trouble> {
        let mut opening = self.opening();
        let opened = opening.wait_for(|opened| !matches!(opened, Opened::NotYet)).await;
        match opened.as_deref() {
            Ok(Opened::Open(connection)) => Ok(connection.clone()),
            Ok(Opened::Failed(trouble)) => Err(*trouble),
            Ok(Opened::NotYet) | Err(_) => Err(Trouble::Connection),
        }
    }

    /// This thread's connection, which is opened where there is none.
    fn opening(&self) -> Opening {
        let mut connections = lock(&self.0.connections);
        // One whose driver has ended is closed.
        let known = connections.get(&thread::current().id());
        if let Some(known) = known.filter(|known| known.has_changed().is_ok()) {
            return known.clone();
        }
        let (opened, opening) = watch::channel(Opened::NotYet);
        tokio::spawn(open(self.0.door.clone(), opened));
        connections.insert(thread::current().id(), opening.clone());
        opening
    }

    /// Has the admin address show how it is.
    pub(crate) fn show(&self, states: &mut States) {
        let store = self.clone();
        states.show("store", "redis", move || {
            let mut state = store.0.health.state();
            state["address"] = json!(store.0.door.address());
            state["connections"] = json!(lock(&store.0.connections).len());
            state
        });
    }
}

/// Opens a connection, and runs it for as long as somebody may need it.
async fn open(door: Door, opened: watch::Sender<Opened>) {
    match door.open().await {
        Err(trouble) => _ = opened.send(Opened::Failed(trouble)),
        Ok((connection, driver)) => {
            let is_needed = opened.send(Opened::Open(connection)).is_ok();
            if is_needed {
                tokio::select! {
                    () = driver => {}
                    () = opened.closed() => {}
                }
            }
        }
    }
}

/// Looks at a store that nobody has asked yet.
async fn look_once(shared: Weak<Shared>) {
    // Where a call has found out first, it is looked at already.
    if let Some((Err(_), true)) = look(&shared).await {
        look_until_well(shared).await;
    }
}

/// Looks at a store that is not well until it is, or nobody needs it any more.
async fn look_until_well(shared: Weak<Shared>) {
    let mut wait = None;
    while shared.strong_count() > 0 {
        let next = next_look(wait);
        wait = Some(next);
        tokio::time::sleep(next).await;
        if !matches!(look(&shared).await, Some((Err(_), _))) {
            return;
        }
    }
}

/// Whether it answers on a connection of its own, and whether that is news; nothing where nobody needs
/// it any more.
async fn look(shared: &Weak<Shared>) -> Option<(Result<(), Trouble>, bool)> {
    let door = shared.upgrade()?.door.clone();
    let result = ping(&door).await;
    let is_news = shared.upgrade()?.health.looked(result);
    if is_news {
        let store = door.address();
        match result {
            Ok(()) => info!(%store, "store is well again"),
            Err(trouble) => warn!(%store, trouble = trouble.as_str(), "{UNWELL}"),
        }
    }
    Some((result, is_news))
}

async fn ping(door: &Door) -> Result<(), Trouble> {
    let (mut connection, driver) = door.open().await?;
    let ping = redis::cmd("PING");
    tokio::select! {
        () = driver => Err(Trouble::Connection),
        pong = ping.query_async::<String>(&mut connection) => {
            pong.map(drop).map_err(|error| Trouble::from(&error))
        }
        () = tokio::time::sleep(door.patience()) => Err(Trouble::Timeout),
    }
}

impl Source for Store {
    fn read(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        let Shared { health, tally, .. } = &*self.0;
        show(&catalog::STORE_UP, Vec::new(), Value::Gauge(health.is_well().into()));
        show(&catalog::STORE_OUTAGES, Vec::new(), Value::Counter(health.outages()));
        for (operation, result, count) in tally.all() {
            let labels = vec![operation.as_str().to_owned(), result.to_owned()];
            show(&catalog::STORE_OPERATIONS, labels, Value::Counter(count));
        }
        for (operation, times) in tally.times() {
            let labels = vec![operation.as_str().to_owned()];
            show(&catalog::STORE_TIME, labels, Value::Histogram(times));
        }
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotYet => "NotYet",
            Self::Open(_) => "Open",
            Self::Failed(_) => "Failed",
        })
    }
}
