//! Values to files of a folder.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use sync_core::{
    manager::{ManagerError, Replica},
    model::{Op, Value},
    store::{LogEntry, Reader},
};

/// Writes the bytes of an entry's value to a new file, verified. Not synced: whoever writes many syncs once.
pub async fn write_new(replica: &Replica, entry: &LogEntry, to: &Path) -> Result<(), ManagerError> {
    let (source, blob) = match &entry.entry.op {
        Op::Put { value: Value::Inline(bytes), .. } => (Source::Inline(bytes.clone()), None),
        Op::Put { value: Value::Blob { hash, .. }, .. } => {
            (Source::Blob(Box::new(replica.reader(*hash).await?)), Some(*hash))
        }
        Op::Delete { .. } | Op::DeletePrefix { .. } => return Err(ManagerError::ContentMissing),
    };
    let to = to.to_path_buf();
    let written = tokio::task::spawn_blocking(move || source.write(&to).map_err(|source| io_error(&to, source)));
    let written = written.await.expect("writing does not panic");
    if let (Some(hash), Err(error)) = (blob, &written)
        && error.is_damage()
    {
        replica.content_damaged(hash).await?;
    }
    written
}

enum Source {
    Inline(bytes::Bytes),
    Blob(Box<Reader>),
}

impl Source {
    fn write(self, to: &Path) -> io::Result<()> {
        match self {
            Self::Inline(bytes) => std::fs::write(to, bytes),
            Self::Blob(reader) => {
                let mut file = BufWriter::with_capacity(256 * 1024, std::fs::File::create(to)?);
                for bytes in reader.read(0..reader.len()).map_err(io::Error::other)? {
                    file.write_all(&bytes.map_err(io::Error::other)?)?;
                }
                file.flush()
            }
        }
    }
}

fn io_error(path: &Path, source: io::Error) -> ManagerError {
    ManagerError::Io { context: format!("writing {}", path.display()), source }
}
