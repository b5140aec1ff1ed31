//! The credentials of all upstreams: made once, kept fresh by a thread beside the data path.
//!
//! A configuration that is read anew keeps those that it says again, with what was fetched for
//! them; the others stop once no call holds them any longer.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_credential::{Credential, CredentialConfig};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::config::Config;

/// The credential of each upstream that has one of its own, shared by all workers.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    by_upstream: BTreeMap<Arc<str>, Kept>,
    /// Absent until the first credential needs it.
    background: Option<Arc<Background>>,
}

/// A credential and what it was made of.
#[derive(Debug)]
struct Kept {
    config: CredentialConfig,
    credential: Credential,
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
            let credential = match self.by_upstream.get(name.as_str()) {
                Some(kept) if kept.config == *config => kept.credential.clone(),
                _ => Credential::new(config, &next.background()?)
                    .map_err(|source| Error::Config { upstream: name.clone(), source })?,
            };
            let kept = Kept { config: config.clone(), credential };
            next.by_upstream.insert(name.as_str().into(), kept);
        }
        Ok(next)
    }

    /// The credential of this upstream.
    pub(crate) fn of(&self, upstream: &str) -> Option<&Credential> {
        self.by_upstream.get(upstream).map(|kept| &kept.credential)
    }

    /// Each upstream with its credential.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Arc<str>, &Credential)> {
        self.by_upstream.iter().map(|(name, kept)| (name, &kept.credential))
    }

    fn background(&mut self) -> Result<Handle, std::io::Error> {
        let background = match self.background.take() {
            Some(background) => background,
            None => Arc::new(Background::start()?),
        };
        Ok(self.background.insert(background).runtime.clone())
    }
}

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
