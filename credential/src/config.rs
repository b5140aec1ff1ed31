//! What a user writes of a credential: `credential: { aws: { region: us-east-1 } }`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::aws::Scope;

/// Who signs the calls of one upstream. Without it the caller's own credential goes through.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "Mapping<Written>", rename_all = "lowercase")]
pub enum CredentialConfig {
    /// `Authorization: Bearer ...`.
    Bearer(Place),
    /// Another header with a key in it.
    Header(HeaderConfig),
    /// AWS Signature Version 4.
    Aws(AwsConfig),
    /// Google access tokens.
    Google(GoogleConfig),
}

/// Where a key stands.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "Mapping<WrittenPlace>", rename_all = "lowercase")]
pub enum Place {
    /// A file that holds it and nothing else; white space around it does not count. It is read
    /// again when it changes.
    File(PathBuf),
    /// The name of an environment variable.
    Env(String),
}

/// A header with a key in it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "Mapping<WrittenHeader>")]
pub struct HeaderConfig {
    /// The header: `x-api-key`, `api-key`, `x-goog-api-key`.
    pub name: String,
    /// What stands before the key.
    pub prefix: String,
    /// Where the key stands.
    #[serde(flatten)]
    pub place: Place,
}

/// A credential as it is written: one key says of which kind it is.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
struct Written {
    /// `Authorization: Bearer ...`.
    bearer: Option<Place>,
    /// Another header with a key in it.
    header: Option<HeaderConfig>,
    /// AWS Signature Version 4.
    aws: Option<AwsConfig>,
    /// Google access tokens.
    google: Option<GoogleConfig>,
}

/// Where a key stands: in a file or in an environment variable.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
struct WrittenPlace {
    /// A file that holds the key and nothing else; it is read again when it changes.
    file: Option<PathBuf>,
    /// The name of an environment variable that holds the key.
    env: Option<String>,
}

/// Another header with a key in it, which stands in a file or in an environment variable.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenHeader {
    /// The header: `x-api-key`, `api-key`, `x-goog-api-key`.
    name: String,
    /// What stands before the key.
    #[serde(default)]
    prefix: String,
    /// A file that holds the key and nothing else; it is read again when it changes.
    #[serde(default)]
    file: Option<PathBuf>,
    /// The name of an environment variable that holds the key.
    #[serde(default)]
    env: Option<String>,
}

/// Keys and values. What else may stand there is not quoted in an error: it may be a key that
/// stands where its place should.
struct Mapping<T>(T);

impl<T: JsonSchema> JsonSchema for Mapping<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// What a user is told who wrote no mapping.
trait Needs {
    const NEEDS: &str;
}

/// How to sign for AWS. The keys come from wherever the AWS SDKs look for them: environment,
/// profile, SSO, web identity (IRSA), Pod Identity, ECS, instance metadata.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
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

// === impl CredentialConfig ===

impl CredentialConfig {
    /// Whether it can sign for this host.
    pub fn check(&self, host: &str) -> Result<(), String> {
        let Self::Aws(AwsConfig { region, service, .. }) = self else { return Ok(()) };
        match Scope::of(host, region.as_deref(), service.as_deref()) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The key by which it is written.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Bearer(_) => "bearer",
            Self::Header(_) => "header",
            Self::Aws(_) => "aws",
            Self::Google(_) => "google",
        }
    }

    /// The file that it names.
    pub fn file_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Bearer(Place::File(path)) => Some(path),
            Self::Header(HeaderConfig { place: Place::File(path), .. }) => Some(path),
            Self::Google(google) => google.file.as_mut(),
            _ => None,
        }
    }

    /// The environment variable that it names.
    pub fn variable(&self) -> Option<&str> {
        match self {
            Self::Bearer(Place::Env(name)) => Some(name),
            Self::Header(HeaderConfig { place: Place::Env(name), .. }) => Some(name),
            _ => None,
        }
    }
}

impl TryFrom<Mapping<Written>> for CredentialConfig {
    type Error = &'static str;

    fn try_from(Mapping(written): Mapping<Written>) -> Result<Self, Self::Error> {
        let Written { bearer, header, aws, google } = written;
        let mut kinds = [
            bearer.map(Self::Bearer),
            header.map(Self::Header),
            aws.map(Self::Aws),
            google.map(Self::Google),
        ]
        .into_iter()
        .flatten();
        match (kinds.next(), kinds.next()) {
            (Some(kind), None) => Ok(kind),
            _ => Err(Written::NEEDS),
        }
    }
}

// === impl Mapping ===

impl Needs for Written {
    const NEEDS: &str = "a credential is one of `bearer`, `header`, `aws` and `google`";
}

impl Needs for WrittenPlace {
    const NEEDS: &str = "needs `file` or `env`, which says where the key stands";
}

impl Needs for WrittenHeader {
    const NEEDS: &str = "needs `name`, and `file` or `env`, which says where the key stands";
}

impl<'de, T: Deserialize<'de> + Needs> Deserialize<'de> for Mapping<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MappingVisitor(PhantomData))
    }
}

struct MappingVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Needs> Visitor<'de> for MappingVisitor<T> {
    type Value = Mapping<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keys and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Mapping)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Err(E::custom(T::NEEDS))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Err(E::custom(T::NEEDS))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Err(E::custom(T::NEEDS))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Err(E::custom(T::NEEDS))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Err(E::custom(T::NEEDS))
    }
}

// === impl Place ===

impl Place {
    fn of(file: Option<PathBuf>, env: Option<String>) -> Result<Self, &'static str> {
        match (file, env) {
            (Some(file), None) => Ok(Self::File(file)),
            // Not quoted: it may be the key itself, in the wrong place.
            (None, Some(name)) if !is_variable(&name) => {
                Err("`env` is not the name of an environment variable")
            }
            (None, Some(name)) => Ok(Self::Env(name)),
            (Some(_), Some(_)) => Err("has `file` and `env`; give one of them"),
            (None, None) => Err(WrittenPlace::NEEDS),
        }
    }
}

impl TryFrom<Mapping<WrittenPlace>> for Place {
    type Error = &'static str;

    fn try_from(Mapping(written): Mapping<WrittenPlace>) -> Result<Self, Self::Error> {
        Self::of(written.file, written.env)
    }
}

// === impl HeaderConfig ===

impl TryFrom<Mapping<WrittenHeader>> for HeaderConfig {
    type Error = String;

    fn try_from(Mapping(written): Mapping<WrittenHeader>) -> Result<Self, Self::Error> {
        let WrittenHeader { name, prefix, file, env } = written;
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(format!("`{name}` is not the name of a header"));
        }
        if FRAMING.iter().any(|field| name.eq_ignore_ascii_case(field)) {
            return Err(format!("`{name}` is no header for a key"));
        }
        if !prefix.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err("`prefix` holds characters that a header may not have".to_owned());
        }
        Ok(Self { name: name.to_ascii_lowercase(), prefix, place: Place::of(file, env)? })
    }
}

/// Letters, digits and `_`, not a digit first: what POSIX has for names.
fn is_variable(name: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(is_of_name) && !name.bytes().next().is_none_or(|byte| byte.is_ascii_digit())
}

/// Fields that say how a message is read, or where it goes.
const FRAMING: &[&str] = &[
    "host",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<CredentialConfig, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for (text, part) in [
            (r#"{}"#, "is one of"),
            (r#"{"aws":{},"google":{}}"#, "is one of"),
            (r#"{"bearer":{}}"#, "needs `file` or `env`"),
            (r#"{"bearer":{"file":"a","env":"B"}}"#, "has `file` and `env`"),
            (r#"{"header":{"name":"a b","env":"B"}}"#, "`a b` is not the name of a header"),
            (r#"{"header":{"name":"Host","env":"B"}}"#, "no header for a key"),
            (r#"{"header":{"name":"a","prefix":"\n","env":"B"}}"#, "`prefix`"),
            (r#"{"aws":{"regin":"x"}}"#, "unknown field"),
            (r#"{"bearer":"sk-canary"}"#, "needs `file` or `env`"),
            (r#"{"bearer":{"env":"sk-canary"}}"#, "not the name of an environment variable"),
            (r#"{"header":"sk-canary"}"#, "needs `name`"),
            (r#""sk-canary""#, "is one of"),
            ("9876", "is one of"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("canary") && !error.contains("9876"), "{error}");
        }
    }

    #[test]
    fn names_of_headers_are_read_in_any_case() {
        let config = read(r#"{"header":{"name":"X-Api-Key","env":"B"}}"#).expect("good");
        let place = Place::Env("B".to_owned());
        let expected = HeaderConfig { name: "x-api-key".to_owned(), prefix: String::new(), place };
        assert_eq!(config, CredentialConfig::Header(expected));
        assert_eq!(config.variable(), Some("B"));
    }
}
