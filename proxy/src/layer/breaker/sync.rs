//! What threads share state by: the standard library's, or in model tests that of `shuttle`, which
//! tries the orders in which threads may run.

#[cfg(not(feature = "shuttle"))]
pub(super) use std::sync::{Mutex, MutexGuard, RwLock};

#[cfg(feature = "shuttle")]
pub(super) use shuttle::sync::{Mutex, MutexGuard, RwLock};
