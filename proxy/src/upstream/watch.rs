//! What watches the addresses of upstreams in the background: once for the whole process, whatever
//! the number of workers.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::address::Address;
use super::balance::{BalanceConfig, Balancer};
use super::resolve::{self, Resolver};
use super::spec::Spec;
use super::{health, steer};
use crate::config::UpstreamConfig;

/// Addresses that are asked something at a time.
const AT_A_TIME: usize = 32;

/// The addresses of an upstream, which are watched for as long as this lives.
#[derive(Debug)]
pub(crate) struct Addresses {
    pub(crate) balancer: Arc<Balancer>,
    tasks: Vec<AbortHandle>,
}

impl Addresses {
    /// Begins to watch them, where there is something to choose from.
    pub(crate) fn watch(
        name: &str,
        config: &UpstreamConfig,
        handle: &Handle,
        resolver: &Arc<dyn Resolver>,
    ) -> Option<Arc<Self>> {
        let spec = Spec::new(name, config).expect("the configuration was checked");
        let balancer = Balancer::new(spec.into(), &config.balance, Instant::now())?;
        let mut tasks = Vec::new();
        let BalanceConfig { dns, health, steer, .. } = &config.balance;
        if dns.is_some() {
            let run = |url| handle.spawn(resolve::run(balancer.clone(), url, resolver.clone()));
            tasks.extend((0..balancer.spec.addresses()).map(|url| run(url).abort_handle()));
        }
        if health.is_some() {
            tasks.push(handle.spawn(health::run(balancer.clone())).abort_handle());
        }
        if steer.is_some() {
            tasks.push(handle.spawn(steer::run(balancer.clone())).abort_handle());
        }
        Some(Arc::new(Self { balancer, tasks }))
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Does this to each address, again and again.
pub(super) async fn each<F>(
    balancer: &Arc<Balancer>,
    every: Duration,
    work: impl Fn(Arc<Balancer>, Arc<Address>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (addresses, _) = balancer.group("").addresses();
        let mut at_work = JoinSet::new();
        for address in addresses.iter() {
            if at_work.len() >= AT_A_TIME {
                at_work.join_next().await;
            }
            at_work.spawn(work(balancer.clone(), address.clone()));
        }
        while at_work.join_next().await.is_some() {}
    }
}
