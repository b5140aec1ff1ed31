//! AWS Signature Version 4, with keys from wherever the AWS SDKs look for them.
//!
//! What is signed: `host`, `content-type`, every `x-amz-*` that is sent, and the hash of the whole
//! body. The path is signed as it is sent, encoded once more, as every service but S3 wants it
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::tls;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::identity::Identity;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::clock::{Clock, moved};
use crate::config::AwsConfig;
use crate::fresh::{Fetched, Fresh, Source};
use crate::{Error, Request, Secret, Signed, Version};

/// Keys are fetched anew so long before they expire, or after half of a shorter life.
const AHEAD: Duration = Duration::from_secs(300);
/// Keys without an end are looked for again so often: a file or variable may name others.
const LOOK: Duration = Duration::from_secs(300);
/// The shortest time between two fetches.
const SOONEST: Duration = Duration::from_secs(1);

/// Signs for one service in one region.
#[derive(Clone, Debug)]
pub(crate) struct Aws {
    keys: Fresh<Identity>,
    /// The time that signatures bear; clones share it.
    clock: Arc<Clock>,
    region: Option<String>,
    service: Option<String>,
}

impl Aws {
    pub(crate) fn new(config: &AwsConfig, background: &Handle) -> Self {
        Self {
            keys: Fresh::keep(Keys::new(config), background),
            clock: Arc::default(),
            region: config.region.clone(),
            service: config.service.clone(),
        }
    }

    pub(crate) fn fresh(&self) -> &Fresh<Identity> {
        &self.keys
    }

    pub(crate) async fn sign(
        &self,
        request: &Request<'_>,
        limit: Duration,
    ) -> Result<Signed, Error> {
        let scope = Scope::of(request.host, self.region.as_deref(), self.service.as_deref())?;
        let keys = self.keys.get(limit).await?;
        let clock_offset_s = self.clock.offset_s();
        let now = moved(SystemTime::now(), clock_offset_s);
        let signed = signed(request, &scope, &keys.value, now)?;
        Ok(Signed { version: Version { key: keys.version, clock_offset_s }, ..signed })
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// What a signature is good for.
#[derive(Debug, PartialEq)]
pub(crate) struct Scope<'a> {
    region: &'a str,
    service: &'a str,
}

impl<'a> Scope<'a> {
    /// As configured, else as the host says: `bedrock-runtime.us-east-1.amazonaws.com`.
    pub(crate) fn of(
        host: &'a str,
        region: Option<&'a str>,
        service: Option<&'a str>,
    ) -> Result<Self, Error> {
        let name = host.split_once(':').map_or(host, |(name, _)| name);
        let mut labels = name.split('.').skip_while(|label| !label.starts_with("bedrock"));
        let said = labels.next().zip(labels.next());
        let service = service.unwrap_or(match said {
            Some(("bedrock-mantle", _)) => "bedrock-mantle",
            _ => "bedrock",
        });
        let region = region.or(said.map(|(_, region)| region)).ok_or_else(|| {
            Error::Config(format!("no region to sign for: {name} names none; give `region`"))
        })?;
        Ok(Self { region, service })
    }
}

fn signed(
    request: &Request<'_>,
    scope: &Scope<'_>,
    keys: &Identity,
    now: SystemTime,
) -> Result<Signed, Error> {
    let unsignable = |error: &dyn std::fmt::Display| Error::Unsignable(error.to_string());
    let params = v4::SigningParams::builder()
        .identity(keys)
        .region(scope.region)
        .name(scope.service)
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| unsignable(&error))?;
    let uri = format!("{}://{}{}", request.scheme, request.host, request.path_and_query);
    let host = [("host", request.host)];
    let headers = request.headers.iter().copied().filter(|(name, _)| is_signed(name));
    let signable = SignableRequest::new(
        request.method,
        uri.as_str(),
        host.into_iter().chain(headers),
        SignableBody::Bytes(request.body),
    );
    let signable = signable.map_err(|error| unsignable(&error))?;
    let (instructions, _) =
        sign(signable, &params.into()).map_err(|error| unsignable(&error))?.into_parts();
    let (headers, _) = instructions.into_parts();
    let headers = headers
        .into_iter()
        .map(|header| (header.name().to_owned(), Secret::new(header.value().to_owned())));
    Ok(Signed { headers: headers.collect(), ..Signed::default() })
}

/// Fields that the signature covers beside `host`.
fn is_signed(name: &str) -> bool {
    name.eq_ignore_ascii_case("content-type")
        || name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("x-amz-"))
}

/// Where keys come from.
struct Keys {
    config: AwsConfig,
    provider: Option<SharedCredentialsProvider>,
    last: Option<Credentials>,
}

impl Keys {
    fn new(config: &AwsConfig) -> Self {
        Self { config: config.clone(), provider: None, last: None }
    }
}

impl Source for Keys {
    type Value = Identity;

    fn name(&self) -> &'static str {
        "AWS"
    }

    async fn fetch(&mut self) -> Result<Fetched<Identity>, String> {
        if self.provider.is_none() {
            self.provider = Some(provider(&self.config).await?);
        }
        let provider = self.provider.as_ref().ok_or("there is no source")?;
        let keys = provider.provide_credentials().await.map_err(|error| told(&error))?;
        self.last = Some(keys.clone());
        let left = keys
            .expiry()
            .map(|expiry| expiry.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO));
        Ok(Fetched {
            expires: left.map(|left| Instant::now() + left),
            again_in: left.map_or(LOOK, ahead).max(SOONEST),
            value: Some(identity(keys)),
        })
    }

    async fn renew(&mut self) -> Result<Fetched<Identity>, String> {
        // The SDK keeps what it has read of files: begin anew.
        let mut anew = Self::new(&self.config);
        let fetched = anew.fetch().await?;
        let is_same = anew.last == self.last;
        *self = anew;
        Ok(Fetched { value: fetched.value.filter(|_| !is_same), ..fetched })
    }
}

fn identity(keys: Credentials) -> Identity {
    keys.into()
}

fn ahead(left: Duration) -> Duration {
    left.saturating_sub(AHEAD).max(left / 2)
}

/// The chain of causes: the outermost alone says little.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The client of the SDK, on the same TLS as everything else here.
pub(crate) fn client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https()
}

/// The SDK's configuration, as the environment and the user's files have it.
pub(crate) async fn sdk_config(region: Option<&str>, profile: Option<&str>) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(client());
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    if let Some(profile) = profile {
        loader = loader.profile_name(profile);
    }
    loader.load().await
}

pub(crate) async fn provider(config: &AwsConfig) -> Result<SharedCredentialsProvider, String> {
    let sdk = sdk_config(config.region.as_deref(), config.profile.as_deref()).await;
    let base = match &config.profile {
        Some(profile) => of_profile(profile, sdk.region().cloned()),
        None => sdk.credentials_provider().ok_or("the AWS SDK knows no source of keys")?,
    };
    let Some(role) = &config.assume_role else { return Ok(base) };
    let mut builder =
        AssumeRoleProvider::builder(&role.arn).session_name(&role.session_name).configure(&sdk);
    if let Some(id) = &role.external_id {
        builder = builder.external_id(id);
    }
    Ok(SharedCredentialsProvider::new(builder.build_from_provider(base).await))
}

/// A profile that is named is meant: the SDK's own chain would look at the environment first.
pub(crate) fn of_profile(profile: &str, region: Option<Region>) -> SharedCredentialsProvider {
    let configured = ProviderConfig::default().with_http_client(client()).with_region(region);
    let provider =
        ProfileFileCredentialsProvider::builder().configure(&configured).profile_name(profile);
    SharedCredentialsProvider::new(provider.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-02T03:04:05Z.
    const THEN: Duration = Duration::from_secs(1_767_323_045);
    const BODY: &[u8] = br#"{"messages":[{"role":"user","content":[{"text":"hi"}]}]}"#;

    #[track_caller]
    fn check(path: &str, token: Option<&str>, signature: &str) {
        let keys = Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            token.map(str::to_owned),
            None,
            "test",
        );
        let request = Request {
            method: "POST",
            scheme: "https",
            host: "bedrock-runtime.us-east-1.amazonaws.com",
            path_and_query: path,
            headers: &[("Content-Type", "application/json"), ("User-Agent", "x")],
            body: BODY,
        };
        let scope = Scope::of(request.host, None, None).expect("a scope");
        let now = SystemTime::UNIX_EPOCH + THEN;
        let signed = signed(&request, &scope, &identity(keys), now).expect("a signature");
        let authorization = signed.headers.iter().find(|(name, _)| name == "authorization");
        let (_, value) = authorization.expect("an authorization");
        assert!(
            value.expose().ends_with(&format!("Signature={signature}")),
            "{path}: {}",
            value.expose()
        );
    }

    /// What botocore 1.43.11 makes of the same.
    #[test]
    fn signatures_are_those_of_botocore() {
        check(
            "/model/us.anthropic.claude-sonnet-4-20250514-v1%3A0/converse",
            None,
            "34a57fdd2126f87b9dcc68d4848ef4a52d177e1b817459b0794d54dc04535643",
        );
        check(
            "/model/us.anthropic.claude-sonnet-4-20250514-v1%3A0/converse",
            Some("TOKENEXAMPLE"),
            "8100e594ddf802e19aee0f5a325355a1d4597cc78a322271a3abc3200dac6647",
        );
        check(
            "/model/us.anthropic.claude-sonnet-4-20250514-v1:0/converse",
            None,
            "b7c3669a87581f7ff728645f9e1f806e66db5acb6021b7e3cf0129c3287ce52c",
        );
        check(
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fabc123def456/converse",
            None,
            "f1ba2a7af893e1dd65d857d82482a3d4d655d04d85ce566a0bb546b602dc073c",
        );
    }

    #[test]
    fn the_host_says_what_to_sign_for_unless_the_user_does() {
        let of = |host| Scope::of(host, None, None).expect("a scope");
        let scope = |region, service| Scope { region, service };
        assert_eq!(of("bedrock-runtime.eu-west-1.amazonaws.com"), scope("eu-west-1", "bedrock"));
        assert_eq!(
            of("bedrock-mantle.us-east-1.api.aws:443"),
            scope("us-east-1", "bedrock-mantle")
        );
        assert_eq!(
            of("vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com"),
            scope("us-east-1", "bedrock")
        );
        let given = Scope::of("localhost:4102", Some("eu-central-1"), Some("other"));
        assert_eq!(given.expect("a scope"), scope("eu-central-1", "other"));
        assert!(Scope::of("localhost:4102", None, None).is_err());
    }

    #[test]
    fn keys_are_fetched_anew_before_they_expire() {
        assert_eq!(ahead(Duration::from_secs(3600)), Duration::from_secs(3300));
        assert_eq!(ahead(Duration::from_secs(400)), Duration::from_secs(200));
        assert_eq!(ahead(Duration::ZERO), Duration::ZERO);
    }
}
