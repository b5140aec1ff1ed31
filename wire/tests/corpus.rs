//! Every recorded exchange, cut at random places, makes the record that it should.
//!
//! `TIDEGATE_EXCHANGES` says where the recordings are. Each reply is also cut in two at every byte up
//! to 4 KiB and at 256 drawn places beyond, in many pieces, and short. Of long ones as many of these
//! cuts are drawn as a minute allows; `TIDEGATE_CUTS=all` tries them all. What is known to be wrong stands in
//! `tests/corpus.known`, one `<id> <key>` a line; the test fails as soon as that list is.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde_json::{Value, json};
use tidegate_wire::content::{Budget, Content, Messages};
use tidegate_wire::frame::{EventStream, Pieces};
use tidegate_wire::{Ending, HeadView, Observer, Record, Shape};

#[path = "../../tests/support/corpus.rs"]
mod corpus;
#[path = "../../tests/support/cuts.rs"]
mod cuts;

use corpus::body;
use cuts::Random;

/// What is read of one exchange, all its cuts together, where not all are tried.
const READ_OF_ONE: usize = 2 << 20;

const KNOWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/corpus.known");

#[test]
fn every_recorded_exchange_makes_the_record_that_it_should() {
    let Some(folder) = env::var_os("TIDEGATE_EXCHANGES") else {
        println!("SKIPPED: TIDEGATE_EXCHANGES is not set, no recorded exchange was read");
        return;
    };
    let mut wrong = BTreeSet::new();
    let mut read = 0;
    for exchange in corpus::exchanges(Path::new(&folder)) {
        read += 1;
        for (key, what) in check(&exchange) {
            let id = exchange["id"].as_str().expect("an id");
            println!("{id} {key}: {what}");
            wrong.insert(format!("{id} {key}"));
        }
    }
    println!("read {read} exchanges, {} keys differ", wrong.len());
    assert!(read > 0, "no exchanges in {}", folder.display());
    assert_eq!(wrong, corpus::known(KNOWN), "left: what is wrong; right: what is known to be");
}

/// Operations that carry a conversation.
const CONVERSATIONS: [&str; 7] = [
    "generateContent",
    "streamGenerateContent",
    "converse",
    "converse-stream",
    "chat.completions",
    "responses",
    "messages",
];

#[test]
fn every_recorded_conversation_says_what_was_asked_and_answered() {
    let Some(folder) = env::var_os("TIDEGATE_EXCHANGES") else {
        println!("SKIPPED: TIDEGATE_EXCHANGES is not set, no recorded conversation was read");
        return;
    };
    let mut read = 0;
    for exchange in corpus::exchanges(Path::new(&folder)).filter(is_conversation) {
        read += 1;
        let messages = messages(&exchange);
        let is_asked = !messages.input.is_empty() || messages.is_truncated;
        let is_answered = !messages.output.is_empty() || messages.is_truncated;
        assert!(is_asked && is_answered, "{}: {messages:#?}", exchange["id"]);
    }
    assert!(read > 300, "{read} conversations in {}", folder.display());
}

/// Whether it was answered, and not by an error.
fn is_conversation(exchange: &Value) -> bool {
    let operation = exchange["operation"].as_str().unwrap_or_default();
    let expect = &exchange["expect"];
    CONVERSATIONS.contains(&operation)
        && exchange["request"]["method"] == "POST"
        && exchange["response"]["status"] == 200
        && expect.get("error_type").is_none()
        && expect.get("block_reason").is_none()
}

fn messages(exchange: &Value) -> Messages {
    let (request, response) = (&exchange["request"], &exchange["response"]);
    let url: Uri = request["url"].as_str().expect("a URL").parse().expect("a legal URL");
    let budget = Budget::new(1 << 20);
    let content = Content::of(url.path(), &headers(&request["headers"]), &budget);
    let mut content = content.expect("a conversation has content");
    let mut random = Random::new(exchange["id"].as_str().expect("an id"));
    random.cut(&body(request)).into_iter().for_each(|piece| content.request(piece));
    content.head(&headers(&response["headers"]));
    random.cut(&body(response)).into_iter().for_each(|piece| content.response(piece));
    content.messages()
}

#[test]
fn the_vectors_of_the_event_stream_are_read_or_refused() {
    let Some(folder) = env::var_os("TIDEGATE_EXCHANGES") else {
        println!("SKIPPED: TIDEGATE_EXCHANGES is not set, no vector was read");
        return;
    };
    for entry in fs::read_dir(Path::new(&folder).join("eventstream")).expect("the vectors") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("a readable file");
        let name = path.file_name().expect("a name").to_string_lossy();
        let mut stream = EventStream::default();
        let is_legal = stream.feed(&bytes, &mut Ignored).is_ok() && stream.between();
        assert_eq!(is_legal, name.starts_with("valid"), "{name}");
    }
}

#[test]
fn where_a_recorded_exchange_is_cut_changes_nothing_and_cut_short_it_is_not_complete() {
    let Some(folder) = env::var_os("TIDEGATE_EXCHANGES") else {
        println!("SKIPPED: TIDEGATE_EXCHANGES is not set, no recorded exchange was cut");
        return;
    };
    let is_all = env::var("TIDEGATE_CUTS").is_ok_and(|cuts| cuts == "all");
    let most = if is_all { usize::MAX } else { READ_OF_ONE };
    let exchanges: Vec<_> = corpus::exchanges(Path::new(&folder)).map(Exchange::new).collect();
    let tried = cuts::each(&exchanges, |exchange| {
        let replay = |pieces: &[&[u8]], ending| exchange.replay(pieces, ending);
        cuts::check(&exchange.id, &exchange.reply, Ending::Clean, most, replay)
    });
    println!("{tried} of {} recorded exchanges", exchanges.len());
    assert!(tried.in_two > exchanges.len());
}

struct Ignored;

impl Pieces for Ignored {
    fn payload(&mut self, _: &[u8]) {}
    fn end(&mut self) {}
    fn name(&mut self, _: &[u8]) {}
    fn header(&mut self, _: &[u8], _: &[u8]) {}
    fn done(&mut self) {}
}

fn check(exchange: &Value) -> Vec<(&'static str, String)> {
    let record = serde_json::to_value(replay(exchange)).expect("a record serialises");
    corpus::differences(exchange, &record)
}

fn replay(exchange: &Value) -> Record {
    let (request, response) = (&exchange["request"], &exchange["response"]);
    let url: Uri = request["url"].as_str().expect("a URL").parse().expect("a legal URL");
    let headers = headers(&request["headers"]);
    let mut observer = Observer::new(Shape::read(&HeadView {
        method: request["method"].as_str().expect("a method"),
        host: url.host(),
        path: url.path(),
        query: url.query(),
        headers: &headers,
    }));
    let mut random = Random::new(exchange["id"].as_str().expect("an id"));
    for piece in random.cut(&body(request)) {
        observer.request(piece);
    }
    let status = response["status"].as_u64().expect("a status") as u16;
    observer.head(status, &self::headers(&response["headers"]), Duration::from_millis(1));
    for piece in random.cut(&body(response)) {
        observer.chunk(piece, Duration::from_millis(2));
    }
    let mut record = Record::default();
    observer.finish(Ending::Clean, Duration::from_millis(3), &mut record);
    record
}

/// A recorded exchange, read once.
struct Exchange {
    id: String,
    shape: Shape,
    request: Vec<u8>,
    status: u16,
    headers: HeaderMap,
    reply: Vec<u8>,
}

impl Exchange {
    fn new(exchange: Value) -> Self {
        let (request, response) = (&exchange["request"], &exchange["response"]);
        let url: Uri = request["url"].as_str().expect("a URL").parse().expect("a legal URL");
        let shape = Shape::read(&HeadView {
            method: request["method"].as_str().expect("a method"),
            host: url.host(),
            path: url.path(),
            query: url.query(),
            headers: &headers(&request["headers"]),
        });
        Self {
            id: exchange["id"].as_str().expect("an id").to_owned(),
            shape,
            request: what_it_asks(&body(request)),
            status: response["status"].as_u64().expect("a status") as u16,
            headers: headers(&response["headers"]),
            reply: body(response),
        }
    }

    fn replay(&self, pieces: &[&[u8]], ending: Ending) -> Record {
        let mut observer = Observer::new(self.shape.clone());
        observer.request(&self.request);
        observer.head(self.status, &self.headers, Duration::from_millis(1));
        for piece in pieces {
            observer.chunk(piece, Duration::from_millis(2));
        }
        let mut record = Record::default();
        observer.finish(ending, Duration::from_millis(3), &mut record);
        record
    }
}

/// Of a request, what decides how its reply reads: some carry megabytes beside it.
fn what_it_asks(body: &[u8]) -> Vec<u8> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return body.to_vec() };
    json!({ "model": body["model"], "stream": body["stream"] }).to_string().into_bytes()
}

fn headers(fields: &Value) -> HeaderMap {
    let fields = fields.as_object().expect("header fields");
    let field = |(name, value): (&String, &Value)| {
        let name: HeaderName = name.parse().ok()?;
        Some((name, HeaderValue::from_str(value.as_str()?).ok()?))
    };
    fields.iter().filter_map(field).collect()
}
