//! Calls as they end, one line of JSON each, for who follows them at the administration's address: a
//! load test that joins its own records with ours, or somebody with `curl`.
//!
//! Who reads slowly loses lines and is told how many; nobody waits for him. While nobody follows, a
//! record costs one look at a flag.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http_body::{Body, Frame};
use hyper::body::Bytes;
use serde_json::json;
use tidegate_wire::{Record, glob};
use tokio::time::{Instant, Interval, interval_at};

use super::metrics::lock;
use crate::query::Query;

/// Who may follow at a time.
const FOLLOWERS: usize = 4;
/// Bytes that may wait for one of them.
const WAITING: usize = 2 << 20;
/// How often an empty line is sent where nothing else is: it finds out who has left.
const ALIVE: Duration = Duration::from_secs(10);

/// Where calls are told as they end.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    followers: Mutex<Vec<Arc<Follower>>>,
    is_followed: AtomicBool,
}

/// Which calls somebody wants to see: all that this says nothing against.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    load_test: Option<bool>,
    model: Option<String>,
    route: Option<String>,
    outcome: Option<String>,
}

#[derive(Debug)]
struct Follower {
    wanted: Wanted,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// Lines that found no room since the last one that did.
    lost: u64,
    reader: Option<Waker>,
    /// Nothing more comes, or is read.
    closed: bool,
}

/// The lines of one follower, as the body of an answer without an end.
#[derive(Debug)]
pub(crate) struct Followed {
    follower: Arc<Follower>,
    alive: Interval,
}

// === impl Tail ===

impl Tail {
    /// From now on these calls are told; nothing where there are too many already who follow.
    pub(crate) fn follow(&self, wanted: Wanted) -> Option<Followed> {
        let mut followers = lock(&self.followers);
        followers.retain(|one| !lock(&one.lines).closed);
        if followers.len() >= FOLLOWERS {
            return None;
        }
        let follower = Arc::new(Follower { wanted, lines: Mutex::default() });
        followers.push(follower.clone());
        self.is_followed.store(true, Ordering::Release);
        Some(Followed { follower, alive: interval_at(Instant::now() + ALIVE, ALIVE) })
    }

    /// Tells of these calls whoever wants to see them.
    pub(crate) fn tell(&self, records: &[Record]) {
        if !self.is_followed.load(Ordering::Acquire) {
            return;
        }
        let mut followers = lock(&self.followers);
        for record in records.iter().filter(|record| record.own().is_none()) {
            let mut line = None;
            for follower in followers.iter().filter(|one| one.wanted.fits(record)) {
                let line = line.get_or_insert_with(|| self::line(record));
                lock(&follower.lines).push(line.clone());
            }
        }
        followers.retain(|one| lock(&one.lines).tell());
        self.is_followed.store(!followers.is_empty(), Ordering::Release);
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        for follower in lock(&self.followers).iter() {
            lock(&follower.lines).close();
        }
    }
}

fn line(record: &Record) -> Bytes {
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

// === impl Wanted ===

impl Wanted {
    /// From a query such as `load_test=true&model=gemini-*`; else says what it does not know.
    pub(crate) fn parse(query: &Query) -> Result<Self, String> {
        let mut wanted = Self::default();
        for (key, value) in query.iter() {
            match (key, value) {
                ("load_test", "true") => wanted.load_test = Some(true),
                ("load_test", "false") => wanted.load_test = Some(false),
                ("model", pattern) => wanted.model = Some(pattern.to_owned()),
                ("route", pattern) => wanted.route = Some(pattern.to_owned()),
                ("outcome", pattern) => wanted.outcome = Some(pattern.to_owned()),
                _ => {
                    return Err(format!(
                        "`{key}={value}` is none of load_test=true, load_test=false, model=, route= and \
                         outcome=, of which the last three are patterns such as gemini-*"
                    ));
                }
            }
        }
        Ok(wanted)
    }

    fn fits(&self, record: &Record) -> bool {
        let fits = |pattern: &Option<String>, text: Option<&str>| {
            pattern.as_ref().is_none_or(|pattern| glob(pattern, text.unwrap_or_default()))
        };
        self.load_test.is_none_or(|wanted| wanted == record.load_test.unwrap_or(false))
            && fits(&self.model, record.request_model.as_deref())
            && fits(&self.route, record.route.as_deref())
            && fits(&self.outcome, record.outcome.map(|outcome| outcome.as_str()))
    }
}

// === impl Lines ===

impl Lines {
    fn push(&mut self, line: Bytes) {
        if self.bytes + line.len() > WAITING {
            self.lost += 1;
            return;
        }
        if self.lost > 0 {
            self.tell_losses();
        }
        self.bytes += line.len();
        self.waiting.push_back(line);
    }

    /// In the place where the lines are missing.
    fn tell_losses(&mut self) {
        let told = format!("{}\n", json!({ "tidegate.tail.lost": self.lost }));
        self.lost = 0;
        self.bytes += told.len();
        self.waiting.push_back(told.into());
    }

    /// Wakes the reader where there is something to read. Whether there is still a reader.
    fn tell(&mut self) -> bool {
        if !self.waiting.is_empty()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        !self.closed
    }

    fn close(&mut self) {
        self.closed = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// All that is there, as one piece; nothing where nothing is.
    fn take(&mut self) -> Option<Bytes> {
        if self.waiting.is_empty() && self.lost > 0 {
            self.tell_losses();
        }
        self.bytes = 0;
        match self.waiting.len() {
            0 => None,
            1 => self.waiting.pop_front(),
            _ => {
                let all: Vec<u8> = self.waiting.drain(..).flatten().collect();
                Some(all.into())
            }
        }
    }
}

// === impl Followed ===

impl Body for Followed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        {
            let mut lines = lock(&self.follower.lines);
            if let Some(bytes) = lines.take() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if lines.closed {
                return Poll::Ready(None);
            }
            lines.reader = Some(context.waker().clone());
        }
        ready!(self.alive.poll_tick(context));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"\n")))))
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        lock(&self.follower.lines).closed = true;
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;
    use tidegate_wire::Outcome;

    use super::*;

    fn record(model: &str, load_test: bool) -> Record {
        Record {
            request_model: Some(model.to_owned()),
            load_test: load_test.then_some(true),
            outcome: Some(Outcome::Completed),
            ..Record::default()
        }
    }

    async fn next(followed: &mut Followed) -> Option<String> {
        let frame = followed.frame().await?.expect("nothing fails");
        Some(String::from_utf8_lossy(&frame.into_data().expect("bytes")).into_owned())
    }

    fn models(lines: &str) -> Vec<String> {
        let model = |line: &str| {
            let record: Value = serde_json::from_str(line).expect("a line is JSON");
            record["gen_ai.request.model"].as_str().expect("it has a model").to_owned()
        };
        lines.lines().map(model).collect()
    }

    fn follow(tail: &Tail, query: &str) -> Followed {
        tail.follow(Wanted::parse(&Query::of(Some(query))).expect("a good query"))
            .expect("there is room")
    }

    #[tokio::test]
    async fn who_follows_sees_the_calls_that_he_wants() {
        let tail = Tail::default();
        let mut all = follow(&tail, "");
        let mut tests = follow(&tail, "load_test=true&model=gemini-%2A");
        tail.tell(&[record("gemini-pro", true), record("gemini-pro", false), record("gpt", true)]);
        assert_eq!(
            models(&next(&mut all).await.expect("lines")),
            ["gemini-pro", "gemini-pro", "gpt"]
        );
        assert_eq!(models(&next(&mut tests).await.expect("a line")), ["gemini-pro"]);
        let advice = Wanted::parse(&Query::of(Some("modell=x"))).expect_err("nobody knows that");
        assert!(advice.contains("`modell=x`") && advice.contains("model="), "{advice}");
    }

    #[tokio::test]
    async fn our_own_calls_are_told_to_nobody() {
        let tail = Tail::default();
        let mut all = follow(&tail, "");
        tail.tell(&[Record { shadow: Some(true), ..record("copy", false) }, record("m", false)]);
        assert_eq!(models(&next(&mut all).await.expect("a line")), ["m"]);
    }

    #[tokio::test]
    async fn who_reads_slowly_is_told_what_he_lost() {
        let tail = Tail::default();
        let mut slow = follow(&tail, "");
        let line = serde_json::to_vec(&record("m", false)).expect("it is written").len() + 1;
        let fit = WAITING / line;
        for _ in 0..fit + 3 {
            tail.tell(&[record("m", false)]);
        }
        assert_eq!(next(&mut slow).await.expect("lines").lines().count(), fit);
        assert_eq!(next(&mut slow).await.expect("a line"), "{\"tidegate.tail.lost\":3}\n");
        tail.tell(&[record("later", false)]);
        assert_eq!(models(&next(&mut slow).await.expect("a line")), ["later"]);
    }

    #[tokio::test]
    async fn there_is_room_for_few_and_who_leaves_makes_room() {
        let tail = Tail::default();
        let mut followers: Vec<_> = (0..FOLLOWERS).map(|_| follow(&tail, "")).collect();
        assert!(tail.follow(Wanted::default()).is_none());
        followers.pop();
        assert!(tail.follow(Wanted::default()).is_some());
        drop(followers);
        tail.tell(&[record("m", false)]);
        assert!(!tail.is_followed.load(Ordering::Acquire), "nobody is left");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_broken_by_an_empty_line_and_the_end_is_told() {
        let tail = Tail::default();
        let mut all = follow(&tail, "");
        assert_eq!(next(&mut all).await.as_deref(), Some("\n"));
        drop(tail);
        assert_eq!(next(&mut all).await, None);
    }
}
