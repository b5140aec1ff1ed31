//! One small GET to an address of an upstream, by the same TLS, SNI and Host as its calls.
//!
//! It carries no credential, takes no part in any call's figures, and says who it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use super::connect::{self, Speak, Unnoted};
use super::spec::Origin;
use crate::error::{Error, Source};
use crate::export::catalog::VERSION;
use crate::http1::conn::Stream;

/// Bytes of an answer, at most.
const MAX_BODY: usize = 4 << 20;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// Asks for this path, from the root of the server, on a connection of its own.
pub(super) async fn get(
    origin: &Origin,
    path: &str,
    upstream: &Arc<str>,
    limit: Duration,
) -> Result<Answer, Error> {
    let exchange = async {
        let connected = connect::connect(origin, Speak::Any, upstream, limit, &Unnoted).await?;
        let asked = match connected.stream {
            Stream::Tcp(tcp) => ask(TokioIo::new(tcp), connected.http2, origin, path).await,
            Stream::Tls(tls) => ask(TokioIo::new(*tls), connected.http2, origin, path).await,
        };
        asked.map_err(|source| Error::Protocol { upstream: upstream.clone(), source })
    };
    let limit_s = limit.as_secs();
    let late = |_| Error::ResponseTimeout { upstream: upstream.clone(), limit_s };
    timeout(limit, exchange).await.map_err(late)?
}

async fn ask<T>(io: T, http2: bool, origin: &Origin, path: &str) -> Result<Answer, Source>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let authority = std::str::from_utf8(&origin.authority)?;
    let request = http::Request::get(match http2 {
        true => format!("{}://{authority}{path}", if origin.tls { "https" } else { "http" }),
        false => path.to_owned(),
    });
    let request = request.header("user-agent", format!("tidegate/{VERSION} (health check)"));
    if http2 {
        let request = request.body(Empty::<Bytes>::new())?;
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
        let (mut sender, connection) = handshake.await?;
        let driven = Driven(tokio::spawn(connection));
        let answer = read(sender.send_request(request).await?).await;
        drop(driven);
        return answer;
    }
    let request = request.header("host", authority).header("connection", "close");
    let request = request.body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let driven = Driven(tokio::spawn(connection));
    let answer = read(sender.send_request(request).await?).await;
    drop(driven);
    answer
}

async fn read(response: http::Response<Incoming>) -> Result<Answer, Source> {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await?.to_bytes();
    Ok(Answer { status, body })
}

/// The task of a connection, which ends with whoever uses that.
struct Driven(tokio::task::JoinHandle<Result<(), hyper::Error>>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}
