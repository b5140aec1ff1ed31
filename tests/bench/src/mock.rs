//! The upstream: a model server that costs as little as it can.
//!
//! It plays the workload that a request names, and checks that the request came as it was sent.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use crate::http::{self, Framing};
use crate::workload::{self, Event, Reply, Workload};

const BUFFER_BYTES: usize = 64 * 1024;

/// Starts the mock in a thread of its own, for as long as the process lives.
pub(crate) fn start() -> Result<SocketAddr> {
    let (listener, address) = listen()?;
    thread::Builder::new().name("mock".to_owned()).spawn(move || accept(listener, serve))?;
    Ok(address)
}

/// A listener on a free port of the loopback address.
pub(crate) fn listen() -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listening on the loopback address")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves every connection with `serve`, in this thread.
pub(crate) fn accept<F>(listener: TcpListener, serve: fn(TcpStream) -> F)
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

async fn serve(mut socket: TcpStream) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut answer = Vec::with_capacity(4096);
    while let Some(workload) = read_request(&mut socket, &mut buffer).await? {
        match &workload.reply {
            Reply::Whole(body) => send_whole(&mut socket, body, &mut answer).await?,
            Reply::Stream { events, gap } => {
                send_stream(&mut socket, events, *gap, &mut answer).await?;
            }
        }
    }
    Ok(())
}

/// Reads one request to its end and compares it; `None` where the connection ended before it.
async fn read_request(
    socket: &mut TcpStream,
    buffer: &mut [u8],
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
    Ok(Some(workload))
}

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
    gap: std::time::Duration,
    answer: &mut Vec<u8>,
) -> Result<()> {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
        cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
    socket.write_all(head).await?;
    let begin = Instant::now();
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
    }
    Ok(())
}
