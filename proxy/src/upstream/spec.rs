//! Where an upstream is, as its configuration says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_wire::{Dialect, Host, glob};

use crate::call::Call;
use crate::config::UpstreamConfig;
use crate::error::Error;
use crate::tls::UpstreamTlsConfig;

/// The place in a URL that a call's own location fills.
const LOCATION: &str = "{location}";
/// The URL of whatever server a call was meant for that was not made to us.
pub(crate) const ORIGIN: &str = "{origin}";

/// An upstream, checked.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: Arc<str>,
    pub(crate) model: Option<String>,
    /// What models are called there, by the names that callers ask for.
    pub(crate) aliases: Arc<BTreeMap<String, Arc<str>>>,
    pub(crate) region: Option<Arc<str>>,
    provider: Option<Arc<str>>,
    urls: Vec<Url>,
    dial: Option<Authority>,
    locations: Vec<String>,
    http2: bool,
    /// Whether calls go to the server that they were meant for, with `urls` but a name for all of them.
    is_open: bool,
    /// Whether such a server may be this machine, or a neighbour that serves machines.
    local: bool,
    /// What TLS there needs beyond the system's roots.
    own_tls: Option<Arc<UpstreamTlsConfig>>,
}

/// `scheme://host[:port][/base]`, perhaps with a place for a location.
#[derive(Clone, Debug)]
struct Url {
    tls: bool,
    authority: Authority,
    base: String,
}

#[derive(Clone, Debug)]
struct Authority {
    host: String,
    port: Option<u16>,
}

/// One server: what to dial, and what to call it.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) tls: bool,
    /// HTTP/2 without being asked (without TLS); with TLS the handshake decides.
    pub(crate) http2: bool,
    /// Nothing but HTTP/2 will do.
    pub(crate) needs_http2: bool,
    /// For SNI and records.
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    /// For the `Host` field.
    pub(crate) authority: Bytes,
    /// What goes in front of every path.
    pub(crate) base: Bytes,
    /// Who serves there, and where: as configured, else as the host says.
    pub(crate) provider: Option<Arc<str>>,
    pub(crate) region: Option<Arc<str>>,
    /// Host and port to dial.
    pub(crate) dial: (String, u16),
    /// Where that is, where the balancer has resolved it.
    pub(crate) at: Option<SocketAddr>,
    /// Whether it may be this machine, or a neighbour that serves machines.
    pub(crate) may_be_local: bool,
    /// What TLS there needs beyond the system's roots.
    pub(crate) own_tls: Option<Arc<UpstreamTlsConfig>>,
}

// === impl Spec ===

impl Spec {
    /// Checks what the user wrote; the error says which key is wrong.
    pub(crate) fn new(name: &str, config: &UpstreamConfig) -> Result<Self, String> {
        let texts: Vec<&String> = config.url.iter().chain(&config.addresses).collect();
        if texts.is_empty() {
            return Err("needs `url` or `addresses`".to_owned());
        }
        if config.url.is_some() && !config.addresses.is_empty() {
            return Err("has `url` and `addresses`; give one of them".to_owned());
        }
        let is_open = texts == [ORIGIN];
        if let Some(Err((key, message))) = config.tls.as_ref().map(UpstreamTlsConfig::check) {
            return Err(format!("tls.{key}: {message}"));
        }
        if config.tls.is_some()
            && !texts.iter().any(|text| text.starts_with("https") || *text == ORIGIN)
        {
            return Err("tls: is about a url that begins with https://".to_owned());
        }
        if config.local && !is_open {
            return Err(format!("local: is about upstreams whose url is {ORIGIN}"));
        }
        if is_open && (config.credential.is_some() || config.address.is_some()) {
            let advice = "`credential` and `address` are of one: name its host in `url`";
            return Err(format!("url: {ORIGIN} is any server, and {advice}"));
        }
        let urls = texts.iter().map(|text| Url::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let templated = urls.iter().any(|url| url.authority.host.contains(LOCATION));
        if !templated && !config.locations.is_empty() {
            return Err(format!("has `locations`, but its url has no {LOCATION}"));
        }
        if let Some(location) = config.locations.iter().find(|location| !is_location(location)) {
            return Err(format!("locations: `{location}` is not the name of a location"));
        }
        if (templated || is_open) && config.balance.watches() {
            let (advice, place) = (
                "name each host in `addresses`, or leave out dns, health and steer",
                if is_open { ORIGIN } else { LOCATION },
            );
            return Err(format!("balance: cannot watch a url with {place}; {advice}"));
        }
        config.balance.check().map_err(|message| format!("balance.{message}"))?;
        if config.aliases.iter().any(|(name, own)| name.is_empty() || own.is_empty()) {
            return Err("aliases: a model has a name".to_owned());
        }
        let aliases = config.aliases.iter().map(|(name, own)| (name.clone(), own.as_str().into()));
        Ok(Self {
            name: name.into(),
            model: config.model.clone(),
            aliases: Arc::new(aliases.collect()),
            provider: config.provider.as_deref().map(Arc::from),
            region: config.region.as_deref().map(Arc::from),
            urls,
            dial: config.address.as_deref().map(Authority::parse).transpose()?,
            locations: config.locations.clone(),
            http2: config.http2,
            is_open,
            local: config.local,
            own_tls: config.tls.clone().map(Arc::new),
        })
    }

    /// Whether calls go there that were meant for any server, and no others.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether one of its URLs is that of this server.
    pub(crate) fn has_host(&self, host: &str) -> bool {
        let is_it = |url: &Url| url.is_of(host);
        self.is_open || self.urls.iter().any(is_it)
    }

    /// What its servers are told apart by, of those that a call may choose from: a location, or the
    /// server that it was meant for.
    pub(crate) fn place(&self, call: &Call) -> Result<Option<String>, Error> {
        if self.is_open {
            return Ok(call.head.meant.as_ref().map(|meant| {
                let scheme = if meant.tls { "https" } else { "http" };
                format!("{scheme}://{}", String::from_utf8_lossy(&call.head.authority))
            }));
        }
        if !self.is_templated() {
            return Ok(None);
        }
        let location = super::location(call, call.is_grpc());
        self.allows(&location)?;
        Ok(Some(location))
    }

    /// The dialect that is spoken there, where host and base path leave no doubt.
    pub(crate) fn dialect(&self) -> Option<Dialect> {
        let origin = self.origin(0, None);
        let has = |part| memchr::memmem::find(&origin.base, part).is_some();
        Some(match origin.provider.as_deref()? {
            "gcp.vertex_ai" | "gcp.gemini" if has(b"/openai") || has(b"/openapi") => {
                Dialect::OpenAi
            }
            "gcp.vertex_ai" => Dialect::Vertex,
            "gcp.gemini" => Dialect::Gemini,
            "aws.bedrock" if has(b"/openai") => Dialect::OpenAi,
            "aws.bedrock" => Dialect::Bedrock,
            "anthropic" => Dialect::Anthropic,
            "openai" | "azure.ai.openai" => Dialect::OpenAi,
            _ => return None,
        })
    }

    /// Whether all its hosts are among those of another.
    pub(crate) fn has_hosts_of(&self, other: &Self) -> bool {
        let is_there = |url: &Url| {
            let same = |known: &Url| known.authority.host == url.authority.host;
            other.urls.iter().any(same)
        };
        self.urls.iter().all(is_there)
    }

    /// How many addresses there are to choose from.
    pub(crate) fn addresses(&self) -> usize {
        self.urls.len()
    }

    /// Whether the address depends on the call's location.
    pub(crate) fn is_templated(&self) -> bool {
        self.urls.iter().any(|url| url.authority.host.contains(LOCATION))
    }

    /// The locations that it is called at, where they are listed.
    pub(crate) fn locations(&self) -> &[String] {
        &self.locations
    }

    /// Whether calls may name this location. Where none is listed, any name will do that is one.
    pub(crate) fn allows(&self, location: &str) -> Result<(), Error> {
        let listed = self.locations.iter().any(|known| known == location);
        if listed || self.locations.is_empty() && is_location(location) {
            return Ok(());
        }
        // The caller's own text goes back to it, cut to what a location could be.
        let location = location.chars().filter(char::is_ascii_graphic).take(40).collect();
        Err(Error::Location { upstream: self.name.clone(), location })
    }

    /// The server at one of the addresses, at this place where that makes a difference.
    pub(crate) fn origin(&self, address: usize, place: Option<&str>) -> Origin {
        let location = place.filter(|_| !self.is_open);
        let meant = place.filter(|_| self.is_open).and_then(|place| Url::parse(place).ok());
        let url = meant.as_ref().unwrap_or(&self.urls[address % self.urls.len()]);
        let host = fill(&url.authority.host, location.unwrap_or("global"));
        let port = url.authority.port.unwrap_or(if url.tls { 443 } else { 80 });
        let authority = match url.authority.port {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        let dial = match &self.dial {
            Some(dial) => (dial.host.clone(), dial.port.unwrap_or(port)),
            None => (host.clone(), port),
        };
        let said = Host::read(&host);
        Origin {
            provider: self.provider.clone().or(said.provider.map(Arc::from)),
            region: self.region.clone().or(said.region.map(Arc::from)),
            tls: url.tls,
            http2: self.http2,
            needs_http2: false,
            host: host.into(),
            port,
            authority: authority.into(),
            base: url.base.clone().into(),
            dial: (dial.0.trim_matches(['[', ']']).to_owned(), dial.1),
            at: None,
            may_be_local: !self.is_open || self.local,
            own_tls: self.own_tls.clone(),
        }
    }

    /// Where one of the addresses is, if it says so itself.
    pub(super) fn literal(&self, address: usize) -> Option<SocketAddr> {
        let (host, port) = self.origin(address, None).dial;
        Some(SocketAddr::new(host.parse().ok()?, port))
    }

    /// What is dialled for one of the addresses, as it is configured.
    pub(super) fn host_and_port(&self, address: usize) -> String {
        let (host, port) = self.origin(address, None).dial;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

// === impl Origin ===

impl Origin {
    /// The same server, for calls by gRPC.
    pub(crate) fn for_grpc(self) -> Self {
        Self { http2: true, needs_http2: true, ..self }
    }

    /// The same server, at one of the addresses that its name stands for.
    pub(super) fn at(self, at: Option<SocketAddr>) -> Self {
        Self { at, ..self }
    }
}

// === impl Url ===

impl Url {
    fn parse(text: &str) -> Result<Self, String> {
        if text == ORIGIN {
            // No host has this name (RFC 6761): without a call there is no server.
            let authority = Authority { host: "origin.invalid".to_owned(), port: None };
            return Ok(Self { tls: true, authority, base: String::new() });
        }
        let wrong = |why: &str| {
            format!("`{text}` {why}; write for example https://host or http://host:8000")
        };
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(wrong("does not begin with http:// or https://")),
        };
        let (authority, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("url holds credentials; they do not belong there".to_owned());
        }
        if rest.contains(['?', '#', ' ']) {
            return Err(wrong("has a query, fragment or space"));
        }
        let authority = Authority::parse(authority).map_err(|_| wrong("has no host"))?;
        Ok(Self { tls, authority, base: base.trim_end_matches('/').to_owned() })
    }
}

impl Url {
    /// Whether this host is its own, or one that its location may make.
    fn is_of(&self, host: &str) -> bool {
        let own = self.authority.host.to_ascii_lowercase();
        match own.contains(LOCATION) {
            true => {
                let is_at = |location| fill(&own, location) == host;
                glob(&own.replace(LOCATION, "*"), host)
                    || ["global", "us", "eu"].map(is_at).contains(&true)
            }
            false => own.trim_matches(['[', ']']) == host,
        }
    }
}

// === impl Authority ===

impl Authority {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a host with an optional port");
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| wrong())?))
            }
            _ => (text, None),
        };
        let plain = host.replace(LOCATION, "x");
        if crate::http1::parse::check_authority(plain.as_bytes()).is_err() {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

/// The location that a path of Google's names.
pub(crate) fn location_in(path: &str) -> Option<&str> {
    path.split_once("/locations/")?.1.split('/').next()
}

/// Names of regions and multi-regions: `us-central1`, `global`.
fn is_location(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(legal) && !text.starts_with('-')
}

/// Vertex AI serves `global` without a prefix and its multi-regions at hosts of their own
/// (docs.cloud.google.com/vertex-ai/docs/reference/rest).
fn fill(host: &str, location: &str) -> String {
    match (host, location) {
        ("{location}-aiplatform.googleapis.com", "global") => {
            "aiplatform.googleapis.com".to_owned()
        }
        ("{location}-aiplatform.googleapis.com", "us" | "eu") => {
            format!("aiplatform.{location}.rep.googleapis.com")
        }
        _ => host.replace(LOCATION, location),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(url: &str, locations: &[&str]) -> Result<Spec, String> {
        let locations = locations.iter().map(|&location| location.to_owned()).collect();
        Spec::new(
            "a",
            &UpstreamConfig { url: Some(url.to_owned()), locations, ..Default::default() },
        )
    }

    #[test]
    fn a_location_fills_the_host_as_vertex_names_its_hosts() {
        let spec = spec("https://{location}-aiplatform.googleapis.com", &[]).expect("good");
        for (location, host) in [
            ("us-central1", "us-central1-aiplatform.googleapis.com"),
            ("global", "aiplatform.googleapis.com"),
            ("eu", "aiplatform.eu.rep.googleapis.com"),
        ] {
            assert_eq!(&*spec.origin(0, Some(location)).host, host);
        }
    }

    #[test]
    fn a_caller_cannot_choose_a_host_by_its_location() {
        let open = spec("https://{location}-aiplatform.googleapis.com", &[]).expect("good");
        for bad in ["evil.com/", "a.b", "A", "", "x@y", "-a", "%2f"] {
            assert!(open.allows(bad).is_err(), "{bad}");
        }
        let listed = spec("https://{location}-x.com", &["global"]).expect("good");
        assert!(listed.allows("global").is_ok() && listed.allows("us-central1").is_err());
    }

    #[test]
    fn urls_that_cannot_be_meant_are_told() {
        for (url, part) in [
            ("host:80", "does not begin with"),
            ("ftp://host", "does not begin with"),
            ("http://", "has no host"),
            ("http://u:p@host", "credentials"),
            ("http://host?key=1", "query"),
            ("http://host:99999", "has no host"),
        ] {
            let error = spec(url, &[]).expect_err(url);
            assert!(error.contains(part), "{url}: {error}");
            assert!(!error.contains("u:p"), "{error}");
        }
    }

    #[test]
    fn the_configuration_says_who_serves_and_else_the_host_does() {
        let of = |origin: Origin| {
            (
                origin.provider.as_deref().map(str::to_owned),
                origin.region.as_deref().map(str::to_owned),
            )
        };
        let said = |provider: &str, region| (Some(provider.to_owned()), region);
        let groq = spec("https://api.groq.com/openai", &[]).expect("good");
        assert_eq!(of(groq.origin(0, None)), said("groq", None));
        let vertex = spec("https://{location}-aiplatform.googleapis.com", &[]).expect("good");
        let region = Some("us-central1".to_owned());
        assert_eq!(of(vertex.origin(0, region.as_deref())), said("gcp.vertex_ai", region));
        let own = Spec { provider: Some("ours".into()), ..groq };
        assert_eq!(of(own.origin(0, None)), said("ours", None));
    }

    #[test]
    fn ports_base_paths_and_ipv6_are_understood() {
        let origin = spec("http://[::1]:8000/base/", &[]).expect("good").origin(0, None);
        assert_eq!(
            (origin.port, &origin.authority[..], &origin.base[..]),
            (8000, &b"[::1]:8000"[..], &b"/base"[..])
        );
        assert_eq!(origin.dial, ("::1".to_owned(), 8000));
    }
}
