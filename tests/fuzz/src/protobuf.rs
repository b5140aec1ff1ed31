//! The protobuf reader: cuts change nothing, and a walker that holds the whole message finds the
//! same, up to the same mistake.

use std::sync::LazyLock;

use tidegate_wire::json::{Scalar, Sink as _};
use tidegate_wire::proto::{Reader, Table, Take};

use crate::input::{Input, cut};
use crate::json::Events;

/// Of a string, this much is kept.
const KEPT_BYTES: usize = 1024;

const WORDS: &[&str] = &["ZERO", "STOP", "LENGTH"];

/// What is looked for: everything that may be wanted of a path, alone and with more below.
const PATHS: &[(&str, Take, u8)] = &[
    ("name=1", Take::Value, 0),
    ("count=2", Take::Value, 1),
    ("part=3", Take::Closed, 2),
    ("part=3.text=1", Take::Seen, 3),
    ("part=3.thought=2", Take::Bool, 4),
    ("part=3.reason=3", Take::Word(WORDS), 5),
    ("part=3.part=4", Take::Closed, 6),
    ("part=3.part=4.name=1", Take::Value, 7),
    ("data=4", Take::Fragments, 8),
    ("value=5.{a}.{b}.number_value=2", Take::Value, 9),
    ("value=5.{c}.number_value=2", Take::Value, 10),
    ("value=5.{c}.string_value=3", Take::Value, 11),
    ("call=6", Take::Seen, 12),
    ("call=6.name=1", Take::Value, 13),
    ("number=7", Take::Seen, 14),
];

/// The same for the walker: `5.5.1{a}` is the value under this key, below `Value.struct_value` and
/// `Struct.fields`.
const WALKED: &[(&str, Take, u8)] = &[
    ("1", Take::Value, 0),
    ("2", Take::Value, 1),
    ("3", Take::Closed, 2),
    ("3.1", Take::Seen, 3),
    ("3.2", Take::Bool, 4),
    ("3.3", Take::Word(WORDS), 5),
    ("3.4", Take::Closed, 6),
    ("3.4.1", Take::Value, 7),
    ("4", Take::Fragments, 8),
    ("5.5.1{a}.5.1{b}.2", Take::Value, 9),
    ("5.5.1{c}.2", Take::Value, 10),
    ("5.5.1{c}.3", Take::Value, 11),
    ("6", Take::Seen, 12),
    ("6.1", Take::Value, 13),
    ("7", Take::Seen, 14),
];

static TABLE: LazyLock<Table<u8>> = LazyLock::new(|| Table::new(PATHS));

pub(crate) fn protobuf(data: &[u8]) {
    let mut input = Input::new(data);
    let (seed, kind) = (input.short(), input.byte());
    let bytes = if kind & 1 == 0 { input.rest().to_vec() } else { message(input) };
    let whole = read(&[&bytes]);
    assert_eq!(read(&cut(seed, &bytes)), whole, "cut");
    assert_eq!(read(&cut(0, &bytes)), whole, "byte by byte");
    assert_eq!(naive(&bytes), whole, "walked");
}

/// What the reader finds, twice: it is as new after the end of a message.
fn read(parts: &[&[u8]]) -> (Events, bool) {
    let mut reader = Reader::new(&TABLE);
    let mut once = || {
        let mut events = Events::default();
        let fed = parts.iter().try_for_each(|part| reader.feed(part, &mut events));
        let ended = reader.end(&mut events);
        (events, fed.and(ended).is_ok())
    };
    let (first, again) = (once(), once());
    assert_eq!(first, again, "again");
    first
}

/// A message of fields that an input names, within messages that it opens.
fn message(mut input: Input<'_>) -> Vec<u8> {
    let mut open = vec![(0, Vec::new())];
    while !input.is_empty() {
        let (kind, number) = (input.byte(), u64::from(input.byte() % 9));
        let mut field = Vec::new();
        match kind % 8 {
            0 => field = [varint(number << 3), varint(input.byte().into())].concat(),
            1 => {
                let length = usize::from(input.byte());
                field = delimited(number, input.take(length));
            }
            2 if open.len() < 40 => open.push((number, Vec::new())),
            3 if open.len() > 1 => {
                let (number, inner) = open.pop().expect("it was looked at");
                field = delimited(number, &inner);
            }
            4 => field = [&varint(number << 3 | 1), input.take(8)].concat(),
            5 => field = [&varint(number << 3 | 5), input.take(4)].concat(),
            6 => field = delimited(number, &input.take(3).repeat(600)),
            _ => {
                let length = usize::from(input.byte() % 12);
                field = input.take(length).to_vec();
            }
        }
        let (_, last) = open.last_mut().expect("the message itself stays open");
        last.extend(field);
    }
    while let [.., (_, outer), (number, inner)] = open.as_mut_slice() {
        outer.extend(delimited(*number, inner));
        open.pop();
    }
    open.pop().map(|(_, message)| message).unwrap_or_default()
}

fn delimited(number: u64, bytes: &[u8]) -> Vec<u8> {
    [&varint(number << 3 | 2), &varint(bytes.len() as u64), bytes].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7F {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn naive(bytes: &[u8]) -> (Events, bool) {
    let mut naive = Naive { bytes, at: 0, events: Events::default() };
    let is_message = naive.message("", u64::MAX).is_some();
    if is_message {
        naive.events.item();
    }
    (naive.events, is_message)
}

/// Walks a message that is there whole; every mistake is `None`.
struct Naive<'a> {
    bytes: &'a [u8],
    at: usize,
    events: Events,
}

impl<'a> Naive<'a> {
    /// The fields up to this place, which only the outermost message does not know.
    fn message(&mut self, path: &str, end: u64) -> Option<()> {
        let mut key = None;
        loop {
            let is_cut = self.at == self.bytes.len() && end == u64::MAX;
            if self.at as u64 == end || is_cut {
                return Some(());
            }
            let tag = self.varint(end)?;
            let field = Some(tag >> 3).filter(|field| (1..1 << 29).contains(field))?;
            let child = child(path, field, key.as_deref());
            match tag & 7 {
                0 => {
                    let number = self.varint(end)?;
                    self.integer(&child, number);
                }
                1 => {
                    let bytes = self.fixed(8, end)?;
                    self.float(&child, f64::from_le_bytes(bytes.try_into().ok()?));
                }
                5 => {
                    let bytes = self.fixed(4, end)?;
                    self.float(&child, f32::from_le_bytes(bytes.try_into().ok()?).into());
                }
                2 => {
                    let text = self.delimited(&child, end)?;
                    if child.ends_with("key") {
                        key = Some(text[..text.len().min(KEPT_BYTES)].to_vec());
                    }
                }
                _ => return None,
            }
        }
    }

    fn delimited(&mut self, path: &str, end: u64) -> Option<&'a [u8]> {
        let length = self.varint(end)?;
        let stop = (self.at as u64).checked_add(length).filter(|stop| *stop <= end)?;
        if let Some((Take::Seen, field)) = wanted(path)
            && length > 0
        {
            self.events.seen(field);
        }
        if is_message(path) {
            self.message(path, stop)?;
            if let Some((Take::Closed, field)) = wanted(path) {
                self.events.closed(field, 0);
            }
            return Some(b"");
        }
        let there = usize::try_from(length).map_or(usize::MAX, |length| length);
        let text = &self.bytes[self.at..];
        let text = &text[..text.len().min(there)];
        if let Some((Take::Fragments, field)) = wanted(path)
            && !text.is_empty()
        {
            self.events.fragment(field, text);
        }
        self.at = usize::try_from(stop).ok().filter(|stop| *stop <= self.bytes.len())?;
        if let Some((Take::Value, field)) = wanted(path) {
            self.events.value(field, Scalar::Text(&text[..text.len().min(KEPT_BYTES)]));
        }
        Some(text)
    }

    fn varint(&mut self, end: u64) -> Option<u64> {
        let mut number = 0_u128;
        for bits in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            number |= u128::from(byte & 0x7F) << bits;
            if byte < 0x80 {
                let number = u64::try_from(number).ok()?;
                return (self.at as u64 <= end).then_some(number);
            }
        }
        None
    }

    fn fixed(&mut self, length: usize, end: u64) -> Option<&'a [u8]> {
        let bytes = self.bytes.get(self.at..self.at + length)?;
        self.at += length;
        (self.at as u64 <= end).then_some(bytes)
    }

    fn integer(&mut self, path: &str, number: u64) {
        let digits = number.cast_signed().to_string();
        let digits = digits.as_bytes();
        match wanted(path) {
            Some((Take::Value, field)) => self.events.value(field, Scalar::Number(digits)),
            Some((Take::Bool, field)) => self.events.value(field, Scalar::Bool(number != 0)),
            Some((Take::Seen, field)) if number != 0 => self.events.seen(field),
            Some((Take::Word(words), field)) if number != 0 => {
                let word = usize::try_from(number).ok().and_then(|number| words.get(number));
                let text = word.map_or(digits, |word| word.as_bytes());
                self.events.value(field, Scalar::Text(text));
            }
            _ => {}
        }
    }

    fn float(&mut self, path: &str, number: f64) {
        if let Some((Take::Value, field)) = wanted(path)
            && (0.0..=9_007_199_254_740_992.0).contains(&number)
        {
            let digits = (number.trunc() as u64).to_string();
            self.events.value(field, Scalar::Number(digits.as_bytes()));
        }
    }
}

fn wanted(path: &str) -> Option<(Take, u8)> {
    let mut wanted = WALKED.iter().filter(|(known, ..)| *known == path);
    wanted.next().map(|(_, take, field)| (*take, *field))
}

/// Whether something is wanted below, or the end.
fn is_message(path: &str) -> bool {
    let below = |known: &str| {
        let rest = known.strip_prefix(path);
        rest.is_some_and(|rest| rest.starts_with(['.', '{']))
    };
    matches!(wanted(path), Some((Take::Closed, _))) || WALKED.iter().any(|(known, ..)| below(known))
}

/// The path of a field; `dead` where nothing is wanted there.
fn child(path: &str, field: u64, key: Option<&[u8]>) -> String {
    let is_entry = WALKED.iter().any(|(known, ..)| known.starts_with(&format!("{path}{{")));
    let child = match (is_entry, field) {
        (true, 1) => return "key".to_owned(),
        (true, 2) => match std::str::from_utf8(key.unwrap_or_default()) {
            Ok(key) => format!("{path}{{{key}}}"),
            Err(_) => return "dead".to_owned(),
        },
        (true, _) => return "dead".to_owned(),
        (false, _) if path.is_empty() => field.to_string(),
        (false, _) => format!("{path}.{field}"),
    };
    if is_message(&child) || wanted(&child).is_some() { child } else { "dead".to_owned() }
}
