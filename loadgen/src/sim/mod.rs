//! A simulated model server: every dialect on one port, exact usage, a real capacity, seeded.
//!
//! **Tokens.** A prompt has a quarter of the bytes of its text, rounded up. An answer has
//! `output_tokens` words, unless the caller's limit is lower; each word is one token, and each token
//! one chunk of a stream. Of several choices each has as many, and they take turns. What a tool is
//! given leaves in one chunk with its last token where a dialect sends it whole.
//!
//! **Time.** The head of a stream leaves when a slot is taken, with what the dialect says before its
//! first token. That token leaves `ttft` later, and the others `tpot` apart. An answer in one piece
//! leaves with its last token.
//!
//! **Tests** may ask for more by headers of a request: `x-sim-ttft`, `x-sim-tpot` and
//! `x-sim-output-tokens` go before the options, and `x-sim-fault` is a status from 400 up, or what
//! happens after half of the tokens: `cut` (the connection breaks), `stall` (nothing more comes) or
//! `error-event` (an error in band; of an answer in one piece, status 500); or `overload`: that error
//! in the place of the first token. `x-sim-reasoning-tokens` puts so many tokens of reasoning in front, where the dialect has words for them; `x-sim-tools: 1`
//! answers a request that brings tools by a call of the first; `x-sim-polls` says how often a film
//! that is begun now is asked for before it is done.
//!
//! **Administration.** `GET /-/served`, `POST /-/reset`, and `GET /-/stamps`: when each token left,
//! in nanoseconds since 1970, by the trace id of the request's `traceparent`, as
//! `{"<trace id>": [<time>, ...]}`; `?trace_id=` picks one. Calls of one trace stand in one list,
//! and the last 20,000 calls are kept. `GET /metrics` says what vLLM and the DCGM exporter would. `POST /-/fault` has calls go wrong until the next one, with
//! `{"kind": "<as x-sim-fault>", "ratio": 0.5}`: that part of them, drawn by the seed, or all. With a
//! status goes `"retry_after": <seconds>`; `{"kind": "slow", "ttft": "2s"}` delays first tokens, and
//! `{"kind": "none"}` heals.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::{debug, warn};

mod capacity;
mod dialect;
mod engine;
mod generation;
mod metrics;
mod overrides;
mod playback;
mod recorded;
mod serve;
mod tally;
#[cfg(test)]
mod tests;
mod trouble;
mod truth;

pub use recorded::Recorded;
pub use tally::Served;
pub use truth::Truth;

#[cfg(test)]
pub(crate) use truth::Rehearsal;

/// What the simulated server is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// From the start of a sequence to its first token.
    pub ttft: Duration,
    /// Between two tokens.
    pub tpot: Duration,
    /// Words of an answer.
    pub output_tokens: u64,
    /// Part of the calls that are answered by an error, from 0 to 1.
    pub error_rate: f64,
    /// Sequences at once.
    pub capacity: usize,
    /// Calls that wait for a slot; more are refused.
    pub queue: usize,
    /// What texts, ids and errors are drawn from.
    pub seed: u64,
    /// Calls that are answered as they were before.
    pub recorded: Option<Arc<Recorded>>,
}

/// A server that listens, and answers once it is served.
pub struct Simulator {
    listener: TcpListener,
    addr: SocketAddr,
    model: Arc<serve::Model>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4102)),
            ttft: Duration::from_millis(200),
            tpot: Duration::from_millis(20),
            output_tokens: 128,
            error_rate: 0.0,
            capacity: 64,
            queue: 1024,
            seed: 1,
            recorded: None,
        }
    }
}

// === impl Simulator ===

impl Simulator {
    /// Takes the address; from here on callers can connect.
    pub async fn bind(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let addr = listener.local_addr()?;
        Ok(Self { listener, addr, model: Arc::new(serve::Model::new(options)) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `shutdown`. Calls that are open then are cut.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(connection(stream, self.model.clone()));
                    }
                    Err(error) => {
                        // Most likely there are no descriptors left; some connection will end.
                        warn!(%error, "accept failed");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                () = &mut shutdown => return,
            }
        }
    }
}

/// Speaks HTTP/1.1, or HTTP/2 to those who begin with it.
async fn connection(stream: TcpStream, model: Arc<serve::Model>) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "connection keeps Nagle's algorithm");
    }
    let service = service_fn(move |request| {
        let model = model.clone();
        async move { Ok::<_, std::convert::Infallible>(model.answer(request).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        debug!(error, "connection failed");
    }
}
