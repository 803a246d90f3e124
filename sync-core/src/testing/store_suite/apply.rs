//! Cases about `apply`, replicas and node records.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;

use super::{
    StoreHarness,
    world::{NOW, World, delete, delete_prefix, key, peer, put},
};
use crate::{
    model::{Digest, Hash, Key, MAX_AHEAD, Op, RightsError, SlotRange, Timestamp, Value},
    store::{Apply, NodeKind, NodeRecord, Origin, Outcome, Position, ReplicaStore, StoreError},
    testing::block_on,
};

fn record(kind: NodeKind, name: &str, value: Option<&str>) -> NodeRecord {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    NodeRecord { kind, name: bytes(name), value: value.map(bytes) }
}

const INSERTED: Outcome = Outcome::Inserted { replaced: 0 };

/// When the future completes, entries, records and the change log are on disk.
pub async fn b50_apply_is_durable<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    world.apply(&*store, world.grants()).await;
    let cursor = record(NodeKind::Job, "cursor", Some("9"));
    let bundles = vec![world.commit(1, -9, vec![put("a", "1"), put("b", "2"), delete("c")])];
    world.try_apply(&*store, bundles, Origin::Local, vec![cursor.clone()]).await.expect("applied");
    let before = store.state(world.replica).await.expect("state");
    let log = store.log(world.replica, Position(0), 100).await.expect("log");
    drop(store);
    let store = harness.open();
    let after = store.state(world.replica).await.expect("state");
    assert_eq!((after.root, after.head, after.newest), (before.root, before.head, before.newest));
    assert_eq!(store.log(world.replica, Position(0), 100).await.expect("log"), log);
    assert_eq!(store.node_records(NodeKind::Job).await.expect("records"), [cursor]);
    assert!(after.rights.may_write(&world.author(1), &put("x", ""), NOW), "rights are there after opening again");
}

/// A batch becomes visible as a whole: no reader ever sees a part of one.
pub async fn b54_apply_is_atomic<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            loop {
                let ended = done.load(Ordering::Acquire);
                let log = block_on(store.log(world.replica, Position(0), usize::MAX)).expect("log");
                assert_eq!(log.len() % 50, 0, "a part of a batch was seen");
                let summary = block_on(store.summary(world.replica, SlotRange::ALL)).expect("summary");
                assert_eq!(summary.count() % 50, 0, "a part of a batch was counted");
                seen += 1;
                if ended {
                    return seen;
                }
            }
        });
        for batch in 0..40 {
            let ops = |half: usize| (0..25).map(|n| put(&format!("{batch}/{half}/{n}"), "x")).collect();
            let bundles = vec![world.commit(0, -100, ops(0)), world.commit(0, -50, ops(1))];
            block_on(world.apply(&*store, bundles));
        }
        done.store(true, Ordering::Release);
        assert!(reader.join().expect("the reader saw whole batches") > 0);
    });
}

/// One outcome an entry, in order.
pub async fn apply_answers_each_entry<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    let granted = world.apply(&*store, world.grants()).await;
    assert_eq!(granted.outcomes, [INSERTED; 3]);
    assert!(granted.rights_changed);
    let first = world.commit(0, -90, vec![put("a", "1"), put("ab", "2"), put("b", "3")]);
    let other = world.commit(1, -80, vec![put("a", "4")]);
    let stranger = world.commit(4, -70, vec![put("a", "5")]);
    let applied = world.apply(&*store, vec![first.clone(), stranger.clone(), other]).await;
    let refused = Outcome::Refused(RightsError::NotCovered);
    assert_eq!(applied.outcomes, [INSERTED, INSERTED, INSERTED, refused, INSERTED]);
    assert!(!applied.rights_changed);
    assert_eq!(applied.inserted(), 4);
    // Again, in another order; and a tombstone over three of them.
    let tombstone = world.commit(2, -10, vec![delete_prefix("a"), put("b", "6")]);
    let applied = world.apply(&*store, vec![tombstone]).await;
    assert_eq!(applied.outcomes, [Outcome::Inserted { replaced: 3 }, INSERTED]);
    let applied = world.apply(&*store, vec![stranger, first]).await;
    assert_eq!(applied.outcomes, [refused, Outcome::Dominated, Outcome::Dominated, Outcome::Present]);
    let state = store.state(world.replica).await.expect("state");
    assert_eq!((applied.state.root, applied.state.head), (state.root, state.head));
    assert_eq!(state.newest, Timestamp(NOW.0 - 9));
}

/// System entries first, then the others against them; nothing that rights do not cover comes in.
pub async fn rights_are_checked_on_every_entry<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    let early = world.commit(3, -50, vec![put("a1", "x")]);
    let refused = Outcome::Refused(RightsError::NotCovered);
    assert_eq!(world.apply(&*store, vec![early.clone()]).await.outcomes, [refused]);
    // A chain that arrives backwards, after what it covers, in one batch.
    let mut batch = vec![early, world.commit(3, -40, vec![put("b", "x"), delete("a2"), delete_prefix("")])];
    batch.extend(world.grants().into_iter().rev());
    let outcomes = world.apply(&*store, batch).await.outcomes;
    assert_eq!(outcomes, [INSERTED, refused, INSERTED, refused, INSERTED, INSERTED, INSERTED]);
    // A grant whose parent nobody knows, and a system entry of an unknown kind.
    let unknown = Op::Put {
        key: crate::model::Key::new(vec![0, b'?', 1]).expect("a key"),
        value: Value::Inline(Bytes::from_static(b"new")),
    };
    let outcomes = world.apply(&*store, vec![world.commit(0, -5, vec![unknown])]).await.outcomes;
    assert_eq!(outcomes, [Outcome::Refused(RightsError::UnknownSystemEntry)]);
    let outcomes = world.apply(&*store, vec![world.commit(4, -5, vec![put("a", "x")])]).await.outcomes;
    assert_eq!(outcomes, [refused]);
    let log = store.log(world.replica, Position(0), 100).await.expect("log");
    assert_eq!(log.len(), 5, "what was refused is nowhere");
    assert!(log[..3].iter().all(|row| row.entry.op.is_system()), "grants stand before what is written by them");
}

/// They are not stored, and welcome later; a local write never fails because of a clock.
pub async fn entries_from_the_future_wait<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    let ahead = i64::try_from(MAX_AHEAD.as_micros()).expect("ten minutes");
    let at_limit = world.commit(0, ahead, vec![put("a", "1")]);
    let past_limit = world.commit(0, ahead + 1, vec![put("b", "2")]);
    let applied = world.apply(&*store, vec![at_limit, past_limit.clone()]).await;
    assert_eq!(applied.outcomes, [INSERTED, Outcome::Future]);
    assert!(store.get(world.replica, key("b")).await.expect("get").is_none());
    let later = Apply {
        replica: world.replica,
        bundles: vec![past_limit],
        origin: Origin::Peer(peer(1)),
        now: NOW.plus(Duration::from_micros(1)),
        records: Vec::new(),
    };
    assert_eq!(store.apply(later).await.expect("applied").outcomes, [INSERTED]);
    let own = world.commit(0, ahead * 9, vec![put("c", "3")]);
    let applied = world.try_apply(&*store, vec![own], Origin::Local, Vec::new()).await.expect("applied");
    assert_eq!(applied.outcomes, [INSERTED]);
}

/// It changes nothing and loses nothing else, not even what is applied at the same moment.
pub async fn b51_a_failed_apply_changes_nothing<H: StoreHarness>(harness: &H) {
    let (world, other, unknown) = (World::new(1), World::new(2), World::new(3));
    let store = world.create(harness.open()).await;
    other.create(store.clone()).await;
    let before = store.state(world.replica).await.expect("state").root;
    let too_long = NodeRecord { kind: NodeKind::Setting, name: vec![1; 10_000].into(), value: Some(Bytes::new()) };
    std::thread::scope(|scope| {
        for n in 0..20 {
            let (store, world, other, unknown) = (&store, &world, &other, &unknown);
            let too_long = too_long.clone();
            scope.spawn(move || {
                let good = other.commit(0, n, vec![put(&format!("{n}"), "good")]);
                let good = block_on(other.try_apply(&**store, vec![good], Origin::Local, Vec::new()));
                assert_eq!(good.expect("others are not harmed").outcomes, [INSERTED]);
                let lost = unknown.commit(0, n, vec![put("a", "x")]);
                let error = block_on(unknown.try_apply(&**store, vec![lost], Origin::Local, Vec::new()));
                assert!(matches!(error, Err(StoreError::UnknownReplica(id)) if id == unknown.replica));
                let fine = world.commit(0, n, vec![put("a", "x")]);
                let error = block_on(world.try_apply(&**store, vec![fine], Origin::Local, vec![too_long]));
                assert!(matches!(error, Err(StoreError::Limit(_))), "a record with too long a name is refused");
                let foreign = other.commit(0, n, vec![put("z", "x")]);
                let error = block_on(world.try_apply(&**store, vec![foreign], Origin::Local, Vec::new()));
                assert!(matches!(error, Err(StoreError::Limit(_))), "another replica's entries are refused");
            });
        }
    });
    assert_eq!(store.state(world.replica).await.expect("state").root, before);
    let summary = store.summary(other.replica, SlotRange::ALL).await.expect("summary");
    assert_eq!(summary.count(), 20);
    assert_eq!(settings(&*store).await, []);
}

/// The store id stays over opening again, and differs between stores.
pub async fn the_store_id_stays<H: StoreHarness>(harness: &H) {
    let store = harness.open();
    let id = store.store_id();
    drop(store);
    assert_eq!(harness.open().store_id(), id);
    assert_ne!(harness.another().store_id(), id);
}

/// Blobs and bytes are those of the values that are there: after an overwrite, a deletion, one of a prefix, a replay.
pub async fn state_counts_blobs_and_bytes<H: StoreHarness>(harness: &H) {
    let world = World::new(1);
    let store = world.create(harness.open()).await;
    world.apply(&*store, world.grants()).await;
    let counted = async || {
        let state = store.state(world.replica).await.expect("state");
        (state.blobs, state.bytes)
    };
    let (blobs, grants) = counted().await;
    assert_eq!(blobs, 0);
    let blob = |key: &str, len: u64| {
        let key = Key::try_from(key).expect("a key");
        Op::Put { key, value: Value::Blob { hash: Hash([9; 32]), len } }
    };
    let first = world.commit(1, -900, vec![blob("a/1", 100_000), blob("a/2", 200_000), put("b", "1234567")]);
    for _ in 0..2 {
        world.apply(&*store, vec![first.clone()]).await;
        assert_eq!(counted().await, (2, grants + 300_007), "a replay counts nothing twice");
    }
    world.apply(&*store, vec![world.commit(1, -800, vec![put("a/1", "12"), put("b", "")])]).await;
    assert_eq!(counted().await, (1, grants + 200_002));
    world.apply(&*store, vec![world.commit(1, -700, vec![delete("a/1"), delete_prefix("a/")])]).await;
    assert_eq!(counted().await, (0, grants));
    // What is dominated never counts.
    world.apply(&*store, vec![world.commit(1, -850, vec![blob("a/3", 5)])]).await;
    assert_eq!(counted().await, (0, grants));
}

/// Every trace of a dropped replica is gone; records written with it are there.
pub async fn b55_a_dropped_replica_leaves_nothing<H: StoreHarness>(harness: &H) {
    let (world, other) = (World::new(1), World::new(2));
    let store = world.create(harness.open()).await;
    other.create(store.clone()).await;
    for world in [&world, &other] {
        world.apply(&*store, world.grants()).await;
        let ops = (0..200).map(|n| put(&format!("key {n}"), "value")).collect();
        world.apply(&*store, vec![world.commit(1, -500, ops), world.commit(0, -9, vec![delete("x")])]).await;
    }
    let kept = store.state(other.replica).await.expect("state");
    let last = store.state(world.replica).await.expect("state").head;
    let marker = record(NodeKind::Removed, "it", Some("was here"));
    let freed = store.drop_replica(world.replica, vec![marker.clone()]).await.expect("dropped");
    assert!(freed > 200 * 60, "the bytes of 200 entries and more are reported, not {freed}");
    assert_eq!(store.replicas().await.expect("replicas"), [other.replica]);
    assert_eq!(store.node_records(NodeKind::Removed).await.expect("records"), [marker]);
    let error = store.state(world.replica).await.map(|_| ());
    assert!(matches!(error, Err(StoreError::UnknownReplica(_))));
    assert_eq!(store.state(other.replica).await.expect("state").root, kept.root);
    // It comes back empty, and without the rights that it had. Its log begins behind the one of before.
    store.create_replica(world.replica, Vec::new()).await.expect("created");
    let state = store.state(world.replica).await.expect("state");
    assert_eq!((state.root, state.newest), (Digest::EMPTY, Timestamp(0)));
    assert!(state.head >= last, "{:?} is a position of before, which was at {last:?}", state.head);
    assert!(!state.rights.may_write(&world.author(1), &put("a", ""), NOW));
    assert_eq!(store.log(world.replica, Position(0), 10).await.expect("log"), []);
    world.apply(&*store, world.grants()).await;
    let log = store.log(world.replica, Position(0), 10).await.expect("log");
    assert!(!log.is_empty() && log.iter().all(|row| row.position > last), "{log:?}");
    assert_eq!(store.log(world.replica, last, 10).await.expect("log"), log);
}

/// An unknown replica is an error, and reading creates nothing.
pub async fn an_unknown_replica_is_an_error<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = harness.open();
    let unknown = |result: Result<(), StoreError>| {
        assert!(matches!(result, Err(StoreError::UnknownReplica(id)) if id == world.replica), "{result:?}");
    };
    unknown(store.state(world.replica).await.map(|_| ()));
    unknown(store.get(world.replica, key("a")).await.map(|_| ()));
    unknown(store.query(world.replica, Default::default()).await.map(|_| ()));
    unknown(store.summary(world.replica, SlotRange::ALL).await.map(|_| ()));
    unknown(store.split(world.replica, SlotRange::ALL, 4).await.map(|_| ()));
    unknown(store.log(world.replica, Position(0), 4).await.map(|_| ()));
    unknown(store.drop_replica(world.replica, Vec::new()).await.map(|_| ()));
    let bundle = world.commit(0, 0, vec![put("a", "1")]);
    unknown(world.try_apply(&*store, vec![bundle], Origin::Local, Vec::new()).await.map(|_| ()));
    assert_eq!(store.replicas().await.expect("replicas"), []);
}

/// A replica that is there already stays as it is.
pub async fn creating_again_changes_nothing<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    world.apply(&*store, vec![world.commit(0, 0, vec![put("a", "1")])]).await;
    let root = store.state(world.replica).await.expect("state").root;
    world.create(store.clone()).await;
    assert_eq!(store.state(world.replica).await.expect("state").root, root);
    assert_eq!(store.replicas().await.expect("replicas"), [world.replica]);
}

/// Records go with the entries: what this node may not write leaves none behind. A peer's cursor moves all the same.
pub async fn records_of_a_refused_local_batch_are_not_kept<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    world.apply(&*store, world.grants()).await;
    let note = record(NodeKind::Note, "how far", Some("9"));
    for (origin, kept) in [(Origin::Local, vec![]), (Origin::Peer(peer(1)), vec![note.clone()])] {
        let refused = vec![world.commit(4, -70, vec![put("a", "5")])];
        let applied = world.try_apply(&*store, refused, origin, vec![note.clone()]).await.expect("applied");
        assert!(matches!(applied.outcomes[..], [Outcome::Refused(_)]));
        assert_eq!(store.node_records(NodeKind::Note).await.expect("records"), kept);
    }
}

/// Node records are written all or none, replaced, removed, and kept apart by kind.
pub async fn b45_records_are_kept_by_kind_and_name<H: StoreHarness>(harness: &H) {
    let store = harness.open();
    let setting = |name, value| record(NodeKind::Setting, name, value);
    let peer = record(NodeKind::Peer, "a", Some("peer"));
    store.save(vec![setting("a", Some("1")), setting("b", Some("2")), peer.clone()]).await.expect("saved");
    store.save(vec![setting("a", Some("3")), setting("b", None), setting("", Some(""))]).await.expect("saved");
    let found = settings(&*store).await;
    assert_eq!(found, [setting("", Some("")), setting("a", Some("3"))]);
    assert_eq!(store.node_records(NodeKind::Peer).await.expect("records"), [peer]);
    let too_long = NodeRecord { kind: NodeKind::Setting, name: vec![7; 10_000].into(), value: None };
    assert!(store.save(vec![setting("a", None), too_long]).await.is_err());
    assert_eq!(settings(&*store).await, found);
    drop(store);
    assert_eq!(settings(&*harness.open()).await, found);
}

/// The settings, but for what a node that has the store open keeps there itself.
async fn settings(store: &dyn ReplicaStore) -> Vec<NodeRecord> {
    let mut settings = store.node_records(NodeKind::Setting).await.expect("records");
    settings.retain(|record| &record.name[..] != b"incarnation");
    settings
}

/// Writes of many callers at once are all there.
pub async fn concurrent_applies_are_all_there<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    world.apply(&*store, world.grants()).await;
    std::thread::scope(|scope| {
        for author in 0..3usize {
            let (store, world) = (&store, &world);
            scope.spawn(move || {
                for n in 0..60 {
                    let op = if n % 7 == 6 { delete("k0") } else { put(&format!("k{}", n % 20), &format!("{author}")) };
                    let bundle = world.commit(author, n, vec![op, put(&format!("own {author} {n}"), "x")]);
                    block_on(world.apply(&**store, vec![bundle]));
                }
            });
        }
    });
    let mut model = crate::testing::reference::Reference::new(world.replica);
    world.grants().iter().for_each(|bundle| model.apply(bundle, NOW));
    for author in 0..3usize {
        for n in 0..60 {
            let op = if n % 7 == 6 { delete("k0") } else { put(&format!("k{}", n % 20), &format!("{author}")) };
            model.apply(&world.commit(author, n, vec![op, put(&format!("own {author} {n}"), "x")]), NOW);
        }
    }
    let root = store.state(world.replica).await.expect("state").root;
    assert_eq!(root, model.digest(&SlotRange::ALL));
}

/// After `close` everything is refused, and what was acknowledged is there when it is opened again.
pub async fn a_closed_store_refuses<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    world.apply(&*store, vec![world.commit(0, 0, vec![put("a", "1")])]).await;
    store.close().await;
    store.close().await;
    let bundle = world.commit(0, 1, vec![put("b", "1")]);
    let error = world.try_apply(&*store, vec![bundle], Origin::Local, Vec::new()).await.map(|_| ());
    assert!(matches!(error, Err(StoreError::Closed)), "{error:?}");
    let error = store.state(world.replica).await.map(|_| ());
    assert!(matches!(error, Err(StoreError::Closed)), "{error:?}");
    drop(store);
    let store = harness.open();
    assert_eq!(store.summary(world.replica, SlotRange::ALL).await.expect("summary").count(), 1);
}
