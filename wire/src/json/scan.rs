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

const fn repeated(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The high bit of the first byte that is zero; those above it may be wrong.
fn zero_bytes(group: u64) -> u64 {
    group.wrapping_sub(repeated(1)) & !group & repeated(0x80)
}
