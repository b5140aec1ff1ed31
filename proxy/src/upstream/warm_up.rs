//! Keeps an upstream warm: connections that are open before a call needs them, and now and then, while
//! nobody calls, a small call.
//!
//! One thing at a time, and no more than one from each interval to the next, so that a server that was
//! restarted is not overrun. What is done here is none of anybody's calls: its records say so, and its
//! figures are apart. A credential needs no warming: it is fetched as soon as it is configured.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::connect::{self, Speak, Unnoted};
use super::pool::Pool;
use super::servers::Servers;
use super::spec::Spec;
use super::{Forward, Upstream, http2};
use crate::activity::Activity;
use crate::call::Call;
use crate::config::Span;
use crate::error::Error;
use crate::exchange::{Exchange, Ours};
use crate::head::{Fields, RequestHead, Target};
use crate::http1::conn::Conn;
use crate::own_call;
use crate::recorder::Recorder;
use crate::route;
use crate::timer::Timer;
use crate::whole;

/// How an upstream is kept warm.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WarmUpConfig {
    /// Connections that each worker has ready for each address; of HTTP/2 one serves many calls.
    pub connections: u32,
    /// From one connection that is opened to the next.
    pub interval: Span,
    /// A small call, to warm what stands behind a connection.
    pub call: Option<WarmUpCall>,
}

/// A call that is made where nobody has called for a while.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WarmUpCall {
    /// Path and query, as the server knows them.
    pub path: String,
    /// The body, JSON; without one the call is a GET.
    #[serde(default)]
    pub body: Option<String>,
    /// Fields that it has beside those that every call has.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// How long nobody must have called: with each such while it is made again, by one worker.
    #[serde(default = "idle")]
    pub idle: Span,
    /// How long it may take, to the end of its answer.
    #[serde(default = "time")]
    pub time: Span,
}

fn idle() -> Span {
    Span(Duration::from_secs(60))
}

fn time() -> Span {
    Span(Duration::from_secs(30))
}

/// What all workers know of an upstream that is kept warm.
#[derive(Debug)]
pub(crate) struct Warmth {
    config: WarmUpConfig,
    /// When it was last called, by anybody, in milliseconds of this process, and one; 0 is never.
    used: AtomicU64,
    opened: AtomicU64,
    failed: AtomicU64,
}

impl Default for WarmUpConfig {
    fn default() -> Self {
        Self { connections: 1, interval: Span(Duration::from_secs(1)), call: None }
    }
}

// === impl WarmUpConfig ===

impl WarmUpConfig {
    /// What one key cannot say of itself: the way to the key, and what is wrong with it.
    pub(crate) fn check(&self, spec: &Spec) -> Result<(), (Vec<&'static str>, String)> {
        if spec.is_open() {
            return Err((vec![], "there is no server to warm: the url is any".to_owned()));
        }
        let Some(WarmUpCall { path, headers, .. }) = &self.call else { return Ok(()) };
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err((vec!["call", "path"], format!("`{path}` is no path: it begins with `/`")));
        }
        let is_field = |(name, value): (&String, &String)| {
            http::HeaderName::from_bytes(name.as_bytes()).is_ok()
                && http::HeaderValue::from_str(value).is_ok()
        };
        match headers.iter().all(is_field) {
            true => Ok(()),
            false => Err((vec!["call", "headers"], "has what is no field of a head".to_owned())),
        }
    }
}

// === impl WarmUpCall ===

impl WarmUpCall {
    fn head(&self) -> RequestHead {
        let own = [("content-type", "application/json"), ("accept", "*/*")];
        let is_said = |name: &str| self.headers.keys().any(|own| own.eq_ignore_ascii_case(name));
        let own = own.into_iter().filter(|(name, _)| !is_said(name));
        let said = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let lines: Vec<_> =
            own.chain(said).map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        RequestHead {
            method: if self.body.is_some() { http::Method::POST } else { http::Method::GET },
            target: Target::new(Bytes::from(self.path.clone())),
            authority: Bytes::new(),
            version: http::Version::HTTP_11,
            upgrades: false,
            meant: None,
            shown: None,
            is_absolute: false,
            fields: Fields::of(&lines),
        }
    }
}

// === impl Warmth ===

impl Warmth {
    pub(crate) fn new(config: &WarmUpConfig) -> Self {
        let [used, opened, failed] = [const { AtomicU64::new(0) }; 3];
        Self { config: config.clone(), used, opened, failed }
    }

    /// Somebody calls.
    pub(super) fn touch(&self) {
        self.used.store(now_ms(), Relaxed);
    }

    /// Whether a call is due, which is then the asker's to make.
    fn claim(&self, idle: Duration) -> bool {
        let (now, idle) = (now_ms(), u64::try_from(idle.as_millis()).unwrap_or(u64::MAX));
        let due = |used: u64| (used == 0 || now.saturating_sub(used) >= idle).then_some(now);
        self.used.fetch_update(Relaxed, Relaxed, due).is_ok()
    }

    /// Connections that were opened, and that failed to be.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 2] {
        [("opened", self.opened.load(Relaxed)), ("failed", self.failed.load(Relaxed))]
    }

    /// What the admin address shows.
    pub(crate) fn state(&self) -> Value {
        let used = self.used.load(Relaxed);
        let idle = (used > 0).then(|| now_ms().saturating_sub(used) as f64 / 1e3);
        let connections: BTreeMap<_, _> = self.counts().into();
        json!({ "connections": connections, "idle_s": idle })
    }
}

/// Milliseconds since the first that asked, and one.
fn now_ms() -> u64 {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    let elapsed = START.get_or_init(std::time::Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

// === impl Upstream ===

impl Upstream {
    /// Does what is due for it to be warm, in a task of its own; nothing while it is still at that.
    pub(crate) fn warm_up(self: &Rc<Self>, recorder: &Recorder, activity: &Arc<Activity>) {
        let now = Instant::now();
        let Some(warmth) = self.warmth.clone() else { return };
        let is_soon = self.next_warm_up.get().is_some_and(|next| now < next);
        if is_soon || self.is_warming.replace(true) {
            return;
        }
        self.next_warm_up.set(now.checked_add(warmth.config.interval.0));
        let (upstream, recorder, activity) = (self.clone(), recorder.clone(), activity.clone());
        tokio::task::spawn_local(async move {
            upstream.open_one(&warmth).await;
            if let Some(call) = &warmth.config.call
                && warmth.claim(call.idle.0)
            {
                make(&upstream, call, recorder, activity).await;
            }
            upstream.is_warming.set(false);
        });
    }

    /// Opens a connection to the first of its servers that has too few.
    async fn open_one(&self, warmth: &Warmth) {
        let wanted = warmth.config.connections as usize;
        let Some(pool) = self.own_pools().into_iter().find(|pool| ready(pool) < wanted) else {
            return;
        };
        let opened = match open(&pool, &self.spec.name, self.limits.connect).await {
            Ok(()) => &warmth.opened,
            Err(error) => {
                tracing::debug!(upstream = %self.spec.name, %error, "no connection to keep warm");
                &warmth.failed
            }
        };
        opened.fetch_add(1, Relaxed);
    }

    /// The connections to each of its servers, at each of the locations that it is known to have.
    fn own_pools(&self) -> Vec<Rc<Pool>> {
        let locations: Vec<Option<&str>> = match self.spec.is_templated() {
            true => self.spec.locations().iter().map(|location| Some(location.as_str())).collect(),
            false => vec![None],
        };
        let mut pools = self.pools.borrow_mut();
        let of_location = |location: Option<&str>| {
            let key = location.unwrap_or_default();
            let servers = pools.entry(key.into()).or_insert_with(|| {
                let group = self.balancer.as_ref().map(|balancer| balancer.group(key));
                Servers::new(group, |url| self.origin(url, location, false), self.keep)
            });
            servers.pools().to_vec()
        };
        locations.into_iter().flat_map(of_location).collect()
    }
}

/// Calls that a server can be sent without a new connection, more or less.
fn ready(pool: &Pool) -> usize {
    match http2::connections(pool).0 {
        0 => pool.idle(),
        _ => usize::MAX,
    }
}

async fn open(pool: &Pool, upstream: &Arc<str>, limit: Duration) -> Result<(), Error> {
    let connected = connect::connect(&pool.origin, Speak::Any, upstream, limit, &Unnoted).await?;
    pool.speaks_http2.set(Some(connected.http2));
    if connected.http2 {
        let seat = http2::open(pool, connected.stream).await;
        let told = |error: hyper::Error| Error::Protocol {
            upstream: upstream.clone(),
            source: error.into(),
        };
        return seat.map(drop).map_err(told);
    }
    pool.put(Rc::new(Conn::new(connected.stream)), Timer::at(Instant::now() + limit));
    Ok(())
}

/// Makes the call.
async fn make(
    upstream: &Rc<Upstream>,
    config: &WarmUpCall,
    recorder: Recorder,
    activity: Arc<Activity>,
) {
    let head = config.head();
    let ours = Ours {
        trace_id: tidegate_wire::Id(rand::random()),
        parent_span_id: None,
        is_sampled: None,
        upstream: upstream.spec.name.clone(),
        model: upstream.spec.model.clone(),
    };
    let exchange = Exchange::ours(&head, route::shape(&head), ours, recorder, activity);
    let notes = exchange.notes();
    notes.record(|record| record.warm_up = Some(true));
    let mut call = Call::of_ours(head, notes);
    if let Some(body) = &config.body {
        whole::put(&mut call, body.clone().into());
    }
    own_call::make(Forward { upstream: upstream.clone() }, call, config.time.0).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_due_at_once_and_then_after_each_while_in_which_nobody_calls_and_one_asker_has_it()
    {
        let warmth = Warmth::new(&WarmUpConfig::default());
        let long = Duration::from_secs(3600);
        assert!(warmth.claim(long), "nobody has called yet");
        assert!(!warmth.claim(long), "another worker is at it");
        assert!(warmth.claim(Duration::ZERO));
        let cold = Warmth::new(&WarmUpConfig::default());
        cold.touch();
        assert!(!cold.claim(long), "somebody has called");
    }

    #[test]
    fn what_cannot_be_sent_is_told() {
        for (call, part) in [
            ("path: v1", "`v1` is no path"),
            ("path: '/a b'", "is no path"),
            ("path: /, headers: { 'a b': c }", "is no field"),
            ("", "missing field `path`"),
        ] {
            let text = format!(
                "upstreams: {{ a: {{ url: 'http://a', warm_up: {{ call: {{ {call} }} }} }} }}\nroutes: [{{ upstream: a }}]"
            );
            let error = crate::config::Config::parse(&text).expect_err(call).to_string();
            assert!(error.contains(part) && error.contains("upstreams.a.warm_up"), "{error}");
        }
    }
}
