//! The file in which minutes are kept, and what is out of the ordinary by what it holds.

use super::labels::{MODEL, SIGNAL};
use super::{Family, Kind, Label};

const SIGNALS: &[&Label] = &[&MODEL, &SIGNAL];

/// Whether it is written.
pub static HISTORY_UP: Family = Family {
    name: "tidegate.history.up",
    prometheus: "tidegate_history_up",
    unit: "1",
    help: "Whether history is written: 1, or 0 while its file cannot be used. Absent where none is kept.",
    kind: Kind::Gauge,
    labels: &[],
    read: |_, _, _| {},
};

/// What it takes.
pub static HISTORY_SIZE: Family = Family {
    name: "tidegate.history.size",
    prometheus: "tidegate_history_size_bytes",
    unit: "By",
    help: "What the file of the history takes on the disk, without its log of at most 4 MiB.",
    kind: Kind::Gauge,
    labels: &[],
    read: |_, _, _| {},
};

/// How a model is.
pub static BASELINE_VALUE: Family = Family {
    name: "tidegate.baseline.value",
    prometheus: "tidegate_baseline_value",
    unit: "",
    help: "What a signal of a model is now, in seconds, US dollars, tokens or as a share, as its name says. Absent where too few calls came.",
    kind: Kind::Gauge,
    labels: SIGNALS,
    read: |_, _, _| {},
};

/// What would be ordinary.
pub static BASELINE_LIMIT: Family = Family {
    name: "tidegate.baseline.limit",
    prometheus: "tidegate_baseline_limit",
    unit: "",
    help: "Up to where (success ratios: down to where) it is ordinary, by history: Q3 + 3 IQR, or Q1 - 3 IQR. Absent without enough history.",
    kind: Kind::Gauge,
    labels: SIGNALS,
    read: |_, _, _| {},
};

/// Whether it is not.
pub static BASELINE_UNUSUAL: Family = Family {
    name: "tidegate.baseline.unusual",
    prometheus: "tidegate_baseline_unusual",
    unit: "1",
    help: "Whether a signal of a model has been out of the ordinary for as long as `history.baseline.hold`: 1, else 0.",
    kind: Kind::Gauge,
    labels: SIGNALS,
    read: |_, _, _| {},
};
