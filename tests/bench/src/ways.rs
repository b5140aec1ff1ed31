//! What it costs to take calls in as their proxy, beside calls to the sidecar's own address: CPU for
//! each call, chunk and handshake, the delay of a first token, and the memory of a connection.
//!
//! Both ends are here, by TLS; between them stands a sidecar of its own for each way and round.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, LocalSet};

use tidegate_bench::machine::{self, Cores};
use tidegate_bench::usage;

const CONNECTIONS: usize = 16;
/// Chunks of one stream, back to back.
const CHUNKS: usize = 100;
const HOST: &str = "localhost";
const START_LIMIT: Duration = Duration::from_secs(20);

/// Measures what taking calls in as their proxy costs, beside calls to the sidecar's own address.
///
/// Every figure is the median over the rounds; a ratio is the median of the ratios within each round.
/// CPU is that of the sidecar alone. Keep the machine quiet: both cores are needed.
#[derive(Parser)]
#[command(name = "tidegate-bench-ways")]
struct Args {
    /// One round of few calls: whether it works, not how fast it is.
    #[arg(long)]
    quick: bool,

    /// Rounds, in each of which all ways take turns.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,

    /// The sidecar to measure [default: beside this program].
    #[arg(long, value_name = "FILE")]
    tidegate: Option<PathBuf>,

    /// Also write every figure of every round to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How calls come to the upstream, which takes them by TLS alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Without a sidecar.
    Direct,
    /// To the sidecar's own address, in the clear.
    BaseUrl,
    /// The same by TLS.
    BaseUrlTls,
    /// By CONNECT and TLS that ends in the sidecar.
    Proxy,
}

const WAYS: [(Way, &str); 4] = [
    (Way::Direct, "direct"),
    (Way::BaseUrl, "base URL"),
    (Way::BaseUrlTls, "base URL, TLS"),
    (Way::Proxy, "proxy"),
];

/// What is asked of each way.
const FIGURES: [(&str, &str); 6] = [
    ("CPU per call", "µs"),
    ("CPU per chunk", "µs"),
    ("CPU per new connection", "µs"),
    ("new connections per second and core", "/s"),
    ("first token, median", "µs"),
    ("memory per connection", "KiB"),
];

/// The figures of one way in one round; none of what has no sidecar.
type Figures = [Option<f64>; FIGURES.len()];

/// How often each thing is done.
#[derive(Clone, Copy)]
struct Size {
    rounds: usize,
    calls: usize,
    streams: usize,
    handshakes: usize,
    firsts: usize,
    idle: usize,
}

const FULL: Size =
    Size { rounds: 7, calls: 8_000, streams: 320, handshakes: 1_600, firsts: 400, idle: 500 };
const QUICK: Size =
    Size { rounds: 1, calls: 160, streams: 16, handshakes: 32, firsts: 10, idle: 20 };

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-bench-ways: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let cores = Cores::take()?;
    let beside = std::env::current_exe()?.with_file_name("tidegate");
    let tidegate = args.tidegate.clone().unwrap_or(beside);
    let size = if args.quick { QUICK } else { FULL };
    let size = Size { rounds: args.rounds.unwrap_or(size.rounds).max(1), ..size };
    let folder = std::env::temp_dir().join(format!("tidegate-bench-ways-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    println!("{}; {}; load {:.1}", machine::describe(), cores.describe(), machine::load_average());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rounds = LocalSet::new().block_on(&runtime, async {
        let upstream = Upstream::start(&folder).await?;
        let mut rounds = Vec::new();
        for round in 0..size.rounds {
            let mut figures = Vec::new();
            // The order turns, so that none is always the first.
            for at in 0..WAYS.len() {
                let (way, _) = WAYS[(at + round) % WAYS.len()];
                let bench = Bench::start(way, cores, &tidegate, &folder, &upstream).await?;
                figures.push((way, bench.measure(size).await?));
            }
            rounds.push(figures);
            eprintln!("round {} of {}", round + 1, size.rounds);
        }
        Ok::<_, anyhow::Error>(rounds)
    });
    fs::remove_dir_all(&folder)?;
    let rounds = rounds?;
    if let Some(file) = &args.json {
        fs::write(file, written(&rounds))?;
    }
    show(&rounds);
    Ok(())
}

// === the upstream ===

/// A provider by TLS, and whom it is trusted by.
struct Upstream {
    address: SocketAddr,
    roots: PathBuf,
}

impl Upstream {
    async fn start(folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
        let roots = folder.join("provider.pem");
        fs::write(&roots, made.cert.pem())?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())?;
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::task::spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::task::spawn_local(async move {
                    tcp.set_nodelay(true)?;
                    // How a connection ends is for the callers to judge.
                    answer(acceptor.accept(tcp).await?).await
                });
            }
        });
        Ok(Self { address, roots })
    }
}

/// Answers calls, one after the other, as their paths ask.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut seen = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut seen).await? == 0 {
                return Ok(());
            }
        };
        let is_stream = seen[..head].windows(7).any(|part| part == b"/stream");
        while seen.len() < head + BODY.len() {
            stream.read_buf(&mut seen).await?;
        }
        seen.drain(..head + BODY.len());
        match is_stream {
            false => stream.write_all(&whole()).await?,
            true => {
                let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head).await?;
                for _ in 0..CHUNKS {
                    stream.write_all(CHUNK.as_bytes()).await?;
                    stream.flush().await?;
                    tokio::task::yield_now().await;
                }
                stream.write_all(b"0\r\n\r\n").await?;
            }
        }
        stream.flush().await?;
    }
}

const BODY: &str = r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Why does the tide rise twice a day?"}]}"#;
/// 0x92 bytes of an event, as a chunk of its own.
const CHUNK: &str = "92\r\ndata: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" tide\"}}]}\n\n\r\n";

fn whole() -> Vec<u8> {
    let text = "The moon pulls. ".repeat(120);
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 480, "total_tokens": 490},
    })
    .to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
    format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes()
}

// === the sidecar ===

/// One way, and the sidecar that stands in it.
struct Bench {
    way: Way,
    sidecar: Option<Child>,
    /// Where callers connect, and the host that they mean.
    address: SocketAddr,
    authority: String,
    tls: Arc<rustls::ClientConfig>,
}

impl Bench {
    async fn start(
        way: Way,
        cores: Cores,
        tidegate: &Path,
        folder: &Path,
        upstream: &Upstream,
    ) -> Result<Self> {
        let authority = format!("{HOST}:{}", upstream.address.port());
        if way == Way::Direct {
            let (address, tls) = (upstream.address, trusting(&upstream.roots)?);
            return Ok(Self { way, sidecar: None, address, authority, tls });
        }
        let (listen, proxy, admin) = (free()?, free()?, free()?);
        let config = folder.join("tidegate.yaml");
        let (place, roots) = (folder.display(), upstream.roots.display());
        fs::write(
            &config,
            format!(
                "tls: {{}}\nca: {{ folder: '{place}/ca' }}\n\
                 intercept: {{ listen: '{proxy}', hosts: [{HOST}], local: true }}\n\
                 upstreams: {{ provider: {{ url: 'https://{authority}', tls: {{ roots: '{roots}' }} }} }}\n\
                 routes: [{{ match: {{ host: {HOST} }}, upstream: provider }}, {{ upstream: provider }}]\n"
            ),
        )?;
        let mut command = cores.command(tidegate.to_str().context("a path that is UTF-8")?);
        command.args(["proxy", "--workers", "1", "--config"]).arg(&config);
        command.args(["--listen", &listen.to_string(), "--admin", &admin.to_string(), "--records"]);
        command.arg(folder.join("records.jsonl"));
        let log = folder.join("tidegate.log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let child = command.spawn().context("starting tidegate")?;
        let address = if way == Way::Proxy { proxy } else { listen };
        let mut bench =
            Self { way, sidecar: Some(child), address, authority, tls: trusting(&upstream.roots)? };
        let roots = folder.join("ca/ca.pem");
        bench.starts(proxy, &roots, &log).await?;
        bench.tls = trusting(&roots)?;
        Ok(bench)
    }

    /// Waits until it listens, and has made its authority, which comes after that.
    async fn starts(&mut self, last: SocketAddr, roots: &Path, log: &Path) -> Result<()> {
        let begin = Instant::now();
        while !roots.exists() || TcpStream::connect(last).await.is_err() {
            let ended = self.sidecar.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || begin.elapsed() > START_LIMIT {
                bail!("tidegate does not listen:\n{}", fs::read_to_string(log)?.trim());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn cpu(&self) -> Result<Duration> {
        self.sidecar.as_ref().map_or(Ok(Duration::ZERO), |child| usage::cpu(child.id()))
    }

    fn anonymous(&self) -> Result<u64> {
        let memory = self.sidecar.as_ref().map(|child| usage::memory(child.id())).transpose()?;
        Ok(memory.map_or(0, |memory| memory.anonymous))
    }

    /// Connects as a caller does, up to where a call can be made.
    async fn connect(&self) -> Result<Caller> {
        let mut tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        if self.way == Way::BaseUrl {
            return Ok(Caller { stream: Box::new(tcp), seen: Vec::new() });
        }
        if self.way == Way::Proxy {
            let authority = &self.authority;
            let asked = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
            tcp.write_all(asked.as_bytes()).await?;
            let mut head = [0; 256];
            let read = tcp.read(&mut head).await?;
            ensure!(head[..read].starts_with(b"HTTP/1.1 200 "), "no tunnel");
        }
        let name = ServerName::try_from(HOST)?;
        let stream = tokio_rustls::TlsConnector::from(self.tls.clone()).connect(name, tcp).await?;
        Ok(Caller { stream: Box::new(stream), seen: Vec::new() })
    }

    /// All figures of this way; the order is that of `FIGURES`.
    async fn measure(self, size: Size) -> Result<Figures> {
        let per = |spent: Duration, count: usize| spent.as_secs_f64() * 1e6 / count as f64;
        let call = request("/v1/chat/completions", &self.authority);
        let stream = request("/stream/v1/chat/completions", &self.authority);
        // What is idle is measured first: memory of what comes later would be used again.
        self.connect().await?.call(&call).await?;
        let before = self.anonymous()?;
        let mut idle = Vec::new();
        for _ in 0..size.idle {
            let mut caller = self.connect().await?;
            caller.call(&call).await?;
            idle.push(caller);
        }
        let memory = self.anonymous()?.saturating_sub(before) as f64 / 1024.0 / size.idle as f64;
        drop(idle);
        // Warm, so that nothing is done for the first time.
        self.kept(size.calls / 10, &call).await?;
        let per_call = per(self.kept(size.calls, &call).await?, size.calls);
        let per_stream = per(self.kept(size.streams, &stream).await?, size.streams);
        let begin = self.cpu()?;
        for _ in 0..size.handshakes {
            self.connect().await?.call(&call).await?;
        }
        let fresh = per(self.cpu()? - begin, size.handshakes);
        let mut caller = self.connect().await?;
        let mut firsts = Vec::new();
        for _ in 0..size.firsts {
            firsts.push(caller.call(&stream).await?.as_secs_f64() * 1e6);
        }
        let first = median(&mut firsts);
        let handshake = fresh - per_call;
        let of_sidecar = |figure| self.sidecar.is_some().then_some(figure);
        Ok([
            of_sidecar(per_call),
            of_sidecar((per_stream - per_call) / CHUNKS as f64),
            of_sidecar(handshake),
            of_sidecar(1e6 / handshake),
            Some(first),
            of_sidecar(memory),
        ])
    }

    /// What the sidecar spends on so many calls, on kept connections.
    async fn kept(&self, calls: usize, asked: &Arc<[u8]>) -> Result<Duration> {
        let mut callers = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut caller = self.connect().await?;
            caller.call(asked).await?;
            callers.push(caller);
        }
        let begin = self.cpu()?;
        let mut running = JoinSet::new();
        for mut caller in callers {
            let asked = asked.clone();
            running.spawn_local(async move {
                for _ in 0..calls / CONNECTIONS {
                    caller.call(&asked).await?;
                }
                Ok::<_, anyhow::Error>(())
            });
        }
        while let Some(ran) = running.join_next().await {
            ran??;
        }
        Ok(self.cpu()? - begin)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(sidecar) = &mut self.sidecar {
            // It may have ended by itself.
            let _ = sidecar.kill();
            let _ = sidecar.wait();
        }
    }
}

// === a caller ===

trait Both: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

/// One connection.
struct Caller {
    stream: Box<dyn Both>,
    seen: Vec<u8>,
}

impl Caller {
    /// Makes a call; how long its first event took, or all of it where it is none.
    async fn call(&mut self, asked: &[u8]) -> Result<Duration> {
        let begin = Instant::now();
        self.stream.write_all(asked).await?;
        self.stream.flush().await?;
        self.seen.clear();
        let mut first = None;
        loop {
            let read = self.stream.read_buf(&mut self.seen).await?;
            ensure!(read > 0, "the connection has ended: {}", String::from_utf8_lossy(&self.seen));
            let Some(head) = self.seen.windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            let body = &self.seen[head + 4..];
            if first.is_none() && !body.is_empty() {
                ensure!(self.seen.starts_with(b"HTTP/1.1 200 "), "no good answer");
                first = Some(begin.elapsed());
            }
            if is_over(&self.seen[..head], body)? {
                return Ok(first.unwrap_or_else(|| begin.elapsed()));
            }
        }
    }
}

/// Whether a body is all there, by its head.
fn is_over(head: &[u8], body: &[u8]) -> Result<bool> {
    let head = std::str::from_utf8(head)?.to_ascii_lowercase();
    let Some((_, length)) = head.split_once("content-length:") else {
        return Ok(body.ends_with(b"\r\n0\r\n\r\n"));
    };
    let length: usize = length.lines().next().unwrap_or_default().trim().parse()?;
    Ok(body.len() == length)
}

fn request(path: &str, authority: &str) -> Arc<[u8]> {
    let fields = "Authorization: Bearer sk-bench\r\nContent-Type: application/json\r\nAccept: */*";
    let length = BODY.len();
    format!("POST {path} HTTP/1.1\r\nHost: {authority}\r\n{fields}\r\nContent-Length: {length}\r\n\r\n{BODY}")
        .into_bytes()
        .into()
}

fn trusting(roots: &Path) -> Result<Arc<rustls::ClientConfig>> {
    let mut store = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(roots)? {
        store.add(root?)?;
    }
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// An address that was free a moment ago.
fn free() -> Result<SocketAddr> {
    Ok(StdListener::bind("127.0.0.1:0")?.local_addr()?)
}

// === what is told ===

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

type Rounds = [Vec<(Way, Figures)>];

/// The figures of one way, round by round.
fn of(rounds: &Rounds, way: Way, figure: usize) -> Vec<f64> {
    let found = |round: &Vec<(Way, Figures)>| {
        round.iter().find(|(this, _)| *this == way).and_then(|(_, figures)| figures[figure])
    };
    rounds.iter().filter_map(found).collect()
}

fn show(rounds: &Rounds) {
    print!("{:<38}", "");
    WAYS.iter().for_each(|(_, name)| print!("{name:>15}"));
    println!("{:>18}{:>18}", "proxy / base URL", "proxy / with TLS");
    for (at, (name, unit)) in FIGURES.iter().enumerate() {
        print!("{:<38}", format!("{name}, {unit}"));
        for (way, _) in WAYS {
            match of(rounds, way, at).as_mut_slice() {
                [] => print!("{:>15}", "-"),
                values => print!("{:>15.1}", median(values)),
            }
        }
        for other in [Way::BaseUrl, Way::BaseUrlTls] {
            let (ours, others) = (of(rounds, Way::Proxy, at), of(rounds, other, at));
            let mut ratios: Vec<_> = ours.iter().zip(&others).map(|(a, b)| a / b).collect();
            print!("{:>18.2}", median(&mut ratios));
        }
        println!();
    }
    let added = |way| {
        let (with, without) = (of(rounds, way, 4), of(rounds, Way::Direct, 4));
        median(&mut with.iter().zip(&without).map(|(a, b)| a - b).collect::<Vec<_>>())
    };
    print!("{:<38}{:>15}", "added to the first token, µs", "-");
    for (way, _) in &WAYS[1..] {
        print!("{:>15.1}", added(*way));
    }
    println!("\n{} rounds; load {:.1}", rounds.len(), machine::load_average());
}

fn written(rounds: &Rounds) -> String {
    let of_way = |(way, figures): &(Way, Figures)| {
        let named = FIGURES
            .iter()
            .zip(figures)
            .map(|((name, unit), figure)| (format!("{name}, {unit}"), json!(figure)));
        json!({ "way": format!("{way:?}"), "figures": named.collect::<serde_json::Map<_, _>>() })
    };
    let rounds: Vec<Vec<_>> =
        rounds.iter().map(|round| round.iter().map(of_way).collect()).collect();
    format!("{:#}\n", json!(rounds))
}
