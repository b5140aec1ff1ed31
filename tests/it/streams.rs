//! The streams of HTTP/2 upstreams: how many there are, who waits for one, and what servers take back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidegate_faultd::frame;
use tokio::net::TcpListener;
use tokio::sync::{Barrier, Semaphore};

use crate::http2::sidecar_to;
use crate::support::*;

/// Streams that the servers of these tests allow on one connection.
const STREAMS: u32 = 5;
/// Calls that come at once.
const CALLS: usize = 23;

/// A server of few streams, and how many connections it has had.
async fn narrow<F, R>(answer: F) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            counted.fetch_add(1, SeqCst);
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answer = answer(request);
                async { Ok::<_, hyper::Error>(answer.await) }
            });
            let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            http2.max_concurrent_streams(STREAMS);
            tokio::spawn(http2.serve_connection(TokioIo::new(tcp), service));
        }
    });
    (address, connections)
}

/// So many calls at once, by one connection, so that one worker has them all.
async fn calls(sidecar: &Sidecar) -> Vec<tokio::task::JoinHandle<()>> {
    let caller = http2_caller(sidecar.address).await;
    let call = |_| {
        let mut caller = caller.clone();
        tokio::spawn(async move {
            let reply = caller.send_request(http2_post("/a", full("{}"))).await.expect("an answer");
            assert_eq!(reply.status(), 200);
            whole(reply.into_body()).await.expect("a clean end");
        })
    };
    (0..CALLS).map(call).collect()
}

async fn all(calls: Vec<tokio::task::JoinHandle<()>>) {
    for call in calls {
        tokio::time::timeout(STOP, call).await.expect("in time").expect("no panic");
    }
}

/// A sidecar that has more calls than its one connection has streams.
struct Crowded {
    sidecar: Sidecar,
    /// Lets the server answer so many calls.
    go: Arc<Semaphore>,
    /// Calls that have come to the server.
    there: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    calls: Vec<tokio::task::JoinHandle<()>>,
}

async fn crowded() -> Crowded {
    let (go, there) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gate, count) = (go.clone(), there.clone());
    let answer = move |_| {
        let (gate, count) = (gate.clone(), count.clone());
        async move {
            count.fetch_add(1, SeqCst);
            let _passed = gate.acquire().await.expect("it is open");
            Response::new(full("{}"))
        }
    };
    let (upstream, connections) = narrow(answer).await;
    let config = format!(
        "upstreams: {{ a: {{ url: 'http://{upstream}', http2: true }} }}\nroutes: [{{ upstream: a }}]\nlimits: {{ http2_connections: 1 }}\n"
    );
    let sidecar = Launch::new().config(&config).start();
    let calls = calls(&sidecar).await;
    wait_until("the first have come", || there.load(SeqCst) == STREAMS as usize);
    wait_until("all are in flight", || sidecar.metric("tidegate_calls_in_flight") == CALLS as f64);
    Crowded { sidecar, go, there, connections, calls }
}

fn seconds(record: &serde_json::Value, key: &str) -> f64 {
    record[key].as_f64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_waits_behind_the_few_streams_that_a_server_allows() {
    let together = Arc::new(Barrier::new(CALLS));
    let answer = move |_| {
        let together = together.clone();
        async move {
            // None is answered before all are there.
            together.wait().await;
            Response::new(full("{}"))
        }
    };
    let (upstream, connections) = narrow(answer).await;
    let sidecar = sidecar_to(upstream, ", http2: true");
    all(calls(&sidecar).await).await;
    let opened = connections.load(SeqCst);
    assert_eq!(opened, CALLS.div_ceil(STREAMS as usize), "as many connections as it takes");
    let records = sidecar.finish();
    assert_eq!(records.len(), CALLS);
    for record in &records {
        assert_outcome(record, "completed", None);
        assert!(seconds(record, "tidegate.wait.pool_s") < 1.0, "{record:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_stream_is_told_as_that_and_not_as_the_models_time() {
    let Crowded { sidecar, go, there, connections, calls } = crowded().await;
    let (start, held) = (Instant::now(), Duration::from_millis(500));
    tokio::time::sleep(held).await;
    assert_eq!(there.load(SeqCst), STREAMS as usize, "no more than it allows");
    go.add_permits(CALLS);
    all(calls).await;
    assert!(start.elapsed() >= held);

    assert_eq!(connections.load(SeqCst), 1);
    let records = sidecar.finish();
    assert_eq!(records.len(), CALLS);
    let waited = |record: &&serde_json::Value| seconds(record, "tidegate.wait.pool_s") >= 0.5;
    assert_eq!(records.iter().filter(waited).count(), CALLS - STREAMS as usize);
    for record in records.iter().filter(waited) {
        let pool = seconds(record, "tidegate.wait.pool_s");
        let rest = seconds(record, "tidegate.time_to_first_byte_s") - pool;
        assert!(rest < 0.25, "{rest} s were hidden: {record:#}");
        assert!(seconds(record, "tidegate.overhead_s") < 0.25, "{record:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_caller_leaves_the_line_leaves_its_place() {
    let Crowded { sidecar, go, mut calls, .. } = crowded().await;
    // Every second one, of those that wait and those that do not.
    let leave = calls.iter().step_by(2).count();
    calls.iter().step_by(2).for_each(tokio::task::JoinHandle::abort);
    sidecar.wait_records(leave);
    go.add_permits(CALLS);
    let stay = calls.drain(..).enumerate().filter(|(at, _)| at % 2 == 1).map(|(_, call)| call);
    all(stay.collect()).await;
    let records = sidecar.finish();
    let count = |outcome: &str| records.iter().filter(|r| r["tidegate.outcome"] == outcome).count();
    assert_eq!((count("abandoned"), count("completed")), (leave, CALLS - leave));
}

const REFUSED_STREAM: u32 = 7;
const STATUS_200: &[u8] = b"\x88";

/// What a server of HTTP/2 says first.
fn settings() -> Vec<u8> {
    [frame(4, 0, 0, b""), frame(4, 1, 0, b"")].concat()
}

/// An answer without a body on this stream.
fn empty_answer(stream: u32) -> Vec<u8> {
    frame(1, 5, stream, STATUS_200)
}

fn go_away(last: u32, error: u32) -> Vec<u8> {
    frame(7, 0, 0, &[last.to_be_bytes(), error.to_be_bytes()].concat())
}

fn reset(stream: u32, error: u32) -> Vec<u8> {
    frame(3, 0, stream, &error.to_be_bytes())
}

/// A server whose connections each answer their first call with these bytes.
fn answering_by_connection(answers: Vec<Vec<u8>>, method: &'static [u8]) -> Upstream {
    Upstream::new(move |mut peer| {
        peer.wire.through(method).expect("a request");
        peer.wire.send([settings(), answers[peer.number.min(answers.len() - 1)].clone()].concat());
        peer.closed();
    })
}

const GET: &[u8] = b"\x82";
const POST: &[u8] = b"\x83";
const ASK: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_call_that_the_server_has_not_processed_is_sent_again_elsewhere() {
    for not_processed in [go_away(0, 0), go_away(0, 11), reset(1, REFUSED_STREAM)] {
        let upstream = answering_by_connection(vec![not_processed, empty_answer(1)], GET);
        let sidecar = sidecar_to(upstream.address, ", http2: true");
        let mut caller = sidecar.connect();
        caller.send(ASK);
        assert_eq!(caller.response_to("GET").status(), 200);
        drop(caller);
        assert_eq!(upstream.connections(), 2);
        let record = sidecar.finish_with_one();
        assert_outcome(&record, "completed", None);
        assert_eq!(record["tidegate.attempts"], 2);
    }
}

#[test]
fn a_body_that_has_not_come_yet_is_still_whole() {
    let refused = reset(1, REFUSED_STREAM);
    let upstream = Upstream::new(move |mut peer| {
        peer.wire.through(POST).expect("a request");
        peer.wire.send(settings());
        if peer.number == 0 {
            peer.wire.send(&refused);
        } else {
            peer.wire.through(b"late body").expect("the body");
            peer.wire.send(empty_answer(1));
        }
        peer.closed();
    });
    let sidecar = sidecar_to(upstream.address, ", http2: true");
    let mut caller = sidecar.connect();
    caller.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    wait_until("it is sent again", || upstream.connections() == 2);
    assert_eq!(caller.call("late body").status(), 200);
    drop(caller);
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "completed", None);
    assert_eq!(record["tidegate.request.bytes"], 9);
}

#[test]
fn a_call_is_sent_again_only_once_and_only_whole() {
    for refused in [go_away(0, 0), reset(1, REFUSED_STREAM)] {
        // Whoever refuses goes on refusing.
        let upstream = answering_by_connection(vec![refused.clone()], GET);
        let sidecar = sidecar_to(upstream.address, ", http2: true");
        let mut caller = sidecar.connect();
        caller.send(ASK);
        assert_eq!(caller.response_to("GET").status(), 502);
        drop(caller);
        assert_eq!(upstream.connections(), 2);
        let record = sidecar.finish_with_one();
        assert_outcome(&record, "failed", Some("upstream"));
        assert_eq!(record["error.type"], "upstream_closed");

        // A body that has gone is not here any more.
        let upstream = answering_by_connection(vec![refused], POST);
        let sidecar = sidecar_to(upstream.address, ", http2: true");
        assert_eq!(sidecar.call(post("/a", "{}")).status(), 502);
        assert_eq!(upstream.connections(), 1);
        assert_outcome(&sidecar.finish_with_one(), "failed", Some("upstream"));
    }
}

#[test]
fn a_call_that_a_server_gives_back_as_it_goes_is_taken_by_the_next_address() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let going = listener.local_addr().expect("a bound socket");
    std::thread::spawn(move || {
        let mut wire = Wire::new(listener.accept().expect("a connection").0);
        // Nobody can connect any more.
        drop(listener);
        wire.through(GET).expect("a request");
        wire.send([settings(), go_away(0, 0)].concat());
        wire.wait_closed();
    });
    let next = answering_by_connection(vec![empty_answer(1)], GET);
    let config = format!(
        "upstreams: {{ a: {{ addresses: ['http://{going}', '{}'], http2: true }} }}\nroutes: [{{ upstream: a }}]\n",
        next.url()
    );
    let sidecar = Launch::new().config(&config).start();
    let mut caller = sidecar.connect();
    caller.send(ASK);
    assert_eq!(caller.response_to("GET").status(), 200);
    drop(caller);
    assert_outcome(&sidecar.finish_with_one(), "completed", None);
    assert_eq!(next.connections(), 1);
}

#[test]
fn a_call_that_the_server_may_have_processed_is_not_sent_again() {
    let (internal, cancel) = (2, 8);
    for lost in [reset(1, internal), reset(1, cancel), go_away(1, 0)] {
        let upstream = Upstream::new(move |mut peer| {
            peer.wire.through(GET).expect("a request");
            peer.wire.send([settings(), lost.clone()].concat());
            peer.close();
        });
        let sidecar = sidecar_to(upstream.address, ", http2: true");
        let mut caller = sidecar.connect();
        caller.send(ASK);
        assert_eq!(caller.response_to("GET").status(), 502);
        drop(caller);
        assert_eq!(upstream.connections(), 1);
        let record = sidecar.finish_with_one();
        assert_outcome(&record, "failed", Some("upstream"));
        assert_eq!(record["tidegate.attempts"], 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_a_going_server_still_serves_finish_and_new_calls_go_elsewhere() {
    let (gate, said) = (Gate::default(), Gate::default());
    let (go, says) = (gate.clone(), said.clone());
    let upstream = Upstream::new(move |mut peer| {
        peer.wire.through(GET).expect("a request");
        if peer.number == 0 {
            peer.wire.send([settings(), frame(1, 4, 1, STATUS_200), go_away(1, 0)].concat());
            says.open();
            go.pass();
            peer.wire.send(frame(0, 1, 1, b"late"));
        } else {
            peer.wire.send([settings(), empty_answer(1)].concat());
        }
        peer.closed();
    });
    let config = format!(
        "upstreams: {{ a: {{ url: 'http://{}', http2: true }} }}\nroutes: [{{ upstream: a }}]\nlimits: {{ http2_connections: 1 }}\n",
        upstream.address
    );
    let sidecar = Launch::new().config(&config).start();
    // By one connection, so that one worker has both.
    let mut caller = http2_caller(sidecar.address).await;
    let get = || Request::get("http://a/a").body(full("")).expect("a request");
    let first = caller.send_request(get()).await.expect("a head");
    said.pass();
    let second = caller.send_request(get()).await.expect("an answer");
    assert_eq!(second.status(), 200);
    gate.open();
    assert_eq!(whole(first.into_body()).await.expect("all of it"), "late");
    drop((second, caller));
    let records = sidecar.finish();
    assert_eq!(records.len(), 2);
    records.iter().for_each(|record| assert_outcome(record, "completed", None));
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_whole_answer_stays_whole_where_the_server_wants_no_more_of_the_request() {
    let no_error = 0;
    let early = [frame(1, 4, 1, STATUS_200), frame(0, 1, 1, b"enough"), reset(1, no_error)];
    let upstream = answering_by_connection(vec![early.concat()], POST);
    let sidecar = sidecar_to(upstream.address, ", http2: true");
    let mut caller = sidecar.connect();
    caller.send("POST /unknown HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\nhalf");
    let reply = caller.response();
    assert_eq!((reply.status(), reply.text().as_str()), (200, "enough"));
    assert_eq!(reply.end, End::Clean);
    drop(caller);
    assert_outcome(&sidecar.finish_with_one(), "completed", None);
}
