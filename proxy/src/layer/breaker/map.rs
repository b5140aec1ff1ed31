//! The breakers of one upstream: one for each region and model that has shown itself to be real.
//!
//! Callers write the names of models, and some of regions, so a name counts for something only once
//! a call by it was answered well. All others share one breaker: a flood of invented names takes no
//! memory and cannot hide behind fresh breakers.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError};

use rustc_hash::FxHashMap;
use serde::Serialize;
use tokio::time::Instant;
use tracing::{info, warn};

use super::circuit::{Circuit, Pass, Picture, Position, Signal, Stop, Tally};
use super::config::BreakerConfig;
use super::lease::Lease;
use super::sync::{Mutex, MutexGuard, RwLock};

/// Bytes of a region's or model's name; what is longer never has a breaker of its own.
const MAX_NAME: usize = 128;

/// What a call is about.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Key<'a> {
    pub(crate) region: Option<&'a str>,
    pub(crate) model: Option<&'a str>,
    /// Tells those apart who have rate limits of their own, where callers bring their own keys.
    pub(crate) account: u64,
}

/// The breakers of one upstream, for all workers.
#[derive(Debug)]
pub(crate) struct Breakers {
    upstream: Arc<str>,
    config: Arc<BreakerConfig>,
    /// For what is not known, or too much.
    shared: Arc<Entry>,
    known: RwLock<Known>,
    accounts: RandomState,
}

/// A call that is kept out, and by which breaker or gate.
#[derive(Debug)]
pub(crate) struct Refused {
    entry: Arc<Entry>,
    pub(crate) stop: Stop,
}

/// Names that have a breaker of their own.
#[derive(Debug, Default)]
struct Known {
    regions: FxHashMap<Box<str>, Region>,
    count: usize,
}

#[derive(Debug)]
struct Region {
    /// For calls that name no model, or none that is known.
    shared: Arc<Entry>,
    models: FxHashMap<Box<str>, Arc<Entry>>,
}

/// One breaker, and what it guards.
#[derive(Debug)]
pub(super) struct Entry {
    upstream: Arc<str>,
    region: Option<Box<str>>,
    model: Option<Box<str>>,
    config: Arc<BreakerConfig>,
    circuit: Mutex<Circuit>,
}

/// What is known of a breaker, for those who ask.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) upstream: Arc<str>,
    /// Absent for the breaker of all regions, and of all models, that have none of their own.
    pub(crate) region: Option<Box<str>>,
    pub(crate) model: Option<Box<str>>,
    pub(crate) state: Position,
    /// Why it is not closed, in a fixed word and in words.
    pub(crate) reason: Option<&'static str>,
    pub(crate) why: Option<String>,
    /// How long it stays open at least.
    pub(crate) open_for_s: Option<f64>,
    pub(crate) rate_gates_closed: usize,
    pub(crate) rate_gates_closed_for_s: Option<f64>,
    /// Calls of the window.
    pub(crate) good: u32,
    pub(crate) bad: u32,
    pub(crate) slow: u32,
    pub(crate) broken: u32,
    #[serde(flatten)]
    pub(crate) tally: Tally,
}

// === impl Breakers ===

impl Breakers {
    /// None of which has anything against its upstream. The regions and models that the
    /// configuration names are known from the start.
    pub(crate) fn new(
        upstream: Arc<str>,
        config: BreakerConfig,
        configured: &[Key<'_>],
        now: Instant,
    ) -> Arc<Self> {
        let config = Arc::new(config);
        let shared = Entry::new(&upstream, None, None, &config, now);
        let no_region = Region { shared: shared.clone(), models: FxHashMap::default() };
        let mut known = Known::default();
        known.regions.insert("".into(), no_region);
        let (known, accounts) = (RwLock::new(known), RandomState::new());
        let breakers = Self { upstream, config, shared, known, accounts };
        for key in configured {
            breakers.learn(key.region, key.model, now);
        }
        Arc::new(breakers)
    }

    /// Lets a call through, or says what keeps it out. Whoever holds the lease says what became of
    /// the call; to drop it says that nothing is known.
    pub(crate) fn admit(self: &Arc<Self>, key: &Key<'_>, now: Instant) -> Result<Lease, Refused> {
        let (entry, is_known) = self.find(key);
        let admitted = entry.circuit().admit(&self.config, key.account, now);
        match admitted {
            Err(stop) => Err(Refused { entry, stop }),
            Ok(pass) => {
                let unknown = (!is_known && is_nameable(key)).then(|| Unknown::new(self, key));
                Ok(Lease::new(entry, pass, unknown))
            }
        }
    }

    /// The account behind a credential, as a number that tells nothing of it.
    pub(crate) fn account(&self, credential: &[u8]) -> u64 {
        self.accounts.hash_one(credential)
    }

    /// Whose calls these are.
    pub(crate) fn upstream(&self) -> &Arc<str> {
        &self.upstream
    }

    /// The breaker for a call, and whether it is the call's own.
    fn find(&self, key: &Key<'_>) -> (Arc<Entry>, bool) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let Some(region) = known.regions.get(key.region.unwrap_or_default()) else {
            return (self.shared.clone(), false);
        };
        let Some(model) = key.model else { return (region.shared.clone(), true) };
        match region.models.get(model) {
            Some(entry) => (entry.clone(), true),
            None => (region.shared.clone(), false),
        }
    }

    /// Gives a region and model breakers of their own, where there is room.
    fn learn(&self, region: Option<&str>, model: Option<&str>, now: Instant) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let name = region.unwrap_or_default();
        if !known.regions.contains_key(name) {
            if !known.make_room(&self.config, &self.shared, now) {
                return;
            }
            let shared = Entry::new(&self.upstream, region, None, &self.config, now);
            known.count += 1;
            known.regions.insert(name.into(), Region { shared, models: FxHashMap::default() });
        }
        let Some(model) = model else { return };
        let is_known = |known: &Known| known.regions[name].models.contains_key(model);
        if is_known(&known) || !known.make_room(&self.config, &self.shared, now) {
            return;
        }
        // To make room may have taken the region that was to have the model.
        if let Some(place) = known.regions.get_mut(name) {
            let entry = Entry::new(&self.upstream, region, Some(model), &self.config, now);
            place.models.insert(model.into(), entry);
            known.count += 1;
        }
    }

    /// What is known of all of them.
    pub(crate) fn snapshot(&self, now: Instant) -> Vec<Snapshot> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = vec![self.shared.clone()];
        for (name, region) in &known.regions {
            if !name.is_empty() {
                all.push(region.shared.clone());
            }
            all.extend(region.models.values().cloned());
        }
        drop(known);
        all.iter().map(|entry| entry.snapshot(now)).collect()
    }
}

/// Whether a call's names may be remembered.
fn is_nameable(key: &Key<'_>) -> bool {
    [key.region, key.model].into_iter().flatten().all(|name| name.len() <= MAX_NAME)
}

// === impl Refused ===

impl Refused {
    /// The call is indeed refused, and counts as that.
    pub(crate) fn count(&self) {
        self.entry.circuit().tally.refused(self.stop.what);
    }

    /// The region of the breaker; absent where it is that of all that have none of their own.
    pub(crate) fn region(&self) -> Option<&str> {
        self.entry.region.as_deref()
    }

    /// Its model, likewise.
    pub(crate) fn model(&self) -> Option<&str> {
        self.entry.model.as_deref()
    }
}

// === impl Known ===

impl Known {
    /// Room for one more: where there is none, what has been idle for longest makes it.
    fn make_room(&mut self, config: &BreakerConfig, heir: &Entry, now: Instant) -> bool {
        if self.count < config.keys.get() as usize {
            return true;
        }
        let mut oldest: Option<(Instant, Box<str>, Box<str>)> = None;
        for (region, place) in &self.regions {
            for (model, entry) in &place.models {
                let mut circuit = entry.circuit();
                let is_older = oldest.as_ref().is_none_or(|(asked, ..)| circuit.asked < *asked);
                if is_older && circuit.is_idle(config, now) {
                    oldest = Some((circuit.asked, region.clone(), model.clone()));
                }
            }
        }
        let Some((_, region, model)) = oldest else { return false };
        let place = self.regions.get_mut(&region).expect("it was found there");
        if let Some(entry) = place.models.remove(&model) {
            heir.circuit().inherit(entry.circuit().tally);
            self.count -= 1;
        }
        true
    }
}

// === impl Entry ===

impl Entry {
    fn new(
        upstream: &Arc<str>,
        region: Option<&str>,
        model: Option<&str>,
        config: &Arc<BreakerConfig>,
        now: Instant,
    ) -> Arc<Self> {
        // Another number for each breaker and each process.
        let seed = RandomState::new().hash_one((region, model));
        let (region, model) = (region.map(Box::from), model.map(Box::from));
        let circuit = Mutex::new(Circuit::new(config, seed, now));
        let (upstream, config) = (upstream.clone(), config.clone());
        Arc::new(Self { upstream, region, model, config, circuit })
    }

    pub(super) fn judge(&self, pass: &Pass, signal: Signal, now: Instant) {
        self.tell(|circuit| circuit.judge(&self.config, pass, signal, now));
    }

    pub(super) fn end(&self, pass: &Pass, is_broken: bool, now: Instant) {
        self.tell(|circuit| circuit.end(&self.config, pass, is_broken, now));
    }

    /// Tells it something, and the log what came of it.
    fn tell(&self, what: impl FnOnce(&mut Circuit)) {
        let mut circuit = self.circuit();
        let before = circuit.tally;
        what(&mut circuit);
        let (after, why) = (circuit.tally, circuit.why());
        drop(circuit);
        let (upstream, region, model) = (&self.upstream, &self.region, &self.model);
        if after.opened > before.opened
            && let Some(why) = why
        {
            warn!(%upstream, ?region, ?model, %why, "circuit breaker opened");
        }
        if after.closed > before.closed {
            info!(%upstream, ?region, ?model, "circuit breaker closed");
        }
    }

    /// A thread that panicked has left numbers behind, at worst one too few.
    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self, now: Instant) -> Snapshot {
        let picture = self.circuit().picture(now);
        let Picture { position, why, until, gates_closed, gates_until, counts, tally } = picture;
        let seconds = |until: Option<Instant>| {
            until.map(|until| until.saturating_duration_since(now).as_secs_f64())
        };
        Snapshot {
            upstream: self.upstream.clone(),
            region: self.region.clone(),
            model: self.model.clone(),
            state: position,
            reason: why.map(|why| why.word()),
            why: why.map(|why| why.to_string()),
            open_for_s: seconds(until),
            rate_gates_closed: gates_closed,
            rate_gates_closed_for_s: seconds(gates_until),
            good: counts.good,
            bad: counts.bad,
            slow: counts.slow,
            broken: counts.broke,
            tally,
        }
    }
}

/// The names of a call that has no breaker of its own, until it is known to deserve one.
#[derive(Debug)]
pub(super) struct Unknown {
    breakers: Arc<Breakers>,
    region: Option<Box<str>>,
    model: Option<Box<str>>,
}

impl Unknown {
    fn new(breakers: &Arc<Breakers>, key: &Key<'_>) -> Self {
        let breakers = breakers.clone();
        Self { breakers, region: key.region.map(Box::from), model: key.model.map(Box::from) }
    }

    /// It was answered well.
    pub(super) fn learn(self, now: Instant) {
        self.breakers.learn(self.region.as_deref(), self.model.as_deref(), now);
    }
}
