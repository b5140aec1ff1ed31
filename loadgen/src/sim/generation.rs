//! What one call generates, before a dialect writes it down.

use std::fmt::{Display, Write};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

/// One word is one token, and one chunk of a stream.
///
/// All of them can stand in JSON as they are; two are not ASCII, so that byte counts and character
/// counts differ.
const WORDS: [&str; 48] = [
    " the",
    " tide",
    " gate",
    " opens",
    " when",
    " water",
    " falls",
    " and",
    " shuts",
    " before",
    " a",
    " storm",
    " comes",
    " from",
    " open",
    " sea",
    " slow",
    " currents",
    " carry",
    " sand",
    " along",
    " every",
    " channel",
    " while",
    " keepers",
    " watch",
    " their",
    " gauges",
    " at",
    " night",
    " measuring",
    " what",
    " flows",
    " in",
    " or",
    " out",
    " of",
    " this",
    " harbour",
    " naïve",
    " 潮",
    " ships",
    " wait",
    " for",
    " deeper",
    " water,",
    " then",
    " leave",
];

/// What a call asks of the model.
#[derive(Debug, Default)]
pub(super) struct Ask {
    pub(super) model: String,
    pub(super) input_tokens: u64,
    /// The most tokens that the caller takes.
    pub(super) limit: Option<u64>,
}

/// A call's answer, decided before its first token is sent.
#[derive(Debug)]
pub(super) struct Generation {
    /// Unique within a run; the same in every run with the same seed.
    pub(super) id: u128,
    pub(super) model: String,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    /// Whether the caller's limit ended it.
    pub(super) capped: bool,
    pub(super) created: Timestamp,
    /// From the start to the first token.
    pub(super) ttft: Duration,
    /// Between two tokens.
    pub(super) tpot: Duration,
}

/// One piece of the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) index: u64,
    pub(super) word: &'static str,
    pub(super) last: bool,
}

impl Generation {
    pub(super) fn token(&self, index: u64) -> Token {
        let word = WORDS[(mix(self.id as u64, index) % WORDS.len() as u64) as usize];
        let word = if index == 0 { word.trim_start() } else { word };
        Token { index, word, last: index + 1 == self.output_tokens }
    }

    pub(super) fn text(&self) -> String {
        (0..self.output_tokens).map(|index| self.token(index).word).collect()
    }

    /// When a token is due, from the start. A schedule, so that late tokens do not delay later ones.
    pub(super) fn due(&self, index: u64) -> Duration {
        self.ttft + Duration::from_nanos((self.tpot.as_nanos() as u64).saturating_mul(index))
    }

    /// From the start to the last token.
    pub(super) fn latency(&self) -> Duration {
        self.due(self.output_tokens.saturating_sub(1))
    }

    /// One of two words, by how the answer ended.
    pub(super) fn reason(&self, stop: &'static str, length: &'static str) -> &'static str {
        if self.capped { length } else { stop }
    }

    /// Writes a template of a dialect, with what every dialect says at some place.
    pub(super) fn fill(&self, template: &str, values: &[(&str, &dyn Display)]) -> String {
        let common: [(&str, &dyn Display); 9] = [
            ("id", &format_args!("{:032x}", self.id)),
            ("created", &self.created.as_second()),
            ("time", &format_args!("{:.6}", self.created)),
            ("model", &quoted(&self.model)),
            ("input", &self.input_tokens),
            ("output", &self.output_tokens),
            ("total", &(self.input_tokens + self.output_tokens)),
            ("first_ms", &self.ttft.as_millis()),
            ("latency_ms", &self.latency().as_millis()),
        ];
        fill(template, &[values, &common].concat())
    }
}

/// Puts values in the places of their `$names`. Names that have no value stay, for a later filling.
pub(super) fn fill(template: &str, values: &[(&str, &dyn Display)]) -> String {
    let mut text = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let end = after.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(after.len());
        let name = &after[..end];
        match values.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => write!(text, "{value}").expect("a string takes all"),
            None => {
                text.push('$');
                text.push_str(name);
            }
        }
        rest = &after[end..];
    }
    text.push_str(rest);
    text
}

/// Text as JSON writes it.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

pub(super) fn uuid(id: u128) -> String {
    let hex = format!("{id:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A number that looks random, and is the same for the same two numbers (splitmix64).
pub(super) fn mix(seed: u64, index: u64) -> u64 {
    let mut x = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// How many tokens a prompt has: a quarter of the bytes of its text, rounded up.
pub(super) fn input_tokens(parts: &[&Value]) -> u64 {
    tokens_of(parts.iter().map(|part| text_bytes(part)).sum())
}

/// How many tokens so many bytes of text are.
pub(super) fn tokens_of(bytes: u64) -> u64 {
    bytes.div_ceil(4)
}

/// The text in a prompt, whatever a dialect wraps it in. Images, tools, ids and roles are no text.
/// A number is a token that the caller has made himself.
fn text_bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Number(_) => 4,
        Value::Array(items) => items.iter().map(text_bytes).sum(),
        Value::Object(fields) => ["text", "content", "parts"]
            .iter()
            .filter_map(|key| fields.get(*key))
            .map(text_bytes)
            .sum(),
        Value::Null | Value::Bool(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_template_keeps_what_has_no_value_yet() {
        let once = fill("$a-$b_c $", &[("a", &1)]);
        assert_eq!(once, "1-$b_c $");
        assert_eq!(fill(&once, &[("b_c", &"x")]), "1-x $");
    }

    #[test]
    fn input_tokens_are_a_quarter_of_the_text_rounded_up() {
        let messages = json!([
            {"role": "system", "content": "12345"},
            {"role": "user", "content": [
                {"type": "text", "text": "67"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ]},
        ]);
        assert_eq!(input_tokens(&[&messages]), 2);
    }

    #[test]
    fn every_word_stands_in_json_as_it_is_and_is_one_word() {
        for word in WORDS {
            assert_eq!(quoted(word), format!("\"{word}\""));
            assert_eq!(word.split_whitespace().count(), 1);
        }
    }
}
