//! Takes the usage chunk out of a stream of events.
//!
//! An event is held only until it is known that it is not the one: in most streams that is so
//! within the read that brings it. Everything else passes as it came.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::call::ReplyBody;
use crate::error::Error;

/// Bytes of one event that are held. A usage chunk has some hundred.
const MAX_HELD: usize = 64 * 1024;
/// Bytes in which it must be told whether there are choices, and blanks in front of an event's data:
/// they are looked at again with every byte that comes.
const MAX_UNTOLD: usize = 64;

/// The body of an answer without its usage chunk.
#[derive(Debug)]
pub(crate) struct Filtered {
    body: ReplyBody,
    filter: Filter,
    /// What comes when all that was held has gone.
    after: Option<After>,
}

#[derive(Debug)]
enum After {
    Trailers(HeaderMap),
    Error(Error),
    End,
}

/// Follows a stream of events, wherever it is cut.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// The event at hand, while it may be the one; empty in front of an event.
    held: Vec<u8>,
    /// Up to here it was searched for its choices.
    searched: usize,
    /// The event at hand is not the one.
    passes: bool,
    /// The line at hand is a comment in front of an event.
    in_comment: bool,
    /// Bytes of the line at hand, without its end.
    line: usize,
    /// The last byte was a CR, so that a LF belongs to the same end of a line.
    after_cr: bool,
    /// The last line end was that of an event that was taken out.
    took_out: bool,
}

// === impl Filtered ===

impl Filtered {
    pub(crate) fn new(body: ReplyBody) -> Self {
        Self { body, filter: Filter::default(), after: None }
    }

    /// The next piece of payload, or the trailers; `None` is the clean end.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        while self.after.is_none() {
            let frame = ready!(self.body.poll_frame(cx)).transpose();
            let mut out = Vec::new();
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Ok(Some(Ok(data))) => self.filter.feed(&data, &mut out),
                Ok(Some(Err(frame))) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    self.after = Some(After::Trailers(trailers));
                }
                Ok(None) => self.after = Some(After::End),
                Err(error) => self.after = Some(After::Error(error)),
            }
            if self.after.is_some() {
                self.filter.end(&mut out);
            }
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
        Poll::Ready(match self.after.replace(After::End) {
            Some(After::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(After::Error(error)) => Some(Err(error)),
            Some(After::End) | None => None,
        })
    }
}

// === impl Filter ===

impl Filter {
    /// Takes a piece of the stream, and gives what of it can go on.
    pub(crate) fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        // What is empty does not tell what follows a CR.
        let Some(first) = bytes.first() else { return };
        let mut rest = bytes;
        if std::mem::take(&mut self.after_cr) && *first == b'\n' {
            self.rest_of_line_end(out);
            rest = &bytes[1..];
        }
        while !rest.is_empty() {
            let text = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let end = match &rest[text..] {
                [b'\r', b'\n', ..] => 2,
                [] => 0,
                [byte, ..] => {
                    self.after_cr = *byte == b'\r' && rest.len() == text + 1;
                    1
                }
            };
            let (line, behind) = rest.split_at(text + end);
            self.line(line, text, out);
            rest = behind;
        }
    }

    /// A line, or a part of one, of which so many bytes are no line end.
    fn line(&mut self, line: &[u8], text: usize, out: &mut Vec<u8>) {
        let in_front = self.held.is_empty() && !self.passes;
        if in_front && self.line == 0 {
            self.in_comment = line.first() == Some(&b':');
        }
        self.took_out = false;
        self.line += text;
        let is_ended = line.len() > text;
        let is_blank = is_ended && self.line == 0;
        if self.passes || self.in_comment || in_front && is_blank {
            out.extend_from_slice(line);
        } else {
            self.hold(line, out);
        }
        if is_blank {
            self.event_ended(out);
        }
        if is_ended {
            self.line = 0;
            self.in_comment = false;
        }
    }

    fn hold(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        if self.held.len() > MAX_HELD || !self.may_be_it() {
            self.passes = true;
            self.release(out);
        }
    }

    fn event_ended(&mut self, out: &mut Vec<u8>) {
        self.passes = false;
        if is_usage_chunk(&self.held) {
            self.took_out = true;
            self.held = Vec::new();
            self.searched = 0;
        } else {
            self.release(out);
        }
    }

    fn release(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        self.searched = 0;
    }

    /// A LF whose CR came before.
    fn rest_of_line_end(&mut self, out: &mut Vec<u8>) {
        if self.took_out {
            return;
        }
        // Of an event that goes on, it belongs to what is held of it.
        match self.held.is_empty() {
            true => out.push(b'\n'),
            false => self.held.push(b'\n'),
        }
    }

    /// No more comes.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        if !is_usage_chunk(&self.held) {
            self.release(out);
        }
        self.held = Vec::new();
    }

    /// Whether what has come of the event may be the beginning of a usage chunk.
    fn may_be_it(&mut self) -> bool {
        const DATA: &[u8] = b"data:";
        const NAME: &[u8] = br#""choices""#;
        let start = self.held.len().min(DATA.len());
        if self.held[..start] != DATA[..start] {
            return false;
        }
        let behind = &self.held[start..];
        let front = behind.iter().take(MAX_UNTOLD + 1);
        let blanks = front.take_while(|byte| byte.is_ascii_whitespace()).count();
        if blanks > MAX_UNTOLD || !matches!(behind.get(blanks), None | Some(b'{')) {
            return false;
        }
        // A text cannot contain the name with bare quotes on both sides.
        while let Some(at) = memchr::memmem::find(&self.held[self.searched..], NAME) {
            let at = self.searched + at;
            match first_choice(&self.held[at + NAME.len()..]) {
                // To be seen when more has come.
                None => {
                    self.searched = at;
                    return true;
                }
                Some(false) => self.searched = at + NAME.len(),
                Some(true) => return false,
            }
        }
        self.searched = self.searched.max(self.held.len().saturating_sub(NAME.len()));
        true
    }
}

/// Whether a list with something in it follows its name; `None` where that has yet to come. What
/// is too far off counts as one.
fn first_choice(behind: &[u8]) -> Option<bool> {
    let near = behind.iter().take(MAX_UNTOLD);
    let mut bytes = near.filter(|byte| !byte.is_ascii_whitespace());
    let mut is = |wanted| bytes.next().map(|byte| *byte == wanted);
    let told = match (is(b':'), is(b'[')) {
        (Some(true), Some(true)) => is(b']').map(|is_empty| !is_empty),
        (Some(false), _) | (_, Some(false)) => Some(false),
        _ => None,
    };
    told.or((behind.len() > MAX_UNTOLD).then_some(true))
}

/// A chunk that has usage and no choices.
#[derive(Deserialize)]
struct UsageChunk {
    choices: Vec<IgnoredAny>,
    usage: std::collections::BTreeMap<String, IgnoredAny>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

/// Whether this event is the usage chunk: nothing but that is taken out.
fn is_usage_chunk(event: &[u8]) -> bool {
    if event.is_empty() {
        return false;
    }
    let lines = event.split(|byte| matches!(byte, b'\n' | b'\r'));
    let data = lines.filter_map(|line| line.strip_prefix(b"data:")).collect::<Vec<_>>();
    let chunk = serde_json::from_slice::<UsageChunk>(&data.join(&b'\n'));
    chunk.is_ok_and(|chunk| {
        chunk.choices.is_empty() && !chunk.usage.is_empty() && chunk.error.is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}],\"usage\":null}\n\n";
    const USAGE: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";

    /// What goes on of pieces, and what of the end.
    fn filtered<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let (mut filter, mut out) = (Filter::default(), Vec::new());
        pieces.into_iter().for_each(|piece| filter.feed(piece, &mut out));
        filter.end(&mut out);
        String::from_utf8(out).expect("text")
    }

    /// Asserts what goes on of a stream, whole, cut in two anywhere, and byte by byte.
    #[track_caller]
    fn assert_goes_on(stream: &str, expected: &str) {
        let bytes = stream.as_bytes();
        for at in 0..=bytes.len() {
            let (front, back) = bytes.split_at(at);
            assert_eq!(filtered([front, b"", back]), expected, "cut at {at}");
        }
        assert_eq!(filtered(bytes.chunks(1)), expected);
    }

    #[test]
    fn the_usage_chunk_is_taken_out_and_nothing_else() {
        for end in ["\n", "\r\n", "\r"] {
            let with_end = |text: &str| text.replace('\n', end);
            let stream = with_end(&[ROLE, USAGE, DONE].concat());
            assert_goes_on(&stream, &with_end(&[ROLE, DONE].concat()));
            assert_goes_on(&with_end(USAGE), "");
            let twice = with_end(&[USAGE, USAGE, ROLE, USAGE].concat());
            assert_goes_on(&twice, &with_end(ROLE));
        }
    }

    #[test]
    fn the_order_of_keys_and_white_space_do_not_matter() {
        for usage in [
            "data:{\"usage\": {\"total_tokens\": 1}, \"choices\" : [ ] }\n\n",
            "data: {\"usage\":{\"a\":\"\\\"choices\\\":[1]\"},\ndata: \"choices\":[]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"total_tokens\":1}}",
            "data: {\"choices\":[],\"usage\":{\"total_tokens\":1}}\n",
        ] {
            assert_goes_on(&[ROLE, usage].concat(), ROLE);
        }
    }

    #[test]
    fn what_only_looks_like_it_passes() {
        for event in [
            // Azure begins with the filter's results.
            "data: {\"choices\":[],\"prompt_filter_results\":[{}],\"usage\":null}\n\n",
            "data: {\"choices\":[],\"prompt_filter_results\":[{}]}\n\n",
            "data: {\"choices\":[],\"usage\":{}}\n\n",
            "data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"total_tokens\":1}}\n\n",
            "data: {\"usage\":{\"total_tokens\":1}}\n\n",
            "data: {\"choices\":[],\"usage\":{\"a\":1},\"error\":{\"code\":500}}\n\n",
            "data: {\"choices\":[],\"usage\":{\"a\":1}\n\n",
            "event: x\ndata: {\"choices\":[],\"usage\":{\"a\":1}}\n\n",
            ": keep-alive\n\n",
            ": keep-alive\n",
            ":\r\n\r\n\r\n",
            "\n\n\n",
            "data\n\n",
            "data: \n\n",
            "dat",
            "data: {\"choices\":[],\"usa",
            "\u{feff}data: x\n\n",
        ] {
            assert_goes_on(event, event);
            assert_goes_on(&[event, DONE].concat(), &[event, DONE].concat());
        }
    }

    #[test]
    fn an_event_is_held_no_longer_than_it_may_be_the_one() {
        for (front, is_held) in [
            ("data: {\"id\":\"c\",\"choi", true),
            ("data: {\"id\":\"c\",\"choices\":[", true),
            ("data: {\"id\":\"c\",\"choices\":[]", true),
            ("data: {\"id\":\"c\",\"choices\":[{", false),
            ("data: [", false),
            (": keep-al", false),
            ("event: x", false),
        ] {
            let (mut filter, mut out) = (Filter::default(), Vec::new());
            filter.feed(front.as_bytes(), &mut out);
            assert_eq!(out.is_empty(), is_held, "{front}");
        }
        let (mut filter, mut out) = (Filter::default(), Vec::new());
        filter.feed(ROLE.as_bytes(), &mut out);
        assert_eq!(out, ROLE.as_bytes(), "a whole event goes on at once");
        for front in ["data:", "data: {\"choices\"", "data: {\"choices\":["] {
            let (mut filter, mut out) = (Filter::default(), Vec::new());
            filter.feed(front.as_bytes(), &mut out);
            assert!(out.is_empty(), "{front}");
            (0..=MAX_UNTOLD).for_each(|_| filter.feed(b" ", &mut out));
            assert!(!out.is_empty(), "{front} and blanks without end");
        }
    }

    #[test]
    fn no_event_is_held_beyond_the_bound() {
        let (mut filter, mut out) = (Filter::default(), Vec::new());
        filter.feed(b"data: {\"a\":\"", &mut out);
        for _ in 0..100 {
            filter.feed(&[b'x'; 1024], &mut out);
        }
        assert!(out.len() > MAX_HELD && filter.held.is_empty(), "{}", out.len());
        filter.feed(b"\"}\n\n", &mut out);
        let before = out.len();
        filter.feed(USAGE.as_bytes(), &mut out);
        assert_eq!(out.len(), before, "the next event is looked at again");
    }
}
