use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::head::Target;
use crate::layer::cache::canonical::Document;

/// A call, as tests write it.
#[derive(Clone)]
struct Case<'a> {
    place: &'a [u8],
    caller: Option<&'a str>,
    is_signed_here: bool,
    method: http::Method,
    target: &'a str,
    fields: Vec<(&'a str, &'a str)>,
    ignored: Vec<String>,
    body: &'a str,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Self {
            place: b"route",
            caller: None,
            is_signed_here: false,
            method: http::Method::POST,
            target: "/v1/chat/completions",
            fields: vec![("authorization", "Bearer a"), ("content-type", "application/json")],
            ignored: Vec::new(),
            body: r#"{"model":"m"}"#,
        }
    }
}

impl Case<'_> {
    fn key(&self) -> Key {
        let lines = self.fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let head = RequestHead {
            method: self.method.clone(),
            target: Target::new(self.target.to_owned().into()),
            authority: "localhost".into(),
            version: http::Version::HTTP_11,
            upgrades: false,
            is_absolute: false,
            meant: None,
            shown: None,
            fields: Fields::of(&lines.collect::<Vec<_>>()),
        };
        let body = Document::read(self.body.as_bytes()).expect("a document");
        let asked = Asked {
            place: self.place,
            caller: self.caller,
            is_signed_here: self.is_signed_here,
            head: &head,
            ignored: &self.ignored,
            body: body.text(),
        };
        Key::of(&asked, &Secret::of([7; 32]))
    }

    fn with(&self, name: &'static str, value: &'static str) -> Self {
        let mut case = Case { fields: self.fields.clone(), ..Self::default() };
        case.fields.push((name, value));
        case
    }
}

/// Both halves of a key tell calls apart.
#[track_caller]
fn assert_different(keys: &[Key]) {
    let ids: BTreeSet<_> = keys.iter().map(|key| key.id).collect();
    let checks: BTreeSet<_> = keys.iter().map(|key| key.check).collect();
    assert_eq!((ids.len(), checks.len()), (keys.len(), keys.len()));
}

#[test]
fn what_makes_no_difference_makes_none() {
    let case = Case::default();
    let spelled = vec![("Content-Type", "application/json"), ("AUTHORIZATION", "Bearer a")];
    for same in [
        Case { body: " { \"model\" :\n\"m\" } ", ..case.clone() },
        case.with("User-Agent", "b"),
        case.with("x-stainless-retry-count", "1"),
        case.with("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        case.with("x-request-id", "b"),
        case.with("cache-control", "max-age=1"),
        case.with("host", "elsewhere"),
        Case { ignored: vec!["X-Our-*".to_owned()], ..case.with("x-our-id", "5") },
    ] {
        assert!(same.key() == case.key(), "{:?}", same.fields);
    }
    let spelled = Case { fields: spelled, ..case.clone() };
    assert!(spelled.key() == case.key(), "neither the case nor the order of names counts");
}

#[test]
fn whatever_else_differs_makes_another_call() {
    let case = Case::default();
    let keys = [
        case.clone(),
        Case { place: b"another", ..case.clone() },
        Case { method: http::Method::PUT, ..case.clone() },
        Case { target: "/v1/completions", ..case.clone() },
        Case { target: "/v1/chat/completions?api-version=1", ..case.clone() },
        Case { target: "/v1/chat/completions?api-version=2", ..case.clone() },
        Case { body: r#"{"model":"n"}"#, ..case.clone() },
        Case { body: r#"{"model":"m","stream":true}"#, ..case.clone() },
        case.with("anthropic-beta", "a"),
        case.with("anthropic-beta", "b"),
        case.with("anthropic-version", "a"),
        case.with("openai-organization", "a"),
        case.with("openai-project", "a"),
        case.with("accept", "text/event-stream"),
        case.with("accept-encoding", "gzip"),
        case.with("x-nobody-knows", "a"),
        case.with("cookie", "a"),
    ];
    assert_different(&keys.map(|case| case.key()));
}

#[test]
fn whoever_asks_asks_for_himself() {
    let case = Case { fields: Vec::new(), ..Case::default() };
    let fields = |name, value| Case { fields: vec![(name, value)], ..case.clone() };
    let keys = [
        case.clone(),
        fields("authorization", "Bearer a"),
        fields("authorization", "Bearer b"),
        fields("x-api-key", "Bearer a"),
        fields("api-key", "Bearer a"),
        fields("x-goog-api-key", "Bearer a"),
        fields("x-goog-user-project", "Bearer a"),
        fields("ocp-apim-subscription-key", "Bearer a"),
        Case { target: "/v1/chat/completions?key=a", ..case.clone() },
        Case { target: "/v1/chat/completions?key=b", ..case.clone() },
        Case { target: "/v1/chat/completions?%6bey=b", ..case.clone() },
        Case { caller: Some("a"), ..case.clone() },
        Case { caller: Some("b"), ..case.clone() },
        fields("caller", "a"),
    ];
    assert_different(&keys.map(|case| case.key()));
}

#[test]
fn a_caller_with_a_name_is_the_same_with_each_of_its_keys_where_those_end_here() {
    let case = |is_signed_here, credential| {
        let fields = vec![("authorization", credential), ("accept", "*/*")];
        Case { caller: Some("team"), is_signed_here, fields, ..Case::default() }.key()
    };
    assert!(case(true, "Bearer a") == case(true, "Bearer b"));
    assert_different(&[
        case(true, "Bearer a"),
        case(false, "Bearer a"),
        case(false, "Bearer b"),
        Case { fields: vec![("authorization", "Bearer a"), ("accept", "*/*")], ..Case::default() }
            .key(),
    ]);
    let without = Case { is_signed_here: true, ..Case::default() };
    let other = Case { fields: vec![("authorization", "Bearer b")], ..without.clone() };
    assert_different(&[without.key(), other.key()]);
}

#[test]
fn a_signer_is_the_same_whenever_it_signs() {
    let signed = |key: &str, signature: &str, date: &'static str| {
        let credential = format!(
            "AWS4-HMAC-SHA256 Credential={key}/{date}/us-east-1/bedrock/aws4_request, Signature={signature}"
        );
        let fields = vec![("authorization", credential.as_str()), ("x-amz-date", date)];
        Case { fields, ..Case::default() }.key()
    };
    assert!(signed("A", "1", "20260101") == signed("A", "2", "20260102"));
    assert!(signed("A", "1", "20260101") != signed("B", "1", "20260101"));
}

#[test]
fn no_text_passes_for_two_parts() {
    let case = Case { fields: Vec::new(), ..Case::default() };
    let fields =
        |fields: &[(&'static str, &'static str)]| Case { fields: fields.to_vec(), ..case.clone() };
    let keys = [
        fields(&[("x-a", "bc")]),
        fields(&[("x-ab", "c")]),
        fields(&[("x-a", "b"), ("x-c", "d")]),
        fields(&[("x-a", "b\u{3}\0\0\0\0\0\0\0x-c\u{1}\0\0\0\0\0\0\0d")]),
        fields(&[("x-c", "d"), ("x-a", "b"), ("x-a", "b")]),
        fields(&[("x-a", "1"), ("x-a", "2")]),
        fields(&[("x-a", "2"), ("x-a", "1")]),
        fields(&[("x-a", "1, 2")]),
        Case { place: b"route\0", ..case.clone() },
        Case { place: b"", caller: Some("route"), ..case.clone() },
        Case { place: b"route", caller: Some(""), ..case.clone() },
        Case { target: "/v1/chat/completions{\"model\":\"m\"}", body: "{}", ..case.clone() },
    ];
    assert_different(&keys.map(|case| case.key()));
}

/// Pairs of callers that are tried: so many where `TIDEGATE_PAIRS` says so.
fn pairs() -> u64 {
    std::env::var("TIDEGATE_PAIRS").map_or(5_000, |text| text.parse().expect("a number"))
}

#[test]
fn no_two_callers_have_an_entry_in_common_however_they_ask() {
    const PLACES: [&str; 6] =
        ["authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "x-nobody-knows"];
    let mut random = StdRng::seed_from_u64(1);
    let word = |random: &mut StdRng| -> String {
        // Near each other, so that a slip would show.
        (0..random.random_range(1..4))
            .map(|_| *b"ab:,\"".choose(random).expect("some") as char)
            .collect()
    };
    for _ in 0..pairs() {
        let body = format!(r#"{{"model":"m","n":{}}}"#, random.random_range(0..4));
        let caller = |random: &mut StdRng| -> Vec<(&str, String)> {
            let count = random.random_range(0..3);
            (0..count).map(|_| (*PLACES.choose(random).expect("some"), word(random))).collect()
        };
        let (one, other) = (caller(&mut random), caller(&mut random));
        let key = |fields: &[(&'static str, String)]| {
            let fields = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            Case { fields, body: &body, ..Case::default() }.key()
        };
        let sorted = |fields: &[(&'static str, String)]| {
            let mut fields = fields.to_vec();
            fields.sort_by_key(|(name, _)| *name);
            fields
        };
        let (first, second) = (key(&one), key(&other));
        let is_same = sorted(&one) == sorted(&other);
        if is_same {
            continue;
        }
        assert!(first.id != second.id && first.check != second.check, "{one:?} {other:?}");
    }
}
