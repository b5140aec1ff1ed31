use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

#[test]
fn points_in_time_are_read_as_people_write_them() {
    let now = at("2026-11-27T10:30:00Z");
    for (text, expected) in [
        ("30d", "2026-10-28T10:30:00Z"),
        ("1w", "2026-11-20T10:30:00Z"),
        ("12h", "2026-11-26T22:30:00Z"),
        ("90m", "2026-11-27T09:00:00Z"),
        ("today", "2026-11-27T00:00:00Z"),
        ("month", "2026-11-01T00:00:00Z"),
        ("now", "2026-11-27T10:30:00Z"),
        ("2026-11-01", "2026-11-01T00:00:00Z"),
        ("2026-11-01T08:15", "2026-11-01T08:15:00Z"),
        ("2026-11-01T08:15:00+01:00", "2026-11-01T07:15:00Z"),
    ] {
        assert_eq!(point(text, now).expect(text), at(expected), "{text}");
    }
    for text in ["", "30", "1mo", "-3d", "yesterday"] {
        let error = point(text, now).expect_err(text).to_string();
        assert!(error.contains("such as 30d"), "{error}");
    }
}

#[test]
fn words_are_those_of_the_help() {
    assert_eq!("caller".parse::<By>().expect("a word"), By::Caller);
    let error = "service".parse::<By>().expect_err("no word").to_string();
    assert!(error.contains("caller"), "{error}");
}

#[test]
fn fields_are_quoted_where_a_spreadsheet_would_misread_them() {
    for (field, expected) in [
        ("gemma", "gemma"),
        ("a,b", "\"a,b\""),
        ("a\"b", "\"a\"\"b\""),
        ("=1+1", "'=1+1"),
        ("", ""),
    ] {
        assert_eq!(quoted(field), expected);
    }
    assert_eq!(grouped(1_234_567), "1 234 567");
    assert_eq!(grouped(12), "12");
}
