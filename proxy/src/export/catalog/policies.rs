//! What the policies say of themselves.

use super::labels::{BY, MODEL, POLICY, REASON, REGION, TO, UPSTREAM};
use super::{Family, Kind};

/// Where the circuit breakers stand.
pub static BREAKER_STATE: Family = Family {
    name: "tidegate.breaker.state",
    prometheus: "tidegate_breaker_state",
    unit: "1",
    help: "Circuit breakers: 0 closed, 1 half-open, 2 open. `other` is for models without one of their own.",
    kind: Kind::Gauge,
    labels: &[&UPSTREAM, &REGION, &MODEL],
    read: |_, _, _| {},
};

/// What circuit breakers did.
pub static BREAKER_TRANSITIONS: Family = Family {
    name: "tidegate.breaker.transitions",
    prometheus: "tidegate_breaker_transitions_total",
    unit: "{transition}",
    help: "Transitions of circuit breakers, by the state that they led to.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM, &REGION, &MODEL, &TO],
    read: |_, _, _| {},
};

/// Attempts that were kept out.
pub static BREAKER_REFUSALS: Family = Family {
    name: "tidegate.breaker.refusals",
    prometheus: "tidegate_breaker_refusals_total",
    unit: "{attempt}",
    help: "Attempts at an upstream that its circuit breaker or its rate gate kept out.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM, &REGION, &MODEL, &BY],
    read: |_, _, _| {},
};

/// Rate gates that are closed.
pub static RATE_GATE_CLOSED: Family = Family {
    name: "tidegate.rate_gate.closed",
    prometheus: "tidegate_rate_gate_closed",
    unit: "{account}",
    help: "Accounts that wait until a time named with a 429.",
    kind: Kind::Gauge,
    labels: &[&UPSTREAM, &REGION, &MODEL],
    read: |_, _, _| {},
};

/// Calls that an upstream may have at a time.
pub static LIMIT: Family = Family {
    name: "tidegate.limit",
    prometheus: "tidegate_limit",
    unit: "{call}",
    help: "Calls that an upstream may have at a time; without a model where all models share.",
    kind: Kind::Gauge,
    labels: &[&MODEL, &UPSTREAM],
    read: |_, _, _| {},
};

/// Calls that an upstream has.
pub static LIMIT_IN_USE: Family = Family {
    name: "tidegate.limit.in_use",
    prometheus: "tidegate_limit_in_use",
    unit: "{call}",
    help: "Calls that an upstream with a limit has now.",
    kind: Kind::Gauge,
    labels: &[&MODEL, &UPSTREAM],
    read: |_, _, _| {},
};

/// Calls that wait.
pub static LIMIT_QUEUE: Family = Family {
    name: "tidegate.limit.queue",
    prometheus: "tidegate_limit_queue",
    unit: "{call}",
    help: "Calls that wait here until an upstream may have them.",
    kind: Kind::Gauge,
    labels: &[&MODEL, &UPSTREAM],
    read: |_, _, _| {},
};

/// Calls that were sent away.
pub static LIMIT_SHED: Family = Family {
    name: "tidegate.limit.shed",
    prometheus: "tidegate_limit_shed_total",
    unit: "{call}",
    help: "Calls that an upstream's limit kept from it: its queue was full, or they waited too long.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM, &REASON],
    read: |_, _, _| {},
};

/// Whether the policies act.
pub static BYPASS: Family = Family {
    name: "tidegate.bypass",
    prometheus: "tidegate_bypass",
    unit: "",
    help: "1 while bypass is on, and policies look on only.",
    kind: Kind::Gauge,
    labels: &[],
    read: |_, _, _| {},
};

/// Calls on which a policy would have acted.
pub static BYPASSED: Family = Family {
    name: "tidegate.bypassed",
    prometheus: "tidegate_bypassed_total",
    unit: "{call}",
    help: "Calls on which a policy would have acted, were bypass not on; each by the first that would.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM, &POLICY],
    read: |_, _, _| {},
};

/// Calls made again.
pub static RETRIES: Family = Family {
    name: "tidegate.retries",
    prometheus: "tidegate_retries_total",
    unit: "{attempt}",
    help: "Attempts made after a first one that failed, by upstream and reason.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM, &REASON],
    read: |_, _, _| {},
};

/// Calls not made again.
pub static RETRIES_DENIED: Family = Family {
    name: "tidegate.retries.denied",
    prometheus: "tidegate_retries_denied_total",
    unit: "{call}",
    help: "Calls that failed and were not made again, for want of a budget, time or the body.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM, &REASON],
    read: |_, _, _| {},
};

/// Calls that went elsewhere.
pub static FALLBACKS: Family = Family {
    name: "tidegate.fallbacks",
    prometheus: "tidegate_fallbacks_total",
    unit: "{call}",
    help: "Calls that came to this upstream because another target would not do.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};
