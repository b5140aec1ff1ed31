//! What a framing cut out, kept so that two ways of cutting can be compared.

use tidegate_wire::frame;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Payload(Vec<u8>),
    End,
    Name(Vec<u8>),
    Header(Vec<u8>, Vec<u8>),
    Done,
}

/// Pieces in their order; payload that came in parts is one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pieces(pub(crate) Vec<Piece>);

impl frame::Pieces for Pieces {
    fn payload(&mut self, bytes: &[u8]) {
        match self.0.last_mut() {
            _ if bytes.is_empty() => {}
            Some(Piece::Payload(payload)) => payload.extend_from_slice(bytes),
            _ => self.0.push(Piece::Payload(bytes.to_vec())),
        }
    }

    fn end(&mut self) {
        self.0.push(Piece::End);
    }

    fn name(&mut self, name: &[u8]) {
        self.0.push(Piece::Name(name.to_vec()));
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        self.0.push(Piece::Header(name.to_vec(), value.to_vec()));
    }

    fn done(&mut self) {
        self.0.push(Piece::Done);
    }
}
