//! What the body of a request says: the model, whether to stream, what else it asks for, and what
//! it carries beside text.
//!
//! It is read once, as it passes, and never held. What it does not state, or states in a type that
//! is not its own, stays absent; no text of it is kept but a few short ones that are settings.

mod media;
mod picture;
mod tables;

use std::sync::Arc;

use crate::dialect::Asks;
use crate::json::{Reader, Scalar, Sink};
use crate::words::word;
use crate::{Asked, Media, Record, Shape};

use tables::VEO;
pub(crate) use tables::{Asking, UNKNOWN, asking};

use media::{Kind, Piece};
use picture::Size;

/// Texts of a list that are kept.
const MAX_LIST: usize = 8;
/// Bytes that are kept of each.
const MAX_ITEM: usize = 64;
/// Bytes that are kept of an id.
const MAX_ID: usize = 256;
/// Pixels that a side of a picture for Veo should have.
const MIN_SIDE: u32 = 512;
/// Seconds that a video of Veo may have.
const MAX_LENGTH: f64 = 8.0;

/// What a path of a request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The model that is to answer.
    Model,
    /// Whether to stream.
    Stream,
    /// The parameters, by the names of [`Asked`].
    MaxTokens,
    Temperature,
    TopP,
    TopK,
    FrequencyPenalty,
    PresencePenalty,
    Seed,
    Choices,
    Stop,
    Encoding,
    Dimensions,
    Conversation,
    ServiceTier,
    Guardrail,
    /// What the answer is to be: a type, a modality or a MIME type.
    Format,
    /// The end of a schema that the answer is to follow.
    Schema,
    /// There is a message.
    Message,
    /// There is a tool.
    Tool,
    /// There is a tool, in a group of tools.
    GroupedTool,
    /// The group has a list, be it empty.
    ToolList,
    /// The end of a group: by itself a tool where nothing in it is one.
    ToolGroup,
    /// The part at hand is of this kind.
    Is(Kind),
    /// The word for its kind.
    PartType,
    /// Its MIME type.
    Mime,
    /// Where its content comes from; `text` is none that was encoded.
    SourceType,
    /// Its content.
    Data,
    /// A link to it, or a data URL that holds it.
    Url(Kind),
    /// The content of a file: a data URL or base64.
    File,
    /// The end of a part of a message, which may be something or mere text.
    Part,
    /// The end of an object of this kind.
    Object(Kind),
    /// A text that is something of this kind by itself.
    Item(Kind),
    /// The content of a picture for Veo.
    Frame,
    /// A text that is such a picture by itself.
    FrameText,
    /// The length of each video, in seconds.
    VideoLength,
    /// How many videos.
    VideoCount,
    /// The name of the long-running operation that is asked for.
    JobName,
}

/// A request whose body is read as it passes.
#[derive(Debug)]
pub(crate) struct Request {
    asks: Asks,
    asking: Option<&'static Asking>,
    /// Where the reader stands; there is none before the first byte and after the last that matters.
    pass: Option<Box<Pass>>,
    said: Said,
}

/// What is needed only while the body passes.
#[derive(Debug)]
struct Pass {
    reader: Reader<Ask>,
    piece: Piece,
    /// Tools of the group at hand.
    group: Group,
}

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    tools: u64,
    has_list: bool,
}

/// What has been said.
#[derive(Debug, Default)]
struct Said {
    model: Option<String>,
    stream: Option<bool>,
    output: Option<Output>,
    asked: Option<Box<Asked>>,
    media: Option<Box<Media>>,
    video: Option<Box<VideoAsked>>,
    job_name: Option<String>,
    has_small_picture: bool,
    /// The head names no model, or the body knows better.
    takes_model: bool,
    /// Veo makes no long videos.
    is_for_veo: bool,
    /// No dialect knows the call: only the model is asked.
    is_unknown: bool,
    is_whole: bool,
}

/// What a request for videos asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct VideoAsked {
    /// The length of each, in seconds.
    pub(crate) length: Option<f64>,
    /// How many.
    pub(crate) count: Option<u64>,
}

/// What an answer is to be; where several are asked for, the last of these names it best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Output {
    Text,
    Json,
    Image,
    Speech,
}

/// Where the reader puts what it finds.
struct Finder<'a> {
    said: &'a mut Said,
    piece: &'a mut Piece,
    group: &'a mut Group,
}

// === impl Request ===

impl Request {
    pub(crate) fn new(shape: &Shape) -> Self {
        let takes_model = shape.asks.model || shape.model.is_none();
        let is_for_veo = shape.asking.is_some_and(|asking| std::ptr::eq(asking, &VEO));
        let is_unknown = shape.asking.is_some_and(|asking| std::ptr::eq(asking, &UNKNOWN));
        let said = Said { takes_model, is_for_veo, is_unknown, ..Said::default() };
        Self { asks: shape.asks, asking: shape.asking, pass: None, said }
    }

    pub(crate) fn chunk(&mut self, bytes: &[u8]) {
        let Some(asking) = self.asking else { return };
        let Pass { reader, piece, group } =
            &mut **self.pass.get_or_insert_with(|| Box::new(Pass::new(asking)));
        let mut finder = Finder { said: &mut self.said, piece, group };
        let is_broken = reader.feed(bytes, &mut finder).is_err();
        if is_broken || self.said.is_over() {
            self.asking = None;
            self.pass = None;
        }
    }

    /// Whether more of the body could say something.
    pub(crate) fn reads(&self) -> bool {
        self.asking.is_some()
    }

    pub(crate) fn awaits_model(&self) -> bool {
        self.reads() && self.asks.model && self.said.model.is_none()
    }

    pub(crate) fn model(&self) -> Option<&str> {
        self.said.model.as_deref()
    }

    /// Whether to stream: where a body that was read to its end does not say, the default holds.
    pub(crate) fn stream(&self, by_default: bool) -> Option<bool> {
        let default = (self.asks.stream && self.said.is_whole).then_some(by_default);
        self.said.stream.or(default)
    }

    /// The parameters that it has stated so far.
    pub(crate) fn asked(&self) -> Option<&Asked> {
        self.said.asked.as_deref()
    }

    /// The most output tokens that it asks for, all choices together.
    pub(crate) fn max_output_tokens(&self) -> Option<u64> {
        let asked = self.said.asked.as_deref()?;
        Some(asked.max_tokens?.saturating_mul(asked.choice_count.unwrap_or(1)))
    }

    /// The long-running operation that it asks for.
    pub(crate) fn job_name(&self) -> Option<&str> {
        self.said.job_name.as_deref()
    }

    /// What it says of the videos that it asks for.
    pub(crate) fn video(&self) -> VideoAsked {
        self.said.video.as_deref().copied().unwrap_or_default()
    }

    /// Puts into the record what it asks for and carries.
    pub(crate) fn fill(&mut self, guardrail: Option<&str>, record: &mut Record) {
        let said = &mut self.said;
        let mut asked = said.asked.take();
        if let Some(output) = said.output {
            asked.get_or_insert_default().output_type = Some(word(output.as_str()));
        }
        if let Some(guardrail) = guardrail {
            asked.get_or_insert_default().guardrail_id = Some(guardrail.to_owned());
        }
        // Of a body that did not come whole nobody knows how much there was.
        if let (false, Some(asked)) = (said.is_whole, &mut asked) {
            (asked.messages, asked.tools) = (None, None);
        }
        record.asked = asked.filter(|asked| **asked != Asked::default());
        record.media = said.media.take().filter(|_| said.is_whole);
        record.warnings.extend(said.warnings());
    }
}

// === impl Pass ===

impl Pass {
    fn new(asking: &'static Asking) -> Self {
        Self { reader: Reader::new(asking), piece: Piece::default(), group: Group::default() }
    }
}

// === impl Said ===

impl Said {
    /// Whether nothing more counts, wherever the body is cut: the document has ended, and what
    /// follows it belongs to nothing; or all is known that is asked.
    fn is_over(&self) -> bool {
        self.is_whole || self.is_unknown && self.model.is_some()
    }

    fn asked(&mut self) -> &mut Asked {
        self.asked.get_or_insert_default()
    }

    fn text(&mut self, ask: Ask, text: &[u8]) {
        match ask {
            // What is said first holds: nobody may have waited for more.
            Ask::Model if self.takes_model => {
                self.model.get_or_insert_with(|| String::from_utf8_lossy(text).into_owned());
            }
            Ask::Stop => keep(&mut self.asked().stop_sequences, text),
            Ask::Encoding => keep(&mut self.asked().encoding_formats, text),
            Ask::Conversation => self.asked().conversation_id = Some(cut(text, MAX_ID)),
            Ask::ServiceTier => self.asked().service_tier = Some(cut(text, MAX_ITEM)),
            Ask::Guardrail => self.asked().guardrail_id = Some(cut(text, MAX_ID)),
            Ask::Format => self.output = self.output.max(Output::of(text)),
            // Some write numbers as text, and some with their unit.
            Ask::VideoLength => self.video().length = seconds(text),
            Ask::VideoCount => self.video().count = whole(text),
            Ask::JobName => self.job_name = Some(String::from_utf8_lossy(text).into_owned()),
            _ => {}
        }
    }

    fn number(&mut self, ask: Ask, text: &[u8]) {
        match ask {
            Ask::MaxTokens => self.asked().max_tokens = whole(text),
            Ask::Temperature => self.asked().temperature = real(text),
            Ask::TopP => self.asked().top_p = real(text),
            Ask::TopK => self.asked().top_k = real(text),
            Ask::FrequencyPenalty => self.asked().frequency_penalty = real(text),
            Ask::PresencePenalty => self.asked().presence_penalty = real(text),
            Ask::Seed => self.asked().seed = integer(text),
            Ask::Choices => self.asked().choice_count = whole(text).filter(|count| *count != 1),
            Ask::Dimensions => self.asked().dimensions = whole(text),
            Ask::VideoLength => self.video().length = seconds(text),
            Ask::VideoCount => self.video().count = whole(text),
            _ => {}
        }
    }

    fn video(&mut self) -> &mut VideoAsked {
        self.video.get_or_insert_default()
    }

    fn tools(&mut self, count: u64) {
        let tools = &mut self.asked().tools;
        *tools = Some(tools.unwrap_or(0).saturating_add(count));
    }

    fn looks_at(&mut self, size: Option<Size>) {
        self.has_small_picture |=
            size.is_some_and(|Size(width, height)| width.min(height) < MIN_SIDE);
    }

    fn warnings(&self) -> impl Iterator<Item = Arc<str>> + use<> {
        let length = self.video.as_deref().and_then(|video| video.length);
        let is_long = self.is_for_veo && length.is_some_and(|length| length > MAX_LENGTH);
        let small = self.has_small_picture.then(|| word("image_under_512px"));
        small.into_iter().chain(is_long.then(|| word("video_over_8s")))
    }
}

// === impl Finder ===

impl Finder<'_> {
    fn is_over(&self) -> bool {
        self.said.is_over()
    }

    /// The piece at hand is whole.
    fn piece_ended(&mut self) {
        let size = self.piece.end(&mut self.said.media);
        self.said.looks_at(size);
    }
}

impl Sink<Ask> for Finder<'_> {
    fn value(&mut self, ask: Ask, value: Scalar<'_>) {
        if self.is_over() {
            return;
        }
        match (ask, value) {
            (Ask::PartType, Scalar::Text(text)) => {
                if let Some(kind) = Kind::of_part(text) {
                    self.piece.is(kind);
                }
            }
            (Ask::Mime, Scalar::Text(text)) => self.piece.is(Kind::of_mime(text)),
            (Ask::SourceType, Scalar::Text(b"text")) => self.piece.is_text(),
            (_, Scalar::Text(b"")) => {}
            (_, Scalar::Text(text)) => self.said.text(ask, text),
            (_, Scalar::Number(text)) => self.said.number(ask, text),
            (Ask::Stream, Scalar::Bool(stream)) => _ = self.said.stream.get_or_insert(stream),
            _ => {}
        }
    }

    fn seen(&mut self, ask: Ask) {
        if self.is_over() {
            return;
        }
        match ask {
            Ask::Message => {
                let messages = &mut self.said.asked().messages;
                *messages = Some(messages.unwrap_or(0).saturating_add(1));
            }
            Ask::Tool => self.said.tools(1),
            Ask::GroupedTool => self.group.tools = self.group.tools.saturating_add(1),
            Ask::ToolList => self.group.has_list = true,
            Ask::Is(kind) => self.piece.is(kind),
            _ => {}
        }
    }

    fn fragment(&mut self, ask: Ask, bytes: &[u8]) {
        if self.is_over() {
            return;
        }
        match ask {
            Ask::Data => self.piece.data(bytes),
            Ask::Frame => {
                self.piece.watch();
                self.piece.data(bytes);
            }
            Ask::FrameText => {
                self.piece.is(Kind::Image);
                self.piece.watch();
                self.piece.text(bytes, true);
            }
            Ask::Url(kind) => {
                self.piece.is(kind);
                self.piece.text(bytes, false);
            }
            Ask::Item(kind) => {
                self.piece.is(kind);
                self.piece.text(bytes, true);
            }
            Ask::File => self.piece.text(bytes, true),
            _ => {}
        }
    }

    fn ended(&mut self, ask: Ask) {
        if let (false, Ask::Item(_) | Ask::FrameText) = (self.is_over(), ask) {
            self.piece_ended();
        }
    }

    fn closed(&mut self, ask: Ask, _: u32) {
        if self.is_over() {
            return;
        }
        match ask {
            Ask::Part => self.piece_ended(),
            Ask::Schema => self.said.output = self.said.output.max(Some(Output::Json)),
            Ask::Object(kind) => {
                self.piece.is(kind);
                self.piece_ended();
            }
            Ask::ToolGroup => {
                let group = std::mem::take(self.group);
                self.said.tools(if group.has_list { group.tools } else { group.tools.max(1) });
            }
            _ => {}
        }
    }

    fn item(&mut self) {
        self.said.is_whole = true;
    }
}

// === impl Output ===

impl Output {
    /// By the words of OpenAI and Google, and by MIME type.
    fn of(text: &[u8]) -> Option<Self> {
        const KNOWN: [(&str, Output); 10] = [
            ("text", Output::Text),
            ("text/plain", Output::Text),
            ("text/x.enum", Output::Text),
            ("json", Output::Json),
            ("json_object", Output::Json),
            ("json_schema", Output::Json),
            ("application/json", Output::Json),
            ("image", Output::Image),
            ("audio", Output::Speech),
            ("speech", Output::Speech),
        ];
        let is = |word: &str| word.as_bytes().eq_ignore_ascii_case(text);
        KNOWN.iter().find(|(word, _)| is(word)).map(|(_, output)| *output)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Image => "image",
            Self::Speech => "speech",
        }
    }
}

/// A text of a list, while there is room.
fn keep(list: &mut Vec<String>, text: &[u8]) {
    if list.len() < MAX_LIST {
        list.push(cut(text, MAX_ITEM));
    }
}

/// A text, cut off where it is long.
fn cut(text: &[u8], most: usize) -> String {
    let mut text = String::from_utf8_lossy(text).into_owned();
    text.truncate(text.floor_char_boundary(most));
    text
}

fn real(text: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    number.is_finite().then_some(number)
}

/// A whole number, `6.0` among them, that is not negative.
fn whole(text: &[u8]) -> Option<u64> {
    let is_whole = real(text)?.fract() == 0.0;
    Scalar::Number(text).count().filter(|_| is_whole)
}

fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds, which may be written with their unit.
pub(crate) fn seconds(text: &[u8]) -> Option<f64> {
    real(text.strip_suffix(b"s").unwrap_or(text)).filter(|seconds| *seconds > 0.0)
}
