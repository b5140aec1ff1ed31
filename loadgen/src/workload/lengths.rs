//! Prompts of which only the length is known, and what they share with others.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use super::Synthetic;
use super::written::{Ask, Turn};

/// How long a prompt and its answer were, in tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Lengths {
    pub(crate) input: u32,
    pub(crate) output: u32,
    /// A number for each block of the prompt, from its beginning: prompts with equal numbers there
    /// begin alike.
    pub(crate) blocks: Vec<u64>,
    /// Tokens that such a number stands for.
    pub(crate) block: u32,
}

/// Tells the words of blocks from those of single prompts.
const OF_BLOCKS: u64 = 0x5851_F42D_4C95_7F2D;

impl Lengths {
    /// A prompt of so many words, of about one token each. `call` tells its own words from those of
    /// other calls; equal blocks have equal words in all.
    pub(crate) fn ask(&self, seed: u64, call: u64) -> Ask {
        let mut text = String::with_capacity(self.input as usize * 6);
        let mut left = self.input.max(1) as usize;
        for block in &self.blocks {
            let words = left.min(self.block as usize);
            Synthetic::new(seed ^ OF_BLOCKS, *block).words(words, &mut text);
            left -= words;
        }
        Synthetic::new(seed, call).words(left, &mut text);
        let output_tokens = NonZeroU32::new(self.output).unwrap_or(NonZeroU32::MIN);
        Ask {
            turns: vec![Turn::user(text)],
            input_tokens: Some(self.input.into()),
            output_tokens,
            states_usage: true,
            later: VecDeque::new(),
            seed: call,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(lengths: &Lengths, call: u64) -> Vec<String> {
        let ask = lengths.ask(1, call);
        ask.turns[0].text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_prompt_has_as_many_words_as_tokens_and_begins_as_its_blocks_say() {
        let lengths =
            |input, blocks: &[u64]| Lengths { input, output: 3, blocks: blocks.into(), block: 512 };
        let (one, other) =
            (words(&lengths(1100, &[1, 2, 3]), 0), words(&lengths(1300, &[1, 2, 4]), 1));
        assert_eq!((one.len(), other.len()), (1100, 1300));
        assert_eq!(one[..1024], other[..1024]);
        assert_ne!(one[1024..], other[1024..1100]);
        assert_eq!(words(&lengths(1100, &[1, 2, 3]), 7), one, "it has nothing of its own");
        assert_ne!(words(&lengths(1100, &[1]), 7), words(&lengths(1100, &[1]), 8));
        assert_eq!(words(&lengths(0, &[]), 0).len(), 1, "nothing cannot be asked");
    }
}
