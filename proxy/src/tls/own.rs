//! TLS on the address of `listen`: a certificate for the sidecar itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::authority::{Authority, base, offering};
use super::files::{certificates, certified, versions, wrong};
use super::{Error, LOOK, TlsConfig, provider};

/// How long a certificate of our own is shown.
const RENEW: Duration = Duration::from_hours(24);

/// The certificate that the sidecar itself shows, and whom it asks for one; both are read anew as it
/// runs.
#[derive(Debug)]
pub(crate) struct Own {
    now: RwLock<Arc<ServerConfig>>,
    source: Source,
    /// Roots of callers.
    callers: Option<PathBuf>,
}

#[derive(Debug)]
enum Source {
    Files([PathBuf; 2]),
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
            (Some(certificate), Some(key)) => Source::Files([certificate, key]),
            _ => Source::Authority { authority: authority()?, names: names(config, listen) },
        };
        let callers = config.callers.clone();
        let now = RwLock::new(source.config(callers.as_deref())?);
        Ok(Arc::new(Self { now, source, callers }))
    }

    /// TLS as it is by now.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.now.read().expect("nobody panics while writing").clone()
    }

    /// Shows and asks for what the files say by then, again and again. Never ends.
    pub(crate) async fn renew(self: Arc<Self>) {
        let mut seen = self.versions();
        let mut made = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.versions();
            let is_ours = matches!(self.source, Source::Authority { .. });
            if now == seen && !(is_ours && made.elapsed() >= RENEW) {
                continue;
            }
            match self.source.config(self.callers.as_deref()) {
                Ok(config) => *self.now.write().expect("nobody panics while writing") = config,
                Err(error) => {
                    tracing::error!(%error, "the certificate cannot be renewed; the one before it still is shown");
                }
            }
            (seen, made) = (now, tokio::time::Instant::now());
        }
    }

    fn versions(&self) -> Vec<Option<SystemTime>> {
        let shown = match &self.source {
            Source::Files(files) => &files[..],
            Source::Authority { authority, .. } => authority.sources(),
        };
        versions(shown.iter().chain(&self.callers))
    }
}

impl Source {
    fn certified(&self) -> Result<Arc<CertifiedKey>, Error> {
        match self {
            Self::Files([certificate, key]) => certified(certificate, key),
            Self::Authority { authority, names } => authority.certify(names.clone()).map(Arc::new),
        }
    }

    /// TLS with this certificate, which asks callers for one that leads to these roots.
    fn config(&self, callers: Option<&Path>) -> Result<Arc<ServerConfig>, Error> {
        let base = match callers {
            None => base().with_no_client_auth(),
            Some(roots) => base().with_client_cert_verifier(verifier(roots)?),
        };
        let shown = SingleCertAndKey::from(self.certified()?);
        Ok(Arc::new(offering(base.with_cert_resolver(Arc::new(shown)))))
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
