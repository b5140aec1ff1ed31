//! The calls of a load, numbered, in the order in which they are due.

use std::iter::repeat_with;
use std::time::Duration;

use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::workload::{Asked, RecordingError, Request, Row, Synthetic};

/// A call that a user takes.
pub(crate) struct Ticket {
    /// Which one it is of all calls of the load, counted from 0.
    pub(crate) number: u64,
    /// When it is due, where time decides that.
    pub(crate) due: Option<Duration>,
    /// What is asked, where it stands in a file.
    pub(crate) asked: Option<Asked>,
}

/// Those of one shard. Of a file an error is the last.
pub(crate) type Tickets = Box<dyn Iterator<Item = Result<Ticket, RecordingError>> + Send>;

/// What tells when the call with this row is due.
type Due = Box<dyn FnMut(Option<&Row>) -> Option<Duration> + Send>;
type Rows = Box<dyn Iterator<Item = Result<Option<Row>, RecordingError>> + Send>;

/// All calls of a plan, as far as time and file decide them: without end where neither does.
pub(crate) fn tickets(plan: &Plan) -> Tickets {
    let (shard, end, done) = (plan.shard, plan.whole(), plan.done());
    // Where time does not decide, a file goes on behind what was made of it.
    let made = plan.resume.as_ref().filter(|_| plan.schedule == Schedule::Closed);
    let made = made.map_or(0, |resume| resume.calls());
    let mut due = due(plan);
    let tickets = (0..).zip(rows(plan)).map(move |(number, row)| {
        let row = row?;
        let due = due(row.as_ref());
        Ok(Ticket { number, due, asked: row.map(|row| row.asked) })
    });
    let is_within = move |ticket: &Result<Ticket, _>| match ticket {
        Ok(ticket) => ticket.due.is_none_or(|due| due < end),
        Err(_) => true,
    };
    let is_ours = move |ticket: &Result<Ticket, _>| match ticket {
        Ok(ticket) => shard.takes(ticket.number),
        Err(_) => true,
    };
    let is_left = move |ticket: &Result<Ticket, _>| match ticket {
        Ok(ticket) => ticket.due.is_none_or(|due| due >= done),
        Err(_) => true,
    };
    let tickets = tickets.take_while(is_within).filter(is_ours).filter(is_left);
    Box::new(tickets.skip(usize::try_from(made).unwrap_or(usize::MAX)))
}

/// When a call is due.
fn due(plan: &Plan) -> Due {
    let recording = plan.workload.recording().cloned();
    match (plan.schedule, plan.schedule.arrivals(plan.stages.as_deref(), plan.seed), recording) {
        (Schedule::Recorded { speed }, _, Some(recording)) => {
            Box::new(move |row| Some(recording.offset(row?.at?).div_f64(speed)))
        }
        (_, Some(mut arrivals), _) => Box::new(move |_| arrivals.next()),
        _ => Box::new(|_| None),
    }
}

/// What stands in a file; nothing again and again where there is none. A file that does not say when
/// is begun again at its end.
fn rows(plan: &Plan) -> Rows {
    let is_once = matches!(plan.schedule, Schedule::Recorded { .. });
    match plan.workload.recording().cloned() {
        None => Box::new(repeat_with(|| Ok(None))),
        Some(recording) if is_once => Box::new(recording.replay().map(|row| row.map(Some))),
        Some(recording) => {
            let again = repeat_with(move || recording.replay()).flatten();
            Box::new(again.map(|row| row.map(Some)))
        }
    }
}

// === impl Ticket ===

impl Ticket {
    /// The same as [`Self::request`] to whoever only counts: a prompt of which the length is known is
    /// not made up.
    pub(crate) fn outline(mut self, plan: &Plan) -> Request {
        let known = match &mut self.asked {
            Some(Asked::Lengths(lengths)) => {
                lengths.blocks.clear();
                Some(std::mem::replace(&mut lengths.input, 1))
            }
            _ => None,
        };
        let mut request = self.request(plan);
        request.expected.input_tokens = known.map(u64::from).or(request.expected.input_tokens);
        request
    }

    /// What it is for. Of its own seed, so that a call is the same whoever takes it.
    pub(crate) fn request(self, plan: &Plan) -> Request {
        let mut requests = Synthetic::new(plan.seed, self.number);
        let entry = plan.workload.mix().at(requests.place());
        match self.asked {
            Some(asked) => asked.request(entry, plan.seed, self.number),
            None => requests.request(entry),
        }
    }
}
