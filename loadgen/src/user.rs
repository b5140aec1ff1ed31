//! The Goose side: users that carry calls.
//!
//! Goose owns who there is and what each does: it lets the users in and deals the mix out to them
//! by weight, one scenario for each kind of call. Each user then stays in one transaction for the
//! whole run, because Goose times requests up to their head and cannot interrupt them; when to
//! call, how long it took and when to stop is ours. It is told of each call, so its own figures
//! are true.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use goose::config::GooseConfiguration;
use goose::goose::{GooseUser, Scenario, Transaction};
use goose::metrics::{GooseCoordinatedOmissionMitigation, GooseMetrics};
use goose::{GooseAttack, GooseError};
use tidegate_wire::Outcome;
use tokio::time::{Instant, sleep};

use crate::figures::Call;
use crate::run::Run;
use crate::schedule::Schedule;
use crate::timer::Timer;
use crate::workload::{Entry, Request, Synthetic};

/// Users that come in each second, at least: all within a second or two.
const FEWEST_ARRIVING: usize = 500;

/// How long a user rests, at least, after a call that nobody answered: what refuses connections
/// would else be asked ten thousand times a second.
const UNANSWERED: Duration = Duration::from_secs(1);

/// Lets the users in and carries the run to its end, but no longer than `longest`.
pub(crate) async fn attack(run: &Arc<Run>, longest: Duration) -> Result<GooseMetrics, GooseError> {
    silence();
    let mut attack = GooseAttack::initialize_with_config(configuration(run))?
        // Goose's own clients stay idle: one for all will do.
        .set_client_builder_without_cookies(
            goose::client::GooseClientBuilder::new().without_cookies(),
        )?;
    for scenario in scenarios(run)? {
        attack = attack.register_scenario(scenario);
    }
    let mut attack = pin!(attack.execute());
    tokio::select! {
        carried = &mut attack => carried,
        () = sleep(longest) => {
            goose::trigger_killswitch("the users did not come to an end");
            attack.await
        }
    }
}

fn configuration(run: &Run) -> GooseConfiguration {
    let users = run.plan.users.get();
    // Some of its fields are private, so it cannot be written as one expression.
    let mut configuration = GooseConfiguration::default();
    configuration.users = Some(users);
    configuration.increase_rate = Some(users.max(FEWEST_ARRIVING).to_string());
    configuration.iterations = Some(1);
    configuration.host = Some(run.plan.target.as_str().to_owned());
    configuration.quiet = 1;
    configuration.no_telnet = true;
    configuration.no_websocket = true;
    configuration.no_print_metrics = true;
    configuration.co_mitigation = Some(GooseCoordinatedOmissionMitigation::Disabled);
    configuration
}

/// In a closed loop each kind of call is a scenario with users of its own; where time decides what
/// is due, any user takes any call.
fn scenarios(run: &Arc<Run>) -> Result<Vec<Scenario>, GooseError> {
    if run.plan.schedule != Schedule::Closed || run.plan.workload.recording().is_some() {
        return Ok(vec![Scenario::new("any call").register_transaction(carrier(run, None))]);
    }
    let mix = run.plan.workload.mix();
    std::iter::zip(mix.entries(), mix.users(run.plan.users.get()))
        .filter(|(_, users)| *users > 0)
        .map(|(entry, users)| {
            Scenario::new(&format!("{} {}", entry.call, entry.model))
                .register_transaction(carrier(run, Some(entry.clone())))
                .set_weight(users)
        })
        .collect()
}

fn carrier(run: &Arc<Run>, kind: Option<Entry>) -> Transaction {
    let shared = Arc::new((run.clone(), kind));
    Transaction::new(Arc::new(move |user| {
        let shared = shared.clone();
        Box::pin(async move {
            let (run, kind) = &*shared;
            // Goose would lose the user without a word and wait for it for ever.
            let mut carrier = Carrier { run, user, timer: Timer::default() };
            let carried = pin!(carrier.carry(kind.as_ref()));
            if unless_it_panics(carried).await.is_none() {
                run.user_panicked();
            }
            Ok(())
        })
    }))
}

/// A user, while it carries calls.
struct Carrier<'a> {
    run: &'a Run,
    user: &'a mut GooseUser,
    timer: Timer,
}

// === impl Carrier ===

impl Carrier<'_> {
    /// Its whole life.
    async fn carry(&mut self, kind: Option<&Entry>) {
        let number = self.run.user_comes_in();
        let Some(start) = self.run.start().await else { return };
        match kind {
            Some(entry) => self.call_again_and_again(entry, number, start).await,
            None if self.run.plan.schedule == Schedule::Closed => {
                self.take_what_is_next(number, start).await;
            }
            None => self.take_what_is_due(start).await,
        }
    }

    /// Closed: the end of a call makes the next one due, after a rest where the mix has one.
    async fn call_again_and_again(&mut self, entry: &Entry, number: usize, start: Instant) {
        let run = self.run;
        let stream = run.plan.shard.of_all(number as u64);
        let mut requests = Synthetic::new(run.plan.seed_of_users(), stream);
        let Some(enters) = run.plan.enters(number) else { return };
        let mut due = start + enters;
        while self.comes_due(due).await {
            let request = requests.request(entry);
            let Some(call) = self.converse(request, due).await else { return };
            let rested = Instant::now() + rest(&call, entry.think);
            let Some(next) = is_there(run, number, start, rested) else { return };
            due = next;
        }
    }

    /// Closed, with calls from a file: the end of a call makes the next of the file due.
    async fn take_what_is_next(&mut self, number: usize, start: Instant) {
        let run = self.run;
        let Some(enters) = run.plan.enters(number) else { return };
        let mut due = start + enters;
        while self.comes_due(due).await {
            let Some(ticket) = run.next_ticket().await else { return };
            let request = ticket.request(&run.plan);
            // What it takes to make up a long prompt is none of the target's time.
            let due_now = due.max(Instant::now());
            let Some(call) = self.converse(request, due_now).await else { return };
            let rested = Instant::now() + rest(&call, Duration::ZERO);
            let Some(next) = is_there(run, number, start, rested) else { return };
            due = next;
        }
    }

    /// Open: time makes calls due, and whoever is free takes the next one. Were all busy, it is sent
    /// late, and the lateness is part of what it took.
    async fn take_what_is_due(&mut self, start: Instant) {
        let run = self.run;
        // Who waits for the start is not busy, late as he may wake.
        let mut was_busy = false;
        while run.is_open() {
            let Some(ticket) = run.next_ticket().await else { return };
            let due = start + ticket.due.unwrap_or_default();
            if was_busy && due < Instant::now() {
                run.no_user_was_free();
            }
            was_busy = true;
            // Before it is due: what it takes to make up a long prompt is none of the target's time.
            let request = ticket.request(&run.plan);
            if !self.comes_due(due).await {
                return;
            }
            if self.converse(request, due).await.is_none() {
                return;
            }
        }
    }

    /// Makes a call; where it is the first of a conversation, those that follow too, each after a rest.
    /// The last one that was made; nothing where the run is over. Who gets no whole answer does not go
    /// on.
    async fn converse(&mut self, mut request: Request, mut due: Instant) -> Option<Call> {
        loop {
            let then = request.then.clone();
            let mut call = self.run.call(request, due).await?;
            tell_goose(self.user, &call).await;
            let Some(then) = then.filter(|_| call.is_whole()) else { return Some(call) };
            due = Instant::now() + then.rest();
            let answer = call.answer.take().unwrap_or_default();
            request = Arc::unwrap_or_clone(then).after(answer);
            if !self.comes_due(due).await {
                return None;
            }
        }
    }

    async fn comes_due(&mut self, due: Instant) -> bool {
        self.run.comes_due(due, &mut self.timer).await
    }
}

/// When a user is there again, from this moment on: stages may let it go for a while, or for good.
fn is_there(run: &Run, number: usize, start: Instant, from: Instant) -> Option<Instant> {
    let at = run.plan.is_there(number, from.saturating_duration_since(start))?;
    // The very moment where it is: seconds in floating point would shift it.
    Some(from.max(start + at))
}

/// How long a user rests after a call.
fn rest(call: &Call, think: Duration) -> Duration {
    match call.record.status {
        Some(_) => think,
        None => think.max(UNANSWERED),
    }
}

/// One line in Goose's books for each call, so that its figures are true as well.
async fn tell_goose(user: &mut GooseUser, call: &Call) {
    let record = &call.record;
    let took = Duration::try_from_secs_f64(record.duration_s.unwrap_or(0.0)).unwrap_or_default();
    let completed = record.outcome == Some(Outcome::Completed);
    let told = user
        .record_custom_request_duration(
            &call.key.route,
            &call.key.model,
            took,
            completed,
            record.status,
            record.error_type.as_deref(),
        )
        .await;
    if let Err(error) = told {
        tracing::debug!(%error, "goose did not take a call down");
    }
}

/// What it comes to. It stays where it is: a user in here and out there would take its memory twice.
async fn unless_it_panics<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
            Ok(Poll::Pending) => Poll::Pending,
            // The panic hook has said what there is to say.
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

/// Takes the place of the logger that Goose would install, which writes to standard output.
struct Silence;

impl log::Log for Silence {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        false
    }

    fn log(&self, _: &log::Record<'_>) {}

    fn flush(&self) {}
}

fn silence() {
    // Where there is a logger already, Goose does not install its own either.
    let _ = log::set_logger(&Silence);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_the_user_and_not_the_run() {
        let panics = async {
            tokio::task::yield_now().await;
            panic!("as a test");
        };
        assert_eq!(unless_it_panics(pin!(panics)).await, None::<()>);
        assert_eq!(unless_it_panics(pin!(async { 1 })).await, Some(1));
    }
}
