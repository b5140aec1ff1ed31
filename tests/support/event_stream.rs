//! Messages of an AWS event stream, out of what they hold.

use serde_json::Value;

/// One message: its headers, which are texts, and its payload.
pub(crate) fn message(message: &Value) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in message["headers"].as_object().expect("headers") {
        let value = value.as_str().expect("header values are strings");
        headers.push(name.len() as u8);
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&(value.len() as u16).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let payload = message["payload"].to_string();
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&((16 + headers.len() + payload.len()) as u32).to_be_bytes());
    bytes.extend_from_slice(&(headers.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes.extend_from_slice(&headers);
    bytes.extend_from_slice(payload.as_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes
}
