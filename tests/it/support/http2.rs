//! Callers and upstreams by hyper: HTTP/2, and TLS. They are lawful, so a library will do.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::canary::{CALLERS_FIELDS, OF_CALLER};

/// A body of any kind.
pub(crate) type Body = BoxBody<Bytes, BoxError>;

/// Why a body breaks off.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The other end of a body that is sent piece by piece.
pub(crate) type Pieces = http_body_util::channel::Sender<Bytes, BoxError>;

/// One connection of a caller.
pub(crate) type Http2Caller = SendRequest<Body>;

/// How an upstream is spoken to.
#[derive(Clone)]
pub(crate) enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 at once.
    Http2,
    /// Either, as the first bytes say.
    Either,
    /// What is agreed on in the handshake.
    Tls(Arc<rustls::ServerConfig>),
}

/// A body that is there already.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body that is sent piece by piece.
pub(crate) fn piecewise() -> (Pieces, Body) {
    let (sender, body) = http_body_util::channel::Channel::new(1);
    (sender, body.boxed())
}

/// Connects by HTTP/2 at once.
pub(crate) async fn http2_caller(address: SocketAddr) -> Http2Caller {
    let tcp = TcpStream::connect(address).await.expect("somebody listens");
    tcp.set_nodelay(true).expect("a socket");
    let (caller, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp))
            .await
            .expect("HTTP/2 is spoken");
    tokio::spawn(connection);
    caller
}

/// A call to this path.
pub(crate) fn http2_post(path: &str, body: Body) -> Request<Body> {
    let uri = format!("http://api.example{path}");
    let request = Request::post(uri).header("content-type", "application/json");
    let with_keys = CALLERS_FIELDS.into_iter().fold(request, |request, (name, before)| {
        request.header(name.to_ascii_lowercase(), format!("{before}{OF_CALLER}"))
    });
    with_keys.body(body).expect("a request")
}

/// Reads a body to its end.
pub(crate) async fn whole(body: Incoming) -> Result<Bytes, hyper::Error> {
    Ok(body.collect().await?.to_bytes())
}

/// Serves every request by this function.
pub(crate) async fn serve<F, R>(speaks: Speaks, answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tcp.set_nodelay(true).expect("a socket");
            tokio::spawn(connection(tcp, speaks.clone(), answer.clone()));
        }
    });
    address
}

async fn connection<F, R>(tcp: TcpStream, speaks: Speaks, answer: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(request);
        async { Ok::<_, hyper::Error>(answer.await) }
    });
    let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let http1 = hyper::server::conn::http1::Builder::new();
    // How a connection ends is for the tests to judge by what they see.
    let _ = match speaks {
        Speaks::Http1 => http1.serve_connection(TokioIo::new(tcp), service).with_upgrades().await,
        Speaks::Http2 => http2.serve_connection(TokioIo::new(tcp), service).await,
        Speaks::Either => {
            let mut start = [0; 3];
            while tcp.peek(&mut start).await.is_ok_and(|length| (1..3).contains(&length)) {}
            match &start {
                b"PRI" => http2.serve_connection(TokioIo::new(tcp), service).await,
                _ => http1.serve_connection(TokioIo::new(tcp), service).await,
            }
        }
        Speaks::Tls(config) => {
            let Ok(tls) = TlsAcceptor::from(config).accept(tcp).await else { return };
            let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            let io = TokioIo::new(tls);
            match is_http2 {
                true => http2.serve_connection(io, service).await,
                false => http1.serve_connection(io, service).with_upgrades().await,
            }
        }
    };
}
