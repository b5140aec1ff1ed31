//! What an application sets so that its calls come this way: the variables of each SDK.
//!
//! Sources: each SDK's own code, run against this sidecar (`tests/sdk/test_ways.py`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::config::Config;
use crate::tls::{self, files_of};

/// An SDK, and the variable by which it is told another base URL.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// What `tidegate env --for` calls it.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// The variable, and what follows the sidecar's own URL in it; none where its code must say it.
    variable: Option<(&'static str, &'static str)>,
    /// What else must be so.
    note: &'static str,
}

/// All that are known.
pub const CLIENTS: &[Client] = &[
    Client {
        name: "openai",
        what: "OpenAI's SDKs, and LangChain, LlamaIndex and others that use them",
        variable: Some(("OPENAI_BASE_URL", "/v1")),
        note: "",
    },
    Client {
        name: "azure-openai",
        what: "OpenAI's SDKs with Azure",
        variable: Some(("AZURE_OPENAI_ENDPOINT", "")),
        note: "",
    },
    Client {
        name: "anthropic",
        what: "Anthropic's SDKs",
        variable: Some(("ANTHROPIC_BASE_URL", "")),
        note: "",
    },
    Client {
        name: "anthropic-vertex",
        what: "Anthropic's SDKs with Vertex AI",
        variable: Some(("ANTHROPIC_VERTEX_BASE_URL", "/v1")),
        note: "",
    },
    Client {
        name: "anthropic-bedrock",
        what: "Anthropic's SDKs with AWS Bedrock",
        variable: Some(("ANTHROPIC_BEDROCK_BASE_URL", "")),
        note: "the application's signature is for another host: let the upstream sign (`credential: { aws: {} }`)",
    },
    Client {
        name: "boto3",
        what: "AWS's SDKs (boto3, JavaScript, Go, Java) with Bedrock",
        variable: Some(("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "")),
        note: "the application's signature is for another host: let the upstream sign (`credential: { aws: {} }`)",
    },
    Client {
        name: "google-genai",
        what: "Google's Gen AI SDKs with Vertex AI",
        variable: Some(("GOOGLE_VERTEX_BASE_URL", "")),
        note: "give `project` and `location` to the constructor: from variables alone, some versions lose the path",
    },
    Client {
        name: "gemini",
        what: "Google's Gen AI SDKs with an API key",
        variable: Some(("GOOGLE_GEMINI_BASE_URL", "")),
        note: "",
    },
    Client {
        name: "google-cloud-aiplatform",
        what: "Google's Vertex AI SDK, by gRPC",
        variable: None,
        note: "it has no variable for this: give `api_endpoint` to its client, or take the way of the proxy",
    },
    Client {
        name: "ollama",
        what: "Ollama's clients",
        variable: Some(("OLLAMA_HOST", "")),
        note: "",
    },
];

/// The way by which calls come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The SDK is told another base URL.
    BaseUrl,
    /// The sidecar is its proxy.
    Proxy,
}

/// What to set, one variable after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Names and values, in order.
    pub variables: Vec<(&'static str, String)>,
    /// What else must be so.
    pub notes: Vec<String>,
}

/// Why there is nothing to set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No proxy is configured.
    #[error(
        "the configuration has no `intercept`; write `intercept: {{}}`, or start with --intercept"
    )]
    NoProxy,
    /// There is no folder for the authority's certificate.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// Hosts that applications must reach by themselves: this machine, metadata, and the cluster's own
/// API. Names of a cluster's services are left to the user: calls to model servers are among them.
const NO_PROXY: [&str; 12] = [
    "localhost",
    "127.0.0.1",
    "::1",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "fd00:ec2::254",
    "metadata.google.internal",
    "metadata",
    "sts.amazonaws.com",
    "sts.googleapis.com",
    "kubernetes.default.svc",
];

/// Variables by which programs find the roots that they trust.
const BUNDLES: [&str; 5] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
];

impl Client {
    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        CLIENTS.iter().find(|client| client.name == name)
    }
}

impl Settings {
    /// What these clients set, to come by this way to a sidecar of this configuration.
    pub fn new(config: &Config, clients: &[&Client], way: Way) -> Result<Self, Error> {
        match way {
            Way::BaseUrl => Self::base_url(config, clients),
            Way::Proxy => Self::proxy(config),
        }
    }

    fn base_url(config: &Config, clients: &[&Client]) -> Result<Self, Error> {
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let base = format!("{scheme}://{}", reached(config.listen));
        let mut settings = Self::default();
        for client in clients {
            if let Some((variable, path)) = client.variable {
                settings.variables.push((variable, format!("{base}{path}")));
            }
            if !client.note.is_empty() {
                settings.notes.push(format!("{}: {}", client.name, client.note));
            }
        }
        let is_ours = |tls: &crate::config::TlsConfig| tls.certificate.is_none();
        if config.tls.as_ref().is_some_and(is_ours) {
            settings.trust(config)?;
        }
        Ok(settings)
    }

    fn proxy(config: &Config) -> Result<Self, Error> {
        let Some(intercept) = &config.intercept else { return Err(Error::NoProxy) };
        let proxy = format!("http://{}", reached(intercept.listen));
        let mut settings = Self::default();
        // Some programs read the one, some the other.
        for (upper, lower) in [("HTTPS_PROXY", "https_proxy"), ("HTTP_PROXY", "http_proxy")] {
            settings.variables.extend([(upper, proxy.clone()), (lower, proxy.clone())]);
        }
        let no_proxy = NO_PROXY.join(",");
        settings.variables.extend([("NO_PROXY", no_proxy.clone()), ("no_proxy", no_proxy)]);
        settings.variables.push(("NODE_USE_ENV_PROXY", "1".to_owned()));
        settings.trust(config)?;
        settings.notes.extend([
            "NO_PROXY: add what the application must reach by itself; services of the cluster that are \
             not models, for one"
                .to_owned(),
            "Node.js takes proxies from variables since version 24 (and 22.21); before, give its client \
             an agent"
                .to_owned(),
            "Java trusts neither variable: import ca.pem with keytool".to_owned(),
        ]);
        Ok(settings)
    }

    /// Has programs trust certificates that we have signed.
    fn trust(&mut self, config: &Config) -> Result<(), Error> {
        let files = files_of(&config.ca.folder()?);
        let text = |path: PathBuf| path.display().to_string();
        let bundle = text(files.bundle);
        self.variables.extend(BUNDLES.map(|variable| (variable, bundle.clone())));
        self.variables.push(("NODE_EXTRA_CA_CERTS", text(files.certificate)));
        Ok(())
    }
}

/// As a shell reads it.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.notes.iter().try_for_each(|note| writeln!(f, "# {note}"))?;
        let quoted = |value: &str| format!("'{}'", value.replace('\'', r"'\''"));
        let mut variables = self.variables.iter();
        variables.try_for_each(|(name, value)| writeln!(f, "export {name}={}", quoted(value)))
    }
}

/// The address at which this machine reaches who listens there.
fn reached(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str, names: &[&str], way: Way) -> Result<Settings, Error> {
        let config = Config::parse(text).expect("a good configuration");
        let clients: Vec<_> =
            names.iter().map(|name| Client::named(name).expect("it is known")).collect();
        Settings::new(&config, &clients, way)
    }

    #[test]
    fn a_base_url_is_the_address_that_calls_go_to() {
        for (listen, url) in [
            ("127.0.0.1:4100", "http://127.0.0.1:4100/v1"),
            ("0.0.0.0:1", "http://127.0.0.1:1/v1"),
            ("'[::]:1'", "http://[::1]:1/v1"),
            ("10.0.0.1:80", "http://10.0.0.1:80/v1"),
        ] {
            let settings = settings(&format!("listen: {listen}"), &["openai"], Way::BaseUrl);
            let expected = [("OPENAI_BASE_URL", url.to_owned())];
            assert_eq!(settings.expect("it is said").variables, expected);
        }
    }

    #[test]
    fn who_is_shown_a_certificate_of_ours_must_trust_it() {
        let text = "tls: {}\nca: { folder: /ca }";
        let settings = settings(text, &["anthropic"], Way::BaseUrl).expect("it is said");
        let text = settings.to_string();
        assert!(text.contains("ANTHROPIC_BASE_URL='https://127.0.0.1:4100'"), "{text}");
        assert!(text.contains("SSL_CERT_FILE='/ca/bundle.pem'"), "{text}");
        assert!(text.contains("NODE_EXTRA_CA_CERTS='/ca/ca.pem'"), "{text}");
    }

    #[test]
    fn a_proxy_is_for_all_clients_alike_and_for_no_metadata() {
        let text = "intercept: { listen: 127.0.0.1:9 }\nca: { folder: /ca }";
        let settings = settings(text, &[], Way::Proxy).expect("it is said");
        let value = |name| {
            let mut all = settings.variables.iter();
            all.find(|(variable, _)| *variable == name).map(|(_, value)| value.as_str())
        };
        assert_eq!(value("HTTPS_PROXY"), Some("http://127.0.0.1:9"));
        assert_eq!(value("http_proxy"), Some("http://127.0.0.1:9"));
        assert!(value("NO_PROXY").is_some_and(|hosts| hosts.contains("169.254.169.254")));
        assert!(matches!(self::settings("", &[], Way::Proxy), Err(Error::NoProxy)));
    }

    #[test]
    fn no_name_is_used_twice() {
        for client in CLIENTS {
            assert_eq!(Client::named(client.name).map(|found| found.what), Some(client.what));
        }
    }
}
