//! What becomes of the calls: they are counted, and written down where that is asked for.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};

use serde::{Deserialize, Serialize};
use tidegate_settings::Objectives;
use tidegate_wire::{Outcome, Record};
use tokio::time::Instant;

use crate::figures::{Call, Figures};
use crate::news::News;
use crate::verdict::is_good;

/// Every call of a run, counted once.
pub(crate) struct Recorder {
    pub(crate) figures: Figures,
    /// What happened since the view of the run last looked.
    pub(crate) news: News,
    /// When the last call ended; what was cut off did not end by itself.
    pub(crate) last_end: Option<Instant>,
    /// Whether some call could not be written.
    pub(crate) records_lost: bool,
    records: Option<BufWriter<File>>,
    objectives: Option<Objectives>,
}

// === impl Recorder ===

impl Recorder {
    /// A recorder which counts what is good by these objectives, and also writes every call to
    /// `records` where that is given. It goes on from figures, which are empty at first.
    pub(crate) fn new(
        records: Option<File>,
        objectives: Option<Objectives>,
        figures: Figures,
    ) -> Self {
        Self {
            figures,
            news: News::default(),
            last_end: None,
            records_lost: false,
            records: records.map(BufWriter::new),
            objectives,
        }
    }

    /// Takes one call in.
    pub(crate) fn record(&mut self, call: &Call) {
        let is_good = self.objectives.as_ref().is_some_and(|objectives| is_good(call, objectives));
        self.figures.record(call, is_good);
        if call.record.outcome != Some(Outcome::Abandoned) {
            self.last_end = Some(Instant::now());
        }
        self.write(|records| {
            serde_json::to_writer(&mut *records, &CallRecord::of(call))?;
            records.write_all(b"\n")
        });
    }

    /// Puts what was written where others can read it.
    pub(crate) fn finish(&mut self) {
        self.write(BufWriter::flush);
    }

    /// A full disk must not end a run; it is said once, and the run is no longer valid.
    fn write(&mut self, how: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) {
        let Some(Err(error)) = self.records.as_mut().map(how) else { return };
        tracing::error!(%error, "cannot write records");
        self.records = None;
        self.records_lost = true;
    }
}

/// A line of the records file: the keys of the contract, and what only a load generator knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallRecord<'a> {
    /// The call; its times count from when it was due.
    #[serde(flatten)]
    pub record: Cow<'a, Record>,
    /// The name under which it is counted.
    #[serde(rename = "tidegate.load.label")]
    pub label: Cow<'a, str>,
    /// How long after it was due it was sent.
    #[serde(rename = "tidegate.load.send_lag_s")]
    pub send_lag_s: f64,
    /// The longest that anything of a whole answer lay here unread; absent where no kernel tells.
    #[serde(rename = "tidegate.load.read_lag_s", skip_serializing_if = "Option::is_none")]
    pub read_lag_s: Option<f64>,
}

impl<'a> CallRecord<'a> {
    fn of(call: &'a Call) -> Self {
        Self {
            record: Cow::Borrowed(&call.record),
            label: Cow::Borrowed(&call.key.model),
            send_lag_s: call.send_lag.as_secs_f64(),
            read_lag_s: call.read_lag.map(|lag| lag.as_secs_f64()),
        }
    }
}
