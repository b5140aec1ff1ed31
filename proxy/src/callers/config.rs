//! What a user says of callers.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidegate_credential::is_credential;

use super::digest::{DIGEST_BYTES, Digest};
use crate::export::metrics::OTHER;

/// Who calls, where one sidecar serves several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CallersConfig {
    /// The header by which a call names its caller, who is believed; callers with keys or certificates
    /// cannot be named so.
    pub header: Option<String>,
    /// What becomes of calls whose caller is not among the `known`.
    pub others: Others,
    /// The callers, by name.
    pub known: BTreeMap<String, CallerConfig>,
}

/// One caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CallerConfig {
    /// The SHA-256 of each of its keys: `sha256:` and 64 hexadecimal digits.
    pub keys: Vec<KeyDigest>,
    /// Names in its certificate, which leads to `tls.callers`: URIs such as SPIFFE ids, DNS names (in lower
    /// case), addresses of mail, or `CN=` and the common name; `*` stands for any characters.
    pub certificates: Vec<String>,
    /// The models that it may ask for; `*` stands for any characters. All of them where absent.
    pub models: Option<Vec<String>>,
}

/// What becomes of calls whose caller is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Others {
    /// They go on, under the name that they give themselves, or none.
    #[default]
    Pass,
    /// They are refused with 401.
    Refuse,
}

/// What is kept of a key: enough to know it again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyDigest(pub(super) Digest);

/// What a digest begins with.
const PREFIX: &str = "sha256:";
/// Longer names are none.
pub(super) const NAME_BYTES: usize = 64;

// === impl CallersConfig ===

impl CallersConfig {
    /// Whether nothing is said of callers.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// What one key cannot say of itself: the way to the key, and what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), (Vec<&str>, String)> {
        if let Some(header) = &self.header {
            let is_name = http::HeaderName::from_bytes(header.as_bytes()).is_ok();
            let problem = match is_credential(header.as_bytes()) {
                _ if !is_name => "is no name of a header",
                true => "carries keys, and names stand in records; give its callers `keys`",
                false => "",
            };
            if !problem.is_empty() {
                return Err((vec!["header"], format!("`{header}` {problem}")));
            }
        }
        let mut seen = BTreeSet::new();
        for (name, caller) in &self.known {
            let wrong = |message: &str| Err((vec!["known", name.as_str()], message.to_owned()));
            if !is_name(name) || name == OTHER {
                return wrong(
                    "is no name: 1 to 64 printable characters without spaces, not `other`",
                );
            }
            if !caller.can_prove() && self.header.is_none() {
                return wrong(
                    "can never be known: give it `keys` or `certificates`, or callers a `header`",
                );
            }
            if caller.certificates.iter().any(|pattern| pattern.trim_matches('*').is_empty()) {
                return wrong("would be whoever has a certificate: give its own names");
            }
            if !caller.keys.iter().all(|key| seen.insert(*key)) {
                return wrong("has a key that stands here twice");
            }
        }
        Ok(())
    }
}

/// Whether callers may be called so: it goes into records and labels.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

// === impl CallerConfig ===

impl CallerConfig {
    /// Whether it has what nobody else can show.
    pub(crate) fn can_prove(&self) -> bool {
        !self.keys.is_empty() || !self.certificates.is_empty()
    }
}

// === impl KeyDigest ===

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest")
    }
}

impl<'de> Deserialize<'de> for KeyDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // What is wrong is not shown: it may be the key itself.
        digest(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(
                "a key stands here as `sha256:` and 64 hexadecimal digits, its SHA-256; \
                 `printf %s \"$KEY\" | sha256sum` tells them",
            )
        })
    }
}

fn digest(text: &str) -> Option<Digest> {
    let digits = text.strip_prefix(PREFIX)?.as_bytes();
    let mut digest = Digest::default();
    if digits.len() != 2 * DIGEST_BYTES {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(digest)
}

impl Serialize for KeyDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits = self.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        serializer.serialize_str(&format!("{PREFIX}{digits}"))
    }
}

impl JsonSchema for KeyDigest {
    fn schema_name() -> Cow<'static, str> {
        "KeyDigest".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^sha256:[0-9a-fA-F]{64}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";

    fn read(text: &str) -> Result<CallersConfig, String> {
        let config: CallersConfig =
            crate::config::parse_yaml(text).map_err(|error| error.to_string())?;
        config.check().map_err(|(key, message)| format!("{}: {message}", key.join(".")))?;
        Ok(config)
    }

    #[test]
    fn what_cannot_be_meant_is_told_and_no_key_is() {
        for (text, part) in [
            ("{ known: { a: {} } }", "known.a: can never be known"),
            ("{ header: 'x team' }", "header: `x team` is no name of a header"),
            ("{ header: Authorization }", "header: `Authorization` carries keys"),
            ("{ header: x-team, known: { 'a b': {} } }", "known.a b: is no name"),
            ("{ header: x-team, known: { other: {} } }", "known.other: is no name"),
            ("{ known: { a: { certificates: ['**'] } } }", "known.a: would be whoever has"),
            ("{ known: { a: { keys: [my-own-key] } } }", "as `sha256:` and 64 hexadecimal digits"),
            ("{ others: deny }", "unknown variant `deny`"),
            ("{ know: {} }", "did you mean `known`"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("my-own-key"), "{error}");
        }
        let twice =
            format!("{{ known: {{ a: {{ keys: ['{KEY}'] }}, b: {{ keys: ['{KEY}'] }} }} }}");
        assert_eq!(read(&twice), Err("known.b: has a key that stands here twice".to_owned()));
    }

    #[test]
    fn a_digest_reads_as_it_is_written_and_debug_shows_none() {
        let config = read(&format!("{{ known: {{ a: {{ keys: ['{KEY}'] }} }} }}")).expect("good");
        let written = serde_json::to_string(&config).expect("it can be written");
        assert!(written.contains(KEY), "{written}");
        assert!(!format!("{config:?}").contains("2c70"));
    }
}
