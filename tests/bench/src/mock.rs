//! The upstream: a model server that costs as little as it can.
//!
//! It plays the workload that a request names, and checks that the request came as it was sent. To load
//! generators, which ask what they like, it gives a stream or a whole answer, as they ask for it.

use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use crate::http::{self, Framing, Head};
use crate::workload::{self, Event, Reply, Workload};

const BUFFER_BYTES: usize = 64 * 1024;

static CALLS: AtomicU64 = AtomicU64::new(0);
static EVENTS: AtomicU64 = AtomicU64::new(0);
/// For how long everything is to stand still.
static STALL: Mutex<Option<Duration>> = Mutex::new(None);

/// What was answered since the process began.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Calls, to the end of their answers.
    pub calls: u64,
    /// Events of streams.
    pub events: u64,
}

/// What requests there are.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// Those of the workload that they name, byte for byte.
    Known,
    /// Any at all.
    Anything,
}

// === impl Asked ===

impl Asked {
    /// How long a stream waits before its first event. Generators differ in how they let their users in:
    /// whose users all begin at once would be woken for many chunks at a time, and seem to need less for
    /// each. So streams that anybody may ask for are spread evenly over the time between two chunks.
    fn wait(self, gap: Duration) -> Duration {
        const GOLDEN: f64 = 0.618_033_988_749_895;
        match self {
            Self::Known => Duration::ZERO,
            Self::Anything => gap.mul_f64((CALLS.load(Relaxed) as f64 * GOLDEN).fract()),
        }
    }
}

/// Starts the mock in a thread of its own, for as long as the process lives.
pub fn start() -> Result<SocketAddr> {
    spawn(|socket| serve(socket, Asked::Known))
}

/// Starts one that answers load generators.
pub fn start_for_anything() -> Result<SocketAddr> {
    spawn(|socket| serve(socket, Asked::Anything))
}

fn spawn<F>(serve: fn(TcpStream) -> F) -> Result<SocketAddr>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (listener, address) = listen()?;
    thread::Builder::new().name("mock".to_owned()).spawn(move || accept(listener, serve))?;
    Ok(address)
}

/// What was answered so far.
pub fn answered() -> Answered {
    Answered { calls: CALLS.load(Relaxed), events: EVENTS.load(Relaxed) }
}

/// Lets the mock at this address stand still for so long, as a pause of its garbage collector or of its
/// host does: nothing is accepted, read or written.
pub fn stall(address: SocketAddr, long: Duration) -> Result<()> {
    *STALL.lock().expect("no thread panics with it") = Some(long);
    std::net::TcpStream::connect(address).context("waking the upstream")?;
    Ok(())
}

/// A listener on a free port of the loopback address.
pub fn listen() -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listening on the loopback address")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves every connection of a listener with `serve`, in this thread.
pub fn accept<F>(listener: TcpListener, serve: fn(TcpStream) -> F)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime without threads can be built");
    runtime.block_on(async move {
        let listener =
            tokio::net::TcpListener::from_std(listener).expect("the listener does not block");
        loop {
            let Ok((socket, _)) = listener.accept().await else { continue };
            tokio::spawn(async move {
                if let Err(error) = serve(socket).await {
                    report(&error);
                }
            });
        }
    });
}

/// A proxy that is stopped cuts its connections: only what is not that is worth a word.
fn report(error: &anyhow::Error) {
    if !error.is::<std::io::Error>() {
        eprintln!("upstream: {error:#}");
    }
}

async fn serve(mut socket: TcpStream, asked: Asked) -> Result<()> {
    if let Some(long) = STALL.lock().expect("no thread panics with it").take() {
        thread::sleep(long);
    }
    socket.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut answer = Vec::with_capacity(4096);
    while let Some(workload) = read_request(&mut socket, &mut buffer, asked).await? {
        CALLS.fetch_add(1, Relaxed);
        match &workload.reply {
            Reply::Whole(body) => send_whole(&mut socket, body, &mut answer).await?,
            Reply::Stream { events, gap } => {
                let wait = asked.wait(*gap);
                send_stream(&mut socket, events, wait, *gap, &mut answer).await?;
            }
        }
    }
    Ok(())
}

/// Reads one request to its end; `None` where the connection ended before it.
async fn read_request(
    socket: &mut TcpStream,
    buffer: &mut [u8],
    asked: Asked,
) -> Result<Option<&'static Workload>> {
    let mut filled = 0;
    let head = loop {
        if let Some(head) = http::request_head(&buffer[..filled])? {
            break head;
        }
        match socket.read(&mut buffer[filled..]).await? {
            0 if filled == 0 => return Ok(None),
            0 => bail!("the connection ended within a request head"),
            read => filled += read,
        }
    };
    match asked {
        Asked::Known => read_known(socket, buffer, filled, head).await.map(Some),
        Asked::Anything => read_anything(socket, buffer, filled, head).await.map(Some),
    }
}

/// Reads the body of a request that names its workload, and compares it.
async fn read_known(
    socket: &mut TcpStream,
    buffer: &mut [u8],
    filled: usize,
    head: Head,
) -> Result<&'static Workload> {
    let name = head.workload.context("the request came without its x-workload header")?;
    let workload = workload::named(&name).context("the request names no known workload")?;
    let body = workload.request.body();
    ensure!(head.framing == Framing::Length(body.len()), "the request is framed otherwise");

    let mut seen = compare_body(body, 0, &buffer[head.length..filled])?;
    while seen < body.len() {
        let read = socket.read(buffer).await?;
        ensure!(read > 0, "the connection ended within a request body");
        seen = compare_body(body, seen, &buffer[..read])?;
    }
    Ok(workload)
}

/// Reads the body of any request, and looks for what asks for a stream.
async fn read_anything(
    socket: &mut TcpStream,
    buffer: &mut [u8],
    mut filled: usize,
    head: Head,
) -> Result<&'static Workload> {
    let Framing::Length(length) = head.framing else { bail!("the request came in chunks") };
    let end = head.length + length;
    ensure!(end <= buffer.len(), "the request is too long");
    while filled < end {
        let read = socket.read(&mut buffer[filled..]).await?;
        ensure!(read > 0, "the connection ended within a request body");
        filled += read;
    }
    let body = &buffer[head.length..end];
    let streams = body.windows(STREAM.len()).any(|part| part == STREAM);
    workload::named(if streams { "spoken" } else { "plain" }).context("a known workload")
}

/// What asks for a stream, as all load generators here write it.
const STREAM: &[u8] = br#""stream":true"#;

fn compare_body(body: &[u8], seen: usize, part: &[u8]) -> Result<usize> {
    let end = seen + part.len();
    ensure!(body.get(seen..end) == Some(part), "the request body differs near byte {seen}");
    Ok(end)
}

async fn send_whole(socket: &mut TcpStream, body: &[u8], answer: &mut Vec<u8>) -> Result<()> {
    answer.clear();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         x-request-id: req_0123456789abcdef\r\nopenai-processing-ms: 12\r\n\r\n",
        body.len()
    );
    answer.extend_from_slice(head.as_bytes());
    answer.extend_from_slice(body);
    Ok(socket.write_all(answer).await?)
}

/// Sends each event as one chunk and with one write; the end of the body goes with the last.
async fn send_stream(
    socket: &mut TcpStream,
    events: &[Event],
    wait: Duration,
    gap: Duration,
    answer: &mut Vec<u8>,
) -> Result<()> {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
        cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
    socket.write_all(head).await?;
    let begin = Instant::now() + wait;
    let mut first = None;
    for (event, after) in events.iter().zip(0u32..) {
        if !gap.is_zero() {
            sleep_until(begin + gap * after).await;
        }
        answer.clear();
        answer.extend_from_slice(format!("{:x}\r\n", event.bytes.len()).as_bytes());
        event.write_stamped(answer, &mut first);
        answer.extend_from_slice(b"\r\n");
        if after as usize + 1 == events.len() {
            answer.extend_from_slice(b"0\r\n\r\n");
        }
        socket.write_all(answer).await?;
        EVENTS.fetch_add(1, Relaxed);
    }
    Ok(())
}
