//! The locks of calls on their way: the standard library's, or those by which a test tries all the
//! ways in which threads can meet.

#[cfg(not(feature = "shuttle"))]
pub(super) use std::sync::{Mutex, MutexGuard};

#[cfg(feature = "shuttle")]
pub(super) use shuttle::sync::{Mutex, MutexGuard};
