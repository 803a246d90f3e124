//! Who holds content in memory: imports that no entry refers to yet, and downloads that run.
//! Nothing here is durable: after a restart no import is on its way and no download runs.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::model::Hash;

/// The pins and leases of a store.
#[derive(Debug, Default)]
pub(super) struct Pins {
    held: Mutex<Held>,
    /// Taken while files are unlinked.
    collecting: Mutex<()>,
}

#[derive(Debug, Default)]
struct Held {
    pins: HashMap<Hash, u32>,
    downloads: HashSet<Hash>,
}

impl Pins {
    /// Holds `hash`. Blocks while a collection is under way: what it unlinks must not be what the
    /// caller is about to write.
    pub fn pin(self: &Arc<Self>, hash: Hash) -> Pin {
        let _collecting = self.collecting();
        *self.held().pins.entry(hash).or_default() += 1;
        Pin { pins: Arc::clone(self), hash }
    }

    /// The right to download `hash`, unless somebody has it.
    pub fn lease(self: &Arc<Self>, hash: Hash) -> Option<Lease> {
        self.held().downloads.insert(hash).then(|| Lease { pins: Arc::clone(self), hash })
    }

    /// Nobody pins anything new while this is held.
    pub fn collecting(&self) -> MutexGuard<'_, ()> {
        self.collecting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody holds `hash`.
    pub fn is_pinned(&self, hash: &Hash) -> bool {
        self.held().pins.contains_key(hash)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds content although no entry refers to it, until it is dropped.
#[derive(Debug)]
pub struct Pin {
    pins: Arc<Pins>,
    hash: Hash,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut held = self.pins.held();
        if let Some(count) = held.pins.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                held.pins.remove(&self.hash);
            }
        }
    }
}

/// The right to download one content.
#[derive(Debug)]
pub(crate) struct Lease {
    pins: Arc<Pins>,
    hash: Hash,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pins.held().downloads.remove(&self.hash);
    }
}
