//! The text that a call asks, and all that stands around it.
//!
//! It is that of the last turn, where that is the user's, or of the prompt. Whatever is not taken for
//! a part of it must be equal, so nothing depends on whether a dialect is known here.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::normal::normalised;
use crate::layer::cache::canonical::Document;

/// Members that hold turns, in the dialects that have any.
const TURNS: [&str; 3] = ["messages", "contents", "input"];
/// Members that hold one text.
const PROMPTS: [&str; 5] = ["prompt", "inputs", "inputText", "input", "message"];
/// What stands where a text stood: it is no JSON, so no whole document is equal to one without text.
const HERE: u8 = b'?';

/// A question.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Its texts, normalised.
    texts: Vec<String>,
    /// The document without it, in canonical form.
    pub(super) around: Vec<u8>,
}

/// The last turn.
#[derive(Deserialize)]
struct Turn<'a> {
    #[serde(borrow)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    parts: Option<&'a RawValue>,
}

/// A part of a turn.
#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

impl Question {
    /// The question of a call with this body; nothing where it asks nothing by text.
    pub(super) fn of(document: &Document) -> Option<Self> {
        let body = document.text();
        let (mut texts, mut around) = (Vec::new(), Vec::with_capacity(body.len()));
        let mut done = 0;
        for at in places(document)? {
            let part: String = serde_json::from_slice(&body[at.clone()]).ok()?;
            texts.push(normalised(&part));
            around.extend_from_slice(&body[done..at.start]);
            around.push(HERE);
            done = at.end;
        }
        around.extend_from_slice(&body[done..]);
        let is_silent = texts.iter().all(|text| text.trim().is_empty());
        (!is_silent).then_some(Self { texts, around })
    }

    /// What it says, for those who read it.
    pub(super) fn text(&self) -> String {
        self.texts.join("\n\n")
    }

    /// All of it, for a key: each text behind its length, for what parts them may stand within one.
    pub(super) fn whole(&self) -> Vec<u8> {
        let mut whole = [&self.around, &b"\n"[..]].concat();
        for text in &self.texts {
            whole.extend_from_slice(&(text.len() as u64).to_le_bytes());
            whole.extend_from_slice(text.as_bytes());
        }
        whole
    }
}

/// Where the texts of the question stand in the body.
fn places(document: &Document) -> Option<Vec<Range<usize>>> {
    let member = |key: &&str, first: u8| document.member(key).filter(|value| value[0] == first);
    let texts = match TURNS.iter().find_map(|key| member(key, b'[')) {
        Some(turns) => of_last(turns)?,
        None => vec![PROMPTS.iter().find_map(|key| member(key, b'"'))?],
    };
    let start = document.text().as_ptr() as usize;
    let place = |text: &[u8]| {
        let at = text.as_ptr() as usize - start;
        at..at + text.len()
    };
    Some(texts.into_iter().map(place).collect())
}

/// The texts of the last of these turns.
fn of_last(turns: &[u8]) -> Option<Vec<&[u8]>> {
    let turns: Vec<&RawValue> = serde_json::from_slice(turns).ok()?;
    let turn: Turn<'_> = serde_json::from_str(turns.last()?.get()).ok()?;
    if turn.role.is_some_and(|role| role != "user") {
        return None;
    }
    let content = turn.content.or(turn.parts)?.get();
    if is_text(content) {
        return Some(vec![content.as_bytes()]);
    }
    let parts: Vec<Part<'_>> = serde_json::from_str(content).ok()?;
    let texts = parts.iter().filter_map(|part| part.text.map(RawValue::get));
    Some(texts.filter(|text| is_text(text)).map(str::as_bytes).collect())
}

fn is_text(value: &str) -> bool {
    value.starts_with('"')
}

/// The numbers in a text, in their order: two that name other numbers ask something else, however near
/// their embeddings are.
pub(super) fn numbers(text: &str) -> Box<str> {
    let is_of_number = |letter: char| letter.is_numeric() || matches!(letter, '.' | ',' | '-');
    let words = text.split(|letter| !is_of_number(letter));
    let words = words.filter(|word| word.contains(char::is_numeric));
    let words: Vec<_> = words.map(|word| word.trim_end_matches(['.', ',', '-'])).collect();
    words.join(" ").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(body: &str) -> Option<(String, String)> {
        let document = Document::read(body.as_bytes()).expect("JSON");
        let question = Question::of(&document)?;
        Some((question.text(), String::from_utf8(question.around).expect("text")))
    }

    #[test]
    fn the_last_turn_is_the_question_in_every_dialect() {
        for (body, around) in [
            (
                r#"{"messages":[{"role":"user","content":"a  b"}]}"#,
                r#"{"messages":[{"content":?,"role":"user"}]}"#,
            ),
            (
                r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a b"}]}]}"#,
                r#"{"messages":[{"content":[{"text":?,"type":"text"}],"role":"user"}]}"#,
            ),
            (
                r#"{"contents":[{"parts":[{"text":"a b"}]}]}"#,
                r#"{"contents":[{"parts":[{"text":?}]}]}"#,
            ),
            (
                r#"{"messages":[{"role":"user","content":[{"text":"a b"}]}]}"#,
                r#"{"messages":[{"content":[{"text":?}],"role":"user"}]}"#,
            ),
            (r#"{"input":"a b","model":"m"}"#, r#"{"input":?,"model":"m"}"#),
            (
                r#"{"input":[{"role":"user","content":"a b"}]}"#,
                r#"{"input":[{"content":?,"role":"user"}]}"#,
            ),
            (r#"{"prompt":"a\u0020b"}"#, r#"{"prompt":?}"#),
            (r#"{"inputText":"a b"}"#, r#"{"inputText":?}"#),
        ] {
            assert_eq!(question(body), Some(("a b".to_owned(), around.to_owned())), "{body}");
        }
    }

    #[test]
    fn what_is_no_text_stays_where_it_is_and_must_be_equal() {
        let body = r#"{"messages":[{"role":"system","content":"s  s"},{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}},{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#;
        let (text, around) = question(body).expect("it asks");
        assert_eq!(text, "a\n\nb");
        assert!(around.contains(r#""url":"u""#) && around.contains("s  s"), "{around}");
        assert_eq!(around.matches('?').count(), 2);
    }

    #[test]
    fn parts_are_told_apart_however_they_are_parted() {
        let parts = |one: &str, other: &str| {
            let part = |text: &str| serde_json::json!({ "text": text });
            let turn = serde_json::json!({ "role": "user", "content": [part(one), part(other)] });
            let body = serde_json::json!({ "messages": [turn] }).to_string();
            let document = Document::read(body.as_bytes()).expect("JSON");
            Question::of(&document).expect("it asks")
        };
        let (one, other) = (parts("a\n\nb", "c"), parts("a", "b\n\nc"));
        assert_eq!(one.text(), other.text(), "they read the same");
        assert_eq!(one.around, other.around);
        assert_ne!(one.whole(), other.whole(), "they are two questions");
        assert_ne!(parts("a\0b", "c").whole(), parts("a", "b\0c").whole());
    }

    #[test]
    fn a_call_that_asks_nothing_by_text_has_no_question() {
        for body in [
            r#"{"model":"m"}"#,
            r#"{"messages":[]}"#,
            r#"{"messages":[{"role":"assistant","content":"a"}]}"#,
            r#"{"messages":[{"role":"tool","content":"a"}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#,
            r#"{"messages":[{"role":"user","content":null}]}"#,
            r#"{"messages":["a"]}"#,
            r#"{"messages":[{"role":"user","content":" "}]}"#,
            r#"{"input":["a","b"]}"#,
            r#"{"prompt":[1,2]}"#,
        ] {
            assert_eq!(question(body), None, "{body}");
        }
    }

    #[test]
    fn numbers_are_told_with_their_signs_and_parts() {
        for (text, told) in [
            ("what is 2+2?", "2 2"),
            ("from -3.5 to 1,000.", "-3.5 1,000"),
            ("none at all...", ""),
            ("in 2024-05-01, twice", "2024-05-01"),
        ] {
            assert_eq!(&*numbers(text), told, "{text}");
        }
    }
}
