//! The sidecar: a transparent reverse proxy that measures model calls.
//!
//! A request is followed in two files: `serve.rs` (what always happens) and `stack.rs` (the
//! policies, in order).

pub mod admin;
pub mod clients;
pub mod config;
pub mod doctor;
pub mod export;
#[doc(hidden)]
pub mod fuzzing;
pub mod jobs;
#[doc(hidden)]
pub mod measure;
pub mod recorder;
pub mod usage;

mod activity;
mod ahead;
mod attempt;
mod baseline;
mod bypass;
mod call;
mod callers;
mod credentials;
mod deadline;
mod error;
mod exchange;
mod executor;
mod generation;
mod going_on;
mod head;
mod held_reply;
mod hold;
mod http1;
mod inbound;
mod intercept;
mod layer;
mod listener;
mod own_call;
mod policies;
mod prices;
mod pump;
mod query;
mod rewrite;
mod route;
mod scrape;
mod serve;
mod sidecar;
mod spend;
mod split;
mod stack;
mod states;
mod store;
mod timer;
mod tls;
mod trace;
mod tunnel;
mod upstream;
mod verdict;
mod watch;
mod ways;
mod whole;

pub use config::{Config, ConfigError, InterceptConfig};
pub use prices::prices;
pub use sidecar::{Sidecar, StartError};
pub use watch::FileWatch;
