//! The calls under `tests/fixtures`, ready to be read.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tidegate_wire::{Ending, HeadView, Observer, Record, Shape};

#[path = "encoding.rs"]
mod encoding;
#[path = "event_stream.rs"]
mod event_stream;

use encoding::encoded;
pub(crate) use event_stream::message;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");

/// One call.
pub(crate) struct Case {
    /// `<dialect>/<case>`.
    pub(crate) name: String,
    /// The body of the reply.
    pub(crate) reply: Vec<u8>,
    /// How the transport ended.
    pub(crate) ending: Ending,
    /// The record that it makes.
    pub(crate) record: Value,
    request: Value,
    response: Value,
}

/// All calls, by name.
pub(crate) fn all() -> Vec<Case> {
    let mut folders: Vec<_> = folders(Path::new(FOLDER)).flat_map(|each| folders(&each)).collect();
    folders.sort();
    folders.iter().map(|folder| Case::read(folder)).collect()
}

impl Case {
    fn read(folder: &Path) -> Self {
        let file = fs::read(folder.join("case.json")).expect("every case has a case.json");
        let mut case: Value = serde_json::from_slice(&file).expect("which is JSON");
        let name = folder.strip_prefix(FOLDER).expect("a folder below").display().to_string();
        let named = &case["response"]["headers"]["content-encoding"];
        let encoding = case.get("encoded").unwrap_or(named).as_str();
        Self {
            name,
            reply: encoded(encoding.unwrap_or_default(), reply(folder)),
            ending: ending(&case["ending"]),
            record: case["record"].take(),
            request: case["request"].take(),
            response: case["response"].take(),
        }
    }

    /// An observer that has read the request and the head of the response.
    pub(crate) fn observer(&self) -> Observer {
        let text = |key: &str| self.request[key].as_str().expect("request has this text");
        let mut observer = Observer::new(Shape::read(&HeadView {
            method: text("method"),
            host: Some(text("host")),
            path: text("path"),
            query: None,
            headers: &headers(&self.request["headers"]),
        }));
        if let Some(body) = self.request.get("body") {
            observer.request(body.to_string().as_bytes());
        }
        if let Some(status) = self.response["status"].as_u64() {
            let headers = headers(&self.response["headers"]);
            observer.head(status as u16, &headers, Duration::from_millis(1));
        }
        observer
    }

    /// The record of this call if its reply comes in these pieces and ends so.
    pub(crate) fn replay<'a>(
        &self,
        pieces: impl IntoIterator<Item = &'a [u8]>,
        ending: Ending,
    ) -> Record {
        let mut observer = self.observer();
        for piece in pieces {
            observer.chunk(piece, Duration::from_millis(2));
        }
        let mut record = Record::default();
        observer.finish(ending, Duration::from_millis(3), &mut record);
        record
    }
}

fn folders(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(path).expect("the fixtures are there");
    entries.map(|entry| entry.expect("and readable").path()).filter(|path| path.is_dir())
}

fn reply(folder: &Path) -> Vec<u8> {
    let read = |name: &str| fs::read(folder.join(name)).ok();
    let messages = || {
        let messages: Vec<Value> = serde_json::from_slice(&read("reply.messages.json")?).ok()?;
        Some(messages.iter().flat_map(message).collect())
    };
    let plain = ["reply.json", "reply.sse", "reply.txt"].into_iter().find_map(read);
    plain.or_else(messages).expect("every case has a reply")
}

fn ending(word: &Value) -> Ending {
    match word.as_str() {
        Some("clean") => Ending::Clean,
        Some("broken") => Ending::Broken,
        Some("caller_left") => Ending::CallerLeft,
        Some("no_answer") => Ending::NoAnswer,
        Some("refused") => Ending::Refused,
        other => panic!("no ending is called {other:?}"),
    }
}

fn headers(fields: &Value) -> HeaderMap {
    let fields = fields.as_object().expect("header fields");
    let field = |(name, value): (&String, &Value)| -> (HeaderName, HeaderValue) {
        let value = value.as_str().expect("header values are strings");
        (name.parse().expect("a field name"), value.parse().expect("a field value"))
    };
    fields.iter().map(field).collect()
}
