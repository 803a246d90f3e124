//! Fuzz targets of what no one outside the store sees: the encoding of keys, and the index.

use std::collections::BTreeSet;

use super::{
    engine::{Engine, EngineRead, EngineWrite, Scan},
    index::{self, Deltas, Index, Salt},
    rows::{KeyNo, ReplicaNo, after, entry_key, index_key},
};
use crate::{
    model::{Hash, SlotKey, SlotRange, Summary},
    testing::{fuzz::Input, sim::Disk},
};

const REPLICA: ReplicaNo = ReplicaNo(3);
const SALT: Salt = Salt([5; 32]);

/// Keys of entries are in the order of places, then of authors; a tombstone comes last; and a place comes back.
pub fn keys(data: &[u8]) {
    let mut input = Input::new(data);
    let place = |input: &mut Input<'_>| {
        let alphabet = [0u8, 1, 2, 0xfe, 0xff];
        let mut place: Vec<u8> = (0..input.below(6)).map(|_| input.pick(&alphabet)).collect();
        place.extend_from_slice(input.bytes(3));
        place
    };
    let slots: Vec<(Vec<u8>, u32)> =
        (0..8).map(|_| (place(&mut input), input.pick(&[1, 2, 0xff, 0x100, 0xffff_fffe, u32::MAX]))).collect();
    let key = |(place, author): &(Vec<u8>, u32)| match *author {
        u32::MAX => entry_key::tombstone(REPLICA, place),
        author => entry_key::value(REPLICA, place, KeyNo(author)),
    };
    for a in &slots {
        let at = key(a);
        assert_eq!(entry_key::place(&at).expect("it was just encoded"), a.0);
        assert_eq!(entry_key::is_tombstone(&at), a.1 == u32::MAX);
        for b in &slots {
            assert_eq!(at.cmp(&key(b)), a.cmp(b), "{a:?} and {b:?}");
            let (start, end) = entry_key::group(REPLICA, &b.0);
            assert_eq!(start <= at && at < end, a.0 == b.0, "{a:?} in the group of {b:?}");
            assert_eq!(at >= entry_key::from(REPLICA, &b.0), a.0 >= b.0, "{a:?} from {b:?}");
            assert_eq!(at >= entry_key::past(REPLICA, &b.0), a.0 > b.0, "{a:?} past {b:?}");
            let range = SlotRange {
                start: SlotKey::from_bytes(b.0.clone()),
                end: (b.1 % 2 == 0).then(|| SlotKey::from_bytes(slots[0].0.clone())),
            };
            let (start, end) = entry_key::range(REPLICA, &range);
            let is_in = at >= start && end.is_none_or(|end| at < end);
            assert_eq!(is_in, range.contains(&SlotKey::from_bytes(a.0.clone())), "{a:?} in {range:?}");
        }
    }
    // Whatever a damaged row's key is.
    let _ = entry_key::place(input.rest());
}

fn place(number: u16) -> SlotKey {
    SlotKey::ordinary(&number.to_be_bytes())
}

fn hash((number, author): (u16, u8)) -> Hash {
    Hash(*blake3::hash(&[&number.to_be_bytes()[..], &[author]].concat()).as_bytes())
}

fn toggle(disk: &Disk, held: &mut BTreeSet<(u16, u8)>, batch: &BTreeSet<(u16, u8)>) {
    disk.write(&mut |rows: &mut dyn EngineWrite| {
        let mut deltas = Deltas::default();
        for slot in batch {
            let key = entry_key::value(REPLICA, place(slot.0).as_bytes(), KeyNo(slot.1.into()));
            if held.remove(slot) {
                rows.delete(&key)?;
                deltas.removed(place(slot.0), hash(*slot));
            } else {
                held.insert(*slot);
                rows.put(&key, &hash(*slot).0)?;
                deltas.inserted(place(slot.0), hash(*slot));
            }
        }
        index::update(rows, REPLICA, &SALT, deltas)
    })
    .expect("memory can be written");
}

/// The rows of the index, levels and all.
fn index_rows(disk: &Disk) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let prefix = &index_key(REPLICA, 0, &[])[..5];
    let rows = disk.snapshot().expect("memory can be read");
    rows.scan(prefix, after(prefix).as_deref(), Scan::Forward, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        std::ops::ControlFlow::Continue(())
    })
    .expect("memory can be read");
    found
}

/// The index equals naive recomputation after each batch, and is a function of the set alone.
pub fn index(data: &[u8]) {
    let mut input = Input::new(data);
    let (disk, mut held) = (Disk::default(), BTreeSet::new());
    for _ in 0..8 {
        if input.is_empty() {
            break;
        }
        let mut batch: BTreeSet<(u16, u8)> =
            (0..input.below(64)).map(|_| (input.short() % 1_500, input.byte() % 3)).collect();
        if input.one_in(3) {
            let from = input.short() % 1_500;
            batch.extend((from..from + u16::from(input.byte())).map(|number| (number, 0)));
        }
        toggle(&disk, &mut held, &batch);
        let (a, b) = (place(input.short() % 1_500), place(input.short() % 1_500));
        let end = input.one_in(2).then(|| a.clone().max(b.clone()));
        let range = SlotRange { start: a.min(b), end };
        let naive = |range: &SlotRange| {
            let mut sum = Summary::EMPTY;
            held.iter()
                .filter(|slot| range.contains(&place(slot.0)))
                .for_each(|slot| sum.add(&Summary::of(&hash(*slot))));
            sum
        };
        let rows = disk.snapshot().expect("memory can be read");
        let index = Index::new(&rows, REPLICA);
        let sum = index.summary(&range).expect("memory can be read");
        assert_eq!(sum, naive(&range), "{range:?}");
        assert_eq!(index.total().expect("memory can be read"), naive(&SlotRange::ALL));
        let parts = index.split(&range, &sum, 1 + input.below(40)).expect("memory can be read");
        for (part, sum) in &parts {
            assert_eq!(*sum, naive(part), "{part:?} of {range:?}");
        }
    }
    let fresh = Disk::default();
    toggle(&fresh, &mut BTreeSet::new(), &held);
    assert_eq!(index_rows(&disk), index_rows(&fresh), "the rows are those of the same set, made at once");
}
