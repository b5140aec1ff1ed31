//! Load generators, each a process alone on its core.

use std::fmt;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tidegate_bench::machine::Cores;

/// How long a generator may take to end beyond its time.
const END_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Tidegate,
    Locust,
    Wrk,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Tidegate => "tidegate",
            Self::Locust => "locust",
            Self::Wrk => "wrk",
        };
        formatter.pad(name)
    }
}

/// What is asked, again and again, by each user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// A question of 1 KiB and a whole answer of 2 KiB.
    Whole,
    /// The same, and 20 chunks with a token each, 100 ms apart.
    Stream,
}

/// A closed loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) call: Call,
    pub(crate) users: usize,
    /// How long, the time for users to come in included.
    pub(crate) long: Duration,
}

/// The generators that take part.
pub(crate) struct Tools {
    kinds: Vec<Kind>,
    tidegate: PathBuf,
    folder: PathBuf,
}

/// One that runs.
#[derive(Debug)]
pub(crate) struct Running {
    process: Child,
    log: PathBuf,
}

/// A prompt, so that a question has 1 KiB.
const PROMPT_BYTES: usize = 900;
const PATH: &str = "/v1/chat/completions";
const AUTHORIZATION: &str = "Bearer sk-bench-0123456789abcdef";

/// A user of Locust as one is written for a model API: it takes each line in as it comes and notes when the
/// first token came.
const LOCUSTFILE: &str = r#"
import os, time
from locust import FastHttpUser, constant, task

BODY = open(os.environ["BENCH_BODY"], "rb").read()
HEADERS = {"Content-Type": "application/json", "Authorization": "AUTHORIZATION"}
STREAMS = b'"stream":true' in BODY

class Caller(FastHttpUser):
    wait_time = constant(0)

    @task
    def call(self):
        if not STREAMS:
            self.client.post("PATH", data=BODY, headers=HEADERS)
            return
        begin, first = time.perf_counter(), None
        for line in self.client.iter_lines("PATH", method="POST", data=BODY, headers=HEADERS):
            if first is None and line.startswith("data: "):
                first = (time.perf_counter() - begin) * 1000
        self.environment.events.request.fire(
            request_type="SSE", name="first token", response_time=first or 0, response_length=0,
            exception=None, context={})
"#;

// === impl Tools ===

impl Tools {
    /// Those that are wanted; an error that says what to do where one is not there.
    pub(crate) fn find(kinds: &[Kind], tidegate: Option<PathBuf>, folder: &Path) -> Result<Self> {
        let beside = std::env::current_exe()?.with_file_name("tidegate");
        let tools = Self {
            kinds: kinds.to_vec(),
            tidegate: tidegate.unwrap_or(beside),
            folder: folder.to_owned(),
        };
        for kind in kinds {
            tools.version(*kind)?;
        }
        for call in [Call::Whole, Call::Stream] {
            fs::write(tools.body_of(call), body(call))?;
            fs::write(tools.mix_of(call), mix(call))?;
            fs::write(tools.script_of(call), script(call))?;
        }
        let locustfile = LOCUSTFILE.replace("PATH", PATH).replace("AUTHORIZATION", AUTHORIZATION);
        fs::write(tools.folder.join("locustfile.py"), locustfile)?;
        Ok(tools)
    }

    pub(crate) fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    pub(crate) fn tidegate(&self) -> &Path {
        &self.tidegate
    }

    pub(crate) fn versions(&self) -> impl Iterator<Item = (Kind, String)> {
        self.kinds.iter().filter_map(|kind| Some((*kind, self.version(*kind).ok()?)))
    }

    fn version(&self, kind: Kind) -> Result<String> {
        let (program, hint) = match kind {
            Kind::Tidegate => (self.tidegate.clone(), "build it with `cargo build --release`"),
            Kind::Locust => ("locust".into(), "`pip install locust`, or leave it out with --tools"),
            Kind::Wrk => ("wrk".into(), "install it (Debian: wrk), or leave it out with --tools"),
        };
        let output = Command::new(&program)
            // wrk knows no such flag but says what it is all the same.
            .arg("--version")
            .output()
            .with_context(|| format!("{} cannot be run: {hint}", program.display()))?;
        let said = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned())
    }

    /// Starts a closed loop of one.
    pub(crate) fn start(
        &self,
        kind: Kind,
        cores: Cores,
        target: SocketAddr,
        load: Load,
    ) -> Result<Running> {
        let (url, users) = (format!("http://{target}"), load.users.to_string());
        let long = format!("{}s", load.long.as_secs());
        match kind {
            Kind::Tidegate => {
                let mix = self.mix_of(load.call);
                let duration = ["--users", &users, "--duration", &long];
                self.tidegate_load(
                    cores,
                    target,
                    &[&["--mix", text(&mix)?], &duration[..]].concat(),
                )
            }
            Kind::Locust => {
                let mut command = cores.command("locust");
                // All are in after five seconds.
                let arriving = load.users.div_ceil(5).to_string();
                command.args(["--headless", "--only-summary", "-u", &users, "-r", &arriving]);
                command.args(["-t", &long, "--host", &url, "-f"]);
                command.arg(self.folder.join("locustfile.py"));
                command.arg("--csv").arg(self.locust_csv());
                command.env("BENCH_BODY", self.body_of(load.call));
                self.spawn(command, "locust")
            }
            Kind::Wrk => {
                let mut command = cores.command("wrk");
                command.args(["-t", "1", "-c", &users, "-d", &long, "--timeout", "60s"]);
                command.arg("--latency").arg("-s").arg(self.script_of(load.call)).arg(&url);
                self.spawn(command, "wrk")
            }
        }
    }

    /// Starts a load test of ours; its report is in [`Tools::report`] once it has ended.
    pub(crate) fn tidegate_load(
        &self,
        cores: Cores,
        target: SocketAddr,
        arguments: &[&str],
    ) -> Result<Running> {
        let mut command = cores.command(text(&self.tidegate)?);
        command.args(["load", "--target", &format!("http://{target}"), "--json"]);
        command.arg(self.report()).args(arguments);
        self.spawn(command, "tidegate")
    }

    /// Starts a program of which nothing is to be read but its log.
    pub(crate) fn spawn(&self, mut command: Command, name: &str) -> Result<Running> {
        let log = self.folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let process = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Running { process, log })
    }

    pub(crate) fn report(&self) -> PathBuf {
        self.folder.join("report.json")
    }

    pub(crate) fn mix_of(&self, call: Call) -> PathBuf {
        self.folder.join(format!("{call:?}.yaml"))
    }

    fn body_of(&self, call: Call) -> PathBuf {
        self.folder.join(format!("{call:?}.json"))
    }

    fn script_of(&self, call: Call) -> PathBuf {
        self.folder.join(format!("{call:?}.lua"))
    }

    /// What the names of the files begin with in which Locust says what it measured.
    pub(crate) fn locust_csv(&self) -> PathBuf {
        self.folder.join("locust")
    }
}

// === impl Running ===

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits for its end, which comes by itself after so long; what it said.
    pub(crate) fn ended(mut self, long: Duration) -> Result<String> {
        let begin = Instant::now();
        while self.process.try_wait()?.is_none() {
            if begin.elapsed() > long + END_LIMIT {
                bail!("it does not end:\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(self.said())
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn streams(call: Call) -> &'static str {
    match call {
        Call::Whole => "",
        Call::Stream => r#","stream":true,"stream_options":{"include_usage":true}"#,
    }
}

fn body(call: Call) -> String {
    let prompt: String =
        "The tide rises, the tide falls. ".chars().cycle().take(PROMPT_BYTES).collect();
    let streams = streams(call);
    format!(
        r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{prompt}"}}],"max_tokens":512{streams}}}"#
    )
}

fn mix(call: Call) -> String {
    let stream = call == Call::Stream;
    format!("- {{ call: openai/chat, model: gpt-4o-mini, stream: {stream}, input_tokens: 200 }}\n")
}

fn script(call: Call) -> String {
    let body = body(call);
    format!(
        "wrk.method = 'POST'\nwrk.path = '{PATH}'\nwrk.body = [[{body}]]\n\
         wrk.headers['Content-Type'] = 'application/json'\n\
         wrk.headers['Authorization'] = '{AUTHORIZATION}'\n"
    )
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
