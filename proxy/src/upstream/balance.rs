//! Chooses among the addresses of an upstream, and passes over those that fail.
//!
//! Of the one whose turn it is and another by chance, a call goes to the one with fewer open calls,
//! by what a first token takes there. An address whose calls fail in a row is out for a while, longer
//! each time, and comes back little by little. The last one is never ejected; where health checks
//! leave none, all are used, which is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};

use super::address::{Address, Load, Millis, Settings, State, Times};
use super::health::HealthConfig;
use super::resolve::DnsConfig;
use super::spec::Spec;
use super::steer::SteerConfig;
use crate::attempt::Watch;
use crate::bypass::Bypassed;
use crate::config::Span;
use crate::export::catalog::{self, Family};
use crate::export::metrics::{Source, Value, lock};
use crate::verdict::{Health, Verdict};

/// Addresses of one upstream at one location, at most.
const MAX_ADDRESSES: usize = 1024;
/// Addresses that one name stands for, at most.
pub(super) const MAX_OF_NAME: usize = 256;
/// How often another address is drawn by chance before all are looked through.
const DRAWS: usize = 4;
/// By what share of it an ejection may be shorter or longer: who fails together need not come back
/// together.
const JITTER: f32 = 0.2;
/// A call that waited for less and was let go of says nothing.
const LONG: Duration = Duration::from_secs(1);

/// How calls are spread over the addresses of an upstream.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BalanceConfig {
    /// In what time a time to first token fades.
    pub fade: Span,
    /// When an address whose calls fail gets no more of them.
    pub eject: EjectConfig,
    /// Makes each address that a host name stands for one to choose from.
    pub dns: Option<DnsConfig>,
    /// Asks each address how it is.
    pub health: Option<HealthConfig>,
    /// Asks each address for its load.
    pub steer: Option<SteerConfig>,
}

/// When an address whose calls fail gets no more of them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EjectConfig {
    /// Failures in a row.
    pub failures: NonZeroU32,
    /// For how long, the first time; twice as long each time after.
    pub time: Span,
    /// For how long at most.
    pub max_time: Span,
    /// The share of the addresses that may be out at a time; one always may, but never the last.
    pub max_share: f32,
    /// In what time an address that comes back gets its whole share again.
    pub ramp: Span,
}

/// All addresses of one upstream, shared by all workers.
#[derive(Debug)]
pub(crate) struct Balancer {
    pub(super) spec: Arc<Spec>,
    core: Arc<Core>,
    /// By location; `""` where there is but one.
    groups: Mutex<BTreeMap<Box<str>, Arc<Group>>>,
}

/// The addresses at one location.
#[derive(Debug)]
pub(crate) struct Group {
    core: Arc<Core>,
    /// Changes with the addresses.
    version: AtomicU64,
    members: Mutex<Members>,
    /// No address is to be used, and so all are.
    uses_all: AtomicBool,
}

#[derive(Debug)]
struct Members {
    addresses: Arc<[Arc<Address>]>,
    /// Those that are no more, while they have calls.
    gone: Vec<Arc<Address>>,
}

/// What all groups go by.
#[derive(Debug)]
struct Core {
    upstream: Arc<str>,
    config: BalanceConfig,
    settings: Settings,
    epoch: Instant,
    counts: Counts,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    ejections: AtomicU64,
    /// Ejections that would have left too few addresses.
    spared: AtomicU64,
    /// Calls to addresses that were not to be used, for there was no other.
    forced: AtomicU64,
    pub(super) failed_checks: AtomicU64,
    pub(super) failed_lookups: AtomicU64,
    pub(super) failed_steering: AtomicU64,
}

/// A call at an address, for as long as it is open; dropped unjudged, nothing is known of it.
#[derive(Debug)]
pub(crate) struct Serving {
    group: Arc<Group>,
    address: Arc<Address>,
    began: Instant,
    is_waiting: bool,
}

/// What the metrics show of a balancer, while it is there.
#[derive(Debug)]
pub(crate) struct Shown(pub(crate) Weak<Balancer>);

/// An upstream's addresses at one moment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BalancerSnapshot {
    pub(crate) upstream: Arc<str>,
    /// No address is to be used, and so all are.
    pub(crate) uses_all: bool,
    pub(crate) ejections: u64,
    pub(crate) addresses: Vec<AddressSnapshot>,
}

/// One address at one moment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AddressSnapshot {
    /// Host and port as configured.
    pub(crate) host: String,
    /// Where that is, where calls do not find out themselves.
    pub(crate) ip: Option<SocketAddr>,
    /// in_use, ejected, unhealthy or draining.
    pub(crate) state: &'static str,
    pub(crate) open_calls: u32,
    pub(crate) time_to_first_token_s: Option<f32>,
    /// How often it was ejected, of late.
    pub(crate) ejections: u32,
    pub(crate) ejected_for_s: Option<f64>,
    pub(crate) unhealthy_for_s: Option<f64>,
}

// === impl BalanceConfig ===

impl Default for BalanceConfig {
    fn default() -> Self {
        let fade = Span(Duration::from_secs(10));
        Self { fade, eject: EjectConfig::default(), dns: None, health: None, steer: None }
    }
}

impl BalanceConfig {
    /// What one key cannot say of itself; the error says which key is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        let share = self.eject.max_share;
        if !(0.0..=1.0).contains(&share) {
            return Err(format!("eject.max_share: {share} is not between 0 and 1"));
        }
        if let Some(health) = &self.health {
            check_path(&health.path).map_err(|why| format!("health.path: {why}"))?;
        }
        if let Some(steer) = &self.steer {
            check_path(&steer.path).map_err(|why| format!("steer.path: {why}"))?;
        }
        Ok(())
    }

    /// Whether this asks for something in the background.
    pub(super) fn watches(&self) -> bool {
        self.dns.is_some() || self.health.is_some() || self.steer.is_some()
    }
}

fn check_path(path: &str) -> Result<(), String> {
    let is_path = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    is_path.then_some(()).ok_or_else(|| format!("`{path}` is no path; write for example /health"))
}

impl Default for EjectConfig {
    fn default() -> Self {
        let seconds = |seconds| Span(Duration::from_secs(seconds));
        Self {
            failures: NonZeroU32::new(5).expect("not zero"),
            time: seconds(10),
            max_time: seconds(300),
            max_share: 0.5,
            ramp: seconds(10),
        }
    }
}

// === impl Balancer ===

impl Balancer {
    /// A balancer, where there is something to choose from or to watch.
    pub(crate) fn new(spec: Arc<Spec>, config: &BalanceConfig, now: Instant) -> Option<Arc<Self>> {
        if spec.addresses() < 2 && !config.watches() {
            return None;
        }
        let settings = Settings { fade: config.fade.0, ramp: config.eject.ramp.0 };
        let core = Core {
            upstream: spec.name.clone(),
            config: config.clone(),
            settings,
            epoch: now,
            counts: Counts::default(),
        };
        Some(Arc::new(Self { spec, core: core.into(), groups: Mutex::default() }))
    }

    /// The addresses at this location; `""` where there is but one.
    pub(super) fn group(&self, location: &str) -> Arc<Group> {
        let mut groups = lock(&self.groups);
        if let Some(group) = groups.get(location) {
            return group.clone();
        }
        // Workers go on with those they have.
        if groups.len() >= super::MAX_LOCATIONS {
            groups.clear();
        }
        let known = |url| if self.resolves() { self.spec.literal(url) } else { None };
        let new = |url| Arc::new(Address::new(url, known(url)));
        let group = Arc::new(Group::new(&self.core, (0..self.spec.addresses()).map(new).collect()));
        groups.insert(location.into(), group.clone());
        group
    }

    /// Whether a name may stand for several addresses.
    pub(super) fn resolves(&self) -> bool {
        self.core.config.dns.is_some()
    }

    pub(super) fn config(&self) -> &BalanceConfig {
        &self.core.config
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.core.counts
    }

    /// How its addresses are.
    pub(crate) fn snapshot(&self, now: Instant) -> BalancerSnapshot {
        let groups: Vec<_> = lock(&self.groups).values().cloned().collect();
        let of = |group: &Arc<Group>| group.snapshot(&self.spec, now);
        BalancerSnapshot {
            upstream: self.core.upstream.clone(),
            uses_all: groups.iter().any(|group| group.has_none_usable(now)),
            ejections: self.core.counts.ejections.load(Relaxed),
            addresses: groups.iter().flat_map(of).collect(),
        }
    }
}

// === impl Shown ===

impl Source for Shown {
    fn read(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        let Some(balancer) = self.0.upgrade() else { return };
        let name = || balancer.core.upstream.to_string();
        let snapshot = balancer.snapshot(Instant::now());
        for state in State::ALL {
            let so = snapshot.addresses.iter().filter(|address| address.state == state.name());
            let value = Value::Gauge(so.count() as i64);
            show(&catalog::UPSTREAM_ADDRESSES, vec![name(), state.name().to_owned()], value);
        }
        let uses_all = Value::Gauge(i64::from(snapshot.uses_all));
        show(&catalog::UPSTREAM_USES_ALL, vec![name()], uses_all);
        let Counts { ejections, spared, forced, failed_checks, failed_lookups, failed_steering } =
            &balancer.core.counts;
        for (family, count) in [
            (&catalog::UPSTREAM_EJECTIONS, ejections),
            (&catalog::UPSTREAM_EJECTIONS_SPARED, spared),
            (&catalog::UPSTREAM_FORCED_CALLS, forced),
            (&catalog::UPSTREAM_CHECK_FAILURES, failed_checks),
            (&catalog::UPSTREAM_LOOKUP_FAILURES, failed_lookups),
            (&catalog::UPSTREAM_STEERING_FAILURES, failed_steering),
        ] {
            show(family, vec![name()], Value::Counter(count.load(Relaxed)));
        }
    }
}

// === impl Core ===

impl Core {
    fn ms(&self, now: Instant) -> Millis {
        now.saturating_duration_since(self.epoch).as_millis() as Millis
    }
}

// === impl Group ===

impl Group {
    fn new(core: &Arc<Core>, addresses: Arc<[Arc<Address>]>) -> Self {
        let members = Members { addresses, gone: Vec::new() };
        Self {
            core: core.clone(),
            version: AtomicU64::new(0),
            members: members.into(),
            uses_all: AtomicBool::new(false),
        }
    }

    /// Unlike before where the addresses have changed.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Acquire)
    }

    /// The addresses, and their version.
    pub(super) fn addresses(&self) -> (Arc<[Arc<Address>]>, u64) {
        let members = lock(&self.members);
        (members.addresses.clone(), self.version.load(Acquire))
    }

    /// A call at this address.
    pub(super) fn serve(self: &Arc<Self>, address: &Arc<Address>, now: Instant) -> Serving {
        address.begin();
        Serving { group: self.clone(), address: address.clone(), began: now, is_waiting: true }
    }

    /// Which of these addresses a call should go to: none that it has tried, while there is another.
    /// `draw` says a number below its argument.
    pub(super) fn pick(
        &self,
        addresses: &[Arc<Address>],
        turn: usize,
        tried: &[u32],
        mut draw: impl FnMut(usize) -> usize,
        now: Instant,
    ) -> usize {
        let now = self.core.ms(now);
        let turn = turn % addresses.len();
        let is_new = |address: &Address| !tried.contains(&address.id);
        let is_usable = |address: &Address| address.is_usable(now);
        let mut choose = |is_allowed: &dyn Fn(&Address) -> bool| {
            choose(addresses, turn, is_allowed, &mut draw, &self.core.settings, now)
        };
        let usable = choose(&|address| is_usable(address) && is_new(address));
        let usable = usable.or_else(|| choose(&is_usable));
        self.note_use(usable.is_none());
        usable.or_else(|| choose(&is_new)).unwrap_or(turn)
    }

    /// Which of these addresses a call goes to while policies look on, and the policy that would
    /// have kept it from there: none is passed over for what is known of it.
    pub(super) fn look_on(
        &self,
        addresses: &[Arc<Address>],
        turn: usize,
        tried: &[u32],
        mut draw: impl FnMut(usize) -> usize,
        now: Instant,
    ) -> (usize, Option<Bypassed>) {
        let now = self.core.ms(now);
        let turn = turn % addresses.len();
        let is_new = |address: &Address| !tried.contains(&address.id);
        let settings = &self.core.settings;
        let chosen = choose(addresses, turn, &is_new, &mut draw, settings, now).unwrap_or(turn);
        let others = || addresses.iter().any(|address| address.is_usable(now));
        let would = match addresses[chosen].state(now) {
            State::Ejected if others() => Some(Bypassed::Ejection),
            State::Unhealthy if others() => Some(Bypassed::HealthCheck),
            _ => None,
        };
        (chosen, would)
    }

    fn note_use(&self, uses_all: bool) {
        let upstream = &self.core.upstream;
        if uses_all {
            self.core.counts.forced.fetch_add(1, Relaxed);
            if !self.uses_all.swap(true, Relaxed) {
                warn!(%upstream, "no address is fit for use, so all are used");
            }
        } else if self.uses_all.load(Relaxed) && self.uses_all.swap(false, Relaxed) {
            info!(%upstream, "an address is fit for use again");
        }
    }

    fn has_none_usable(&self, now: Instant) -> bool {
        let now = self.core.ms(now);
        !lock(&self.members).addresses.iter().any(|address| address.is_usable(now))
    }

    /// A call that began then has failed at this address.
    fn failed(&self, address: &Arc<Address>, began: Instant, now: Instant) {
        let (began, now) = (self.core.ms(began), self.core.ms(now));
        let eject = &self.core.config.eject;
        if !address.failed(began, eject.failures.get(), now) {
            return;
        }
        // One at a time: together they could eject the last ones.
        let members = lock(&self.members);
        let all = &members.addresses;
        let out = all.iter().filter(|address| address.is_out(now)).count();
        let may_be_out = ((all.len() as f32 * eject.max_share) as usize).max(1);
        let leaves_another = || {
            let mut others = all.iter().filter(|other| !Arc::ptr_eq(other, address));
            others.any(|other| other.is_usable(now))
        };
        if address.is_out(now) {
            return;
        }
        if out >= may_be_out || !leaves_another() {
            self.core.counts.spared.fetch_add(1, Relaxed);
            return;
        }
        let times = Times { first: eject.time.0, longest: eject.max_time.0, jitter: JITTER };
        address.eject(&times, rand::random(), now);
        self.core.counts.ejections.fetch_add(1, Relaxed);
        let seconds = address.out_for(now).map(|time| time.as_secs_f32());
        warn!(upstream = %self.core.upstream, address = ?address.at, url = address.url, seconds, "address ejected");
    }

    /// A health check of this address went so.
    pub(super) fn checked(&self, address: &Address, is_good: bool, now: Instant) {
        let Some(config) = &self.core.config.health else { return };
        if address.checked(is_good, config, self.core.ms(now)) {
            let (upstream, ip, url) = (&self.core.upstream, address.at, address.url);
            warn!(%upstream, ?ip, url, is_healthy = is_good, "health of an address has changed");
        }
    }

    /// This address says that this is its load, and is believed for so long.
    pub(super) fn says(&self, address: &Address, load: Load, lasts: Duration, now: Instant) {
        address.says(load, self.core.ms(now + lasts));
    }

    /// From now on these are the addresses that a URL stands for. Those that stay keep all that is
    /// known of them; those that are gone get no more calls.
    pub(super) fn replace(&self, url: usize, found: &[Option<SocketAddr>]) {
        let mut members = lock(&self.members);
        members.forget();
        let stays = |address: &&Arc<Address>| address.url != url || found.contains(&address.at);
        let mut next: Vec<_> = members.addresses.iter().filter(stays).cloned().collect();
        for at in found.iter().take(MAX_OF_NAME) {
            let is_it = |address: &Arc<Address>| address.url == url && address.at == *at;
            if !next.iter().any(is_it) && next.len() < MAX_ADDRESSES {
                let before = members.gone.iter().position(is_it);
                let before = before.map(|place| members.gone.swap_remove(place));
                next.push(before.unwrap_or_else(|| Arc::new(Address::new(url, *at))));
            }
        }
        let is_next = |address: &Arc<Address>| next.iter().any(|next| Arc::ptr_eq(next, address));
        if next.len() == members.addresses.len() && members.addresses.iter().all(is_next) {
            return;
        }
        let gone: Vec<_> =
            members.addresses.iter().filter(|address| !is_next(address)).cloned().collect();
        members.gone.extend(gone);
        let upstream = &self.core.upstream;
        info!(%upstream, url, addresses = next.len(), "addresses have changed");
        members.addresses = next.into();
        self.version.fetch_add(1, Release);
    }

    fn snapshot(&self, spec: &Spec, now: Instant) -> Vec<AddressSnapshot> {
        let mut members = lock(&self.members);
        members.forget();
        let now = self.core.ms(now);
        let seconds = |time: Duration| time.as_secs_f64();
        let one = |address: &Arc<Address>, state: State| AddressSnapshot {
            host: spec.host_and_port(address.url),
            ip: address.at,
            state: state.name(),
            open_calls: address.open(),
            time_to_first_token_s: address.first_token_s(now),
            ejections: address.ejections(),
            ejected_for_s: address.out_for(now).map(seconds),
            unhealthy_for_s: address.ill_for(now).map(seconds),
        };
        let members_now = members.addresses.iter().map(|address| one(address, address.state(now)));
        members_now.chain(members.gone.iter().map(|gone| one(gone, State::Draining))).collect()
    }
}

impl Members {
    /// Lets go of those that are gone and have no calls any more.
    fn forget(&mut self) {
        self.gone.retain(|address| address.open() > 0);
    }
}

/// The better of the one whose turn it is and another, of those that are allowed.
fn choose(
    addresses: &[Arc<Address>],
    turn: usize,
    is_allowed: &dyn Fn(&Address) -> bool,
    draw: &mut impl FnMut(usize) -> usize,
    settings: &Settings,
    now: Millis,
) -> Option<usize> {
    let is_allowed = |at: usize| is_allowed(&addresses[at]);
    let first = match is_allowed(turn) {
        true => turn,
        // Not the next one, which would have twice its share.
        false => by_chance(addresses.len(), turn, is_allowed, draw)?,
    };
    match by_chance(addresses.len(), first, is_allowed, draw) {
        Some(second) if addresses[second].is_better_than(&addresses[first], settings, now) => {
            Some(second)
        }
        _ => Some(first),
    }
}

/// One of those that are allowed, but not this.
fn by_chance(
    count: usize,
    but: usize,
    is_allowed: impl Fn(usize) -> bool,
    draw: &mut impl FnMut(usize) -> usize,
) -> Option<usize> {
    if count < 2 {
        return None;
    }
    let mut other = || (but + 1 + draw(count - 1)) % count;
    let drawn = (0..DRAWS).map(|_| other()).find(|at| is_allowed(*at));
    drawn.or_else(|| {
        let start = other();
        (0..count).map(|step| (start + step) % count).find(|at| *at != but && is_allowed(*at))
    })
}

// === impl Serving ===

impl Serving {
    /// A caller may well leave because nothing comes: then a first token takes longer than this.
    fn waited_in_vain(&self, now: Instant) {
        let waited = now.saturating_duration_since(self.began);
        if waited >= LONG {
            let core = &self.group.core;
            self.address.learn_at_least(waited, core.config.fade.0, core.ms(now));
        }
    }

    fn answered(&mut self) {
        if std::mem::take(&mut self.is_waiting) {
            self.address.answer();
        }
    }
}

impl Watch for Serving {
    fn judged(&mut self, verdict: &Verdict, now: Instant) {
        let (core, address) = (&self.group.core, &self.address);
        match verdict.health {
            Health::Good => address.succeeded(core.ms(self.began)),
            Health::Ill => self.group.failed(address, self.began, now),
            Health::Limited => {}
            Health::Unknown => self.waited_in_vain(now),
        }
        if let Some(time) = verdict.first_token {
            address.learn(time, core.config.fade.0, core.ms(now));
        }
        self.answered();
    }

    fn ended(&mut self, broke: bool, now: Instant) {
        if broke {
            self.group.failed(&self.address, self.began, now);
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if self.is_waiting {
            self.waited_in_vain(Instant::now());
        }
        self.answered();
        self.address.end();
    }
}

#[cfg(test)]
mod tests;
