//! Event streams written as text, so that a fuzzer can change what they say and their checksums
//! still hold.
//!
//! Messages are parted by 0x1E; within one, headers (`name=value`) and then the payload by 0x1F.
//! A payload that begins with 0x1C goes out as base64 within JSON, as Bedrock's chunks do.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const MESSAGE: u8 = 0x1E;
const PART: u8 = 0x1F;
const CHUNK: u8 = 0x1C;
const TEXT: u8 = 7;

/// The bytes of the stream that the text describes.
pub(crate) fn encode(text: &[u8]) -> Vec<u8> {
    text.split(|byte| *byte == MESSAGE).flat_map(encode_message).collect()
}

/// One message with right lengths and checksums.
pub(crate) fn message(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + headers.len() + payload.len());
    bytes.extend_from_slice(&((16 + headers.len() + payload.len()) as u32).to_be_bytes());
    bytes.extend_from_slice(&(headers.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes.extend_from_slice(headers);
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

/// The text of a stream, from the messages of a fixture.
pub(crate) fn text(messages: &[serde_json::Value]) -> Vec<u8> {
    let texts: Vec<_> = messages.iter().map(message_text).collect();
    texts.join(&MESSAGE)
}

fn message_text(message: &serde_json::Value) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in message["headers"].as_object().into_iter().flatten() {
        text.extend_from_slice(name.as_bytes());
        text.push(b'=');
        text.extend_from_slice(value.as_str().unwrap_or_default().as_bytes());
        text.push(PART);
    }
    let chunk = message["payload"]["bytes"].as_str().and_then(|text| STANDARD.decode(text).ok());
    match chunk {
        Some(chunk) => text.extend([vec![CHUNK], chunk].concat()),
        None => text.extend_from_slice(message["payload"].to_string().as_bytes()),
    }
    text
}

fn encode_message(text: &[u8]) -> Vec<u8> {
    let mut parts: Vec<_> = text.split(|byte| *byte == PART).collect();
    let payload = parts.pop().unwrap_or_default();
    let headers: Vec<u8> = parts.iter().flat_map(|part| encode_header(part)).collect();
    match payload {
        [CHUNK, chunk @ ..] => {
            let json = serde_json::json!({ "bytes": STANDARD.encode(chunk), "p": "abc" });
            message(&headers, json.to_string().as_bytes())
        }
        payload => message(&headers, payload),
    }
}

fn encode_header(text: &[u8]) -> Vec<u8> {
    let equals = text.iter().position(|byte| *byte == b'=').unwrap_or(text.len());
    let (name, value) = (&text[..equals.min(255)], text.get(equals + 1..).unwrap_or_default());
    let length = (value.len() as u16).to_be_bytes();
    [&[name.len() as u8], name, &[TEXT], &length, value].concat()
}
