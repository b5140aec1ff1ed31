//! What is kept of a request where nothing of its text is: how long its texts are, and which
//! beginnings it shares with others.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::filler::Filler;

/// Bytes of text that one hash stands for: about 512 tokens.
pub const BLOCK_BYTES: usize = 2048;
/// Texts of one request that are told apart; what follows is added to the last.
const MAX_TEXTS: usize = 256;

/// A request without its text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sketch {
    /// Bytes of each text, in their order.
    pub texts: Vec<u64>,
    /// A hash for each 2 KiB of all texts one behind the other, and of what stands before it: two
    /// requests with the same first hash begin with the same 2 KiB. Keyed: equal in one file only.
    pub blocks: Vec<u64>,
}

impl Sketch {
    /// That of a JSON body; absent where it is none.
    pub(super) fn of(body: &[u8], filler: &Filler) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let mut sketch = Self::default();
        let mut all = Vec::new();
        sketch.collect(&value, &mut all);
        sketch.blocks = filler.hashes(&all, BLOCK_BYTES);
        Some(sketch)
    }

    fn collect(&mut self, value: &Value, all: &mut Vec<u8>) {
        match value {
            Value::String(text) => {
                all.extend_from_slice(text.as_bytes());
                let bytes = text.len() as u64;
                match self.texts.len() == MAX_TEXTS {
                    true => *self.texts.last_mut().expect("it is full") += bytes,
                    false => self.texts.push(bytes),
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.collect(value, all)),
            Value::Object(fields) => fields.values().for_each(|value| self.collect(value, all)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_begin_alike_have_their_first_blocks_in_common() {
        let filler = Filler::new(&[1; 32]);
        let of = |end: &str| {
            let body = serde_json::json!({ "messages": ["x".repeat(5000), end] });
            Sketch::of(body.to_string().as_bytes(), &filler).expect("it is JSON")
        };
        let (one, other) = (of("one"), of("two"));
        assert_eq!(one.texts, [5000, 3]);
        assert_eq!(one.blocks.len(), 3);
        assert_eq!(one.blocks[..2], other.blocks[..2]);
        assert_ne!(one.blocks[2], other.blocks[2]);
        assert_eq!(Sketch::of(b"no json", &filler), None);
    }
}
