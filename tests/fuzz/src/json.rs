//! The JSON reader: cuts change nothing, and of a legal document it finds what serde finds.

use std::sync::LazyLock;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use tidegate_wire::json::{Error, Reader, Scalar, Sink, Table, Want};

use crate::input::{Input, cut};

/// Of a scalar, this much is kept.
const KEPT_BYTES: usize = 1024;

/// What is looked for: everything that may be wanted of a path, alone and with more below.
const PATHS: &[(&str, Want, u8)] = &[
    ("model", Want::Value, 0),
    ("usage.input", Want::Value, 1),
    ("usage.details.cached", Want::Value, 2),
    ("choices[*]", Want::Closed, 3),
    ("choices[*].index", Want::Value, 4),
    ("choices[*].delta.content", Want::Seen, 5),
    ("choices[*].finish", Want::Value, 6),
    ("choices[*].parts[*]", Want::Closed, 7),
    ("choices[*].parts[*].text", Want::Seen, 8),
    ("error", Want::Seen, 9),
    ("error.type", Want::Value, 10),
    ("bytes", Want::Fragments, 11),
    ("n", Want::Value, 12),
    ("list[*]", Want::Value, 13),
    ("list[*].a", Want::Fragments, 14),
];

static TABLE: LazyLock<Table<u8>> = LazyLock::new(|| Table::new(PATHS));

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Text(u8, Vec<u8>),
    Number(u8, f64, Option<u64>),
    Bool(u8, bool),
    Null(u8),
    Seen(u8),
    Fragment(u8, Vec<u8>),
    Closed(u8, u32),
    Item,
}

/// What a reader found, in its order; fragments that came in parts are one.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Events(pub(crate) Vec<Event>);

pub(crate) fn json(data: &[u8]) {
    let mut input = Input::new(data);
    let seed = input.short();
    let text = input.rest();
    let whole = read(&[text]);
    assert_eq!(read(&cut(seed, text)), whole, "cut");
    assert_eq!(read(&cut(0, text)), whole, "byte by byte");
    if let Some(expected) = expected(text) {
        let (found, result) = whole;
        assert_eq!(result, Ok(()), "serde takes it");
        assert_eq!(found.0.len(), expected.0.len(), "{found:?} {expected:?}");
        for (found, expected) in found.0.iter().zip(&expected.0) {
            assert!(is_same(found, expected), "{found:?} {expected:?}");
        }
    }
}

/// What the reader finds in these parts of one text.
pub(crate) fn read(parts: &[&[u8]]) -> (Events, Result<(), Error>) {
    let (mut reader, mut events) = (Reader::new(&TABLE), Events::default());
    let fed = parts.iter().try_for_each(|part| reader.feed(part, &mut events));
    let result = fed.and_then(|()| reader.end(&mut events));
    (events, result)
}

/// What serde finds in a legal document.
pub(crate) fn expected(text: &[u8]) -> Option<Events> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b".+-".contains(byte);
    if text.split(|byte| !is_word(byte)).any(|word| word.len() > KEPT_BYTES) {
        return None;
    }
    let mut events = Events::default();
    let mut path = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let walk = Walk { path: &mut path, events: &mut events, index: 0, at_root: true };
    walk.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(events)
}

/// Whether both are the same, but for the last bits of a float.
fn is_same(found: &Event, expected: &Event) -> bool {
    match (found, expected) {
        (Event::Number(a, left, count), Event::Number(b, right, wanted)) => {
            let is_near = |left: f64, right: f64| (left - right).abs() <= right.abs() * 1e-12;
            let counts = match (count, wanted) {
                (Some(left), Some(right)) => left.abs_diff(*right) as f64 <= *right as f64 * 1e-12,
                // A float may stand at the edge.
                _ => count == wanted || *right >= u64::MAX as f64 * 0.999,
            };
            let is_edge = right.fract() != 0.0 && right.fract().abs() > 1.0 - 1e-9;
            a == b && is_near(*left, *right) && (counts || is_edge)
        }
        _ => found == expected,
    }
}

impl Sink<u8> for Events {
    fn value(&mut self, field: u8, value: Scalar<'_>) {
        self.0.push(match value {
            Scalar::Text(text) => Event::Text(field, text.to_vec()),
            Scalar::Number(text) => {
                let text = std::str::from_utf8(text).expect("numbers are ASCII");
                // What is no number to others may pass as one, and counts nothing.
                let number = text.parse().unwrap_or(-1.0);
                Event::Number(field, number, value.count())
            }
            Scalar::Bool(value) => Event::Bool(field, value),
            Scalar::Null => Event::Null(field),
        });
    }

    fn seen(&mut self, field: u8) {
        self.0.push(Event::Seen(field));
    }

    fn fragment(&mut self, field: u8, bytes: &[u8]) {
        match self.0.last_mut() {
            Some(Event::Fragment(last, text)) if *last == field => text.extend_from_slice(bytes),
            _ => self.0.push(Event::Fragment(field, bytes.to_vec())),
        }
    }

    fn closed(&mut self, field: u8, at: u32) {
        self.0.push(Event::Closed(field, at));
    }

    fn item(&mut self) {
        self.0.push(Event::Item);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Each,
}

/// Walks a document in its order and says what the table wants of it.
struct Walk<'a> {
    path: &'a mut Vec<Step>,
    events: &'a mut Events,
    /// The index of this value in the array around it.
    index: u32,
    at_root: bool,
}

impl Walk<'_> {
    fn wanted(&self, is_closed: bool) -> Option<(Want, u8)> {
        let is_here = |path: &str| steps(path) == *self.path;
        let mut wanted = PATHS
            .iter()
            .filter(|(path, want, _)| (*want == Want::Closed) == is_closed && is_here(path));
        wanted.next().map(|(_, want, field)| (*want, *field))
    }

    fn scalar(&mut self, event: impl Fn(u8) -> Event, is_something: bool) {
        match self.wanted(false) {
            Some((Want::Value, field)) => self.events.0.push(event(field)),
            Some((Want::Seen, field)) if is_something => self.events.seen(field),
            _ => {}
        }
        self.ended();
    }

    fn opened(&mut self) {
        if let Some((Want::Seen, field)) = self.wanted(false) {
            self.events.seen(field);
        }
    }

    fn ended(&mut self) {
        if self.at_root {
            self.events.item();
        }
    }
}

fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let key = part.strip_suffix("[*]");
        steps.push(Step::Key(key.unwrap_or(part).to_owned()));
        steps.extend(key.map(|_| Step::Each));
    }
    steps
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("JSON")
    }

    fn visit_bool<E>(mut self, value: bool) -> Result<(), E> {
        self.scalar(|field| Event::Bool(field, value), value);
        Ok(())
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.scalar(Event::Null, false);
        Ok(())
    }

    fn visit_u64<E>(mut self, value: u64) -> Result<(), E> {
        self.scalar(|field| Event::Number(field, value as f64, Some(value)), true);
        Ok(())
    }

    fn visit_i64<E>(mut self, value: i64) -> Result<(), E> {
        let count = u64::try_from(value).ok();
        self.scalar(|field| Event::Number(field, value as f64, count), true);
        Ok(())
    }

    fn visit_f64<E>(mut self, value: f64) -> Result<(), E> {
        let count = (value >= 0.0 && value < u64::MAX as f64).then_some(value as u64);
        self.scalar(|field| Event::Number(field, value, count), true);
        Ok(())
    }

    fn visit_str<E>(mut self, text: &str) -> Result<(), E> {
        let text = text.as_bytes();
        if let Some((Want::Fragments, field)) = self.wanted(false)
            && !text.is_empty()
        {
            self.events.fragment(field, text);
        }
        let kept = &text[..text.len().min(KEPT_BYTES)];
        self.scalar(|field| Event::Text(field, kept.to_vec()), !text.is_empty());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        self.opened();
        // The elements of an array at the root are items.
        if !self.at_root {
            self.path.push(Step::Each);
        }
        let mut index = 0;
        loop {
            let walk =
                Walk { path: &mut *self.path, events: &mut *self.events, index, at_root: false };
            if elements.next_element_seed(walk)?.is_none() {
                break;
            }
            if self.at_root {
                self.events.item();
            }
            index += 1;
        }
        if !self.at_root {
            self.path.pop();
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.opened();
        while let Some(key) = members.next_key()? {
            self.path.push(Step::Key(key));
            members.next_value_seed(Walk {
                path: &mut *self.path,
                events: &mut *self.events,
                index: 0,
                at_root: false,
            })?;
            self.path.pop();
        }
        if let Some((_, field)) = self.wanted(true) {
            self.events.closed(field, self.index);
        }
        self.ended();
        Ok(())
    }
}
