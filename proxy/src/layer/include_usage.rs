//! Has streams state their usage, where a route asks for it and the caller did not.
//!
//! OpenAI's interface for chat and completions leaves the usage out of a stream unless the request
//! says `stream_options.include_usage`. On such a route this is added to the body, and nothing else
//! of it moves; the one chunk more that the answer then has is taken out again. What the caller
//! gets is what it would have got, but for a `"usage":null` that some providers put into the other
//! chunks. The answer says so in a field of its own.
//!
//! A body must be known whole for this. One that cannot be held or changed goes on as it is, and
//! its record says so.

use std::rc::Rc;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use tower::ServiceExt;

use crate::bypass::Bypass;
use crate::call::{Call, Failure, Reply, ReplyBody, RequestBody};
use crate::head::{RequestHead, ResponseHead};
use crate::hold::Keeping;
use crate::layer::{Below, Policy};
use crate::stack::LocalFuture;
use crate::whole;

mod filter;

pub(crate) use filter::{Filter, Filtered};

/// The field by which an answer says that it was asked for its usage.
const FIELD: &str = "x-tidegate-include-usage";
/// The warning in the record of a call that may lack it, for its body could not be changed.
const NOT_ADDED: &str = "include_usage_not_added";

/// Whether streams are asked for their usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IncludeUsage {
    /// As the caller says.
    #[default]
    Keep,
    /// Where the caller says nothing, too.
    Add,
}

/// Asks streams for their usage; absent where they are left as they are.
#[derive(Clone, Debug)]
pub(crate) struct IncludeUsageLayer(pub(crate) Option<Arc<Keeping>>);

impl<S: Below> Policy<S> for IncludeUsageLayer {
    fn call(&self, below: &mut S, mut call: Call) -> LocalFuture {
        let Some(keeping) = self.0.as_ref().filter(|_| may_leave_usage_out(&call)) else {
            return below.call(call);
        };
        let is_open = !is_sealed(&call.head);
        if is_open && !whole::has_come(&call, keeping) {
            return Box::pin(read_and_ask(keeping.clone(), below.clone(), call));
        }
        let is_added = ask(&mut call, is_open);
        let reply = below.call(call);
        match is_added {
            true => Box::pin(async { reply.await.map(without_usage_chunk) }),
            false => reply,
        }
    }

    /// Whether it would have changed the body shows only once that is held, which it is not.
    fn look_on(&self, below: &mut S, call: Call, _: Rc<Bypass>) -> LocalFuture {
        below.call(call)
    }
}

/// Asks for the usage once the body has come.
async fn read_and_ask<S: Below>(
    keeping: Arc<Keeping>,
    below: S,
    mut call: Call,
) -> Result<Reply, Failure> {
    let is_whole = whole::read_ahead(&mut call, &keeping).await?;
    let is_added = ask(&mut call, is_whole);
    let reply = below.oneshot(call).await?;
    Ok(if is_added { without_usage_chunk(reply) } else { reply })
}

/// Whether this is a call of the interface whose streams leave the usage out.
fn may_leave_usage_out(call: &Call) -> bool {
    let is_empty = matches!(*call.body, RequestBody::Empty);
    call.head.method == http::Method::POST
        && call.head.target.path().ends_with("/completions")
        && !is_empty
}

// === the request ===

/// Asks for the usage, if the call is for a stream and says nothing of it; its body can be changed
/// where it is there whole.
fn ask(call: &mut Call, is_whole: bool) -> bool {
    if !is_whole {
        call.notes.record(|record| record.warnings.push(NOT_ADDED.into()));
        return false;
    }
    let Some(asking) = whole::look(call, asking) else { return false };
    whole::replace(call, asking);
    // In an answer that is encoded nobody could find the chunk.
    let fields = &call.head.fields;
    if fields.get("accept-encoding").is_some() {
        call.head.fields = fields.with("accept-encoding", b"identity");
    }
    true
}

/// Whether the body cannot be changed without anybody noticing: it is encoded, or something else
/// vouches for it.
fn is_sealed(head: &RequestHead) -> bool {
    const SEALS: [&str; 5] =
        ["content-encoding", "content-md5", "digest", "content-digest", "x-amz-content-sha256"];
    let signature = head.fields.get("authorization").unwrap_or_default();
    signature.starts_with(b"AWS4") || SEALS.iter().any(|name| head.fields.get(name).is_some())
}

/// What a request says of its usage.
#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    stream: Option<bool>,
    /// Absent, null, or what it says.
    #[serde(default, deserialize_with = "stated")]
    stream_options: Option<Option<StreamOptions>>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default, deserialize_with = "stated")]
    include_usage: Option<IgnoredAny>,
}

fn stated<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The same body with the question for its usage in it; `None` where it does not ask for a stream,
/// says something of its usage, or is not to be understood.
pub(crate) fn asking(body: &[u8]) -> Option<Vec<u8>> {
    let request: Request = serde_json::from_slice(body).ok()?;
    let (at, question) = match (request.stream, request.stream_options) {
        (Some(true), None) => {
            let start = body.iter().position(|byte| !byte.is_ascii_whitespace())?;
            (after(body, start, b'{')?, &br#""stream_options":{"include_usage":true},"#[..])
        }
        (Some(true), Some(Some(StreamOptions { include_usage: None }))) => {
            let at = within_options(body)?;
            let rest = body[at..].trim_ascii_start();
            let is_empty = rest.first() == Some(&b'}');
            (
                at,
                if is_empty {
                    &br#""include_usage":true"#[..]
                } else {
                    br#""include_usage":true,"#
                },
            )
        }
        _ => return None,
    };
    let asking = [&body[..at], question, &body[at..]].concat();
    // The place was found by its name alone: it counts if what stands there now is understood.
    let understood: Request = serde_json::from_slice(&asking).ok()?;
    let is_asked = understood.stream_options.flatten()?.include_usage.is_some();
    is_asked.then_some(asking)
}

/// Behind the brace of the only `stream_options` of a body.
fn within_options(body: &[u8]) -> Option<usize> {
    const NAME: &[u8] = br#""stream_options""#;
    let mut places = memchr::memmem::find_iter(body, NAME);
    let (place, None) = (places.next()?, places.next()) else { return None };
    let skipped = |from: usize| {
        let blanks = body[from..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        from + blanks
    };
    let behind = after(body, skipped(place + NAME.len()), b':')?;
    after(body, skipped(behind), b'{')
}

/// The place behind this byte, if it stands there.
fn after(body: &[u8], at: usize, byte: u8) -> Option<usize> {
    (body.get(at) == Some(&byte)).then_some(at + 1)
}

// === the answer ===

/// The answer without what we asked for.
fn without_usage_chunk(reply: Reply) -> Reply {
    let Reply { mut head, body } = reply;
    let is_encoded = head.fields.get("content-encoding").is_some_and(|coding| {
        let coding = coding.trim_ascii();
        !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")
    });
    let is_stream = (200..300).contains(&head.status) && is_event_stream(&head);
    if is_stream && is_encoded {
        head.fields = head.fields.with(FIELD, b"added; left in an encoded answer");
        return Reply { head, body };
    }
    head.fields = head.fields.with(FIELD, b"added");
    if !is_stream {
        return Reply { head, body };
    }
    // Its length is not known any more.
    head.fields = head.fields.without("content-length").without("transfer-encoding");
    Reply { head, body: ReplyBody::Filtered(Box::new(Filtered::new(body))) }
}

fn is_event_stream(head: &ResponseHead) -> bool {
    const KIND: &[u8] = b"text/event-stream";
    let kind = head.fields.get("content-type").unwrap_or_default();
    kind.get(..KIND.len()).is_some_and(|start| start.eq_ignore_ascii_case(KIND))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::head::Fields;

    #[track_caller]
    fn assert_asks(body: &str, expected: Option<&str>) {
        let asked = asking(body.as_bytes()).map(|body| String::from_utf8(body).expect("text"));
        assert_eq!(asked.as_deref(), expected, "{body}");
    }

    #[test]
    fn a_stream_that_says_nothing_of_its_usage_is_asked_for_it_and_nothing_else_moves() {
        assert_asks(
            r#" {"model":"m", "stream" : true}"#,
            Some(r#" {"stream_options":{"include_usage":true},"model":"m", "stream" : true}"#),
        );
        assert_asks(
            r#"{"stream":true,"stream_options" : { "a":1 }}"#,
            Some(r#"{"stream":true,"stream_options" : {"include_usage":true, "a":1 }}"#),
        );
        assert_asks(
            r#"{"stream":true,"stream_options":{ }}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true }}"#),
        );
    }

    #[test]
    fn what_says_something_of_its_usage_is_left_alone() {
        for body in [
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":false}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":null}}"#,
            r#"{"stream":true,"stream_options":null}"#,
            r#"{"stream":true,"stream\u005foptions":{"include_usage":false}}"#,
        ] {
            assert_asks(body, None);
        }
    }

    #[test]
    fn what_is_no_stream_or_cannot_be_understood_is_left_alone() {
        for body in [
            "",
            "{}",
            "[true]",
            r#"{"stream":false}"#,
            r#"{"stream":null}"#,
            r#"{"stream":"true"}"#,
            r#"{"a":{"stream":true}}"#,
            r#"{"stream":true"#,
            r#"{"stream":true}}"#,
            r#"{"stream":true,"stream":false}"#,
            r#"{"stream":true,"stream_options":[]}"#,
            r#"{"stream":true,"stream_options":{"a":1},"stream_options":{}}"#,
            r#"{"a":"\"stream_options\":{","stream":true,"stream_options":"x"}"#,
            // The name stands somewhere else, and where it counts it is spelled otherwise.
            r#"{"a":{"stream_options":{}},"stream":true,"stream\u005foptions":{}}"#,
            r#"{"a":{"stream_options":{}},"stream":true,"stream_options":{}}"#,
        ] {
            assert_asks(body, None);
        }
    }

    #[test]
    fn a_name_within_a_text_is_no_name() {
        assert_asks(
            r#"{"a":"\"stream_options\":{}","stream":true,"stream_options":{}}"#,
            Some(
                r#"{"a":"\"stream_options\":{}","stream":true,"stream_options":{"include_usage":true}}"#,
            ),
        );
    }

    #[test]
    fn a_body_that_something_vouches_for_is_not_changed() {
        let head = |name: &str, value: &str| RequestHead {
            method: http::Method::POST,
            target: crate::head::Target::new(Bytes::from_static(b"/")),
            authority: Bytes::new(),
            version: http::Version::HTTP_11,
            fields: Fields::default().with(name, value.as_bytes()),
            upgrades: false,
            is_absolute: false,
            meant: None,
            shown: None,
        };
        assert!(is_sealed(&head("Authorization", "AWS4-HMAC-SHA256 Credential=a")));
        assert!(is_sealed(&head("content-encoding", "gzip")));
        assert!(is_sealed(&head("Content-Digest", "sha-256=:a:")));
        assert!(!is_sealed(&head("authorization", "Bearer AWS4")));
    }
}
