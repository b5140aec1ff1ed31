//! Calls that an application makes to others, taken in as its proxy and measured.
//!
//! The application's own signature and key stay as they are: a call goes on to the server that it was
//! meant for, over TLS that we verify, and we hold nothing. Connections to all other hosts are passed
//! on blind; how many there were, and to where, is counted.

mod door;
mod local;
mod redirect;
mod tunnel;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tidegate_wire::{Host, glob};

use crate::config::Address;
use crate::export::catalog::{self, Family};
use crate::export::metrics::{Source, Value};
use crate::tls::Authority;

pub(crate) use door::serve;
pub(crate) use local::is_local;
pub(crate) use redirect::serve as serve_redirected;

/// What stands in `hosts` for the hosts of all model providers that Tidegate knows.
const PROVIDERS: &str = "providers";
/// Hosts that are told apart of those that are passed by.
const MAX_HOSTS: usize = 100;
/// What stands for all others.
const OTHER: &str = "other";

/// Takes in what an application sends through its proxy variables.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InterceptConfig {
    /// The address that HTTPS_PROXY and HTTP_PROXY name.
    #[schemars(with = "Address")]
    pub listen: SocketAddr,
    /// The address to which the system redirects connections (iptables, REDIRECT); none where absent.
    #[schemars(with = "Option<Address>")]
    pub redirect: Option<SocketAddr>,
    /// The hosts whose calls are taken in; `*` stands for any characters, and the word `providers` for
    /// the hosts of all model providers that are known.
    pub hosts: Vec<String>,
    /// What becomes of connections to other hosts.
    pub unlisted: Unlisted,
    /// Whether callers may so reach this machine, and addresses that serve machines alone, such as
    /// metadata.
    pub local: bool,
}

/// What becomes of connections to hosts that are not listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unlisted {
    /// They are passed on blind, and counted.
    #[default]
    Pass,
    /// They are refused.
    Refuse,
}

/// What all workers share of it.
#[derive(Debug)]
pub(crate) struct Intercept {
    pub(crate) config: InterceptConfig,
    pub(crate) authority: Arc<Authority>,
    counts: [AtomicU64; WORDS.len()],
    passed_by: Mutex<BTreeMap<Box<str>, u64>>,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its calls were taken in.
    Measured,
    /// It was passed on blind.
    Passed,
    /// It was refused.
    Refused,
    /// The application does not trust our certificate.
    Untrusted,
    /// The other side could not be reached.
    Unreached,
}

const WORDS: [(End, &str); 5] = [
    (End::Measured, "measured"),
    (End::Passed, "passed"),
    (End::Refused, "refused"),
    (End::Untrusted, "untrusted"),
    (End::Unreached, "unreached"),
];

impl Default for InterceptConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4104)),
            redirect: None,
            hosts: vec![PROVIDERS.to_owned()],
            unlisted: Unlisted::Pass,
            local: false,
        }
    }
}

impl InterceptConfig {
    /// Whether the calls to this host, in lower case, are taken in.
    pub(crate) fn takes_in(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| match pattern.as_str() {
            PROVIDERS => Host::read(host).provider.is_some(),
            pattern => glob(&pattern.to_ascii_lowercase(), host),
        })
    }

    /// What is wrong with it; the key is named first.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let Some(wrong) =
            self.hosts.iter().find(|host| host.is_empty() || host.contains(['/', ':']))
        else {
            return Ok(());
        };
        Err((
            "hosts",
            format!("`{wrong}` is not the name of a host; leave out scheme, port and path"),
        ))
    }
}

// === impl Intercept ===

impl Intercept {
    pub(crate) fn new(config: InterceptConfig, authority: Arc<Authority>) -> Self {
        Self { config, authority, counts: Default::default(), passed_by: Mutex::default() }
    }

    /// Counts a connection, or a call that came by none of its own; true for the first of its kind.
    pub(crate) fn count(&self, end: End) -> bool {
        self.counts[end as usize].fetch_add(1, Relaxed) == 0
    }

    /// Counts a connection to this host that nothing is seen of.
    pub(crate) fn pass_by(&self, host: &str) {
        self.count(End::Passed);
        let mut hosts = self.passed_by.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = hosts.contains_key(host) || hosts.len() < MAX_HOSTS;
        *hosts.entry(if is_known { host } else { OTHER }.into()).or_default() += 1;
    }

    /// Counts a call by a whole URL, and says whether it may go on.
    pub(crate) fn lets_in(&self, host: &str) -> bool {
        let is_let_in = self.config.unlisted == Unlisted::Pass || self.config.takes_in(host);
        self.count(if is_let_in { End::Measured } else { End::Refused });
        is_let_in
    }

    /// What it has seen, for the admin address.
    pub(crate) fn state(&self) -> Json {
        let ends: BTreeMap<_, _> = self.ends().collect();
        let hosts = self.passed_by.lock().unwrap_or_else(PoisonError::into_inner);
        json!({ "connections": ends, "passed_by": &*hosts })
    }

    fn ends(&self) -> impl Iterator<Item = (&'static str, u64)> {
        WORDS.iter().map(|&(end, word)| (word, self.counts[end as usize].load(Relaxed)))
    }
}

impl Source for Arc<Intercept> {
    fn read(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
        for (end, count) in self.ends() {
            show(&catalog::INTERCEPT_CONNECTIONS, vec![end.to_owned()], Value::Counter(count));
        }
        let hosts = self.passed_by.lock().unwrap_or_else(PoisonError::into_inner);
        for (host, count) in &*hosts {
            show(&catalog::INTERCEPT_PASSED_BY, vec![host.to_string()], Value::Counter(*count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taking(hosts: &[&str]) -> InterceptConfig {
        let hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        InterceptConfig { hosts, ..Default::default() }
    }

    #[test]
    fn model_providers_are_taken_in_and_their_other_services_are_not() {
        let config = InterceptConfig::default();
        for host in [
            "api.openai.com",
            "api.anthropic.com",
            "us-central1-aiplatform.googleapis.com",
            "bedrock-runtime.eu-west-1.amazonaws.com",
            "mine.openai.azure.com",
        ] {
            assert!(config.takes_in(host), "{host}");
        }
        for host in [
            "sts.amazonaws.com",
            "oauth2.googleapis.com",
            "storage.googleapis.com",
            "example.com",
            "api.openai.com.example.com",
            "169.254.169.254",
        ] {
            assert!(!config.takes_in(host), "{host}");
        }
    }

    #[test]
    fn hosts_of_ones_own_stand_beside_them_or_in_their_place() {
        let both = taking(&["providers", "gemma-service", "*.Models.Internal"]);
        for host in ["api.openai.com", "gemma-service", "a.models.internal"] {
            assert!(both.takes_in(host), "{host}");
        }
        let own = taking(&["gemma-service"]);
        assert!(own.takes_in("gemma-service") && !own.takes_in("api.openai.com"));
        for wrong in ["https://a", "a:443", "a/b", ""] {
            let (key, message) = taking(&[wrong]).check().expect_err(wrong);
            assert!(key == "hosts" && message.contains("name of a host"), "{message}");
        }
    }
}
