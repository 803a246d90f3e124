//! The index against naive recomputation, and what it costs.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::atomic::{AtomicU64, Ordering},
};

use proptest::prelude::*;

use super::{
    core::Counted,
    engine::{EngineRead, EngineWrite, Scan, Visit},
    index::{self, Deltas, Index, Salt},
    rows::{KeyNo, ReplicaNo, after, entry_key, index_key},
    types::StoreError,
};
use crate::{
    model::{Hash, SlotKey, SlotRange, Summary},
    testing::random::Random,
};

const REPLICA: ReplicaNo = ReplicaNo(3);
const SALT: Salt = Salt([5; 32]);

#[derive(Default, Clone)]
struct Rows(BTreeMap<Vec<u8>, Vec<u8>>);

impl EngineRead for Rows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, order: Scan, visit: Visit<'_>) -> Result<(), StoreError> {
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        let mut rows = match end {
            Some(end) => self.0.range(start.to_vec()..end.to_vec()),
            None => self.0.range(start.to_vec()..),
        };
        while let Some((key, value)) = if order == Scan::Forward { rows.next() } else { rows.next_back() } {
            if visit(key, value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

impl EngineWrite for Rows {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.0.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.0.remove(key);
        Ok(())
    }
}

/// An entry of the tests: a place and an author; its hash is made of both.
type Slot = (u16, u8);

fn place(number: u16) -> SlotKey {
    SlotKey::ordinary(&number.to_be_bytes())
}

fn hash((number, author): Slot) -> Hash {
    Hash(*blake3::hash(&[&number.to_be_bytes()[..], &[author]].concat()).as_bytes())
}

/// Applies a batch: entries that are there go, others come.
fn toggle(rows: &mut Rows, held: &mut BTreeSet<Slot>, batch: &BTreeSet<Slot>) {
    let mut deltas = Deltas::default();
    for slot in batch {
        let key = entry_key::value(REPLICA, place(slot.0).as_bytes(), KeyNo(slot.1.into()));
        if held.remove(slot) {
            rows.delete(&key).unwrap();
            deltas.removed(place(slot.0), hash(*slot));
        } else {
            held.insert(*slot);
            rows.put(&key, &hash(*slot).0).unwrap();
            deltas.inserted(place(slot.0), hash(*slot));
        }
    }
    index::update(rows, REPLICA, &SALT, deltas).unwrap();
}

fn naive(held: &BTreeSet<Slot>, range: &SlotRange) -> Summary {
    let mut sum = Summary::EMPTY;
    held.iter().filter(|slot| range.contains(&place(slot.0))).for_each(|slot| sum.add(&Summary::of(&hash(*slot))));
    sum
}

fn index_rows(rows: &Rows) -> Vec<(&Vec<u8>, &Vec<u8>)> {
    let prefix = &index_key(REPLICA, 0, &[])[..5];
    rows.0.range(prefix.to_vec()..after(prefix).unwrap()).collect()
}

fn check(rows: &Rows, held: &BTreeSet<Slot>, random: &mut Random) {
    let index = Index::new(rows, REPLICA);
    for _ in 0..20 {
        let (a, b) = (place(random.bits() as u16 % 3_000), place(random.bits() as u16 % 3_000));
        let end = random.percent(90).then(|| a.clone().max(b.clone()));
        let range = SlotRange { start: a.min(b), end };
        let sum = index.summary(&range).unwrap();
        assert_eq!(sum, naive(held, &range), "{range:?}");
        for (part, sum) in index.split(&range, &sum, 1 + random.below(40)).unwrap() {
            assert_eq!(sum, naive(held, &part), "{part:?} of {range:?}");
        }
    }
    assert_eq!(index.total().unwrap(), naive(held, &SlotRange::ALL));
    // Ranges near each other and far, with and without gaps, and the last with or without an end.
    let mut cuts: Vec<u16> = (0..random.below(80)).map(|_| random.bits() as u16 % 3_000).collect();
    cuts.extend(1_000..1_000 + random.below(80) as u16);
    cuts.sort_unstable();
    cuts.dedup();
    let mut ranges: Vec<SlotRange> = cuts
        .windows(2)
        .filter(|_| random.percent(80))
        .map(|pair| SlotRange { start: place(pair[0]), end: Some(place(pair[1])) })
        .collect();
    if random.percent(50)
        && let Some(last) = ranges.last_mut()
    {
        last.end = None;
    }
    let sums = index.summaries(&ranges).unwrap();
    assert_eq!(sums.len(), ranges.len());
    ranges.iter().zip(sums).for_each(|(range, sum)| assert_eq!(sum, naive(held, range), "{range:?}"));
}

/// A batch: some entries anywhere, and all places of a run, so that neighbouring boundaries come and go at once.
fn batch() -> impl Strategy<Value = BTreeSet<Slot>> {
    let anywhere = prop::collection::btree_set((0u16..3_000, 0u8..3), 0..200);
    let run =
        (0u16..3_000, 0u16..900).prop_map(|(from, len)| (from..from.saturating_add(len)).map(|n| (n, 0)).collect());
    (anywhere, prop::option::of(run)).prop_map(|(mut slots, run): (BTreeSet<Slot>, Option<BTreeSet<Slot>>)| {
        slots.extend(run.unwrap_or_default());
        slots
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_index_equals_naive_recomputation_whatever_the_history(
        batches in prop::collection::vec(batch(), 1..8),
        seed: u64,
    ) {
        let (mut rows, mut held) = (Rows::default(), BTreeSet::new());
        let mut random = Random::new(seed);
        for batch in &batches {
            toggle(&mut rows, &mut held, batch);
            check(&rows, &held, &mut random);
        }
        // The same set, made at once, has the same rows.
        let (mut fresh, mut all) = (Rows::default(), BTreeSet::new());
        toggle(&mut fresh, &mut all, &held);
        prop_assert_eq!(index_rows(&rows), index_rows(&fresh));
        // And nothing is left when all is gone.
        toggle(&mut rows, &mut held.clone(), &held);
        prop_assert_eq!(rows.0.len(), 0);
    }
}

/// Rows read for the summary of a range, and for a split in 32, on average.
fn cost(entries: u32) -> (f64, f64) {
    let mut rows = Rows::default();
    let key = |number: u32| SlotKey::ordinary(&number.wrapping_mul(0x9e37_79b1).to_be_bytes());
    for batch in (0..entries).collect::<Vec<_>>().chunks(50_000) {
        let mut deltas = Deltas::default();
        for number in batch {
            let hash = Hash(*blake3::hash(&number.to_be_bytes()).as_bytes());
            rows.put(&entry_key::value(REPLICA, key(*number).as_bytes(), KeyNo(1)), &hash.0).unwrap();
            deltas.inserted(key(*number), hash);
        }
        index::update(&mut rows, REPLICA, &SALT, deltas).unwrap();
    }
    let counted = Counted { rows, read: AtomicU64::new(0) };
    let mut random = Random::new(9);
    const TIMES: u32 = 200;
    for _ in 0..TIMES {
        let (a, b) = (key(random.bits() as u32), key(random.bits() as u32));
        let range = SlotRange { start: a.clone().min(b.clone()), end: Some(a.max(b)) };
        Index::new(&counted, REPLICA).summary(&range).unwrap();
    }
    let summary = counted.read.swap(0, Ordering::Relaxed);
    for _ in 0..TIMES {
        let index = Index::new(&counted, REPLICA);
        let parts = index.split(&SlotRange::ALL, &index.total().unwrap(), 32).unwrap();
        assert!(parts.len() > 8);
    }
    let split = counted.read.swap(0, Ordering::Relaxed);
    (summary as f64 / f64::from(TIMES), split as f64 / f64::from(TIMES))
}

#[test]
fn summary_and_split_read_few_rows_at_1000_and_at_1000000_entries() {
    let (summary, split) = cost(1_000);
    println!("1,000 entries: summary {summary} rows, split {split}");
    assert!(summary < 80.0 && split < 1_000.0, "{summary} {split}");
    let (summary, split) = cost(1_000_000);
    println!("1,000,000 entries: summary {summary} rows, split {split}");
    assert!(summary < 200.0 && split < 1_000.0, "{summary} {split}");
}

/// The most rows that one summary reads, and that one more entry does when it comes, in a store with this salt that has
/// these keys.
fn worst(salt: Salt, keys: &[SlotKey]) -> u64 {
    let mut rows = Rows::default();
    let hash = |place: &SlotKey| Hash(*blake3::hash(place.as_bytes()).as_bytes());
    let come = |rows: &mut Rows, place: &SlotKey| {
        rows.put(&entry_key::value(REPLICA, place.as_bytes(), KeyNo(1)), &hash(place).0).unwrap();
        hash(place)
    };
    let mut deltas = Deltas::default();
    for place in keys {
        let hash = come(&mut rows, place);
        deltas.inserted(place.clone(), hash);
    }
    index::update(&mut rows, REPLICA, &salt, deltas).unwrap();
    let counted = Counted { rows, read: AtomicU64::new(0) };
    let mut random = Random::new(11);
    let mut most = 0;
    for _ in 0..300 {
        let (a, b) = (random.pick(keys).clone(), random.pick(keys).clone());
        let range = SlotRange { start: a.clone().min(b.clone()), end: Some(a.max(b)) };
        Index::new(&counted, REPLICA).summary(&range).unwrap();
        most = most.max(counted.read.swap(0, Ordering::Relaxed));
    }
    most
}

/// The story: whoever may write chooses keys, and with many that are no boundaries, or all boundaries, an index of hashes
/// becomes a list. They do spoil the store whose salt is known, so the choice is a good one; no salt is known, and in any
/// other store the same keys cost what random ones cost.
#[test]
fn keys_chosen_against_one_salt_cost_another_store_what_random_keys_cost() {
    const KEYS: usize = 20_000;
    let key = |number: u32| SlotKey::ordinary(&number.wrapping_mul(0x9e37_79b1).to_be_bytes());
    let known = Salt([1; 32]);
    let random = |_: &SlotKey| true;
    let no_boundary = |key: &SlotKey| known.level(key.as_bytes()) == 0;
    let all_boundaries = |key: &SlotKey| known.level(key.as_bytes()) == 1;
    type Choice<'a> = &'a dyn Fn(&SlotKey) -> bool;
    let kinds: [(&str, Choice<'_>); 2] = [("none a boundary", &no_boundary), ("all boundaries", &all_boundaries)];
    let chosen = |is_chosen: &dyn Fn(&SlotKey) -> bool| -> Vec<SlotKey> {
        let mut keys: Vec<SlotKey> = (0..).map(key).filter(|key| is_chosen(key)).take(KEYS).collect();
        keys.sort_unstable();
        keys
    };
    let of_random = chosen(&random);
    for other in [Salt([2; 32]), Salt([3; 32]), Salt([4; 32])] {
        let usual = worst(other, &of_random);
        for (name, is_chosen) in kinds {
            let keys = chosen(is_chosen);
            let (spoiled, unspoiled) = (worst(known, &keys), worst(other, &keys));
            println!("{name}: {spoiled} rows where the salt is known, {unspoiled} elsewhere, {usual} for random keys");
            assert!(spoiled > 10 * usual, "{name}: the choice is a bad one: {spoiled} rows, {usual} for random keys");
            assert!(unspoiled < 2 * usual, "{name}: {unspoiled} rows, {usual} for random keys");
        }
    }
}
