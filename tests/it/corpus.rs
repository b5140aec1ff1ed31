//! Every recorded exchange passes the sidecar unchanged, and makes the record that it should.
//!
//! `TIDEGATE_EXCHANGES` says where the recordings are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use http::Uri;
use serde_json::Value;

use crate::support::*;

#[path = "../support/random.rs"]
mod random;
#[path = "../support/corpus.rs"]
mod recorded;

use random::Random;

const KNOWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus.known");
/// Callers at a time.
const CALLERS: usize = 8;

/// One exchange, and how it is to be sent.
struct Exchange {
    json: Value,
    trace_id: String,
    request: Sending,
    response: Sending,
}

/// One message, ready to be written.
#[derive(Clone, Debug)]
struct Sending {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// What is written, in these pieces.
    pieces: Vec<Vec<u8>>,
    is_until_close: bool,
}

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    UntilClose,
    Absent,
}

#[test]
fn every_recorded_exchange_passes_unchanged_and_is_recorded_once() {
    let Some(exchanges) = exchanges() else { return };
    let upstream = replaying(exchanges.clone());
    let sidecar = Sidecar::to(&upstream);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let mut caller = sidecar.connect();
                while let Some(exchange) = exchanges.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let reply = replay(&mut caller, exchange);
                    assert_passed(exchange, &exchange.response, &reply);
                    if reply.header("connection") == Some("close") {
                        caller = sidecar.connect();
                    }
                }
            });
        }
    });

    let arrived: BTreeMap<_, _> = upstream.requests().into_iter().map(by_trace).collect();
    for exchange in exchanges.iter() {
        let mut sent = exchange.request.clone();
        sent.headers[0].1 = upstream.address.to_string();
        assert_passed(exchange, &sent, &arrived[&exchange.trace_id]);
    }
    assert_recorded(&exchanges, sidecar);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_exchange_passes_a_caller_of_http_2_and_is_recorded_once() {
    let Some(exchanges) = exchanges() else { return };
    let upstream = replaying(exchanges.clone());
    let sidecar = Sidecar::to(&upstream);
    let next = Arc::new(AtomicUsize::new(0));
    let callers = (0..CALLERS).map(|_| {
        let (exchanges, next, address) = (exchanges.clone(), next.clone(), sidecar.address);
        tokio::spawn(async move {
            let mut caller = http2_caller(address).await;
            while let Some(exchange) = exchanges.get(next.fetch_add(1, Ordering::SeqCst)) {
                replay_by_http2(&mut caller, exchange).await;
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("every answer came as it was sent");
    }

    let arrived: BTreeMap<_, _> = upstream.requests().into_iter().map(by_trace).collect();
    for exchange in exchanges.iter() {
        assert!(
            arrived[&exchange.trace_id].body == exchange.request.body,
            "{}",
            exchange.json["id"]
        );
    }
    assert_recorded(&exchanges, sidecar);
}

/// Sends a request by HTTP/2 and asserts that the answer comes as it was sent.
async fn replay_by_http2(caller: &mut Http2Caller, exchange: &Exchange) {
    let (id, url) = (&exchange.json["id"], &exchange.json["request"]["url"]);
    let mut request = http::Request::builder()
        .method(exchange.json["request"]["method"].as_str().expect("a method"))
        .uri(url.as_str().expect("a URL"));
    for (name, value) in &exchange.request.headers[1..] {
        let is_framing =
            ["transfer-encoding", "keep-alive"].contains(&name.to_lowercase().as_str());
        if !is_framing {
            request = request.header(name, value);
        }
    }
    let request = request.body(full(exchange.request.body.clone())).expect("a request");
    let response = caller.send_request(request).await.expect("an answer");
    assert_eq!(response.status().as_u16(), exchange.json["response"]["status"], "{id}");
    let body = whole(response.into_body()).await.expect("a clean end");
    assert!(body == exchange.response.body, "{id}");
}

/// Sends a request in its pieces and reads the answer.
fn replay(caller: &mut Wire, exchange: &Exchange) -> Message {
    for piece in &exchange.request.pieces {
        caller.send(piece);
    }
    caller.response_to(exchange.json["request"]["method"].as_str().expect("a method"))
}

/// Asserts that a message came as it was sent.
#[track_caller]
fn assert_passed(exchange: &Exchange, sent: &Sending, came: &Message) {
    let id = &exchange.json["id"];
    assert_eq!(came.line, sent.line, "{id}");
    let mut headers = sent.headers.clone();
    // Of one connection, and not forwarded.
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("keep-alive"));
    if sent.is_until_close {
        headers.push(("connection".to_owned(), "close".to_owned()));
    }
    assert_eq!(came.headers, headers, "{id}");
    assert_eq!(came.end, End::Clean, "{id}");
    assert!(came.body == sent.body, "{id}: {} bytes, not {}", came.body.len(), sent.body.len());
}

/// Asserts that each exchange has one record, which says what it should.
fn assert_recorded(exchanges: &[Exchange], sidecar: Sidecar) {
    let records = sidecar.finish();
    let by_trace: BTreeMap<_, _> = records
        .iter()
        .map(|record| (record["trace_id"].as_str().expect("an id"), record))
        .collect();
    assert_eq!(records.len(), exchanges.len());
    assert_eq!(by_trace.len(), exchanges.len(), "one each");
    let mut wrong = BTreeSet::new();
    for exchange in exchanges {
        let id = exchange.json["id"].as_str().expect("an id");
        let record = by_trace[exchange.trace_id.as_str()];
        assert_eq!(record["tidegate.request.bytes"], exchange.request.body.len(), "{id}");
        assert_eq!(record["tidegate.response.bytes"], exchange.response.body.len(), "{id}");
        for (key, what) in recorded::differences(&exchange.json, record) {
            println!("{id} {key}: {what}");
            wrong.insert(format!("{id} {key}"));
        }
    }
    assert_eq!(wrong, recorded::known(KNOWN), "left: what is wrong; right: what is known to be");
}

/// An upstream that answers each request as it was answered when it was recorded.
fn replaying(exchanges: Arc<Vec<Exchange>>) -> Upstream {
    let answers: BTreeMap<String, Sending> = exchanges
        .iter()
        .map(|exchange| (exchange.trace_id.clone(), exchange.response.clone()))
        .collect();
    let answers = Mutex::new(answers);
    Upstream::new(move |mut peer| {
        while let Some(request) = peer.request() {
            let (trace_id, _) = by_trace(request);
            let answer = answers.lock().expect("no panic").remove(&trace_id).expect("asked once");
            for piece in &answer.pieces {
                peer.wire.send(piece);
            }
            if answer.is_until_close {
                return;
            }
        }
    })
}

fn by_trace(request: Message) -> (String, Message) {
    let parent = request.header("traceparent").expect("every caller sends one");
    (parent.split('-').nth(1).expect("a trace id").to_owned(), request)
}

/// The recordings, or a word on why there are none.
fn exchanges() -> Option<Arc<Vec<Exchange>>> {
    let Some(folder) = std::env::var_os("TIDEGATE_EXCHANGES").map(PathBuf::from) else {
        skip("TIDEGATE_EXCHANGES is not set, no recorded exchange was replayed");
        return None;
    };
    let exchanges: Vec<_> = recorded::exchanges(&folder)
        .enumerate()
        .map(|(at, json)| Exchange::new(at, json))
        .collect();
    assert!(!exchanges.is_empty(), "no exchanges in {}", folder.display());
    Some(Arc::new(exchanges))
}

impl Exchange {
    fn new(at: usize, json: Value) -> Self {
        let mut random = Random::new(json["id"].as_str().expect("an id"));
        let trace_id = format!("{:032x}", at + 1);
        let (request, response) = (&json["request"], &json["response"]);
        let url: Uri = request["url"].as_str().expect("a URL").parse().expect("a legal URL");
        let target = url.path_and_query().map_or("/", |target| target.as_str());
        let line = format!("{} {target} HTTP/1.1", request["method"].as_str().expect("a method"));
        let mut headers = vec![("Host".to_owned(), url.host().expect("a host").to_owned())];
        headers.extend(fields(&request["headers"], &mut random));
        headers.push(("traceparent".to_owned(), format!("00-{trace_id}-00000000000000ff-01")));
        let body = recorded::body(request);
        let framing = match at % 2 {
            _ if body.is_empty() => Framing::Absent,
            0 => Framing::Length,
            _ => Framing::Chunked,
        };
        let request = Sending::new(line, headers, body, framing, &mut random);

        let line = format!("HTTP/1.1 {} As Recorded", response["status"]);
        let headers = fields(&response["headers"], &mut random);
        let framing = match random.below(5) {
            _ if response["status"] == 204 => Framing::Absent,
            0 => Framing::UntilClose,
            1 | 2 => Framing::Length,
            _ => Framing::Chunked,
        };
        let response = Sending::new(line, headers, recorded::body(response), framing, &mut random);
        Self { json, trace_id, request, response }
    }
}

impl Sending {
    fn new(
        line: String,
        mut headers: Vec<(String, String)>,
        body: Vec<u8>,
        framing: Framing,
        random: &mut Random,
    ) -> Self {
        let mut field = |name: &str, value: String| headers.push((name.to_owned(), value));
        match framing {
            Framing::Length => field("Content-Length", body.len().to_string()),
            Framing::Chunked => field("Transfer-Encoding", "chunked".to_owned()),
            Framing::UntilClose | Framing::Absent => {}
        }
        let lines = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let head = format!("{line}\r\n{}\r\n", lines.collect::<String>());
        let mut bytes = head.into_bytes();
        match framing {
            Framing::Chunked => {
                for piece in random.cut(&body) {
                    bytes.extend(format!("{:x}\r\n", piece.len()).into_bytes());
                    bytes.extend([piece, b"\r\n"].concat());
                }
                bytes.extend(LAST_CHUNK.as_bytes());
            }
            _ => bytes.extend(&body),
        }
        let pieces = random.cut(&bytes).into_iter().map(<[u8]>::to_vec).collect();
        Self { line, headers, body, pieces, is_until_close: framing == Framing::UntilClose }
    }
}

/// Recorded fields, their names in whatever case.
fn fields(recorded: &Value, random: &mut Random) -> Vec<(String, String)> {
    let mut any_case = |name: &str| -> String {
        let letter = |letter: char| match random.below(2) {
            0 => letter.to_ascii_uppercase(),
            _ => letter,
        };
        name.chars().map(letter).collect()
    };
    let recorded = recorded.as_object().expect("fields");
    let field = |(name, value): (&String, &Value)| {
        (any_case(name), value.as_str().expect("a text").to_owned())
    };
    recorded.iter().map(field).collect()
}
