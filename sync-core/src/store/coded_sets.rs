//! The coded symbols of this store's replicas, in memory: kept up to date by every transaction, and made
//! by one scan of a replica when they are asked for and not there.
//!
//! Every change of a replica moves the head of its change log, so a head names a state: symbols of one
//! state and the changes from that to the next give the next one's.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    coded::CodedSet,
    engine::Scan,
    read::Reader,
    rows::{self, EntryRow, Head, ReplicaNo, corrupt, entry_key},
    types::{Found, Missing, Position, ShortId, StoreError},
};
use crate::model::{Hash, SlotKey, SlotRange};

/// Of how many entries symbols are made by a scan: about half a second of one reader. A replica that has
/// grown beyond it while the store was open keeps what it has.
const MAX_SCAN: u64 = 2_000_000;

/// How many rows of a change log are looked through for entries: a few milliseconds.
const MAX_FIND: usize = 4_096;

/// Of how many replicas symbols are kept before all are forgotten again: 24 MiB.
const MAX_SETS: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct CodedSets(Mutex<HashMap<ReplicaNo, Coded>>);

/// Symbols at one head of the change log.
#[derive(Debug)]
struct Coded {
    head: u64,
    set: CodedSet,
}

/// What one transaction does to the symbols of a replica.
#[derive(Debug)]
pub(super) struct CodedChange {
    replica: ReplicaNo,
    before: u64,
    after: u64,
    changes: CodedSet,
}

impl CodedChange {
    pub fn inserted(&mut self, hash: &Hash) {
        self.changes.insert(&hash.into());
    }

    pub fn removed(&mut self, hash: &Hash) {
        self.changes.remove(&hash.into());
    }

    /// The head after the transaction.
    pub fn ends_at(&mut self, head: u64) {
        self.after = head;
    }
}

impl CodedSets {
    fn lock(&self) -> MutexGuard<'_, HashMap<ReplicaNo, Coded>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new replica has no entries.
    pub fn created(&self, replica: ReplicaNo) {
        self.keep(replica, Head::default().position, CodedSet::default());
    }

    pub fn forget(&self, replica: ReplicaNo) {
        self.lock().remove(&replica);
    }

    /// What a transaction that begins at `head` must fill; none where there are no symbols to change.
    pub fn begin(&self, replica: ReplicaNo, head: u64) -> Option<CodedChange> {
        let is_there = self.lock().get(&replica).is_some_and(|coded| coded.head == head);
        is_there.then(|| CodedChange { replica, before: head, after: head, changes: CodedSet::default() })
    }

    /// The transaction was committed.
    pub fn committed(&self, change: CodedChange) {
        let mut sets = self.lock();
        if let Some(coded) = sets.get_mut(&change.replica).filter(|coded| coded.head == change.before) {
            coded.set.add(&change.changes);
            coded.head = change.after;
        }
    }

    /// The symbols of a state that has everything up to `since`.
    fn since(&self, replica: ReplicaNo, since: u64) -> Option<CodedSet> {
        self.lock().get(&replica).filter(|coded| coded.head >= since).map(|coded| coded.set.clone())
    }

    fn keep(&self, replica: ReplicaNo, head: u64, set: CodedSet) {
        let mut sets = self.lock();
        if sets.len() >= MAX_SETS {
            sets.clear();
        }
        if sets.get(&replica).is_none_or(|coded| coded.head < head) {
            sets.insert(replica, Coded { head, set });
        }
    }
}

/// The symbols of a replica of which everything up to `since` is there.
pub(super) fn coded(sets: &CodedSets, reader: &Reader<'_>, since: Position) -> Result<Option<CodedSet>, StoreError> {
    if let Some(set) = sets.since(reader.replica, since.0) {
        return Ok(Some(set));
    }
    if reader.index.total()?.count() > MAX_SCAN {
        return Ok(None);
    }
    let head = Head::load(reader.rows, reader.replica)?.position;
    let mut set = CodedSet::default();
    let (start, end) = entry_key::range(reader.replica, &SlotRange::ALL);
    rows::scan(reader.rows, (&start, end.as_deref()), Scan::Forward, |_, value| {
        set.insert(&ShortId::from(&EntryRow::hash(value)?));
        Ok(true)
    })?;
    sets.keep(reader.replica, head, set.clone());
    Ok(Some(set))
}

/// Where the entries with these ids are, as far as they are among the latest of the change log: what one
/// side has and the other lacks is, as a rule, what it has accepted lately.
pub(super) fn find(reader: &Reader<'_>, ids: &[ShortId]) -> Result<Found, StoreError> {
    let mut unknown: HashSet<ShortId> = ids.iter().copied().collect();
    let mut places: Vec<SlotKey> = Vec::new();
    let start = rows::log_key(reader.replica, 0);
    let end = rows::after(&start[..5]);
    let mut seen = 0;
    if !ids.is_empty() {
        rows::scan(reader.rows, (&start, end.as_deref()), Scan::Backward, |_, value| {
            let (_, slot) = rows::of_log_row(reader.replica, value)?;
            let row = reader.rows.get(&slot)?.ok_or_else(|| corrupt("an entry in the change log"))?;
            if unknown.remove(&ShortId::from(&EntryRow::hash(&row)?)) {
                places.push(SlotKey::from_bytes(entry_key::place(&slot)?));
            }
            seen += 1;
            Ok(!unknown.is_empty() && seen < MAX_FIND)
        })?;
    }
    places.sort_unstable();
    places.dedup();
    let mut missing = Vec::with_capacity(places.len());
    for place in places {
        let (start, end) = entry_key::group(reader.replica, place.as_bytes());
        let mut except = Vec::new();
        rows::scan(reader.rows, (&start, Some(&end)), Scan::Forward, |_, value| {
            let id = ShortId::from(&EntryRow::hash(value)?);
            if ids.binary_search(&id).is_err() {
                except.push(id);
            }
            Ok(true)
        })?;
        let after = SlotKey::from_bytes([place.as_bytes(), &[0][..]].concat());
        missing.push(Missing { range: SlotRange { start: place, end: Some(after) }, except });
    }
    Ok(Found { missing, is_complete: unknown.is_empty() })
}
