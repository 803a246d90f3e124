//! The Syncline store on redb: the embedded default.
//!
//! | module | what it is |
//! |---|---|
//! | [`engine`] | the engine seam on one redb table, with a journal in front |
//! | `journal` | small transactions, appended and flushed once |
//! | `overlay` | rows in memory above those in redb |
//! | `table` | the tables in the redb file |
//! | `guard` | redb's panics, as errors |
//! | [`error`] | what redb says, as what a caller can act on |

pub mod engine;
pub mod error;
mod guard;
mod journal;
mod overlay;
mod table;

use std::{path::Path, sync::Arc};

pub use engine::{DEFAULT_CACHE_BYTES, Limits, RedbEngine};
use sync_core::store::{ContentDir, EngineStore, ReplicaStore, StoreError, StoreRegistry};

/// A store in a redb file.
pub type RedbStore = EngineStore<RedbEngine>;

/// Opens the store in the file at `path`, or makes a new one there, with the directories above it.
/// Content lies beside it, in a directory of the same name with the ending `content`.
pub fn open(path: impl AsRef<Path>) -> Result<RedbStore, StoreError> {
    let engine = RedbEngine::open(&path)?;
    let content = ContentDir::open(path.as_ref().with_extension("content"))?;
    EngineStore::open_beside(engine, content)
}

/// Registers the store as `redb`: `redb:/path/of/file`.
pub fn register(registry: &mut StoreRegistry) {
    registry.register("redb", |path| Ok(Arc::new(open(path)?) as Arc<dyn ReplicaStore>));
}
