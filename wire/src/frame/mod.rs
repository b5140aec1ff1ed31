//! How a body is cut into the pieces that mean something.
//!
//! A piece is one JSON text or one protobuf message: an event of a stream, or a whole body. Nothing
//! is collected: what belongs to a piece goes on as it comes.

mod event_stream;
mod grpc;
mod sse;

pub use event_stream::EventStream;
pub use grpc::Grpc;
pub use sse::Sse;

/// Takes what a framing cuts out.
pub trait Pieces {
    /// More of the piece at hand.
    fn payload(&mut self, bytes: &[u8]);
    /// The piece has ended.
    fn end(&mut self);
    /// The name of the event whose data follows (server-sent events).
    fn name(&mut self, name: &[u8]);
    /// A header of the message whose payload follows (event streams).
    fn header(&mut self, name: &[u8], value: &[u8]);
    /// The mark after the last event (`[DONE]`).
    fn done(&mut self);
}

/// Why a body is not read any further. Its bytes go on all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotUnderstood {
    /// It has a content encoding other than gzip, or is not what its encoding says.
    Encoded,
    /// It decodes to far more than came.
    DecodedTooLarge,
    /// It is no JSON, or broken JSON.
    NotJson,
    /// Its JSON is nested deeper than anything sensible.
    TooDeep,
    /// A message of an event stream does not have the checksum that it states.
    BadChecksum,
    /// A message of an event stream or of gRPC is illegal.
    BadFrame,
    /// A message of an event stream, or its headers, is longer than allowed.
    FrameTooLarge,
    /// A gRPC message is no protobuf, or broken protobuf.
    NotProtobuf,
}

impl NotUnderstood {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Encoded,
        Self::DecodedTooLarge,
        Self::NotJson,
        Self::TooDeep,
        Self::BadChecksum,
        Self::BadFrame,
        Self::FrameTooLarge,
        Self::NotProtobuf,
    ];

    /// The word that stands in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Encoded => "encoded",
            Self::DecodedTooLarge => "decoded_too_large",
            Self::NotJson => "not_json",
            Self::TooDeep => "too_deep",
            Self::BadChecksum => "bad_checksum",
            Self::BadFrame => "bad_frame",
            Self::FrameTooLarge => "frame_too_large",
            Self::NotProtobuf => "not_protobuf",
        }
    }
}

/// The framing of one body.
#[derive(Debug)]
pub enum Framing {
    /// Nothing but blanks has come; the first byte decides.
    Unknown(Announced),
    /// JSON texts, one or many.
    Json,
    /// Server-sent events.
    Sse(Sse),
    /// AWS event stream.
    EventStream(EventStream),
    /// gRPC.
    Grpc(Box<Grpc>),
}

/// What a head says of the body, where that need not be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// Nothing.
    Nothing,
    /// Server-sent events.
    Sse,
    /// Anything else.
    Other,
}

impl Framing {
    /// The framing that a content type announces.
    pub fn announced(content_type: Option<&[u8]>) -> Self {
        match content_type {
            Some(kind) if starts_with(kind, b"application/vnd.amazon.eventstream") => {
                Self::EventStream(EventStream::default())
            }
            Some(kind) if starts_with(kind, b"text/event-stream") => Self::Unknown(Announced::Sse),
            Some(_) => Self::Unknown(Announced::Other),
            None => Self::Unknown(Announced::Nothing),
        }
    }

    /// Whether this framing is only used for streams.
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::Sse(_) | Self::EventStream(_) | Self::Unknown(Announced::Sse))
    }

    /// Whether nothing but blanks has come.
    pub fn is_blank(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }

    /// Cuts on.
    pub fn feed(&mut self, bytes: &[u8], pieces: &mut impl Pieces) -> Result<(), NotUnderstood> {
        let bytes = match self {
            Self::Unknown(announced) => {
                let Some(start) = bytes.iter().position(|byte| !is_blank(*byte)) else {
                    return Ok(());
                };
                *self = Self::sniffed(bytes[start], *announced)?;
                &bytes[start..]
            }
            _ => bytes,
        };
        match self {
            Self::Unknown(_) => {}
            Self::Json => pieces.payload(bytes),
            Self::Sse(sse) => sse.feed(bytes, pieces),
            Self::EventStream(stream) => stream.feed(bytes, pieces)?,
            Self::Grpc(grpc) => grpc.feed(bytes, pieces)?,
        }
        Ok(())
    }

    /// No more comes. Says whether the body stopped within a message.
    pub fn end(&mut self, pieces: &mut impl Pieces) -> bool {
        match self {
            Self::Unknown(_) => false,
            Self::Json => {
                pieces.end();
                false
            }
            Self::Sse(sse) => sse.end(pieces),
            Self::EventStream(stream) => !stream.between(),
            Self::Grpc(grpc) => !grpc.between(),
        }
    }

    /// Trusts the first byte over the head: errors of Google come as JSON under `text/event-stream`,
    /// and streams came as `application/json`.
    fn sniffed(first: u8, announced: Announced) -> Result<Self, NotUnderstood> {
        match first {
            b'{' | b'[' => Ok(Self::Json),
            _ if announced == Announced::Sse => Ok(Self::Sse(Sse::default())),
            // The first letters of SSE's fields, and its comments.
            b'd' | b'e' | b'i' | b'r' | b':' => Ok(Self::Sse(Sse::default())),
            b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => Ok(Self::Json),
            _ => Err(NotUnderstood::NotJson),
        }
    }
}

/// White space, the end mark of some NUL-ended streams, and the bytes of a byte order mark.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | 0 | 0xEF | 0xBB | 0xBF)
}

fn starts_with(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}
