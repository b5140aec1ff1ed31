//! Text that stands in the place of another: as long, of the same kind, and without a word of it.
//!
//! Each block depends on a secret key and on all that stood before it. So equal texts stay equal and
//! a common beginning stays common, to the block: what a server does with a prompt that it has seen
//! before, it does with these. Without the key nobody can try what a text may have been, and a word
//! that comes twice does not look the same twice.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes that are replaced at a time: about 16 tokens, which is what servers keep prefixes by.
const BLOCK: usize = 64;
/// Longest text without a gap that counts as a name, not as prose.
const MAX_NAME: usize = 64;

/// Common English words, four of each length, so that a text keeps about as many tokens.
const WORDS: [[&str; 4]; 8] = [
    ["a", "I", "a", "I"],
    ["of", "to", "in", "it"],
    ["the", "and", "for", "you"],
    ["that", "with", "this", "from"],
    ["there", "which", "about", "would"],
    ["people", "number", "before", "should"],
    ["another", "because", "through", "between"],
    ["together", "children", "question", "possible"],
];

/// What is to be drawn from, one per key.
#[derive(Clone)]
pub(super) struct Filler {
    keyed: Hmac<Sha256>,
}

/// What a text looks like, and its filler too.
#[derive(Clone, Copy)]
enum Kind {
    /// Words with gaps between them.
    Prose,
    /// An identifier, or data written in letters.
    Letters,
    /// The digits of a number.
    Digits,
}

impl Filler {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self { keyed: Hmac::new_from_slice(key).expect("a key of any length will do") }
    }

    /// Appends the filler of a text.
    pub(super) fn text(&self, text: &[u8], out: &mut Vec<u8>) {
        let is_dense = text.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'\\');
        let is_data = || text.iter().all(|byte| is_base64(*byte));
        let kind = match is_dense && (text.len() <= MAX_NAME || is_data()) {
            true => Kind::Letters,
            false => Kind::Prose,
        };
        self.blocks(text, kind, out);
    }

    /// Appends as many digits, of which the first is not zero.
    pub(super) fn digits(&self, digits: &[u8], out: &mut Vec<u8>) {
        self.blocks(digits, Kind::Digits, out);
    }

    /// A word for each so many bytes of a text, and of all that stands before them.
    pub(super) fn hashes(&self, text: &[u8], block: usize) -> Vec<u64> {
        let mut state = [0; 32];
        let mut hash = |block: &[u8]| {
            state = self.next(&state, block);
            u64::from_be_bytes(state[..8].try_into().expect("eight bytes"))
        };
        text.chunks(block).map(&mut hash).collect()
    }

    fn blocks(&self, text: &[u8], kind: Kind, out: &mut Vec<u8>) {
        let mut state = [kind as u8; 32];
        for block in text.chunks(BLOCK) {
            state = self.next(&state, block);
            match kind {
                Kind::Prose => prose(&state, block.len(), out),
                Kind::Letters => {
                    out.extend((0..block.len()).map(|at| b'a' + drawn(&state, at, 26)))
                }
                Kind::Digits => out.extend((0..block.len()).map(|at| b'1' + drawn(&state, at, 9))),
            }
        }
    }

    fn next(&self, state: &[u8; 32], block: &[u8]) -> [u8; 32] {
        let mut keyed = self.keyed.clone();
        keyed.update(state);
        keyed.update(block);
        keyed.finalize().into_bytes().into()
    }
}

/// So many bytes of words.
fn prose(state: &[u8; 32], length: usize, out: &mut Vec<u8>) {
    let mut left = length;
    for draw in state.iter().cycle() {
        if left == 0 {
            return;
        }
        let word = WORDS[usize::from(draw % 8).min(left - 1)][usize::from(draw / 64)];
        out.extend_from_slice(word.as_bytes());
        left -= word.len();
        if left > 0 {
            out.push(b' ');
            left -= 1;
        }
    }
}

/// A number below `bound`, another one at each place.
fn drawn(state: &[u8; 32], at: usize, bound: u8) -> u8 {
    (state[at % 32] ^ (at / 32 * 0x5a) as u8) % bound
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(key: u8, text: &str) -> String {
        let mut out = Vec::new();
        Filler::new(&[key; 32]).text(text.as_bytes(), &mut out);
        String::from_utf8(out).expect("filler is ASCII")
    }

    #[test]
    fn filler_is_as_long_as_the_text_whatever_its_length() {
        for length in 0..400 {
            let text = "word ".repeat(80);
            assert_eq!(filled(1, &text[..length]).len(), length);
            assert_eq!(filled(1, &"x".repeat(length)).len(), length);
        }
    }

    #[test]
    fn a_common_beginning_stays_common_and_the_rest_parts() {
        let (one, other) =
            (format!("{} one", "same ".repeat(40)), format!("{} two", "same ".repeat(40)));
        let (one, other) = (filled(1, &one), filled(1, &other));
        assert_eq!(one[..192], other[..192]);
        assert_ne!(one[192..], other[192..]);
    }

    #[test]
    fn another_key_gives_another_text() {
        assert_ne!(filled(1, "what is said here"), filled(2, "what is said here"));
        assert_eq!(filled(1, "what is said here"), filled(1, "what is said here"));
    }

    #[test]
    fn a_name_stays_a_name_and_prose_stays_words() {
        assert!(filled(1, "get_weather").bytes().all(|byte| byte.is_ascii_lowercase()));
        assert!(filled(1, "how are you today, my friend?").contains(' '));
    }
}
