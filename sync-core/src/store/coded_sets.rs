//! The coded symbols of this store's replicas, in memory: kept up to date by every transaction, and made
//! by one scan of a replica when they are asked for and not there.
//!
//! Every change of a replica moves the head of its change log, so a head names a state: symbols of one
//! state and the changes from that to the next give the next one's.
//!
//! Of every replica few symbols are kept; of those of which more were asked for lately, all.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    coded::{CodedSet, MAX_SYMBOLS, SOME_SYMBOLS},
    engine::Scan,
    read::Reader,
    rows::{self, EntryRow, Head, ReplicaNo, entry_key},
    types::{Position, ShortId, StoreError},
};
use crate::model::{Hash, SlotRange};

/// Of how many entries symbols are made by a scan: about half a second of one reader. A replica that has
/// grown beyond it while the store was open keeps what it has.
pub(super) const MAX_SCAN: u64 = 2_000_000;

/// Of how many replicas symbols are kept before all are forgotten again: 24 MiB.
const MAX_SETS: usize = 1_024;

/// Of how many replicas all symbols are kept: 19 MiB.
const MAX_LARGE_SETS: usize = 16;

#[derive(Debug, Default)]
pub(super) struct CodedSets {
    kept: Mutex<Kept>,
    /// Held while symbols are made: whoever wants the same waits for it instead of doing it too.
    making: Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept {
    sets: HashMap<ReplicaNo, Coded>,
    /// The replicas of which all symbols are kept, the one that was asked for last at the end.
    large: VecDeque<ReplicaNo>,
}

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
    /// The entries that came, and those that went.
    came: Vec<ShortId>,
    went: Vec<ShortId>,
}

impl CodedChange {
    pub fn inserted(&mut self, hash: &Hash) {
        self.came.push(hash.into());
    }

    pub fn removed(&mut self, hash: &Hash) {
        self.went.push(hash.into());
    }

    /// The head after the transaction.
    pub fn ends_at(&mut self, head: u64) {
        self.after = head;
    }
}

impl Kept {
    /// Notes that all symbols of a replica were asked for; those of another may be too many then.
    fn touch(&mut self, replica: ReplicaNo) {
        self.large.retain(|other| *other != replica);
        self.large.push_back(replica);
        if self.large.len() > MAX_LARGE_SETS
            && let Some(oldest) = self.large.pop_front()
            && let Some(coded) = self.sets.get_mut(&oldest)
        {
            coded.set.shrink();
        }
    }
}

impl CodedSets {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new replica has no entries; its log begins behind `head`.
    pub fn created(&self, replica: ReplicaNo, head: u64) {
        self.keep(replica, head, CodedSet::default());
    }

    pub fn forget(&self, replica: ReplicaNo) {
        let mut kept = self.lock();
        kept.sets.remove(&replica);
        kept.large.retain(|other| *other != replica);
    }

    /// What a transaction that begins at `head` must fill; none where there are no symbols to change.
    pub fn begin(&self, replica: ReplicaNo, head: u64) -> Option<CodedChange> {
        let is_there = self.lock().sets.get(&replica).is_some_and(|coded| coded.head == head);
        is_there.then(|| CodedChange { replica, before: head, after: head, came: Vec::new(), went: Vec::new() })
    }

    /// The transaction was committed.
    pub fn committed(&self, change: CodedChange) {
        let mut kept = self.lock();
        if let Some(coded) = kept.sets.get_mut(&change.replica).filter(|coded| coded.head == change.before) {
            change.came.iter().for_each(|id| coded.set.insert(id));
            change.went.iter().for_each(|id| coded.set.remove(id));
            coded.head = change.after;
        }
    }

    /// So many symbols of a state that has everything up to `since`.
    fn since(&self, replica: ReplicaNo, since: u64, count: usize) -> Option<CodedSet> {
        let mut kept = self.lock();
        let is_wanted = |coded: &&Coded| coded.head >= since && coded.set.symbols().len() >= count;
        let set = kept.sets.get(&replica).filter(is_wanted)?.set.clone();
        if count > SOME_SYMBOLS {
            kept.touch(replica);
        }
        Some(set)
    }

    fn keep(&self, replica: ReplicaNo, head: u64, set: CodedSet) {
        let mut kept = self.lock();
        if kept.sets.len() >= MAX_SETS {
            *kept = Kept::default();
        }
        let count = set.symbols().len();
        let is_better = |coded: &Coded| coded.head < head || coded.head == head && coded.set.symbols().len() < count;
        if kept.sets.get(&replica).is_none_or(is_better) {
            kept.sets.insert(replica, Coded { head, set });
            if count > SOME_SYMBOLS {
                kept.touch(replica);
            }
        }
    }
}

/// At least `count` symbols of a replica of which everything up to `since` is there.
pub(super) fn coded(
    sets: &CodedSets,
    reader: &Reader<'_>,
    since: Position,
    count: usize,
) -> Result<Option<CodedSet>, StoreError> {
    if let Some(set) = sets.since(reader.replica, since.0, count) {
        return Ok(Some(set));
    }
    if count > MAX_SYMBOLS || reader.index.total()?.count() > MAX_SCAN {
        return Ok(None);
    }
    let _making = sets.making.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(set) = sets.since(reader.replica, since.0, count) {
        return Ok(Some(set));
    }
    let head = Head::load(reader.rows, reader.replica)?.position;
    let mut set = CodedSet::with_symbols(count);
    let (start, end) = entry_key::range(reader.replica, &SlotRange::ALL);
    rows::scan(reader.rows, (&start, end.as_deref()), Scan::Forward, |_, value| {
        set.insert(&ShortId::from(&EntryRow::hash(value)?));
        Ok(true)
    })?;
    sets.keep(reader.replica, head, set.clone());
    Ok(Some(set))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_symbols_are_kept_of_those_replicas_for_which_they_were_asked_for_last() {
        let sets = CodedSets::default();
        let count_of = |number| sets.since(ReplicaNo(number), 1, 1).map(|set| set.symbols().len());
        for number in 0..MAX_LARGE_SETS as u32 {
            sets.keep(ReplicaNo(number), 1, CodedSet::with_symbols(MAX_SYMBOLS));
        }
        assert!(sets.since(ReplicaNo(0), 1, MAX_SYMBOLS).is_some(), "now number 1 was asked for longest ago");
        sets.keep(ReplicaNo(100), 1, CodedSet::with_symbols(MAX_SYMBOLS));
        assert_eq!([0, 1, 2, 100].map(count_of), [MAX_SYMBOLS, SOME_SYMBOLS, MAX_SYMBOLS, MAX_SYMBOLS].map(Some));
        assert_eq!(sets.since(ReplicaNo(1), 1, MAX_SYMBOLS), None);
        // Few do not take the place of all, unless they are of a later state.
        sets.keep(ReplicaNo(0), 1, CodedSet::default());
        assert_eq!(count_of(0), Some(MAX_SYMBOLS));
        sets.keep(ReplicaNo(0), 2, CodedSet::default());
        assert_eq!(count_of(0), Some(SOME_SYMBOLS));
    }
}
