//! Makes a call again, while its caller has seen nothing of an answer.
//!
//! What never left may always be sent: the next address of the same upstream may have it. What was
//! sent is sent again only where a route says so, the call may be repeated, its body is at hand, the
//! budget allows it and the time is there. The wait is what the provider asks for.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use crate::call::{Call, Failure, Reply};
use crate::error::Error;
use crate::exchange::{Notes, Wait};
use crate::held_reply::hold;
use crate::layer::{Below, Policy};
use crate::stack::LocalFuture;
use crate::verdict::{Again, Verdict};

mod budget;
mod config;
mod tally;

pub(crate) use budget::Budget;
pub use config::{LimitedConfig, RetryConfig};
pub(crate) use tally::{Denied, Reason, Tally};

/// Tries a call at so many addresses.
#[derive(Clone, Debug)]
pub(crate) struct RetryLayer {
    /// Where nothing was sent.
    pub(crate) addresses: u32,
    /// Absent where only calls that were never sent are tried again.
    pub(crate) terms: Option<Arc<Terms>>,
}

/// When calls of one route are made again at one upstream.
#[derive(Debug)]
pub(crate) struct Terms {
    /// Absent where answers are only held until it is known what they say.
    pub(crate) config: Option<RetryConfig>,
    /// Whether another target follows, so that nobody waits for the limit of this one.
    pub(crate) leads_on: bool,
    pub(crate) hold: Duration,
    pub(crate) budget: Arc<Budget>,
    pub(crate) tally: Arc<Tally>,
}

impl<S: Below> Policy<S> for RetryLayer {
    fn call(&self, below: &mut S, call: Call) -> LocalFuture {
        match (&self.terms, self.addresses) {
            (None, 1) => below.call(call),
            (None, addresses) => Box::pin(next_address(addresses, below.clone(), call)),
            (Some(terms), addresses) => {
                Box::pin(repeat(terms.clone(), addresses, below.clone(), call))
            }
        }
    }
}

/// Tries one address after the other, until one can be reached.
async fn next_address<S: Below>(addresses: u32, below: S, call: Call) -> Result<Reply, Failure> {
    let mut result = below.clone().oneshot(call).await;
    for _ in 1..addresses {
        match result {
            Err(Failure { error, unsent: Some(call) })
                if Verdict::of_error(&error, true).again == Again::Unsent
                    && !call.notes.left.is_forlorn() =>
            {
                call.notes.again(Verdict::of_error(&error, true));
                result = below.clone().oneshot(call).await;
            }
            _ => break,
        }
    }
    result
}

/// Makes the call until an answer will do, or there is a reason to leave it at that.
async fn repeat<S: Below>(
    terms: Arc<Terms>,
    addresses: u32,
    below: S,
    mut call: Call,
) -> Result<Reply, Failure> {
    let notes = call.notes.clone();
    terms.budget.first(Instant::now());
    let mut tries = Tries::default();
    loop {
        let spare = call.spare();
        let result = match below.clone().oneshot(call).await {
            Ok(reply) => Ok(hold(reply, &notes, terms.hold).await),
            Err(failure) => Err(failure),
        };
        let verdict = match &result {
            Ok((_, verdict)) => verdict.clone(),
            Err(Failure { error, unsent }) => Verdict::of_error(error, unsent.is_some()),
        };
        let (result, unsent) = match result {
            Ok((reply, _)) => (Ok(reply), None),
            Err(Failure { error, unsent }) => (Err(error), unsent),
        };
        let is_sent = unsent.is_none();
        tries.count(&result);
        if is_sent {
            notes.was_sent();
        }
        let another = unsent.or(spare);
        let wait = terms.wait(&verdict, &tries, addresses, another.as_ref(), &notes);
        let (Some((reason, wait)), true) = (wait, another.is_some()) else {
            notes.settle(verdict);
            return result.map_err(|error| Failure { error, unsent: another.filter(|_| !is_sent) });
        };
        drop(result);
        call = another.expect("it is there");
        notes.again(verdict);
        if !wait.is_zero() {
            sleep(wait).await;
            notes.waited(Wait::Retry, wait);
        }
        // A caller that leaves while it waits has no second attempt.
        terms.tally.made(reason);
    }
}

/// What became of a call at one target so far.
#[derive(Debug, Default)]
struct Tries {
    /// How often it was let through.
    made: u32,
    /// How often the rate gate kept it out: a call that met the limit itself, and has waited, may
    /// find that the gate opens later, and has not tried for that.
    kept_out: u32,
    is_kept_out: bool,
}

impl Tries {
    fn count(&mut self, result: &Result<Reply, Error>) {
        self.is_kept_out = matches!(result, Err(Error::RateGateClosed(_)));
        match self.is_kept_out {
            true => self.kept_out += 1,
            false => self.made += 1,
        }
    }

    /// Those that count against what is allowed.
    fn of_their_kind(&self) -> u32 {
        if self.is_kept_out { self.kept_out } else { self.made }
    }
}

impl Terms {
    /// How long to wait before the call is made again, and why it is; nothing where it is not.
    fn wait(
        &self,
        verdict: &Verdict,
        tries: &Tries,
        addresses: u32,
        another: Option<&Call>,
        notes: &Notes,
    ) -> Option<(Reason, Duration)> {
        let reason = Reason::of(verdict.again).filter(|_| !notes.left.is_forlorn())?;
        if reason == Reason::Unsent && tries.made < addresses {
            return Some((reason, Duration::ZERO));
        }
        if reason == Reason::Limited && self.leads_on {
            return None;
        }
        let config = self.config.as_ref()?;
        // An SDK that tries again itself has fewer attempts here.
        let own = notes.client_retries();
        let allowed = match reason {
            Reason::Limited => config.limited.attempts,
            _ => config.per_target,
        };
        let all = config.attempts.get().saturating_sub(own).max(1);
        let made = notes.sent_attempts();
        if tries.of_their_kind() >= allowed.get() || made >= all {
            return None;
        }
        let now = Instant::now();
        let wait = config.wait(reason, verdict.wait, tries.made);
        let denied = match wait {
            _ if another.is_none() => Some(Denied::Body),
            None => Some(Denied::Wait),
            Some(wait) if notes.deadline().is_some_and(|due| now + wait >= due) => {
                Some(Denied::Deadline)
            }
            Some(_) if reason == Reason::Unsent => None,
            Some(_) if another.is_some_and(|call| !call.may_repeat()) => Some(Denied::Unsafe),
            Some(_) => {
                let granted = self.budget.again(config.budget.share(), config.floor, now);
                (!granted).then_some(Denied::Budget)
            }
        };
        if let Some(denied) = denied {
            self.tally.denied(denied);
            return None;
        }
        Some((reason, wait?))
    }
}

impl RetryConfig {
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
