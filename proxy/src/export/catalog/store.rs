//! The store that several sidecars share.

use super::labels::{RESULT, STORE_OPERATION};
use super::{Family, Kind};

/// Whether it is asked.
pub static STORE_UP: Family = Family {
    name: "tidegate.store.up",
    prometheus: "tidegate_store_up",
    unit: "1",
    help: "Whether the shared store is well: 1, or 0 while caches miss and quotas go by what is known here.",
    kind: Kind::Gauge,
    labels: &[],
    read: |_, _, _| {},
};

/// How often it was not.
pub static STORE_OUTAGES: Family = Family {
    name: "tidegate.store.outages",
    prometheus: "tidegate_store_outages_total",
    unit: "{outage}",
    help: "How often the shared store became unwell.",
    kind: Kind::Counter,
    labels: &[],
    read: |_, _, _| {},
};

/// What it was asked.
pub static STORE_OPERATIONS: Family = Family {
    name: "tidegate.store.operations",
    prometheus: "tidegate_store_operations_total",
    unit: "{operation}",
    help: "What the shared store was asked, by what came of it: ok, skipped (it was not well, or too much waited), or what was wrong.",
    kind: Kind::Counter,
    labels: &[&STORE_OPERATION, &RESULT],
    read: |_, _, _| {},
};

/// How long that took.
pub static STORE_TIME: Family = Family {
    name: "tidegate.store.operation.duration",
    prometheus: "tidegate_store_operation_duration_seconds",
    unit: "s",
    help: "How long the shared store was waited for, at most as long as `store.deadline`.",
    kind: Kind::Histogram,
    labels: &[&STORE_OPERATION],
    read: |_, _, _| {},
};
