//! What is read of a list of hosts in `NO_PROXY`, and of a sidecar's metrics.

use super::super::{Hop, Status};
use super::may_be_model;

const PASSED_BY: &str = "tidegate_intercept_passed_by_total{host=\"";
const UNTRUSTED: &str = "tidegate_intercept_connections_total{end=\"untrusted\"}";
const MEASURED: &str = "tidegate_intercept_connections_total{end=\"measured\"}";

/// The entry of a list that covers a host, as curl, Python and Node.js read it: a name covers itself
/// and all below it, with or without a dot or `*.` before it.
pub(super) fn covering<'a>(list: &'a str, host: &str) -> Option<&'a str> {
    let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let covers = |entry: &&str| {
        let name = entry.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase();
        let name = name.split(':').next().unwrap_or_default();
        let is_below = || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
        *entry == "*" || (!name.is_empty() && (host == name || is_below()))
    };
    let mut entries = entries;
    entries.find(covers)
}

/// What metrics tell of connections that were passed on blind, or never came to be.
pub(super) fn past(metrics: &str) -> impl Iterator<Item = Hop> {
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    let untrusted = value(UNTRUSTED).filter(|count| *count > 0.0).map(|count| {
        let finding = format!(
            "{count} connections ended in the handshake: who made them does not trust the sidecar"
        );
        let advice = "set the variables of `tidegate env --way proxy` where that application runs";
        Hop::new("trust", None, Status::Failed, finding).advising(advice)
    });
    let measured = value(MEASURED).map(|count| {
        Hop::new("proxy", None, Status::Ok, format!("{count} connections were taken in"))
    });
    let hosts = metrics.lines().filter_map(|line| {
        let (host, count) = line.strip_prefix(PASSED_BY)?.split_once("\"} ")?;
        let finding = format!("{count} connections were passed on blind");
        let hop = |status| Hop::new("passed by", Some(host.to_owned()), status, finding.clone());
        Some(match may_be_model(host) {
            true => hop(Status::Warning)
                .advising("if model calls go there, name the host in `intercept.hosts`"),
            false => hop(Status::Ok),
        })
    });
    let hosts: Vec<_> = hosts.collect();
    let is_silent = measured.is_none() && hosts.is_empty();
    let silent = is_silent.then(|| {
        Hop::new(
            "proxy",
            None,
            Status::Absent,
            "the sidecar is nobody's proxy: what goes past it is not seen by it",
        )
    });
    silent.into_iter().chain(measured).chain(untrusted).chain(hosts)
}
