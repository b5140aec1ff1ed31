//! What a user says of the store that several sidecars share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_credential::Place;

use crate::config::Span;
use crate::tls::UpstreamTlsConfig;

/// A Redis or Valkey that several sidecars share.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Where it is: `redis://host[:port][/database]`, with TLS `rediss://`.
    #[schemars(extend("pattern" = "^rediss?://"))]
    pub url: String,
    /// Who we are there; the default user where absent.
    pub username: Option<String>,
    /// Where our password stands; none where absent.
    pub password: Option<Place>,
    /// What TLS to it needs beyond the system's roots.
    pub tls: Option<UpstreamTlsConfig>,
    /// How long a call waits for it; after that it goes on without.
    pub deadline: Span,
    /// What all of its keys begin with.
    pub prefix: String,
    /// A file with 32 bytes or more that nobody else knows: what caches keep there is sealed with it. The
    /// same for all sidecars that share answers.
    pub seal_key: Option<PathBuf>,
}

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: i64,
    pub(super) has_tls: bool,
}

/// The port of Redis and Valkey.
const PORT: u16 = 6379;
/// No call is held up for longer.
const LONGEST: Duration = Duration::from_secs(5);
/// Bytes that a prefix may have.
const MAX_PREFIX: usize = 64;

// === impl StoreConfig ===

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            username: None,
            password: None,
            tls: None,
            deadline: Span(Duration::from_millis(50)),
            prefix: "tidegate".to_owned(),
            seal_key: None,
        }
    }
}

impl StoreConfig {
    /// What one key cannot say of itself: the key, and what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let address = Address::read(&self.url).map_err(|message| ("url", message))?;
        if let Some(tls) = &self.tls {
            tls.check().map_err(|(_, message)| ("tls", message))?;
        }
        if self.tls.is_some() && !address.has_tls {
            return Err((
                "tls",
                "says nothing without TLS: `url` begins with `redis://`".to_owned(),
            ));
        }
        if self.username.is_some() && self.password.is_none() {
            return Err(("username", "is of no use without `password`".to_owned()));
        }
        if self.deadline.0 > LONGEST {
            return Err(("deadline", format!("is over {} s", LONGEST.as_secs())));
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        let is_good = (1..=MAX_PREFIX).contains(&self.prefix.len());
        if !is_good || !self.prefix.bytes().all(is_plain) {
            let message = format!("is no word of 1 to {MAX_PREFIX} letters, digits and `-_.:`");
            return Err(("prefix", message));
        }
        Ok(())
    }

    /// The files that it names, which may stand beside its own.
    pub(crate) fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let password = match &mut self.password {
            Some(Place::File(file)) => Some(file),
            _ => None,
        };
        let tls = self.tls.iter_mut().flat_map(UpstreamTlsConfig::files_mut);
        password.into_iter().chain(tls).chain(&mut self.seal_key)
    }

    pub(super) fn address(&self) -> Address {
        Address::read(&self.url).expect("it was checked when it was read")
    }
}

// === impl Address ===

impl Address {
    fn read(url: &str) -> Result<Self, String> {
        let is_wrong = || format!("`{}` is not `redis://host[:port][/database]`", shown(url));
        let (scheme, rest) = url.split_once("://").ok_or_else(is_wrong)?;
        let has_tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err(is_wrong()),
        };
        if rest.contains('@') {
            return Err(
                "holds a name or a password: these stand in `username` and `password`".to_owned()
            );
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let authority: http::uri::Authority = authority.parse().map_err(|_| is_wrong())?;
        let database = match path {
            "" => 0,
            path => path.parse().ok().filter(|number| *number >= 0).ok_or_else(is_wrong)?,
        };
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(is_wrong());
        }
        Ok(Self { host, port: authority.port_u16().unwrap_or(PORT), database, has_tls })
    }
}

/// What of a URL may be shown.
fn shown(url: &str) -> &str {
    let shown = url.rsplit_once('@').map_or(url, |(_, behind)| behind);
    shown.split(['?', '#']).next().unwrap_or_default()
}

/// What stands in a file of a key, which must be long enough to be none that can be guessed.
pub(crate) fn read_key(path: &Path) -> Result<Vec<u8>, String> {
    const LEAST: usize = 32;
    let bytes = std::fs::read(path)
        .map_err(|error| format!("{} cannot be read: {}", path.display(), error.kind()))?;
    let key = bytes.trim_ascii();
    if key.len() < LEAST {
        let path = path.display();
        return Err(format!(
            "{path} holds fewer than {LEAST} bytes; `openssl rand -base64 32 > {path}` makes a good one"
        ));
    }
    Ok(key.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), (&'static str, String)> {
        let config: StoreConfig = crate::config::parse_yaml(text).expect("it reads");
        config.check()
    }

    #[test]
    fn a_store_is_where_its_url_says() {
        let address = |host: &str, port, database, has_tls| Address {
            host: host.to_owned(),
            port,
            database,
            has_tls,
        };
        for (url, expected) in [
            ("redis://cache", address("cache", 6379, 0, false)),
            ("redis://127.0.0.1:7000/3", address("127.0.0.1", 7000, 3, false)),
            ("rediss://cache.example:6380", address("cache.example", 6380, 0, true)),
            ("rediss://[::1]:6380/", address("::1", 6380, 0, true)),
        ] {
            assert_eq!(Address::read(url), Ok(expected), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_is_told_by_its_key_and_no_password_is_shown() {
        for (text, key) in [
            ("{ deadline: 5ms }", "url"),
            ("{ url: 'http://cache' }", "url"),
            ("{ url: 'redis://' }", "url"),
            ("{ url: 'redis://cache/-1' }", "url"),
            ("{ url: 'redis://me:hush@cache' }", "url"),
            ("{ url: 'me:hush@cache' }", "url"),
            ("{ url: 'redis://cache', tls: { roots: a.pem } }", "tls"),
            ("{ url: 'redis://cache', username: a }", "username"),
            ("{ url: 'redis://cache', deadline: 1m }", "deadline"),
            ("{ url: 'redis://cache', prefix: '' }", "prefix"),
            ("{ url: 'redis://cache', prefix: 'a b' }", "prefix"),
        ] {
            let (found, message) = check(text).expect_err(text);
            assert_eq!(found, key, "{text}: {message}");
            assert!(!message.contains("hush"), "{message}");
        }
        check(
            "{ url: 'rediss://cache', username: a, password: { env: A }, tls: { roots: a.pem } }",
        )
        .expect("good");
    }
}
