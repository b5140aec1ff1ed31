//! One switch for all policies, for the night when they are the suspect: while it is on, they look on.
//!
//! Every policy judges and counts as ever, so its state stays true, and none refuses a call, has it
//! wait, makes it again, takes it elsewhere or changes it. What the first policy to act would have
//! done with a call is counted: nobody can tell what would have come after that.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::export::catalog::{self, Family};
use crate::export::metrics::{Source, Value, lock};

/// The switch. All workers read it, whatever the configuration that they serve by.
#[derive(Debug)]
pub(crate) struct Switch {
    is_on: AtomicBool,
    setting: Mutex<Setting>,
    turned_on: Notify,
}

/// How the switch stands.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Setting {
    pub(crate) on: bool,
    pub(crate) set_by: By,
    /// When it was last turned, or first set.
    pub(crate) since: jiff::Timestamp,
}

/// Who has set the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum By {
    Configuration,
    Admin,
}

/// A policy that was bypassed: it would have acted on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bypassed {
    /// It would have refused the call.
    Quota,
    /// Likewise.
    Breaker,
    /// Likewise, for a limit that the provider has named.
    RateGate,
    /// It would have had the call wait for a place, or refused it.
    Limit,
    /// It would have kept the call from this address, whose calls fail.
    Ejection,
    /// Likewise, for its health checks fail.
    HealthCheck,
    /// It would have made the call again.
    Retry,
    /// It would have taken the call to another target.
    Fallback,
    /// It would have cut the call off.
    Timeout,
}

const BYPASSED: [(Bypassed, &str); 9] = [
    (Bypassed::Quota, "quota"),
    (Bypassed::Breaker, "breaker"),
    (Bypassed::RateGate, "rate_gate"),
    (Bypassed::Limit, "limit"),
    (Bypassed::Ejection, "ejection"),
    (Bypassed::HealthCheck, "health_check"),
    (Bypassed::Retry, "retry"),
    (Bypassed::Fallback, "fallback"),
    (Bypassed::Timeout, "timeout"),
];

/// Calls on which policies would have acted, of the routes that lead to one upstream.
#[derive(Debug, Default)]
pub(crate) struct Counts([AtomicU64; BYPASSED.len()]);

/// One call that goes by all policies, and what they tell of it.
#[derive(Debug)]
pub(crate) struct Bypass {
    counts: Arc<Counts>,
    first: Cell<Option<Bypassed>>,
    /// Its body could not have been held, to be sent again.
    is_too_large: Cell<bool>,
    /// Another target would have been there for it.
    may_fall_back: Cell<bool>,
}

// === impl Switch ===

impl Switch {
    /// As the configuration has it.
    pub(crate) fn new(is_on: bool) -> Arc<Self> {
        let setting = Setting { on: false, set_by: By::Configuration, since: now() };
        let switch = Self {
            is_on: AtomicBool::new(false),
            setting: Mutex::new(setting),
            turned_on: Notify::new(),
        };
        if is_on {
            switch.turn(true, By::Configuration);
        }
        Arc::new(switch)
    }

    /// Whether policies look on only.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// Turns it, for every call that begins from now on, and lets in whoever waits for a place.
    pub(crate) fn turn(&self, on: bool, set_by: By) -> Setting {
        let mut setting = lock(&self.setting);
        let since = if setting.on == on { setting.since } else { now() };
        match (setting.on, on) {
            (false, true) => warn!(?set_by, "bypass is on: policies look on only"),
            (true, false) => info!(?set_by, "bypass is off: policies act"),
            _ => {}
        }
        *setting = Setting { on, set_by, since };
        self.is_on.store(on, Relaxed);
        if on {
            self.turned_on.notify_waiters();
        }
        *setting
    }

    /// Resolves once it is on.
    pub(crate) async fn turned_on(&self) {
        loop {
            let turned = self.turned_on.notified();
            if self.is_on() {
                return;
            }
            turned.await;
        }
    }

    pub(crate) fn setting(&self) -> Setting {
        *lock(&self.setting)
    }
}

impl Source for Arc<Switch> {
    fn read(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        show(&catalog::BYPASS, Vec::new(), Value::Gauge(i64::from(self.is_on())));
    }
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

// === impl Bypassed ===

impl Bypassed {
    /// One of few fixed words.
    pub(crate) fn word(self) -> &'static str {
        BYPASSED[self as usize].1
    }
}

// === impl Counts ===

impl Counts {
    pub(crate) fn add(&self, policy: Bypassed) {
        self.0[policy as usize].fetch_add(1, Relaxed);
    }

    /// By the policy's word.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        BYPASSED.iter().map(|&(policy, word)| (word, self.0[policy as usize].load(Relaxed)))
    }
}

// === impl Bypass ===

impl Bypass {
    pub(crate) fn new(counts: Arc<Counts>) -> Self {
        let (first, no) = (Cell::default(), Cell::default);
        Self { counts, first, is_too_large: no(), may_fall_back: no() }
    }

    /// This policy would have acted on the call now. Only the first one counts.
    pub(crate) fn would(&self, policy: Bypassed) {
        if self.first.get().is_none() {
            self.first.set(Some(policy));
            self.counts.add(policy);
        }
    }

    /// The first policy that would have acted so far.
    pub(crate) fn first(&self) -> Option<Bypassed> {
        self.first.get()
    }

    /// Its body could not have been held, to be sent again.
    pub(crate) fn set_too_large(&self) {
        self.is_too_large.set(true);
    }

    pub(crate) fn is_too_large(&self) -> bool {
        self.is_too_large.get()
    }

    /// Another target would have been there for it.
    pub(crate) fn set_may_fall_back(&self) {
        self.may_fall_back.set(true);
    }

    pub(crate) fn may_fall_back(&self) -> bool {
        self.may_fall_back.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_has_its_word() {
        for (at, (policy, word)) in BYPASSED.into_iter().enumerate() {
            assert_eq!((policy as usize, policy.word()), (at, word));
        }
    }

    #[test]
    fn a_call_counts_once_for_the_first_policy_that_would_have_acted() {
        let counts = Arc::new(Counts::default());
        let bypass = Bypass::new(counts.clone());
        [Bypassed::Limit, Bypassed::Retry, Bypassed::Limit]
            .into_iter()
            .for_each(|policy| bypass.would(policy));
        let counted: Vec<_> = counts.all().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("limit", 1)]);
        assert_eq!(bypass.first(), Some(Bypassed::Limit));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_that_it_is_on_and_who_comes_later_need_not_wait() {
        let switch = Switch::new(false);
        let waiting = tokio::spawn({
            let switch = switch.clone();
            async move { switch.turned_on().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        switch.turn(true, By::Admin);
        waiting.await.expect("it does not panic");
        switch.turned_on().await;
    }

    #[test]
    fn to_say_again_what_is_so_changes_no_more_than_who_said_it() {
        let switch = Switch::new(true);
        let since = switch.setting().since;
        let setting = switch.turn(true, By::Admin);
        assert_eq!((setting.since, setting.set_by), (since, By::Admin));
    }
}
