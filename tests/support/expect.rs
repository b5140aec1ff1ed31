//! Compares what a recorded exchange expects with the record that was made of it.
//!
//! Shared by path: the observer's own test and the one over sockets read the same corpus.

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
/// `reported_usage` and `rate_limit_headers` quote the exchange itself; a record keeps neither.
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
