//! The servers behind us: where they are, and the connections to them, which are ours to govern.

mod connect;
mod http1;
mod http2;
mod pool;
mod spec;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::time::{Instant, timeout};
use tower::Service;

use crate::call::{Call, Failure, Reply};
use crate::config::{LimitsConfig, TimeoutsConfig};
use crate::error::Error;
use crate::exchange::{Notes, Wait};
use crate::http1::conn::Conn;
use crate::timer::Timer;

pub(crate) use http1::Http1Reply;
pub(crate) use http2::Http2Reply;
pub(crate) use spec::{Origin, Spec};

use pool::{Idle, Pool};

/// Locations that one upstream is called at, at most.
const MAX_LOCATIONS: usize = 64;

/// One upstream, as one worker knows it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) spec: Arc<Spec>,
    limits: Limits,
    max_idle: usize,
    keep_alive: Duration,
    /// The servers at each location (`""` where there is but one), in the order of the addresses.
    pools: RefCell<FxHashMap<Box<str>, Servers>>,
    /// The same servers for calls by gRPC: where the others go out by HTTP/1.1, these may not.
    grpc_pools: RefCell<FxHashMap<Box<str>, Servers>>,
    turn: Cell<usize>,
}

/// The addresses of an upstream, each with its connections.
type Servers = Box<[Rc<Pool>]>;

/// How long a call may wait for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) connect: Duration,
    pub(crate) request_body_idle: Duration,
    pub(crate) response_head: Duration,
    pub(crate) idle: Duration,
}

/// The end of the stack: sends a call to its upstream.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    pub(crate) upstream: Rc<Upstream>,
}

// === impl Upstream ===

impl Upstream {
    pub(crate) fn new(spec: Arc<Spec>, timeouts: &TimeoutsConfig, limits: &LimitsConfig) -> Self {
        Self {
            spec,
            limits: Limits {
                connect: timeouts.connect.0,
                request_body_idle: timeouts.request_body_idle.0,
                response_head: timeouts.response_head.0,
                idle: timeouts.idle.0,
            },
            max_idle: limits.idle_connections.get() as usize,
            keep_alive: timeouts.upstream_keep_alive.0,
            pools: RefCell::default(),
            grpc_pools: RefCell::default(),
            turn: Cell::new(0),
        }
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn sweep(&self) {
        for pools in [&self.pools, &self.grpc_pools] {
            pools.borrow().values().flatten().for_each(|pool| pool.sweep());
        }
    }

    /// The server whose turn it is, at the location that the call names.
    fn pool(&self, call: &Call) -> Result<Rc<Pool>, Error> {
        let is_grpc = call.is_grpc();
        let location = self.spec.is_templated().then(|| location(call, is_grpc));
        let location = location.as_deref();
        if let Some(location) = location {
            self.spec.allows(location)?;
        }
        let turn = self.turn.get();
        self.turn.set((turn + 1) % self.spec.addresses());
        let mut pools = if is_grpc { &self.grpc_pools } else { &self.pools }.borrow_mut();
        if let Some(servers) = pools.get(location.unwrap_or_default()) {
            return Ok(servers[turn].clone());
        }
        if pools.len() >= MAX_LOCATIONS {
            pools.clear();
        }
        let server = |address| {
            let origin = self.spec.origin(address, location);
            let origin = if is_grpc { origin.for_grpc() } else { origin };
            Rc::new(Pool::new(origin, self.max_idle, self.keep_alive))
        };
        let servers: Servers = (0..self.spec.addresses()).map(server).collect();
        let chosen = servers[turn].clone();
        pools.insert(location.unwrap_or_default().into(), servers);
        Ok(chosen)
    }

    async fn send(&self, call: Call) -> Result<Reply, Failure> {
        let pool = self.pool(&call)?;
        call.notes.attempt(&pool.origin);
        let name = &self.spec.name;
        match self.connection(&pool, &call.notes).await {
            Ok(Connection::Http1 { idle, reused }) => {
                http1::send(idle, reused, pool, call, name, self.limits).await
            }
            Ok(Connection::Http2(seat)) => {
                Box::pin(http2::send(seat, &pool, call, name, self.limits)).await
            }
            Err(error) => Err(Failure { error, unsent: Some(call) }),
        }
    }

    /// A connection that is free, else a new one.
    async fn connection(&self, pool: &Rc<Pool>, notes: &Notes) -> Result<Connection, Error> {
        if let Some(found) = free(pool) {
            return Ok(found);
        }
        if !pool.speaks_http2.get() {
            return open(pool, &self.spec.name, self.limits, notes).await;
        }
        // One call opens; those that come meanwhile find seats on what it has opened.
        let (start, limit) = (Instant::now(), self.limits.connect);
        let opening = timeout(limit, pool.opening.acquire()).await;
        notes.waited(Wait::Pool, start.elapsed());
        // Where nobody can connect, a queue of attempts would have the last call wait for them all.
        let Ok(_opening) = opening else {
            let upstream = self.spec.name.clone();
            return Err(Error::ConnectTimeout { upstream, limit_s: limit.as_secs() });
        };
        match free(pool) {
            Some(found) => Ok(found),
            None => open(pool, &self.spec.name, self.limits, notes).await,
        }
    }
}

/// The location that a call names: in its path, or by gRPC elsewhere.
fn location(call: &Call, is_grpc: bool) -> String {
    let in_path = spec::location_in(call.head.target.path()).map(str::to_owned);
    let elsewhere = || call.notes.observer(|observer| observer.location().map(str::to_owned));
    in_path
        .or_else(|| if is_grpc { elsewhere() } else { None })
        .unwrap_or_else(|| "global".to_owned())
}

/// What a call goes out on.
enum Connection {
    Http1 { idle: Idle, reused: bool },
    Http2(http2::Seat),
}

fn free(pool: &Pool) -> Option<Connection> {
    if pool.speaks_http2.get() {
        return http2::seat(pool).map(Connection::Http2);
    }
    pool.take().map(|idle| Connection::Http1 { idle, reused: true })
}

async fn open(
    pool: &Pool,
    upstream: &Arc<str>,
    limits: Limits,
    notes: &Notes,
) -> Result<Connection, Error> {
    // Boxed: a handshake is large and rare, and would otherwise be moved about with every call.
    let connecting = Box::pin(connect::connect(&pool.origin, upstream, limits.connect, notes));
    let connected = connecting.await?;
    pool.speaks_http2.set(connected.http2);
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

/// A new HTTP/1.1 connection; `None` where the server has changed to HTTP/2.
async fn open_http1(
    pool: &Pool,
    upstream: &Arc<str>,
    limits: Limits,
    notes: &Notes,
) -> Result<Option<Idle>, Error> {
    match open(pool, upstream, limits, notes).await? {
        Connection::Http1 { idle, .. } => Ok(Some(idle)),
        Connection::Http2(_) => Ok(None),
    }
}

/// A seat on another HTTP/2 connection, or on a new one; `None` where the server has changed to
/// HTTP/1.1.
async fn open_http2(
    pool: &Pool,
    upstream: &Arc<str>,
    limits: Limits,
    notes: &Notes,
) -> Result<Option<http2::Seat>, Error> {
    if let Some(seat) = http2::seat(pool) {
        return Ok(Some(seat));
    }
    match open(pool, upstream, limits, notes).await? {
        Connection::Http2(seat) => Ok(Some(seat)),
        Connection::Http1 { .. } => Ok(None),
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
        Box::pin(async move { upstream.send(call).await })
    }
}
