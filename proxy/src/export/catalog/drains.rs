//! What became of answers whose callers had left.

use tidegate_wire::DrainEnd;

use super::labels::{END, MODEL, PROVIDER, REGION, ROUTE, SOURCE, UPSTREAM};
use super::{Family, Kind};
use crate::export::metrics::Counted;

/// The sources of [`TOKENS_WASTED`], in the order in which a series keeps them.
pub(in crate::export) const WASTE_SOURCES: [&str; 2] = ["stated", "share"];

/// Answers read on without their callers.
pub static DRAINS: Family = Family {
    name: "tidegate.drains",
    prometheus: "tidegate_drains_total",
    unit: "{call}",
    help: "Calls that should go on though their caller left, by how that ended: whole, broken, time, bytes, full (too many did already), left (so did all who shared it), shutdown.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM, &END],
    read: |_, series, put| {
        for (end, count) in DrainEnd::ALL.into_iter().zip(series.drains) {
            if count > 0 {
                put(end.as_str(), Counted::Counter(count));
            }
        }
    },
};

/// Answers that are read on now.
pub static DRAINS_OPEN: Family = Family {
    name: "tidegate.drains.open",
    prometheus: "tidegate_drains_open",
    unit: "{call}",
    help: "Calls whose caller has left and whose answer is still read.",
    kind: Kind::Gauge,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Tokens that nobody got.
pub static TOKENS_WASTED: Family = Family {
    name: "tidegate.tokens.wasted",
    prometheus: "tidegate_tokens_wasted_total",
    unit: "{token}",
    help: "Output tokens of answers that were read on after their caller had left: as stated, or the share of chunks that came later.",
    kind: Kind::Counter,
    labels: &[&MODEL, &PROVIDER, &REGION, &ROUTE, &UPSTREAM, &SOURCE],
    read: |_, series, put| {
        for (source, tokens) in WASTE_SOURCES.into_iter().zip(series.wasted) {
            if tokens > 0 {
                put(source, Counted::Counter(tokens));
            }
        }
    },
};
