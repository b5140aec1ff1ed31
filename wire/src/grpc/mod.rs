//! What belongs to a gRPC call beside its messages: whose model it asks for, and the status at
//! its end.

mod resource;
mod status;

use std::sync::LazyLock;

use crate::Headers;
use crate::dialect::Field;
use crate::frame::{Grpc as Frames, Pieces};
use crate::json::{Scalar, Sink};
use crate::proto::{Reader, Table};

pub(crate) use resource::Resource;
pub(crate) use status::Status;

/// How the messages of a method read; nothing where nobody knows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Method {
    /// The field of the request that names whom it is for; absent where the head has said so.
    pub(crate) resource: Option<&'static LazyLock<Table<()>>>,
    /// Whether messages of the request may be compressed by gzip.
    pub(crate) is_gzip: bool,
    /// The fields of the replies that mean something.
    pub(crate) reply: Option<Messages>,
}

/// What the messages of a reply are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Messages {
    /// Protobuf with fields that mean something.
    Fields(&'static LazyLock<Table<Field>>),
    /// `google.api.HttpBody`: the body that the same call by HTTP would get, in pieces.
    HttpBody,
}

/// What an observer knows of a gRPC call.
#[derive(Debug)]
pub(crate) struct Ongoing {
    request: Option<Box<Request>>,
    /// Whom the request is for, as its message says.
    pub(crate) named: Resource,
    pub(crate) status: Option<Status>,
}

/// The first message of a request, as far as it may say whom it is for.
#[derive(Debug)]
struct Request {
    frames: Frames,
    message: Message,
}

#[derive(Debug)]
struct Message {
    reader: Reader<()>,
    name: Name,
    has_ended: bool,
}

/// The name of a resource.
#[derive(Debug, Default)]
struct Name(Option<Resource>);

/// Whether the head of a message says that it is gRPC's. That of gRPC-Web does not: its trailers
/// stand in its body.
pub fn is_grpc(headers: &dyn Headers) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    headers.value("content-type").is_some_and(|kind| {
        let start = kind.get(..GRPC.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
            && matches!(kind.get(GRPC.len()), None | Some(b'+' | b';' | b' '))
    })
}

// === impl Ongoing ===

impl Ongoing {
    /// A call of this method.
    pub(crate) fn new(method: Method) -> Self {
        let request = method.resource.map(|table| {
            let message =
                Message { reader: Reader::new(table), name: Name::default(), has_ended: false };
            let encoding = method.is_gzip.then_some(&b"gzip"[..]);
            Box::new(Request { frames: Frames::new(encoding), message })
        });
        Self { request, named: Resource::default(), status: None }
    }

    /// Reads on in the request.
    pub(crate) fn request(&mut self, bytes: &[u8]) {
        let Some(request) = &mut self.request else { return };
        let is_broken = request.frames.feed(bytes, &mut request.message).is_err();
        if let Some(named) = request.message.name.0.take() {
            self.named = named;
            self.request = None;
        } else if is_broken || request.message.has_ended {
            self.request = None;
        }
    }

    /// Whether more of the request could say something.
    pub(crate) fn reads(&self) -> bool {
        self.request.is_some()
    }

    /// Fields that may hold the status: trailers, or the head of an answer that is nothing else.
    pub(crate) fn trailers(&mut self, headers: &dyn Headers) {
        if let Some(status) = Status::read(headers) {
            self.status = Some(status);
        }
    }
}

// === impl Message ===

impl Pieces for Message {
    fn payload(&mut self, bytes: &[u8]) {
        if !self.has_ended {
            self.has_ended = self.reader.feed(bytes, &mut self.name).is_err();
        }
    }

    fn end(&mut self) {
        self.has_ended = true;
    }

    fn name(&mut self, _: &[u8]) {}

    fn header(&mut self, _: &[u8], _: &[u8]) {}

    fn done(&mut self) {}
}

// === impl Name ===

impl Sink<()> for Name {
    fn value(&mut self, (): (), value: Scalar<'_>) {
        if let Scalar::Text(name) = value
            && !name.is_empty()
        {
            self.0 = Some(Resource::read(&String::from_utf8_lossy(name)));
        }
    }

    fn seen(&mut self, (): ()) {}

    fn fragment(&mut self, (): (), _: &[u8]) {}

    fn closed(&mut self, (): (), _: u32) {}

    fn item(&mut self) {}
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn only_grpc_itself_is_grpc() {
        for (kind, holds) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
            ("", false),
        ] {
            let kind = kind.parse().expect("a value");
            let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, kind)]);
            assert_eq!(is_grpc(&headers), holds, "{headers:?}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
