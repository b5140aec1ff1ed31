//! The rate gate: closed until the time that the provider named, and no sign of ill health.
//!
//! A limit belongs to whoever pays: two callers with keys of their own have a gate each. A gate
//! exists only from a 429 until calls have been let through again step by step, so that those who
//! waited for it do not all come at once and close it again.

use std::time::Duration;

use tokio::time::Instant;

use super::config::BreakerConfig;
use super::later;
use super::ramp::{Ramp, SeatId};

/// Gates of one upstream, region and model at a time; of more, those that open first are let go.
const MAX_GATES: usize = 16;
/// A provider that names a longer time is asked again after this.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// How long a gate is closed where the provider names no time; twice as long each time.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);
const MAX_DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// All gates of one upstream, region and model, by account; none as long as there is no limit.
#[derive(Debug, Default)]
pub(super) struct Gates {
    gates: Vec<Gate>,
    closings: u32,
}

/// One account that has met a limit.
#[derive(Debug)]
struct Gate {
    account: u64,
    /// Which closing this is. Calls that were let through before it tell nothing of what came after.
    closing: u32,
    until: Instant,
    /// Closings in a row for which the provider named no time.
    unnamed: u32,
    ramp: Ramp,
}

/// A call that was let through a gate that is opening.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    closing: u32,
    seat: SeatId,
}

impl Gates {
    /// Lets a call through, or says when it might be.
    pub(super) fn admit(
        &mut self,
        config: &BreakerConfig,
        account: u64,
        now: Instant,
    ) -> Result<Option<Ticket>, Instant> {
        let Some(gate) = self.of(account) else { return Ok(None) };
        if now < gate.until {
            return Err(gate.until);
        }
        match gate.ramp.take(&config.ramp, config.probe_limit.0, now) {
            Some(seat) => Ok(Some(Ticket { closing: gate.closing, seat })),
            None => Err(gate.ramp.next_seat(now)),
        }
    }

    /// A call was answered: its gate opens a step further.
    pub(super) fn good(&mut self, config: &BreakerConfig, account: u64, ticket: Option<Ticket>) {
        self.give_back(account, ticket);
        let Some(gate) = self.of(account) else { return };
        if ticket.is_some_and(|ticket| ticket.closing == gate.closing)
            && gate.ramp.good(&config.ramp)
        {
            self.gates.retain(|gate| gate.account != account);
        }
    }

    /// A call ended without telling anything about limits.
    pub(super) fn give_back(&mut self, account: u64, ticket: Option<Ticket>) {
        if let (Some(gate), Some(ticket)) = (self.of(account), ticket)
            && gate.closing == ticket.closing
        {
            gate.ramp.give_back(ticket.seat);
        }
    }

    /// A call met a limit: its gate closes for as long as the provider says.
    pub(super) fn limited(
        &mut self,
        account: u64,
        ticket: Option<Ticket>,
        wait: Option<Duration>,
        now: Instant,
    ) {
        self.closings = self.closings.wrapping_add(1);
        let closing = self.closings;
        let named = wait.map(|wait| later(now, wait.min(MAX_WAIT)));
        let Some(gate) = self.of(account) else {
            let until = named.unwrap_or(later(now, DEFAULT_WAIT));
            let unnamed = u32::from(named.is_none());
            self.put(Gate { account, closing, until, unnamed, ramp: Ramp::default() });
            return;
        };
        let is_of_this_closing = ticket.is_some_and(|ticket| ticket.closing == gate.closing);
        let until = match named {
            Some(until) if is_of_this_closing => until,
            // What was on its way when the gate closed may know of a longer wait.
            Some(until) if until > gate.until => until,
            None if is_of_this_closing => {
                gate.unnamed = gate.unnamed.saturating_add(1);
                later(now, default_wait(gate.unnamed))
            }
            _ => return,
        };
        if named.is_some() {
            gate.unnamed = 0;
        }
        (gate.closing, gate.until) = (closing, until);
        gate.ramp.restart();
    }

    /// Gates that are closed at this time, and when the last of them opens.
    pub(super) fn closed(&self, now: Instant) -> (usize, Option<Instant>) {
        let closed = || self.gates.iter().map(|gate| gate.until).filter(|until| *until > now);
        (closed().count(), closed().max())
    }

    fn of(&mut self, account: u64) -> Option<&mut Gate> {
        self.gates.iter_mut().find(|gate| gate.account == account)
    }

    fn put(&mut self, gate: Gate) {
        if self.gates.len() >= MAX_GATES {
            let first = (0..self.gates.len()).min_by_key(|&at| self.gates[at].until);
            self.gates.swap_remove(first.expect("there are gates"));
        }
        self.gates.push(gate);
    }
}

fn default_wait(closings: u32) -> Duration {
    let doubled = 2_u32.checked_pow(closings.saturating_sub(1)).unwrap_or(u32::MAX);
    DEFAULT_WAIT.saturating_mul(doubled).min(MAX_DEFAULT_WAIT)
}
