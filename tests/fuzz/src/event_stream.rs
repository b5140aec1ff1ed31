//! AWS event stream: cuts change nothing, and the format's rules, applied to the whole, find the
//! same messages or the same mistake.

use tidegate_wire::frame::{EventStream, NotUnderstood, Pieces as _};

use crate::frames;
use crate::input::{Input, cut};
use crate::pieces::Pieces;

/// Messages over this length are handed on as they come.
const MAX_COLLECTED: usize = 64 << 10;
const MAX_MESSAGE: usize = 24 << 20;
const MAX_HEADERS: usize = 32 << 10;

/// The pieces, and whether the stream ended between two messages or why it was given up.
type Read = (Pieces, Result<bool, NotUnderstood>);

pub(crate) fn event_stream(data: &[u8]) {
    let mut input = Input::new(data);
    let (seed, kind) = (input.short(), input.byte());
    let bytes = match kind % 4 {
        0 => input.rest().to_vec(),
        1 => frames::encode(input.rest()),
        2 => one_wrong(input),
        _ => messages(input),
    };
    let whole = read(&[&bytes]);
    assert_eq!(read(&cut(seed, &bytes)), whole, "cut");
    assert_eq!(read(&cut(seed / 2, &bytes)), whole, "cut in other places");
    assert_eq!(naive(&bytes), whole, "by the rules");
}

/// A legal stream with one byte that is not as it was.
fn one_wrong(mut input: Input<'_>) -> Vec<u8> {
    let (at, change) = (usize::from(input.short()), input.byte());
    let mut bytes = frames::encode(input.rest());
    let at = at % bytes.len();
    bytes[at] ^= change;
    bytes
}

/// Messages whose headers are any bytes, and some whose payload is long.
fn messages(mut input: Input<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !input.is_empty() && bytes.len() < 2 * MAX_COLLECTED {
        let (headers, payload, flags) = (input.byte(), input.byte(), input.byte());
        let headers = input.take(headers.into());
        let payload = input.take(payload.into());
        let times = if flags & 1 == 1 { MAX_COLLECTED / (payload.len() + 1) } else { 1 };
        let mut message = frames::message(headers, &payload.repeat(times));
        if flags & 2 == 2 {
            let last = message.len() - 1;
            message[last] ^= flags;
        }
        bytes.extend(message);
    }
    bytes
}

fn read(parts: &[&[u8]]) -> Read {
    let (mut stream, mut pieces) = (EventStream::default(), Pieces::default());
    let result = parts.iter().try_for_each(|part| stream.feed(part, &mut pieces));
    (pieces, result.map(|()| stream.between()))
}

fn naive(mut bytes: &[u8]) -> Read {
    let mut pieces = Pieces::default();
    loop {
        match naive_message(bytes, &mut pieces) {
            Ok(Some(length)) => bytes = &bytes[length..],
            Ok(None) => return (pieces, Ok(bytes.is_empty())),
            Err(error) => return (pieces, Err(error)),
        }
    }
}

/// The length of the message at the front; nothing where it is cut.
fn naive_message(bytes: &[u8], pieces: &mut Pieces) -> Result<Option<usize>, NotUnderstood> {
    let Some(prelude) = bytes.get(..12) else { return Ok(None) };
    if crc32fast::hash(&prelude[..8]) != number(&prelude[8..]) {
        return Err(NotUnderstood::BadChecksum);
    }
    let (total, headers) = (number(prelude) as usize, number(&prelude[4..]) as usize);
    if total > MAX_MESSAGE || headers > MAX_HEADERS {
        return Err(NotUnderstood::FrameTooLarge);
    }
    if total < 16 + headers {
        return Err(NotUnderstood::BadFrame);
    }
    let is_whole = bytes.len() >= total;
    let is_right = is_whole && crc32fast::hash(&bytes[..total - 4]) == number(&bytes[total - 4..]);
    if total <= MAX_COLLECTED {
        if !is_whole {
            return Ok(None);
        }
        if !is_right {
            return Err(NotUnderstood::BadChecksum);
        }
    }
    let Some(block) = bytes.get(12..12 + headers) else { return Ok(None) };
    naive_headers(block, pieces)?;
    pieces.payload(&bytes[12 + headers..bytes.len().min(total - 4)]);
    if !is_whole {
        return Ok(None);
    }
    if !is_right {
        return Err(NotUnderstood::BadChecksum);
    }
    pieces.end();
    Ok(Some(total))
}

fn naive_headers(block: &[u8], pieces: &mut Pieces) -> Result<(), NotUnderstood> {
    let mut input = Input::new(block);
    while !input.is_empty() {
        let length = usize::from(input.byte());
        let name = input.take(length);
        if name.is_empty() || name.len() < length || input.is_empty() {
            return Err(NotUnderstood::BadFrame);
        }
        let kind = input.byte();
        let length = match kind {
            0 | 1 => 0,
            2 => 1,
            3 => 2,
            4 => 4,
            5 | 8 => 8,
            9 => 16,
            6 | 7 => match input.take(2) {
                &[high, low] => usize::from(u16::from_be_bytes([high, low])),
                _ => return Err(NotUnderstood::BadFrame),
            },
            _ => return Err(NotUnderstood::BadFrame),
        };
        let value = input.take(length);
        if value.len() < length {
            return Err(NotUnderstood::BadFrame);
        }
        if kind == 7 {
            pieces.header(name, value);
        }
    }
    Ok(())
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
