//! Calls from a file: captured by a sidecar, of a public trace, or prompts.
//!
//! The file is read once before the run, so that what is wrong with it is told then and not midway;
//! and again while the run goes on, call by call. Nothing but the places of calls that stand out of
//! order is held in between.

mod azure;
mod bailian;
mod blocks;
mod burstgpt;
mod capture;
mod columns;
mod cut;
mod entries;
mod format;
mod mooncake;
mod prompts;
mod replay;
mod sharegpt;
mod survey;
mod time;

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tidegate_seal::Identities;
use tidegate_wire::capture::{Entry as CapturedCall, Mode};

use super::Request;
use super::conversation::Later;
use super::lengths::Lengths;
use super::written::{Ask, Turn};
use cut::{Cut, Fault, Layout, Place};
use format::{Reading, Said};

pub use format::Format;
pub(crate) use replay::Replay;
pub(crate) use survey::Survey;

/// More tokens than any model takes.
const MOST_TOKENS: u64 = 10_000_000;

/// A file of calls that can be made.
#[derive(Clone)]
pub struct Recording {
    contents: Arc<Contents>,
}

/// What is known of a file after it was read once.
struct Contents {
    path: PathBuf,
    format: Format,
    layout: Layout,
    reading: Reading,
    /// Who opens what of it is sealed.
    identities: Arc<Identities>,
    /// In the order in which they were written.
    pieces: Vec<Piece>,
    survey: Survey,
}

/// A file, or one of those that it was rotated to.
#[derive(Clone, Debug)]
struct Piece {
    path: PathBuf,
    /// Where what can be used of it ends.
    end: u64,
}

/// One call of a file.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// When it was made, in nanoseconds since whenever; absent where the file does not say.
    pub(crate) at: Option<i64>,
    pub(crate) asked: Asked,
}

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// The very request.
    Captured { request: Box<Request>, mode: Mode, sample: Option<f64> },
    /// So many tokens.
    Lengths(Lengths),
    /// A text, or several.
    Turns {
        turns: Vec<Turn>,
        output: Option<NonZeroU32>,
        /// What was asked then.
        later: VecDeque<Later>,
    },
}

/// Why a file of calls cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no file that can be read more than once.
    #[error("{} is no regular file; write what comes from it to one first", path.display())]
    NoFile {
        /// Which.
        path: PathBuf,
    },
    /// Something in it does not read.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        message: String,
    },
    /// Nobody can tell what it is.
    #[error(
        "{}: its first line is of no format that is known; say which one is meant by --from-format",
        path.display()
    )]
    Unknown {
        /// Which file.
        path: PathBuf,
    },
    /// There is no call in it.
    #[error("{}: there is no call in it that can be made{left_out}", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
        /// Calls that cannot be made, and why.
        left_out: LeftOut,
    },
    /// A capture is asked for, and it is none.
    #[error("{}: this is no capture of a sidecar", path.display())]
    NoCapture {
        /// Which file.
        path: PathBuf,
    },
    /// Its calls cannot be put in order within bounds.
    #[error("{}: its calls are too far out of order; sort them by time first", path.display())]
    Unsorted {
        /// Which file.
        path: PathBuf,
    },
}

/// Calls that cannot be made, in words.
#[derive(Debug)]
pub struct LeftOut(String);

// === impl Recording ===

impl Recording {
    /// Reads a file once. Its format is found from its first line where none is given; of a capture all
    /// rotated pieces are read, the oldest first; what is encrypted in it is opened by one of these
    /// identities.
    pub fn open(
        path: &Path,
        format: Option<Format>,
        identities: Identities,
    ) -> Result<Self, Error> {
        let first = first_line(path)?;
        let unknown = || Error::Unknown { path: path.to_owned() };
        let format = format.or_else(|| Format::told_by(&first)).ok_or_else(unknown)?;
        let layout = format.layout(&first);
        let reading = format
            .reading(&first)
            .map_err(|message| Error::of(path, Fault::Text { line: 1, message }))?;
        let (path, pieces) = (path.to_owned(), pieces(path, format));
        let (identities, survey) = (Arc::new(identities), Survey::default());
        let mut contents = Contents { path, format, layout, reading, identities, pieces, survey };
        contents.survey = Survey::of(&mut contents)?;
        if contents.survey.calls == 0 {
            let left_out = LeftOut::of(&contents.survey);
            return Err(Error::Empty { path: contents.path, left_out });
        }
        let contents = Arc::new(contents);
        match Replay::can_be_ordered(&contents)? {
            true => Ok(Self { contents }),
            false => Err(Error::Unsorted { path: contents.path.clone() }),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.contents.path
    }

    /// Its format.
    pub fn format(&self) -> Format {
        self.contents.format
    }

    /// Whether its calls say when they were made.
    pub fn has_times(&self) -> bool {
        self.contents.survey.span().is_some()
    }

    /// Whether its calls say themselves what is asked of whom, and in which dialect.
    pub fn is_captured(&self) -> bool {
        self.format() == Format::Capture
    }

    /// How long it takes to make its calls so much faster than they had come, up to when the last one is
    /// due; absent where it does not say when they came.
    pub fn lasts(&self, speed: f64) -> Option<std::time::Duration> {
        const JUST_AFTER: std::time::Duration = std::time::Duration::from_millis(1);
        Some(self.contents.survey.span()?.div_f64(speed) + JUST_AFTER)
    }

    pub(crate) fn survey(&self) -> &Survey {
        &self.contents.survey
    }

    /// How many files it consists of.
    pub(crate) fn pieces(&self) -> usize {
        self.contents.pieces.len()
    }

    /// Its calls, in the order in which they were made.
    pub(crate) fn replay(&self) -> Replay {
        Replay::new(self.contents.clone())
    }

    /// What a sidecar wrote down of each call, in the order in which they ended.
    pub(crate) fn entries(
        &self,
    ) -> Result<impl Iterator<Item = Result<CapturedCall, Error>>, Error> {
        let path = self.path().to_owned();
        match self.is_captured() {
            true => Ok(entries::Entries::new(self.contents.clone())),
            false => Err(Error::NoCapture { path }),
        }
    }

    /// How long after the first call one was made at this moment.
    pub(crate) fn offset(&self, at: i64) -> std::time::Duration {
        let first = self.contents.survey.first();
        std::time::Duration::from_nanos(at.saturating_sub(first).max(0) as u64)
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("path", &self.contents.path).finish_non_exhaustive()
    }
}

/// The first line of a file that has something on it.
fn first_line(path: &Path) -> Result<Vec<u8>, Error> {
    let file = |source| Error::File { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(file)?.is_file() {
        return Err(Error::NoFile { path: path.to_owned() });
    }
    let mut cut = Cut::open(path, Layout::Lines).map_err(file)?;
    loop {
        match cut.next().map_err(|fault| Error::of(path, fault))? {
            Some((_, text)) if text.trim_ascii().is_empty() => {}
            Some((_, text)) => return Ok(text.to_vec()),
            None => {
                let left_out = LeftOut(String::new());
                return Err(Error::Empty { path: path.to_owned(), left_out });
            }
        }
    }
}

/// The files that a capture was rotated to, the oldest first, and the file itself.
fn pieces(path: &Path, format: Format) -> Vec<Piece> {
    let mut rotated = match format {
        Format::Capture => rotated(path).unwrap_or_default(),
        _ => Vec::new(),
    };
    rotated.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    let rotated = rotated.into_iter().map(|(_, path)| path);
    rotated.chain([path.to_owned()]).map(|path| Piece { path, end: 0 }).collect()
}

fn rotated(path: &Path) -> Option<Vec<(u32, PathBuf)>> {
    let name = path.file_name()?.to_str()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new("."))).ok()?;
    let number = |found: &str| found.strip_prefix(name)?.strip_prefix('.')?.parse().ok();
    let piece =
        |entry: std::fs::DirEntry| Some((number(entry.file_name().to_str()?)?, entry.path()));
    Some(entries.filter_map(|entry| piece(entry.ok()?)).collect())
}

// === impl Contents ===

impl Contents {
    fn open(&self, piece: usize) -> Result<Cut, Error> {
        let path = &self.pieces[piece].path;
        let file = |source| Error::File { path: path.clone(), source };
        let cut = Cut::open(path, self.layout).map_err(file)?;
        Ok(cut.opening(self.identities.clone()))
    }

    /// What a text says, in which there was nothing wrong when it was read first.
    fn told(&self, piece: usize, place: Place, said: Result<Said, String>) -> Result<Said, Error> {
        let mut said = said.map_err(|message| {
            Error::of(&self.pieces[piece].path, Fault::Text { line: place.line, message })
        })?;
        if let Said::Call(row) = &mut said
            && let Asked::Captured { request, .. } = &mut row.asked
        {
            self.survey.keep_to_names(request);
        }
        Ok(said)
    }
}

// === impl Asked ===

impl Asked {
    /// The request that asks it: where the file does not say it all, as this entry has it. `call` tells
    /// the words of calls apart that are not known.
    pub(crate) fn request(self, entry: &super::Entry, seed: u64, call: u64) -> Request {
        match self {
            Self::Captured { request, .. } => *request,
            Self::Lengths(lengths) => lengths.ask(seed, call).request(entry),
            Self::Turns { turns, output, mut later } => {
                later.truncate(entry.turns.get() as usize - 1);
                let ask = Ask {
                    turns,
                    input_tokens: None,
                    output_tokens: output.unwrap_or(entry.output_tokens),
                    states_usage: true,
                    later,
                    seed: call,
                };
                ask.request(entry)
            }
        }
    }

    /// Bytes that it takes to hold it, about.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Captured { request, .. } => request.body.len() + request.path.len(),
            Self::Lengths(lengths) => lengths.blocks.len() * size_of::<u64>(),
            Self::Turns { turns, later, .. } => {
                let asked = turns.iter().map(|turn| turn.text.len());
                asked.chain(later.iter().map(|later| later.text.len())).sum()
            }
        }
    }
}

// === impl Error ===

impl Error {
    fn of(path: &Path, fault: Fault) -> Self {
        let path = path.to_owned();
        match fault {
            Fault::Read(source) => Self::File { path, source },
            Fault::Text { line, message } => Self::Line { path, line, message },
        }
    }
}

// === impl LeftOut ===

impl LeftOut {
    /// Of these calls.
    pub(crate) fn of(survey: &Survey) -> Self {
        let each = survey.left_out.iter().map(|(why, calls)| format!("; {calls} left out: {why}"));
        Self(each.collect())
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a line of JSON says; nothing where it is empty.
fn json_line<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<Option<T>, String> {
    match line.trim_ascii() {
        b"" => Ok(None),
        text => serde_json::from_slice(text).map(Some).map_err(|error| error.to_string()),
    }
}

/// A number of tokens that may be.
fn bounded(name: &str, tokens: u64) -> Result<u32, String> {
    match tokens {
        0..=MOST_TOKENS => Ok(tokens as u32),
        _ => Err(format!("{name}: {tokens} tokens are more than any model takes")),
    }
}

#[cfg(test)]
pub(super) mod tests;
