//! Bytes that are kept, and the bound on all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What all kept bodies together may take. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<AtomicUsize>);

/// Bytes of one body, up to a bound of its own and that of all.
pub(crate) struct Kept {
    bytes: Vec<u8>,
    limit: usize,
    is_truncated: bool,
    budget: Budget,
}

// === impl Budget ===

impl Budget {
    /// So many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// What is left of it.
    pub fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes so many bytes, or none where fewer are left.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

// === impl Kept ===

impl Kept {
    /// At most so many bytes of one body.
    pub(crate) fn new(limit: usize, budget: &Budget) -> Self {
        Self { bytes: Vec::new(), limit, is_truncated: false, budget: budget.clone() }
    }

    /// Keeps as much of this as there is room for, and nothing once something was left out.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.is_truncated {
            return;
        }
        let room = self.limit - self.bytes.len();
        let fits = &bytes[..bytes.len().min(room)];
        self.is_truncated = fits.len() < bytes.len();
        if self.budget.take(fits.len()) {
            self.bytes.extend_from_slice(fits);
        } else {
            self.is_truncated = true;
        }
    }

    /// Says that something was not kept.
    pub(crate) fn leave_out(&mut self) {
        self.is_truncated = true;
    }

    pub(crate) fn clear(&mut self) {
        self.budget.give_back(self.bytes.len());
        self.bytes = Vec::new();
        self.is_truncated = false;
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.is_truncated
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.clear();
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.is_truncated == other.is_truncated
    }
}
