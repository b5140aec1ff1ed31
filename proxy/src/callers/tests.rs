use super::*;
use crate::head::{Fields, Target};

/// The SHA-256 of `key-a` and of `key-b`.
fn digests() -> [String; 2] {
    ["key-a", "key-b"].map(|key| {
        let digits = digest::of(key.as_bytes()).map(|byte| format!("{byte:02x}"));
        format!("sha256:{}", digits.concat())
    })
}

fn callers(others: &str) -> Arc<Callers> {
    let [a, b] = digests();
    let config = Config::parse(&format!(
        "callers: {{ header: X-Team, others: {others}, known: {{ a: {{ keys: ['{a}'] }}, \
         b: {{ keys: ['{b}'] }}, c: {{}} }} }}"
    ));
    Callers::of(&config.expect("a good configuration")).expect("there are callers")
}

fn head(target: &str, fields: &[(&str, &str)]) -> RequestHead {
    let lines: Vec<_> =
        fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    RequestHead {
        method: http::Method::POST,
        target: Target::new(target.to_owned().into()),
        authority: "host".into(),
        version: http::Version::HTTP_11,
        upgrades: false,
        is_absolute: false,
        meant: None,
        shown: None,
        fields: Fields::of(&lines),
    }
}

/// The caller's name, and whether it is proven.
fn named(target: &str, fields: &[(&str, &str)]) -> Option<(String, bool)> {
    let identity = callers("pass").identify(&head(target, fields)).expect("all may call");
    identity.map(|identity| (identity.name.to_string(), identity.is_proven))
}

#[test]
fn a_key_is_known_wherever_credentials_stand() {
    let a = Some(("a".to_owned(), true));
    for field in [
        ("authorization", "Bearer key-a"),
        ("Authorization", "bearer  key-a"),
        ("x-api-key", "key-a"),
        ("api-key", "key-a"),
        ("x-goog-api-key", "key-a"),
    ] {
        assert_eq!(named("/v1/x", &[field]), a, "{field:?}");
    }
    assert_eq!(named("/v1/x?alt=sse&key=key%2Da", &[]), a);
    assert_eq!(named("/v1/x", &[("x-api-key", "key-a"), ("authorization", "Bearer key-a")]), a);
}

#[test]
fn who_has_no_key_of_one_that_has_is_nobody_whatever_name_it_gives() {
    for fields in [
        &[][..],
        &[("authorization", "Bearer key-c")],
        &[("authorization", "key-a ")][..0],
        &[("x-team", "a")],
        &[("x-team", "a"), ("authorization", "Bearer wrong")],
        &[("x-prompt", "key-a")],
        &[("authorization", "Bearer key-a"), ("x-api-key", "key-b")],
    ] {
        assert_eq!(named("/v1/x", fields), None, "{fields:?}");
    }
}

#[test]
fn a_key_counts_more_than_a_name_and_a_name_is_believed_where_there_is_no_key() {
    let fields = [("x-team", "c"), ("authorization", "Bearer key-b")];
    assert_eq!(named("/", &fields), Some(("b".to_owned(), true)));
    assert_eq!(named("/", &[("x-team", "c")]), Some(("c".to_owned(), false)));
    assert_eq!(named("/", &[("X-TEAM", "unheard-of")]), Some(("unheard-of".to_owned(), false)));
    let long = "n".repeat(65);
    for name in ["", "two words", "\u{7f}", "caf\u{e9}", &long] {
        assert_eq!(named("/", &[("x-team", name)]), None, "{name:?}");
    }
}

#[test]
fn others_are_refused_where_the_user_says_so() {
    let callers = callers("refuse");
    let is_let_in = |fields: &[(&str, &str)]| match callers.identify(&head("/", fields)) {
        Ok(identity) => identity.is_some(),
        Err(error) => {
            assert_eq!((error.kind(), error.status()), ("caller_unknown", 401));
            false
        }
    };
    assert!(is_let_in(&[("x-team", "c")]) && is_let_in(&[("x-api-key", "key-a")]));
    assert!(!is_let_in(&[]) && !is_let_in(&[("x-team", "a")]));
    assert!(!is_let_in(&[("x-team", "unheard-of")]));
}

#[test]
fn a_certificate_is_known_by_its_names_and_whoever_shows_what_two_have_is_neither() {
    let [key, _] = digests();
    let config = Config::parse(&format!(
        "tls: {{ callers: /roots.pem }}\n\
         callers: {{ header: x-team, known: {{ a: {{ keys: ['{key}'] }}, \
         b: {{ certificates: ['spiffe://prod/ns/b/*', 'CN=batch'] }}, \
         c: {{ certificates: ['spiffe://prod/*/shared'] }} }} }}"
    ));
    let callers = Callers::of(&config.expect("a good configuration")).expect("there are callers");
    let named = |names: &[&str], fields: &[(&str, &str)]| {
        let shown = Some(ShownNames::these(names).into());
        let head = RequestHead { shown, ..head("/", fields) };
        let identity = callers.identify(&head).expect("all may call");
        identity.map(|identity| (identity.name.to_string(), identity.is_proven))
    };
    let b = Some(("b".to_owned(), true));
    assert_eq!(named(&["spiffe://prod/ns/b/sa/app"], &[]), b);
    assert_eq!(named(&["CN=batch", "batch.prod.svc"], &[("x-team", "c")]), b);
    let none: &[(&str, &str)] = &[];
    for (names, fields) in [
        (&["spiffe://test/ns/b/sa/app"][..], none),
        (&["batch"], none),
        (&[], &[("x-team", "b")]),
        (&["spiffe://prod/ns/b/shared"], none),
        (&["CN=batch"], &[("x-api-key", "key-a")]),
    ] {
        assert_eq!(named(names, fields), None, "{names:?} {fields:?}");
    }
}

#[test]
fn certificates_that_nobody_is_asked_for_are_told() {
    let known = "callers: { known: { a: { certificates: ['CN=a'] } } }";
    let error = Config::parse(known).expect_err("nobody is asked").to_string();
    assert!(error.contains("callers.known.a.certificates"), "{error}");
    assert!(error.contains("tls.callers"), "{error}");
}
