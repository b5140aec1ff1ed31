//! What a user writes of a credential: `credential: { aws: { region: us-east-1 } }`.

use std::path::PathBuf;

use serde::Deserialize;

/// Who signs the calls of one upstream. Without it the caller's own credential goes through.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CredentialConfig {
    /// `Authorization: Bearer ...`.
    Bearer(TextConfig),
    /// Another header with a key in it.
    Header(HeaderConfig),
    /// AWS Signature Version 4.
    Aws(AwsConfig),
    /// Google access tokens.
    Google(GoogleConfig),
}

/// Where a key stands: in a file, which is read again when it changes, or in a variable.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextConfig {
    /// A file that holds it and nothing else; white space around it does not count.
    pub file: Option<PathBuf>,
    /// The name of an environment variable.
    pub env: Option<String>,
}

/// A header with a key in it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderConfig {
    /// The header: `x-api-key`, `api-key`, `x-goog-api-key`.
    pub name: String,
    /// What stands before the key.
    #[serde(default)]
    pub prefix: String,
    /// A file that holds the key.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// The name of an environment variable that holds the key.
    #[serde(default)]
    pub env: Option<String>,
}

/// How to sign for AWS. The keys come from wherever the AWS SDKs look for them: environment,
/// profile, SSO, web identity (IRSA), Pod Identity, ECS, instance metadata.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AwsConfig {
    /// The region to sign for; the upstream host's where absent.
    pub region: Option<String>,
    /// The service to sign for; what the host says, else `bedrock`.
    pub service: Option<String>,
    /// A profile of the shared configuration.
    pub profile: Option<String>,
    /// A role to assume with those keys.
    pub assume_role: Option<AssumeRoleConfig>,
}

/// A role to assume.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssumeRoleConfig {
    /// `arn:aws:iam::123456789012:role/name`.
    pub arn: String,
    /// The name of the session, which audit logs show.
    #[serde(default = "session_name")]
    pub session_name: String,
    /// What the role's owner asks of strangers.
    #[serde(default)]
    pub external_id: Option<String>,
}

/// How to get Google access tokens: application default credentials, unless a file is named.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GoogleConfig {
    /// A service account's key, an authorised user, or an external account (federation).
    pub file: Option<PathBuf>,
    /// OAuth scopes.
    pub scopes: Vec<String>,
    /// A service account to act as.
    pub impersonate: Option<String>,
    /// The project whose quota is used (`x-goog-user-project`).
    pub quota_project: Option<String>,
}

impl Default for GoogleConfig {
    fn default() -> Self {
        Self {
            file: None,
            scopes: vec!["https://www.googleapis.com/auth/cloud-platform".to_owned()],
            impersonate: None,
            quota_project: None,
        }
    }
}

fn session_name() -> String {
    "tidegate".to_owned()
}
