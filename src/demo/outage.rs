//! The chapter `outage`: a model server that fails in many ways, with and without the policies.
//!
//! One simulator fails, another is well. Two sidecars stand before them: a plain one, and one that
//! tries again, opens a breaker, limits the wait for a first token and falls back. In each phase
//! both get the same load at the same time, and both are new, so that no breaker remembers what
//! went wrong before.

use std::io::{Write, stdout};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;

use super::compare::{Recorded, Sent, Served};
use super::process::{Server, get, post};
use super::stand::Stand;
use super::{Files, Size};
use crate::Exit;
use table::{Row, Side};

mod table;

/// The users' calls: streams, so that there is a first token to wait for. The rest between two calls
/// keeps those that fail at once from taking the machine from the others.
const MIX: &str = "\
- call: anthropic/messages
  model: claude-sonnet-4-5
  stream: true
  input_tokens: 50
  think: 30ms
";

/// The policies of one side, with waits that are short enough to watch.
const POLICIES: &str = "\
upstreams:
  main:
    url: http://$main
    timeouts: { first_token: 500ms }
    breaker: { window: 5s, min_calls: 5, error_ratio: 30%, broken_ratio: 20%, open: 1s }
  other:
    url: http://$other
routes:
  - upstream: main
    retry: { wait: 20ms, limited: { attempts: 1 } }
    fallback: [{ upstream: other }]
";

/// The other side: the same upstream, and nothing else.
const PLAIN: &str = "\
upstreams: { main: { url: http://$main } }
routes: [{ upstream: main }]
";

/// What goes wrong for a while.
struct Phase {
    name: &'static str,
    /// What the simulator is told; nothing where its process is ended.
    fault: Option<&'static str>,
}

const PHASES: [Phase; 7] = [
    Phase { name: "all is well", fault: Some(r#"{"kind":"none"}"#) },
    Phase { name: "500 for half of the calls", fault: Some(r#"{"kind":"500","ratio":0.5}"#) },
    Phase {
        name: "429 for half, wait a second",
        fault: Some(r#"{"kind":"429","ratio":0.5,"retry_after":1}"#),
    },
    Phase {
        name: "overload inside a 200, for half",
        fault: Some(r#"{"kind":"overload","ratio":0.5}"#),
    },
    Phase { name: "half of the streams are cut", fault: Some(r#"{"kind":"cut","ratio":0.5}"#) },
    Phase {
        name: "first tokens after 2 s, for half",
        fault: Some(r#"{"kind":"slow","ratio":0.5,"ttft":"2s"}"#),
    },
    Phase { name: "connections are refused", fault: None },
];

/// The two simulators.
struct Upstreams {
    main_at: SocketAddr,
    _other: Server,
    other_at: SocketAddr,
    /// As long as it has not been ended.
    main: Option<Server>,
}

/// Shows the chapter, and whether the policies helped.
pub(super) async fn show(size: Size) -> anyhow::Result<Exit> {
    let files = Files::create()?;
    let mut upstreams = Upstreams::start(size).await?;
    let plain = upstreams.configuration(PLAIN);
    let policies = upstreams.configuration(POLICIES);
    let (main, other, users) = (upstreams.main_at, upstreams.other_at, size.users);
    eprintln!(
        "simulators on {main}, which will fail, and {other}; {users} users behind a plain sidecar, \
         and {users} behind one with these policies:\n\n{policies}"
    );
    let plain = files.write("plain.yaml", &plain)?;
    let policies = files.write("policies.yaml", &policies)?;
    let mix = files.write("mix.yaml", MIX)?;

    let mut rows = Vec::new();
    for (number, phase) in PHASES.iter().enumerate() {
        let seconds = size.duration.as_secs_f64();
        eprintln!("phase {} of {}, {seconds} s: {}", number + 1, PHASES.len(), phase.name);
        let stands = [
            Stand::start(format!("plain-{number}"), &plain, &files).await?,
            Stand::start(format!("policies-{number}"), &policies, &files).await?,
        ];
        rows.push(act(phase, stands, &mut upstreams, size, &mix).await?);
    }

    let mut results = stdout().lock();
    writeln!(results, "\n{}", table::grid(&rows))?;
    results.write_all(table::DEFINITIONS.as_bytes())?;
    writeln!(results, "{}", table::sentence(&rows))?;
    Ok(if table::is_shown(&rows) { Exit::Good } else { Exit::NotSo })
}

/// One phase: both sides under load while the upstream fails.
async fn act(
    phase: &Phase,
    stands: [Stand; 2],
    upstreams: &mut Upstreams,
    size: Size,
    mix: &Path,
) -> anyhow::Result<Row> {
    // The sidecars are there already: neither can be given the port of a simulator that ended.
    upstreams.fail(phase).await?;
    post(upstreams.other_at, "/-/reset", "").await?;
    let [plain, policies] = stands;
    let what = ["--mix".as_ref(), mix.as_ref()];
    tokio::try_join!(plain.load(size, &what), policies.load(size, &what))?;
    let plain = side(plain.end().await?, 0);
    let served = get(upstreams.other_at, "/-/served").await?;
    let served: Served = serde_json::from_str(&served).context("cannot read what was served")?;
    // Only the one side knows of the other upstream, so what that served were its attempts.
    let policies = side(policies.end().await?, served.calls);
    eprintln!("  errors: {} plain, {} with policies", plain.errors(), policies.errors());
    Ok(Row { phase: phase.name, plain, policies })
}

/// What one side saw, of whose attempts so many went elsewhere.
fn side((sent, recorded): (Sent, Recorded), elsewhere: u64) -> Side {
    let attempts: u64 = recorded.values().filter_map(|one| one.attempts).map(u64::from).sum();
    Side::of(sent.values().map(|call| &*call.record), attempts.saturating_sub(elsewhere))
}

// === impl Upstreams ===

impl Upstreams {
    async fn start(size: Size) -> anyhow::Result<Self> {
        let capacity = (2 * size.users.get()).to_string();
        let simulator = |name| {
            let times = ["--ttft", "40ms", "--tpot", "2ms", "--output-tokens", "16"];
            let place = ["sim", "--listen", "127.0.0.1:0", "--capacity", &capacity];
            Server::start(name, &[&place[..], &times].concat())
        };
        let (main, other) = (simulator("failing simulator")?, simulator("other simulator")?);
        let main_at = main.address("listening on ").await?;
        let other_at = other.address("listening on ").await?;
        Ok(Self { main: Some(main), main_at, _other: other, other_at })
    }

    fn configuration(&self, text: &str) -> String {
        let (main, other) = (self.main_at.to_string(), self.other_at.to_string());
        text.replace("$main", &main).replace("$other", &other)
    }

    /// Has the one of them fail as the phase says.
    async fn fail(&mut self, phase: &Phase) -> anyhow::Result<()> {
        match phase.fault {
            Some(fault) => post(self.main_at, "/-/fault", fault).await.map(drop),
            None => match self.main.take() {
                Some(main) => main.interrupt().await,
                None => Ok(()),
            },
        }
    }
}
