//! The policies, one file each; `stack.rs` puts them in order.

pub(crate) mod breaker;
pub(crate) mod fallback;
pub(crate) mod include_usage;
pub(crate) mod limit;
pub(crate) mod repeatable;
pub(crate) mod retry;
