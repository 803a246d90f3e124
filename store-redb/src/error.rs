//! What redb says, as what a caller can act on.

use std::{io, sync::Arc};

use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};
use sync_core::store::StoreError;

/// An I/O error while `doing` something with the file at `place`.
pub(crate) fn io(doing: &str, place: &str, error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::DiskFull(format!("{doing} {place}: {error}"))
        }
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            StoreError::Corrupt(format!("{place} is no store, or a damaged one: {error}"))
        }
        _ => StoreError::Io { context: format!("{doing} {place}"), source: Arc::new(error) },
    }
}

/// An error of the file itself.
pub(crate) fn storage(place: &str, error: StorageError) -> StoreError {
    match error {
        StorageError::Io(error) => io("writing or reading", place, error),
        StorageError::Corrupted(what) => StoreError::Corrupt(format!("{place}: {what}")),
        StorageError::ValueTooLarge(len) => StoreError::Limit(format!("a row of {len} bytes is too long")),
        other => StoreError::Failed(format!("{place}: {other}")),
    }
}

/// An error of opening.
pub(crate) fn opening(place: &str, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(place.into()),
        DatabaseError::UpgradeRequired(version) => {
            StoreError::Corrupt(format!("{place} is a redb file of the old version {version}, not one of ours"))
        }
        DatabaseError::Storage(StorageError::Io(error)) => io("opening", place, error),
        DatabaseError::Storage(error) => storage(place, error),
        other => StoreError::Failed(format!("{place}: {other}")),
    }
}

/// An error of beginning a transaction.
pub(crate) fn beginning(place: &str, error: TransactionError) -> StoreError {
    match error {
        TransactionError::Storage(error) => storage(place, error),
        other => StoreError::Failed(format!("{place}: {other}")),
    }
}

/// An error of opening the table.
pub(crate) fn table(place: &str, error: TableError) -> StoreError {
    match error {
        TableError::Storage(error) => storage(place, error),
        other => StoreError::Corrupt(format!("{place} is not a store of ours: {other}")),
    }
}

/// An error of a commit.
pub(crate) fn committing(place: &str, error: CommitError) -> StoreError {
    match error {
        CommitError::Storage(error) => storage(place, error),
        other => StoreError::Failed(format!("{place}: {other}")),
    }
}
