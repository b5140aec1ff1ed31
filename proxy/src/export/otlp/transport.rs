//! How what is encoded gets to a collector: gRPC or HTTP, whatever the signal.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig};

use super::environment::{Environment, Path, compression, milliseconds, settle_endpoint};
use super::{Compression, Error, OtlpConfig, Protocol};

/// More of a collector's answer is not read.
const ANSWER_BYTES: usize = 64 << 10;

/// What is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::export) enum Signal {
    /// Metrics.
    Metrics,
    /// Spans.
    Traces,
    /// Log events.
    Logs,
}

/// Where and how one signal is pushed, with nothing left open.
#[derive(Clone, Debug)]
pub(in crate::export) struct Transport {
    signal: Signal,
    pub(in crate::export) endpoint: Uri,
    pub(super) protocol: Protocol,
    pub(super) headers: HeaderMap,
    pub(in crate::export) timeout: Duration,
    compression: Compression,
    /// The collector's authority, where the system does not know it.
    certificates: Vec<CertificateDer<'static>>,
}

/// A connection to a collector, made when it is first needed.
#[derive(Debug)]
pub(in crate::export) struct Client {
    transport: Transport,
    wire: Wire,
}

#[derive(Debug)]
enum Wire {
    Grpc(tonic::client::Grpc<Channel>),
    Http(reqwest::Client),
}

/// Why a push did not arrive.
#[derive(Debug, thiserror::Error)]
pub(in crate::export) enum PushError {
    #[error("collector did not answer in time")]
    Timeout,
    #[error("collector could not be reached")]
    Connect(#[from] tonic::transport::Error),
    #[error("collector refused the push: {}: {}", .0.code(), .0.message())]
    Grpc(#[from] tonic::Status),
    #[error("collector could not be reached")]
    Http(#[from] reqwest::Error),
    #[error("collector answered {0}")]
    Status(http::StatusCode),
    #[error("collector rejected {rejected} of what was pushed: {message}")]
    Rejected { rejected: i64, message: String },
    #[error(transparent)]
    Compress(#[from] std::io::Error),
}

// === impl Signal ===

impl Signal {
    pub(super) const ALL: [Self; 3] = [Self::Metrics, Self::Traces, Self::Logs];

    /// The word in the names of its variables.
    pub(super) fn variable(self) -> &'static str {
        match self {
            Self::Metrics => "METRICS",
            Self::Traces => "TRACES",
            Self::Logs => "LOGS",
        }
    }

    /// Its place below an HTTP endpoint of all signals.
    pub(super) fn http_path(self) -> &'static str {
        match self {
            Self::Metrics => "/v1/metrics",
            Self::Traces => "/v1/traces",
            Self::Logs => "/v1/logs",
        }
    }

    fn grpc_path(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        })
    }
}

// === impl Transport ===

impl Transport {
    /// Settles configuration and environment; absent where this signal is not to be pushed.
    pub(in crate::export) fn settle(
        config: &OtlpConfig,
        environment: &Environment<'_>,
    ) -> Result<Option<Self>, Error> {
        if environment.is_off() {
            return Ok(None);
        }
        let protocol = environment.protocol().or(config.protocol);
        let configured = || Some((config.endpoint.clone()?, Path::Appended));
        let Some(endpoint) = environment.endpoint(protocol).or_else(configured) else {
            return Ok(None);
        };
        let (endpoint, protocol) =
            settle_endpoint(endpoint, environment.signal, protocol, environment.is_insecure())?;
        Ok(Some(Self {
            signal: environment.signal,
            endpoint,
            protocol,
            headers: environment.headers(&config.headers)?,
            timeout: environment.otlp("TIMEOUT", milliseconds).unwrap_or(config.timeout),
            compression: environment.otlp("COMPRESSION", compression).unwrap_or(config.compression),
            certificates: environment.certificates()?,
        }))
    }

    /// A client that connects at its first push.
    pub(in crate::export) fn connect(&self) -> Result<Client, Error> {
        let wire = match self.protocol {
            Protocol::Grpc => self.grpc().map_err(|error| Error::Client(error.into()))?,
            Protocol::HttpProtobuf => self.http().map_err(|error| Error::Client(error.into()))?,
        };
        Ok(Client { transport: self.clone(), wire })
    }

    fn grpc(&self) -> Result<Wire, tonic::transport::Error> {
        let mut endpoint = Channel::builder(self.endpoint.clone()).connect_timeout(self.timeout);
        if self.is_tls() {
            let tls = ClientTlsConfig::new().trust_anchors(self.authorities().roots);
            endpoint = endpoint.tls_config(tls)?;
        }
        let client = tonic::client::Grpc::new(endpoint.connect_lazy());
        Ok(Wire::Grpc(match self.compression {
            Compression::Gzip => client.send_compressed(CompressionEncoding::Gzip),
            Compression::None => client,
        }))
    }

    fn http(&self) -> Result<Wire, reqwest::Error> {
        let authorities = if self.is_tls() { self.authorities() } else { RootCertStore::empty() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring speaks the default versions")
            .with_root_certificates(authorities)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            // The variables of proxies may lead back to ourselves.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .default_headers(self.headers.clone())
            .tls_backend_preconfigured(tls)
            .build()?;
        Ok(Wire::Http(client))
    }

    fn is_tls(&self) -> bool {
        self.endpoint.scheme_str() == Some("https")
    }

    /// Who may vouch for a collector: the authorities of the system, or in an image that has none,
    /// those that browsers trust; and the one that was named.
    fn authorities(&self) -> RootCertStore {
        let mut authorities = RootCertStore::empty();
        authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if authorities.is_empty() {
            authorities.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        authorities.add_parsable_certificates(self.certificates.iter().cloned());
        authorities
    }
}

// === impl Client ===

impl Client {
    /// Pushes one encoded request, within its time; the encoded answer.
    pub(in crate::export) async fn push(&mut self, request: Bytes) -> Result<Bytes, PushError> {
        let limit = self.transport.timeout;
        let push = async {
            match &mut self.wire {
                Wire::Grpc(client) => call(client, &self.transport, request).await,
                Wire::Http(client) => post(client, &self.transport, request).await,
            }
        };
        tokio::time::timeout(limit, push).await.unwrap_or(Err(PushError::Timeout))
    }
}

async fn call(
    client: &mut tonic::client::Grpc<Channel>,
    transport: &Transport,
    request: Bytes,
) -> Result<Bytes, PushError> {
    client.ready().await?;
    let metadata = MetadataMap::from_headers(transport.headers.clone());
    let request = tonic::Request::from_parts(metadata, Default::default(), request);
    Ok(client.unary(request, transport.signal.grpc_path(), Encoded).await?.into_inner())
}

async fn post(
    client: &reqwest::Client,
    transport: &Transport,
    mut body: Bytes,
) -> Result<Bytes, PushError> {
    let mut request = client
        .post(transport.endpoint.to_string())
        .header(http::header::CONTENT_TYPE, "application/x-protobuf");
    if transport.compression == Compression::Gzip {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&body)?;
        body = encoder.finish()?.into();
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
    Ok(answer.into())
}

// === impl PushError ===

impl PushError {
    /// Whether there was no collector to be heard.
    pub(super) fn is_away(&self) -> bool {
        matches!(self, Self::Timeout | Self::Connect(_) | Self::Http(_))
    }

    /// Whether the same push may arrive a moment later, as the specification of OTLP says.
    pub(in crate::export) fn is_passing(&self) -> bool {
        use tonic::Code;

        match self {
            Self::Connect(_) | Self::Http(_) => true,
            Self::Grpc(status) => matches!(
                status.code(),
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Aborted
                    | Code::OutOfRange
                    | Code::Unavailable
                    | Code::DataLoss
            ),
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            Self::Timeout | Self::Rejected { .. } | Self::Compress(_) => false,
        }
    }
}

/// An error with what caused it.
pub(in crate::export) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Messages that are encoded already.
#[derive(Clone, Copy, Debug)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}
