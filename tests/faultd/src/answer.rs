//! What an upstream answers: a good answer, or an error, and what goes wrong with it on the way.
//!
//! An [`Answer`] is made by one of the functions here and bent by its methods, so that a script
//! reads like a sentence: `good(OpenAi).cut_after_tokens(2, Cut::Reset)`.

use std::time::{Duration, SystemTime};

use crate::Frame;
use crate::dialect::{Dialect, Trouble};
use crate::request::Request;
use crate::step::{Fields, Step};

/// Pieces that a whole answer is said in.
const PIECES: usize = 4;
/// Tokens of an answer whose script does not say how many.
const TOKENS: usize = 5;

/// What an upstream does with one request.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(crate) reads: Reads,
    pub(crate) continues: bool,
    said: Said,
    tokens: usize,
    interims: Vec<u16>,
    fields: Fields,
    retry_info: Option<String>,
    delay: Duration,
    head_pace: Option<Duration>,
    pace: Option<Duration>,
    frames: Vec<Frame>,
    cut: Option<(Point, Cut)>,
    is_held: bool,
    is_unframed: bool,
    has_comments: bool,
    more: Vec<u8>,
}

/// How much of a request is read before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// All of it.
    Whole,
    /// Its head; the body stays where it is.
    Head,
}

/// Whether a good answer is a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Where it was asked for.
    AsAsked,
    /// Always.
    Streamed,
    /// Never.
    Whole,
}

/// When a caller may come back, in one of the ways that providers say it.
#[derive(Clone, Debug)]
pub enum Hint {
    /// `retry-after` in seconds.
    Seconds(u64),
    /// `retry-after` as a date.
    Date(Duration),
    /// `retry-after-ms`.
    Milliseconds(u64),
    /// `google.rpc.RetryInfo` in the body, where it speaks like Google.
    RetryInfo(Duration),
    /// `x-ratelimit-reset-*` of a dimension of which nothing is left.
    Reset(String, String),
}

/// How an answer breaks off.
#[derive(Clone, Debug)]
pub enum Cut {
    /// Not at all: what is held there goes on as it should.
    No,
    /// Nothing more comes, until the peer leaves.
    Silence,
    /// FIN.
    Close,
    /// FIN, but what the peer sends is still read.
    HalfClose,
    /// RST.
    Reset,
    /// FIN in the middle of a chunk.
    MidChunk,
    /// These bytes in place of the next chunk, then nothing more. (HTTP/1.1)
    BadFraming(Vec<u8>),
    /// A clean end of the body, with all the rest unsaid.
    CleanEnd,
    /// An error in the dialect's own words, then a clean end of the body.
    Error(Trouble),
    /// These bytes as one more piece, then a clean end of the body.
    Saying(Vec<u8>),
    /// The next piece with its last byte changed, then the rest as it should be.
    Corrupt,
    /// RST_STREAM with this code. (HTTP/2)
    ResetStream(u32),
    /// GOAWAY with this code; the last stream that is processed is this one or the one given.
    GoAway(Option<u32>, u32),
}

/// Where it breaks off.
#[derive(Clone, Copy, Debug)]
enum Point {
    BeforeHead,
    Head,
    Pieces(usize),
    Tokens(usize),
    EndMark,
    End,
}

/// What is said where nothing goes wrong.
#[derive(Clone, Debug)]
enum Said {
    Good(Option<Dialect>, Form),
    Status(u16, Option<Dialect>),
    Raw(Vec<u8>),
}

/// A head and pieces of a body, before anything goes wrong.
struct Whole {
    status: u16,
    fields: Fields,
    pieces: Vec<Vec<u8>>,
    /// Which pieces come before the first token.
    lead: usize,
    /// Which pieces come before the end mark.
    before_end_mark: usize,
}

/// A good answer in this dialect.
pub fn good(dialect: Dialect) -> Answer {
    Answer::new(Said::Good(Some(dialect), Form::AsAsked))
}

/// A good answer in the dialect that the request's path has.
pub fn any() -> Answer {
    Answer::new(Said::Good(None, Form::AsAsked))
}

/// An answer of this status; from 400 on with an error in the words of the request's dialect.
pub fn status(status: u16) -> Answer {
    Answer::new(Said::Status(status, None))
}

/// These bytes, whatever they are.
pub fn raw(bytes: impl Into<Vec<u8>>) -> Answer {
    Answer::new(Said::Raw(bytes.into()))
}

/// No answer.
pub fn silent() -> Answer {
    any().cut_before_head(Cut::Silence)
}

/// What is not HTTP.
pub fn garbage() -> Answer {
    raw(b"\x16\x03\x01 SSH-2.0-OpenSSH_9.6\r\n\r\n".as_slice())
}

/// A body whose length is said in two ways: by these fields, behind a status line.
pub fn with_two_lengths(fields: &str) -> Answer {
    raw(format!("HTTP/1.1 200 OK\r\n{fields}\r\n2\r\n{{}}\r\n0\r\n\r\n"))
}

// === impl Answer ===

impl Answer {
    fn new(said: Said) -> Self {
        Self {
            reads: Reads::Whole,
            continues: true,
            said,
            tokens: TOKENS,
            interims: Vec::new(),
            fields: Vec::new(),
            retry_info: None,
            delay: Duration::ZERO,
            head_pace: None,
            pace: None,
            frames: Vec::new(),
            cut: None,
            is_held: false,
            is_unframed: false,
            has_comments: false,
            more: Vec::new(),
        }
    }

    /// As a stream or not, whatever was asked for.
    pub fn form(mut self, form: Form) -> Self {
        if let Said::Good(_, said) = &mut self.said {
            *said = form;
        }
        self
    }

    /// In this dialect.
    pub fn in_dialect(mut self, spoken: Dialect) -> Self {
        if let Said::Good(dialect, _) | Said::Status(_, dialect) = &mut self.said {
            *dialect = Some(spoken);
        }
        self
    }

    /// With so many tokens.
    pub fn tokens(mut self, tokens: usize) -> Self {
        self.tokens = tokens;
        self
    }

    /// With this field in its head.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Saying when to come back.
    pub fn hint(mut self, hint: Hint) -> Self {
        match hint {
            Hint::Seconds(seconds) => self.field("retry-after", &seconds.to_string()),
            Hint::Date(in_time) => self.field("retry-after", &date(in_time)),
            Hint::Milliseconds(count) => self.field("retry-after-ms", &count.to_string()),
            Hint::RetryInfo(delay) => {
                self.retry_info = Some(format!("{}s", delay.as_secs_f64()));
                self
            }
            Hint::Reset(dimension, reset) => self
                .field(&format!("x-ratelimit-limit-{dimension}"), "100")
                .field(&format!("x-ratelimit-remaining-{dimension}"), "0")
                .field(&format!("x-ratelimit-reset-{dimension}"), &reset),
        }
    }

    /// Before the request's body is read.
    pub fn early(mut self) -> Self {
        self.reads = Reads::Head;
        self
    }

    /// Without a word to a caller that waits for `100 Continue`.
    pub fn without_continue(mut self) -> Self {
        self.continues = false;
        self
    }

    /// Behind so many interim responses of this status.
    pub fn interims(mut self, status: u16, count: usize) -> Self {
        self.interims.extend(std::iter::repeat_n(status, count));
        self
    }

    /// After a while of silence.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// With one byte of its head, or of bytes that are no answer, in each such time.
    pub fn head_every(mut self, pace: Duration) -> Self {
        self.head_pace = Some(pace);
        self
    }

    /// With a wait before each piece of its body.
    pub fn every(mut self, pace: Duration) -> Self {
        self.pace = Some(pace);
        self
    }

    /// With a comment, as servers send them to keep a connection, in front of each event.
    pub fn comments(mut self) -> Self {
        self.has_comments = true;
        self
    }

    /// Behind these frames of HTTP/2.
    pub fn frames(mut self, frames: impl IntoIterator<Item = Frame>) -> Self {
        self.frames.extend(frames);
        self
    }

    /// With neither length nor chunks: its body ends with the connection.
    pub fn unframed(mut self) -> Self {
        self.is_unframed = true;
        self
    }

    /// With more bytes behind it, which belong to no answer.
    pub fn followed_by(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.more = bytes.into();
        self
    }

    /// Going wrong before its head.
    pub fn cut_before_head(self, cut: Cut) -> Self {
        self.cut_at(Point::BeforeHead, cut)
    }

    /// Going wrong behind its head.
    pub fn cut_after_head(self, cut: Cut) -> Self {
        self.cut_at(Point::Head, cut)
    }

    /// Going wrong behind so many pieces: events of a stream, quarters of a whole answer.
    pub fn cut_after_pieces(self, count: usize, cut: Cut) -> Self {
        self.cut_at(Point::Pieces(count), cut)
    }

    /// Going wrong behind so many tokens.
    pub fn cut_after_tokens(self, count: usize, cut: Cut) -> Self {
        self.cut_at(Point::Tokens(count), cut)
    }

    /// Going wrong where all but the end mark has been said.
    pub fn cut_before_end_mark(self, cut: Cut) -> Self {
        self.cut_at(Point::EndMark, cut)
    }

    /// Going wrong where all but the end of the framing has been said.
    pub fn cut_at_the_end(self, cut: Cut) -> Self {
        self.cut_at(Point::End, cut)
    }

    /// Waiting, before it goes wrong or ends, until the test says [`go`](crate::Faultd::go).
    pub fn held(mut self) -> Self {
        self.is_held = true;
        self
    }

    /// The pieces of its body where nothing goes wrong: events, or quarters of a whole answer.
    pub fn pieces(&self, request: &Request) -> Vec<Vec<u8>> {
        self.whole(request).map(|whole| whole.pieces).unwrap_or_default()
    }

    fn cut_at(mut self, point: Point, cut: Cut) -> Self {
        self.cut = Some((point, cut));
        self
    }

    /// What to do for this request.
    pub(crate) fn steps(&self, request: &Request) -> Vec<Step> {
        let mut steps = self.opening();
        if let Some((Point::BeforeHead, cut)) = &self.cut {
            steps.extend(self.is_held.then_some(Step::Hold));
            self.cut_steps(cut, None, request, &mut steps);
            return steps;
        }
        match (&self.said, self.whole(request)) {
            (_, Some(whole)) => self.told(whole, request, &mut steps),
            (Said::Raw(bytes), _) => {
                steps.push(match self.head_pace {
                    Some(every) => Step::Trickle(bytes.clone(), every),
                    None => Step::Raw(bytes.clone()),
                });
                steps.extend(self.is_held.then_some(Step::Hold));
                if let Some((_, cut)) = &self.cut {
                    self.cut_steps(cut, None, request, &mut steps);
                }
            }
            (Said::Good(..) | Said::Status(..), None) => {}
        }
        steps
    }

    /// What comes before the head.
    fn opening(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if !self.frames.is_empty() {
            steps.push(Step::Frames(self.frames.clone()));
        }
        let interim =
            |status: &u16| Step::Head { status: *status, fields: Vec::new(), every: None };
        steps.extend(self.interims.iter().map(interim));
        if !self.delay.is_zero() {
            steps.push(Step::Wait(self.delay));
        }
        steps
    }

    /// Head and body, as far as they go.
    fn told(&self, whole: Whole, request: &Request, steps: &mut Vec<Step>) {
        let until = match &self.cut {
            Some((Point::Pieces(count), _)) => *count,
            Some((Point::Tokens(count), _)) => whole.lead + count,
            Some((Point::EndMark, _)) => whole.before_end_mark,
            Some((Point::BeforeHead | Point::Head, _)) => 0,
            Some((Point::End, _)) | None => whole.pieces.len(),
        };
        let (before, behind) = whole.pieces.split_at(until.min(whole.pieces.len()));
        let (status, every) = (whole.status, self.head_pace);
        steps.push(Step::Head { status, fields: whole.fields, every });
        self.say(before, steps);
        steps.extend(self.is_held.then_some(Step::Hold));
        match &self.cut {
            Some((_, cut)) => self.cut_steps(cut, Some(behind), request, steps),
            None => steps.push(Step::End),
        }
        if !self.more.is_empty() {
            steps.push(Step::Raw(self.more.clone()));
        }
    }

    fn say(&self, pieces: &[Vec<u8>], steps: &mut Vec<Step>) {
        for piece in pieces {
            steps.extend(self.pace.map(Step::Wait));
            if self.has_comments {
                steps.push(Step::Data(b": keep-alive\n\n".to_vec()));
                steps.extend(self.pace.map(Step::Wait));
            }
            steps.push(Step::Data(piece.clone()));
        }
    }

    fn cut_steps(
        &self,
        cut: &Cut,
        behind: Option<&[Vec<u8>]>,
        request: &Request,
        steps: &mut Vec<Step>,
    ) {
        let is_begun = behind.is_some();
        let behind = behind.unwrap_or_default();
        match cut {
            Cut::No => {
                self.say(behind, steps);
                steps.push(Step::End);
            }
            Cut::Silence => steps.push(Step::Silence),
            Cut::Close => steps.push(Step::Close),
            Cut::HalfClose => steps.extend([Step::HalfClose, Step::Silence]),
            Cut::Reset => steps.push(Step::Reset),
            Cut::MidChunk => {
                let next = behind.first().cloned().unwrap_or_else(|| b"cut off".to_vec());
                steps.extend([Step::HalfData(next), Step::Close]);
            }
            Cut::BadFraming(bytes) => steps.extend([Step::Raw(bytes.clone()), Step::Silence]),
            Cut::CleanEnd => steps.push(Step::End),
            Cut::Error(trouble) => {
                let dialect = self.dialect(request);
                steps.extend([Step::Data(dialect.error_event(*trouble, request)), Step::End]);
            }
            Cut::Saying(bytes) => steps.extend([Step::Data(bytes.clone()), Step::End]),
            Cut::Corrupt => {
                let mut rest = behind.to_vec();
                if let Some(last) = rest.first_mut().and_then(|piece| piece.last_mut()) {
                    *last ^= 0x10;
                }
                self.say(&rest, steps);
                steps.push(Step::End);
            }
            Cut::ResetStream(code) => steps.push(Step::ResetStream(*code)),
            Cut::GoAway(last, code) => {
                steps.push(Step::GoAway { last: *last, code: *code });
                // Without a head there is nothing to go on with.
                if is_begun {
                    self.say(behind, steps);
                    steps.push(Step::End);
                }
            }
        }
    }

    fn dialect(&self, request: &Request) -> Dialect {
        match &self.said {
            Said::Good(Some(dialect), _) | Said::Status(_, Some(dialect)) => *dialect,
            _ => request.dialect(),
        }
    }

    /// The answer where nothing goes wrong; nothing where there is none.
    fn whole(&self, request: &Request) -> Option<Whole> {
        let dialect = self.dialect(request);
        let mut whole = match &self.said {
            Said::Raw(_) => return None,
            Said::Good(_, form) if is_streamed(*form, request) => self.stream(dialect, request),
            Said::Good(..) => whole(200, &dialect.whole(request, self.tokens)),
            Said::Status(status, _) => {
                let (body, field) = dialect.error(*status, self.retry_info.as_deref());
                let body = if *status >= 400 { body } else { "{}".to_owned() };
                let mut whole = whole(*status, &body);
                whole.fields.extend(field.filter(|_| *status >= 400));
                whole
            }
        };
        whole.fields.extend(self.fields.iter().cloned());
        if self.is_unframed {
            whole
                .fields
                .retain(|(name, _)| name != "content-length" && name != "transfer-encoding");
            whole.fields.push(("connection".to_owned(), "close".to_owned()));
        }
        Some(whole)
    }

    fn stream(&self, dialect: Dialect, request: &Request) -> Whole {
        let stream = dialect.stream(request, self.tokens);
        let lead = stream.lead.len();
        let mut pieces = [stream.lead, stream.tokens, stream.close].concat();
        let before_end_mark = pieces.len();
        pieces.extend(stream.end_mark);
        let fields = [("content-type", stream.content_type), ("transfer-encoding", "chunked")];
        Whole { status: 200, fields: owned(&fields), pieces, lead, before_end_mark }
    }
}

fn is_streamed(form: Form, request: &Request) -> bool {
    match form {
        Form::AsAsked => request.asks_for_stream(),
        Form::Streamed => true,
        Form::Whole => false,
    }
}

/// An answer of known length, in a few pieces.
fn whole(status: u16, body: &str) -> Whole {
    let length = body.len().to_string();
    let fields = [("content-type", "application/json"), ("content-length", length.as_str())];
    let size = body.len().div_ceil(PIECES).max(1);
    let pieces: Vec<_> = body.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
    let before_end_mark = pieces.len();
    Whole { status, fields: owned(&fields), pieces, lead: 0, before_end_mark }
}

fn owned(fields: &[(&str, &str)]) -> Fields {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The date of a moment to come, as HTTP writes it.
fn date(in_time: Duration) -> String {
    let moment = jiff::Timestamp::try_from(SystemTime::now() + in_time).unwrap_or_default();
    let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
    printer.timestamp_to_rfc9110_string(&moment).unwrap_or_default()
}
