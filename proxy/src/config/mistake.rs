//! What is wrong with a configuration: where it stands, which key it is, and what was perhaps meant.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path as KeyPath, Segment, Track};
use serde_saphyr::{Error, Location};

use super::place;

/// A configuration that cannot be used, and where. It shows no line of the file: others beside the
/// wrong one may hold what is nobody's business.
#[derive(Debug)]
pub struct ConfigError {
    file: Option<PathBuf>,
    /// Line and column, both from 1.
    at: Option<(u64, u64)>,
    key: Vec<String>,
    message: String,
}

impl ConfigError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { file: None, at: None, key: Vec::new(), message: message.into() }
    }

    /// At this key: each step is the name of a key, or the number of an entry in brackets.
    pub(super) fn at<K: ToString>(key: &[K], message: impl Into<String>) -> Self {
        let key = key.iter().map(ToString::to_string).collect();
        Self { key, ..Self::new(message) }
    }

    /// Adds where in this text its key stands, or as much of the way to it as there is.
    pub(super) fn within(self, text: &str) -> Self {
        let at = self.at.or_else(|| place::of(text, &self.key));
        Self { at, ..self }
    }

    /// In this file.
    pub(super) fn of(self, path: &Path) -> Self {
        Self { file: Some(path.to_owned()), ..self }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some((line, column)) = self.at {
            write!(f, "line {line} column {column}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", dotted(&self.key))?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

/// `routes[0].match.model`
fn dotted(key: &[String]) -> String {
    key.iter().enumerate().fold(String::new(), |way, (at, step)| {
        let is_joined = at == 0 || step.starts_with('[');
        if is_joined { way + step } else { way + "." + step }
    })
}

/// Reads a file, and names it where something is wrong with it.
pub(crate) fn within_file<T>(
    path: &Path,
    read: impl FnOnce(&str) -> Result<T, ConfigError>,
) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::new(error.to_string()));
    text.and_then(|text| read(&text)).map_err(|error| error.of(path))
}

/// Reads a text, and says where something is wrong with it.
pub(crate) fn parse_yaml<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    let mut track = Track::new();
    serde_saphyr::with_deserializer_from_str(text, |deserializer| {
        T::deserialize(serde_path_to_error::Deserializer::new(deserializer, &mut track))
    })
    .map_err(|error| explain(error.without_snippet(), &track.path(), text))
}

fn explain(error: &Error, path: &KeyPath, text: &str) -> ConfigError {
    let known = |location: &Location| *location != Location::UNKNOWN;
    let at = error.location().filter(known).map(|at| (at.line(), at.column()));
    let mut key = steps(path);
    if let Some(last) = own_key(error).filter(|last| key.last().map(String::as_str) != Some(last)) {
        key.push(last.to_owned());
    }
    // Of a value that reads but will not do, the reader may know no more than what it is part of.
    let of_key = place::of(text, &key).filter(|of_key| at.is_none_or(|at| at.0 < of_key.0));
    ConfigError { at: of_key.or(at), key, ..ConfigError::new(message(error)) }
}

/// The key that the reader names and the way to which may not lead as far.
fn own_key(error: &Error) -> Option<&str> {
    match error {
        Error::SerdeUnknownField { field, .. } => Some(field),
        Error::SerdeMissingField { field, .. } => Some(field),
        Error::DuplicateMappingKey { key, .. } => key.as_deref(),
        _ => None,
    }
}

fn steps(path: &KeyPath) -> Vec<String> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("[{index}]")),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { variant } => Some(variant.clone()),
            Segment::Unknown => None,
        })
        .collect()
}

/// What is wrong, in the words of a user.
fn message(error: &Error) -> String {
    const ADDRESS: &str = "write an IP address and a port, such as 127.0.0.1:4100";
    const SPAN: &str = "write a number with its unit, such as 1.5s or 20ms";
    match error {
        Error::SerdeUnknownField { field, expected, .. } => not_known("field", field, expected),
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            not_known("variant", variant, expected)
        }
        Error::SerdeMissingField { field, .. } => format!("missing field `{field}`"),
        Error::DuplicateMappingKey { .. } => "this key stands here a second time".to_owned(),
        Error::Unexpected { expected, .. } => format!("expected {}", kind(expected)),
        Error::InvalidScalar { ty, .. } => format!("expected {}", kind(ty)),
        _ => {
            let text = plain(error);
            if text.contains("invalid socket address") {
                format!("this is not an address; {ADDRESS}")
            } else if text.contains("duration format") {
                format!("this is not a duration; {SPAN}")
            } else if text.contains("tabs disallowed") {
                format!("{text}; use blanks")
            } else {
                text
            }
        }
    }
}

/// Which word is not known, which are, and the nearest of them.
fn not_known(what: &str, wrong: &str, known: &[&str]) -> String {
    let hint = nearest(wrong, known.iter().copied());
    format!("unknown {what} `{wrong}`, expected one of {}{hint}", known.join(", "))
}

/// What the reader wanted, as a user of YAML would call it.
fn kind(expected: &str) -> &str {
    match expected {
        "mapping start" => "keys with their values",
        "sequence start" => "a list",
        "string scalar" => "one word or text",
        "boolean" | "bool" => "true or false",
        "f32" | "f64" | "float" => "a number",
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" => "a whole number",
        other => other,
    }
}

/// The reader's own words, without where that is.
fn plain(error: &Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let first = text.lines().next().unwrap_or(text);
    let Some(at) = error.location() else { return first.to_owned() };
    let place = format!("line {} column {}", at.line(), at.column());
    let before = format!("{place}: ");
    let after = format!(" at {}", place.replace(" column", ", column"));
    let first = first.strip_prefix(&before).unwrap_or(first);
    first.strip_suffix(&after).unwrap_or(first).to_owned()
}

/// `; did you mean …?`, where one of the known words is near enough.
pub(super) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|key| (strsim::damerau_levenshtein(wrong, key), key))
        .min()
        .filter(|(distance, _)| *distance <= wrong.len().max(3) / 2)
        .map_or_else(String::new, |(_, key)| format!("; did you mean `{key}`?"))
}

#[cfg(test)]
mod tests {
    use crate::Config;

    /// A configuration, and what is said of it: where, which key, and what is wrong.
    const MISTAKES: &[(&str, &str)] = &[
        // Unknown keys, at every depth.
        ("upstream: {}", "line 1 column 1: upstream: unknown field `upstream`, … `upstreams`?"),
        ("timeouts:\n  idel: 3s", "line 2 column 3: timeouts.idel: unknown field … `idle`?"),
        ("limits: { job: 3 }", "line 1 column 11: limits.job: unknown field … `jobs`?"),
        ("otlp:\n  traces:\n    sampel: x", "line 3 column 5: otlp.traces.sampel: … `sampler`?"),
        ("upstreams:\n  a.b:\n    ulr: x", "line 3 column 5: upstreams.a.b.ulr: unknown … `url`?"),
        (
            "routes:\n- upstream: a\n- upstream: a\n  match: { headers: {} }",
            "line 4 column 12: routes[1].match.headers: unknown field … `header`?",
        ),
        (
            "upstreams: { a: { credential: { bearr: {} } } }",
            "line 1 column 33: upstreams.a.credential.bearr: … `bearer`?",
        ),
        (
            "upstreams: { a: { credential: { bearer: { fil: x } } } }",
            "upstreams.a.credential.bearer.fil: … `file`?",
        ),
        (
            "upstreams: { a: { credential: { aws: { assume_role: { arm: x } } } } }",
            "upstreams.a.credential.aws.assume_role.arm: … `arn`?",
        ),
        (
            "qqqqqqqq: 1",
            "line 1 column 1: qqqqqqqq: unknown field `qqqqqqqq`, expected one of listen",
        ),
        // Unknown words.
        (
            "routes: [{ upstream: a, match: { dialect: opnai } }]",
            "line 1 column 43: routes[0].match.dialect: unknown variant `opnai`, … `openai`?",
        ),
        (
            "routes: [{ upstream: a, include_usage: ad }]",
            "routes[0].include_usage: unknown variant `ad`, … `add`?",
        ),
        ("semantic_conventions: lates", "semantic_conventions: unknown variant … `latest`?"),
        (
            "otlp: { traces: { sampler: alwayson } }",
            "otlp.traces.sampler: unknown variant … `always_on`?",
        ),
        ("otlp: { protocol: grcp }", "otlp.protocol: unknown variant … `grpc`?"),
        // Values of another kind.
        ("listen: 4100", "line 1 column 9: listen: this is not an address; … 127.0.0.1:4100"),
        ("health: localhost:4100", "line 1 column 9: health: this is not an address;"),
        ("workers: many", "line 1 column 10: workers: expected a whole number"),
        ("workers: 0", "workers: invalid value: integer `0`, expected a nonzero u16"),
        ("listen: 127.0.0.1:1\nworkers: 0", "line 2 column 1: workers: invalid value"),
        ("timeouts: { idle: 3 }", "line 1 column 19: timeouts.idle: `3` is not a duration … 1.5s"),
        (
            "otlp: { interval: 5 }",
            "line 1 column 19: otlp.interval: this is not a duration; … 1.5s",
        ),
        (
            "limits: { held_body: 3 apples }",
            "line 1 column 22: limits.held_body: `3 apples` is not a size; … 8MiB",
        ),
        ("capture_content: maybe", "line 1 column 18: capture_content: expected true or false"),
        ("routes: a", "line 1 column 9: routes: expected a list"),
        ("timeouts:\n", "timeouts: expected keys with their values"),
        ("timeouts: 3s", "line 1 column 11: timeouts: expected keys with their values"),
        ("listen: [1]", "line 1 column 9: listen: expected one word or text"),
        ("upstreams: { a: { locations: x } }", "upstreams.a.locations: expected a list"),
        ("just text", "line 1 column 1: expected keys with their values"),
        ("- x", "line 1 column 1: expected keys with their values"),
        // What is missing, and what is too much.
        ("routes:\n- match: {}", "line 2 column 3: routes[0].upstream: missing field `upstream`"),
        (
            "upstreams: { a: { credential: { header: { env: X } } } }",
            "upstreams.a.credential.header.name: missing field `name`",
        ),
        ("upstreams:\n  a: {}", "line 2 column 3: upstreams.a: needs `url` or `addresses`"),
        (
            "listen: 127.0.0.1:1\nlisten: 127.0.0.1:2",
            "line 2 column 1: listen: this key stands here a second time",
        ),
        (
            "upstreams:\n  a: { url: 'http://x' }\n  a: { url: 'http://y' }",
            "line 3 column 3: upstreams.a: this key stands here a second time",
        ),
        (
            "upstreams: { a: { url: 'http://x', credential: {} } }",
            "upstreams.a.credential: a credential is one of",
        ),
        (
            "upstreams: { a: { credential: { bearer: { env: A, file: b } } } }",
            "upstreams.a.credential.bearer: has `file` and `env`",
        ),
        // What is no YAML.
        ("timeouts:\n\tidle: 3s", "line 2 column 2: … tabs … use blanks"),
        ("listen: [1", "line 1 column "),
        ("upstreams: {", "line 1 column "),
        ("listen: 'a", "line 1 column "),
        ("a: b: c", "line 1 column "),
        // What only shows with all of it.
        (
            "upstreams:\n  x: { url: 'http://x' }\n  a:\n    url: ftp://x",
            "line 3 column 3: upstreams.a: `ftp://x` does not begin with http",
        ),
        (
            "upstreams: { gemma: { url: 'http://x' } }\nroutes:\n- upstream: gema",
            "line 3 column 3: routes[0].upstream: there is no upstream `gema`; did you mean `gemma`?",
        ),
        (
            "otlp:\n  traces:\n    ratio: 10",
            "line 3 column 5: otlp.traces.ratio: 10 is not between 0 and 1",
        ),
        ("otlp:\n  endpoint: 'x y'", "line 2 column 3: otlp.endpoint: "),
    ];

    #[test]
    fn every_mistake_is_told_with_its_place_and_key_and_what_was_meant() {
        let mut wrong = Vec::new();
        for (text, expected) in MISTAKES {
            let told =
                Config::parse(text).map_or_else(|error| error.to_string(), |_| "good".into());
            let mut parts = expected.split('…').map(str::trim);
            let what = told.splitn(4, ' ').last().and_then(|rest| rest.split_once(": "));
            let told_from = match expected.starts_with("line ") {
                true => told.as_str(),
                false => what.map_or("", |(_, what)| what),
            };
            let begins = told_from.starts_with(parts.next().unwrap_or_default());
            if !begins || !parts.all(|part| told.contains(part)) || told.contains('\n') {
                wrong.push(format!("{text:?}\n  is: {told}\n not: {expected}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn a_mistake_shows_no_line_beside_it() {
        let text = "otlp:\n  headers: { authorization: canary }\n  intervall: 3s\n";
        let told = Config::parse(text).expect_err("a mistake").to_string();
        assert!(!told.contains("canary"), "{told}");
    }
}
