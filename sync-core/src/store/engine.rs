//! The seam of the embedded engines: ordered byte keys, snapshots, one writer, atomic durable commit.

use std::{fmt, ops::ControlFlow};

use super::types::StoreError;

/// An ordered key-value engine.
///
/// # Contract
///
/// - *a snapshot never changes*: what was committed after it was taken is not in it.
/// - *one writer at a time*: `write` waits for the writer before it.
/// - *a writer reads its own writes*.
/// - *commit is atomic and durable*: when `write` returns Ok, all that `work` did is on disk; after a
///   crash before that, all or nothing.
/// - *work that fails leaves nothing*, and its error comes back as it is.
/// - *keys are ordered as byte strings* (memcmp), from empty to at most 2,100 bytes; values have at most 4 MiB.
/// - *an I/O error is an error*, never a panic; after a failed commit the engine may refuse
///   everything until it is opened again, but never claims what is not there.
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// A consistent view.
    type Snapshot: EngineRead + Send;

    /// The state of the last commit.
    fn snapshot(&self) -> Result<Self::Snapshot, StoreError>;

    /// Runs `work` on the one writer and commits when it succeeds; blocks while somebody else writes.
    fn write(&self, work: Work<'_>) -> Result<(), StoreError>;

    /// What error messages call this store: its path, say.
    fn place(&self) -> String {
        "the store".into()
    }
}

/// What a transaction does. Called once.
pub type Work<'w> = &'w mut dyn FnMut(&mut dyn EngineWrite) -> Result<(), StoreError>;

/// The order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// By key, ascending.
    Forward,
    /// By key, descending.
    Backward,
}

/// What a scan shows key and value of each row to; it goes on until this breaks.
pub type Visit<'v> = &'v mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Reads.
pub trait EngineRead {
    /// The value at `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Shows every row with `start <= key < end` (`None`: to the end) to `visit`, in order, until it breaks.
    fn scan(&self, start: &[u8], end: Option<&[u8]>, order: Scan, visit: Visit<'_>) -> Result<(), StoreError>;
}

/// Writes, seen by this writer at once and by others after the commit.
pub trait EngineWrite: EngineRead {
    /// Sets the value at `key`.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Removes the row at `key`, if there is one.
    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError>;
}
