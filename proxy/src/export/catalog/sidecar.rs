//! How the sidecar itself is: its configuration, its exporters, what it could not read.

use super::labels::{BUILD_REVISION, BUILD_VERSION, EXPORTER, REASON, RESULT, WARNING};
use super::{Family, Kind};

/// Readings of the configuration after the first.
pub static CONFIG_RELOADS: Family = Family {
    name: "tidegate.config.reloads",
    prometheus: "tidegate_config_reloads_total",
    unit: "{reload}",
    help: "How often the configuration was read anew; a bad one changes nothing.",
    kind: Kind::Counter,
    labels: &[&RESULT],
    read: |_, _, _| {},
};

/// Whether what stands in the file is what is in use.
pub static CONFIG_LAST_RELOAD_GOOD: Family = Family {
    name: "tidegate.config.last_reload_good",
    prometheus: "tidegate_config_last_reload_good",
    unit: "1",
    help: "1 if the configuration was good when it was last read, 0 if an older one is in use.",
    kind: Kind::Gauge,
    labels: &[],
    read: |_, _, _| {},
};

/// When the configuration in use was read.
pub static CONFIG_LOADED: Family = Family {
    name: "tidegate.config.loaded.timestamp",
    prometheus: "tidegate_config_loaded_timestamp_seconds",
    unit: "s",
    help: "When the configuration in use was read, in seconds since 1970.",
    kind: Kind::Gauge,
    labels: &[],
    read: |_, _, _| {},
};

/// Records that an exporter lost.
pub static RECORDS_DROPPED: Family = Family {
    name: "tidegate.records.dropped",
    prometheus: "tidegate_records_dropped_total",
    unit: "{record}",
    help: "Records that this exporter lost, to a full queue or a failed write.",
    kind: Kind::Counter,
    labels: &[&EXPORTER],
    read: |_, _, _| {},
};

/// Bodies that were forwarded without being read to their end.
pub static NOT_UNDERSTOOD: Family = Family {
    name: "tidegate.not_understood",
    prometheus: "tidegate_not_understood_total",
    unit: "{call}",
    help: "Calls whose body was forwarded, but could not be read.",
    kind: Kind::Counter,
    labels: &[&REASON],
    read: |_, _, _| {},
};

/// What will go wrong in silence.
pub static WARNINGS: Family = Family {
    name: "tidegate.warnings",
    prometheus: "tidegate_warnings_total",
    unit: "{warning}",
    help: "Warnings in the records of calls: what will go wrong in silence.",
    kind: Kind::Counter,
    labels: &[&WARNING],
    read: |_, _, _| {},
};

/// Which build this is.
pub static BUILD_INFO: Family = Family {
    name: "tidegate.build_info",
    prometheus: "tidegate_build_info",
    unit: "",
    help: "Always 1; the labels say which build this is.",
    kind: Kind::Gauge,
    labels: &[&BUILD_VERSION, &BUILD_REVISION],
    read: |_, _, _| {},
};
