//! gRPC: each message behind a byte that says whether it is compressed, and its length
//! (github.com/grpc/grpc, `doc/PROTOCOL-HTTP2.md`).
//!
//! Messages are cut, never collected, so a length costs nothing whatever it claims. A compressed
//! one is decoded as it comes.

use std::io::Write;

use flate2::write::GzDecoder;

use super::{NotUnderstood, Pieces};

/// The compressed flag and the length.
const PREFIX: u8 = 5;
/// What a stream may decode to, whatever its length.
const MAX_DECODED: u64 = 256 << 20;
/// What a short stream may decode to.
const FREELY_DECODED: u64 = 8 << 20;
/// What a longer one may decode to, in its own lengths.
const MAX_RATIO: u64 = 100;
/// What goes into a decoder at once, so that little comes out of it at once.
const DECODED_PIECE: usize = 256;

/// Cuts a body into gRPC's messages.
#[derive(Debug)]
pub struct Grpc {
    /// How many bytes of the prefix have come.
    prefix: u8,
    is_compressed: bool,
    /// The length, then how much of the message is left.
    left: u32,
    coding: Coding,
    decoder: Option<Box<GzDecoder<Vec<u8>>>>,
    encoded: u64,
    decoded: u64,
}

/// What a compressed message is compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    Unknown,
}

impl Grpc {
    /// The framing of a body whose head names this `grpc-encoding`.
    pub fn new(encoding: Option<&[u8]>) -> Self {
        let coding = match encoding.unwrap_or_default() {
            b"" | b"identity" => Coding::Identity,
            b"gzip" => Coding::Gzip,
            _ => Coding::Unknown,
        };
        Self {
            prefix: 0,
            is_compressed: false,
            left: 0,
            coding,
            decoder: None,
            encoded: 0,
            decoded: 0,
        }
    }

    /// Whether the body may end here.
    pub fn between(&self) -> bool {
        self.prefix == 0
    }

    /// Cuts on.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        pieces: &mut impl Pieces,
    ) -> Result<(), NotUnderstood> {
        while let Some(&first) = bytes.first() {
            if self.prefix < PREFIX {
                bytes = &bytes[1..];
                self.prefix(first)?;
            } else {
                let length = bytes.len().min(self.left as usize);
                self.payload(&bytes[..length], pieces)?;
                self.left -= length as u32;
                bytes = &bytes[length..];
            }
            if self.prefix == PREFIX && self.left == 0 {
                self.message_ended(pieces)?;
            }
        }
        Ok(())
    }

    fn prefix(&mut self, byte: u8) -> Result<(), NotUnderstood> {
        match (self.prefix, byte) {
            (0, 0) => self.is_compressed = false,
            (0, 1) => self.is_compressed = true,
            (0, _) => return Err(NotUnderstood::BadFrame),
            _ => self.left = self.left << 8 | u32::from(byte),
        }
        self.prefix += 1;
        match (self.is_compressed, self.coding) {
            (true, Coding::Identity) => Err(NotUnderstood::BadFrame),
            (true, Coding::Unknown) => Err(NotUnderstood::Encoded),
            _ => Ok(()),
        }
    }

    fn payload(&mut self, bytes: &[u8], pieces: &mut impl Pieces) -> Result<(), NotUnderstood> {
        if !self.is_compressed {
            pieces.payload(bytes);
            return Ok(());
        }
        bytes.chunks(DECODED_PIECE).try_for_each(|piece| self.decode(piece, pieces))
    }

    fn decode(&mut self, mut bytes: &[u8], pieces: &mut impl Pieces) -> Result<(), NotUnderstood> {
        self.encoded += bytes.len() as u64;
        let decoder =
            self.decoder.get_or_insert_with(|| Box::new(GzDecoder::new(Vec::with_capacity(1024))));
        while !bytes.is_empty() {
            match decoder.write(bytes).map_err(|_| NotUnderstood::Encoded)? {
                // The encoding has ended before its message.
                0 => return Err(NotUnderstood::Encoded),
                used => bytes = &bytes[used..],
            }
            let decoded = decoder.get_mut();
            self.decoded += decoded.len() as u64;
            pieces.payload(decoded);
            decoded.clear();
            let most = self.encoded.saturating_mul(MAX_RATIO).saturating_add(FREELY_DECODED);
            if self.decoded > most.min(MAX_DECODED) {
                return Err(NotUnderstood::DecodedTooLarge);
            }
        }
        Ok(())
    }

    fn message_ended(&mut self, pieces: &mut impl Pieces) -> Result<(), NotUnderstood> {
        self.prefix = 0;
        if let Some(mut decoder) = self.decoder.take() {
            decoder.try_finish().map_err(|_| NotUnderstood::Encoded)?;
            pieces.payload(decoder.get_ref());
        }
        pieces.end();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// Keeps what comes, message by message.
    #[derive(Debug, Default, PartialEq)]
    struct Kept {
        open: Vec<u8>,
        messages: Vec<Vec<u8>>,
    }

    impl Pieces for Kept {
        fn payload(&mut self, bytes: &[u8]) {
            self.open.extend_from_slice(bytes);
        }

        fn end(&mut self) {
            self.messages.push(std::mem::take(&mut self.open));
        }

        fn name(&mut self, _: &[u8]) {}

        fn header(&mut self, _: &[u8], _: &[u8]) {}

        fn done(&mut self) {}
    }

    fn message(flag: u8, payload: &[u8]) -> Vec<u8> {
        [&[flag], &(payload.len() as u32).to_be_bytes()[..], payload].concat()
    }

    fn gzip(payload: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(payload).expect("memory takes everything");
        encoder.finish().expect("memory takes everything")
    }

    fn cut(encoding: &[u8], pieces: &[&[u8]]) -> (Kept, Result<bool, NotUnderstood>) {
        let (mut grpc, mut kept) = (Grpc::new(Some(encoding)), Kept::default());
        let fed = pieces.iter().try_for_each(|piece| grpc.feed(piece, &mut kept));
        (kept, fed.map(|()| grpc.between()))
    }

    #[test]
    fn wherever_the_bytes_are_cut_the_messages_are_the_same() {
        let body =
            [message(0, b"one"), message(0, b""), message(1, &gzip(b"three")), message(0, b"4")];
        let body = body.concat();
        let (whole, end) = cut(b"gzip", &[&body]);
        assert_eq!(end, Ok(true));
        assert_eq!(whole.messages, [&b"one"[..], b"", b"three", b"4"]);
        for at in 0..body.len() {
            assert_eq!(cut(b"gzip", &[&body[..at], &body[at..]]), (whole_again(&whole), Ok(true)));
        }
        let bytes: Vec<_> = body.chunks(1).collect();
        assert_eq!(cut(b"gzip", &bytes), (whole, Ok(true)));
    }

    fn whole_again(kept: &Kept) -> Kept {
        Kept { open: Vec::new(), messages: kept.messages.clone() }
    }

    #[test]
    fn a_body_that_stops_within_a_message_says_so() {
        let body = message(0, b"one");
        for length in 1..body.len() {
            assert_eq!(cut(b"", &[&body[..length]]).1, Ok(false), "{length}");
        }
        assert_eq!(cut(b"", &[]).1, Ok(true));
    }

    #[test]
    fn what_no_grpc_is_is_given_up() {
        let refused = |encoding: &[u8], bytes: &[u8]| cut(encoding, &[bytes]).1.unwrap_err();
        assert_eq!(refused(b"", b"<html>"), NotUnderstood::BadFrame);
        assert_eq!(refused(b"identity", &message(1, b"x")), NotUnderstood::BadFrame);
        assert_eq!(refused(b"zstd", &message(1, b"x")), NotUnderstood::Encoded);
        assert_eq!(refused(b"gzip", &message(1, b"no gzip at all")), NotUnderstood::Encoded);
        let cut_short = &gzip(b"three")[..12];
        assert_eq!(refused(b"gzip", &message(1, cut_short)), NotUnderstood::Encoded);
    }

    #[test]
    fn what_decodes_to_far_more_than_came_is_given_up() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert_eq!(cut(b"gzip", &[&message(1, &bomb)]).1, Err(NotUnderstood::DecodedTooLarge));
    }

    #[test]
    fn an_endless_length_costs_nothing() {
        let (mut grpc, mut kept) = (Grpc::new(None), Kept::default());
        grpc.feed(b"\0\xFF\xFF\xFF\xFF", &mut kept).expect("a length");
        assert!(!grpc.between());
        assert_eq!(kept, Kept::default());
    }
}
