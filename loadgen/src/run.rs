//! A run from its plan to its report.
//!
//! It holds what the users share; how it goes on is in `phases`, what is due when in `due`.

mod due;
mod phases;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use goose::GooseError;
use jiff::Timestamp;
use tidegate_wire::TraceId;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use self::due::{Due, due_before, lock};
use self::phases::{HASTY_DRAIN, HATCH, conduct, look};
use crate::budget::{Amount, Budget, Pricing, Refusal, Spent};
use crate::client::Client;
use crate::figures::{Call, Key, Kind, Seen, Sent};
use crate::other_side::{Join, OtherSide, Unwatchable};
use crate::plan::Plan;
use crate::recorder::Recorder;
use crate::report::{Ended, Generator, Report, progress};
use crate::resume::save;
use crate::search::Unsearchable;
use crate::signing::Signer;
use crate::tickets::Ticket;
use crate::timer::Timer;
use crate::user;
use crate::workload::Request;

pub(crate) use self::phases::{DRAIN, Phase};

/// No lock is held where anything can panic.
const UNPOISONED: &str = "who holds it does not panic";

/// What a run came to, and what only who leads several must know.
pub(crate) struct Outcome {
    pub(crate) report: Report,
    /// The calls in flight while calls counted, looked at from time to time.
    pub(crate) in_flight: Vec<(Duration, u64)>,
    /// Whether this machine was too busy to look in time.
    pub(crate) was_stalled: bool,
}

/// Why a run did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client could not be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] std::io::Error),
    /// There is no credential to sign the calls with.
    #[error("cannot sign the calls")]
    Credential(#[from] tidegate_credential::Error),
    /// Goose refused its configuration, or failed.
    #[error("goose could not carry the users")]
    Goose(#[from] Box<GooseError>),
    /// There is no capacity to be found by these objectives.
    #[error("--search")]
    Search(#[from] Unsearchable),
    /// The other side does not say what it was to say.
    #[error("--scrape and --sidecar")]
    OtherSide(#[from] Unwatchable),
    /// There is no thread to read the file of calls.
    #[error("cannot start to read the calls")]
    Feed(#[source] std::io::Error),
    /// The records cannot be written.
    #[error("cannot write records to {}", path.display())]
    Records {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Carries a plan out.
pub async fn run(plan: Plan) -> Result<Report, Error> {
    let budget = match &plan.resume {
        None => Budget::new(plan.caps),
        Some(resume) => Budget::after(plan.caps, resume.spent()),
    };
    Ok(carry_out(plan, Arc::new(budget)).await?.report)
}

/// Carries a plan out with what is left of a budget.
pub(crate) async fn carry_out(plan: Plan, budget: Arc<Budget>) -> Result<Outcome, Error> {
    let run = Arc::new(Run::new(plan, budget)?);
    // Before anybody comes in: a run without a credential would measure refusals.
    run.client.ready().await?;
    if let Due::ByFile(feed) = &run.due {
        feed.ready().await;
    }
    let other_side = OtherSide::open(&run.plan.watch).await?;
    let began = run.plan.resume.as_ref().map_or_else(Timestamp::now, |resume| resume.began);
    let id = format!("{:032x}", rand::random::<u128>());
    let progress = tokio::spawn(progress::show(run.clone()));
    let conductor = tokio::spawn(conduct(run.clone()));
    let looks = tokio::spawn(look(run.clone()));
    let mut watches = other_side.start(&run);
    let path = run.plan.save.clone();
    let saves = path.map(|path| tokio::spawn(save(run.clone(), path, id.clone(), began)));
    let longest = HATCH + run.until_start() + run.plan.whole() + DRAIN + HASTY_DRAIN;
    let carried = user::attack(&run, longest).await;
    conductor.abort();
    run.enter(Phase::Over);
    // It only says goodbye to its line; should it have panicked, there is nothing to say.
    let _ = progress.await;
    carried.map_err(Box::new)?;
    run.settle().await;
    run.settle_pairs().await;
    watches.abort_all();
    if let Some(saves) = saves {
        // It ends with the run; should it have panicked, the last report is written all the same.
        let _ = saves.await;
    }
    run.recorder().finish();
    // It ends with the phases of the run, and cannot panic.
    let (in_flight, was_stalled) = looks.await.unwrap_or_default();
    Ok(Outcome { report: Report::of(&run, &id, began), in_flight, was_stalled })
}

/// What the users of a run share.
pub(crate) struct Run {
    pub(crate) plan: Plan,
    client: Client,
    due: Due,
    phase: watch::Sender<Phase>,
    users_in: watch::Sender<usize>,
    started: OnceLock<Instant>,
    stopped: OnceLock<Instant>,
    ended: OnceLock<Ended>,
    recorder: Mutex<Recorder>,
    calls: Calls,
    budget: Arc<Budget>,
    pricing: Pricing,
    /// Told when a call might have gone beyond a cap.
    capped: Notify,
    /// Calls and a sidecar's records of them, where it is asked.
    pairs: Option<Mutex<Join>>,
}

/// What cannot wait for the recorder.
#[derive(Default)]
struct Calls {
    sent: AtomicU64,
    ended: AtomicU64,
    /// Calls that were taken up after they were due: no user was free.
    found_no_user: AtomicU64,
    /// Those that fell due and that nobody took.
    unsent: AtomicU64,
    panicked_users: AtomicU64,
}

// === impl Run ===

impl Run {
    fn new(plan: Plan, budget: Arc<Budget>) -> Result<Self, Error> {
        let goes_on = plan.resume.is_some();
        let records = plan.records.as_deref().map(|path| create(path, goes_on)).transpose()?;
        let (figures, generator) = match &plan.resume {
            Some(resume) => (resume.figures.clone(), resume.generator),
            None => Default::default(),
        };
        let due = Due::of(&plan)?;
        let signer = plan.credential.as_ref().map(Signer::new).transpose()?;
        Ok(Self {
            client: Client::new(plan.target.clone(), signer, plan.prices.clone())
                .map_err(Error::Client)?,
            due,
            phase: watch::Sender::new(Phase::Hatching),
            users_in: watch::Sender::new(0),
            started: OnceLock::new(),
            stopped: OnceLock::new(),
            ended: OnceLock::new(),
            recorder: Mutex::new(Recorder::new(records, plan.objectives.clone(), figures)),
            calls: Calls::of(&generator),
            budget,
            pricing: Pricing::of(&plan),
            capped: Notify::new(),
            pairs: (!plan.watch.sidecars.is_empty()).then(Mutex::default),
            plan,
        })
    }

    pub(crate) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().expect("the recorder does not panic")
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    fn enter(&self, phase: Phase) {
        match phase {
            Phase::Running(start) => _ = self.started.set(start),
            Phase::Draining(since) => _ = self.stopped.set(since),
            Phase::Hatching | Phase::Over => {}
        }
        self.phase.send_replace(phase);
    }

    /// Notes why the run does not take its whole time; the first reason holds.
    fn ends_by(&self, ended: Ended) {
        let _ = self.ended.set(ended);
    }

    /// How the run came to its end, if it has.
    pub(crate) fn ended(&self) -> Ended {
        let is_over = *self.phase.borrow() == Phase::Over;
        let so_far = if is_over { Ended::Complete } else { Ended::Unfinished };
        self.ended.get().copied().filter(|_| is_over).unwrap_or(so_far)
    }

    /// Lets one more user in, and says which number it has.
    pub(crate) fn user_comes_in(&self) -> usize {
        let mut number = 0;
        self.users_in.send_modify(|users| {
            number = *users;
            *users += 1;
        });
        number
    }

    async fn all_users(&self) {
        let all = self.plan.users.get();
        // The sender is ours, so the channel cannot close.
        let _ = self.users_in.subscribe().wait_for(|users| *users >= all).await;
    }

    /// The start, once it has come; none if the run ended before.
    pub(crate) async fn start(&self) -> Option<Instant> {
        let mut phase = self.phase();
        match *phase.wait_for(|phase| *phase != Phase::Hatching).await.ok()? {
            Phase::Running(start) => Some(start),
            _ => None,
        }
    }

    /// The next call that falls due by time, or stands in a file.
    pub(crate) async fn next_ticket(&self) -> Option<Ticket> {
        match &self.due {
            Due::Nowhere => None,
            Due::ByTime(tickets) => lock(tickets).next()?.ok(),
            Due::ByFile(feed) => feed.next().await,
        }
    }

    /// Whether a call that is due then still belongs to the run, once that time has come.
    pub(crate) async fn comes_due(&self, due: Instant, timer: &mut Timer) -> bool {
        if due <= Instant::now() && self.is_open() {
            return true;
        }
        let mut phase = self.phase();
        tokio::select! {
            biased;
            ended = phase.wait_for(|phase| !matches!(phase, Phase::Running(_))) => {
                matches!(ended.as_deref(), Ok(Phase::Draining(since)) if due < *since)
            }
            () = timer.sleep_until(due) => true,
        }
    }

    /// Whether new calls are made.
    pub(crate) fn is_open(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Running(_))
    }

    /// Makes a call and keeps what there is to know of it. Where it might go beyond a cap it is not
    /// made, and the run ends.
    pub(crate) async fn call(&self, request: Request, due: Instant) -> Option<Call> {
        let reserved = self.reserve(&request)?;
        let mut phase = self.phase();
        let cut = async move {
            let _ = phase.wait_for(|phase| *phase == Phase::Over).await;
        };
        self.calls.sent.fetch_add(1, Relaxed);
        let start = self.started.get().copied().unwrap_or(due);
        let at = due.saturating_duration_since(start);
        let key = Key::of(&request, &self.plan.stage_at(at.saturating_sub(self.plan.warm_up)));
        let sample = self.client.call(request, due, cut).await;
        let counts = at >= self.plan.warm_up;
        let call = Call {
            key,
            due: at.saturating_sub(self.plan.warm_up),
            kind: Kind::of(&sample.record),
            record: sample.record,
            send_lag: sample.send_lag,
            read_lag: sample.read_lag,
            gaps: sample.gaps,
            answer: sample.answer,
        };
        if let Some(reserved) = reserved {
            self.budget.settle(reserved, &call.record);
        }
        {
            // What is recorded is no longer under way: nobody may see it as both, or as neither.
            let mut recorder = self.recorder();
            if counts {
                recorder.record(&call);
            }
            recorder.news.ended(&call, counts);
            self.calls.ended.fetch_add(1, Relaxed);
        }
        if let Some(pairs) = &self.pairs {
            let mut pairs = pairs.lock().expect(UNPOISONED);
            let joined = &mut self.recorder().figures.joined;
            pairs.ours(call.record.trace_id, Sent::of(&call), counts, joined);
        }
        Some(call)
    }

    /// Takes in a sidecar's record of a call.
    pub(crate) fn told(&self, trace: TraceId, seen: Seen) {
        if let Some(pairs) = &self.pairs {
            let mut pairs = pairs.lock().expect(UNPOISONED);
            pairs.theirs(trace, seen, &mut self.recorder().figures.joined);
        }
    }

    /// Waits a little for the sidecar's records of the last calls, and counts those that did not come.
    async fn settle_pairs(&self) {
        const PATIENCE: Duration = Duration::from_secs(3);
        let Some(pairs) = &self.pairs else { return };
        let missing = || pairs.lock().expect(UNPOISONED).missing();
        let until = Instant::now() + PATIENCE;
        while missing() > 0 && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
        }
        let missing = missing();
        self.recorder().figures.joined.missing = missing;
    }

    /// Sets aside what a call takes at most, where anything is capped; nothing where it may not be made.
    fn reserve(&self, request: &Request) -> Option<Option<Amount>> {
        if !self.budget.is_bounded() {
            return Some(None);
        }
        match self.budget.reserve(self.pricing.amount(request)) {
            Ok(reserved) => Some(Some(reserved)),
            Err(refusal) => {
                if refusal == Refusal::Unpriced {
                    let model = &request.label;
                    tracing::error!(%model, "no price for this model at this target, so --max-cost cannot hold; give one by --prices");
                }
                // Here and not where it is heard of: the users may all be gone before that.
                self.ends_by(Ended::Capped);
                self.capped.notify_one();
                None
            }
        }
    }

    /// Notes that a call was taken up only after it was due.
    pub(crate) fn no_user_was_free(&self) {
        self.calls.found_no_user.fetch_add(1, Relaxed);
    }

    /// Notes that a user was lost to a fault of ours.
    pub(crate) fn user_panicked(&self) {
        self.calls.panicked_users.fetch_add(1, Relaxed);
    }

    pub(crate) fn in_flight(&self) -> u64 {
        let ended = self.calls.ended.load(Relaxed);
        self.calls.sent.load(Relaxed).saturating_sub(ended)
    }

    /// Calls that were under way when the run was killed, and of which nothing is known.
    pub(crate) fn forgotten(&self) -> u64 {
        self.plan.resume.as_ref().map_or(0, |resume| resume.generator.forgotten)
    }

    /// Whether calls that are made now are in the figures.
    pub(crate) fn counts(&self) -> bool {
        self.elapsed() >= self.plan.warm_up
    }

    /// What was spent of the caps.
    pub(crate) fn spent(&self) -> Spent {
        self.budget.spent()
    }

    pub(crate) fn found_no_user(&self) -> u64 {
        self.calls.found_no_user.load(Relaxed)
    }

    pub(crate) fn lost_users(&self) -> u64 {
        self.calls.panicked_users.load(Relaxed)
    }

    pub(crate) fn users_in(&self) -> usize {
        *self.users_in.borrow()
    }

    /// Time since calls began to be made.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.get().map(Instant::elapsed).unwrap_or_default()
    }

    /// How much of its time is over.
    pub(crate) fn done(&self) -> Duration {
        let end = self.stopped.get().copied().unwrap_or_else(Instant::now);
        let done = self.started.get().map(|start| end.saturating_duration_since(*start));
        done.unwrap_or_else(|| self.plan.done()).min(self.plan.whole())
    }

    /// Time from when calls began to count to the end of the last one.
    pub(crate) fn lasted(&self) -> Duration {
        let Some(start) = self.started.get() else { return Duration::ZERO };
        let from = *start + self.plan.warm_up;
        let last = self.recorder().last_end;
        let before = || self.plan.resume.as_ref().map(|resume| resume.lasted);
        last.map(|end| end.saturating_duration_since(from)).or_else(before).unwrap_or_default()
    }

    /// Once users have gone: counts the calls that fell due and were never made.
    async fn settle(&self) {
        let (Some(start), Some(stop)) = (self.started.get(), self.stopped.get()) else { return };
        let end = *stop - *start;
        let unsent = match &self.due {
            Due::Nowhere => 0,
            Due::ByTime(tickets) => due_before(&mut lock(tickets), end),
            Due::ByFile(feed) => feed.due_before(end).await,
        };
        self.calls.unsent.fetch_add(unsent, Relaxed);
    }

    /// Calls that fell due and were never made.
    pub(crate) fn unsent(&self) -> u64 {
        self.calls.unsent.load(Relaxed)
    }

    /// Whether calls are missing because their file could not be read on.
    pub(crate) fn lost_its_file(&self) -> bool {
        matches!(&self.due, Due::ByFile(feed) if feed.is_broken())
    }

    /// How long it is until calls may be made.
    fn until_start(&self) -> Duration {
        let left = self.plan.start.map(|start| start.duration_since(Timestamp::now()));
        left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default()
    }
}

// === impl Calls ===

impl Calls {
    /// Those of a run that goes on.
    fn of(generator: &Generator) -> Self {
        Self {
            found_no_user: generator.found_no_user.into(),
            unsent: generator.unsent.into(),
            panicked_users: generator.lost_users.into(),
            ..Self::default()
        }
    }
}

/// A file for records; those that there are stay where a run goes on.
fn create(path: &Path, goes_on: bool) -> Result<File, Error> {
    let mut options = File::options();
    let opened = options.create(true).write(true).append(goes_on).truncate(!goes_on).open(path);
    opened.map_err(|source| Error::Records { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use tidegate_settings::Metric;

    use super::*;
    use crate::budget::Caps;
    use crate::schedule::Schedule;
    use crate::sim::{Options, Simulator};
    use crate::workload::{Mix, Workload};

    /// What three witnesses say of one run.
    struct Counts {
        sent: u64,
        told_to_goose: u64,
        served: u64,
    }

    fn plan(target: &str, schedule: Schedule, users: usize) -> Plan {
        let target = target.parse().expect("an address is a target");
        Plan {
            users: NonZeroUsize::new(users).expect("some users"),
            duration: Duration::from_secs(2),
            schedule,
            ..Plan::new(target, Workload::Mix(Mix::default()))
        }
    }

    fn new(plan: Plan) -> Run {
        Run::new(plan, Arc::default()).expect("a client")
    }

    #[tokio::test]
    async fn what_falls_due_after_the_end_is_none_of_the_run() {
        const SOON: Duration = Duration::from_millis(20);
        let run = new(plan("http://127.0.0.1:1", Schedule::Closed, 1));
        let mut timer = Timer::default();
        let start = Instant::now();
        run.enter(Phase::Running(start));
        assert!(run.comes_due(start + SOON, &mut timer).await);
        assert!(start.elapsed() >= SOON);

        let end = Instant::now() + SOON;
        run.enter(Phase::Draining(end));
        let before = end - Duration::from_millis(1);
        assert!(run.comes_due(before, &mut timer).await, "due before, taken up late");
        assert!(!run.comes_due(end, &mut timer).await);

        run.enter(Phase::Over);
        assert!(!run.comes_due(start, &mut timer).await);
    }

    /// Runs for two seconds against a simulated server.
    async fn rehearse(schedule: Schedule, users: usize) -> (Arc<Run>, Counts) {
        rehearse_plan(|target| plan(target, schedule, users)).await
    }

    async fn rehearse_plan(plan: impl FnOnce(&str) -> Plan) -> (Arc<Run>, Counts) {
        let simulator = Simulator::bind(Options {
            listen: ([127, 0, 0, 1], 0).into(),
            ttft: Duration::from_millis(20),
            tpot: Duration::from_millis(2),
            output_tokens: 16,
            ..Options::default()
        });
        let simulator = simulator.await.expect("a free port");
        let address = format!("http://{}", simulator.addr());
        let server = tokio::spawn(simulator.serve(std::future::pending()));
        let plan = plan(&address);
        let budget = Arc::new(Budget::new(plan.caps));
        let run = Arc::new(Run::new(plan, budget).expect("a client"));
        let conductor = tokio::spawn(conduct(run.clone()));
        let told = user::attack(&run, Duration::from_secs(60)).await.expect("goose carries");
        conductor.abort();
        run.enter(Phase::Over);
        run.settle().await;
        let sent = run.recorder().figures.total().calls();
        let counts = Counts {
            sent,
            told_to_goose: told
                .requests
                .values()
                .map(|one| (one.success_count + one.fail_count) as u64)
                .sum(),
            served: served(&address).await,
        };
        server.abort();
        (run, counts)
    }

    async fn served(address: &str) -> u64 {
        let answer = reqwest::get(format!("{address}/-/served")).await.expect("an answer");
        let text = answer.text().await.expect("a whole one");
        let served: serde_json::Value = serde_json::from_str(&text).expect("in JSON");
        served["calls"].as_u64().expect("with a count")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_users_send_is_what_is_served_and_what_goose_is_told() {
        let (run, counts) = rehearse(Schedule::Closed, 30).await;
        assert!(counts.sent > 100, "{} calls in two seconds", counts.sent);
        assert_eq!((counts.served, counts.told_to_goose), (counts.sent, counts.sent));

        let report = Report::of(&run, "", Timestamp::now());
        assert_eq!(report.invalid, None);
        assert_eq!(report.total.outcomes.completed, counts.sent, "{:?}", report.errors);
        let was_measured = |metric| report.total.time(metric).is_some();
        assert!(was_measured(Metric::TimeToFirstToken) && was_measured(Metric::Gap));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_open_loop_sends_what_falls_due() {
        let (run, counts) = rehearse(Schedule::Constant { rate: 50.0 }, 30).await;
        assert_eq!((counts.sent, counts.served, run.unsent()), (100, 100, 0));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_cap_ends_the_run_before_it_is_passed() {
        const CAP: u64 = 20_000;
        let plan = |target: &str| Plan {
            caps: Caps { tokens: Some(CAP), usd: None },
            ..plan(target, Schedule::Closed, 10)
        };
        let (run, counts) = rehearse_plan(plan).await;
        let report = Report::of(&run, "", Timestamp::now());
        let tokens = report.total.tokens;
        let used = tokens.input.unwrap_or(0) + tokens.output.unwrap_or(0);
        assert_eq!((report.ended, report.invalid), (Ended::Capped, None));
        assert!(counts.sent > 10 && used > CAP / 2 && used <= CAP, "{used} tokens");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn too_few_users_for_the_rate_make_a_run_invalid() {
        let (run, counts) = rehearse(Schedule::Constant { rate: 100.0 }, 1).await;
        let report = Report::of(&run, "", Timestamp::now());
        let reason = report.invalid.expect("one user cannot make a hundred calls a second");
        assert!(reason.contains("--users"), "{reason}");
        assert_eq!(counts.sent + report.generator.unsent, 200, "what was due is accounted for");
    }
}
