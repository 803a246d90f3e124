//! Cases about reconciliation: two stores talk until they are equal.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    StoreHarness,
    world::{World, delete_prefix, put},
};
use crate::{
    model::{Digest, Grant, Hash, Prefix, ReadScope, Right, SecretKey, SlotKey, SlotRange, VerifiedBundle, Verifier},
    store::{
        Claim, Have, Missing, Position, ReplicaStore, Scope, ShortId, StoreError,
        coded::{CodedSet, SOME_SYMBOLS},
        reconcile::{LEAF, MAX_ANSWERS, MAX_CLAIMS},
    },
    testing::random::Random,
};

/// What a reconciliation took.
#[derive(Debug, Default)]
struct Took {
    messages: usize,
    claims: usize,
    sent: u64,
}

async fn hashes(store: &dyn ReplicaStore, world: &World) -> BTreeSet<Hash> {
    let log = store.log(world.replica, Position(0), usize::MAX).await.expect("log");
    log.into_iter().map(|entry| entry.hash).collect()
}

/// Plays the two sides of a reconciliation over `scope` and applies what each sends.
async fn reconcile(world: &World, stores: [&Arc<dyn ReplicaStore>; 2], scope: &Scope) -> Took {
    let mut took = Took::default();
    let replica = world.replica;
    let before = [hashes(&**stores[0], world).await, hashes(&**stores[1], world).await];
    let mut claims = stores[0].first_claims(replica, scope.clone()).await.expect("first claims");
    let mut missing: [Vec<Missing>; 2] = Default::default();
    let mut at = 1;
    while !claims.is_empty() {
        took.messages += 1;
        took.claims += claims.len();
        assert!(took.messages < 40, "it ends");
        let mut answers = Vec::new();
        for message in claims.chunks(MAX_CLAIMS) {
            let answer = stores[at].reconcile(replica, scope.clone(), message.to_vec()).await.expect("reconciled");
            answers.extend(answer.claims);
            missing[at].extend(answer.missing);
        }
        claims = answers;
        at = 1 - at;
    }
    for (side, mut rest) in missing.into_iter().enumerate() {
        while !rest.is_empty() {
            let page = stores[side].missing(replica, scope.clone(), rest, 4_000).await.expect("missing");
            assert!(page.entries > 0 || page.rest.is_empty(), "each page has something");
            rest = page.rest;
            took.sent += page.entries;
            let mut bundles: Vec<VerifiedBundle> = Vec::new();
            for bundle in page.bundles {
                bundles.push(bundle.verify(replica, &mut Verifier::default()).expect("what is sent is proved"));
            }
            for entry in bundles.iter().flat_map(VerifiedBundle::entries) {
                assert!(scope.contains(entry.op), "what is sent is inside the scope");
                assert!(!before[1 - side].contains(&entry.order.hash), "what the other has is not sent");
            }
            world.apply(&**stores[1 - side], bundles).await;
        }
    }
    took
}

async fn root(store: &Arc<dyn ReplicaStore>, world: &World) -> crate::model::Digest {
    store.state(world.replica).await.expect("state").root
}

/// Every difference is found, nothing is sent that the other has, and what it takes follows the difference.
pub async fn reconciliation_finds_every_difference<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let mut random = Random::new(11);
    eprintln!("seed 11");
    for (common, left, right) in
        [(0, 0, 0), (0, 5, 0), (0, 0, 500), (3_000, 0, 0), (3_000, 1, 1), (3_000, 60, 40), (9, 900, 900)]
    {
        let stores = [world.create(harness.another()).await, world.create(harness.another()).await];
        let mut number = 0;
        let mut commits = |count: usize, size: usize| {
            let mut commits = Vec::new();
            for _ in 0..count.div_ceil(size) {
                let ops = (0..size.min(count)).map(|_| put(&format!("{:05}", random.below(99_999)), "v")).collect();
                number += 1;
                commits.push(world.commit(0, number * 10_000 - 99_000_000, ops));
            }
            commits
        };
        let (both, left, right) = (commits(common, 100), commits(left, 1), commits(right, 1));
        for (store, own) in stores.iter().zip([left, right]) {
            world.apply(&**store, both.clone()).await;
            world.apply(&**store, own).await;
        }
        let equal = root(&stores[0], &world).await == root(&stores[1], &world).await;
        let took = reconcile(&world, [&stores[0], &stores[1]], &Scope::all()).await;
        assert_eq!(root(&stores[0], &world).await, root(&stores[1], &world).await, "{took:?}");
        if equal {
            assert_eq!((took.messages <= 1, took.sent), (true, 0), "equal sets are settled by the first message");
        }
        assert!(took.messages <= 7, "{took:?}: rounds grow with the logarithm");
    }
}

/// Nothing outside the scope is compared or sent, though the other asks for it.
pub async fn reconciliation_stays_inside_the_scope<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let stores = [world.create(harness.another()).await, world.create(harness.another()).await];
    let ops = |text: &str| (0..300).map(|n| put(&format!("{}/{text}{n}", ["a", "b", "c"][n % 3]), "v")).collect();
    world
        .apply(&*stores[0], vec![world.commit(0, -9_000, ops("x")), world.commit(0, -5, vec![delete_prefix("c/x")])])
        .await;
    world
        .apply(&*stores[1], vec![world.commit(0, -8_000, ops("y")), world.commit(0, -4, vec![delete_prefix("")])])
        .await;
    let scope = Scope::of(&ReadScope { prefixes: vec![Prefix::new("b/").expect("short")] });
    let outside = SlotRange::of_prefix(b"a/");
    let before = stores[0].summary(world.replica, outside.clone()).await.expect("summary");
    assert_eq!(before.count(), 100);
    // The other side claims to have nothing of everything.
    let greedy = vec![Claim { range: SlotRange::ALL, have: Have::Final(Vec::new()) }];
    let answer = stores[0].reconcile(world.replica, scope.clone(), greedy).await.expect("reconciled");
    let page = stores[0].missing(world.replica, Scope::all(), answer.missing, usize::MAX).await.expect("missing");
    assert!(page.bundles.iter().flat_map(|b| &b.items).all(|item| scope.contains(&item.op)), "clamped when compared");
    assert_eq!(page.entries, 100);
    let everything = vec![Missing { range: SlotRange::ALL, except: Vec::new(), until: Position::LAST }];
    let page = stores[0].missing(world.replica, scope.clone(), everything, usize::MAX).await.expect("missing");
    assert_eq!(page.entries, 100, "clamped when read");
    let took = reconcile(&world, [&stores[0], &stores[1]], &scope).await;
    let sums = [0, 1].map(|side| stores[side].scope_summary(world.replica, scope.clone()));
    let [left, right] = sums;
    assert_eq!(left.await.expect("summary"), right.await.expect("summary"), "{took:?}");
    assert_eq!(stores[1].summary(world.replica, SlotRange::of_prefix(b"c/x")).await.expect("summary").count(), 0);
}

/// A range of one key cannot be cut: the entries of many authors there are listed.
pub async fn many_authors_at_one_key_are_reconciled<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let stores = [world.create(harness.another()).await, world.create(harness.another()).await];
    let owner = world.author(0);
    let writers: Vec<SecretKey> = (0..3 * LEAF as u8).map(|n| SecretKey::from_bytes([n + 100; 32])).collect();
    let grants = writers.iter().map(|writer| {
        let grant = Grant {
            subject: writer.public(),
            right: Right::Write,
            prefix: Prefix::default(),
            expires: None,
            parent: None,
        };
        grant.to_op(&owner)
    });
    let grants = world.commit(0, -9_000, grants.collect());
    for store in &stores {
        world.apply(&**store, vec![grants.clone()]).await;
    }
    let mut crowd = World::new(1);
    crowd.authors = writers;
    for author in 0..crowd.authors.len() {
        let bundle = crowd.commit(author, author as i64, vec![put("the one key", "v")]);
        for (side, store) in stores.iter().enumerate() {
            // A third is only at the left, a third only at the right.
            if author % 3 != side {
                world.apply(&**store, vec![bundle.clone()]).await;
            }
        }
    }
    let took = reconcile(&world, [&stores[0], &stores[1]], &Scope::all()).await;
    assert_eq!(root(&stores[0], &world).await, root(&stores[1], &world).await);
    assert_eq!(took.sent, 2 * LEAF, "{took:?}");
}

/// A message is bounded, sorted and disjoint, or an error: it must not buy more work than it costs.
pub async fn claims_out_of_order_or_too_many_are_refused<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    let claim = |from: usize, to: usize| Claim {
        range: SlotRange {
            start: crate::model::SlotKey::ordinary(format!("{from:05}").as_bytes()),
            end: Some(crate::model::SlotKey::ordinary(format!("{to:05}").as_bytes())),
        },
        have: Have::Ids(Vec::new()),
    };
    let ask = async |claims| store.reconcile(world.replica, Scope::all(), claims).await.map(|_| ());
    let many = |count| (0..count).map(|n| claim(n, n + 1)).collect::<Vec<_>>();
    assert!(ask(many(MAX_CLAIMS)).await.is_ok());
    assert!(matches!(ask(many(MAX_CLAIMS + 1)).await, Err(StoreError::Limit(_))));
    assert!(matches!(ask(vec![claim(1, 3), claim(2, 4)]).await, Err(StoreError::Limit(_))));
    assert!(matches!(ask(vec![claim(3, 4), claim(1, 2)]).await, Err(StoreError::Limit(_))));
    assert!(matches!(ask(vec![claim(4, 4)]).await, Err(StoreError::Limit(_))));
    let open_end = Claim { range: SlotRange::ALL, have: Have::Ids(Vec::new()) };
    assert!(matches!(ask(vec![open_end, claim(1, 2)]).await, Err(StoreError::Limit(_))));
}

/// An answer that would be too long leaves claims unanswered, and says so: what it left out must follow in another way.
pub async fn an_answer_that_leaves_claims_out_says_so<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    world.apply(&*store, vec![world.commit(0, 0, vec![put("0000/a", "v"), put("0001/a", "v")])]).await;
    let theirs = Digest { count: 1, ..Digest::EMPTY };
    for prefixes in [MAX_ANSWERS / 8, MAX_ANSWERS] {
        let prefixes = (0..prefixes).map(|n| Prefix::new(format!("{n:04}/")).expect("short"));
        let scope = Scope::of(&ReadScope { prefixes: prefixes.collect() });
        let ranges = scope.ranges().len();
        // One claim is about each range of the scope, and each differs: as many answers.
        let claims = vec![Claim { range: SlotRange::ALL, have: Have::Digest(theirs) }];
        let answer = store.reconcile(world.replica, scope, claims).await.expect("reconciled");
        let answered = answer.claims.len() + answer.missing.len();
        assert_eq!(answer.is_cut, answered < ranges, "{answered} of {ranges} ranges were answered");
        assert!(answered > 0, "{ranges} ranges");
    }
}

/// Whether the store has symbols, and then they are those of its entries.
async fn check_coded(store: &dyn ReplicaStore, world: &World) -> bool {
    let head = store.state(world.replica).await.expect("state").head;
    let hashes = hashes(store, world).await;
    for count in [1, SOME_SYMBOLS + 1] {
        let Some(coded) = store.coded(world.replica, head, count).await.expect("coded") else { return false };
        assert!(coded.symbols().len() >= count, "as many symbols as were asked for");
        let mut expected = CodedSet::with_symbols(coded.symbols().len());
        hashes.iter().for_each(|hash| expected.insert(&hash.into()));
        assert_eq!(coded, expected, "the symbols are those of the entries");
    }
    true
}

/// Whatever came, went or was refused since the store was opened. A store without symbols keeps the contract too.
pub async fn coded_symbols_are_of_what_is_there<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let mut store = world.create(harness.open()).await;
    let has = check_coded(&*store, &world).await;
    for round in 0..6 {
        let ops = |count| (0..count).map(|n| put(&format!("{}/{}", n % 7, n % 40 + round), "v")).collect();
        world.apply(&*store, vec![world.commit(0, -9_000 + round * 100, ops(60))]).await;
        world.apply(&*store, vec![world.commit(0, -8_950 + round * 100, vec![delete_prefix("3/")])]).await;
        let stranger = world.commit(4, -8_940 + round * 100, ops(3));
        world.apply(&*store, vec![stranger, world.commit(0, -8_930 + round * 100, ops(3))]).await;
        assert_eq!(check_coded(&*store, &world).await, has);
        if round % 2 == 1 {
            store.close().await;
            drop(store);
            store = harness.open();
        }
        if round == 3 {
            assert_eq!(check_coded(&*store, &world).await, has, "asked for before anything is written");
        }
    }
    store.drop_replica(world.replica, Vec::new()).await.expect("dropped");
    store.create_replica(world.replica, Vec::new()).await.expect("created");
    assert_eq!(check_coded(&*store, &world).await, has);
}

/// What is found is exactly what was asked for, or the answer says that some was not.
pub async fn entries_are_found_by_their_ids<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    world.apply(&*store, world.grants()).await;
    for author in 0..3 {
        let ops = (0..50).map(|n| put(&format!("{n}"), "v")).collect();
        world.apply(&*store, vec![world.commit(author, author as i64, ops)]).await;
    }
    let all: Vec<ShortId> = hashes(&*store, &world).await.iter().map(ShortId::from).collect();
    let nothing = store.find(world.replica, Vec::new()).await.expect("found");
    assert!(nothing.is_complete && nothing.missing.is_empty());
    for step in [1, 2, 5, 40] {
        let mut ids: Vec<ShortId> = all.iter().copied().step_by(step).collect();
        let found = store.find(world.replica, ids.clone()).await.expect("found");
        let page =
            store.missing(world.replica, Scope::all(), found.missing.clone(), usize::MAX).await.expect("missing");
        let mut sent = Vec::new();
        for bundle in page.bundles {
            let bundle = bundle.verify(world.replica, &mut Verifier::default()).expect("what is sent is proved");
            sent.extend(bundle.entries().map(|entry| ShortId::from(&entry.order.hash)));
        }
        sent.sort_unstable();
        if found.is_complete {
            assert_eq!(sent, ids, "all, each once, and nothing else");
        } else {
            assert!(sent.iter().all(|id| ids.contains(id)));
        }
        ids.push(ShortId([0xff; 16]));
        assert!(!store.find(world.replica, ids).await.expect("found").is_complete, "there is no such entry");
    }
}

/// A peer that answers in many rounds may ask for a place in two of them.
pub async fn what_ranges_that_overlap_have_in_common_is_proved<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.another()).await;
    world.apply(&*store, world.grants()).await;
    let ops = (0..9).map(|n| put(&format!("{n}"), "v")).collect();
    world.apply(&*store, vec![world.commit(0, 0, ops)]).await;
    let part = |from: &str, to: &str| {
        let range =
            SlotRange { start: SlotKey::ordinary(from.as_bytes()), end: Some(SlotKey::ordinary(to.as_bytes())) };
        Missing { range, except: Vec::new(), until: Position::LAST }
    };
    let overlapping = vec![part("2", "6"), part("4", "8")];
    let page = store.missing(world.replica, Scope::all(), overlapping, usize::MAX).await.expect("missing");
    let mut keys = Vec::new();
    for bundle in page.bundles {
        let bundle = bundle.verify(world.replica, &mut Verifier::default()).expect("what is sent is proved");
        keys.extend(bundle.entries().map(|entry| entry.op.key_bytes().to_vec()));
    }
    assert_eq!(keys, ["2", "3", "4", "5", "6", "7"].map(|key| key.as_bytes().to_vec()));
    // What came later follows with the change log, also when a page has no room for the rest.
    let until = store.state(world.replica).await.expect("state").head;
    world.apply(&*store, vec![world.commit(0, 100, vec![put("25", "later"), put("5", "later")])]).await;
    let mut missing = vec![Missing { until, ..part("2", "6") }];
    let mut keys = Vec::new();
    while !missing.is_empty() {
        let page = store.missing(world.replica, Scope::all(), missing, 1).await.expect("missing");
        keys.extend(page.bundles.iter().flat_map(|bundle| &bundle.items).map(|item| item.op.key_bytes().to_vec()));
        missing = page.rest;
    }
    assert_eq!(keys, ["2", "3", "4"].map(|key| key.as_bytes().to_vec()));
}
