//! Chunked bodies: cuts change nothing, and a decoder that holds it all finds the same.

use tidegate_proxy::fuzzing::{Chunked, Refusal};

use crate::input::{Input, cut};

/// What was read of a body: its payload, how many bytes are its own, whether it is whole.
#[derive(Debug, Default, PartialEq, Eq)]
struct Body {
    payload: Vec<u8>,
    trailers: Vec<u8>,
    length: usize,
    is_whole: bool,
}

pub(crate) fn chunked(data: &[u8]) {
    let mut input = Input::new(data);
    let seed = input.short();
    let bytes = input.rest();
    let whole = read(&[bytes]);
    assert_eq!(read(&cut(seed, bytes)), whole, "cut");
    assert_eq!(read(&cut(0, bytes)), whole, "byte by byte");
    assert_eq!(naive(bytes), whole.ok(), "all at once");
}

fn read(parts: &[&[u8]]) -> Result<Body, Refusal> {
    let mut chunked = Chunked::default();
    let mut body = Body::default();
    for part in parts {
        let taken = chunked.advance(part, &mut body.payload)?;
        body.length += taken;
        assert!(taken == part.len() || chunked.is_whole(), "what is left belongs to nobody");
        if taken < part.len() {
            break;
        }
    }
    body.is_whole = chunked.is_whole();
    body.trailers = chunked.trailers().to_vec();
    Ok(body)
}

/// Nothing where this is no chunked body.
fn naive(bytes: &[u8]) -> Option<Body> {
    let mut body = Body::default();
    let cut = |mut body: Body| {
        body.length = bytes.len();
        Some(body)
    };
    loop {
        let Some(size) = line(&mut body, bytes, is_size)? else { return cut(body) };
        let digits = size.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let digits = std::str::from_utf8(&size[..digits]).expect("digits are ASCII");
        let size = usize::from_str_radix(digits, 16).expect("which were looked at");
        if size == 0 {
            break;
        }
        let rest = &bytes[body.length..];
        body.payload.extend_from_slice(&rest[..rest.len().min(size)]);
        let end = rest.get(size..).unwrap_or_default();
        if !b"\r\n".starts_with(&end[..end.len().min(2)]) {
            return None;
        }
        if end.len() < 2 {
            return cut(body);
        }
        body.length += size + 2;
    }
    loop {
        let start = body.length;
        let Some(trailer) = line(&mut body, bytes, is_trailer)? else {
            body.trailers.extend_from_slice(&bytes[start..]);
            // The CR of an empty line is not the beginning of a trailer.
            if bytes.get(start) == Some(&b'\r') {
                body.trailers.pop();
            }
            return cut(body);
        };
        if trailer.is_empty() {
            body.is_whole = true;
            return Some(body);
        }
        body.trailers.extend_from_slice(&bytes[start..body.length]);
    }
}

/// The next line, without its end; `Some(None)` where it is cut, `None` where it is illegal.
fn line<'a>(
    body: &mut Body,
    bytes: &'a [u8],
    is_legal: fn(&[u8], bool) -> bool,
) -> Option<Option<&'a [u8]>> {
    let rest = &bytes[body.length..];
    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let text = &rest[..end.unwrap_or(rest.len())];
    if !is_legal(text, end.is_some()) {
        return None;
    }
    match end.map(|end| &rest[end..]) {
        None | Some([b'\r']) => Some(None),
        Some([b'\r', b'\n', ..]) => {
            body.length += text.len() + 2;
            Some(Some(text))
        }
        Some(_) => None,
    }
}

fn is_size(text: &[u8], is_whole: bool) -> bool {
    let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let rest = &text[digits..];
    let is_number = (1..=15).contains(&digits) || text.is_empty() && !is_whole;
    let starts = rest.first().is_none_or(|byte| b"; \t".contains(byte));
    is_number && starts && rest.iter().all(is_printable)
}

fn is_trailer(text: &[u8], _: bool) -> bool {
    let starts = text.first().is_none_or(|byte| !b" \t:".contains(byte));
    starts && text.iter().all(is_printable)
}

fn is_printable(byte: &u8) -> bool {
    *byte == b'\t' || *byte >= b' ' && *byte != 0x7F
}
