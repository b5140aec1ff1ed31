//! Google access tokens, by google-cloud-auth: a service account's key, an authorised user,
//! impersonation, workload identity federation from a file, a URL or AWS, and the metadata server.
//!
//! Without a file these are the application default credentials
//! (<https://cloud.google.com/docs/authentication/application-default-credentials>).

pub(crate) mod aws_subject;
mod impersonation;

use std::path::PathBuf;
use std::time::Duration;

use google_cloud_auth::credentials::service_account::AccessSpecifier;
use google_cloud_auth::credentials::{
    CacheableResource, Credentials, EntityTag, external_account, impersonated, mds,
    service_account, user_account,
};
use http::{Extensions, HeaderMap};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::aws::told;
use crate::config::GoogleConfig;
use crate::fresh::{Fetched, Fresh, Source};
use crate::{Error, Secret, Signed, Version};

use impersonation::Impersonation;

/// How often the library's own cache is asked: it renews a token 4 minutes before its end.
const LOOK: Duration = Duration::from_secs(5);
/// As much as is told of what a token service says of a failure.
const TOLD: usize = 600;

/// Signs with Google access tokens.
#[derive(Clone, Debug)]
pub(crate) struct Google {
    token: Fresh<Signed>,
}

impl Google {
    pub(crate) fn new(config: &GoogleConfig, background: &Handle) -> Self {
        Self { token: Fresh::keep(Tokens::new(config), background) }
    }

    pub(crate) async fn sign(&self, limit: Duration) -> Result<Signed, Error> {
        let token = self.token.get(limit).await?;
        let version = Version { key: token.version, ..Version::default() };
        Ok(Signed { version, ..Signed::clone(&token.value) })
    }

    pub(crate) fn fresh(&self) -> &Fresh<Signed> {
        &self.token
    }
}

/// Where tokens come from.
pub(crate) struct Tokens {
    config: GoogleConfig,
    origin: Option<Origin>,
    tag: Option<EntityTag>,
}

enum Origin {
    Library(Credentials),
    /// The library's token is exchanged once more, at an address that it has no place for.
    Impersonated(Impersonation),
}

impl Source for Tokens {
    type Value = Signed;

    fn name(&self) -> &'static str {
        "Google"
    }

    async fn fetch(&mut self) -> Result<Fetched<Signed>, String> {
        let fetched = self.token().await;
        if fetched.is_err() {
            // The library gives up for good where it takes an error for a lasting one: begin anew.
            (self.origin, self.tag) = (None, None);
        }
        fetched.map_err(|reason| without_body(&reason).chars().take(TOLD).collect())
    }

    async fn renew(&mut self) -> Result<Fetched<Signed>, String> {
        // The library keeps a token until shortly before its end: begin anew.
        let mut anew = Self::new(&self.config);
        let fetched = anew.fetch().await?;
        *self = anew;
        Ok(fetched)
    }

    fn keeps_until_expiry(&self) -> bool {
        // It is the library that keeps a token, and it fails only once there is none.
        matches!(self.origin, Some(Origin::Impersonated(_)))
    }
}

impl Tokens {
    pub(crate) fn new(config: &GoogleConfig) -> Self {
        Self { config: config.clone(), origin: None, tag: None }
    }

    async fn token(&mut self) -> Result<Fetched<Signed>, String> {
        if self.origin.is_none() {
            self.origin = Some(origin(&self.config).await?);
        }
        match self.origin.as_mut().ok_or("there is no source")? {
            Origin::Impersonated(impersonation) => impersonation.token().await,
            Origin::Library(credentials) => {
                let mut known = Extensions::new();
                if let Some(tag) = &self.tag {
                    known.insert(tag.clone());
                }
                let headers = credentials.headers(known).await.map_err(|error| told(&error))?;
                let value = match headers {
                    CacheableResource::NotModified => None,
                    CacheableResource::New { entity_tag, data } => {
                        self.tag = Some(entity_tag);
                        Some(signed(&data))
                    }
                };
                Ok(Fetched { value, expires: None, again_in: LOOK })
            }
        }
    }
}

fn signed(headers: &HeaderMap) -> Signed {
    let fields = headers.iter().filter_map(|(name, value)| {
        Some((name.as_str().to_owned(), Secret::new(value.to_str().ok()?.to_owned())))
    });
    Signed { headers: fields.collect(), ..Signed::default() }
}

async fn origin(config: &GoogleConfig) -> Result<Origin, String> {
    let source = match &config.file {
        Some(path) => Some(read(path).await?),
        None => match default_file() {
            Some(path) => Some(read(&path).await?),
            None => None,
        },
    };
    let Some(source) = source else { return on_google_cloud(config) };
    match source["type"].as_str() {
        Some("external_account") if aws_subject::is_aws(&source) => {
            federated_from_aws(config, &source).await
        }
        _ => from_file(config, source),
    }
}

pub(crate) async fn read(path: &PathBuf) -> Result<Value, String> {
    let text = tokio::fs::read(path).await;
    let text =
        text.map_err(|error| format!("{} cannot be read: {}", path.display(), error.kind()))?;
    // The parser's own message may quote what it found: a key, say.
    serde_json::from_slice(&text)
        .map_err(|error| format!("{} is no JSON: line {}", path.display(), error.line()))
}

/// Where application default credentials stand, if they do.
fn default_file() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS") {
        return Some(path.into());
    }
    let home = std::env::var_os("CLOUDSDK_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config/gcloud")))?;
    Some(home.join("application_default_credentials.json")).filter(|path| path.exists())
}

fn on_google_cloud(config: &GoogleConfig) -> Result<Origin, String> {
    let mut builder = mds::Builder::default().with_scopes(config.scopes.clone());
    if let Some(project) = &config.quota_project {
        builder = builder.with_quota_project_id(project);
    }
    acting_as(config, builder.build().map_err(|error| told(&error))?)
}

fn from_file(config: &GoogleConfig, source: Value) -> Result<Origin, String> {
    let scopes = config.scopes.clone();
    let project = config.quota_project.as_ref();
    let built = match source["type"].as_str() {
        Some("service_account") => {
            let builder = service_account::Builder::new(source)
                .with_access_specifier(AccessSpecifier::from_scopes(scopes));
            project.into_iter().fold(builder, |b, p| b.with_quota_project_id(p)).build()
        }
        Some("authorized_user") => {
            let builder = user_account::Builder::new(source).with_scopes(scopes);
            project.into_iter().fold(builder, |b, p| b.with_quota_project_id(p)).build()
        }
        Some("impersonated_service_account") => {
            let builder = impersonated::Builder::new(source).with_scopes(scopes);
            project.into_iter().fold(builder, |b, p| b.with_quota_project_id(p)).build()
        }
        Some("external_account") => {
            let builder = external_account::Builder::new(source).with_scopes(scopes);
            project.into_iter().fold(builder, |b, p| b.with_quota_project_id(p)).build()
        }
        Some(kind) => {
            let kind: String = kind.chars().take(40).collect();
            return Err(format!("credentials of the type `{kind}` are not known"));
        }
        None => return Err("the file has no `type`: it holds no Google credentials".to_owned()),
    };
    acting_as(config, built.map_err(|error| told(&error))?)
}

/// The same as another service account, where the user says so.
fn acting_as(config: &GoogleConfig, own: Credentials) -> Result<Origin, String> {
    let Some(account) = &config.impersonate else { return Ok(Origin::Library(own)) };
    let mut builder = impersonated::Builder::from_source_credentials(own)
        .with_target_principal(account)
        .with_scopes(config.scopes.clone());
    if let Some(project) = &config.quota_project {
        builder = builder.with_quota_project_id(project);
    }
    builder.build().map(Origin::Library).map_err(|error| told(&error))
}

/// Federation from AWS, with keys from wherever the AWS SDKs look for them: the library itself
/// knows variables and instance metadata alone, which on EKS are the node's, not the pod's.
async fn federated_from_aws(config: &GoogleConfig, source: &Value) -> Result<Origin, String> {
    let subject = aws_subject::provider(source).await?;
    let text = |key: &str| source[key].as_str().map(str::to_owned);
    let audience = text("audience").ok_or("the file has no `audience`")?;
    let mut builder = external_account::ProgrammaticBuilder::new(subject)
        .with_audience(audience)
        .with_subject_token_type("urn:ietf:params:aws:token-type:aws4_request")
        .with_scopes(config.scopes.clone());
    if let Some(url) = text("token_url") {
        builder = builder.with_token_url(url);
    }
    if let Some(project) = config.quota_project.clone().or(text("quota_project_id")) {
        builder = builder.with_quota_project_id(project);
    }
    let own = builder.build().map_err(|error| told(&error))?;
    match text("service_account_impersonation_url") {
        None => acting_as(config, own),
        Some(url) => Ok(Origin::Impersonated(Impersonation::new(own, url, config.scopes.clone()))),
    }
}

/// The same without the answer that the library quotes, of which one word may be told: it may hold
/// what was sent.
fn without_body(reason: &str) -> String {
    let Some((before, body)) = reason.split_once("body=<") else { return reason.to_owned() };
    let is_plain = |word: &&str| {
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        (1..=40).contains(&word.len()) && word.bytes().all(is_letter)
    };
    let word = body.split_once("\"error\"").and_then(|(_, rest)| rest.split('"').nth(1));
    format!("{before}it said {}", word.filter(is_plain).unwrap_or("something else"))
}

/// What a moment is, counted from now.
fn in_time(seconds: f64) -> Option<Instant> {
    Some(Instant::now() + Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_answer_that_the_library_quotes_one_word_is_told() {
        for (reason, told) in [
            ("cannot connect", "cannot connect"),
            (
                r#"no, body=<{"error": "invalid_grant", "a": "canary"}>: b"#,
                "no, it said invalid_grant",
            ),
            (r#"no, body=<{"error":{"message":"canary"}}>"#, "no, it said message"),
            (r#"no, body=<{"error":"canary 1"}>"#, "no, it said something else"),
            ("no, body=<canary>", "no, it said something else"),
        ] {
            assert_eq!(without_body(reason), told);
        }
    }
}
