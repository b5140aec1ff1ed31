//! An upstream that does as a test says, lawful or not.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

use super::wire::{End, Message, Wire};
use super::{canary, wait_until};

/// A server whose every connection is served by a script, in a thread of its own.
///
/// It lives as long as the process: a test holds what it has seen, not the server.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    connections: AtomicUsize,
    closed: AtomicUsize,
    requests: Mutex<Vec<Message>>,
}

/// One connection, as its script sees it.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Counts from 0.
    pub(crate) number: usize,
    pub(crate) wire: Wire,
    seen: Arc<Seen>,
}

impl Upstream {
    /// Serves each connection by this script. The connection closes with the script's end.
    pub(crate) fn new(script: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").expect("a free port"), script)
    }

    /// The same, on a socket of the test's own choice.
    pub(crate) fn at(listener: TcpListener, script: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().expect("a bound socket");
        let (seen, script) = (Arc::new(Seen::default()), Arc::new(script));
        let shared = seen.clone();
        thread::spawn(move || {
            for tcp in listener.incoming() {
                let wire = Wire::new(tcp.expect("a connection"));
                let number = shared.connections.fetch_add(1, SeqCst);
                let peer = Peer { number, wire, seen: shared.clone() };
                let script = script.clone();
                thread::spawn(move || script(peer));
            }
        });
        Self { address, seen }
    }

    /// Answers every request with the same bytes, and keeps connections open.
    pub(crate) fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(move |mut peer| {
            while peer.request().is_some() {
                peer.wire.send(&answer);
            }
            peer.closed();
        })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections that it has had.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(SeqCst)
    }

    /// The requests that its scripts have read.
    pub(crate) fn requests(&self) -> Vec<Message> {
        self.seen.requests.lock().expect("no script panics with it").clone()
    }

    /// The only request that it has read.
    pub(crate) fn request(&self) -> Message {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    /// Whether somebody still holds a connection that its script has closed, and could know it.
    pub(crate) fn is_seen_closed(&self) -> bool {
        super::is_seen_closed(self.address)
    }

    /// Waits until a script has seen its connection closed.
    pub(crate) fn wait_closed(&self) {
        self.wait_for_closed(1);
    }

    /// Waits until so many connections have closed.
    pub(crate) fn wait_for_closed(&self, count: usize) {
        wait_until("connections to the upstream close", || self.seen.closed.load(SeqCst) >= count);
    }
}

impl Peer {
    /// Reads a request, if another comes.
    pub(crate) fn request(&mut self) -> Option<Message> {
        let request = self.wire.request()?;
        self.note(request.clone());
        Some(request)
    }

    /// Reads no more than the head of a request.
    pub(crate) fn head(&mut self) -> Message {
        let head = self.wire.head().expect("a request");
        self.note(head.clone());
        head
    }

    /// Waits until the other side has closed, and notes that.
    pub(crate) fn closed(mut self) -> End {
        let end = self.wire.wait_closed();
        self.seen.closed.fetch_add(1, SeqCst);
        end
    }

    /// Closes, and notes that.
    pub(crate) fn close(self) {
        drop(self.wire);
        self.seen.closed.fetch_add(1, SeqCst);
    }

    fn note(&self, request: Message) {
        if request.line.starts_with("POST /v1/traces")
            || request.line.starts_with("POST /v1/metrics")
            || request.line.starts_with("POST /v1/logs")
        {
            canary::search_elsewhere("what a collector was sent", &request.body);
        }
        self.seen.requests.lock().expect("no script panics with it").push(request);
    }
}
