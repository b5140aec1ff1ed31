//! A page of figures as metrics of OTLP, under the names that they have there.
//!
//! Counters, histograms and summaries are cumulative, and say since when. That is what the page says
//! itself (`_created`, or the start of its process), else when we first saw the series; a value that
//! fell has begun anew between two readings.
//!
//! Sources: OpenTelemetry, "Prometheus and OpenMetrics Compatibility" and "Metrics Data Model";
//! OpenMetrics 1.0.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
    Summary, SummaryDataPoint, metric, number_data_point,
};
use tidegate_wire::exposition::{self, Kind, Line, Sample};
use tidegate_wire::glob;

use super::ScrapeConfig;

/// What may become of a sample.
pub(super) const RESULTS: [&str; 5] =
    ["kept", "not_allowed", "malformed", "unusable", "over_limit"];

const KEPT: usize = 0;
const NOT_ALLOWED: usize = 1;
const MALFORMED: usize = 2;
const UNUSABLE: usize = 3;
const OVER_LIMIT: usize = 4;

/// Since when a process counts, in seconds, by the libraries of Prometheus.
const PROCESS_START: &str = "process_start_time_seconds";

/// The samples of one page, by [`RESULTS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(pub(super) [u64; RESULTS.len()]);

/// Reads the pages of one target, one after the other.
pub(super) struct Reader {
    allow: Vec<String>,
    labels: BTreeMap<String, String>,
    max_samples: u64,
    begun: HashMap<String, Begun>,
}

/// What is remembered of a cumulative series.
#[derive(Clone, Copy)]
struct Begun {
    since: u64,
    /// The last reading.
    at: u64,
    value: f64,
    is_there: bool,
}

/// The samples of one family, as they stand on the page.
struct Family<'a> {
    name: Cow<'a, str>,
    kind: Kind,
    help: &'a str,
    samples: Vec<Sample<'a>>,
}

/// A page, sorted.
#[derive(Default)]
struct Page<'a> {
    families: Vec<Family<'a>>,
    by_name: HashMap<Cow<'a, str>, usize>,
    process_start: Option<u64>,
}

/// The samples of one series of a histogram or a summary.
#[derive(Default)]
struct Group<'a, 'b> {
    samples: u64,
    labels: Vec<(&'b Cow<'a, str>, &'b Cow<'a, str>)>,
    /// Bounds or quantiles, and their values.
    parts: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: Option<f64>,
    is_broken: bool,
}

/// The suffixes of samples, by the kind of their family.
fn suffixes(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Counter => &["_total", "_created"],
        Kind::Histogram => &["_bucket", "_count", "_sum", "_created"],
        Kind::Summary => &["_count", "_sum", "_created"],
        Kind::Gauge | Kind::Other => &[],
    }
}

// === impl Counts ===

impl Counts {
    /// Whether nothing of it was a sample, though there was something.
    pub(super) fn is_no_page_of_metrics(self) -> bool {
        let Self(counts) = self;
        counts[MALFORMED] > 0 && counts.iter().sum::<u64>() == counts[MALFORMED]
    }

    fn add(&mut self, result: usize, samples: u64) {
        self.0[result] += samples;
    }
}

// === impl Reader ===

impl Reader {
    pub(super) fn new(config: &ScrapeConfig, target: &str) -> Self {
        let mut labels = BTreeMap::from([("target".to_owned(), target.to_owned())]);
        labels.extend(config.labels.clone());
        Self {
            allow: config.allow.clone(),
            labels,
            max_samples: config.max_samples.into(),
            begun: HashMap::new(),
        }
    }

    /// What a page says that was read now.
    pub(super) fn read(&mut self, text: &str, now: SystemTime) -> (Vec<Metric>, Counts) {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        let mut counts = Counts::default();
        let page = self.sorted(text, &mut counts);
        self.begun.values_mut().for_each(|begun| begun.is_there = false);
        let start = page.process_start;
        let metrics = page.families.iter().flat_map(|family| {
            let (data, name, kept, unusable) = self.family(family, start, now);
            counts.add(KEPT, kept);
            counts.add(UNUSABLE, unusable);
            data.map(|data| Metric {
                name,
                description: exposition_text(family.help),
                data: Some(data),
                ..Default::default()
            })
        });
        let metrics = metrics.collect();
        self.begun.retain(|_, begun| begun.is_there);
        (metrics, counts)
    }

    /// The samples of a page that are allowed, by their families.
    fn sorted<'a>(&self, text: &'a str, counts: &mut Counts) -> Page<'a> {
        let mut page = Page::default();
        let mut taken = 0;
        for line in exposition::lines(text) {
            match line {
                Err(_) => counts.add(MALFORMED, 1),
                Ok(Line::Type { name, kind }) => page.family(name).kind = kind,
                Ok(Line::Help { name, text }) => page.family(name).help = text,
                Ok(Line::Sample(sample)) => {
                    if sample.name == PROCESS_START {
                        page.process_start = nanoseconds(sample.value);
                    }
                    let family = page.family_of(&sample);
                    let family = &mut page.families[family];
                    let is_allowed = |pattern: &String| {
                        glob(pattern, &sample.name) || glob(pattern, &family.name)
                    };
                    if !self.allow.iter().any(is_allowed) {
                        counts.add(NOT_ALLOWED, 1);
                    } else if taken == self.max_samples {
                        counts.add(OVER_LIMIT, 1);
                    } else {
                        taken += 1;
                        family.samples.push(sample);
                    }
                }
            }
        }
        page
    }

    /// The data of a family, its name, and how many of its samples are kept, and are of no use.
    fn family(
        &mut self,
        family: &Family<'_>,
        start: Option<u64>,
        now: u64,
    ) -> (Option<metric::Data>, String, u64, u64) {
        let temporality = AggregationTemporality::Cumulative.into();
        let name = family.name.to_string();
        match family.kind {
            Kind::Counter => {
                let (points, name, kept, unusable) = self.counters(family, start, now);
                let data = metric::Data::Sum(Sum {
                    data_points: points,
                    aggregation_temporality: temporality,
                    is_monotonic: true,
                });
                ((kept > 0).then_some(data), name, kept, unusable)
            }
            Kind::Gauge | Kind::Other => {
                let points = self.gauges(family, now);
                let kept = points.len() as u64;
                let unusable = family.samples.len() as u64 - kept;
                let data = metric::Data::Gauge(Gauge { data_points: points });
                ((kept > 0).then_some(data), name, kept, unusable)
            }
            Kind::Histogram => {
                let (points, kept, unusable) = self.grouped(family, "le", start, now, histogram);
                let data = metric::Data::Histogram(Histogram {
                    data_points: points,
                    aggregation_temporality: temporality,
                });
                ((kept > 0).then_some(data), name, kept, unusable)
            }
            Kind::Summary => {
                let (points, kept, unusable) =
                    self.grouped(family, "quantile", start, now, summary);
                let data = metric::Data::Summary(Summary { data_points: points });
                ((kept > 0).then_some(data), name, kept, unusable)
            }
        }
    }

    fn gauges(&self, family: &Family<'_>, now: u64) -> Vec<NumberDataPoint> {
        let mut seen = HashSet::new();
        let samples = family.samples.iter();
        let first = samples.filter(|sample| seen.insert(key(&sample.labels, None)));
        first
            .map(|sample| NumberDataPoint {
                attributes: self
                    .attributes(sample.labels.iter().map(|(name, value)| (name, value))),
                time_unix_nano: now,
                value: Some(number_data_point::Value::AsDouble(sample.value)),
                ..Default::default()
            })
            .collect()
    }

    /// The points of a counter, and the name that its samples have.
    fn counters(
        &mut self,
        family: &Family<'_>,
        start: Option<u64>,
        now: u64,
    ) -> (Vec<NumberDataPoint>, String, u64, u64) {
        let created = created(family, None);
        let mut name = family.name.to_string();
        let (mut points, mut kept, mut unusable) = (Vec::new(), created.len() as u64, 0);
        let mut seen = HashSet::new();
        for sample in &family.samples {
            let is_created = sample.name != family.name && sample.name.ends_with("_created");
            if is_created {
                continue;
            }
            let key = key(&sample.labels, None);
            let is_count = sample.value >= 0.0 && sample.value.is_finite();
            if !is_count || !seen.insert(key.clone()) {
                unusable += 1;
                continue;
            }
            kept += 1;
            name = sample.name.to_string();
            let since = created.get(&key).copied().or(start);
            points.push(NumberDataPoint {
                attributes: self
                    .attributes(sample.labels.iter().map(|(name, value)| (name, value))),
                start_time_unix_nano: self.since(&family.name, &key, sample.value, since, now),
                time_unix_nano: now,
                value: Some(number_data_point::Value::AsDouble(sample.value)),
                ..Default::default()
            });
        }
        (points, name, kept, unusable)
    }

    /// The points of a family of which one has several samples.
    fn grouped<P>(
        &mut self,
        family: &Family<'_>,
        part: &str,
        start: Option<u64>,
        now: u64,
        point: impl Fn(&mut Group<'_, '_>) -> Option<P>,
    ) -> (Vec<P>, u64, u64)
    where
        P: Point,
    {
        let created = created(family, Some(part));
        let (mut points, mut kept, mut unusable) = (Vec::new(), created.len() as u64, 0);
        for (key, mut group) in groups(family, part) {
            let count = group.count.or_else(|| group.parts.last().map(|(_, value)| *value));
            match point(&mut group) {
                Some(mut point) => {
                    kept += group.samples;
                    let since = created.get(&key).copied().or(start);
                    let count = count.unwrap_or_default();
                    let since = self.since(&family.name, &key, count, since, now);
                    point.place(self.attributes(group.labels.iter().copied()), since, now);
                    points.push(point);
                }
                None => unusable += group.samples,
            }
        }
        (points, kept, unusable)
    }

    /// Since when a series counts that stands at this value, as far as its page says.
    fn since(&mut self, family: &str, key: &str, value: f64, said: Option<u64>, now: u64) -> u64 {
        // A clock that goes before ours has said nothing.
        let said = said.filter(|said| *said <= now);
        let fresh = Begun { since: said.unwrap_or(now), at: now, value, is_there: true };
        let begun = self.begun.entry(format!("{}{family}{key}", family.len())).or_insert(fresh);
        if value < begun.value {
            begun.since = said.unwrap_or(begun.at).max(begun.at);
        } else if let Some(said) = said {
            begun.since = begun.since.max(said);
        }
        (begun.at, begun.value, begun.is_there) = (now, value, true);
        begun.since
    }

    /// These labels, and those that all get; what the page says counts more.
    fn attributes<'b>(
        &self,
        own: impl Iterator<Item = (&'b Cow<'b, str>, &'b Cow<'b, str>)>,
    ) -> Vec<KeyValue> {
        let own: Vec<_> = own.collect();
        let is_own = |name: &str| own.iter().any(|(label, _)| **label == name);
        let given = self.labels.iter().filter(|(name, _)| !is_own(name));
        let given = given.map(|(name, value)| (&name[..], &value[..]));
        // An empty label is an absent one.
        let said = own.iter().map(|(name, value)| (&***name, &***value));
        let said = said.filter(|(_, value)| !value.is_empty());
        said.chain(given).map(|(name, value)| attribute(name, value)).collect()
    }
}

/// A point whose place in space and time is yet to be said.
trait Point {
    fn place(&mut self, attributes: Vec<KeyValue>, since: u64, now: u64);
}

impl Point for HistogramDataPoint {
    fn place(&mut self, attributes: Vec<KeyValue>, since: u64, now: u64) {
        self.attributes = attributes;
        (self.start_time_unix_nano, self.time_unix_nano) = (since, now);
    }
}

impl Point for SummaryDataPoint {
    fn place(&mut self, attributes: Vec<KeyValue>, since: u64, now: u64) {
        self.attributes = attributes;
        (self.start_time_unix_nano, self.time_unix_nano) = (since, now);
    }
}

// === impl Page ===

impl<'a> Page<'a> {
    fn family(&mut self, name: Cow<'a, str>) -> &mut Family<'a> {
        let at = self.at(name);
        &mut self.families[at]
    }

    fn at(&mut self, name: Cow<'a, str>) -> usize {
        let next = self.families.len();
        let at = *self.by_name.entry(name.clone()).or_insert(next);
        if at == next {
            let family = Family { name, kind: Kind::Other, help: "", samples: Vec::new() };
            self.families.push(family);
        }
        at
    }

    /// The family of a sample: by its name, or by that without the suffix of its kind.
    fn family_of(&mut self, sample: &Sample<'a>) -> usize {
        if let Some(at) = self.by_name.get(&sample.name) {
            return *at;
        }
        let stem = sample.name.rfind('_').and_then(|at| {
            let (stem, suffix) = sample.name.split_at(at);
            let family = *self.by_name.get(stem)?;
            suffixes(self.families[family].kind).contains(&suffix).then_some(family)
        });
        stem.unwrap_or_else(|| self.at(sample.name.clone()))
    }
}

/// When series were created, in nanoseconds, by their keys.
fn created(family: &Family<'_>, part: Option<&str>) -> HashMap<String, u64> {
    let created = family.samples.iter().filter(|sample| {
        let suffix = sample.name.strip_prefix(&*family.name);
        // A counter is called `x_total` on pages of the old format, and `x` on those of the new.
        suffix == Some("_created")
    });
    let said = |sample: &Sample<'_>| Some((key(&sample.labels, part), nanoseconds(sample.value)?));
    created.filter_map(said).collect()
}

/// The samples of each series, in the order in which these come.
fn groups<'a, 'b>(family: &'b Family<'a>, part: &str) -> Vec<(String, Group<'a, 'b>)> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut groups: Vec<(String, Group<'_, '_>)> = Vec::new();
    for sample in &family.samples {
        let suffix = sample.name.strip_prefix(&*family.name).unwrap_or_default();
        if suffix == "_created" {
            continue;
        }
        let key = key(&sample.labels, Some(part));
        let next = groups.len();
        let at = *places.entry(key.clone()).or_insert(next);
        if at == next {
            let own = sample.labels.iter().filter(|(name, _)| name != part);
            let labels = own.map(|(name, value)| (name, value)).collect();
            groups.push((key, Group { labels, ..Group::default() }));
        }
        let group = &mut groups[at].1;
        group.samples += 1;
        let value = sample.value;
        let is_first = match (suffix, sample.label(part).map(str::parse)) {
            ("_count", _) => group.count.replace(value).is_none(),
            ("_sum", _) => group.sum.replace(value).is_none(),
            (_, Some(Ok(part))) => {
                group.parts.push((part, value));
                true
            }
            (_, _) => false,
        };
        group.is_broken |= !is_first;
    }
    groups
}

/// A histogram, if its buckets add up.
fn histogram(group: &mut Group<'_, '_>) -> Option<HistogramDataPoint> {
    if group.is_broken || group.parts.iter().any(|(bound, _)| bound.is_nan()) {
        return None;
    }
    group.parts.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let (last, whole) = *group.parts.last().filter(|(bound, _)| *bound == f64::INFINITY)?;
    debug_assert!(last.is_infinite());
    if group.count.is_some_and(|count| count != whole) {
        return None;
    }
    let mut below = 0;
    let mut counts = Vec::with_capacity(group.parts.len());
    for (_, value) in &group.parts {
        let value = whole_number(*value)?;
        counts.push(value.checked_sub(below)?);
        below = value;
    }
    let bounds: Vec<_> = group.parts[..counts.len() - 1].iter().map(|(bound, _)| *bound).collect();
    // The same bound twice says nothing that could be told apart.
    let rise = bounds.windows(2).all(|pair| pair[0] < pair[1]);
    rise.then(|| HistogramDataPoint {
        count: below,
        sum: group.sum.filter(|sum| !sum.is_nan()),
        bucket_counts: counts,
        explicit_bounds: bounds,
        ..Default::default()
    })
}

/// A summary, if it says how many it sums up.
fn summary(group: &mut Group<'_, '_>) -> Option<SummaryDataPoint> {
    let is_quantile = |(quantile, _): &(f64, f64)| (0.0..=1.0).contains(quantile);
    if group.is_broken || !group.parts.iter().all(is_quantile) {
        return None;
    }
    group.parts.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let quantile =
        |(quantile, value): &(f64, f64)| ValueAtQuantile { quantile: *quantile, value: *value };
    Some(SummaryDataPoint {
        count: whole_number(group.count?)?,
        sum: group.sum.unwrap_or_default(),
        quantile_values: group.parts.iter().map(quantile).collect(),
        ..Default::default()
    })
}

/// What tells series of one family apart, but for this label.
fn key(labels: &[(Cow<'_, str>, Cow<'_, str>)], without: Option<&str>) -> String {
    let mut labels: Vec<_> = labels.iter().filter(|(name, _)| Some(&**name) != without).collect();
    labels.sort();
    labels.iter().fold(String::new(), |mut key, (name, value)| {
        // Lengths in front: nothing that a value holds can look like another label.
        key.push_str(&format!("\u{0}{}={}{value}", name, value.len()));
        key
    })
}

fn whole_number(value: f64) -> Option<u64> {
    /// Above it, doubles are no longer exact.
    const MOST: f64 = (1_u64 << 53) as f64;
    (value.fract() == 0.0 && (0.0..=MOST).contains(&value)).then_some(value as u64)
}

fn nanoseconds(seconds: f64) -> Option<u64> {
    // Apart, or the digits of a double would not do for both.
    let (whole, rest) = (seconds.trunc(), seconds.fract());
    let in_time = (0.0..1e10).contains(&seconds) && seconds > 0.0;
    in_time.then(|| whole as u64 * 1_000_000_000 + (rest * 1e9).round() as u64)
}

/// A description, without its escapes.
fn exposition_text(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\\\", "\\")
}

fn attribute(name: &str, value: &str) -> KeyValue {
    KeyValue {
        key: name.into(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
