//! How a run goes, while it goes on: a view that is drawn again and again, or lines where nobody could see
//! that.

mod glance;
mod line;
mod picture;
mod so_far;
mod spark;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use self::glance::{Glance, objectives};
use self::so_far::SoFar;
use crate::run::{Phase, Run};
use crate::screen;
use crate::verdict::Judged;

/// The view is drawn this often.
const DRAWN: Duration = Duration::from_millis(500);
/// In a file or a log, a new line comes this often.
const REPEATED: Duration = Duration::from_secs(5);
/// Objectives are looked at no more often: that holds up the calls of the run for a moment.
const JUDGED: Duration = Duration::from_secs(2);

/// Shows progress on standard error until the run is over.
pub(crate) async fn show(run: Arc<Run>) {
    let mut viewer = Viewer::of(&run);
    let every = if viewer.is_live { DRAWN } else { REPEATED };
    let mut ticks = interval_at(viewer.began + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut phase = run.phase();
    loop {
        tokio::select! {
            _ = phase.wait_for(|phase| *phase == Phase::Over) => break,
            _ = ticks.tick() => {}
        }
        let run = run.clone();
        // Neither quantiles nor a terminal that somebody holds may hold up the calls.
        let looked = spawn_blocking(move || {
            viewer.look(&run);
            viewer
        });
        let Ok(back) = looked.await else { break };
        viewer = back;
    }
    screen::clear();
}

/// Who looks, and what it has seen.
struct Viewer {
    is_live: bool,
    began: Instant,
    so_far: SoFar,
    /// Calls and time at the last look, for the rate of a line.
    before: (u64, Instant),
    judged: Vec<Judged>,
    judged_at: Option<Instant>,
}

// === impl Viewer ===

impl Viewer {
    fn of(run: &Run) -> Self {
        // A run that goes on has made calls already.
        let so_far = SoFar::of(&run.recorder().figures);
        let began = Instant::now();
        Self {
            is_live: screen::is_live(),
            began,
            before: (so_far.all.calls, began),
            so_far,
            judged: Vec::new(),
            judged_at: None,
        }
    }

    fn look(&mut self, run: &Run) {
        let news = run.recorder().news.take();
        // They came in the time before this look, of which this is the middle.
        self.so_far.add(self.began.elapsed().saturating_sub(DRAWN / 2), news);
        match self.is_live {
            true => self.draw(run),
            false => self.write(run),
        }
    }

    fn draw(&mut self, run: &Run) {
        if self.judged_at.is_none_or(|at| at.elapsed() >= JUDGED) {
            (self.judged, self.judged_at) = (objectives(run), Some(Instant::now()));
        }
        let glance = Glance::of(run, &self.so_far, self.judged.clone());
        let (columns, rows) = screen::size();
        screen::draw(picture::lines(&glance, (columns, rows), screen::has_colours()));
    }

    fn write(&mut self, run: &Run) {
        let (calls, at) =
            std::mem::replace(&mut self.before, (self.so_far.all.calls, Instant::now()));
        let seconds = self.before.1.duration_since(at).as_secs_f64();
        let rate = (self.before.0 - calls) as f64 / seconds.max(f64::MIN_POSITIVE);
        let line = line::of(&Glance::of(run, &self.so_far, Vec::new()), rate);
        // A closed standard error is no reason to end a run.
        let _ = writeln!(screen::stderr(), "{line}");
    }
}
