//! TLS on the address of `listen`: a certificate for the sidecar itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::authority::{Authority, base, offering};
use super::files::{certificates, certified, wrong};
use super::{Error, TlsConfig, provider};

/// How often files are looked at, and how long a certificate of our own is shown.
const LOOK: Duration = Duration::from_secs(10);
const RENEW: Duration = Duration::from_hours(24);

/// The certificate that the sidecar itself shows; it is renewed as it runs.
#[derive(Debug)]
pub(crate) struct Own {
    shown: RwLock<Arc<CertifiedKey>>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Files { certificate: PathBuf, key: PathBuf },
    Authority { authority: Arc<Authority>, names: Vec<String> },
}

impl Own {
    /// The certificate of this configuration, for who listens there. `authority` signs where no file
    /// is named.
    pub(crate) fn new(
        config: &TlsConfig,
        listen: SocketAddr,
        authority: impl FnOnce() -> Result<Arc<Authority>, Error>,
    ) -> Result<Arc<Self>, Error> {
        let source = match (config.certificate.clone(), config.key.clone()) {
            (Some(certificate), Some(key)) => Source::Files { certificate, key },
            _ => Source::Authority { authority: authority()?, names: names(config, listen) },
        };
        let shown = RwLock::new(source.certified()?);
        Ok(Arc::new(Self { shown, source }))
    }

    /// TLS with this certificate.
    pub(crate) fn config(self: &Arc<Self>, config: &TlsConfig) -> Result<Arc<ServerConfig>, Error> {
        let base = match &config.callers {
            None => base().with_no_client_auth(),
            Some(roots) => base().with_client_cert_verifier(verifier(roots)?),
        };
        Ok(Arc::new(offering(base.with_cert_resolver(self.clone()))))
    }

    /// Shows what the files say by then, again and again. Never ends.
    pub(crate) async fn renew(self: Arc<Self>) {
        let mut seen = self.source.version();
        let mut made = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.source.version();
            if now == seen && (now.is_some() || made.elapsed() < RENEW) {
                continue;
            }
            match self.source.certified() {
                Ok(shown) => *self.shown.write().expect("nobody panics while writing") = shown,
                Err(error) => {
                    tracing::error!(%error, "the certificate cannot be renewed; the one before it still is shown");
                }
            }
            (seen, made) = (now, tokio::time::Instant::now());
        }
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.read().expect("nobody panics while writing").clone())
    }
}

impl Source {
    fn certified(&self) -> Result<Arc<CertifiedKey>, Error> {
        match self {
            Self::Files { certificate, key } => certified(certificate, key),
            Self::Authority { authority, names } => authority.certify(names.clone()).map(Arc::new),
        }
    }

    /// When its files were written; nothing where there are none.
    fn version(&self) -> Option<[Option<SystemTime>; 2]> {
        let Self::Files { certificate, key } = self else { return None };
        let written = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
        Some([written(certificate), written(key)])
    }
}

/// What a certificate of ours is for.
fn names(config: &TlsConfig, listen: SocketAddr) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !listen.ip().is_unspecified() {
        names.push(listen.ip().to_string());
    }
    names.extend(config.names.iter().cloned());
    names.sort();
    names.dedup();
    names
}

/// Asks callers for a certificate that leads to one of these roots.
fn verifier(roots: &Path) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, Error> {
    let mut store = rustls::RootCertStore::empty();
    for root in certificates(roots)? {
        let no_root = |error: rustls::Error| wrong(roots, format!("is no root: {error}"));
        store.add(root).map_err(no_root)?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider())
        .build()
        .map_err(|error| wrong(roots, format!("cannot be used: {error}")))
}

/// Shakes hands with a caller, in this time.
pub(crate) async fn serve(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    limit: Duration,
) -> std::io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    let shaken = timeout(limit, TlsAcceptor::from(config).accept(tcp)).await;
    shaken.map_err(|_| std::io::ErrorKind::TimedOut)?
}
