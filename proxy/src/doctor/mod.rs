//! Examines each upstream hop by hop, as a call would go there: name, connection, TLS, credential,
//! and a call that costs nothing.
//!
//! What is found is told by names, never by values. Each hop has a time limit, and nothing that an
//! upstream says is told but single words of its error.

mod answer;
mod call;
mod certificate;
pub mod clients;
mod credential;
mod plan;
mod progress;
mod reach;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;

use crate::config::{Config, UpstreamConfig};
use crate::upstream::{Origin, Spec};

pub use progress::Progress;

use call::Caller;
use plan::Clues;
use reach::Reached;

/// Addresses and locations of one upstream that are examined, at most.
const MAX_TARGETS: usize = 64;

/// Examines the upstreams of a configuration.
#[derive(Debug)]
pub struct Doctor {
    config: Arc<Config>,
    limit: Duration,
    progress: Progress,
}

/// What was found at one upstream, in the environment, or of one SDK.
#[derive(Clone, Debug, Serialize)]
pub struct Examination {
    /// What was examined.
    #[serde(skip)]
    pub section: Section,
    /// The name of the upstream; `environment` for what all of them share; the name of the SDK.
    pub upstream: String,
    /// Where it is, as it was configured, or was found.
    pub url: String,
    /// Whether nothing failed.
    pub ok: bool,
    /// What was found, in the order in which a call meets it.
    pub hops: Vec<Hop>,
}

/// What an examination is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// What all upstreams share.
    Environment,
    /// One upstream.
    Upstreams,
    /// An SDK.
    Clients,
    /// What goes past the sidecar.
    Past,
}

/// What was found at one hop.
#[derive(Clone, Debug, Serialize)]
pub struct Hop {
    /// `environment`, `dns`, `connect`, `tls`, `credential` or `call`; of an SDK `way` or `trust`; of what
    /// goes past `sidecar`, `proxy`, `trust` or `passed by`.
    pub hop: &'static str,
    /// Of several servers which; of a credential its source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// How it is.
    pub status: Status,
    /// How long it took, in seconds; absent where nothing was waited for.
    #[serde(rename = "duration_s", skip_serializing_if = "Option::is_none")]
    pub took_s: Option<f64>,
    /// What was found.
    pub finding: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// Until a certificate or credential expires, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
}

/// How a hop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, but somebody should know.
    Warning,
    /// It does not work.
    Failed,
    /// It is not configured, and need not be.
    Absent,
    /// It was not examined.
    Skipped,
}

/// One server of an upstream.
#[derive(Clone, Debug)]
struct Target {
    origin: Arc<Origin>,
    location: Option<String>,
    /// What is not configured and was taken instead.
    assumed: Option<String>,
    /// Its name, where there are several.
    label: Option<String>,
}

// === impl Doctor ===

impl Doctor {
    /// Examines all upstreams; no hop takes longer than `limit`.
    pub fn new(config: Config, limit: Duration) -> Self {
        Self { config: Arc::new(config), limit, progress: Progress::default() }
    }

    /// What is under way.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Examines the environment, and all upstreams at a time; tells of each as soon as it and those
    /// before it are done.
    pub async fn examine(&self, mut tell: impl FnMut(Examination)) {
        tell(environment(&self.config));
        let start = |(name, upstream): (&String, &UpstreamConfig)| -> Option<JoinHandle<_>> {
            // The configuration has been checked.
            let spec = Spec::new(name, upstream).ok()?;
            let patient = Patient {
                spec,
                upstream: upstream.clone(),
                clues: Clues::of(name, &self.config),
                limit: self.limit,
                progress: self.progress.clone(),
            };
            Some(tokio::spawn(patient.examine()))
        };
        let started: Vec<_> = self.config.upstreams.iter().filter_map(start).collect();
        for examination in started {
            if let Ok(examination) = examination.await {
                tell(examination);
            }
        }
    }
}

/// Variables that would make whoever fetches credentials call the sidecar, which does not start
/// with them.
fn environment(config: &Config) -> Examination {
    let own: Vec<_> =
        [Some(config.listen), Some(config.admin), config.health].into_iter().flatten().collect();
    let found = tidegate_credential::loops(&own, |name| std::env::var(name).ok());
    let hop = |found: tidegate_credential::Loop| {
        let finding = format!("{} points at the sidecar itself", found.variable);
        Hop::new("environment", None, Status::Failed, finding).advising(found.advice)
    };
    let hops = found.into_iter().map(hop).collect();
    Examination::of(Section::Environment, "environment", String::new(), hops)
}

// === one upstream ===

/// An upstream that is examined.
struct Patient {
    spec: Spec,
    upstream: UpstreamConfig,
    clues: Clues,
    limit: Duration,
    progress: Progress,
}

impl Patient {
    async fn examine(self) -> Examination {
        let targets = self.targets();
        let reaching: Vec<_> = targets
            .iter()
            .map(|target| {
                let target = target.clone();
                tokio::spawn(reach::reach(target, self.limit, self.progress.clone()))
            })
            .collect();
        let examined = credential::examine(
            &self.spec.name,
            self.upstream.credential.as_ref(),
            self.limit,
            &self.progress,
        )
        .await;
        let (mut hops, mut reached) = (Vec::new(), Vec::new());
        for (target, reaching) in targets.into_iter().zip(reaching) {
            if let Ok(Reached { hops: found, connection }) = reaching.await {
                hops.extend(found);
                reached.push((target, connection));
            }
        }
        let caller = Caller {
            upstream: self.spec.name.clone(),
            credential: examined.credential,
            project: examined.project,
            clues: self.clues,
            limit: self.limit,
            progress: self.progress,
        };
        hops.extend(examined.hops);
        let caller = Arc::new(caller);
        let calling: Vec<_> = reached
            .into_iter()
            .map(|(target, connection)| {
                let caller = caller.clone();
                tokio::spawn(async move { caller.call(&target, connection).await })
            })
            .collect();
        for call in calling {
            hops.extend(call.await.ok());
        }
        Examination::of(Section::Upstreams, &caller.upstream, written(&self.upstream), hops)
    }

    fn targets(&self) -> Vec<Target> {
        let (locations, assumed) = self.locations();
        let addresses = 0..self.spec.addresses();
        let of = |address: usize| {
            let assumed = assumed.clone();
            locations.iter().map(move |location| Target {
                origin: Arc::new(self.spec.origin(address, location.as_deref())),
                location: location.clone(),
                assumed: assumed.clone(),
                label: None,
            })
        };
        let mut targets: Vec<_> = addresses.flat_map(of).take(MAX_TARGETS).collect();
        if targets.len() > 1 {
            for target in &mut targets {
                let authority = String::from_utf8_lossy(&target.origin.authority).into_owned();
                target.label = Some(authority);
            }
        }
        targets
    }

    /// The locations to fill in, and what is said where none is configured.
    fn locations(&self) -> (Vec<Option<String>>, Option<String>) {
        if !self.spec.is_templated() {
            return (vec![None], None);
        }
        let listed = self.spec.locations();
        if !listed.is_empty() {
            return (listed.iter().cloned().map(Some).collect(), None);
        }
        // Where calls name none, theirs is `global`; others' hosts may not have it.
        let is_vertex = &*self.spec.origin(0, Some("global")).host == "aiplatform.googleapis.com";
        let location = if is_vertex { "global" } else { "us-central1" };
        let assumed = format!("no `locations` are configured, {location} was taken");
        (vec![Some(location.to_owned())], Some(assumed))
    }
}

/// The URL or addresses, as they were written.
fn written(upstream: &UpstreamConfig) -> String {
    let all: Vec<&str> =
        upstream.url.iter().chain(&upstream.addresses).map(String::as_str).collect();
    all.join(", ")
}

// === impl Examination ===

impl Examination {
    fn of(section: Section, name: &str, url: String, hops: Vec<Hop>) -> Self {
        let ok = hops.iter().all(|hop| hop.status != Status::Failed);
        Self { section, upstream: name.to_owned(), url, ok, hops }
    }
}

// === impl Hop ===

impl Hop {
    fn new(
        hop: &'static str,
        of: Option<String>,
        status: Status,
        finding: impl Into<String>,
    ) -> Self {
        Self {
            hop,
            of,
            status,
            took_s: None,
            finding: finding.into(),
            advice: None,
            expires_in_s: None,
        }
    }

    fn advising(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    fn taking(self, took: Duration) -> Self {
        Self { took_s: Some((took.as_secs_f64() * 1e6).round() / 1e6), ..self }
    }

    fn expiring(self, expires_in: Option<Duration>) -> Self {
        Self { expires_in_s: expires_in.map(|left| left.as_secs()), ..self }
    }
}
