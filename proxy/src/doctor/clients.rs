//! Which way each SDK of an application would take, by what its variables say, and what goes past
//! the sidecar.
//!
//! All that is known comes from outside ([`Surroundings`]): variables, packages that were found, and
//! what a running sidecar says of itself. Nothing is called.

mod installed;
mod noted;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use tidegate_wire::Host;

use super::{Examination, Hop, Section, Status};
use crate::clients::{CLIENTS, Client, Package};
use crate::config::Config;
use crate::tls::files_of;

pub use installed::{Found, Version, installed};

/// What an application finds around it.
pub struct Surroundings<'a> {
    /// Its variables.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The SDKs that it may use.
    pub found: Vec<Found>,
    /// The version of its Node.js, where it has one.
    pub node: Option<Version>,
    /// What `/metrics` of the sidecar says, or why it says nothing.
    pub metrics: Result<String, String>,
}

impl fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("found", &self.found).finish_non_exhaustive()
    }
}

/// Tells which way each SDK would take to a sidecar of this configuration, and what goes past it.
pub fn examine(config: &Config, around: &Surroundings<'_>) -> Vec<Examination> {
    let of_sdk = |found: &Found| {
        let all = CLIENTS.iter().filter(|client| client.package == Some(found.package));
        all.map(|client| Sdk { client, found, config, around }.examine()).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = around.found.iter().flat_map(of_sdk).collect();
    all.push(past(&around.metrics));
    all
}

/// How an SDK's own code goes about it (its HTTP client's, for the most part).
struct Habits {
    /// The hosts that it calls.
    hosts: &'static [&'static str],
    /// The variables that say whom it trusts, the first that is set counts.
    trust: &'static [&'static str],
    /// Whether it reads the variables of a proxy in upper case, too.
    is_upper_read: bool,
}

const SSL: &[&str] = &["SSL_CERT_FILE", "SSL_CERT_DIR"];
const NODE: &[&str] = &["NODE_EXTRA_CA_CERTS"];
const AWS: &[&str] = &["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"];
const VERTEX: &[&str] = &["us-central1-aiplatform.googleapis.com"];
const GOOGLE: &[&str] =
    &["us-central1-aiplatform.googleapis.com", "generativelanguage.googleapis.com"];
const BEDROCK: &[&str] = &["bedrock-runtime.us-east-1.amazonaws.com"];

/// An SDK that was found.
struct Sdk<'a> {
    client: &'static Client,
    found: &'a Found,
    config: &'a Config,
    around: &'a Surroundings<'a>,
}

/// Where a URL leads.
enum Leads {
    ToUs,
    Elsewhere(String),
}

impl Sdk<'_> {
    fn examine(&self) -> Examination {
        let mut hops = Vec::new();
        let is_told = self.base_url(&mut hops);
        if !is_told && !self.proxy(&mut hops) {
            hops.push(self.no_way());
        }
        let (kind, name) = match self.found.package {
            Package::Pypi(name) => ("Python", name),
            Package::Npm(name) => ("JavaScript", name),
        };
        let Found { version, folder, .. } = self.found;
        let place = format!("{kind}, {name} {version} in {}", folder.display());
        Examination::of(Section::Clients, self.client.name, place, hops)
    }

    fn habits(&self) -> Habits {
        let usual = |hosts, trust| Habits { hosts, trust, is_upper_read: true };
        match self.client.name {
            "anthropic" | "langchain-anthropic" => usual(&["api.anthropic.com"], SSL),
            "openai-js" => usual(&["api.openai.com"], NODE),
            "anthropic-js" => usual(&["api.anthropic.com"], NODE),
            "bedrock-js" => usual(BEDROCK, NODE),
            "google-genai-js" => usual(GOOGLE, NODE),
            "google-genai" => usual(VERTEX, SSL),
            "langchain-google-genai" => usual(GOOGLE, SSL),
            "boto3" | "langchain-aws" => usual(BEDROCK, AWS),
            "requests" => usual(&["api.openai.com"], &["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]),
            // gRPC's own code (`http_proxy_mapper.cc`).
            "google-cloud-aiplatform" => Habits {
                hosts: VERTEX,
                trust: &["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"],
                is_upper_read: false,
            },
            _ => usual(&["api.openai.com"], SSL),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (self.around.variable)(name).filter(|value| !value.is_empty())
    }

    // === by its base URL ===

    /// Whether it is told a base URL; what is to be said of that.
    fn base_url(&self, hops: &mut Vec<Hop>) -> bool {
        let told = self.client.variables.iter().map(|(name, _)| *name);
        let told: Vec<_> = told.filter_map(|name| Some((name, self.variable(name)?))).collect();
        for (name, url) in &told {
            match self.leads(url, self.config.listen) {
                Leads::ToUs => self.to_us(name, url, hops),
                Leads::Elsewhere(host) => {
                    let finding = format!("past the sidecar: {name} points at {host}");
                    hops.push(way(Status::Failed, finding).advising(self.advice("")));
                }
            }
        }
        !told.is_empty()
    }

    fn to_us(&self, name: &str, url: &str, hops: &mut Vec<Hop>) {
        hops.push(way(Status::Ok, format!("by its base URL: {name} points at the sidecar")));
        let is_tls = url.starts_with("https:");
        let is_bearer = self.variable("AWS_BEARER_TOKEN_BEDROCK").is_some();
        if matches!(self.client.name, "boto3" | "langchain-aws") && is_bearer && !is_tls {
            let finding = "botocore sends AWS_BEARER_TOKEN_BEDROCK by TLS alone";
            let advice = "set `tls: {}`, and an https:// URL, or take the way of the proxy";
            hops.push(way(Status::Failed, finding).advising(advice));
        }
        let names_place = ["GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"];
        if name == "GOOGLE_VERTEX_BASE_URL"
            && names_place.iter().all(|n| self.variable(n).is_some())
        {
            let finding =
                "with project and location from variables alone, some versions lose the path";
            let advice = "give both to the constructor, or take the way of the proxy";
            hops.push(way(Status::Warning, finding).advising(advice));
        }
        if is_tls && self.config.tls.as_ref().is_some_and(|tls| tls.certificate.is_none()) {
            hops.push(self.trust());
        }
    }

    fn leads(&self, url: &str, listen: SocketAddr) -> Leads {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        // What stands before it may be a password.
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let default = if url.starts_with("https:") { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(0)),
            _ => (authority, default),
        };
        let name = host.trim_matches(['[', ']']);
        let address: Option<IpAddr> = name.parse().ok();
        let is_this_machine =
            name == "localhost" || address.is_some_and(|ip| ip.to_canonical().is_loopback());
        let is_ours = address.is_some_and(|ip| ip == listen.ip());
        match port == listen.port() && (is_this_machine || is_ours) {
            true => Leads::ToUs,
            false => Leads::Elsewhere(format!("{host}:{port}")),
        }
    }

    // === by a proxy ===

    /// Whether it would take a proxy, or is meant to; what is to be said of that.
    fn proxy(&self, hops: &mut Vec<Hop>) -> bool {
        let habits = self.habits();
        let upper = self.variable("HTTPS_PROXY").filter(|_| habits.is_upper_read);
        let Some(proxy) = self.variable("https_proxy").or(upper) else {
            let is_unread = self.variable("HTTPS_PROXY").is_some();
            if is_unread {
                let finding = "past the sidecar: gRPC reads https_proxy in lower case alone";
                hops.push(way(Status::Failed, finding).advising(self.advice(" --way proxy")));
            }
            return is_unread;
        };
        let intercept = self.config.intercept.clone().unwrap_or_default();
        if let Leads::Elsewhere(host) = self.leads(&proxy, intercept.listen) {
            let finding = format!("past the sidecar: its proxy is {host}");
            hops.push(way(Status::Failed, finding).advising(self.advice(" --way proxy")));
            return true;
        }
        if let Some(why) = self.passes_proxy(&habits) {
            hops.push(why);
            return true;
        }
        let strange: Vec<_> =
            habits.hosts.iter().filter(|host| !intercept.takes_in(host)).copied().collect();
        let finding = "by its proxy, which is the sidecar";
        hops.push(match strange.is_empty() {
            true => way(Status::Ok, finding),
            false => way(
                Status::Failed,
                format!("past the sidecar: `intercept.hosts` does not list {}", strange.join(", ")),
            ),
        });
        hops.push(self.trust());
        true
    }

    /// Why it goes past its proxy all the same.
    fn passes_proxy(&self, habits: &Habits) -> Option<Hop> {
        let no_proxy = self.variable("no_proxy").or_else(|| self.variable("NO_PROXY"));
        let covers = |host: &&str| no_proxy.as_deref().and_then(|list| noted::covering(list, host));
        if let Some((host, entry)) =
            habits.hosts.iter().find_map(|host| Some((host, covers(host)?)))
        {
            let finding = format!("past the sidecar: `{entry}` in NO_PROXY covers {host}");
            let advice = "name in NO_PROXY what the application must reach by itself, and no more";
            return Some(way(Status::Failed, finding).advising(advice));
        }
        if !matches!(self.found.package, Package::Npm(_)) {
            return None;
        }
        if self.client.name == "bedrock-js" {
            let finding = "past the sidecar, unless its code gives it a `requestHandler`: it calls by HTTP/2, for which \
                           Node.js knows no proxy";
            return Some(way(Status::Warning, finding).advising(self.client.proxy_note));
        }
        let options = self.variable("NODE_OPTIONS").unwrap_or_default();
        let is_preloaded = ["--import", "--require", "-r ", "--use-env-proxy"];
        if is_preloaded.iter().any(|option| options.contains(option)) {
            return None;
        }
        let is_old = |version: &Version| {
            *version < Version(22, 21, 0)
                || (Version(23, 0, 0)..Version(24, 0, 0)).contains(version)
        };
        match &self.around.node {
            Some(version) if is_old(version) => {
                let finding =
                    format!("past the sidecar: Node.js {version} takes no proxy from variables");
                Some(way(Status::Failed, finding).advising(self.client.proxy_note))
            }
            _ if self.variable("NODE_USE_ENV_PROXY").as_deref() != Some("1") => {
                let finding = "past the sidecar: Node.js takes a proxy from variables with NODE_USE_ENV_PROXY=1 alone";
                Some(way(Status::Failed, finding).advising(self.advice(" --way proxy")))
            }
            _ => None,
        }
    }

    // === whom it trusts ===

    /// Whether it trusts the certificates that the sidecar shows.
    fn trust(&self) -> Hop {
        let habits = self.habits();
        let set = habits.trust.iter().find_map(|name| Some((*name, self.variable(name)?)));
        let own = self.config.ca.folder().ok().map(|folder| files_of(&folder));
        let advice = self.advice(" --way redirect");
        let Some((name, file)) = set else {
            let finding =
                format!("{} is not set: it will have no TLS with the sidecar", habits.trust[0]);
            return trust(Status::Failed, finding).advising(advice);
        };
        let path = Path::new(&file);
        if path.is_dir() {
            let finding = format!("{name} names a folder, which was not looked into");
            return trust(Status::Skipped, finding);
        }
        let Ok(text) = std::fs::read_to_string(path) else {
            let finding = format!("{name} names {file}, which cannot be read");
            return trust(Status::Failed, finding).advising(advice);
        };
        let own = own.and_then(|own| std::fs::read_to_string(own.certificate).ok());
        match own {
            None => trust(
                Status::Skipped,
                format!(
                    "{name} names {file}; the sidecar's own certificate cannot be read from here (`ca.folder`)"
                ),
            ),
            Some(own) if text.contains(own.trim()) => trust(
                Status::Ok,
                format!("{name} names {file}, which holds the sidecar's certificate"),
            ),
            Some(_) => {
                let finding =
                    format!("{name} names {file}, which does not hold the sidecar's certificate");
                trust(Status::Failed, finding).advising(advice)
            }
        }
    }

    // === by none ===

    fn no_way(&self) -> Hop {
        if self.config.intercept.as_ref().is_some_and(|intercept| intercept.redirect.is_some()) {
            let finding = "no variable leads it to the sidecar; the system's rules may, which cannot be seen from here";
            return way(Status::Warning, finding).advising(self.advice(" --way redirect"));
        }
        let finding = "past the sidecar: no variable leads it there";
        way(Status::Warning, finding).advising(self.advice(""))
    }

    /// The line that leads it to the sidecar.
    fn advice(&self, way: &str) -> String {
        let way =
            if self.client.variables.is_empty() && way.is_empty() { " --way proxy" } else { way };
        format!("eval \"$(tidegate env{way} --for {})\"", self.client.name)
    }
}

fn way(status: Status, finding: impl Into<String>) -> Hop {
    Hop::new("way", None, status, finding)
}

fn trust(status: Status, finding: impl Into<String>) -> Hop {
    Hop::new("trust", None, status, finding)
}

/// What a running sidecar has seen go past it.
fn past(metrics: &Result<String, String>) -> Examination {
    let hops = match metrics {
        Err(why) => vec![Hop::new("sidecar", None, Status::Skipped, why.as_str())],
        Ok(text) => noted::past(text).collect(),
    };
    Examination::of(Section::Past, "past the sidecar", String::new(), hops)
}

/// Whether nothing of calls to this host was seen though they may be model calls.
fn may_be_model(host: &str) -> bool {
    Host::read(host).provider.is_some() || host.parse::<IpAddr>().is_ok()
}

/// The folders that are looked through for SDKs.
pub fn folders(variable: &dyn Fn(&str) -> Option<String>, more: &[PathBuf]) -> Vec<PathBuf> {
    installed::folders(variable, more)
}

#[cfg(test)]
mod tests;
