//! Takes callers in: a bounded number, on one socket per worker.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::inbound::{self, Way};
use crate::intercept::{self, Intercept};
use crate::serve::Worker;
use crate::tls::{self, ShownNames};

/// How long to pause when a connection cannot be accepted: mostly, descriptors are out.
const PAUSE: Duration = Duration::from_millis(100);
/// How long to wait, at most, before the beginning of a connection is looked at again.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// What an HTTP/2 client says first (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The first byte of a TLS handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// Connections that the kernel holds while we are busy.
const BACKLOG: i32 = 1024;

/// Binds one socket per worker to the same address.
///
/// Several sockets can share an address only by SO_REUSEPORT, which would also let in a second
/// process; so the address is first bound without it, which fails where anybody is there.
pub(crate) fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<StdListener>> {
    let probe = socket(address, false)?;
    probe.bind(&address.into())?;
    let address = probe.local_addr()?.as_socket().expect("an IP socket has an IP address");
    if workers == 1 {
        return Ok(vec![listen(probe)?]);
    }
    drop(probe);
    let sockets = (0..workers).map(|_| {
        let socket = socket(address, true)?;
        socket.bind(&address.into())?;
        listen(socket)
    });
    sockets.collect()
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn listen(socket: Socket) -> io::Result<StdListener> {
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What connections to one address are for.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    /// Calls that are made to us.
    Calls(Option<Tls>),
    /// Calls to others, that an application makes through us as its proxy.
    Proxy(Arc<Intercept>),
    /// Connections to others, which the system has redirected to us.
    Redirect(Arc<Intercept>),
}

/// TLS on the address of calls.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) own: Arc<tls::Own>,
    /// Whether nothing is served in the clear.
    pub(crate) is_required: bool,
}

/// What the first bytes of a connection speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP/1.1, or what will be refused as such.
    Http1,
    /// HTTP/2 without TLS.
    Http2,
    /// TLS, whatever is behind it.
    Tls,
}

/// Accepts until the worker ends.
pub(crate) async fn accept(
    listener: TcpListener,
    worker: Rc<Worker>,
    permits: Arc<Semaphore>,
    door: Door,
) {
    loop {
        let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((tcp, _)) => {
                tokio::task::spawn_local(serve(tcp, worker.clone(), permit, door.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Serves one connection by the protocol that its first bytes speak.
async fn serve(tcp: TcpStream, worker: Rc<Worker>, permit: OwnedSemaphorePermit, door: Door) {
    // Without this a first token waits for the caller's delayed acknowledgement: 40 ms.
    if tcp.set_nodelay(true).is_err() {
        return;
    }
    let limit = worker.now().timeouts.keep_alive.0;
    // Who is redirected may wait for the other side to speak first.
    let speaks_first = !matches!(door, Door::Redirect(_));
    if speaks_first && !matches!(timeout(limit, tcp.readable()).await, Ok(Ok(()))) {
        return;
    }
    match door {
        Door::Calls(tls) => serve_calls(tcp, worker, permit, tls).await,
        Door::Proxy(intercept) => {
            // Boxed: a connection that is made to us has no room for what this one needs.
            let served = Box::pin(intercept::serve(tcp, worker, permit, intercept)).await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the proxy ended");
            }
        }
        Door::Redirect(intercept) => {
            let served =
                Box::pin(intercept::serve_redirected(tcp, worker, permit, intercept)).await;
            if let Err(error) = served {
                tracing::debug!(%error, "a redirected connection ended");
            }
        }
    }
}

async fn serve_calls(
    tcp: TcpStream,
    worker: Rc<Worker>,
    permit: OwnedSemaphorePermit,
    tls: Option<Tls>,
) {
    // Who has not said as much in the time for a head hears so by HTTP/1.1.
    let limit = worker.now().timeouts.request_head.0;
    let speaks = match timeout(limit, speaks(&tcp)).await {
        Ok(Ok(speaks)) => speaks,
        Ok(Err(_)) => return,
        Err(_) => Speaks::Http1,
    };
    match (speaks, tls) {
        (Speaks::Tls, Some(tls)) => {
            let shaken = Box::pin(tls::serve(tcp, tls.own.config(), limit)).await;
            match shaken {
                Ok(stream) => {
                    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    let way = Way::ToUs(shown.map(|shown| ShownNames::of(shown).into()));
                    inbound::serve_tls(stream, worker, permit, way).await
                }
                Err(error) => tracing::debug!(%error, "a caller would have no TLS with us"),
            }
        }
        (Speaks::Http1 | Speaks::Http2, Some(tls)) if tls.is_required => ask_for_tls(tcp).await,
        (speaks, _) => inbound::serve_plain(tcp, speaks, worker, permit, Way::ToUs(None)).await,
    }
}

/// Tells a caller in the clear that it must not be.
async fn ask_for_tls(mut tcp: TcpStream) {
    let body = "tidegate: calls are taken by TLS alone here; write https://\n";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // Who is gone needs no answer.
    let _ = tcp.write_all(answer.as_bytes()).await;
    let _ = tcp.shutdown().await;
}

/// What the first bytes speak, without taking them.
pub(crate) async fn speaks(tcp: &TcpStream) -> io::Result<Speaks> {
    look(tcp, HTTP2_PREFACE.len(), |seen, _| match seen {
        [TLS_HANDSHAKE, ..] => Some(Speaks::Tls),
        HTTP2_PREFACE => Some(Speaks::Http2),
        seen => (!HTTP2_PREFACE.starts_with(seen)).then_some(Speaks::Http1),
    })
    .await
}

/// Looks at the first bytes, so many at most, without taking them, until they say what is asked of
/// them; `look` is told whether it sees as many as it ever will.
pub(crate) async fn look<T>(
    tcp: &TcpStream,
    limit: usize,
    look: impl Fn(&[u8], bool) -> Option<T>,
) -> io::Result<T> {
    let mut start = vec![0; limit];
    let mut seen = 0;
    let mut pause = Duration::from_millis(10);
    loop {
        let n = tcp.peek(&mut start).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(found) = look(&start[..n], n == limit) {
            return Ok(found);
        }
        if n == limit {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if n == seen {
            // What was looked at stays readable, so only time tells of more.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
        seen = n;
    }
}
