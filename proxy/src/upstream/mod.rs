//! The servers behind us: where they are, and the connections to them, which are ours to govern.

mod address;
pub(crate) mod at_hand;
mod balance;
pub(crate) mod connect;
mod disconnect;
mod health;
mod http1;
mod http2;
mod line;
mod pool;
mod probe;
mod resolve;
mod servers;
mod signing;
mod spec;
mod steer;
mod unreached;
mod warm_up;
mod watch;
mod watched;

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tower::Service;

use crate::call::{Call, CallerBody, Failure, Reply};
use crate::config::{LimitsConfig, TimeoutsConfig, UpstreamTimeoutsConfig};
use crate::error::Error;
use crate::exchange::{Notes, Wait};
use crate::head::RequestHead;
use crate::http1::conn::Conn;
use crate::policies::UpstreamPolicies;
use crate::timer::Timer;

pub use balance::{BalanceConfig, EjectConfig};
pub use disconnect::{DrainConfig, OnDisconnect};
pub use health::HealthConfig;
pub use resolve::DnsConfig;
pub use steer::{Metrics, SteerConfig};
pub use warm_up::{WarmUpCall, WarmUpConfig};

pub(crate) use balance::{Balancer, Shown};
pub(crate) use disconnect::Drains;
pub(crate) use http1::Http1Reply;
pub(crate) use http2::Http2Reply;
pub(crate) use resolve::{Resolver, System};
pub(crate) use signing::Signing;
pub(crate) use spec::{ORIGIN, Origin, Spec};
pub(crate) use unreached::{ConnectFailures, Unreached};
pub(crate) use warm_up::Warmth;
pub(crate) use watch::Addresses;

use balance::Serving;
use connect::Speak;
use http2::{Http2Connection, Seat};
use line::Place;
use pool::{Idle, Pool};
use servers::Servers;

/// Locations that one upstream is called at, at most.
const MAX_LOCATIONS: usize = 64;

/// One upstream, as one worker knows it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) spec: Arc<Spec>,
    /// Absent where calls go on with their caller's own credential.
    signing: Option<Signing>,
    limits: Limits,
    /// Absent where there is nothing to choose from.
    balancer: Option<Arc<Balancer>>,
    /// Absent where a call ends when its caller leaves.
    drains: Option<Arc<Drains>>,
    connect_failures: Arc<ConnectFailures>,
    /// Absent where it is not kept warm.
    warmth: Option<Arc<Warmth>>,
    /// When this worker looks after that again, and whether it is at it.
    next_warm_up: Cell<Option<Instant>>,
    is_warming: Cell<bool>,
    keep: pool::Keep,
    /// The servers at each location (`""` where there is but one).
    pools: RefCell<FxHashMap<Box<str>, Servers>>,
    /// The same servers for calls by gRPC: where the others go out by HTTP/1.1, these may not.
    grpc_pools: RefCell<FxHashMap<Box<str>, Servers>>,
}

/// How long a call may wait for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) connect: Duration,
    pub(crate) request_body_idle: Duration,
    pub(crate) response_head: Duration,
    /// From the start of an attempt, for streams; absent where they may take their time.
    pub(crate) first_token: Option<Duration>,
    pub(crate) idle: Duration,
}

/// The end of the stack: sends a call to its upstream.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    pub(crate) upstream: Rc<Upstream>,
}

// === impl Upstream ===

impl Upstream {
    pub(crate) fn new(
        spec: Arc<Spec>,
        signing: Option<Signing>,
        policies: &UpstreamPolicies,
        (timeouts, own): (&TimeoutsConfig, &UpstreamTimeoutsConfig),
        limits: &LimitsConfig,
    ) -> Self {
        Self {
            spec,
            signing,
            balancer: policies.addresses.as_ref().map(|all| all.balancer.clone()),
            drains: policies.drains.clone(),
            connect_failures: policies.connect_failures.clone(),
            warmth: policies.warmth.clone(),
            next_warm_up: Cell::default(),
            is_warming: Cell::default(),
            limits: Limits {
                connect: own.connect.unwrap_or(timeouts.connect).0,
                request_body_idle: timeouts.request_body_idle.0,
                response_head: own.response_head.unwrap_or(timeouts.response_head).0,
                first_token: own.first_token.or(timeouts.first_token).map(|limit| limit.0),
                idle: own.idle.unwrap_or(timeouts.idle).0,
            },
            keep: pool::Keep {
                max_idle: limits.idle_connections.get() as usize,
                max_http2: limits.http2_connections.get() as usize,
                keep_alive: timeouts.upstream_keep_alive.0,
            },
            pools: RefCell::default(),
            grpc_pools: RefCell::default(),
        }
    }

    /// Whether it has a credential of its own.
    pub(crate) fn has_credential(&self) -> bool {
        self.signing.is_some()
    }

    /// How many addresses one call may be tried at.
    pub(crate) fn choices(&self) -> usize {
        let has_names = self.balancer.as_ref().is_some_and(|balancer| balancer.resolves());
        if has_names { usize::MAX } else { self.spec.addresses() }
    }

    /// The connections that it has, as the admin address shows them.
    pub(crate) fn state(&self) -> Value {
        let (mut idle, mut http2) = (0, 0);
        for pools in [&self.pools, &self.grpc_pools] {
            for pool in pools.borrow().values().flat_map(Servers::pools) {
                idle += pool.idle();
                http2 += http2::connections(pool).0;
            }
        }
        json!({ "idle": idle, "http2": http2 })
    }

    /// Closes connections that have been idle for too long, or whose address is gone.
    pub(crate) fn sweep(&self) {
        for (pools, is_grpc) in [(&self.pools, false), (&self.grpc_pools, true)] {
            for (location, servers) in pools.borrow_mut().iter_mut() {
                let place = (!location.is_empty()).then_some(&**location);
                servers.sweep(|url| self.origin(url, place, is_grpc), self.keep);
            }
        }
    }

    /// The server that a call goes to, at the location that it names; and its place there.
    fn server(&self, call: &Call) -> Result<(Rc<Pool>, Option<Serving>), Error> {
        let is_grpc = call.is_grpc();
        let place = self.spec.place(call)?;
        let location = place.as_deref();
        let origin = |url| self.origin(url, location, is_grpc);
        let mut pools = if is_grpc { &self.grpc_pools } else { &self.pools }.borrow_mut();
        if let Some(servers) = pools.get_mut(location.unwrap_or_default()) {
            return Ok(servers.choose(origin, self.keep, &call.notes));
        }
        if pools.len() >= MAX_LOCATIONS {
            pools.clear();
        }
        let group = |balancer: &Arc<Balancer>| balancer.group(location.unwrap_or_default());
        let mut servers = Servers::new(self.balancer.as_ref().map(group), origin, self.keep);
        let chosen = servers.choose(origin, self.keep, &call.notes);
        pools.insert(location.unwrap_or_default().into(), servers);
        Ok(chosen)
    }

    /// The server of one URL.
    fn origin(&self, url: usize, location: Option<&str>, is_grpc: bool) -> Origin {
        let origin = self.spec.origin(url, location);
        if is_grpc { origin.for_grpc() } else { origin }
    }

    async fn send(&self, call: Call) -> Result<Reply, Failure> {
        let (pool, serving) = self.server(&call)?;
        if let Some(serving) = serving {
            call.notes.watch(serving);
        }
        match &self.signing {
            None => self.carry(pool, call).await,
            // Boxed: who has no credential here has no room for it either.
            Some(signing) => Box::pin(self.send_signed(signing, pool, call)).await,
        }
    }

    async fn send_signed(
        &self,
        signing: &Signing,
        pool: Rc<Pool>,
        mut call: Call,
    ) -> Result<Reply, Failure> {
        // Held until the upstream has answered: until then all of it may be sent again.
        let mut hold = signing.hold();
        let (head, version) = signing.sign(&mut call, &pool.origin, &mut hold).await?;
        let (body, notes) = (call.body.at_hand(), call.notes.clone());
        let body = body.filter(|_| notes.bypass().is_none());
        let (reply, own) = self.carry_with(head, pool.clone(), call).await?;
        let limit = if body.is_some() { notes.time_left() } else { Duration::ZERO };
        let is_mended = signing.answered(&reply.head, version, &notes, limit).await;
        let may_go_again = is_mended && !notes.left.goes_on();
        let Some(body) = body.filter(|_| may_go_again) else { return Ok(reply) };
        // Nothing of this answer has gone to the caller, and the upstream has done nothing for it.
        drop(reply);
        notes.signed_anew();
        hold = signing.hold();
        let mut call = Call { head: own, body: CallerBody::new(body, &notes), notes };
        let (head, version) = signing.sign(&mut call, &pool.origin, &mut hold).await?;
        let notes = call.notes.clone();
        let (reply, _) = self.carry_with(head, pool, call).await?;
        signing.answered(&reply.head, version, &notes, Duration::ZERO).await;
        Ok(reply)
    }

    /// Carries a call with this head in place of its own, which comes back with the answer.
    async fn carry_with(
        &self,
        head: RequestHead,
        pool: Rc<Pool>,
        mut call: Call,
    ) -> Result<(Reply, RequestHead), Failure> {
        let own = std::mem::replace(&mut call.head, head);
        match self.carry(pool, call).await {
            Ok(reply) => Ok((reply, own)),
            Err(Failure { error, unsent }) => {
                Err(Failure { error, unsent: unsent.map(|call| Call { head: own, ..call }) })
            }
        }
    }

    /// An attempt at this server is under way.
    fn begin(&self, call: &Call, origin: &Origin) {
        call.notes.attempt(origin);
        if let Some(warmth) = &self.warmth {
            warmth.touch();
        }
        // What follows a change of protocol is no answer that could be read.
        let may_drain = !call.head.upgrades && call.notes.bypass().is_none();
        let drains = self.drains.clone().filter(|_| may_drain);
        call.notes.left.stay_for_attempt(drains.map(|drains| drains as _));
    }

    async fn carry(&self, pool: Rc<Pool>, call: Call) -> Result<Reply, Failure> {
        self.begin(&call, &pool.origin);
        let name = &self.spec.name;
        let connection = match call.head.upgrades {
            true => open_http1(&pool, name, self.limits, &call.notes).await,
            false => connection(&pool, name, self.limits, &call.notes, None).await,
        };
        match connection {
            Ok(Connection::Http1 { idle, reused }) => {
                http1::send(idle, reused, pool, call, name, self.limits).await
            }
            Ok(Connection::Http2(seat)) => {
                Box::pin(http2::send(seat, &pool, call, name, self.limits)).await
            }
            Err(error) => Err(Failure { error, unsent: Some(call) }),
        }
    }
}

/// The location that a call names: in its path, or by gRPC elsewhere.
pub(crate) fn location(call: &Call, is_grpc: bool) -> String {
    let in_path = spec::location_in(call.head.target.path()).map(str::to_owned);
    let elsewhere = || call.notes.observer(|observer| observer.location().map(str::to_owned));
    in_path
        .or_else(|| if is_grpc { elsewhere() } else { None })
        .unwrap_or_else(|| "global".to_owned())
}

/// What a call goes out on.
enum Connection {
    Http1 { idle: Idle, reused: bool },
    Http2(Seat),
}

/// A connection that is free, else a new one; not the one to be avoided.
async fn connection(
    pool: &Rc<Pool>,
    upstream: &Arc<str>,
    limits: Limits,
    notes: &Notes,
    avoid: Option<&Rc<Http2Connection>>,
) -> Result<Connection, Error> {
    if let Some(found) = free(pool, avoid) {
        return Ok(found);
    }
    let opening = match pool.speaks_http2.get() {
        Some(false) => None,
        _ => match in_line(pool, upstream, limits, notes, avoid).await? {
            Place::Seat(seat) => return Ok(Connection::Http2(seat)),
            Place::Open(opening) => Some(opening),
            Place::Http1 => None,
        },
    };
    let opened = open(pool, Speak::Any, upstream, limits, notes).await;
    // Only now do others look for a seat on it.
    drop(opening);
    opened
}

fn free(pool: &Pool, avoid: Option<&Rc<Http2Connection>>) -> Option<Connection> {
    match pool.speaks_http2.get() {
        Some(false) => pool.take().map(|idle| Connection::Http1 { idle, reused: true }),
        _ if !pool.line.is_empty() => None,
        _ => http2::seat(pool, avoid).map(Connection::Http2),
    }
}

/// A place in HTTP/2, and the wait for it.
async fn in_line(
    pool: &Rc<Pool>,
    upstream: &Arc<str>,
    limits: Limits,
    notes: &Notes,
    avoid: Option<&Rc<Http2Connection>>,
) -> Result<Place, Error> {
    let start = Instant::now();
    let mut place = pin!(line::place(pool, avoid));
    let result = loop {
        match timeout(limits.connect, &mut place).await {
            Ok(place) => break Ok(place),
            // Where nobody can connect, the last in line would wait for all the attempts before it.
            Err(_) if http2::connections(pool).0 == 0 => {
                let limit_s = limits.connect.as_secs();
                break Err(Error::ConnectTimeout { upstream: upstream.clone(), limit_s });
            }
            Err(_) if start.elapsed() >= limits.response_head => {
                let limit_s = limits.response_head.as_secs();
                break Err(Error::Saturated { upstream: upstream.clone(), limit_s });
            }
            Err(_) => {}
        }
    };
    notes.waited(Wait::Pool, start.elapsed());
    result
}

async fn open(
    pool: &Pool,
    speak: Speak,
    upstream: &Arc<str>,
    limits: Limits,
    notes: &Notes,
) -> Result<Connection, Error> {
    // Boxed: a handshake is large and rare, and would otherwise be moved about with every call.
    let connecting = connect::connect(&pool.origin, speak, upstream, limits.connect, notes);
    let connected = Box::pin(connecting).await?;
    if speak == Speak::Any {
        pool.speaks_http2.set(Some(connected.http2));
    }
    if connected.http2 {
        let seat = Box::pin(http2::open(pool, connected.stream)).await;
        return seat
            .map(Connection::Http2)
            .map_err(|error| Error::Protocol { upstream: upstream.clone(), source: error.into() });
    }
    let conn = Rc::new(Conn::new(connected.stream));
    let timer = Timer::at(Instant::now() + limits.response_head);
    Ok(Connection::Http1 { idle: Idle::fresh(conn, timer), reused: false })
}

/// An HTTP/1.1 connection, whatever else the server speaks.
async fn open_http1(
    pool: &Pool,
    upstream: &Arc<str>,
    limits: Limits,
    notes: &Notes,
) -> Result<Connection, Error> {
    match pool.take() {
        Some(idle) => Ok(Connection::Http1 { idle, reused: true }),
        None => open(pool, Speak::Http1, upstream, limits, notes).await,
    }
}

// === impl Forward ===

impl Service<Call> for Forward {
    type Response = Reply;
    type Error = Failure;
    type Future = crate::stack::LocalFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let upstream = self.upstream.clone();
        Box::pin(async move {
            let notes = call.notes.clone();
            upstream.send(call).await.inspect_err(|failure| {
                if let Some(why) = failure.error.unreached() {
                    upstream.connect_failures.add(why);
                }
                notes.judge_error(&failure.error, failure.unsent.is_some());
            })
        })
    }
}

#[cfg(test)]
mod tests;
