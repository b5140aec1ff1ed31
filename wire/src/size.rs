//! How large a prompt or an answer is, in few words: labels for times that grow with it.

use std::sync::Arc;

use crate::words::word;

/// The classes of prompts by their upper bounds in tokens, 1k being 1,024; the last has none.
const CLASSES: [(u64, &str); 5] = [
    (1 << 10, "up_to_1k"),
    (4 << 10, "up_to_4k"),
    (16 << 10, "up_to_16k"),
    (64 << 10, "up_to_64k"),
    (256 << 10, "up_to_256k"),
];
const BEYOND: &str = "over_256k";

/// All classes of prompts, from small to large.
pub const SIZE_CLASSES: [&str; 6] =
    [CLASSES[0].1, CLASSES[1].1, CLASSES[2].1, CLASSES[3].1, CLASSES[4].1, BEYOND];

/// The classes of answers, likewise.
const OUTPUTS: [(u64, &str); 4] =
    [(256, "up_to_256"), (1 << 10, "up_to_1k"), (2 << 10, "up_to_2k"), (4 << 10, "up_to_4k")];

/// All classes of answers, from small to large.
pub const OUTPUT_CLASSES: [&str; 5] =
    [OUTPUTS[0].1, OUTPUTS[1].1, OUTPUTS[2].1, OUTPUTS[3].1, "over_4k"];

/// The class of an answer with this many tokens, as its place in [`OUTPUT_CLASSES`].
pub fn output_class(tokens: u64) -> usize {
    OUTPUTS.partition_point(|(bound, _)| *bound < tokens)
}

/// The class of a prompt with this many tokens.
pub(crate) fn class(tokens: u64) -> Arc<str> {
    let class = CLASSES.iter().find(|(bound, _)| tokens <= *bound);
    word(class.map_or(BEYOND, |(_, class)| class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_class() {
        let cases = [
            (0, "up_to_1k"),
            (1_024, "up_to_1k"),
            (1_025, "up_to_4k"),
            (16_384, "up_to_16k"),
            (65_536, "up_to_64k"),
            (262_144, "up_to_256k"),
            (262_145, "over_256k"),
        ];
        for (tokens, expected) in cases {
            assert_eq!(&*class(tokens), expected, "{tokens}");
        }
        let cases = [
            (0, "up_to_256"),
            (256, "up_to_256"),
            (257, "up_to_1k"),
            (2_048, "up_to_2k"),
            (4_096, "up_to_4k"),
            (4_097, "over_4k"),
        ];
        for (tokens, expected) in cases {
            assert_eq!(OUTPUT_CLASSES[output_class(tokens)], expected, "{tokens}");
        }
    }
}
