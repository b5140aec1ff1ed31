//! Which answer which request gets, and what happens before one is read.

use std::time::Duration;

use crate::answer::{Answer, any};

/// What an upstream does, from its start on.
#[derive(Clone, Debug)]
pub struct Script {
    turns: Turns,
    doors: Vec<Door>,
    pub(crate) manners: Manners,
}

/// What an upstream does with a connection before it reads from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// It serves.
    Open,
    /// It says nothing, and reads nothing, until the peer has left.
    Silent,
    /// FIN at once.
    Closes,
    /// RST at once.
    Resets,
}

/// How an upstream speaks HTTP/2.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// How much of a request's body it takes, where that is not all; its windows never open again.
    pub window: Option<u32>,
    /// How many SETTINGS it sends beyond the one that it must.
    pub more_settings: usize,
    /// Streams that it allows at a time.
    pub streams: Option<u32>,
}

/// Whose turn it is.
#[derive(Clone, Debug)]
enum Turns {
    /// By the number of the request; the last one stays.
    Sequence(Vec<Answer>),
    /// By the time since the start, over and over.
    Cycle(Vec<(Answer, Duration)>),
}

impl Script {
    /// The same answer for every request.
    pub fn always(answer: Answer) -> Self {
        Self::sequence([answer])
    }

    /// The first answer for the first request, and so on; the last one for all the others.
    pub fn sequence(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::of(Turns::Sequence(answers.into_iter().collect()))
    }

    /// Each answer for so long, over and over.
    pub fn cycle(answers: impl IntoIterator<Item = (Answer, Duration)>) -> Self {
        Self::of(Turns::Cycle(answers.into_iter().collect()))
    }

    /// What its connections meet before they are read; the last one stays.
    pub fn behind(mut self, doors: impl IntoIterator<Item = Door>) -> Self {
        self.doors = doors.into_iter().collect();
        self
    }

    /// How it speaks HTTP/2.
    pub fn manners(mut self, manners: Manners) -> Self {
        self.manners = manners;
        self
    }

    fn of(turns: Turns) -> Self {
        Self { turns, doors: Vec::new(), manners: Manners::default() }
    }

    /// The answer for a request of this number, which counts from 0, so long after the start.
    pub(crate) fn answer(&self, number: usize, since_start: Duration) -> Answer {
        let found = match &self.turns {
            Turns::Sequence(answers) => answers.get(number).or(answers.last()),
            Turns::Cycle(answers) => of_cycle(answers, since_start),
        };
        found.cloned().unwrap_or_else(any)
    }

    /// What a connection of this number meets, which counts from 0.
    pub(crate) fn door(&self, number: usize) -> Door {
        self.doors.get(number).or(self.doors.last()).copied().unwrap_or(Door::Open)
    }
}

impl Default for Script {
    /// Good answers in the dialect that a request's path has.
    fn default() -> Self {
        Self::always(any())
    }
}

impl From<Answer> for Script {
    fn from(answer: Answer) -> Self {
        Self::always(answer)
    }
}

fn of_cycle(answers: &[(Answer, Duration)], since_start: Duration) -> Option<&Answer> {
    let round: u128 = answers.iter().map(|(_, span)| span.as_nanos()).sum();
    let mut at = since_start.as_nanos().checked_rem(round)?;
    for (answer, span) in answers {
        match at.checked_sub(span.as_nanos()) {
            Some(rest) => at = rest,
            None => return Some(answer),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::status;

    fn status_at(script: &Script, number: usize, ms: u64) -> String {
        format!("{:?}", script.answer(number, Duration::from_millis(ms)))
    }

    #[test]
    fn the_last_of_a_sequence_stays() {
        let script = Script::sequence([status(503), status(200)]);
        assert!(status_at(&script, 0, 0).contains("503"));
        assert!(status_at(&script, 1, 0).contains("200"));
        assert!(status_at(&script, 9, 0).contains("200"));
    }

    #[test]
    fn a_cycle_goes_by_the_time_and_begins_again() {
        let span = Duration::from_millis(100);
        let script = Script::cycle([(status(503), span), (status(200), span * 2)]);
        for (ms, expected) in [(0, "503"), (99, "503"), (100, "200"), (299, "200"), (300, "503")] {
            assert!(status_at(&script, 5, ms).contains(expected), "{ms}");
        }
        assert!(status_at(&Script::cycle([]), 0, 5).contains("Good"), "an empty one is good");
    }
}
