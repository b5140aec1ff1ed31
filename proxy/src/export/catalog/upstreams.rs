//! How upstreams are: their addresses, and the credentials for them.

use super::labels::{REASON, STATE, UPSTREAM};
use super::{Family, Kind};

/// Attempts that got no connection.
pub static CONNECT_FAILURES: Family = Family {
    name: "tidegate.connect.failures",
    prometheus: "tidegate_connect_failures_total",
    unit: "{attempt}",
    help: "Attempts that got no connection to their upstream, by reason; nothing was sent.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM, &REASON],
    read: |_, _, _| {},
};

/// How the addresses of upstreams are.
pub static UPSTREAM_ADDRESSES: Family = Family {
    name: "tidegate.upstream.addresses",
    prometheus: "tidegate_upstream_addresses",
    unit: "{address}",
    help: "Addresses of an upstream that has several: in_use, ejected (calls failed), unhealthy (checks fail), draining (gone from DNS).",
    kind: Kind::Gauge,
    labels: &[&UPSTREAM, &STATE],
    read: |_, _, _| {},
};

/// Whether there is no good choice.
pub static UPSTREAM_USES_ALL: Family = Family {
    name: "tidegate.upstream.uses_all",
    prometheus: "tidegate_upstream_uses_all",
    unit: "",
    help: "1 while no address of the upstream is fit for use, and so all are used.",
    kind: Kind::Gauge,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Calls without a good choice.
pub static UPSTREAM_FORCED_CALLS: Family = Family {
    name: "tidegate.upstream.forced_calls",
    prometheus: "tidegate_upstream_forced_calls_total",
    unit: "{attempt}",
    help: "Attempts at an address that was not fit for use, because none was.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Addresses that were passed over for a while.
pub static UPSTREAM_EJECTIONS: Family = Family {
    name: "tidegate.upstream.ejections",
    prometheus: "tidegate_upstream_ejections_total",
    unit: "{ejection}",
    help: "Addresses ejected for a while, because their calls failed in a row.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Addresses that should have been.
pub static UPSTREAM_EJECTIONS_SPARED: Family = Family {
    name: "tidegate.upstream.ejections_spared",
    prometheus: "tidegate_upstream_ejections_spared_total",
    unit: "{failure}",
    help: "Failures that would have ejected an address, had that not left too few.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Health checks without a good answer.
pub static UPSTREAM_CHECK_FAILURES: Family = Family {
    name: "tidegate.upstream.check_failures",
    prometheus: "tidegate_upstream_check_failures_total",
    unit: "{check}",
    help: "Health checks of an address that failed.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Names that could not be resolved.
pub static UPSTREAM_LOOKUP_FAILURES: Family = Family {
    name: "tidegate.upstream.lookup_failures",
    prometheus: "tidegate_upstream_lookup_failures_total",
    unit: "{lookup}",
    help: "Look-ups of an upstream's name that failed; its last addresses serve for a while.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Servers that did not tell their load.
pub static UPSTREAM_STEERING_FAILURES: Family = Family {
    name: "tidegate.upstream.steering_failures",
    prometheus: "tidegate_upstream_steering_failures_total",
    unit: "{lookup}",
    help: "Times that an address did not tell its load, where it is asked for it.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// How old the credentials are.
pub static CREDENTIAL_AGE: Family = Family {
    name: "tidegate.credential.age",
    prometheus: "tidegate_credential_age_seconds",
    unit: "s",
    help: "Time since the credential in use was fetched, for upstreams whose credential can change.",
    kind: Kind::Gauge,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// How long the credentials last.
pub static CREDENTIAL_EXPIRES_IN: Family = Family {
    name: "tidegate.credential.expires_in",
    prometheus: "tidegate_credential_expires_in_seconds",
    unit: "s",
    help: "Time until the credential in use expires, for upstreams whose credential does.",
    kind: Kind::Gauge,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Credentials that could not be fetched.
pub static CREDENTIAL_FAILURES: Family = Family {
    name: "tidegate.credential.failures",
    prometheus: "tidegate_credential_failures_total",
    unit: "{fetch}",
    help: "Times that a credential could not be fetched; the last good one serves until it expires.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Credentials that were not accepted.
pub static CREDENTIAL_REFUSED: Family = Family {
    name: "tidegate.credential.refused",
    prometheus: "tidegate_credential_refused_total",
    unit: "{answer}",
    help: "Answers by which an upstream did not accept the credential that it has here (401, 403).",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};
