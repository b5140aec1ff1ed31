use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

#[track_caller]
fn assert_reads(json: &str, expected: Result<&str, Unclear>) {
    let read = Document::read(json.as_bytes()).map(|document| document.text);
    let read = read.map(|text| String::from_utf8(text).expect("text"));
    assert_eq!(read.as_deref(), expected.as_ref().map(|text| *text), "{json}");
}

#[test]
fn whitespace_and_the_order_of_keys_do_not_matter() {
    for json in [
        r#"{"a":[1,{"c":null,"d":true}],"b":"x"}"#,
        "\r\n\t { \"b\" : \"x\" , \"a\" : [ 1 , { \"d\" : true , \"c\" : null } ] } \n",
    ] {
        assert_reads(json, Ok(r#"{"a":[1,{"c":null,"d":true}],"b":"x"}"#));
    }
    assert_reads(r#"{ }"#, Ok("{}"));
    assert_reads(r#"{"b":[ ],"a":{ }}"#, Ok(r#"{"a":{},"b":[]}"#));
}

#[test]
fn whatever_else_differs_is_different() {
    for (one, other) in [
        (r#"{"a":1}"#, r#"{"a":1.0}"#),
        (r#"{"a":1}"#, r#"{"a":1e0}"#),
        (r#"{"a":1}"#, r#"{"a":"1"}"#),
        (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#),
        (r#"{"a":[[1],2]}"#, r#"{"a":[[1,2]]}"#),
        (r#"{"a":"b\",\"c\":\"d"}"#, r#"{"a":"b","c":"d"}"#),
        (r#"{"a":" x"}"#, r#"{"a":"x"}"#),
        (r#"{"a":null}"#, r#"{}"#),
        (r#"{"a":0}"#, r#"{"a":-0}"#),
    ] {
        let read = |json: &str| Document::read(json.as_bytes()).expect("a document").text;
        assert_ne!(read(one), read(other), "{one} {other}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_has_no_form() {
    use Unclear::*;
    for json in [
        r#"{"a":1,"a":2}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"\u0061":2,"a":1}"#,
        r#"{"b":{"a":1,"c":0,"a":1}}"#,
    ] {
        assert_reads(json, Err(DuplicateKey));
    }
    for json in [
        "",
        " ",
        "[]",
        "1",
        "null",
        "{",
        "}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{,"a":1}"#,
        r#"{"a":01}"#,
        r#"{"a":+1}"#,
        r#"{"a":1.}"#,
        r#"{"a":.5}"#,
        r#"{"a":1e}"#,
        r#"{"a":-}"#,
        r#"{"a":NaN}"#,
        r#"{"a":tru}"#,
        r#"{"a":'b'}"#,
        r#"{a:1}"#,
        r#"{"a":[1,]}"#,
        r#"{"a":[1}"#,
        r#"{"a":"\x"}"#,
        r#"{"a":"\u12g4"}"#,
        r#"{"a":"\"#,
        r#"{"a":"b"#,
        "{\"a\":\"\n\"}",
        r#"{"\ud800":1}"#,
        r#"{"a":1}{"b":2}"#,
        r#"{"a":1} x"#,
        "\u{feff}{}",
    ] {
        assert_reads(json, Err(NotJson));
    }
    assert!(Document::read(b"{\"a\":\"\xff\"}").is_err_and(|unclear| unclear == NotJson));
}

#[test]
fn what_is_too_deep_or_has_too_many_keys_has_no_form() {
    let deep = |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(Document::read(deep(MAX_DEPTH - 1).as_bytes()).is_ok());
    assert_reads(&deep(MAX_DEPTH), Err(Unclear::TooComplex));
    assert_reads(&deep(1_000_000), Err(Unclear::TooComplex));
    let wide = |keys: usize| {
        let members: Vec<_> = (0..keys).map(|key| format!(r#""{key}":0"#)).collect();
        format!("{{{}}}", members.join(","))
    };
    assert!(Document::read(wide(MAX_KEYS).as_bytes()).is_ok());
    assert_reads(&wide(MAX_KEYS + 1), Err(Unclear::TooComplex));
}

#[test]
fn members_of_the_outermost_object_are_found_by_their_names() {
    let json = r#"{"store" : true, "z":{"model":"inner"}, "model": "m", "\u0062":[ 1 ]}"#;
    let document = Document::read(json.as_bytes()).expect("a document");
    let member = |key: &str| document.member(key).map(String::from_utf8_lossy);
    assert_eq!(member("store").as_deref(), Some("true"));
    assert_eq!(member("model").as_deref(), Some("\"m\""));
    assert_eq!(member("b").as_deref(), Some("[1]"));
    assert_eq!(member("inner"), None);
}

/// Documents with keys that are near each other, and texts that look like structure.
fn value() -> impl Strategy<Value = Value> {
    let text = "[a-c\"\\\\{}:, \u{e9}\n]{0,6}";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        let object = vec((text, inner.clone()), 0..6);
        prop_oneof![
            vec(inner, 0..6).prop_map(Value::from),
            object.prop_map(|members| members.into_iter().collect::<Value>()),
        ]
    })
}

/// The same document, its keys and whitespace as these numbers have it.
fn shuffled(value: &Value, dice: &mut impl FnMut() -> u64, text: &mut String) {
    let blank = |dice: &mut dyn FnMut() -> u64| ["", " ", "\n\t"][dice() as usize % 3];
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().map(|member| (dice(), member)).collect();
            members.sort_by_key(|(number, _)| *number);
            text.push('{');
            for (at, (_, (key, value))) in members.into_iter().enumerate() {
                let comma = if at > 0 { "," } else { "" };
                *text +=
                    &format!("{comma}{}{}{}:", blank(dice), Value::from(key.as_str()), blank(dice));
                shuffled(value, dice, text);
                *text += blank(dice);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                *text += &format!("{}{}", if at > 0 { "," } else { "" }, blank(dice));
                shuffled(item, dice, text);
            }
            text.push(']');
        }
        scalar => *text += &scalar.to_string(),
    }
}

proptest! {
    #[test]
    fn a_document_has_one_form_however_it_is_written(value in value(), seed in any::<u64>()) {
        let whole = serde_json::json!({ "value": value });
        let mut state = seed;
        let mut dice = || { state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1); state >> 33 };
        let mut text = String::new();
        shuffled(&whole, &mut dice, &mut text);
        let read = Document::read(text.as_bytes()).expect("a document");
        let plain = Document::read(whole.to_string().as_bytes()).expect("a document");
        prop_assert_eq!(&read.text, &plain.text);
        prop_assert_eq!(serde_json::from_slice::<Value>(&read.text).expect("it is JSON"), whole);
    }

    #[test]
    fn two_documents_have_two_forms(one in value(), other in value()) {
        let read = |value: &Value| {
            Document::read(serde_json::json!({ "value": value }).to_string().as_bytes()).expect("a document").text
        };
        prop_assert_eq!(read(&one) == read(&other), one == other);
    }

    #[test]
    fn what_has_a_form_is_json(bytes in vec(prop::sample::select(br#"{}[]",:\u0a1-+.eE tru fals nul"#.to_vec()), 0..40)) {
        let json = [b"{\"a\":", &bytes[..], b"}"].concat();
        if let Ok(document) = Document::read(&json) {
            let value: Value = serde_json::from_slice(&json).expect("it is JSON");
            prop_assert_eq!(serde_json::from_slice::<Value>(&document.text).expect("so is this"), value);
        }
    }
}
