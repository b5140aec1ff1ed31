//! Metrics pushed by OTLP, over gRPC or HTTP.
//!
//! Off unless an endpoint is given, in the configuration or by the `OTEL_*` variables that a
//! platform sets for all its pods; variables win. A collector that is away costs nothing but the
//! freshness of its numbers: they are cumulative, so the next push that arrives makes up for those
//! that did not.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::Histogram as HistogramPoints;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use serde::Deserialize;
use tokio::sync::oneshot;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tracing::{info, warn};

use super::catalog::{self, Family, Kind};
use super::metrics::{Histogram, Point, Registry, Snapshot, Value};

/// More of a collector's answer is not read.
const ANSWER_BYTES: usize = 64 << 10;

/// Where metrics are pushed, as configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpConfig {
    /// The collector: `http://collector:4317`. Nothing is pushed without it.
    pub endpoint: Option<String>,
    /// `grpc` or `http/protobuf`; absent: HTTP at port 4318, gRPC elsewhere.
    pub protocol: Option<Protocol>,
    /// Headers that go with every push; credentials stand here.
    pub headers: BTreeMap<String, Secret>,
    /// Time from push to push.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub interval: Duration,
    /// Time that one push may take.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub timeout: Duration,
    /// `gzip` or `none`.
    pub compression: Compression,
}

/// How OTLP is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    /// gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// Protocol buffers in HTTP requests.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// Whether pushes are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// By gzip.
    Gzip,
}

/// Text that is never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

/// Why the configured endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no address.
    #[error("`{endpoint}` is no http or https endpoint")]
    Endpoint {
        /// As configured.
        endpoint: String,
    },
    /// A header cannot be sent. Its value is not shown.
    #[error("header `{name}` of the otlp exporter cannot be sent")]
    Header {
        /// As configured.
        name: String,
    },
    /// The certificate of the collector cannot be read.
    #[error("certificate {path} of the otlp exporter cannot be read")]
    Certificate {
        /// As configured.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The client cannot be built.
    #[error("client of the otlp exporter cannot be built")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where and how metrics are pushed, with nothing left open.
#[derive(Clone, Debug)]
pub struct Otlp {
    endpoint: Uri,
    protocol: Protocol,
    headers: HeaderMap,
    interval: Duration,
    timeout: Duration,
    compression: Compression,
    /// PEM, where the collector's authority is not one of the system's.
    certificate: Option<Vec<u8>>,
    resource: BTreeMap<String, String>,
}

/// Pushes what a registry counts, until it is told to stop.
pub struct Pusher {
    otlp: Otlp,
    registry: Arc<Registry>,
    /// Whether the last push failed: said once, not for every push.
    failing: bool,
}

enum Client {
    Grpc(MetricsServiceClient<Channel>),
    Http(reqwest::Client),
}

/// Why a push did not arrive.
#[derive(Debug, thiserror::Error)]
enum PushError {
    #[error("collector did not answer in time")]
    Timeout,
    #[error("collector refused the push: {}: {}", .0.code(), .0.message())]
    Grpc(#[from] tonic::Status),
    #[error("collector could not be reached")]
    Http(#[from] reqwest::Error),
    #[error("collector answered {0}")]
    Status(http::StatusCode),
    #[error("collector rejected {points} points: {message}")]
    Rejected { points: i64, message: String },
    #[error(transparent)]
    Compress(#[from] std::io::Error),
}

// === impl OtlpConfig ===

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: None,
            headers: BTreeMap::new(),
            interval: Duration::from_secs(15),
            timeout: Duration::from_secs(10),
            compression: Compression::None,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

// === impl Otlp ===

impl Otlp {
    /// Settles configuration and environment; absent where nothing is to be pushed.
    ///
    /// A variable that cannot be used is said and left out: it may be meant for others in the pod.
    pub fn settle(
        config: &OtlpConfig,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Error> {
        let environment = Environment { variable: &variable };
        if environment.is_off() {
            return Ok(None);
        }
        let protocol = environment.protocol().or(config.protocol);
        let Some(endpoint) = environment
            .endpoint(protocol)
            .or_else(|| Some((config.endpoint.clone()?, Path::Appended)))
        else {
            return Ok(None);
        };
        let (endpoint, protocol) = settle_endpoint(endpoint, protocol, environment.is_insecure())?;
        environment.check_temporality();
        Ok(Some(Self {
            endpoint,
            protocol,
            headers: environment.headers(&config.headers)?,
            interval: environment
                .milliseconds("OTEL_METRIC_EXPORT_INTERVAL")
                .unwrap_or(config.interval)
                .max(Duration::from_secs(1)),
            timeout: environment.otlp("TIMEOUT", milliseconds).unwrap_or(config.timeout),
            compression: environment.otlp("COMPRESSION", compression).unwrap_or(config.compression),
            certificate: environment.certificate()?,
            resource: environment.resource(),
        }))
    }

    fn client(&self) -> Result<Client, Error> {
        match self.protocol {
            Protocol::Grpc => self.grpc_client().map_err(|error| Error::Client(error.into())),
            Protocol::HttpProtobuf => {
                self.http_client().map_err(|error| Error::Client(error.into()))
            }
        }
    }

    fn grpc_client(&self) -> Result<Client, tonic::transport::Error> {
        let mut endpoint = Channel::builder(self.endpoint.clone()).connect_timeout(self.timeout);
        if self.endpoint.scheme_str() == Some("https") {
            let mut tls = ClientTlsConfig::new().with_native_roots();
            if let Some(pem) = &self.certificate {
                tls = tls.ca_certificate(Certificate::from_pem(pem));
            }
            endpoint = endpoint.tls_config(tls)?;
        }
        let client = MetricsServiceClient::new(endpoint.connect_lazy());
        Ok(Client::Grpc(match self.compression {
            Compression::Gzip => client.send_compressed(CompressionEncoding::Gzip),
            Compression::None => client,
        }))
    }

    fn http_client(&self) -> Result<Client, reqwest::Error> {
        // The variables of proxies may lead back to ourselves.
        let mut client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .default_headers(self.headers.clone());
        if let Some(pem) = &self.certificate {
            client = client.tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem)?);
        }
        Ok(Client::Http(client.build()?))
    }
}

// === impl Pusher ===

impl Pusher {
    /// A pusher of what this registry counts.
    pub fn new(otlp: Otlp, registry: Arc<Registry>) -> Self {
        Self { otlp, registry, failing: false }
    }

    /// Pushes at every interval, and once more when it is told to stop, and until when it may.
    pub async fn run(mut self, mut stop: oneshot::Receiver<Instant>) {
        let mut client = match self.otlp.client() {
            Ok(client) => client,
            Err(error) => {
                warn!(error = %causes(&error), "metrics are not pushed");
                _ = stop.await;
                return;
            }
        };
        info!(endpoint = %self.otlp.endpoint, "metrics are pushed");
        let deadline = loop {
            tokio::select! {
                deadline = &mut stop => break deadline,
                () = tokio::time::sleep(self.otlp.interval) => self.push(&mut client).await,
            }
        };
        if let Ok(deadline) = deadline {
            _ = tokio::time::timeout_at(deadline.into(), self.push(&mut client)).await;
        }
    }

    async fn push(&mut self, client: &mut Client) {
        let request = encode(self.registry.snapshot(), &self.otlp.resource);
        let push = client.push(&self.otlp, request);
        let result = tokio::time::timeout(self.otlp.timeout, push).await;
        match result.unwrap_or(Err(PushError::Timeout)) {
            Err(error) if !self.failing => {
                let (endpoint, error) = (&self.otlp.endpoint, causes(&error));
                warn!(%endpoint, %error, "metrics cannot be pushed; they add up until they can");
                self.failing = true;
            }
            Ok(()) if self.failing => {
                info!(endpoint = %self.otlp.endpoint, "metrics are pushed again");
                self.failing = false;
            }
            _ => {}
        }
    }
}

// === impl Client ===

impl Client {
    async fn push(
        &mut self,
        otlp: &Otlp,
        request: ExportMetricsServiceRequest,
    ) -> Result<(), PushError> {
        let answer = match self {
            Self::Grpc(client) => {
                let metadata = MetadataMap::from_headers(otlp.headers.clone());
                let request = tonic::Request::from_parts(metadata, Default::default(), request);
                client.export(request).await?.into_inner()
            }
            Self::Http(client) => post(client, otlp, request.encode_to_vec()).await?,
        };
        match answer.partial_success {
            Some(partial) if partial.rejected_data_points > 0 => Err(PushError::Rejected {
                points: partial.rejected_data_points,
                message: partial.error_message,
            }),
            _ => Ok(()),
        }
    }
}

async fn post(
    client: &reqwest::Client,
    otlp: &Otlp,
    mut body: Vec<u8>,
) -> Result<ExportMetricsServiceResponse, PushError> {
    let mut request = client
        .post(otlp.endpoint.to_string())
        .header(http::header::CONTENT_TYPE, "application/x-protobuf");
    if otlp.compression == Compression::Gzip {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&body)?;
        body = encoder.finish()?;
        request = request.header(http::header::CONTENT_ENCODING, "gzip");
    }
    let mut response = request.body(body).send().await?;
    if !response.status().is_success() {
        return Err(PushError::Status(response.status()));
    }
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if answer.len() + chunk.len() > ANSWER_BYTES {
            break;
        }
        answer.extend_from_slice(&chunk);
    }
    // The push has arrived, whatever the collector says of it.
    Ok(ExportMetricsServiceResponse::decode(&*answer).unwrap_or_default())
}

// === environment ===

/// The variables of the OpenTelemetry specification.
struct Environment<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
}

/// Whether an endpoint is for all signals, so that the path of this one is appended, or complete.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    Appended,
    Complete,
}

impl Environment<'_> {
    /// The specification: an empty variable is an unset one.
    fn get(&self, name: &str) -> Option<String> {
        (self.variable)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn read<T>(&self, name: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.get(name)?;
        let value = read(&text);
        if value.is_none() {
            warn!(variable = name, "variable is not understood and left out");
        }
        value
    }

    /// A variable of the exporter: that of metrics, else that of all signals.
    fn otlp<T>(&self, name: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.read(&format!("OTEL_EXPORTER_OTLP_METRICS_{name}"), &read)
            .or_else(|| self.read(&format!("OTEL_EXPORTER_OTLP_{name}"), &read))
    }

    fn milliseconds(&self, name: &str) -> Option<Duration> {
        self.read(name, milliseconds)
    }

    fn is_off(&self) -> bool {
        self.get("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"))
            || self.get("OTEL_METRICS_EXPORTER").is_some_and(|text| text != "otlp")
    }

    fn is_insecure(&self) -> bool {
        self.otlp("INSECURE", |text| text.to_ascii_lowercase().parse().ok()).unwrap_or(false)
    }

    fn protocol(&self) -> Option<Protocol> {
        self.otlp("PROTOCOL", |text| match text {
            "grpc" => Some(Protocol::Grpc),
            "http/protobuf" => Some(Protocol::HttpProtobuf),
            _ => None,
        })
    }

    fn endpoint(&self, protocol: Option<Protocol>) -> Option<(String, Path)> {
        let readable = |text: &str| {
            let endpoint = (text.to_owned(), Path::Complete);
            settle_endpoint(endpoint, protocol, false).is_ok().then(|| text.to_owned())
        };
        let own = self.read("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", readable);
        own.map(|endpoint| (endpoint, Path::Complete))
            .or_else(|| Some((self.read("OTEL_EXPORTER_OTLP_ENDPOINT", readable)?, Path::Appended)))
    }

    fn headers(&self, configured: &BTreeMap<String, Secret>) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        for (name, Secret(value)) in configured {
            let (key, value) =
                header(name, value).ok_or_else(|| Error::Header { name: name.clone() })?;
            headers.insert(key, value);
        }
        let named = self.otlp("HEADERS", |text| {
            pairs(text).map(|(name, value)| header(name, &value)).collect::<Option<Vec<_>>>()
        });
        headers.extend(named.unwrap_or_default());
        Ok(headers)
    }

    fn certificate(&self) -> Result<Option<Vec<u8>>, Error> {
        let Some(path) = self.otlp("CERTIFICATE", |text| Some(text.to_owned())) else {
            return Ok(None);
        };
        match std::fs::read(&path) {
            Ok(pem) => Ok(Some(pem)),
            Err(source) => Err(Error::Certificate { path, source }),
        }
    }

    /// What tells this process apart from all others whose metrics go to the same place.
    fn resource(&self) -> BTreeMap<String, String> {
        let mut resource = BTreeMap::from([
            ("service.name".to_owned(), "tidegate".to_owned()),
            ("service.version".to_owned(), catalog::VERSION.to_owned()),
            ("service.instance.id".to_owned(), instance()),
        ]);
        if let Some(attributes) = self.get("OTEL_RESOURCE_ATTRIBUTES") {
            resource.extend(pairs(&attributes).map(|(name, value)| (name.to_owned(), value)));
        }
        if let Some(name) = self.get("OTEL_SERVICE_NAME") {
            resource.insert("service.name".to_owned(), name);
        }
        resource
    }

    fn check_temporality(&self) {
        let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        let wanted = self.get(name).unwrap_or_default();
        if !wanted.is_empty() && !wanted.eq_ignore_ascii_case("cumulative") {
            warn!(%wanted, "metrics are pushed as cumulative");
        }
    }
}

/// Which address a push goes to, and how it is carried.
fn settle_endpoint(
    (text, path): (String, Path),
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
    let base = full.trim_end_matches('/').trim_end_matches("/v1/metrics");
    let uri = format!("{base}/v1/metrics").parse();
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

fn milliseconds(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_millis)
}

fn compression(text: &str) -> Option<Compression> {
    match text {
        "gzip" => Some(Compression::Gzip),
        "none" => Some(Compression::None),
        _ => None,
    }
}

/// A random identifier in the form of a UUID, as the conventions ask.
fn instance() -> String {
    let random = rand::random::<u128>() & !(0xf000_c000 << 48) | (0x4000_8000 << 48);
    let digits = format!("{random:032x}");
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

/// An error with what caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

// === encoding ===

fn encode(snapshot: Snapshot, resource: &BTreeMap<String, String>) -> ExportMetricsServiceRequest {
    let times = Times { started: nanoseconds(snapshot.started), now: now() };
    let attributes = resource.iter().map(|(name, value)| attribute(name, value.clone())).collect();
    let metrics = snapshot
        .families
        .into_iter()
        .map(|(family, points)| encode_family(family, points, times))
        .collect();
    let scope = InstrumentationScope {
        name: "tidegate".into(),
        version: catalog::VERSION.into(),
        ..Default::default()
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes, ..Default::default() }),
            scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, ..Default::default() }],
            ..Default::default()
        }],
    }
}

/// When the counters began and when they were read. All begin with the process: each was at zero
/// then, whenever its first call came.
#[derive(Clone, Copy)]
struct Times {
    started: u64,
    now: u64,
}

fn encode_family(family: &Family, points: Vec<Point>, times: Times) -> Metric {
    let temporality = AggregationTemporality::Cumulative.into();
    let points = points.into_iter().map(|point| (attributes(family, point.labels), point.value));
    let data = match family.kind {
        Kind::Counter => metric::Data::Sum(Sum {
            data_points: points.map(|(labels, value)| number(labels, value, times)).collect(),
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
        Kind::Gauge => metric::Data::Gauge(Gauge {
            data_points: points.map(|(labels, value)| number(labels, value, times)).collect(),
        }),
        Kind::Histogram => metric::Data::Histogram(HistogramPoints {
            data_points: points
                .filter_map(|(labels, value)| match value {
                    Value::Histogram(counted) => Some(histogram(labels, &counted, times)),
                    _ => None,
                })
                .collect(),
            aggregation_temporality: temporality,
        }),
    };
    Metric {
        name: family.name.into(),
        description: family.help.into(),
        unit: family.unit.into(),
        data: Some(data),
        ..Default::default()
    }
}

fn number(attributes: Vec<KeyValue>, value: Value, times: Times) -> NumberDataPoint {
    let value = match value {
        Value::Counter(count) => i64::try_from(count).unwrap_or(i64::MAX),
        Value::Gauge(value) => value,
        Value::Histogram(_) => unreachable!("a family has one kind of value"),
    };
    NumberDataPoint {
        attributes,
        start_time_unix_nano: times.started,
        time_unix_nano: times.now,
        value: Some(number_data_point::Value::AsInt(value)),
        ..Default::default()
    }
}

fn histogram(attributes: Vec<KeyValue>, counted: &Histogram, times: Times) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes,
        start_time_unix_nano: times.started,
        time_unix_nano: times.now,
        count: counted.count(),
        sum: Some(counted.sum()),
        bucket_counts: counted.counts().to_vec(),
        explicit_bounds: counted.bounds().to_vec(),
        ..Default::default()
    }
}

/// An empty label is an absent attribute.
fn attributes(family: &Family, values: Vec<String>) -> Vec<KeyValue> {
    family
        .labels
        .iter()
        .zip(values)
        .filter(|(_, value)| !value.is_empty())
        .map(|(label, value)| attribute(label.name, value))
        .collect()
}

fn attribute(name: &str, value: String) -> KeyValue {
    KeyValue {
        key: name.into(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value)) }),
        ..Default::default()
    }
}

fn now() -> u64 {
    nanoseconds(Timestamp::try_from(SystemTime::now()).unwrap_or_default())
}

fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}
