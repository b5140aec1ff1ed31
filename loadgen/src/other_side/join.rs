//! Pairs of records: ours of a call, and the sidecar's of the same call, whichever comes first.

use std::collections::{HashMap, VecDeque};

use tidegate_wire::TraceId;

use crate::figures::{Joined, Seen, Sent};

/// Records of each side that may wait for the other's.
const WAITING: usize = 100_000;

/// Records that have no pair yet, and what the pairs came to.
#[derive(Debug, Default)]
pub(crate) struct Join {
    ours: Waiting<Ours>,
    theirs: Waiting<Seen>,
}

/// A call of ours; those that do not count are paired all the same, not to be waited for.
#[derive(Clone, Copy, Debug)]
struct Ours {
    sent: Sent,
    counts: bool,
}

/// What waits, the oldest first; where there is no room, the oldest goes.
#[derive(Debug)]
struct Waiting<T> {
    by_trace: HashMap<TraceId, T>,
    /// Also of those that have gone already.
    order: VecDeque<TraceId>,
    /// Those that went without a pair.
    gone: u64,
}

// === impl Join ===

impl Join {
    /// Takes in our record of a call.
    pub(crate) fn ours(&mut self, trace: TraceId, sent: Sent, counts: bool, joined: &mut Joined) {
        match self.theirs.take(trace) {
            Some(seen) if counts => joined.record(&sent, &seen),
            Some(_) => {}
            None => self.ours.put(trace, Ours { sent, counts }),
        }
    }

    /// Takes in the sidecar's.
    pub(crate) fn theirs(&mut self, trace: TraceId, seen: Seen, joined: &mut Joined) {
        match self.ours.take(trace) {
            Some(Ours { sent, counts: true }) => joined.record(&sent, &seen),
            Some(_) => {}
            None => self.theirs.put(trace, seen),
        }
    }

    /// How many of our calls, that count, have no pair.
    pub(crate) fn missing(&self) -> u64 {
        let waiting = self.ours.by_trace.values().filter(|ours| ours.counts).count();
        waiting as u64 + self.ours.gone
    }
}

// === impl Waiting ===

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { by_trace: HashMap::new(), order: VecDeque::new(), gone: 0 }
    }
}

impl<T> Waiting<T> {
    fn put(&mut self, trace: TraceId, one: T) {
        self.by_trace.insert(trace, one);
        self.order.push_back(trace);
        while self.by_trace.len() > WAITING || self.order.len() > 2 * WAITING {
            let Some(oldest) = self.order.pop_front() else { return };
            self.gone += u64::from(self.by_trace.remove(&oldest).is_some());
        }
    }

    fn take(&mut self, trace: TraceId) -> Option<T> {
        self.by_trace.remove(&trace)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_wire::{Id, Outcome, Record};

    use super::*;
    use crate::figures::tests::call;

    fn sent() -> Sent {
        Sent::of(&call(1.0, Outcome::Completed))
    }

    fn seen() -> Seen {
        Seen::of(&Record { duration_s: Some(0.5), ..Record::default() })
    }

    #[test]
    fn a_pair_is_a_pair_whichever_comes_first() {
        let (mut join, mut joined) = (Join::default(), Joined::default());
        let traces: [TraceId; 3] = std::array::from_fn(|_| Id(rand::random()));
        join.ours(traces[0], sent(), true, &mut joined);
        join.theirs(traces[1], seen(), &mut joined);
        join.theirs(traces[0], seen(), &mut joined);
        join.ours(traces[1], sent(), true, &mut joined);
        join.ours(traces[2], sent(), true, &mut joined);
        assert_eq!((joined.calls, join.missing()), (2, 1));
    }

    #[test]
    fn what_does_not_count_is_neither_joined_nor_missing() {
        let (mut join, mut joined) = (Join::default(), Joined::default());
        let traces: [TraceId; 2] = std::array::from_fn(|_| Id(rand::random()));
        join.ours(traces[0], sent(), false, &mut joined);
        join.ours(traces[1], sent(), false, &mut joined);
        join.theirs(traces[0], seen(), &mut joined);
        assert_eq!((joined.calls, join.missing()), (0, 0));
    }

    #[test]
    fn what_others_test_through_the_same_sidecar_takes_bounded_room() {
        let (mut join, mut joined) = (Join::default(), Joined::default());
        for _ in 0..3 * WAITING {
            join.theirs(Id(rand::random()), seen(), &mut joined);
        }
        assert_eq!(join.theirs.by_trace.len(), WAITING);
        assert!(join.theirs.order.len() <= 2 * WAITING);
        assert_eq!(join.missing(), 0);
    }
}
