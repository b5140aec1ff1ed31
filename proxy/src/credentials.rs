//! The credentials of all upstreams: made once, kept fresh by a thread beside the data path.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_credential::Credential;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::config::Config;

/// The credential of each upstream that has one of its own, shared by all workers.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    by_upstream: BTreeMap<Arc<str>, Credential>,
    /// Dropping it ends the thread.
    _stop: Option<oneshot::Sender<()>>,
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
    /// Begins to fetch what the upstreams need.
    pub(crate) fn start(config: &Config) -> Result<Self, Error> {
        let configured = config.upstreams.iter();
        let configured = configured
            .filter_map(|(name, upstream)| Some((name.as_str(), upstream.credential.as_ref()?)));
        let configured: Vec<_> = configured.collect();
        if configured.is_empty() {
            return Ok(Self::default());
        }
        let (stop, background) = background()?;
        let make = |(name, config)| match Credential::new(config, &background) {
            Ok(credential) => Ok((Arc::from(name), credential)),
            Err(source) => Err(Error::Config { upstream: String::from(name), source }),
        };
        let by_upstream = configured.into_iter().map(make).collect::<Result<_, _>>()?;
        Ok(Self { by_upstream, _stop: Some(stop) })
    }

    /// The credential of this upstream.
    pub(crate) fn of(&self, upstream: &str) -> Option<&Credential> {
        self.by_upstream.get(upstream)
    }

    /// Each upstream with its credential.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Arc<str>, &Credential)> {
        self.by_upstream.iter()
    }
}

/// A thread with a runtime of its own, and what ends it.
fn background() -> std::io::Result<(oneshot::Sender<()>, Handle)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel();
    std::thread::Builder::new().name("credentials".to_owned()).spawn(move || {
        _ = runtime.block_on(stopped);
        // What still waits for an answer is not waited for.
        runtime.shutdown_background();
    })?;
    Ok((stop, handle))
}
