//! The sidecar from outside: a process, real sockets, and peers that do not always behave.

mod aliases;
mod alike;
mod attacks;
mod balance;
mod breaker;
mod bypass;
mod cache;
mod callers;
mod capture;
#[cfg(feature = "loadgen")]
mod conversations;
mod corpus;
mod credential_faults;
mod credential_refused;
mod credentials;
mod crowd;
mod deadlines;
#[cfg(feature = "loadgen")]
mod demo;
mod disconnect;
mod doctor;
mod drain;
mod endings;
#[cfg(feature = "loadgen")]
mod equal;
mod examples;
mod exemplars;
mod exponential;
mod failures;
mod fallback;
mod faults;
mod grpc;
mod history;
mod http2;
mod include_usage;
mod intercept;
mod jobs;
mod late_models;
mod limit;
#[cfg(feature = "loadgen")]
mod load;
mod logs;
mod messages;
mod mutual_tls;
#[cfg(feature = "loadgen")]
mod other_side;
mod outage;
mod policies;
mod pressure;
mod prices;
mod protocols;
mod quotas;
mod refusals;
mod reload;
mod replay;
#[cfg(feature = "loadgen")]
mod resume;
mod retry;
mod routing;
mod scrape;
mod sdks;
mod sealed;
#[cfg(feature = "loadgen")]
mod search;
mod shadow;
mod single_flight;
mod spans;
mod split;
#[cfg(feature = "loadgen")]
mod stages;
mod store;
mod streams;
mod support;
mod upgrade;
#[cfg(feature = "loadgen")]
mod verdict;
mod warm_up;
