//! The lines of a capture as they stand in it: how each call went, and not only what it asked.

use std::sync::Arc;

use tidegate_wire::capture::Entry;

use super::cut::{Cut, Fault};
use super::{Contents, Error};

/// Goes through a capture once.
pub(super) struct Entries {
    contents: Arc<Contents>,
    piece: usize,
    cut: Option<Cut>,
}

// === impl Entries ===

impl Entries {
    pub(super) fn new(contents: Arc<Contents>) -> Self {
        Self { contents, piece: 0, cut: None }
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        while let Some(piece) = self.contents.pieces.get(self.piece) {
            let cut = match &mut self.cut {
                Some(cut) => cut,
                None => self.cut.insert(self.contents.open(self.piece)?),
            };
            let next = cut.next().map_err(|fault| Error::of(&piece.path, fault))?;
            match next.filter(|(place, _)| place.start < piece.end) {
                Some((place, text)) => {
                    let of_line = |error: tidegate_wire::capture::LineError| {
                        let fault = Fault::Text { line: place.line, message: error.to_string() };
                        Error::of(&piece.path, fault)
                    };
                    return Entry::read(text).map(Some).map_err(of_line);
                }
                None => {
                    self.cut = None;
                    self.piece += 1;
                }
            }
        }
        Ok(None)
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().transpose()
    }
}
