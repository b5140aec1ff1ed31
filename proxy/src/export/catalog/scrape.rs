//! How it goes with the figures of others.

use super::labels::{REASON, RESULT, TARGET};
use super::{Family, Kind};

/// Whether they could be read.
pub static SCRAPE_UP: Family = Family {
    name: "tidegate.scrape.up",
    prometheus: "tidegate_scrape_up",
    unit: "1",
    help: "Whether the figures of this target could be read when it was last asked: 1, or 0 while none of them are passed on.",
    kind: Kind::Gauge,
    labels: &[&TARGET],
    read: |_, _, _| {},
};

/// How long that took.
pub static SCRAPE_DURATION: Family = Family {
    name: "tidegate.scrape.duration",
    prometheus: "tidegate_scrape_duration_seconds",
    unit: "s",
    help: "Time that the last reading of this target's figures took.",
    kind: Kind::Gauge,
    labels: &[&TARGET],
    read: |_, _, _| {},
};

/// What was read.
pub static SCRAPE_SAMPLES: Family = Family {
    name: "tidegate.scrape.samples",
    prometheus: "tidegate_scrape_samples_total",
    unit: "{sample}",
    help: "Samples that were read, by what became of them: kept, or dropped as not_allowed, malformed, unusable (a histogram that does not add up, say) or over_limit.",
    kind: Kind::Counter,
    labels: &[&TARGET, &RESULT],
    read: |_, _, _| {},
};

/// What was not.
pub static SCRAPE_FAILURES: Family = Family {
    name: "tidegate.scrape.failures",
    prometheus: "tidegate_scrape_failures_total",
    unit: "{scrape}",
    help: "Readings that failed, by reason: connect, timeout, status, too_large, encoding, not_metrics.",
    kind: Kind::Counter,
    labels: &[&TARGET, &REASON],
    read: |_, _, _| {},
};
