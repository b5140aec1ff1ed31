//! Deals out the bytes of an input: the first of them choose, the rest is what is read.

/// What is left of an input; where nothing is left, zeros.
pub(crate) struct Input<'a> {
    rest: &'a [u8],
}

// === impl Input ===

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let byte = self.rest.first().copied();
        self.rest = self.rest.get(1..).unwrap_or_default();
        byte.unwrap_or_default()
    }

    pub(crate) fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// One of few.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    /// So many bytes, or what is left.
    pub(crate) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// All up to this byte, which is dropped.
    pub(crate) fn until(&mut self, end: u8) -> &'a [u8] {
        let length = self.rest.iter().position(|byte| *byte == end).unwrap_or(self.rest.len());
        let taken = self.take(length);
        self.byte();
        taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }
}

/// Cuts bytes at places that `seed` chooses; 0 cuts everywhere.
pub(crate) fn cut(seed: u16, mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut state = u32::from(seed) << 1 | 1;
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let longest = if seed == 0 { 1 } else { [3, 40, 700, 20_000][state as usize % 4] };
        let length = 1 + (state >> 8) as usize % longest;
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}
