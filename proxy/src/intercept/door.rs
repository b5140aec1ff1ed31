//! One connection of an application that takes us for its proxy.
//!
//! `CONNECT host:port` (RFC 9110, section 9.3.6) asks for a tunnel: where the host is listed it ends
//! here, with a certificate that we have signed for it, and its calls go the way of all others. A
//! request with a whole URL is one such call.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::tunnel::{self, Closed};
use super::{End, Intercept, Unlisted};
use crate::head::Meant;
use crate::http1::conn::{Conn, Stream};
use crate::http1::parse::check_authority;
use crate::inbound::{self, Way};
use crate::listener::{Speaks, look, speaks};
use crate::serve::Worker;
use crate::tls;

/// Bytes that the head of a CONNECT may take.
const MAX_HEAD: usize = 8 * 1024;
const CONNECT: &[u8] = b"CONNECT ";

/// What the first bytes ask for.
enum Asked {
    /// A tunnel, by a head of so many bytes.
    Tunnel { meant: Meant, head: usize },
    /// Something else.
    Call,
    /// A tunnel, by no head that could be read.
    Nonsense,
}

/// Serves one connection to the address of the proxy.
pub(crate) async fn serve(
    mut tcp: TcpStream,
    worker: Rc<Worker>,
    permit: OwnedSemaphorePermit,
    intercept: Arc<Intercept>,
) -> io::Result<()> {
    let limit = worker.now().timeouts.request_head.0;
    let asked = timeout(limit, look(&tcp, MAX_HEAD, asked)).await;
    match asked.unwrap_or(Ok(Asked::Call))? {
        Asked::Call => {
            let conn = Conn::new(Stream::Tcp(tcp)).with_permit(permit);
            inbound::http1::serve(Rc::new(conn), worker, Way::ByProxy(intercept)).await;
        }
        Asked::Nonsense => {
            intercept.count(End::Refused);
            refuse(tcp, 400, "CONNECT needs a host and a port, in a head of at most 8 KiB").await;
        }
        Asked::Tunnel { meant, head } => {
            tcp.read_exact(&mut vec![0; head]).await?;
            match intercept.config.takes_in(&meant.host) {
                true => take_in(tcp, meant, worker, permit, &intercept).await?,
                false => {
                    pass(tcp, &meant, worker, &intercept).await?;
                    drop(permit);
                }
            }
        }
    }
    Ok(())
}

/// Reads the head of a CONNECT, once it is whole.
fn asked(seen: &[u8], is_all: bool) -> Option<Asked> {
    if !seen.starts_with(CONNECT) {
        let is_other = is_all || !CONNECT.starts_with(seen);
        return is_other.then_some(Asked::Call);
    }
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut lines);
    match request.parse(seen) {
        Ok(httparse::Status::Complete(head)) => {
            let authority = request.path.unwrap_or_default().as_bytes();
            let has_port = authority.rsplit(|byte| *byte == b':').next().is_some_and(|port| {
                port.len() < authority.len() && port.iter().all(u8::is_ascii_digit)
            });
            let meant = Meant::read(authority, true)
                .filter(|_| has_port && check_authority(authority).is_ok());
            Some(meant.map_or(Asked::Nonsense, |meant| Asked::Tunnel { meant, head }))
        }
        Ok(httparse::Status::Partial) if !is_all => None,
        _ => Some(Asked::Nonsense),
    }
}

/// Ends a tunnel here, and serves the calls that come by it.
async fn take_in(
    mut tcp: TcpStream,
    meant: Meant,
    worker: Rc<Worker>,
    permit: OwnedSemaphorePermit,
    intercept: &Intercept,
) -> io::Result<()> {
    tcp.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    let limit = worker.now().timeouts.request_head.0;
    match timeout(limit, speaks(&tcp)).await?? {
        Speaks::Tls => end_tls(tcp, meant, worker, permit, intercept).await?,
        speaks => {
            intercept.count(End::Measured);
            let way = Way::Meant(Arc::new(meant.by(false)));
            inbound::serve_plain(tcp, speaks, worker, permit, way).await;
        }
    }
    Ok(())
}

/// Ends TLS to this host here, and serves the calls that come by it.
pub(super) async fn end_tls(
    tcp: TcpStream,
    meant: Meant,
    worker: Rc<Worker>,
    permit: OwnedSemaphorePermit,
    intercept: &Intercept,
) -> io::Result<()> {
    let limit = worker.now().timeouts.request_head.0;
    let config = intercept.authority.host(&meant.host).map_err(io::Error::other)?;
    match tls::serve(tcp, config, limit).await {
        Err(error) => untrusted(&meant, &error, intercept),
        Ok(stream) => {
            intercept.count(End::Measured);
            let way = Way::Meant(Arc::new(meant));
            inbound::serve_tls(stream, worker, permit, way).await;
        }
    }
    Ok(())
}

/// An application that does not trust us says so by an alert, or hangs up.
fn untrusted(meant: &Meant, error: &io::Error, intercept: &Intercept) {
    let is_first = intercept.count(End::Untrusted);
    if !is_first {
        return debug!(host = %meant.host, %error, "a caller would have no TLS with us");
    }
    let bundle = intercept.authority.files().bundle;
    warn!(
        host = %meant.host, %error,
        "a caller would have no TLS with us; if it does not trust our certificate, point SSL_CERT_FILE, \
         REQUESTS_CA_BUNDLE, AWS_CA_BUNDLE and NODE_EXTRA_CA_CERTS at {} (see `tidegate env`)",
        bundle.display()
    );
}

/// Passes a tunnel on, unread.
async fn pass(
    mut tcp: TcpStream,
    meant: &Meant,
    worker: Rc<Worker>,
    intercept: &Intercept,
) -> io::Result<()> {
    if intercept.config.unlisted == Unlisted::Refuse {
        intercept.count(End::Refused);
        let advice = "this host is not in `intercept.hosts`, and `intercept.unlisted` is `refuse`";
        refuse(tcp, 403, advice).await;
        return Ok(());
    }
    let limit = worker.now().timeouts.connect.0;
    match tunnel::open(meant, intercept.config.local, limit).await {
        Ok(host) => {
            intercept.pass_by(&meant.host);
            tcp.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            tunnel::run(tcp, host, worker).await;
        }
        Err(Closed::Local) => {
            intercept.count(End::Refused);
            let advice = "this is an address of this machine or serves machines alone, such as \
                          metadata: let NO_PROXY name it, or set `intercept.local`";
            refuse(tcp, 403, advice).await;
        }
        Err(Closed::Unreached(error)) => {
            intercept.count(End::Unreached);
            let status = if error.kind() == io::ErrorKind::TimedOut { 504 } else { 502 };
            refuse(tcp, status, &format!("this host cannot be reached: {error}")).await;
        }
    }
    Ok(())
}

/// Says why there is no tunnel.
async fn refuse(mut tcp: TcpStream, status: u16, why: &str) {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
    let body = format!("tidegate: {why}\n");
    let answer = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        reason.unwrap_or_default(),
        body.len()
    );
    // Who is gone needs no answer.
    let _ = tcp.write_all(answer.as_bytes()).await;
    let _ = tcp.shutdown().await;
}

/// Passes a connection on that has asked for nothing of us, to where it was meant to go.
pub(super) async fn pass_on(
    tcp: TcpStream,
    there: &Meant,
    name: &str,
    worker: Rc<Worker>,
    intercept: &Intercept,
) -> io::Result<()> {
    let limit = worker.now().timeouts.connect.0;
    match tunnel::open(there, intercept.config.local, limit).await {
        Ok(host) => {
            intercept.pass_by(name);
            tunnel::run(tcp, host, worker).await;
        }
        // What it hears is what it would have heard without us: that nobody is there.
        Err(Closed::Local) => _ = intercept.count(End::Refused),
        Err(Closed::Unreached(_)) => _ = intercept.count(End::Unreached),
    }
    Ok(())
}
