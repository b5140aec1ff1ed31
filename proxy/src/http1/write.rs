//! Writes the heads of HTTP/1.1 messages: the lines that came, less those of one connection.

use crate::head::{RequestHead, ResponseHead};

use super::hop::HopByHop;

/// Fields that only Tidegate may set.
const OURS: &[u8] = b"x-tidegate-";

/// How the body is framed that follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyAs {
    /// As its own fields say: the bytes come framed already.
    Framed,
    /// In chunks that we make: the body came by HTTP/2, of unknown length.
    Chunked,
    /// Until we close: the caller knows no chunks.
    UntilClose,
}

/// The request as the upstream gets it, `base` in front of its path.
pub(crate) fn request(
    out: &mut Vec<u8>,
    head: &RequestHead,
    base: &[u8],
    host: &[u8],
    body: BodyAs,
) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(base);
    out.extend_from_slice(head.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let hop = HopByHop::of(&head.fields);
    let mut hosted = false;
    for (name, value) in head.fields.iter() {
        if name.eq_ignore_ascii_case(b"host") {
            // Where it stood, spelled as it was.
            line(out, name, host);
            hosted = true;
        } else if !hop.holds(name) && !is_ours(name) || head.upgrades && is_upgrade(name) {
            line(out, name, value);
        }
    }
    if !hosted {
        line(out, b"host", host);
    }
    if head.upgrades {
        line(out, b"Connection", b"Upgrade");
    }
    if body == BodyAs::Chunked {
        line(out, b"transfer-encoding", b"chunked");
    }
    out.extend_from_slice(b"\r\n");
}

/// The response as the caller gets it.
pub(crate) fn response(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    body: BodyAs,
    keep_alive: KeepAlive,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    let status = head.status;
    out.extend([status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8));
    out.push(b' ');
    out.extend_from_slice(&head.reason);
    out.extend_from_slice(b"\r\n");
    let hop = HopByHop::of(&head.fields);
    for (name, value) in head.fields.iter() {
        let unframed = body != BodyAs::Framed && name.eq_ignore_ascii_case(b"transfer-encoding");
        let changes = keep_alive == KeepAlive::Upgrade && is_upgrade(name);
        if !hop.holds(name) && !unframed || changes {
            line(out, name, value);
        }
    }
    match keep_alive {
        KeepAlive::Upgrade => line(out, b"Connection", b"Upgrade"),
        KeepAlive::Usual => {}
        KeepAlive::Said => line(out, b"connection", b"keep-alive"),
        KeepAlive::Close => line(out, b"connection", b"close"),
    }
    if body == BodyAs::Chunked {
        line(out, b"transfer-encoding", b"chunked");
    }
    out.extend_from_slice(b"\r\n");
}

/// What a response says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeepAlive {
    /// Stays open, which needs no word over HTTP/1.1.
    Usual,
    /// Stays open, which HTTP/1.0 must be told.
    Said,
    /// Closes.
    Close,
    /// Changes to the protocol that `Upgrade` names.
    Upgrade,
}

/// One piece of a body that we cut into chunks ourselves.
pub(crate) fn chunk(out: &mut Vec<u8>, payload: &[u8]) {
    if !payload.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", payload.len()).as_bytes());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }
}

/// The end of such a body, with its trailers.
pub(crate) fn last_chunk(out: &mut Vec<u8>, trailers: Option<&http::HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether only Tidegate may set this field.
pub(crate) fn is_ours(name: &[u8]) -> bool {
    name.get(..OURS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OURS))
}

fn is_upgrade(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"upgrade")
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
