//! A file of calls, read once before the run: whether all of it can be used, and what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate_wire::capture::Mode;

use super::cut::Fault;
use super::format::Said;
use super::{Asked, Contents, Error, Row};
use crate::figures::Key;
use crate::schedule::STAGE;
use crate::workload::Request;

/// Names under which calls are counted that are told apart; any number may stand in a file.
const MOST_KEYS: usize = 200;

/// The name of those beyond.
const OTHER: &str = "other";

/// What is in a file of calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Survey {
    /// Calls that can be made.
    pub(crate) calls: u64,
    /// Calls that cannot, by the reason.
    pub(crate) left_out: BTreeMap<&'static str, u64>,
    /// The first and the last moment; absent where calls have none.
    pub(super) moments: Option<(i64, i64)>,
    /// By how much a call stands behind a later one, at most, in nanoseconds.
    pub(super) disorder: i64,
    /// The names under which its calls are counted, where it says them.
    pub(crate) keys: BTreeSet<Key>,
    /// How much of the requests a sidecar kept.
    pub(crate) modes: BTreeSet<Mode>,
    /// The shares of all calls that were captured, in thousandths of a thousandth.
    pub(super) samples: BTreeSet<u64>,
    /// Bytes at the ends of pieces that a crash had torn.
    pub(crate) torn_bytes: u64,
}

/// One piece while it is read.
struct Reader<'a> {
    contents: &'a Contents,
    piece: usize,
    survey: &'a mut Survey,
    latest: &'a mut Option<i64>,
    /// Where something begins that does not read, and may be the torn end.
    torn: Option<(u64, u64, String)>,
}

// === impl Survey ===

impl Survey {
    /// Reads all pieces; each learns where it ends.
    pub(super) fn of(contents: &mut Contents) -> Result<Self, Error> {
        let mut survey = Self::default();
        let mut latest = None;
        for piece in 0..contents.pieces.len() {
            let (survey, latest) = (&mut survey, &mut latest);
            let reader = Reader { contents, piece, survey, latest, torn: None };
            contents.pieces[piece].end = reader.read()?;
        }
        Ok(survey)
    }

    /// The first moment; zero where calls have none.
    pub(super) fn first(&self) -> i64 {
        self.moments.map_or(0, |(first, _)| first)
    }

    /// Has a call counted under one of the names that were found, or under one for all others.
    pub(super) fn keep_to_names(&self, request: &mut Request) {
        if self.keys.len() == MOST_KEYS && !self.keys.contains(&Key::of(request, STAGE)) {
            request.label = OTHER.into();
            request.route = OTHER.into();
        }
    }

    /// From the first call to the last.
    pub(crate) fn span(&self) -> Option<Duration> {
        let (first, last) = self.moments?;
        Some(Duration::from_nanos(last.abs_diff(first)))
    }

    /// The shares of all calls that were captured, where it was not all of them.
    pub(crate) fn samples(&self) -> Vec<f64> {
        self.samples.iter().map(|millionths| *millionths as f64 / 1e6).collect()
    }

    fn take(&mut self, row: &Row, latest: &mut Option<i64>) -> Result<(), String> {
        if self.calls > 0 && row.at.is_some() != self.moments.is_some() {
            return Err(
                "some calls of this file say when they were made, and some do not".to_owned()
            );
        }
        self.calls += 1;
        if let Some(at) = row.at {
            let (first, last) = self.moments.unwrap_or((at, at));
            self.moments = Some((first.min(at), last.max(at)));
            let before = latest.map_or(at, |latest| latest.max(at));
            self.disorder = self.disorder.max(before.saturating_sub(at));
            *latest = Some(before);
        }
        if let Asked::Captured { request, mode, sample, .. } = &row.asked {
            self.modes.insert(*mode);
            self.samples.extend(sample.map(|share| (share * 1e6).round() as u64));
            let key = Key::of(request, STAGE);
            if self.keys.len() < MOST_KEYS {
                self.keys.insert(key);
            }
        }
        Ok(())
    }
}

// === impl Reader ===

impl Reader<'_> {
    /// Says where the piece ends that can be used.
    fn read(mut self) -> Result<u64, Error> {
        let path = &self.contents.pieces[self.piece].path;
        let file = |source| Error::File { path: path.to_owned(), source };
        let length = std::fs::metadata(path).map_err(file)?.len();
        let mut has_header = self.contents.format.has_header();
        let mut cut = self.contents.open(self.piece)?;
        loop {
            let next = cut.next().map_err(|fault| Error::of(path, fault))?;
            let Some((place, text)) = next else { break };
            if std::mem::take(&mut has_header) {
                continue;
            }
            let told = self.text(place.start, place.line, text);
            told.map_err(|(line, message)| Error::of(path, Fault::Text { line, message }))?;
        }
        let end = self.torn.map_or(length, |(start, ..)| start);
        self.survey.torn_bytes += length - end;
        Ok(end)
    }

    fn text(&mut self, start: u64, line: u64, text: &[u8]) -> Result<(), (u64, String)> {
        match (self.contents.reading)(text).map_err(|message| (line, message))? {
            Said::Nothing => Ok(()),
            Said::Torn(why) => {
                self.torn.get_or_insert((start, line, why));
                Ok(())
            }
            // What stands before something that reads was not torn by the end of the file.
            _ if self.torn.is_some() => {
                let (_, line, why) = self.torn.take().expect("it was just there");
                Err((line, why))
            }
            Said::LeftOut(reason) => {
                *self.survey.left_out.entry(reason).or_default() += 1;
                Ok(())
            }
            Said::Call(row) => {
                self.survey.take(&row, self.latest).map_err(|message| (line, message))
            }
        }
    }
}
