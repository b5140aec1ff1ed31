//! Which requests may change their connection to another protocol, and to which (RFC 9110,
//! section 7.8).

use crate::head::Fields;

/// Protocols in which HTTP would go on, where nobody looks at it any more: calls could be smuggled
/// past every route and record.
const HIDES_HTTP: [&str; 4] = ["h2c", "h2", "http", "tls"];

/// Whether a value of `Upgrade` names protocols that may be changed to, and none that may not.
pub(crate) fn may_pass(value: &[u8]) -> bool {
    let hides_http = |token: &[u8]| {
        let name = token.split(|byte| *byte == b'/').next().unwrap_or_default();
        HIDES_HTTP.iter().any(|hidden| name.eq_ignore_ascii_case(hidden.as_bytes()))
    };
    !value.is_empty() && !tokens(value).any(hides_http)
}

/// What a 101 answer changes the connection to; nothing where that was not asked for, or where it
/// says more than a change can have.
pub(crate) fn agreed<'a>(asked: &Fields, answer: &'a Fields) -> Option<&'a [u8]> {
    let is_framed = answer.get("content-length").or(answer.get("transfer-encoding")).is_some();
    let was_asked = |token: &[u8]| {
        values(asked).flat_map(tokens).any(|asked| asked.eq_ignore_ascii_case(token))
    };
    let all_asked = values(answer).flat_map(tokens).all(was_asked);
    values(answer).flat_map(tokens).next().filter(|_| all_asked && !is_framed)
}

fn values(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"upgrade")).map(|(_, value)| value)
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upgrade(values: &[&str]) -> Fields {
        let map = values
            .iter()
            .map(|value| (http::header::UPGRADE, value.parse().expect("a value")))
            .collect();
        Fields::from_map(&map)
    }

    #[test]
    fn a_protocol_that_hides_http_is_not_changed_to() {
        for (value, passes) in [
            ("websocket", true),
            ("WebSocket", true),
            ("tcp, spdy/3.1", true),
            ("h2c", false),
            ("H2C", false),
            ("websocket, h2c", false),
            ("h2c,websocket", false),
            ("HTTP/2.0", false),
            ("TLS/1.2", false),
            ("", false),
        ] {
            assert_eq!(may_pass(value.as_bytes()), passes, "{value:?}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_agreed() {
        let asked = upgrade(&["foo/2", "websocket"]);
        for (answer, agreement) in [
            (upgrade(&["WebSocket"]), Some(&b"WebSocket"[..])),
            (upgrade(&["foo/2"]), Some(b"foo/2")),
            (upgrade(&["foo"]), None),
            (upgrade(&["websocket", "h2c"]), None),
            (upgrade(&[]), None),
        ] {
            assert_eq!(agreed(&asked, &answer), agreement, "{answer:?}");
        }
    }
}
