//! Where users learn what is due.

use std::iter::Peekable;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::Error;
use crate::feed::Feed;
use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::tickets::{Ticket, Tickets, tickets};

/// Where users learn what is due.
pub(super) enum Due {
    /// Each knows it himself.
    Nowhere,
    /// By time, what is asked is made up.
    ByTime(Mutex<Peekable<Tickets>>),
    /// From a file.
    ByFile(Feed),
}

// === impl Due ===

impl Due {
    pub(super) fn of(plan: &Plan) -> Result<Self, Error> {
        let tickets = tickets(plan);
        match (plan.workload.recording(), plan.schedule) {
            (Some(_), _) => Feed::start(tickets).map(Self::ByFile).map_err(Error::Feed),
            (None, Schedule::Closed) => Ok(Self::Nowhere),
            (None, _) => Ok(Self::ByTime(Mutex::new(tickets.peekable()))),
        }
    }
}

/// Takes off what falls due before this, and says how much it is.
pub(super) fn due_before(tickets: &mut Peekable<Tickets>, end: Duration) -> u64 {
    let is_before = |ticket: &Result<Ticket, _>| match ticket {
        Ok(Ticket { due: Some(due), .. }) => *due < end,
        _ => false,
    };
    let mut count = 0;
    while tickets.next_if(is_before).is_some() {
        count += 1;
    }
    count
}

pub(super) fn lock(tickets: &Mutex<Peekable<Tickets>>) -> MutexGuard<'_, Peekable<Tickets>> {
    tickets.lock().expect("arrivals do not panic")
}
