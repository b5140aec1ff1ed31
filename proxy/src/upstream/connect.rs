//! Opens a connection to an upstream: name, TCP, TLS; each wait told apart.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use super::spec::Origin;
use super::unreached::Unreached;
use crate::error::Error;
use crate::exchange::{Notes, Wait};
use crate::http1::conn::Stream;
use crate::intercept::is_local;
use crate::tls::client;

/// A fresh connection, and whether HTTP/2 is spoken on it.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: Stream,
    pub(crate) http2: bool,
}

/// What may be spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speak {
    /// HTTP/2 where the server does.
    Any,
    /// HTTP/1.1, which alone can change a connection to another protocol.
    Http1,
}

/// Who wants to know what was waited for.
pub(crate) trait NoteWait {
    /// So long for this.
    fn waited(&self, wait: Wait, time: Duration);
}

/// Nobody does: the connection is for no call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unnoted;

impl NoteWait for Notes {
    fn waited(&self, wait: Wait, time: Duration) {
        Self::waited(self, wait, time);
    }
}

impl NoteWait for Unnoted {
    fn waited(&self, _: Wait, _: Duration) {}
}

/// Connects within `limit`.
pub(crate) async fn connect(
    origin: &Origin,
    speak: Speak,
    upstream: &Arc<str>,
    limit: Duration,
    notes: &impl NoteWait,
) -> Result<Connected, Error> {
    let deadline = Instant::now() + limit;
    match timeout_at(deadline, dial(origin, speak, upstream, notes)).await {
        Ok(result) => result,
        Err(_) => {
            Err(Error::ConnectTimeout { upstream: upstream.clone(), limit_s: limit.as_secs() })
        }
    }
}

async fn dial(
    origin: &Origin,
    speak: Speak,
    upstream: &Arc<str>,
    notes: &impl NoteWait,
) -> Result<Connected, Error> {
    let unreached = |why, error: std::io::Error| Error::Connect {
        upstream: upstream.clone(),
        why,
        source: error.into(),
    };
    let unreachable = |error| unreached(Unreached::of(&error), error);
    let tcp = match &origin.at {
        Some(at) => timed(notes, Wait::Connect, TcpStream::connect(at)).await,
        None => {
            let addresses = timed(notes, Wait::Dns, resolve(origin)).await;
            let mut addresses = addresses.map_err(|error| unreached(Unreached::Dns, error))?;
            if !origin.may_be_local {
                addresses.retain(|address| !is_local(address.ip()));
                if addresses.is_empty() {
                    return Err(Error::LocalAddress { host: origin.host.clone() });
                }
            }
            timed(notes, Wait::Connect, connect_any(&addresses)).await
        }
    };
    let tcp = tcp.map_err(unreachable)?;
    // Without this a first token waits for the peer's delayed acknowledgement: 40 ms.
    tcp.set_nodelay(true).map_err(unreachable)?;
    if !origin.tls {
        return Ok(Connected {
            stream: Stream::Tcp(tcp),
            http2: origin.http2 && speak == Speak::Any,
        });
    }
    let tls = timed(notes, Wait::Tls, handshake(origin, speak, tcp)).await;
    let no_tls =
        |error: std::io::Error| Error::Tls { upstream: upstream.clone(), source: error.into() };
    let tls = tls.map_err(no_tls)?;
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    if origin.needs_http2 && !http2 {
        return Err(Error::NoHttp2 { upstream: upstream.clone() });
    }
    Ok(Connected { stream: Stream::Tls(Box::new(tls.into())), http2 })
}

/// The addresses of its name, at least one.
pub(crate) async fn resolve(origin: &Origin) -> std::io::Result<Vec<SocketAddr>> {
    let (host, port) = (origin.dial.0.as_str(), origin.dial.1);
    let found: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    let none = || std::io::Error::new(std::io::ErrorKind::NotFound, "name has no address");
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

/// Tries the addresses in turn; the last error counts.
pub(crate) async fn connect_any(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// TLS on a connection, with the name that the server must show.
pub(crate) async fn handshake(
    origin: &Origin,
    speak: Speak,
    tcp: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(origin.host.trim_matches(['[', ']']).to_owned())
        .map_err(std::io::Error::other)?;
    let connector = tokio_rustls::TlsConnector::from(client_config(origin, speak)?);
    connector.connect(name, tcp).await
}

async fn timed<T>(notes: &impl NoteWait, wait: Wait, work: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let result = work.await;
    notes.waited(wait, start.elapsed());
    result
}

/// TLS as this server needs it.
fn client_config(origin: &Origin, speak: Speak) -> std::io::Result<Arc<ClientConfig>> {
    static HTTP1: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let http1 = |any: Arc<ClientConfig>| {
        let mut config = ClientConfig::clone(&any);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    };
    match (origin.own_tls.as_deref(), speak) {
        (None, Speak::Any) => Ok(client::usual()),
        (None, Speak::Http1) => Ok(HTTP1.get_or_init(|| http1(client::usual())).clone()),
        (Some(own), Speak::Any) => own.config().map_err(std::io::Error::other),
        (Some(own), Speak::Http1) => own.config().map(http1).map_err(std::io::Error::other),
    }
}
