//! Who signs a call: nobody (the caller's own credential goes through), a header, AWS, Google.
//!
//! A credential belongs to one upstream. What expires is fetched anew in the background, once for
//! all who use it; the last good one serves until it expires. Sidecar and load generator share this.

mod aws;
mod clock;
mod config;
mod error;
mod examine;
mod fresh;
mod google;
mod guard;
mod header;
mod secret;
mod strip;

use std::time::Duration;

use tokio::runtime::Handle;

pub use config::{
    AssumeRoleConfig, AwsConfig, CredentialConfig, GoogleConfig, HeaderConfig, Place,
};
pub use error::Error;
pub use examine::{Examined, Finding, Said, examine};
pub use fresh::Freshness;
pub use guard::{Loop, loops};
pub use secret::Secret;
pub use strip::{credential_parameters, is_credential, without_credentials};

use aws::Aws;
use google::Google;
use header::Header;

/// How long a call waits for a credential that has not come yet.
const WAIT: Duration = Duration::from_secs(10);

/// The credential of one upstream; clones share it.
#[derive(Clone, Debug)]
pub struct Credential(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Header(Header),
    Aws(Box<Aws>),
    Google(Google),
}

/// A request, as far as a signature covers it; empty where it covers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host and, where it is not the scheme's own, port.
    pub host: &'a str,
    /// Path and query, as they are sent.
    pub path_and_query: &'a str,
    /// The other fields, as they are sent.
    pub headers: &'a [(&'a str, &'a str)],
    /// The whole body, where [`Credential::needs_body`]; else empty.
    pub body: &'a [u8],
}

/// What a credential adds to a request.
#[derive(Clone, Debug, Default)]
pub struct Signed {
    /// Fields by lower-case name, to be set in place of any of that name.
    pub headers: Vec<(String, Secret)>,
    /// What it is made with, for [`Credential::renew`].
    pub version: Version,
}

/// What a signature was made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Which key or token, of those that there were, from 1; 0 where there is but one.
    key: u64,
    /// By how many seconds our clock was corrected.
    clock_offset_s: i64,
}

impl Credential {
    /// The credential that a user describes; what it needs is fetched by tasks on `background`.
    pub fn new(config: &CredentialConfig, background: &Handle) -> Result<Self, Error> {
        Ok(Self(match config {
            CredentialConfig::Bearer(config) => Kind::Header(Header::bearer(config, background)?),
            CredentialConfig::Header(config) => Kind::Header(Header::named(config, background)?),
            CredentialConfig::Aws(config) => Kind::Aws(Box::new(Aws::new(config, background))),
            CredentialConfig::Google(config) => Kind::Google(Google::new(config, background)),
        }))
    }

    /// Whether this field is its own, whoever else may have set it.
    pub fn sets(&self, name: &[u8]) -> bool {
        match &self.0 {
            Kind::Header(header) => name.eq_ignore_ascii_case(header.name.as_bytes()),
            Kind::Aws(_) | Kind::Google(_) => false,
        }
    }

    /// Whether the whole body must be at hand to sign.
    pub fn needs_body(&self) -> bool {
        matches!(self.0, Kind::Aws(_))
    }

    /// Waits until there is a credential, or a reason why there is none; not for long.
    pub async fn ready(&self) -> Result<(), Error> {
        match &self.0 {
            Kind::Header(header) => header.sign(WAIT).await.map(drop),
            Kind::Aws(aws) => aws.fresh().get(WAIT).await.map(drop),
            Kind::Google(google) => google.fresh().get(WAIT).await.map(drop),
        }
    }

    /// What to add to this request. Waits only where no credential has come yet, and not for long.
    pub async fn sign(&self, request: &Request<'_>) -> Result<Signed, Error> {
        match &self.0 {
            Kind::Header(header) => header.sign(WAIT).await,
            Kind::Aws(aws) => aws.sign(request, WAIT).await,
            Kind::Google(google) => google.sign(WAIT).await,
        }
    }

    /// Whether there is another key or token than the one that was refused. If not, one is fetched,
    /// for all who ask together, and at most once a minute; waits for it as long as `limit`, though
    /// not for long.
    pub async fn renew(&self, refused: Version, limit: Duration) -> bool {
        let (refused, limit) = (refused.key, limit.min(WAIT));
        match &self.0 {
            Kind::Header(header) => match header.fresh() {
                Some(fresh) => fresh.renew(refused, limit).await,
                None => false,
            },
            Kind::Aws(aws) => aws.fresh().renew(refused, limit).await,
            Kind::Google(google) => google.fresh().renew(refused, limit).await,
        }
    }

    /// Whether what was made with this bears the time of a clock that was corrected meanwhile.
    pub fn is_of_another_clock(&self, version: Version) -> bool {
        let Kind::Aws(aws) = &self.0 else { return false };
        aws.clock().offset_s() != version.clock_offset_s
    }

    /// Takes in how what it signed was answered, as `field` gives the fields. Where a signature was
    /// refused and the answer shows that our clock is wrong, the next one bears the time of the
    /// answer; then, once, by how many seconds it is later there.
    pub fn answered<'a>(
        &self,
        status: u16,
        field: impl Fn(&str) -> Option<&'a str>,
    ) -> Option<i64> {
        let Kind::Aws(aws) = &self.0 else { return None };
        if !matches!(status, 400 | 401 | 403) {
            return None;
        }
        aws.clock().refused(field("x-amzn-errortype")?, field("date")?)
    }

    /// How fresh it is; absent where it never changes.
    pub fn freshness(&self) -> Option<Freshness> {
        match &self.0 {
            Kind::Header(header) => header.fresh().map(|fresh| fresh.freshness()),
            Kind::Aws(aws) => Some(aws.fresh().freshness()),
            Kind::Google(google) => Some(google.fresh().freshness()),
        }
    }
}
