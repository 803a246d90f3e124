//! What the store costs on redb: `cargo run --release -p store-redb --example bench [entries]`.
//!
//! Absolute figures differ from machine to machine and from run to run; compare within one run.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use store_redb::{RedbEngine, RedbStore};
use sync_core::{
    model::{
        HybridClock, Key, Op, ReplicaId, SecretKey, SlotKey, SlotRange, Timestamp, Value, VerifiedBundle, Verifier,
        sign_commit,
    },
    store::{Apply, ChangesRequest, Claim, Core, EngineStore, Missing, Origin, Position, ReplicaStore, Scope, Write},
    testing::{block_on, random::Random},
};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

fn owner() -> SecretKey {
    SecretKey::from_bytes([1; 32])
}

fn replica() -> ReplicaId {
    ReplicaId(owner().public())
}

fn op(number: usize) -> Op {
    let key = Key::try_from(format!("folder/{:02}/file number {number:08}", number % 100).as_str()).expect("a key");
    Op::Put { key, value: Value::Inline(vec![number as u8; 40].into()) }
}

/// Commits of 1,000 entries each.
fn commits(numbers: &[usize], clock: &HybridClock) -> Vec<VerifiedBundle> {
    let commit = |numbers: &[usize]| {
        let ops = numbers.iter().map(|number| op(*number)).collect();
        sign_commit(replica(), &owner(), clock, NOW, ops).expect("a commit")
    };
    numbers.chunks(1_000).map(commit).collect()
}

fn numbers(count: usize, shuffled: bool) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..count).collect();
    numbers.sort_by_key(|number| (number % 100, *number));
    if shuffled {
        Random::new(7).shuffle(&mut numbers);
    }
    numbers
}

fn apply(bundles: Vec<VerifiedBundle>) -> Write {
    Write::Apply(Apply { replica: replica(), bundles, origin: Origin::Local, now: NOW, records: vec![] })
}

fn rate(what: &str, count: usize, time: Duration) {
    println!("{what:<64} {:>10.0}/s  {time:?}", count as f64 / time.as_secs_f64());
}

fn fresh(path: &std::path::Path) -> Core<RedbEngine> {
    // Nothing was there, or what was there is not wanted.
    let _ = std::fs::remove_file(path);
    let core = Core::open(RedbEngine::open(path).expect("redb opens"), [9; 32]).expect("a store");
    for result in core.write(&[Write::CreateReplica { replica: replica(), records: vec![] }]) {
        result.expect("a replica");
    }
    core
}

fn bulk(path: &std::path::Path, count: usize, shuffled: bool, commits_a_group: usize) -> Core<RedbEngine> {
    let commits = commits(&numbers(count, shuffled), &HybridClock::default());
    let core = fresh(path);
    let begin = Instant::now();
    for group in commits.chunks(commits_a_group) {
        let group: Vec<Write> = group.iter().map(|commit| apply(vec![commit.clone()])).collect();
        for result in core.write(&group) {
            result.expect("applied");
        }
    }
    let order = if shuffled { "random order" } else { "key order" };
    rate(&format!("bulk {count}, {order}, {commits_a_group},000 a transaction"), count, begin.elapsed());
    core
}

fn each(what: &str, times: usize, mut work: impl FnMut(usize)) {
    let begin = Instant::now();
    (0..times).for_each(&mut work);
    println!("{what:<64} {:>10.1} us", begin.elapsed().as_secs_f64() * 1e6 / times as f64);
}

fn reads(core: &Core<RedbEngine>, count: usize) {
    let mut random = Random::new(3);
    let mut place = || match op(random.below(count)) {
        Op::Put { key, .. } => SlotKey::of_key(&key),
        _ => unreachable!("the benchmark puts"),
    };
    each("root", 1_000, |_| drop(core.state(replica()).expect("state")));
    let before = core.rows_read();
    each("summary of a random range", 1_000, |_| {
        let (a, b) = (place(), place());
        let range = SlotRange { start: a.clone().min(b.clone()), end: Some(a.max(b)) };
        core.summary(replica(), &range).expect("summary");
    });
    println!("{:<64} {:>10.1} rows", "", (core.rows_read() - before) as f64 / 1_000.0);
    let before = core.rows_read();
    each("split of everything in 32", 1_000, |_| drop(core.split(replica(), &SlotRange::ALL, 32).expect("split")));
    println!("{:<64} {:>10.1} rows", "", (core.rows_read() - before) as f64 / 1_000.0);
    let mut random = Random::new(4);
    each("get", 10_000, |_| match op(random.below(count)) {
        Op::Put { key, .. } => drop(core.get(replica(), &key).expect("get").expect("it is there")),
        _ => unreachable!("the benchmark puts"),
    });
}

fn bootstrap(from: &Core<RedbEngine>, path: &std::path::Path, count: usize) {
    let to = fresh(path);
    let begin = Instant::now();
    let mut since = Position(0);
    let head = from.state(replica()).expect("state").head;
    let (mut pages, mut merged) = (0, Vec::new());
    let mut verifier = Verifier::default();
    while since < head {
        let request =
            ChangesRequest { replica: replica(), since, not_from: None, scope: Scope::all(), max_bytes: 512 * 1024 };
        let page = from.changes(&request).expect("changes");
        since = page.through;
        pages += 1;
        merged.extend(page.bundles.into_iter().map(|b| b.verify(replica(), &mut verifier).expect("verified")));
        if merged.iter().map(VerifiedBundle::len).sum::<usize>() >= 10_000 || since == head {
            to.write(&[apply(std::mem::take(&mut merged))]).remove(0).expect("applied");
        }
    }
    rate(&format!("bootstrap through the change log, {pages} pages"), count, begin.elapsed());
    assert_eq!(to.state(replica()).expect("state").root, from.state(replica()).expect("state").root);
}

/// Two stores that differ by `differ` entries each way.
fn reconcile(a: &Core<RedbEngine>, b: &Core<RedbEngine>, differ: usize, count: usize) {
    for (number, core) in [a, b].into_iter().enumerate() {
        let mut random = Random::new(40 + number as u64);
        for _ in 0..differ {
            let at = random.below(count);
            let ops = vec![Op::Put {
                key: Key::try_from(format!("folder/{:02}/file number {at:08} of {number}", at % 100).as_str())
                    .expect("a key"),
                value: Value::Inline(vec![1].into()),
            }];
            let commit = sign_commit(replica(), &owner(), &HybridClock::default(), NOW, ops).expect("a commit");
            core.write(&[apply(vec![commit])]).remove(0).expect("applied");
        }
    }
    let begin = Instant::now();
    let scope = Scope::all();
    let cores = [a, b];
    let mut claims: Vec<Claim> = a.first_claims(replica(), &scope).expect("claims");
    let (mut at, mut messages, mut bytes) = (1, 0, 0);
    let mut missing: [Vec<Missing>; 2] = Default::default();
    while !claims.is_empty() {
        messages += 1;
        bytes += claims.iter().map(claim_len).sum::<usize>();
        let mut answers = Vec::new();
        for message in claims.chunks(256) {
            let answer = cores[at].reconcile(replica(), &scope, message.to_vec()).expect("reconciled");
            answers.extend(answer.claims);
            missing[at].extend(answer.missing);
        }
        claims = answers;
        at = 1 - at;
    }
    let time = begin.elapsed();
    let mut sent = 0;
    for (core, missing) in cores.into_iter().zip(missing) {
        sent += core.missing(replica(), &scope, &missing, usize::MAX).expect("missing").entries;
    }
    println!("reconcile {differ} + {differ}: {messages} messages, {bytes} bytes, {sent} entries, {time:?}");
}

fn claim_len(claim: &Claim) -> usize {
    let range = claim.range.start.as_bytes().len() + claim.range.end.as_ref().map_or(0, |end| end.as_bytes().len()) + 4;
    range
        + match &claim.have {
            sync_core::store::Have::Digest(_) => 36,
            sync_core::store::Have::Ids(ids) | sync_core::store::Have::Final(ids) => 16 * ids.len() + 2,
        }
}

fn durable_writes(path: &std::path::Path, threads: usize, writes: usize) {
    let store: Arc<RedbStore> =
        Arc::new(EngineStore::open(RedbEngine::open(path).expect("redb opens")).expect("a store"));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let store = store.clone();
            scope.spawn(move || {
                let mut random = Random::new(thread as u64);
                for number in 0..writes / threads {
                    let ops = vec![op(random.below(100_000_000))];
                    let wall = Timestamp(NOW.0 + number as u64);
                    let commit =
                        sign_commit(replica(), &owner(), &HybridClock::default(), wall, ops).expect("a commit");
                    let batch = Apply {
                        replica: replica(),
                        bundles: vec![commit],
                        origin: Origin::Local,
                        now: NOW,
                        records: vec![],
                    };
                    block_on(store.apply(batch)).expect("applied");
                }
            });
        }
    });
    rate(&format!("durable writes of one entry, random keys, {threads} threads"), writes, begin.elapsed());
}

fn main() {
    let count: usize = std::env::args().nth(1).map_or(100_000, |count| count.parse().expect("a number of entries"));
    let directory = std::env::temp_dir().join(format!("store-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = |name: &str| directory.join(name);
    drop(bulk(&path("a"), count, false, 1));
    let ordered = bulk(&path("a"), count, false, 10);
    println!("{} bytes an entry on disk", std::fs::metadata(path("a")).expect("the file").len() / count as u64);
    drop(bulk(&path("b"), count, true, 1));
    let shuffled = bulk(&path("b"), count, true, 10);
    reads(&ordered, count);
    bootstrap(&ordered, &path("c"), count);
    bootstrap(&shuffled, &path("c"), count);
    drop(shuffled);
    drop(ordered);
    std::fs::copy(path("a"), path("d")).expect("a copy");
    let open = |name| Core::open(RedbEngine::open(path(name)).expect("redb opens"), [0; 32]).expect("a store");
    // The same entries under another salt would cost the same: the salt moves the cuts, not their number.
    let (a, d) = (open("a"), open("d"));
    for differ in [1, 100] {
        reconcile(&a, &d, differ, count);
    }
    drop(a);
    for threads in [1, 16, 64] {
        durable_writes(&path("a"), threads, if threads == 1 { 2_000 } else { 20_000 });
    }
    std::fs::remove_dir_all(&directory).expect("the directory was ours");
}
