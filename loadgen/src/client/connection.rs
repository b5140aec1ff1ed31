//! Connections to a target, each carried by whoever waits for what comes of it.
//!
//! A client that hands each call to a task of its connection, and what comes back to the task of the call,
//! wakes twice for every token. Here the user that waits drives the connection itself.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::arrival::Arrivals;
use super::dial::{Dialer, Stream};

/// How long a connection may wait for its next call. Whoever translates addresses on the way forgets it
/// later on, and tells nobody.
const LONGEST_IDLE: Duration = Duration::from_secs(90);

/// Those to one target: as many as there are calls at once.
pub(super) struct Connections {
    dialer: Dialer,
    /// The last to come back is the first to be used again: it is the least likely to have been closed.
    idle: Mutex<Vec<Connection>>,
}

/// One of them; whoever has it makes one call by it at a time.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Nothing once it is closed.
    driver: Option<Box<http1::Connection<TokioIo<Stream>, Full<Bytes>>>>,
    arrivals: Arc<Arrivals>,
    idle_since: Instant,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// There is no connection.
    #[error("cannot connect")]
    Unconnected(#[source] std::io::Error),
    /// The connection was lost, or what came is no answer.
    #[error("no answer")]
    Failed(#[source] hyper::Error),
}

// === impl Connections ===

impl Connections {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self { dialer, idle: Mutex::default() }
    }

    /// Sends a request; the head of its answer, and the connection by which the rest comes.
    pub(super) async fn ask(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Connection, Response<Incoming>), Unanswered> {
        while let Some(mut connection) = self.idle().await {
            match connection.send(request).await {
                Ok(response) => return Ok((connection, response)),
                // It was closed before anything was sent, as servers do with what is idle.
                Err((_, Some(unsent))) => request = unsent,
                Err((error, None)) => return Err(Unanswered::Failed(error)),
            }
        }
        let mut connection = self.open().await?;
        let answer = connection.send(request).await;
        let response = answer.map_err(|(error, _)| Unanswered::Failed(error))?;
        Ok((connection, response))
    }

    /// Keeps a connection for the next call, once an answer is whole.
    pub(super) async fn give_back(&self, mut connection: Connection) {
        connection.idle_since = Instant::now();
        if connection.is_ready().await {
            self.lock().push(connection);
        }
    }

    /// One that can be used again.
    async fn idle(&self) -> Option<Connection> {
        loop {
            let mut connection = self.lock().pop()?;
            if connection.idle_since.elapsed() < LONGEST_IDLE && connection.is_ready().await {
                return Some(connection);
            }
        }
    }

    async fn open(&self) -> Result<Connection, Unanswered> {
        let (stream, arrivals) = self.dialer.dial().await.map_err(Unanswered::Unconnected)?;
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = shaken.map_err(Unanswered::Failed)?;
        let driver = Some(Box::new(driver));
        let mut connection = Connection { sender, driver, arrivals, idle_since: Instant::now() };
        // Before it is first driven it takes no request.
        connection.is_ready().await;
        Ok(connection)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Connection ===

impl Connection {
    /// When what was read last arrived.
    pub(super) fn arrived(&self) -> Instant {
        self.arrivals.latest()
    }

    /// The longest that anything of the answer lay here unread; nothing where no kernel tells.
    pub(super) fn longest_unread(&self) -> Option<Duration> {
        self.arrivals.longest_unread()
    }

    /// The next piece of an answer; nothing where it has come to its end.
    pub(super) async fn chunk(&mut self, body: &mut Incoming) -> Option<hyper::Result<Bytes>> {
        poll_fn(|context| {
            let there = poll_chunk(body, context);
            if there.is_ready() {
                return there;
            }
            self.drive(context);
            poll_chunk(body, context)
        })
        .await
    }

    /// Where nothing was sent, the request comes back.
    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, (hyper::Error, Option<Request<Full<Bytes>>>)> {
        // What came before is none of this answer.
        self.arrivals.longest_unread();
        let mut answer = pin!(self.sender.try_send_request(request));
        let answer = poll_fn(|context| {
            self.drive(context);
            answer.as_mut().poll(context)
        });
        answer.await.map_err(|mut error| {
            let unsent = error.take_message();
            (error.into_error(), unsent)
        })
    }

    /// Whether it takes a request at once.
    async fn is_ready(&mut self) -> bool {
        poll_fn(|context| {
            self.drive(context);
            Poll::Ready(matches!(self.sender.poll_ready(context), Poll::Ready(Ok(()))))
        })
        .await
    }

    /// Reads and writes what can be; what goes wrong is told to who waits for the answer.
    fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(context).is_ready()
        {
            self.driver = None;
        }
    }
}

fn poll_chunk(
    body: &mut Incoming,
    context: &mut Context<'_>,
) -> Poll<Option<hyper::Result<Bytes>>> {
    loop {
        match Pin::new(&mut *body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => return Poll::Ready(Some(Ok(bytes))),
                // Trailers tell nothing that is measured.
                Err(_) => continue,
            },
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    const LAST: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi";
    const UNTIL_CLOSED: &str = "HTTP/1.1 200 OK\r\n\r\nhi";
    const BROKEN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nhi";
    const PIECES: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntrailer: x\r\n\
        transfer-encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\nx: 1\r\n\r\n";

    /// Answers every request with the same bytes, and closes after each so many.
    async fn target(answer: &'static str, each: usize) -> (Connections, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let opened = Arc::new(AtomicUsize::new(0));
        let count = opened.clone();
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                count.fetch_add(1, Relaxed);
                tokio::spawn(serve(caller, answer, each));
            }
        });
        let url = format!("http://{address}").parse().expect("a URL");
        (Connections::new(Dialer::new(&url).expect("it needs no TLS")), opened)
    }

    async fn serve(mut caller: TcpStream, answer: &str, each: usize) {
        for _ in 0..each {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                match caller.read_u8().await {
                    Ok(byte) => request.push(byte),
                    Err(_) => return,
                }
            }
            caller.write_all(answer.as_bytes()).await.expect("somebody waits");
        }
    }

    async fn call(connections: &Connections) -> Result<String, String> {
        let request = Request::get("/").body(Full::default()).expect("it is one");
        let asked = connections.ask(request).await;
        let (mut connection, response) = asked.map_err(|error| error.to_string())?;
        let mut body = response.into_body();
        let mut whole = String::new();
        while let Some(chunk) = connection.chunk(&mut body).await {
            let chunk = chunk.map_err(|error| format!("{whole} and {error}"))?;
            whole.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        }
        connections.give_back(connection).await;
        Ok(whole)
    }

    #[tokio::test]
    async fn calls_one_after_another_share_a_connection() {
        for answer in [WHOLE, PIECES] {
            let (connections, opened) = target(answer, usize::MAX).await;
            for _ in 0..20 {
                assert_eq!(call(&connections).await.as_deref(), Ok("hi"));
            }
            assert_eq!(opened.load(Relaxed), 1, "{answer}");
        }
    }

    #[tokio::test]
    async fn calls_at_once_have_connections_of_their_own() {
        let (connections, opened) = target(WHOLE, usize::MAX).await;
        let connections = Arc::new(connections);
        let calls = (0..10).map(|_| {
            let connections = connections.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    assert_eq!(call(&connections).await.as_deref(), Ok("hi"));
                }
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.expect("it was answered");
        }
        assert!((1..=10).contains(&opened.load(Relaxed)), "{opened:?}");
    }

    #[tokio::test]
    async fn no_call_is_lost_to_a_connection_that_the_server_has_closed() {
        for (answer, each) in [(WHOLE, 1), (WHOLE, 3), (LAST, 1), (UNTIL_CLOSED, 1)] {
            let (connections, opened) = target(answer, each).await;
            for _ in 0..12 {
                assert_eq!(call(&connections).await.as_deref(), Ok("hi"));
                // Until the end of the connection is known here.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(opened.load(Relaxed), 12 / each, "{answer}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_told_from_a_whole_one_and_from_none() {
        let (connections, _) = target(BROKEN, 1).await;
        assert!(call(&connections).await.expect_err("it breaks off").starts_with("hi and "));
        let (connections, _) = target("", 1).await;
        assert_eq!(call(&connections).await.expect_err("there is none"), "no answer");
        let (connections, _) = target("HTTP/9 nonsense\r\n\r\n", 1).await;
        assert_eq!(call(&connections).await.expect_err("it is none"), "no answer");
        let nobody = Dialer::new(&"http://127.0.0.1:1".parse().expect("a URL")).expect("no TLS");
        let connections = Connections::new(nobody);
        assert_eq!(call(&connections).await.expect_err("nobody listens"), "cannot connect");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_idle_for_long_is_not_used_again() {
        let (connections, opened) = target(WHOLE, usize::MAX).await;
        for (idle, expected) in [(0, 1), (60, 1), (91, 2), (1, 2)] {
            tokio::time::sleep(Duration::from_secs(idle)).await;
            assert_eq!(call(&connections).await.as_deref(), Ok("hi"));
            assert_eq!(opened.load(Relaxed), expected, "after {idle} s");
        }
    }
}
