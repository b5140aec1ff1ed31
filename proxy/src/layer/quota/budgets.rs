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
use tokio::sync::Notify;

use super::amounts::{Amounts, Kind};
use super::budget::{Budget, Lack, Standing};
use super::clock::Now;
use super::config::Mode;
use super::rule::{Key, Rule};
use super::sharing::{Answer, Share, Word};
use super::sync::{Mutex, MutexGuard};
use super::tally::Tally;

/// All budgets of all quotas.
#[derive(Debug)]
pub(crate) struct Budgets {
    state: Mutex<State>,
    /// How many there may be, beside the common ones.
    most: AtomicUsize,
    /// Something is to be told to those who share budgets.
    pub(super) untold: Notify,
}

#[derive(Debug, Default)]
struct State {
    budgets: FxHashMap<Key, Budget>,
    /// By the names of quotas.
    tallies: FxHashMap<Arc<str>, Tally>,
    /// When to look again for budgets that nobody needs.
    next_sweep: i64,
    /// Shared budgets of which there is something to tell.
    untold: FxHashMap<Key, Arc<Rule>>,
    /// The number of the last word that was told.
    words: u64,
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
/// Budgets of which others are told with one word.
const BUDGETS_TOLD: usize = 32;
/// Longer names have no budget of their own: they are the callers'.
const NAME_BYTES: usize = 256;

// === impl Budgets ===

impl Budgets {
    /// At most so many, beside a common one for each quota.
    pub(crate) fn new(most: usize) -> Self {
        Self { state: Mutex::default(), most: AtomicUsize::new(most), untold: Notify::new() }
    }

    /// From now on there may be so many, and only quotas with these ids have any.
    pub(super) fn keep(&self, rules: &[Arc<Rule>], most: usize) {
        self.most.store(most, Relaxed);
        let mut state = self.lock();
        state.budgets.retain(|key, _| rules.iter().any(|rule| rule.id == key.rule));
        state.untold.retain(|key, _| rules.iter().any(|rule| rule.id == key.rule));
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
        let holdings = claims.into_iter().map(|claim| self.hold(&mut state, claim, now)).collect();
        Ok(Admitted { holdings, would_refuse, is_bypassed })
    }

    /// What a store is asked for a call that wants this; see [`Budgets::is_answered`].
    pub(super) fn share(&self, claims: &mut [Claim], now: &Now) -> Vec<Share> {
        let mut state = self.lock();
        self.make_room(&mut state, claims.len(), now);
        let share = |claim: &mut Claim| {
            claim.key = self.find(&mut state, &claim.rule, &claim.key);
            let budget = state.budgets.get_mut(&claim.key).expect("it was just found");
            let alone = budget.is_asked();
            let (rule, key, holds) = (claim.rule.clone(), claim.key.clone(), claim.holds);
            let stretches = rule.window.counting(now);
            let let_in = stretches.iter().map(|stretch| budget.let_in(stretch)).collect();
            Share { rule, key, stretches, holds, let_in, alone }
        };
        claims.iter_mut().map(share).collect()
    }

    /// Nobody waits for a store's answer to this any more.
    pub(super) fn is_answered(&self, shares: &[Share]) {
        let mut state = self.lock();
        for share in shares {
            if let Some(budget) = state.budgets.get_mut(&share.key) {
                budget.is_answered();
            }
        }
    }

    /// Lets a call in that wants this of budgets which are shared, or says why not: as a store says,
    /// and where that says nothing by what is known here.
    pub(super) fn judge(
        &self,
        claims: Vec<Claim>,
        shares: &[Share],
        answer: Option<&Answer>,
        now: &Now,
    ) -> Result<Admitted, Box<Refused>> {
        let mut state = self.lock();
        if let Some(answer) = answer {
            self.learn(&mut state, shares, answer);
        }
        let said = answer.map(|answer| answer.refused);
        let (mut refusal, mut would_refuse) = (None, None);
        for (at, claim) in claims.iter().enumerate() {
            let wants = (&claim.holds, &claim.most);
            let budget = state.budgets.get(&claim.key);
            let lack = budget.and_then(|budget| budget.lack(&claim.rule.limits, wants, now));
            let lack = match (claim.rule.mode, said) {
                (Mode::Observe, _) | (_, None) => lack,
                (Mode::Enforce, Some(Some(refused))) if refused == at => {
                    lack.or_else(|| claim.all_is_spent())
                }
                (Mode::Enforce, Some(_)) => None,
            };
            let Some(lack) = lack else { continue };
            state.tally(&claim.rule).refuse(claim.rule.mode, &claim.label, lack.kind);
            match claim.rule.mode {
                Mode::Observe => _ = would_refuse.get_or_insert_with(|| claim.rule.name.clone()),
                Mode::Enforce => refusal = longest(refusal, (claim, lack)),
            }
        }
        if let Some((claim, lack)) = refusal {
            return Err(Refused::new(claim, &lack).into());
        }
        let hold = |(claim, share): (Claim, &Share)| match answer {
            None => Some(self.hold(&mut state, claim, now)),
            Some(_) => {
                let Claim { rule, key, holds: held, .. } = claim;
                let (budget, present) = (state.budgets.get_mut(&key)?, share.stretches.first()?);
                let since = budget.is_let_in(&held, *present);
                Some(Holding { rule, key, held, since })
            }
        };
        let holdings = claims.into_iter().zip(shares).filter_map(hold).collect();
        Ok(Admitted { holdings, would_refuse, is_bypassed: false })
    }

    /// What a store says of budgets that are shared.
    fn learn(&self, state: &mut State, shares: &[Share], answer: &Answer) {
        let is_let_in = answer.refused.is_none();
        for (share, spent) in shares.iter().zip(&answer.spent) {
            let Share { rule, key, stretches, holds, let_in, alone } = share;
            let Some(budget) = state.budgets.get_mut(key) else { continue };
            let was_alone = budget.was_alone(*alone);
            let mut has_news = false;
            let limited = rule.limits.all();
            for (at, (stretch, spending)) in stretches.iter().zip(spent).enumerate() {
                let this = if at == 0 && is_let_in { *holds } else { Amounts::default() };
                let before = spending.let_in.beyond(&this);
                // What we had heard of by then it has lost where it has less: at once what it has
                // counts, for under load no question is ever alone.
                let is_lost = !let_in[at].beyond(&spending.let_in).at_most(&limited).is_nothing();
                let is_settled = (was_alone || is_lost).then_some(before);
                has_news |= budget.learn(*stretch, spending, is_settled, &rule.limits);
            }
            if has_news {
                self.is_untold(state, rule, key);
            }
        }
    }

    /// What others have not been told, of some budgets, and the number of the word; nothing where
    /// there is nothing to tell.
    pub(super) fn words(&self, now: &Now) -> Option<(Vec<Word>, u64)> {
        let mut state = self.lock();
        let keys: Vec<_> = state.untold.keys().take(BUDGETS_TOLD).cloned().collect();
        let mut words = Vec::new();
        for key in keys {
            let Some(rule) = state.untold.remove(&key) else { continue };
            let Some(budget) = state.budgets.get(&key) else { continue };
            let word = |own| Word { rule: rule.clone(), key: key.clone(), own };
            words.extend(budget.untold(now).into_iter().map(word));
        }
        state.words += 1;
        (!words.is_empty()).then_some((words, state.words))
    }

    /// Whether others have heard these.
    pub(super) fn heard(&self, words: &[Word], is_heard: bool) {
        let mut state = self.lock();
        for Word { rule, key, own } in words {
            match state.budgets.get_mut(key) {
                Some(budget) if is_heard => budget.is_told(own),
                Some(_) => _ = state.untold.insert(key.clone(), rule.clone()),
                None => {}
            }
        }
    }

    fn hold(&self, state: &mut State, claim: Claim, now: &Now) -> Holding {
        let Claim { rule, key, holds: held, .. } = claim;
        let budget = state.budgets.get_mut(&key).expect("it was just found");
        let since = budget.hold(&held, now);
        self.is_untold(state, &rule, &key);
        Holding { rule, key, held, since }
    }

    fn is_untold(&self, state: &mut State, rule: &Arc<Rule>, key: &Key) {
        if rule.is_shared {
            state.untold.insert(key.clone(), rule.clone());
            self.untold.notify_one();
        }
    }

    /// A call is over that held this: it used so much instead.
    pub(crate) fn settle(&self, holding: &Holding, used: &Amounts, now: &Now) {
        let mut state = self.lock();
        // A quota that was taken out of the configuration has none any more.
        if let Some(budget) = state.budgets.get_mut(&holding.key) {
            budget.settle((holding.since, &holding.held), used, now);
            self.is_untold(&mut state, &holding.rule, &holding.key);
        }
    }

    /// A call that holds nothing has used so much: it ended elsewhere than it began.
    pub(crate) fn charge(&self, rule: &Arc<Rule>, key: &Key, used: &Amounts, now: &Now) {
        let nothing = Amounts::default();
        let mut state = self.lock();
        self.make_room(&mut state, 1, now);
        let key = self.find(&mut state, rule, key);
        let budget = state.budgets.get_mut(&key).expect("it was just found");
        let since = budget.hold(&nothing, now);
        budget.settle((since, &nothing), used, now);
        self.is_untold(&mut state, rule, &key);
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

// === impl Claim ===

impl Claim {
    /// Whether it says itself that it may take more than there ever is.
    pub(super) fn can_never_pass(&self) -> bool {
        let mut kinds = self.rule.limits.kinds();
        self.rule.mode == Mode::Enforce && kinds.any(|(kind, limit)| self.most[kind] > limit)
    }

    /// What it lacks where others say so who know better.
    fn all_is_spent(&self) -> Option<Lack> {
        let (kind, limit) = self.rule.limits.kinds().next()?;
        let wait = Some(Duration::from_secs(1));
        Some(Lack { kind, limit, spent: limit, wanted: self.holds[kind], wait })
    }
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
