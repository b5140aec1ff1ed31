//! Scripts as text, for the `x-fault` field of a request and the command line.
//!
//! ```text
//! script = turn *( "," turn )              the first turn for the first request, and so on; the last
//!                                          one stays. Where every turn has a time, over and over
//! turn   = [count "*"] words ["@" time]    3*status=503, good      status=503@10s, good@10s
//! words  = word *( ";" word )              status=429;retry-after=2
//! ```
//!
//! | word | what it does |
//! |---|---|
//! | `good`, `good=anthropic` | a good answer, by the request's path or in this dialect |
//! | `stream`, `whole` | as a stream or not, whatever was asked for |
//! | `status=503` | this status, with an error in the dialect's words |
//! | `silent`, `garbage` | no answer; what is no HTTP |
//! | `cl-te`, `two-cl` | a body whose length is said in two ways |
//! | `tokens=5` | how many tokens a good answer has |
//! | `retry-after=2`, `retry-date=2s`, `retry-after-ms=50`, `retry-info=2s`, `reset-requests=1s` | when to come back |
//! | `field=name:value` | a field of the head |
//! | `wait=1s`, `head-every=1s`, `every=1s` | silence before the head, between its bytes, before each piece |
//! | `comments` | a comment in front of each event |
//! | `early`, `no-continue`, `interim=103` or `interim=100x20` | what is read, and what is said first |
//! | `unframed`, `followed-by=text` | how the body ends, and what follows it |
//! | `at=start`, `at=head`, `at=3`, `at=2t`, `at=end-mark`, `at=end` | where it goes wrong: behind so many pieces or tokens |
//! | `reset`, `close`, `half-close`, `silence`, `mid-chunk`, `bad-chunk`, `clean-end`, `corrupt`, `error=overloaded`, `rst=8`, `goaway=0/0` | how it goes wrong |

use std::time::Duration;

use crate::answer::{
    Answer, Cut, Form, Hint, any, garbage, good, silent, status, with_two_lengths,
};
use crate::dialect::{Dialect, Trouble};
use crate::script::Script;

/// Turns that a script may have.
const MAX_TURNS: usize = 10_000;

/// Why a text is no script.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Nobody knows this word.
    #[error("no word of a script: `{0}`")]
    Word(String),
    /// The word is known, what stands behind it is not.
    #[error("no value of `{word}`: `{value}`")]
    Value {
        /// The word.
        word: String,
        /// What stands behind it.
        value: String,
    },
    /// Some turns have a time, and others have none.
    #[error("either every turn has a time (`@10s`) or none")]
    Times,
    /// There are too many turns.
    #[error("more than {MAX_TURNS} turns")]
    TooLong,
}

/// Reads a script.
pub fn script(text: &str) -> Result<Script, Error> {
    let mut turns = Vec::new();
    for turn in text.split(',').map(str::trim) {
        let (count, turn) = counted(turn)?;
        let (words, time) = match turn.rsplit_once('@') {
            Some((words, time)) => (words, Some(span("@", time)?)),
            None => (turn, None),
        };
        if turns.len() + count > MAX_TURNS {
            return Err(Error::TooLong);
        }
        turns.extend(std::iter::repeat_n((answer(words)?, time), count));
    }
    let timed: Option<Vec<_>> =
        turns.iter().map(|(answer, time)| Some((answer.clone(), (*time)?))).collect();
    match timed {
        Some(timed) => Ok(Script::cycle(timed)),
        None if turns.iter().any(|(_, time)| time.is_some()) => Err(Error::Times),
        None => Ok(Script::sequence(turns.into_iter().map(|(answer, _)| answer))),
    }
}

fn counted(turn: &str) -> Result<(usize, &str), Error> {
    match turn.split_once('*') {
        Some((count, turn)) => Ok((number("*", count)?, turn)),
        None => Ok((1, turn)),
    }
}

/// Where an answer goes wrong, before it is known how.
#[derive(Clone, Copy)]
enum At {
    Start,
    Head,
    Pieces(usize),
    Tokens(usize),
    EndMark,
    End,
}

fn answer(words: &str) -> Result<Answer, Error> {
    let words: Vec<_> = words.split(';').map(str::trim).filter(|word| !word.is_empty()).collect();
    let (first, rest) = match words.split_first() {
        Some((first, rest)) => (*first, rest),
        None => ("good", [].as_slice()),
    };
    // What an answer is stands in front; where it stands elsewhere, it is a good one.
    let (mut answer, rest) = match base(first)? {
        Some(answer) => (answer, rest),
        None => (any(), words.as_slice()),
    };
    let (mut at, mut cut) = (None, None);
    for word in rest {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match (place(name, value)?, way(name, value)?) {
            (Some(place), _) => at = Some(place),
            (_, Some(way)) => cut = Some(way),
            _ => answer = bent(answer, name, value)?,
        }
    }
    Ok(match cut {
        Some(cut) => cut_at(answer, at.unwrap_or(At::End), cut),
        None => answer,
    })
}

/// The answer that a word stands for.
fn base(word: &str) -> Result<Option<Answer>, Error> {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    Ok(Some(match (name, value) {
        ("good", "") => any(),
        ("good", value) => good(dialect(value)?),
        ("status", value) => status(number(name, value)?),
        ("silent", "") => silent(),
        ("garbage", "") => garbage(),
        ("cl-te", "") => with_two_lengths("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"),
        ("two-cl", "") => with_two_lengths("Content-Length: 2\r\nContent-Length: 3\r\n"),
        _ => return Ok(None),
    }))
}

/// Where an answer goes wrong.
fn place(name: &str, value: &str) -> Result<Option<At>, Error> {
    if name != "at" {
        return Ok(None);
    }
    Ok(Some(match value {
        "start" => At::Start,
        "head" => At::Head,
        "end-mark" => At::EndMark,
        "end" => At::End,
        _ => match value.strip_suffix('t') {
            Some(tokens) => At::Tokens(number(name, tokens)?),
            None => At::Pieces(number(name, value)?),
        },
    }))
}

/// How an answer goes wrong.
fn way(name: &str, value: &str) -> Result<Option<Cut>, Error> {
    Ok(Some(match (name, value) {
        ("reset", "") => Cut::Reset,
        ("close", "") => Cut::Close,
        ("half-close", "") => Cut::HalfClose,
        ("silence", "") => Cut::Silence,
        ("mid-chunk", "") => Cut::MidChunk,
        ("bad-chunk", "") => Cut::BadFraming(b"zz\r\n".to_vec()),
        ("clean-end", "") => Cut::CleanEnd,
        ("corrupt", "") => Cut::Corrupt,
        ("error", "overloaded") => Cut::Error(Trouble::Overloaded),
        ("error", "rate-limited") => Cut::Error(Trouble::RateLimited),
        ("error", "internal") => Cut::Error(Trouble::Internal),
        ("rst", code) => Cut::ResetStream(number(name, code)?),
        ("goaway", value) => match value.split_once('/') {
            Some((last, code)) => Cut::GoAway(Some(number(name, last)?), number(name, code)?),
            None => Cut::GoAway(None, number(name, value)?),
        },
        _ => return Ok(None),
    }))
}

/// The answer with one more word.
fn bent(answer: Answer, name: &str, value: &str) -> Result<Answer, Error> {
    let hint = |hint| answer.clone().hint(hint);
    Ok(match (name, value) {
        ("stream", "") => answer.form(Form::Streamed),
        ("whole", "") => answer.form(Form::Whole),
        ("early", "") => answer.early(),
        ("no-continue", "") => answer.without_continue(),
        ("comments", "") => answer.comments(),
        ("unframed", "") => answer.unframed(),
        ("tokens", count) => answer.tokens(number(name, count)?),
        ("wait", time) => answer.after(span(name, time)?),
        ("head-every", time) => answer.head_every(span(name, time)?),
        ("every", time) => answer.every(span(name, time)?),
        ("followed-by", text) => answer.followed_by(text),
        ("retry-after", seconds) => hint(Hint::Seconds(number(name, seconds)?)),
        ("retry-date", time) => hint(Hint::Date(span(name, time)?)),
        ("retry-after-ms", count) => hint(Hint::Milliseconds(number(name, count)?)),
        ("retry-info", time) => hint(Hint::RetryInfo(span(name, time)?)),
        ("field", field) => {
            let (name, value) = field.split_once(':').ok_or_else(|| wrong("field", field))?;
            answer.field(name, value.trim())
        }
        ("interim", value) => {
            let (status, count) = value.split_once('x').unwrap_or((value, "1"));
            answer.interims(number(name, status)?, number(name, count)?)
        }
        (name, reset) => match name.strip_prefix("reset-") {
            Some(dimension) => hint(Hint::Reset(dimension.to_owned(), reset.to_owned())),
            None => return Err(Error::Word(name.to_owned())),
        },
    })
}

fn cut_at(answer: Answer, at: At, cut: Cut) -> Answer {
    match at {
        At::Start => answer.cut_before_head(cut),
        At::Head => answer.cut_after_head(cut),
        At::Pieces(count) => answer.cut_after_pieces(count, cut),
        At::Tokens(count) => answer.cut_after_tokens(count, cut),
        At::EndMark => answer.cut_before_end_mark(cut),
        At::End => answer.cut_at_the_end(cut),
    }
}

fn dialect(name: &str) -> Result<Dialect, Error> {
    let found = Dialect::ALL.into_iter().find(|dialect| dialect.name() == name);
    found.ok_or_else(|| wrong("good", name))
}

fn number<T: std::str::FromStr>(word: &str, text: &str) -> Result<T, Error> {
    text.trim().parse().map_err(|_| wrong(word, text))
}

/// A time with its unit: `2s`, `1.5s`, `50ms`.
fn span(word: &str, text: &str) -> Result<Duration, Error> {
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 0.001),
        None => (text.strip_suffix('s').ok_or_else(|| wrong(word, text))?, 1.0),
    };
    let seconds: f64 = number(word, digits)?;
    Duration::try_from_secs_f64(seconds * unit).map_err(|_| wrong(word, text))
}

fn wrong(word: &str, value: &str) -> Error {
    Error::Value { word: word.to_owned(), value: value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;

    /// What the script does with its requests of these numbers, as it would be shown.
    fn told(text: &str, number: usize) -> String {
        let script = script(text).expect(text);
        format!("{:?}", script.answer(number, Duration::ZERO).steps(&Request::default()))
    }

    #[test]
    fn a_script_says_what_each_request_gets() {
        let text = "2*status=503;retry-after=2, good";
        assert!(told(text, 1).contains("503") && told(text, 1).contains("retry-after"));
        assert!(told(text, 2).contains("200") && told(text, 9).contains("200"));
        assert!(told("", 0).contains("200"), "nothing is good");
    }

    #[test]
    fn every_word_of_the_table_is_known() {
        for (text, seen) in [
            ("good=anthropic;stream;tokens=2", "event-stream"),
            ("whole", "content-length"),
            ("silent", "Silence"),
            ("garbage", "Raw"),
            ("cl-te", "Raw"),
            ("two-cl", "Raw"),
            ("status=429;retry-date=2s", "GMT"),
            ("status=429;retry-after-ms=50", "retry-after-ms"),
            ("status=429;reset-requests=1s", "x-ratelimit-reset-requests"),
            ("good;field=x-a:b", "x-a"),
            ("good;wait=1s", "Wait(1s)"),
            ("good;head-every=50ms", "every: Some(50ms)"),
            ("stream;comments", "Data"),
            ("good;every=1.5s", "Wait(1.5s)"),
            ("status=413;early", "413"),
            ("good;no-continue", "200"),
            ("good;interim=103", "103"),
            ("good;unframed", "close"),
            ("good;followed-by=evil", "Raw"),
            ("stream;at=2t;reset", "Reset"),
            ("stream;at=3;close", "Close"),
            ("stream;at=head;half-close", "HalfClose"),
            ("stream;at=end-mark;silence", "Silence"),
            ("stream;at=1;mid-chunk", "HalfData"),
            ("stream;at=1;bad-chunk", "Raw"),
            ("stream;at=1;clean-end", "End"),
            ("stream;at=1;corrupt", "End"),
            ("stream;at=1;error=overloaded", "Data"),
            ("good;at=start;rst=7", "ResetStream(7)"),
            ("good;at=start;goaway=0/0", "GoAway { last: Some(0), code: 0 }"),
        ] {
            assert!(told(text, 0).contains(seen), "{text}: {}", told(text, 0));
        }
        let told = script("status=429;retry-info=2s").expect("a script");
        assert!(format!("{told:?}").contains(r#"retry_info: Some("2s")"#));
    }

    #[test]
    fn what_is_no_script_is_told() {
        assert_eq!(script("bad").err(), Some(Error::Word("bad".to_owned())));
        assert!(matches!(script("status=x"), Err(Error::Value { .. })));
        assert!(matches!(script("good;every=1"), Err(Error::Value { .. })));
        assert!(matches!(script("good;every=-1s"), Err(Error::Value { .. })));
        assert_eq!(script("good@1s, good").err(), Some(Error::Times));
        assert_eq!(script("99999*good").err(), Some(Error::TooLong));
    }
}
