//! Where strings end.

use memchr::memchr2;

/// The string that begins here, if it ends here, too, and has no escape.
pub(super) fn whole_text(bytes: &[u8]) -> Option<&[u8]> {
    let end = quote_or_escape(bytes)?;
    (bytes[end] == b'"').then(|| &bytes[..end])
}

/// Where the next `"` or `\` stands. Most strings are short: eight bytes at a time find those
/// sooner than a search that has to be set up.
pub(super) fn quote_or_escape(bytes: &[u8]) -> Option<usize> {
    const SHORT: usize = 32;
    let mut at = 0;
    while at < SHORT {
        let Some(group) = bytes.get(at..at + 8) else {
            let is_end = |byte: &u8| matches!(byte, b'"' | b'\\');
            return bytes[at..].iter().position(is_end).map(|found| at + found);
        };
        let group = u64::from_le_bytes(group.try_into().expect("a group has eight bytes"));
        let found = zero_bytes(group ^ repeated(b'"')) | zero_bytes(group ^ repeated(b'\\'));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    memchr2(b'"', b'\\', &bytes[at..]).map(|found| at + found)
}

/// How many bytes stand before the next quote, brace or bracket: eight at a time, for arrays of
/// numbers may be long.
pub(super) fn quote_or_bracket(bytes: &[u8]) -> usize {
    // In ASCII one bit tells brackets from braces.
    const BIT: u8 = b'{' ^ b'[';
    let mut at = 0;
    while let Some(group) = bytes.get(at..at + 8) {
        let group = u64::from_le_bytes(group.try_into().expect("a group has eight bytes"));
        let braces = group | repeated(BIT);
        let found = zero_bytes(group ^ repeated(b'"'))
            | zero_bytes(braces ^ repeated(b'{'))
            | zero_bytes(braces ^ repeated(b'}'));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_end = |byte: &u8| matches!(byte | BIT, b'{' | b'}') || *byte == b'"';
    at + bytes[at..].iter().position(is_end).unwrap_or(bytes.len() - at)
}

const fn repeated(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The high bit of the first byte that is zero; those above it may be wrong.
fn zero_bytes(group: u64) -> u64 {
    group.wrapping_sub(repeated(1)) & !group & repeated(0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quote_and_bracket_is_found_and_nothing_else_is() {
        for byte in 0..=u8::MAX {
            for length in 0..20 {
                let mut bytes = vec![b'1'; length];
                bytes.push(byte);
                bytes.extend(*b"234567890123");
                let is_end = b"\"{}[]".contains(&byte);
                let expected = if is_end { length } else { bytes.len() };
                assert_eq!(quote_or_bracket(&bytes), expected, "{byte} after {length}");
            }
        }
    }
}
