//! What was said in a call, out of the bytes that were kept of it: cuts change nothing, and no more
//! comes out than went in.

use http::{HeaderMap, HeaderValue};
use tidegate_wire::content::{Budget, Content, MAX_BODY, Message, Messages, Part};

use crate::encoded::gzip;
use crate::frames;
use crate::input::{Input, cut};

/// One of each interface.
pub(crate) const PATHS: &[&str] = &[
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1beta/models/gemini:streamGenerateContent",
    "/v1/projects/p/locations/l/publishers/anthropic/models/m:streamRawPredict",
    "/model/m/converse-stream",
    "/model/anthropic.claude/invoke-with-response-stream",
    "/model/amazon.nova/invoke-with-response-stream",
    "/model/m/invoke",
    "/generate",
];
pub(crate) const CONTENT_TYPES: &[&str] = &[
    "application/json",
    "text/event-stream",
    "application/vnd.amazon.eventstream",
    "",
    "application/vnd.amazon.eventstream; raw",
];
/// Choices: both bodies are compressed by the target.
const COMPRESSED: u8 = 1;
/// Choices: they are called compressed, as they come.
const CALLED_COMPRESSED: u8 = 2;
/// Choices: little may be kept of all bodies.
const LITTLE: u8 = 4;
/// Choices: the reply is longer than what is kept of one.
const LONG: u8 = 8;

const ENOUGH: usize = 4 * MAX_BODY;

/// A call as an input states it: choices, then the request and the reply.
struct Call {
    path: &'static str,
    headers: HeaderMap,
    request: Vec<u8>,
    reply: Vec<u8>,
}

pub(crate) fn content(data: &[u8]) {
    let mut input = Input::new(data);
    let (path, content_type) = (input.pick(PATHS), input.pick(CONTENT_TYPES));
    let (choices, seed, length) = (input.byte(), input.short(), input.short());
    let request = input.take(length.into());
    let reply = match content_type {
        "application/vnd.amazon.eventstream" => frames::encode(input.rest()),
        _ => input.rest().to_vec(),
    };
    let call = Call::new(path, content_type, choices, request, reply);
    let enough = call.messages(ENOUGH, |bytes| vec![bytes]);
    assert_eq!(call.messages(ENOUGH, |bytes| cut(seed, bytes)), enough, "cut");
    call.check_size(&enough);
    if choices & LITTLE != 0 {
        let little = call.messages(usize::from(seed), |bytes| cut(seed, bytes));
        call.check_size(&little);
        let is_short = usize::from(seed) < call.request.len() + call.reply.len();
        assert!(little.is_truncated || !is_short, "what is left out is said");
    }
}

impl Call {
    fn new(
        path: &'static str,
        content_type: &'static str,
        choices: u8,
        request: &[u8],
        reply: Vec<u8>,
    ) -> Self {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert("content-type", HeaderValue::from_static(content_type));
        }
        if choices & (COMPRESSED | CALLED_COMPRESSED) != 0 {
            headers.insert("content-encoding", HeaderValue::from_static("gzip"));
        }
        let reply = match choices & LONG {
            0 => reply,
            _ => reply.repeat(1 + MAX_BODY / (reply.len() + 1)),
        };
        let encode = |bytes: &[u8]| match choices & COMPRESSED {
            0 => bytes.to_vec(),
            _ => gzip(bytes, 6),
        };
        Self { path, headers, request: encode(request), reply: encode(&reply) }
    }

    /// What was said, where so much may be kept and the bodies come in these parts.
    fn messages(&self, may_keep: usize, parts: impl Fn(&[u8]) -> Vec<&[u8]>) -> Messages {
        let budget = Budget::new(may_keep);
        let mut content = Content::of(self.path, &self.headers, &budget).expect("it has content");
        parts(&self.request).into_iter().for_each(|part| content.request(part));
        content.head(&self.headers);
        parts(&self.reply).into_iter().for_each(|part| content.response(part));
        assert!(may_keep - budget.left() <= 2 * MAX_BODY, "no more is kept");
        let messages = content.messages();
        drop(content);
        assert_eq!(budget.left(), may_keep, "what was kept is given back");
        let is_long = self.request.len().max(self.reply.len()) > MAX_BODY;
        assert!(messages.is_truncated || !is_long, "what is left out is said");
        messages
    }

    fn check_size(&self, messages: &Messages) {
        let is_encoded = self.headers.contains_key("content-encoding");
        let most = |body: &[u8]| if is_encoded { MAX_BODY } else { body.len().min(MAX_BODY) };
        let said = messages.system.iter().map(size).sum::<usize>()
            + messages.input.iter().chain(&messages.output).map(message_size).sum::<usize>()
            + messages.tools.iter().map(|tool| tool.to_string().len()).sum::<usize>();
        // A number may be written in more digits, and an empty object by its keys.
        let most = 16 * (most(&self.request) + most(&self.reply));
        assert!(said <= most, "{said} bytes");
    }
}

fn message_size(message: &Message) -> usize {
    assert!(message.to_json().is_object());
    let reason = message.finish_reason.as_ref().map_or(0, String::len);
    reason + message.parts.iter().map(size).sum::<usize>()
}

fn size(part: &Part) -> usize {
    assert!(part.to_json().is_object());
    let id = |id: &Option<String>| id.as_ref().map_or(0, String::len);
    match part {
        Part::Text(text) | Part::Reasoning(text) => text.len(),
        Part::ToolCall { id: of, name, arguments } => id(of) + name.len() + arguments.len(),
        Part::ToolResponse { id: of, response } => id(of) + response.to_string().len(),
        Part::Media { mime_type, .. } => id(mime_type),
    }
}
