//! All budgets of all quotas, which all workers share.
//!
//! A call is let in by all of its budgets or by none, and that is decided at once: [`Budgets::admit`]
//! is given what the call would take, of what, and the time. What it took is told once, when it is
//! over ([`Budgets::settle`]). Both are told nothing of calls and records, so that a store which many
//! sidecars share could decide in their place. They live in this process: after a restart all begin
//! with nothing spent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::amounts::{Amounts, Kind};
use super::budget::{Budget, Lack, Standing};
use super::clock::Now;
use super::config::Mode;
use super::rule::{Key, Rule};
use super::sync::{Mutex, MutexGuard};
use super::tally::Tally;

/// All budgets of all quotas.
#[derive(Debug)]
pub(crate) struct Budgets {
    state: Mutex<State>,
    /// How many there may be, beside the common ones.
    most: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    budgets: FxHashMap<Key, Budget>,
    /// By the names of quotas.
    tallies: FxHashMap<Arc<str>, Tally>,
    /// When to look again for budgets that nobody needs.
    next_sweep: i64,
}

/// What a call would take of one budget.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(super) rule: Arc<Rule>,
    pub(super) key: Key,
    /// The caller, as metrics name it.
    pub(super) label: Arc<str>,
    /// What it holds until it is over.
    pub(super) holds: Amounts,
    /// What it says itself that it may take, at most.
    pub(super) most: Amounts,
}

/// What a call holds of one budget, and since when.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(super) rule: Arc<Rule>,
    pub(super) key: Key,
    pub(super) held: Amounts,
    pub(super) since: i64,
}

/// A call that was let in.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(super) holdings: Vec<Holding>,
    /// The quota that would have refused it, did it not only observe.
    pub(super) would_refuse: Option<Arc<str>>,
    /// Whether one that enforces would have, if policies were not bypassed.
    pub(super) is_bypassed: bool,
}

/// Why a call was not let in.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) rule: Arc<Rule>,
    pub(crate) key: Key,
    pub(crate) kind: Kind,
    pub(crate) limit: u64,
    /// What was spent of it, or is held.
    pub(crate) spent: u64,
    /// What the call would have taken.
    pub(crate) wanted: u64,
    /// After how long it may come again; never where it wants more than the limit.
    pub(crate) wait: Option<Duration>,
}

/// One budget and how it stands.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) rule: Arc<Rule>,
    pub(super) key: Key,
    pub(super) standing: Standing,
    /// What is spent in a second at present.
    pub(super) pace: [f64; Kind::ALL.len()],
}

/// Between two searches for budgets that nobody needs, in milliseconds.
const SWEEP: i64 = 1_000;
/// Longer names have no budget of their own: they are the callers'.
const NAME_BYTES: usize = 256;

// === impl Budgets ===

impl Budgets {
    /// At most so many, beside a common one for each quota.
    pub(crate) fn new(most: usize) -> Self {
        Self { state: Mutex::default(), most: AtomicUsize::new(most) }
    }

    /// From now on there may be so many, and only quotas with these ids have any.
    pub(super) fn keep(&self, rules: &[Arc<Rule>], most: usize) {
        self.most.store(most, Relaxed);
        let mut state = self.lock();
        state.budgets.retain(|key, _| rules.iter().any(|rule| rule.id == key.rule));
        state.tallies.retain(|name, _| rules.iter().any(|rule| rule.name == *name));
    }

    /// Lets a call in that takes so much of each of these, or says why not. Of several reasons it is
    /// the one that lasts longest. `acts` is false where all quotas only observe.
    pub(crate) fn admit(
        &self,
        mut claims: Vec<Claim>,
        acts: bool,
        now: &Now,
    ) -> Result<Admitted, Box<Refused>> {
        let mut state = self.lock();
        self.make_room(&mut state, claims.len(), now);
        for claim in &mut claims {
            claim.key = self.find(&mut state, &claim.rule, &claim.key);
        }
        let (mut refusal, mut would_refuse, mut is_bypassed) = (None, None, false);
        for claim in &claims {
            let budget = state.budgets.get(&claim.key).expect("it was just found");
            let wants = (&claim.holds, &claim.most);
            let Some(lack) = budget.lack(&claim.rule.limits, wants, now) else {
                continue;
            };
            let mode = if acts { claim.rule.mode } else { Mode::Observe };
            state.tally(&claim.rule).refuse(mode, &claim.label, lack.kind);
            match mode {
                Mode::Observe => {
                    would_refuse.get_or_insert_with(|| claim.rule.name.clone());
                    is_bypassed |= claim.rule.mode == Mode::Enforce;
                }
                Mode::Enforce => refusal = longest(refusal, (claim, lack)),
            }
        }
        if let Some((claim, lack)) = refusal {
            return Err(Refused::new(claim, &lack).into());
        }
        let hold = |Claim { rule, key, holds: held, .. }: Claim| {
            let budget = state.budgets.get_mut(&key).expect("it was just found");
            let since = budget.hold(&held, now);
            Holding { rule, key, held, since }
        };
        let holdings = claims.into_iter().map(hold).collect();
        Ok(Admitted { holdings, would_refuse, is_bypassed })
    }

    /// A call is over that held this: it used so much instead.
    pub(crate) fn settle(&self, holding: &Holding, used: &Amounts, now: &Now) {
        let mut state = self.lock();
        // A quota that was taken out of the configuration has none any more.
        if let Some(budget) = state.budgets.get_mut(&holding.key) {
            budget.settle((holding.since, &holding.held), used, now);
        }
    }

    /// A call that holds nothing has used so much: it ended elsewhere than it began.
    pub(crate) fn charge(&self, rule: &Rule, key: &Key, used: &Amounts, now: &Now) {
        let nothing = Amounts::default();
        let mut state = self.lock();
        self.make_room(&mut state, 1, now);
        let key = self.find(&mut state, rule, key);
        let budget = state.budgets.get_mut(&key).expect("it was just found");
        let since = budget.hold(&nothing, now);
        budget.settle((since, &nothing), used, now);
    }

    /// Counts something that came of calls of this quota.
    pub(super) fn count(&self, rule: &Rule, count: impl FnOnce(&mut Tally)) {
        count(self.lock().tally(rule));
    }

    /// What was counted of these quotas, by their names, and how many budgets each has.
    pub(super) fn tallies(&self, rules: &[Arc<Rule>]) -> Vec<(Arc<str>, Tally, usize)> {
        let state = self.lock();
        let of = |rule: &Arc<Rule>| {
            let tally = state.tallies.get(&rule.name).cloned().unwrap_or_default();
            let own = state.budgets.keys().filter(|key| key.rule == rule.id).count();
            (rule.name.clone(), tally, own)
        };
        rules.iter().map(of).collect()
    }

    /// How the budgets of these quotas stand, but those of which nothing is spent.
    pub(super) fn standings(&self, rules: &[Arc<Rule>], now: &Now) -> Vec<Shown> {
        let state = self.lock();
        let shown = state.budgets.iter().filter_map(|(key, budget)| {
            let rule = rules.iter().find(|rule| rule.id == key.rule)?;
            (!budget.is_idle(now)).then(|| Shown {
                rule: rule.clone(),
                key: key.clone(),
                standing: budget.standing(now),
                pace: Kind::ALL.map(|kind| budget.pace(kind, now)),
            })
        });
        shown.collect()
    }

    /// Looks for budgets that nobody needs where so many more might not find room.
    fn make_room(&self, state: &mut State, more: usize, now: &Now) {
        let is_full = state.budgets.len() + more > self.most.load(Relaxed);
        if is_full && now.steady >= state.next_sweep {
            state.budgets.retain(|_, budget| !budget.is_idle(now));
            state.next_sweep = now.steady + SWEEP;
        }
    }

    /// The budget with this key, or the common one of its quota where there is no room for it.
    fn find(&self, state: &mut State, rule: &Rule, key: &Key) -> Key {
        if state.budgets.contains_key(key) {
            return key.clone();
        }
        let has_room = state.budgets.len() < self.most.load(Relaxed);
        let is_short = key.model.as_ref().is_none_or(|model| model.len() <= NAME_BYTES);
        let key = if has_room && is_short {
            key.clone()
        } else {
            state.tally(rule).overflowed += 1;
            rule.common()
        };
        let begin = || Budget::new(rule.window.clone());
        state.budgets.entry(key.clone()).or_insert_with(begin);
        key
    }

    /// Nothing that panics is done under the lock; and a sum that is off is better than a sidecar
    /// that answers nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

// === impl State ===

impl State {
    fn tally(&mut self, rule: &Rule) -> &mut Tally {
        if !self.tallies.contains_key(&rule.name) {
            self.tallies.insert(rule.name.clone(), Tally::default());
        }
        self.tallies.get_mut(&rule.name).expect("it was there or has been inserted")
    }
}

fn longest<'a>(
    known: Option<(&'a Claim, Lack)>,
    other: (&'a Claim, Lack),
) -> Option<(&'a Claim, Lack)> {
    let wait = |lack: &Lack| lack.wait.unwrap_or(Duration::MAX);
    known.filter(|(_, known)| wait(known) >= wait(&other.1)).or(Some(other))
}

// === impl Refused ===

impl Refused {
    fn new(claim: &Claim, lack: &Lack) -> Self {
        let Lack { kind, limit, spent, wanted, wait } = *lack;
        Self { rule: claim.rule.clone(), key: claim.key.clone(), kind, limit, spent, wanted, wait }
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod interleavings;
#[cfg(all(test, not(feature = "shuttle")))]
mod tests;
