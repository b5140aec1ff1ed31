//! JSON in a row: as an array, as lines, ended by NUL or one text each, items read the same.

use crate::input::{Input, cut};
use crate::json::{Event, Events, expected, read};

pub(crate) fn json_array(data: &[u8]) {
    let mut input = Input::new(data);
    let seed = input.short();
    let mut items = Vec::new();
    while !input.is_empty() {
        items.push(input.until(b'\n'));
    }
    // What is itself an array is read as one only at the root.
    items.retain(|item| expected(item).is_some() && !item.trim_ascii().starts_with(b"["));

    let alone = alone(&items);
    for text in [items.join(&b'\n'), items.join(&0), array(&items)] {
        let found = read(&cut(seed, &text));
        assert_eq!(found, (Events(alone.clone()), Ok(())), "{:?}", String::from_utf8_lossy(&text));
    }
}

fn alone(items: &[&[u8]]) -> Vec<Event> {
    items.iter().flat_map(|item| read(&[item]).0.0).collect()
}

fn array(items: &[&[u8]]) -> Vec<u8> {
    [b"[".as_slice(), &items.join(&b','), b"]"].concat()
}
