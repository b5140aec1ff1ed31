//! What an application sets so that its calls come this way: the variables of each SDK.
//!
//! Sources: each SDK's own code, run against this sidecar (`tests/sdk/test_ways.py`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::config::Config;
use crate::tls::{self, files_of};

/// An SDK, and the variables by which it is told another base URL.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// What `tidegate env --for` calls it.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Where it comes from; the doctor looks for it there.
    pub package: Option<Package>,
    /// The variables, and what follows the sidecar's own URL in each; none where its code must say it.
    pub(crate) variables: &'static [(&'static str, &'static str)],
    /// What else must be so, by its base URL.
    note: &'static str,
    /// What else must be so, by a proxy.
    pub(crate) proxy_note: &'static str,
}

/// The package of an SDK, by its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Package {
    /// Of Python.
    Pypi(&'static str),
    /// Of JavaScript.
    Npm(&'static str),
}

const OPENAI: &[(&str, &str)] = &[("OPENAI_BASE_URL", "/v1")];
const ANTHROPIC: &[(&str, &str)] = &[("ANTHROPIC_BASE_URL", "")];
const BEDROCK: &[(&str, &str)] = &[("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "")];
const VERTEX: (&str, &str) = ("GOOGLE_VERTEX_BASE_URL", "");
const GEMINI: (&str, &str) = ("GOOGLE_GEMINI_BASE_URL", "");

const RE_SIGN: &str = "the application's signature is for another host: let the upstream sign (`credential: { aws: {} }`)";
const LOSES_PATH: &str = "give `project` and `location` to the constructor: from variables alone, some versions lose the path";
const NO_VARIABLE: &str = "it has no variable for this: write the sidecar's address into its code, as its page shows, or take the way of the proxy";
const NODE: &str = "Node.js takes proxies from variables since version 24 (and 22.21); before, preload what its page names";
const NODE_HTTP2: &str = "the AWS SDK for JavaScript calls Bedrock by HTTP/2, for which Node.js knows no proxy: give its client the \
     `requestHandler` that its page shows, or its calls go past the sidecar";

/// One that needs nothing besides.
const PLAIN: Client =
    Client { name: "", what: "", package: None, variables: &[], note: "", proxy_note: "" };

/// All that are known.
pub const CLIENTS: &[Client] = &[
    Client {
        name: "openai",
        what: "OpenAI's SDK for Python, and LlamaIndex and others that use it",
        package: Some(Package::Pypi("openai")),
        variables: OPENAI,
        ..PLAIN
    },
    Client {
        name: "openai-js",
        what: "OpenAI's SDK for JavaScript",
        package: Some(Package::Npm("openai")),
        variables: OPENAI,
        proxy_note: NODE,
        ..PLAIN
    },
    Client {
        name: "azure-openai",
        what: "OpenAI's SDKs with Azure",
        variables: &[("AZURE_OPENAI_ENDPOINT", "")],
        ..PLAIN
    },
    Client {
        name: "anthropic",
        what: "Anthropic's SDK for Python",
        package: Some(Package::Pypi("anthropic")),
        variables: ANTHROPIC,
        ..PLAIN
    },
    Client {
        name: "anthropic-js",
        what: "Anthropic's SDK for JavaScript",
        package: Some(Package::Npm("@anthropic-ai/sdk")),
        variables: ANTHROPIC,
        proxy_note: NODE,
        ..PLAIN
    },
    Client {
        name: "anthropic-vertex",
        what: "Anthropic's SDKs with Vertex AI",
        variables: &[("ANTHROPIC_VERTEX_BASE_URL", "/v1")],
        ..PLAIN
    },
    Client {
        name: "anthropic-bedrock",
        what: "Anthropic's SDKs with AWS Bedrock",
        variables: &[("ANTHROPIC_BEDROCK_BASE_URL", "")],
        note: RE_SIGN,
        ..PLAIN
    },
    Client {
        name: "boto3",
        what: "AWS's SDKs (boto3, Go, Java) with Bedrock",
        package: Some(Package::Pypi("boto3")),
        variables: BEDROCK,
        note: RE_SIGN,
        ..PLAIN
    },
    Client {
        name: "bedrock-js",
        what: "AWS's SDK for JavaScript with Bedrock",
        package: Some(Package::Npm("@aws-sdk/client-bedrock-runtime")),
        variables: BEDROCK,
        note: RE_SIGN,
        proxy_note: NODE_HTTP2,
    },
    Client {
        name: "google-genai",
        what: "Google's Gen AI SDK for Python with Vertex AI",
        package: Some(Package::Pypi("google-genai")),
        variables: &[VERTEX],
        note: LOSES_PATH,
        ..PLAIN
    },
    Client {
        name: "gemini",
        what: "Google's Gen AI SDK for Python with an API key",
        variables: &[GEMINI],
        ..PLAIN
    },
    Client {
        name: "google-genai-js",
        what: "Google's Gen AI SDK for JavaScript",
        package: Some(Package::Npm("@google/genai")),
        variables: &[VERTEX, GEMINI],
        note: LOSES_PATH,
        proxy_note: NODE,
    },
    Client {
        name: "google-cloud-aiplatform",
        what: "Google's Vertex AI SDK, by gRPC",
        package: Some(Package::Pypi("google-cloud-aiplatform")),
        note: NO_VARIABLE,
        ..PLAIN
    },
    Client {
        name: "langchain-openai",
        what: "LangChain with OpenAI",
        package: Some(Package::Pypi("langchain-openai")),
        variables: OPENAI,
        ..PLAIN
    },
    Client {
        name: "langchain-anthropic",
        what: "LangChain with Anthropic",
        package: Some(Package::Pypi("langchain-anthropic")),
        variables: ANTHROPIC,
        ..PLAIN
    },
    Client {
        name: "langchain-google-genai",
        what: "LangChain with Gemini or Vertex AI",
        package: Some(Package::Pypi("langchain-google-genai")),
        variables: &[VERTEX, GEMINI],
        note: LOSES_PATH,
        ..PLAIN
    },
    Client {
        name: "langchain-aws",
        what: "LangChain with AWS Bedrock",
        package: Some(Package::Pypi("langchain-aws")),
        variables: BEDROCK,
        note: RE_SIGN,
        ..PLAIN
    },
    Client {
        name: "ollama",
        what: "Ollama's clients",
        package: Some(Package::Pypi("ollama")),
        variables: &[("OLLAMA_HOST", "")],
        ..PLAIN
    },
    Client {
        name: "requests",
        what: "requests, httpx and others with a URL written into the code",
        package: Some(Package::Pypi("requests")),
        note: NO_VARIABLE,
        ..PLAIN
    },
    Client { name: "curl", what: "curl", note: NO_VARIABLE, ..PLAIN },
];

/// The way by which calls come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The SDK is told another base URL.
    BaseUrl,
    /// The sidecar is its proxy.
    Proxy,
    /// The system redirects its connections.
    Redirect,
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
            Way::Proxy => Self::proxy(config, clients),
            Way::Redirect => Self::redirect(config),
        }
    }

    fn base_url(config: &Config, clients: &[&Client]) -> Result<Self, Error> {
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let base = format!("{scheme}://{}", reached(config.listen));
        let mut settings = Self::default();
        for client in clients {
            for (variable, path) in client.variables {
                settings.set(variable, format!("{base}{path}"));
            }
            settings.note(client.name, client.note);
        }
        let is_ours = |tls: &crate::config::TlsConfig| tls.certificate.is_none();
        if config.tls.as_ref().is_some_and(is_ours) {
            settings.trust(config)?;
        }
        Ok(settings)
    }

    fn proxy(config: &Config, clients: &[&Client]) -> Result<Self, Error> {
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
            "Java trusts no variable: import ca.pem with keytool".to_owned(),
        ]);
        clients.iter().for_each(|client| settings.note(client.name, client.proxy_note));
        Ok(settings)
    }

    /// Where connections go is the system's; all that is left is whom applications trust.
    fn redirect(config: &Config) -> Result<Self, Error> {
        let mut settings = Self::default();
        settings.trust(config)?;
        let is_taken = config.intercept.as_ref().is_some_and(|it| it.redirect.is_some());
        if !is_taken {
            let note = "the sidecar needs an address of `intercept.redirect`, and the system the rules of \
                        config/redirect/redirect.sh";
            settings.notes.push(note.to_owned());
        }
        settings.notes.push("Java trusts no variable: import ca.pem with keytool".to_owned());
        Ok(settings)
    }

    /// Sets a variable, once.
    fn set(&mut self, variable: &'static str, value: String) {
        if !self.variables.iter().any(|(known, _)| *known == variable) {
            self.variables.push((variable, value));
        }
    }

    fn note(&mut self, client: &str, note: &str) {
        if !note.is_empty() {
            self.notes.push(format!("{client}: {note}"));
        }
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
