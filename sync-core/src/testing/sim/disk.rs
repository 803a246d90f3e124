//! A simulated disk: an engine whose committed rows outlive a crash, and that fails on demand; and a
//! store over it whose futures are ready at once, so that nothing but the simulation orders events.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    canary::{self, Canary},
    model::{Hash, Key, ReplicaId, SlotRange, Summary},
    store::{reconcile::Widths, *},
};

/// The rows of a disk.
pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// How a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trouble {
    /// No space: every write fails.
    pub full: bool,
    /// So many writes succeed before one fails.
    pub fails_after: Option<u32>,
    /// The power goes after so many operations.
    pub power_ends_after: Option<u32>,
}

#[derive(Default)]
struct State {
    rows: Arc<Rows>,
    trouble: Trouble,
    failed: u64,
    /// The power has gone.
    off: bool,
    /// What is really on the disk, when it has claimed more.
    flushed: Option<Arc<Rows>>,
}

/// A disk. Clones are handles of the same one.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Disk({} rows)", self.lock().rows.len())
    }
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// How many writes have failed.
    pub fn failed(&self) -> u64 {
        self.lock().failed
    }
}

impl Engine for Disk {
    type Snapshot = Image;

    fn snapshot(&self) -> Result<Image, StoreError> {
        Ok(Image(self.lock().rows.clone()))
    }

    fn write(&self, work: Work<'_>) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.off {
            return Err(power_is_off());
        }
        if state.trouble.full {
            state.failed += 1;
            return Err(StoreError::DiskFull("the simulated disk".into()));
        }
        match &mut state.trouble.fails_after {
            Some(0) => {
                state.trouble.fails_after = None;
                state.failed += 1;
                if canary::is_out(Canary::RetryFlush) {
                    let rows = state.rows.clone();
                    state.flushed.get_or_insert(rows);
                    drop(state);
                    return self.write(work);
                }
                return Err(StoreError::Io {
                    context: "writing to the simulated disk".into(),
                    source: Arc::new(std::io::Error::other("an injected fault")),
                });
            }
            Some(left) => *left -= 1,
            None => {}
        }
        // A write is two operations: what is written, and that it is there.
        let last = state.trouble.power_ends_after.filter(|left| *left < 2);
        match &mut state.trouble.power_ends_after {
            Some(left) if *left >= 2 => *left -= 2,
            _ => {}
        }
        if last.is_some() {
            state.off = true;
        }
        if last == Some(0) {
            return Err(power_is_off());
        }
        let mut writer = Writer { rows: std::mem::take(&mut state.rows), undo: Vec::new() };
        let result = work(&mut writer);
        if result.is_err() {
            writer.undo();
        }
        state.rows = writer.rows;
        match last {
            Some(_) => Err(power_is_off()),
            None => result,
        }
    }

    fn place(&self) -> String {
        "the simulated disk".into()
    }
}

fn power_is_off() -> StoreError {
    StoreError::Io {
        context: "writing to the simulated disk".into(),
        source: Arc::new(std::io::Error::other("the power is off")),
    }
}

/// The rows at one moment.
#[derive(Debug)]
pub struct Image(Arc<Rows>);

impl EngineRead for Image {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, order: Scan, visit: Visit<'_>) -> Result<(), StoreError> {
        scan(&self.0, start, end, order, visit);
        Ok(())
    }
}

/// Rows in the hands of the writer, and the way back.
struct Writer {
    rows: Arc<Rows>,
    undo: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Writer {
    fn undo(&mut self) {
        let rows = Arc::make_mut(&mut self.rows);
        for (key, value) in self.undo.drain(..).rev() {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
    }
}

impl EngineRead for Writer {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, order: Scan, visit: Visit<'_>) -> Result<(), StoreError> {
        scan(&self.rows, start, end, order, visit);
        Ok(())
    }
}

impl EngineWrite for Writer {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let old = Arc::make_mut(&mut self.rows).insert(key.to_vec(), value.to_vec());
        self.undo.push((key.to_vec(), old));
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        if let Some(old) = Arc::make_mut(&mut self.rows).remove(key) {
            self.undo.push((key.to_vec(), Some(old)));
        }
        Ok(())
    }
}

fn scan(rows: &Rows, start: &[u8], end: Option<&[u8]>, order: Scan, visit: Visit<'_>) {
    // A range whose end is before its start is empty here, and a panic in the map.
    if end.is_some_and(|end| end <= start) {
        return;
    }
    let mut range = rows.range::<[u8], _>((Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded)));
    let next = move || match order {
        Scan::Forward => range.next(),
        Scan::Backward => range.next_back(),
    };
    for (key, value) in std::iter::from_fn(next) {
        if visit(key, value).is_break() {
            break;
        }
    }
}

/// What a node's store is on: it fails on demand, and what was committed there outlives a crash.
pub trait Device: fmt::Debug {
    /// Opens the store on it, or makes a new one there from `fresh`.
    fn open(&self, fresh: [u8; 32], widths: Widths) -> Result<SimStore, StoreError>;

    /// The same as it is now, on a device of its own.
    fn copy(&self) -> Rc<dyn Device>;

    /// Whether nothing was ever on it.
    fn is_empty(&self) -> bool;

    /// How it fails from now on.
    fn set_trouble(&self, trouble: Trouble);

    /// How it fails now.
    fn trouble(&self) -> Trouble;

    /// Whether the power is on. Once it has gone, nothing can be written until [`Self::cut_power`] brings it back.
    fn has_power(&self) -> bool;

    /// The power goes, or the process dies, and comes back: what was not flushed may be lost, as `draw` says.
    fn cut_power(&self, draw: u64);
}

impl Device for Disk {
    fn open(&self, fresh: [u8; 32], widths: Widths) -> Result<SimStore, StoreError> {
        Ok(SimStore::new(Core::open(self.clone(), fresh)?.with_widths(widths)))
    }

    fn copy(&self) -> Rc<dyn Device> {
        let rows = self.lock().rows.clone();
        Rc::new(Self(Arc::new(Mutex::new(State { rows, ..State::default() }))))
    }

    fn is_empty(&self) -> bool {
        self.lock().rows.is_empty()
    }

    fn set_trouble(&self, trouble: Trouble) {
        self.lock().trouble = trouble;
    }

    fn trouble(&self) -> Trouble {
        self.lock().trouble
    }

    fn has_power(&self) -> bool {
        !self.lock().off
    }

    fn cut_power(&self, _: u64) {
        let mut state = self.lock();
        state.off = false;
        state.trouble.power_ends_after = None;
        if let Some(rows) = state.flushed.take() {
            state.rows = rows;
        }
    }
}

/// The logic of a store over any engine, for calls that do not wait.
#[derive(Debug)]
pub struct SimStore(Arc<dyn Logic>);

impl SimStore {
    /// Opens the store on an engine, or makes a new one there from `fresh`.
    pub fn open<E: Engine>(engine: E, fresh: [u8; 32]) -> Result<Self, StoreError> {
        Core::open(engine, fresh).map(Self::new)
    }

    /// A store with this logic.
    pub fn new<E: Engine>(core: Core<E>) -> Self {
        Self(Arc::new(core))
    }

    /// The logic beneath, for calls that do not wait.
    pub(super) fn core(&self) -> &dyn Logic {
        &*self.0
    }

    fn write(&self, write: Write) -> Result<Written, StoreError> {
        self.0.write(&[write]).pop().expect("one request, one answer")
    }
}

/// What [`Core`] can, whatever its engine.
pub trait Logic: fmt::Debug + Send + Sync {
    fn store_id(&self) -> StoreId;
    fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError>;
    fn write(&self, group: &[Write]) -> Vec<Result<Written, StoreError>>;
    fn state(&self, id: ReplicaId) -> Result<ReplicaState, StoreError>;
    fn get(&self, id: ReplicaId, key: &Key) -> Result<Option<LogEntry>, StoreError>;
    fn query(&self, id: ReplicaId, query: &Query) -> Result<Vec<LogEntry>, StoreError>;
    fn summary(&self, id: ReplicaId, range: &SlotRange) -> Result<Summary, StoreError>;
    fn scope_summary(&self, id: ReplicaId, scope: &Scope) -> Result<Summary, StoreError>;
    fn split(&self, id: ReplicaId, range: &SlotRange, parts: usize) -> Result<Vec<(SlotRange, Summary)>, StoreError>;
    fn log(&self, id: ReplicaId, since: Position, limit: usize) -> Result<Vec<LogEntry>, StoreError>;
    fn changes(&self, request: &ChangesRequest) -> Result<Changes, StoreError>;
    fn first_claims(&self, id: ReplicaId, scope: &Scope) -> Result<Vec<Claim>, StoreError>;
    fn reconcile(&self, id: ReplicaId, scope: &Scope, claims: Vec<Claim>) -> Result<Reconciled, StoreError>;
    fn coded(&self, id: ReplicaId, since: Position, count: usize) -> Result<Option<coded::CodedSet>, StoreError>;
    fn find(&self, id: ReplicaId, ids: &[ShortId]) -> Result<Found, StoreError>;
    fn missing(
        &self,
        id: ReplicaId,
        scope: &Scope,
        missing: &[Missing],
        max_bytes: usize,
    ) -> Result<MissingPage, StoreError>;
    fn node_records(&self, kind: NodeKind) -> Result<Vec<NodeRecord>, StoreError>;
}

impl<E: Engine> Logic for Core<E> {
    fn store_id(&self) -> StoreId {
        Core::store_id(self)
    }

    fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError> {
        Core::replicas(self)
    }

    fn write(&self, group: &[Write]) -> Vec<Result<Written, StoreError>> {
        Core::write(self, group)
    }

    fn state(&self, id: ReplicaId) -> Result<ReplicaState, StoreError> {
        Core::state(self, id)
    }

    fn get(&self, id: ReplicaId, key: &Key) -> Result<Option<LogEntry>, StoreError> {
        Core::get(self, id, key)
    }

    fn query(&self, id: ReplicaId, query: &Query) -> Result<Vec<LogEntry>, StoreError> {
        Core::query(self, id, query)
    }

    fn summary(&self, id: ReplicaId, range: &SlotRange) -> Result<Summary, StoreError> {
        Core::summary(self, id, range)
    }

    fn scope_summary(&self, id: ReplicaId, scope: &Scope) -> Result<Summary, StoreError> {
        Core::scope_summary(self, id, scope)
    }

    fn split(&self, id: ReplicaId, range: &SlotRange, parts: usize) -> Result<Vec<(SlotRange, Summary)>, StoreError> {
        Core::split(self, id, range, parts)
    }

    fn log(&self, id: ReplicaId, since: Position, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        Core::log(self, id, since, limit)
    }

    fn changes(&self, request: &ChangesRequest) -> Result<Changes, StoreError> {
        Core::changes(self, request)
    }

    fn first_claims(&self, id: ReplicaId, scope: &Scope) -> Result<Vec<Claim>, StoreError> {
        Core::first_claims(self, id, scope)
    }

    fn reconcile(&self, id: ReplicaId, scope: &Scope, claims: Vec<Claim>) -> Result<Reconciled, StoreError> {
        Core::reconcile(self, id, scope, claims)
    }

    fn coded(&self, id: ReplicaId, since: Position, count: usize) -> Result<Option<coded::CodedSet>, StoreError> {
        Core::coded(self, id, since, count)
    }

    fn find(&self, id: ReplicaId, ids: &[ShortId]) -> Result<Found, StoreError> {
        Core::find(self, id, ids)
    }

    fn missing(
        &self,
        id: ReplicaId,
        scope: &Scope,
        missing: &[Missing],
        max_bytes: usize,
    ) -> Result<MissingPage, StoreError> {
        Core::missing(self, id, scope, missing, max_bytes)
    }

    fn node_records(&self, kind: NodeKind) -> Result<Vec<NodeRecord>, StoreError> {
        Core::node_records(self, kind)
    }
}

#[async_trait]
impl ReplicaStore for SimStore {
    fn store_id(&self) -> StoreId {
        self.0.store_id()
    }

    async fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError> {
        self.0.replicas()
    }

    async fn create_replica(&self, replica: ReplicaId, records: Vec<NodeRecord>) -> Result<(), StoreError> {
        self.write(Write::CreateReplica { replica, records }).map(|_| ())
    }

    async fn drop_replica(&self, replica: ReplicaId, records: Vec<NodeRecord>) -> Result<u64, StoreError> {
        match self.write(Write::DropReplica { replica, records })? {
            Written::Freed(bytes) => Ok(bytes),
            other => unreachable!("a dropped replica answers its bytes, not {other:?}"),
        }
    }

    async fn state(&self, replica: ReplicaId) -> Result<ReplicaState, StoreError> {
        self.0.state(replica)
    }

    async fn apply(&self, batch: Apply) -> Result<Applied, StoreError> {
        match self.write(Write::Apply(batch))? {
            Written::Applied(applied) => Ok(applied),
            other => unreachable!("an applied batch answers its outcomes, not {other:?}"),
        }
    }

    async fn get(&self, replica: ReplicaId, key: Key) -> Result<Option<LogEntry>, StoreError> {
        self.0.get(replica, &key)
    }

    async fn query_each(&self, replica: ReplicaId, queries: Vec<Query>) -> Result<Vec<Vec<LogEntry>>, StoreError> {
        queries.iter().map(|query| self.0.query(replica, query)).collect()
    }

    async fn summary(&self, replica: ReplicaId, range: SlotRange) -> Result<Summary, StoreError> {
        self.0.summary(replica, &range)
    }

    async fn scope_summary(&self, replica: ReplicaId, scope: Scope) -> Result<Summary, StoreError> {
        self.0.scope_summary(replica, &scope)
    }

    async fn split(
        &self,
        replica: ReplicaId,
        range: SlotRange,
        parts: usize,
    ) -> Result<Vec<(SlotRange, Summary)>, StoreError> {
        self.0.split(replica, &range, parts)
    }

    async fn log(&self, replica: ReplicaId, since: Position, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        self.0.log(replica, since, limit)
    }

    async fn changes(&self, request: ChangesRequest) -> Result<Changes, StoreError> {
        self.0.changes(&request)
    }

    async fn first_claims(&self, replica: ReplicaId, scope: Scope) -> Result<Vec<Claim>, StoreError> {
        self.0.first_claims(replica, &scope)
    }

    async fn reconcile(&self, replica: ReplicaId, scope: Scope, claims: Vec<Claim>) -> Result<Reconciled, StoreError> {
        self.0.reconcile(replica, &scope, claims)
    }

    async fn coded(
        &self,
        replica: ReplicaId,
        since: Position,
        count: usize,
    ) -> Result<Option<coded::CodedSet>, StoreError> {
        self.0.coded(replica, since, count)
    }

    async fn find(&self, replica: ReplicaId, ids: Vec<ShortId>) -> Result<Found, StoreError> {
        self.0.find(replica, &ids)
    }

    async fn missing(
        &self,
        replica: ReplicaId,
        scope: Scope,
        missing: Vec<Missing>,
        max_bytes: usize,
    ) -> Result<MissingPage, StoreError> {
        self.0.missing(replica, &scope, &missing, max_bytes)
    }

    async fn node_records(&self, kind: NodeKind) -> Result<Vec<NodeRecord>, StoreError> {
        self.0.node_records(kind)
    }

    async fn save(&self, records: Vec<NodeRecord>) -> Result<(), StoreError> {
        self.write(Write::Save { records }).map(|_| ())
    }

    async fn close(&self) {}
}

fn no_contents<T>() -> Result<T, StoreError> {
    Err(StoreError::Failed("simulated nodes keep no contents".into()))
}

/// Contents are simulated nowhere yet: entries of simulations hold their values.
#[async_trait]
impl ContentStore for SimStore {
    async fn content_status(&self, _: Hash) -> Result<ContentStatus, StoreError> {
        Ok(ContentStatus::Missing)
    }

    async fn import_path(&self, _: PathBuf, _: Option<Hash>, _: OnProgress) -> Result<Imported, StoreError> {
        no_contents()
    }

    async fn import_paths(&self, _: Vec<PathBuf>) -> Result<Vec<Result<Imported, StoreError>>, StoreError> {
        no_contents()
    }

    async fn import_bytes(&self, _: Bytes) -> Result<Imported, StoreError> {
        no_contents()
    }

    async fn reader(&self, _: Hash) -> Result<Option<Reader>, StoreError> {
        Ok(None)
    }

    async fn held_reader(&self, _: ReplicaId, _: Hash) -> Result<Option<Reader>, StoreError> {
        Ok(None)
    }

    async fn wants(&self, _: Option<Want>, _: usize) -> Result<Vec<Want>, StoreError> {
        Ok(Vec::new())
    }

    async fn count_wants(&self, _: ReplicaId, _: u64) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn references(&self, _: ReplicaId, _: Hash, _: Scope, _: usize) -> Result<Vec<Key>, StoreError> {
        Ok(Vec::new())
    }

    async fn begin_download(&self, _: Hash, _: u64) -> Result<Begun, StoreError> {
        no_contents()
    }

    async fn checkpoint_download(&self, _: Arc<Download>) -> Result<(), StoreError> {
        no_contents()
    }

    async fn finish_downloads(&self, _: Vec<Arc<Download>>) -> Result<(), StoreError> {
        no_contents()
    }

    async fn hold_content(&self, _: ReplicaId, _: Hash) -> Result<bool, StoreError> {
        no_contents()
    }

    async fn content_damaged(&self, _: Hash) -> Result<(), StoreError> {
        no_contents()
    }

    async fn collect_content(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}
