//! What the tests stand on: the program as a process, an upstream that does as told, and a caller
//! that writes its own bytes.

pub(crate) mod canary;
mod folder;
#[path = "../../support/grpc_messages.rs"]
mod grpc_messages;
mod http2;
mod messages;
#[path = "../../support/protobuf.rs"]
mod protobuf;
mod redis;
mod sidecar;
#[cfg(feature = "loadgen")]
mod simulator;
pub(crate) mod through;
mod tls;
mod upstream;
mod wire;

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

pub(crate) use folder::Folder;
pub(crate) use grpc_messages::{last, message, token};
pub(crate) use http2::*;
pub(crate) use messages::*;
pub(crate) use protobuf::field;
pub(crate) use redis::{Redis, Way, free_port};
pub(crate) use sidecar::{Launch, Sidecar, nowhere, read_records, tidegate};
#[cfg(feature = "loadgen")]
pub(crate) use simulator::Simulator;
pub(crate) use tls::Certificate;
pub(crate) use upstream::Upstream;
pub(crate) use wire::{End, Message, Wire};

/// Where a test gives up. Nothing that works comes near it.
pub(crate) const STOP: Duration = Duration::from_secs(20);

/// Looks again and again until something is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < STOP, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether somebody still holds a connection to this address that was closed there, and could know it.
pub(crate) fn is_seen_closed(address: SocketAddr) -> bool {
    const CLOSE_WAIT: &str = "08";
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let remote = format!(":{:04X}", address.port());
    table.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[2].ends_with(&remote) && fields[3] == CLOSE_WAIT
    })
}

/// Says aloud that a test cannot run here, and why.
pub(crate) fn skip(why: &str) {
    println!("SKIPPED: {why}");
}

/// Holds a script back until its test says so.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<(Mutex<usize>, Condvar)>);

impl Gate {
    /// Lets one through.
    pub(crate) fn open(&self) {
        *self.0.0.lock().expect("nobody panics with it") += 1;
        self.0.1.notify_all();
    }

    /// Waits to be let through.
    pub(crate) fn pass(&self) {
        let open = self.0.0.lock().expect("nobody panics with it");
        let waited = self.0.1.wait_timeout_while(open, STOP, |open| *open == 0);
        let (mut open, late) = waited.expect("nobody panics with it");
        assert!(!late.timed_out(), "waited in vain at a gate");
        *open -= 1;
    }
}

/// An upstream whose every answer waits until it is let go.
pub(crate) fn gated(answer: String) -> (Upstream, Gate) {
    let gate = Gate::default();
    let opened = gate.clone();
    let upstream = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            opened.pass();
            peer.wire.send(&answer);
        }
        peer.closed();
    });
    (upstream, gate)
}

/// An upstream that sends the first of these, and the second when it is told to.
pub(crate) fn in_two_parts(first: String, second: String) -> (Upstream, Gate) {
    let gate = Gate::default();
    let go = gate.clone();
    let upstream = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            peer.wire.send(&first);
            go.pass();
            if peer.wire.try_send(&second).is_err() {
                break;
            }
        }
        peer.closed();
    });
    (upstream, gate)
}

/// Asserts how a call ended, and who caused the error, if there was one.
#[track_caller]
pub(crate) fn assert_outcome(record: &serde_json::Value, outcome: &str, origin: Option<&str>) {
    let found = (&record["tidegate.outcome"], &record["tidegate.error.origin"]);
    assert_eq!(found, (&outcome.into(), &origin.into()), "{record:#}");
}
