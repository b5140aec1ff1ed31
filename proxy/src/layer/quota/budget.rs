//! What one budget has spent, and what calls that are under way hold of it.
//!
//! A call counts in the window in which it began, with all that was held for it; what it used beyond
//! that counts in the one in which it ended. What it did not use comes free at once.
//!
//! No lock and no clock: `budgets.rs` has those.

use std::time::Duration;

use super::amounts::{Amounts, Kind};
use super::clock::Now;
use super::pace::Pace;
use super::rule::Limits;
use super::sharing::{Rest, Spending};
use super::window::{Stretch, Window};

/// What one budget has spent.
#[derive(Debug)]
pub(super) struct Budget {
    window: Window,
    slots: Vec<Slot>,
    /// What calls hold that are under way, in whichever slot.
    open: Amounts,
    pace: Pace,
    /// Calls about which a store is being asked, and has been asked so far.
    asked: u32,
    questions: u64,
}

/// What was spent in one stretch of time.
#[derive(Debug)]
struct Slot {
    stretch: Stretch,
    used: Amounts,
    held: Amounts,
    /// What other sidecars have spent, as far as it is known.
    elsewhere: Amounts,
    /// What a store has let in for us.
    let_in: Amounts,
    /// How often what is to be told beside that has changed, and how much of it was told.
    changes: u64,
    told: u64,
}

/// What a store is to be told of one stretch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) stretch: Stretch,
    pub(super) rest: Rest,
    changes: u64,
}

/// What keeps a call out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    pub(super) kind: Kind,
    pub(super) limit: u64,
    /// What was spent of it, or is held.
    pub(super) spent: u64,
    /// What the call would take.
    pub(super) wanted: u64,
    /// After how long it would be let in; never where it wants more than the limit.
    pub(super) wait: Option<Duration>,
}

/// How a budget stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// In the window that runs now.
    pub(crate) used: Amounts,
    /// By calls that are under way and began in it.
    pub(crate) held: Amounts,
    /// By all calls that are under way.
    pub(crate) open: Amounts,
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(window: Window) -> Self {
        Self {
            window,
            slots: Vec::new(),
            open: Amounts::default(),
            pace: Pace::default(),
            asked: 0,
            questions: 0,
        }
    }

    /// What keeps out a call that wants so much, where the limits leave no room for it. `most` is
    /// what it says itself that it may take.
    pub(super) fn lack(
        &self,
        limits: &Limits,
        (wants, most): (&Amounts, &Amounts),
        now: &Now,
    ) -> Option<Lack> {
        let spent = self.spent(now);
        let lack = |kind: Kind| {
            let limit = limits.of(kind)?;
            let lack = |wanted, wait| Lack { kind, limit, spent: spent[kind], wanted, wait };
            if most[kind] > limit {
                return Some(lack(most[kind], None));
            }
            // What is only expected keeps no call out for ever.
            let wanted = wants[kind].min(limit);
            (spent[kind].saturating_add(wanted) > limit)
                .then(|| lack(wanted, Some(self.opens(kind, limit - wanted, now))))
        };
        let lacks = Kind::ALL.into_iter().filter_map(lack);
        lacks.max_by_key(|lack| lack.wait.unwrap_or(Duration::MAX))
    }

    /// A call that is let in holds so much. Says when the stretch began in which it counts.
    pub(super) fn hold(&mut self, amounts: &Amounts, now: &Now) -> i64 {
        self.open.add(amounts);
        let slot = self.slot(now);
        slot.held.add(amounts);
        slot.changes += 1;
        slot.stretch.start
    }

    /// A call is over that held so much since then: it used this instead.
    pub(super) fn settle(&mut self, (since, held): (i64, &Amounts), used: &Amounts, now: &Now) {
        self.open.subtract(held);
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.stretch.start == since) {
            slot.held.subtract(held);
            slot.used.add(&used.at_most(held));
            slot.changes += 1;
        }
        let more = used.beyond(held);
        if !more.is_nothing() {
            let slot = self.slot(now);
            slot.used.add(&more);
            slot.changes += 1;
        }
        self.pace.add(&self.window, used, now);
    }

    /// How it stands.
    pub(super) fn standing(&self, now: &Now) -> Standing {
        let mut standing = Standing { open: self.open, ..Standing::default() };
        for slot in self.counting(now) {
            standing.used.add(&slot.used);
            standing.used.add(&slot.elsewhere);
            standing.held.add(&slot.held);
        }
        standing
    }

    /// A store is asked about a call. The number of the question, where no other is on its way.
    pub(super) fn is_asked(&mut self) -> Option<u64> {
        let is_alone = self.asked == 0;
        self.asked += 1;
        self.questions += 1;
        is_alone.then_some(self.questions)
    }

    /// Nobody waits for the answer to one of the questions any more.
    pub(super) fn is_answered(&mut self) {
        self.asked = self.asked.saturating_sub(1);
    }

    /// Whether no other question was on its way beside this, from when it was asked.
    pub(super) fn was_alone(&self, number: Option<u64>) -> bool {
        self.asked == 1 && number == Some(self.questions)
    }

    /// What a store has let in for us in this stretch, as far as we have heard.
    pub(super) fn let_in(&self, stretch: &Stretch) -> Amounts {
        let slot = self.slots.iter().find(|slot| slot.stretch.start == stretch.start);
        slot.map(|slot| slot.let_in).unwrap_or_default()
    }

    /// A call that a store has let in holds so much in this stretch; what there is to tell stays as it
    /// is.
    pub(super) fn is_let_in(&mut self, amounts: &Amounts, stretch: Stretch) -> i64 {
        self.open.add(amounts);
        if let Some(at) = self.at(stretch) {
            self.slots[at].held.add(amounts);
            self.slots[at].let_in.add(amounts);
        }
        stretch.start
    }

    /// What a store has not been told, so far as it still counts.
    pub(super) fn untold(&self, now: &Now) -> Vec<Own> {
        let untold = self.counting(now).filter(|slot| slot.changes != slot.told);
        untold.map(Slot::own).collect()
    }

    /// A store has been told this.
    pub(super) fn is_told(&mut self, own: &Own) {
        let start = own.stretch.start;
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.stretch.start == start) {
            slot.told = slot.told.max(own.changes);
        }
    }

    /// A store has this of a stretch. `is_settled` is what it has let in for us, where nobody waits to
    /// hear more of that: it counts, whatever we thought. Whether there is something to tell of it.
    pub(super) fn learn(
        &mut self,
        stretch: Stretch,
        spending: &Spending,
        is_settled: Option<Amounts>,
        limits: &Limits,
    ) -> bool {
        let Spending { elsewhere, let_in, rest } = spending;
        let is_nothing = elsewhere.is_nothing() && let_in.is_nothing() && *rest == Rest::default();
        let is_known = self.slots.iter().any(|slot| slot.stretch.start == stretch.start);
        if is_nothing && !is_known {
            return false;
        }
        let Some(at) = self.at(stretch) else { return false };
        let slot = &mut self.slots[at];
        slot.elsewhere = *elsewhere;
        let Some(let_in) = is_settled else { return false };
        limits.kinds().for_each(|(kind, _)| slot.let_in[kind] = let_in[kind]);
        let own = slot.own().rest;
        let is_wrong = limits.kinds().any(|(kind, _)| own[kind as usize] != rest[kind as usize]);
        if is_wrong && slot.changes == slot.told {
            slot.changes += 1;
        }
        is_wrong
    }

    /// The place of a stretch, which is made where it is missing and none of the others is older.
    fn at(&mut self, stretch: Stretch) -> Option<usize> {
        let known = self.slots.iter().position(|slot| slot.stretch.start == stretch.start);
        known.or_else(|| self.insert(stretch))
    }

    /// A slot in its place among the others, if none of these is older.
    fn insert(&mut self, stretch: Stretch) -> Option<usize> {
        let mut at = self.slots.partition_point(|slot| slot.stretch.start < stretch.start);
        if self.slots.len() >= self.window.stretches() {
            at = at.checked_sub(1)?;
            self.slots.remove(0);
        }
        self.slots.insert(at, Slot::new(stretch));
        Some(at)
    }

    /// Whether to forget it changes nothing.
    pub(super) fn is_idle(&self, now: &Now) -> bool {
        self.open.is_nothing() && self.asked == 0 && self.spent(now).is_nothing()
    }

    /// What is spent of this in a second at present.
    pub(super) fn pace(&self, kind: Kind, now: &Now) -> f64 {
        self.pace.per_second(&self.window, kind, now)
    }

    fn spent(&self, now: &Now) -> Amounts {
        let Standing { used: mut spent, held, .. } = self.standing(now);
        spent.add(&held);
        spent
    }

    fn counting(&self, now: &Now) -> impl Iterator<Item = &Slot> {
        let at = self.window.at(now);
        self.slots.iter().filter(move |slot| slot.stretch.start <= at && at < slot.stretch.gone)
    }

    /// After how long no more than this is spent, if nothing is added: the oldest slots go first.
    fn opens(&self, kind: Kind, at_most: u64, now: &Now) -> Duration {
        let at = self.window.at(now);
        let mut slots: Vec<_> =
            self.counting(now).map(|slot| (slot.stretch.gone, slot.spent()[kind])).collect();
        slots.sort_unstable();
        let mut left = slots.iter().fold(0u64, |sum, (_, spent)| sum.saturating_add(*spent));
        let opens = slots.iter().find(|(_, spent)| {
            left = left.saturating_sub(*spent);
            left <= at_most
        });
        let wait = opens.map_or(0, |(gone, _)| gone - at);
        Duration::from_millis(u64::try_from(wait).unwrap_or_default())
    }

    /// The slot of this moment, which is made where it is missing.
    fn slot(&mut self, now: &Now) -> &mut Slot {
        let at = self.window.at(now);
        let is_now = |slot: &Slot| slot.stretch.start <= at && at < slot.stretch.end;
        // The last one is it, mostly.
        let found = self.slots.iter().rposition(is_now).unwrap_or_else(|| {
            if self.slots.len() >= self.window.stretches() {
                self.slots.remove(0);
            }
            let stretch = self.window.stretch(now);
            self.slots.push(Slot::new(stretch));
            self.slots.len() - 1
        });
        &mut self.slots[found]
    }
}

// === impl Slot ===

impl Slot {
    fn new(stretch: Stretch) -> Self {
        let [used, held, elsewhere, let_in] = [Amounts::default(); 4];
        Self { stretch, used, held, elsewhere, let_in, changes: 0, told: 0 }
    }

    fn own(&self) -> Own {
        let number = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        let rest = Kind::ALL.map(|kind| {
            let spent = self.used[kind].saturating_add(self.held[kind]);
            number(spent).saturating_sub(number(self.let_in[kind]))
        });
        Own { stretch: self.stretch, rest, changes: self.changes }
    }

    fn spent(&self) -> Amounts {
        let mut spent = self.used;
        spent.add(&self.held);
        spent.add(&self.elsewhere);
        spent
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    use super::*;

    const MINUTE: Window = Window::Sliding(60_000);

    fn limits(requests: u64, tokens: u64) -> Limits {
        Limits::new([(Kind::Requests, requests), (Kind::Tokens, tokens)])
    }

    fn at(seconds: f64) -> Now {
        let steady = (seconds * 1e3) as i64;
        Now { steady, wall: Timestamp::from_millisecond(steady).expect("a time") }
    }

    fn tokens(tokens: u64) -> Amounts {
        Amounts::of_request(tokens, 0, 0)
    }

    /// Lets one in, if there is room.
    fn enter(budget: &mut Budget, limits: &Limits, wants: u64, now: &Now) -> Result<i64, Lack> {
        let wants = tokens(wants);
        match budget.lack(limits, (&wants, &Amounts::default()), now) {
            Some(lack) => Err(lack),
            None => Ok(budget.hold(&wants, now)),
        }
    }

    #[test]
    fn no_minute_has_more_than_its_limit_wherever_it_begins() {
        let (mut budget, limits) = (Budget::new(MINUTE), limits(100, 1_000_000));
        let mut entered = Vec::new();
        // A burst just before a slot ends, and then someone at the door every tenth of a second.
        for step in 0..3_000 {
            let seconds = 2.9 + f64::from(step) / 10.0;
            let tries = if step == 0 { 200 } else { 1 };
            for _ in 0..tries {
                entered.extend(enter(&mut budget, &limits, 1, &at(seconds)).map(|_| seconds));
            }
        }
        for (from, start) in entered.iter().enumerate() {
            let within = entered[from..].iter().take_while(|at| **at < start + 60.0).count();
            assert!(within <= 100, "{within} within a minute from {start}");
        }
        // Where all is taken whenever it comes free, it is at most a twentieth less than it may be.
        assert!(entered.len() >= 475, "{} in five minutes", entered.len());
    }

    #[test]
    fn who_is_refused_is_told_when_there_is_room() {
        let (mut budget, limits) = (Budget::new(MINUTE), limits(3, 100));
        for (seconds, wants) in [(0.0, 50), (10.0, 50)] {
            enter(&mut budget, &limits, wants, &at(seconds)).expect("there is room");
        }
        let lack = enter(&mut budget, &limits, 50, &at(20.0)).expect_err("there is none");
        assert_eq!((lack.kind, lack.spent, lack.wanted), (Kind::Tokens, 100, 50));
        assert_eq!(lack.wait, Some(Duration::from_secs(43)), "the slot of 0 s to 3 s is gone");
        let later = at(20.0 + 43.0 - 0.001);
        enter(&mut budget, &limits, 50, &later).expect_err("it still counts");
        enter(&mut budget, &limits, 50, &at(63.0)).expect("now it does not");
    }

    #[test]
    fn what_a_call_asks_beyond_the_limit_it_never_gets_and_what_is_only_expected_it_does() {
        let (budget, limits) = (Budget::new(MINUTE), limits(3, 100));
        let lack =
            |wants: u64, most: u64| budget.lack(&limits, (&tokens(wants), &tokens(most)), &at(0.0));
        let lack_of = lack(50, 101).expect("more than there is");
        assert_eq!((lack_of.wanted, lack_of.limit, lack_of.wait), (101, 100, None));
        assert_eq!(lack(5_000, 100), None);
    }

    #[test]
    fn what_was_not_used_comes_free_and_what_was_used_beyond_counts() {
        let mut budget = Budget::new(MINUTE);
        let held = tokens(100);
        let since = budget.hold(&held, &at(0.0));
        budget.settle((since, &held), &tokens(30), &at(1.0));
        assert_eq!(budget.standing(&at(1.0)).used, tokens(30));

        let since = budget.hold(&held, &at(1.0));
        budget.settle((since, &held), &tokens(130), &at(50.0));
        let standing = budget.standing(&at(50.0));
        assert_eq!((standing.used[Kind::Tokens], standing.used[Kind::Requests]), (160, 2));
        assert_eq!((standing.held, standing.open), (Amounts::default(), Amounts::default()));
        assert_eq!(
            budget.standing(&at(64.0)).used[Kind::Tokens],
            30,
            "what came late counts longer"
        );
    }

    #[test]
    fn a_call_that_outlives_its_window_costs_the_next_one_only_what_nobody_foresaw() {
        let mut budget = Budget::new(MINUTE);
        let held = tokens(100);
        let since = budget.hold(&held, &at(0.0));
        assert_eq!(budget.standing(&at(200.0)).held, Amounts::default());
        assert_eq!(budget.standing(&at(200.0)).open, held);
        budget.settle((since, &held), &tokens(150), &at(200.0));
        assert_eq!(budget.standing(&at(200.0)).used[Kind::Tokens], 50);
        assert_eq!(budget.standing(&at(200.0)).open, Amounts::default());
        assert!(budget.is_idle(&at(300.0)));
    }

    /// A store has this of the only stretch, and nobody else is asking.
    fn hear(budget: &mut Budget, stretch: Stretch, let_in: u64, rest: i64, others: u64) -> bool {
        let mut spending = Spending::default();
        (spending.let_in, spending.elsewhere) = (tokens(let_in), tokens(others));
        spending.rest[Kind::Tokens as usize] = rest;
        let limits = Limits::new([(Kind::Tokens, 100)]);
        budget.learn(stretch, &spending, Some(spending.let_in), &limits)
    }

    #[test]
    fn what_a_store_lets_in_need_not_be_told_and_what_came_otherwise_must() {
        let (now, mut budget) = (at(0.0), Budget::new(MINUTE));
        let stretch = MINUTE.stretch(&now);
        let held = tokens(10);
        let since = budget.is_let_in(&held, stretch);
        assert!(budget.untold(&now).is_empty());
        budget.settle((since, &held), &tokens(4), &now);
        let untold = budget.untold(&now);
        assert_eq!(untold[0].rest[Kind::Tokens as usize], -6);
        budget.is_told(&untold[0]);
        assert!(budget.untold(&now).is_empty());
        assert!(!hear(&mut budget, stretch, 10, -6, 7), "it has all of it");
        assert_eq!(budget.standing(&now).used[Kind::Tokens], 11, "others' among it");
    }

    #[test]
    fn what_a_store_has_lost_or_let_in_for_nobody_is_told() {
        let (now, mut budget) = (at(0.0), Budget::new(MINUTE));
        let stretch = MINUTE.stretch(&now);
        budget.is_let_in(&tokens(10), stretch);
        assert!(hear(&mut budget, stretch, 0, 0, 0), "it has forgotten");
        assert_eq!(budget.untold(&now)[0].rest[Kind::Tokens as usize], 10);
        assert!(hear(&mut budget, stretch, 25, 10, 0), "a caller did not wait for the answer");
        assert_eq!(budget.untold(&now)[0].rest[Kind::Tokens as usize], -15);
    }

    #[test]
    fn a_question_is_alone_only_where_no_other_is_asked_while_it_waits() {
        let mut budget = Budget::new(MINUTE);
        let first = budget.is_asked();
        assert!(budget.was_alone(first));
        let second = budget.is_asked();
        budget.is_answered();
        assert!(!budget.was_alone(first) && !budget.was_alone(second));
        budget.is_answered();
        let third = budget.is_asked();
        assert!(budget.was_alone(third));
    }

    #[test]
    fn a_month_ends_for_all_that_was_spent_in_it_and_a_clock_that_is_set_back_finds_it_again() {
        let month = Window::Month(TimeZone::UTC);
        let wall = |time: &str| Now { steady: 0, wall: time.parse().expect("a time") };
        let (october, november) = (wall("2026-10-31T23:59:50Z"), wall("2026-11-01T00:00:00Z"));
        let limits = limits(1, 1_000);
        let mut budget = Budget::new(month);
        let wants = tokens(10);
        let since = budget.hold(&wants, &october);
        let lack =
            |budget: &Budget, now: &Now| budget.lack(&limits, (&wants, &Amounts::default()), now);
        let wait = lack(&budget, &october).expect("one is all there is").wait;
        assert_eq!(wait, Some(Duration::from_secs(10)));
        assert_eq!(lack(&budget, &november), None);
        budget.hold(&wants, &november);
        budget.settle((since, &wants), &wants, &november);
        assert_eq!(budget.standing(&november).used, Amounts::default());
        assert_eq!(budget.standing(&october).used, wants);
        assert!(lack(&budget, &october).is_some() && lack(&budget, &november).is_some());
    }
}
