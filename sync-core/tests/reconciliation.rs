//! Two machines that know nothing of each other's position become equal, and what that takes follows the
//! difference.

#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use sync_core::{
    machine::{
        Input,
        wire::{Message, Solved},
    },
    model::{
        AuthorId, Grant, HybridClock, Key, Op, PeerId, Prefix, ReadScope, ReplicaId, Right, SecretKey, Timestamp,
        Value, VerifiedBundle, sign_commit,
    },
    store::{Apply, Origin, ReplicaStore, Scope, ShortId, coded::MAX_SYMBOLS},
    testing::{
        block_on,
        pair::{Pair, WALL},
        random::Random,
    },
};

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn replica() -> ReplicaId {
    ReplicaId(key(7).public())
}

fn commit(author: u8, at: u64, ops: Vec<Op>) -> VerifiedBundle {
    sign_commit(replica(), &key(author), &HybridClock::default(), Timestamp(WALL.0 + at), ops).unwrap()
}

fn put(name: &str, value: &str) -> Op {
    Op::Put { key: Key::try_from(name).unwrap(), value: Value::Inline(value.as_bytes().to_vec().into()) }
}

/// Nodes 1 and 2 may read and write these prefixes.
fn grants(prefixes: [&str; 2]) -> VerifiedBundle {
    let grant = |n: usize| {
        let prefix = Prefix::new(prefixes[n].as_bytes().to_vec()).unwrap();
        let subject = key(n as u8 + 1).public();
        let grant = Grant { subject, right: Right::Write, prefix, expires: None, parent: None };
        grant.to_op(&AuthorId(key(7).public()))
    };
    commit(7, 0, vec![grant(0), grant(1)])
}

fn apply(store: &Arc<dyn ReplicaStore>, bundles: Vec<VerifiedBundle>) {
    let batch = Apply { replica: replica(), bundles, origin: Origin::Local, now: WALL, records: vec![] };
    block_on(store.apply(batch)).unwrap();
}

/// Two stores that have `common`.
fn stores(common: &[VerifiedBundle]) -> [Arc<dyn ReplicaStore>; 2] {
    [0, 1].map(|_| {
        let store: Arc<dyn ReplicaStore> = Arc::new(store_mem::open().unwrap());
        block_on(store.create_replica(replica(), vec![])).unwrap();
        apply(&store, common.to_vec());
        store
    })
}

/// The same, with so many entries.
fn filled(count: usize) -> [Arc<dyn ReplicaStore>; 2] {
    let ops: Vec<Op> = (0..count).map(|n| put(&format!("common/{n:07}"), "v")).collect();
    let mut common = vec![grants(["", ""])];
    common.extend(ops.chunks(10_000).map(|ops| commit(7, 1, ops.to_vec())));
    stores(&common)
}

fn pair(stores: &[Arc<dyn ReplicaStore>; 2]) -> Pair {
    Pair::new(stores.clone(), [&key(1), &key(2)], replica())
}

/// Lets time pass until both are equal; what comes after a while is a new attempt.
fn becomes_equal(pair: &mut Pair) -> bool {
    for _ in 0..100 {
        pair.run();
        if pair.is_equal() {
            return true;
        }
        // Short enough for pings to show that the link lives.
        pair.wait(Duration::from_secs(2));
    }
    false
}

fn names(pair: &Pair) -> Vec<&'static str> {
    pair.said.names.iter().map(|(_, name)| *name).collect()
}

#[test]
fn what_it_takes_follows_the_difference_and_not_the_replica() {
    let mut random = Random::new(3);
    for count in [1_000, 100_000] {
        let stores = filled(count);
        for (each, messages, turns, bytes) in [(0, 2, 2, 700), (1, 8, 6, 3_000), (100, 12, 10, 20_000)] {
            for (n, store) in stores.iter().enumerate() {
                let own =
                    |at| commit(n as u8 + 1, 9, vec![put(&format!("common/{:07}/{at}", random.below(count)), "d")]);
                apply(store, (0..each).map(own).collect());
            }
            let mut pair = pair(&stores);
            pair.run();
            assert!(pair.is_equal());
            let said = &pair.said;
            assert!(
                said.messages <= messages && said.turns <= turns && said.bytes <= bytes,
                "{each} + {each} in {count}: {said:?}"
            );
            assert!(!names(&pair).contains(&"Ranges") || each > 0, "{said:?}");
        }
    }
}

#[test]
fn a_second_session_over_a_link_shows_no_credentials_and_takes_few_bytes() {
    let stores = filled(100);
    let mut pair = pair(&stores);
    let mut credentials = Vec::new();
    for _ in 0..2 {
        pair.run_tampered(&mut |_, message| {
            if let Message::Open(open) | Message::Opened(open) = &message {
                credentials.push((open.credentials.len(), message.encode().len()));
            }
            Some(message)
        });
        // Positions are forgotten with the subscription.
        let peer = PeerId(key(2).public());
        pair.tell(0, Input::Unsubscribe { replica: replica(), peer });
        pair.tell(1, Input::Unsubscribe { replica: replica(), peer: PeerId(key(1).public()) });
        pair.tell(0, Input::Subscribe { replica: replica(), peer });
    }
    let shown: Vec<usize> = credentials.iter().map(|(count, _)| *count).collect();
    assert_eq!(shown, [1, 1, 0, 0]);
    assert!(credentials[2].1 + credentials[3].1 < 200, "{credentials:?}");
}

/// So many entries each, in commits of 1,000.
fn differ(stores: &[Arc<dyn ReplicaStore>; 2], each: [usize; 2]) {
    for (n, store) in stores.iter().enumerate() {
        let ops: Vec<Op> = (0..each[n]).map(|at| put(&format!("own {n}/{at}"), "d")).collect();
        apply(store, ops.chunks(1_000).map(|ops| commit(n as u8 + 1, 9, ops.to_vec())).collect());
    }
}

fn count(pair: &Pair, name: &str) -> usize {
    names(pair).iter().filter(|other| **other == name).count()
}

#[test]
fn a_large_difference_is_told_by_more_symbols_and_found_deep_in_the_log() {
    for (each, bytes) in [([1_000, 1_000], 150_000), ([10_000, 10_000], 1_200_000)] {
        let stores = filled(3_000);
        differ(&stores, each);
        let mut pair = pair(&stores);
        pair.run();
        assert!(pair.is_equal());
        assert_eq!(count(&pair, "Ranges"), 0, "{:?}", pair.said);
        assert!(pair.said.bytes <= bytes, "{each:?}: {:?}", pair.said);
        // Whole commits, with few hashes to prove them.
        assert!(pair.said.entry_bytes <= 40 * (each[0] + each[1]) as u64, "{each:?}: {:?}", pair.said);
        assert!(count(&pair, "Solved") <= 3, "{each:?}: {:?}", pair.said);
    }
}

#[test]
fn who_has_fewer_is_told_at_once_how_many_symbols_that_takes() {
    for each in [[5_000, 20], [20, 5_000]] {
        let stores = filled(100);
        differ(&stores, each);
        let mut pair = pair(&stores);
        pair.run();
        assert!(pair.is_equal());
        assert_eq!(count(&pair, "Solved"), 1, "{each:?}: {:?}", pair.said);
    }
}

#[test]
fn more_than_symbols_can_tell_is_left_to_ranges_at_once() {
    for (each, symbols) in [([20_000, 20_000], 1), ([100, 36_000], 0)] {
        let stores = filled(100);
        differ(&stores, each);
        let mut pair = pair(&stores);
        pair.run();
        assert!(pair.is_equal());
        assert_eq!(count(&pair, "Symbols"), symbols, "{each:?}: {:?}", pair.said);
        assert!(count(&pair, "Ranges") > 0);
    }
}

#[test]
fn what_is_deep_in_the_change_log_is_found_by_symbols_as_well() {
    for deep in [[true, false], [false, true], [true, true]] {
        let stores = stores(&[grants(["", ""])]);
        for (n, store) in stores.iter().enumerate() {
            let old = commit(n as u8 + 1, 3, vec![put(&format!("old {n}"), "v"), put("the same", &n.to_string())]);
            let ops: Vec<Op> = (0..5_000).map(|n| put(&format!("common/{n:07}"), "v")).collect();
            let common = commit(7, 1, ops);
            for bundle in if deep[n] { [old, common] } else { [common, old] } {
                apply(store, vec![bundle]);
            }
        }
        let mut pair = pair(&stores);
        pair.run();
        assert!(pair.is_equal(), "{deep:?}: {:?}", pair.said);
        assert!(!names(&pair).contains(&"Ranges"), "{deep:?}: {:?}", pair.said);
    }
}

#[test]
fn a_reader_of_a_part_compares_that_part_by_ranges() {
    for reader in [0, 1] {
        let mut prefixes = ["", ""];
        prefixes[reader] = "b/";
        let stores = stores(&[grants(prefixes)]);
        for (n, store) in stores.iter().enumerate() {
            for at in 0..100 {
                let folder = if n == reader { "b" } else { ["a", "b"][at % 2] };
                apply(store, vec![commit(n as u8 + 1, 9, vec![put(&format!("{folder}/{n} {at}"), "v")])]);
            }
        }
        let mut pair = pair(&stores);
        pair.run();
        // Symbols are about everything, whoever leads.
        assert!(!names(&pair).contains(&"Symbols"), "{:?}", pair.said);
        assert!(names(&pair).contains(&"Ranges"));
        let scope = Scope::of(&ReadScope { prefixes: vec![Prefix::new("b/").unwrap()] });
        let [a, b] = [0, 1].map(|n: usize| block_on(stores[n].scope_summary(replica(), scope.clone())).unwrap());
        assert_eq!(a, b);
        assert_eq!(a.count(), 152, "100 of the reader, 50 of the other, two grants");
        assert_eq!(block_on(stores[reader].state(replica())).unwrap().root.count, 152, "and nothing else");
    }
}

#[test]
fn a_first_sync_has_a_twentieth_of_all_on_its_way_and_no_more() {
    let stores = stores(&[grants(["", ""])]);
    let large = "v".repeat(16_000);
    for batch in 0..20 {
        apply(&stores[0], vec![commit(1, batch, (0..64).map(|n| put(&format!("{batch}/{n}"), &large)).collect())]);
    }
    let mut pair = pair(&stores);
    pair.run();
    assert!(pair.is_equal());
    // The pair lets the first send as long as it does so by itself. Then what has arrived makes room.
    let frames: Vec<bool> = pair.said.names.iter().map(|said| *said == (0, "Entries")).collect();
    let runs: Vec<usize> = frames.split(|is_entries| !is_entries).map(<[bool]>::len).filter(|len| *len > 0).collect();
    let all: usize = runs.iter().sum();
    assert!(all > 60, "about 20 MB in frames of 256 KiB: {all}");
    assert!(runs[0] > 2, "{runs:?}");
    assert!(runs.iter().all(|run| run * 20 <= all), "{runs:?}");
}

/// A few entries by several authors at few keys, with deletions.
fn history(random: &mut Random, count: usize, seed: u64) -> Vec<VerifiedBundle> {
    (0..count)
        .map(|at| {
            let name = format!("{}/{}", random.pick(&["a", "b", "c/d"]), random.below(60));
            let author = *random.pick(&[1, 2, 7]);
            let op = match random.below(12) {
                0 => Op::Delete { key: Key::try_from(name.as_str()).unwrap() },
                1 => Op::DeletePrefix { prefix: Prefix::new(name.as_bytes()[..3].to_vec()).unwrap() },
                _ => put(&name, &format!("{seed} {at}")),
            };
            commit(author, random.below(1_000_000) as u64, vec![op])
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn whatever_two_nodes_have_they_become_equal(
        seed: u64, common in 0usize..150, left in 0usize..120, right in 0usize..120,
    ) {
        let random = &mut Random::new(seed);
        let mut shared = vec![grants(["", ""])];
        shared.extend(history(random, common, 0));
        let stores = stores(&shared);
        apply(&stores[0], history(random, left, 1));
        apply(&stores[1], history(random, right, 2));
        let mut pair = pair(&stores);
        pair.run();
        prop_assert!(pair.is_equal(), "{:?}", pair.said);
        prop_assert_eq!(&pair.ended, &None);
    }

    #[test]
    fn whatever_symbols_and_answers_say_nothing_wrong_comes_of_it(
        seed: u64, left in 18usize..90, right in 18usize..90, hostile in 0usize..2, lie in 0usize..8,
    ) {
        let random = &mut Random::new(seed);
        let mut shared = vec![grants(["", ""])];
        shared.extend((0..100).map(|n| commit(7, n, vec![put(&format!("common {n}"), "v")])));
        let stores = stores(&shared);
        for (n, count) in [left, right].into_iter().enumerate() {
            apply(&stores[n], (0..count).map(|at| commit(n as u8 + 1, 9, vec![put(&format!("own {n} {at}"), "v")])).collect());
        }
        let mut pair = pair(&stores);
        let mut lies = 0;
        pair.run_tampered(&mut |side, mut message| {
            if side != hostile || lies > 3 {
                return Some(message);
            }
            lies += 1;
            match &mut message {
                Message::Symbols(symbols) => {
                    let count = symbols.symbols.len();
                    let symbol = &mut symbols.symbols[random.below(count)];
                    match lie {
                        0 => symbol.ids[random.below(16)] ^= 1 << random.below(8),
                        1 => symbol.count = random.bits() as u32,
                        2 => symbols.symbols.iter_mut().for_each(|symbol| *symbol = Default::default()),
                        3 => symbols.symbols.truncate(1),
                        4 => symbols.first = !symbols.first,
                        6 => symbols.more = !symbols.more,
                        7 => symbols.from += 1,
                        _ => symbol.checks[0] ^= 1,
                    }
                }
                Message::Solved(solved) => match lie {
                    0 => *solved = Solved::Lacking(Vec::new()),
                    1 => *solved = Solved::Lacking(vec![ShortId([9; 16])]),
                    2 => *solved = Solved::More(MAX_SYMBOLS as u32),
                    3 => *solved = Solved::More(1),
                    _ => if let Solved::Lacking(ids) = solved {
                        ids.truncate(ids.len() / 2);
                    },
                },
                Message::Ranges(ranges) if lie == 5 => ranges.claims.truncate(ranges.claims.len() / 2),
                _ => lies -= 1,
            }
            Some(message)
        });
        // Whoever says that it lacks nothing and waits for more symbols nevertheless waits for ever. Whoever says
        // that more are to come, and they are not, is waited for.
        let waits = hostile == 0 && lie == 0 || hostile == 1 && lie == 6;
        if pair.ended.is_none() && !waits {
            prop_assert!(becomes_equal(&mut pair), "{:?}", pair.said);
        }
        for store in &stores {
            // Entries are proved and clamped however they were found.
            let count = block_on(store.state(replica())).unwrap().root.count as usize;
            prop_assert!(count <= 102 + left + right);
        }
    }
}
