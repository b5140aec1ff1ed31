use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// What a reader found, as lines.
#[derive(Debug, Default, PartialEq)]
struct Found(Vec<String>);

impl Sink<&'static str> for Found {
    fn value(&mut self, field: &'static str, value: Scalar<'_>) {
        self.0.push(match value {
            Scalar::Text(text) => format!("{field} '{}'", String::from_utf8_lossy(text)),
            Scalar::Number(text) => format!("{field} {}", String::from_utf8_lossy(text)),
            Scalar::Bool(bool) => format!("{field} {bool}"),
            Scalar::Null => format!("{field} null"),
        });
    }
    fn seen(&mut self, field: &'static str) {
        self.0.push(format!("{field} seen"));
    }
    fn fragment(&mut self, field: &'static str, bytes: &[u8]) {
        let start = format!("{field}..");
        let fragment = String::from_utf8_lossy(bytes);
        match self.0.last_mut().filter(|line| line.starts_with(&start)) {
            Some(line) => line.push_str(&fragment),
            None => self.0.push(format!("{start}{fragment}")),
        }
    }
    fn ended(&mut self, field: &'static str) {
        self.0.push(format!("{field} ended"));
    }
    fn closed(&mut self, field: &'static str, at: u32) {
        self.0.push(format!("{field} closed {at}"));
    }
    fn item(&mut self) {
        self.0.push("item".to_owned());
    }
}

fn table(paths: &[(&'static str, Want, &'static str)]) -> &'static Table<&'static str> {
    Box::leak(Box::new(Table::new(paths)))
}

fn read(table: &'static Table<&'static str>, pieces: &[&[u8]]) -> Result<Found, Error> {
    let (mut reader, mut found) = (Reader::new(table), Found::default());
    for piece in pieces {
        reader.feed(piece, &mut found)?;
    }
    reader.end(&mut found)?;
    Ok(found)
}

/// Reads it whole, cut in two at every place, and byte by byte.
#[track_caller]
fn check(
    paths: &[(&'static str, Want, &'static str)],
    text: &str,
    expected: Result<&[&str], Error>,
) {
    let table = table(paths);
    let expected = expected.map(|lines| Found(lines.iter().map(|line| (*line).into()).collect()));
    let text = text.as_bytes();
    assert_eq!(read(table, &[text]), expected, "whole");
    for at in 0..text.len() {
        assert_eq!(read(table, &[&text[..at], &text[at..]]), expected, "cut at {at}");
    }
    assert_eq!(read(table, &text.chunks(1).collect::<Vec<_>>()), expected, "byte by byte");
}

#[test]
fn scalars_are_found_along_their_paths() {
    check(
        &[("a.b", Want::Value, "b"), ("c[*].d", Want::Value, "d"), ("e", Want::Value, "e")],
        r#"{"x": {"b": 1}, "a": {"x": "}", "b": "t\u00e9\"x"}, "c": [{"d": 1}, {"d": null}, 7], "e": -6.5e3}"#,
        Ok(&["b 'té\"x'", "d 1", "d null", "e -6.5e3", "item"]),
    );
}

#[test]
fn a_closed_object_tells_its_index() {
    check(
        &[("c[*]", Want::Closed, "c"), ("c[*].d", Want::Value, "d")],
        r#"{"c": [{}, {"d": true, "x": []}, 3, {"d": false}]}"#,
        Ok(&["c closed 0", "d true", "c closed 1", "d false", "c closed 3", "item"]),
    );
}

#[test]
fn presence_needs_something_to_be_there() {
    let wants = [("a", Want::Seen, "a")];
    check(&wants, r#"{"a": ""}"#, Ok(&["item"]));
    check(&wants, r#"{"a": null}"#, Ok(&["item"]));
    check(&wants, r#"{"a": "\n text"}"#, Ok(&["a seen", "item"]));
    check(&wants, r#"{"a": {"b": [1]}}"#, Ok(&["a seen", "item"]));
    check(&wants, r#"{"a": [[]]}"#, Ok(&["a seen", "item"]));
}

#[test]
fn a_wanted_string_can_come_in_fragments() {
    check(
        &[("a", Want::Fragments, "a")],
        r#"{"a": "x\/y=="}"#,
        Ok(&["a..x/y==", "a ended", "item"]),
    );
}

#[test]
fn keys_may_be_escaped() {
    check(&[("model", Want::Value, "m")], r#"{"mod\u0065l": "x"}"#, Ok(&["m 'x'", "item"]));
}

#[test]
fn surrogates_make_pairs_or_are_replaced() {
    let wants = [("a", Want::Value, "a")];
    check(&wants, r#"{"a": "\ud83d\ude00"}"#, Ok(&["a '😀'", "item"]));
    check(&wants, r#"{"a": "\ud83d"}"#, Ok(&["a '\u{fffd}'", "item"]));
    check(&wants, r#"{"a": "\ud83dx\ude00"}"#, Ok(&["a '\u{fffd}x\u{fffd}'", "item"]));
}

#[test]
fn values_one_after_another_are_items() {
    let wants = [("a", Want::Value, "a")];
    check(
        &wants,
        "{\"a\":1}\n{\"a\":2}\0{\"a\":3}",
        Ok(&["a 1", "item", "a 2", "item", "a 3", "item"]),
    );
    check(&wants, "[{\"a\":1}\n,\r\n{\"a\":2}\n]", Ok(&["a 1", "item", "a 2", "item"]));
    check(&wants, "[]", Ok(&[]));
    check(&wants, " 3 \"x\" [[1],2]", Ok(&["item"; 4]));
}

#[test]
fn what_is_no_json_is_an_error() {
    let wants = [("a", Want::Value, "a")];
    for text in ["{", "{]", "{\"a\":}", "{\"a\" 1}", "[1,]", "nul", "{\"x\":[}]", "<html>", "\"x"] {
        check(&wants, text, Err(Error::Malformed));
    }
    check(&wants, &"[".repeat(129), Err(Error::TooDeep));
}

#[test]
fn long_strings_are_cut_off_and_do_not_pile_up() {
    let table = table(&[("a", Want::Value, "a")]);
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    let found = read(table, &long.as_bytes().chunks(1000).collect::<Vec<_>>()).expect("JSON");
    assert_eq!(found.0[0].len(), KEPT_BYTES + "a ''".len());
}

#[test]
fn counts_may_be_written_as_floats() {
    assert_eq!(Scalar::Number(b"6.0").count(), Some(6));
    assert_eq!(Scalar::Number(b"18446744073709551615").count(), Some(u64::MAX));
    assert_eq!(Scalar::Number(b"-1").count(), None);
    assert_eq!(Scalar::Text(b"6").count(), None);
}

#[test]
fn what_items_share_is_read_once_and_told_of_each() {
    const HEAD: &str = r#"{"id":"chatcmpl-0123456789","choices":[{"delta":{"content":"#;
    let items = ["", "a", "b", "c", ""].map(|word| format!("{HEAD}\"{word}\"}}}}]}}"));
    let mut reader = Repeating::new(table(REPEATED));
    for (at, item) in items.iter().enumerate() {
        let mut found = Found::default();
        reader.feed(item.as_bytes(), &mut found).expect("this is JSON");
        let said = ["id 'chatcmpl-0123456789'", "content seen", "choice closed 0", "item"];
        let said = said.into_iter().filter(|line| at % 4 != 0 || *line != "content seen");
        assert_eq!(found.0, said.collect::<Vec<_>>(), "{item}");
    }
    // The first is passed over, the next two are compared, and the rest is known.
    assert_eq!(reader.compared(), 3);
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(?s).{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec(("[abc\"\\\\]{0,2}", inner), 0..5)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// What a reader should find of `a`, `a.b` and `c[*].a`, by a parser that holds the document.
fn by_hand(value: &Value) -> Vec<String> {
    let scalar = |name: &str, value: &Value| match value {
        Value::Object(_) | Value::Array(_) => None,
        Value::String(text) => Some(format!("{name} '{text}'")),
        value => Some(format!("{name} {value}")),
    };
    let mut lines = Vec::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        match key.as_str() {
            "a" => {
                lines.extend(scalar("a", value));
                lines.extend(value.get("b").and_then(|value| scalar("a.b", value)));
            }
            "c" => {
                let elements = value.as_array().into_iter().flatten();
                lines.extend(elements.filter_map(|each| scalar("c.a", each.get("a")?)));
            }
            _ => {}
        }
    }
    lines.push("item".to_owned());
    lines
}

const REPEATED: &[(&str, Want, &str)] = &[
    ("id", Want::Value, "id"),
    ("model", Want::Value, "model"),
    ("bytes", Want::Fragments, "bytes"),
    ("error", Want::Seen, "error"),
    ("choices[*]", Want::Closed, "choice"),
    ("choices[*].index", Want::Value, "index"),
    ("choices[*].delta.content", Want::Text, "content"),
    ("choices[*].delta.content[*].text", Want::Seen, "text"),
    ("usage.total", Want::Value, "total"),
];

/// Items that begin alike in many ways, well and badly formed.
fn repeated_item() -> impl Strategy<Value = String> {
    let head = prop::sample::select(vec![
        r#"{"id":"chatcmpl-0123456789","model":"m","#,
        r#"{"id":"chatcmpl-0123456789","id":"again","model":null,"#,
        r#"{"id":"chatcmpl-0123456789\"","mod\u0065l":"a \ud83d\ude00 b","#,
        r#"{"id":"chatcmpl-0123456789\ud83d","x":{"id":"inner","model":[{}]},"#,
        r#"{ "id" : "chatcmpl-0123456789" , "usage" : {"total": 6.0, "total": -1e3}, "#,
        r#"{"bytes":"eyJ0eXBlIjoiY29udGVudF9ibG9ja19kZWx0YSIs\/","#,
        r#"{"key":"\"id\":\"no id, but a text that looks so\"","#,
        r#"[{"id":"chatcmpl-0123456789"},{"id":"chatcmpl-9876543210","#,
        r#""a text at the root, as long as a beginning""#,
        "123456789012345678901234567890123456789",
    ]);
    let tail = prop::sample::select(vec![
        r#""choices":[{"index":0,"delta":{"content":" tide"}}]}"#,
        r#""choices":[{"index":1,"delta":{"content":" the"}}]}"#,
        r#""choices":[{"delta":{"content":[{"text":"\u00e9"},{"text":""}]},"index":7},{}]}"#,
        r#""choices":[],"usage":{"total":12,"x":[1,"]",{"a":{}}]}}"#,
        r#""error":{"message":"{"},"error":null}"#,
        r#""choices":[{"delta":{"content":"cut"#,
        r#""choices":[}"#,
        "\"model\":\"n\"}\n{\"id\":\"next\"}\0",
        r#""model":"n"}]"#,
        "nul",
        "",
        " ",
    ]);
    (head, tail).prop_map(|(head, tail)| format!("{head}{tail}"))
}

/// What a reader says of items, each cut here and there, and whether it understood them.
fn said<R>(
    mut reader: R,
    feed: fn(&mut R, &[u8], &mut Found) -> Result<(), Error>,
    end: fn(&mut R, &mut Found) -> Result<(), Error>,
    items: &[Vec<&[u8]>],
) -> Vec<(Found, Result<(), Error>)> {
    let each = |pieces: &Vec<&[u8]>| {
        let mut found = Found::default();
        let fed = pieces.iter().try_for_each(|piece| feed(&mut reader, piece, &mut found));
        let ended = end(&mut reader, &mut found);
        (found, fed.and(ended))
    };
    items.iter().map(each).collect()
}

fn said_by_reader(items: &[Vec<&[u8]>]) -> Vec<(Found, Result<(), Error>)> {
    said(Reader::new(table(REPEATED)), Reader::feed, Reader::end, items)
}

/// The same of one that remembers how they begin.
fn said_by_repeating(items: &[Vec<&[u8]>]) -> Vec<(Found, Result<(), Error>)> {
    said(Repeating::new(table(REPEATED)), Repeating::feed, Repeating::end, items)
}

proptest! {
    #[test]
    fn items_that_begin_alike_say_what_they_say_alone(
        items in prop::collection::vec(
            (prop::sample::select((0..4usize).collect::<Vec<_>>()), repeated_item(), 1..90usize),
            1..30,
        ),
        kinds in prop::collection::vec(repeated_item(), 4),
    ) {
        // Few kinds, many times, and now and then any; most come whole.
        let texts: Vec<_> = items.iter().map(|(kind, any, cut)| {
            if *cut < 70 { kinds[*kind].as_bytes() } else { any.as_bytes() }
        }).collect();
        let pieces: Vec<Vec<&[u8]>> = texts.iter().zip(&items).map(|(text, (_, _, cut))| {
            if *cut % 3 == 0 { text.chunks(*cut).collect() } else { vec![*text] }
        }).collect();
        prop_assert_eq!(said_by_repeating(&pieces), said_by_reader(&pieces));
    }

    #[test]
    fn items_changed_in_any_byte_say_what_they_say_alone(
        item in repeated_item(),
        changes in prop::collection::vec((0..200usize, any::<u8>()), 1..40),
    ) {
        let changed: Vec<Vec<u8>> = changes.iter().map(|(at, byte)| {
            let mut bytes = item.clone().into_bytes();
            let length = bytes.len();
            bytes[at % length] = *byte;
            bytes
        }).collect();
        let pieces: Vec<Vec<&[u8]>> = changed.iter().map(|bytes| vec![&bytes[..]]).collect();
        prop_assert_eq!(said_by_repeating(&pieces), said_by_reader(&pieces));
    }

    #[test]
    fn any_document_cut_anywhere_reads_as_a_whole_parser_reads_it(
        value in json(),
        pretty: bool,
        cuts in prop::collection::vec(1..9usize, 1..40),
    ) {
        prop_assume!(!value.is_array());
        let text = if pretty { format!("{value:#}") } else { value.to_string() };
        let mut pieces = Vec::new();
        let mut rest = text.as_bytes();
        for cut in cuts.iter().cycle() {
            let (piece, tail) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = tail;
            if rest.is_empty() { break }
        }
        let paths = [
            ("a", Want::Value, "a"), ("a.b", Want::Value, "a.b"), ("c[*].a", Want::Value, "c.a"),
        ];
        let found = read(table(&paths), &pieces).expect("this is JSON");
        prop_assert_eq!(found.0, by_hand(&value), "{}", text);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..200usize) {
        let paths = [("a", Want::Fragments, "a"), ("c[*].a", Want::Value, "c")];
        let (head, tail) = bytes.split_at(cut.min(bytes.len()));
        drop(read(table(&paths), &[head, tail]));
    }
}
