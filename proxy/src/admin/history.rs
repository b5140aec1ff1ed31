//! What is asked of the history: read on threads of their own, for it may take a while.

use std::sync::Arc;

use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tracing::warn;

use super::{json, text};
use crate::export::history::{Error, History};
use crate::query::Query;
use crate::usage::{By, Period, Usage, point};

/// Questions at once: each reads what may be a large file.
const AT_ONCE: usize = 2;
/// Rows of an answer: a small pod has little room.
const ROWS: usize = 10_000;

/// The history, as far as it is asked here.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    history: History,
    permits: Arc<Semaphore>,
}

/// What somebody wants to know of it.
pub(super) struct Question {
    asked: Asked,
    about: About,
}

/// What that is about.
enum About {
    /// What calls came to, as this query says.
    Usage(Query),
    /// Money.
    Spend,
}

/// Why there is no answer.
enum Refused {
    /// The question cannot be understood.
    Unclear(String),
    /// The file cannot be read.
    Unreadable(String),
}

// === impl Asked ===

impl Asked {
    pub(super) fn new(history: History) -> Self {
        Self { history, permits: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// What calls came to, by a query like `by=model,caller&since=24h&until=now`.
    pub(super) fn usage(&self, query: Query) -> Question {
        Question { asked: self.clone(), about: About::Usage(query) }
    }

    /// What was spent.
    pub(super) fn spend(&self) -> Question {
        Question { asked: self.clone(), about: About::Spend }
    }

    /// What is out of the ordinary: known without reading.
    pub(super) fn baseline(&self) -> Response<Full<Bytes>> {
        json(&self.history.baseline())
    }
}

// === impl Question ===

impl Question {
    pub(super) async fn answer(self) -> Response<Full<Bytes>> {
        let Self { asked, about } = self;
        let permit = asked.permits.clone().acquire_owned().await.expect("nobody closes it");
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            match about {
                About::Usage(query) => usage(&asked.history, &query).map(|usage| json(&usage)),
                About::Spend => spend(&asked.history).map(|spend| json(&spend)),
            }
        });
        match read.await.unwrap_or_else(|_| Err(Refused::Unreadable("it failed".to_owned()))) {
            Ok(answer) => answer,
            Err(Refused::Unclear(reason)) => text(StatusCode::BAD_REQUEST, reason + "\n"),
            Err(Refused::Unreadable(reason)) => {
                warn!(%reason, "the history cannot be read");
                text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n")
            }
        }
    }
}

fn spend(history: &History) -> Result<serde_json::Value, Refused> {
    history.spend(Timestamp::now()).map_err(unreadable)
}

fn usage(history: &History, query: &Query) -> Result<Usage, Refused> {
    let now = Timestamp::now();
    let is_unknown = |name: &&str| !matches!(*name, "by" | "since" | "until");
    if let Some(name) = query.iter().map(|(name, _)| name).find(is_unknown) {
        return Err(Refused::Unclear(format!("`{name}` is none of by, since, until")));
    }
    let [by, since, until] = [("by", "model"), ("since", "24h"), ("until", "now")]
        .map(|(name, usual)| query.value(name).unwrap_or(usual));
    let unclear = |error: crate::usage::Unreadable| Refused::Unclear(error.to_string());
    let words = by.split(',').filter(|word| !word.is_empty()).map(str::parse);
    let by: Vec<By> = words.collect::<Result<_, _>>().map_err(unclear)?;
    let (since, until) = (point(since, now), point(until, now));
    let period = Period::new(since.map_err(unclear)?, until.map_err(unclear)?).map_err(unclear)?;
    let usage = Usage::read_some(history.path(), &by, period, ROWS).map_err(unreadable)?;
    usage.ok_or_else(|| {
        let message = format!("that is over {ROWS} rows: ask for a shorter time or fewer parts");
        Refused::Unclear(message)
    })
}

fn unreadable(error: Error) -> Refused {
    Refused::Unreadable(error.to_string())
}

/// The answer where no history is kept.
pub(super) fn none() -> Response<Full<Bytes>> {
    let advice = "no history is kept: name a file under `history.path`, or by --history\n";
    text(StatusCode::NOT_FOUND, advice)
}
