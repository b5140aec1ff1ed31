//! What quotas say of themselves, and what providers say of theirs.

use super::labels::{BY, CALLER, DIMENSION, MODE, MODEL, QUOTA_NAME, TYPE, UPSTREAM};
use super::{Family, Kind, Label};

const QUOTA: &[&Label] = &[&QUOTA_NAME, &CALLER, &MODEL, &UPSTREAM, &TYPE];

/// How much of a quota is gone.
pub static QUOTA_USED_RATIO: Family = Family {
    name: "tidegate.quota.used_ratio",
    prometheus: "tidegate_quota_used_ratio",
    unit: "1",
    help: "Share of a quota that is used in its window or held by calls under way; of budgets with the same labels the highest.",
    kind: Kind::Gauge,
    labels: QUOTA,
    read: |_, _, _| {},
};

/// What a quota allows.
pub static QUOTA_LIMIT: Family = Family {
    name: "tidegate.quota.limit",
    prometheus: "tidegate_quota_limit",
    unit: "",
    help: "What a quota allows in a window: requests, tokens or US dollars, as the type says.",
    kind: Kind::Gauge,
    labels: QUOTA,
    read: |_, _, _| {},
};

/// What of it is used.
pub static QUOTA_USED: Family = Family {
    name: "tidegate.quota.used",
    prometheus: "tidegate_quota_used",
    unit: "",
    help: "What calls that are over were charged in the window that runs now; some of it is estimated where providers stated no usage.",
    kind: Kind::Gauge,
    labels: QUOTA,
    read: |_, _, _| {},
};

/// What of it is held.
pub static QUOTA_RESERVED: Family = Family {
    name: "tidegate.quota.reserved",
    prometheus: "tidegate_quota_reserved",
    unit: "",
    help: "What calls under way hold of a quota until their usage is known.",
    kind: Kind::Gauge,
    labels: QUOTA,
    read: |_, _, _| {},
};

/// When it will be spent.
pub static QUOTA_EXHAUSTED_IN: Family = Family {
    name: "tidegate.quota.exhausted_in",
    prometheus: "tidegate_quota_exhausted_in_seconds",
    unit: "s",
    help: "Time until a quota is spent at the present pace; no series where it lasts until its window begins anew.",
    kind: Kind::Gauge,
    labels: QUOTA,
    read: |_, _, _| {},
};

/// Calls for which nothing was left.
pub static QUOTA_REFUSALS: Family = Family {
    name: "tidegate.quota.refusals",
    prometheus: "tidegate_quota_refusals_total",
    unit: "{call}",
    help: "Calls for which too little of a quota was left; with mode observe they went through all the same.",
    kind: Kind::Counter,
    labels: &[&QUOTA_NAME, &CALLER, &TYPE, &MODE],
    read: |_, _, _| {},
};

/// Calls that were charged.
pub static QUOTA_CHARGED: Family = Family {
    name: "tidegate.quota.charged_calls",
    prometheus: "tidegate_quota_charged_calls_total",
    unit: "{call}",
    help: "Calls charged to a quota, by what the charge goes by: stated usage, an estimate, or one whose cost is left out for want of a price.",
    kind: Kind::Counter,
    labels: &[&QUOTA_NAME, &BY],
    read: |_, _, _| {},
};

/// Budgets that there are.
pub static QUOTA_BUDGETS: Family = Family {
    name: "tidegate.quota.budgets",
    prometheus: "tidegate_quota_budgets",
    unit: "{budget}",
    help: "Budgets of a quota that are kept, one for each caller, model or upstream where it tells them apart.",
    kind: Kind::Gauge,
    labels: &[&QUOTA_NAME],
    read: |_, _, _| {},
};

/// Calls without a budget of their own.
pub static QUOTA_WITHOUT_ROOM: Family = Family {
    name: "tidegate.quota.without_room",
    prometheus: "tidegate_quota_without_room_total",
    unit: "{call}",
    help: "Calls charged to a budget that many share, because there is no room for one of their own.",
    kind: Kind::Counter,
    labels: &[&QUOTA_NAME],
    read: |_, _, _| {},
};

/// What providers say of their own limits.
pub static RATE_LIMIT: Family = Family {
    name: "tidegate.ratelimit.limit",
    prometheus: "tidegate_ratelimit_limit",
    unit: "",
    help: "What a provider allows in a window, as its last answer says, for calls that a quota is about.",
    kind: Kind::Gauge,
    labels: &[&MODEL, &UPSTREAM, &DIMENSION],
    read: |_, _, _| {},
};

/// What is left there.
pub static RATE_LIMIT_REMAINING: Family = Family {
    name: "tidegate.ratelimit.remaining",
    prometheus: "tidegate_ratelimit_remaining",
    unit: "",
    help: "What a provider has left for the window, as its last answer says, for calls that a quota is about.",
    kind: Kind::Gauge,
    labels: &[&MODEL, &UPSTREAM, &DIMENSION],
    read: |_, _, _| {},
};
