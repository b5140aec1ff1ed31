//! The calls of a file, in the order in which they were made.
//!
//! A sidecar writes a call down when it ends, so files are out of order by as much as the longest call
//! took. The survey knows by how much; no more places are held than that asks for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::cut::{Cut, Fault, Place};
use super::format::Said;
use super::{Contents, Error, Row};

/// Places that are held to put calls in order: about 250 MB.
const MOST_HELD: usize = 4 << 20;

/// Goes through a file once.
pub(crate) struct Replay {
    contents: Arc<Contents>,
    /// The piece that is read.
    piece: usize,
    /// It, and another view of each piece of which a place is held.
    cut: Option<Cut>,
    again: Option<(usize, Cut)>,
    held: BinaryHeap<Reverse<Held>>,
    read: u64,
    latest: i64,
    is_read: bool,
    /// Whether more places would have had to be held than may be.
    is_out_of_bounds: bool,
}

/// A call that may not be next yet: when it was made, which one it was, and where it stands.
type Held = (i64, u64, usize, Place);

// === impl Replay ===

impl Replay {
    pub(super) fn new(contents: Arc<Contents>) -> Self {
        Self {
            contents,
            piece: 0,
            cut: None,
            again: None,
            held: BinaryHeap::new(),
            read: 0,
            latest: i64::MIN,
            is_read: false,
            is_out_of_bounds: false,
        }
    }

    /// Whether its calls can be put in order within bounds. Reads them all where that is in doubt.
    pub(super) fn can_be_ordered(contents: &Arc<Contents>) -> Result<bool, Error> {
        let survey = &contents.survey;
        if survey.disorder == 0 || survey.calls <= MOST_HELD as u64 {
            return Ok(true);
        }
        let mut replay = Self::new(contents.clone());
        while replay.fill()? {
            replay.held.pop();
        }
        Ok(!replay.is_out_of_bounds)
    }

    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        // In order already, or nobody knows of another.
        if self.contents.survey.disorder == 0 {
            return Ok(self.read_on()?.map(|(row, ..)| row));
        }
        self.fill()?;
        match self.held.pop() {
            Some(Reverse((_, _, piece, place))) => self.read_again(piece, place).map(Some),
            None => Ok(None),
        }
    }

    /// Reads on until the first of those that are held is the next one. Says whether there is any.
    fn fill(&mut self) -> Result<bool, Error> {
        let disorder = self.contents.survey.disorder;
        let is_due = |held: &BinaryHeap<Reverse<Held>>, latest: i64| {
            held.peek().is_some_and(|Reverse((at, ..))| latest.saturating_sub(*at) >= disorder)
        };
        while !self.is_read && !is_due(&self.held, self.latest) {
            if self.held.len() == MOST_HELD {
                self.is_out_of_bounds = true;
                break;
            }
            match self.read_on()? {
                Some((row, piece, place)) => {
                    let at = row.at.unwrap_or_default();
                    self.latest = self.latest.max(at);
                    self.held.push(Reverse((at, self.read, piece, place)));
                    self.read += 1;
                }
                None => self.is_read = true,
            }
        }
        Ok(!self.held.is_empty())
    }

    /// The next call as it stands in the file.
    fn read_on(&mut self) -> Result<Option<(Row, usize, Place)>, Error> {
        let contents = self.contents.clone();
        while let Some(piece) = contents.pieces.get(self.piece) {
            let cut = match &mut self.cut {
                Some(cut) => cut,
                None => {
                    let mut cut = contents.open(self.piece)?;
                    if contents.format.has_header() {
                        cut.next().map_err(|fault| Error::of(&piece.path, fault))?;
                    }
                    self.cut.insert(cut)
                }
            };
            match cut.next().map_err(|fault| Error::of(&piece.path, fault))? {
                Some((place, text)) if place.start < piece.end => {
                    let said = (contents.reading)(text);
                    if let Said::Call(row) = contents.told(self.piece, place, said)? {
                        return Ok(Some((*row, self.piece, place)));
                    }
                }
                _ => {
                    self.cut = None;
                    self.piece += 1;
                }
            }
        }
        Ok(None)
    }

    fn read_again(&mut self, piece: usize, place: Place) -> Result<Row, Error> {
        let contents = self.contents.clone();
        let (_, cut) = match self.again.take() {
            Some(again) if again.0 == piece => self.again.insert(again),
            _ => self.again.insert((piece, contents.open(piece)?)),
        };
        let path = &contents.pieces[piece].path;
        let text = cut.again(place).map_err(|fault| Error::of(path, fault))?;
        match contents.told(piece, place, (contents.reading)(text))? {
            Said::Call(row) => Ok(*row),
            _ => {
                let message = "this has changed since it was read first".to_owned();
                Err(Error::of(path, Fault::Text { line: place.line, message }))
            }
        }
    }
}

impl Iterator for Replay {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}
