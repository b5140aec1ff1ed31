//! Where measurements go. Everything here is fed from records, and none of it looks back.
//!
//! Metrics are counted by the workers themselves and read by [`prometheus`] and [`otlp`] alike.
//! Exporters of records implement [`Exporter`]; the recorder's thread runs them, off the data path.

pub mod capture;
pub mod catalog;
pub mod delimited;
pub mod history;
pub mod jsonl;
pub mod logs;
pub mod metrics;
pub mod names;
pub mod openmetrics;
pub mod otlp;
pub mod prometheus;
pub(crate) mod recent;
#[allow(dead_code, reason = "history and the page use it")]
pub(crate) mod rollup;
pub mod spans;
pub(crate) mod tail;

mod rotating;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tidegate_wire::Record;

/// How far exporters stand back for the workers where there are too few cores for all.
const NICENESS: i32 = 5;

/// Has the thread that calls it stand back for the workers. On Linux niceness is a thread's own; where
/// it is not ours to set, we do without.
pub(crate) fn stand_back() {
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

/// Takes records where someone reads them.
///
/// Runs on a thread of its own and may block there: what does not fit the queue meanwhile is
/// dropped and counted.
pub trait Exporter: Send {
    /// The value of the label `exporter`.
    fn name(&self) -> &'static str;

    /// Takes these records, to the last one before it returns. Says how many of them were lost.
    fn export(&mut self, records: &[Record]) -> u64;

    /// Where it counts what it loses later on, which it did not say when it took it.
    fn count_in(&mut self, _: Arc<AtomicU64>) {}

    /// Whether a record is one that it takes: another that is dropped is no loss to it.
    fn takes(&self) -> fn(&Record) -> bool {
        |_| true
    }

    /// Takes up its destination anew: an operator has moved the file away.
    fn reopen(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
    use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
    use tidegate_credential::Freshness;
    use tidegate_wire::{
        CacheSource, Cached, Drain, DrainEnd, ErrorOrigin, Job, JobOutcome, Media, Outcome,
        UsageSource,
    };
    use tokio::time::Instant;

    use super::catalog::{FAMILIES, Family};
    use super::metrics::{Registry, Source, Value, lock};
    use super::names::Conventions;
    use super::*;
    use crate::config::{BreakerConfig, UpstreamConfig};
    use crate::layer::breaker::Breakers;
    use crate::upstream::{Balancer, Shown, Spec};

    /// Samples by name and labels, as the text format tells them apart.
    type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

    #[test]
    fn prometheus_and_otlp_show_the_same_numbers() {
        for conventions in [Conventions::Latest, Conventions::V1_36, Conventions::Both] {
            check_numbers(Arc::new(busy_registry().with_conventions(conventions)));
        }
    }

    fn check_numbers(registry: Arc<Registry>) {
        let conventions = registry.conventions();
        let (_, page) = prometheus::Prometheus::new(registry.clone()).accepted("text/plain");
        let text = String::from_utf8(page.collect::<Vec<_>>().concat()).expect("it is text");
        let resource = BTreeMap::new();
        let parts = otlp::parts(registry.snapshot(), &resource, None);
        let metrics: Vec<_> = parts.flat_map(otlp::metrics).collect();

        let (shown, pushed) = (parse(&text), flatten(&metrics, conventions));
        assert_eq!(text.contains("gen_ai_provider_name="), conventions != Conventions::V1_36);
        assert_eq!(text.contains("gen_ai_system="), conventions != Conventions::Latest);
        assert_eq!(metrics.len(), FAMILIES.len(), "each metric has a value here");
        assert!(shown.len() > 200, "{} samples", shown.len());
        assert_eq!(shown, pushed);
    }

    /// One point of a family.
    struct Once(&'static catalog::Family);

    impl metrics::Source for Once {
        fn read(
            &self,
            show: &mut dyn FnMut(&'static catalog::Family, Vec<String>, metrics::Value),
        ) {
            let labels = self.0.labels.iter().map(|_| "a".to_owned()).collect();
            let value = match self.0.kind {
                catalog::Kind::Gauge => metrics::Value::Gauge(3),
                catalog::Kind::Counter => metrics::Value::Counter(3),
                catalog::Kind::Histogram => {
                    let mut times = metrics::Histogram::new(metrics::SECONDS_ADDED);
                    times.observe(Some(0.002));
                    metrics::Value::Histogram(times)
                }
            };
            show(self.0, labels, value);
        }
    }

    pub(super) fn busy_registry() -> Registry {
        let registry = Registry::new([], []);
        registry.dropped("jsonl");
        let (age, expires_in) = (Some(Duration::from_secs(7)), Some(Duration::from_secs(60)));
        let freshness = Freshness { age, expires_in, failures: 2 };
        registry.watch_credential("pool".into(), move || Some(freshness));
        registry.watch(Breakers::new("pool".into(), BreakerConfig::default(), &[], Instant::now()));
        registry.watch(pool());
        let policies = [
            &catalog::BYPASS,
            &catalog::BYPASSED,
            &catalog::CREDENTIAL_REFUSED,
            &catalog::CONNECT_FAILURES,
            &catalog::INTERCEPT_CONNECTIONS,
            &catalog::INTERCEPT_PASSED_BY,
            &catalog::CACHE_NOT_STORED,
            &catalog::WARM_UP_CONNECTIONS,
            &catalog::SHADOW_OPEN,
            &catalog::SHADOW_NOT_SENT,
            &catalog::CACHE_ENTRIES,
            &catalog::CACHE_BYTES,
            &catalog::CACHE_EVICTIONS,
            &catalog::HISTORY_UP,
            &catalog::HISTORY_SIZE,
            &catalog::BASELINE_VALUE,
            &catalog::BASELINE_LIMIT,
            &catalog::BASELINE_UNUSUAL,
            &catalog::SCRAPE_UP,
            &catalog::SCRAPE_DURATION,
            &catalog::SCRAPE_SAMPLES,
            &catalog::SCRAPE_FAILURES,
            &catalog::STORE_UP,
            &catalog::STORE_OUTAGES,
            &catalog::STORE_OPERATIONS,
            &catalog::STORE_TIME,
            &catalog::RETRIES,
            &catalog::RETRIES_DENIED,
            &catalog::FALLBACKS,
            &catalog::LIMIT,
            &catalog::LIMIT_IN_USE,
            &catalog::LIMIT_QUEUE,
            &catalog::LIMIT_SHED,
            &catalog::DRAINS_OPEN,
            &catalog::QUOTA_USED_RATIO,
            &catalog::QUOTA_LIMIT,
            &catalog::QUOTA_USED,
            &catalog::QUOTA_RESERVED,
            &catalog::QUOTA_EXHAUSTED_IN,
            &catalog::QUOTA_REFUSALS,
            &catalog::QUOTA_CHARGED,
            &catalog::QUOTA_BUDGETS,
            &catalog::QUOTA_WITHOUT_ROOM,
            &catalog::RATE_LIMIT,
            &catalog::RATE_LIMIT_REMAINING,
        ];
        for family in policies {
            registry.watch(Once(family));
        }
        let shards = [registry.shard(), registry.shard()];
        for (number, shard) in shards.iter().cycle().take(40).enumerate() {
            drop(lock(shard).open(Some("gemma"), "pool"));
            lock(shard).add(&record(number));
            lock(shard).add(&Record { shadow: Some(true), ..record(number) });
        }
        for number in 0..6 {
            [submit(number), poll(number)]
                .iter_mut()
                .for_each(|call| registry.jobs().see(call, Instant::now()));
        }
        registry
    }

    /// The addresses of an upstream.
    fn pool() -> impl Source {
        struct Pool(Arc<Balancer>);
        impl Source for Pool {
            fn read(&self, show: &mut dyn FnMut(&'static Family, Vec<String>, Value)) {
                Shown(Arc::downgrade(&self.0)).read(show);
            }
        }
        let addresses = vec!["http://10.0.0.1".to_owned(), "http://10.0.0.2".to_owned()];
        let config = UpstreamConfig { addresses, ..UpstreamConfig::default() };
        let spec = Spec::new("pool", &config).expect("a good upstream");
        let balancer = Balancer::new(spec.into(), &config.balance, Instant::now());
        Pool(balancer.expect("there are two addresses"))
    }

    fn submit(number: usize) -> Record {
        let job = Job {
            name: number.to_string(),
            done: Some(false),
            video_length_s: Some(6.25),
            ..Job::default()
        };
        Record {
            operation: Some("predict_long_running".into()),
            request_model: Some("veo".into()),
            status: Some(200),
            job: Some(Box::new(job)),
            ..Record::default()
        }
    }

    /// Half of the jobs are done.
    fn poll(number: usize) -> Record {
        let is_done = number.is_multiple_of(2);
        let job = Job {
            name: number.to_string(),
            done: Some(is_done),
            outcome: is_done.then_some(JobOutcome::Succeeded),
            ..Job::default()
        };
        let operation = Some("fetch_predict_operation".into());
        Record { operation, job: Some(Box::new(job)), ..submit(number) }
    }

    fn record(number: usize) -> Record {
        let size = number as f64;
        let failed = number.is_multiple_of(3);
        Record {
            operation: Some("chat".into()),
            provider: Some("openai".into()),
            request_model: Some(format!("model-{}", number % 4)),
            region: Some("eu".into()),
            route: Some("default".into()),
            upstream: Some("pool".into()),
            stream: Some(number.is_multiple_of(2)),
            status: Some(if failed { 503 } else { 200 }),
            outcome: Some(if failed { Outcome::Failed } else { Outcome::Completed }),
            error_origin: failed.then_some(ErrorOrigin::Upstream),
            usage_source: (!failed).then_some(UsageSource::Reported),
            input_tokens: (!failed).then_some(number as u64),
            output_tokens: (!failed).then_some(7),
            size_class: (!failed).then(|| "up_to_4k".into()),
            media: Some(Box::new(Media { images: Some(1), audios: Some(2), ..Media::default() })),
            cost_usd: number.is_multiple_of(2).then_some(size / 1e7 + 1e-6),
            unpriced: (!number.is_multiple_of(2)).then_some(true),
            duration_s: Some(size / 8.0),
            time_to_first_token_s: Some(size / 16.0),
            time_per_output_token_s: Some(size / 64.0),
            overhead_s: Some(size / 65536.0),
            gap_max_s: Some(size / 32.0),
            stalls: Some(number as u64),
            wait_pool_s: Some(size / 1024.0),
            wait_queue_s: failed.then_some(size / 4.0),
            not_understood: failed.then(|| "json".into()),
            warnings: vec!["word".into()],
            drain: Some(Box::new(Drain {
                end: Some(DrainEnd::ALL[number % DrainEnd::ALL.len()]),
                wasted_tokens: Some(number as u64),
                estimated_wasted_tokens: Some(2),
                ..Drain::default()
            })),
            cached: Some(Box::new(Cached {
                source: Some(CacheSource::ALL[number % CacheSource::ALL.len()]),
                saved_input_tokens: Some(number as u64),
                saved_cost_usd: Some(size / 1e6),
                ..Cached::default()
            })),
            ..Record::default()
        }
    }

    fn parse(text: &str) -> Samples {
        text.lines().filter(|line| !line.starts_with('#')).map(parse_line).collect()
    }

    fn parse_line(line: &str) -> ((String, BTreeMap<String, String>), f64) {
        let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        let labels = labels.map(|label| {
            let (name, value) = label.split_once('=').expect("a label has a value");
            (name.to_owned(), value.trim_matches('"').to_owned())
        });
        ((name.to_owned(), labels.collect()), value.parse().expect("a value is a number"))
    }

    /// What a collector makes of OTLP for Prometheus.
    fn flatten(metrics: &[Metric], conventions: Conventions) -> Samples {
        let labels =
            |metric: &str, attributes: &[KeyValue]| labels(metric, attributes, conventions);
        let mut samples = Samples::new();
        for metric in metrics {
            let family = FAMILIES.iter().find(|family| family.name == metric.name);
            let name = family.expect("it is in the catalog").prometheus;
            let mut put = |suffix: &str, labels, value| {
                samples.insert((format!("{name}{suffix}"), labels), value);
            };
            let numbers = match metric.data.as_ref().expect("a metric has data") {
                metric::Data::Sum(sum) => &sum.data_points[..],
                metric::Data::Gauge(gauge) => &gauge.data_points[..],
                _ => &[],
            };
            for point in numbers {
                let value = match point.value {
                    Some(number_data_point::Value::AsInt(value)) => value as f64,
                    Some(number_data_point::Value::AsDouble(value)) => value,
                    None => panic!("{name} has no number"),
                };
                put("", labels(&metric.name, &point.attributes), value);
            }
            let Some(metric::Data::Histogram(histogram)) = &metric.data else { continue };
            for point in &histogram.data_points {
                let labels = labels(&metric.name, &point.attributes);
                let bounds = point.explicit_bounds.iter().copied().chain([f64::INFINITY]);
                let mut below = 0;
                for (bound, count) in bounds.zip(&point.bucket_counts) {
                    below += count;
                    let mut labels = labels.clone();
                    labels.insert("le".into(), bound.to_string().replace("inf", "+Inf"));
                    put("_bucket", labels, below as f64);
                }
                put("_count", labels.clone(), point.count as f64);
                put("_sum", labels, point.sum.expect("a histogram has a sum"));
            }
        }
        samples
    }

    fn labels(
        metric: &str,
        attributes: &[KeyValue],
        conventions: Conventions,
    ) -> BTreeMap<String, String> {
        let family = FAMILIES.iter().find(|family| family.name == metric);
        let labels = family.expect("it is in the catalog").shown(conventions);
        let value = |name: &str| {
            let attribute = attributes.iter().find(|attribute| attribute.key == name)?;
            match attribute.value.as_ref()?.value.as_ref()? {
                any_value::Value::StringValue(text) => Some(text.clone()),
                _ => None,
            }
        };
        labels
            .map(|label| (label.prometheus.to_owned(), value(label.name).unwrap_or_default()))
            .collect()
    }
}
