//! `tidegate load`.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use tidegate_loadgen::Url;
use tidegate_loadgen::report::Ended;
use tidegate_loadgen::schedule::{Schedule, Shard, Stages};
use tidegate_loadgen::workload::{Format, Mix, Recording, Workload};
use tidegate_loadgen::{Caps, Forecast, Plan, Resume, Target, Watch};
use tidegate_settings::Objectives;

use crate::identities::IdentityArgs;
use crate::outputs::Outputs;
use crate::{Exit, search, units};

/// Put a model API, or a sidecar before one, under load.
///
/// By default 200 users each wait for an answer before they ask again (closed loop). With --rate
/// calls are due whether or not answers come (open loop), and a call that is sent late is timed from
/// when it was due. With --from the calls are those of a file: what a sidecar captured is sent again as
/// it was and when it was, a public trace by its lengths and times. With --search many such runs find
/// the highest rate, or the most users, that keep the objectives. Ctrl-C ends the run early and
/// reports; a second one ends it at once.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the calls go, such as http://127.0.0.1:4100.
    #[arg(
        long,
        value_name = "URL",
        env = "TIDEGATE_LOAD_TARGET",
        required_unless_present = "slo_schema"
    )]
    target: Option<String>,
    /// Concurrent users; where time decides what is due, the most calls at once: 200 if not given.
    #[arg(long, value_name = "N", env = "TIDEGATE_LOAD_USERS")]
    users: Option<NonZeroUsize>,
    /// For how long calls are made: 30s; with the times of a file, all of it.
    #[arg(long, value_name = "TIME", value_parser = units::duration,
          env = "TIDEGATE_LOAD_DURATION")]
    duration: Option<Duration>,
    /// For how long calls are made before, to fill the target, that are in no figure.
    #[arg(long, value_name = "TIME", value_parser = units::duration, env = "TIDEGATE_LOAD_WARM_UP")]
    warm_up: Option<Duration>,
    /// Open loop: so many calls a second, at random moments.
    #[arg(long, value_name = "CALLS", value_parser = rate, env = "TIDEGATE_LOAD_RATE")]
    rate: Option<f64>,
    /// Closed loop with users that come and go in stages, as k6's --stage: length and users at its end,
    /// reached in a straight line from those of the last one, such as 1m:10,5m:50,5m:50,1m:0; or a YAML
    /// file with a list of `{ duration: 1m, target: 10, name: rise }`.
    #[arg(long, value_name = "STAGES", value_parser = stages, env = "TIDEGATE_LOAD_STAGES",
          conflicts_with_all = ["users", "rate", "rate_stages", "duration", "warm_up", "speed", "search"])]
    stages: Option<Stages>,
    /// Open loop at rates that rise and fall in such stages: length and calls a second at its end.
    #[arg(long, value_name = "STAGES", value_parser = stages, env = "TIDEGATE_LOAD_RATE_STAGES",
          conflicts_with_all = ["rate", "duration", "warm_up", "speed", "closed", "search"])]
    rate_stages: Option<Stages>,
    /// Calls from a file: what a sidecar captured (`capture:` in its configuration; all rotated pieces
    /// are read), a trace of Azure, Mooncake, Bailian or BurstGPT, conversations of ShareGPT, or
    /// prompts, one on each line or as JSON lines with `prompt` or `messages`. They are due as they had
    /// come; with --rate, or where the file says no times, one after the other, and from the beginning
    /// again where it ends.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LOAD_FROM")]
    from: Option<PathBuf>,
    /// What that file is, where its first line does not tell: capture, azure, burstgpt, bailian,
    /// mooncake, sharegpt or prompts.
    #[arg(long, value_name = "FORMAT", requires = "from", env = "TIDEGATE_LOAD_FROM_FORMAT")]
    from_format: Option<Format>,
    #[command(flatten)]
    identities: IdentityArgs,
    /// So many times as fast as the calls of the file had come: 2, 0.5.
    #[arg(long, value_name = "TIMES", value_parser = speed, requires = "from",
          conflicts_with_all = ["rate", "closed"], env = "TIDEGATE_LOAD_SPEED")]
    speed: Option<f64>,
    /// Closed loop, though the file says when its calls had come.
    #[arg(long, requires = "from", conflicts_with = "rate", env = "TIDEGATE_LOAD_CLOSED")]
    closed: bool,
    /// The model to ask where traces and prompts name none, in streams, by the interface that its name
    /// suggests: short for a --mix of that alone.
    #[arg(long, value_name = "NAME", conflicts_with = "mix", env = "TIDEGATE_LOAD_MODEL")]
    model: Option<String>,
    /// What is asked, by weight: a YAML list of `{ call: openai/chat, model: gpt-4o, weight: 3,
    /// stream: true }`; by default something of every dialect.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LOAD_MIX")]
    mix: Option<PathBuf>,
    /// What the run is judged by: a YAML file such as `objectives: [{ metric: time_to_first_token,
    /// quantile: 0.99, below: 3s, model: "gemini-*" }, { metric: error_ratio, below: 1% }]`. Exit
    /// code 0: all are met; 1: one is missed; 3: one cannot be told; 4: the run is invalid.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LOAD_SLO")]
    slo: Option<PathBuf>,
    /// Print the JSON Schema of such files, for editors, and do nothing else.
    #[arg(long)]
    slo_schema: bool,
    /// Go on with the run whose report is in the file of --json, if it was stopped: it is saved there every
    /// ten seconds. The flags are the same as then. Where that file is not there, the run begins; where it
    /// is of a run that is complete, there is nothing to do but to report.
    #[arg(long, requires = "json", conflicts_with_all = ["search", "dry_run"],
          env = "TIDEGATE_LOAD_RESUME")]
    resume: bool,
    /// Also write one record for each call, as the sidecar does: JSON lines.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LOAD_RECORDS")]
    records: Option<PathBuf>,
    /// Say what the run would come to, in calls, tokens and money, and send nothing.
    #[arg(long, env = "TIDEGATE_LOAD_DRY_RUN")]
    dry_run: bool,
    /// Use no more tokens than this, input and output together: a call that might go beyond is not
    /// made, and the run ends. What calls under way may take at most is set aside for them.
    #[arg(long, value_name = "TOKENS", env = "TIDEGATE_LOAD_MAX_TOKENS")]
    max_tokens: Option<u64>,
    /// Likewise, in US dollars by the table of prices. A call without a price is not made.
    #[arg(long, value_name = "USD", value_parser = usd, env = "TIDEGATE_LOAD_MAX_COST")]
    max_cost: Option<f64>,
    /// A table of prices in place of the built-in one (YAML), by which the report says what calls cost.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LOAD_PRICES")]
    prices: Option<PathBuf>,
    /// Sign the calls, as a sidecar's upstream does: a YAML file with what stands there under
    /// `credential`, such as `{ aws: { region: us-east-1 } }` or `{ bearer: { env: OPENAI_API_KEY } }`.
    /// The files that it names are looked for beside it.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_LOAD_CREDENTIAL")]
    credential: Option<PathBuf>,
    /// What requests and chance are drawn from.
    #[arg(long, value_name = "N", default_value = "1", env = "TIDEGATE_LOAD_SEED")]
    seed: u64,
    /// Make only one part of so many of this load, such as the third of ten: each call and each user is
    /// in exactly one. All parts have the same arguments; `tidegate report merge` joins their reports.
    #[arg(long, value_name = "I/N", default_value = "1/1", env = "TIDEGATE_LOAD_SHARD")]
    shard: Shard,
    /// When the calls begin, such as 2026-11-21T10:00:00Z: the same for all shards.
    #[arg(long, value_name = "TIME", env = "TIDEGATE_LOAD_START_AT")]
    start_at: Option<Timestamp>,
    /// Read the metrics of the other side every second while the run goes on, and lay them under the
    /// latency: queues, caches and batches of vLLM, SGLang and TGI, GPUs by DCGM's exporter. Text of
    /// Prometheus, as at http://127.0.0.1:8000/metrics; may be given again and again.
    #[arg(long, help_heading = OTHER_SIDE, value_name = "URL", value_delimiter = ',', env = "TIDEGATE_LOAD_SCRAPE")]
    scrape: Vec<String>,
    /// Keep these metrics too, by pattern: 'myserver_*'.
    #[arg(long, help_heading = OTHER_SIDE, value_name = "PATTERN", value_delimiter = ',', env = "TIDEGATE_LOAD_SCRAPE_ALSO")]
    scrape_also: Vec<String>,
    /// The administration of the sidecar through which the calls go, such as http://127.0.0.1:4101: each
    /// call is joined with the sidecar's record of it, so that the report tells network, sidecar and
    /// model apart. Its metrics are read too; may be given again and again.
    #[arg(long, help_heading = OTHER_SIDE, value_name = "URL", value_delimiter = ',', env = "TIDEGATE_LOAD_SIDECAR")]
    sidecar: Vec<String>,
    #[command(flatten)]
    search: search::SearchArgs,
    #[command(flatten)]
    outputs: Outputs,
}

/// A heading of the help.
const OTHER_SIDE: &str = "The other side";
/// Users, where nobody says how many.
const USERS: usize = 200;

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    let Some(target) = &args.target else {
        println!("{:#}", Objectives::schema());
        return Ok(Exit::Good);
    };
    // Not by clap, which would show what it cannot read.
    let target: Target = target.parse().context("--target")?;
    let workload = workload(&args)?;
    let schedule = schedule(&args, workload.recording());
    let search = args.search.search(args.duration, args.warm_up, args.users)?;
    let users = match (&args.stages, args.users) {
        (Some(stages), _) => stages.most().ceil() as usize,
        (None, users) => users.map_or(USERS, NonZeroUsize::get),
    };
    let users = NonZeroUsize::new(args.shard.share(users));
    let mut plan = Plan::new(target, workload);
    plan.users = users.context("--shard: there are fewer --users than shards")?;
    plan.duration = duration(args.duration, schedule, plan.workload.recording());
    plan.warm_up = args.warm_up.unwrap_or_default();
    plan.schedule = schedule;
    if let Some(stages) = args.stages.or(args.rate_stages) {
        plan.duration = stages.lasts();
        plan.stages = Some(Arc::new(stages));
    }
    plan.shard = args.shard;
    plan.start = args.start_at;
    plan.seed = args.seed;
    plan.records = args.records;
    plan.prices = tidegate_proxy::prices(args.prices.as_deref())?;
    if let Some(path) = &args.credential {
        plan.credential = Some(tidegate_loadgen::read_credential(path, &plan.target)?);
    }
    plan.objectives = args.slo.as_deref().map(Objectives::read).transpose()?;
    plan.watch = Watch {
        metrics: watched(&args.scrape).context("--scrape")?,
        also: args.scrape_also,
        sidecars: watched(&args.sidecar).context("--sidecar")?,
    };
    plan.caps = Caps { tokens: args.max_tokens, usd: args.max_cost };
    if args.dry_run {
        println!("{}", Forecast::of(&plan)?);
        return Ok(Exit::Good);
    }
    for objective in plan.objectives_in_vain() {
        eprintln!("warning: `{objective}` applies to no call of the load, and cannot be met");
    }
    if let Some(search) = search {
        args.outputs.check_search()?;
        return search::run(plan, search, &args.outputs, &mut results()?);
    }
    let baseline = args.outputs.baseline()?;
    let mut results = results()?;
    plan.save = args.outputs.saved().map(Path::to_owned);
    if let Some(mut before) = args.outputs.resumed(args.resume)? {
        if before.ended == Ended::Complete {
            eprintln!("that run is complete: there is nothing to go on with");
            before.compare(&baseline);
            return args.outputs.publish(&mut results, &before);
        }
        plan.resume = Some(Arc::new(Resume::of(before, &plan).context("--resume")?));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = runtime.block_on(tidegate_loadgen::run(plan))?;
    report.compare(&baseline);
    args.outputs.publish(&mut results, &report)
}

/// What is asked: a mix, or a file of calls and how to ask what it does not say.
fn workload(args: &Args) -> anyhow::Result<Workload> {
    let mix = match (&args.mix, &args.model) {
        (Some(path), _) => Mix::read(path)?,
        (None, Some(model)) => Mix::of_model(model),
        (None, None) if args.from.is_some() => Mix::default().generating(),
        (None, None) => Mix::default(),
    };
    let Some(path) = &args.from else {
        args.identities.refuse()?;
        return Ok(Workload::Mix(mix));
    };
    let recording =
        Recording::open(path, args.from_format, args.identities.read()?).context("--from")?;
    let names_models = args.mix.is_some() || args.model.is_some();
    ensure!(
        !(recording.is_captured() && names_models),
        "--mix and --model go with traces and prompts: the calls of a capture say themselves what they ask"
    );
    ensure!(
        args.speed.is_none() || recording.has_times(),
        "--speed goes by when the calls had come, which {} does not say; give a --rate",
        path.display()
    );
    eprintln!("{}", recording.sentence());
    Ok(Workload::Recording { recording, mix })
}

/// When calls are due: as the flags say, else as the file does, else when users have their answers.
fn schedule(args: &Args, recording: Option<&Recording>) -> Schedule {
    match (args.rate, recording) {
        _ if args.rate_stages.is_some() => Schedule::Staged,
        _ if args.stages.is_some() => Schedule::Closed,
        (Some(rate), _) => Schedule::Poisson { rate },
        (None, Some(recording)) if recording.has_times() && !args.closed => {
            Schedule::Recorded { speed: args.speed.unwrap_or(1.0) }
        }
        _ => Schedule::Closed,
    }
}

/// For how long calls are made: where a file decides what is due, no longer than that goes on.
fn duration(
    asked: Option<Duration>,
    schedule: Schedule,
    recording: Option<&Recording>,
) -> Duration {
    const DEFAULT: Duration = Duration::from_secs(30);
    let whole = match (schedule, recording) {
        (Schedule::Recorded { speed }, Some(recording)) => recording.lasts(speed),
        _ => None,
    };
    match (asked, whole) {
        (Some(asked), Some(whole)) => asked.min(whole),
        (asked, whole) => asked.or(whole).unwrap_or(DEFAULT),
    }
}

/// Standard output, kept for results alone. What Goose prints there (that users have come in) would stand
/// across the view, which says it too.
fn results() -> anyhow::Result<File> {
    let results = std::io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    Ok(results.into())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1e6 => Ok(rate),
        _ => Err(format!("`{text}` is no rate; write calls a second, such as 50 or 2.5")),
    }
}

/// Stages from a list, or from a file where the text is the name of one.
fn stages(text: &str) -> Result<Stages, String> {
    let path = Path::new(text);
    let is_file =
        path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml" || kind == "json");
    match is_file || path.is_file() {
        true => Stages::read(path).map_err(|error| error.to_string()),
        false => Stages::parse(text),
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(speed) if (1e-6..=1e6).contains(&speed) => Ok(speed),
        _ => Err(format!("`{text}` is no speed; write how many times as fast, such as 2 or 0.5")),
    }
}

/// Addresses to ask. Not by clap, which would show what it cannot read.
fn watched(urls: &[String]) -> anyhow::Result<Vec<Url>> {
    let parse = |url: &String| {
        let url: Option<Url> = url.parse().ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.context("this is no URL such as http://127.0.0.1:8000/metrics")?;
        let is_open = url.username().is_empty() && url.password().is_none();
        ensure!(is_open, "a URL must hold neither user nor password: reports show it");
        Ok(url)
    };
    urls.iter().map(parse).collect()
}

fn usd(text: &str) -> Result<f64, String> {
    match text.trim_start_matches('$').parse() {
        Ok(usd) if usd > 0.0 && usd <= 1e9 => Ok(usd),
        _ => Err(format!("`{text}` is no sum of money; write US dollars, such as 5 or 0.25")),
    }
}
