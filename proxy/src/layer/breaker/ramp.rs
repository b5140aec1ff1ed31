//! Lets calls through again step by step: one at a time, then two, four, eight.
//!
//! Each call that is let through holds a seat. It gives the seat back when it is judged or let go
//! of; where it does neither in time, the seat is another's, whatever has become of the call. So
//! nothing that happens to a probe can keep all others out.

use std::time::Duration;

use tokio::time::Instant;

use super::config::Steps;
use super::later;

/// How soon to ask again where it is only an answer that is waited for.
const SOON: Duration = Duration::from_secs(1);

/// How far a ramp has come, and who is on it.
#[derive(Debug, Default)]
pub(super) struct Ramp {
    step: usize,
    /// Calls of this step that were judged good.
    good: u8,
    seats: Vec<Seat>,
    next: u32,
}

/// The right to be let through, and when it lapses.
#[derive(Debug)]
struct Seat {
    id: SeatId,
    until: Instant,
}

/// Names a seat; none has the name of another on the same ramp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeatId(u32);

impl Ramp {
    /// Begins anew. Who held a seat has none any more.
    pub(super) fn restart(&mut self) {
        (self.step, self.good) = (0, 0);
        self.seats.clear();
    }

    /// A seat, where one is free.
    pub(super) fn take(&mut self, steps: &Steps, limit: Duration, now: Instant) -> Option<SeatId> {
        self.seats.retain(|seat| seat.until > now);
        if self.seats.len() >= usize::from(steps.at(self.step)?) {
            return None;
        }
        let id = SeatId(self.next);
        self.next = self.next.wrapping_add(1);
        self.seats.push(Seat { id, until: later(now, limit) });
        Some(id)
    }

    /// A seat comes back; it may have lapsed before.
    pub(super) fn give_back(&mut self, id: SeatId) {
        self.seats.retain(|seat| seat.id != id);
    }

    /// A call was judged good. True when the last step is done.
    pub(super) fn good(&mut self, steps: &Steps) -> bool {
        self.good = self.good.saturating_add(1);
        if steps.at(self.step).is_some_and(|wanted| self.good >= wanted) {
            (self.step, self.good) = (self.step + 1, 0);
        }
        steps.at(self.step).is_none()
    }

    /// When to ask again for a seat: one may come back any time, and lapses at the latest.
    pub(super) fn next_seat(&self, now: Instant) -> Instant {
        self.seats.iter().map(|seat| seat.until).fold(later(now, SOON), Instant::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn each_step_lets_more_through_than_the_last() {
        let (mut ramp, steps, now) = (Ramp::default(), Steps::default(), Instant::now());
        for step in [1, 2, 4, 8] {
            let take = || ramp.take(&steps, LIMIT, now);
            let seats: Vec<_> = std::iter::from_fn(take).collect();
            assert_eq!(seats.len(), step);
            for (at, seat) in seats.into_iter().enumerate() {
                ramp.give_back(seat);
                assert_eq!(ramp.good(&steps), step == 8 && at == 7);
            }
        }
        assert!(ramp.take(&steps, LIMIT, now).is_none(), "behind the ramp there are no seats");
    }

    #[test]
    fn a_seat_that_never_comes_back_lapses() {
        let (mut ramp, steps, now) = (Ramp::default(), Steps::default(), Instant::now());
        let lost = ramp.take(&steps, LIMIT, now).expect("the first seat is free");
        assert_eq!(ramp.next_seat(now), now + SOON);
        assert_eq!(ramp.next_seat(now + LIMIT - SOON / 2), now + LIMIT);
        assert!(ramp.take(&steps, LIMIT, now + LIMIT - Duration::from_millis(1)).is_none());
        assert!(ramp.take(&steps, LIMIT, now + LIMIT).is_some());
        ramp.give_back(lost);
        assert!(ramp.take(&steps, LIMIT, now + LIMIT).is_none(), "it was not the lost one's");
    }
}
