//! Values from and to files.

use std::{io, path::Path};

use sync_core::{
    manager::{ManagerError, Replica, Transaction},
    model::{Op, Value},
    store::LogEntry,
};

use crate::data_dir::write_whole;

/// Puts the bytes of a file.
pub async fn put_file(transaction: &mut Transaction, key: &[u8], path: &Path) -> Result<(), ManagerError> {
    let owned = path.to_path_buf();
    let bytes = tokio::task::spawn_blocking(move || std::fs::read(owned)).await.expect("reading does not panic");
    transaction.put(key, bytes.map_err(|source| io_error("reading", path, source))?).await
}

/// Writes the bytes of an entry's value to a file, whole or not at all.
pub async fn export(_replica: &Replica, entry: &LogEntry, out: &Path) -> Result<(), ManagerError> {
    match &entry.entry.op {
        Op::Put { value: Value::Inline(bytes), .. } => {
            write_whole(out, bytes).map_err(|source| io_error("writing", out, source))
        }
        _ => Err(ManagerError::ContentMissing),
    }
}

fn io_error(verb: &str, path: &Path, source: io::Error) -> ManagerError {
    ManagerError::Io { context: format!("{verb} {}", path.display()), source }
}
