//! Long-running jobs: what their answers say, and by which name their calls are tied together.
//!
//! The answer to the submit names the job, and so does every poll, in its path or its body, or its
//! answer: whichever sidecar sees a call of the job knows which one it is.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::dialect::{Path, decoded};
use crate::json::Scalar;
use crate::request::{VideoAsked, seconds};
use crate::{Job, JobOutcome, Outcome, Record};

/// What a path of an answer says of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobFact {
    /// Its name.
    Name,
    /// Whether it is done.
    Done,
    /// A word for how it stands.
    Status,
    /// When it was submitted.
    Created,
    /// When it ended.
    Ended,
    /// When it last changed: its end, once it is done.
    Updated,
    /// There is a video.
    Video,
    /// How many videos were withheld.
    Filtered,
    /// The length of the video, in seconds.
    Length,
}

/// What an answer has said of a job.
#[derive(Debug, Default)]
pub(crate) struct JobFacts {
    name: Option<String>,
    done: Option<bool>,
    created: Option<Timestamp>,
    ended: Option<Timestamp>,
    updated: Option<Timestamp>,
    videos: Option<u64>,
    filtered: u64,
    length: Option<f64>,
    has_failed: bool,
}

// === impl JobFacts ===

impl JobFacts {
    /// Takes what a path says.
    pub(crate) fn value(&mut self, fact: JobFact, value: Scalar<'_>) {
        match (fact, value) {
            (JobFact::Name, Scalar::Text(name)) if !name.is_empty() => {
                self.name = Some(String::from_utf8_lossy(name).into_owned());
            }
            (JobFact::Done, Scalar::Bool(done)) => self.done = Some(done),
            (JobFact::Status, Scalar::Text(status)) => self.status(status),
            (JobFact::Created, time) => self.created = timestamp(time),
            (JobFact::Ended, time) => self.ended = timestamp(time),
            (JobFact::Updated, time) => self.updated = timestamp(time),
            (JobFact::Length, Scalar::Text(length) | Scalar::Number(length)) => {
                self.length = seconds(length);
            }
            (JobFact::Filtered, _) => self.filtered = value.count().unwrap_or(0),
            _ => {}
        }
    }

    /// There is something.
    pub(crate) fn seen(&mut self, fact: JobFact) {
        if fact == JobFact::Video {
            self.videos = Some(self.videos.unwrap_or(0).saturating_add(1));
        }
    }

    /// Whether the answer says that the job came to nothing.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    fn status(&mut self, status: &[u8]) {
        (self.done, self.has_failed) = match status {
            b"InProgress" | b"in_progress" | b"queued" => (Some(false), false),
            b"Completed" | b"completed" => (Some(true), false),
            b"Failed" | b"failed" => (Some(true), true),
            _ => return,
        };
    }

    /// How the job came out, once it is done.
    ///
    /// What was cut may have had an error behind it, or a second video.
    fn outcome(&self, has_error: bool, is_whole: bool) -> Option<JobOutcome> {
        if self.done != Some(true) || !is_whole && !has_error {
            return None;
        }
        Some(match self.videos {
            _ if has_error => JobOutcome::Failed,
            None if self.filtered > 0 => JobOutcome::Filtered,
            _ => JobOutcome::Succeeded,
        })
    }
}

/// Fills in what an answer says of a job; the request's own name for it stands in where the answer
/// has none.
pub(crate) fn fill(
    facts: Option<&JobFacts>,
    named: Option<&str>,
    video: VideoAsked,
    has_error: bool,
    record: &mut Record,
) {
    let nothing = JobFacts::default();
    let facts = facts.unwrap_or(&nothing);
    let is_whole = record.outcome == Some(Outcome::Completed);
    if is_whole && facts.done != Some(false) && facts.videos.is_some() {
        record.media.get_or_insert_default().videos_made = facts.videos;
    }
    let Some(name) = facts.name.as_deref().or(named) else { return fill_at_once(video, record) };
    let is_done = facts.done == Some(true);
    let ended = facts.ended.or(facts.updated).filter(|_| is_done);
    // Only an answer that came whole says by its silence that the job goes on.
    let goes_on = is_whole.then_some(false);
    record.job = Some(Box::new(Job {
        name: name.to_owned(),
        done: facts.done.or(goes_on),
        outcome: facts.outcome(has_error, is_whole),
        created: facts.created,
        ended,
        duration_s: facts.created.zip(ended).and_then(|(created, ended)| span(created, ended)),
        ends_here: false,
        polls: None,
        video_length_s: video.length.or(facts.length),
        video_count: video.count,
    }));
}

/// The videos that came with the answer itself, without a job.
fn fill_at_once(video: VideoAsked, record: &mut Record) {
    let is_completed = record.outcome == Some(Outcome::Completed);
    if let (true, Some(length), Some(media)) = (is_completed, video.length, &mut record.media) {
        media.video_seconds = media.videos_made.map(|made| length * made as f64);
    }
}

fn span(created: Timestamp, ended: Timestamp) -> Option<f64> {
    Some(ended.duration_since(created).as_secs_f64()).filter(|seconds| *seconds >= 0.0)
}

/// A moment, as RFC 3339 writes it or in seconds since 1970.
fn timestamp(time: Scalar<'_>) -> Option<Timestamp> {
    match time {
        Scalar::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        Scalar::Number(_) => Timestamp::from_second(time.count()?.try_into().ok()?).ok(),
        Scalar::Bool(_) | Scalar::Null => None,
    }
}

/// The job that a path asks for: the name that its submit was answered with.
pub(crate) fn named(path: &Path<'_>) -> Option<String> {
    const ROOTS: [&str; 3] = ["projects", "models", "operations"];
    match path.segments() {
        [.., "async-invoke", arn] => Some(decoded(arn).into_owned()),
        [.., "async-invoke", arn, id] => Some(decoded(&format!("{arn}/{id}")).into_owned()),
        [.., "videos", id] => Some(decoded(id).into_owned()),
        segments @ [.., "operations", _] => {
            let root = ROOTS.iter().find_map(|root| segments.iter().position(|name| name == root));
            let name: Vec<Cow<'_, str>> =
                segments[root?..].iter().map(|segment| decoded(segment)).collect();
            Some(name.join("/"))
        }
        _ => None,
    }
}
