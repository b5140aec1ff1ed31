//! What stands between the callers and the mock: nothing, or one proxy as a process of its own.

use std::fmt;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use tidegate_bench::machine::Cores;

/// Until a proxy takes connections; under valgrind that takes a while.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The callers call the mock.
    Direct,
    Nginx,
    Haproxy,
    Tidegate,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Tidegate => "tidegate",
        };
        formatter.pad(name)
    }
}

impl Kind {
    /// What `program --version` says first; an error that tells what to do where it is not there.
    pub(crate) fn version(self, tidegate: &Path) -> Result<Option<String>> {
        let (command, hint) = match self {
            Self::Direct => return Ok(None),
            Self::Nginx => (
                ["nginx", "-v"],
                "install nginx (Debian: nginx-light), or leave it out with --targets",
            ),
            Self::Haproxy => (["haproxy", "-v"], "install haproxy, or leave it out with --targets"),
            Self::Tidegate => (
                [tidegate.to_str().context("the path of tidegate is not UTF-8")?, "--version"],
                "build it with `cargo build --release`, or name it with --tidegate",
            ),
        };
        let output = Command::new(command[0])
            .arg(command[1])
            .env("PATH", search_path())
            .output()
            .with_context(|| format!("{} cannot be run: {hint}", command[0]))?;
        let said = [output.stdout, output.stderr].concat();
        let line = String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned();
        Ok(Some(line))
    }
}

/// What every proxy is started with.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) cores: Cores,
    pub(crate) upstream: SocketAddr,
    /// Where tidegate sends its metrics.
    pub(crate) sink: SocketAddr,
    pub(crate) tidegate: PathBuf,
    /// Whether tidegate sends spans, too.
    pub(crate) spans: bool,
    /// For configurations, records and logs.
    pub(crate) folder: PathBuf,
}

impl Setup {
    /// Where tidegate writes its records.
    pub(crate) fn records(&self) -> PathBuf {
        self.folder.join("records.jsonl")
    }
}

/// A target that takes calls, until it is dropped.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    process: Option<Child>,
    log: PathBuf,
}

impl Target {
    /// Starts it; `cache` has tidegate keep answers.
    pub(crate) fn start(kind: Kind, setup: &Setup, cache: bool) -> Result<Self> {
        Self::start_under(&[], kind, setup, cache)
    }

    /// Starts the target as the last arguments of `wrapper`, which must become its process.
    pub(crate) fn start_under(
        wrapper: &[String],
        kind: Kind,
        setup: &Setup,
        cache: bool,
    ) -> Result<Self> {
        let log = setup.folder.join(format!("{kind}.log"));
        let address = free_address()?;
        let arguments = match kind {
            Kind::Direct => return Ok(Self { address: setup.upstream, process: None, log }),
            Kind::Nginx => nginx(address, setup)?,
            Kind::Haproxy => haproxy(address, setup)?,
            Kind::Tidegate => tidegate(address, setup, cache)?,
        };
        let line = [wrapper, &arguments].concat();
        let (program, arguments) = line.split_first().context("an empty command line")?;
        let process = setup
            .cores
            .command(program)
            .args(arguments)
            .env("PATH", search_path())
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", setup.sink))
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
            .env("OTEL_METRIC_EXPORT_INTERVAL", "5000")
            // What spans cost is a question of its own: --spans.
            .env("OTEL_TRACES_EXPORTER", if setup.spans { "otlp" } else { "none" })
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        let mut target = Self { address, process: Some(process), log };
        target.wait_until_it_listens()?;
        Ok(target)
    }

    /// The process to measure; none for the direct way.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Asks the process to end and waits until it has; what it said on standard error.
    pub(crate) fn stop(mut self) -> Result<String> {
        if let Some(mut process) = self.process.take() {
            // Every proxy here ends at once on this signal.
            Command::new("kill").args(["-INT", &process.id().to_string()]).status()?;
            let begin = Instant::now();
            while process.try_wait()?.is_none() {
                if begin.elapsed() > STOP_LIMIT {
                    process.kill()?;
                    process.wait()?;
                    bail!("the proxy did not end within {STOP_LIMIT:?} of SIGINT");
                }
                sleep(Duration::from_millis(10));
            }
        }
        Ok(fs::read_to_string(&self.log).unwrap_or_default())
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let begin = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.process.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || begin.elapsed() > START_LIMIT {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("the proxy does not listen on {}:\n{}", self.address, said.trim());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended by itself; then there is nothing to do.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// One process, one worker, connections kept to the upstream, nothing buffered, nothing logged.
fn nginx(address: SocketAddr, setup: &Setup) -> Result<Vec<String>> {
    let folder = setup.folder.display();
    let upstream = setup.upstream;
    let configuration = format!(
        r#"daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_rlimit_nofile 8192;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    tcp_nodelay on;
    client_max_body_size 0;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream mock {{
        server {upstream};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {address} backlog=4096;
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 300s;
        }}
    }}
}}
"#
    );
    let path = setup.folder.join("nginx.conf");
    fs::write(&path, configuration)?;
    Ok(["nginx", "-e", "stderr", "-c", text(&path)?].map(str::to_owned).to_vec())
}

fn haproxy(address: SocketAddr, setup: &Setup) -> Result<Vec<String>> {
    let upstream = setup.upstream;
    let configuration = format!(
        r"global
    nbthread 1
    maxconn 4000
defaults
    mode http
    option http-no-delay
    http-reuse always
    timeout connect 5s
    timeout client 300s
    timeout server 300s
frontend callers
    bind {address}
    default_backend mock
backend mock
    server mock {upstream}
"
    );
    let path = setup.folder.join("haproxy.cfg");
    fs::write(&path, configuration)?;
    Ok(["haproxy", "-db", "-f", text(&path)?].map(str::to_owned).to_vec())
}

/// Everything measured and exported: records to a file, metrics by Prometheus and OTLP.
fn tidegate(address: SocketAddr, setup: &Setup, cache: bool) -> Result<Vec<String>> {
    let records = setup.records();
    // One round's records are not in the next.
    if records.exists() {
        fs::remove_file(&records)?;
    }
    let file = setup.folder.join("tidegate.yaml");
    let policies = if cache { ", cache: {}" } else { "" };
    let routes = format!("routes: [{{ upstream: mock{policies} }}]");
    fs::write(
        &file,
        format!("upstreams: {{ mock: {{ url: 'http://{}' }} }}\n{routes}\n", setup.upstream),
    )?;
    let arguments = [
        text(&setup.tidegate)?,
        "proxy",
        "--config",
        text(&file)?,
        "--listen",
        &address.to_string(),
        "--admin",
        &free_address()?.to_string(),
        "--records",
        text(&records)?,
        "--workers",
        "1",
    ];
    Ok(arguments.map(str::to_owned).to_vec())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// An address that was free a moment ago.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Debian keeps nginx and haproxy where only root's path looks.
fn search_path() -> String {
    format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
