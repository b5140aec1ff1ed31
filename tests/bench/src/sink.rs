//! Where the sidecar's OTLP metrics go: taken, answered and forgotten.

use std::net::SocketAddr;
use std::thread;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use tidegate_bench::http::{self, Dechunker, Framing};
use tidegate_bench::mock;

/// Starts the sink in a thread of its own, for as long as the process lives.
pub(crate) fn start() -> Result<SocketAddr> {
    let (listener, address) = mock::listen()?;
    thread::Builder::new().name("sink".to_owned()).spawn(move || mock::accept(listener, serve))?;
    Ok(address)
}

async fn serve(mut socket: TcpStream) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mut filled = 0;
        let head = loop {
            if let Some(head) = http::request_head(&buffer[..filled])? {
                break head;
            }
            match socket.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                read => filled += read,
            }
        };
        let mut body = Body::new(head.framing);
        let mut ended = body.feed(&buffer[head.length..filled])?;
        while !ended {
            let read = socket.read(&mut buffer).await?;
            ensure!(read > 0, "the connection ended within an export");
            ended = body.feed(&buffer[..read])?;
        }
        socket
            .write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n",
            )
            .await?;
    }
}

enum Body {
    Left(usize),
    Chunked(Dechunker),
}

impl Body {
    fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Left(length),
            Framing::Chunked => Self::Chunked(Dechunker::default()),
        }
    }

    /// True once the body has ended.
    fn feed(&mut self, bytes: &[u8]) -> Result<bool> {
        match self {
            Self::Left(left) => {
                *left = left.saturating_sub(bytes.len());
                Ok(*left == 0)
            }
            Self::Chunked(dechunker) => dechunker.feed(bytes, |_| Ok(())),
        }
    }
}
