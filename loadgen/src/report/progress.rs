//! A line that says how the run goes.

use std::io::{IsTerminal, Write, stderr};
use std::sync::Arc;
use std::time::Duration;

use tidegate_settings::Metric;
use tokio::time::{Instant, interval_at};

use super::table::time;
use crate::figures::Tally;
use crate::run::{Phase, Run};

/// On a terminal, the line is rewritten this often.
const REWRITTEN: Duration = Duration::from_secs(1);
/// In a file or a log, a new line comes this often.
const REPEATED: Duration = Duration::from_secs(5);

/// Shows progress on standard error until the run is over.
pub(crate) async fn show(run: Arc<Run>) {
    let on_terminal = stderr().is_terminal();
    let every = if on_terminal { REWRITTEN } else { REPEATED };
    let mut ticks = interval_at(Instant::now() + every, every);
    let mut phase = run.phase();
    // A run that goes on has made calls already.
    let mut before = (run.plan.done(), run.recorder().figures.total().calls());
    loop {
        tokio::select! {
            _ = phase.wait_for(|phase| *phase == Phase::Over) => break,
            _ = ticks.tick() => {}
        }
        let (line, now) = line(&run, before);
        before = now;
        // A closed standard error is no reason to end a run.
        let _ = match on_terminal {
            true => write!(stderr(), "\r\x1b[K{line}"),
            false => writeln!(stderr(), "{line}"),
        };
    }
    if on_terminal {
        let _ = write!(stderr(), "\r\x1b[K");
    }
}

/// The line, and time and calls so far, against which the next one reckons its rate.
fn line(run: &Run, before: (Duration, u64)) -> (String, (Duration, u64)) {
    let elapsed = run.elapsed();
    let (calls, errors, duration, first): (u64, u64, _, _) = {
        let recorder = run.recorder();
        let figures = &recorder.figures;
        let series = || figures.series.values();
        let (calls, errors) = (series().map(Tally::calls).sum(), series().map(Tally::errors).sum());
        let quantiles = |metric| figures.times(metric).quantiles();
        (calls, errors, quantiles(Metric::Duration), quantiles(Metric::TimeToFirstToken))
    };
    let rate = match elapsed.saturating_sub(before.0).as_secs_f64() {
        0.0 => 0.0,
        seconds => (calls - before.1) as f64 / seconds,
    };
    let whole = run.plan.whole().as_secs_f64();
    let first = first.map_or_else(String::new, |first| {
        format!("  first token p50 {}  p99 {}", time(Some(first.p50)), time(Some(first.p99)))
    });
    let line = format!(
        "{}  {:.0}/{whole:.0} s  {} users  {rate:.0} calls/s  {} in flight  {calls} calls  \
         {errors} errors  p50 {}  p99 {}{first}",
        bar(elapsed.as_secs_f64() / whole),
        elapsed.as_secs_f64(),
        run.users_in(),
        run.in_flight(),
        time(duration.as_ref().map(|duration| duration.p50)),
        time(duration.as_ref().map(|duration| duration.p99)),
    );
    (line, (elapsed, calls))
}

/// How far a run has come.
fn bar(share: f64) -> String {
    const CELLS: usize = 20;
    // A run that lasts no time is over; and while the last answers come, it is no further than its end.
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 1.0 };
    let full = (share * CELLS as f64).round() as usize;
    format!("[{}{}]", "#".repeat(full), "-".repeat(CELLS - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_whatever_it_shows() {
        assert_eq!(bar(0.25), "[#####---------------]");
        for share in [0.0, 0.5, 1.0, 7.0, f64::NAN] {
            assert_eq!(bar(share).len(), 22, "{share}");
        }
    }
}
