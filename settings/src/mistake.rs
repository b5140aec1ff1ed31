//! What is wrong with a configuration: where it stands, which key it is, and what was perhaps meant.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path as KeyPath, Segment, Track};
use serde_saphyr::{Error, Location};

use crate::place;

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
    /// Somewhere in a text.
    pub fn new(message: impl Into<String>) -> Self {
        Self { file: None, at: None, key: Vec::new(), message: message.into() }
    }

    /// At this key: each step is the name of a key, or the number of an entry in brackets.
    pub fn at<K: ToString>(key: &[K], message: impl Into<String>) -> Self {
        let key = key.iter().map(ToString::to_string).collect();
        Self { key, ..Self::new(message) }
    }

    /// Adds where in this text its key stands, or as much of the way to it as there is.
    pub fn within(self, text: &str) -> Self {
        let at = self.at.or_else(|| place::of(text, &self.key));
        Self { at, ..self }
    }

    /// In this file.
    pub fn of(self, path: &Path) -> Self {
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
pub fn within_file<T>(
    path: &Path,
    read: impl FnOnce(&str) -> Result<T, ConfigError>,
) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::new(error.to_string()));
    text.and_then(|text| read(&text)).map_err(|error| error.of(path))
}

/// Reads a text, and says where something is wrong with it.
pub fn parse_yaml<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
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
pub fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|key| (strsim::damerau_levenshtein(wrong, key), key))
        .min()
        .filter(|(distance, _)| *distance <= wrong.len().max(3) / 2)
        .map_or_else(String::new, |(_, key)| format!("; did you mean `{key}`?"))
}
