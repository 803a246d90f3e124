//! Cases about reading: get, query, summary, split.

use bytes::Bytes;

use super::{
    StoreHarness,
    world::{World, delete, delete_prefix, key, put},
};
use crate::{
    model::{Hash, Key, Op, SlotKey, SlotRange, Summary, Value},
    store::{Direction, LogEntry, Position, Query, Select},
};

fn texts(entries: &[LogEntry]) -> Vec<String> {
    let text = |entry: &LogEntry| match &entry.entry.op {
        Op::Put { key, value: Value::Inline(value) } => format!("{key}={}", value.escape_ascii()),
        Op::Put { key, value: Value::Blob { .. } } => format!("{key}=blob"),
        Op::Delete { key } => format!("-{key}"),
        Op::DeletePrefix { prefix } => format!("-{prefix}*"),
    };
    entries.iter().map(text).collect()
}

/// The newest value across authors; nothing where the newest is a tombstone.
pub async fn get_answers_the_newest_value_across_authors<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    world.apply(&*store, world.grants()).await;
    let one = |author, at, op| vec![world.commit(author, at, vec![op])];
    let get = async |at: &str| texts(&Vec::from_iter(store.get(world.replica, key(at)).await.expect("get")));
    assert!(get("k").await.is_empty());
    world.apply(&*store, one(1, -50, put("k", "newer"))).await;
    world.apply(&*store, one(0, -60, put("k", "older"))).await;
    assert_eq!(get("k").await, ["k=newer"]);
    world.apply(&*store, one(0, -40, put("k", "newest"))).await;
    assert_eq!(get("k").await, ["k=newest"]);
    world.apply(&*store, one(2, -45, delete("k"))).await;
    assert_eq!(get("k").await, ["k=newest"], "a tombstone older than the value");
    world.apply(&*store, one(2, -30, delete("k"))).await;
    assert!(get("k").await.is_empty());
    world.apply(&*store, one(1, -35, put("k", "late"))).await;
    assert!(get("k").await.is_empty(), "an older value does not come back");
    world.apply(&*store, one(1, -20, put("k", "again"))).await;
    assert_eq!(get("k").await, ["k=again"]);
    world.apply(&*store, one(0, -10, delete_prefix(""))).await;
    assert!(get("k").await.is_empty());
    let rights = store.state(world.replica).await.expect("state").rights;
    assert_eq!(rights.grants().count(), 3, "no tombstone covers a grant");
}

/// At the same microsecond the author decides, the same way on every node.
pub async fn b50_writers_in_the_same_microsecond_have_one_winner<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let mut winners = Vec::new();
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let store = world.create(harness.another()).await;
        world.apply(&*store, world.grants()).await;
        for author in order {
            world.apply(&*store, vec![world.commit(author, 0, vec![put("k", "same")])]).await;
        }
        winners.push(store.get(world.replica, key("k")).await.expect("get").expect("a value").entry.author);
    }
    let newest = (0..3).map(|author| world.author(author)).max().expect("three authors");
    assert_eq!(winners, [newest; 3]);
}

/// A query's winner does not depend on its direction; limits, start-after, authors, tombstones.
pub async fn b56_a_querys_winner_does_not_depend_on_its_direction<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    world.apply(&*store, world.grants()).await;
    for (author, at, op) in [
        (0, -90, put("a", "0")),
        (1, -80, put("a", "1")),
        (2, -70, put("b", "2")),
        (0, -75, put("b", "0")),
        (0, -60, delete("c")),
        (1, -50, put("d", "1")),
    ] {
        world.apply(&*store, vec![world.commit(author, at, vec![op])]).await;
    }
    let query = async |query: Query| texts(&store.query(world.replica, query).await.expect("query"));
    let up = Query::default();
    let down = Query { direction: Direction::Descending, ..Query::default() };
    assert_eq!(query(up.clone()).await, ["a=1", "b=2", "d=1"]);
    assert_eq!(query(down.clone()).await, ["d=1", "b=2", "a=1"]);
    let all = Query { select: Select::All, tombstones: true, ..up.clone() };
    assert_eq!(query(all.clone()).await, ["a=1", "a=0", "b=2", "b=0", "-c", "d=1"]);
    let all_down = Query { direction: Direction::Descending, ..all };
    assert_eq!(query(all_down).await, ["d=1", "-c", "b=2", "b=0", "a=1", "a=0"]);
    let after = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    assert_eq!(query(Query { limit: 1, start_after: after("a"), ..up.clone() }).await, ["b=2"]);
    assert_eq!(query(Query { limit: 1, start_after: after("b"), ..down }).await, ["a=1"]);
    assert_eq!(query(Query { author: Some(world.author(0)), ..up.clone() }).await, ["a=0", "b=0"]);
    assert_eq!(query(Query { key: after("b"), ..up.clone() }).await, ["b=2"]);
    assert!(query(Query { key: after("c"), ..up.clone() }).await.is_empty());
    assert!(query(Query { author: Some(world.author(4)), ..up }).await.is_empty());
}

/// Queries that are asked together answer in their order, those that find nothing too.
pub async fn queries_that_are_asked_together_answer_in_their_order<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    world.apply(&*store, world.grants()).await;
    world.apply(&*store, vec![world.commit(0, -90, vec![put("a", "0"), put("b", "1"), put("b2", "2")])]).await;
    let at = |key: &'static str| Query { key: Some(Bytes::from_static(key.as_bytes())), ..Query::default() };
    let beneath = |prefix: &'static str| Query { prefix: Bytes::from_static(prefix.as_bytes()), ..Query::default() };
    let queries = vec![at("b"), at("none"), beneath("b"), at("a"), at("b")];
    let answers = store.query_each(world.replica, queries).await.expect("queries");
    let answers: Vec<_> = answers.iter().map(|entries| texts(entries)).collect();
    assert_eq!(answers, [vec!["b=1"], vec![], vec!["b=1", "b2=2"], vec!["a=0"], vec!["b=1"]]);
    assert!(store.query_each(world.replica, vec![]).await.expect("none").is_empty());
}

/// Prefixes are byte prefixes: nothing means anything but itself.
pub async fn b50_prefixes_are_byte_prefixes<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    let long = "x".repeat(1024);
    let keys = ["a", "a1", "a::b", "a%", "a_", "%", "_", "A", "b", "a\0", "a\0b", &long, &long[..1023]];
    world.apply(&*store, vec![world.commit(0, -99, keys.iter().map(|at| put(at, "")).collect())]).await;
    let under = async |prefix: &str| {
        let prefix = Bytes::copy_from_slice(prefix.as_bytes());
        let found = store.query(world.replica, Query { prefix, ..Query::default() }).await.expect("query");
        found.into_iter().map(|entry| entry.entry.op.key_bytes().to_vec()).collect::<Vec<_>>()
    };
    for prefix in ["", "a", "a1", "a:", "a%", "a_", "%", "_", "a\0", "a\0\0", "z", &long, &long[..1000]] {
        let mut expected: Vec<Vec<u8>> =
            keys.iter().filter(|at| at.starts_with(prefix)).map(|at| at.as_bytes().to_vec()).collect();
        expected.sort();
        assert_eq!(under(prefix).await, expected, "prefix {prefix:?}");
    }
    // Bytes that are no text, and the last of them.
    let raw: Vec<Key> = [&[255u8][..], &[255, 255], &[254, 255]].map(|b| Key::new(b.to_vec()).expect("a key")).into();
    let value = Value::Inline(Bytes::new());
    let ops = raw.iter().map(|at| Op::Put { key: at.clone(), value: value.clone() }).collect();
    world.apply(&*store, vec![world.commit(0, -50, ops)]).await;
    let prefix = Bytes::from_static(&[255]);
    let found = store.query(world.replica, Query { prefix, ..Query::default() }).await.expect("query");
    assert_eq!(found.len(), 2);
    // A prefix tombstone takes exactly these.
    world.apply(&*store, vec![world.commit(0, -9, vec![delete_prefix("a")])]).await;
    assert_eq!(under("a").await, Vec::<Vec<u8>>::new());
    assert_eq!(under("A").await.len() + under("%").await.len() + under("b").await.len(), 3);
}

/// The summary of any range is that of the entries in it, and split covers a range with disjoint parts.
pub async fn summary_equals_recomputation_and_split_covers<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    world.apply(&*store, world.grants()).await;
    let ops = |from: usize, to: usize| (from..to).map(|n| put(&format!("{:04}", n * 7919 % 5000), "v")).collect();
    world.apply(&*store, vec![world.commit(0, -50_000, ops(0, 3000)), world.commit(1, -40_000, ops(1000, 1500))]).await;
    world.apply(&*store, vec![world.commit(2, -30_000, vec![delete_prefix("12"), delete("0001")])]).await;
    let log = store.log(world.replica, Position(0), usize::MAX).await.expect("log");
    let naive = |range: &SlotRange| {
        let mut sum = Summary::EMPTY;
        for entry in log.iter().filter(|entry| range.contains(&entry.entry.op.slot_key())) {
            sum.add(&Summary::of(&entry.hash));
        }
        sum
    };
    let at = |text: &str| SlotKey::ordinary(text.as_bytes());
    let ranges = [
        SlotRange::ALL,
        SlotRange { start: SlotKey::FIRST, end: Some(at("")) },
        SlotRange { start: at("1"), end: Some(at("2")) },
        SlotRange { start: at("0100"), end: Some(at("0107")) },
        SlotRange { start: at("4999"), end: None },
        SlotRange { start: at("9"), end: Some(at("91")) },
        SlotRange { start: at("3"), end: Some(at("3")) },
    ];
    for range in ranges {
        let summary = store.summary(world.replica, range.clone()).await.expect("summary");
        assert_eq!(summary, naive(&range), "{range:?}");
        for parts in [1, 2, 16, 32, 500] {
            let split = store.split(world.replica, range.clone(), parts).await.expect("split");
            assert!(!split.is_empty() && split.len() <= parts, "{} parts of {parts}", split.len());
            assert_eq!((&split[0].0.start, &split[split.len() - 1].0.end), (&range.start, &range.end));
            assert!(split.windows(2).all(|pair| pair[0].0.end.as_ref() == Some(&pair[1].0.start)));
            for (part, sum) in &split {
                assert_eq!(*sum, naive(part), "{part:?} of {range:?}");
            }
            let largest = split.iter().map(|(_, sum)| sum.count()).max().expect("a part");
            let fair = summary.count() / parts as u64;
            // Cuts are made where the index has boundaries: parts are fair to a factor, not to an entry.
            assert!(parts == 1 || largest <= 8 * fair + 200, "{largest} of {} in {parts}", summary.count());
        }
    }
    let scope = crate::store::Scope::of(&crate::model::ReadScope {
        prefixes: vec![crate::model::Prefix::new("12").expect("short"), crate::model::Prefix::new("3").expect("short")],
    });
    let mut sum = Summary::EMPTY;
    scope.ranges().iter().for_each(|range| sum.add(&naive(range)));
    assert_eq!(store.scope_summary(world.replica, scope).await.expect("summary"), sum);
}

/// A blob's hash and length come back as they were put.
pub async fn blobs_come_back<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    let op = Op::Put { key: key("blob"), value: Value::Blob { hash: Hash([7; 32]), len: u64::MAX } };
    world.apply(&*store, vec![world.commit(0, 0, vec![op.clone()])]).await;
    let found = store.get(world.replica, key("blob")).await.expect("get").expect("a value");
    assert_eq!(found.entry.op, op);
    assert_eq!(found.hash, found.entry.hash());
}
