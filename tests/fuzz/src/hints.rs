//! What the head of an answer says of limits: within bounds, and each field says by itself what it
//! says among others.

use std::collections::HashSet;
use std::time::Duration;

use http::HeaderMap;
use tidegate_wire::{Ending, HeadView, Headers, Observer, RateLimit, Record, Shape};

use crate::input::Input;
use crate::observer::{STATUSES, check_line};

const MAX_DIMENSIONS: usize = 16;
const MAX_DIMENSION: usize = 40;
/// A year, in seconds.
const LONGEST: f64 = 366.0 * 86_400.0;

/// Fields as they came.
#[derive(Clone, Default)]
struct Fields<'a>(Vec<(&'a [u8], &'a [u8])>);

impl Headers for Fields<'_> {
    fn value(&self, name: &str) -> Option<&[u8]> {
        let is_it = |field: &&(&[u8], &[u8])| field.0.eq_ignore_ascii_case(name.as_bytes());
        self.0.iter().find(is_it).map(|(_, value)| *value)
    }

    fn each(&self, show: &mut dyn FnMut(&[u8], &[u8])) {
        self.0.iter().for_each(|(name, value)| show(name, value));
    }
}

/// An input chooses the status; then it has a line for each field.
pub(crate) fn hints(data: &[u8]) {
    let mut input = Input::new(data);
    let status = input.pick(STATUSES);
    let mut fields = Fields::default();
    while !input.is_empty() {
        let line = input.until(b'\n');
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        fields.0.push((&line[..colon], line.get(colon + 1..).unwrap_or_default()));
    }
    let record = read(status, &fields);
    check(&record);
    check_line(&record);
    assert!(status >= 400 || record.retry_after_s.is_none(), "{record:?}");

    let backwards = Fields(fields.0.iter().rev().copied().collect());
    check_order(status, &fields, &record);
    // Which of several dates counts is their order.
    if fields.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"date")).count() < 2 {
        check_order(status, &backwards, &read(status, &backwards));
    }
}

fn read(status: u16, fields: &Fields<'_>) -> Record {
    let mut observer = Observer::new(Shape::read(&HeadView {
        method: "POST",
        host: None,
        path: "/v1/chat/completions",
        query: None,
        headers: &HeaderMap::new(),
    }));
    observer.head(status, fields, Duration::from_millis(1));
    let mut record = Record::default();
    observer.finish(Ending::Broken, Duration::from_millis(2), &mut record);
    record
}

fn check(record: &Record) {
    let is_wait = |seconds: f64| seconds.is_finite() && seconds >= 0.0;
    assert!(record.retry_after_s.is_none_or(is_wait), "{record:?}");
    let limits = &record.limits.0;
    assert!(limits.len() <= MAX_DIMENSIONS, "{limits:?}");
    let names: HashSet<_> = limits.iter().map(|limit| &limit.dimension).collect();
    assert_eq!(names.len(), limits.len(), "each has one entry: {limits:?}");
    for limit in limits {
        let is_of_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let name = limit.dimension.as_bytes();
        assert!((1..=MAX_DIMENSION).contains(&name.len()), "{limit:?}");
        assert!(name.iter().all(|byte| is_of_word(*byte)), "{limit:?}");
        let reset = limit.reset_s;
        assert!(reset.is_none_or(|reset| is_wait(reset) && reset <= LONGEST), "{limit:?}");
        assert!(limit.limit.is_some() || limit.remaining.is_some() || reset.is_some(), "{limit:?}");
    }
}

/// What all fields say is what each says, the first of them first; so the order of those of
/// different dimensions does not matter.
fn check_order(status: u16, fields: &Fields<'_>, record: &Record) {
    let date = fields.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"date"));
    let mut expected: Vec<RateLimit> = Vec::new();
    for field in &fields.0 {
        let alone = Fields(date.into_iter().chain([field]).copied().collect());
        let said = read(status, &alone).limits.0;
        if said.len() == MAX_DIMENSIONS {
            // It may have more that found no room.
            return;
        }
        said.into_iter().for_each(|limit| add(&mut expected, limit));
    }
    assert_eq!(record.limits.0, expected);
}

fn add(limits: &mut Vec<RateLimit>, more: RateLimit) {
    let has_room = limits.len() < MAX_DIMENSIONS;
    match limits.iter_mut().find(|limit| limit.dimension == more.dimension) {
        Some(limit) => {
            limit.limit = limit.limit.or(more.limit);
            limit.remaining = limit.remaining.or(more.remaining);
            limit.reset_s = limit.reset_s.or(more.reset_s);
        }
        None if has_room => limits.push(more),
        None => {}
    }
}
