//! What is counted of calls that Tidegate makes itself: they are in none of the other figures.

use super::calls::TOKEN_TYPES;
use super::labels::{
    MODEL, OUTCOME, OWN, PROVIDER, REASON, REGION, RESULT, ROUTE, STATUS, STREAM, TYPE, UPSTREAM,
};
use super::{Family, Kind, Label};
use crate::export::metrics::Counted;

/// Those that are read off such calls.
pub(super) static OF_OWN: [&Family; 5] =
    [&OWN_CALLS, &OWN_CALL_DURATION, &OWN_TIME_TO_FIRST_TOKEN, &OWN_TOKENS, &OWN_COST];

/// Calls that have ended.
pub static OWN_CALLS: Family = Family {
    name: "tidegate.own.calls",
    prometheus: "tidegate_own_calls_total",
    unit: "{call}",
    help: "Calls that Tidegate made itself and that have ended: copies of callers' (shadow), those that keep an upstream warm (warm_up), and those that say what a question means (embedding).",
    kind: Kind::Counter,
    labels: &[&OWN, &MODEL, &PROVIDER, &REGION, &ROUTE, &UPSTREAM, &STREAM, &STATUS, &OUTCOME],
    read: |_, series, put| put("", Counted::Counter(series.calls)),
};

const TIMED: &[&Label] = &[&OWN, &MODEL, &PROVIDER, &REGION, &ROUTE, &UPSTREAM, &STREAM, &OUTCOME];

/// How long they took.
pub static OWN_CALL_DURATION: Family = Family {
    name: "tidegate.own.call.duration",
    prometheus: "tidegate_own_call_duration_seconds",
    unit: "s",
    help: "Time that Tidegate's own calls took, from their start to the last byte of the response.",
    kind: Kind::Histogram,
    labels: TIMED,
    read: |_, series, put| put("", Counted::Histogram(&series.duration)),
};

/// How long their streams took to the first token.
pub static OWN_TIME_TO_FIRST_TOKEN: Family = Family {
    name: "tidegate.own.time_to_first_token",
    prometheus: "tidegate_own_time_to_first_token_seconds",
    unit: "s",
    help: "Time that streams of Tidegate's own calls took, from their start to the first token.",
    kind: Kind::Histogram,
    labels: TIMED,
    read: |_, series, put| put("", Counted::Histogram(&series.time_to_first_token)),
};

/// Tokens that they used.
pub static OWN_TOKENS: Family = Family {
    name: "tidegate.own.tokens",
    prometheus: "tidegate_own_tokens_total",
    unit: "{token}",
    help: "Tokens of Tidegate's own calls, as stated by the provider.",
    kind: Kind::Counter,
    labels: &[&OWN, &MODEL, &PROVIDER, &REGION, &ROUTE, &UPSTREAM, &TYPE],
    read: |_, series, put| {
        let stated = TOKEN_TYPES.into_iter().zip(series.tokens);
        stated.for_each(|(part, tokens)| {
            tokens.into_iter().for_each(|tokens| put(part, Counted::Counter(tokens)));
        });
    },
};

/// What they cost, which is money all the same.
pub static OWN_COST: Family = Family {
    name: "tidegate.own.cost.usd",
    prometheus: "tidegate_own_cost_usd_total",
    unit: "{USD}",
    help: "Cost of Tidegate's own calls by the price table, in US dollars; in no other figure of cost.",
    kind: Kind::Counter,
    labels: &[&OWN, &MODEL, &PROVIDER, &REGION, &ROUTE, &UPSTREAM],
    read: |_, series, put| {
        series.cost.into_iter().for_each(|cost| put("", Counted::Amount(cost)));
    },
};

/// Connections that were opened before a call needed them.
pub static WARM_UP_CONNECTIONS: Family = Family {
    name: "tidegate.warm_up.connections",
    prometheus: "tidegate_warm_up_connections_total",
    unit: "{connection}",
    help: "Connections opened to keep an upstream warm, before a call needed them, by result.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM, &RESULT],
    read: |_, _, _| {},
};

/// Copies that are under way.
pub static SHADOW_OPEN: Family = Family {
    name: "tidegate.shadow.open",
    prometheus: "tidegate_shadow_open",
    unit: "{call}",
    help: "Copies of calls that are under way, or wait for the body of their call.",
    kind: Kind::Gauge,
    labels: &[&ROUTE],
    read: |_, _, _| {},
};

/// Calls that were drawn and not copied.
pub static SHADOW_NOT_SENT: Family = Family {
    name: "tidegate.shadow.not_sent",
    prometheus: "tidegate_shadow_not_sent_total",
    unit: "{call}",
    help: "Calls that were drawn to be copied and were not, by reason.",
    kind: Kind::Counter,
    labels: &[&ROUTE, &REASON],
    read: |_, _, _| {},
};
