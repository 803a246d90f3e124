//! The Syncline store in memory: the reference text of the engine seam.
//!
//! A snapshot is a clone of a persistent map, which costs a pointer; a writer works on a clone of
//! its own and puts it in place when it commits. "Durable" means as long as the process lives.

use std::{
    ops::Bound,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use sync_core::store::{
    Engine, EngineRead, EngineStore, EngineWrite, ReplicaStore, Scan, StoreError, StoreRegistry, Visit, Work,
};

type Rows = imbl::OrdMap<Vec<u8>, Arc<[u8]>>;

/// A store in memory.
pub type MemStore = EngineStore<MemEngine>;

/// A new, empty store in memory.
pub fn open() -> Result<MemStore, StoreError> {
    EngineStore::open(MemEngine::default())
}

/// Registers the store as `mem`: each `mem:` is a new one.
pub fn register(registry: &mut StoreRegistry) {
    registry.register("mem", |_| Ok(Arc::new(open()?) as Arc<dyn ReplicaStore>));
}

/// The engine in memory. Clones share the rows, as two handles of one file would.
#[derive(Clone, Default)]
pub struct MemEngine {
    committed: Arc<RwLock<Rows>>,
    writing: Arc<Mutex<()>>,
}

impl std::fmt::Debug for MemEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemEngine({} rows)", self.rows().len())
    }
}

impl MemEngine {
    fn rows(&self) -> Rows {
        self.committed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Engine for MemEngine {
    type Snapshot = MemRows;

    fn snapshot(&self) -> Result<MemRows, StoreError> {
        Ok(MemRows(self.rows()))
    }

    fn write(&self, work: Work<'_>) -> Result<(), StoreError> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = MemRows(self.rows());
        work(&mut rows)?;
        *self.committed.write().unwrap_or_else(PoisonError::into_inner) = rows.0;
        Ok(())
    }

    fn place(&self) -> String {
        "the store in memory".into()
    }
}

/// The rows at one moment, or as one writer sees them.
#[derive(Debug, Clone)]
pub struct MemRows(Rows);

impl EngineRead for MemRows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).map(|value| value.to_vec()))
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, order: Scan, visit: Visit<'_>) -> Result<(), StoreError> {
        // A range whose end is before its start is empty here, and a panic in the map.
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        let mut rows = self.0.range::<_, [u8]>((Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded)));
        let next = move || match order {
            Scan::Forward => rows.next(),
            Scan::Backward => rows.next_back(),
        };
        for (key, value) in std::iter::from_fn(next) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl EngineWrite for MemRows {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.0.insert(key.to_vec(), value.into());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.0.remove(key);
        Ok(())
    }
}
