//! The policies, one file each; `stack.rs` puts them in order.

pub(crate) mod fallback;
pub(crate) mod include_usage;
pub(crate) mod repeatable;
pub(crate) mod retry;
