//! What each policy costs a call on which it need not act: time and allocations beyond those of the
//! same call without it.
//!
//! No socket and no second thread: a call goes, as it stands on the wire, through the route of a
//! configuration to an upstream whose answer is at hand. A new policy is a new entry of `POLICIES`.

use std::alloc::System;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tidegate_proxy::Config;
use tidegate_proxy::measure::Measured;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Measures what each policy costs a call on which it need not act.
///
/// Every figure is what a call takes beyond the same call without any policy: CPU time is the median
/// over rounds in which all take turns, allocations are exact. The allocator is the system's and
/// counts, so times are a little more than in the sidecar itself. Goals: one allocation for each
/// layer, and 2,000 ns for all at once.
#[derive(Parser)]
#[command(name = "tidegate-bench-policies")]
struct Args {
    /// Few calls: whether it works, not how fast it is.
    #[arg(long)]
    quick: bool,

    /// Also write everything to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Exit with 1 where a goal is missed.
    #[arg(long)]
    strict: bool,
}

/// A policy, as a configuration names it.
struct Policy {
    name: &'static str,
    /// Layers that this puts before an upstream.
    layers: usize,
    /// Its keys of the upstream; of the route; of the whole.
    upstream: &'static str,
    route: &'static str,
    rest: &'static str,
}

const POLICIES: &[Policy] = &[
    Policy { name: "total deadline", layers: 1, upstream: "", route: "timeout: 600s", rest: "" },
    Policy { name: "cache", layers: 1, upstream: "", route: "cache: {}", rest: "" },
    Policy {
        name: "include_usage",
        layers: 1,
        upstream: "",
        route: "include_usage: add",
        rest: "",
    },
    // What is made again is kept at hand.
    Policy { name: "retry, repeatable", layers: 2, upstream: "", route: "retry: {}", rest: "" },
    // To fall back one must hear how an attempt went, too.
    Policy {
        name: "fallback",
        layers: 3,
        upstream: "",
        route: "fallback: [{ upstream: spare }]",
        rest: "",
    },
    Policy { name: "breaker", layers: 1, upstream: "breaker: {}", route: "", rest: "" },
    // No layer: nothing may be allocated.
    Policy {
        name: "on_disconnect",
        layers: 0,
        upstream: "on_disconnect: { drain: {} }",
        route: "",
        rest: "",
    },
    Policy { name: "limit", layers: 1, upstream: "limit: {}", route: "", rest: "" },
    // One that holds of a budget what each call may use, and charges what it used.
    Policy {
        name: "quota",
        layers: 1,
        upstream: "",
        route: "",
        rest: "quotas: { all: { window: 1m, tokens: 1000000000000, mode: enforce } }",
    },
    // One whose name stands nowhere: the model is looked up, and no more.
    Policy {
        name: "aliases",
        layers: 1,
        upstream: "aliases: { other: name }",
        route: "",
        rest: "",
    },
    // No layer: a key is known again.
    Policy {
        name: "callers",
        layers: 0,
        upstream: "",
        route: "",
        rest: "callers: { known: { a: { keys: ['sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683'] } } }",
    },
    // No layer: the arm is drawn with the route.
    Policy {
        name: "split",
        layers: 0,
        upstream: "",
        route: "split: [{ weight: 90 }, { weight: 10, upstream: spare }]",
        rest: "",
    },
    // None is drawn.
    Policy {
        name: "shadow",
        layers: 1,
        upstream: "",
        route: "shadow: { upstream: spare, share: 0% }",
        rest: "",
    },
    // One that is not reached gives way to the next.
    Policy { name: "balancer", layers: 2, upstream: "balance: {}", route: "", rest: "" },
];

/// What one call may cost with all policies, in nanoseconds.
const GOAL_NS: f64 = 2_000.0;

/// A call and its answer, head and body.
struct Case {
    name: &'static str,
    request: Vec<u8>,
    answer: Vec<u8>,
}

/// A configuration that is measured.
struct Subject {
    name: String,
    layers: usize,
    measured: Measured,
    /// Nanoseconds of a call, by round.
    times: Vec<f64>,
    allocations: f64,
}

/// What is told of one.
struct Row {
    name: String,
    nanoseconds: f64,
    allocations: f64,
    layers: usize,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("tidegate-bench-policies: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// True unless a goal was missed where that matters.
fn run(args: &Args) -> Result<bool> {
    let (rounds, calls) = if args.quick { (3, 100) } else { (41, 2_000) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut met = true;
    let mut written = Vec::new();
    for case in cases() {
        let rows = runtime.block_on(tokio::task::unconstrained(measure(&case, rounds, calls)))?;
        print(case.name, &rows);
        met &= rows.iter().skip(1).all(Row::is_met);
        written.push(json!({
            "case": case.name,
            "policies": rows.iter().map(Row::json).collect::<Vec<_>>(),
        }));
    }
    if let Some(file) = &args.json {
        fs::write(file, format!("{:#}\n", json!(written)))
            .with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(met || !args.strict)
}

// === what is measured ===

/// The same call through each policy, one after the other, round after round.
async fn measure(case: &Case, rounds: usize, calls: usize) -> Result<Vec<Row>> {
    let mut subjects = subjects(case).await?;
    for subject in &mut subjects {
        subject.count(case, calls).await?;
    }
    for _ in 0..rounds {
        for subject in &mut subjects {
            let begin = worked();
            for _ in 0..calls {
                subject.measured.call(&case.request).await;
            }
            subject.times.push((worked() - begin) / calls as f64);
        }
    }
    let bare = &subjects[0];
    let beyond = |subject: &Subject| {
        let pairs = subject.times.iter().zip(&bare.times);
        Row {
            name: subject.name.clone(),
            nanoseconds: median(pairs.map(|(time, bare)| time - bare).collect()),
            allocations: subject.allocations - bare.allocations,
            layers: subject.layers,
        }
    };
    let itself = Row {
        name: bare.name.clone(),
        nanoseconds: median(bare.times.clone()),
        allocations: bare.allocations,
        layers: 0,
    };
    Ok(std::iter::once(itself).chain(subjects[1..].iter().map(beyond)).collect())
}

/// How long this thread has run, in nanoseconds: what others do on the machine counts less.
fn worked() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// The bare stack, each policy alone, and all of them.
async fn subjects(case: &Case) -> Result<Vec<Subject>> {
    let layers = POLICIES.iter().map(|policy| policy.layers).sum::<usize>() - SHARED;
    let mut subjects = vec![Subject::new("no policy", 0, &[], case).await?];
    for policy in POLICIES {
        let of = std::slice::from_ref(policy);
        subjects.push(Subject::new(policy.name, policy.layers, of, case).await?);
    }
    subjects.push(Subject::new("all at once", layers, POLICIES, case).await?);
    Ok(subjects)
}

/// Layers that several policies of the list need, beyond the first time: retry and repeatable.
const SHARED: usize = 3;

impl Subject {
    async fn new(name: &str, layers: usize, policies: &[Policy], case: &Case) -> Result<Self> {
        let config = Config::parse(&configuration(policies)).context("configuration")?;
        let measured = Measured::new(config, &case.answer).await.context("start")?;
        Ok(Self { name: name.to_owned(), layers, measured, times: Vec::new(), allocations: 0.0 })
    }

    /// Counts allocations, once everything that is kept from call to call is there.
    async fn count(&mut self, case: &Case, calls: usize) -> Result<()> {
        for _ in 0..calls {
            let (status, bytes) = self.measured.call(&case.request).await;
            ensure!(status == 200 && bytes > 0, "{}: answered {status}", self.name);
        }
        let region = Region::new(ALLOCATOR);
        for _ in 0..calls {
            self.measured.call(&case.request).await;
        }
        let change = region.change();
        self.allocations = (change.allocations + change.reallocations) as f64 / calls as f64;
        Ok(())
    }
}

fn configuration(policies: &[Policy]) -> String {
    let keys = |of: fn(&Policy) -> &'static str| {
        let keys = policies.iter().map(of).filter(|keys| !keys.is_empty());
        keys.map(|keys| format!(", {keys}")).collect::<String>()
    };
    let rest: Vec<_> = policies.iter().map(|policy| policy.rest).collect();
    let (upstream, route) = (keys(|policy| policy.upstream), keys(|policy| policy.route));
    let servers = match upstream.contains("balance") {
        true => r#"addresses: ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]"#,
        false => r#"url: "http://10.0.0.1:8000""#,
    };
    format!(
        "upstreams:\n  main: {{ {servers}{upstream} }}\n  spare: {{ url: \"http://10.0.0.3:8000\" }}\n\
         routes:\n  - {{ upstream: main{route} }}\n{}",
        rest.join("\n")
    )
}

// === what is asked and answered ===

fn cases() -> [Case; 3] {
    const WHOLE: &str =
        r#"{"model":"m","messages":[{"role":"user","content":"What is a tide gate?"}]}"#;
    const STREAM: &str = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"What is a tide gate?"}]}"#;
    let event = |delta: &str| {
        let event = format!(
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n"
        );
        format!("{:x}\r\n{event}\r\n", event.len())
    };
    let words = (0..20).map(|word| event(&format!("{{\"content\":\"word {word} \"}}")));
    let events: String = std::iter::once(event(r#"{"role":"assistant"}"#)).chain(words).collect();
    let whole = r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"It keeps the sea out."},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":6,"total_tokens":15}}"#;
    let models = r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#;
    [
        Case { name: "a question without a body", request: get("/v1/models"), answer: json_answer(models) },
        Case { name: "a call that is answered whole", request: post(WHOLE), answer: json_answer(whole) },
        Case {
            name: "a stream",
            request: post(STREAM),
            answer: format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{events}e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n").into(),
        },
    ]
}

const FIELDS: &str = "host: localhost:4100\r\nauthorization: Bearer key\r\nuser-agent: bench\r\naccept: application/json\r\naccept-encoding: gzip, deflate\r\n";

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\n{FIELDS}\r\n").into()
}

fn post(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST /v1/chat/completions HTTP/1.1\r\n{FIELDS}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").into()
}

fn json_answer(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").into()
}

// === what is told ===

impl Row {
    fn is_met(&self) -> bool {
        let is_quick = self.name != "all at once" || self.nanoseconds <= GOAL_NS;
        is_quick && self.allocations <= self.layers as f64
    }

    fn json(&self) -> serde_json::Value {
        let Self { name, nanoseconds, allocations, layers } = self;
        json!({
            "policy": name,
            "nanoseconds": nanoseconds.round(),
            "allocations": allocations,
            "layers": layers,
        })
    }
}

fn print(case: &str, rows: &[Row]) {
    println!("\n{case}");
    println!("  {:<20}{:>8}  {:>11}  {:>6}", "", "ns", "allocations", "layers");
    for (at, row) in rows.iter().enumerate() {
        let Row { name, nanoseconds, allocations, layers } = row;
        let (plus, verdict) = match (at, row.is_met()) {
            (0, _) => ("", ""),
            (_, true) => ("+", ""),
            (_, false) => ("+", "  over the goal"),
        };
        let layers = if at == 0 { String::new() } else { layers.to_string() };
        let (nanoseconds, allocations) =
            (format!("{plus}{nanoseconds:.0}"), format!("{plus}{allocations:.2}"));
        println!("  {name:<20}{nanoseconds:>8}  {allocations:>11}  {layers:>6}{verdict}");
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_policy_alone_and_all_at_once_leave_a_call_as_it_is() {
        for case in cases() {
            for mut subject in subjects(&case).await.expect("the configurations are good") {
                subject.count(&case, 2).await.expect("it is answered");
            }
        }
    }
}
