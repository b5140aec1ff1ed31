//! Counts the bytes of bodies that are held, of one call and of all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::LimitsConfig;

/// The bytes that all calls hold, of all workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// For policies that must see a body first.
    pub(crate) policies: Arc<AtomicU64>,
    /// To be signed.
    pub(crate) signed: Arc<AtomicU64>,
}

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

    /// What this call holds, and what all do.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.mine, self.all.load(Relaxed))
    }

    /// Whether this is more than the limits allow.
    pub(crate) fn is_too_much(&self, limits: &LimitsConfig) -> bool {
        let (mine, all) = self.bytes();
        mine > limits.held_body.as_u64() || all > limits.held_bodies.as_u64()
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
