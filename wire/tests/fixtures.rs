//! Every call under `tests/fixtures` makes its record, however its bytes are cut, and never a
//! better one when they end too early or are wrong.

use serde_json::Value;
use tidegate_wire::{Dialect, Ending, Outcome, Record};

#[path = "../../tests/support/cuts.rs"]
mod cuts;
#[path = "../../tests/support/fixtures.rs"]
mod fixtures;

/// What depends on the clock, or on who carries the call.
const LEFT_OUT: [&str; 14] = [
    "time",
    "trace_id",
    "span_id",
    "tidegate.duration_s",
    "tidegate.time_to_first_byte_s",
    "tidegate.time_to_first_body_byte_s",
    "tidegate.time_to_first_event_s",
    "tidegate.time_to_first_token_s",
    "tidegate.time_to_first_visible_token_s",
    "tidegate.time_to_last_token_s",
    "tidegate.time_per_output_token_s",
    "tidegate.gap.p50_s",
    "tidegate.gap.p99_s",
    "tidegate.gap.max_s",
];

#[test]
fn a_whole_reply_makes_its_record() {
    let mut wrong = Vec::new();
    for case in fixtures::all() {
        let record = without_times(&case.replay([case.reply.as_slice()], case.ending));
        if record != case.record {
            wrong.push(format!("{}: wanted {}, made {record}", case.name, case.record));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_dialect_has_a_fixture() {
    let cases = fixtures::all();
    for dialect in Dialect::ALL {
        let word = serde_json::to_value(dialect).expect("a word");
        let folder = format!("{}/", word.as_str().expect("a word"));
        assert!(cases.iter().any(|case| case.name.starts_with(&folder)), "{dialect:?} has none");
    }
}

#[test]
fn where_a_fixture_is_cut_changes_nothing_and_cut_short_it_is_not_complete() {
    let cases = fixtures::all();
    let tried = cuts::each(&cases, |case| {
        let replay = |pieces: &[&[u8]], ending| case.replay(pieces.iter().copied(), ending);
        cuts::check(&case.name, &case.reply, case.ending, usize::MAX, replay)
    });
    println!("{tried} of {} fixtures", cases.len());
    assert!(tried.in_two > 10_000);
}

#[test]
fn a_clean_end_that_comes_too_early_is_seen() {
    for case in fixtures::all() {
        for length in 1..case.reply.len() {
            let (read, rest) = case.reply.split_at(length);
            let record = case.replay([read], Ending::Clean);
            let is_whole = has_said_why(&record) || ends_an_item(&case.name, read, rest);
            let is_completed = record.outcome == Some(Outcome::Completed);
            assert!(is_whole || !is_completed, "{} ends at {length}", case.name);
        }
    }
}

#[test]
fn no_wrong_byte_makes_it_panic() {
    for case in fixtures::all() {
        for at in (0..case.reply.len()).step_by(5) {
            for wrong in [0, b'"', b'{', b']', b'\\', b'\n', 0xFF] {
                let mut reply = case.reply.clone();
                reply[at] = wrong;
                let record = case.replay([reply.as_slice()], case.ending);
                assert!(record.outcome.is_some(), "{} at {at}", case.name);
            }
        }
    }
}

/// Whether a reply may end here: it has said why it does, or nobody can tell how it should.
fn has_said_why(record: &Record) -> bool {
    !record.finish_reasons.is_empty()
        || record.operation.is_none()
        || record.not_understood.is_some()
}

/// Whether only blanks are missing, or whole items of a kind that has no end mark.
fn ends_an_item(name: &str, read: &[u8], rest: &[u8]) -> bool {
    let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0;
    let last = read.iter().rfind(|byte| !is_blank(byte));
    last.is_none()
        || rest.iter().all(is_blank)
        || name.starts_with("generate/") && last == Some(&b'}')
}

fn without_times(record: &Record) -> Value {
    let mut record = serde_json::to_value(record).expect("a record serialises");
    let keys = record.as_object_mut().expect("to an object");
    keys.retain(|key, _| !LEFT_OUT.contains(&key.as_str()));
    record
}
