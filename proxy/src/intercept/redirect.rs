//! One connection that the system has redirected to us (iptables, REDIRECT), without a word of its
//! own about that.
//!
//! Where it was meant to go stands in the socket; whom it means is said by its first bytes, which are
//! looked at and left where they are: the name in a ClientHello, or the `Host` of a request.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tracing::warn;

use super::door::{end_tls, pass_on};
use super::{End, Intercept, Unlisted};
use crate::head::Meant;
use crate::inbound::{self, Way};
use crate::listener::{Speaks, look};
use crate::serve::Worker;

/// How long a caller may take to say something. One that waits for the other side to speak first is
/// passed on then.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a first message that are looked at: more than ClientHellos and heads have.
const MAX_FIRST: usize = 16 * 1024;

/// Whom the first bytes mean.
#[derive(Debug, PartialEq, Eq)]
enum Whom {
    /// This host, by TLS.
    Tls(Box<str>),
    /// This host, by HTTP/1.1.
    Plain(Meant),
    /// Nobody that they name.
    Unnamed,
}

/// Serves one connection to the address of redirects.
pub(crate) async fn serve(
    tcp: TcpStream,
    worker: Rc<Worker>,
    permit: OwnedSemaphorePermit,
    intercept: Arc<Intercept>,
) -> io::Result<()> {
    let Some(to) = original(&tcp) else {
        if intercept.count(End::Refused) {
            warn!("a connection to intercept.redirect was redirected by nobody, and is closed");
        }
        return Ok(());
    };
    let whom = match timeout(PATIENCE, look(&tcp, MAX_FIRST, whom)).await {
        Ok(Ok(whom)) => whom,
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        Ok(Err(_)) | Err(_) => Whom::Unnamed,
    };
    match whom {
        Whom::Tls(host) if intercept.config.takes_in(&host) => {
            let meant = Meant { tls: true, host, port: to.port() };
            end_tls(tcp, meant, worker, permit, &intercept).await
        }
        Whom::Plain(meant) if intercept.config.takes_in(&meant.host) => {
            intercept.count(End::Measured);
            let way = Way::Meant(Arc::new(meant));
            inbound::serve_plain(tcp, Speaks::Http1, worker, permit, way).await;
            Ok(())
        }
        _ if intercept.config.unlisted == Unlisted::Refuse => {
            intercept.count(End::Refused);
            Ok(())
        }
        whom => {
            let host = to.ip().to_string();
            let name = match whom {
                Whom::Tls(name) | Whom::Plain(Meant { host: name, .. }) => name,
                Whom::Unnamed => host.as_str().into(),
            };
            let there = Meant { tls: false, host: host.into(), port: to.port() };
            pass_on(tcp, &there, &name, worker, &intercept).await
        }
    }
}

/// Where the connection was meant to go; nothing where it was meant to come here.
fn original(tcp: &TcpStream) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(tcp);
    let own = tcp.local_addr().ok()?;
    let found = match own.ip().to_canonical() {
        std::net::IpAddr::V4(_) => socket.original_dst_v4(),
        std::net::IpAddr::V6(_) => socket.original_dst_v6(),
    };
    let to = found.ok()?.as_socket()?;
    let is_here = (to.ip().to_canonical(), to.port()) == (own.ip().to_canonical(), own.port());
    (!is_here).then_some(to)
}

/// Reads whom the first bytes mean, once they say it.
fn whom(seen: &[u8], is_all: bool) -> Option<Whom> {
    let found = match seen.first() {
        Some(0x16) => server_name(seen),
        _ => host(seen),
    };
    found.or_else(|| is_all.then_some(Whom::Unnamed))
}

/// The name that a ClientHello asks for (RFC 6066, section 3), once that is whole.
fn server_name(mut seen: &[u8]) -> Option<Whom> {
    let mut acceptor = Acceptor::default();
    while !seen.is_empty() {
        if acceptor.read_tls(&mut seen).is_err() {
            return Some(Whom::Unnamed);
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let name = hello.server_name().map(|name| name.to_ascii_lowercase());
                return Some(name.map_or(Whom::Unnamed, |name| Whom::Tls(name.into())));
            }
            Err(_) => return Some(Whom::Unnamed),
        }
    }
    None
}

/// The host that a request names, once its head is whole.
fn host(seen: &[u8]) -> Option<Whom> {
    let mut lines = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut lines);
    match request.parse(seen) {
        Ok(httparse::Status::Partial) => None,
        Ok(httparse::Status::Complete(_)) => {
            let mut named =
                request.headers.iter().filter(|line| line.name.eq_ignore_ascii_case("host"));
            let meant = named.next().and_then(|line| Meant::read(line.value, false));
            Some(meant.map_or(Whom::Unnamed, Whom::Plain))
        }
        Err(_) => Some(Whom::Unnamed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first message of a client that means this host.
    fn hello(host: &'static str) -> Vec<u8> {
        let config = crate::tls::client::usual();
        let name = rustls::pki_types::ServerName::try_from(host).expect("a name");
        let mut client = rustls::ClientConnection::new(config, name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("it is written");
        bytes
    }

    #[test]
    fn a_hello_names_its_host_wherever_it_is_cut() {
        let bytes = hello("API.OpenAI.com");
        for at in 1..bytes.len() {
            assert_eq!(whom(&bytes[..at], false), None, "{at}");
        }
        assert_eq!(whom(&bytes, false), Some(Whom::Tls("api.openai.com".into())));
        // Who means an address names nobody.
        assert_eq!(whom(&hello("203.0.113.7"), false), Some(Whom::Unnamed));
    }

    #[test]
    fn a_request_names_its_host_once_its_head_is_whole() {
        let head = b"POST /generate HTTP/1.1\r\nhost: Gemma-Service:8000\r\n\r\n";
        let meant = Meant { tls: false, host: "gemma-service".into(), port: 8000 };
        for at in 1..head.len() {
            assert_eq!(whom(&head[..at], false), None, "{at}");
        }
        assert_eq!(whom(head, false), Some(Whom::Plain(meant)));
    }

    #[test]
    fn what_is_neither_names_nobody() {
        for bytes in [
            &b"\0\0\0\x08\x04\xd2\x16/"[..],
            b"SSH-2.0-x\r\n",
            b"\x16\x03\x01\0\x04\x02\0\0\0",
            b"GET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(whom(bytes, false), Some(Whom::Unnamed), "{bytes:?}");
        }
        assert_eq!(whom(b"POST / HTTP/1.1\r\nx: y", true), Some(Whom::Unnamed));
    }
}
