//! What callers by TLS are shown: a certificate for the sidecar itself, and one for each host whose
//! calls are taken in. And TLS to upstreams.
//!
//! TLS 1.2 and 1.3 alone; HTTP/2 or HTTP/1.1, as the caller prefers.

mod authority;
pub(crate) mod client;
mod files;
mod own;
mod shown;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use authority::{Authority, files_of};
pub use client::UpstreamTlsConfig;
pub(crate) use own::{Own, serve};
pub(crate) use shown::ShownNames;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Who signs the certificates that callers are shown.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CaConfig {
    /// Where the authority is kept, and what applications need to trust it: `ca.pem`, and `bundle.pem`
    /// with the system's roots besides. Made at the first start. `tidegate` in the state folder of this
    /// user where absent: `$XDG_STATE_HOME`, else `~/.local/state`.
    pub folder: Option<PathBuf>,
    /// The certificate (PEM) of an authority that is there already, in place of one of our own.
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    pub key: Option<PathBuf>,
}

/// TLS on the address of `listen`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// The certificate that is shown, with all that leads to its root (PEM); it is read anew when it
    /// changes. One that `ca` has signed where absent.
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    pub key: Option<PathBuf>,
    /// Names and addresses that a certificate of ours is for, beside those of this machine's loopback
    /// and of `listen`.
    pub names: Vec<String>,
    /// Roots (PEM) to which the certificates of callers must lead; none are asked for where absent.
    pub callers: Option<PathBuf>,
    /// Whether calls in the clear are refused; they are in any case where callers need a certificate.
    pub required: bool,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("cannot {what} {}: {source}{advice}", path.display())]
    File {
        /// What was to be done with it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What may help, behind a semicolon.
        advice: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no folder for the authority.
    #[error(
        "there is no place for a certificate authority, for this user has no home; say where in `ca.folder`"
    )]
    NoFolder,
    /// A certificate cannot be made.
    #[error("cannot make a certificate for {name}: {source}")]
    Make {
        /// Whom it is for.
        name: String,
        /// The reason.
        source: rcgen::Error,
    },
}

impl TlsConfig {
    /// What its keys do not say of each other; the key is named first.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        pair(&self.certificate, &self.key)
    }

    /// The files that it names.
    pub(crate) fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.certificate, &mut self.key, &mut self.callers].into_iter().flatten()
    }

    /// Whether calls in the clear are refused.
    pub(crate) fn is_required(&self) -> bool {
        self.required || self.callers.is_some()
    }
}

impl CaConfig {
    /// What its keys do not say of each other; the key is named first.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        pair(&self.certificate, &self.key)
    }

    /// The files that it names.
    pub(crate) fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.folder, &mut self.certificate, &mut self.key].into_iter().flatten()
    }

    /// The folder that it is kept in.
    pub(crate) fn folder(&self) -> Result<PathBuf, Error> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let state = || variable("XDG_STATE_HOME").map(PathBuf::from);
        let home = || variable("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        let own = || state().or_else(home).map(|folder| folder.join("tidegate"));
        self.folder.clone().or_else(own).ok_or(Error::NoFolder)
    }
}

fn pair(
    certificate: &Option<PathBuf>,
    key: &Option<PathBuf>,
) -> Result<(), (&'static str, String)> {
    match (certificate, key) {
        (Some(_), None) => Err(("certificate", "is of no use without its `key`".to_owned())),
        (None, Some(_)) => Err(("key", "is of no use without its `certificate`".to_owned())),
        _ => Ok(()),
    }
}

/// The provider of all cryptography in TLS.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
