//! Makes a call again, while its caller has seen nothing of an answer.
//!
//! What never left may always be sent: the next address of the same upstream may have it. What was
//! sent is sent again only where a route says so, the call may be repeated, its body is at hand, the
//! budget allows it and the time is there. The wait is what the provider asks for.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::{Instant, sleep};

use crate::bypass::Bypass;
use crate::call::{Call, Failure, Reply};
use crate::error::Error;
use crate::exchange::{Notes, Wait};
use crate::held_reply::hold;
use crate::layer::{Below, Policy};
use crate::stack::LocalFuture;
use crate::verdict::{Again, Verdict};

mod budget;
mod config;
mod looking_on;
mod tally;
mod terms;

pub(crate) use budget::Budget;
pub use config::{LimitedConfig, RetryConfig};
pub(crate) use tally::{Denied, Reason, Tally};
pub(crate) use terms::Terms;

use looking_on::LookingOn;
use terms::Standing;

/// Tries a call at so many addresses.
#[derive(Clone, Debug)]
pub(crate) struct RetryLayer {
    /// Where nothing was sent.
    pub(crate) addresses: u32,
    /// Absent where only calls that were never sent are tried again.
    pub(crate) terms: Option<Arc<Terms>>,
}

impl<S: Below> Policy<S> for RetryLayer {
    fn call(&self, below: &mut S, call: Call) -> LocalFuture {
        match (&self.terms, self.addresses) {
            (None, 1) => below.call(call),
            (None, addresses) => Box::pin(next_address(addresses, below.clone(), call, |_, _| ())),
            (Some(terms), addresses) => {
                Box::pin(repeat(terms.clone(), addresses, below.clone(), call))
            }
        }
    }

    fn look_on(&self, below: &mut S, call: Call, bypass: Rc<Bypass>) -> LocalFuture {
        let Some(terms) = self.terms.clone() else { return self.call(below, call) };
        terms.budget.first(Instant::now());
        let addresses = self.addresses;
        let each = move |call: &Call, made| {
            let standing = Tries { made, ..Tries::default() }.standing(addresses, &call.notes);
            call.notes.watch(LookingOn::new(&terms, &bypass, call, standing));
        };
        Box::pin(next_address(addresses, below.clone(), call, each))
    }
}

/// Tries one address after the other, until one can be reached. `each` sees each attempt before it
/// is made, and which one it is, from 1.
async fn next_address<S: Below>(
    addresses: u32,
    mut below: S,
    mut call: Call,
    each: impl Fn(&Call, u32),
) -> Result<Reply, Failure> {
    for made in 1.. {
        each(&call, made);
        match below.call(call).await {
            Err(Failure { error, unsent: Some(back) })
                if made < addresses
                    && Verdict::of_error(&error, true).again == Again::Unsent
                    && !back.notes.left.goes_on() =>
            {
                back.notes.again(Verdict::of_error(&error, true));
                call = back;
            }
            result => return result,
        }
    }
    unreachable!("the last address has the last word")
}

/// Makes the call until an answer will do, or there is a reason to leave it at that.
async fn repeat<S: Below>(
    terms: Arc<Terms>,
    addresses: u32,
    mut below: S,
    mut call: Call,
) -> Result<Reply, Failure> {
    let notes = call.notes.clone();
    terms.budget.first(Instant::now());
    let mut tries = Tries::default();
    loop {
        let spare = call.spare();
        let result = match below.call(call).await {
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
        let may_repeat = another.as_ref().map(|call| || call.may_repeat());
        let decided = match verdict.again == Again::Never || notes.left.goes_on() {
            true => Err(None),
            false => {
                let standing = tries.standing(addresses, &notes);
                terms.decide(&verdict, &standing, may_repeat, Instant::now())
            }
        };
        let (Ok((reason, wait)), true) = (decided, another.is_some()) else {
            if let Err(Some(denied)) = decided {
                terms.tally.denied(denied);
                notes.tried_enough(denied == Denied::Budget);
            }
            notes.settle(verdict);
            return result.map_err(|error| Failure { error, unsent: another.filter(|_| !is_sent) });
        };
        drop(result);
        call = another.expect("it is there");
        notes.again(verdict);
        notes.tried_enough(is_sent && terms.config.is_some());
        if !wait.is_zero() {
            let _waiting = notes.waiting(Wait::Retry);
            sleep(wait).await;
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

    fn standing(&self, addresses: u32, notes: &Notes) -> Standing {
        Standing {
            made: self.made,
            of_their_kind: if self.is_kept_out { self.kept_out } else { self.made },
            addresses,
            sent: notes.sent_attempts(),
            client_retries: notes.client_retries(),
            deadline: notes.deadline(),
        }
    }
}
