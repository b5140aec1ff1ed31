//! The upstream itself: its port, its threads, and what a test may ask it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::answer::{Answer, raw};
use crate::request::Request;
use crate::script::{Door, Manners, Script};
use crate::tally::{Call, Tally};
use crate::{grammar, http1, http2};

/// Where a caller may ask what was counted; such a request is not.
const SEEN: &str = "/-/seen";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Stack of a thread that serves a connection: there may be thousands.
const STACK: usize = 512 << 10;
/// How long a connection may take to be made on this machine; a queue that is full takes longer.
const FULL_AFTER: Duration = Duration::from_millis(100);
/// Connections with which a queue is filled, at most.
const MAX_FILLERS: usize = 8;

/// An upstream that fails as told. It ends with its last owner.
#[derive(Debug)]
pub struct Faultd {
    address: SocketAddr,
    /// Keeps the port while nobody listens at it.
    _guard: Socket,
    port: Mutex<Port>,
    shared: Arc<Shared>,
}

/// What happens to those who connect.
#[derive(Debug)]
enum Port {
    Refuses,
    Serves {
        listener: Arc<Socket>,
        thread: JoinHandle<()>,
    },
    /// Nobody is ever accepted, and the queue is full.
    Swallows {
        _listener: Socket,
        _fillers: Vec<TcpStream>,
    },
}

/// What the threads of an upstream share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) tally: Tally,
    script: Mutex<Running>,
}

/// A script, and how far it is.
#[derive(Debug)]
struct Running {
    script: Script,
    since: Instant,
    requests: usize,
    connections: usize,
}

// === impl Faultd ===

impl Faultd {
    /// Serves by this script, on a port that the system chooses.
    pub fn start(script: impl Into<Script>) -> Self {
        let faultd = Self::refusing(script);
        faultd.serve();
        faultd
    }

    /// Refuses connections, until it is told to [`serve`](Self::serve) by this script.
    pub fn refusing(script: impl Into<Script>) -> Self {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self::at(any_port, script.into()).expect("a free port")
    }

    /// Answers no attempt to connect, until it is told to [`serve`](Self::serve) by this script.
    pub fn black_hole(script: impl Into<Script>) -> Self {
        let faultd = Self::refusing(script);
        let hole = swallow(faultd.address).expect("a port of our own");
        *faultd.port() = hole;
        faultd
    }

    /// Takes this address, and refuses connections.
    pub fn at(address: SocketAddr, script: Script) -> io::Result<Self> {
        let guard = bound(address)?;
        let address = guard.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        let running = Running { script, since: Instant::now(), requests: 0, connections: 0 };
        let shared = Arc::new(Shared { tally: Tally::new(), script: Mutex::new(running) });
        Ok(Self { address, _guard: guard, port: Mutex::new(Port::Refuses), shared })
    }

    /// Takes connections from now on.
    pub fn serve(&self) {
        let mut port = self.port();
        if matches!(*port, Port::Serves { .. }) {
            return;
        }
        // A queue that is full goes first.
        *port = Port::Refuses;
        let listener = Arc::new(bound(self.address).expect("a port of our own"));
        listener.listen(BACKLOG).expect("nobody else listens");
        let (accepting, shared) = (listener.clone(), self.shared.clone());
        let thread = spawn(move || accept(&accepting, &shared));
        *port = Port::Serves { listener, thread };
    }

    /// Refuses connections from now on; those that are open go on.
    pub fn refuse(&self) {
        let before = std::mem::replace(&mut *self.port(), Port::Refuses);
        if let Port::Serves { listener, thread } = before {
            let _ = listener.shutdown(std::net::Shutdown::Read);
            drop(listener);
            let _ = thread.join();
        }
    }

    /// Goes on by another script, from its beginning.
    pub fn change(&self, script: impl Into<Script>) {
        let script = script.into();
        *self.shared.running() =
            Running { script, since: Instant::now(), requests: 0, connections: 0 };
    }

    /// Lets one answer go on that is held.
    pub fn go(&self) {
        self.shared.tally.note(crate::tally::Counts::go);
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections that it has accepted.
    pub fn connections(&self) -> usize {
        self.shared.tally.read(|counts| counts.connections)
    }

    /// Connections that their callers have closed or reset.
    pub fn closed(&self) -> usize {
        self.shared.tally.read(|counts| counts.closed)
    }

    /// Requests whose heads it has read.
    pub fn attempts(&self) -> usize {
        self.shared.tally.read(|counts| counts.attempts)
    }

    /// Of these, the ones with this key: their `x-fault-key`, else their `x-fault`.
    pub fn attempts_of(&self, key: &str) -> usize {
        self.shared.tally.read(|counts| counts.by_key.get(key).copied().unwrap_or_default())
    }

    /// Calls that their callers gave up before all was said.
    pub fn cancelled(&self) -> usize {
        self.shared.tally.read(|counts| counts.cancelled)
    }

    /// Bytes that it has sent, framing included.
    pub fn bytes_sent(&self) -> u64 {
        self.shared.tally.read(|counts| counts.bytes_sent)
    }

    /// The calls that it has seen, in their order.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.tally.read(|counts| counts.calls.clone())
    }

    /// The only call that it has seen.
    #[track_caller]
    pub fn call(&self) -> Call {
        let mut calls = self.calls();
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls.remove(0)
    }

    /// Waits until it has seen so many connections.
    #[track_caller]
    pub fn wait_for_connections(&self, count: usize) {
        self.shared.tally.wait("connections are made", |counts| counts.connections >= count);
    }

    /// Waits until it has seen so many requests.
    #[track_caller]
    pub fn wait_for_attempts(&self, count: usize) {
        self.shared.tally.wait("requests come", |counts| counts.attempts >= count);
    }

    /// Waits until so many calls were given up by their callers.
    #[track_caller]
    pub fn wait_for_cancelled(&self, count: usize) {
        self.shared.tally.wait("calls are given up", |counts| counts.cancelled >= count);
    }

    /// Waits until so many calls are over.
    #[track_caller]
    pub fn wait_for_ended(&self, count: usize) {
        self.shared.tally.wait("calls are over", |counts| counts.ended >= count);
    }

    /// Waits until so many connections were closed by their callers.
    #[track_caller]
    pub fn wait_for_closed(&self, count: usize) {
        self.shared.tally.wait("connections are closed", |counts| counts.closed >= count);
    }

    fn port(&self) -> MutexGuard<'_, Port> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Faultd {
    fn drop(&mut self) {
        self.refuse();
    }
}

/// A socket that has this address. Others of ours may have it too.
fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Fills the queue of a listener that never accepts.
fn swallow(address: SocketAddr) -> io::Result<Port> {
    let listener = bound(address)?;
    listener.listen(0)?;
    let mut fillers = Vec::new();
    while fillers.len() < MAX_FILLERS {
        match TcpStream::connect_timeout(&address, FULL_AFTER) {
            Ok(filler) => fillers.push(filler),
            Err(_) => return Ok(Port::Swallows { _listener: listener, _fillers: fillers }),
        }
    }
    Err(io::Error::other("the queue takes all"))
}

fn accept(listener: &Socket, shared: &Arc<Shared>) {
    while let Ok((socket, _)) = listener.accept() {
        let tcp = TcpStream::from(socket);
        let _ = tcp.set_nodelay(true);
        shared.tally.note(|counts| counts.connections += 1);
        let door = shared.door();
        let shared = shared.clone();
        spawn(move || {
            if connection(tcp, door, &shared) {
                shared.tally.note(|counts| counts.closed += 1);
            }
        });
    }
}

/// Serves a connection to its end; whether the peer has ended it.
fn connection(tcp: TcpStream, door: Door, shared: &Arc<Shared>) -> bool {
    match door {
        Door::Closes => false,
        Door::Resets => {
            http1::reset(tcp);
            false
        }
        Door::Silent => {
            while !http1::has_left(&tcp, Duration::from_secs(1)) {}
            true
        }
        Door::Open => {
            let mut start = [0; 3];
            while tcp.peek(&mut start).is_ok_and(|length| (1..3).contains(&length)) {}
            match start == http2::PREFACE[..3] {
                true => http2::serve(tcp, shared),
                false => http1::serve(tcp, shared),
            }
        }
    }
}

/// Starts a thread with a small stack.
pub(crate) fn spawn(work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new().stack_size(STACK).spawn(work).expect("the system has threads left")
}

// === impl Shared ===

impl Shared {
    /// Counts a request; what it gets, and its place among the calls.
    pub(crate) fn admit(&self, request: &Request) -> (Answer, Option<usize>) {
        let told = request.field("x-fault");
        let key = request.field("x-fault-key").or(told).unwrap_or_default();
        let (before, place) = self.tally.note(|counts| counts.admit(key, request));
        let answer = match told.map(grammar::script) {
            Some(Ok(script)) => script.answer(before, self.tally.start().elapsed()),
            Some(Err(error)) => raw(not_understood(&error.to_string())),
            None => self.next(),
        };
        (answer, place)
    }

    /// What was counted, as an answer, where that is what a request is for.
    pub(crate) fn told(&self, request: &Request) -> Option<String> {
        (request.target == SEEN).then(|| self.seen())
    }

    /// Keeps what has come of a request since it was admitted.
    pub(crate) fn came(&self, place: Option<usize>, request: &Request) {
        self.tally.note(|counts| {
            if let Some(call) = place.and_then(|place| counts.calls.get_mut(place)) {
                call.request = request.clone();
            }
        });
    }

    pub(crate) fn manners(&self) -> Manners {
        self.running().script.manners
    }

    fn next(&self) -> Answer {
        let mut running = self.running();
        running.requests += 1;
        running.script.answer(running.requests - 1, running.since.elapsed())
    }

    fn door(&self) -> Door {
        let mut running = self.running();
        running.connections += 1;
        running.script.door(running.connections - 1)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was counted, as an answer.
    fn seen(&self) -> String {
        let counted = self.tally.read(|counts| {
            serde_json::json!({
                "connections": counts.connections, "closed": counts.closed,
                "attempts": counts.attempts, "by_key": counts.by_key,
                "cancelled": counts.cancelled, "ended": counts.ended,
                "bytes_sent": counts.bytes_sent,
            })
        });
        json_answer("200 OK", &counted.to_string())
    }
}

fn not_understood(message: &str) -> String {
    json_answer("400 Bad Request", &serde_json::json!({"error": {"message": message}}).to_string())
}

fn json_answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
