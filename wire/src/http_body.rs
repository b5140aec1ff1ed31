//! `google.api.HttpBody` (github.com/googleapis/googleapis, `google/api/httpbody.proto`): a body
//! as HTTP would carry it, in the messages of a gRPC call.

use std::sync::LazyLock;

use crate::coding::{Decoder, Out};
use crate::frame::{Grpc, NotUnderstood, Pieces};
use crate::json::{Scalar, Sink};
use crate::proto::{Reader, Table, Take};

static DATA: LazyLock<Table<()>> = LazyLock::new(|| Table::new(&[("data=2", Take::Fragments, ())]));

/// Takes a body out of the messages that it comes in.
#[derive(Debug)]
pub(crate) struct HttpBody {
    frames: Grpc,
    reader: Reader<()>,
    is_broken: bool,
}

/// A reader, and who gets what it finds.
struct Unwrapped<'a, 'b> {
    reader: &'a mut Reader<()>,
    is_broken: &'a mut bool,
    data: Data<'a, 'b>,
}

/// Where the body goes, and what became of it there.
struct Data<'a, 'b> {
    out: &'a mut Out<'b>,
    result: Result<(), NotUnderstood>,
}

// === impl HttpBody ===

impl HttpBody {
    /// A body whose head names this `grpc-encoding`.
    pub(crate) fn new(encoding: Option<&[u8]>) -> Self {
        Self { frames: Grpc::new(encoding), reader: Reader::new(&DATA), is_broken: false }
    }
}

impl Decoder for HttpBody {
    fn decode(&mut self, bytes: &[u8], out: &mut Out<'_>) -> Result<(), NotUnderstood> {
        let Self { frames, reader, is_broken } = self;
        let data = Data { out, result: Ok(()) };
        let mut unwrapped = Unwrapped { reader, is_broken, data };
        let cut = frames.feed(bytes, &mut unwrapped);
        unwrapped.data.result?;
        if self.is_broken { Err(NotUnderstood::NotProtobuf) } else { cut }
    }

    fn end(&mut self) -> bool {
        self.frames.between()
    }
}

// === impl Unwrapped ===

impl Pieces for Unwrapped<'_, '_> {
    fn payload(&mut self, bytes: &[u8]) {
        // What follows a hole in a body is no body.
        *self.is_broken = *self.is_broken || self.reader.feed(bytes, &mut self.data).is_err();
    }

    fn end(&mut self) {
        *self.is_broken = *self.is_broken || self.reader.end(&mut self.data).is_err();
    }

    fn name(&mut self, _: &[u8]) {}

    fn header(&mut self, _: &[u8], _: &[u8]) {}

    fn done(&mut self) {}
}

// === impl Data ===

impl Sink<()> for Data<'_, '_> {
    fn value(&mut self, (): (), _: Scalar<'_>) {}

    fn seen(&mut self, (): ()) {}

    fn fragment(&mut self, (): (), bytes: &[u8]) {
        if self.result.is_ok() {
            self.result = (self.out)(bytes);
        }
    }

    fn closed(&mut self, (): (), _: u32) {}

    fn item(&mut self) {}
}
