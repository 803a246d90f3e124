//! The hot paths, each by itself: `cargo bench -p store-redb --bench hot_paths [name]`.
//!
//! The paths of the store are measured on an engine in a file and without waiting for the disk where they only read.
//! What a path costs in instructions, which is the same on a machine that is busy: `bench/instructions`.

use std::sync::{
    LazyLock,
    atomic::{AtomicUsize, Ordering},
};

use divan::{Bencher, black_box, counter::ItemsCount};
use store_redb::RedbEngine;
use sync_core::{
    machine::wire::{decode_bundles, encode_bundles},
    model::{
        Bundle, Hash, HybridClock, Key, Op, ReplicaId, SecretKey, SlotKey, SlotRange, Timestamp, Value, VerifiedBundle,
        Verifier, sign_commit,
    },
    store::{
        Apply, ChangesRequest, Core, Origin, Position, Scope, ShortId, Write,
        coded::{CodedSet, Difference, difference},
    },
    testing::index_alone,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

/// How many entries the stores have.
const ENTRIES: usize = 100_000;

fn main() {
    divan::main();
}

/// Made once: a key's public half costs as much as a signature.
static OWNER: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_bytes([1; 32]));

fn replica() -> ReplicaId {
    ReplicaId(OWNER.public())
}

fn key(number: usize, scattered: bool) -> Key {
    let text = match scattered {
        true => format!("{:016x}/{number}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        false => format!("key/{number:012}"),
    };
    Key::try_from(text.as_str()).expect("a key")
}

fn commit(numbers: std::ops::Range<usize>, scattered: bool) -> VerifiedBundle {
    let op = |number| Op::Put { key: key(number, scattered), value: Value::Inline(vec![7; 32].into()) };
    sign_commit(replica(), &OWNER, &HybridClock::default(), NOW, numbers.map(op).collect()).expect("a commit")
}

/// So many commits of so many entries each, as they travel.
fn bundles(count: usize, entries: usize) -> Vec<Bundle> {
    (0..count).map(|at| commit(at * entries..(at + 1) * entries, true).to_bundle()).collect()
}

/// 256 commits of one entry, 16 of 16, 1 of 256.
const SHAPES: [(usize, usize); 3] = [(256, 1), (16, 16), (1, 256)];

#[divan::bench(args = SHAPES)]
fn encode(bencher: Bencher, (count, entries): (usize, usize)) {
    let bundles = bundles(count, entries);
    bencher.counter(ItemsCount::new(256usize)).bench(|| encode_bundles(black_box(&bundles)));
}

#[divan::bench(args = SHAPES)]
fn decode(bencher: Bencher, (count, entries): (usize, usize)) {
    let encoded = encode_bundles(&bundles(count, entries));
    bencher.counter(ItemsCount::new(256usize)).bench(|| decode_bundles(black_box(&encoded)).expect("they are good"));
}

/// One entry is a signature; of a sealed commit each entry is hashed, and its root has one.
#[divan::bench(args = SHAPES)]
fn verify(bencher: Bencher, (count, entries): (usize, usize)) {
    let bundles = bundles(count, entries);
    bencher.counter(ItemsCount::new(256usize)).with_inputs(|| bundles.clone()).bench_local_values(|bundles| {
        let mut verifier = Verifier::default();
        bundles
            .into_iter()
            .map(|bundle| bundle.verify(replica(), &mut verifier).expect("they are good").len())
            .sum::<usize>()
    });
}

#[divan::bench(args = [1, 16, 256])]
fn sign(bencher: Bencher, entries: usize) {
    bencher.counter(ItemsCount::new(entries)).bench(|| commit(black_box(0)..entries, true));
}

/// A store of its own, with its directory.
struct Store {
    core: Core<RedbEngine>,
    next: AtomicUsize,
    _dir: tempfile::TempDir,
}

fn apply_to(core: &Core<RedbEngine>, bundles: Vec<VerifiedBundle>) {
    let batch = Apply { replica: replica(), bundles, origin: Origin::Local, now: NOW, records: vec![] };
    core.write(&[Write::Apply(batch)]).remove(0).expect("applied");
}

fn store() -> Store {
    let dir = tempfile::tempdir().expect("a directory");
    let core = Core::open(RedbEngine::open(dir.path().join("rows")).expect("redb opens"), [9; 32]).expect("a store");
    core.write(&[Write::CreateReplica { replica: replica(), records: vec![] }]).remove(0).expect("a replica");
    for from in (0..ENTRIES).step_by(10_000) {
        apply_to(&core, vec![commit(from..from + 10_000, true)]);
    }
    Store { core, next: AtomicUsize::new(ENTRIES), _dir: dir }
}

/// Entries, log and index in one durable transaction; signing is not counted.
#[divan::bench(args = [1, 16, 256, 10_000], sample_size = 1, max_time = 3)]
fn apply_scattered(bencher: Bencher, entries: usize) {
    apply(bencher, entries, true);
}

/// The same behind all keys that are there.
#[divan::bench(args = [1, 16, 256, 10_000], sample_size = 1, max_time = 3)]
fn apply_in_order(bencher: Bencher, entries: usize) {
    apply(bencher, entries, false);
}

fn apply(bencher: Bencher, entries: usize, scattered: bool) {
    let store = store();
    let fresh = || {
        let from = store.next.fetch_add(entries, Ordering::Relaxed);
        vec![commit(from..from + entries, scattered)]
    };
    let bencher = bencher.counter(ItemsCount::new(entries)).with_inputs(fresh);
    bencher.bench_local_values(|bundles| apply_to(&store.core, bundles));
}

/// The rows of the index alone, durably, over the 100,000 entries; those of the entries are there before.
#[divan::bench(args = [1, 16, 256, 10_000], sample_size = 1, max_time = 3)]
fn index_insert(bencher: Bencher, entries: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = RedbEngine::open(dir.path().join("rows")).expect("redb opens");
    let slots = |from: usize, count: usize| -> Vec<(SlotKey, Hash)> {
        let hash = |number: usize| Hash(*blake3::hash(&number.to_le_bytes()).as_bytes());
        (from..from + count).map(|number| (SlotKey::of_key(&key(number, true)), hash(number))).collect()
    };
    for from in (0..ENTRIES).step_by(10_000) {
        let slots = slots(from, 10_000);
        index_alone::put_entries(&engine, &slots).expect("they are put");
        index_alone::insert(&engine, &slots).expect("they are summed");
    }
    let next = AtomicUsize::new(ENTRIES);
    let fresh = || {
        let slots = slots(next.fetch_add(entries, Ordering::Relaxed), entries);
        index_alone::put_entries(&engine, &slots).expect("they are put");
        slots
    };
    let bencher = bencher.counter(ItemsCount::new(entries)).with_inputs(fresh);
    bencher.bench_local_values(|slots| index_alone::insert(&engine, &slots).expect("they are summed"));
}

fn ids(numbers: std::ops::Range<u64>) -> Vec<ShortId> {
    numbers.map(|number| ShortId::from(&Hash(*blake3::hash(&number.to_le_bytes()).as_bytes()))).collect()
}

/// An entry goes into all symbols that it belongs to: of the 1,024 that are kept of every replica, or of all.
#[divan::bench(args = [1_024, 49_152])]
fn symbols_insert(bencher: Bencher, symbols: usize) {
    let (mut set, ids) = (CodedSet::with_symbols(symbols), ids(0..10_000));
    let mut next = ids.iter().cycle();
    bencher.bench_local(|| set.insert(black_box(next.next().expect("it goes round"))));
}

/// The symbols of two sets of 1,000 entries and of so many more on either side are taken from one another, and what
/// differs from their difference.
#[divan::bench(args = [1, 10, 100, 1_000, 10_000])]
fn symbols_decode(bencher: Bencher, differences: u64) {
    // Two for each that differs: more than it takes.
    let symbols = (4 * differences as usize).clamp(64, 49_152);
    let set = |from: u64| {
        let mut set = CodedSet::with_symbols(symbols);
        ids(0..1_000).iter().chain(&ids(from..from + differences)).for_each(|id| set.insert(id));
        set
    };
    let (mine, theirs) = (set(1_000_000), set(2_000_000));
    let theirs = &theirs.symbols()[..symbols];
    let known = |found: &Difference| matches!(found, Difference::Known { .. });
    assert!(known(&difference(&mine, theirs)), "so many symbols tell it");
    bencher.counter(ItemsCount::new(2 * differences)).bench_local(|| difference(&mine, black_box(theirs)));
}

fn range(at: usize) -> SlotRange {
    let place = |number: usize| SlotKey::of_key(&key(number % ENTRIES, true));
    let (a, b) = (place(at.wrapping_mul(7_919)), place(at.wrapping_mul(104_729) + 1));
    SlotRange { start: a.clone().min(b.clone()), end: Some(a.max(b)) }
}

#[divan::bench]
fn summary(bencher: Bencher) {
    let store = store();
    bencher
        .with_inputs(|| range(store.next.fetch_add(1, Ordering::Relaxed)))
        .bench_local_refs(|range| store.core.summary(replica(), range).expect("a summary"));
}

#[divan::bench(args = [16, 32])]
fn split(bencher: Bencher, parts: usize) {
    let store = store();
    bencher.bench_local(|| store.core.split(replica(), black_box(&SlotRange::ALL), parts).expect("a split"));
}

#[divan::bench(args = [1, 64, 1_000])]
fn changes(bencher: Bencher, entries: u64) {
    let store = store();
    let since = Position(store.core.state(replica()).expect("a state").head.0 - entries);
    let request =
        || ChangesRequest { replica: replica(), since, not_from: None, scope: Scope::all(), max_bytes: 256 * 1024 };
    let bencher = bencher.counter(ItemsCount::new(entries)).with_inputs(request);
    bencher.bench_local_refs(|request| store.core.changes(request).expect("changes"));
}
