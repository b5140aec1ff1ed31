//! Values of `google.protobuf`, written by hand for tests.

use super::protobuf::{field, varint};

/// A field with a double.
pub(crate) fn double(number: u32, value: f64) -> Vec<u8> {
    [varint(u64::from(number << 3 | 1)), value.to_le_bytes().to_vec()].concat()
}

/// A `google.protobuf.Value` that is a `Struct` of these.
pub(crate) fn structure(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entry =
        |(key, value): &(&str, Vec<u8>)| field(1, [field(1, key), field(2, value)].concat());
    field(5, members.iter().flat_map(entry).collect::<Vec<_>>())
}
