//! Metrics pushed by OTLP, over gRPC or HTTP, and what spans need to go the same way.
//!
//! Off unless an endpoint is given, in the configuration or by the `OTEL_*` variables that a
//! platform sets for all its pods; variables win. A collector that is away costs nothing but the
//! freshness of its numbers: they are cumulative, so the next push that arrives makes up for those
//! that did not.

mod encode;
mod environment;
pub(super) mod protobuf;
mod transport;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;
use rustls::pki_types::pem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::logs::LogsConfig;
use super::metrics::Registry;
use super::spans::TracesConfig;
use crate::scrape::Scrapes;

use self::encode::encode_foreign;
pub(super) use self::encode::{metrics, parts};
pub(super) use self::environment::Environment;
pub(super) use self::transport::{Client, PushError, Signal, Transport, causes};

/// Where metrics are pushed, as configured.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
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
    #[schemars(with = "crate::config::Span")]
    pub interval: Duration,
    /// Time that one push may take.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    #[schemars(with = "crate::config::Span")]
    pub timeout: Duration,
    /// `gzip` or `none`.
    pub compression: Compression,
    /// Which calls become spans, and how these are pushed.
    pub traces: TracesConfig,
    /// Which calls become log events; none by default.
    pub logs: LogsConfig,
}

/// How OTLP is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Protocol {
    /// gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// Protocol buffers in HTTP requests.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// Whether pushes are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// By gzip.
    Gzip,
}

/// Text that is never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
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
        source: pem::Error,
    },
    /// The client cannot be built.
    #[error("client of the otlp exporter cannot be built")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where and how metrics are pushed, with nothing left open.
#[derive(Clone, Debug)]
pub struct Otlp {
    transport: Transport,
    interval: Duration,
    resource: BTreeMap<String, String>,
    /// Whether histograms are asked for by exponential buckets.
    is_exponential: bool,
}

/// Pushes what a registry counts, until it is told to stop.
pub struct Pusher {
    otlp: Otlp,
    registry: Arc<Registry>,
    scrapes: Scrapes,
    /// When the last one was that arrived.
    pushed: Option<Timestamp>,
    /// Whether the last push failed: said once, not for every push.
    failing: bool,
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
            traces: TracesConfig::default(),
            logs: LogsConfig::default(),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
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
        let environment = Environment { variable: &variable, signal: Signal::Metrics };
        let Some(transport) = Transport::settle(config, &environment)? else { return Ok(None) };
        environment.check_temporality();
        Ok(Some(Self {
            transport,
            interval: environment
                .milliseconds("OTEL_METRIC_EXPORT_INTERVAL")
                .unwrap_or(config.interval)
                .max(Duration::from_secs(1)),
            resource: environment.resource(),
            is_exponential: environment.wants_exponential(),
        }))
    }

    /// Whether the environment asks for histograms by exponential buckets.
    pub fn is_exponential(&self) -> bool {
        self.is_exponential
    }
}

// === impl Pusher ===

impl Pusher {
    /// A pusher of what this registry counts.
    pub fn new(otlp: Otlp, registry: Arc<Registry>) -> Self {
        Self { otlp, registry, scrapes: Scrapes::default(), pushed: None, failing: false }
    }

    /// The same, which also pushes what these have read.
    pub(crate) fn with_scrapes(self, scrapes: Scrapes) -> Self {
        Self { scrapes, ..self }
    }

    /// Pushes at every interval, and once more when it is told to stop, and until when it may.
    pub async fn run(mut self, mut stop: oneshot::Receiver<Instant>) {
        let mut client = match self.otlp.transport.connect() {
            Ok(client) => client,
            Err(error) => {
                warn!(error = %causes(&error), "metrics are not pushed");
                _ = stop.await;
                return;
            }
        };
        info!(endpoint = %self.otlp.transport.endpoint, "metrics are pushed");
        let deadline = loop {
            tokio::select! {
                deadline = &mut stop => break deadline,
                () = tokio::time::sleep(self.otlp.interval) => self.push(&mut client).await,
            }
        };
        let Ok(deadline) = deadline else { return };
        let last = self.push(&mut client);
        if tokio::time::timeout_at(deadline.into(), last).await.is_err() {
            warn!(endpoint = %self.otlp.transport.endpoint, "the last metrics were not pushed in time");
        }
    }

    async fn push(&mut self, client: &mut Client) {
        let now = Timestamp::now();
        let parts = parts(self.registry.snapshot(), &self.otlp.resource, self.pushed);
        let parts = parts.map(|part| part.encode_to_vec());
        let pushed = push_all(client, parts, self.otlp.transport.timeout).await;
        if self.has_arrived(&pushed) {
            // A call may have ended before it is counted.
            self.pushed = now.checked_sub(SignedDuration::from_secs(1)).ok();
        }
        // Each by itself: a page that is refused for its length takes nothing else with it.
        for target in self.scrapes.clone().targets() {
            let read = target.take();
            if read.is_empty() {
                continue;
            }
            let request = encode_foreign(read, &target.name, &self.otlp.resource);
            let pushed = push_one(client, request.encode_to_vec()).await;
            if !self.has_arrived(&pushed) {
                target.put_back(metrics(request));
            }
        }
    }

    /// Whether it has; the log says so where that is new.
    fn has_arrived(&mut self, pushed: &Result<(), PushError>) -> bool {
        match pushed {
            Err(error) if !self.failing => {
                let (endpoint, error) = (&self.otlp.transport.endpoint, causes(error));
                warn!(%endpoint, %error, "metrics cannot be pushed; they add up until they can");
                self.failing = true;
            }
            Ok(()) if self.failing => {
                info!(endpoint = %self.otlp.transport.endpoint, "metrics are pushed again");
                self.failing = false;
            }
            _ => {}
        }
        pushed.is_ok()
    }
}

/// Who takes what is pushed.
trait Collector {
    /// Takes one encoded request.
    fn take(&mut self, part: Vec<u8>) -> impl Future<Output = Result<(), PushError>> + Send;
}

impl Collector for Client {
    async fn take(&mut self, part: Vec<u8>) -> Result<(), PushError> {
        push_one(self, part).await
    }
}

/// Pushes one part after the other, all within the time of a push: the first error, if there is one. A
/// part that is refused keeps no other from being pushed.
async fn push_all(
    collector: &mut impl Collector,
    parts: impl Iterator<Item = Vec<u8>>,
    limit: Duration,
) -> Result<(), PushError> {
    let end = tokio::time::Instant::now() + limit;
    let mut result = Ok(());
    for part in parts {
        let pushed = tokio::time::timeout_at(end, collector.take(part)).await;
        let pushed = pushed.unwrap_or(Err(PushError::Timeout));
        let is_away = pushed.as_ref().is_err_and(PushError::is_away);
        result = result.and(pushed);
        if is_away {
            // What is left would fare no better, and comes with the next push.
            break;
        }
    }
    result
}

async fn push_one(client: &mut Client, request: Vec<u8>) -> Result<(), PushError> {
    let answer = client.push(request.into()).await?;
    accepted(&answer)
}

/// The push has arrived; the collector may still have refused some of it. The answers to metrics
/// and to spans are the same message but for its name.
pub(super) fn accepted(answer: &[u8]) -> Result<(), PushError> {
    let answer = ExportMetricsServiceResponse::decode(answer).unwrap_or_default();
    match answer.partial_success {
        Some(partial) if partial.rejected_data_points > 0 => Err(PushError::Rejected {
            rejected: partial.rejected_data_points,
            message: partial.error_message,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::convert::Infallible;
    use std::io::Read;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};
    use hyper::body::{Bytes, Incoming};
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
        MetricsService, MetricsServiceServer,
    };
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, Metric, NumberDataPoint};
    use tidegate_wire::{Outcome, Record};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tonic::codec::CompressionEncoding;
    use tower::Service;

    use super::*;
    use crate::export::metrics::{Value, lock};

    fn settle(variables: &[(&str, &str)], config: &OtlpConfig) -> Result<Option<Otlp>, Error> {
        Otlp::settle(config, |name| {
            let variable = variables.iter().find(|(variable, _)| *variable == name);
            variable.map(|(_, value)| (*value).to_owned())
        })
    }

    fn settled(variables: &[(&str, &str)]) -> Otlp {
        settle(variables, &OtlpConfig::default()).expect("it is valid").expect("it is on")
    }

    fn configured(endpoint: &str) -> OtlpConfig {
        OtlpConfig { endpoint: Some(endpoint.into()), ..OtlpConfig::default() }
    }

    #[test]
    fn nothing_is_pushed_without_an_endpoint_or_where_a_variable_says_so() {
        let (none, config) = (OtlpConfig::default(), configured("http://collector:4317"));
        let off = |variables: &[_], config| settle(variables, config).expect("valid").is_none();
        assert!(off(&[], &none));
        assert!(!off(&[], &config));
        assert!(off(&[("OTEL_SDK_DISABLED", "true")], &config));
        assert!(off(&[("OTEL_METRICS_EXPORTER", "none")], &config));
    }

    #[test]
    fn the_path_of_metrics_follows_an_endpoint_of_all_signals_only() {
        let cases = [
            (("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), "http://c:4318/v1/metrics"),
            (
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/otel/"),
                "http://c:4318/otel/v1/metrics",
            ),
            (("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://c:4318/x"), "http://c:4318/x"),
            (("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"), "http://c:4317/"),
        ];
        for (variable, endpoint) in cases {
            assert_eq!(settled(&[variable]).transport.endpoint, endpoint);
        }
    }

    #[test]
    fn the_variable_of_metrics_wins_over_that_of_all_and_both_over_the_file() {
        let mut config = configured("http://file:4317");
        config.headers.insert("x-from".into(), Secret("file".into()));
        let otlp = settle(
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "all:4317"),
                ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "own:4317"),
                ("OTEL_EXPORTER_OTLP_INSECURE", "True"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "X-From=variable, x-key=a%20b"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
                ("OTEL_METRIC_EXPORT_INTERVAL", ""),
            ],
            &config,
        );
        let otlp = otlp.expect("it is valid").expect("it is on");
        assert_eq!(otlp.transport.endpoint, "http://own:4317/");
        assert_eq!(otlp.transport.protocol, Protocol::Grpc, "what is not understood is left out");
        assert_eq!(otlp.transport.headers["x-from"], "variable");
        assert_eq!(otlp.transport.headers["x-key"], "a b");
        assert_eq!(otlp.transport.timeout, Duration::from_millis(1500));
        assert_eq!(otlp.interval, config.interval);
    }

    #[test]
    fn a_resource_says_who_this_is() {
        let otlp = settled(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,k8s.pod.name=a%2Cb"),
            ("OTEL_SERVICE_NAME", "gate"),
        ]);
        assert_eq!(otlp.resource["service.name"], "gate");
        assert_eq!(otlp.resource["k8s.pod.name"], "a,b");
        let instance = &otlp.resource["service.instance.id"];
        assert_eq!((instance.len(), &instance[14..15]), (36, "4"), "{instance}");
    }

    #[test]
    fn a_secret_is_never_shown() {
        let mut config = configured("http://collector:4317");
        config.headers.insert("authorization".into(), Secret("Bearer hush".into()));
        let otlp = settle(&[], &config).expect("it is valid").expect("it is on");
        assert!(!format!("{config:?} {otlp:?}").contains("hush"));
    }

    #[test]
    fn an_endpoint_that_is_none_is_refused() {
        for endpoint in ["ftp://collector", "http://", "a b"] {
            assert!(settle(&[], &configured(endpoint)).is_err(), "{endpoint}");
        }
    }

    #[test]
    fn a_configuration_reads_as_people_write_it_and_refuses_what_it_does_not_know() {
        let read = serde_saphyr::from_str::<OtlpConfig>;
        let config = read("endpoint: http://c:4317\nprotocol: http/protobuf\ninterval: 1.5s\n");
        let config = config.expect("it is valid");
        assert_eq!(config.protocol, Some(Protocol::HttpProtobuf));
        assert_eq!(config.interval, Duration::from_millis(1500));
        assert_eq!(config.timeout, OtlpConfig::default().timeout);
        assert!(read("endpiont: http://c:4317\n").is_err());
    }

    #[tokio::test]
    async fn a_push_arrives_by_grpc() {
        for compression in [Compression::None, Compression::Gzip] {
            let (listener, address) = listener().await;
            let (got, mut pushes) = mpsc::channel(8);
            tokio::spawn(serve_grpc(listener, got));
            check_push(&address, Protocol::Grpc, compression, &mut pushes).await;
        }
    }

    #[tokio::test]
    async fn a_push_arrives_by_http() {
        for compression in [Compression::None, Compression::Gzip] {
            let (listener, address) = listener().await;
            let (got, mut pushes) = mpsc::channel(8);
            tokio::spawn(serve_http(listener, got));
            check_push(&address, Protocol::HttpProtobuf, compression, &mut pushes).await;
        }
    }

    /// A push that arrived, and the key that came with it.
    type Push = (Option<String>, ExportMetricsServiceRequest);

    async fn check_push(
        endpoint: &str,
        protocol: Protocol,
        compression: Compression,
        pushes: &mut mpsc::Receiver<Push>,
    ) {
        let mut config = configured(endpoint);
        config.protocol = Some(protocol);
        config.compression = compression;
        config.headers.insert("x-key".into(), Secret("hush".into()));
        let otlp = settle(&[], &config).expect("it is valid").expect("it is on");
        let (stop, pushing) = push_in_background(otlp);
        stop.send(Instant::now() + Duration::from_secs(10)).expect("it still runs");
        pushing.await.expect("it ends well");

        let (key, push) = pushes.recv().await.expect("the last push arrives");
        assert_eq!(key.as_deref(), Some("hush"));
        let resource = &push.resource_metrics[0];
        let names = resource.scope_metrics[0].metrics.iter().map(|metric| metric.name.as_str());
        assert!(names.collect::<Vec<_>>().contains(&"tidegate.calls"));
        assert!(resource.resource.is_some());
    }

    fn push_in_background(otlp: Otlp) -> (oneshot::Sender<Instant>, tokio::task::JoinHandle<()>) {
        let registry = Arc::new(Registry::new([], []));
        lock(&registry.shard()).add(&Default::default());
        let (stop, stopping) = oneshot::channel();
        (stop, tokio::spawn(Pusher::new(otlp, registry).run(stopping)))
    }

    #[tokio::test]
    async fn a_collector_that_is_away_holds_nothing_up() {
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
            let (listener, address) = listener().await;
            let mut config = configured(&address);
            config.protocol = Some(protocol);
            let otlp = settle(&[], &config).expect("it is valid").expect("it is on");
            let (stop, pushing) = push_in_background(otlp);
            // It takes the connection and never answers.
            let deadline = Instant::now() + Duration::from_millis(50);
            stop.send(deadline).expect("it still runs");
            pushing.await.expect("it ends well");
            assert!(Instant::now() < deadline + Duration::from_secs(5));
            drop(listener);
        }
    }

    #[tokio::test]
    async fn a_refused_push_is_an_error() {
        let (listener, address) = listener().await;
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("it accepts");
                let refuse = service_fn(|_| async {
                    let refused = Response::builder().status(503).body(Full::<Bytes>::default());
                    Ok::<_, Infallible>(refused.expect("it is valid"))
                });
                let http = hyper::server::conn::http1::Builder::new();
                _ = http.serve_connection(TokioIo::new(stream), refuse).await;
            }
        });
        let otlp = settled(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &address),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ]);
        let mut client = otlp.transport.connect().expect("it builds");
        let error = client.push(Default::default()).await.expect_err("it is refused");
        assert_eq!(causes(&error), "collector answered 503 Service Unavailable");
    }

    /// Models times statuses: more than a collector takes at once.
    fn crowded_registry() -> Registry {
        let registry = Registry::new([], []);
        let shards = [registry.shard(), registry.shard()];
        for (at, status) in (200..205).chain(400..405).cycle().take(2_000).enumerate() {
            let model = format!("{:0>120}", at / 10);
            let record = Record {
                operation: Some("chat".into()),
                provider: Some("a".repeat(100).into()),
                request_model: Some(model),
                route: Some("default".into()),
                upstream: Some("pool".into()),
                stream: Some(status % 2 == 0),
                status: Some(status),
                outcome: Some(if status < 400 { Outcome::Completed } else { Outcome::Failed }),
                duration_s: Some(0.5),
                time_to_first_token_s: Some(0.25),
                time_per_output_token_s: Some(0.05),
                gap_max_s: Some(0.1),
                input_tokens: Some(3),
                output_tokens: Some(5),
                ..Record::default()
            };
            shards.iter().for_each(|shard| lock(shard).add(&record));
        }
        registry
    }

    /// Its metrics in one piece, by their names.
    fn whole(
        parts: impl IntoIterator<Item = ExportMetricsServiceRequest>,
    ) -> BTreeMap<String, Metric> {
        let mut whole = BTreeMap::<_, Metric>::new();
        for metric in parts.into_iter().flat_map(metrics) {
            let Some(whole) = whole.get_mut(&metric.name) else {
                whole.insert(metric.name.clone(), metric);
                continue;
            };
            match (whole.data.as_mut(), metric.data) {
                (Some(Data::Sum(whole)), Some(Data::Sum(part))) => {
                    whole.data_points.extend(part.data_points);
                }
                (Some(Data::Gauge(whole)), Some(Data::Gauge(part))) => {
                    whole.data_points.extend(part.data_points);
                }
                (Some(Data::Histogram(whole)), Some(Data::Histogram(part))) => {
                    whole.data_points.extend(part.data_points);
                }
                (whole, part) => panic!("{whole:?} goes on as {part:?}"),
            }
        }
        whole
    }

    /// nginx takes 1 MiB a request, unless it is told otherwise, with all that is around the points.
    #[test]
    fn a_part_fits_what_a_proxy_before_a_collector_takes() {
        let value = |key: u32| (format!("k8s.pod.label.{key}"), "a".repeat(1_500));
        let resource: BTreeMap<_, _> = (0..64).map(value).collect();
        let sizes: Vec<_> = parts(crowded_registry().snapshot(), &resource, None)
            .map(|part| part.encoded_len())
            .collect();
        assert!(sizes.len() > 3 && sizes.iter().all(|size| *size <= 1 << 20), "{sizes:?}");
    }

    /// It takes 4 MiB a request, as collectors do unless they are told otherwise.
    #[tokio::test]
    async fn what_is_too_much_for_one_request_arrives_in_parts() {
        const LIMIT: usize = 4 << 20;
        let (listener, address) = listener().await;
        let (got, mut pushes) = mpsc::channel(64);
        tokio::spawn(serve_grpc(listener, got));
        let config = OtlpConfig { protocol: Some(Protocol::Grpc), ..configured(&address) };
        let otlp = settle(&[], &config).expect("it is valid").expect("it is on");
        let mut pusher = Pusher::new(otlp, Arc::new(crowded_registry()));
        let mut client = pusher.otlp.transport.connect().expect("it builds");
        pusher.push(&mut client).await;
        assert!(pusher.pushed.is_some() && !pusher.failing, "all has arrived");

        let parts: Vec<_> = std::iter::from_fn(|| pushes.try_recv().ok()).collect();
        let parts: Vec<_> = parts.into_iter().map(|(_, part)| part).collect();
        let sizes: Vec<_> = parts.iter().map(Message::encoded_len).collect();
        assert!(sizes.iter().sum::<usize>() > LIMIT, "{sizes:?} would fit one request");
        assert!(sizes.iter().all(|size| *size <= LIMIT / 2), "{sizes:?}");
        let arrived = whole(parts);
        for (family, points) in pusher.registry.snapshot().families() {
            let (times, count) = match arrived[family.name].data.as_ref().expect("it has data") {
                Data::Sum(sum) => times(&sum.data_points),
                Data::Gauge(gauge) => times(&gauge.data_points),
                Data::Histogram(counted) => {
                    let sum: u64 = counted.data_points.iter().map(|point| point.count).sum();
                    let expected = points.iter().map(|point| match &point.value {
                        Value::Histogram(counted) => counted.count(),
                        other => panic!("{other:?}"),
                    });
                    assert_eq!(sum, expected.sum::<u64>(), "{}", family.name);
                    let time = |point: &HistogramDataPoint| point.time_unix_nano;
                    (counted.data_points.iter().map(time).collect(), counted.data_points.len())
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(count, points.len(), "{}", family.name);
            assert_eq!(times.len(), 1, "{} is of one moment", family.name);
        }
    }

    fn times(points: &[NumberDataPoint]) -> (BTreeSet<u64>, usize) {
        (points.iter().map(|point| point.time_unix_nano).collect(), points.len())
    }

    #[tokio::test]
    async fn a_part_that_is_refused_keeps_no_other_from_arriving() {
        let (listener, address) = listener().await;
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let answer = move |request: Request<Incoming>| {
            let is_second = count.fetch_add(1, Ordering::Relaxed) == 1;
            async move {
                request.into_body().collect().await.expect("it ends");
                let answer = Response::builder().status(if is_second { 400 } else { 200 });
                Ok::<_, Infallible>(answer.body(Full::<Bytes>::default()).expect("it is valid"))
            }
        };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("it accepts");
                let http = hyper::server::conn::http1::Builder::new();
                let service = service_fn(answer.clone());
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        let config = OtlpConfig { protocol: Some(Protocol::HttpProtobuf), ..configured(&address) };
        let otlp = settle(&[], &config).expect("it is valid").expect("it is on");
        let registry = Arc::new(crowded_registry());
        let resource = BTreeMap::new();
        let all = parts(registry.snapshot(), &resource, None).count();
        let mut pusher = Pusher::new(otlp, registry);
        let mut client = pusher.otlp.transport.connect().expect("it builds");
        pusher.push(&mut client).await;
        assert!(all > 3, "{all} parts");
        assert_eq!(asked.swap(0, Ordering::Relaxed), all);
        assert!(pusher.failing && pusher.pushed.is_none(), "one has not arrived");
        asked.store(2, Ordering::Relaxed);
        pusher.push(&mut client).await;
        assert!(!pusher.failing && pusher.pushed.is_some(), "now all have");
    }

    #[tokio::test(start_paused = true)]
    async fn all_parts_together_have_the_time_of_one_push() {
        /// How many parts it was asked to take, each of which takes it 9 s.
        struct Slow(usize);

        impl Collector for Slow {
            async fn take(&mut self, _: Vec<u8>) -> Result<(), PushError> {
                self.0 += 1;
                tokio::time::sleep(Duration::from_secs(9)).await;
                Ok(())
            }
        }

        let (start, mut slow) = (tokio::time::Instant::now(), Slow(0));
        let parts = std::iter::repeat_n(Vec::new(), 3);
        let error =
            push_all(&mut slow, parts, Duration::from_secs(10)).await.expect_err("it is late");
        assert!(matches!(error, PushError::Timeout), "{error:?}");
        assert_eq!(start.elapsed().as_secs(), 10);
        assert_eq!(slow.0, 2, "the second was begun in time, and not waited for");
    }

    async fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        (listener, format!("http://{address}"))
    }

    async fn serve_grpc(listener: TcpListener, got: mpsc::Sender<Push>) {
        struct Taking(mpsc::Sender<Push>);

        #[tonic::async_trait]
        impl MetricsService for Taking {
            async fn export(
                &self,
                request: tonic::Request<ExportMetricsServiceRequest>,
            ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
                let key = request.metadata().get("x-key").and_then(|key| key.to_str().ok());
                let key = key.map(str::to_owned);
                _ = self.0.send((key, request.into_inner())).await;
                Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
            }
        }

        let collector = MetricsServiceServer::new(Taking(got));
        let collector = collector.accept_compressed(CompressionEncoding::Gzip);
        let (stream, _) = listener.accept().await.expect("it accepts");
        let service = service_fn(move |request: Request<Incoming>| {
            let mut collector = collector.clone();
            async move { collector.call(request).await }
        });
        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        _ = http.serve_connection(TokioIo::new(stream), service).await;
    }

    async fn serve_http(listener: TcpListener, got: mpsc::Sender<Push>) {
        let (stream, _) = listener.accept().await.expect("it accepts");
        let service = service_fn(move |request: Request<Incoming>| {
            let got = got.clone();
            async move {
                assert_eq!(request.uri().path(), "/v1/metrics");
                assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                let key = request.headers().get("x-key").and_then(|key| key.to_str().ok());
                let key = key.map(str::to_owned);
                let gzip = request.headers().contains_key("content-encoding");
                let body = request.into_body().collect().await.expect("it ends").to_bytes();
                let mut plain = body.to_vec();
                if gzip {
                    plain.clear();
                    let mut decoder = flate2::read::GzDecoder::new(&body[..]);
                    decoder.read_to_end(&mut plain).expect("it is gzip");
                }
                let push = ExportMetricsServiceRequest::decode(&*plain).expect("it decodes");
                _ = got.send((key, push)).await;
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
            }
        });
        let http = hyper::server::conn::http1::Builder::new();
        _ = http.serve_connection(TokioIo::new(stream), service).await;
    }
}
