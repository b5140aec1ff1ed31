//! Keys, as far as they are kept: what is known of a key is enough to know it again, and no more.

use std::hint::black_box;

use ring::digest::{SHA256, digest};

/// Bytes of a digest.
pub(super) const DIGEST_BYTES: usize = 32;

/// The SHA-256 of a key.
pub(super) type Digest = [u8; DIGEST_BYTES];

/// The digest of a key.
pub(super) fn of(key: &[u8]) -> Digest {
    digest(&SHA256, key).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Whether both are the same; how long that takes says nothing of where they differ.
pub(super) fn is_same(one: &Digest, other: &Digest) -> bool {
    let differences =
        one.iter().zip(other).fold(0, |sum, (one, other)| black_box(sum | (one ^ other)));
    differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_the_standard_and_every_bit_of_it_counts() {
        // FIPS 180-4, the message "abc".
        let abc = of(b"abc");
        assert_eq!(abc[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert!(is_same(&abc, &of(b"abc")));
        for at in 0..DIGEST_BYTES {
            let mut other = abc;
            other[at] ^= 1;
            assert!(!is_same(&abc, &other), "byte {at}");
        }
    }
}
