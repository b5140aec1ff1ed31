//! Looks on, while policies are bypassed, and tells whether a call would have been made again or taken
//! elsewhere.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::Terms;
use super::terms::Standing;
use crate::attempt::Watch;
use crate::bypass::{Bypass, Bypassed};
use crate::call::Call;
use crate::verdict::{Again, Verdict};

/// One attempt, to hear what it comes to.
pub(super) struct LookingOn {
    terms: Arc<Terms>,
    bypass: Rc<Bypass>,
    /// Once it has failed.
    standing: Standing,
    /// Whether it may be sent twice, as far as can be told of a body that is not held.
    may_repeat: bool,
}

impl LookingOn {
    pub(super) fn new(
        terms: &Arc<Terms>,
        bypass: &Rc<Bypass>,
        call: &Call,
        standing: Standing,
    ) -> Self {
        let may_repeat = !bypass.is_too_large() && call.is_of_a_kind_to_repeat();
        Self { terms: terms.clone(), bypass: bypass.clone(), standing, may_repeat }
    }

    fn would_fall_back(&self, verdict: &Verdict, now: Instant) -> bool {
        let is_over = self.standing.deadline.is_some_and(|due| now >= due);
        let may_be_sent = self.may_repeat || verdict.again == Again::Unsent;
        self.bypass.may_fall_back() && verdict.leads_on() && may_be_sent && !is_over
    }
}

impl Watch for LookingOn {
    fn judged(&mut self, verdict: &Verdict, now: Instant) {
        let is_unsent = verdict.again == Again::Unsent;
        if is_unsent && self.standing.made < self.standing.addresses {
            // It is tried there, whatever is configured.
            return;
        }
        let standing = Standing { sent: u32::from(!is_unsent), ..self.standing };
        let may_repeat = Some(|| self.may_repeat);
        if self.terms.decide(verdict, &standing, may_repeat, now).is_ok() {
            self.bypass.would(Bypassed::Retry);
        } else if self.would_fall_back(verdict, now) {
            self.bypass.would(Bypassed::Fallback);
        }
    }
}
