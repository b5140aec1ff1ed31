//! A Redis of a test's own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{Certificate, Folder, wait_until};

/// A Redis that serves; it goes with its test.
pub(crate) struct Redis {
    pub(crate) port: u16,
    child: Child,
    folder: Folder,
    arguments: Vec<String>,
    has_tls: bool,
}

/// A way to a Redis that can be cut.
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    open: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

/// Tries to find a free port.
const TRIES: usize = 10;

impl Redis {
    /// One without any persistence; nothing, and that is said aloud, where there is no such program.
    pub(crate) fn start(arguments: &[&str]) -> Option<Self> {
        Self::launch(arguments.iter().map(|text| (*text).to_owned()).collect(), None)
    }

    /// One that speaks TLS alone, with this certificate.
    pub(crate) fn with_tls(certificate: &Certificate) -> Option<Self> {
        Self::launch(Vec::new(), Some(certificate))
    }

    fn launch(arguments: Vec<String>, certificate: Option<&Certificate>) -> Option<Self> {
        let is_there = Command::new("redis-server").arg("--version").output().is_ok();
        if !is_there {
            super::skip("redis-server is not installed");
            return None;
        }
        let folder = Folder::new();
        let mut arguments = arguments;
        if let Some(certificate) = certificate {
            let (cert, key) = (folder.file("cert.pem"), folder.file("key.pem"));
            std::fs::write(&cert, certificate.pem()).expect("a folder to write to");
            std::fs::write(&key, certificate.key_pem()).expect("a folder to write to");
            let file = |path: PathBuf| path.to_str().expect("a plain path").to_owned();
            let tls =
                ["--tls-auth-clients", "no", "--tls-cert-file", &file(cert)].map(str::to_owned);
            arguments.extend(tls);
            arguments.extend(["--tls-key-file".to_owned(), file(key)]);
        }
        for _ in 0..TRIES {
            let port = free_port();
            let mut child = spawn(port, &arguments, &folder, certificate.is_some());
            // Another may have taken the port meanwhile.
            if comes_up(&mut child, port) {
                let has_tls = certificate.is_some();
                return Some(Self { port, child, folder, arguments, has_tls });
            }
        }
        panic!("no port is free for redis-server");
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        match self.has_tls {
            true => format!("rediss://localhost:{}", self.port),
            false => format!("redis://127.0.0.1:{}", self.port),
        }
    }

    /// What it answers to this.
    pub(crate) fn ask(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(words).output();
        let output = output.expect("redis-cli comes with redis-server").stdout;
        String::from_utf8_lossy(&output).trim_end().to_owned()
    }

    /// The names of all keys that begin so.
    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let keys = self.ask(&["--raw", "KEYS", &format!("{prefix}*")]);
        keys.lines().map(str::to_owned).collect()
    }

    /// It stands still, and its connections with it.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// It goes on.
    pub(crate) fn go_on(&self) {
        self.signal("CONT");
    }

    /// It is gone, with all that it knew.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it has ended");
    }

    /// It is there again, and knows nothing.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.port, &self.arguments, &self.folder, self.has_tls);
        assert!(comes_up(&mut self.child, self.port), "its port is free still");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(status.expect("`kill` is there").success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, arguments: &[String], folder: &Folder, has_tls: bool) -> Child {
    let port = port.to_string();
    let (plain, tls) = if has_tls { ("0", &*port) } else { (&*port, "0") };
    Command::new("redis-server")
        .args(["--port", plain, "--tls-port", tls, "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(folder.file("."))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it is installed")
}

/// Whether it serves, rather than to end at once.
fn comes_up(child: &mut Child, port: u16) -> bool {
    let mut is_up = false;
    wait_until("redis-server serves or ends", || {
        let has_ended = child.try_wait().expect("it is our child").is_some();
        is_up = !has_ended && TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        is_up || has_ended
    });
    is_up
}

/// A port that nobody has at the moment.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound socket").port()
}

// === impl Way ===

impl Way {
    /// A way to this port of this machine.
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let way = Self { address, open: Arc::new(AtomicBool::new(true)), streams: Arc::default() };
        let (open, streams) = (way.open.clone(), way.streams.clone());
        thread::spawn(move || {
            for tcp in listener.incoming() {
                let near = tcp.expect("a connection");
                if !open.load(SeqCst) {
                    continue;
                }
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
                let clone = |stream: &TcpStream| stream.try_clone().expect("a socket");
                streams.lock().expect("nobody panics").extend([clone(&near), clone(&far)]);
                carry(clone(&near), clone(&far));
                carry(far, near);
            }
        });
        way
    }

    /// Nobody gets through any more.
    pub(crate) fn cut(&self) {
        self.open.store(false, SeqCst);
        for stream in self.streams.lock().expect("nobody panics").drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// It is open again.
    pub(crate) fn mend(&self) {
        self.open.store(true, SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n) = from.read(&mut bytes) {
            if n == 0 || to.write_all(&bytes[..n]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}
