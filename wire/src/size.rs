//! How large a prompt is, in few words: a label for times that grow with it.

use std::sync::Arc;

use crate::words::word;

/// The classes by their upper bounds in tokens, 1k being 1,024; the last has none.
const CLASSES: [(u64, &str); 5] = [
    (1 << 10, "up_to_1k"),
    (4 << 10, "up_to_4k"),
    (16 << 10, "up_to_16k"),
    (64 << 10, "up_to_64k"),
    (256 << 10, "up_to_256k"),
];
const BEYOND: &str = "over_256k";

/// All classes, from small to large.
pub const SIZE_CLASSES: [&str; 6] =
    [CLASSES[0].1, CLASSES[1].1, CLASSES[2].1, CLASSES[3].1, CLASSES[4].1, BEYOND];

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
    }
}
