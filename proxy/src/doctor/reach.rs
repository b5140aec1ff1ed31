//! From a name to a connection that can be spoken on: DNS, TCP, TLS, as calls do it.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use rustls::{AlertDescription, CertificateError};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use super::certificate::{Certificate, day};
use super::{Hop, Progress, Status, Target};
use crate::http1::conn::Stream;
use crate::upstream::Origin;
use crate::upstream::connect::{Speak, connect_any, handshake, resolve};

/// A certificate that ends sooner is worth a word.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);
/// Names of a certificate that are told, at most.
const MAX_NAMES: usize = 3;

/// What was found on the way, and the connection at its end.
pub(super) struct Reached {
    pub(super) hops: Vec<Hop>,
    pub(super) connection: Option<Connection>,
}

/// A connection, and whether HTTP/2 is spoken on it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) http2: bool,
}

pub(super) async fn reach(target: Target, limit: Duration, progress: Progress) -> Reached {
    let mut hops = Vec::new();
    let connection = walk(&target, limit, &progress, &mut hops).await;
    Reached { hops, connection }
}

/// The same without a word, for a second call.
pub(super) async fn reach_again(target: &Target, limit: Duration) -> Option<Connection> {
    walk(target, limit, &Progress::default(), &mut Vec::new()).await
}

async fn walk(
    target: &Target,
    limit: Duration,
    progress: &Progress,
    hops: &mut Vec<Hop>,
) -> Option<Connection> {
    let origin = &target.origin;
    let under_way = |hop: &str| progress.begin(format!("{}: {hop}", origin.host));

    let (start, waiting) = (Instant::now(), under_way("dns"));
    let resolved = timeout(limit, resolve(origin)).await;
    let (addresses, hop) = dns(target, resolved.unwrap_or_else(|_| Err(late())));
    hops.push(hop.taking(start.elapsed()));
    drop(waiting);

    let (start, waiting) = (Instant::now(), under_way("connect"));
    let (tcp, hop) = connect(target, &addresses?, limit).await;
    hops.push(hop.taking(start.elapsed()));
    drop(waiting);
    let tcp = tcp?;
    if !origin.tls {
        return Some(Connection { stream: Stream::Tcp(tcp), http2: origin.http2 });
    }

    let (start, _waiting) = (Instant::now(), under_way("tls"));
    let shaken = timeout(limit, handshake(origin, Speak::Any, tcp)).await;
    let (tls, hop) = tls(target, shaken.unwrap_or_else(|_| Err(late())));
    hops.push(hop.taking(start.elapsed()));
    let tls = tls?;
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    Some(Connection { stream: Stream::Tls(Box::new(tls.into())), http2 })
}

fn late() -> Error {
    Error::from(ErrorKind::TimedOut)
}

fn hop(target: &Target, hop: &'static str, status: Status, finding: String) -> Hop {
    Hop::new(hop, target.label.clone(), status, finding)
}

// === DNS ===

fn dns(
    target: &Target,
    resolved: Result<Vec<SocketAddr>, Error>,
) -> (Option<Vec<SocketAddr>>, Hop) {
    let origin = &target.origin;
    let name = origin.dial.0.as_str();
    let instead = match name == origin.host.trim_matches(['[', ']']) {
        true => String::new(),
        false => format!(", dialled instead of {} as `address` says", origin.host),
    };
    let assumed = target.assumed.as_ref().map_or_else(String::new, |text| format!(" ({text})"));
    let of = |status, text: String| hop(target, "dns", status, format!("{text}{instead}{assumed}"));
    match resolved {
        Ok(addresses) if addresses.is_empty() => {
            (None, of(Status::Failed, format!("{name} has no address")).advising(no_name(name)))
        }
        Ok(addresses) if name.parse::<IpAddr>().is_ok() => {
            (Some(addresses), of(Status::Ok, format!("{name} is an address")))
        }
        Ok(addresses) => {
            let first = addresses[0].ip();
            let text = match addresses.len() {
                1 => format!("{name} is {first}"),
                count => format!("{name} is {first} and {} more", count - 1),
            };
            (Some(addresses), of(Status::Ok, text))
        }
        Err(error) if error.kind() == ErrorKind::TimedOut => (
            None,
            of(Status::Failed, format!("{name}: no answer in time")).advising(
                "see that the name servers in /etc/resolv.conf can be reached from here (network policies, port 53)",
            ),
        ),
        Err(error) if error.to_string().contains("Temporary failure") => (
            None,
            of(Status::Failed, format!("{name}: the name servers do not answer")).advising(
                "see /etc/resolv.conf, and that its name servers can be reached from here (network policies, port 53)",
            ),
        ),
        Err(_) => {
            let text = format!("{name} has no address: no such name is known here");
            (None, of(Status::Failed, text).advising(no_name(name)))
        }
    }
}

fn no_name(name: &str) -> &'static str {
    match name {
        _ if name.contains(".svc") => {
            "see that the service exists in that namespace: kubectl get service -n NAMESPACE"
        }
        _ if !name.contains('.') => {
            "see that the service exists in this pod's namespace, or write NAME.NAMESPACE.svc"
        }
        _ => "correct the name in `url`; a private name needs this network's own name servers",
    }
}

// === TCP ===

async fn connect(
    target: &Target,
    addresses: &[SocketAddr],
    limit: Duration,
) -> (Option<TcpStream>, Hop) {
    let deadline = Instant::now() + limit;
    let mut failed = Vec::new();
    for address in addresses {
        let connecting = tokio::time::timeout_at(deadline, connect_any(&[*address])).await;
        match connecting.unwrap_or_else(|_| Err(late())) {
            Ok(tcp) => {
                _ = tcp.set_nodelay(true);
                let text = format!("{address} answers");
                let hop = match failed.first() {
                    None => hop(target, "connect", Status::Ok, text),
                    Some((other, kind)) => {
                        let text = format!("{text}, but {other} did not ({})", words(*kind));
                        hop(target, "connect", Status::Warning, text)
                            .advising("each new connection tries them in turn, and waits so long")
                    }
                };
                return (Some(tcp), hop);
            }
            Err(error) => failed.push((*address, error.kind())),
        }
    }
    let (address, kind) = *failed.last().unwrap_or(&(addresses[0], ErrorKind::Other));
    let several = match addresses.len() {
        1 => String::new(),
        count => format!(", nor do the other {}", count - 1),
    };
    let text = format!("{address} does not answer: {}{several}", words(kind));
    (None, hop(target, "connect", Status::Failed, text).advising(unreachable_advice(kind)))
}

fn words(kind: ErrorKind) -> String {
    match kind {
        ErrorKind::TimedOut => "no answer in time".to_owned(),
        kind => kind.to_string(),
    }
}

fn unreachable_advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ConnectionRefused => {
            "nobody listens on that port: see that the server runs, and the port in `url`"
        }
        ErrorKind::TimedOut => {
            "packets are dropped on the way: see firewalls and network policies. Calls to upstreams do not go through HTTPS_PROXY"
        }
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            "there is no route from here: see the network, and for an IPv6 address whether this host has IPv6"
        }
        ErrorKind::PermissionDenied => "the system forbids it: see firewalls and network policies",
        _ => "see that the server runs and can be reached from here",
    }
}

// === TLS ===

fn tls(
    target: &Target,
    shaken: Result<TlsStream<TcpStream>, Error>,
) -> (Option<TlsStream<TcpStream>>, Hop) {
    match shaken {
        Ok(tls) => {
            let hop = established(target, &tls);
            (Some(tls), hop)
        }
        Err(error) => {
            let (text, advice) = untrusted(&error, &target.origin);
            (None, hop(target, "tls", Status::Failed, text).advising(advice))
        }
    }
}

fn established(target: &Target, tls: &TlsStream<TcpStream>) -> Hop {
    let session = tls.get_ref().1;
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS",
    };
    let protocol = match session.alpn_protocol() {
        Some(b"h2") => "HTTP/2",
        Some(b"http/1.1") => "HTTP/1.1",
        _ => "HTTP/1.1 (nothing agreed by ALPN)",
    };
    let text = format!("{version}, {protocol}");
    let shown = session.peer_certificates().and_then(|all| Certificate::read(all.first()?));
    let Some(certificate) = shown else { return hop(target, "tls", Status::Ok, text) };
    let left = certificate.not_after.duration_since(SystemTime::now()).unwrap_or_default();
    let text = format!(
        "{text}; certificate by {}, valid until {}",
        certificate.issuer,
        day(certificate.not_after)
    );
    let is_soon = left < SOON;
    let status = if is_soon { Status::Warning } else { Status::Ok };
    let hop = hop(target, "tls", status, text).expiring(Some(left));
    match is_soon {
        true => hop.advising(format!("renew it: {} days are left", left.as_secs() / 86_400)),
        false => hop,
    }
}

/// Why there is no TLS, and what to do about it.
fn untrusted(error: &Error, origin: &Origin) -> (String, String) {
    let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let clock = "renew the server's certificate; see that this machine's clock is right";
    let name =
        "write in `url` a name that the certificate has; `address` may then say where to dial";
    let (text, advice) = match reason {
        Some(rustls::Error::InvalidCertificate(certificate)) => match certificate {
            CertificateError::Expired => ("the certificate has expired".to_owned(), clock),
            CertificateError::ExpiredContext { not_after, .. } => {
                let ended = SystemTime::UNIX_EPOCH + Duration::from_secs(not_after.as_secs());
                (format!("the certificate has expired, on {}", day(ended)), clock)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                ("the certificate is not valid yet".to_owned(), "set this machine's clock right")
            }
            CertificateError::NotValidForName => {
                (format!("the certificate is not for {}", origin.host), name)
            }
            CertificateError::NotValidForNameContext { presented, .. } => {
                let names: Vec<_> = presented.iter().take(MAX_NAMES).map(|it| shown(it)).collect();
                let names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
                (format!("the certificate is for {names}, not for {}", origin.host), name)
            }
            CertificateError::UnknownIssuer => (
                "the certificate is signed by an authority that is not trusted here".to_owned(),
                "mount the authority's certificate and name it in SSL_CERT_FILE; a proxy that looks into TLS on the way has one of its own",
            ),
            CertificateError::Revoked => {
                ("the certificate has been revoked".to_owned(), "renew the server's certificate")
            }
            CertificateError::BadSignature => (
                "the certificate is signed by an authority of a name that is trusted here, but of another key".to_owned(),
                "the authority has a new key: mount its certificate of today, and name it in SSL_CERT_FILE",
            ),
            _ => (
                "the certificate cannot be used".to_owned(),
                "see it with: openssl s_client -connect HOST:PORT -servername HOST",
            ),
        },
        Some(rustls::Error::InvalidMessage(_)) => (
            "what answers does not speak TLS".to_owned(),
            "write http:// in `url` if the server speaks plain HTTP, or see the port",
        ),
        Some(rustls::Error::AlertReceived(alert)) => match alert {
            AlertDescription::CertificateRequired => (
                "the server asks for a client's certificate".to_owned(),
                "client certificates are not supported: use another port or a gateway",
            ),
            AlertDescription::UnrecognisedName => (
                format!("the server does not know the name {}", origin.host),
                "see the host in `url`",
            ),
            AlertDescription::NoApplicationProtocol => (
                "the server speaks neither HTTP/2 nor HTTP/1.1".to_owned(),
                "see the port in `url`",
            ),
            _ => (
                format!("the server refuses ({alert:?})"),
                "see that it takes TLS 1.2 or 1.3, and the host in `url`",
            ),
        },
        Some(rustls::Error::PeerIncompatible(_)) => (
            "the server speaks no TLS that we do".to_owned(),
            "it must take TLS 1.2 or 1.3 with AEAD ciphers",
        ),
        _ if error.kind() == ErrorKind::TimedOut => (
            "no answer in time".to_owned(),
            "see that the port speaks TLS; plain HTTP is written http:// in `url`",
        ),
        _ if reason.is_none() => (
            "the connection was closed during the handshake".to_owned(),
            "a firewall or mesh may forbid the name; see the port in `url`, and that it speaks TLS",
        ),
        _ => (
            "the handshake failed".to_owned(),
            "see it with: openssl s_client -connect HOST:PORT -servername HOST",
        ),
    };
    (text, advice.to_owned())
}

/// A name of a certificate, as it may be shown: `DnsName("a.b")` is a.b.
fn shown(name: &str) -> String {
    let name = name.split('"').nth(1).unwrap_or(name);
    let legal = |letter: &char| letter.is_ascii_alphanumeric() || ".-*:_".contains(*letter);
    name.chars().filter(legal).take(64).collect()
}
