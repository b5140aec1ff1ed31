//! Signs calls that go straight to a provider, as a sidecar would on their way.
//!
//! Each call is signed as it is sent: what is signed is the request that the transport is given,
//! with its address and path as they go onto the wire.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::StatusCode;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use tidegate_credential::{Credential, CredentialConfig, Error, Request, Signed};
use tokio::runtime::Handle;

use crate::client::Target;

/// Who signs the calls of a run.
#[derive(Debug)]
pub(crate) struct Signer(Credential);

/// Why a file says nobody who could sign.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCredential {
    /// The file could not be read.
    #[error("cannot read credential {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file says something that cannot be meant.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What it is.
        reason: String,
    },
}

/// Reads who signs the calls to this target; files that are named stand beside this one.
pub fn read_credential(
    path: &Path,
    target: &Target,
) -> Result<CredentialConfig, InvalidCredential> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| InvalidCredential::Unreadable { path: path.to_owned(), source })?;
    parse(&text, path.parent().unwrap_or(Path::new("")), target)
        .map_err(|reason| InvalidCredential::Invalid { path: path.to_owned(), reason })
}

fn parse(text: &str, folder: &Path, target: &Target) -> Result<CredentialConfig, String> {
    let mut config: CredentialConfig =
        serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())?;
    config.check(target.host())?;
    if let Some(file) = config.file_mut() {
        *file = folder.join(&*file);
    }
    Ok(config)
}

// === impl Signer ===

impl Signer {
    /// Begins to fetch what is needed, by tasks of the runtime that this is called on.
    pub(crate) fn new(config: &CredentialConfig) -> Result<Self, Error> {
        // Whoever embeds us may have installed a provider already; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Credential::new(config, &Handle::current()).map(Self)
    }

    /// Waits until there is something to sign with, or a reason why there is not; not for long.
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        self.0.ready().await
    }

    /// Takes in how a call that was signed was answered.
    pub(crate) fn answered(&self, status: StatusCode, headers: &HeaderMap) {
        let field = |name: &str| headers.get(name)?.to_str().ok();
        if let Some(offset_s) = self.0.answered(status.as_u16(), field) {
            tracing::warn!(
                offset_s,
                "signature refused for its time: our clock is wrong, the target's is used from now on"
            );
        }
    }

    /// Signs what is about to be sent, by HTTP or HTTPS.
    pub(crate) async fn sign(
        &self,
        request: &mut http::Request<Bytes>,
        scheme: &str,
    ) -> Result<(), Error> {
        let signed = match self.0.needs_body() {
            true => covered(&self.0, request, scheme).await?,
            false => self.0.sign(&Request::default()).await?,
        };
        for (name, value) in &signed.headers {
            // The errors of the library would quote what they are about.
            let unsignable = || Error::Unsignable("the key is no value of a header".to_owned());
            let name = HeaderName::try_from(name).map_err(|_| unsignable())?;
            let mut value = HeaderValue::try_from(value.expose()).map_err(|_| unsignable())?;
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        Ok(())
    }
}

/// Signs head and body, as they go onto the wire.
async fn covered(
    credential: &Credential,
    request: &http::Request<Bytes>,
    scheme: &str,
) -> Result<Signed, Error> {
    let field = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let headers = request.headers().iter().filter(|(name, _)| *name != HOST);
    let headers: Vec<_> =
        headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
    let signable = Request {
        method: request.method().as_str(),
        scheme,
        host: field(HOST).unwrap_or_default(),
        path_and_query: request.uri().path_and_query().map_or("/", PathAndQuery::as_str),
        headers: &headers,
        body: request.body(),
    };
    credential.sign(&signable).await
}

#[cfg(test)]
mod tests {
    use tidegate_credential::Place;

    use super::*;

    fn read(text: &str, target: &str) -> Result<CredentialConfig, String> {
        parse(text, Path::new("/etc/keys"), &target.parse().expect("a target"))
    }

    #[test]
    fn what_cannot_be_meant_is_told_and_shows_no_key() {
        const LOCAL: &str = "http://127.0.0.1:4100";
        for (text, part) in [
            ("aws: {}", "no region to sign for: 127.0.0.1 names none"),
            ("aws: { reigon: a }", "unknown field `reigon`"),
            ("{}", "is one of"),
            ("bearer: sk-canary", "needs `file` or `env`"),
            ("bearer: { env: sk-canary }", "is not the name of an environment variable"),
            ("header: sk-canary", "needs `name`"),
            ("sk-canary", "is one of"),
            ("12345", "is one of"),
        ] {
            let error = read(text, LOCAL).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("canary") && !error.contains("12345"), "{text}: {error}");
        }
        assert!(read("aws: {}", "https://bedrock-runtime.us-east-1.amazonaws.com").is_ok());
    }

    #[test]
    fn a_file_is_looked_for_beside_the_one_that_names_it() {
        let read = read("bearer: { file: key }", "http://a").expect("good");
        assert_eq!(read, CredentialConfig::Bearer(Place::File("/etc/keys/key".into())));
    }
}
