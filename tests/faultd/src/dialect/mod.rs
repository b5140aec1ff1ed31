//! Good answers and errors in the words of each interface, every token with a text of its own.

mod anthropic;
mod bedrock;
mod generate;
mod google;
mod openai;

use crate::request::Request;

/// An interface that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Chat completions of OpenAI, and of all who speak like it.
    OpenAi,
    /// Messages of Anthropic, and Claude on Vertex AI.
    Anthropic,
    /// `generateContent` of Vertex AI and the Gemini API.
    Vertex,
    /// Converse and InvokeModel of Bedrock.
    Bedrock,
    /// `/generate` of simple model servers.
    Generate,
}

/// What an upstream says went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Too many callers.
    Overloaded,
    /// Too many calls of this caller.
    RateLimited,
    /// Something else.
    Internal,
}

/// A stream as it would be said without a fault.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) content_type: &'static str,
    /// What comes before the first token.
    pub(crate) lead: Vec<Vec<u8>>,
    /// One token each.
    pub(crate) tokens: Vec<Vec<u8>>,
    /// What comes behind the last token.
    pub(crate) close: Vec<Vec<u8>>,
    /// What says that this was all.
    pub(crate) end_mark: Option<Vec<u8>>,
}

/// The text of the token of this number, which counts from 1; no other has it.
pub fn token(number: usize) -> String {
    format!("tide-{number} ")
}

/// The texts of so many tokens.
fn text(tokens: usize) -> String {
    (1..=tokens).map(token).collect()
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::OpenAi, Self::Anthropic, Self::Vertex, Self::Bedrock, Self::Generate];

    /// Its name in scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Vertex => "vertex",
            Self::Bedrock => "bedrock",
            Self::Generate => "generate",
        }
    }

    /// A stream of so many tokens.
    pub(crate) fn stream(self, request: &Request, tokens: usize) -> Stream {
        match self {
            Self::OpenAi => openai::stream(tokens),
            Self::Anthropic => anthropic::stream(tokens),
            Self::Vertex if request.target.contains("alt=sse") => google::events(tokens),
            Self::Vertex => google::array(tokens),
            Self::Bedrock if request.target.contains("/converse") => bedrock::converse(tokens),
            Self::Bedrock => bedrock::invoke(tokens),
            Self::Generate => generate::stream(tokens),
        }
    }

    /// A whole answer of so many tokens.
    pub(crate) fn whole(self, request: &Request, tokens: usize) -> String {
        match self {
            Self::OpenAi => openai::whole(tokens),
            Self::Anthropic => anthropic::whole(tokens),
            Self::Vertex => google::whole(tokens),
            Self::Bedrock if request.target.ends_with("/converse") => {
                bedrock::converse_whole(tokens)
            }
            Self::Bedrock => anthropic::whole(tokens),
            Self::Generate => generate::whole(tokens),
        }
    }

    /// An error within a stream that has begun.
    pub(crate) fn error_event(self, trouble: Trouble, request: &Request) -> Vec<u8> {
        match self {
            Self::OpenAi => openai::error_event(trouble),
            Self::Generate => generate::error_line(trouble),
            Self::Anthropic => anthropic::error_event(trouble),
            Self::Vertex => google::error_event(trouble, request.target.contains("alt=sse")),
            Self::Bedrock => bedrock::exception(trouble),
        }
    }

    /// An error in place of an answer: its body, and a field that goes with it.
    pub(crate) fn error(
        self,
        status: u16,
        retry_info: Option<&str>,
    ) -> (String, Option<(String, String)>) {
        match self {
            Self::OpenAi | Self::Generate => (openai::error(status), None),
            Self::Anthropic => (anthropic::error(status), None),
            Self::Vertex => (google::error(status, retry_info), None),
            Self::Bedrock => {
                let (body, kind) = bedrock::error(status);
                (body, Some(("x-amzn-ErrorType".to_owned(), kind.to_owned())))
            }
        }
    }
}

/// An event of a stream of server-sent events.
fn event(name: Option<&str>, data: &serde_json::Value) -> Vec<u8> {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n").into_bytes(),
        None => format!("data: {data}\n\n").into_bytes(),
    }
}
