use std::sync::LazyLock;

use super::*;

#[path = "../../../tests/support/protobuf.rs"]
mod protobuf;
#[path = "../../../tests/support/protobuf_values.rs"]
mod protobuf_values;

use protobuf::{field, number, varint};
use protobuf_values::{double, structure};

static TABLE: LazyLock<Table<&'static str>> = LazyLock::new(|| {
    Table::new(&[
        ("name=1", Take::Value, "name"),
        ("count=2", Take::Value, "count"),
        ("part=3", Take::Closed, "part"),
        ("part=3.text=1", Take::Seen, "text"),
        ("part=3.thought=2", Take::Bool, "thought"),
        ("part=3.reason=3", Take::Word(&["ZERO", "STOP", "LENGTH"]), "reason"),
        ("data=4", Take::Fragments, "data"),
        ("value=5.{a}.{b}.number_value=2", Take::Value, "a.b"),
        ("value=5.{c}.number_value=2", Take::Value, "c"),
    ])
});

/// What was found, in words; fragments are put together.
#[derive(Debug, Default, PartialEq)]
struct Found {
    words: Vec<String>,
    data: Vec<u8>,
}

impl Sink<&'static str> for Found {
    fn value(&mut self, field: &'static str, value: Scalar<'_>) {
        self.words.push(match value {
            Scalar::Text(text) => format!("{field}={}", String::from_utf8_lossy(text)),
            Scalar::Number(text) => format!("{field}:{}", String::from_utf8_lossy(text)),
            value => format!("{field}:{value:?}"),
        });
    }

    fn seen(&mut self, field: &'static str) {
        self.words.push(format!("{field}!"));
    }

    fn fragment(&mut self, _: &'static str, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
    }

    fn closed(&mut self, field: &'static str, at: u32) {
        self.words.push(format!("{field}<{at}"));
    }

    fn item(&mut self) {
        self.words.push("item".to_owned());
    }
}

fn read(pieces: &[&[u8]]) -> Result<Found, Malformed> {
    let (mut reader, mut found) = (Reader::new(&TABLE), Found::default());
    pieces.iter().try_for_each(|piece| reader.feed(piece, &mut found))?;
    reader.end(&mut found).map(|()| found)
}

#[track_caller]
fn check(bytes: &[u8], words: &[&str]) {
    let found = read(&[bytes]).expect("a message");
    assert_eq!(found.words, words);
    for at in 0..bytes.len() {
        assert_eq!(read(&[&bytes[..at], &bytes[at..]]).as_ref(), Ok(&found), "cut at {at}");
    }
    assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()), Ok(found), "byte by byte");
}

#[test]
fn numbers_strings_words_and_ends_are_found() {
    let part = [field(1, "hi"), number(2, 1), number(3, 1)].concat();
    check(
        &[field(1, "m"), number(2, 300), field(3, part), field(3, number(3, 7))].concat(),
        &[
            "name=m",
            "count:300",
            "text!",
            "thought:Bool(true)",
            "reason=STOP",
            "part<0",
            "reason=7",
            "part<0",
            "item",
        ],
    );
}

#[test]
fn what_is_empty_or_zero_says_nothing_but_its_end() {
    let part = [field(1, ""), number(3, 0)].concat();
    check(&[field(3, part), field(3, "")].concat(), &["part<0", "part<0", "item"]);
    check(b"", &["item"]);
}

#[test]
fn what_is_not_wanted_is_passed_over() {
    let unwanted = [
        field(9, [0xFF; 300]),
        number(10, u64::MAX),
        double(11, 1.5),
        [varint(12 << 3 | 5), vec![1, 2, 3, 4]].concat(),
        field(536_870_911, "the highest number"),
        number(1, 5),
    ];
    check(&[unwanted.concat(), number(2, 7)].concat(), &["name:5", "count:7", "item"]);
}

#[test]
fn a_number_below_zero_is_no_count() {
    check(&number(2, (-5_i64).cast_unsigned()), &["count:-5", "item"]);
    assert_eq!(Scalar::Number(b"-5").count(), None);
}

#[test]
fn values_are_found_by_their_keys() {
    let number = |value| double(2, value);
    let inner = structure(&[("x", number(1.0)), ("b", number(12.0))]);
    let value = structure(&[("z", inner.clone()), ("a", inner), ("c", number(3.0))]);
    check(&field(5, value), &["a.b:12", "c:3", "item"]);
    for odd in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
        check(&field(5, structure(&[("c", number(odd))])), &["item"]);
    }
    // Nobody can tell whose a value is that stands before its key.
    let early = field(5, field(5, field(1, [field(2, number(3.0)), field(1, "c")].concat())));
    check(&early, &["item"]);
}

#[test]
fn bytes_come_in_pieces_and_strings_are_cut_off() {
    let long = "x".repeat(5000);
    let bytes = [field(4, &long), field(1, &long)].concat();
    let found = read(&bytes.chunks(7).collect::<Vec<_>>()).expect("a message");
    assert_eq!(found.data, long.as_bytes());
    assert_eq!(found.words[0].len(), "name=".len() + KEPT_BYTES);
    assert_eq!(read(&[&bytes]), Ok(found));
}

#[test]
fn what_is_no_message_is_refused() {
    for (what, bytes) in [
        ("field number zero", vec![0, 0]),
        ("a group", vec![1 << 3 | 3]),
        ("the end of a group", vec![1 << 3 | 4]),
        ("wire type 6", vec![1 << 3 | 6]),
        ("a field number beyond all", varint(1 << 32)),
        ("a number without end", vec![0xFF; 11]),
        ("a number of more than 64 bits", [vec![2 << 3], vec![0xFF; 9], vec![2]].concat()),
        ("a part that is longer than its message", field(3, [1 << 3 | 2, 5, b'x'])),
        ("a number that leaves its message", [field(3, [2 << 3, 0x80]), vec![1]].concat()),
        ("a double that leaves its message", field(3, [9 << 3 | 1, 0])),
        ("a length beyond all", [vec![3 << 3 | 2], varint(u64::MAX)].concat()),
        ("a message that stops", field(1, "name")[..4].to_vec()),
        ("a number that stops", vec![2 << 3, 0x80]),
    ] {
        assert_eq!(read(&[&bytes]), Err(Malformed), "{what}");
        assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()), Err(Malformed), "{what}");
    }
}

#[test]
fn a_reader_is_as_new_after_a_broken_message() {
    let (mut reader, mut found) = (Reader::new(&TABLE), Found::default());
    assert_eq!(reader.feed(&field(3, [1 << 3 | 2, 5, b'x']), &mut found), Err(Malformed));
    assert_eq!(reader.end(&mut found), Err(Malformed));
    reader.feed(&number(2, 7), &mut found).expect("a message");
    reader.end(&mut found).expect("its end");
    assert_eq!(found.words.last_chunk(), Some(&["count:7".to_owned(), "item".to_owned()]));
}
