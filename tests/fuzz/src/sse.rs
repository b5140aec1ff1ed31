//! Server-sent events: cuts change nothing, and a reader that holds it all finds the same.

use tidegate_wire::frame::{Pieces as _, Sse};

use crate::input::{Input, cut};
use crate::pieces::Pieces;

/// Event names are told apart by this much of them.
const NAME_BYTES: usize = 16;

pub(crate) fn sse(data: &[u8]) {
    let mut input = Input::new(data);
    let seed = input.short();
    let text = input.rest();
    let whole = events(&[text]);
    assert_eq!(events(&cut(seed, text)), whole, "cut");
    assert_eq!(events(&cut(0, text)), whole, "byte by byte");
    assert_eq!(naive(text), whole, "line by line");
}

fn events(parts: &[&[u8]]) -> Pieces {
    let (mut sse, mut pieces) = (Sse::default(), Pieces::default());
    for part in parts {
        sse.feed(part, &mut pieces);
    }
    sse.end(&mut pieces);
    pieces
}

fn naive(text: &[u8]) -> Pieces {
    let mut naive = Naive::default();
    let (lines, last) = lines(text);
    for line in &lines {
        naive.line(line);
    }
    // Of a line that nothing ends, data counts, if any of it has come.
    let colon = last.iter().position(|byte| *byte == b':');
    let has_value = colon.is_some_and(|colon| colon + 1 < last.len() && &last[..colon] == b"data");
    if has_value || naive.takes_bare(&last) {
        naive.line(&last);
    }
    naive.dispatch();
    naive.pieces
}

/// A reader that is given whole lines.
#[derive(Default)]
struct Naive {
    pieces: Pieces,
    has_data: bool,
    /// The data at hand is JSON without a field.
    is_bare: bool,
}

impl Naive {
    fn line(&mut self, line: &[u8]) {
        if line.is_empty() {
            self.dispatch();
        } else if self.takes_bare(line) {
            if line[0] == b'{' && !self.is_bare {
                self.dispatch();
            }
            self.is_bare = true;
            data(line, &mut self.has_data, &mut self.pieces);
        } else {
            match field(line) {
                Some((b"data", value)) => data(value, &mut self.has_data, &mut self.pieces),
                Some((b"event", value)) => self.pieces.name(&value[..value.len().min(NAME_BYTES)]),
                _ => {}
            }
        }
    }

    /// Whether a line is JSON, as gateways put their errors into streams.
    fn takes_bare(&self, line: &[u8]) -> bool {
        match line.first() {
            Some(b'{') => true,
            Some(b' ' | b'\t' | b'"' | b'}' | b'[' | b']') => self.has_data,
            _ => false,
        }
    }

    fn dispatch(&mut self) {
        self.is_bare = false;
        if std::mem::take(&mut self.has_data) {
            self.pieces.end();
        }
    }
}

/// The lines that end, and what is left.
fn lines(text: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut lines = Vec::new();
    let mut line = Vec::new();
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'\n' if at > 0 && text[at - 1] == b'\r' => {}
            b'\n' | b'\r' => lines.push(std::mem::take(&mut line)),
            _ => line.push(byte),
        }
    }
    (lines, line)
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let value = &line[colon + 1..];
    Some((&line[..colon], value.strip_prefix(b" ").unwrap_or(value)))
}

fn data(value: &[u8], has_data: &mut bool, pieces: &mut Pieces) {
    if !*has_data && value.starts_with(b"[DONE]") {
        return pieces.done();
    }
    if std::mem::replace(has_data, true) {
        pieces.payload(b"\n");
    }
    pieces.payload(value);
}
