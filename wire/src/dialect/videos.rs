//! Videos by OpenAI's interface: a job, its submit and its polls.

use std::sync::LazyLock;

use super::openai::{self, ERROR_PATHS};
use super::{Asks, Call, Field, Path, Reading};
use crate::job::JobFact;
use crate::json::{Table, Want};
use crate::{Dialect, HeadView};

static VIDEO: Reading = Reading {
    paths: LazyLock::new(|| Table::new(&[PATHS, ERROR_PATHS].concat())),
    nested: None,
    usage: openai::usage,
    has_end: false,
    count_headers: &[],
};

const PATHS: &[(&str, Want, Field)] = &[
    ("id", Want::Value, Field::Job(JobFact::Name)),
    ("model", Want::Value, Field::Model),
    ("status", Want::Value, Field::Job(JobFact::Status)),
    ("created_at", Want::Value, Field::Job(JobFact::Created)),
    ("completed_at", Want::Value, Field::Job(JobFact::Ended)),
    ("seconds", Want::Value, Field::Job(JobFact::Length)),
];

/// Recognises `videos`, `videos/{id}/remix` and `videos/{id}`; neither the list nor the content.
pub(super) fn recognise(head: &HeadView<'_>, path: &Path<'_>) -> Option<Call> {
    let operation = match (head.method, path.segments()) {
        ("POST", [.., "v1", "videos"] | [.., "v1", "videos", _, "remix"]) => "generate_video",
        ("GET", [.., "v1", "videos", _]) => "get_video",
        _ => return None,
    };
    Some(Call {
        dialect: Dialect::OpenAi,
        operation,
        provider: Some("openai"),
        model: None,
        region: None,
        project: None,
        stream: Some(false),
        streams_unasked: false,
        asks: Asks { model: operation == "generate_video", stream: false },
        reading: &VIDEO,
    })
}
