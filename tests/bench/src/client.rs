//! The callers: connections that each have one call open at a time.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use tidegate_bench::http::{self, Dechunker, Framing};
use tidegate_bench::workload::{Event, Reply, Workload, nanos_now};

const BUFFER_BYTES: usize = 16 * 1024;
/// A call that takes longer hangs.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// How much is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) until: Until,
}

/// When no further call begins. Calls that are open then are finished and count.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Elapsed(Duration),
    Calls(u64),
}

/// What the callers saw.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) events: u64,
    pub(crate) elapsed: Duration,
    /// From the request's first byte sent to the reply's last byte read, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// From the request's first byte sent to the first event read.
    pub(crate) first_event: Histogram<u64>,
    /// From the mock's write of the first event of a stream to its arrival.
    pub(crate) first_transit: Histogram<u64>,
    /// From the mock's write of an event to its arrival.
    pub(crate) transit: Histogram<u64>,
}

/// A histogram of nanoseconds, up to what a call may take.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, CALL_LIMIT.as_nanos() as u64, 3).expect("the bounds are in order")
}

impl Tally {
    fn new() -> Self {
        Self {
            calls: 0,
            events: 0,
            elapsed: Duration::ZERO,
            latency: histogram(),
            first_event: histogram(),
            first_transit: histogram(),
            transit: histogram(),
        }
    }

    fn call_ended(&mut self, nanos: u64) {
        self.calls += 1;
        self.latency.saturating_record(nanos);
    }
}

/// Calls `address` as the load says, in this thread, and compares every byte of every reply.
pub(crate) fn run(address: SocketAddr, workload: &'static Workload, load: Load) -> Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, call_all(address, workload, load))
}

async fn call_all(address: SocketAddr, workload: &'static Workload, load: Load) -> Result<Tally> {
    let mut callers = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        callers.push(Caller::connect(address, workload).await?);
    }
    let begin = Instant::now();
    let shared = Rc::new(Shared {
        tally: RefCell::new(Tally::new()),
        started: RefCell::new(0),
        begin,
        until: load.until,
    });
    // Streams begin evenly over the length of one, so that their chunks are no volley.
    let stagger = workload.reply.length() / load.connections as u32;
    let mut tasks = JoinSet::new();
    for (caller, number) in callers.into_iter().zip(0u32..) {
        let shared = shared.clone();
        tasks.spawn_local(async move {
            sleep_until(begin + stagger * number).await;
            caller.call_until_told(&shared).await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a caller panicked")??;
    }
    shared.tally.borrow_mut().elapsed = begin.elapsed();
    Ok(shared.tally.replace(Tally::new()))
}

/// What all callers of one run have in common; they live in one thread.
struct Shared {
    tally: RefCell<Tally>,
    started: RefCell<u64>,
    begin: Instant,
    until: Until,
}

impl Shared {
    /// Whether one more call begins.
    fn another(&self) -> bool {
        let mut started = self.started.borrow_mut();
        *started += 1;
        match self.until {
            Until::Elapsed(length) => self.begin.elapsed() < length,
            Until::Calls(calls) => *started <= calls,
        }
    }
}

struct Caller {
    address: SocketAddr,
    workload: &'static Workload,
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Caller {
    async fn connect(address: SocketAddr, workload: &'static Workload) -> Result<Self> {
        let socket = connect(address).await?;
        Ok(Self { address, workload, socket, buffer: vec![0; BUFFER_BYTES] })
    }

    async fn call_until_told(mut self, shared: &Shared) -> Result<()> {
        while shared.another() {
            timeout(CALL_LIMIT, self.call(&shared.tally)).await.context("a call hangs")??;
        }
        Ok(())
    }

    async fn call(&mut self, tally: &RefCell<Tally>) -> Result<()> {
        let begin = nanos_now();
        self.socket.write_all(&self.workload.request.bytes).await.context("sending a request")?;
        let mut filled = 0;
        let head = loop {
            if let Some(head) = http::response_head(&self.buffer[..filled])? {
                break head;
            }
            filled += self.read(filled).await?;
        };
        let mut body = Body::new(&self.workload.reply, head.framing, begin);
        let mut ended = body.feed(&self.buffer[head.length..filled], tally)?;
        while !ended {
            let read = self.read(0).await?;
            ended = body.feed(&self.buffer[..read], tally)?;
        }
        tally.borrow_mut().call_ended(nanos_now() - begin);
        if head.close {
            self.socket = connect(self.address).await?;
        }
        Ok(())
    }

    async fn read(&mut self, at: usize) -> Result<usize> {
        let read = self.socket.read(&mut self.buffer[at..]).await.context("reading a reply")?;
        ensure!(read > 0, "the connection ended within a reply");
        Ok(read)
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let socket =
        TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// A reply on its way in, compared with what was sent.
struct Body {
    framing: Incoming,
    expected: Expected,
}

enum Incoming {
    Length(usize),
    Chunked(Dechunker),
}

enum Expected {
    Whole { body: &'static [u8], seen: usize },
    Stream { events: &'static [Event], arrived: usize, part: Vec<u8>, begin: u64 },
}

impl Body {
    fn new(reply: &'static Reply, framing: Framing, begin: u64) -> Self {
        let framing = match framing {
            Framing::Length(length) => Incoming::Length(length),
            Framing::Chunked => Incoming::Chunked(Dechunker::default()),
        };
        let expected = match reply {
            Reply::Whole(body) => Expected::Whole { body, seen: 0 },
            Reply::Stream { events, .. } => {
                Expected::Stream { events, arrived: 0, part: Vec::new(), begin }
            }
        };
        Self { framing, expected }
    }

    /// Takes what was read; true once the reply has ended, which it must where it is expected to.
    fn feed(&mut self, bytes: &[u8], tally: &RefCell<Tally>) -> Result<bool> {
        let now = nanos_now();
        let expected = &mut self.expected;
        let mut tally = tally.borrow_mut();
        let ended = match &mut self.framing {
            Incoming::Length(left) => {
                expected.compare(bytes, now, &mut tally)?;
                *left = left.checked_sub(bytes.len()).context("a reply is longer than it says")?;
                *left == 0
            }
            Incoming::Chunked(dechunker) => {
                dechunker.feed(bytes, |data| expected.compare(data, now, &mut tally))?
            }
        };
        ensure!(!ended || expected.complete(), "a reply is shorter than what was sent");
        Ok(ended)
    }
}

impl Expected {
    fn compare(&mut self, data: &[u8], now: u64, tally: &mut Tally) -> Result<()> {
        match self {
            Self::Whole { body, seen } => {
                let end = *seen + data.len();
                ensure!(body.get(*seen..end) == Some(data), "a reply differs near byte {seen}");
                *seen = end;
                Ok(())
            }
            Self::Stream { events, arrived, part, begin } => {
                let mut data = data;
                while !data.is_empty() {
                    let event = events.get(*arrived).context("an event more than was sent")?;
                    let (mine, rest) =
                        data.split_at(data.len().min(event.bytes.len() - part.len()));
                    part.extend_from_slice(mine);
                    data = rest;
                    if part.len() < event.bytes.len() {
                        break;
                    }
                    let transit = event.compare(part)?.map(|stamp| now.saturating_sub(stamp));
                    if let Some(transit) = transit {
                        tally.transit.saturating_record(transit);
                    }
                    if *arrived == 0 {
                        tally.first_transit.saturating_record(transit.unwrap_or_default());
                        tally.first_event.saturating_record(now - *begin);
                    }
                    tally.events += 1;
                    *arrived += 1;
                    part.clear();
                }
                Ok(())
            }
        }
    }

    fn complete(&self) -> bool {
        match self {
            Self::Whole { body, seen } => *seen == body.len(),
            Self::Stream { events, arrived, .. } => *arrived == events.len(),
        }
    }
}
