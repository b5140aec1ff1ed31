//! A caller that takes the sidecar for its proxy.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Body, Certificate, whole};

/// Asks for a tunnel; the head of the answer, and the connection.
pub(crate) async fn tunnel(proxy: SocketAddr, authority: &str) -> (String, TcpStream) {
    let mut tcp = TcpStream::connect(proxy).await.expect("somebody listens");
    let asked = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    tcp.write_all(asked.as_bytes()).await.expect("it is taken");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = tcp.read_u8().await else { break };
        head.push(byte);
    }
    (String::from_utf8(head).expect("a head is text"), tcp)
}

/// TLS with this host, as one that trusts these roots alone, and offers these protocols.
pub(crate) async fn tls(
    tcp: TcpStream,
    host: &str,
    roots: &Path,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    tls_showing(tcp, host, roots, protocols, None).await
}

/// The same, as one who shows this certificate where it is asked for one.
pub(crate) async fn tls_showing(
    tcp: TcpStream,
    host: &str,
    roots: &Path,
    protocols: &[&str],
    shown: Option<&Certificate>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut store = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(roots).expect("a file of certificates") {
        store.add(root.expect("a certificate")).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3")
        .with_root_certificates(store);
    let mut config = match shown.map(Certificate::pair) {
        None => config.with_no_client_auth(),
        Some((chain, key)) => config.with_client_auth_cert(chain, key).expect("a pair"),
    };
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let host = ServerName::try_from(host.to_owned()).expect("a name");
    TlsConnector::from(Arc::new(config)).connect(host, tcp).await
}

/// One call on a connection of its own, by the protocol that was agreed on.
pub(crate) async fn call(stream: TlsStream<TcpStream>, request: Request<Body>) -> (u16, Bytes) {
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(stream);
    let reply: Response<Incoming> = if is_http2 {
        let (mut caller, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        tokio::spawn(connection);
        caller.send_request(request).await.expect("an answer")
    } else {
        let (mut caller, connection) =
            hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        caller.send_request(request).await.expect("an answer")
    };
    (reply.status().as_u16(), whole(reply.into_body()).await.expect("a clean end"))
}
