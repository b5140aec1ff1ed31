//! Connections that applications make to others, through us as their proxy.

use super::labels::{END, HOST};
use super::{Family, Kind};

/// What became of connections to the address of the proxy.
pub static INTERCEPT_CONNECTIONS: Family = Family {
    name: "tidegate.intercept.connections",
    prometheus: "tidegate_intercept_connections_total",
    unit: "{connection}",
    help: "Connections that applications made through us as their proxy: measured, passed (blind), refused, untrusted (the application does not trust our certificate), unreached.",
    kind: Kind::Counter,
    labels: &[&END],
    read: |_, _, _| {},
};

/// Where connections went of which nothing is seen.
pub static INTERCEPT_PASSED_BY: Family = Family {
    name: "tidegate.intercept.passed_by",
    prometheus: "tidegate_intercept_passed_by_total",
    unit: "{connection}",
    help: "Connections that were passed on blind, by host: the first 100, and other.",
    kind: Kind::Counter,
    labels: &[&HOST],
    read: |_, _, _| {},
};
