//! The logic of an embedded store, synchronous: what `EngineStore` runs on its threads, and what a
//! simulator calls directly.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    apply,
    coded::CodedSet,
    coded_sets::{self, CodedChange, CodedSets},
    engine::{Engine, EngineRead, EngineWrite, Scan, Visit},
    index::{Index, Salt},
    names::{self, Names, NewNames},
    places::{self, AllPlaces},
    read::Reader,
    reconcile::{self, View, Widths},
    rights_cache::RightsCache,
    rows::{self, Fields, Head, ReplicaNo, corrupt},
    types::{
        Applied, Apply, Changes, ChangesRequest, Claim, Found, LogEntry, Missing, MissingPage, NodeKind, NodeRecord,
        Origin, Outcome, Position, Query, Reconciled, ReplicaState, Scope, ShortId, StoreError, StoreId,
    },
};
use crate::model::{Key, PublicKey, ReplicaId, Rights, SlotRange, Summary};

/// The longest name of a node record, in bytes: engines take keys of 2,100.
pub const MAX_RECORD_NAME_LEN: usize = 2_000;

/// What is shared by the transactions of one store.
#[derive(Debug)]
pub(super) struct Shared {
    pub names: Names,
    pub rights: RightsCache,
    pub salt: Salt,
    pub coded: CodedSets,
    pub places: AllPlaces,
}

/// Something that changes a store.
#[derive(Debug, Clone)]
pub enum Write {
    /// See [`super::ReplicaStore::apply`].
    Apply(Apply),
    /// See [`super::ReplicaStore::create_replica`].
    CreateReplica {
        /// The replica.
        replica: ReplicaId,
        /// What becomes durable with it.
        records: Vec<NodeRecord>,
    },
    /// See [`super::ReplicaStore::drop_replica`].
    DropReplica {
        /// The replica.
        replica: ReplicaId,
        /// What becomes durable with it.
        records: Vec<NodeRecord>,
    },
    /// See [`super::ReplicaStore::save`].
    Save {
        /// The records.
        records: Vec<NodeRecord>,
    },
}

/// What a [`Write`] did.
#[derive(Debug, Clone)]
pub enum Written {
    /// To [`Write::Apply`].
    Applied(Applied),
    /// To [`Write::CreateReplica`] and [`Write::Save`].
    Done,
    /// To [`Write::DropReplica`]: the bytes freed.
    Freed(u64),
}

/// A store over an engine, without threads.
#[derive(Debug)]
pub struct Core<E> {
    engine: E,
    store_id: StoreId,
    shared: Shared,
    rows_read: AtomicU64,
    widths: Widths,
}

impl<E: Engine> Core<E> {
    /// Opens the store in `engine`, or makes a new one from `fresh`: 32 random bytes, unused when
    /// there is one already.
    pub fn open(engine: E, fresh: [u8; 32]) -> Result<Self, StoreError> {
        let place = engine.place();
        // Looked at without writing first: a store of a newer format must stay as it is.
        let found = load_meta(&engine.snapshot()?, &place)?;
        let Meta { store_id, salt, .. } = match found {
            Some(found) if found.format == rows::FORMAT => found,
            Some(older) => {
                engine.write(&mut |rows| rows.put(&rows::meta_key("format"), &rows::FORMAT.to_be_bytes()))?;
                older
            }
            None => {
                engine.write(&mut |rows| make_meta(rows, &fresh))?;
                load_meta(&engine.snapshot()?, &place)?.ok_or_else(|| corrupt("the new store's format"))?
            }
        };
        let shared = Shared {
            names: Names::default(),
            rights: RightsCache::default(),
            salt,
            coded: CodedSets::default(),
            places: AllPlaces::default(),
        };
        Ok(Self { engine, store_id, shared, rows_read: AtomicU64::new(0), widths: Widths::default() })
    }

    /// The same with steps of reconciliations of other widths.
    pub fn with_widths(self, widths: Widths) -> Self {
        Self { widths, ..self }
    }

    /// The store's random id.
    pub fn store_id(&self) -> StoreId {
        self.store_id
    }

    /// The engine.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// How many rows reads have looked at since the store was opened.
    pub fn rows_read(&self) -> u64 {
        self.rows_read.load(Ordering::Relaxed)
    }

    /// Does all of `group` in as few transactions as possible: each answer says that its own
    /// request is durable, or why nothing of it is. One request's failure is not another's.
    pub fn write(&self, group: &[Write]) -> Vec<Result<Written, StoreError>> {
        let mut results = Vec::with_capacity(group.len());
        for batch in group.chunk_by(|a, b| is_small(a) && is_small(b)) {
            match self.transaction(batch) {
                Ok(written) => results.extend(written),
                Err(error) if batch.len() == 1 || ends_all(&error) => {
                    results.extend(batch.iter().map(|_| Err(error.clone())));
                }
                // Whose fault it was is found by doing them one by one.
                Err(_) => results.extend(batch.iter().flat_map(|write| {
                    self.transaction(std::slice::from_ref(write)).unwrap_or_else(|error| vec![Err(error)])
                })),
            }
        }
        results
    }

    /// One transaction. The error is for all; the results are for each when it was committed.
    fn transaction(&self, batch: &[Write]) -> Result<Vec<Result<Written, StoreError>>, StoreError> {
        let mut outcome = None;
        self.engine.write(&mut |rows| {
            outcome = Some(self.perform(rows, batch)?);
            Ok(())
        })?;
        let Performed { results, new_names, new_rights, coded, created, dropped } =
            outcome.expect("an engine that succeeds has done the work");
        new_names.committed(&self.shared.names);
        for (replica, version, rights) in new_rights {
            self.shared.rights.put(replica, version, rights);
        }
        if let Some(replica) = dropped {
            self.shared.rights.forget(replica);
            self.shared.coded.forget(replica);
            self.shared.places.forget(replica);
        }
        if let Some((replica, head)) = created {
            self.shared.coded.created(replica, head);
        }
        coded.into_iter().for_each(|change| self.shared.coded.committed(change));
        Ok(results)
    }

    fn perform(&self, rows: &mut dyn EngineWrite, batch: &[Write]) -> Result<Performed, StoreError> {
        let mut performed = Performed::default();
        if let [write] = batch {
            match write {
                Write::CreateReplica { replica, records } => {
                    if names::find_replica(rows, replica)?.is_none() {
                        let number = names::number_replica(rows, replica)?;
                        performed.created = Some((number, apply::create(rows, number)?));
                    }
                    save(rows, records)?;
                    performed.results.push(Ok(Written::Done));
                    return Ok(performed);
                }
                Write::DropReplica { replica, records } => {
                    let number = names::replica_number(rows, replica)?;
                    let freed = apply::remove_replica(rows, replica, number)?;
                    save(rows, records)?;
                    performed.dropped = Some(number);
                    performed.results.push(Ok(Written::Freed(freed)));
                    return Ok(performed);
                }
                Write::Apply(_) | Write::Save { .. } => {}
            }
        }
        self.perform_small(rows, batch, &mut performed)?;
        Ok(performed)
    }

    /// Applies and saves, those of one replica together.
    fn perform_small(
        &self,
        rows: &mut dyn EngineWrite,
        batch: &[Write],
        performed: &mut Performed,
    ) -> Result<(), StoreError> {
        let mut results: Vec<Option<Result<Written, StoreError>>> = vec![None; batch.len()];
        let mut replicas: Vec<(ReplicaId, Vec<(usize, &Apply)>)> = Vec::new();
        for (at, write) in batch.iter().enumerate() {
            match write {
                Write::Save { records } => {
                    results[at] = Some(save(rows, records).map(|()| Written::Done));
                }
                Write::Apply(apply) => match replicas.iter_mut().find(|(id, _)| *id == apply.replica) {
                    Some((_, applies)) => applies.push((at, apply)),
                    None => replicas.push((apply.replica, vec![(at, apply)])),
                },
                Write::CreateReplica { .. } | Write::DropReplica { .. } => {
                    unreachable!("these have a transaction of their own")
                }
            }
        }
        for (id, applies) in replicas {
            let Some(number) = names::find_replica(rows, &id)? else {
                for (at, _) in applies {
                    results[at] = Some(Err(StoreError::UnknownReplica(id)));
                }
                continue;
            };
            // A bundle of another replica is the caller's mistake: it was verified for that one.
            let (good, bad): (Vec<_>, Vec<_>) =
                applies.into_iter().partition(|(_, apply)| apply.bundles.iter().all(|bundle| bundle.replica() == id));
            for (at, _) in bad {
                results[at] = Some(Err(StoreError::Limit("the batch has entries of another replica".into())));
            }
            let requests: Vec<&Apply> = good.iter().map(|(_, apply)| *apply).collect();
            let applied = apply::apply(rows, &self.shared, &mut performed.new_names, (id, number), &requests)?;
            let rights = match &applied.new_rights {
                Some((_, rights)) => rights.clone(),
                None => {
                    let head = Head::load(rows, number)?;
                    self.shared.rights.rights(rows, &self.shared.names, (id, number), &head)?
                }
            };
            let state = state(rows, number, rights)?;
            if let Some((version, rights)) = applied.new_rights {
                performed.new_rights.push((number, version, rights));
            }
            performed.coded.extend(applied.coded);
            for ((at, apply), outcomes) in good.into_iter().zip(applied.outcomes) {
                let refused = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Refused(_)));
                if apply.origin != Origin::Local || !refused {
                    save(rows, &apply.records)?;
                }
                let ops = apply.bundles.iter().flat_map(|bundle| bundle.entries().map(|entry| entry.op));
                let rights_changed = ops
                    .zip(&outcomes)
                    .any(|(op, outcome)| op.is_system() && matches!(outcome, Outcome::Inserted { .. }));
                results[at] = Some(Ok(Written::Applied(Applied { outcomes, state: state.clone(), rights_changed })));
            }
        }
        performed.results = results.into_iter().map(|result| result.expect("each request was performed")).collect();
        Ok(())
    }

    fn read<T>(&self, work: impl FnOnce(&dyn EngineRead) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let counted = Counted { rows: self.engine.snapshot()?, read: AtomicU64::new(0) };
        let result = work(&counted);
        self.rows_read.fetch_add(counted.read.into_inner(), Ordering::Relaxed);
        result
    }

    fn replica<T>(
        &self,
        id: ReplicaId,
        work: impl FnOnce(Reader<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.read(|rows| {
            let replica = names::replica_number(rows, &id)?;
            let (names, index) = (&self.shared.names, Index::new(rows, replica));
            work(Reader { rows, names, id, replica, index, widths: self.widths })
        })
    }

    /// See [`super::ReplicaStore::replicas`].
    pub fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError> {
        let (start, end) = rows::replica_rows();
        let mut replicas = Vec::new();
        self.read(|rows| {
            rows::scan(rows, (&start, Some(&end)), Scan::Forward, |key, _| {
                replicas.push(ReplicaId(PublicKey(Fields(&key[1..]).take("a replica's row")?)));
                Ok(true)
            })
        })?;
        Ok(replicas)
    }

    /// See [`super::ReplicaStore::state`].
    pub fn state(&self, id: ReplicaId) -> Result<ReplicaState, StoreError> {
        self.replica(id, |reader| {
            let head = Head::load(reader.rows, reader.replica)?;
            let rights = self.shared.rights.rights(reader.rows, reader.names, (id, reader.replica), &head)?;
            state(reader.rows, reader.replica, rights)
        })
    }

    /// See [`super::ReplicaStore::get`].
    pub fn get(&self, id: ReplicaId, key: &Key) -> Result<Option<LogEntry>, StoreError> {
        self.replica(id, |reader| reader.get(key))
    }

    /// See [`super::ReplicaStore::query`].
    pub fn query(&self, id: ReplicaId, query: &Query) -> Result<Vec<LogEntry>, StoreError> {
        self.replica(id, |reader| reader.query(query))
    }

    /// See [`super::ReplicaStore::query_each`].
    pub fn query_each(&self, id: ReplicaId, queries: &[Query]) -> Result<Vec<Vec<LogEntry>>, StoreError> {
        self.replica(id, |reader| queries.iter().map(|query| reader.query(query)).collect())
    }

    /// See [`super::ReplicaStore::summary`].
    pub fn summary(&self, id: ReplicaId, range: &SlotRange) -> Result<Summary, StoreError> {
        self.replica(id, |reader| reader.summary(range))
    }

    /// See [`super::ReplicaStore::scope_summary`].
    pub fn scope_summary(&self, id: ReplicaId, scope: &Scope) -> Result<Summary, StoreError> {
        self.replica(id, |reader| reader.scope_summary(scope))
    }

    /// See [`super::ReplicaStore::split`].
    pub fn split(
        &self,
        id: ReplicaId,
        range: &SlotRange,
        parts: usize,
    ) -> Result<Vec<(SlotRange, Summary)>, StoreError> {
        self.replica(id, |reader| reader.split(range, &reader.summary(range)?, parts))
    }

    /// See [`super::ReplicaStore::log`].
    pub fn log(&self, id: ReplicaId, since: Position, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        self.replica(id, |reader| reader.log(since, limit))
    }

    /// See [`super::ReplicaStore::changes`].
    pub fn changes(&self, request: &ChangesRequest) -> Result<Changes, StoreError> {
        self.replica(request.replica, |reader| reader.changes(request))
    }

    /// See [`super::ReplicaStore::first_claims`].
    pub fn first_claims(&self, id: ReplicaId, scope: &Scope) -> Result<Vec<Claim>, StoreError> {
        self.replica(id, |reader| reconcile::first_claims(&reader, scope))
    }

    /// See [`super::ReplicaStore::reconcile`].
    pub fn reconcile(&self, id: ReplicaId, scope: &Scope, claims: Vec<Claim>) -> Result<Reconciled, StoreError> {
        self.replica(id, |reader| reconcile::reconcile(&reader, scope, claims))
    }

    /// See [`super::ReplicaStore::coded`].
    pub fn coded(&self, id: ReplicaId, since: Position, count: usize) -> Result<Option<CodedSet>, StoreError> {
        self.replica(id, |reader| coded_sets::coded(&self.shared.coded, &reader, since, count))
    }

    /// See [`super::ReplicaStore::find`].
    pub fn find(&self, id: ReplicaId, ids: &[ShortId]) -> Result<Found, StoreError> {
        self.replica(id, |reader| places::find(&self.shared.places, &reader, ids))
    }

    /// See [`super::ReplicaStore::missing`].
    pub fn missing(
        &self,
        id: ReplicaId,
        scope: &Scope,
        missing: &[Missing],
        max_bytes: usize,
    ) -> Result<MissingPage, StoreError> {
        self.replica(id, |reader| reader.missing(scope, missing, max_bytes))
    }

    /// See [`super::ReplicaStore::node_records`].
    pub fn node_records(&self, kind: NodeKind) -> Result<Vec<NodeRecord>, StoreError> {
        let start = rows::node_key(kind, &[]);
        let end = rows::after(&start);
        let mut records = Vec::new();
        self.read(|rows| {
            rows::scan(rows, (&start, end.as_deref()), Scan::Forward, |key, value| {
                let name = key[start.len()..].to_vec().into();
                records.push(NodeRecord { kind, name, value: Some(value.to_vec().into()) });
                Ok(true)
            })
        })?;
        Ok(records)
    }
}

/// What a transaction leaves to be done when it is committed.
#[derive(Default)]
struct Performed {
    results: Vec<Result<Written, StoreError>>,
    new_names: NewNames,
    new_rights: Vec<(ReplicaNo, u64, Arc<Rights>)>,
    coded: Vec<CodedChange>,
    created: Option<(ReplicaNo, u64)>,
    dropped: Option<ReplicaNo>,
}

/// Whether a request may share a transaction with others.
fn is_small(write: &Write) -> bool {
    matches!(write, Write::Apply(_) | Write::Save { .. })
}

/// Whether the next transaction would fail too.
fn ends_all(error: &StoreError) -> bool {
    matches!(error, StoreError::Failed(_) | StoreError::Closed | StoreError::Io { .. })
}

fn state(rows: &dyn EngineRead, replica: ReplicaNo, rights: Arc<Rights>) -> Result<ReplicaState, StoreError> {
    let head = Head::load(rows, replica)?;
    let root = Index::new(rows, replica).total()?.digest();
    let Head { position, newest, blobs, bytes, rights_version, .. } = head;
    Ok(ReplicaState { root, head: Position(position), newest, blobs, bytes, rights, rights_version })
}

fn save(rows: &mut dyn EngineWrite, records: &[NodeRecord]) -> Result<(), StoreError> {
    // All or none: the limit is looked at before anything is written.
    if let Some(record) = records.iter().find(|record| record.name.len() > MAX_RECORD_NAME_LEN) {
        let len = record.name.len();
        return Err(StoreError::Limit(format!("a record's name has {len} bytes; at most {MAX_RECORD_NAME_LEN}")));
    }
    for record in records {
        let key = rows::node_key(record.kind, &record.name);
        match &record.value {
            Some(value) => rows.put(&key, value)?,
            None => rows.delete(&key)?,
        }
    }
    Ok(())
}

/// What a store is made with.
struct Meta {
    format: u32,
    store_id: StoreId,
    salt: Salt,
}

fn load_meta(rows: &dyn EngineRead, place: &str) -> Result<Option<Meta>, StoreError> {
    let Some(format) = rows.get(&rows::meta_key("format"))? else { return Ok(None) };
    let format = Fields(&format).u32("the store's format")?;
    if format > rows::FORMAT {
        return Err(StoreError::NewerFormat { path: place.into(), found: format, known: rows::FORMAT });
    }
    let id = rows.get(&rows::meta_key("store id"))?.ok_or_else(|| corrupt("the store's id"))?;
    let salt = rows.get(&rows::meta_key("salt"))?.ok_or_else(|| corrupt("the store's salt"))?;
    let store_id = StoreId(Fields(&id).take("the store's id")?);
    let salt = Salt(Fields(&salt).take("the store's salt")?);
    Ok(Some(Meta { format, store_id, salt }))
}

fn make_meta(rows: &mut dyn EngineWrite, fresh: &[u8; 32]) -> Result<(), StoreError> {
    // Two values that do not tell each other: the id is shown to peers, the salt to nobody.
    let id = blake3::derive_key("syncline v1 store id", fresh);
    let salt = blake3::derive_key("syncline v1 store salt", fresh);
    rows.put(&rows::meta_key("format"), &rows::FORMAT.to_be_bytes())?;
    rows.put(&rows::meta_key("store id"), &id[..16])?;
    rows.put(&rows::meta_key("salt"), &salt)
}

/// Counts the rows that are read.
pub(super) struct Counted<S> {
    pub rows: S,
    pub read: AtomicU64,
}

impl<S: EngineRead> EngineRead for Counted<S> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read.fetch_add(1, Ordering::Relaxed);
        self.rows.get(key)
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, order: Scan, visit: Visit<'_>) -> Result<(), StoreError> {
        let mut seen = 0;
        let result = self.rows.scan(start, end, order, &mut |key, value| {
            seen += 1;
            visit(key, value)
        });
        self.read.fetch_add(seen, Ordering::Relaxed);
        result
    }
}
