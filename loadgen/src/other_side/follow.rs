//! The records of a sidecar, as it tells them while calls end.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Response, Url};
use serde::Deserialize;
use tidegate_wire::{Record, TraceId};
use tokio::time::sleep;

use super::Unwatchable;
use crate::figures::Seen;
use crate::run::Run;

/// The longest line that is read: a record has a few kilobytes.
const LONGEST: usize = 1 << 20;
/// How long to wait before a sidecar that has left off is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// What a sidecar tells of the calls of load tests.
pub(super) struct Records {
    http: reqwest::Client,
    url: Url,
    told: Response,
}

/// A line that says how many others are missing.
#[derive(Deserialize)]
struct Lost {
    #[serde(rename = "tidegate.tail.lost")]
    lines: u64,
}

// === impl Records ===

impl Records {
    pub(super) async fn open(http: reqwest::Client, mut url: Url) -> Result<Self, Unwatchable> {
        url.set_query(Some("load_test=true"));
        let told = ask(&http, &url).await?;
        Ok(Self { http, url, told })
    }

    /// Joins what is told, for as long as the run wants to know.
    pub(super) async fn follow(mut self, run: Arc<Run>) {
        loop {
            self.listen(&run).await;
            tracing::warn!(url = %self.url, "the sidecar tells no more of its calls; asking again");
            self.told = loop {
                sleep(AGAIN).await;
                if let Ok(told) = ask(&self.http, &self.url).await {
                    break told;
                }
            };
        }
    }

    /// Until nothing more comes.
    async fn listen(&mut self, run: &Run) {
        let mut line = Vec::new();
        while let Ok(Some(bytes)) = self.told.chunk().await {
            let mut rest = &*bytes;
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(&rest[..end]);
                heard(run, &line);
                line.clear();
                rest = &rest[end + 1..];
            }
            if line.len() + rest.len() > LONGEST {
                return;
            }
            line.extend_from_slice(rest);
        }
    }
}

async fn ask(http: &reqwest::Client, url: &Url) -> Result<Response, Unwatchable> {
    let unanswered = |source: reqwest::Error| Unwatchable::Unanswered {
        url: url.clone(),
        source: source.without_url(),
    };
    let told = http.get(url.clone()).send().await.map_err(unanswered)?;
    match told.status().as_u16() {
        200 => Ok(told),
        status => Err(Unwatchable::Unexpected {
            url: url.clone(),
            status,
            wanted: "the calls of a sidecar; its administration listens at 127.0.0.1:4101, unless it was started with another --admin",
        }),
    }
}

/// One line, which is a record, a loss, or nothing.
fn heard(run: &Run, line: &[u8]) {
    if let Ok(lost) = serde_json::from_slice::<Lost>(line) {
        tracing::warn!(lines = lost.lines, "this machine read too slowly what the sidecar told");
    } else if let Ok(record) = serde_json::from_slice::<Record>(line)
        && record.trace_id != TraceId::default()
    {
        run.told(record.trace_id, Seen::of(&record));
    }
}
