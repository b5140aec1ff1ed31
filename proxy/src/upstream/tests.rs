//! Names whose addresses change, over real sockets: a sidecar that is told what a name stands for.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::resolve::{Resolver, Resolving};
use crate::layer::quota::Clock;
use crate::{Config, Sidecar};

/// Where a test gives up.
const STOP: Duration = Duration::from_secs(20);

/// A resolver that says what its test says.
#[derive(Debug, Default)]
struct Told {
    /// Absent: the name cannot be resolved.
    addresses: Mutex<Option<Vec<SocketAddr>>>,
    asked: AtomicUsize,
}

/// A server that answers with its own name, and holds answers back for which it is asked to.
struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    calls: AtomicUsize,
    /// Connections that are open.
    open: AtomicUsize,
    /// Whether answers that are held back may go on.
    released: Mutex<bool>,
    release: Condvar,
}

impl Resolver for Told {
    fn resolve(&self, host: &str, _: u16) -> Resolving {
        assert_eq!(host, "models.example");
        self.asked.fetch_add(1, SeqCst);
        let told = self.addresses.lock().expect("nobody panics with it").clone();
        Box::pin(async { told.ok_or_else(|| io::ErrorKind::NotFound.into()) })
    }
}

impl Told {
    /// From now on the name stands for these; returns once that has been heard.
    fn tell(&self, servers: Option<&[&Server]>) {
        let addresses = servers.map(|all| all.iter().map(|server| server.address).collect());
        *self.addresses.lock().expect("nobody panics with it") = addresses;
        let asked = self.asked.load(SeqCst);
        // What was asked before may still be on its way; what was heard is in use before the next.
        wait_until("it is asked", || self.asked.load(SeqCst) >= asked + 3);
    }
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        thread::spawn(move || {
            for tcp in listener.incoming() {
                let (tcp, seen) = (tcp.expect("a connection"), shared.clone());
                seen.open.fetch_add(1, SeqCst);
                thread::spawn(move || {
                    _ = serve(tcp, address.port(), &seen);
                    seen.open.fetch_sub(1, SeqCst);
                });
            }
        });
        Self { address, seen }
    }

    fn calls(&self) -> usize {
        self.seen.calls.load(SeqCst)
    }

    fn open(&self) -> usize {
        self.seen.open.load(SeqCst)
    }

    fn release(&self) {
        *self.seen.released.lock().expect("nobody panics with it") = true;
        self.seen.release.notify_all();
    }
}

fn serve(mut tcp: TcpStream, port: u16, seen: &Seen) -> io::Result<()> {
    let mut reader = BufReader::new(tcp.try_clone()?);
    while let Some(path) = head(&mut reader)? {
        seen.calls.fetch_add(1, SeqCst);
        let body = format!("{port:5}");
        write!(tcp, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", body.len(), &body[..2])?;
        if path == "/held" {
            let released = seen.released.lock().expect("nobody panics with it");
            let released = seen.release.wait_timeout_while(released, STOP, |released| !*released);
            drop(released.expect("nobody panics with it"));
        }
        tcp.write_all(&body.as_bytes()[2..])?;
    }
    Ok(())
}

/// The path of the next request, if there is one.
fn head(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    Ok(first.split(' ').nth(1).map(str::to_owned))
}

/// Begins a call; the port of its server comes with the rest of the answer.
fn begin(sidecar: &Sidecar, path: &str) -> TcpStream {
    let mut tcp = TcpStream::connect(sidecar.address).expect("it listens");
    tcp.set_read_timeout(Some(STOP)).expect("a limit that is not zero");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).expect("it is taken");
    tcp
}

fn finish(mut tcp: TcpStream) -> u16 {
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer[answer.len() - 5..].trim().parse().expect("a port")
}

fn call(sidecar: &Sidecar) -> u16 {
    finish(begin(sidecar, "/"))
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < STOP, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn sidecar(dns: &str, told: &Arc<Told>) -> Sidecar {
    let config = Config::parse(&format!(
        "{{ listen: '127.0.0.1:0', admin: '127.0.0.1:0', workers: 1, \
         upstreams: {{ a: {{ url: 'http://models.example', balance: {{ dns: {dns} }} }} }}, \
         routes: [{{ upstream: a }}] }}"
    ));
    let config = config.expect("a good configuration");
    Sidecar::start_with(config, told.clone(), Clock::system()).expect("it starts")
}

#[test]
fn calls_follow_a_name_to_other_addresses_and_those_in_flight_end_where_they_are() {
    let (first, second, told) = (Server::start(), Server::start(), Arc::new(Told::default()));
    let sidecar = sidecar("{ interval: 5ms }", &told);
    told.tell(Some(&[&first]));
    assert_eq!(call(&sidecar), first.address.port());
    let held = begin(&sidecar, "/held");
    wait_until("it is there", || first.calls() == 2);
    assert_eq!(call(&sidecar), first.address.port());
    assert_eq!(first.open(), 2, "one that is idle, and one with a call");

    told.tell(Some(&[&second]));
    for _ in 0..5 {
        assert_eq!(call(&sidecar), second.address.port());
    }
    wait_until("the idle connection is closed", || first.open() == 1);
    first.release();
    assert_eq!(finish(held), first.address.port());
    wait_until("the last connection is closed", || first.open() == 0);
    assert_eq!(first.calls(), 3);
    sidecar.stop();
}

#[test]
fn each_address_of_a_name_has_calls() {
    let (servers, told) = ([(); 3].map(|()| Server::start()), Arc::new(Told::default()));
    let sidecar = sidecar("{ interval: 5ms }", &told);
    told.tell(Some(&servers.each_ref()));
    for _ in 0..30 {
        call(&sidecar);
    }
    let calls = servers.each_ref().map(Server::calls);
    assert!(calls.iter().all(|calls| *calls >= 5), "{calls:?}");
    sidecar.stop();
}

#[test]
fn a_name_that_cannot_be_resolved_any_more_keeps_its_address() {
    let (server, told) = (Server::start(), Arc::new(Told::default()));
    let sidecar = sidecar("{ interval: 5ms }", &told);
    told.tell(Some(&[&server]));
    assert_eq!(call(&sidecar), server.address.port());
    told.tell(None);
    assert_eq!(call(&sidecar), server.address.port());
    told.tell(Some(&[]));
    assert_eq!(call(&sidecar), server.address.port());
    sidecar.stop();
}

#[test]
fn a_stale_address_is_given_up_at_last() {
    let (server, told) = (Server::start(), Arc::new(Told::default()));
    let sidecar = sidecar("{ interval: 5ms, max_stale: 10ms }", &told);
    told.tell(Some(&[&server]));
    assert_eq!(call(&sidecar), server.address.port());
    told.tell(None);
    wait_until("the name itself is used, and is nobody's", || {
        let mut answer = String::new();
        begin(&sidecar, "/").read_to_string(&mut answer).expect("an answer");
        answer.starts_with("HTTP/1.1 502")
    });
    told.tell(Some(&[&server]));
    assert_eq!(call(&sidecar), server.address.port());
    sidecar.stop();
}
