//! One call: sent by our own client, read piece by piece, timed from when it was due.

use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use jiff::Timestamp;
use tidegate_wire::content::{self, Spoken};
use tidegate_wire::{Ending, ErrorOrigin, HeadView, Id, Observer, Prices, Record, Shape};
use tokio::time::Instant;

use crate::signing::Signer;
use crate::workload::{Answer, Request};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may be silent. There is no limit on the whole: long answers are the point.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// Bytes of answers that are kept at a time, of all calls that are part of a conversation.
const ANSWERS: usize = 256 << 20;

/// Where the calls go: scheme, host, port and perhaps a prefix of the path.
#[derive(Clone, Debug)]
pub struct Target {
    url: reqwest::Url,
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
    /// The times between tokens.
    pub(crate) gaps: Vec<Duration>,
    /// What was answered, where somebody goes on from it.
    pub(crate) answer: Option<Answer>,
}

/// Sends calls to one target.
pub(crate) struct Client {
    http: reqwest::Client,
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
    ) -> Result<Self, reqwest::Error> {
        // Whoever embeds us may have installed a provider already; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("tidegate-load/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .tcp_nodelay(true)
            // A connection of HTTP/2 carries about a hundred calls; the next one would wait inside
            // the client, and the model be blamed for it.
            .http1_only()
            // The observer reads what was sent, not what a client made of it.
            .no_gzip()
            .no_brotli()
            .no_deflate()
            .no_zstd()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        let host = target.url.host_str().map(Arc::from);
        let answers = content::Budget::new(ANSWERS);
        Ok(Self { http, target, host, signer, prices, answers })
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
        let built = self
            .http
            .request(request.method, self.target.url_of(&request.path))
            .headers(request.headers)
            .header("traceparent", call.traceparent())
            // A sidecar tells by this that the call is of a load test.
            .header("tracestate", "tidegate=load")
            .body(request.body)
            .build();
        let mut request = match built {
            Ok(request) => request,
            Err(error) => return call.no_answer(&error),
        };
        if let Some(signer) = &self.signer {
            if let Err(error) = signer.sign(&mut request).await {
                return call.unsigned(&error);
            }
            // What signing takes is our own lateness, not the model's.
            call.sent = Instant::now();
        }
        let mut response = match self.http.execute(request).await {
            Ok(response) => response,
            Err(error) => return call.no_answer(&error),
        };
        call.head(&response);
        if let Some(signer) = &self.signer {
            signer.answered(&response);
        }
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) => call.chunk(&bytes),
                Ok(None) => return Ending::Clean,
                Err(error) => return call.broken(&error),
            }
        }
    }
}

/// A call under way.
struct Call {
    due: Instant,
    sent: Instant,
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

    fn url_of(&self, path: &str) -> String {
        format!("{}{path}", self.as_str())
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
        let url: reqwest::Url = text.parse().map_err(|_| invalid())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidTarget::Credential);
        }
        let usable = matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none();
        if usable { Ok(Self { url }) } else { Err(invalid()) }
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
        Self { due, sent, observer, record, received: 0, spoken }
    }

    /// A trace of its own for each call: by it, a record of the sidecar finds ours.
    fn traceparent(&self) -> HeaderValue {
        let Record { trace_id, span_id, .. } = &self.record;
        HeaderValue::try_from(format!("00-{trace_id}-{span_id}-01"))
            .expect("hexadecimal digits and hyphens stand in any header")
    }

    fn head(&mut self, response: &reqwest::Response) {
        self.observer.head(response.status().as_u16(), response.headers(), self.due.elapsed());
        self.record.status = Some(response.status().as_u16());
        if let Some(spoken) = &mut self.spoken {
            spoken.head(response.headers());
        }
    }

    fn chunk(&mut self, bytes: &[u8]) {
        self.observer.chunk(bytes, self.due.elapsed());
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

    fn broken(&mut self, error: &reqwest::Error) -> Ending {
        if error.is_timeout() {
            self.record.error_type = Some("timeout".to_owned());
        }
        Ending::Broken
    }

    fn no_answer(&mut self, error: &reqwest::Error) -> Ending {
        let kind = match error {
            _ if error.is_connect() => "connect",
            _ if error.is_timeout() => "timeout",
            _ => "no_answer",
        };
        self.record.error_type = Some(kind.to_owned());
        Ending::NoAnswer
    }

    fn close(self, ending: Ending, prices: &Prices) -> Sample {
        let Self { due, sent, observer, mut record, received, spoken } = self;
        let ended = due.elapsed();
        let gaps = observer.token_gaps().collect();
        observer.finish(ending, ended, &mut record);
        record.response_bytes = Some(received);
        prices.apply(&mut record);
        let answer = spoken.map(|spoken| answer(spoken, &record));
        Sample { record, send_lag: sent - due, gaps, answer }
    }
}
