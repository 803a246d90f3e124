//! The engine seam on one redb table of bytes.
//!
//! Commits are two-phase: redb's design document says that one-phase commits with checksums can be
//! attacked with chosen data, and most data here was chosen by others. After an I/O error the file
//! is closed and opened again before anything else is done with it: a failed flush is never
//! retried on the same file, as the kernel may have marked the pages clean.

use std::{
    fmt, fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use redb::{
    Builder, Database, DatabaseError, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageBackend, Table,
    TableDefinition, TableError,
};
use sync_core::store::{Engine, EngineRead, EngineWrite, Scan, StoreError, Visit, Work};

use crate::error;

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("syncline");

/// How much memory redb may use for its cache unless told otherwise; its own default is 1 GiB.
pub const DEFAULT_CACHE_BYTES: usize = 32 * 1024 * 1024;

/// A redb file as an engine.
#[derive(Debug)]
pub struct RedbEngine {
    file: Arc<File>,
}

/// The file, open or to be opened again.
struct File {
    place: String,
    open: Box<dyn Fn() -> Result<Database, StoreError> + Send + Sync>,
    database: Mutex<Option<Arc<Database>>>,
    /// The view of the last commit, as long as it is that: beginning a read costs more than a read.
    latest: Mutex<Option<RedbSnapshot>>,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

impl RedbEngine {
    /// Opens the file, or makes a new one that only its owner can read, and the directories above it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with_cache(path, DEFAULT_CACHE_BYTES)
    }

    /// Opens the file with a cache of so many bytes.
    pub fn open_with_cache(path: impl AsRef<Path>, cache_bytes: usize) -> Result<Self, StoreError> {
        let path = path.as_ref().to_path_buf();
        let place = path.display().to_string();
        Self::new(place.clone(), move || open_path(&path, &place, cache_bytes))
    }

    /// Opens a store on a backend of redb's, and again on another after an I/O error: tests cut,
    /// tear and refuse its writes.
    pub fn with_backend<B: StorageBackend>(
        open: impl Fn() -> io::Result<B> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let place = "the given backend";
        Self::new(place.into(), move || {
            let backend = open().map_err(|error| error::io("opening", place, error))?;
            with_table(builder(DEFAULT_CACHE_BYTES).create_with_backend(backend), place)
        })
    }

    fn new(
        place: String,
        open: impl Fn() -> Result<Database, StoreError> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let database = Mutex::new(Some(Arc::new(open()?)));
        Ok(Self { file: Arc::new(File { place, open: Box::new(open), database, latest: Mutex::default() }) })
    }
}

impl File {
    /// The database; opens the file again when it failed before.
    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*database {
            return Ok(database.clone());
        }
        tracing::info!(store = %self.place, "opening the store again after an error");
        let opened = Arc::new((self.open)()?);
        *database = Some(opened.clone());
        Ok(opened)
    }

    /// Closes the file after an error that says that it cannot be used any more.
    fn judge(&self, failed: &Arc<Database>, error: StoreError) -> StoreError {
        let is_broken = matches!(error, StoreError::DiskFull(_) | StoreError::Failed(_) | StoreError::Io { .. });
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if is_broken && database.as_ref().is_some_and(|current| Arc::ptr_eq(current, failed)) {
            tracing::warn!(store = %self.place, %error, "the store failed");
            *database = None;
        }
        error
    }
}

fn builder(cache_bytes: usize) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    builder
}

fn open_path(path: &Path, place: &str, cache_bytes: usize) -> Result<Database, StoreError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(|error| error::io("making the directory of", place, error))?;
    if !path.exists() {
        make(path, directory, place)?;
    }
    let file = options().open(path).map_err(|error| error::io("opening", place, error))?;
    with_table(builder(cache_bytes).create_file(file), place)
}

/// A file that only its owner can read.
fn options() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes the file whole before it gets its name: power that goes in the middle of it would leave a file that is no
/// store, and that nobody could tell from one that was damaged.
fn make(path: &Path, directory: &Path, place: &str) -> Result<(), StoreError> {
    let mut unfinished = path.as_os_str().to_os_string();
    unfinished.push(format!(".new-{}", std::process::id()));
    let unfinished = Path::new(&unfinished);
    let file = options().truncate(true).open(unfinished).map_err(|error| error::io("making", place, error))?;
    drop(with_table(builder(DEFAULT_CACHE_BYTES).create_file(file), place)?);
    // A link does not replace what somebody else made meanwhile. Not every file system has links.
    match fs::hard_link(unfinished, path) {
        Ok(()) => fs::remove_file(unfinished),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::remove_file(unfinished),
        Err(_) => fs::rename(unfinished, path),
    }
    .and_then(|()| sync_directory(directory))
    .map_err(|error| error::io("naming", place, error))
}

/// The name of a new file is durable when its directory is.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(directory)?.sync_all() } else { Ok(()) }
}

/// Makes the table where there is none.
fn with_table(opened: Result<Database, DatabaseError>, place: &str) -> Result<Database, StoreError> {
    let database = opened.map_err(|error| error::opening(place, error))?;
    let reading = database.begin_read().map_err(|error| error::beginning(place, error))?;
    match reading.open_table(ROWS) {
        Ok(_) => return Ok(database),
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error::table(place, error)),
    }
    let mut writing = database.begin_write().map_err(|error| error::beginning(place, error))?;
    writing.set_two_phase_commit(true);
    writing.open_table(ROWS).map_err(|error| error::table(place, error))?;
    writing.commit().map_err(|error| error::committing(place, error))?;
    Ok(database)
}

impl Engine for RedbEngine {
    type Snapshot = RedbSnapshot;

    fn snapshot(&self) -> Result<RedbSnapshot, StoreError> {
        let mut latest = self.file.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(latest) = &*latest {
            return Ok(latest.clone());
        }
        let database = self.file.database()?;
        let place = &self.file.place;
        let table = database
            .begin_read()
            .map_err(|error| error::beginning(place, error))
            .and_then(|reading| reading.open_table(ROWS).map_err(|error| error::table(place, error)))
            .map_err(|error| self.file.judge(&database, error))?;
        let snapshot = RedbSnapshot(Arc::new(Reading { table, database, file: Arc::downgrade(&self.file) }));
        *latest = Some(snapshot.clone());
        Ok(snapshot)
    }

    fn write(&self, work: Work<'_>) -> Result<(), StoreError> {
        let database = self.file.database()?;
        let result = transaction(&database, &self.file.place, work).map_err(|error| self.file.judge(&database, error));
        self.file.latest.lock().unwrap_or_else(PoisonError::into_inner).take();
        result
    }

    fn place(&self) -> String {
        self.file.place.clone()
    }
}

fn transaction(database: &Database, place: &str, work: Work<'_>) -> Result<(), StoreError> {
    let mut writing = database.begin_write().map_err(|error| error::beginning(place, error))?;
    writing.set_two_phase_commit(true);
    let table = writing.open_table(ROWS).map_err(|error| error::table(place, error))?;
    let mut rows = RedbWriter { table, place, changed: false };
    work(&mut rows)?;
    let changed = rows.changed;
    drop(rows);
    // What changes nothing needs no flush.
    match changed {
        true => writing.commit().map_err(|error| error::committing(place, error)),
        false => writing.abort().map_err(|error| error::storage(place, error)),
    }
}

/// The rows at one moment.
#[derive(Clone, Debug)]
pub struct RedbSnapshot(Arc<Reading>);

struct Reading {
    table: Rows,
    database: Arc<Database>,
    file: Weak<File>,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reading")
    }
}

impl Reading {
    fn judge(&self, error: StoreError) -> StoreError {
        match self.file.upgrade() {
            Some(file) => {
                let error = file.judge(&self.database, error);
                file.latest.lock().unwrap_or_else(PoisonError::into_inner).take();
                error
            }
            None => error,
        }
    }
}

impl EngineRead for RedbSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        get(&self.0.table, key, "the store").map_err(|error| self.0.judge(error))
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, order: Scan, visit: Visit<'_>) -> Result<(), StoreError> {
        scan(&self.0.table, start, end, order, visit, "the store").map_err(|error| self.0.judge(error))
    }
}

struct RedbWriter<'tx> {
    table: Table<'tx, &'static [u8], &'static [u8]>,
    place: &'tx str,
    changed: bool,
}

impl EngineRead for RedbWriter<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        get(&self.table, key, self.place)
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, order: Scan, visit: Visit<'_>) -> Result<(), StoreError> {
        scan(&self.table, start, end, order, visit, self.place)
    }
}

impl EngineWrite for RedbWriter<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.changed = true;
        self.table.insert(key, value).map(|_| ()).map_err(|error| error::storage(self.place, error))
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let removed = self.table.remove(key).map_err(|error| error::storage(self.place, error))?;
        self.changed |= removed.is_some();
        Ok(())
    }
}

fn get(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
    place: &str,
) -> Result<Option<Vec<u8>>, StoreError> {
    let row = table.get(key).map_err(|error| error::storage(place, error))?;
    Ok(row.map(|row| row.value().to_vec()))
}

fn scan(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    start: &[u8],
    end: Option<&[u8]>,
    order: Scan,
    visit: Visit<'_>,
    place: &str,
) -> Result<(), StoreError> {
    // redb does not take a range whose end is before its start.
    if end.is_some_and(|end| end <= start) {
        return Ok(());
    }
    let mut range = match end {
        Some(end) => table.range::<&[u8]>(start..end),
        None => table.range::<&[u8]>(start..),
    }
    .map_err(|error| error::storage(place, error))?;
    let next = move || match order {
        Scan::Forward => range.next(),
        Scan::Backward => range.next_back(),
    };
    for row in std::iter::from_fn(next) {
        let (key, value) = row.map_err(|error| error::storage(place, error))?;
        if visit(key.value(), value.value()).is_break() {
            break;
        }
    }
    Ok(())
}
