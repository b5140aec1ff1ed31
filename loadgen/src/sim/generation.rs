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
    /// The most tokens that the caller takes, of each choice.
    pub(super) limit: Option<u64>,
    /// How many answers the caller wants; none said is one.
    pub(super) choices: Option<u64>,
    /// Whether the dialect has words for reasoning.
    pub(super) thinks: bool,
    /// The tool that may be called, where the dialect has words for that.
    pub(super) tool: Option<String>,
}

/// A call's answer, decided before its first token is sent.
#[derive(Debug)]
pub(super) struct Generation {
    /// Unique within a run; the same in every run with the same seed.
    pub(super) id: u128,
    pub(super) model: String,
    pub(super) input_tokens: u64,
    /// All tokens, of all choices, reasoning included.
    pub(super) output_tokens: u64,
    /// Of these, the ones of reasoning; they come first.
    pub(super) reasoning_tokens: u64,
    /// The answers, which have as many tokens each and take turns in a stream.
    pub(super) choices: u64,
    /// The tool that is called instead of saying something.
    pub(super) tool: Option<String>,
    /// The token in whose place it breaks, if it is to break.
    pub(super) breaks_at: u64,
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
    /// Of all choices.
    pub(super) last: bool,
    /// The answer that it belongs to.
    pub(super) choice: u64,
    pub(super) is_reasoning: bool,
    /// Whether it is the first of its choice that is no reasoning.
    pub(super) is_first_visible: bool,
    /// Whether it is the last of its choice.
    pub(super) ends_choice: bool,
}

impl Generation {
    pub(super) fn token(&self, index: u64) -> Token {
        let (choice, place) = (index % self.choices, index / self.choices);
        let reasoning = self.reasoning_tokens / self.choices;
        let word = WORDS[(mix(self.id as u64, index) % WORDS.len() as u64) as usize];
        let starts = place == 0 || place == reasoning;
        Token {
            index,
            word: if starts { word.trim_start() } else { word },
            last: index + 1 == self.output_tokens,
            choice,
            is_reasoning: place < reasoning,
            is_first_visible: place == reasoning,
            ends_choice: place + 1 == self.output_tokens / self.choices,
        }
    }

    /// What the first choice says.
    pub(super) fn text(&self) -> String {
        self.text_of(0)
    }

    /// What a choice says.
    pub(super) fn text_of(&self, choice: u64) -> String {
        self.words(choice, false)
    }

    /// What a choice thought before.
    pub(super) fn reasoning_of(&self, choice: u64) -> String {
        self.words(choice, true)
    }

    fn words(&self, choice: u64, reasoning: bool) -> String {
        let tokens = (choice..self.output_tokens).step_by(self.choices as usize);
        let tokens = tokens.map(|index| self.token(index));
        tokens.filter(|token| token.is_reasoning == reasoning).map(|token| token.word).collect()
    }

    /// What a choice gives its tool, as JSON.
    pub(super) fn arguments_of(&self, choice: u64) -> String {
        format!(r#"{{"text":"{}"}}"#, self.text_of(choice))
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

    /// One of three words, by how the answer ended.
    pub(super) fn end(
        &self,
        stop: &'static str,
        length: &'static str,
        tool: &'static str,
    ) -> &'static str {
        self.reason(if self.tool.is_some() { tool } else { stop }, length)
    }

    /// Writes a template of a dialect, with what every dialect says at some place.
    pub(super) fn fill(&self, template: &str, values: &[(&str, &dyn Display)]) -> String {
        let common: [(&str, &dyn Display); 11] = [
            ("id", &format_args!("{:032x}", self.id)),
            ("created", &self.created.as_second()),
            ("time", &format_args!("{:.6}", self.created)),
            ("model", &quoted(&self.model)),
            ("input", &self.input_tokens),
            ("output", &self.output_tokens),
            ("reasoning", &self.reasoning_tokens),
            ("visible", &(self.output_tokens - self.reasoning_tokens)),
            ("total", &(self.input_tokens + self.output_tokens)),
            ("first_ms", &self.ttft.as_millis()),
            ("latency_ms", &self.latency().as_millis()),
        ];
        fill(template, &[values, &common].concat())
    }
}

// === impl Token ===

impl Token {
    /// Its part of what a tool is given, as it stands within a string of JSON. The parts of a choice
    /// make up [`Generation::arguments_of`].
    pub(super) fn argument(&self) -> String {
        let before = if self.is_first_visible { r#"{\"text\":\""# } else { "" };
        let after = if self.ends_choice { r#"\"}"# } else { "" };
        format!("{before}{}{after}", self.word)
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
    fn choices_take_turns_and_think_first() {
        let generation = Generation {
            id: 1,
            model: String::new(),
            input_tokens: 0,
            output_tokens: 10,
            reasoning_tokens: 4,
            choices: 2,
            tool: None,
            breaks_at: 0,
            capped: false,
            created: Timestamp::UNIX_EPOCH,
            ttft: Duration::ZERO,
            tpot: Duration::ZERO,
        };
        let tokens: Vec<_> = (0..10).map(|index| generation.token(index)).collect();
        let of = |is: fn(&Token) -> bool| -> Vec<_> {
            tokens.iter().filter(|token| is(token)).map(|token| token.index).collect()
        };
        assert_eq!(of(|token| token.choice == 1), [1, 3, 5, 7, 9]);
        assert_eq!(of(|token| token.is_reasoning), [0, 1, 2, 3]);
        assert_eq!(of(|token| token.is_first_visible), [4, 5]);
        assert_eq!(of(|token| token.ends_choice), [8, 9]);
        let words = |text: String| text.split_whitespace().count();
        assert_eq!(words(generation.reasoning_of(1)), 2);
        assert_eq!(words(generation.text_of(1)), 3);

        let parts = tokens.iter().filter(|token| token.choice == 1 && !token.is_reasoning);
        let arguments: String = parts.map(Token::argument).collect();
        assert_eq!(quoted(&generation.arguments_of(1)), format!("\"{arguments}\""));
    }

    #[test]
    fn every_word_stands_in_json_as_it_is_and_is_one_word() {
        for word in WORDS {
            assert_eq!(quoted(word), format!("\"{word}\""));
            assert_eq!(word.split_whitespace().count(), 1);
        }
    }
}
