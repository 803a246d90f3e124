//! What finding a difference costs: two machines over two stores on redb, joined by hand, so that nothing but
//! their work is measured. `cargo run --release -p store-redb --example reconcile [entries]...`
//!
//! Each row: how many messages of the session, its bytes beside the frames of entries, how often the
//! direction changed, the rows that each side read, and the time of each side's work. Signature checks and
//! the application of what was found are not in the time, as they follow the entries.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use store_redb::engine::{RedbEngine, RedbSnapshot};
use sync_core::{
    model::{
        AuthorId, Grant, HybridClock, Key, Op, Prefix, ReplicaId, Right, SecretKey, Value, VerifiedBundle, sign_commit,
    },
    store::{Apply, Engine, EngineRead, EngineStore, Origin, ReplicaStore, Scan, StoreError, Visit, Work},
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

/// Counts the rows that are read.
#[derive(Debug)]
struct Counting(RedbEngine, Arc<AtomicU64>);

struct Snapshot(RedbSnapshot, Arc<AtomicU64>);

impl Engine for Counting {
    type Snapshot = Snapshot;

    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot(self.0.snapshot()?, self.1.clone()))
    }

    fn write(&self, work: Work<'_>) -> Result<(), StoreError> {
        self.0.write(work)
    }
}

impl EngineRead for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.get(key)
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, order: Scan, visit: Visit<'_>) -> Result<(), StoreError> {
        let mut seen = 0;
        let result = self.0.scan(start, end, order, &mut |key, value| {
            seen += 1;
            visit(key, value)
        });
        self.1.fetch_add(seen, Ordering::Relaxed);
        result
    }
}

struct Side {
    store: Arc<dyn ReplicaStore>,
    rows: Arc<AtomicU64>,
}

impl Side {
    fn new(path: &std::path::Path) -> Self {
        let rows = Arc::new(AtomicU64::new(0));
        let engine = Counting(RedbEngine::open(path).expect("redb opens"), rows.clone());
        let store: Arc<dyn ReplicaStore> = Arc::new(EngineStore::open(engine).expect("a store"));
        block_on(store.create_replica(replica(), vec![])).expect("a replica");
        Self { store, rows }
    }

    fn apply(&self, bundles: Vec<VerifiedBundle>) {
        let batch = Apply { replica: replica(), bundles, origin: Origin::Local, now: WALL, records: vec![] };
        block_on(self.store.apply(batch)).expect("applied");
    }
}

fn puts(random: &mut Random, count: usize) -> Vec<Op> {
    let mut keys: Vec<u64> = (0..count).map(|_| random.bits()).collect();
    keys.sort_unstable();
    let put = |key: u64| Op::Put {
        key: Key::try_from(format!("{key:016x}/{}", key % 1_000_000).as_str()).expect("a key"),
        value: Value::Inline(key.to_be_bytes().repeat(4).into()),
    };
    keys.into_iter().map(put).collect()
}

fn fill(sides: &[Side; 2], random: &mut Random, count: usize) {
    let clock = HybridClock::default();
    let grants = [1, 2].map(|n| {
        let subject = key(n).public();
        let grant = Grant { subject, right: Right::Write, prefix: Prefix::default(), expires: None, parent: None };
        grant.to_op(&AuthorId(key(7).public()))
    });
    let mut bundles = vec![sign_commit(replica(), &key(7), &clock, WALL, grants.to_vec()).expect("a commit")];
    for ops in puts(random, count).chunks(1_000) {
        bundles.push(sign_commit(replica(), &key(7), &clock, WALL, ops.to_vec()).expect("a commit"));
    }
    for group in bundles.chunks(16) {
        sides.iter().for_each(|side| side.apply(group.to_vec()));
    }
}

/// One entry a commit, as somebody at a keyboard writes.
fn differ(side: &Side, n: u8, random: &mut Random, count: usize) {
    let clock = HybridClock::default();
    let commit = |op| sign_commit(replica(), &key(n), &clock, WALL, vec![op]).expect("a commit");
    side.apply(puts(random, count).into_iter().map(commit).collect());
}

fn measure(sides: &[Side; 2], count: usize, each: usize, random: &mut Random) {
    for (n, side) in sides.iter().enumerate() {
        differ(side, n as u8 + 1, random, each);
    }
    let rows = [0, 1].map(|at: usize| sides[at].rows.load(Ordering::Relaxed));
    let stores = [sides[0].store.clone(), sides[1].store.clone()];
    let mut pair = Pair::new(stores, [&key(1), &key(2)], replica());
    let started = Instant::now();
    pair.clock = Box::new(move || started.elapsed());
    pair.run();
    assert!(pair.is_equal(), "both are equal after it");
    let rows = [0, 1].map(|at: usize| sides[at].rows.load(Ordering::Relaxed) - rows[at]);
    println!(
        "| {count} | {each} + {each} | {} | {} | {} | {} | {} + {} | {:.2} + {:.2} ms |",
        pair.said.messages,
        pair.said.turns,
        pair.said.bytes,
        pair.said.entry_bytes,
        rows[0],
        rows[1],
        pair.worked[0].as_secs_f64() * 1e3,
        pair.worked[1].as_secs_f64() * 1e3,
    );
    if std::env::var_os("SYNCLINE_SHOW_MESSAGES").is_some() {
        println!("  {:?}", pair.said.names);
    }
}

fn main() {
    let counts: Vec<usize> = std::env::args().skip(1).map(|arg| arg.parse().expect("a number")).collect();
    println!("| entries | differ | messages | turns | bytes | bytes of entries | rows | time |");
    println!("|---|---|---|---|---|---|---|---|");
    for count in if counts.is_empty() { vec![1_000, 100_000] } else { counts } {
        let dir = std::env::temp_dir().join(format!("syncline-reconcile-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let mut random = Random::new(count as u64);
        let sides = [Side::new(&dir.join("a")), Side::new(&dir.join("b"))];
        fill(&sides, &mut random, count);
        for each in [0, 1, 100, 1_000, 10_000] {
            measure(&sides, count, each, &mut random);
        }
        drop(sides);
        std::fs::remove_dir_all(&dir).expect("what was made can be removed");
    }
}
