//! The recorded exchanges, ready to be replayed.
//!
//! Shared by path: the observer's own test and the one over sockets read the same corpus.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

#[path = "expect.rs"]
mod expect;

/// All exchanges in a folder, by name.
pub(crate) fn exchanges(folder: &Path) -> impl Iterator<Item = Value> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("the folder of exchanges")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    paths.into_iter().map(|path| {
        let text = fs::read(&path).expect("a readable file");
        serde_json::from_slice(&text).expect("a JSON file")
    })
}

/// What is known to be wrong: `<id> <key>`, one a line.
pub(crate) fn known(path: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(path).expect("the list of known differences");
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// What the record of this exchange should say and does not, each with its reason.
pub(crate) fn differences(exchange: &Value, record: &Value) -> Vec<(&'static str, String)> {
    let expected = &exchange["expect"];
    let mut wrong = expect::differences(expected, &exchange["operation"], record);
    let limits = expect::limit_differences(exchange, record);
    wrong.extend(limits.map(|what| ("rate_limit_headers", what)));
    let is_error = expected.get("error_type").is_some() || expected.get("error_code").is_some();
    let outcome = if is_error { "failed" } else { "completed" };
    if record["tidegate.outcome"] != outcome {
        wrong.push(("outcome", record["tidegate.outcome"].to_string()));
    }
    if let Some(reason) = record.get("tidegate.not_understood") {
        wrong.push(("not_understood", reason.to_string()));
    }
    wrong
}

/// The body of a request or response.
pub(crate) fn body(message: &Value) -> Vec<u8> {
    match (&message["body_text"], &message["body_b64"]) {
        (Value::String(text), _) => text.clone().into_bytes(),
        (_, Value::String(text)) => STANDARD.decode(text).expect("base64"),
        _ => Vec::new(),
    }
}
