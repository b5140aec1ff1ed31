//! What the other side says of a run while it goes on: its metrics, and the records of the sidecar
//! through which the calls went.

mod follow;
mod join;
mod scrape;

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use tokio::task::JoinSet;

use crate::run::Run;

pub(crate) use join::Join;

/// How long a connection to the other side may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// Whom to ask.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Where metrics are shown in the text format of Prometheus.
    pub metrics: Vec<Url>,
    /// Metrics that are kept besides the well-known ones, as patterns.
    pub also: Vec<String>,
    /// Where sidecars have their administration: their metrics are kept, and calls joined with their
    /// records.
    pub sidecars: Vec<Url>,
}

/// Why the other side cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum Unwatchable {
    /// It does not answer.
    #[error("cannot read {url}")]
    Unanswered {
        /// What was asked for.
        url: Url,
        /// Why.
        source: reqwest::Error,
    },
    /// It answers something else.
    #[error("{url} answers {status} and not with {wanted}")]
    Unexpected {
        /// What was asked for.
        url: Url,
        /// What came.
        status: u16,
        /// What was wanted.
        wanted: &'static str,
    },
    /// Its metrics are none.
    #[error("{url} shows no metrics in the text format of Prometheus: {reason}")]
    NoMetrics {
        /// What was asked for.
        url: Url,
        /// What is wrong with the first bad line.
        reason: String,
    },
}

/// All that is asked, once it has answered for the first time.
pub(crate) struct OtherSide {
    readers: Vec<scrape::Reader>,
    records: Vec<follow::Records>,
}

// === impl Watch ===

impl Watch {
    /// Whether nobody is asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.metrics.is_empty() && self.sidecars.is_empty()
    }
}

// === impl OtherSide ===

impl OtherSide {
    /// Asks everybody once: what does not answer now would be missed only after the run.
    pub(crate) async fn open(watch: &Watch) -> Result<Self, Unwatchable> {
        let (mut readers, mut records) = (Vec::new(), Vec::new());
        if watch.is_empty() {
            return Ok(Self { readers, records });
        }
        let http = client().map_err(|source| {
            let url = watch.metrics.iter().chain(&watch.sidecars).next().cloned();
            Unwatchable::Unanswered { url: shown(&url.expect("somebody is asked")), source }
        })?;
        let also: Arc<[String]> = watch.also.clone().into();
        let of_sidecars = watch.sidecars.iter().map(|sidecar| beneath(sidecar, "metrics"));
        for url in watch.metrics.iter().cloned().chain(of_sidecars) {
            readers.push(scrape::Reader::open(http.clone(), url, also.clone()).await?);
        }
        for sidecar in &watch.sidecars {
            records.push(follow::Records::open(http.clone(), beneath(sidecar, "tail")).await?);
        }
        Ok(Self { readers, records })
    }

    /// Goes on asking for as long as the tasks are kept.
    pub(crate) fn start(self, run: &Arc<Run>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for reader in self.readers {
            tasks.spawn(reader.watch(run.clone()));
        }
        for records in self.records {
            tasks.spawn(records.follow(run.clone()));
        }
        tasks
    }
}

fn client() -> Result<reqwest::Client, reqwest::Error> {
    // Whoever embeds us may have installed a provider already; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(concat!("tidegate-load/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
}

/// An address as it may be shown: a key may stand behind its path.
fn shown(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_query(None);
    url
}

/// An address beneath another one.
fn beneath(base: &Url, name: &str) -> Url {
    let mut url = base.clone();
    let path = format!("{}/{name}", base.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}
