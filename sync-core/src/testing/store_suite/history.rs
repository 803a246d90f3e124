//! Random and exhaustive histories, held against the reference model.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    StoreHarness,
    world::{NOW, World, delete, delete_prefix, key, peer, put},
};
use crate::{
    model::{Bundle, Hash, Op, SlotKey, SlotRange, Value, VerifiedBundle, Verifier},
    store::{ChangesRequest, Direction, Origin, Position, Query, ReplicaStore, Scope, Select, coded::CodedSet},
    testing::{random::Random, reference::Reference},
};

/// Keys that are each other's prefixes, with the bytes that escaping and matching could get wrong.
const KEYS: &[&str] =
    &["a", "a1", "a10", "a::b", "ab", "a\0", "a\0\0", "a\0b", "b", "b%", "b_", "b/1", "b/2", "\u{7f}\u{7ff}"];

const PREFIXES: &[&str] = &["", "a", "a1", "a\0", "a\0\0", "b", "b/", "c"];

fn name(random: &mut Random, names: &'static [&'static str]) -> &'static str {
    names[random.below(names.len())]
}

fn random_op(random: &mut Random) -> Op {
    match random.below(20) {
        0..=12 => {
            let mut op = put(name(random, KEYS), "");
            if let Op::Put { value, .. } = &mut op {
                let len = *random.pick(&[0, 1, 20, 300]);
                *value = match random.below(8) {
                    0 => Value::Blob { hash: Hash([random.below(3) as u8; 32]), len: 20_000 },
                    _ => Value::Inline(Bytes::from(vec![random.below(256) as u8; len])),
                };
            }
            op
        }
        13..=17 => delete(name(random, KEYS)),
        _ => delete_prefix(name(random, PREFIXES)),
    }
}

/// A random commit; times are few, so that authors collide.
fn random_commit(world: &World, random: &mut Random) -> VerifiedBundle {
    let author = random.below(world.authors.len());
    let count = *random.pick(&[1, 1, 1, 2, 3, 7, 20]);
    let at = random.below(60) as i64 - 60;
    world.commit(author, at, (0..count).map(|_| random_op(random)).collect())
}

/// A commit, or a part of it as a peer would send it.
fn part(bundle: &VerifiedBundle, random: &mut Random) -> VerifiedBundle {
    let whole = bundle.to_bundle();
    let mut indices: Vec<u32> = whole.items.iter().map(|item| item.index).collect();
    indices.retain(|_| random.percent(50));
    if indices.is_empty() || random.percent(50) {
        return bundle.clone();
    }
    let items = whole.items.into_iter().filter(|item| indices.contains(&item.index)).collect();
    let part = Bundle { seal: whole.seal, proof: bundle.tree().prove(&indices), items };
    part.verify(bundle.replica(), &mut Verifier::default()).expect("a part of a good commit is good")
}

/// Plays a random history of at least `operations` entries, in rounds, each on a replica of its own, and
/// compares everything that can be read with the reference model. Answers the roots of the rounds.
pub async fn random_history<H: StoreHarness>(harness: &H, seed: u64, operations: usize) -> Vec<crate::model::Digest> {
    eprintln!("random history with seed {seed}");
    let store = harness.open();
    let mut roots = Vec::new();
    let (mut done, mut round) = (0, 0u8);
    while done < operations {
        let mut random = Random::new(seed.wrapping_mul(1_000).wrapping_add(u64::from(round)));
        let world = World::new(round % 31);
        store.create_replica(world.replica, Vec::new()).await.expect("a replica can be made");
        let mut model = Reference::new(world.replica);
        let mut commits = world.grants();
        commits.extend((0..60).map(|_| random_commit(&world, &mut random)));
        // Everything is delivered in random order, in parts, again and again; what was refused
        // before its grant came is offered once more at the end.
        for pass in 0..5 {
            random.shuffle(&mut commits);
            let mut rest = &commits[..];
            while !rest.is_empty() {
                let (batch, later) = rest.split_at(rest.len().min(1 + random.below(12)));
                rest = later;
                let whole = pass == 4 || random.percent(30);
                let batch: Vec<VerifiedBundle> =
                    batch.iter().map(|bundle| if whole { bundle.clone() } else { part(bundle, &mut random) }).collect();
                done += batch.iter().map(VerifiedBundle::len).sum::<usize>();
                // The model takes the grants of a batch first, as the contract says.
                for bundle in batch.iter().cycle().take(batch.len() * 3).filter(|b| is_grant(b)) {
                    model.apply(bundle, NOW);
                }
                batch.iter().filter(|b| !is_grant(b)).for_each(|bundle| model.apply(bundle, NOW));
                world.apply(&*store, batch).await;
            }
            compare(&*store, &world, &model, &mut random).await;
        }
        let root = store.state(world.replica).await.expect("the replica is there").root;
        bootstrap(harness, &*store, &world, root, &mut random).await;
        roots.push(root);
        store.drop_replica(world.replica, Vec::new()).await.expect("a replica can be dropped");
        round = round.wrapping_add(1);
    }
    roots
}

fn is_grant(bundle: &VerifiedBundle) -> bool {
    bundle.entries().all(|entry| entry.op.is_system())
}

/// Compares the store with the model.
async fn compare(store: &dyn ReplicaStore, world: &World, model: &Reference, random: &mut Random) {
    let replica = world.replica;
    let state = store.state(replica).await.expect("the replica is there");
    let log = store.log(replica, Position(0), usize::MAX).await.expect("the log can be read");
    assert!(log.windows(2).all(|pair| pair[0].position < pair[1].position), "the log is in order");
    assert!(log.last().is_none_or(|last| last.position <= state.head), "the head is not before the log's end");
    let here: BTreeSet<Hash> = log.iter().map(|entry| entry.hash).collect();
    let live: BTreeSet<Hash> = model.live().iter().map(|entry| entry.order.hash).collect();
    assert_eq!(here.len(), log.len(), "the log has one row per live entry");
    assert_eq!(here, live, "the store holds the entries that no accepted one dominates");
    assert_eq!(state.root, model.digest(&SlotRange::ALL), "the root is the digest of the live entries");
    if let Some(coded) = store.coded(replica, state.head, 1).await.expect("symbols can be read") {
        let mut expected = CodedSet::default();
        live.iter().for_each(|hash| expected.insert(&hash.into()));
        assert_eq!(coded, expected, "the symbols are those of the live entries");
    }
    for name in KEYS.iter().copied() {
        let found = store.get(replica, key(name)).await.expect("get works");
        let expected = model.get(&key(name));
        assert_eq!(found.map(|entry| entry.hash), expected.map(|entry| entry.order.hash), "get({name:?})");
    }
    for _ in 0..12 {
        let query = random_query(world, random);
        let found = store.query(replica, query.clone()).await.expect("query works");
        let found: Vec<Hash> = found.into_iter().map(|entry| entry.hash).collect();
        let expected: Vec<Hash> = model.query(&query).into_iter().map(|entry| entry.order.hash).collect();
        assert_eq!(found, expected, "{query:?}");
    }
    for _ in 0..6 {
        let range = random_range(random);
        let summary = store.summary(replica, range.clone()).await.expect("summary works");
        assert_eq!(summary.digest(), model.digest(&range), "summary of {range:?}");
        let parts = 1 + random.below(12);
        let split = store.split(replica, range.clone(), parts).await.expect("split works");
        check_split(model, &range, &split, parts);
    }
}

fn check_split(model: &Reference, range: &SlotRange, split: &[(SlotRange, crate::model::Summary)], parts: usize) {
    assert!(split.len() <= parts, "at most as many parts as asked for");
    assert_eq!(split[0].0.start, range.start, "the first part begins where the range does");
    assert_eq!(split[split.len() - 1].0.end, range.end, "the last part ends where the range does");
    for pair in split.windows(2) {
        assert_eq!(pair[0].0.end.as_ref(), Some(&pair[1].0.start), "the parts follow each other");
    }
    for (part, summary) in split {
        assert_eq!(summary.digest(), model.digest(part), "the summary of a part is right");
    }
}

fn random_range(random: &mut Random) -> SlotRange {
    let mut place = || match random.below(8) {
        0 => SlotKey::FIRST,
        1 => SlotKey::from_bytes(vec![random.below(4) as u8]),
        2 => SlotKey::from_bytes([&[1][..], name(random, PREFIXES).as_bytes()].concat()),
        _ => SlotKey::ordinary(name(random, KEYS).as_bytes()),
    };
    let (a, b) = (place(), place());
    let (start, end) = if a <= b { (a, b) } else { (b, a) };
    SlotRange { start, end: random.percent(80).then_some(end) }
}

fn random_query(world: &World, random: &mut Random) -> Query {
    let text = |name: &str| Bytes::copy_from_slice(name.as_bytes());
    Query {
        prefix: if random.percent(50) { text(name(random, PREFIXES)) } else { Bytes::new() },
        key: random.percent(20).then(|| text(name(random, KEYS))),
        author: random.percent(30).then(|| world.author(random.below(5))),
        select: if random.percent(50) { Select::Newest } else { Select::All },
        direction: if random.percent(50) { Direction::Ascending } else { Direction::Descending },
        limit: random.below(6),
        start_after: random.percent(40).then(|| text(name(random, KEYS))),
        tombstones: random.percent(50),
    }
}

/// A node that has never seen any of it gets everything from the change log, whatever the pages' size.
async fn bootstrap<H: StoreHarness>(
    harness: &H,
    store: &dyn ReplicaStore,
    world: &World,
    root: crate::model::Digest,
    random: &mut Random,
) {
    let other = world.create(harness.another()).await;
    let max_bytes = *random.pick(&[1, 300, 2_000, 500_000]);
    let head = store.state(world.replica).await.expect("the replica is there").head;
    let mut since = Position(0);
    while since < head {
        let request = ChangesRequest { replica: world.replica, since, not_from: None, scope: Scope::all(), max_bytes };
        let changes = store.changes(request).await.expect("changes can be read");
        assert!(changes.through > since, "each page goes on");
        since = changes.through;
        let mut bundles = Vec::new();
        let mut entries = 0;
        for bundle in changes.bundles {
            entries += bundle.items.len() as u64;
            bundles.push(bundle.verify(world.replica, &mut Verifier::default()).expect("what is sent is proved"));
        }
        assert_eq!(entries, changes.entries);
        // Rights and what they cover can come in any order: twice is enough for a chain of two.
        world.try_apply(&*other, bundles.clone(), Origin::Peer(peer(2)), Vec::new()).await.expect("it can be applied");
    }
    let after = other.state(world.replica).await.expect("the replica is there");
    if after.root != root {
        // Entries that came before their grants were refused: a second pass brings them.
        let request = ChangesRequest {
            replica: world.replica,
            since: Position(0),
            not_from: None,
            scope: Scope::all(),
            max_bytes: usize::MAX,
        };
        let all = store.changes(request).await.expect("changes can be read").bundles;
        let all = all.into_iter().map(|b| b.verify(world.replica, &mut Verifier::default()).expect("proved")).collect();
        world.apply(&*other, all).await;
    }
    let after = other.state(world.replica).await.expect("the replica is there");
    assert_eq!(after.root, root, "the change log is the whole replica");
}

/// Small histories of several authors whose every order of arrival must give one result.
fn small_histories(world: &World) -> Vec<Vec<VerifiedBundle>> {
    let one = |author, at, op| world.commit(author, at, vec![op]);
    vec![
        // Delete, put again, and another author's older value must not come back.
        vec![
            one(1, -50, put("k", "old")),
            one(0, -40, put("k", "mine")),
            one(0, -30, delete("k")),
            one(0, -20, put("k", "again")),
            one(2, -35, put("k", "late")),
        ],
        // A prefix tombstone among tombstones and values of nested keys.
        vec![
            one(0, -50, put("a", "1")),
            one(1, -40, delete("ab")),
            one(2, -30, delete_prefix("a")),
            one(1, -20, put("ab", "2")),
            one(3, -25, delete_prefix("ab")),
        ],
        // The same microsecond.
        vec![
            one(0, -10, put("k", "0")),
            one(1, -10, put("k", "1")),
            one(2, -10, delete("k")),
            one(0, -10, delete_prefix("")),
            one(1, -10, delete("k")),
        ],
        // One author who says two things at one place and time, and a third later or not.
        vec![
            one(0, -10, put("k", "0")),
            one(0, -10, put("k", "1")),
            one(0, -10, put("k", "2")),
            one(1, -10, put("k", "3")),
            one(0, -11, put("k", "4")),
        ],
        // One commit with everything in it, against the parts of another.
        vec![
            world.commit(0, -10, vec![put("a", "1"), delete_prefix("a"), put("a", "2"), delete("b"), put("b", "3")]),
            world.commit(1, -9, vec![put("a", "x"), delete("a"), put("b", "y")]),
            one(2, -8, put("b", "z")),
            one(2, -100, delete_prefix("b")),
        ],
    ]
}

/// Every order of arrival of small histories, replay included, gives one result.
pub async fn the_result_does_not_depend_on_the_order_of_arrival<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = harness.open();
    for history in small_histories(&world) {
        let mut model = Reference::new(world.replica);
        for bundle in world.grants().iter().chain(&history) {
            model.apply(bundle, NOW);
        }
        let expected = model.digest(&SlotRange::ALL);
        let mut orders = 0;
        for order in permutations(history.len()) {
            store.create_replica(world.replica, Vec::new()).await.expect("a replica can be made");
            world.apply(&*store, world.grants()).await;
            for at in &order {
                world.apply(&*store, vec![history[*at].clone()]).await;
            }
            let root = store.state(world.replica).await.expect("the replica is there").root;
            assert_eq!(root, expected, "order {order:?}");
            // Replay changes nothing.
            let head = store.state(world.replica).await.expect("the replica is there").head;
            world.apply(&*store, history.clone()).await;
            let state = store.state(world.replica).await.expect("the replica is there");
            assert_eq!((state.root, state.head), (expected, head), "replay after order {order:?}");
            store.drop_replica(world.replica, Vec::new()).await.expect("a replica can be dropped");
            orders += 1;
        }
        assert!(orders >= 24);
    }
}

fn permutations(len: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..len {
        all = all
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..len)
                    .filter(|next| !order.contains(next))
                    .map(|next| [&order[..], &[next]].concat())
                    .collect::<Vec<_>>()
            })
            .collect();
    }
    all
}
