//! The sidecar as a process of its own, as a user would run it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::wire::{Message, Wire};
use super::{Certificate, Folder, STOP, Upstream, canary, wait_until};

/// A sidecar about to be started.
pub(crate) struct Launch {
    command: Command,
    folder: Folder,
    workers: u16,
}

/// A sidecar that serves. It is killed where a test lets go of it without a word.
pub(crate) struct Sidecar {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    child: Child,
    folder: Folder,
    log: Arc<Mutex<String>>,
    /// What its admin address has said.
    answers: Mutex<Vec<u8>>,
    /// Reads its log.
    reader: Option<JoinHandle<()>>,
}

/// How long the admin address may take for what is only searched.
const BRIEF: Duration = Duration::from_secs(2);
/// What the admin address says to whoever asks.
const ADMIN: [&str; 4] = ["/metrics", "/", "/readyz", "/config"];

/// The program, with nothing in its environment that the test did not put there, but for secrets
/// that it must not show.
pub(crate) fn tidegate<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).env_clear().envs(canary::ENVIRONMENT);
    command
}

// === impl Launch ===

impl Launch {
    /// A sidecar on free ports that writes records.
    pub(crate) fn new() -> Self {
        let folder = Folder::new();
        let mut command = tidegate(["proxy", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.arg("--records").arg(folder.file("records.jsonl"));
        Self { command, folder, workers: 2 }
    }

    /// With so many workers.
    pub(crate) fn workers(self, workers: u16) -> Self {
        Self { workers, ..self }
    }

    /// With this configuration.
    pub(crate) fn config(mut self, text: &str) -> Self {
        let path = self.folder.file("tidegate.yaml");
        fs::write(&path, text).expect("a folder to write to");
        self.command.arg("--config").arg(path);
        self
    }

    /// With this argument.
    pub(crate) fn arg(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    /// With this in its environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Trusting this certificate and no other.
    pub(crate) fn trust(self, certificate: &Certificate) -> Self {
        let path = self.folder.file("roots.pem");
        fs::write(&path, certificate.pem()).expect("a folder to write to");
        self.env("SSL_CERT_FILE", path)
    }

    /// A file in the folder of its configuration.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.file(name)
    }

    /// Starts it, and waits until it serves.
    pub(crate) fn start(mut self) -> Sidecar {
        let mut child = self
            .command
            .args(["--workers", &self.workers.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program is built");
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, reader) = follow(&mut child, log.clone());
        let address = |what: &str| loop {
            let line = lines
                .recv_timeout(STOP)
                .unwrap_or_else(|_| panic!("no line `{what}`: {}", log.lock().expect("a log")));
            if let Some((_, address)) = line.split_once(what) {
                break address.trim().parse().expect("an address");
            }
        };
        let (address, admin) = (address("listening on "), address("admin on "));
        let answers = Mutex::default();
        Sidecar { address, admin, child, folder: self.folder, log, answers, reader: Some(reader) }
    }
}

/// Reads what a process logs, line by line, to its end.
fn follow(child: &mut Child, log: Arc<Mutex<String>>) -> (Receiver<String>, JoinHandle<()>) {
    let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let (sender, lines) = channel();
    let reader = thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            let mut log = log.lock().expect("nobody panics with it");
            log.push_str(&line);
            log.push('\n');
            drop(log);
            let _ = sender.send(line);
        }
    });
    (lines, reader)
}

// === impl Sidecar ===

impl Sidecar {
    /// Forwards everything to this upstream.
    pub(crate) fn to(upstream: &Upstream) -> Self {
        Launch::new().arg("--upstream").arg(&upstream.url()).start()
    }

    /// Forwards everything to this upstream, with more of a configuration.
    pub(crate) fn with(upstream: &Upstream, rest: &str) -> Self {
        Launch::new().config(rest).arg("--upstream").arg(&upstream.url()).start()
    }

    /// A caller's connection.
    pub(crate) fn connect(&self) -> Wire {
        Wire::to(self.address)
    }

    /// One call on a connection of its own.
    pub(crate) fn call(&self, request: impl AsRef<[u8]>) -> Message {
        self.connect().call(request)
    }

    /// Asks the admin address.
    pub(crate) fn ask(&self, path: &str) -> Message {
        let mut wire = Wire::to(self.admin);
        wire.send(format!("GET {path} HTTP/1.0\r\n\r\n"));
        let answer = wire.response_to("GET");
        self.answers.lock().expect("nobody panics with it").extend_from_slice(&answer.body);
        answer
    }

    /// Searches all that it has said and written for what was planted.
    fn search(&self) {
        let mut search = canary::Search::default();
        search.output("the log of a sidecar", self.log().as_bytes());
        let answers = self.answers.lock().expect("nobody panics with it");
        search.output("the admin address of a sidecar", &answers);
        for name in ["records.jsonl", "records.jsonl.1", "capture.jsonl"] {
            if let Ok(records) = fs::read(self.folder.file(name)) {
                search.output("the records and the capture of a sidecar", &records);
            }
        }
    }

    /// Asks for all that the admin address tells, where there still is one.
    fn ask_for_all(&self) {
        for path in ADMIN {
            let Ok(tcp) = TcpStream::connect_timeout(&self.admin, BRIEF) else { return };
            let is_set = tcp.set_read_timeout(Some(BRIEF)).and(tcp.set_write_timeout(Some(BRIEF)));
            let asked = (&tcp).write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
            let mut answer = Vec::new();
            if is_set.and(asked).and_then(|()| (&tcp).read_to_end(&mut answer)).is_err() {
                return;
            }
            self.answers.lock().expect("nobody panics with it").append(&mut answer);
        }
    }

    /// The sum of all series of a metric.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.ask("/metrics").text();
        let of_it = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        of_it
            .map(|line| line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()))
            .sum::<Option<_>>()
            .expect("numbers")
    }

    /// The records that are written by now.
    pub(crate) fn records(&self) -> Vec<Value> {
        let mut records = read_records(&self.folder.file("records.jsonl"));
        records.sort_by_key(|record| record["time"].as_str().map(str::to_owned));
        records
    }

    /// Waits for so many records; more may follow.
    pub(crate) fn wait_records(&self, count: usize) -> Vec<Value> {
        let mut records = Vec::new();
        wait_until(&format!("{count} records are written"), || {
            records = self.records();
            records.len() >= count
        });
        records
    }

    /// A file in the sidecar's own folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.file(name)
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("nobody panics with it").clone()
    }

    /// Ends it once no call is open; all that it has logged in its life.
    pub(crate) fn finish_log(mut self) -> String {
        self.ask_for_all();
        self.signal("INT");
        assert!(self.wait().success(), "{}", self.log());
        self.log()
    }

    /// Memory that it has in use, in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most that it has had in use, in KiB.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(path).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Processor time that it has used.
    pub(crate) fn processor_time(&self) -> Duration {
        // What `getconf CLK_TCK` says on every Linux that we run on.
        const TICK: Duration = Duration::from_millis(10);
        let path = format!("/proc/{}/stat", self.child.id());
        let text = fs::read_to_string(path).expect("it runs");
        let behind_name = text.rsplit(')').next().expect("a name in brackets");
        let ticks = behind_name.split_whitespace().skip(11).take(2);
        TICK * ticks.map(|text| text.parse::<u32>().expect("a number")).sum()
    }

    /// Threads that it has.
    pub(crate) fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs").count()
    }

    /// Sends a signal: `TERM`, `INT`, `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(kill.expect("kill is there").success());
    }

    /// Kills it on the spot.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the sidecar ends", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Ends it once no call is open; all records that it has written in its life.
    pub(crate) fn finish(mut self) -> Vec<Value> {
        self.ask_for_all();
        self.signal("INT");
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.log());
        assert!(!self.log().contains("panicked"), "{}", self.log());
        self.records()
    }

    /// Ends it once no call is open; the only record that it has written in its life.
    pub(crate) fn finish_with_one(self) -> Value {
        let mut records = self.finish();
        assert_eq!(records.len(), 1, "{records:#?}");
        records.remove(0)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.ask_for_all();
            let line = fs::read(format!("/proc/{}/cmdline", self.child.id()));
            let mut search = canary::Search::default();
            search.output("the command line of a sidecar", &line.unwrap_or_default());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The log ends with the process, but its reader may not be through with it.
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if !thread::panicking() {
            self.search();
        }
    }
}

/// The records in a file: each line is one, and whole.
pub(crate) fn read_records(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |at| &text[..at]);
    let record = |line: &str| serde_json::from_str(line).expect("each line is an object");
    whole.lines().map(record).collect()
}

/// An address at which nobody listens.
pub(crate) fn nowhere() -> SocketAddr {
    // Port 1 is nobody's on a machine that runs tests.
    SocketAddr::from((Ipv4Addr::LOCALHOST, 1))
}
