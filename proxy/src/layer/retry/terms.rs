//! Whether a call is made again, and after how long.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Budget, Denied, LimitedConfig, Reason, RetryConfig, Tally};
use crate::verdict::Verdict;

/// When calls of one route are made again at one upstream.
#[derive(Debug)]
pub(crate) struct Terms {
    /// Absent where answers are only held until it is known what they say.
    pub(crate) config: Option<RetryConfig>,
    /// How many targets follow: each has an attempt left for it, and nobody waits for the limit of
    /// this one where there are any.
    pub(crate) following: u32,
    pub(crate) hold: Duration,
    pub(crate) budget: Arc<Budget>,
    pub(crate) tally: Arc<Tally>,
}

/// How far a call has come that may be made again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// Attempts at this target.
    pub(super) made: u32,
    /// Those that count against what is allowed for failures like the last one.
    pub(super) of_their_kind: u32,
    /// Addresses that it may be tried at where nothing was sent.
    pub(super) addresses: u32,
    /// Attempts of which something was sent, at all targets.
    pub(super) sent: u32,
    /// How often its caller has tried it before.
    pub(super) client_retries: u32,
    /// When another attempt comes too late.
    pub(super) deadline: Option<Instant>,
}

impl Terms {
    /// Why the call is made again, and how long to wait before; else what speaks against it, where
    /// it might have been. `may_repeat` says whether to do it twice does no harm; it is absent where
    /// the body is not at hand.
    pub(super) fn decide(
        &self,
        verdict: &Verdict,
        standing: &Standing,
        may_repeat: Option<impl FnOnce() -> bool>,
        now: Instant,
    ) -> Result<(Reason, Duration), Option<Denied>> {
        let reason = Reason::of(verdict.again).ok_or(None)?;
        if reason == Reason::Unsent && standing.made < standing.addresses {
            return Ok((reason, Duration::ZERO));
        }
        if reason == Reason::Limited && self.following > 0 {
            return Err(None);
        }
        let allows = |config: &&RetryConfig| config.allows(reason, standing, self.following);
        let config = self.config.as_ref().filter(allows);
        let (config, may_repeat) = (config.ok_or(None)?, may_repeat.ok_or(Denied::Body)?);
        let wait = config.wait(reason, verdict.wait, standing.made).ok_or(Denied::Wait)?;
        if standing.deadline.is_some_and(|due| now + wait >= due) {
            return Err(Some(Denied::Deadline));
        }
        // What never left is free.
        if reason != Reason::Unsent {
            self.may_send_again(config, may_repeat, now)?;
        }
        Ok((reason, wait))
    }

    fn may_send_again(
        &self,
        config: &RetryConfig,
        may_repeat: impl FnOnce() -> bool,
        now: Instant,
    ) -> Result<(), Denied> {
        if !may_repeat() {
            return Err(Denied::Unsafe);
        }
        let granted = self.budget.again(config.budget.share(), config.floor, now);
        if granted { Ok(()) } else { Err(Denied::Budget) }
    }
}

impl RetryConfig {
    /// Whether there are attempts left, beside one for each target that follows.
    fn allows(&self, reason: Reason, standing: &Standing, following: u32) -> bool {
        let here = match reason {
            Reason::Limited => self.limited.attempts,
            _ => self.per_target,
        };
        // An SDK that tries again itself has fewer attempts here.
        let all = self.attempts.get().saturating_sub(standing.client_retries).max(1);
        standing.of_their_kind < here.get() && standing.sent.saturating_add(following) < all
    }

    /// How long to wait; nothing where the provider asks for too much.
    fn wait(&self, reason: Reason, hint: Option<Duration>, tries: u32) -> Option<Duration> {
        let LimitedConfig { wait, longest_wait, longest_hint, .. } = &self.limited;
        if let Some(hint) = hint {
            // A little later than asked, and not all at once.
            return (hint <= longest_hint.0).then(|| hint.mul_f64(rand::random_range(1.0..1.1)));
        }
        Some(match reason {
            Reason::Limited => {
                let base = doubled(wait.0, tries).min(longest_wait.0);
                base.mul_f64(rand::random_range(1.0..1.25)).min(longest_wait.0)
            }
            _ => doubled(self.wait.0, tries).min(self.longest_wait.0).mul_f64(rand::random()),
        })
    }
}

/// Twice as long with each try after the first.
fn doubled(wait: Duration, tries: u32) -> Duration {
    wait.saturating_mul(1u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX))
}
