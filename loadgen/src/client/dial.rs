//! Opens connections to a target: its name, TCP, TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Url;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tower::ServiceExt as _;

use super::arrival::{Arrivals, Stamped};

/// How long a connection may take to come about.
const LIMIT: Duration = Duration::from_secs(10);

/// How one target is reached.
pub(super) struct Dialer {
    tcp: HttpConnector,
    address: Uri,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// What is open to a target: TCP, or TLS on it.
pub(super) type Stream = Either<Stamped, Box<TlsStream<Stamped>>>;

// === impl Dialer ===

impl Dialer {
    pub(super) fn new(target: &Url) -> io::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let address = Uri::try_from(target.as_str()).map_err(io::Error::other)?;
        let tls = match target.scheme() {
            "https" => Some((TlsConnector::from(Arc::new(config()?)), name(target)?)),
            _ => None,
        };
        Ok(Self { tcp, address, tls })
    }

    /// Connects, unless it takes too long.
    pub(super) async fn dial(&self) -> io::Result<(Stream, Arc<Arrivals>)> {
        timeout(LIMIT, self.connect()).await?
    }

    async fn connect(&self) -> io::Result<(Stream, Arc<Arrivals>)> {
        let tcp = self.tcp.clone().oneshot(self.address.clone()).await;
        let tcp = tcp.map_err(io::Error::other)?;
        let tcp = Stamped::new(tcp.into_inner());
        let arrivals = tcp.arrivals();
        let stream = match &self.tls {
            None => Either::Left(tcp),
            Some((tls, name)) => Either::Right(Box::new(tls.connect(name.clone(), tcp).await?)),
        };
        Ok((stream, arrivals))
    }
}

/// What the target's certificate must name.
fn name(target: &Url) -> io::Result<ServerName<'static>> {
    let host = target.host_str().unwrap_or_default().trim_matches(['[', ']']);
    ServerName::try_from(host.to_owned()).map_err(io::Error::other)
}

/// TLS with the system's roots, Mozilla's where there are none.
fn config() -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        tracing::info!("no system certificates found, using the built-in ones");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A connection of HTTP/2 carries about a hundred calls; the next one would wait inside the client,
    // and the model be blamed for it.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
