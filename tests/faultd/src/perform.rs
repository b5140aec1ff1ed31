//! Does the steps of an answer, in whichever protocol, until they are done or the peer has left.

use std::io;
use std::time::{Duration, Instant};

use crate::step::{Fields, Step};
use crate::tally::{Ended, Tally};

/// How often a thread that holds looks whether it may go on, or its peer has left.
const LOOK: Duration = Duration::from_millis(2);

/// Who says what a step wants said.
pub(crate) trait Speaker {
    /// Says a head.
    fn head(&mut self, status: u16, fields: &Fields, every: Option<Duration>) -> io::Result<()>;
    /// Says a piece of the body.
    fn data(&mut self, piece: &[u8]) -> io::Result<()>;
    /// Begins a piece of the body and says half of it.
    fn half_data(&mut self, piece: &[u8]) -> io::Result<()>;
    /// Ends the body.
    fn end(&mut self) -> io::Result<()>;
    /// Says bytes as they are.
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Says frames of HTTP/2.
    fn frames(&mut self, frames: &[crate::Frame]) -> io::Result<()>;
    /// Waits no longer than so long; true once the peer has left.
    fn peer_left_within(&mut self, limit: Duration) -> bool;
    /// Says that nothing more comes.
    fn half_close(&mut self);
    /// Closes.
    fn close(&mut self);
    /// Closes by a reset.
    fn reset(&mut self);
    /// Resets the stream.
    fn reset_stream(&mut self, code: u32) -> io::Result<()>;
    /// Says that it goes.
    fn go_away(&mut self, last: Option<u32>, code: u32) -> io::Result<()>;
}

/// Does all steps for the call at this place.
pub(crate) fn perform(
    steps: &[Step],
    speaker: &mut impl Speaker,
    tally: &Tally,
    place: Option<usize>,
) -> Ended {
    for step in steps {
        if !matches!(step_done(step, speaker, tally, place), Ok(true)) {
            return Ended::Cancelled;
        }
    }
    Ended::AsScripted
}

/// Does one step; false where the peer has left.
fn step_done(
    step: &Step,
    speaker: &mut impl Speaker,
    tally: &Tally,
    place: Option<usize>,
) -> io::Result<bool> {
    match step {
        Step::Head { status, fields, every } => speaker.head(*status, fields, *every)?,
        Step::Data(piece) => {
            // Told before it is sent: nobody may see what is not told.
            tally.note(|counts| counts.say(place, piece));
            speaker.data(piece)?;
        }
        Step::HalfData(piece) => {
            let half = piece.len() / 2;
            tally.note(|counts| counts.say(place, &piece[..half]));
            speaker.half_data(piece)?;
        }
        Step::End => speaker.end()?,
        Step::Raw(bytes) => {
            tally.note(|counts| counts.say(place, bytes));
            speaker.raw(bytes)?;
        }
        Step::Trickle(bytes, every) => {
            tally.note(|counts| counts.say(place, bytes));
            for byte in bytes {
                speaker.raw(&[*byte])?;
                if speaker.peer_left_within(*every) {
                    return Ok(false);
                }
            }
        }
        Step::Frames(frames) => speaker.frames(frames)?,
        Step::Wait(time) => return Ok(!left_within(speaker, *time)),
        Step::Hold => {
            while !tally.note(crate::tally::Counts::pass) {
                if speaker.peer_left_within(LOOK) {
                    return Ok(false);
                }
            }
        }
        Step::Silence => {
            while !speaker.peer_left_within(Duration::from_secs(1)) {}
            return Ok(false);
        }
        Step::HalfClose => speaker.half_close(),
        Step::Close => speaker.close(),
        Step::Reset => speaker.reset(),
        Step::ResetStream(code) => speaker.reset_stream(*code)?,
        Step::GoAway { last, code } => speaker.go_away(*last, *code)?,
    }
    Ok(true)
}

fn left_within(speaker: &mut impl Speaker, time: Duration) -> bool {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        if speaker.peer_left_within(left) {
            return true;
        }
    }
}
