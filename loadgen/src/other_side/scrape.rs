//! The metrics of the other side, read every second.
//!
//! A gauge is its value, a counter by how much it rises each second, a histogram the mean of what was
//! observed since the last time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::ACCEPT;
use tidegate_wire::exposition::{Kind, Line, Sample, lines};
use tidegate_wire::glob;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{Unwatchable, shown};
use crate::figures::{SeriesId, Shows, Watched};
use crate::run::Run;

/// How often.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest text that is read.
const LONGEST: usize = 16 << 20;
/// Series of counters and histograms whose last values are kept.
const MOST: usize = 10_000;
/// The longest list of labels that is kept.
const LONGEST_LABELS: usize = 400;

/// What is kept of all that is shown, as patterns: what waits, what runs, what is full, what it costs.
/// vLLM, SGLang and TGI document these names, NVIDIA those of its DCGM exporter.
const WATCHED: [&str; 26] = [
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "vllm:num_preemptions*",
    "vllm:request_queue_time_seconds",
    "vllm:time_to_first_token_seconds",
    "sglang:num_running_reqs",
    "sglang:num_queue_reqs",
    "sglang:token_usage",
    "tgi_batch_current_size",
    "tgi_queue_size",
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
    "DCGM_FI_PROF_DRAM_ACTIVE",
    "tidegate_calls_in_flight",
    "tidegate_limit_in_use",
    "tidegate_limit_queue",
    "tidegate_breaker_state",
    "tidegate_retries_total",
    "tidegate_fallbacks_total",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
];

/// Reads one text of metrics again and again.
pub(super) struct Reader {
    http: reqwest::Client,
    url: Url,
    source: Arc<str>,
    also: Arc<[String]>,
    last: Last,
}

/// What counters and histograms stood at, by name and labels.
type Last = HashMap<(String, Arc<str>), Total>;

/// A counter, or the sum and the count of a histogram.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    at: Option<Instant>,
    sum: f64,
    count: f64,
}

/// A value that belongs on a chart.
type Value = (SeriesId, f64);

// === impl Reader ===

impl Reader {
    /// Reads it for the first time, from which counters count.
    pub(super) async fn open(
        http: reqwest::Client,
        url: Url,
        also: Arc<[String]>,
    ) -> Result<Self, Unwatchable> {
        let source = shown(&url).as_str().into();
        let mut reader = Self { http, url, source, also, last: HashMap::new() };
        let text = reader.text().await?;
        if let Some(Err(malformed)) = lines(&text).next() {
            let (url, reason) = (shown(&reader.url), malformed.to_string());
            return Err(Unwatchable::NoMetrics { url, reason });
        }
        reader.values(&text, Instant::now());
        Ok(reader)
    }

    /// Reads it every second, and keeps what there is to know, for as long as the run goes on.
    pub(super) async fn watch(mut self, run: Arc<Run>) {
        let Some(start) = run.start().await else { return };
        let mut ticks = interval_at(start + EVERY, EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let text = self.text().await;
            let values = text.map(|text| self.values(&text, Instant::now()));
            let mut recorder = run.recorder();
            for (id, value) in values.iter().flatten() {
                recorder.news.heard(id, *value);
            }
            let Some(at) = run.elapsed().checked_sub(run.plan.warm_up) else { continue };
            keep(&mut recorder.figures.watched, at, values, &self.source);
        }
    }

    async fn text(&self) -> Result<String, Unwatchable> {
        let unanswered = |source: reqwest::Error| Unwatchable::Unanswered {
            url: shown(&self.url),
            source: source.without_url(),
        };
        let request = self.http.get(self.url.clone()).timeout(TIMEOUT);
        let request = request.header(ACCEPT, "text/plain; version=0.0.4");
        let mut answer = request.send().await.map_err(unanswered)?;
        if answer.status() != 200 {
            return Err(Unwatchable::Unexpected {
                url: shown(&self.url),
                status: answer.status().as_u16(),
                wanted: "metrics",
            });
        }
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(unanswered)? {
            if bytes.len() + piece.len() > LONGEST {
                let (url, reason) = (shown(&self.url), "it is longer than 16 MiB".to_owned());
                return Err(Unwatchable::NoMetrics { url, reason });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What a text says now, and since the last time.
    fn values(&mut self, text: &str, now: Instant) -> Vec<Value> {
        let (mut values, mut kinds) = (Vec::new(), HashMap::new());
        let mut observed: HashMap<(String, Arc<str>), Total> = HashMap::new();
        for line in lines(text).flatten() {
            match line {
                Line::Type { name, kind } => _ = kinds.insert(name, kind),
                Line::Help { .. } => {}
                Line::Sample(sample) => {
                    let (name, part) = part_of(&sample, |name| kinds.get(name).copied());
                    if !self.keeps(name) {
                        continue;
                    }
                    let labels = labels(&sample);
                    let total = || (name.to_owned(), labels.clone());
                    match part {
                        Part::Value => {
                            values.push((self.id(name, Shows::Value, labels), sample.value))
                        }
                        Part::Counter => {
                            let key = total();
                            let risen = self.risen(key, sample.value, 1.0, now);
                            let per_second = risen.map(|(sum, _, seconds)| sum / seconds);
                            values.extend(
                                per_second
                                    .map(|rate| (self.id(name, Shows::PerSecond, labels), rate)),
                            );
                        }
                        Part::Sum => observed.entry(total()).or_default().sum = sample.value,
                        Part::Count => observed.entry(total()).or_default().count = sample.value,
                        Part::Other => {}
                    }
                }
            }
        }
        for (key, total) in observed {
            let id = self.id(&key.0, Shows::Mean, key.1.clone());
            let risen = self.risen(key, total.sum, total.count, now);
            // Nothing was observed: no mean either.
            let mean = risen.filter(|(_, count, _)| *count > 0.0);
            values.extend(mean.map(|(sum, count, _)| (id, sum / count)));
        }
        values
    }

    /// By how much a total has risen, and in how many seconds; nothing where it began anew.
    fn risen(
        &mut self,
        key: (String, Arc<str>),
        sum: f64,
        count: f64,
        now: Instant,
    ) -> Option<(f64, f64, f64)> {
        if self.last.len() >= MOST && !self.last.contains_key(&key) {
            return None;
        }
        let last = self.last.entry(key).or_default();
        let before = std::mem::replace(last, Total { at: Some(now), sum, count });
        let seconds = now.duration_since(before.at?).as_secs_f64();
        let has_risen = sum >= before.sum && count >= before.count && seconds > 0.0;
        has_risen.then_some((sum - before.sum, count - before.count, seconds))
    }

    fn keeps(&self, name: &str) -> bool {
        WATCHED.iter().any(|known| glob(known, name))
            || self.also.iter().any(|pattern| glob(pattern, name))
    }

    fn id(&self, name: &str, shows: Shows, labels: Arc<str>) -> SeriesId {
        SeriesId { name: name.into(), shows, source: self.source.clone(), labels }
    }
}

/// What a sample is of the metric to which it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Value,
    Counter,
    Sum,
    Count,
    /// Buckets, quantiles and moments of creation: what is shown does not need them.
    Other,
}

/// The name of the metric, and which part of it a sample is.
fn part_of<'a>(sample: &'a Sample<'_>, kind: impl Fn(&str) -> Option<Kind>) -> (&'a str, Part) {
    let name = &*sample.name;
    match kind(name) {
        Some(Kind::Counter) => return (name, Part::Counter),
        Some(Kind::Summary | Kind::Histogram) => return (name, Part::Other),
        Some(_) => return (name, Part::Value),
        None => {}
    }
    for (suffix, part) in [
        ("_sum", Part::Sum),
        ("_count", Part::Count),
        ("_total", Part::Counter),
        ("_bucket", Part::Other),
        ("_created", Part::Other),
    ] {
        let Some(family) = name.strip_suffix(suffix) else { continue };
        match (kind(family), part) {
            // OpenMetrics names a counter without what its samples end with.
            (Some(Kind::Counter) | None, Part::Counter) => return (name, Part::Counter),
            (Some(Kind::Histogram | Kind::Summary), part) => return (family, part),
            (Some(_), _) => return (name, Part::Other),
            (None, _) => {}
        }
    }
    (name, Part::Value)
}

fn labels(sample: &Sample<'_>) -> Arc<str> {
    let mut labels: Vec<_> =
        sample.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    labels.sort();
    let mut text = labels.join(",");
    text.truncate(text.floor_char_boundary(LONGEST_LABELS));
    text.into()
}

fn keep(
    watched: &mut Watched,
    at: Duration,
    values: Result<Vec<Value>, Unwatchable>,
    source: &str,
) {
    match values {
        Ok(values) => {
            watched.reads += 1;
            values.iter().for_each(|(id, value)| watched.record(id, at, *value));
        }
        Err(error) => {
            if watched.failures == 0 {
                tracing::warn!(%error, source, "metrics of the other side are missing");
            }
            watched.failures += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Strain;

    fn reader() -> Reader {
        Reader {
            http: reqwest::Client::new(),
            url: "http://127.0.0.1:1/metrics".parse().expect("a URL"),
            source: "there".into(),
            also: ["mine_*".to_owned()].into(),
            last: HashMap::new(),
        }
    }

    fn shown(values: &[Value]) -> Vec<String> {
        let mut shown: Vec<_> = values
            .iter()
            .map(|(id, value)| format!("{}{}{{{}}} {value}", id.name, id.shows.as_str(), id.labels))
            .collect();
        shown.sort();
        shown
    }

    fn text(scale: u32) -> String {
        format!(
            "# TYPE vllm:num_requests_waiting gauge\n\
             vllm:num_requests_waiting{{engine=\"0\"}} {scale}\n\
             # TYPE vllm:num_preemptions counter\n\
             vllm:num_preemptions_total {}\n\
             vllm:num_preemptions_created 1.7e9\n\
             # TYPE vllm:request_queue_time_seconds histogram\n\
             vllm:request_queue_time_seconds_bucket{{le=\"1\"}} 3\n\
             vllm:request_queue_time_seconds_sum {}\n\
             vllm:request_queue_time_seconds_count {}\n\
             process_cpu_seconds_total {}\n\
             mine_level 7\n\
             of_no_interest 1\n\
             broken{{ 1\n",
            10 * scale,
            6 * scale,
            4 * scale,
            scale
        )
    }

    #[test]
    fn gauges_are_values_counters_are_rates_and_histograms_are_means() {
        let (mut reader, start) = (reader(), Instant::now());
        assert_eq!(
            shown(&reader.values(&text(1), start)),
            ["mine_level{} 7", "vllm:num_requests_waiting{engine=\"0\"} 1"],
            "nothing has risen yet"
        );
        assert_eq!(
            shown(&reader.values(&text(3), start + Duration::from_secs(2))),
            [
                "mine_level{} 7",
                "process_cpu_seconds_total, a second{} 1",
                "vllm:num_preemptions_total, a second{} 10",
                "vllm:num_requests_waiting{engine=\"0\"} 3",
                "vllm:request_queue_time_seconds, mean{} 1.5",
            ]
        );
    }

    #[test]
    fn every_metric_that_says_how_hard_it_is_is_kept() {
        let reader = reader();
        assert!(Strain::metrics().count() > 10 && Strain::metrics().all(|name| reader.keeps(name)));
    }

    #[test]
    fn what_begins_anew_has_not_fallen() {
        let (mut reader, start) = (reader(), Instant::now());
        reader.values(&text(5), start);
        let values = reader.values(&text(2), start + Duration::from_secs(1));
        assert_eq!(shown(&values).len(), 2, "{values:?}");
        let values = reader.values(&text(4), start + Duration::from_secs(2));
        assert_eq!(shown(&values).len(), 5, "{values:?}");
    }

    #[test]
    fn long_labels_are_cut_where_a_letter_ends() {
        let name = "ä".repeat(LONGEST_LABELS);
        let text = format!("mine_level{{name=\"{name}\"}} 1\n");
        let values = reader().values(&text, Instant::now());
        assert!(values[0].0.labels.len() <= LONGEST_LABELS && values[0].0.labels.len() > 390);
    }
}
