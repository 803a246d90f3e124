//! Where entries are, by their ids: eight bytes of memory an entry, of those replicas of which someone asked for one
//! that is not among the latest of the change log.
//!
//! A hint and no more: whoever is led to a row looks whether it is the one that was meant. So what went or was
//! replaced may stay until the next scan.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
};

use super::{
    coded_sets::MAX_SCAN,
    engine::Scan,
    read::Reader,
    rows::{self, EntryRow, Head, ReplicaNo, entry_key},
    types::{Found, Missing, Position, ShortId, StoreError},
};
use crate::model::{SlotKey, SlotRange};

/// Of how many entries places are kept, those of all replicas together: 32 MiB.
const MAX_PLACES: usize = 1 << 22;

/// How many rows of the change log are looked through besides for each entry that is looked for.
const LOOK_BACK_EACH: usize = 4;

/// A part of each id above the position in the change log, ascending.
#[derive(Debug, Default)]
struct Places {
    /// Every entry is in it that is there and has no later position.
    through: u64,
    of: Vec<u64>,
}

impl Places {
    fn item(id: &ShortId, position: u64) -> Option<u64> {
        let position = u32::try_from(position).ok()?;
        let part = u32::from_le_bytes(*id.0.first_chunk().expect("an id has 16 bytes"));
        Some(u64::from(part) << 32 | u64::from(position))
    }

    /// The positions at which an entry with this id may be.
    fn positions(&self, id: &ShortId) -> impl Iterator<Item = u64> {
        let first = Self::item(id, 0).unwrap_or_default();
        let at = self.of.partition_point(|item| *item < first);
        self.of[at..].iter().take_while(move |item| **item >> 32 == first >> 32).map(|item| item & u64::from(u32::MAX))
    }

    /// By a scan of the replica.
    fn scanned(reader: &Reader<'_>, through: u64, count: u64) -> Result<Self, StoreError> {
        let mut of = Vec::with_capacity(count as usize);
        let (start, end) = entry_key::range(reader.replica, &SlotRange::ALL);
        rows::scan(reader.rows, (&start, end.as_deref()), Scan::Forward, |_, value| {
            let (row, _) = EntryRow::decode(value)?;
            of.extend(Self::item(&ShortId::from(&row.hash), row.position));
            Ok(true)
        })?;
        of.sort_unstable();
        Ok(Self { through, of })
    }

    /// With what the change log has since.
    fn extended(&self, reader: &Reader<'_>, through: u64) -> Result<Self, StoreError> {
        let mut new = Vec::new();
        reader.log_rows(Position(self.through), Scan::Forward, |position, _, slot| {
            new.extend(Self::item(&ShortId::from(&EntryRow::hash(&reader.row(&slot)?)?), position));
            Ok(true)
        })?;
        let mut of = Vec::with_capacity(self.of.len() + new.len());
        of.extend_from_slice(&self.of);
        of.extend(new);
        // It merges what is in order already.
        of.sort();
        Ok(Self { through, of })
    }
}

#[derive(Debug, Default)]
pub(super) struct AllPlaces {
    kept: Mutex<Kept>,
    /// Held while places are looked for.
    making: Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept {
    places: HashMap<ReplicaNo, Arc<Places>>,
    /// The replica that was asked for last at the end.
    lately: VecDeque<ReplicaNo>,
}

impl Kept {
    fn get(&mut self, replica: ReplicaNo) -> Option<Arc<Places>> {
        let places = self.places.get(&replica)?.clone();
        self.lately.retain(|other| *other != replica);
        self.lately.push_back(replica);
        Some(places)
    }

    fn forget(&mut self, replica: ReplicaNo) {
        self.places.remove(&replica);
        self.lately.retain(|other| *other != replica);
    }

    fn keep(&mut self, replica: ReplicaNo, places: Arc<Places>, most: usize) {
        self.forget(replica);
        self.places.insert(replica, places);
        self.lately.push_back(replica);
        while self.lately.len() > 1 && self.places.values().map(|places| places.of.len()).sum::<usize>() > most {
            let oldest = self.lately[0];
            self.forget(oldest);
        }
    }
}

impl AllPlaces {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn forget(&self, replica: ReplicaNo) {
        self.lock().forget(replica);
    }

    /// Up to which position of the change log places are known.
    pub fn through(&self, replica: ReplicaNo) -> u64 {
        // Later ones are in no map: see `Places::item`.
        self.lock().places.get(&replica).map_or(0, |places| places.through.min(u32::MAX.into()))
    }

    /// The positions at which the entries with these ids may be; nothing of a replica that is too large, and nothing
    /// while another one's places are being looked for. What is not known yet costs a scan of the replica, or a look at
    /// what was accepted since.
    pub fn positions(&self, reader: &Reader<'_>, ids: &[ShortId]) -> Result<Vec<u64>, StoreError> {
        let head = Head::load(reader.rows, reader.replica)?.position;
        let count = reader.index.total()?.count();
        if count > MAX_SCAN {
            return Ok(Vec::new());
        }
        // Places know the beginning of an id alone: one of those that begin alike leads to all, and nobody can make many
        // ids lead to many places each.
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup_by_key(|id| Places::item(id, 0));
        let positions = |places: &Places| ids.iter().flat_map(|id| places.positions(id)).collect();
        let is_known = |known: &Arc<Places>| known.through >= head;
        let known = self.lock().get(reader.replica);
        if let Some(known) = known.filter(is_known) {
            return Ok(positions(&known));
        }
        // Who waited would hold a reader of the store: ranges are compared instead.
        let _making = match self.making.try_lock() {
            Ok(making) => making,
            Err(TryLockError::Poisoned(making)) => making.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(Vec::new()),
        };
        let known = self.lock().get(reader.replica);
        if let Some(known) = known.clone().filter(is_known) {
            return Ok(positions(&known));
        }
        // A row of the log leads to one anywhere: a scan reads some eight in that time. And it leaves out what is no
        // longer there, which is never more than what is.
        let is_near = |known: &Arc<Places>| {
            let since = head - known.through;
            since <= count / 8 && known.of.len() as u64 + since <= 2 * count
        };
        let places = match known.filter(is_near) {
            Some(known) => known.extended(reader, head)?,
            None => Places::scanned(reader, head, count)?,
        };
        let places = Arc::new(places);
        self.lock().keep(reader.replica, places.clone(), MAX_PLACES);
        Ok(positions(&places))
    }
}

/// Where the entries with these ids are. What one side has and the other lacks is, as a rule, what it has accepted lately,
/// so that is looked through first.
pub(super) fn find(places: &AllPlaces, reader: &Reader<'_>, ids: &[ShortId]) -> Result<Found, StoreError> {
    let mut unknown: HashSet<ShortId> = ids.iter().copied().collect();
    let mut found: Vec<(u64, SlotKey)> = Vec::new();
    let mut look_at = |position, slot: &[u8], unknown: &mut HashSet<ShortId>| -> Result<(), StoreError> {
        if unknown.remove(&ShortId::from(&EntryRow::hash(&reader.row(slot)?)?)) {
            found.push((position, SlotKey::from_bytes(entry_key::place(slot)?)));
        }
        Ok(())
    };
    let mut left = reader.widths.look_back + LOOK_BACK_EACH * ids.len();
    if !unknown.is_empty() {
        reader.log_rows(Position(places.through(reader.replica)), Scan::Backward, |position, _, slot| {
            look_at(position, &slot, &mut unknown)?;
            left = left.saturating_sub(1);
            Ok(!unknown.is_empty() && left > 0)
        })?;
    }
    if !unknown.is_empty() {
        let older: Vec<ShortId> = unknown.iter().copied().collect();
        for position in places.positions(reader, &older)? {
            if unknown.is_empty() {
                break;
            }
            // What is no longer there has no row.
            if let Some(row) = reader.rows.get(&rows::log_key(reader.replica, position))? {
                look_at(position, &rows::of_log_row(reader.replica, &row)?.1, &mut unknown)?;
            }
        }
    }
    // In the order of the log, in which the entries of a commit are together: a few hashes prove what is sent of it.
    // But rights go before what they cover.
    found.sort_by_key(|(position, place)| (place.as_bytes().first() != Some(&0), *position));
    let mut seen = HashSet::new();
    found.retain(|(_, place)| seen.insert(place.clone()));
    let mut missing = Vec::with_capacity(found.len());
    for (_, place) in found {
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
        missing.push(Missing { range: SlotRange { start: place, end: Some(after) }, except, until: Position::LAST });
    }
    Ok(Found { missing, is_complete: unknown.is_empty() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::Op,
        store::{Apply, Core, Origin, Scope, Write, reconcile::Widths},
        testing::{
            sim::Disk,
            store_suite::world::{NOW, World, delete_prefix, put},
        },
    };

    /// A store that looks for entries among the latest `look_back` only, and what is asked of it.
    struct Asked {
        world: World,
        core: Core<Disk>,
        at: i64,
    }

    impl Asked {
        fn new(look_back: usize) -> Self {
            let world = World::default();
            let core = Core::open(Disk::default(), [1; 32]).expect("memory can be opened");
            let core = core.with_widths(Widths { look_back, ..Widths::default() });
            let create = Write::CreateReplica { replica: world.replica, records: Vec::new() };
            core.write(&[create]).remove(0).expect("memory can be written");
            Self { world, core, at: -1_000_000 }
        }

        fn write(&mut self, ops: Vec<Op>) {
            self.at += 1_000;
            let bundles = vec![self.world.commit(0, self.at, ops)];
            let (replica, records) = (self.world.replica, Vec::new());
            let apply = Apply { replica, bundles, origin: Origin::Local, now: NOW, records };
            self.core.write(&[Write::Apply(apply)]).remove(0).expect("memory can be written");
        }

        /// The ids of what is there, in the order in which it was accepted.
        fn ids(&self) -> Vec<ShortId> {
            let log = self.core.log(self.world.replica, Position(0), usize::MAX).expect("memory can be read");
            log.iter().map(|entry| ShortId::from(&entry.hash)).collect()
        }

        /// Looks for them, and checks that nothing else would be sent. Whether all were found.
        fn find(&self, mut ids: Vec<ShortId>) -> bool {
            ids.sort_unstable();
            let found = self.core.find(self.world.replica, &ids).expect("memory can be read");
            let page = self.core.missing(self.world.replica, &Scope::all(), &found.missing, usize::MAX);
            let sent = page.expect("memory can be read").bundles.iter().map(|bundle| bundle.items.len()).sum::<usize>();
            assert!(sent <= ids.len() && (!found.is_complete || sent == ids.len()), "{sent} of {}", ids.len());
            found.is_complete
        }
    }

    proptest! {
        #[test]
        fn whatever_came_and_went_all_that_is_there_is_found_and_nothing_else(
            look_back in 0usize..20,
            steps in prop::collection::vec((0u8..8, 0usize..40, 1usize..12), 1..40),
        ) {
            let mut asked = Asked::new(look_back);
            let mut gone = Vec::new();
            for (what, from, count) in steps {
                let before = asked.ids();
                match what {
                    0 => asked.write(vec![delete_prefix(&format!("{}", from % 10))]),
                    1 | 2 => prop_assert!(asked.find(before.iter().copied().skip(from).step_by(count).collect())),
                    3 => prop_assert!(gone.is_empty() || !asked.find(gone.iter().copied().take(count).collect())),
                    _ => asked.write((from..from + count).map(|n| put(&n.to_string(), "v")).collect()),
                }
                let after: HashSet<ShortId> = asked.ids().into_iter().collect();
                gone.extend(before.into_iter().filter(|id| !after.contains(id)));
            }
            prop_assert!(asked.find(asked.ids()));
        }
    }

    #[test]
    fn entries_that_are_old_are_found_without_another_scan() {
        let mut asked = Asked::new(10);
        for part in 0..10 {
            asked.write((0..300).map(|n| put(&format!("{part}/{n}"), "v")).collect());
        }
        let ids = asked.ids();
        let spent = |asked: &Asked, at: usize| {
            let before = asked.core.rows_read();
            assert!(asked.find(vec![ids[at], ids[at + 1_000]]));
            asked.core.rows_read() - before
        };
        assert!(spent(&asked, 7) > 3_000, "all of the replica is looked at once");
        assert!(spent(&asked, 500) < 100);
        // What was accepted since is looked at alone.
        asked.write((0..200).map(|n| put(&format!("b/{n}"), "v")).collect());
        assert!((200..800).contains(&spent(&asked, 900)));
        assert!(spent(&asked, 1_200) < 100);
        // Places are of a replica that is gone, and its name is another's.
        let replica = asked.world.replica;
        let records = Vec::new();
        asked.core.write(&[Write::DropReplica { replica, records }]).remove(0).expect("memory can be written");
        let create = Write::CreateReplica { replica, records: Vec::new() };
        asked.core.write(&[create]).remove(0).expect("memory can be written");
        assert!(!asked.find(vec![ids[7]]));
        asked.write((0..30).map(|n| put(&format!("{n}"), "v")).collect());
        assert!(asked.find(asked.ids()));
    }

    #[test]
    fn places_are_kept_of_those_replicas_for_which_they_were_asked_for_last() {
        let mut kept = Kept::default();
        let of = |count| Arc::new(Places { through: 1, of: vec![0; count] });
        let has =
            |kept: &Kept| (0..4).filter(|number| kept.places.contains_key(&ReplicaNo(*number))).collect::<Vec<_>>();
        (0..3).for_each(|number| kept.keep(ReplicaNo(number), of(10), 30));
        assert!(kept.get(ReplicaNo(0)).is_some(), "now number 1 was asked for longest ago");
        kept.keep(ReplicaNo(3), of(10), 30);
        assert_eq!(has(&kept), [0, 2, 3]);
        kept.keep(ReplicaNo(3), of(25), 30);
        assert_eq!(has(&kept), [3], "the same replica is counted once, and what does not fit beside it goes");
        kept.keep(ReplicaNo(1), of(40), 30);
        assert_eq!(has(&kept), [1], "one alone is kept whatever its size: it has a bound of its own");
    }

    #[test]
    fn ids_that_begin_alike_lead_to_each_of_their_positions() {
        let id = |last: u8| ShortId([[7; 15].as_slice(), &[last]].concat().try_into().expect("16 bytes"));
        let other = ShortId([8; 16]);
        let mut of: Vec<u64> =
            [(id(1), 9), (other, 3), (id(2), 4)].iter().filter_map(|(id, at)| Places::item(id, *at)).collect();
        of.sort_unstable();
        let places = Places { through: 9, of };
        assert_eq!(places.positions(&id(2)).collect::<Vec<_>>(), [4, 9]);
        assert_eq!(places.positions(&other).collect::<Vec<_>>(), [3]);
        assert_eq!(places.positions(&ShortId([9; 16])).count(), 0);
        assert_eq!(Places::item(&other, 1 << 32), None, "ranges are compared beyond four billion changes");
    }
}
