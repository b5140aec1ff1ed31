//! Writes protocol buffers straight into bytes: a span is encoded once, and waits as small as it
//! will be sent.

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;

/// The value of an attribute.
#[derive(Clone, Copy, Debug)]
pub(in crate::export) enum Value<'a> {
    Text(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    List(&'a [String]),
}

/// A field that holds bytes or text.
pub(in crate::export) fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    key(out, field, BYTES);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A field that holds a number or a word of an enumeration.
pub(in crate::export) fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, VARINT);
    varint(out, value);
}

/// A field of eight bytes.
pub(in crate::export) fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A field of four bytes.
pub(in crate::export) fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    key(out, field, FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A field that holds a message.
pub(in crate::export) fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    key(out, field, BYTES);
    let at = out.len();
    // The length stands in front of what it counts. Most take one byte; for a longer one what is
    // written moves back.
    out.push(0);
    write(out);
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
        return;
    }
    let mut encoded = Vec::with_capacity(10);
    varint(&mut encoded, length as u64);
    out.splice(at..=at, encoded);
}

/// A field that holds an attribute (`KeyValue`).
pub(in crate::export) fn attribute(out: &mut Vec<u8>, field: u32, name: &str, value: Value<'_>) {
    message(out, field, |out| {
        bytes(out, 1, name.as_bytes());
        message(out, 2, |out| any_value(out, value));
    });
}

fn any_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Text(text) => bytes(out, 1, text.as_bytes()),
        Value::Bool(value) => number(out, 2, u64::from(value)),
        Value::Int(value) => number(out, 3, value.cast_unsigned()),
        Value::Double(value) => fixed64(out, 4, value.to_bits()),
        Value::List(texts) => message(out, 5, |out| {
            for text in texts {
                message(out, 1, |out| any_value(out, Value::Text(text)));
            }
        }),
    }
}

fn key(out: &mut Vec<u8>, field: u32, kind: u32) {
    varint(out, u64::from(field << 3 | kind));
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
