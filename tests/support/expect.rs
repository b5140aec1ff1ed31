//! Compares what a recorded exchange expects with the record that was made of it.
//!
//! Shared by path: the observer's own test and the one over sockets read the same corpus.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde_json::Value;

/// By key of `expect`: the key of the record that must be equal, or absent where it is absent.
const KEYS: &[(&str, &str)] = &[
    ("model", "gen_ai.request.model"),
    ("response_model", "gen_ai.response.model"),
    ("response_id", "gen_ai.response.id"),
    ("region", "cloud.region"),
    ("project", "gcp.project_id"),
    ("input_tokens", "gen_ai.usage.input_tokens"),
    ("output_tokens", "gen_ai.usage.output_tokens"),
    ("cached_input_tokens", "gen_ai.usage.cache_read.input_tokens"),
    ("cache_write_input_tokens", "gen_ai.usage.cache_creation.input_tokens"),
    ("reasoning_tokens", "gen_ai.usage.reasoning.output_tokens"),
    ("counted_tokens", "tidegate.counted_tokens"),
    ("finish_reasons", "gen_ai.response.finish_reasons"),
    ("block_reason", "tidegate.block_reason"),
    ("error_code", "tidegate.error.code"),
    ("retry_after_s", "tidegate.retry_after_s"),
    ("operation_name", "tidegate.job.name"),
    ("operation_done", "tidegate.job.done"),
];

/// The keys of `expect` in which the record differs, each with both values.
///
/// `reported_usage` quotes the exchange itself, which a record does not keep; for
/// `rate_limit_headers` see [`limit_differences`].
/// Where `expect` is silent on the region, one that the host names is right all the same; and of
/// calls that no usage is expected from, what is known beyond `expect` is right, too.
pub(crate) fn differences(
    expect: &Value,
    operation: &Value,
    record: &Value,
) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    for (key, name) in KEYS {
        let (wanted, found) = (present(&expect[key]), present(&record[name]));
        let is_more = (*key == "region" || operation == "other") && wanted.is_none();
        if !is_same(wanted, found) && !is_more && !is_alternative(expect, key, found) {
            wrong.push((*key, format!("wanted {wanted:?}, found {found:?}")));
        }
    }
    let (wanted, found) = (error_type(expect, record), present(&record["error.type"]));
    if wanted.as_ref() != found {
        wrong.push(("error_type", format!("wanted {wanted:?}, found {found:?}")));
    }
    if expect["usage_absent"] == true && present(&record["tidegate.usage.source"]).is_some() {
        wrong.push(("usage_absent", "found usage".to_owned()));
    }
    wrong
}

/// A value that says something: an empty list says as little as no key.
fn present(value: &Value) -> Option<&Value> {
    let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    (!is_empty).then_some(value)
}

/// Whether both say the same: JSON has one kind of number, 48 and 48.0 alike.
fn is_same(wanted: Option<&Value>, found: Option<&Value>) -> bool {
    let number = |value: Option<&Value>| value.and_then(Value::as_f64);
    wanted == found || number(wanted).is_some() && number(wanted) == number(found)
}

fn is_alternative(expect: &Value, key: &str, found: Option<&Value>) -> bool {
    let others = expect["alternatives"][key].as_array();
    others.zip(found).is_some_and(|(others, found)| others.contains(found))
}

/// The provider's type, else its code, else the status of an error.
fn error_type(expect: &Value, record: &Value) -> Option<Value> {
    let stated = present(&expect["error_type"]).or(present(&expect["error_code"])).cloned();
    let is_error = expect.get("error_type").is_some();
    let status = &record["http.response.status_code"];
    stated.or_else(|| is_error.then(|| Value::from(status.to_string())))
}

/// The keys of rate limits in which the record differs from what the answer's fields say. A field
/// that was recorded verbatim is read here once more, word by word.
pub(crate) fn limit_differences(exchange: &Value, record: &Value) -> Option<String> {
    let date = exchange["response"]["headers"]["date"].as_str().and_then(moment);
    let mut wanted = BTreeMap::new();
    for (name, value) in exchange["expect"]["rate_limit_headers"].as_object().into_iter().flatten()
    {
        let value = value.as_str().expect("a header is a text");
        wanted.extend(limit_key(name).and_then(|(key, figure)| {
            let number = match figure {
                "reset" => reset(value, date)?,
                _ => value.parse::<u64>().ok()? as f64,
            };
            Some((key, number))
        }));
    }
    let keys = record.as_object().expect("a record").iter();
    let found: BTreeMap<_, _> = keys
        .filter(|(key, _)| key.starts_with("tidegate.ratelimit."))
        .map(|(key, value)| (key.clone(), value.as_f64().expect("a number")))
        .collect();
    (wanted != found).then(|| format!("wanted {wanted:?}, found {found:?}"))
}

/// The key of a record for a field of this name, and which figure it is.
fn limit_key(name: &str) -> Option<(String, &'static str)> {
    let (_, words) = name.split_once("ratelimit")?;
    let mut words: Vec<_> = words.split('-').filter(|word| !word.is_empty()).collect();
    let at = |words: &[&str]| {
        let is_figure = |word: &&str| matches!(*word, "limit" | "remaining" | "reset");
        words.iter().position(is_figure)
    };
    let figure = words.remove(at(&words)?);
    let dimension = if words.is_empty() { "default".to_owned() } else { words.join("-") };
    let (key, figure) = match figure {
        "limit" => ("limit", "limit"),
        "remaining" => ("remaining", "remaining"),
        _ => ("reset_s", "reset"),
    };
    Some((format!("tidegate.ratelimit.{key}.{dimension}"), figure))
}

/// Seconds until a limit begins anew, to be compared exactly: the recordings have no odd ones.
fn reset(value: &str, date: Option<Timestamp>) -> Option<f64> {
    if let Ok(moment) = value.parse::<Timestamp>() {
        let seconds = (moment - date?).total(jiff::Unit::Second).expect("a length of time");
        return (seconds >= -60.0).then_some(seconds.max(0.0));
    }
    let milliseconds = value.strip_suffix("ms").and_then(|text| text.parse::<f64>().ok());
    let seconds = value.strip_suffix('s').unwrap_or(value);
    let (minutes, seconds) = seconds.split_once('m').unwrap_or(("0", seconds));
    let in_seconds = || Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?);
    milliseconds.map(|number| number / 1000.0).or_else(in_seconds)
}

fn moment(date: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(date).ok()
}
