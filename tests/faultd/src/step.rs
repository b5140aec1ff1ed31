//! What an upstream does, one thing after the other, whichever protocol it speaks.

use std::time::Duration;

/// Names and values as they go out.
pub(crate) type Fields = Vec<(String, String)>;

/// One thing to do for a call.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Says a head, final or interim; byte by byte where a pace is given (HTTP/1.1 alone).
    Head { status: u16, fields: Fields, every: Option<Duration> },
    /// Says a piece of the body, framed as the head has said.
    Data(Vec<u8>),
    /// Begins a piece, and says no more than its first half.
    HalfData(Vec<u8>),
    /// Ends the body.
    End,
    /// Says these bytes as they are, on the connection.
    Raw(Vec<u8>),
    /// Says these bytes one by one.
    Trickle(Vec<u8>, Duration),
    /// Says frames of HTTP/2; nothing in HTTP/1.1.
    Frames(Vec<crate::Frame>),
    /// Waits.
    Wait(Duration),
    /// Waits until the test says so.
    Hold,
    /// Says nothing until the peer has left.
    Silence,
    /// Says that nothing more comes, and goes on reading.
    HalfClose,
    /// Closes.
    Close,
    /// Closes by a reset.
    Reset,
    /// Resets the stream by this code; in HTTP/1.1 the connection.
    ResetStream(u32),
    /// Says that streams behind this one are not processed, by this code; in HTTP/1.1 it closes.
    GoAway { last: Option<u32>, code: u32 },
}
