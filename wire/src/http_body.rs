//! `google.api.HttpBody` (github.com/googleapis/googleapis, `google/api/httpbody.proto`): a body
//! as HTTP would carry it, in the messages of a gRPC call.

use std::sync::LazyLock;

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
    /// No later byte is looked at.
    given_up: bool,
}

/// A reader, and who gets what it finds.
struct Unwrapped<'a, T> {
    reader: &'a mut Reader<()>,
    is_broken: &'a mut bool,
    data: Data<T>,
}

struct Data<T>(T);

impl HttpBody {
    /// A body whose head names this `grpc-encoding`.
    pub(crate) fn new(encoding: Option<&[u8]>) -> Self {
        Self {
            frames: Grpc::new(encoding),
            reader: Reader::new(&DATA),
            is_broken: false,
            given_up: false,
        }
    }

    /// Hands on what of the body is in these bytes.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        take: impl FnMut(&[u8]),
    ) -> Result<(), NotUnderstood> {
        if self.given_up {
            return Ok(());
        }
        let Self { frames, reader, is_broken, .. } = self;
        let cut = frames.feed(bytes, &mut Unwrapped { reader, is_broken, data: Data(take) });
        let read = if self.is_broken { Err(NotUnderstood::NotProtobuf) } else { cut };
        self.given_up = read.is_err();
        read
    }

    /// Whether the body may end here.
    pub(crate) fn between(&self) -> bool {
        self.given_up || self.frames.between()
    }
}

impl<T: FnMut(&[u8])> Pieces for Unwrapped<'_, T> {
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

impl<T: FnMut(&[u8])> Sink<()> for Data<T> {
    fn value(&mut self, (): (), _: Scalar<'_>) {}

    fn seen(&mut self, (): ()) {}

    fn fragment(&mut self, (): (), bytes: &[u8]) {
        (self.0)(bytes);
    }

    fn closed(&mut self, (): (), _: u32) {}

    fn item(&mut self) {}
}
