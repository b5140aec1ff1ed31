//! The phases of a run: users come in; calls are made; no new call is made and those under way may end;
//! what is left is cut.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval, sleep, sleep_until};

use super::Run;
use crate::interrupts;
use crate::report::Ended;
use crate::verdict::hopeless;

/// How long users may take to come in.
pub(super) const HATCH: Duration = Duration::from_secs(30);
/// How long calls under way may take to end, after the last one was made.
pub(crate) const DRAIN: Duration = Duration::from_secs(60);
/// The same once somebody asked to stop.
pub(super) const HASTY_DRAIN: Duration = Duration::from_secs(5);
/// How often it is looked whether objectives can still be met.
const HOPE_LOOKED_FOR: Duration = Duration::from_secs(1);

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Users are coming in.
    Hatching,
    /// Calls are made; due times count from here.
    Running(Instant),
    /// No new calls: what falls due from here on is none of this run.
    Draining(Instant),
    /// Nothing is waited for.
    Over,
}

/// Looks at the calls in flight while calls count; also says whether the looks themselves came late.
pub(super) async fn look(run: Arc<Run>) -> (Vec<(Duration, u64)>, bool) {
    const MOST: u32 = 200;
    const LATE: Duration = Duration::from_millis(100);
    const LATE_ONE_IN: usize = 20;
    let (mut looks, mut late) = (Vec::new(), 0);
    let Some(start) = run.start().await else { return (looks, false) };
    let from = start + run.plan.warm_up;
    let mut phase = run.phase();
    for look in 0..=MOST {
        let at = from + run.plan.duration * look / MOST;
        tokio::select! {
            () = sleep_until(at) => {}
            _ = phase.wait_for(|phase| !matches!(phase, Phase::Running(_))) => break,
        }
        late += usize::from(at.elapsed() > LATE);
        looks.push((at - from, run.in_flight()));
    }
    let was_stalled = late * LATE_ONE_IN > looks.len();
    (looks, was_stalled)
}

/// Leads a run through its phases.
pub(super) async fn conduct(run: Arc<Run>) {
    let mut asked_to_stop = interrupts();
    asked_to_stop.mark_unchanged();
    tokio::select! {
        () = run.all_users() => {}
        () = sleep(HATCH) => tracing::warn!("starting before all users are there"),
        _ = asked_to_stop.changed() => {
            run.ends_by(Ended::Interrupted);
            return run.enter(Phase::Over);
        }
    }
    tokio::select! {
        () = sleep(run.until_start()) => {}
        _ = asked_to_stop.changed() => {
            run.ends_by(Ended::Interrupted);
            return run.enter(Phase::Over);
        }
    }
    let now = Instant::now();
    let start = now.checked_sub(run.plan.done()).unwrap_or(now);
    run.enter(Phase::Running(start));
    let drain = tokio::select! {
        () = sleep_until(start + run.plan.whole()) => DRAIN,
        _ = asked_to_stop.changed() => {
            run.ends_by(Ended::Interrupted);
            HASTY_DRAIN
        }
        () = run.capped.notified() => {
            tracing::warn!("ending early: another call might go beyond the cap");
            DRAIN
        }
        objective = no_hope(&run) => {
            tracing::warn!("ending early: `{objective}` can no longer be met");
            run.ends_by(Ended::Hopeless);
            HASTY_DRAIN
        }
    };
    run.enter(Phase::Draining(Instant::now()));
    tokio::select! {
        () = sleep(drain) => {}
        _ = asked_to_stop.changed() => run.ends_by(Ended::Interrupted),
    }
    run.enter(Phase::Over);
}

/// The objective that can no longer be met, once there is one, where the run is to end by that.
async fn no_hope(run: &Run) -> String {
    let Some(objectives) = run.plan.hopes() else {
        return std::future::pending().await;
    };
    let mut looks = interval(HOPE_LOOKED_FOR);
    loop {
        looks.tick().await;
        let elapsed = run.elapsed().saturating_sub(run.plan.warm_up);
        let (so_far, left) = run.plan.so_far(elapsed);
        let recorder = run.recorder();
        if let Some(lost) = hopeless(&objectives, &recorder.figures, so_far, left) {
            return lost.title();
        }
    }
}
