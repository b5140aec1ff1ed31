//! Takes callers in: a bounded number, on one socket per worker.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::http1::conn::{Conn, Stream};
use crate::inbound;
use crate::serve::Worker;

/// How long to pause when a connection cannot be accepted: mostly, descriptors are out.
const PAUSE: Duration = Duration::from_millis(100);
/// How long to wait, at most, before the beginning of a connection is looked at again.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// What an HTTP/2 client says first (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
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

/// Accepts until the worker ends.
pub(crate) async fn accept(listener: TcpListener, worker: Rc<Worker>, permits: Arc<Semaphore>) {
    loop {
        let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((tcp, _)) => {
                let worker = worker.clone();
                tokio::task::spawn_local(serve(tcp, worker, permit));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Serves one connection by the protocol that its first bytes speak.
async fn serve(tcp: TcpStream, worker: Rc<Worker>, permit: OwnedSemaphorePermit) {
    // Without this a first token waits for the caller's delayed acknowledgement: 40 ms.
    if tcp.set_nodelay(true).is_err() {
        return;
    }
    let limit = worker.now().timeouts.keep_alive.0;
    if !matches!(timeout(limit, tcp.readable()).await, Ok(Ok(()))) {
        return;
    }
    // Who has not said as much in the time for a head hears so by HTTP/1.1.
    let limit = worker.now().timeouts.request_head.0;
    let speaks_http2 = timeout(limit, speaks_http2(&tcp)).await;
    match speaks_http2 {
        Ok(Ok(true)) => {
            inbound::http2::serve(tcp, worker).await;
            drop(permit);
        }
        Ok(Ok(false)) | Err(_) => {
            let conn = Conn::new(Stream::Tcp(tcp)).with_permit(permit);
            inbound::http1::serve(Rc::new(conn), worker).await;
        }
        Ok(Err(_)) => {}
    }
}

/// Looks at the first bytes without taking them.
async fn speaks_http2(tcp: &TcpStream) -> io::Result<bool> {
    let mut start = [0; HTTP2_PREFACE.len()];
    let mut seen = 0;
    let mut pause = Duration::from_millis(10);
    loop {
        let n = tcp.peek(&mut start).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !HTTP2_PREFACE.starts_with(&start[..n]) {
            return Ok(false);
        }
        if n == start.len() {
            return Ok(true);
        }
        if n == seen {
            // What was looked at stays readable, so only time tells of more.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
        seen = n;
    }
}
