//! TLS to upstreams: the roots that are trusted, and what is shown to those who ask for a certificate.
//!
//! Files are read again when they change; where they cannot be read then, what was read before still
//! is used.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use rustls::client::ResolvesClientCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::files::{certificates, certified, versions, wrong};
use super::{Error, pair, provider};

/// What TLS to one upstream needs beyond the system's roots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTlsConfig {
    /// Roots (PEM) that are trusted beside the system's.
    pub roots: Option<PathBuf>,
    /// The certificate that is shown where the upstream asks for one, with all that leads to its root
    /// (PEM).
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    pub key: Option<PathBuf>,
}

/// What was read of files, and when those were written.
#[derive(Clone)]
struct Known {
    versions: Vec<Option<SystemTime>>,
    config: Arc<ClientConfig>,
}

impl UpstreamTlsConfig {
    /// What its keys do not say of each other; the key is named first.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        pair(&self.certificate, &self.key)
    }

    /// The files that it names.
    pub(crate) fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.roots, &mut self.certificate, &mut self.key].into_iter().flatten()
    }

    /// Reads its files, to see whether they can be used.
    pub(crate) fn try_out(&self) -> Result<(), Error> {
        self.read().map(|_| ())
    }

    /// TLS by its files as they are now.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        static KNOWN: OnceLock<Mutex<HashMap<UpstreamTlsConfig, Known>>> = OnceLock::new();
        let known = KNOWN.get_or_init(Mutex::default);
        let versions = self.versions();
        let old = known.lock().unwrap_or_else(PoisonError::into_inner).get(self).cloned();
        if let Some(old) = old.as_ref().filter(|old| old.versions == versions) {
            return Ok(old.config.clone());
        }
        let config = match (self.read(), old) {
            (Ok(config), _) => Arc::new(config),
            (Err(error), None) => return Err(error),
            (Err(error), Some(old)) => {
                tracing::error!(%error, "what was read before still is used");
                old.config
            }
        };
        let read = Known { versions, config: config.clone() };
        known.lock().unwrap_or_else(PoisonError::into_inner).insert(self.clone(), read);
        Ok(config)
    }

    fn versions(&self) -> Vec<Option<SystemTime>> {
        versions([&self.roots, &self.certificate, &self.key].into_iter().flatten())
    }

    fn read(&self) -> Result<ClientConfig, Error> {
        let mut roots = system_roots().clone();
        if let Some(file) = &self.roots {
            for root in certificates(file)? {
                roots.add(root).map_err(|error| wrong(file, format!("is no root: {error}")))?;
            }
        }
        let shown = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some(certified(certificate, key)?),
            _ => None,
        };
        Ok(make(roots, shown))
    }
}

/// TLS with the system's roots, and no certificate of ours.
pub(crate) fn usual() -> Arc<ClientConfig> {
    static USUAL: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    USUAL.get_or_init(|| Arc::new(make(system_roots().clone(), None))).clone()
}

/// TLS 1.2 and 1.3 that offers HTTP/2 and HTTP/1.1.
fn make(roots: RootCertStore, shown: Option<Arc<CertifiedKey>>) -> ClientConfig {
    let base = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    let mut config = match shown {
        None => base.with_no_client_auth(),
        Some(shown) => {
            let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(shown));
            base.with_client_cert_resolver(resolver)
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// The system's roots, Mozilla's where there are none.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            tracing::info!("no system certificates found, using the built-in ones");
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        roots
    })
}
