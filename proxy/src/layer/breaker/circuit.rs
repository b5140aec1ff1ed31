//! One circuit breaker: closed, open, half-open, and what moves it from one to the next.
//!
//! It opens by what calls were judged to be that were let through since it last opened: each call
//! carries the number of that opening, and one that is older than the latest decides nothing. Once
//! its time is over it lets probes through on a [`Ramp`]; they close it, or open it again for longer.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::config::{BreakerConfig, WhenAllOpen};
use super::gate::{Gates, Ticket};
use super::later;
use super::ramp::{Ramp, SeatId};
use super::window::{Counts, Window};
use crate::config::Ratio;

/// Between two calls that trickle through while it is open.
const TRICKLE: Duration = Duration::from_secs(1);
/// Times of opening are drawn from so much, at most, above their length, so that many sidecars do
/// not probe in step.
const JITTER: f64 = 0.25;
/// The time of opening doubles no more often than this.
const MAX_DOUBLINGS: u32 = 16;

/// What became of a call, as far as its upstream's health goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// It was answered; so long after its start the first token came, where there are tokens.
    Good { first_token: Option<Duration> },
    /// The upstream failed it.
    Bad,
    /// The upstream is well and its caller has had enough for now: 429, for so long if it says.
    Limited { wait: Option<Duration> },
    /// It says nothing of the upstream: its caller left, or asked for something impossible.
    Neutral,
}

/// Why calls are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// So many calls in a row failed.
    Consecutive { calls: u32 },
    /// Too many of those judged failed.
    Failed { bad: u32, of: u32 },
    /// Too many answers came late.
    Slow { slow: u32, of: u32 },
    /// Too many answers broke off.
    Broke { broke: u32, of: u32 },
    /// It was open, and a probe failed.
    Probe,
    /// The provider said that it has had too many calls.
    Limited,
}

/// What kept a call out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The breaker is open.
    Breaker,
    /// The breaker is half-open, and its probes are under way.
    Probing,
    /// The rate gate is closed, or opening.
    Gate,
}

/// A call that is kept out, until when at least, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) what: What,
    pub(crate) until: Instant,
    pub(crate) why: Why,
}

/// The position of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Position {
    Closed,
    HalfOpen,
    Open,
}

/// How often something happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    pub(crate) opened: u64,
    pub(crate) half_opened: u64,
    pub(crate) closed: u64,
    pub(crate) refused_by_breaker: u64,
    pub(crate) refused_by_gate: u64,
}

/// What a call was let through with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    account: u64,
    /// Which opening it came after.
    opening: u32,
    seat: Option<SeatId>,
    ticket: Option<Ticket>,
}

/// A breaker with its rate gates.
#[derive(Debug)]
pub(super) struct Circuit {
    phase: Phase,
    window: Window,
    /// Failures in a row.
    row: u32,
    /// How often it has opened.
    opening: u32,
    /// How often in a row without having been well in between.
    relapses: u32,
    probes: Probes,
    gates: Gates,
    pub(super) tally: Tally,
    seed: u64,
    /// When a call last asked.
    pub(super) asked: Instant,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed { since: Option<Instant> },
    Open { until: Instant, why: Why, next_trickle: Instant },
    HalfOpen { why: Why },
}

/// Calls that are let through while it is not closed.
#[derive(Debug, Default)]
struct Probes {
    ramp: Ramp,
    good: u32,
    bad: u32,
}

/// What is known of a breaker at some time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picture {
    pub(super) position: Position,
    pub(super) why: Option<Why>,
    pub(super) until: Option<Instant>,
    pub(super) gates_closed: usize,
    pub(super) gates_until: Option<Instant>,
    pub(super) counts: Counts,
    pub(super) tally: Tally,
}

impl Circuit {
    pub(super) fn new(config: &BreakerConfig, seed: u64, now: Instant) -> Self {
        Self {
            phase: Phase::Closed { since: None },
            window: Window::new(config.window.0, now),
            row: 0,
            opening: 0,
            relapses: 0,
            probes: Probes::default(),
            gates: Gates::default(),
            tally: Tally::default(),
            seed,
            asked: now,
        }
    }

    /// Lets a call through, or says what keeps it out.
    pub(super) fn admit(
        &mut self,
        config: &BreakerConfig,
        account: u64,
        now: Instant,
    ) -> Result<Pass, Stop> {
        self.asked = now;
        let seat = self.enter(config, now)?;
        match self.gates.admit(config, account, now) {
            Ok(ticket) => Ok(Pass { account, opening: self.opening, seat, ticket }),
            Err(until) => {
                self.leave(seat);
                Err(Stop { what: What::Gate, until, why: Why::Limited })
            }
        }
    }

    fn enter(&mut self, config: &BreakerConfig, now: Instant) -> Result<Option<SeatId>, Stop> {
        match self.phase {
            Phase::Closed { .. } => return Ok(None),
            Phase::Open { until, why, next_trickle } if now < until => {
                let trickles = config.when_all_open == WhenAllOpen::Trickle && now >= next_trickle;
                let stop = Stop { what: What::Breaker, until, why };
                let seat = trickles.then(|| self.probe(config, now)).flatten().ok_or(stop)?;
                self.phase = Phase::Open { until, why, next_trickle: later(now, TRICKLE) };
                return Ok(Some(seat));
            }
            Phase::Open { why, .. } => self.half_open(why),
            Phase::HalfOpen { .. } => {}
        }
        self.probe(config, now).map(Some).ok_or_else(|| {
            let until = self.probes.ramp.next_seat(now);
            Stop { what: What::Probing, until, why: self.why().unwrap_or(Why::Probe) }
        })
    }

    fn probe(&mut self, config: &BreakerConfig, now: Instant) -> Option<SeatId> {
        self.probes.ramp.take(&config.ramp, config.probe_limit.0, now)
    }

    fn leave(&mut self, seat: Option<SeatId>) {
        if let Some(seat) = seat {
            self.probes.ramp.give_back(seat);
        }
    }

    /// Hears what became of a call.
    pub(super) fn judge(
        &mut self,
        config: &BreakerConfig,
        pass: &Pass,
        signal: Signal,
        now: Instant,
    ) {
        match signal {
            Signal::Good { .. } => self.gates.good(config, pass.account, pass.ticket),
            Signal::Limited { wait } => self.gates.limited(pass.account, pass.ticket, wait, now),
            Signal::Bad | Signal::Neutral => self.gates.give_back(pass.account, pass.ticket),
        }
        if pass.opening != self.opening {
            return;
        }
        self.leave(pass.seat);
        match signal {
            Signal::Good { first_token } => self.good(config, first_token, now),
            Signal::Bad => self.bad(config, now),
            Signal::Limited { .. } | Signal::Neutral => {}
        }
    }

    /// Hears how an answer ended that had been judged good.
    pub(super) fn end(
        &mut self,
        config: &BreakerConfig,
        pass: &Pass,
        is_broken: bool,
        now: Instant,
    ) {
        if pass.opening != self.opening {
            return;
        }
        let counts = self.window.count(now, |counts| match is_broken {
            true => counts.broke += 1,
            false => counts.ended += 1,
        });
        match self.phase {
            Phase::Closed { .. } => self.open_for(config, config.broke(&counts), now),
            _ if is_broken => self.bad(config, now),
            _ => {}
        }
    }

    fn good(&mut self, config: &BreakerConfig, first_token: Option<Duration>, now: Instant) {
        let limit = config.slow.as_ref().map(|slow| slow.first_token.0);
        let is_slow = first_token.zip(limit).is_some_and(|(time, limit)| time > limit);
        self.row = 0;
        if let Phase::Closed { .. } = self.phase {
            let counts = self.window.count(now, |counts| {
                counts.good += 1;
                counts.timed += u32::from(first_token.is_some());
                counts.slow += u32::from(is_slow);
            });
            return self.open_for(config, config.slow(&counts), now);
        }
        if is_slow {
            return self.bad(config, now);
        }
        if let Phase::Open { why, .. } = self.phase {
            self.half_open(why);
        }
        self.probes.good += 1;
        if self.probes.ramp.good(&config.ramp) {
            self.close(config, now);
        }
    }

    fn bad(&mut self, config: &BreakerConfig, now: Instant) {
        match self.phase {
            Phase::Closed { .. } => {
                self.row = self.row.saturating_add(1);
                let counts = self.window.count(now, |counts| counts.bad += 1);
                let why = (self.row >= config.consecutive.get())
                    .then_some(Why::Consecutive { calls: self.row });
                self.open_for(config, why.or_else(|| config.failed(&counts)), now);
            }
            // It stays open for as long as it was to be.
            Phase::Open { .. } => {}
            Phase::HalfOpen { .. } => {
                let Probes { good, bad, .. } = &mut self.probes;
                *bad += 1;
                if reaches(config.error_ratio, *bad, *good + *bad) {
                    self.open(config, Why::Probe, now);
                }
            }
        }
    }

    fn open_for(&mut self, config: &BreakerConfig, why: Option<Why>, now: Instant) {
        if let Some(why) = why {
            self.open(config, why, now);
        }
    }

    fn open(&mut self, config: &BreakerConfig, why: Why, now: Instant) {
        let was_well = match self.phase {
            Phase::Closed { since: None } => true,
            Phase::Closed { since: Some(since) } => now >= later(since, config.window.0),
            _ => false,
        };
        self.relapses = if was_well { 0 } else { self.relapses.saturating_add(1) };
        self.opening = self.opening.wrapping_add(1);
        self.tally.opened += 1;
        self.row = 0;
        self.probes.restart();
        let until = later(now, self.time_of_opening(config));
        self.phase = Phase::Open { until, why, next_trickle: later(now, TRICKLE) };
    }

    fn half_open(&mut self, why: Why) {
        self.tally.half_opened += 1;
        self.phase = Phase::HalfOpen { why };
    }

    fn close(&mut self, config: &BreakerConfig, now: Instant) {
        self.tally.closed += 1;
        self.row = 0;
        self.probes.restart();
        self.window = Window::new(config.window.0, now);
        self.phase = Phase::Closed { since: Some(now) };
    }

    /// Never shorter than configured, but for the cap, which always holds.
    fn time_of_opening(&mut self, config: &BreakerConfig) -> Duration {
        let doubled = config.open.0.saturating_mul(1 << self.relapses.min(MAX_DOUBLINGS));
        let most = config.open_max.0;
        let least = doubled.min(most.div_f64(1.0 + JITTER));
        least.saturating_add(least.mul_f64(JITTER * self.draw())).min(most)
    }

    /// A number from 0 to 1 (splitmix64).
    fn draw(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// What is known of it.
    pub(super) fn picture(&mut self, now: Instant) -> Picture {
        let (gates_closed, gates_until) = self.gates.closed(now);
        let (position, until) = match self.phase {
            Phase::Closed { .. } => (Position::Closed, None),
            Phase::Open { until, .. } if now < until => (Position::Open, Some(until)),
            // Its time is over, and the next call is a probe.
            Phase::Open { .. } | Phase::HalfOpen { .. } => (Position::HalfOpen, None),
        };
        let (why, tally) = (self.why(), self.tally);
        let counts = self.window.sum(now);
        Picture { position, why, until, gates_closed, gates_until, counts, tally }
    }

    /// Why it is not closed.
    pub(super) fn why(&self) -> Option<Why> {
        match self.phase {
            Phase::Closed { .. } => None,
            Phase::Open { why, .. } | Phase::HalfOpen { why } => Some(why),
        }
    }

    /// Whether nothing would be lost if it were forgotten: all is well, and has been left alone.
    pub(super) fn is_idle(&mut self, config: &BreakerConfig, now: Instant) -> bool {
        let is_closed = matches!(self.phase, Phase::Closed { .. });
        is_closed && self.gates.closed(now).0 == 0 && now >= later(self.asked, config.window.0)
    }

    /// Takes over the counts of one that is forgotten.
    pub(super) fn inherit(&mut self, tally: Tally) {
        self.tally.add(tally);
    }
}

// === impl BreakerConfig ===

/// The rules: each says why the breaker is to open, where it is.
impl BreakerConfig {
    fn failed(&self, counts: &Counts) -> Option<Why> {
        let (bad, of) = (counts.bad, counts.good + counts.bad);
        self.tells(of, reaches(self.error_ratio, bad, of)).then_some(Why::Failed { bad, of })
    }

    fn slow(&self, counts: &Counts) -> Option<Why> {
        let (slow, of) = (counts.slow, counts.timed);
        let rule = self.slow.as_ref()?;
        self.tells(of, reaches(rule.ratio, slow, of)).then_some(Why::Slow { slow, of })
    }

    fn broke(&self, counts: &Counts) -> Option<Why> {
        let (broke, of) = (counts.broke, counts.ended + counts.broke);
        self.tells(of, reaches(self.broken_ratio, broke, of)).then_some(Why::Broke { broke, of })
    }

    fn tells(&self, of: u32, is_reached: bool) -> bool {
        of >= self.min_calls.get() && is_reached
    }
}

/// Whether a part of all reaches a ratio; none never does.
fn reaches(ratio: Ratio, part: u32, all: u32) -> bool {
    part > 0 && f64::from(part) >= ratio.share() * f64::from(all)
}

// === impl Probes ===

impl Probes {
    fn restart(&mut self) {
        self.ramp.restart();
        (self.good, self.bad) = (0, 0);
    }
}

// === impl Tally ===

impl Tally {
    pub(super) fn refused(&mut self, by: What) {
        match by {
            What::Breaker | What::Probing => self.refused_by_breaker += 1,
            What::Gate => self.refused_by_gate += 1,
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        let Self { opened, half_opened, closed, refused_by_breaker, refused_by_gate } = other;
        self.opened += opened;
        self.half_opened += half_opened;
        self.closed += closed;
        self.refused_by_breaker += refused_by_breaker;
        self.refused_by_gate += refused_by_gate;
    }
}

// === impl What ===

impl What {
    /// What is so of it, after its name.
    pub(super) fn says(self) -> &'static str {
        match self {
            Self::Breaker => "is open",
            Self::Probing => "is half-open, with all its probes under way",
            Self::Gate => "is closed",
        }
    }
}

// === impl Why ===

impl Why {
    /// One of few fixed words.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Consecutive { .. } => "consecutive_failures",
            Self::Failed { .. } => "error_ratio",
            Self::Slow { .. } => "slow_ratio",
            Self::Broke { .. } => "broken_ratio",
            Self::Probe => "probe_failed",
            Self::Limited => "rate_limited",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consecutive { calls } => write!(f, "{calls} calls in a row failed"),
            Self::Failed { bad, of } => write!(f, "{bad} of {of} calls failed"),
            Self::Slow { slow, of } => write!(f, "{slow} of {of} first tokens came late"),
            Self::Broke { broke, of } => write!(f, "{broke} of {of} answers broke off"),
            Self::Probe => f.write_str("it was open, and a probe failed"),
            Self::Limited => f.write_str("the provider said that it has had too many calls"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_reached_exactly() {
        for (percent, part, all, is_reached) in [
            (50, 5, 10, true),
            (50, 4, 9, false),
            (1, 1, 100, true),
            (1, 1, 101, false),
            (100, 9, 10, false),
            (100, 10, 10, true),
            (0, 0, 10, false),
            (50, 0, 0, false),
        ] {
            assert_eq!(reaches(Ratio::percent(percent), part, all), is_reached, "{part} of {all}");
        }
    }
}
