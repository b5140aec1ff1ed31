//! Server-sent events (WHATWG), as liberal as the recorded providers need.
//!
//! Lines end in LF, CRLF or CR; `data` goes on as it comes, so an endless line costs nothing. An
//! event that the end of the body cuts off is still handed on: for accounting it counts.

use memchr::{memchr2, memchr3};

use super::Pieces;

/// Field names and event names are told apart by this much of them.
const NAME_BYTES: usize = 16;
const DONE: &[u8] = b"[DONE]";
/// This event is not the end mark.
const NOT_DONE: u8 = u8::MAX;

/// Cuts server-sent events.
#[derive(Debug, Default)]
pub struct Sse {
    line: Line,
    /// The line before ended in CR: a LF that follows belongs to it.
    after_cr: bool,
    /// The event at hand has data.
    has_data: bool,
    /// That data is JSON without a field.
    is_bare: bool,
    /// How much of the end mark the data has shown.
    done: u8,
    name: Name,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Field,
    /// After the colon, where one space may stand.
    Colon(Value),
    Value(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Data,
    Event,
    Ignored,
}

/// The beginning of a name, and how long it is.
#[derive(Debug, Default)]
struct Name {
    bytes: [u8; NAME_BYTES],
    length: usize,
}

// === impl Sse ===

impl Sse {
    /// Cuts on.
    pub fn feed(&mut self, bytes: &[u8], pieces: &mut impl Pieces) {
        let mut at = 0;
        while at < bytes.len() {
            if std::mem::take(&mut self.after_cr) && bytes[at] == b'\n' {
                at += 1;
                continue;
            }
            at += self.step(&bytes[at..], pieces);
        }
    }

    /// No more comes. Says whether it stopped within a line that is no data yet.
    pub fn end(&mut self, pieces: &mut impl Pieces) -> bool {
        let is_within = match self.line {
            Line::Field => self.name.length > 0,
            Line::Colon(value) | Line::Value(value) => value == Value::Event,
        };
        let is_within = is_within || self.line == Line::Colon(Value::Data);
        if self.line == Line::Value(Value::Data) {
            self.data_ended(pieces);
        }
        self.dispatch(pieces);
        is_within
    }

    fn step(&mut self, bytes: &[u8], pieces: &mut impl Pieces) -> usize {
        match self.line {
            Line::Field => self.field(bytes, pieces),
            Line::Colon(value) => {
                self.line = Line::Value(value);
                if value == Value::Data {
                    self.data_begins(pieces);
                }
                usize::from(bytes[0] == b' ')
            }
            Line::Value(value) => self.value(value, bytes, pieces),
        }
    }

    fn field(&mut self, bytes: &[u8], pieces: &mut impl Pieces) -> usize {
        const USUAL: &[u8] = b"data: ";
        if self.name.length == 0 && bytes.starts_with(USUAL) {
            self.line = Line::Value(Value::Data);
            self.data_begins(pieces);
            return USUAL.len();
        }
        if self.name.length == 0 && is_bare(bytes[0], self.has_data) {
            return self.bare(bytes[0], pieces);
        }
        let Some(length) = memchr3(b':', b'\n', b'\r', bytes) else {
            self.name.push(bytes);
            return bytes.len();
        };
        self.name.push(&bytes[..length]);
        match bytes[length] {
            b':' => {
                self.line = Line::Colon(match self.name.as_bytes() {
                    b"data" => Value::Data,
                    b"event" => Value::Event,
                    _ => Value::Ignored,
                });
            }
            end => {
                if self.name.length == 0 {
                    self.dispatch(pieces);
                }
                self.line_ended(end);
            }
        }
        self.name.length = 0;
        length + 1
    }

    /// A line of JSON without a field: gateways put their errors into streams like that, and some
    /// servers break the lines of their data.
    fn bare(&mut self, first: u8, pieces: &mut impl Pieces) -> usize {
        if first == b'{' && !self.is_bare {
            self.dispatch(pieces);
        }
        self.is_bare = true;
        self.line = Line::Value(Value::Data);
        self.data_begins(pieces);
        0
    }

    fn value(&mut self, value: Value, bytes: &[u8], pieces: &mut impl Pieces) -> usize {
        let end = memchr2(b'\n', b'\r', bytes);
        let text = &bytes[..end.unwrap_or(bytes.len())];
        match value {
            Value::Data => self.data(text, pieces),
            Value::Event => self.name.push(text),
            Value::Ignored => {}
        }
        let Some(end) = end else { return bytes.len() };
        match value {
            Value::Data => self.data_ended(pieces),
            Value::Event => pieces.name(self.name.as_bytes()),
            Value::Ignored => {}
        }
        self.line_ended(bytes[end]);
        end + 1
    }

    fn line_ended(&mut self, end: u8) {
        self.after_cr = end == b'\r';
        self.line = Line::Field;
        self.name.length = 0;
    }

    fn data_begins(&mut self, pieces: &mut impl Pieces) {
        self.done = if self.has_data { NOT_DONE } else { 0 };
        if self.has_data {
            pieces.payload(b"\n");
        }
        self.has_data = true;
    }

    fn data(&mut self, text: &[u8], pieces: &mut impl Pieces) {
        let mut text = text;
        while self.done != NOT_DONE {
            let Some(first) = text.first() else { return };
            let matched = usize::from(self.done);
            if matched == DONE.len() {
                return;
            }
            if *first != DONE[matched] {
                self.done = NOT_DONE;
                pieces.payload(&DONE[..matched]);
                break;
            }
            self.done += 1;
            text = &text[1..];
        }
        pieces.payload(text);
    }

    fn data_ended(&mut self, pieces: &mut impl Pieces) {
        match usize::from(self.done) {
            matched if matched == DONE.len() => {
                self.has_data = false;
                pieces.done();
            }
            matched if matched < DONE.len() => pieces.payload(&DONE[..matched]),
            _ => {}
        }
        self.done = NOT_DONE;
    }

    fn dispatch(&mut self, pieces: &mut impl Pieces) {
        self.is_bare = false;
        if std::mem::take(&mut self.has_data) {
            pieces.end();
        }
    }
}

// === impl Name ===

impl Name {
    fn push(&mut self, bytes: &[u8]) {
        let start = self.length.min(NAME_BYTES);
        let fits = bytes.len().min(NAME_BYTES - start);
        self.bytes[start..start + fits].copy_from_slice(&bytes[..fits]);
        self.length = self.length.saturating_add(bytes.len());
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length.min(NAME_BYTES)]
    }
}

/// Whether a line is JSON and no field: no field begins so.
fn is_bare(first: u8, goes_on: bool) -> bool {
    first == b'{' || goes_on && matches!(first, b' ' | b'\t' | b'"' | b'}' | b'[' | b']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Events {
        open: String,
        all: Vec<String>,
    }

    impl Pieces for Events {
        fn payload(&mut self, bytes: &[u8]) {
            self.open.push_str(std::str::from_utf8(bytes).expect("ASCII"));
        }
        fn end(&mut self) {
            self.all.push(std::mem::take(&mut self.open));
        }
        fn name(&mut self, name: &[u8]) {
            self.all.push(format!("event {}", String::from_utf8_lossy(name)));
        }
        fn header(&mut self, _: &[u8], _: &[u8]) {}
        fn done(&mut self) {
            self.all.push("done".to_owned());
        }
    }

    fn events(pieces: &[&[u8]]) -> Vec<String> {
        let (mut sse, mut events) = (Sse::default(), Events::default());
        for piece in pieces {
            sse.feed(piece, &mut events);
        }
        sse.end(&mut events);
        events.all
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(events(&[text.as_bytes()]), expected, "whole: {text:?}");
        for at in 0..text.len() {
            let (head, tail) = text.as_bytes().split_at(at);
            assert_eq!(events(&[head, tail]), expected, "cut at {at}: {text:?}");
        }
        let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
        assert_eq!(events(&bytes), expected, "byte by byte: {text:?}");
    }

    #[test]
    fn lines_end_in_lf_crlf_or_cr() {
        for end in ["\n", "\r\n", "\r"] {
            let text = ["data: {}", "", "data:[1]", "", ""].join(end);
            check(&text, &["{}", "[1]"]);
        }
    }

    #[test]
    fn data_lines_of_one_event_are_joined() {
        check("data: {\ndata: }\n\n", &["{\n}"]);
    }

    #[test]
    fn comments_ids_and_unknown_fields_are_passed_over() {
        check(": OPENROUTER\n\n:\nid: 7\nretry: 3\ndatabase: x\ndata: 1\n\n", &["1"]);
    }

    #[test]
    fn the_end_mark_is_no_event() {
        check("data: 1\n\ndata: [DONE]\n\n", &["1", "done"]);
        check("data:[DONE]", &["done"]);
        check("data: [DO]\n\n", &["[DO]"]);
    }

    #[test]
    fn an_event_without_a_blank_line_at_the_end_counts() {
        check("event: error\ndata: {\"a\":1}", &["event error", "{\"a\":1}"]);
    }

    #[test]
    fn json_without_a_field_is_an_event_of_its_own_or_goes_on() {
        check("data: {\n  \"a\": 1\n}\n\ndata: 2\n\n", &["{\n  \"a\": 1\n}", "2"]);
        check("data: 1\n\n{\"error\":{}}\n", &["1", "{\"error\":{}}"]);
        check("data: 1\n{\"a\":\n  2\n}\ndata: 3\n\n", &["1", "{\"a\":\n  2\n}\n3"]);
        check("data: 1\n\n{\n\"a\": 2\n}\n\ndata: 3\n\n", &["1", "{\n\"a\": 2\n}", "3"]);
    }

    #[test]
    fn an_event_without_data_is_none() {
        check("event: ping\n\n\n\n", &["event ping"]);
    }

    #[test]
    fn endless_names_are_bounded() {
        let text = format!("{}: 1\ndata: 2\n\n", "x".repeat(1 << 20));
        assert_eq!(events(&[text.as_bytes()]), ["2"]);
    }
}
