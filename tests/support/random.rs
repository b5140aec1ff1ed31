//! Numbers for tests, the same on every run.

/// Numbers, the same on every run.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Starts from a text.
    pub(crate) fn new(seed: &str) -> Self {
        Self(seed.bytes().fold(14_695_981_039_346_656_037, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(1_099_511_628_211)
        }))
    }

    /// A number from 0 up to the bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    /// Cuts bytes at random places.
    pub(crate) fn cut<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let longest = [3, 40, 700, 20_000][self.below(4)];
            let (piece, rest) = bytes.split_at((1 + self.below(longest)).min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }
}
