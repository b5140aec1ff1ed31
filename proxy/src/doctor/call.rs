//! The call that costs nothing: signed as the sidecar signs, on the connection that was found.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidegate_credential::{Request, Secret, Signed};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use super::answer::judge;
use super::credential::Own;
use super::plan::{Clues, Plan, Probe, plan};
use super::reach::{Connection, reach_again};
use super::{Hop, Progress, Status, Target};
use crate::http1::conn::Stream;
use crate::upstream::Origin;

/// As much of an answer as is read.
const MAX_BODY: usize = 4 << 20;

/// Calls the servers of one upstream.
pub(super) struct Caller {
    pub(super) upstream: Arc<str>,
    pub(super) credential: Own,
    pub(super) project: Option<String>,
    pub(super) clues: Clues,
    pub(super) limit: Duration,
    pub(super) progress: Progress,
}

/// What a server answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// What was sent, which is not told if it comes back.
    pub(super) secrets: Vec<Secret>,
}

/// Why there is no answer.
enum Failure {
    Unsigned(tidegate_credential::Error),
    Unspoken(hyper::Error),
    Unwritable,
}

impl Caller {
    pub(super) async fn call(&self, target: &Target, connection: Option<Connection>) -> Hop {
        let hop = |status, finding: &str| {
            Hop::new("call", target.label.clone(), status, finding.to_owned())
        };
        let Some(connection) = connection else {
            return hop(Status::Skipped, "there is no connection to call on");
        };
        if matches!(self.credential, Own::Missing) {
            return hop(Status::Skipped, "there is no credential to call with");
        }
        let location = target.location.as_deref();
        let planned =
            plan(&target.origin, location, &self.credential, self.project.as_deref(), &self.clues);
        let plan = match planned {
            Ok(plan) => plan,
            Err(reason) => return hop(Status::Skipped, &reason),
        };
        let _waiting = self.progress.begin(format!("{}: call", self.upstream));
        let start = Instant::now();
        match timeout(self.limit, self.first_known(target, connection, &plan)).await {
            Ok(hop) => hop.taking(start.elapsed()),
            Err(_) => {
                let text = format!("{}: no answer in time", asked(&plan.probes[0]));
                hop(Status::Failed, &text)
                    .advising("the server takes connections but does not answer: see its load and its logs")
                    .taking(start.elapsed())
            }
        }
    }

    /// The first call whose path the server knows.
    async fn first_known(&self, target: &Target, connection: Connection, plan: &Plan) -> Hop {
        let mut connection = Some(connection);
        let mut first = None;
        for probe in &plan.probes {
            let connection = match connection.take() {
                Some(connection) => connection,
                None => match reach_again(target, self.limit).await {
                    Some(connection) => connection,
                    None => break,
                },
            };
            let hop = match self.send(&target.origin, connection, probe).await {
                Ok(answer) => {
                    let is_unknown = matches!(answer.status.as_u16(), 404 | 405 | 501);
                    let (status, text, advice) = judge(
                        &answer,
                        probe,
                        plan.interface,
                        &target.origin,
                        &self.credential,
                        &self.clues,
                    );
                    let text = format!("{}: {text}", asked(probe));
                    let hop = Hop::new("call", target.label.clone(), status, text);
                    let hop = Hop { advice, ..hop };
                    if !is_unknown {
                        return hop;
                    }
                    hop
                }
                Err(failure) => return self.failed(target, probe, &failure),
            };
            // Of paths that nobody knows the first was the likeliest.
            first.get_or_insert(hop);
        }
        first.unwrap_or_else(|| {
            Hop::new("call", target.label.clone(), Status::Skipped, "there is nothing to call")
        })
    }

    fn failed(&self, target: &Target, probe: &Probe, failure: &Failure) -> Hop {
        let (text, advice) = match failure {
            Failure::Unsigned(error) => {
                (format!("it cannot be signed: {}", error.for_caller()), "see the credential above")
            }
            Failure::Unwritable => {
                ("it cannot be written as HTTP".to_owned(), "see the path of `url`")
            }
            Failure::Unspoken(error) if error.is_parse() => (
                "what answers is not HTTP".to_owned(),
                "see scheme and port of `url`: a port for TLS wants https://",
            ),
            Failure::Unspoken(_) => (
                "the connection was closed without an answer".to_owned(),
                if target.origin.tls {
                    "see the server's logs, and whatever stands before it"
                } else {
                    "see scheme and port of `url`: a port for TLS wants https://, and `http2: true` wants a server that speaks it"
                },
            ),
        };
        Hop::new("call", target.label.clone(), Status::Failed, format!("{}: {text}", asked(probe)))
            .advising(advice)
    }

    async fn send(
        &self,
        origin: &Origin,
        connection: Connection,
        probe: &Probe,
    ) -> Result<Answer, Failure> {
        let signed = self.sign(origin, probe).await.map_err(Failure::Unsigned)?;
        let request = request(origin, probe, &signed, connection.http2);
        let request = request.map_err(|_| Failure::Unwritable)?;
        let exchanged = match connection.stream {
            Stream::Tcp(tcp) => exchange(tcp, connection.http2, request).await,
            Stream::Tls(tls) => exchange(*tls, connection.http2, request).await,
        };
        let (status, headers, body) = exchanged.map_err(Failure::Unspoken)?;
        let secrets = signed.headers.into_iter().map(|(_, value)| value).collect();
        Ok(Answer { status, headers, body, secrets })
    }

    async fn sign(
        &self,
        origin: &Origin,
        probe: &Probe,
    ) -> Result<Signed, tidegate_credential::Error> {
        let Own::Some { credential, .. } = &self.credential else { return Ok(Signed::default()) };
        let host = std::str::from_utf8(&origin.authority).unwrap_or_default();
        let request = Request {
            method: probe.method,
            scheme: if origin.tls { "https" } else { "http" },
            host,
            path_and_query: &probe.path,
            headers: probe.headers,
            body: probe.body.as_bytes(),
        };
        credential.sign(&request).await
    }
}

/// `GET /v1/models`
fn asked(probe: &Probe) -> String {
    format!("{} {}", probe.method, probe.path)
}

fn request(
    origin: &Origin,
    probe: &Probe,
    signed: &Signed,
    http2: bool,
) -> Result<http::Request<Full<Bytes>>, http::Error> {
    let authority = String::from_utf8_lossy(&origin.authority);
    let scheme = if origin.tls { "https" } else { "http" };
    let mut request = match http2 {
        true => http::Request::builder().uri(format!("{scheme}://{authority}{}", probe.path)),
        false => http::Request::builder().uri(&*probe.path).header("host", &*authority),
    };
    request = request
        .method(probe.method)
        .header("user-agent", concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .header("accept", "application/json, */*");
    for (name, value) in probe.headers {
        request = request.header(*name, *value);
    }
    for (name, value) in &signed.headers {
        request = request.header(name, value.expose());
    }
    request.body(Full::new(Bytes::from(probe.body.clone())))
}

type Exchanged = (StatusCode, HeaderMap, Bytes);

async fn exchange(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    is_http2: bool,
    request: http::Request<Full<Bytes>>,
) -> Result<Exchanged, hyper::Error> {
    let io = TokioIo::new(io);
    let response = match is_http2 {
        true => {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        }
        false => {
            let (mut sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        }
    };
    let (head, mut incoming) = response.into_parts();
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        if let Ok(data) = frame?.into_data() {
            body.extend_from_slice(&data[..data.len().min(MAX_BODY - body.len())]);
        }
        if body.len() == MAX_BODY {
            break;
        }
    }
    Ok((head.status, head.headers, body.freeze()))
}
