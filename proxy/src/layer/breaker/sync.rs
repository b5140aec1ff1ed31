//! What threads share state by: the standard library's, or in model tests that of `shuttle`, which
//! tries the orders in which threads may run.

#[cfg(not(feature = "shuttle"))]
pub(super) use std::sync::{Arc, Mutex, MutexGuard, RwLock};

#[cfg(feature = "shuttle")]
pub(super) use shuttle::sync::{Arc, Mutex, MutexGuard, RwLock};
