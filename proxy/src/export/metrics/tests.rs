//! What is counted, and for whom.

use tidegate_wire::Outcome;

use super::*;
use crate::export::catalog::FAMILIES;

fn registry() -> Registry {
    Registry::new(["gemma".into()], [])
}

fn answered(model: &str, status: u16) -> Record {
    Record {
        operation: Some("chat".into()),
        provider: Some("openai".into()),
        request_model: Some(model.into()),
        route: Some("default".into()),
        upstream: Some("pool".into()),
        status: Some(status),
        outcome: Some(if status < 400 { Outcome::Completed } else { Outcome::Failed }),
        duration_s: Some(0.25),
        input_tokens: Some(3),
        ..Record::default()
    }
}

fn points(registry: &Registry, name: &str) -> Vec<Point> {
    let snapshot = registry.snapshot();
    let family = snapshot.families().find(|(family, _)| family.prometheus == name);
    family.map(|(_, points)| points).unwrap_or_default()
}

fn labels(point: &Point) -> Vec<&str> {
    point.labels.iter().map(|label| &**label).collect()
}

fn models(registry: &Registry) -> Vec<String> {
    let points = points(registry, "tidegate_usage_absent_total");
    points.into_iter().map(|point| point.labels[0].to_string()).collect()
}

#[test]
fn calls_of_all_workers_add_up() {
    let registry = registry();
    let (one, other) = (registry.shard(), registry.shard());
    lock(&one).add(&answered("gemma", 200));
    lock(&other).add(&answered("gemma", 200));
    lock(&other).add(&answered("gemma", 200));

    let calls = points(&registry, "tidegate_calls_total");
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].value, Value::Counter(3));
    assert_eq!(
        labels(&calls[0]),
        ["gemma", "openai", "chat", "", "default", "pool", "", "200", "completed", "", "", ""]
    );
    let tokens = points(&registry, "tidegate_tokens_total");
    assert_eq!(tokens.len(), 1, "only stated tokens are counted: {tokens:?}");
    assert_eq!(tokens[0].value, Value::Counter(9));
}

#[test]
fn a_value_on_a_bound_lies_within_it() {
    let mut histogram = Histogram::new(SECONDS_ADDED);
    for value in [0.00005, 0.001, 1.0, 1.5, f64::NAN] {
        histogram.observe(Some(value));
    }
    assert_eq!(histogram.counts(), [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1]);
    assert_eq!(histogram.sum(), 2.50105);
}

#[test]
fn a_million_made_up_models_add_no_series() {
    let registry = registry();
    let shard = registry.shard();
    lock(&shard).add(&answered("made-up", 404));
    let before = registry.snapshot();

    for number in 0..1_000_000 {
        lock(&shard).add(&answered(&format!("model-{number}"), 404));
    }
    let after = registry.snapshot();
    for ((family, before), (_, after)) in before.families().zip(after.families()) {
        assert_eq!(before.len(), after.len(), "{}", family.name);
    }
    assert_eq!(models(&registry), [OTHER]);
}

#[test]
fn a_model_that_grpc_does_not_find_becomes_no_label() {
    let registry = registry();
    let not_found = Record { grpc_status: Some(5), ..answered("made-up", 200) };
    let found = Record { grpc_status: Some(0), ..answered("gemini", 200) };
    let shard = registry.shard();
    lock(&shard).add(&not_found);
    lock(&shard).add(&found);
    let mut models: Vec<_> = points(&registry, "tidegate_calls_total")
        .into_iter()
        .map(|p| p.labels[0].to_string())
        .collect();
    models.sort();
    assert_eq!(models, ["gemini", "other"]);
}

#[test]
fn only_so_many_models_that_answer_become_label_values() {
    let registry = registry();
    let (one, other) = (registry.shard(), registry.shard());
    for number in 0..10_000 {
        lock(&one).add(&answered(&format!("model-{number}"), 200));
    }
    lock(&other).add(&answered("model-1", 500));
    lock(&other).add(&answered("model-9999", 200));
    lock(&other).add(&answered("gemma", 500));

    let models = models(&registry);
    assert_eq!(models.len(), MODELS + 2, "those with room, the configured one, and the rest");
    assert!(models.contains(&"gemma".into()) && models.contains(&OTHER.into()));
    let of_second = points(&registry, "tidegate_calls_total")
        .into_iter()
        .filter(|point| &*point.labels[7] == "500")
        .map(|point| point.labels[0].to_string());
    assert_eq!(of_second.collect::<Vec<_>>(), ["gemma", "model-1"]);
}

#[test]
fn beyond_the_limit_of_series_what_callers_choose_is_folded() {
    let registry = registry();
    let shard = registry.shard();
    for number in 0..4 * SERIES {
        let mut record = answered(&format!("model-{}", number % MODELS), 200);
        record.region = Some(format!("region-{}", number % (REGIONS - 1)).into());
        lock(&shard).add(&record);
    }
    let calls = points(&registry, "tidegate_calls_total");
    assert_eq!(calls.len(), SERIES + 1);
    let folded = calls.iter().find(|point| &*point.labels[0] == OTHER).expect("is counted");
    assert_eq!(&*folded.labels[3], OTHER);
    let sum: u64 = calls.iter().map(|point| count(&point.value)).sum();
    assert_eq!(sum, 4 * SERIES as u64);
}

fn count(value: &Value) -> u64 {
    match value {
        Value::Counter(count) => *count,
        _ => panic!("not a counter: {value:?}"),
    }
}

#[test]
fn a_call_is_in_flight_until_its_guard_is_dropped() {
    let registry = registry();
    let shard = registry.shard();
    let open = |model| lock(&shard).open(model, "pool");
    let guards = [open(Some("gemma")), open(Some("gemma"))];
    drop(open(None));

    let in_flight = || points(&registry, "tidegate_calls_in_flight");
    let values = |points: Vec<Point>| points.into_iter().map(|point| point.value);
    assert_eq!(labels(&in_flight()[0]), ["gemma", "pool"]);
    assert!(values(in_flight()).eq([Value::Gauge(2), Value::Gauge(0)]));
    drop(guards);
    assert!(values(in_flight()).eq([Value::Gauge(0), Value::Gauge(0)]));
}

#[test]
fn an_answer_without_usage_is_counted_where_it_should_have_some() {
    let registry = registry();
    let shard = registry.shard();
    lock(&shard).add(&answered("gemma", 200));
    lock(&shard).add(&answered("gemma", 500));
    let mut listed = answered("gemma", 200);
    listed.operation = None;
    lock(&shard).add(&listed);

    let absent = points(&registry, "tidegate_usage_absent_total");
    assert_eq!(absent[0].value, Value::Counter(1));
}

#[test]
fn the_generated_name_of_each_metric_is_the_one_of_prometheus() {
    for family in FAMILIES {
        let unit = match family.unit {
            "s" => "_seconds",
            "By" => "_bytes",
            _ => "",
        };
        let total = if family.kind == catalog::Kind::Counter { "_total" } else { "" };
        let generated = family.name.replace('.', "_") + unit + total;
        assert_eq!(generated, family.prometheus);
    }
}

#[test]
fn costs_add_up_exactly_and_what_has_no_price_is_counted_apart() {
    let registry = registry();
    let shards = [registry.shard(), registry.shard()];
    for shard in shards.iter().cycle().take(1000) {
        let record = Record { cost_usd: Some(0.1e-6), ..answered("gemma", 200) };
        lock(shard).add(&record);
    }
    let unpriced = Record { unpriced: Some(true), output_tokens: Some(2), ..answered("new", 200) };
    lock(&shards[0]).add(&unpriced);

    let cost = points(&registry, "tidegate_cost_usd_total");
    assert_eq!(cost.len(), 1, "{cost:?}");
    let sum = Amount::new(0.0001);
    assert_eq!(cost[0].value, Value::Amount(sum), "a thousand tenths of a millionth");
    assert_eq!(sum.units(), 0.0001);
    let calls: BTreeMap<_, _> = points(&registry, "tidegate_unpriced_calls_total")
        .into_iter()
        .map(|point| (point.labels[0].clone(), point.value))
        .collect();
    let expected = [("gemma".into(), Value::Counter(0)), ("new".into(), Value::Counter(1))];
    assert_eq!(calls, BTreeMap::from(expected));
    let tokens: Vec<_> = points(&registry, "tidegate_unpriced_tokens_total")
        .into_iter()
        .map(|point| (point.labels.join(" "), point.value))
        .collect();
    let expected = [("new openai input", 3), ("new openai output", 2)];
    assert_eq!(tokens, expected.map(|(labels, tokens)| (labels.into(), Value::Counter(tokens))));
}
