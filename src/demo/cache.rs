//! The chapter `cache`: users ask the same questions again and again, and the sidecar answers them from
//! what it has kept: calls, tokens, money and time that nobody spent.

use std::io::{Write, stdout};

use anyhow::Context;
use tidegate_loadgen::report::{Grid, time};
use tidegate_wire::Record;

use super::compare::{Served, Times};
use super::process::{Server, get};
use super::stand::Stand;
use super::{Files, Size, percent};
use crate::Exit;

/// Different questions. Every user asks all of them, over and over.
const QUESTIONS: usize = 20;

/// The sidecar's configuration.
const CACHE: &str = "\
upstreams: { model: { url: http://$model, provider: openai } }
routes: [{ name: chat, upstream: model, cache: { allow: all, cut_off: true } }]
";

const DEFINITIONS: &str = "\
Asked of the model: calls that no answer was kept for yet. Tokens and cost: as stated, by the price table. Time: from the
request to the last byte; what was saved of it is what such a call takes at the model on average, less what it took.
";

/// What calls came to, by who answered them.
struct Kept {
    model: Side,
    cache: Side,
    /// Calls that the model server says it had.
    served: u64,
}

/// Calls that were answered by the same.
struct Side {
    calls: usize,
    /// Used, or saved.
    input_tokens: u64,
    output_tokens: u64,
    cost_usd: f64,
    duration: Times,
    seconds: f64,
}

/// Shows the chapter, and whether anything was saved.
pub(super) async fn show(size: Size) -> anyhow::Result<Exit> {
    let files = Files::create()?;
    let capacity = size.users.to_string();
    let place = ["sim", "--listen", "127.0.0.1:0", "--capacity", &capacity];
    let times = ["--ttft", "200ms", "--tpot", "5ms", "--output-tokens", "32"];
    let simulator = Server::start("simulator", &[&place[..], &times].concat())?;
    let model = simulator.address("listening on ").await?;
    let text = CACHE.replace("$model", &model.to_string());
    let users = size.users;
    eprintln!(
        "{users} users who ask {QUESTIONS} questions over and over, behind a sidecar with a cache:\n\n{text}"
    );
    let config = files.write("cache.yaml", &text)?;
    let questions = files.write("questions.txt", &questions())?;
    let stand = Stand::start("cache".to_owned(), &config, &files).await?;
    let what = ["--from".as_ref(), questions.as_ref(), "--model".as_ref(), "gpt-4o".as_ref()];
    stand.load(size, &what).await?;
    let (_, recorded) = stand.end().await?;
    let served = get(model, "/-/served").await?;
    let served: Served = serde_json::from_str(&served).context("cannot read what was served")?;
    let kept = Kept::of(recorded.values(), served.calls);

    let mut results = stdout().lock();
    writeln!(results, "\n{}", kept.grid())?;
    results.write_all(DEFINITIONS.as_bytes())?;
    writeln!(results, "{}", kept.sentence())?;
    Ok(if kept.is_shown() { Exit::Good } else { Exit::NotSo })
}

fn questions() -> String {
    let question = |number| format!("What is to be known of tide gate number {number}?\n");
    (1..=QUESTIONS).map(question).collect()
}

// === impl Kept ===

impl Kept {
    fn of<'a>(records: impl Iterator<Item = &'a Record>, served: u64) -> Self {
        let (cache, model): (Vec<_>, Vec<_>) = records.partition(|record| record.is_from_cache());
        Self { model: Side::asked(&model), cache: Side::saved(&cache), served }
    }

    /// Seconds that users would have waited besides.
    fn seconds_saved(&self) -> f64 {
        let usual = self.model.seconds / self.model.calls.max(1) as f64;
        (usual * self.cache.calls as f64 - self.cache.seconds).max(0.0)
    }

    fn share(&self) -> f64 {
        self.cache.calls as f64 / (self.model.calls + self.cache.calls).max(1) as f64
    }

    fn grid(&self) -> Grid {
        let mut grid = Grid::default();
        grid.row(["", "calls", "input tokens", "output tokens", "cost", "time p50", "time p99"]);
        for (name, side) in [("asked of the model", &self.model), ("from the cache", &self.cache)] {
            grid.row([
                name.to_owned(),
                side.calls.to_string(),
                side.input_tokens.to_string(),
                side.output_tokens.to_string(),
                format!("${:.4}", side.cost_usd),
                time(side.duration.at(0.5)),
                time(side.duration.at(0.99)),
            ]);
        }
        grid
    }

    /// Whether answers were kept, and the model server bears out that it was not asked for them.
    fn is_shown(&self) -> bool {
        self.cache.calls > 0 && self.served == self.model.calls as u64
    }

    /// What is to be learnt, in plain words. It is the last line.
    fn sentence(&self) -> String {
        if !self.is_shown() {
            return format!(
                "Nothing is shown: {} calls were answered from the cache, and the model had {} of the \
                 other {}.",
                self.cache.calls, self.served, self.model.calls,
            );
        }
        format!(
            "Saved: {} of {} calls ({}), {} input and {} output tokens, ${:.4}, and {:.1} s of waiting.",
            self.cache.calls,
            self.model.calls + self.cache.calls,
            percent(self.share()),
            self.cache.input_tokens,
            self.cache.output_tokens,
            self.cache.cost_usd,
            self.seconds_saved(),
        )
    }
}

// === impl Side ===

impl Side {
    /// Calls that the model answered, with what they used.
    fn asked(records: &[&Record]) -> Self {
        let used = |of: fn(&Record) -> Option<u64>| records.iter().filter_map(|one| of(one)).sum();
        let cost_usd = records.iter().filter_map(|one| one.cost_usd).sum();
        Self::of(records, used(|one| one.input_tokens), used(|one| one.output_tokens), cost_usd)
    }

    /// Calls that the cache answered, with what they would have used.
    fn saved(records: &[&Record]) -> Self {
        let cached = || records.iter().filter_map(|record| record.cached.as_deref());
        let input = cached().filter_map(|cached| cached.saved_input_tokens).sum();
        let output = cached().filter_map(|cached| cached.saved_output_tokens).sum();
        Self::of(records, input, output, cached().filter_map(|one| one.saved_cost_usd).sum())
    }

    fn of(records: &[&Record], input_tokens: u64, output_tokens: u64, cost_usd: f64) -> Self {
        let durations = || records.iter().filter_map(|record| record.duration_s);
        Self {
            calls: records.len(),
            input_tokens,
            output_tokens,
            cost_usd,
            duration: Times::of(durations()),
            seconds: durations().sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_wire::{CacheSource, Cached};

    use super::*;

    fn asked() -> Record {
        Record {
            duration_s: Some(0.4),
            input_tokens: Some(10),
            output_tokens: Some(5),
            cost_usd: Some(0.25),
            ..Record::default()
        }
    }

    fn hit() -> Record {
        let cached = Cached {
            source: Some(CacheSource::Hit),
            saved_input_tokens: Some(10),
            saved_output_tokens: Some(5),
            saved_cost_usd: Some(0.25),
            ..Cached::default()
        };
        Record { cached: Some(cached.into()), duration_s: Some(0.1), ..Record::default() }
    }

    #[test]
    fn what_was_saved_is_what_hits_would_have_used() {
        let records = [asked(), hit(), hit(), hit()];
        let kept = Kept::of(records.iter(), 1);
        assert_eq!(
            kept.sentence(),
            "Saved: 3 of 4 calls (75.0%), 30 input and 15 output tokens, $0.7500, and 0.9 s of waiting."
        );
        assert!(kept.is_shown());
    }

    #[test]
    fn nothing_is_shown_without_a_hit_or_where_the_model_was_asked_all_the_same() {
        for (records, served) in [(vec![asked()], 1), (vec![asked(), hit()], 2)] {
            let kept = Kept::of(records.iter(), served);
            assert!(!kept.is_shown());
            assert!(kept.sentence().starts_with("Nothing is shown"));
        }
    }
}
