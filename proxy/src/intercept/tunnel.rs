//! A connection to a host that is none of ours: bytes pass both ways, unread and unkept.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::is_local;
use crate::head::Meant;
use crate::serve::Worker;

/// Bytes that a tunnel holds in each direction.
const BUFFER: usize = 16 * 1024;

/// Why there is no tunnel.
#[derive(Debug)]
pub(super) enum Closed {
    /// The host is local.
    Local,
    /// It cannot be reached in time.
    Unreached(io::Error),
}

/// Connects to a host.
pub(super) async fn open(
    meant: &Meant,
    may_be_local: bool,
    limit: Duration,
) -> Result<TcpStream, Closed> {
    let late = |_| Closed::Unreached(io::ErrorKind::TimedOut.into());
    timeout(limit, dial(meant, may_be_local)).await.map_err(late)?
}

async fn dial(meant: &Meant, may_be_local: bool) -> Result<TcpStream, Closed> {
    let found = tokio::net::lookup_host((&*meant.host, meant.port)).await;
    let mut addresses: Vec<SocketAddr> = found.map_err(Closed::Unreached)?.collect();
    if !may_be_local {
        addresses.retain(|address| !is_local(address.ip()));
        if addresses.is_empty() {
            return Err(Closed::Local);
        }
    }
    let tcp = crate::upstream::connect::connect_any(&addresses).await.map_err(Closed::Unreached)?;
    tcp.set_nodelay(true).map_err(Closed::Unreached)?;
    Ok(tcp)
}

/// Passes bytes until both sides have closed, one of them breaks off, or nothing passes for too long.
pub(super) async fn run(caller: TcpStream, host: TcpStream, worker: Rc<Worker>) {
    let limit = worker.now().timeouts.upgraded_idle.0;
    let passed = Rc::new(std::cell::Cell::new(tokio::time::Instant::now()));
    let heard = |inner| Heard { inner, passed: passed.clone(), worker: worker.clone() };
    let (mut caller, mut host) = (heard(caller), heard(host));
    let copying = copy_bidirectional_with_sizes(&mut caller, &mut host, BUFFER, BUFFER);
    let silence = async {
        while passed.get().elapsed() < limit {
            tokio::time::sleep_until(passed.get() + limit).await;
        }
    };
    tokio::select! {
        // How it ended is nobody's business.
        _ = copying => {}
        () = silence => {}
    }
}

/// One end of a tunnel, of which is known when something came by it last.
struct Heard {
    inner: TcpStream,
    passed: Rc<std::cell::Cell<tokio::time::Instant>>,
    worker: Rc<Worker>,
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if polled.is_ready() {
            self.passed.set(tokio::time::Instant::now());
            self.worker.activity.noticed();
        }
        polled
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
