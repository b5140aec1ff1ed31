//! Budgets that several sidecars spend together, by way of their store.
//!
//! A decision takes one round trip: the store knows what all have spent, lets a call in or not, and
//! says how things stand. What it says is kept here, so that where it is not well each sidecar goes on
//! with what it knows.
//!
//! The store adds up what it lets in. What a sidecar spends beside, or less, is told by the sidecar:
//! all of it at a time, so that nothing is counted twice, whatever is lost on the way. With each
//! answer a sidecar sees what the store has of it; what was lost there, or let in for a call that did
//! not wait for it, is put right with the next word.
//!
//! Slots go by the date, as the clocks of all machines have it.

use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use redis::Script;
use tokio::time::timeout;

use super::Kept;
use super::amounts::{Amounts, Kind};
use super::budget::Own;
use super::clock::Clock;
use super::config::Mode;
use super::rule::{Key, Rule};
use super::window::Stretch;
use crate::store::{Operation, Store};

/// How long what is to be told is gathered.
const GATHER: Duration = Duration::from_millis(10);
/// Between two tries to tell it.
const AGAIN: Duration = Duration::from_millis(250);
/// Between two looks whether anybody needs this.
const LOOK: Duration = Duration::from_secs(5);

/// Lets calls in.
static ADMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("admit.lua")));
/// Is told what calls came to.
static TELL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("tell.lua")));

/// One who spends budgets together with others.
#[derive(Debug)]
pub(super) struct Sharing {
    store: Store,
    /// Who we are, as long as this process lasts.
    id: String,
}

/// What a call would take of one budget that is shared.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub(super) rule: Arc<Rule>,
    pub(super) key: Key,
    /// The stretches that count, the present one first.
    pub(super) stretches: Vec<Stretch>,
    pub(super) holds: Amounts,
    /// What was let in for this process in each, as far as it had heard.
    pub(super) let_in: Vec<Amounts>,
    /// The number of this question, where no other was on its way when it was asked.
    pub(super) alone: Option<u64>,
}

/// How a store answers.
#[derive(Debug)]
pub(super) struct Answer {
    /// The place of the budget that has no room, if one has none.
    pub(super) refused: Option<usize>,
    /// For each budget, by its stretches, what was spent.
    pub(super) spent: Vec<Vec<Spending>>,
}

/// What was spent in one stretch of a budget, as a store has it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spending {
    /// By others.
    pub(super) elsewhere: Amounts,
    /// What it has let in for this process.
    pub(super) let_in: Amounts,
    /// What this process has told beside.
    pub(super) rest: Rest,
}

/// By kind, what was spent beside what was let in, or less than that.
pub(super) type Rest = [i64; Kind::ALL.len()];

/// What this process has to tell of one stretch of a budget.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) rule: Arc<Rule>,
    pub(super) key: Key,
    pub(super) own: Own,
}

// === impl Sharing ===

impl Sharing {
    /// From now on these budgets are spent together with whoever has the same store.
    pub(super) fn begin(store: &Store, kept: &Arc<Kept>, clock: &Clock) -> Arc<Self> {
        let id = format!("{:016x}", rand::random::<u64>());
        let sharing = Arc::new(Self { store: store.clone(), id });
        let telling = tell_on(Arc::downgrade(&sharing), Arc::downgrade(kept), clock.clone());
        store.background().spawn(telling);
        sharing
    }

    /// Whether it goes by this store.
    pub(super) fn is_by(&self, store: &Store) -> bool {
        self.store.is_same(store)
    }

    /// Whether all of these have room; nothing where the store does not say.
    pub(super) async fn admit(&self, shares: &[Share]) -> Option<Answer> {
        let mut question = ADMIT.prepare_invoke();
        question.arg(&self.id).arg(shares.len());
        for share in shares {
            self.ask(&mut question, share);
        }
        let numbers = self.store.ask(Operation::QuotaAdmit, async |mut connection| {
            question.invoke_async::<Vec<i64>>(&mut connection).await
        });
        Answer::read(&numbers.await?, shares)
    }

    fn ask(&self, question: &mut redis::ScriptInvocation<'_>, share: &Share) {
        let Share { rule, key, stretches, holds, .. } = share;
        for stretch in stretches {
            question.key(self.name(rule, key, stretch));
        }
        let kinds: Vec<_> = rule.limits.kinds().collect();
        let gone = stretches.first().map_or(0, |stretch| stretch.gone);
        question.arg(stretches.len()).arg(gone).arg(kinds.len());
        for (kind, limit) in kinds {
            // What is only expected keeps no call out for ever.
            let wants = holds[kind].min(limit);
            let said = match rule.mode {
                Mode::Enforce => limit.to_string(),
                Mode::Observe => "-1".to_owned(),
            };
            question.arg(kind.as_str()).arg(said).arg(holds[kind]).arg(wants);
        }
    }

    /// Tells what this process has spent; whether that was heard.
    pub(super) async fn tell(&self, number: u64, told: &[Word]) -> bool {
        let mut words = TELL.prepare_invoke();
        words.arg(&self.id).arg(number);
        for Word { rule, key, own } in told {
            words.key(self.name(rule, key, &own.stretch));
            let kinds: Vec<_> = rule.limits.kinds().collect();
            words.arg(own.stretch.gone).arg(kinds.len());
            for (kind, _) in kinds {
                words.arg(kind.as_str()).arg(own.rest[kind as usize]);
            }
        }
        let heard = self.store.ask(Operation::QuotaSettle, async |mut connection| {
            words.invoke_async::<u64>(&mut connection).await
        });
        heard.await.is_some()
    }

    /// Where a stretch of a budget stands in the store: no name of a caller is told there.
    fn name(&self, rule: &Rule, key: &Key, stretch: &Stretch) -> String {
        let mut hash = blake3::Hasher::new();
        let parts =
            [Some(&rule.counts), key.caller.as_ref(), key.model.as_ref(), key.upstream.as_ref()];
        for part in parts {
            hash.update(&[u8::from(part.is_some())]);
            let part = part.map_or(&b""[..], |part| part.as_bytes());
            hash.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        hash.update(&[u8::from(key.is_common)]);
        let whose = &hash.finalize().to_hex()[..32];
        format!("{}:quota:{}:{whose}:{}", self.store.prefix(), rule.name, stretch.start)
    }
}

/// Tells others what calls came to, as long as anybody shares anything.
async fn tell_on(sharing: Weak<Sharing>, kept: Weak<Kept>, clock: Clock) {
    loop {
        let Some(budgets) = kept.upgrade() else { return };
        // Where nothing comes, it is looked now and then whether anybody is left.
        let _ = timeout(LOOK, budgets.budgets.untold.notified()).await;
        drop(budgets);
        // Many calls end at a time.
        tokio::time::sleep(GATHER).await;
        loop {
            let (Some(sharing), Some(kept)) = (sharing.upgrade(), kept.upgrade()) else { return };
            let Some((words, number)) = kept.budgets.words(&clock.now()) else { break };
            let is_heard = sharing.tell(number, &words).await;
            kept.budgets.heard(&words, is_heard);
            if !is_heard {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

// === impl Answer ===

impl Answer {
    fn read(numbers: &[i64], shares: &[Share]) -> Option<Self> {
        let (&refused, rest) = numbers.split_first()?;
        let mut rest = rest.iter().copied();
        let mut spent = Vec::with_capacity(shares.len());
        for share in shares {
            let kinds: Vec<Kind> = share.rule.limits.kinds().map(|(kind, _)| kind).collect();
            let spending = share.stretches.iter().map(|_| Spending::read(&kinds, &mut rest));
            spent.push(spending.collect::<Option<_>>()?);
        }
        let refused = usize::try_from(refused).ok()?.checked_sub(1);
        Some(Self { refused, spent }).filter(|_| rest.next().is_none())
    }
}

impl Spending {
    fn read(kinds: &[Kind], numbers: &mut impl Iterator<Item = i64>) -> Option<Self> {
        let amount = |number: i64| u64::try_from(number).unwrap_or(0);
        let mut spending = Self::default();
        for kind in kinds {
            let (all, let_in, rest) = (numbers.next()?, numbers.next()?, numbers.next()?);
            let own = let_in.saturating_add(rest);
            spending.elsewhere[*kind] = amount(all.saturating_sub(own));
            spending.let_in[*kind] = amount(let_in);
            spending.rest[*kind as usize] = rest;
        }
        Some(spending)
    }
}
