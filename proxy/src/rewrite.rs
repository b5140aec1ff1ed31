//! Puts other names into a call: the model's, the location's, the project's. Every other byte of it
//! stays where it was.

use std::ops::Range;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::call::{Call, RequestBody};
use crate::head::Target;

/// What may stand in a segment of a path as it is.
const SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@');

/// The names that a call gets; what is absent stays.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Names<'a> {
    pub(crate) model: Option<&'a str>,
    pub(crate) location: Option<&'a str>,
    pub(crate) project: Option<&'a str>,
    /// Taken off the front of the path.
    pub(crate) strip_prefix: Option<&'a str>,
}

/// What a call gets that goes on by other names.
pub(crate) struct Changes {
    target: Target,
    /// Absent where the body stays as it is.
    body: Option<Vec<u8>>,
}

impl Changes {
    /// Those that put these names into the call; nothing where one of them cannot be.
    pub(crate) fn of(call: &Call, names: &Names<'_>) -> Option<Self> {
        let Names { model, location, project, strip_prefix } = *names;
        let names = [("/locations/", location), ("/projects/", project)];
        if call.is_grpc() && (model.is_some() || location.is_some() || project.is_some()) {
            return None;
        }
        let target = match strip_prefix {
            Some(prefix) => call.head.target.without_prefix(prefix),
            None => call.head.target.clone(),
        };
        let mut path = std::str::from_utf8(target.as_bytes()).ok()?.to_owned();
        for (marker, name) in names {
            if let Some(name) = name {
                path = with_segment(&path, marker, name)?;
            }
        }
        let mut body = None;
        if let Some(model) = model {
            match with_model(&path, model) {
                Some(other) => path = other,
                None => body = Some(with_body_model(plain_body(call)?, model)?),
            }
        }
        Some(Self { target: Target::new(Bytes::from(path)), body })
    }

    /// The call with them.
    pub(crate) fn made(self, mut call: Call) -> Call {
        call.head.target = self.target;
        if let Some(body) = self.body {
            call.set_body(body.into());
        }
        call
    }

    /// Whether the body changes.
    pub(crate) fn has_body(&self) -> bool {
        self.body.is_some()
    }
}

impl Call {
    /// Has this body go on, whole, in the place of one that is at hand.
    pub(crate) fn set_body(&mut self, body: Bytes) {
        let length = body.len().to_string();
        self.head.fields = self.head.fields.with("content-length", length.as_bytes());
        *self.body = RequestBody::Full(body);
    }
}

/// Whether it is the path that names the model.
pub(crate) fn names_model(target: &Target) -> bool {
    let path = std::str::from_utf8(target.as_bytes()).unwrap_or_default();
    model_in(path).is_some()
}

/// The body, where it is at hand and not encoded.
fn plain_body(call: &Call) -> Option<&[u8]> {
    match &*call.body {
        RequestBody::Full(bytes) if call.head.fields.get("content-encoding").is_none() => {
            Some(bytes)
        }
        _ => None,
    }
}

/// The path with this name behind the first such marker.
fn with_segment(path: &str, marker: &str, name: &str) -> Option<String> {
    let start = path.find(marker)? + marker.len();
    let end = path[start..].find(['/', '?']).map_or(path.len(), |at| start + at);
    Some(format!("{}{}{}", &path[..start], utf8_percent_encode(name, SEGMENT), &path[end..]))
}

/// The path with this model in it, where it names one.
fn with_model(path: &str, model: &str) -> Option<String> {
    let Range { start, end } = model_in(path)?;
    let name = utf8_percent_encode(model, SEGMENT);
    Some(format!("{}{name}{}", &path[..start], &path[end..]))
}

/// Where a path names its model: `/models/{model}:method` (Google), `/model/{id}/converse` (Bedrock).
fn model_in(path: &str) -> Option<Range<usize>> {
    let end_of_path = path.find('?').unwrap_or(path.len());
    let (start, end) = if let Some(at) = path[..end_of_path].rfind("/models/") {
        let start = at + "/models/".len();
        (start, start + path[start..end_of_path].find([':', '/'])?)
    } else {
        let start = path[..end_of_path].find("/model/")? + "/model/".len();
        (start, start + path[start..end_of_path].find('/')?)
    };
    (start < end).then_some(start..end)
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
}

/// The body with this model in place of the one that it names; nothing where it names none.
fn with_body_model(body: &[u8], model: &str) -> Option<Vec<u8>> {
    let named: Named<'_> = serde_json::from_slice(body).ok()?;
    let old = named.model.get();
    if !old.starts_with('"') {
        return None;
    }
    let start = old.as_ptr() as usize - body.as_ptr() as usize;
    let model = serde_json::to_string(model).ok()?;
    Some([&body[..start], model.as_bytes(), &body[start + old.len()..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_gets_another_model_and_nothing_else_of_it_moves() {
        for (before, after) in [
            (
                "/v1/projects/p/locations/l/publishers/google/models/gemini-pro:streamGenerateContent?alt=sse",
                "/v1/projects/p/locations/l/publishers/google/models/m-2:streamGenerateContent?alt=sse",
            ),
            ("/v1beta/models/gemini-pro:generateContent", "/v1beta/models/m-2:generateContent"),
            ("/model/anthropic.claude%3A0/converse-stream", "/model/m-2/converse-stream"),
        ] {
            assert_eq!(with_model(before, "m-2").as_deref(), Some(after));
        }
        for other in
            ["/v1/chat/completions", "/v1/models", "/v1/models/", "/model/", "/x?/models/a:b"]
        {
            assert_eq!(with_model(other, "m-2"), None, "{other}");
        }
        let arn = with_model("/model/a/converse", "arn:aws:b:1/x").expect("a model");
        assert_eq!(arn, "/model/arn%3Aaws%3Ab%3A1%2Fx/converse");
    }

    #[test]
    fn a_path_gets_another_location_and_project() {
        let path = "/v1/projects/p/locations/us-central1/models/m:generateContent";
        let moved = with_segment(path, "/locations/", "eu").expect("a location");
        assert_eq!(moved, "/v1/projects/p/locations/eu/models/m:generateContent");
        assert_eq!(with_segment("/v1/models/m:x", "/locations/", "eu"), None);
    }

    #[test]
    fn a_body_gets_another_model_and_nothing_else_of_it_moves() {
        for (before, after) in [
            (r#"{"model":"a","x":{"model":"b"}}"#, Some(r#"{"model":"m","x":{"model":"b"}}"#)),
            (
                r#"{ "x" : [1, "model"], "model" : "a" } "#,
                Some(r#"{ "x" : [1, "model"], "model" : "m" } "#),
            ),
            (r#"{"x":1}"#, None),
            (r#"{"model":null}"#, None),
            (r#"{"model":"a","model":"b"}"#, None),
            ("not JSON", None),
        ] {
            let moved = with_body_model(before.as_bytes(), "m");
            assert_eq!(moved.as_deref(), after.map(str::as_bytes), "{before}");
        }
    }
}
