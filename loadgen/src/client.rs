//! One call: sent by our own client, read piece by piece, timed from when it was due.

mod arrival;
mod connection;
mod dial;

use std::error::Error;
use std::future::Future;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, HeaderValue, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode, Uri};
use http_body_util::Full;
use jiff::Timestamp;
use reqwest::Url;
use tidegate_wire::content::{self, Spoken};
use tidegate_wire::{Ending, ErrorOrigin, HeadView, Id, Observer, Prices, Record, Shape};
use tokio::time::{Instant, timeout};

use crate::client::connection::{Connections, Unanswered};
use crate::client::dial::Dialer;
use crate::signing::Signer;
use crate::workload::{Answer, Request};

/// How long an answer may be silent. There is no limit on the whole: long answers are the point.
const LONGEST_SILENCE: Duration = Duration::from_secs(300);

/// Who we say we are, where a call does not say it itself.
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("tidegate-load/", env!("CARGO_PKG_VERSION")));

/// Bytes of answers that are kept at a time, of all calls that are part of a conversation.
const ANSWERS: usize = 256 << 20;

/// Where the calls go: scheme, host, port and perhaps a prefix of the path.
#[derive(Clone, Debug)]
pub struct Target {
    url: Url,
    /// Host and port, as requests name them.
    authority: HeaderValue,
}

/// The text names no target.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTarget {
    /// It is no such URL.
    #[error("`{0}` is no target; write a URL such as http://127.0.0.1:4100")]
    Malformed(String),
    /// Reports show the target, so there must be nothing in it that they may not show. Nor does this.
    #[error(
        "a target must not hold a user or a password; leave out what stands before the `@`, and sign calls with --credential FILE"
    )]
    Credential,
}

/// What is known of a call once it is over.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// The call as the wire showed it; all its times count from when it was due.
    pub(crate) record: Record,
    /// How long after it was due the call was sent.
    pub(crate) send_lag: Duration,
    /// The longest that anything of a whole answer lay here unread; absent where no kernel tells.
    pub(crate) read_lag: Option<Duration>,
    /// The times between tokens.
    pub(crate) gaps: Vec<Duration>,
    /// What was answered, where somebody goes on from it.
    pub(crate) answer: Option<Answer>,
}

/// Sends calls to one target.
pub(crate) struct Client {
    connections: Connections,
    target: Target,
    host: Option<Arc<str>>,
    signer: Option<Signer>,
    prices: Arc<Prices>,
    /// What answers may take that are kept, to go on from them.
    answers: content::Budget,
}

impl Client {
    /// A client with as many connections as there are calls at once.
    pub(crate) fn new(
        target: Target,
        signer: Option<Signer>,
        prices: Arc<Prices>,
    ) -> io::Result<Self> {
        let connections = Connections::new(Dialer::new(&target.url)?);
        let host = target.url.host_str().map(Arc::from);
        let answers = content::Budget::new(ANSWERS);
        Ok(Self { connections, target, host, signer, prices, answers })
    }

    /// Waits until calls can be signed, where they are to be.
    pub(crate) async fn ready(&self) -> Result<(), tidegate_credential::Error> {
        match &self.signer {
            Some(signer) => signer.ready().await,
            None => Ok(()),
        }
    }

    /// Makes a call that was due at `due`, unless it is cut short.
    pub(crate) async fn call(
        &self,
        request: Request,
        due: Instant,
        cut: impl Future<Output = ()>,
    ) -> Sample {
        let sent = Instant::now();
        let mut call = Call::open(self, &request, due, sent);
        let ending = tokio::select! {
            ending = self.exchange(request, &mut call) => ending,
            () = cut => Ending::CallerLeft,
        };
        call.close(ending, &self.prices)
    }

    async fn exchange(&self, request: Request, call: &mut Call) -> Ending {
        let Ok(mut request) = self.written(request, call) else {
            return call.no_answer("no_answer");
        };
        if let Some(signer) = &self.signer {
            if let Err(error) = signer.sign(&mut request, self.target.url.scheme()).await {
                return call.unsigned(&error);
            }
            // What signing takes is our own lateness, not the model's.
            call.sent = Instant::now();
        }
        let request = request.map(Full::new);
        let (mut connection, response) =
            match timeout(LONGEST_SILENCE, self.connections.ask(request)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => return call.unanswered(&error),
                Err(_) => return call.no_answer("timeout"),
            };
        let (head, mut body) = response.into_parts();
        call.head(head.status, &head.headers, connection.arrived());
        if let Some(signer) = &self.signer {
            signer.answered(head.status, &head.headers);
        }
        loop {
            match timeout(LONGEST_SILENCE, connection.chunk(&mut body)).await {
                Ok(Some(Ok(bytes))) => call.chunk(&bytes, connection.arrived()),
                Ok(Some(Err(error))) => return call.broken(&error),
                Ok(None) => {
                    call.ended = Some(connection.arrived());
                    call.read_lag = connection.longest_unread();
                    self.connections.give_back(connection).await;
                    return Ending::Clean;
                }
                Err(_) => return call.silent(),
            }
        }
    }

    /// A request as it goes onto the wire, but for its signature.
    fn written(&self, request: Request, call: &Call) -> Result<http::Request<Bytes>, http::Error> {
        let mut written = http::Request::new(request.body);
        *written.method_mut() = request.method;
        *written.uri_mut() = Uri::from(self.target.path_of(&request.path)?);
        let headers = written.headers_mut();
        *headers = request.headers;
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        headers.entry(USER_AGENT).or_insert(AGENT);
        headers.insert(HOST, self.target.authority.clone());
        headers.insert("traceparent", call.traceparent());
        // A sidecar tells by this that the call is of a load test.
        headers.insert("tracestate", HeaderValue::from_static("tidegate=load"));
        Ok(written)
    }
}

/// A call under way.
struct Call {
    due: Instant,
    sent: Instant,
    /// When the last of a whole answer arrived.
    ended: Option<Instant>,
    read_lag: Option<Duration>,
    observer: Observer,
    record: Record,
    received: u64,
    spoken: Option<Spoken>,
}

/// What kind of call a request is, as its head says.
pub(crate) fn shape(request: &Request, host: Option<&str>) -> Shape {
    let (path, query) = match request.path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*request.path, None),
    };
    let method = request.method.as_str();
    Shape::read(&HeadView { method, host, path, query, headers: &request.headers })
}

/// What a model said, without what it thought.
fn answer(spoken: Spoken, record: &Record) -> Answer {
    let (text, is_whole) = spoken.finish();
    let thought = record.reasoning_tokens.unwrap_or(0);
    let tokens = record.output_tokens.map(|tokens| tokens.saturating_sub(thought));
    Answer { text, tokens, is_whole }
}

// === impl Target ===

impl Target {
    /// The address as it was given, without a slash at its end.
    pub fn as_str(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// The host, without a port.
    pub(crate) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// A path below that of the target, with its query: as it is, and percent-encoded where that is no
    /// path on the wire.
    fn path_of(&self, path: &str) -> Result<PathAndQuery, http::uri::InvalidUri> {
        let whole = match self.url.path().trim_end_matches('/') {
            "" => PathAndQuery::try_from(path),
            prefix => PathAndQuery::try_from(format!("{prefix}{path}")),
        };
        whole.or_else(|error| {
            let url: Url = format!("{}{path}", self.as_str()).parse().map_err(|_| error)?;
            match url.query() {
                Some(query) => PathAndQuery::try_from(format!("{}?{query}", url.path())),
                None => PathAndQuery::try_from(url.path()),
            }
        })
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        // What does not read as a URL may hold a password all the same.
        let invalid = || match text.contains('@') {
            true => InvalidTarget::Credential,
            false => InvalidTarget::Malformed(text.to_owned()),
        };
        let url: Url = text.parse().map_err(|_| invalid())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidTarget::Credential);
        }
        let usable = matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none();
        if !usable {
            return Err(invalid());
        }
        let host = url.host_str().unwrap_or_default();
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}").try_into(),
            None => host.try_into(),
        };
        Ok(Self { authority: authority.map_err(|_| invalid())?, url })
    }
}

// === impl Call ===

impl Call {
    fn open(client: &Client, request: &Request, due: Instant, sent: Instant) -> Self {
        let mut observer = Observer::new(shape(request, client.host.as_deref()));
        observer.keep_token_times();
        observer.request(&request.body);
        let path = request.path.split('?').next().unwrap_or_default();
        let is_kept = request.then.is_some();
        let spoken = is_kept.then(|| Spoken::of(path, &client.answers)).flatten();
        let record = Record {
            time: Timestamp::now() - (sent - due),
            trace_id: Id(rand::random()),
            span_id: Id(rand::random()),
            server_address: client.host.clone(),
            server_port: client.target.url.port_or_known_default(),
            method: Some(request.method.as_str().into()),
            path: Some(path.to_owned()),
            request_bytes: Some(request.body.len() as u64),
            ..Record::default()
        };
        Self { due, sent, ended: None, read_lag: None, observer, record, received: 0, spoken }
    }

    /// A trace of its own for each call: by it, a record of the sidecar finds ours.
    fn traceparent(&self) -> HeaderValue {
        let Record { trace_id, span_id, .. } = &self.record;
        HeaderValue::try_from(format!("00-{trace_id}-{span_id}-01"))
            .expect("hexadecimal digits and hyphens stand in any header")
    }

    fn head(&mut self, status: StatusCode, headers: &HeaderMap, arrived: Instant) {
        self.observer.head(status.as_u16(), headers, arrived - self.due);
        self.record.status = Some(status.as_u16());
        if let Some(spoken) = &mut self.spoken {
            spoken.head(headers);
        }
    }

    fn chunk(&mut self, bytes: &[u8], arrived: Instant) {
        self.observer.chunk(bytes, arrived - self.due);
        self.received += bytes.len() as u64;
        if let Some(spoken) = &mut self.spoken {
            spoken.response(bytes);
        }
    }

    fn unsigned(&mut self, error: &tidegate_credential::Error) -> Ending {
        self.record.error_type = Some(error.kind().to_owned());
        self.record.error_origin = Some(ErrorOrigin::Sidecar);
        Ending::NoAnswer
    }

    fn broken(&mut self, error: &hyper::Error) -> Ending {
        tracing::debug!(error = error as &dyn Error, "an answer broke off");
        Ending::Broken
    }

    fn silent(&mut self) -> Ending {
        self.record.error_type = Some("timeout".to_owned());
        Ending::Broken
    }

    fn unanswered(&mut self, error: &Unanswered) -> Ending {
        tracing::debug!(error = error as &dyn Error, "a call came to nothing");
        match error {
            Unanswered::Unconnected(_) => self.no_answer("connect"),
            Unanswered::Failed(_) => self.no_answer("no_answer"),
        }
    }

    fn no_answer(&mut self, kind: &str) -> Ending {
        self.record.error_type = Some(kind.to_owned());
        Ending::NoAnswer
    }

    fn close(self, ending: Ending, prices: &Prices) -> Sample {
        let Self { due, sent, ended, read_lag, observer, mut record, received, spoken } = self;
        let ended = ended.unwrap_or_else(Instant::now) - due;
        let gaps = observer.token_gaps().collect();
        observer.finish(ending, ended, &mut record);
        record.response_bytes = Some(received);
        prices.apply(&mut record);
        let answer = spoken.map(|spoken| answer(spoken, &record));
        Sample { record, send_lag: sent - due, read_lag, gaps, answer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_onto_the_wire_as_they_are_and_below_that_of_the_target() {
        for (target, path, whole) in [
            ("http://a", "/v1/messages?beta=true", "/v1/messages?beta=true"),
            ("http://a/", "/x/../y//z%2F{id}", "/x/../y//z%2F{id}"),
            ("http://a:81/up/", "/v1?a=b|c", "/up/v1?a=b|c"),
            ("https://a/up", "/a b<ä>?q=<1>", "/up/a%20b%3C%C3%A4%3E?q=%3C1%3E"),
        ] {
            let target: Target = target.parse().expect("a target");
            let path = target.path_of(path).expect("a path");
            assert_eq!(path.as_str(), whole);
        }
    }

    #[test]
    fn requests_name_host_and_port_as_the_target_does() {
        for (target, authority) in [
            ("http://127.0.0.1:4100", "127.0.0.1:4100"),
            ("https://api.example.com:443/v1", "api.example.com"),
            ("http://[::1]:80", "[::1]"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            let target: Target = target.parse().expect("a target");
            assert_eq!(target.authority, authority);
        }
    }
}
