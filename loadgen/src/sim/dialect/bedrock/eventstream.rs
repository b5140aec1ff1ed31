//! How Bedrock frames a stream: messages with checksums and padding.

use crate::sim::generation::mix;

pub(super) const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";

/// A header's value is a string.
const TYPE_STRING: u8 = 7;

/// An event of a kind, with JSON in it.
pub(super) fn event(kind: &str, payload: &str) -> Vec<u8> {
    let json = "application/json";
    message(&[(":event-type", kind), (":content-type", json), (":message-type", "event")], payload)
}

/// The exception that ends a stream whose model failed.
pub(super) fn midway_error() -> Vec<u8> {
    let headers = [
        (":exception-type", "modelStreamErrorException"),
        (":content-type", "application/json"),
        (":message-type", "exception"),
    ];
    message(
        &headers,
        r#"{"message":"The simulated model failed midway.","originalStatusCode":500}"#,
    )
}

/// One message: lengths, their checksum, headers, payload, checksum of it all.
fn message(headers: &[(&str, &str)], payload: &str) -> Vec<u8> {
    let headers_length: usize =
        headers.iter().map(|(name, value)| 1 + name.len() + 3 + value.len()).sum();
    let length = 12 + headers_length + payload.len() + 4;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend((headers_length as u32).to_be_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    for (name, value) in headers {
        bytes.push(name.len() as u8);
        bytes.extend(name.as_bytes());
        bytes.push(TYPE_STRING);
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(value.as_bytes());
    }
    bytes.extend(payload.as_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

/// Bedrock pads its events, so that their sizes tell nothing of their texts.
pub(super) fn padding(salt: u64, index: u64) -> &'static str {
    const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let length = 4 + mix(salt, index) as usize % (LETTERS.len() - 3);
    &LETTERS[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_message_has_the_checksums_of_the_specification() {
        let bytes = message(&[], "");
        let expected = [0, 0, 0, 16, 0, 0, 0, 0, 0x05, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff];
        assert_eq!(bytes, expected);
    }
}
