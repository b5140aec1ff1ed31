//! The file in which minutes are kept.

use super::{Family, Kind};

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
