//! Counts the bytes of bodies that are held, of one call and of all.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::LimitsConfig;

/// What one call holds, counted among what all hold for as long as this lives.
#[derive(Debug)]
pub(crate) struct Hold<'a> {
    all: &'a AtomicU64,
    mine: u64,
}

impl<'a> Hold<'a> {
    /// Nothing yet.
    pub(crate) fn new(all: &'a AtomicU64) -> Self {
        Self { all, mine: 0 }
    }

    /// So many bytes more.
    pub(crate) fn more(&mut self, bytes: u64) {
        self.mine += bytes;
        self.all.fetch_add(bytes, Relaxed);
    }

    /// Whether the limits leave room for more.
    pub(crate) fn may_hold_more(&self, limits: &LimitsConfig) -> bool {
        self.mine < limits.held_body.as_u64()
            && self.all.load(Relaxed) < limits.held_bodies.as_u64()
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.mine, Relaxed);
    }
}
