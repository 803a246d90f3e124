//! The Syncline store on redb: the embedded default.
//!
//! | module | what it is |
//! |---|---|
//! | [`engine`] | the engine seam on one redb table |
//! | [`error`] | what redb says, as what a caller can act on |

pub mod engine;
pub mod error;

use std::{path::Path, sync::Arc};

pub use engine::{DEFAULT_CACHE_BYTES, RedbEngine};
use sync_core::store::{EngineStore, ReplicaStore, StoreError, StoreRegistry};

/// A store in a redb file.
pub type RedbStore = EngineStore<RedbEngine>;

/// Opens the store in the file at `path`, or makes a new one there, with the directories above it.
pub fn open(path: impl AsRef<Path>) -> Result<RedbStore, StoreError> {
    EngineStore::open(RedbEngine::open(path)?)
}

/// Registers the store as `redb`: `redb:/path/of/file`.
pub fn register(registry: &mut StoreRegistry) {
    registry.register("redb", |path| Ok(Arc::new(open(path)?) as Arc<dyn ReplicaStore>));
}
