//! A custom store in a page: SQLite, in one file.
//!
//! A store needs an ordered byte-to-byte map with snapshots, one writer and durable commits: an
//! [`Engine`]. Rights, dominance, the change log, the index and content come from [`EngineStore`].

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use sync_core::store::{
    ContentDir, Engine, EngineRead, EngineStore, EngineWrite, Scan, StoreError, StoreRegistry, Visit, Work,
};

/// Opens the store in the SQLite file at `path`, or makes a new one there, with its content beside it.
pub fn open(path: impl AsRef<Path>) -> Result<EngineStore<SqliteEngine>, StoreError> {
    let engine = SqliteEngine::open(&path)?;
    EngineStore::open_beside(engine, ContentDir::open(path.as_ref().with_extension("content"))?)
}

/// Registers the store as `sqlite`: `sqlite:/path/of/file`.
pub fn register(registry: &mut StoreRegistry) {
    registry.register("sqlite", |path| Ok(Arc::new(open(path)?)));
}

/// A SQLite file as an engine. One connection writes; each snapshot is a transaction on a connection of its own.
pub struct SqliteEngine {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Arc<Mutex<Vec<Connection>>>,
}

impl fmt::Debug for SqliteEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqliteEngine({})", self.path.display())
    }
}

impl SqliteEngine {
    /// Opens the file, or makes a new one.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_path_buf();
        let writer = Mutex::new(connect(&path)?);
        Ok(Self { path, writer, readers: Arc::default() })
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path).map_err(error)?;
    // A write-ahead log, so that readers never wait for the writer; flushed at each commit.
    let set_up = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                  CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID";
    connection.execute_batch(set_up).map_err(error)?;
    Ok(connection)
}

/// What SQLite says, as what a caller can act on.
fn error(error: rusqlite::Error) -> StoreError {
    let text = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::DiskFull(text),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt(text),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse(text),
        _ => StoreError::Io { context: "the SQLite store".into(), source: Arc::new(io::Error::other(error)) },
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine for SqliteEngine {
    type Snapshot = Snapshot;

    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let idle = lock(&self.readers).pop();
        let connection = idle.map_or_else(|| connect(&self.path), Ok)?;
        // SQLite takes the snapshot at the first read of a transaction, not at its beginning.
        connection.execute_batch("BEGIN; SELECT count(*) FROM (SELECT 1 FROM rows LIMIT 1)").map_err(error)?;
        Ok(Snapshot { connection: Some(connection), home: self.readers.clone() })
    }

    fn write(&self, work: Work<'_>) -> Result<(), StoreError> {
        let connection = lock(&self.writer);
        connection.execute_batch("BEGIN IMMEDIATE").map_err(error)?;
        let done = work(&mut Rows(&connection)).and_then(|()| connection.execute_batch("COMMIT").map_err(error));
        if done.is_err() && !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK").map_err(error)?;
        }
        done
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

/// The rows at one moment.
pub struct Snapshot {
    connection: Option<Connection>,
    home: Arc<Mutex<Vec<Connection>>>,
}

impl Snapshot {
    fn rows(&self) -> Rows<'_> {
        Rows(self.connection.as_ref().expect("it is given back when the snapshot is dropped"))
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // A connection whose transaction does not end is not used again.
        let ended = self.connection.take().filter(|connection| connection.execute_batch("COMMIT").is_ok());
        lock(&self.home).extend(ended);
    }
}

impl EngineRead for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.rows().get(key)
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, order: Scan, visit: Visit<'_>) -> Result<(), StoreError> {
        self.rows().scan(start, end, order, visit)
    }
}

/// The rows as the transaction of a connection sees them.
struct Rows<'c>(&'c Connection);

impl EngineRead for Rows<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut query = self.0.prepare_cached("SELECT value FROM rows WHERE key = ?1").map_err(error)?;
        query.query_row([key], |row| row.get(0)).optional().map_err(error)
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, order: Scan, visit: Visit<'_>) -> Result<(), StoreError> {
        let text = match (end, order) {
            (Some(_), Scan::Forward) => "SELECT key, value FROM rows WHERE key >= ?1 AND key < ?2 ORDER BY key",
            (Some(_), Scan::Backward) => "SELECT key, value FROM rows WHERE key >= ?1 AND key < ?2 ORDER BY key DESC",
            (None, Scan::Forward) => "SELECT key, value FROM rows WHERE key >= ?1 ORDER BY key",
            (None, Scan::Backward) => "SELECT key, value FROM rows WHERE key >= ?1 ORDER BY key DESC",
        };
        let mut query = self.0.prepare_cached(text).map_err(error)?;
        let mut rows = match end {
            Some(end) => query.query([start, end]),
            None => query.query([start]),
        }
        .map_err(error)?;
        while let Some(row) = rows.next().map_err(error)? {
            let bytes = |column| row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from);
            if visit(bytes(0).map_err(error)?, bytes(1).map_err(error)?).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl EngineWrite for Rows<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let mut put = self.0.prepare_cached("INSERT OR REPLACE INTO rows VALUES (?1, ?2)").map_err(error)?;
        put.execute(params![key, value]).map(|_| ()).map_err(error)
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let mut delete = self.0.prepare_cached("DELETE FROM rows WHERE key = ?1").map_err(error)?;
        delete.execute([key]).map(|_| ()).map_err(error)
    }
}
