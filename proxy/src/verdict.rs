//! What an attempt says of the place where it went: the one classifier of breaker, retry, fallback,
//! limit and balancer.
//!
//! Two questions have answers of their own. How is the upstream (`Health`)? And may the call be made
//! again (`Again`)? A 429 says nothing of the first, and a caller's mistake nothing bad.

use std::time::Duration;

use tidegate_wire::{ErrorOrigin, Fault};

use crate::error::Error;

/// A wait that an upstream names is believed up to this.
const LONGEST_HINT: Duration = Duration::from_secs(300);

/// What became of an attempt, as far as it matters to those who decide on the next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) health: Health,
    pub(crate) again: Again,
    /// Whether it is the answer to what was asked; not so where the upstream is well and declines.
    pub(crate) is_answer: bool,
    /// What the upstream asks to wait; at most five minutes.
    pub(crate) wait: Option<Duration>,
    /// From the start of the attempt; absent where none came, or the answer is no stream.
    pub(crate) first_token: Option<Duration>,
}

/// What an attempt says of its upstream's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It answers, be it that the request was at fault.
    Good,
    /// It fails, or is not there.
    Ill,
    /// A limit is reached: no sign of illness, but not a moment to ask again.
    Limited,
    /// Nothing can be said: the caller left, or we did not ask.
    Unknown,
}

/// Whether a call may be made again after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// It would end no better, or may not be repeated.
    Never,
    /// Nothing was sent: at once, and anywhere.
    Unsent,
    /// The upstream is at fault: the same one may do better, another one more likely.
    Soon,
    /// When the limit allows; at once on what has another limit.
    Later,
    /// As a clash with another call asks for: on the same upstream alone.
    Same,
    /// Not here, for we did not let it through, or the upstream says so: another one may take it.
    Elsewhere,
}

// === impl Verdict ===

impl Verdict {
    /// An answer that is none of an error.
    pub(crate) fn good(first_token: Option<Duration>) -> Self {
        Self { health: Health::Good, again: Again::Never, is_answer: true, wait: None, first_token }
    }

    /// Nothing to be said.
    pub(crate) fn unknown() -> Self {
        Self { health: Health::Unknown, is_answer: false, ..Self::good(None) }
    }

    /// An answer that broke off, or stood still for too long.
    pub(crate) fn broken() -> Self {
        Self { health: Health::Ill, again: Again::Soon, ..Self::unknown() }
    }

    /// An answer that ended before it meant anything.
    pub(crate) fn of_broken(error: &Error) -> Self {
        match error {
            Error::Body(_) => Self::broken(),
            error => Self::of_error(error, false),
        }
    }

    /// The upstream is there, but does not accept our credential: another target has another one.
    pub(crate) fn refused_credential() -> Self {
        Self { health: Health::Good, again: Again::Elsewhere, ..Self::unknown() }
    }

    /// An answer, or what came in band, that states an error.
    pub(crate) fn of_fault(fault: &Fault) -> Self {
        let (health, again) = match (fault.origin, fault.status) {
            (ErrorOrigin::Quota, _) => (Health::Limited, Again::Later),
            // The upstream does not know the call, however often it is asked.
            (_, 501 | 505 | 510 | 511) => (Health::Good, Again::Never),
            (ErrorOrigin::Upstream, _) => (Health::Ill, Again::Soon),
            (_, 408 | 409) => (Health::Unknown, Again::Same),
            (_, 425) => (Health::Unknown, Again::Never),
            (ErrorOrigin::Client, _) => (Health::Good, Again::Never),
            (ErrorOrigin::Sidecar, _) => (Health::Unknown, Again::Never),
        };
        let again = match (fault.should_retry, again) {
            (Some(false), Again::Soon | Again::Later) => Again::Elsewhere,
            (Some(false), _) => Again::Never,
            (Some(true), Again::Never) => Again::Same,
            (_, again) => again,
        };
        Self { health, again, wait: fault.retry_after_s.and_then(wait), ..Self::unknown() }
    }

    /// Whether another target may do better.
    pub(crate) fn leads_on(&self) -> bool {
        matches!(self.again, Again::Unsent | Again::Soon | Again::Later | Again::Elsewhere)
    }

    /// No answer at all.
    pub(crate) fn of_error(error: &Error, is_unsent: bool) -> Self {
        let (health, again) = match error {
            Error::Connect { .. }
            | Error::ConnectTimeout { .. }
            | Error::Tls { .. }
            | Error::NoHttp2 { .. } => (Health::Ill, Again::Unsent),
            // Of our own making: the upstream has not been asked.
            Error::Saturated { .. }
            | Error::Credential { .. }
            | Error::CircuitOpen(_)
            | Error::LimitQueueFull { .. }
            | Error::LimitQueueTimeout { .. } => (Health::Unknown, Again::Elsewhere),
            // The limit that was met before still holds.
            Error::RateGateClosed(_) => (Health::Unknown, Again::Later),
            Error::Closed { .. }
            | Error::ResponseTimeout { .. }
            | Error::FirstTokenTimeout { .. }
            | Error::Protocol { .. } => (Health::Ill, Again::Soon),
            Error::TotalTimeout { .. } => (Health::Ill, Again::Never),
            _ => (Health::Unknown, Again::Never),
        };
        // Whatever it was: what has not left may be sent.
        let again = if is_unsent && again == Again::Soon { Again::Unsent } else { again };
        let wait = match error {
            Error::RateGateClosed(refusal) => Some(refusal.wait),
            _ => None,
        };
        Self { health, again, wait, ..Self::unknown() }
    }
}

/// So many seconds, as far as they are believed.
fn wait(seconds: f64) -> Option<Duration> {
    let is_time = seconds >= 0.0;
    let wait =
        || Duration::try_from_secs_f64(seconds).map_or(LONGEST_HINT, |wait| wait.min(LONGEST_HINT));
    is_time.then(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(status: u16, origin: ErrorOrigin) -> Fault {
        let (kind, code, retry_after_s, should_retry) = (String::new(), None, None, None);
        Fault { status, kind, code, origin, retry_after_s, should_retry }
    }

    #[test]
    fn an_answer_says_how_its_upstream_is_and_whether_to_ask_again() {
        use {Again::*, ErrorOrigin::*, Health::*};
        for (status, origin, health, again) in [
            (429, Quota, Limited, Later),
            (200, Quota, Limited, Later),
            (500, Upstream, Ill, Soon),
            (503, Upstream, Ill, Soon),
            (529, Upstream, Ill, Soon),
            (200, Upstream, Ill, Soon),
            (501, Upstream, Good, Never),
            (400, Client, Good, Never),
            (401, Client, Good, Never),
            (404, Client, Good, Never),
            (408, Client, Health::Unknown, Same),
            (409, Client, Health::Unknown, Same),
            (425, Client, Health::Unknown, Never),
        ] {
            let verdict = Verdict::of_fault(&fault(status, origin));
            assert_eq!((verdict.health, verdict.again), (health, again), "{status} {origin:?}");
        }
    }

    #[test]
    fn what_the_upstream_says_of_another_try_counts_and_changes_nothing_of_its_health() {
        use {Again::*, ErrorOrigin::*};
        for (status, origin, said, again) in [
            (503, Upstream, true, Soon),
            (503, Upstream, false, Elsewhere),
            (429, Quota, true, Later),
            (429, Quota, false, Elsewhere),
            (409, Client, true, Same),
            (409, Client, false, Never),
            (400, Client, true, Same),
            (400, Client, false, Never),
        ] {
            let silent = fault(status, origin);
            let health = Verdict::of_fault(&silent).health;
            let verdict = Verdict::of_fault(&Fault { should_retry: Some(said), ..silent });
            assert_eq!((verdict.health, verdict.again), (health, again), "{status} {said}");
        }
    }

    #[test]
    fn a_wait_is_bounded_whatever_the_upstream_says() {
        for (said, wait) in [
            (Some(2.5), Some(Duration::from_millis(2500))),
            (Some(1e18), Some(LONGEST_HINT)),
            (Some(f64::INFINITY), Some(LONGEST_HINT)),
            (Some(f64::NAN), None),
            (Some(-1.0), None),
            (None, None),
        ] {
            let fault = Fault { retry_after_s: said, ..fault(429, ErrorOrigin::Quota) };
            assert_eq!(Verdict::of_fault(&fault).wait, wait);
        }
    }
}
