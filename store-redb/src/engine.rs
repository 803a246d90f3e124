//! The engine seam on one redb table of bytes, with a journal in front of it.
//!
//! A redb commit writes pages of the tree for each row and flushes twice. So a small transaction is appended to the
//! journal (`journal.rs`), one flush, and its rows are kept in memory above redb's; a thread folds them into redb
//! by the thousand. A large transaction goes to redb at once, together with what is in memory, unless that is much.
//! Readers see redb's rows with those in memory above them.
//!
//! redb's commits are two-phase: its design document says that one-phase commits with checksums can be
//! attacked with chosen data, and most data here was chosen by others. After an I/O error the files
//! are closed and opened again before anything else is done with them: a failed flush is never
//! retried on the same file, as the kernel may have marked the pages clean.
//!
//! Locks are taken in this order: `writing`, `folding`, `state`.

use std::{
    cell::OnceCell,
    fmt, fs, io,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread::JoinHandle,
    time::Duration,
};

use redb::{Builder, Database, StorageBackend, backends::FileBackend};
use sync_core::store::{Engine, EngineRead, EngineWrite, Scan, StoreError, Visit, Work};

use crate::{
    error,
    guard::Guarded,
    journal::{Journal, Record},
    overlay::{Layer, Overlay},
    table::{self, JournalState, Rows, RowsInWriting, Writing},
};

/// How much memory redb may use for its cache unless told otherwise; its own default is 1 GiB. What is not in it is in
/// the system's: memory does more as larger transactions than here.
pub const DEFAULT_CACHE_BYTES: usize = 24 * 1024 * 1024;

/// How long rows stay in memory alone when few come: reads are a little faster without them.
const FOLD_AFTER: Duration = Duration::from_secs(1);

/// What bounds the journal and the rows in memory.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A transaction with more bytes of rows goes to redb at once. Larger ones gain nothing from the journal: they
    /// share redb's pages among themselves. But where more than this waits in memory, which would have to be folded
    /// first, it goes into the journal too, up to `overlay_bytes`.
    pub transaction_bytes: usize,
    /// With so many bytes in memory the rows are folded. As many again may come while that is done, and one
    /// transaction more.
    pub overlay_bytes: usize,
    /// The size of each half of the journal: when one is full, its rows are folded.
    pub half_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { transaction_bytes: 256 * 1024, overlay_bytes: 6 * 1024 * 1024, half_bytes: 16 * 1024 * 1024 }
    }
}

/// A redb file and its journal as an engine.
pub struct RedbEngine {
    store: Arc<Store>,
    folder: Option<JoinHandle<()>>,
}

impl fmt::Debug for RedbEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedbEngine({})", self.store.place)
    }
}

struct Store {
    place: String,
    limits: Limits,
    open: Box<dyn Fn() -> Result<Files, StoreError> + Send + Sync>,
    /// Held by the one writer.
    writing: Mutex<()>,
    /// Held by whoever folds, or opens the files.
    folding: Mutex<()>,
    state: Mutex<State>,
    /// Wakes the thread that folds.
    wake: Condvar,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

/// What opening gives.
struct Files {
    database: Guarded<Database>,
    /// None where every transaction goes to redb at once.
    journal: Option<Journal>,
    /// What the journal had and redb had not.
    unfolded: Layer,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    /// Why the files were closed, for those who still used them.
    failure: Option<StoreError>,
    /// Folding failed: it is the next writer's, who can be told, to try again.
    fold_failed: bool,
    /// The engine is being dropped.
    ends: bool,
}

/// The files while they can be used, and what readers see.
struct Current {
    files: Arc<Opened>,
    base: Arc<Base>,
    overlay: Overlay,
    /// The number of the last record that the frozen rows come from.
    frozen_through: u64,
    /// The frozen rows are those of an earlier process or opening: they go before anything is written.
    is_recovered: bool,
}

impl Current {
    /// Whether nothing more may come before the rows are frozen.
    fn is_full(&self, limits: &Limits) -> bool {
        let has_room = |journal: &Mutex<Journal>| lock(journal).room() >= limits.transaction_bytes;
        self.overlay.active.bytes() > limits.overlay_bytes || !self.files.journal.as_ref().is_none_or(has_room)
    }

    /// How many bytes of rows a transaction may have in the journal.
    fn most(&self, limits: &Limits) -> usize {
        match &self.files.journal {
            Some(journal) if self.overlay.bytes() > limits.transaction_bytes => {
                limits.overlay_bytes.min(lock(journal).room())
            }
            _ => limits.transaction_bytes,
        }
    }
}

struct Opened {
    place: String,
    database: Guarded<Database>,
    journal: Option<Mutex<Journal>>,
}

/// redb's rows at one moment.
struct Base {
    table: Rows,
    /// While somebody reads, the files stay locked.
    files: Arc<Opened>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RedbEngine {
    /// Opens the file, or makes a new one that only its owner can read, and the directories above it.
    /// The journal lies beside it, under the same name with `.journal` behind it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with_cache(path, DEFAULT_CACHE_BYTES)
    }

    /// Opens the file with a cache of so many bytes.
    pub fn open_with_cache(path: impl AsRef<Path>, cache_bytes: usize) -> Result<Self, StoreError> {
        let path = path.as_ref().to_path_buf();
        let place = path.display().to_string();
        let limits = Limits::default();
        let mut engine = Self::new(place.clone(), limits, move || open_path(&path, &place, cache_bytes, &limits))?;
        let store = engine.store.clone();
        let folder = std::thread::Builder::new().name("store folder".into()).spawn(move || fold_all(&store));
        engine.folder = Some(folder.map_err(|error| error::io("starting a thread for", &engine.store.place, error))?);
        Ok(engine)
    }

    /// Opens a store on a backend of redb's, and again on another after an I/O error: tests cut,
    /// tear and refuse its writes. There is no journal: every transaction is one of redb's.
    pub fn with_backend<B: StorageBackend>(
        open: impl Fn() -> io::Result<B> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let place = "the given backend";
        Self::new(place.into(), Limits::default(), move || {
            let backend = open().map_err(|error| error::io("opening", place, error))?;
            let open = || builder(DEFAULT_CACHE_BYTES).create_with_backend(backend);
            let (database, _) = table::with_tables(open, place, || [0; 32])?;
            Ok(Files { database, journal: None, unfolded: Layer::default() })
        })
    }

    /// The same with a journal: `open` answers a backend for the redb file and one for the journal. Nothing is done
    /// in the background: whoever fills the journal folds it. `secret` ties the two together.
    pub fn with_backends<B: StorageBackend>(
        open: impl Fn() -> io::Result<(B, B)> + Send + Sync + 'static,
        limits: Limits,
        secret: [u8; 32],
    ) -> Result<Self, StoreError> {
        let place = "the given backend";
        Self::new(place.into(), limits, move || {
            let (rows, journal) = open().map_err(|error| error::io("opening", place, error))?;
            let open = || builder(DEFAULT_CACHE_BYTES).create_with_backend(rows);
            let (database, state) = table::with_tables(open, place, || secret)?;
            Files::new(database, state, Box::new(journal), &limits, place)
        })
    }

    fn new(
        place: String,
        limits: Limits,
        open: impl Fn() -> Result<Files, StoreError> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let store = Store {
            place,
            limits,
            open: Box::new(open),
            writing: Mutex::default(),
            folding: Mutex::default(),
            state: Mutex::default(),
            wake: Condvar::new(),
        };
        store.current(|_| ())?;
        Ok(Self { store: Arc::new(store), folder: None })
    }

    /// Folds what is in memory into redb: nothing is left in the journal.
    fn fold_now(&self) -> Result<(), StoreError> {
        let _one = lock(&self.store.writing);
        let files = self.store.current(|current| current.files.clone())?;
        self.store.fold(&files)?;
        self.store.freeze(&files);
        self.store.fold(&files)?;
        match &files.journal {
            Some(journal) => lock(journal).shrink(),
            None => Ok(()),
        }
    }
}

impl Drop for RedbEngine {
    fn drop(&mut self) {
        lock(&self.store.state).ends = true;
        self.store.wake.notify_all();
        if let Some(folder) = self.folder.take() {
            // A panic there was reported when it happened.
            let _ = folder.join();
        }
        if lock(&self.store.state).current.is_some()
            && let Err(error) = self.fold_now()
        {
            // Nothing is lost: it is in the journal.
            tracing::warn!(store = %self.store.place, %error, "the journal could not be folded");
        }
    }
}

impl Files {
    fn new(
        database: Guarded<Database>,
        JournalState { secret, folded }: JournalState,
        journal: Box<dyn StorageBackend>,
        limits: &Limits,
        place: &str,
    ) -> Result<Self, StoreError> {
        let (journal, unfolded) = Journal::open(journal, (secret, folded), limits.half_bytes, place)?;
        Ok(Self { database, journal: Some(journal), unfolded })
    }
}

impl Store {
    /// Looks at the files and what is in memory; opens them again when they failed before.
    fn current<T>(&self, look: impl FnOnce(&Current) -> T) -> Result<T, StoreError> {
        if let Some(current) = &lock(&self.state).current {
            return Ok(look(current));
        }
        // Whoever folds still has the old files.
        let _one = lock(&self.folding);
        let mut state = lock(&self.state);
        if state.current.is_none() {
            tracing::debug!(store = %self.place, "opening the store");
            let opened = (self.open)().map_err(|error| match (error, &state.failure) {
                // By nobody but what this process had open before: a reader, or redb where it panicked.
                (StoreError::InUse(_), Some(failure)) => failure.clone(),
                (error, _) => error,
            });
            let Files { database, journal, unfolded } = opened?;
            let table = table::read(&database, &self.place)?;
            let frozen_through = journal.as_ref().map_or(0, Journal::number);
            let files = Arc::new(Opened { place: self.place.clone(), database, journal: journal.map(Mutex::new) });
            let base = Arc::new(Base { table, files: files.clone() });
            let is_recovered = !unfolded.is_empty();
            state.fold_failed &= is_recovered;
            let overlay = Overlay { active: Layer::default(), frozen: unfolded };
            state.current = Some(Current { files, base, overlay, frozen_through, is_recovered });
            self.wake.notify_all();
        }
        Ok(look(state.current.as_ref().expect("it was opened at the latest now")))
    }

    /// Does something with the state of these files, if they are still in use.
    fn with<T>(&self, files: &Arc<Opened>, work: impl FnOnce(&mut Current) -> T) -> Option<T> {
        let mut state = lock(&self.state);
        state.current.as_mut().filter(|current| Arc::ptr_eq(&current.files, files)).map(work)
    }

    /// Closes the files after an error that says that they cannot be used any more.
    fn judge(&self, failed: &Arc<Opened>, error: StoreError) -> StoreError {
        let is_broken = matches!(error, StoreError::DiskFull(_) | StoreError::Failed(_) | StoreError::Io { .. });
        let mut state = lock(&self.state);
        if is_broken && state.current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.files, failed)) {
            tracing::warn!(store = %self.place, %error, "the store failed");
            state.current = None;
            state.failure = Some(error.clone());
        }
        error
    }

    /// What closed files that somebody wants to go on with.
    fn failure(&self) -> StoreError {
        let closed = || StoreError::Failed(format!("{} was closed after an error", self.place));
        lock(&self.state).failure.clone().unwrap_or_else(closed)
    }

    /// Puts the rows in memory where they are folded, if nothing is there. The caller is the writer.
    fn freeze(&self, files: &Arc<Opened>) {
        let Some(journal) = &files.journal else { return };
        self.with(files, |current| {
            if current.overlay.frozen.is_empty() && !current.overlay.active.is_empty() {
                let mut journal = lock(journal);
                current.overlay.frozen = std::mem::take(&mut current.overlay.active);
                current.frozen_through = journal.number();
                journal.turn();
                self.wake.notify_all();
            }
        });
    }

    /// Folds the frozen rows into redb, if there are any.
    fn fold(&self, files: &Arc<Opened>) -> Result<(), StoreError> {
        let _one = lock(&self.folding);
        let Some((frozen, through)) =
            self.with(files, |current| (current.overlay.frozen.clone(), current.frozen_through))
        else {
            return Err(self.failure());
        };
        if frozen.is_empty() {
            return Ok(());
        }
        let result = self.fold_rows(&files.database, &frozen, through);
        lock(&self.state).fold_failed = result.is_err();
        result
            .and_then(|()| self.rebase(files, |current| std::mem::take(&mut current.overlay.frozen)))
            .map_err(|error| self.judge(files, error))
    }

    fn fold_rows(&self, database: &Database, frozen: &Layer, through: u64) -> Result<(), StoreError> {
        let place = &self.place;
        let writing = table::begin(database, place)?;
        let mut rows = table::open(&writing, place)?;
        for (key, row) in frozen.rows() {
            table::set(&mut rows, key, row, place)?;
        }
        drop(rows);
        table::set_folded(&writing, through, place)?;
        table::commit(writing, place)
    }

    /// Shows readers what redb has now, and no longer the rows in memory that it took in.
    fn rebase<T>(&self, files: &Arc<Opened>, forget: impl FnOnce(&mut Current) -> T) -> Result<(), StoreError> {
        let table = table::read(&files.database, &self.place)?;
        let base = Arc::new(Base { table, files: files.clone() });
        let forgotten = self.with(files, |current| {
            let forgotten = (std::mem::replace(&mut current.base, base), forget(current));
            if std::mem::take(&mut current.is_recovered)
                && let Some(journal) = &files.journal
            {
                lock(journal).restart();
            }
            forgotten
        });
        // Many rows: they are given back while nobody waits for the state.
        drop(forgotten);
        Ok(())
    }

    /// Runs `work` as one transaction. The caller is the writer.
    fn transact(&self, files: &Arc<Opened>, work: Work<'_>) -> Result<(), StoreError> {
        if self.with(files, |current| current.is_recovered || current.is_full(&self.limits)) == Some(true) {
            self.fold(files)?;
            self.freeze(files);
        }
        let begun =
            self.with(files, |current| (current.base.clone(), current.overlay.clone(), current.most(&self.limits)));
        let Some((base, overlay, most)) = begun else { return Err(self.failure()) };
        let transaction = OnceCell::new();
        let mut writer = Writer {
            store: self,
            files,
            base: &base.table,
            overlay,
            record: Record::default(),
            most,
            transaction: &transaction,
            rows: None,
            changed: false,
        };
        if files.journal.is_none() {
            writer.go_to_redb()?;
        }
        work(&mut writer)?;
        let (record, active, changed) = writer.end();
        match transaction.into_inner() {
            Some(writing) if changed => self.commit(files, writing),
            // What changes nothing needs no flush.
            Some(writing) => writing.abort(&self.place),
            None if record.len() > 0 => self.append(files, record, active),
            None => Ok(()),
        }
    }

    /// Commits a transaction that went into the journal.
    fn append(&self, files: &Arc<Opened>, record: Record, active: Layer) -> Result<(), StoreError> {
        let journal = files.journal.as_ref().expect("without a journal everything goes to redb");
        lock(journal).append(record)?;
        let is_full = self.with(files, |current| {
            if current.overlay.active.is_empty() {
                self.wake.notify_all();
            }
            current.overlay.active = active;
            current.is_full(&self.limits)
        });
        if is_full == Some(true) {
            // Where others are being folded still, whoever writes next waits for that.
            self.freeze(files);
        }
        Ok(())
    }

    /// Commits a transaction that went to redb, with all that was in memory.
    fn commit(&self, files: &Arc<Opened>, writing: Writing) -> Result<(), StoreError> {
        if let Some(journal) = &files.journal {
            table::set_folded(&writing, lock(journal).number(), &self.place)?;
        }
        table::commit(writing, &self.place)?;
        if let Some(journal) = &files.journal {
            lock(journal).restart();
        }
        if let Err(error) = self.rebase(files, |current| std::mem::take(&mut current.overlay)) {
            // It is durable; whoever reads next opens the files again.
            self.judge(files, error);
        }
        Ok(())
    }
}

/// Folds rows as they are frozen, and those that have been in memory for some time.
fn fold_all(store: &Store) {
    let mut state = lock(&store.state);
    loop {
        let is_idle = |state: &mut State| {
            let current = state.current.as_ref().filter(|_| !state.fold_failed);
            !state.ends && current.is_none_or(|current| current.overlay.is_empty())
        };
        state = store.wake.wait_while(state, is_idle).unwrap_or_else(PoisonError::into_inner);
        let waits = |state: &mut State| {
            let has_time = |current: &Current| current.overlay.frozen.is_empty() && !current.is_full(&store.limits);
            !state.ends && state.current.as_ref().is_some_and(has_time)
        };
        (state, _) = store.wake.wait_timeout_while(state, FOLD_AFTER, waits).unwrap_or_else(PoisonError::into_inner);
        if state.ends {
            return;
        }
        let Some(current) = &state.current else { continue };
        let (files, is_frozen) = (current.files.clone(), !current.overlay.frozen.is_empty());
        drop(state);
        if !is_frozen {
            let _one = lock(&store.writing);
            store.freeze(&files);
        }
        // What failed is in the journal, and the next writer is told.
        let _ = store.fold(&files);
        drop(files);
        state = lock(&store.state);
    }
}

fn builder(cache_bytes: usize) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    builder
}

fn open_path(path: &Path, place: &str, cache_bytes: usize, limits: &Limits) -> Result<Files, StoreError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(|error| error::io("making the directory of", place, error))?;
    if !path.exists() {
        make(path, directory, place)?;
    }
    let file = options().open(path).map_err(|error| error::io("opening", place, error))?;
    let (database, state) = table::with_tables(|| builder(cache_bytes).create_file(file), place, fresh_secret)?;
    // redb has locked its file: the journal is ours too.
    let mut journal_path = path.as_os_str().to_os_string();
    journal_path.push(".journal");
    let journal_path = Path::new(&journal_path);
    let is_new = !journal_path.exists();
    let file = options().open(journal_path).map_err(|error| error::io("opening the journal of", place, error))?;
    let journal = FileBackend::new(file).map_err(|error| error::opening(place, error))?;
    let files = Files::new(database, state, Box::new(journal), limits, place)?;
    if is_new {
        sync_directory(directory).map_err(|error| error::io("flushing the directory of", place, error))?;
    }
    Ok(files)
}

fn fresh_secret() -> [u8; 32] {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).expect("the operating system has randomness");
    secret
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
    drop(table::with_tables(|| builder(DEFAULT_CACHE_BYTES).create_file(file), place, fresh_secret)?);
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

impl Engine for RedbEngine {
    type Snapshot = RedbSnapshot;

    fn snapshot(&self) -> Result<RedbSnapshot, StoreError> {
        let (base, overlay) = self.store.current(|current| (current.base.clone(), current.overlay.clone()))?;
        Ok(RedbSnapshot { base, overlay, store: Arc::downgrade(&self.store) })
    }

    fn write(&self, work: Work<'_>) -> Result<(), StoreError> {
        let store = &self.store;
        let _one = lock(&store.writing);
        let files = store.current(|current| current.files.clone())?;
        store.transact(&files, work).map_err(|error| store.judge(&files, error))?;
        // Where there is no thread for it, this one folds.
        if self.folder.is_none() && store.with(&files, |current| !current.overlay.frozen.is_empty()) == Some(true) {
            // What failed here failed for nobody: the transaction is durable, and the files are opened again.
            let _ = store.fold(&files);
        }
        Ok(())
    }

    fn place(&self) -> String {
        self.store.place.clone()
    }
}

/// The rows at one moment.
#[derive(Clone)]
pub struct RedbSnapshot {
    base: Arc<Base>,
    overlay: Overlay,
    store: Weak<Store>,
}

impl fmt::Debug for RedbSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedbSnapshot")
    }
}

impl RedbSnapshot {
    fn judge(&self, error: StoreError) -> StoreError {
        match self.store.upgrade() {
            Some(store) => store.judge(&self.base.files, error),
            None => error,
        }
    }
}

impl EngineRead for RedbSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.overlay.get(&self.base.table, key, &self.base.files.place).map_err(|error| self.judge(error))
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, order: Scan, visit: Visit<'_>) -> Result<(), StoreError> {
        self.overlay
            .scan(&self.base.table, (start, end), order, visit, &self.base.files.place)
            .map_err(|error| self.judge(error))
    }
}

/// One transaction: in memory while it is small, in redb from then on.
struct Writer<'tx> {
    store: &'tx Store,
    files: &'tx Arc<Opened>,
    base: &'tx Rows,
    overlay: Overlay,
    record: Record,
    /// How many bytes of rows its record may have.
    most: usize,
    transaction: &'tx OnceCell<Writing>,
    rows: Option<RowsInWriting<'tx>>,
    changed: bool,
}

impl Writer<'_> {
    /// What it has done: its record, the rows in memory with its own, and whether redb's have changed.
    fn end(self) -> (Record, Layer, bool) {
        (self.record, self.overlay.active, self.changed)
    }

    fn set(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        if self.rows.is_none() && self.record.len() + Record::len_of(key, value) > self.most {
            self.go_to_redb()?;
        }
        match &mut self.rows {
            Some(rows) => self.changed |= table::set(rows, key, value, &self.store.place)?,
            None => {
                self.record.push(key, value);
                self.overlay.active.set(key, value.map(Arc::from));
            }
        }
        Ok(())
    }

    /// Takes what is in memory, this transaction's rows with it, to redb.
    fn go_to_redb(&mut self) -> Result<(), StoreError> {
        let place = &self.store.place;
        self.store.fold(self.files)?;
        let writing = table::begin(&self.files.database, place)?;
        let mut rows = table::open(self.transaction.get_or_init(|| writing), place)?;
        for (key, row) in self.overlay.active.rows() {
            table::set(&mut rows, key, row, place)?;
        }
        self.changed = self.record.len() > 0;
        self.overlay = Overlay::default();
        self.rows = Some(rows);
        Ok(())
    }
}

impl EngineRead for Writer<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match &self.rows {
            Some(rows) => table::get(rows, key, &self.store.place),
            None => self.overlay.get(self.base, key, &self.store.place),
        }
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, order: Scan, visit: Visit<'_>) -> Result<(), StoreError> {
        let place = &self.store.place;
        match &self.rows {
            Some(rows) => table::scan(rows, (start, end), order, visit, place),
            None => self.overlay.scan(self.base, (start, end), order, visit, place),
        }
    }
}

impl EngineWrite for Writer<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.set(key, Some(value))
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        // What is not there leaves no trace.
        if self.rows.is_none() && self.get(key)?.is_none() {
            return Ok(());
        }
        self.set(key, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits { transaction_bytes: 4_000, overlay_bytes: 8_000, half_bytes: 64 * 1024 };

    /// Writes so many bytes of rows at once, and answers whether they are in the journal and how much is in memory.
    fn write(engine: &RedbEngine, number: u8, bytes: usize) -> (bool, usize) {
        let look = |current: &Current| {
            let journal = current.files.journal.as_ref().expect("there is one");
            (lock(journal).number(), current.overlay.bytes())
        };
        let before = engine.store.current(look).expect("it is open").0;
        engine
            .write(&mut |rows| (0..bytes / 100).try_for_each(|row| rows.put(&[number, row as u8], &[7; 92])))
            .expect("written");
        let (after, in_memory) = engine.store.current(look).expect("it is open");
        (after > before, in_memory)
    }

    #[test]
    fn a_large_transaction_goes_to_redb_where_little_waits_and_joins_what_waits_where_that_is_much() {
        let directory = tempfile::tempdir().expect("a directory");
        let paths = ["rows", "journal"].map(|name| directory.path().join(name));
        let file = |path: &Path| FileBackend::new(options().open(path)?).map_err(io::Error::other);
        let backends = move || Ok((file(&paths[0])?, file(&paths[1])?));
        let engine = RedbEngine::with_backends(backends, SMALL, [5; 32]).expect("opened");
        assert_eq!(write(&engine, 1, 6_000), (false, 0), "nothing waits");
        assert!(write(&engine, 2, 1_000).0, "it is small");
        assert_eq!(write(&engine, 3, 6_000), (false, 0), "what waits is little");
        assert!(write(&engine, 4, 1_900).0, "it is small");
        assert_eq!(write(&engine, 5, 6_000), (true, 0), "much waits, and with this it is enough to be folded");
        assert!(write(&engine, 6, 1_900).0, "it is small");
        assert_eq!(write(&engine, 7, 10_000), (false, 0), "it has more than is folded at once");
        let rows = engine.snapshot().expect("a snapshot");
        for (number, count) in [(1, 60), (2, 10), (3, 60), (4, 19), (5, 60), (6, 19), (7, 100)] {
            let mut found = 0;
            rows.scan(&[number], Some(&[number + 1]), Scan::Forward, &mut |_, _| {
                found += 1;
                std::ops::ControlFlow::Continue(())
            })
            .expect("scanned");
            assert_eq!(found, count, "rows of transaction {number}");
        }
    }
}
