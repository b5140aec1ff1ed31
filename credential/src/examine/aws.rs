//! The sources of AWS keys, one by one, in the order of the SDK's own chain.

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use tokio::time::{Instant, timeout};

use super::profile::{Profile, Way};
use super::{Finding, Said, ends, plain};
use crate::aws::{client, of_profile, provider, sdk_config, told};
use crate::config::{AssumeRoleConfig, AwsConfig};

const ENVIRONMENT: &str = "environment";
const PROFILE: &str = "profile";
const WEB_IDENTITY: &str = "web identity (IRSA)";
const CONTAINER: &str = "Pod Identity or ECS";
const IMDS: &str = "instance metadata (IMDS)";
const ROLE: &str = "assumed role";
const SDK: &str = "AWS SDK";

/// What AWS services call their failures. No other word of theirs is told.
const CODES: &[&str] = &[
    "AccessDenied",
    "ExpiredToken",
    "InvalidIdentityToken",
    "IDPRejectedClaim",
    "IDPCommunicationError",
    "InvalidClientTokenId",
    "InvalidAuthorizationMessage",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
    "MalformedPolicyDocument",
    "PackedPolicyTooLarge",
    "RegionDisabled",
    "UnauthorizedException",
    "ForbiddenException",
    "ResourceNotFoundException",
    "TooManyRequests",
    "Throttling",
];

pub(super) async fn examine(config: &AwsConfig, limit: Duration) -> Vec<Finding> {
    let loading = sdk_config(config.region.as_deref(), config.profile.as_deref());
    let Ok(sdk) = timeout(limit, loading).await else {
        return vec![
            Finding::new(SDK, Said::No, "its configuration could not be read in time")
                .advising("see that the files of AWS_CONFIG_FILE are on a disk that answers"),
        ];
    };
    let mut findings = Vec::new();
    let mut settled = None;
    for (source, provider) in sources(config, &sdk) {
        let finding = match settled {
            Some(why) => Finding::new(source, Said::NotAsked, why),
            None => ask(source, &provider, config, limit).await,
        };
        settled = settled.or(match finding.said {
            Said::Yes | Said::Doubtful => Some("not asked: one before it answers"),
            Said::No => Some("not asked: the SDK stops where one before it fails"),
            Said::Absent | Said::NotAsked => None,
        });
        findings.push(finding);
    }
    if settled.is_none() {
        findings.push(none(config));
    }
    if let Some(role) = &config.assume_role {
        let is_found = findings.iter().any(Finding::is_good);
        findings.push(match is_found {
            true => assume(role, config, limit).await,
            false => {
                Finding::new(ROLE, Said::NotAsked, "not assumed: there are no keys to ask with")
            }
        });
    }
    findings
}

/// As `DefaultCredentialsChain` has them; a profile that is named is asked alone.
fn sources(config: &AwsConfig, sdk: &SdkConfig) -> Vec<(&'static str, SharedCredentialsProvider)> {
    let region = sdk.region().cloned();
    if let Some(profile) = &config.profile {
        return vec![(PROFILE, of_profile(profile, region))];
    }
    let settings = ProviderConfig::default().with_http_client(client()).with_region(region);
    let profile = aws_config::profile::ProfileFileCredentialsProvider::builder();
    let web_identity = WebIdentityTokenCredentialsProvider::builder();
    let container = EcsCredentialsProvider::builder();
    let imds = ImdsCredentialsProvider::builder();
    let shared = SharedCredentialsProvider::new;
    vec![
        (
            ENVIRONMENT,
            SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new()),
        ),
        (PROFILE, SharedCredentialsProvider::new(profile.configure(&settings).build())),
        (WEB_IDENTITY, SharedCredentialsProvider::new(web_identity.configure(&settings).build())),
        (CONTAINER, SharedCredentialsProvider::new(container.configure(&settings).build())),
        (IMDS, shared(imds.configure(&settings).build())),
    ]
}

async fn ask(
    source: &'static str,
    provider: &SharedCredentialsProvider,
    config: &AwsConfig,
    limit: Duration,
) -> Finding {
    let start = Instant::now();
    let finding = match timeout(limit, provider.provide_credentials()).await {
        Ok(Ok(keys)) => found(source, &keys, &place(source, config)),
        Ok(Err(CredentialsError::CredentialsNotLoaded(_))) => absent(source, config),
        Ok(Err(error)) => failed(source, &told(&error), config),
        Err(_) => failed(source, "no answer in time", config),
    };
    finding.after(start)
}

fn found(source: &'static str, keys: &Credentials, place: &str) -> Finding {
    let key = ends(keys.access_key_id());
    let left = keys.expiry().map(|at| at.duration_since(SystemTime::now()));
    let kind = match keys.session_token() {
        Some(_) => "with a session token",
        None => "a long-term key",
    };
    let text = format!("access key {key}, {kind}{place}");
    match left {
        None => Finding::new(source, Said::Yes, text),
        Some(Ok(left)) => {
            Finding { expires_in: Some(left), ..Finding::new(source, Said::Yes, text) }
        }
        Some(Err(_)) => {
            Finding::new(source, Said::No, format!("access key {key} has expired{place}"))
                .advising("renew it where it comes from; see that this machine's clock is right")
        }
    }
}

/// Where a source has looked, by name.
fn place(source: &str, config: &AwsConfig) -> String {
    match source {
        PROFILE => {
            let profile = Profile::of(config.profile.as_deref());
            let way = profile.way.map_or("", Way::words);
            let name = plain(&profile.name).unwrap_or("?");
            format!("; profile `{name}` {way}").trim_end().to_owned()
        }
        WEB_IDENTITY => match variable("AWS_ROLE_ARN") {
            Some(arn) => format!("; role {}", plain(&arn).unwrap_or("?")),
            None => String::new(),
        },
        CONTAINER => match variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            Some(_) => "; by AWS_CONTAINER_CREDENTIALS_FULL_URI (EKS Pod Identity)".to_owned(),
            None => "; by AWS_CONTAINER_CREDENTIALS_RELATIVE_URI (ECS)".to_owned(),
        },
        _ => String::new(),
    }
}

fn absent(source: &'static str, config: &AwsConfig) -> Finding {
    let is_set = |name: &str| variable(name).is_some();
    let half = |name: &str, other: &str| {
        Finding::new(source, Said::Absent, format!("{name} is set, but {other} is not"))
            .advising(format!("set {other}, too, or unset {name}"))
    };
    let not = |text: &str| Finding::new(source, Said::Absent, text);
    match source {
        ENVIRONMENT if is_set("AWS_ACCESS_KEY_ID") => {
            half("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        }
        ENVIRONMENT => not("AWS_ACCESS_KEY_ID is not set"),
        PROFILE => {
            let profile = Profile::of(config.profile.as_deref());
            let name = plain(&profile.name).unwrap_or("?");
            let text = match profile.way {
                Some(way) => format!("profile `{name}`, {}", way.words()),
                None => format!("there is no profile `{name}`"),
            };
            match config.profile {
                Some(_) => Finding::new(source, Said::No, text).advising(format!(
                    "add `{name}` to ~/.aws/config of the user that Tidegate runs as, or name another `profile`"
                )),
                None => not(&text),
            }
        }
        WEB_IDENTITY if is_set("AWS_WEB_IDENTITY_TOKEN_FILE") => {
            half("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN")
        }
        WEB_IDENTITY => not("AWS_WEB_IDENTITY_TOKEN_FILE is not set"),
        CONTAINER => not("AWS_CONTAINER_CREDENTIALS_FULL_URI is not set"),
        IMDS if is_set("AWS_EC2_METADATA_DISABLED") => {
            not("switched off by AWS_EC2_METADATA_DISABLED, or no role there")
        }
        _ => not("nobody answers: this is no EC2 instance, or a hop limit of 1 keeps pods from it"),
    }
}

fn failed(source: &'static str, told: &str, config: &AwsConfig) -> Finding {
    let code = CODES.iter().find(|code| told.contains(*code));
    let what = match code {
        Some(code) => format!("AWS answers {code}"),
        None if told.contains("no answer in time") || told.contains("timed out") => {
            "no answer in time".to_owned()
        }
        None if told.contains("dispatch failure") => "its service cannot be reached".to_owned(),
        None if told.contains("not properly configured") => {
            "its settings cannot be used".to_owned()
        }
        None => "it gives no keys".to_owned(),
    };
    Finding::new(source, Said::No, format!("{what}{}", place(source, config)))
        .advising(advice(source, &what, config))
}

fn advice(source: &str, what: &str, config: &AwsConfig) -> String {
    match source {
        PROFILE => match Profile::of(config.profile.as_deref()) {
            Profile { name, way: Some(Way::Sso) } => {
                format!("log in anew: aws sso login --profile {}", plain(&name).unwrap_or("?"))
            }
            Profile { way: Some(Way::Login), .. } => "log in anew: aws login".to_owned(),
            Profile { way: Some(Way::Role), .. } => {
                "see that the role's trust policy names who assumes it, and that `source_profile` has keys"
                    .to_owned()
            }
            Profile { way: Some(Way::Process), .. } => {
                "run the program of `credential_process` by hand as Tidegate's user".to_owned()
            }
            _ => "see ~/.aws/config and ~/.aws/credentials of the user that Tidegate runs as"
                .to_owned(),
        },
        WEB_IDENTITY if what.contains("AWS answers") => {
            "see that the trust policy of AWS_ROLE_ARN names this cluster's OIDC provider and this service account"
                .to_owned()
        }
        WEB_IDENTITY => {
            "see that the file of AWS_WEB_IDENTITY_TOKEN_FILE can be read and that STS can be reached from here"
                .to_owned()
        }
        CONTAINER => {
            "see that the Pod Identity agent runs on this node and that the service account has an association"
                .to_owned()
        }
        IMDS => {
            "give the instance a role, let pods reach it (hop limit 2), or set AWS_EC2_METADATA_DISABLED=true"
                .to_owned()
        }
        _ => "see the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned(),
    }
}

/// No source has any.
fn none(config: &AwsConfig) -> Finding {
    let text = match &config.profile {
        Some(_) => "the profile has no keys",
        None => "no source has keys",
    };
    Finding::new(SDK, Said::No, text).advising(
        "on EKS give the service account a Pod Identity association or a role (IRSA); elsewhere set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    )
}

async fn assume(role: &AssumeRoleConfig, config: &AwsConfig, limit: Duration) -> Finding {
    let start = Instant::now();
    let arn = plain(&role.arn).unwrap_or("?");
    let asked = timeout(limit, async {
        let provider = provider(config).await?;
        provider.provide_credentials().await.map_err(|error| told(&error))
    });
    let told = match asked.await {
        Ok(Ok(keys)) => return found(ROLE, &keys, &format!("; role {arn}")).after(start),
        Ok(Err(told)) => told,
        Err(_) => "no answer in time".to_owned(),
    };
    let finding = failed(ROLE, &told, config);
    Finding { text: format!("{}; role {arn}", finding.text), ..finding }
        .advising(format!(
            "allow sts:AssumeRole on {arn} to the keys above, and name them in the role's trust policy (and `external_id`, where it asks for one)"
        ))
        .after(start)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
