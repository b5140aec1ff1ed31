//! The lock of all budgets: the standard library's, or one by which a test tries all the ways in
//! which threads can meet.

#[cfg(not(feature = "shuttle"))]
pub(super) use std::sync::{Mutex, MutexGuard};

#[cfg(feature = "shuttle")]
pub(super) use shuttle::sync::{Mutex, MutexGuard};
