//! Variables of the environment that would make the sidecar call itself for its credentials.
//!
//! An application is pointed at the sidecar by variables that all programs of a pod may share:
//! the AWS SDK and every HTTP client in here obey them, too.

use std::net::SocketAddr;

/// Variables that send requests of the AWS SDK somewhere else, or those of any client.
const VARIABLES: &[&str] = &[
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_STS",
    "AWS_ENDPOINT_URL_SSO",
    "AWS_ENDPOINT_URL_SSO_OIDC",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// A variable that points at the sidecar itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// Its name.
    pub variable: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

/// The variables that point at one of our own addresses. `lookup` gives a variable's value.
pub fn loops(own: &[SocketAddr], lookup: impl Fn(&str) -> Option<String>) -> Vec<Loop> {
    let points_here = |value: String| {
        let (host, port) = place(&value)?;
        own.iter().find(|address| address.port() == port && is_same_host(&host, address))
    };
    let looped = VARIABLES.iter().filter(|name| lookup(name).and_then(points_here).is_some());
    looped.map(|variable| Loop { variable, advice: advice(variable) }).collect()
}

fn advice(variable: &str) -> &'static str {
    if variable.starts_with("AWS_") {
        "unset it for the sidecar, and give the application AWS_ENDPOINT_URL_BEDROCK_RUNTIME instead"
    } else {
        "unset it for the sidecar: it is meant for the application"
    }
}

/// Host and port of `http://host:port/...`, or of `host:port`.
fn place(url: &str) -> Option<(String, u16)> {
    let (scheme, rest) = url.trim().split_once("://").unwrap_or(("http", url.trim()));
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let standard = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, standard),
    };
    Some((host.trim_matches(['[', ']']).to_ascii_lowercase(), port))
}

fn is_same_host(host: &str, own: &SocketAddr) -> bool {
    let is_loopback = host == "localhost"
        || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback() || ip.is_unspecified());
    let is_local = own.ip().is_loopback() || own.ip().is_unspecified();
    is_loopback && is_local || host.parse() == Ok(own.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variable: &'static str, value: &str) -> bool {
        let own = ["127.0.0.1:4100".parse().expect("an address")];
        let lookup = |name: &str| (name == variable).then(|| value.to_owned());
        loops(&own, lookup).iter().any(|found| found.variable == variable)
    }

    #[test]
    fn variables_that_point_at_us_are_found() {
        for value in [
            "http://127.0.0.1:4100",
            "http://localhost:4100/",
            "localhost:4100",
            "http://u:p@127.0.0.1:4100/x",
            "http://[::1]:4100",
        ] {
            assert!(found("AWS_ENDPOINT_URL", value), "{value}");
            assert!(found("HTTPS_PROXY", value), "{value}");
        }
    }

    #[test]
    fn variables_that_point_elsewhere_are_left_alone() {
        for value in [
            "",
            "http://127.0.0.1:4566",
            "http://proxy.corp:4100",
            "https://sts.amazonaws.com",
            "::",
        ] {
            assert!(!found("AWS_ENDPOINT_URL", value), "{value}");
        }
        assert!(!found("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://127.0.0.1:4100"));
    }
}
