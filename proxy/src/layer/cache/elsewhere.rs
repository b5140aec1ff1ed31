//! Answers that other sidecars keep too, sealed, in the store that all share.
//!
//! It is asked where memory has no answer, and is told what memory keeps. Where it is not well there
//! is only memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use redis::SetExpiry;
use tokio::runtime::Handle;

use super::entry::Entry;
use super::key::Key;
use super::sealed::{OVERHEAD, Seal};
use crate::store::{Operation, Store};

/// Answers in the store.
#[derive(Clone, Debug)]
pub(crate) struct Elsewhere(Arc<Shelf>);

#[derive(Debug)]
struct Shelf {
    store: Store,
    seal: Seal,
    /// Bytes of answers that are on their way there, and how many there may be.
    under_way: AtomicU64,
    most: u64,
}

impl Elsewhere {
    /// Answers in this store, sealed by this key. Up to so many bytes are on their way there at a time.
    pub(super) fn new(store: Store, key: &[u8], most: u64) -> Self {
        let shelf = Shelf { store, seal: Seal::new(key), under_way: AtomicU64::new(0), most };
        Self(Arc::new(shelf))
    }

    /// What the keys of calls are made with.
    pub(super) fn secret(&self) -> [u8; 32] {
        self.0.seal.of_calls
    }

    /// The answer to a call of this key, whose body has no more than so many bytes.
    pub(super) async fn get(&self, key: &Key, most: u64) -> Option<Entry> {
        let Shelf { store, seal, .. } = &*self.0;
        let name = self.name(key);
        let last = isize::try_from(most.saturating_add(OVERHEAD as u64)).unwrap_or(isize::MAX);
        let sealed = store.ask(Operation::CacheGet, async |mut connection| {
            // Whatever stands there, no more of it is read than an answer may have.
            let mut get = redis::cmd("GETRANGE");
            get.arg(&name).arg(0).arg(last).query_async::<Vec<u8>>(&mut connection).await
        });
        seal.open(key, &sealed.await?)
    }

    /// Has the store keep an answer, without a wait.
    pub(super) fn put(&self, key: &Key, entry: Arc<Entry>) {
        let bytes = entry.size() as u64;
        let Ok(here) = Handle::try_current() else { return };
        let is_too_much = self.0.under_way.fetch_add(bytes, Relaxed) + bytes > self.0.most;
        let under_way = UnderWay { shelf: self.0.clone(), bytes };
        if is_too_much || !self.0.store.is_well() {
            return self.0.store.skip(Operation::CachePut);
        }
        let (own, key) = (self.clone(), *key);
        here.spawn(async move {
            let _under_way = under_way;
            own.send(&key, &entry).await;
        });
    }

    async fn send(&self, key: &Key, entry: &Entry) {
        let Shelf { store, seal, .. } = &*self.0;
        let Some(sealed) = seal.seal(key, entry) else { return };
        let name = self.name(key);
        let expiry =
            SetExpiry::PX(u64::try_from(entry.left().as_millis()).unwrap_or(u64::MAX).max(1));
        let set = store.ask(Operation::CachePut, |mut connection| async move {
            let mut set = redis::cmd("SET");
            set.arg(&name).arg(&sealed).arg(expiry).query_async::<()>(&mut connection).await
        });
        let _ = set.await;
    }

    fn name(&self, key: &Key) -> String {
        let id: String = key.id.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}:answer:{id}", self.0.store.prefix())
    }
}

/// An answer on its way to the store.
struct UnderWay {
    shelf: Arc<Shelf>,
    bytes: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.shelf.under_way.fetch_sub(self.bytes, Relaxed);
    }
}
