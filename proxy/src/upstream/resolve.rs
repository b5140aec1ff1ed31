//! Looks up, again and again, what addresses a name stands for.
//!
//! The system's resolver says nothing of how long an answer holds, so it is asked at an interval. A
//! name that cannot be resolved keeps its last addresses for a while; after that calls go by the name
//! itself, and fail or not as it does.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::balance::{Balancer, MAX_OF_NAME};
use crate::config::Span;

/// How long one look-up may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How soon a name is looked up again that could not be.
const AGAIN: Duration = Duration::from_secs(5);

/// Makes each address that a host name stands for one to choose from.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DnsConfig {
    /// From one look-up to the next.
    pub interval: Span,
    /// How long the last addresses are used of a name that can no longer be resolved.
    pub max_stale: Span,
}

/// Says what addresses a name stands for.
pub(crate) trait Resolver: std::fmt::Debug + Send + Sync {
    /// All of them, with this port.
    fn resolve(&self, host: &str, port: u16) -> Resolving;
}

/// A look-up on its way.
pub(crate) type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The system's resolver: `/etc/hosts`, DNS, and what else is configured there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct System;

/// What is known of a name.
#[derive(Debug, Default)]
struct Name {
    /// When it was last resolved.
    resolved: Option<Instant>,
}

// === impl DnsConfig ===

impl Default for DnsConfig {
    fn default() -> Self {
        let seconds = |seconds| Span(Duration::from_secs(seconds));
        Self { interval: seconds(30), max_stale: seconds(3600) }
    }
}

// === impl System ===

impl Resolver for System {
    fn resolve(&self, host: &str, port: u16) -> Resolving {
        let name = (host.to_owned(), port);
        Box::pin(async move { Ok(tokio::net::lookup_host(name).await?.collect()) })
    }
}

/// Keeps the addresses of one URL as its name has them. Never ends.
pub(super) async fn run(balancer: Arc<Balancer>, url: usize, resolver: Arc<dyn Resolver>) {
    let Some(config) = &balancer.config().dns else { return };
    if balancer.spec.literal(url).is_some() {
        return;
    }
    let group = balancer.group("");
    let (host, port) = balancer.spec.origin(url, None).dial;
    let mut name = Name::default();
    let mut is_failing = false;
    loop {
        let answer = match timeout(LIMIT, resolver.resolve(&host, port)).await {
            Ok(answer) => answer,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let has_failed = !answer.as_ref().is_ok_and(|found| !found.is_empty());
        if has_failed {
            balancer.counts().failed_lookups.fetch_add(1, Relaxed);
        }
        if std::mem::replace(&mut is_failing, has_failed) != has_failed {
            let (upstream, error) = (&balancer.spec.name, answer.as_ref().err());
            match has_failed {
                true => warn!(%upstream, host, ?error, "name cannot be resolved"),
                false => info!(%upstream, host, "name can be resolved again"),
            }
        }
        if let Some(found) = name.settle(answer, config.max_stale.0, Instant::now()) {
            group.replace(url, &found);
        }
        sleep(if has_failed { config.interval.0.min(AGAIN) } else { config.interval.0 }).await;
    }
}

// === impl Name ===

impl Name {
    /// The addresses from now on, where they are others; `None` among them is the name itself.
    fn settle(
        &mut self,
        answer: io::Result<Vec<SocketAddr>>,
        max_stale: Duration,
        now: Instant,
    ) -> Option<Vec<Option<SocketAddr>>> {
        match answer {
            Ok(found) if !found.is_empty() => {
                self.resolved = Some(now);
                let mut found: Vec<_> = found.into_iter().map(Some).collect();
                // A name with too many addresses should not get others with each answer.
                found.sort_unstable();
                found.dedup();
                found.truncate(MAX_OF_NAME);
                Some(found)
            }
            _ if self.resolved.is_some_and(|at| now - at > max_stale) => {
                self.resolved = None;
                Some(vec![None])
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn found(hosts: &[u8]) -> io::Result<Vec<SocketAddr>> {
        Ok(hosts.iter().map(|host| SocketAddr::from(([127, 0, 0, *host], 80))).collect())
    }

    #[test]
    fn a_name_that_fails_keeps_its_last_addresses_for_a_while() {
        let start = Instant::now();
        let mut name = Name::default();
        let failed = || Err(io::ErrorKind::TimedOut.into());
        assert_eq!(name.settle(failed(), HOUR, start), None, "there is nothing but the name");
        let two = name.settle(found(&[2, 1, 2]), HOUR, start).expect("they are new");
        assert_eq!(two, found(&[1, 2]).expect("two").into_iter().map(Some).collect::<Vec<_>>());

        assert_eq!(name.settle(failed(), HOUR, start + HOUR), None);
        assert_eq!(name.settle(found(&[]), HOUR, start + HOUR), None, "no answer is a failure");
        let late = start + HOUR + Duration::from_secs(1);
        assert_eq!(name.settle(failed(), HOUR, late), Some(vec![None]), "too old");
        assert_eq!(name.settle(failed(), HOUR, late + HOUR), None);
        assert!(name.settle(found(&[3]), HOUR, late + HOUR).is_some(), "it is back");
    }

    #[test]
    fn a_name_has_so_many_addresses_at_most() {
        let many = (0..1000).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).rev().collect();
        let settled = Name::default().settle(Ok(many), HOUR, Instant::now()).expect("they are new");
        assert_eq!(settled.len(), MAX_OF_NAME);
        assert_eq!(settled[0].expect("an address").port(), 0, "always the same ones");
    }
}
