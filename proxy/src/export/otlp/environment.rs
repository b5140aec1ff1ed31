//! What the `OTEL_*` variables of the OpenTelemetry specification say.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tracing::warn;

use super::{Compression, Error, Protocol, Secret, Signal};
use crate::export::catalog;

/// The variables of the OpenTelemetry specification.
pub(in crate::export) struct Environment<'a> {
    pub(in crate::export) variable: &'a dyn Fn(&str) -> Option<String>,
    /// Whose variables these are.
    pub(in crate::export) signal: Signal,
}

/// Whether an endpoint is for all signals, so that the path of this one is appended, or complete.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    Appended,
    Complete,
}

impl Environment<'_> {
    /// The specification: an empty variable is an unset one.
    fn get(&self, name: &str) -> Option<String> {
        (self.variable)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    pub(in crate::export) fn read<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.get(name)?;
        let value = read(&text);
        if value.is_none() {
            warn!(variable = name, "variable is not understood and left out");
        }
        value
    }

    /// A variable of the exporter: that of this signal, else that of all signals.
    pub(super) fn otlp<T>(&self, name: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.read(&self.own(name), &read)
            .or_else(|| self.read(&format!("OTEL_EXPORTER_OTLP_{name}"), &read))
    }

    fn own(&self, name: &str) -> String {
        format!("OTEL_EXPORTER_OTLP_{}_{name}", self.signal.variable())
    }

    pub(in crate::export) fn milliseconds(&self, name: &str) -> Option<Duration> {
        self.read(name, milliseconds)
    }

    pub(super) fn is_off(&self) -> bool {
        self.get("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"))
            || self.exporter().is_some_and(|text| text != "otlp")
    }

    /// Whether this signal is asked for by name.
    pub(in crate::export) fn is_on(&self) -> bool {
        self.exporter().is_some_and(|text| text == "otlp")
    }

    fn exporter(&self) -> Option<String> {
        self.get(&format!("OTEL_{}_EXPORTER", self.signal.variable()))
    }

    /// Whether histograms are asked for by exponential buckets.
    pub(super) fn wants_exponential(&self) -> bool {
        let aggregation = self.otlp("DEFAULT_HISTOGRAM_AGGREGATION", |text| match text {
            "explicit_bucket_histogram" => Some(false),
            "base2_exponential_bucket_histogram" => Some(true),
            _ => None,
        });
        aggregation.unwrap_or(false)
    }

    pub(super) fn is_insecure(&self) -> bool {
        self.otlp("INSECURE", |text| text.to_ascii_lowercase().parse().ok()).unwrap_or(false)
    }

    pub(super) fn protocol(&self) -> Option<Protocol> {
        self.otlp("PROTOCOL", |text| match text {
            "grpc" => Some(Protocol::Grpc),
            "http/protobuf" => Some(Protocol::HttpProtobuf),
            _ => None,
        })
    }

    pub(super) fn endpoint(&self, protocol: Option<Protocol>) -> Option<(String, Path)> {
        let readable = |text: &str| {
            let endpoint = (text.to_owned(), Path::Complete);
            settle_endpoint(endpoint, self.signal, protocol, false).is_ok().then(|| text.to_owned())
        };
        let own = self.read(&self.own("ENDPOINT"), readable);
        own.map(|endpoint| (endpoint, Path::Complete))
            .or_else(|| Some((self.read("OTEL_EXPORTER_OTLP_ENDPOINT", readable)?, Path::Appended)))
    }

    pub(super) fn headers(
        &self,
        configured: &BTreeMap<String, Secret>,
    ) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        for (name, Secret(value)) in configured {
            let (key, value) =
                header(name, value).ok_or_else(|| Error::Header { name: name.clone() })?;
            headers.insert(key, value);
        }
        let named = self.otlp("HEADERS", |text| {
            pairs(text).map(|(name, value)| header(name, &value)).collect::<Option<Vec<_>>>()
        });
        for (key, value) in named.unwrap_or_default() {
            headers.insert(key, value);
        }
        Ok(headers)
    }

    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let Some(path) = self.otlp("CERTIFICATE", |text| Some(text.to_owned())) else {
            return Ok(Vec::new());
        };
        CertificateDer::pem_file_iter(&path)
            .and_then(Iterator::collect)
            .map_err(|source| Error::Certificate { path, source })
    }

    /// What tells this process apart from all others whose telemetry goes to the same place.
    pub(in crate::export) fn resource(&self) -> BTreeMap<String, String> {
        let mut resource = BTreeMap::from([
            ("service.name".to_owned(), "tidegate".to_owned()),
            ("service.version".to_owned(), catalog::VERSION.to_owned()),
            ("service.instance.id".to_owned(), INSTANCE.clone()),
        ]);
        if let Some(attributes) = self.get("OTEL_RESOURCE_ATTRIBUTES") {
            resource.extend(pairs(&attributes).map(|(name, value)| (name.to_owned(), value)));
        }
        if let Some(name) = self.get("OTEL_SERVICE_NAME") {
            resource.insert("service.name".to_owned(), name);
        }
        resource
    }

    pub(super) fn check_temporality(&self) {
        let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        let wanted = self.get(name).unwrap_or_default();
        if !wanted.is_empty() && !wanted.eq_ignore_ascii_case("cumulative") {
            warn!(%wanted, "metrics are pushed as cumulative");
        }
    }
}

/// Which address a push goes to, and how it is carried.
pub(super) fn settle_endpoint(
    (text, path): (String, Path),
    signal: Signal,
    protocol: Option<Protocol>,
    insecure: bool,
) -> Result<(Uri, Protocol), Error> {
    let has_scheme = text.contains("://");
    // An endpoint of gRPC may come without a scheme; the specification then asks for TLS.
    let full = match (has_scheme, insecure) {
        (true, _) => text.clone(),
        (false, true) => format!("http://{text}"),
        (false, false) => format!("https://{text}"),
    };
    let uri: Uri = full.parse().map_err(|_| Error::Endpoint { endpoint: text.clone() })?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
        return Err(Error::Endpoint { endpoint: text });
    }
    let protocol = protocol.unwrap_or(match uri.port_u16() {
        Some(4318) => Protocol::HttpProtobuf,
        _ => Protocol::Grpc,
    });
    if protocol == Protocol::Grpc || path == Path::Complete {
        return Ok((uri, protocol));
    }
    let below = signal.http_path();
    // People write the path of one signal where that of all is asked for.
    let base = full.trim_end_matches('/');
    let base = Signal::ALL.iter().fold(base, |base, own| base.trim_end_matches(own.http_path()));
    let uri = format!("{base}{below}").parse();
    Ok((uri.map_err(|_| Error::Endpoint { endpoint: text })?, protocol))
}

/// Pairs as in a `baggage` header: `name=value,name=value`, with `%20` for what cannot stand there.
fn pairs(text: &str) -> impl Iterator<Item = (&str, String)> {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.trim(), percent_decode(value.trim())))
        .filter(|(name, _)| !name.is_empty())
}

fn percent_decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some((name.to_ascii_lowercase().parse().ok()?, value))
}

pub(super) fn milliseconds(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_millis)
}

pub(super) fn compression(text: &str) -> Option<Compression> {
    match text {
        "gzip" => Some(Compression::Gzip),
        "none" => Some(Compression::None),
        _ => None,
    }
}

/// The same for all signals of this process.
static INSTANCE: LazyLock<String> = LazyLock::new(instance);

/// A random identifier in the form of a UUID, as the conventions ask.
fn instance() -> String {
    let random = rand::random::<u128>() & !(0xf000_c000 << 48) | (0x4000_8000 << 48);
    let digits = format!("{random:032x}");
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}
