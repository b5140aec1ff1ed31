//! The configuration that is in use, as it may be shown.
//!
//! It holds the names of files and variables rather than secrets, but some users write them where
//! they do not belong: into URLs, or into headers. Those are left out, whatever the key.

use serde_json::Value;
use tidegate_credential::is_credential;

use super::Config;

/// What stands in the place of a secret.
const HIDDEN: &str = "***";
/// What the digest of a caller's key begins with: whoever knows it can try keys.
const DIGEST: &str = "sha256:";

/// Every key that says something, defaults among them, without secrets. It reads as a configuration,
/// but for the digests of keys.
pub(super) fn effective(config: &Config) -> Value {
    let mut value =
        serde_json::to_value(config).expect("a configuration has nothing but text keys");
    clean(&mut value);
    value
}

fn clean(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            entries.retain(|_, value| !value.is_null());
            for (key, value) in entries {
                match value {
                    Value::String(text) if is_credential(key.as_bytes()) => HIDDEN.clone_into(text),
                    value => clean(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(clean),
        Value::String(text) => {
            if text.starts_with(DIGEST) {
                *text = format!("{DIGEST}{HIDDEN}");
            } else if let Some(harmless) = without_secrets(text) {
                *text = harmless;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A URL without user, password, query and fragment; nothing where it has none of these.
fn without_secrets(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map(|(_, host)| format!("{HIDDEN}@{host}"));
    let query = path.find(['?', '#']).map(|at| format!("{}?{HIDDEN}", &path[..at]));
    if host.is_none() && query.is_none() {
        return None;
    }
    let host = host.as_deref().unwrap_or(authority);
    Some(format!("{scheme}://{host}{}", query.as_deref().unwrap_or(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_a_configuration_with_every_default() {
        let text = "upstreams: { a: { url: 'https://h', credential: { header: { name: X-Key, env: PATH } } } }\nroutes: [{ upstream: a }]";
        let config = Config::parse(text).expect("a good configuration");
        let shown = effective(&config);
        assert_eq!(shown["timeouts"]["idle"], "5m");
        assert_eq!(shown["limits"]["held_body"], "8MiB");
        assert_eq!(shown["upstreams"]["a"]["credential"]["header"]["env"], "PATH");
        let again = Config::parse(&shown.to_string()).expect("it reads as one");
        assert_eq!(again, config);
    }

    #[test]
    fn no_secret_is_shown() {
        let text = "
upstreams: { a: { url: 'https://h' } }
routes: [{ match: { header: { authorization: 'Bearer canary', x-api-key: canary } }, upstream: a }]
otlp: { endpoint: 'https://user:canary@c:4318/x?key=canary#canary', headers: { a: canary } }";
        let shown = effective(&Config::parse(text).expect("good")).to_string();
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("https://***@c:4318/x?***"), "{shown}");
    }
}
