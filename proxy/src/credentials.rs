//! The credentials of all upstreams: made once, kept fresh by a thread beside the data path.
//!
//! A configuration that is read anew keeps those that it says again, with what was fetched for
//! them; the others stop once no call holds them any longer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_credential::{Credential, CredentialConfig};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::warn;

use crate::config::Config;
use crate::export::catalog::{self, Family};
use crate::export::metrics::{self, Source, lock};

/// Between two lines of the log that tell of the same.
const TOLD: Duration = Duration::from_secs(60);

/// The credential of each upstream that has one of its own, shared by all workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    by_upstream: BTreeMap<Arc<str>, Kept>,
    /// Absent until the first credential needs it.
    background: Option<Arc<Background>>,
}

/// A credential and what it was made of.
#[derive(Clone, Debug)]
struct Kept {
    config: CredentialConfig,
    credential: Credential,
    refusals: Arc<Refusals>,
}

/// Answers that did not accept an upstream's credential (401, 403).
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    count: AtomicU64,
    last: Mutex<Option<Refusal>>,
}

#[derive(Clone, Copy, Debug)]
struct Refusal {
    status: u16,
    time: jiff::Timestamp,
    told: Instant,
}

/// The thread that fetches.
#[derive(Debug)]
struct Background {
    runtime: Handle,
    /// Dropping it ends the thread.
    _stop: oneshot::Sender<()>,
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One cannot be made of its configuration.
    #[error("upstreams.{upstream}.credential: {source}")]
    Config {
        /// The upstream.
        upstream: String,
        /// What is wrong with it.
        source: tidegate_credential::Error,
    },
    /// The thread cannot be started.
    #[error("cannot start the thread for credentials")]
    Thread(#[from] std::io::Error),
}

impl Credentials {
    /// Those of this configuration: what it says as the last one did stays as fresh as it is, and
    /// the rest begins to be fetched.
    pub(crate) fn next(&self, config: &Config) -> Result<Self, Error> {
        let mut next = Self { by_upstream: BTreeMap::new(), background: self.background.clone() };
        for (name, upstream) in &config.upstreams {
            let Some(config) = &upstream.credential else { continue };
            let (credential, refusals) = match self.by_upstream.get(name.as_str()) {
                Some(kept) if kept.config == *config => {
                    (kept.credential.clone(), kept.refusals.clone())
                }
                _ => {
                    let credential = Credential::new(config, &next.background()?)
                        .map_err(|source| Error::Config { upstream: name.clone(), source })?;
                    (credential, Arc::default())
                }
            };
            let kept = Kept { config: config.clone(), credential, refusals };
            next.by_upstream.insert(name.as_str().into(), kept);
        }
        Ok(next)
    }

    /// The credential of this upstream, and how it is received.
    pub(crate) fn of(&self, upstream: &str) -> Option<(&Credential, &Arc<Refusals>)> {
        self.by_upstream.get(upstream).map(|kept| (&kept.credential, &kept.refusals))
    }

    /// Each upstream with its credential, and how that is received.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Arc<str>, &Credential, &Arc<Refusals>)> {
        self.by_upstream.iter().map(|(name, kept)| (name, &kept.credential, &kept.refusals))
    }

    fn background(&mut self) -> Result<Handle, std::io::Error> {
        let background = match self.background.take() {
            Some(background) => background,
            None => Arc::new(Background::start()?),
        };
        Ok(self.background.insert(background).runtime.clone())
    }
}

// === impl Refusals ===

impl Refusals {
    /// One more, with this status; the log hears of it now and then.
    pub(crate) fn add(&self, upstream: &str, status: u16) {
        self.count.fetch_add(1, Relaxed);
        let now = Instant::now();
        let mut last = lock(&self.last);
        let told = last.map(|last| last.told).filter(|told| now < *told + TOLD);
        *last = Some(Refusal { status, time: jiff::Timestamp::now(), told: told.unwrap_or(now) });
        drop(last);
        if told.is_none() {
            warn!(%upstream, status, "the upstream does not accept its credential");
        }
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// What the admin address shows of them.
    pub(crate) fn state(&self) -> Value {
        let last = *lock(&self.last);
        let last = last.map(|last| json!({ "status": last.status, "time": last.time }));
        json!({ "count": self.count(), "last": last })
    }
}

/// What the metrics show of the refusals of one upstream's credential.
pub(crate) struct Shown(pub(crate) Arc<str>, pub(crate) Arc<Refusals>);

impl Source for Shown {
    fn read(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, metrics::Value)) {
        let Self(upstream, refusals) = self;
        let count = metrics::Value::Counter(refusals.count());
        show(&catalog::CREDENTIAL_REFUSED, vec![upstream.to_string()], count);
    }
}

// === impl Background ===

impl Background {
    /// A thread with a runtime of its own.
    fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        std::thread::Builder::new().name("credentials".to_owned()).spawn(move || {
            _ = runtime.block_on(stopped);
            // What still waits for an answer is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, _stop: stop })
    }
}
