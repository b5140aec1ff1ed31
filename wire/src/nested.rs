//! JSON that comes as base64 within JSON: the chunks of Bedrock's invoke streams.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::dialect::Field;
use crate::facts::Facts;
use crate::json::{Repeating, Table};

/// Base64 digits that are decoded at once.
const GROUPS: usize = 1024;

/// JSON that comes as base64 within the JSON.
#[derive(Debug)]
pub(crate) struct Nested {
    reader: Repeating<Field>,
    /// Digits that wait for their group of four.
    digits: [u8; 4],
    waiting: usize,
}

impl Nested {
    pub(crate) fn new(table: &'static Table<Field>) -> Self {
        Self { reader: Repeating::new(table), digits: [0; 4], waiting: 0 }
    }

    /// Decodes and reads on; nothing where that cannot be done.
    pub(crate) fn feed(&mut self, mut digits: &[u8], facts: &mut Facts) -> Option<()> {
        while self.waiting > 0 && !digits.is_empty() {
            self.digits[self.waiting] = digits[0];
            self.waiting = (self.waiting + 1) % 4;
            digits = &digits[1..];
            if self.waiting == 0 {
                let group = self.digits;
                self.decode(&group, facts)?;
            }
        }
        let (groups, rest) = digits.split_at(digits.len() / 4 * 4);
        self.digits[..rest.len()].copy_from_slice(rest);
        if !rest.is_empty() {
            self.waiting = rest.len();
        }
        groups.chunks(GROUPS).try_for_each(|groups| self.decode(groups, facts))
    }

    /// The base64 has ended; nothing where the JSON in it has not.
    pub(crate) fn end(&mut self, facts: &mut Facts) -> Option<()> {
        let has_ended = std::mem::take(&mut self.waiting) == 0;
        self.reader.end(facts).ok().filter(|()| has_ended)
    }

    fn decode(&mut self, groups: &[u8], facts: &mut Facts) -> Option<()> {
        let mut bytes = [0; GROUPS / 4 * 3];
        let length = STANDARD.decode_slice(groups, &mut bytes).ok()?;
        self.reader.feed(&bytes[..length], facts).ok()
    }
}
