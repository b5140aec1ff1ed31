//! The door for people and machines that watch: metrics, health, and what else is there.
//!
//! It listens on loopback, where any page in a browser could reach it under a name of its own
//! choice (DNS rebinding): a request must name the host by address, as `localhost`, or by a name
//! that the configuration gives. The health address is meant for the network and shows nothing
//! that needs this. What is changed here, and not only shown, needs a token besides.

mod history;
mod live;
mod metrics;
mod page;
mod switch;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

use crate::clients;
use crate::export::history::History;
use crate::export::metrics::Registry;
use crate::export::recent::Recent;
use crate::generation::Generation;
use crate::query::Query;
use crate::states::{self, Ask};

pub(crate) use switch::place as token_place;

/// Connections at once, on each address.
const CONNECTIONS: usize = 64;
/// How long a request head may take, or the pause before the next one.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may last, however slowly its answers are read.
const CONNECTION: Duration = Duration::from_secs(300);
/// How long to pause when a connection cannot be accepted: mostly, descriptors are out.
const PAUSE: Duration = Duration::from_millis(100);

const INDEX: &str = "\
tidegate

/metrics   metrics, for Prometheus
/livez     200 while the process lives
/readyz    200 while calls are welcome
/config    the configuration in use, without secrets
/policies  the state of every policy
/env       what an application sets so that its calls come here; ?for=openai, ?way=proxy
/bypass    whether policies act; POST with the admin token switches it: /bypass?on=true
/quotas    what of the quotas is used, as a table
/recent    what calls came to, and P50, P90, P99; ?window=5m&by=model,route
/calls     calls of the last hour that failed, and the slowest
/tail      calls as they end, one line of JSON each; ?load_test=true&model=gemini-*
/live      what the page for browsers shows, which is at / for them
/usage     what calls came to, out of the history: ?by=model,caller&since=24h
/spend     what was spent since the month began, its forecast, its budget
/baseline  which models are out of the ordinary, by the history
";

/// What administration shows.
#[derive(Clone, Debug)]
pub struct Admin {
    metrics: metrics::Metrics,
    readiness: Readiness,
    hosts: Arc<[String]>,
    /// Absent where nothing is served but metrics and health.
    inside: Option<Arc<Inside>>,
    /// Absent where none is kept.
    history: Option<history::Asked>,
}

/// Where to ask for the configuration and for the state of policies.
#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) generations: watch::Receiver<Arc<Generation>>,
    pub(crate) workers: Vec<Ask>,
    /// The last hour, where it is kept.
    pub(crate) recent: Option<Arc<Recent>>,
    pub(crate) registry: Arc<Registry>,
}

/// What is shown, whole or for as long as somebody reads.
type Shown = UnsyncBoxBody<Bytes, Infallible>;

/// What a path shows.
enum Page {
    Ready(Response<Full<Bytes>>),
    /// The metrics, of which few are read at once.
    Metrics(metrics::Question),
    /// The state of policies, which the workers must be asked for.
    Policies(Arc<Inside>),
    /// Something is to be switched.
    Switch(Arc<Inside>, Request<Incoming>),
    /// The history, which takes a while to read.
    History(history::Question),
    /// Calls as they end.
    Tail(Response<Shown>),
}

/// Whether calls are welcome; shared by all who know or ask.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU8>);

/// How much an address shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Surface {
    Admin,
    Health,
}

// === impl Readiness ===

impl Readiness {
    const STARTING: u8 = 0;
    const READY: u8 = 1;
    const DRAINING: u8 = 2;

    /// From now on calls are welcome, unless it drains already.
    pub fn ready(&self) {
        let (old, new) = (Self::STARTING, Self::READY);
        _ = self.0.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire);
    }

    /// From now on calls had better go elsewhere. There is no way back.
    pub fn drain(&self) {
        self.0.store(Self::DRAINING, Ordering::Release);
    }

    /// Why calls are not welcome, if so.
    pub fn reason(&self) -> Option<&'static str> {
        match self.0.load(Ordering::Acquire) {
            Self::STARTING => Some("starting"),
            Self::READY => None,
            _ => Some("draining"),
        }
    }
}

// === impl Admin ===

impl Admin {
    /// Shows this registry and this readiness, to who names one of these hosts too.
    pub fn new(registry: Arc<Registry>, readiness: Readiness, hosts: Vec<String>) -> Self {
        let metrics = metrics::Metrics::new(registry);
        Self { metrics, readiness, hosts: hosts.into(), inside: None, history: None }
    }

    /// Shows configuration and policies too.
    pub(crate) fn with_inside(self, inside: Inside) -> Self {
        Self { inside: Some(Arc::new(inside)), ..self }
    }

    /// Shows what is kept, too.
    pub(crate) fn with_history(self, history: Option<History>) -> Self {
        Self { history: history.map(history::Asked::new), ..self }
    }

    fn page(&self, request: Request<Incoming>, surface: Surface) -> Page {
        if surface == Surface::Admin && !self.is_host(&request) {
            let reason = "this host is not ours: use an address, localhost, or a configured name\n";
            return Page::Ready(text(StatusCode::MISDIRECTED_REQUEST, reason));
        }
        let page = match (request.uri().path(), surface, &self.inside) {
            ("/livez", _, _) => Page::Ready(text(StatusCode::OK, "ok\n")),
            ("/readyz", _, _) => Page::Ready(self.readyz()),
            ("/metrics", _, _) => Page::Metrics(self.metrics.asked(request.headers())),
            ("/", Surface::Admin, _) if page::is_for(request.headers()) => {
                Page::Ready(page::answer())
            }
            ("/", Surface::Admin, _) => Page::Ready(text(StatusCode::OK, INDEX)),
            ("/recent" | "/calls" | "/live", Surface::Admin, Some(inside)) => {
                Page::Ready(live::answer(inside, request.uri()))
            }
            ("/tail", Surface::Admin, Some(inside)) if request.method() == Method::GET => {
                Page::Tail(live::tail(inside, request.uri()))
            }
            ("/config", Surface::Admin, Some(inside)) => Page::Ready(json(&inside.configuration())),
            ("/quotas", Surface::Admin, Some(inside)) => {
                Page::Ready(text(StatusCode::OK, inside.quotas()))
            }
            ("/env", Surface::Admin, Some(inside)) => {
                Page::Ready(inside.environment(&Query::of(request.uri().query())))
            }
            (path @ ("/usage" | "/spend" | "/baseline"), Surface::Admin, _) => {
                match (&self.history, path) {
                    (None, _) => Page::Ready(history::none()),
                    (Some(history), "/usage") => {
                        Page::History(history.usage(Query::of(request.uri().query())))
                    }
                    (Some(history), "/spend") => Page::History(history.spend()),
                    (Some(history), _) => Page::Ready(history.baseline()),
                }
            }
            ("/policies", Surface::Admin, Some(inside)) => Page::Policies(inside.clone()),
            ("/bypass", Surface::Admin, Some(inside)) if request.method() == Method::POST => {
                return Page::Switch(inside.clone(), request);
            }
            ("/bypass", Surface::Admin, Some(inside)) => Page::Ready(switch::shown(inside)),
            _ => return Page::Ready(text(StatusCode::NOT_FOUND, "nothing is here\n")),
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let allowed = match request.uri().path() {
                "/bypass" => "GET, HEAD, POST",
                _ => "GET, HEAD",
            };
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, format!("{allowed}\n"));
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return Page::Ready(refused);
        }
        page
    }

    fn readyz(&self) -> Response<Full<Bytes>> {
        match self.readiness.reason() {
            None if self.lacks_store() => text(StatusCode::OK, "ok, without the store\n"),
            None => text(StatusCode::OK, "ok\n"),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        }
    }

    /// Whether other sidecars' answers and budgets cannot be had: calls are welcome all the same.
    fn lacks_store(&self) -> bool {
        let inside = self.inside.as_ref();
        inside.is_some_and(|inside| {
            inside.generations.borrow().store.as_ref().is_some_and(|store| !store.is_well())
        })
    }

    /// A browser always names the host; who names none is no browser.
    fn is_host(&self, request: &Request<Incoming>) -> bool {
        let Some(host) = request.headers().get(HOST) else { return true };
        host.to_str().ok().and_then(host_name).is_some_and(|name| {
            name.parse::<IpAddr>().is_ok()
                || name.eq_ignore_ascii_case("localhost")
                || self.hosts.iter().any(|host| name.eq_ignore_ascii_case(host))
        })
    }
}

// === impl Inside ===

impl Inside {
    fn configuration(&self) -> serde_json::Value {
        let mut shown = self.generations.borrow().shown();
        // Where the file leaves it to us, too.
        shown["config"]["workers"] = self.workers.len().into();
        shown
    }

    /// What an application sets, by a query like `for=openai&way=proxy`.
    fn environment(&self, query: &Query) -> Response<Full<Bytes>> {
        let way = match query.value("way") {
            Some("proxy") => clients::Way::Proxy,
            Some("redirect") => clients::Way::Redirect,
            None | Some("base-url") => clients::Way::BaseUrl,
            Some(_) => {
                return text(StatusCode::BAD_REQUEST, "way is base-url, proxy or redirect\n");
            }
        };
        let named = match query.value("for") {
            None => Some(clients::CLIENTS.iter().collect::<Vec<_>>()),
            Some(name) => clients::Client::named(name).map(|client| vec![client]),
        };
        let Some(named) = named else {
            let known: Vec<_> = clients::CLIENTS.iter().map(|client| client.name).collect();
            let advice = format!("for is one of {}\n", known.join(", "));
            return text(StatusCode::BAD_REQUEST, advice);
        };
        let generation = self.generations.borrow().clone();
        match clients::Settings::new(&generation.config, &named, way) {
            Ok(settings) => text(StatusCode::OK, settings.to_string()),
            Err(error) => text(StatusCode::NOT_FOUND, format!("{error}\n")),
        }
    }

    fn quotas(&self) -> String {
        let generation = self.generations.borrow().clone();
        let none = || "there are no quotas\n".to_owned();
        generation.quotas.as_ref().map_or_else(none, |quotas| quotas.glance())
    }
}

// === impl Page ===

impl Page {
    async fn answer(self, since: metrics::Since) -> Response<Shown> {
        let answer = match self {
            Self::Tail(answer) => return answer,
            Self::Metrics(question) => return question.answer(since).await,
            Self::Ready(answer) => answer,
            Self::Policies(inside) => {
                let generation = inside.generations.borrow().clone();
                json(&states::state(&generation.states, &inside.workers).await)
            }
            Self::Switch(inside, request) => switch::turn(&inside, request).await,
            Self::History(question) => question.answer().await,
        };
        answer.map(BodyExt::boxed_unsync)
    }
}

/// The host of an authority, without its port and without the brackets of IPv6.
fn host_name(authority: &str) -> Option<&str> {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(address, _)| address),
        None => authority.split(':').next(),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "text/plain; charset=utf-8")
        .header(CACHE_CONTROL, "no-store")
        .body(Full::new(body.into()))
        .expect("these headers are valid")
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    let mut written = serde_json::to_string_pretty(value).expect("it has names for keys");
    written.push('\n');
    let mut answer = text(StatusCode::OK, written);
    let content_type = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// Serves all of it on this listener, for as long as its runtime lives.
pub async fn serve_admin(listener: TcpListener, admin: Admin) -> io::Result<Infallible> {
    serve(listener, admin, Surface::Admin).await
}

/// Serves `/livez`, `/readyz` and `/metrics` only.
pub async fn serve_health(listener: TcpListener, admin: Admin) -> io::Result<Infallible> {
    serve(listener, admin, Surface::Health).await
}

async fn serve(listener: TcpListener, admin: Admin, surface: Surface) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = connections.clone().acquire_owned().await.expect("nobody closes it");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "administration cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let admin = admin.clone();
        tokio::spawn(async move {
            connection(stream, admin, surface).await;
            drop(permit);
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, admin: Admin, surface: Surface) {
    let is_followed = AtomicBool::new(false);
    let since = metrics::Since::default();
    let service = service_fn(|request| {
        let page = admin.page(request, surface);
        is_followed.store(matches!(page, Page::Tail(_)), Ordering::Relaxed);
        let since = since.clone();
        async { Ok::<_, Infallible>(page.answer(since).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        served = served => {
            if let Err(error) = served {
                debug!(%error, "connection to administration ended");
            }
        }
        () = over(&is_followed) => debug!("connection to administration was cut"),
        () = since.is_over() => debug!("metrics were read for too long, their connection was cut"),
    }
}

/// When a connection has lasted long enough; one on which calls are followed may last.
async fn over(is_followed: &AtomicBool) {
    tokio::time::sleep(CONNECTION).await;
    while is_followed.load(Ordering::Relaxed) {
        tokio::time::sleep(CONNECTION).await;
    }
}

#[cfg(test)]
mod tests {
    use tidegate_wire::Record;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::Instant;

    use super::*;
    use crate::export::metrics::lock;

    struct Served {
        address: std::net::SocketAddr,
        readiness: Readiness,
    }

    async fn start(surface: Surface) -> Served {
        let readiness = Readiness::default();
        let registry = Arc::new(Registry::new([], []));
        let admin = Admin::new(registry, readiness.clone(), vec!["gate.internal".into()]);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(serve(listener, admin, surface));
        Served { address, readiness }
    }

    impl Served {
        async fn ask(&self, method: &str, path: &str, host: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.expect("it connects");
            let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
            let head = format!("{head}Connection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("it takes the request");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("it answers");
            answer
        }

        async fn status(&self, method: &str, path: &str, host: &str) -> u16 {
            let answer = self.ask(method, path, host).await;
            answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
        }
    }

    #[tokio::test]
    async fn metrics_are_shown_as_text() {
        let served = start(Surface::Admin).await;
        let answer = served.ask("GET", "/metrics", "localhost:4101").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
        assert!(answer.contains("\ntidegate_build_info{"), "{answer}");
    }

    #[tokio::test]
    async fn readiness_follows_the_life_of_the_process() {
        let served = start(Surface::Admin).await;
        assert!(served.ask("GET", "/readyz", "[::1]:4101").await.ends_with("starting\n"));
        served.readiness.ready();
        assert_eq!(served.status("GET", "/readyz", "127.0.0.1").await, 200);
        served.readiness.drain();
        served.readiness.ready();
        let answer = served.ask("GET", "/readyz", "127.0.0.1").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("draining\n"), "{answer}");
        assert_eq!(served.status("GET", "/livez", "127.0.0.1").await, 200);
    }

    #[tokio::test]
    async fn a_page_under_a_name_of_its_own_gets_nothing() {
        let served = start(Surface::Admin).await;
        assert_eq!(served.status("GET", "/metrics", "evil.example:4101").await, 421);
        assert_eq!(served.status("GET", "/metrics", "localhost.evil.example").await, 421);
        assert_eq!(served.status("GET", "/metrics", "Gate.Internal:4101").await, 200);
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let served = start(Surface::Admin).await;
        assert_eq!(served.status("GET", "/", "localhost").await, 200);
        assert_eq!(served.status("GET", "/nothing", "localhost").await, 404);
        assert_eq!(served.status("POST", "/metrics", "localhost").await, 405);
        assert_eq!(served.status("HEAD", "/metrics", "localhost").await, 200);
    }

    #[tokio::test]
    async fn the_health_address_shows_health_and_metrics_to_any_name() {
        let served = start(Surface::Health).await;
        assert_eq!(served.status("GET", "/livez", "pod.cluster.local").await, 200);
        assert_eq!(served.status("GET", "/metrics", "pod.cluster.local").await, 200);
        assert_eq!(served.status("GET", "/", "pod.cluster.local").await, 404);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_reading_metrics_holds_up_others_for_a_while_only() {
        let registry = Arc::new(Registry::new([], []));
        let shard = registry.shard();
        // More than a connection takes of it before somebody reads.
        for (model, status) in (0..100).flat_map(|model| (200..210).map(move |at| (model, at))) {
            let model = Some(format!("{model:0>100}"));
            let (status, duration_s) = (Some(status), Some(0.5));
            let record = Record { request_model: model, status, duration_s, ..Record::default() };
            lock(&shard).add(&record);
        }
        let admin = Admin::new(registry, Readiness::default(), Vec::new());
        let ask = async || {
            let (mut stream, theirs) = tokio::io::duplex(1 << 10);
            tokio::spawn(connection(theirs, admin.clone(), Surface::Admin));
            let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
            stream.write_all(request).await.expect("it takes the request");
            let mut status = [0; "HTTP/1.1 200".len()];
            stream.read_exact(&mut status).await.expect("it answers");
            (stream, String::from_utf8_lossy(&status).into_owned())
        };
        let mut held = Vec::new();
        for _ in 0..4 {
            let (stream, status) = ask().await;
            assert_eq!(status, "HTTP/1.1 200");
            held.push(stream);
        }
        let start = Instant::now();
        let (mut refused, status) = ask().await;
        assert_eq!(status, "HTTP/1.1 503");
        assert_eq!(start.elapsed().as_secs(), 5);
        let mut head = [0; 200];
        let read = refused.read(&mut head).await.expect("it says why");
        assert!(String::from_utf8_lossy(&head[..read]).contains("retry-after: 5\r\n"));

        tokio::time::sleep(Duration::from_secs(30)).await;
        let (_, status) = ask().await;
        assert_eq!(status, "HTTP/1.1 200", "there is a place again");
        for mut stream in held {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.expect("it ends");
            assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "it was cut");
        }
    }
}
