//! Asks each address of an upstream how it is, once for the whole process.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::address::Address;
use super::balance::Balancer;
use super::probe;
use super::watch::each;
use crate::config::Span;

/// Asks each address how it is.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthConfig {
    /// What is asked for, from the root of the server; 2xx is good.
    pub path: String,
    /// From one check to the next.
    pub interval: Span,
    /// How long an answer may take.
    pub timeout: Span,
    /// So many good answers in a row and an address is healthy again.
    pub healthy: NonZeroU32,
    /// So many bad ones and it is not.
    pub unhealthy: NonZeroU32,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            path: "/health".to_owned(),
            interval: Span(Duration::from_secs(10)),
            timeout: Span(Duration::from_secs(2)),
            healthy: NonZeroU32::new(1).expect("not zero"),
            unhealthy: NonZeroU32::new(3).expect("not zero"),
        }
    }
}

/// Checks all addresses again and again. Never ends.
pub(super) async fn run(balancer: Arc<Balancer>) {
    let Some(config) = &balancer.config().health else { return };
    each(&balancer, config.interval.0, check).await;
}

async fn check(balancer: Arc<Balancer>, address: Arc<Address>) {
    let Some(config) = &balancer.config().health else { return };
    let origin = balancer.spec.origin(address.url, None).at(address.at);
    let answer = probe::get(&origin, &config.path, &balancer.spec.name, config.timeout.0).await;
    let is_good = answer.is_ok_and(|answer| (200..300).contains(&answer.status));
    if !is_good {
        balancer.counts().failed_checks.fetch_add(1, Relaxed);
    }
    balancer.group("").checked(&address, is_good, Instant::now());
}
