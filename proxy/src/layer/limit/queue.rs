//! Who waits for a place, and who is next.
//!
//! The more urgent first; among equals, who came first. A call that has waited for the length of an
//! ageing counts as one priority more urgent, so none waits for ever. A queue that is full lets the
//! newest of the least urgent go for one that is more urgent.
//!
//! No lock and no clock: `door.rs` has those.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

/// How urgent a call is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Priority {
    High,
    #[default]
    Normal,
    Low,
}

/// Which of all that have waited; a later one is higher.
pub(super) type Ticket = u64;

/// What became of one that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A place is its own.
    Admitted,
    /// It had to make room for a more urgent one.
    Displaced,
}

/// Calls that wait, and those that have not yet heard that they no longer do.
#[derive(Debug)]
pub(super) struct Queue {
    /// By priority, in the order in which they came.
    levels: [VecDeque<Waiting>; Priority::ALL.len()],
    decided: FxHashMap<Ticket, Fate>,
    capacity: usize,
    ageing: Duration,
    tickets: Ticket,
    /// When the last one came: clocks of two threads may be read in one order and come in another.
    latest: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    /// When it came, later by an ageing for each priority that it is below the first.
    rank: Instant,
    waker: Option<Waker>,
}

/// The queue is full of calls that are as urgent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

// === impl Priority ===

impl Priority {
    const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// What a header says; what it does not say is normal.
    pub(crate) fn read(value: &[u8]) -> Self {
        let is = |word: &str| value.eq_ignore_ascii_case(word.as_bytes());
        match () {
            () if is("high") => Self::High,
            () if is("low") => Self::Low,
            () => Self::Normal,
        }
    }
}

// === impl Queue ===

impl Queue {
    pub(super) fn new(capacity: usize, ageing: Duration) -> Self {
        Self {
            levels: Default::default(),
            decided: FxHashMap::default(),
            capacity,
            ageing,
            tickets: 0,
            latest: None,
        }
    }

    /// Calls that wait.
    pub(super) fn len(&self) -> usize {
        self.levels.iter().map(VecDeque::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.levels.iter().all(VecDeque::is_empty)
    }

    /// One more waits, in another's place where the queue is full; the waker is that other's.
    pub(super) fn enter(
        &mut self,
        priority: Priority,
        now: Instant,
    ) -> Result<(Ticket, Option<Waker>), Full> {
        let now = self.latest.map_or(now, |latest| latest.max(now));
        let rank = now + self.ageing * priority as u32;
        let displaced = match self.len() < self.capacity {
            true => None,
            false => self.displace(priority, rank)?,
        };
        self.latest = Some(now);
        self.tickets += 1;
        let waiting = Waiting { ticket: self.tickets, rank, waker: None };
        self.levels[priority as usize].push_back(waiting);
        Ok((self.tickets, displaced))
    }

    /// The newest of the least urgent goes, unless it has aged to be as urgent.
    fn displace(&mut self, priority: Priority, rank: Instant) -> Result<Option<Waker>, Full> {
        let below = self.levels[priority as usize + 1..].iter_mut().rev();
        let mut goes = below.filter(|level| level.back().is_some_and(|last| last.rank > rank));
        let goes = goes.next().and_then(VecDeque::pop_back).ok_or(Full)?;
        self.decided.insert(goes.ticket, Fate::Displaced);
        Ok(goes.waker)
    }

    /// The next one is admitted, and is to be woken; false where none waits.
    pub(super) fn admit(&mut self) -> Option<Option<Waker>> {
        let fronts = self.levels.iter().enumerate();
        let fronts = fronts.filter_map(|(level, waiting)| Some((waiting.front()?.rank, level)));
        let (_, level) = fronts.min()?;
        let next = self.levels[level].pop_front()?;
        self.decided.insert(next.ticket, Fate::Admitted);
        Some(next.waker)
    }

    /// What became of this one, said once; where it still waits it will be woken by this waker, and
    /// the one before it comes back.
    pub(super) fn poll(
        &mut self,
        ticket: Ticket,
        priority: Priority,
        waker: &Waker,
    ) -> Result<Fate, Option<Waker>> {
        if let Some(fate) = self.decided.remove(&ticket) {
            return Ok(fate);
        }
        let waiting = self.position(ticket, priority);
        let waiting = waiting.and_then(|at| self.levels[priority as usize].get_mut(at));
        let Some(waiting) = waiting else { return Err(None) };
        match &waiting.waker {
            Some(known) if known.will_wake(waker) => Err(None),
            _ => Err(waiting.waker.replace(waker.clone())),
        }
    }

    /// This one waits no more; what had become of it meanwhile.
    pub(super) fn leave(
        &mut self,
        ticket: Ticket,
        priority: Priority,
    ) -> (Option<Fate>, Option<Waker>) {
        if let Some(fate) = self.decided.remove(&ticket) {
            return (Some(fate), None);
        }
        let at = self.position(ticket, priority);
        let left = at.and_then(|at| self.levels[priority as usize].remove(at));
        (None, left.and_then(|left| left.waker))
    }

    /// Whether nobody waits, for a place or for word.
    #[cfg(all(test, feature = "shuttle"))]
    pub(super) fn is_forgotten(&self) -> bool {
        self.is_empty() && self.decided.is_empty()
    }

    fn position(&self, ticket: Ticket, priority: Priority) -> Option<usize> {
        self.levels[priority as usize].binary_search_by_key(&ticket, |one| one.ticket).ok()
    }
}

#[cfg(test)]
mod tests {
    use Priority::{High, Low, Normal};

    use super::*;

    const AGEING: Duration = Duration::from_secs(2);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Enters all, and says in which order (by number) they are admitted.
    fn order(entries: &[(Priority, Duration)]) -> Vec<Ticket> {
        let (mut queue, start) = (Queue::new(100, AGEING), Instant::now());
        for (priority, at) in entries {
            queue.enter(*priority, start + *at).expect("there is room");
        }
        std::iter::from_fn(|| admitted(&mut queue)).collect()
    }

    fn admitted(queue: &mut Queue) -> Option<Ticket> {
        queue.admit()?;
        let ticket = *queue.decided.keys().next().expect("the one that was admitted");
        queue.decided.remove(&ticket);
        Some(ticket)
    }

    #[test]
    fn the_more_urgent_come_first_and_equals_in_their_order() {
        let now = seconds(0);
        let entries = [(Low, now), (Normal, now), (High, now), (Low, now), (High, now)];
        assert_eq!(order(&entries), [3, 5, 2, 1, 4]);
    }

    #[test]
    fn one_that_has_waited_for_an_ageing_is_as_urgent_as_the_next_above() {
        let entries = [(Low, seconds(0)), (Normal, seconds(1)), (Normal, seconds(3))];
        assert_eq!(order(&entries), [2, 1, 3]);
        let entries = [(Low, seconds(0)), (High, seconds(3)), (High, seconds(5))];
        assert_eq!(order(&entries), [2, 1, 3]);
    }

    #[test]
    fn equals_keep_their_order_where_clocks_do_not() {
        assert_eq!(order(&[(Normal, seconds(1)), (Normal, seconds(0))]), [1, 2]);
    }

    #[test]
    fn a_full_queue_lets_the_newest_of_the_least_urgent_go_for_a_more_urgent_one() {
        let (mut queue, now) = (Queue::new(4, AGEING), Instant::now());
        for priority in [Low, Normal, Low, Normal] {
            queue.enter(priority, now).expect("there is room");
        }
        assert_eq!(queue.enter(Low, now).expect_err("none is less urgent"), Full);
        queue.enter(Normal, now).expect("in place of the third");
        queue.enter(High, now).expect("in place of the first");
        queue.enter(High, now).expect("in place of the fifth");
        queue.enter(High, now).expect("in place of the fourth");
        queue.enter(High, now).expect("in place of the second");
        assert_eq!(queue.enter(High, now).expect_err("all are as urgent"), Full);
        let mut gone: Vec<_> = queue.decided.drain().collect();
        gone.sort_unstable_by_key(|(ticket, _)| *ticket);
        assert_eq!(gone, [1, 2, 3, 4, 5].map(|ticket| (ticket, Fate::Displaced)));
        assert_eq!(queue.len(), 4);
    }

    #[test]
    fn one_that_has_aged_to_be_as_urgent_is_not_displaced() {
        let (mut queue, start) = (Queue::new(1, AGEING), Instant::now());
        queue.enter(Low, start).expect("there is room");
        assert_eq!(queue.enter(High, start + seconds(5)).expect_err("it has aged"), Full);
        queue.enter(High, start + seconds(3)).expect("this one is more urgent");
    }

    #[test]
    fn a_queue_without_places_is_always_full() {
        let mut queue = Queue::new(0, AGEING);
        assert_eq!(queue.enter(High, Instant::now()).expect_err("no place"), Full);
    }

    #[test]
    fn who_leaves_is_not_admitted() {
        let (mut queue, now) = (Queue::new(3, AGEING), Instant::now());
        let tickets: Vec<_> = (0..3).map(|_| queue.enter(Normal, now).expect("room").0).collect();
        assert_eq!(queue.leave(tickets[1], Normal).0, None);
        assert_eq!([admitted(&mut queue), admitted(&mut queue)], [Some(1), Some(3)]);
        assert!(queue.is_empty() && queue.admit().is_none());
    }

    #[test]
    fn words_of_priority_are_read_in_any_case_and_others_are_normal() {
        for (word, priority) in [("high", High), ("LOW", Low), ("normal", Normal), ("9", Normal)] {
            assert_eq!(Priority::read(word.as_bytes()), priority);
        }
    }
}
