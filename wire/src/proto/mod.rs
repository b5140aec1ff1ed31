//! A protobuf reader that is fed in pieces and never holds a message.
//!
//! A [`Table`] says which fields are of interest. The reader walks the bytes as they come, jumps
//! over everything else, and hands what it finds to the same [`Sink`] that takes what a JSON text
//! says. Malformed bytes are an error, never a panic; a length is only believed as far as the
//! message around it goes, and nothing is set aside for it.

mod table;

pub use table::{Table, Take};

use std::io::Write;

use crate::json::{Scalar, Sink};
use table::{DEAD, Node, ROOT};

/// Of a string, this much is kept; the rest is cut off.
const KEPT_BYTES: usize = 1024;
/// Messages within messages on a wanted path: more than any table has.
const MAX_LIVE: usize = 16;
/// The field numbers of a map's entry, and of a `Value` within a `Struct`.
const ENTRY_KEY: u32 = 1;
const ENTRY_VALUE: u32 = 2;

/// The bytes are no protobuf message, or it ended too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads messages along the fields of its table.
#[derive(Debug)]
pub struct Reader<F: 'static> {
    table: &'static Table<F>,
    step: Step,
    /// The number that is being read, and how many bits of it have come.
    varint: u64,
    bits: u8,
    /// The node of the field at hand.
    node: u16,
    /// Bytes of this message that have been read.
    at: u64,
    /// Bytes that the field at hand still has.
    left: u64,
    /// What is kept of a string that was cut in two.
    kept: Vec<u8>,
    /// The message is broken: its end is none.
    is_broken: bool,
    /// How many of the levels are open, the message itself not counted.
    live: u8,
    levels: [Level; MAX_LIVE],
}

/// A message that is being read.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    node: u16,
    /// Of a map's entry: the node of its value, once its key is known.
    value: u16,
    /// Where it ends.
    end: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Tag,
    Varint,
    Length,
    /// Four or eight bytes, from the lowest on.
    Fixed,
    /// A string or bytes that are wanted.
    Text,
    Skip,
}

// === impl Reader ===

impl<F: Copy> Reader<F> {
    /// A reader before its first byte.
    pub fn new(table: &'static Table<F>) -> Self {
        Self {
            table,
            step: Step::Tag,
            varint: 0,
            bits: 0,
            node: DEAD,
            at: 0,
            left: 0,
            kept: Vec::new(),
            is_broken: false,
            live: 0,
            levels: [Level { node: ROOT, value: DEAD, end: u64::MAX }; MAX_LIVE],
        }
    }

    /// Reads on.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink<F>) -> Result<(), Malformed> {
        let read = self.read(bytes, sink);
        self.is_broken |= read.is_err();
        read
    }

    fn read(&mut self, mut bytes: &[u8], sink: &mut impl Sink<F>) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            let used = match self.step {
                Step::Tag | Step::Varint | Step::Length => self.number(bytes, sink)?,
                Step::Fixed => self.fixed(bytes, sink),
                Step::Text => self.text(bytes, sink),
                Step::Skip => self.skip(bytes),
            };
            self.at += used as u64;
            bytes = &bytes[used..];
            if self.step == Step::Tag && self.bits == 0 {
                self.close(sink);
            }
        }
        Ok(())
    }

    /// The message has ended. The reader is then as new.
    pub fn end(&mut self, sink: &mut impl Sink<F>) -> Result<(), Malformed> {
        let is_between = self.step == Step::Tag && self.bits == 0 && self.live == 0;
        let is_whole = !std::mem::take(&mut self.is_broken) && is_between;
        self.step = Step::Tag;
        (self.varint, self.bits) = (0, 0);
        (self.at, self.live) = (0, 0);
        self.kept.clear();
        if !is_whole {
            return Err(Malformed);
        }
        sink.item();
        Ok(())
    }

    /// A varint and what follows from it; how many bytes it took.
    fn number(&mut self, bytes: &[u8], sink: &mut impl Sink<F>) -> Result<usize, Malformed> {
        for (at, &byte) in bytes.iter().enumerate() {
            // Ten bytes are the longest, and the last of them has but one bit.
            if self.bits == 63 && byte > 1 {
                return Err(Malformed);
            }
            self.varint |= u64::from(byte & 0x7F) << self.bits;
            self.bits += 7;
            if byte < 0x80 {
                let number = std::mem::take(&mut self.varint);
                self.bits = 0;
                self.number_ended(number, self.at + at as u64 + 1, sink)?;
                return Ok(at + 1);
            }
        }
        Ok(bytes.len())
    }

    /// `at` is where the number ended.
    fn number_ended(
        &mut self,
        number: u64,
        at: u64,
        sink: &mut impl Sink<F>,
    ) -> Result<(), Malformed> {
        if at > self.level().end {
            return Err(Malformed);
        }
        match self.step {
            Step::Tag => self.tag(number, at),
            Step::Length => self.length(number, at, sink),
            _ => {
                self.step = Step::Tag;
                self.integer(number, sink);
                Ok(())
            }
        }
    }

    fn tag(&mut self, tag: u64, at: u64) -> Result<(), Malformed> {
        let field = u32::try_from(tag >> 3).ok().filter(|field| (1..1 << 29).contains(field));
        let field = field.ok_or(Malformed)?;
        self.node = self.child(field);
        // Groups (3 and 4) are gone from the language, and 6 and 7 never were.
        let length = match tag & 7 {
            0 => 0,
            1 => 8,
            2 => 0,
            5 => 4,
            _ => return Err(Malformed),
        };
        self.step = match tag & 7 {
            0 => Step::Varint,
            2 => Step::Length,
            _ if self.table.node(self.node).take.is_some() => Step::Fixed,
            _ => Step::Skip,
        };
        self.left = length;
        if at + length > self.level().end { Err(Malformed) } else { Ok(()) }
    }

    fn child(&self, field: u32) -> u16 {
        let level = self.level();
        match (self.table.node(level.node).is_entry(), field) {
            (true, ENTRY_KEY) => table::KEY,
            (true, ENTRY_VALUE) => level.value,
            (true, _) => DEAD,
            (false, _) => self.table.find(level.node, field),
        }
    }

    /// A field of this length begins.
    fn length(&mut self, length: u64, at: u64, sink: &mut impl Sink<F>) -> Result<(), Malformed> {
        let end = at.checked_add(length).filter(|end| *end <= self.level().end);
        let end = end.ok_or(Malformed)?;
        let node = self.table.node(self.node);
        if let Some((Take::Seen, field)) = node.take
            && length > 0
        {
            sink.seen(field);
        }
        self.left = length;
        self.step = Step::Skip;
        if node.is_message() && usize::from(self.live) + 1 < MAX_LIVE {
            self.live += 1;
            self.levels[usize::from(self.live)] = Level { node: self.node, value: DEAD, end };
            self.step = Step::Tag;
        } else if matches!(node.take, Some((Take::Value | Take::Fragments, _)))
            || self.node == table::KEY
        {
            self.step = Step::Text;
        }
        if length == 0 && self.step != Step::Tag {
            self.text_ended(b"", sink);
        }
        Ok(())
    }

    /// Closes all messages that end here.
    fn close(&mut self, sink: &mut impl Sink<F>) {
        while self.live > 0 && self.at == self.level().end {
            let node = self.level().node;
            self.live -= 1;
            if let Some(field) = self.table.node(node).closed {
                // What has no index of its own is the first: zeros are not written.
                sink.closed(field, 0);
            }
        }
    }

    fn integer(&mut self, number: u64, sink: &mut impl Sink<F>) {
        match self.table.node(self.node).take {
            Some((Take::Value, field)) => decimal(number.cast_signed(), |text| {
                sink.value(field, Scalar::Number(text));
            }),
            Some((Take::Bool, field)) => sink.value(field, Scalar::Bool(number != 0)),
            Some((Take::Seen, field)) if number != 0 => sink.seen(field),
            // Zero is nobody's word: it stands for what was not said.
            Some((Take::Word(words), field)) if number != 0 => {
                match usize::try_from(number).ok().and_then(|number| words.get(number)) {
                    Some(word) => sink.value(field, Scalar::Text(word.as_bytes())),
                    None => decimal(number.cast_signed(), |text| {
                        sink.value(field, Scalar::Text(text));
                    }),
                }
            }
            _ => {}
        }
    }

    fn fixed(&mut self, bytes: &[u8], sink: &mut impl Sink<F>) -> usize {
        let used = bytes.len().min(self.left as usize);
        for byte in &bytes[..used] {
            self.varint |= u64::from(*byte) << self.bits;
            self.bits += 8;
        }
        self.left -= used as u64;
        if self.left == 0 {
            let number = std::mem::take(&mut self.varint);
            let float = match std::mem::take(&mut self.bits) {
                32 => f64::from(f32::from_bits(number as u32)),
                _ => f64::from_bits(number),
            };
            self.step = Step::Tag;
            self.float(float, sink);
        }
        used
    }

    /// Counts come as floats too, where they stand in a `Value`.
    fn float(&mut self, float: f64, sink: &mut impl Sink<F>) {
        let is_count = float >= 0.0 && float <= 2f64.powi(53);
        if let Some((Take::Value, field)) = self.table.node(self.node).take
            && is_count
        {
            decimal(float as i64, |text| sink.value(field, Scalar::Number(text)));
        }
    }

    fn text(&mut self, bytes: &[u8], sink: &mut impl Sink<F>) -> usize {
        let used = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let piece = &bytes[..used];
        self.left -= used as u64;
        if let Some((Take::Fragments, field)) = self.table.node(self.node).take {
            sink.fragment(field, piece);
        } else if self.left > 0 || !self.kept.is_empty() {
            let room = KEPT_BYTES - self.kept.len();
            self.kept.extend_from_slice(&piece[..used.min(room)]);
        }
        if self.left == 0 {
            self.text_ended(piece, sink);
        }
        used
    }

    /// The field at hand has ended with this piece, which is all of it where nothing was kept.
    fn text_ended(&mut self, last: &[u8], sink: &mut impl Sink<F>) {
        self.step = Step::Tag;
        let kept = std::mem::take(&mut self.kept);
        let whole = if kept.is_empty() { &last[..last.len().min(KEPT_BYTES)] } else { &kept };
        if self.node == table::KEY {
            let level = &mut self.levels[usize::from(self.live)];
            level.value = self.table.find_key(level.node, whole);
        } else if let Some((Take::Value, field)) = self.table.node(self.node).take {
            sink.value(field, Scalar::Text(whole));
        }
        self.kept = kept;
        self.kept.clear();
    }

    fn skip(&mut self, bytes: &[u8]) -> usize {
        let used = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.left -= used as u64;
        if self.left == 0 {
            self.step = Step::Tag;
        }
        used
    }

    fn level(&self) -> &Level {
        &self.levels[usize::from(self.live)]
    }
}

/// The fields of a message that is there whole, such as the details of a status: their numbers and
/// what stands in them, as far as they can be read.
pub(crate) fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u32, Value<'_>)> {
    std::iter::from_fn(move || {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            1 => Value::Bytes(bytes.split_off(..8)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Value::Bytes(bytes.split_off(..length)?)
            }
            5 => Value::Bytes(bytes.split_off(..4)?),
            _ => return None,
        };
        Some((u32::try_from(tag >> 3).ok()?, value))
    })
}

/// What stands in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for bits in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & 0x7F) << bits;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Hands a number on as its digits.
fn decimal(number: i64, take: impl FnOnce(&[u8])) {
    let mut digits = [0; 20];
    let mut rest = &mut digits[..];
    write!(rest, "{number}").expect("20 bytes hold every number");
    let left = rest.len();
    take(&digits[..20 - left]);
}

impl<F> Node<F> {
    /// Whether fields within this one are of interest, or its end is.
    fn is_message(&self) -> bool {
        self.is_entry() || !self.fields.is_empty() || self.closed.is_some()
    }
}

#[cfg(test)]
mod tests;
