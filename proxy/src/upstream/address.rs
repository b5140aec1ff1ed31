//! One address of an upstream, as all workers know it: how many calls it has, how soon it gives a
//! first token, and whether it may be used.
//!
//! Workers share these figures: of few slow calls spread over many workers, each alone would learn
//! nothing. A choice reads a handful of atomics of two addresses; a call writes three or four times.
//! Each figure is right by itself. No two are read as of one moment, which a choice does not need.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

use super::health::HealthConfig;
use crate::export::metrics::lock;

/// What a first token takes at least, to the balancer: shorter times differ by chance.
const SHORTEST_S: f32 = 0.005;
/// How far one more time counts at least, where many come at once.
const LEAST_SHARE: f32 = 0.05;
/// A time is forgotten after so many times the time in which it fades.
const FORGOTTEN: f32 = 3.0;
/// How long failures count against an address that goes on being used: what fails at once would
/// otherwise be the first to have room, but it should soon be known whether it fails always.
const FAILURES_COUNT_MS: Millis = 1000;
/// The least weight of an address that comes back.
const LEAST_WEIGHT: f32 = 0.1;
/// A call that waits for its first token, and one that is open, in the count of both.
const WAITING: u64 = 1;
const OPEN: u64 = 1 << 32;
/// The unit in which it is remembered when a time came: 32 bits of it last for years.
const TICK_MS: Millis = 10;

/// Time since the balancer was made, in milliseconds.
pub(super) type Millis = u64;

/// One address of an upstream.
#[derive(Debug)]
pub(crate) struct Address {
    /// Unlike that of any other.
    pub(super) id: u32,
    /// Which of the upstream's URLs.
    pub(super) url: usize,
    /// Absent: the name itself, which is resolved whenever a connection is opened.
    pub(super) at: Option<SocketAddr>,
    /// Calls that wait for their first token, and open ones.
    calls: AtomicU64,
    /// Seconds, and when they were last learned; 0 while nothing is known.
    first_token: AtomicU64,
    /// In a row, and when the last one came.
    failures: AtomicU32,
    failed_ms: AtomicU64,
    /// It has come back and not yet done a call well: a single failure sends it out again.
    is_on_probation: AtomicBool,
    ejections: AtomicU32,
    /// When it may be used again; 0 where it never was out.
    returns_ms: AtomicU64,
    /// Since when its health checks fail, plus one; 0 while they do not.
    ill_ms: AtomicU64,
    checks: Mutex<Checks>,
    said: Said,
}

/// How health checks went, in a row.
#[derive(Debug, Default)]
struct Checks {
    good: u32,
    bad: u32,
}

/// What a server says of its own load.
#[derive(Debug, Default)]
struct Said {
    /// Calls beside ours, and the share of the cache in use; each half of the bits.
    load: AtomicU64,
    /// Until when it is believed.
    until_ms: AtomicU64,
}

/// The load of a server, in its own words.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Load {
    /// Calls that wait there.
    pub(super) waiting: f32,
    /// Calls that run there.
    pub(super) running: f32,
    /// The share of its cache that is in use.
    pub(super) cache: f32,
}

/// Whether an address gets calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// It does.
    InUse,
    /// Not for a while: its calls failed.
    Ejected,
    /// Not until its health checks succeed.
    Unhealthy,
    /// The name no longer stands for it; calls in flight go on.
    Draining,
}

// === impl State ===

impl State {
    pub(super) const ALL: [Self; 4] = [Self::InUse, Self::Ejected, Self::Unhealthy, Self::Draining];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::InUse => "in_use",
            Self::Ejected => "ejected",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
        }
    }
}

// === impl Address ===

impl Address {
    pub(super) fn new(url: usize, at: Option<SocketAddr>) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        Self {
            id: LAST.fetch_add(1, Relaxed).wrapping_add(1),
            url,
            at,
            calls: AtomicU64::new(0),
            first_token: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            failed_ms: AtomicU64::new(0),
            is_on_probation: AtomicBool::new(false),
            ejections: AtomicU32::new(0),
            returns_ms: AtomicU64::new(0),
            ill_ms: AtomicU64::new(0),
            checks: Mutex::default(),
            said: Said::default(),
        }
    }

    // --- calls ---

    /// A call begins.
    pub(super) fn begin(&self) {
        self.calls.fetch_add(OPEN + WAITING, Relaxed);
    }

    /// A call no longer waits for its first token.
    pub(super) fn answer(&self) {
        self.calls.fetch_sub(WAITING, Relaxed);
    }

    /// A call that had been answered is over.
    pub(super) fn end(&self) {
        self.calls.fetch_sub(OPEN, Relaxed);
    }

    /// Calls that are open.
    pub(super) fn open(&self) -> u32 {
        (self.calls.load(Relaxed) / OPEN) as u32
    }

    fn has_waiting(&self) -> bool {
        self.calls.load(Relaxed) as u32 > 0
    }

    // --- times to first token ---

    /// A first token came after so long.
    pub(super) fn learn(&self, time: Duration, fade: Duration, now: Millis) {
        let time = time.as_secs_f32();
        let next = |packed| {
            let (known, age) = unpack(packed, now)?;
            let age = age / fade.as_secs_f32();
            if age >= FORGOTTEN {
                return None;
            }
            let share = 1.0 - (-age).exp();
            Some(known + (time - known) * share.max(LEAST_SHARE))
        };
        let packed = |known| Some(pack(next(known).unwrap_or(time), now));
        _ = self.first_token.fetch_update(Relaxed, Relaxed, packed);
    }

    /// No first token came within so long: it would have taken longer still.
    pub(super) fn learn_at_least(&self, time: Duration, fade: Duration, now: Millis) {
        let known = unpack(self.first_token.load(Relaxed), now);
        let known = known.filter(|(_, age)| *age < FORGOTTEN * fade.as_secs_f32());
        if known.is_none_or(|(known, _)| time.as_secs_f32() > known) {
            self.learn(time, fade, now);
        }
    }

    /// Seconds to a first token, where that is known.
    pub(super) fn first_token_s(&self, now: Millis) -> Option<f32> {
        unpack(self.first_token.load(Relaxed), now).map(|(known, _)| known)
    }

    /// The same, and how far it still counts. What is known of an address without calls fades, so
    /// that it gets another chance; a call that has waited for long is no reason to send more.
    fn memory(&self, fade: Duration, now: Millis) -> Option<(f32, f32)> {
        let (known, age) = unpack(self.first_token.load(Relaxed), now)?;
        let age = if self.has_waiting() { 0.0 } else { age / fade.as_secs_f32() };
        (age < FORGOTTEN).then(|| (known.max(SHORTEST_S), (-age).exp()))
    }

    // --- choice ---

    /// Whether this one should have the call although the other's turn it is: one that is but a
    /// little better is not.
    pub(super) fn is_better_than(&self, other: &Self, settings: &Settings, now: Millis) -> bool {
        const CLEARLY: f32 = 1.1;
        let (mine, others) = times(self, other, settings.fade, now);
        self.load(settings, now) * mine * CLEARLY < other.load(settings, now) * others
    }

    /// Calls, this one among them, and what else weighs on it.
    fn load(&self, settings: &Settings, now: Millis) -> f32 {
        let (beside, cache) = self.said.load(now);
        let calls = self.open() as f32 + 1.0 + beside;
        calls * (1.0 + cache) * (1.0 + self.recent_failures(now)) / self.weight(settings.ramp, now)
    }

    fn recent_failures(&self, now: Millis) -> f32 {
        match self.failures.load(Relaxed) {
            0 => 0.0,
            _ if now >= self.failed_ms.load(Relaxed) + FAILURES_COUNT_MS => 0.0,
            failures => failures as f32,
        }
    }

    /// How much of its share an address gets that has come back: more and more.
    fn weight(&self, ramp: Duration, now: Millis) -> f32 {
        let back = match self.returns_ms.load(Relaxed) {
            // One that is out is asked only where all are.
            returns if returns == 0 || now < returns => return 1.0,
            returns => (now - returns) as f32 / 1000.0,
        };
        match ramp.as_secs_f32() {
            ramp if back < ramp => (back / ramp).max(LEAST_WEIGHT),
            _ => 1.0,
        }
    }

    // --- whether it may be used ---

    /// Whether calls may go there.
    pub(super) fn is_usable(&self, now: Millis) -> bool {
        !self.is_out(now) && self.ill_ms.load(Relaxed) == 0
    }

    /// Whether it is ejected.
    pub(super) fn is_out(&self, now: Millis) -> bool {
        now < self.returns_ms.load(Relaxed)
    }

    pub(super) fn state(&self, now: Millis) -> State {
        match self.ill_ms.load(Relaxed) {
            0 if self.is_out(now) => State::Ejected,
            0 => State::InUse,
            _ => State::Unhealthy,
        }
    }

    /// How long it is out yet.
    pub(super) fn out_for(&self, now: Millis) -> Option<Duration> {
        let left = self.returns_ms.load(Relaxed).checked_sub(now)?;
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// How long its health checks have been failing.
    pub(super) fn ill_for(&self, now: Millis) -> Option<Duration> {
        let since = self.ill_ms.load(Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(now.saturating_sub(since)))
    }

    /// How often it was ejected, of late.
    pub(super) fn ejections(&self) -> u32 {
        self.ejections.load(Relaxed)
    }

    /// A call that began then went well.
    pub(super) fn succeeded(&self, began: Millis) {
        if began >= self.returns_ms.load(Relaxed) {
            self.failures.store(0, Relaxed);
            self.is_on_probation.store(false, Relaxed);
        }
    }

    /// A call that began then has failed; whether that is one too many.
    pub(super) fn failed(&self, began: Millis, limit: u32, now: Millis) -> bool {
        // One that began before it was ejected says nothing of what it is like since.
        if began < self.returns_ms.load(Relaxed) {
            return false;
        }
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        self.failed_ms.store(now, Relaxed);
        failures >= limit || self.is_on_probation.load(Relaxed)
    }

    /// Sends it out: for longer each time, unless it has done well for long enough.
    pub(super) fn eject(&self, times: &Times, jitter: f32, now: Millis) {
        let returned = self.returns_ms.load(Relaxed);
        let well_for = Duration::from_millis(now.saturating_sub(returned));
        if well_for >= times.longest {
            self.ejections.store(0, Relaxed);
        }
        let before = self.ejections.fetch_add(1, Relaxed);
        let time = times.first.saturating_mul(1 << before.min(16)).min(times.longest);
        let time = time.mul_f32(1.0 - times.jitter + 2.0 * times.jitter * jitter);
        self.is_on_probation.store(true, Relaxed);
        self.failures.store(0, Relaxed);
        self.returns_ms.store(now + (time.as_millis() as Millis).max(1), Relaxed);
    }

    /// A health check went so; whether that changed anything.
    pub(super) fn checked(&self, is_good: bool, config: &HealthConfig, now: Millis) -> bool {
        let mut checks = lock(&self.checks);
        let is_ill = self.ill_ms.load(Relaxed) > 0;
        *checks = match is_good {
            true => Checks { good: checks.good.saturating_add(1), bad: 0 },
            false => Checks { good: 0, bad: checks.bad.saturating_add(1) },
        };
        if is_ill && checks.good >= config.healthy.get() {
            self.ill_ms.store(0, Relaxed);
            // It comes back little by little, as one that was ejected does.
            self.returns_ms.fetch_max(now.max(1), Relaxed);
        } else if !is_ill && checks.bad >= config.unhealthy.get() {
            self.ill_ms.store(now + 1, Relaxed);
        } else {
            return false;
        }
        true
    }

    // --- what it says of itself ---

    /// It says that this is its load.
    pub(super) fn says(&self, load: Load, until: Millis) {
        let ours = self.open() as f32;
        // Calls that run beside ours weigh as ours do; one that waits, wherever from, says that
        // there is no room.
        let beside = (load.running + load.waiting - ours).max(0.0) + load.waiting;
        self.said.load.store(halves(beside, load.cache.clamp(0.0, 1.0)), Relaxed);
        self.said.until_ms.store(until, Relaxed);
    }
}

// === impl Said ===

impl Said {
    fn load(&self, now: Millis) -> (f32, f32) {
        match self.until_ms.load(Relaxed) {
            until if now < until => unhalves(self.load.load(Relaxed)),
            _ => (0.0, 0.0),
        }
    }
}

/// What a choice goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// In what time a time to first token fades.
    pub(super) fade: Duration,
    /// In what time an address that comes back gets its whole share.
    pub(super) ramp: Duration,
}

/// How long an address is out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) first: Duration,
    pub(super) longest: Duration,
    /// By what share of it a time may be shorter or longer.
    pub(super) jitter: f32,
}

/// What a first token takes at either, as far as it is known of both: an address of which nothing is
/// known is as good as the other.
fn times(one: &Address, other: &Address, fade: Duration, now: Millis) -> (f32, f32) {
    match (one.memory(fade, now), other.memory(fade, now)) {
        (Some((one, first)), Some((other, second))) => {
            let middle = (one + other) / 2.0;
            (middle + (one - middle) * first, middle + (other - middle) * second)
        }
        _ => (1.0, 1.0),
    }
}

fn pack(seconds: f32, now: Millis) -> u64 {
    // Never 0, which says that nothing is known.
    u64::from(seconds.max(f32::MIN_POSITIVE).to_bits()) << 32 | u64::from((now / TICK_MS) as u32)
}

/// Seconds, and how long ago they were learned.
fn unpack(packed: u64, now: Millis) -> Option<(f32, f32)> {
    let age = ((now / TICK_MS) as u32).wrapping_sub(packed as u32);
    // Another worker may have learned it a little later than it is here.
    let age_ms = (age as i32).max(0) as Millis * TICK_MS;
    (packed != 0).then(|| (f32::from_bits((packed >> 32) as u32), age_ms as f32 / 1000.0))
}

fn halves(first: f32, second: f32) -> u64 {
    u64::from(first.to_bits()) << 32 | u64::from(second.to_bits())
}

fn unhalves(both: u64) -> (f32, f32) {
    (f32::from_bits((both >> 32) as u32), f32::from_bits(both as u32))
}
