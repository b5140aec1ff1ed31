//! Heads of HTTP/1.1 messages: what is taken can be read in one way only, however it came, and is
//! the same once it was forwarded.

use tidegate_proxy::fuzzing::{Body, Head, Refusal, reply, request};

use crate::input::{Input, cut};

type Read = Result<Option<Head>, Refusal>;

pub(crate) fn request_head(data: &[u8]) {
    let head = check(data, request);
    if let Some(head) = head {
        check_body(&head);
        assert!(head.host.iter().all(|byte| byte.is_ascii_graphic()), "{head:?}");
        assert!(head.first.iter().all(|part| part.iter().all(u8::is_ascii_graphic)), "{head:?}");
    }
}

pub(crate) fn reply_head(data: &[u8]) {
    check(data, reply);
}

fn check(data: &[u8], read: fn(&[u8]) -> Read) -> Option<Head> {
    let mut input = Input::new(data);
    let seed = input.short();
    let bytes = input.rest();
    let whole = read(bytes);
    for seed in [seed, 0] {
        let parts = in_parts(seed, bytes, read);
        match (&whole, &parts) {
            // Why a head is refused depends on what was seen first.
            (Err(_), Err(_)) => {}
            _ => assert_eq!(parts, whole, "in parts"),
        }
    }
    let head = whole.ok().flatten()?;
    for (name, value) in &head.fields {
        assert!(!name.is_empty() && name.iter().all(u8::is_ascii_graphic), "{head:?}");
        let is_illegal = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
        assert!(!value.iter().any(is_illegal), "{head:?}");
    }
    check_forwarded(&head, read);
    Some(head)
}

/// Reads as a connection does: again and again, with more each time.
fn in_parts(seed: u16, bytes: &[u8], read: fn(&[u8]) -> Read) -> Read {
    let mut length = 0;
    for part in cut(seed, bytes) {
        length += part.len();
        let result = read(&bytes[..length]);
        if result != Ok(None) {
            return result;
        }
    }
    Ok(None)
}

fn check_body(head: &Head) {
    let values = |wanted: &str| {
        let fields = head.fields.iter();
        let found = fields.filter(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()));
        found.map(|(_, value)| value.as_slice()).collect::<Vec<_>>()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1, "{head:?}");
    match (lengths.first(), codings.first()) {
        (Some(length), _) => {
            let length = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
            let body = if length == Some(0) { Body::Empty } else { Body::Length(length.unwrap()) };
            assert_eq!(head.body, body, "{head:?}");
        }
        (_, Some(coding)) => {
            assert!(coding.eq_ignore_ascii_case(b"chunked"), "{head:?}");
            assert_eq!(head.body, Body::Chunked, "{head:?}");
        }
        _ => assert_eq!(head.body, Body::Empty, "{head:?}"),
    }
    assert_eq!(values("host"), [head.host.as_slice()], "{head:?}");
}

/// What is forwarded is a legal head, and says the same.
fn check_forwarded(head: &Head, read: fn(&[u8]) -> Read) {
    let again = read(&head.forwarded).expect("what is forwarded is legal").expect("and whole");
    assert_eq!(again.length, head.forwarded.len(), "and nothing else");
    assert_eq!((&again.first, again.body), (&head.first, head.body));
    assert_eq!(again.host, head.host);
    assert_eq!(again.forwarded, head.forwarded);
    // Fields may stay behind; none is added, changed or moved.
    let mut fields = head.fields.iter();
    for field in &again.fields {
        assert!(fields.any(|known| known == field), "{field:?} of {head:?}");
    }
}
