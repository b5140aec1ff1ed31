//! The sources of Google access tokens, step by step: which file, of which kind, whose, and whether
//! a token comes of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::{Examined, Finding, Said, aws, ends, plain, unreadable};
use crate::config::{AwsConfig, GoogleConfig};
use crate::fresh::Source;
use crate::google::{Tokens, aws_subject, read};

const FILE: &str = "file";
const VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
const GCLOUD: &str = "gcloud's file";
const METADATA: &str = "metadata server";
const SUBJECT: &str = "subject";
const IMPERSONATION: &str = "impersonation";
const TOKEN: &str = "access token";

/// Variables that name the project, as Google's own clients read them.
const PROJECT: [&str; 3] = ["GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT"];
/// As much of an answer of the metadata server as is looked at.
const MAX_ANSWER: usize = 256;

pub(super) async fn examine(config: &GoogleConfig, limit: Duration) -> Examined {
    let mut examined = Examined { findings: Vec::new(), project: project() };
    let step = match place(config) {
        Place::Named(source, path) => of_file(source, &path, limit, &mut examined).await,
        Place::Nowhere(gcloud) => {
            let not = |source, text: String| Finding::new(source, Said::Absent, text);
            examined.findings.push(not(VARIABLE, "is not set".to_owned()));
            examined.findings.push(not(GCLOUD, gcloud));
            of_metadata(limit, &mut examined).await
        }
    };
    if let Some(account) = &config.impersonate {
        let text = format!("acts as {}", plain(account).unwrap_or("?"));
        examined.findings.push(Finding::new(IMPERSONATION, Said::Yes, text));
    }
    if examined.findings.iter().any(|finding| finding.said == Said::No) {
        return examined;
    }
    let step = if config.impersonate.is_some() { Step::Impersonated } else { step };
    examined.findings.push(token(config, step, limit).await);
    examined
}

/// Where the credentials are looked for.
enum Place {
    Named(&'static str, PathBuf),
    /// In no file; why not in gcloud's.
    Nowhere(String),
}

/// What a token depends on, for advice.
#[derive(Clone, Copy)]
enum Step {
    ServiceAccount,
    User,
    Federated,
    Impersonated,
    Metadata,
}

fn place(config: &GoogleConfig) -> Place {
    if let Some(path) = &config.file {
        return Place::Named(FILE, path.clone());
    }
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Place::Named(VARIABLE, path.into());
    }
    let home = std::env::var_os("CLOUDSDK_CONFIG").map(PathBuf::from).or_else(|| {
        std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config/gcloud"))
    });
    let Some(home) = home else { return Place::Nowhere("HOME is not set".to_owned()) };
    let path = home.join("application_default_credentials.json");
    match path.exists() {
        true => Place::Named(GCLOUD, path),
        false => Place::Nowhere(format!("{} is not there", path.display())),
    }
}

fn project() -> Option<String> {
    PROJECT.iter().find_map(|name| named(&std::env::var(name).ok()?))
}

/// A name that may be shown and sent.
fn named(text: &str) -> Option<String> {
    plain(text.trim()).map(str::to_owned)
}

async fn of_file(
    source: &'static str,
    path: &Path,
    limit: Duration,
    examined: &mut Examined,
) -> Step {
    let start = Instant::now();
    let document = timeout(limit, read(&path.to_path_buf())).await;
    let document = match document {
        Ok(Ok(document)) => document,
        failed => {
            let reason = failed
                .map_or("no answer in time".to_owned(), |failed| failed.err().unwrap_or_default());
            examined.findings.push(unusable(source, path, &reason).after(start));
            return Step::Metadata;
        }
    };
    let text = |key: &str| document[key].as_str().and_then(plain);
    let (what, step) = match document["type"].as_str() {
        Some("service_account") => (
            format!(
                "service account {}, key {}",
                text("client_email").unwrap_or("without `client_email`"),
                text("private_key_id").map_or("without a name".to_owned(), ends)
            ),
            Step::ServiceAccount,
        ),
        Some("authorized_user") => ("a user's own login (gcloud)".to_owned(), Step::User),
        Some("impersonated_service_account") => {
            ("impersonation of a service account".to_owned(), Step::Impersonated)
        }
        Some("external_account") => (
            format!("federation; audience {}", text("audience").unwrap_or("is absent")),
            Step::Federated,
        ),
        Some(kind) => {
            let kind = plain(kind).filter(|kind| kind.len() <= 40).unwrap_or("?");
            let finding = Finding::new(
                source,
                Said::No,
                format!("{} holds credentials of the unknown type `{kind}`", path.display()),
            );
            let known = "known are service_account, authorized_user, impersonated_service_account and external_account";
            examined.findings.push(finding.advising(known).after(start));
            return Step::Metadata;
        }
        None => {
            let text = format!("{} has no `type`: it holds no credentials", path.display());
            let finding = Finding::new(source, Said::No, text)
                .advising("name the JSON file that Google gave out, not another one");
            examined.findings.push(finding.after(start));
            return Step::Metadata;
        }
    };
    let own = text("project_id").or(text("quota_project_id")).map(str::to_owned);
    examined.project = examined.project.take().or(own);
    let what = format!("{}: {what}", path.display());
    examined.findings.push(Finding::new(source, Said::Yes, what).after(start));
    if matches!(step, Step::Federated) {
        subject(&document, limit, examined).await;
    }
    match text("service_account_impersonation_url").and_then(account) {
        None => step,
        Some(account) => {
            let text = format!("acts as {account}");
            examined.findings.push(Finding::new(IMPERSONATION, Said::Yes, text));
            Step::Impersonated
        }
    }
}

fn unusable(source: &'static str, path: &Path, reason: &str) -> Finding {
    let kind = std::fs::metadata(path).err().map(|error| error.kind());
    let (text, advice) = match kind {
        Some(kind) => unreadable(path, kind),
        None => (reason.to_owned(), "name a readable JSON file that Google gave out"),
    };
    Finding::new(source, Said::No, text).advising(advice)
}

/// `.../serviceAccounts/name@project.iam.gserviceaccount.com:generateAccessToken`
fn account(url: &str) -> Option<String> {
    let account = url.rsplit_once("/serviceAccounts/")?.1.split(':').next()?;
    named(&percent_decode_str(account).decode_utf8().ok()?)
}

/// Who vouches for us in federation.
async fn subject(document: &Value, limit: Duration, examined: &mut Examined) {
    let source = &document["credential_source"];
    if aws_subject::is_aws(document) {
        let keys = aws::examine(&AwsConfig::default(), limit).await;
        examined.findings.extend(keys);
        return;
    }
    let start = Instant::now();
    let finding = if let Some(path) = source["file"].as_str() {
        let path = Path::new(path);
        match timeout(limit, tokio::fs::metadata(path)).await {
            Ok(Ok(found)) if found.is_file() && found.len() > 0 => Finding::new(
                SUBJECT,
                Said::Yes,
                format!("{} holds a token of {} bytes", path.display(), found.len()),
            ),
            Ok(Ok(_)) => {
                Finding::new(SUBJECT, Said::No, format!("{} holds no token", path.display()))
                    .advising("project a service account token to that path")
            }
            Ok(Err(error)) => {
                let (text, _) = unreadable(path, error.kind());
                Finding::new(SUBJECT, Said::No, text).advising(
                    "project a service account token to that path, readable for Tidegate's user",
                )
            }
            Err(_) => {
                Finding::new(SUBJECT, Said::No, format!("{} does not answer", path.display()))
                    .advising("see that it is on a disk that answers")
            }
        }
    } else if let Some(url) = source["url"].as_str() {
        let host = url.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).next());
        let host = host.and_then(|host| host.rsplit('@').next()).and_then(plain).unwrap_or("?");
        Finding::new(SUBJECT, Said::Yes, format!("a token from {host}"))
    } else if source["executable"].is_object() {
        Finding::new(SUBJECT, Said::Yes, "a token from a program")
    } else {
        Finding::new(SUBJECT, Said::No, "`credential_source` names no file, URL or program")
            .advising("make the file anew: gcloud iam workload-identity-pools create-cred-config")
    };
    examined.findings.push(finding.after(start));
}

// === the metadata server ===

async fn of_metadata(limit: Duration, examined: &mut Examined) -> Step {
    let start = Instant::now();
    let host = std::env::var("GCE_METADATA_HOST").ok().and_then(|host| named(&host));
    let host = host.unwrap_or_else(|| "metadata.google.internal".to_owned());
    let account = metadata(&host, "instance/service-accounts/default/email", limit).await;
    let finding = match account {
        Ok(account) => {
            let account = account.filter(|name| name.contains('@'));
            let account = account.unwrap_or_else(|| "the node's own account".to_owned());
            Finding::new(METADATA, Said::Yes, format!("{account}, by {host}"))
        }
        Err(Some(404)) => {
            Finding::new(METADATA, Said::No, format!("{host} knows no service account"))
                .advising("give the instance a service account, or on GKE bind one to this pod's (Workload Identity)")
        }
        Err(status) => {
            let what = match status {
                Some(status) => format!("{host} answers {status}"),
                None => format!("{host} does not answer"),
            };
            Finding::new(METADATA, Said::No, what).advising(
                "name a credentials file (`file`, or GOOGLE_APPLICATION_CREDENTIALS), log in with `gcloud auth application-default login`, or run where there is a metadata server",
            )
        }
    };
    let is_there = finding.is_good();
    examined.findings.push(finding.after(start));
    if is_there && examined.project.is_none() {
        let project = metadata(&host, "project/project-id", limit).await;
        examined.project = project.ok().flatten();
    }
    Step::Metadata
}

/// What it says, where that is a name; else its status, where there is one.
async fn metadata(host: &str, path: &str, limit: Duration) -> Result<Option<String>, Option<u16>> {
    let client = reqwest::Client::builder().no_proxy().timeout(limit).build().map_err(|_| None)?;
    let request = client
        .get(format!("http://{host}/computeMetadata/v1/{path}"))
        .header("metadata-flavor", "Google");
    let mut answer = request.send().await.map_err(|_| None)?;
    if !answer.status().is_success() {
        return Err(Some(answer.status().as_u16()));
    }
    let text = answer.chunk().await.map_err(|_| None)?.unwrap_or_default();
    let text = std::str::from_utf8(&text[..text.len().min(MAX_ANSWER)]).unwrap_or_default();
    Ok(named(text))
}

// === the token ===

async fn token(config: &GoogleConfig, step: Step, limit: Duration) -> Finding {
    let start = Instant::now();
    let mut tokens = Tokens::new(config);
    let failed = match timeout(limit, tokens.fetch()).await {
        Ok(Ok(fetched)) => {
            let stated = fetched.expires.map(|at| at.saturating_duration_since(Instant::now()));
            let token = fetched.value.as_ref().and_then(|signed| signed.headers.first());
            let expires_in = stated.or_else(|| expiry(token?.1.expose()));
            let finding = Finding::new(TOKEN, Said::Yes, "given out, renewed before its end");
            return Finding { expires_in, ..finding }.after(start);
        }
        Ok(Err(reason)) => reason,
        Err(_) => "no answer in time".to_owned(),
    };
    let word = WORDS.iter().find(|word| failed.contains(**word));
    let text = match word {
        Some(word) => format!("not given out: {word}"),
        None => "not given out".to_owned(),
    };
    Finding::new(TOKEN, Said::No, text).advising(advice(step, word.copied())).after(start)
}

/// What token services and clients call their failures. No other word of theirs is told.
const WORDS: &[&str] = &[
    "invalid_grant",
    "invalid_client",
    "invalid_target",
    "invalid_scope",
    "invalid_request",
    "unauthorized_client",
    "access_denied",
    "unavailable",
    "PERMISSION_DENIED",
    "403",
    "401",
    "404",
    "503",
    "500",
    "no answer in time",
];

fn advice(step: Step, word: Option<&str>) -> &'static str {
    match (step, word) {
        (_, Some("unavailable" | "503" | "500" | "no answer in time")) => {
            "see that the token service can be reached from here, and try again"
        }
        (Step::User, _) => "log in anew: gcloud auth application-default login",
        (Step::ServiceAccount, _) => {
            "see that `private_key` is whole and that the key has not been deleted or disabled"
        }
        (Step::Federated, _) => {
            "see that the pool's provider accepts the subject's issuer and audience, and its attribute condition this identity"
        }
        (Step::Impersonated, _) => {
            "grant roles/iam.serviceAccountTokenCreator on that account to the identity above, and enable the IAM Credentials API"
        }
        (Step::Metadata, _) => {
            "give the instance or pod a service account with the scope cloud-platform"
        }
    }
}

/// The end that a self-signed token states in its claims.
fn expiry(header: &str) -> Option<Duration> {
    let claims = header.strip_prefix("Bearer ")?.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let end = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(claims["exp"].as_u64()?))?;
    end.duration_since(SystemTime::now()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_to_act_as_is_told_by_its_url() {
        let url = "https://iam/v1/projects/-/serviceAccounts/m%40p.iam.gserviceaccount.com:generateAccessToken";
        assert_eq!(account(url).as_deref(), Some("m@p.iam.gserviceaccount.com"));
        assert_eq!(account("https://iam/v1"), None);
    }

    #[test]
    fn a_self_signed_token_states_its_end() {
        // {"exp":99999999999}
        let left = expiry("Bearer e30.eyJleHAiOjk5OTk5OTk5OTk5fQ.x").expect("a claim");
        assert!(left > Duration::from_secs(1 << 30), "{left:?}");
        for none in ["Bearer opaque", "Bearer a.b.c", "x", "Bearer e30.e30.x"] {
            assert_eq!(expiry(none), None, "{none}");
        }
    }
}
