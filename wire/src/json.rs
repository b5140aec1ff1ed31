//! A JSON reader that is fed in pieces and never holds a document.
//!
//! A [`Table`] says which paths are of interest. The reader walks the bytes as they come, counts
//! its way past everything else, and hands what it finds to a [`Sink`]. Values at the root, one
//! after another (NDJSON, NUL-ended), and the elements of an array at the root are each an item.
//! Malformed text is an error, never a panic; what lies off the paths is only checked for balance.

mod repeat;
mod scalar;
mod scan;
mod table;

pub use repeat::Repeating;
pub use scalar::Scalar;
pub use table::{Table, Want};

use scan::{quote_or_bracket, quote_or_escape, whole_text};
use table::{DEAD, ITEMS, ROOT};

/// Of a string or number, this much is kept; the rest of a string is cut off.
const KEPT_BYTES: usize = 1024;
/// Containers within containers, wanted or not.
const MAX_DEPTH: u8 = 128;
/// Containers within containers on a wanted path.
const MAX_LIVE: usize = 12;

/// Takes what a [`Reader`] finds.
pub trait Sink<F> {
    /// A wanted scalar.
    fn value(&mut self, field: F, value: Scalar<'_>);
    /// A wanted string with text in it, or a wanted value that is not null.
    fn seen(&mut self, field: F);
    /// The next piece of a wanted string, unescaped.
    fn fragment(&mut self, field: F, bytes: &[u8]);
    /// The string that came in pieces has ended.
    fn ended(&mut self, _field: F) {}
    /// A wanted object has closed; `at` is its index in the array around it.
    fn closed(&mut self, field: F, at: u32);
    /// A whole item has been read.
    fn item(&mut self);
}

/// Why a reader gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// This is no JSON, or it ended too early.
    Malformed,
    /// Too many containers within containers.
    TooDeep,
}

/// Reads JSON along the paths of its table.
#[derive(Clone, Debug)]
pub struct Reader<F: 'static> {
    table: &'static Table<F>,
    step: Step,
    /// The node of the value that comes next.
    node: u16,
    /// What becomes of the string that is open.
    target: Target<F>,
    /// A string that skipping is inside of.
    quoted: bool,
    escape: Escape,
    /// What is kept of a scalar that was cut in two.
    kept: Vec<u8>,
    depth: u8,
    /// By level, whether it is an object.
    objects: u128,
    /// How many of the levels are on wanted paths.
    live: u8,
    levels: [Level; MAX_LIVE],
}

#[derive(Clone, Copy, Debug, Default)]
struct Level {
    node: u16,
    index: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Between,
    Value,
    FirstElement,
    FirstKey,
    Key,
    Colon,
    After,
    Text,
    Word,
    Skip,
}

#[derive(Clone, Copy, Debug)]
enum Target<F> {
    Nothing,
    Key,
    Field(Want, F),
}

#[derive(Clone, Copy, Debug, Default)]
struct Escape {
    /// 0: none is open; 1: after the backslash; 2 to 5: so many hexadecimal digits are missing, less one.
    open: u8,
    code: u16,
    /// The first half of a surrogate pair.
    high: u16,
}

// === impl Reader ===

impl<F: Copy> Reader<F> {
    /// A reader before its first byte.
    pub fn new(table: &'static Table<F>) -> Self {
        Self {
            table,
            step: Step::Between,
            node: ROOT,
            target: Target::Nothing,
            quoted: false,
            escape: Escape::default(),
            kept: Vec::new(),
            depth: 0,
            objects: 0,
            live: 0,
            levels: [Level::default(); MAX_LIVE],
        }
    }

    /// Whether the reader stands between two values at the root.
    pub fn between(&self) -> bool {
        self.step == Step::Between
    }

    /// Reads on.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink<F>) -> Result<(), Error> {
        let mut at = 0;
        while at < bytes.len() {
            at += match self.step {
                Step::Text => self.text(&bytes[at..], sink)?,
                Step::Word => self.word(&bytes[at..], sink)?,
                Step::Skip => self.skip(&bytes[at..], sink)?,
                _ => self.structure(&bytes[at..], sink)?,
            };
        }
        Ok(())
    }

    /// No more of this document comes: a number at the root ends here, everything else must have
    /// ended before. The reader is then as new.
    pub fn end(&mut self, sink: &mut impl Sink<F>) -> Result<(), Error> {
        let is_word = self.step == Step::Word && self.depth == 0;
        let word = if is_word { self.word(b" ", sink).map(drop) } else { Ok(()) };
        let has_ended = self.between();
        self.reset();
        if has_ended { word } else { Err(Error::Malformed) }
    }

    fn reset(&mut self) {
        self.step = Step::Between;
        self.node = ROOT;
        self.quoted = false;
        self.escape = Escape::default();
        self.kept.clear();
        self.depth = 0;
        self.live = 0;
    }

    /// Punctuation, white space and strings that lie whole in these bytes, up to anything else.
    fn structure(&mut self, bytes: &[u8], sink: &mut impl Sink<F>) -> Result<usize, Error> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            match (self.step, byte) {
                (_, b' ' | b'\n' | b'\r' | b'\t') | (Step::Between, 0) => {}
                (Step::Colon, b':') => self.step = Step::Value,
                (Step::After, b',') => self.comma(),
                (Step::FirstKey | Step::Key, b'"') => self.target = Target::Key,
                (Step::After | Step::FirstKey, b'}') => self.close(byte, sink)?,
                (Step::After | Step::FirstElement, b']') => self.close(byte, sink)?,
                (Step::Between | Step::Value | Step::FirstElement, b'"') => {
                    self.target = match self.table.node(self.node).want {
                        Some((want, field)) => Target::Field(want, field),
                        None => Target::Nothing,
                    };
                }
                (Step::Between | Step::Value | Step::FirstElement, b'{' | b'[') => {
                    self.open(byte, sink)?;
                    if self.step == Step::Skip {
                        return Ok(at);
                    }
                }
                (Step::Between | Step::Value | Step::FirstElement, _) => {
                    self.step = Step::Word;
                    return Ok(at - 1);
                }
                _ => return Err(Error::Malformed),
            }
            if byte == b'"' {
                let Some(text) = whole_text(&bytes[at..]) else {
                    self.step = Step::Text;
                    return Ok(at);
                };
                self.text_ended(text, sink);
                at += text.len() + 1;
            }
        }
        Ok(at)
    }

    fn comma(&mut self) {
        if self.in_object() {
            self.step = Step::Key;
        } else {
            let level = &mut self.levels[usize::from(self.live) - 1];
            level.index = level.index.saturating_add(1);
            self.node = self.table.node(level.node).each;
            self.step = Step::Value;
        }
    }

    fn open(&mut self, byte: u8, sink: &mut impl Sink<F>) -> Result<(), Error> {
        let is_object = byte == b'{';
        let at_root = self.depth == 0;
        self.push(is_object)?;
        let node = self.table.node(self.node);
        if let Some((Want::Seen, field)) = node.want {
            sink.seen(field);
        }
        let (level, step) = if is_object {
            let is_wanted = !node.keys.is_empty() || node.closed.is_some();
            (is_wanted.then_some(self.node), Step::FirstKey)
        } else if at_root {
            (Some(ITEMS), Step::FirstElement)
        } else {
            ((node.each != DEAD).then_some(self.node), Step::FirstElement)
        };
        match level {
            Some(level) if usize::from(self.live) < MAX_LIVE => {
                self.levels[usize::from(self.live)] = Level { node: level, index: 0 };
                self.live += 1;
                self.node = self.table.node(level).each;
                self.step = step;
            }
            _ => self.step = Step::Skip,
        }
        Ok(())
    }

    fn close(&mut self, byte: u8, sink: &mut impl Sink<F>) -> Result<(), Error> {
        self.pop(byte)?;
        self.live -= 1;
        let closed = self.levels[usize::from(self.live)];
        if let Some(field) = self.table.node(closed.node).closed {
            sink.closed(field, self.index());
        }
        if closed.node == ITEMS {
            self.step = Step::Between;
            self.node = ROOT;
        } else {
            self.value_ended(sink);
        }
        Ok(())
    }

    /// The index in the array that the reader stands in.
    fn index(&self) -> u32 {
        self.live.checked_sub(1).map_or(0, |top| self.levels[usize::from(top)].index)
    }

    fn value_ended(&mut self, sink: &mut impl Sink<F>) {
        let is_item = match self.live {
            0 => true,
            1 => self.levels[0].node == ITEMS,
            _ => false,
        };
        self.step = if self.live == 0 { Step::Between } else { Step::After };
        if is_item {
            self.node = ROOT;
            sink.item();
        }
    }

    /// Runs past an unwanted container.
    fn skip(&mut self, bytes: &[u8], sink: &mut impl Sink<F>) -> Result<usize, Error> {
        let mut at = 0;
        while at < bytes.len() {
            if self.quoted {
                at += self.skip_text(&bytes[at..]);
                continue;
            }
            at += quote_or_bracket(&bytes[at..]);
            let Some(&byte) = bytes.get(at) else { break };
            match byte {
                b'"' => self.quoted = true,
                open @ (b'{' | b'[') => self.push(open == b'{')?,
                close @ (b'}' | b']') => {
                    self.pop(close)?;
                    if self.depth == self.live {
                        self.value_ended(sink);
                        return Ok(at + 1);
                    }
                }
                _ => {}
            }
            at += 1;
        }
        Ok(at)
    }

    fn skip_text(&mut self, bytes: &[u8]) -> usize {
        if self.escape.open != 0 {
            self.escape.open = 0;
            return 1;
        }
        let Some(at) = quote_or_escape(bytes) else { return bytes.len() };
        match bytes[at] {
            b'"' => self.quoted = false,
            _ => self.escape.open = 1,
        }
        at + 1
    }

    fn push(&mut self, is_object: bool) -> Result<(), Error> {
        if self.depth == MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        let bit = 1u128 << self.depth;
        self.objects = if is_object { self.objects | bit } else { self.objects & !bit };
        self.depth += 1;
        Ok(())
    }

    fn pop(&mut self, byte: u8) -> Result<(), Error> {
        if self.depth == 0 || self.in_object() != (byte == b'}') {
            return Err(Error::Malformed);
        }
        self.depth -= 1;
        Ok(())
    }

    fn in_object(&self) -> bool {
        self.objects >> (self.depth - 1) & 1 == 1
    }

    /// The inside of a string whose place is known.
    fn text(&mut self, bytes: &[u8], sink: &mut impl Sink<F>) -> Result<usize, Error> {
        let mut at = 0;
        while at < bytes.len() {
            if self.escape.open != 0 {
                self.unescape(bytes[at], sink)?;
                at += 1;
                continue;
            }
            let Some(length) = quote_or_escape(&bytes[at..]) else {
                self.fragment(&bytes[at..], sink);
                return Ok(bytes.len());
            };
            let fragment = &bytes[at..at + length];
            at += length + 1;
            if bytes[at - 1] == b'"' {
                self.text_ended(fragment, sink);
                return Ok(at);
            }
            self.fragment(fragment, sink);
            self.escape.open = 1;
        }
        Ok(at)
    }

    fn fragment(&mut self, bytes: &[u8], sink: &mut impl Sink<F>) {
        if bytes.is_empty() {
            return;
        }
        self.lone_surrogate(sink);
        match self.target {
            Target::Nothing => {}
            Target::Key | Target::Field(Want::Value, _) => self.keep(bytes),
            Target::Field(Want::Fragments, field) => sink.fragment(field, bytes),
            Target::Field(_, field) => {
                sink.seen(field);
                self.target = Target::Nothing;
            }
        }
    }

    fn text_ended(&mut self, last: &[u8], sink: &mut impl Sink<F>) {
        let is_whole = self.kept.is_empty() && self.escape.high == 0;
        match self.target {
            Target::Key if is_whole => self.key(last),
            Target::Field(Want::Value, field) if is_whole => {
                sink.value(field, Scalar::Text(&last[..last.len().min(KEPT_BYTES)]));
            }
            target => {
                self.fragment(last, sink);
                self.lone_surrogate(sink);
                match target {
                    Target::Key => {
                        let kept = std::mem::take(&mut self.kept);
                        self.key(&kept);
                        self.kept = kept;
                    }
                    Target::Field(Want::Value, field) => {
                        sink.value(field, Scalar::Text(&self.kept));
                    }
                    Target::Field(Want::Fragments, field) => sink.ended(field),
                    _ => {}
                }
                self.kept.clear();
            }
        }
        if matches!(self.target, Target::Key) {
            self.step = Step::Colon;
        } else {
            self.value_ended(sink);
        }
    }

    fn key(&mut self, key: &[u8]) {
        let level = self.levels[usize::from(self.live) - 1];
        self.node = self.table.find(level.node, key);
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = KEPT_BYTES - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self, bytes: &[u8], sink: &mut impl Sink<F>) -> Result<usize, Error> {
        let end = bytes.iter().position(|byte| !is_word(*byte));
        let length = end.unwrap_or(bytes.len());
        if self.kept.len() + length > KEPT_BYTES {
            return Err(Error::Malformed);
        }
        if end.is_none() {
            self.keep(bytes);
            return Ok(length);
        }
        let scalar = if self.kept.is_empty() {
            Scalar::of(&bytes[..length])?
        } else {
            self.keep(&bytes[..length]);
            Scalar::of(&self.kept)?
        };
        match self.table.node(self.node).want {
            Some((Want::Value, field)) => sink.value(field, scalar),
            Some((Want::Seen, field)) if !matches!(scalar, Scalar::Null | Scalar::Bool(false)) => {
                sink.seen(field);
            }
            _ => {}
        }
        self.kept.clear();
        self.value_ended(sink);
        Ok(length)
    }

    /// One byte of an escape.
    fn unescape(&mut self, byte: u8, sink: &mut impl Sink<F>) -> Result<(), Error> {
        if matches!(self.target, Target::Nothing) {
            self.escape = Escape::default();
            return Ok(());
        }
        if self.escape.open > 1 {
            let digit = (byte as char).to_digit(16).ok_or(Error::Malformed)?;
            self.escape.code = self.escape.code << 4 | digit as u16;
            self.escape.open -= 1;
            if self.escape.open == 1 {
                self.escape.open = 0;
                self.code_unit(sink);
            }
            return Ok(());
        }
        self.escape.open = 0;
        match byte {
            b'u' => (self.escape.open, self.escape.code) = (5, 0),
            b'"' | b'\\' | b'/' => self.fragment(&[byte], sink),
            b'b' => self.fragment(&[8], sink),
            b'f' => self.fragment(&[12], sink),
            b'n' => self.fragment(b"\n", sink),
            b'r' => self.fragment(b"\r", sink),
            b't' => self.fragment(b"\t", sink),
            _ => return Err(Error::Malformed),
        }
        Ok(())
    }

    fn code_unit(&mut self, sink: &mut impl Sink<F>) {
        let code = self.escape.code;
        if self.escape.high != 0 && (0xDC00..0xE000).contains(&code) {
            let high = u32::from(self.escape.high - 0xD800) << 10;
            self.escape.high = 0;
            self.character(0x10000 + high + u32::from(code - 0xDC00), sink);
            return;
        }
        self.lone_surrogate(sink);
        match code {
            0xD800..0xDC00 => self.escape.high = code,
            _ => self.character(u32::from(code), sink),
        }
    }

    /// Half a surrogate pair that found no other half.
    fn lone_surrogate(&mut self, sink: &mut impl Sink<F>) {
        if self.escape.high != 0 {
            self.escape.high = 0;
            self.character(0xFFFD, sink);
        }
    }

    fn character(&mut self, code: u32, sink: &mut impl Sink<F>) {
        let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        self.fragment(character.encode_utf8(&mut [0; 4]).as_bytes(), sink);
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-')
}

#[cfg(test)]
mod tests;
