//! Crash images: what the power leaves of a store, opened again and looked at in full.
//!
//! Scripts are played on a disk that records. Then the power goes behind each operation: what was flushed is
//! there; of what was not, any part is, sector by sector, in any order. The image must open, must hold exactly
//! what was acknowledged, or that and all of the step after it, and its index must equal naive recomputation.
//!
//! `CRASH_IMAGES=N` makes at least so many images, with further random scripts; the default is a few thousand.

#[path = "../disk/mod.rs"]
mod disk;
mod scripts;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use disk::Disk;
use scripts::{Script, Step};
use store_redb::RedbEngine;
use sync_core::{
    model::{Digest, ReplicaId, SlotKey, SlotRange, Summary, Timestamp, Verifier},
    store::{ChangesRequest, Core, LogEntry, NodeKind, NodeRecord, Position, Scope, StoreError, StoreId, Write},
    testing::random::Random,
};

type Store = Core<RedbEngine>;

/// Opens the store on a disk. What a new one is made of differs from call to call, so that a store that
/// forgot itself is noticed.
fn open(disk: &Disk, fresh: u8) -> Result<Store, StoreError> {
    let disk = disk.clone();
    Core::open(RedbEngine::with_backend(move || Ok(disk.clone()))?, [fresh; 32])
}

/// All that can be told apart of a store from outside.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    id: StoreId,
    replicas: Vec<(ReplicaId, Digest, Position, Timestamp)>,
    records: Vec<NodeRecord>,
}

fn seen(core: &Store) -> Result<Seen, StoreError> {
    let mut replicas = Vec::new();
    for id in core.replicas()? {
        let state = core.state(id)?;
        replicas.push((id, state.root, state.head, state.newest));
    }
    let kinds = [NodeKind::Key, NodeKind::Peer, NodeKind::Job, NodeKind::Setting, NodeKind::Removed];
    let records = kinds.into_iter().map(|kind| core.node_records(kind)).collect::<Result<Vec<_>, _>>()?.concat();
    Ok(Seen { id: core.store_id(), replicas, records })
}

fn sum<'a>(entries: impl Iterator<Item = &'a LogEntry>) -> Summary {
    let mut sum = Summary::EMPTY;
    entries.for_each(|entry| sum.add(&Summary::of(&entry.hash)));
    sum
}

/// The index and the entries say the same; with `proofs`, every entry is proved as a peer would want it.
fn is_sound(core: &Store, random: &mut Random, proofs: bool) -> Result<(), String> {
    let text = |error: StoreError| error.to_string();
    for id in core.replicas().map_err(text)? {
        let log = core.log(id, Position(0), usize::MAX).map_err(text)?;
        if let Some(wrong) = log.iter().find(|entry| entry.entry.hash() != entry.hash) {
            return Err(format!("the row of {wrong:?} is not what its hash says"));
        }
        let place = |random: &mut Random| match log.len() {
            0 => SlotKey::FIRST,
            len => log[random.below(len)].entry.op.slot_key(),
        };
        let (a, b) = (place(random), place(random));
        let some = SlotRange { start: a.clone().min(b.clone()), end: Some(a.max(b)) };
        for range in [SlotRange::ALL, some] {
            let naive = sum(log.iter().filter(|entry| range.contains(&entry.entry.op.slot_key())));
            if core.summary(id, &range).map_err(text)? != naive {
                return Err(format!("the index is not the sum of the entries of {range:?}"));
            }
        }
        if proofs {
            let request = ChangesRequest {
                replica: id,
                since: Position(0),
                not_from: None,
                scope: Scope::all(),
                max_bytes: usize::MAX,
            };
            let changes = core.changes(&request).map_err(text)?;
            if changes.entries != log.len() as u64 {
                return Err(format!("{} entries are sent of {}", changes.entries, log.len()));
            }
            for bundle in changes.bundles {
                bundle.verify(id, &mut Verifier::default()).map_err(|error| error.to_string())?;
            }
        }
    }
    Ok(())
}

/// A script that was played: how many operations there were when each state was acknowledged.
struct Played {
    script: Script,
    disk: Disk,
    states: Vec<(usize, Seen)>,
}

fn play(script: Script) -> Played {
    let disk = Disk::default();
    let mut core = open(&disk, 3).expect("an empty disk can be used");
    // A file gets its name when it is whole: before that there is nothing to lose.
    let mut states = vec![(disk.operations(), seen(&core).expect("it can be read"))];
    for step in &script.steps {
        match step {
            Step::Write(group) => {
                core.write(group).into_iter().for_each(|result| drop(result.expect("the disk works")))
            }
            Step::Reopen => {
                drop(core);
                core = open(&disk, 3).expect("it can be opened again");
            }
        }
        states.push((disk.operations(), seen(&core).expect("it can be read")));
    }
    drop(core);
    Played { script, disk, states }
}

impl Played {
    /// The first cut after which there is something to lose.
    fn first(&self) -> usize {
        self.states[0].0
    }
    /// What may be found after a cut: what was acknowledged, or that and the step after it.
    fn allowed(&self, cut: usize) -> Vec<&Seen> {
        let acknowledged =
            self.states.iter().rposition(|(operations, _)| *operations <= cut).expect("the first is at 0");
        self.states.iter().skip(acknowledged).take(2).map(|(_, seen)| seen).collect()
    }

    /// Opens an image and looks at it. Answers the disk, with what opening did.
    fn check(&self, cut: usize, image: Vec<u8>, random: &mut Random) -> Result<Disk, String> {
        let disk = Disk::with(image);
        let core = open(&disk, 4).map_err(|error| format!("it does not open: {error}"))?;
        let found = seen(&core).map_err(|error| format!("it cannot be read: {error}"))?;
        let allowed = self.allowed(cut);
        if !allowed.contains(&&found) {
            return Err(format!("found {found:?}, allowed is {allowed:?}"));
        }
        let proofs = random.percent(10);
        is_sound(&core, random, proofs)?;
        // It can be written, now and then.
        if random.percent(15) {
            let records = vec![NodeRecord { kind: NodeKind::Token, name: "new".into(), value: Some("1".into()) }];
            core.write(&[Write::Save { records }])
                .remove(0)
                .map_err(|error| format!("it cannot be written: {error}"))?;
            is_sound(&core, random, false)?;
        }
        Ok(disk)
    }

    /// The image of a cut, and sometimes the images of the cuts within its recovery. Answers how many.
    fn cut(&self, cut: usize, image: Vec<u8>, seed: u64) -> u64 {
        let mut random = Random::new(seed ^ 0x5eed);
        let fail = |what: &str, error: String| {
            panic!("`{}`, cut at {cut} of {}, seed {seed}{what}: {error}", self.script.name, self.disk.operations())
        };
        let recovers_again = random.percent(6);
        let recovered = match self.check(cut, image.clone(), &mut random) {
            Ok(disk) => disk,
            Err(error) => fail("", error),
        };
        if !recovers_again {
            return 1;
        }
        let mut cuts = recovered.cuts_from(image);
        for again in 0..=cuts.len() {
            let image = cuts.image(again, &mut random);
            if let Err(error) = self.check(cut, image, &mut random) {
                fail(&format!(", then at {again} of {} of its recovery", cuts.len()), error);
            }
        }
        2 + cuts.len() as u64
    }
}

fn main_seed() -> u64 {
    std::env::var("CRASH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn wanted() -> u64 {
    std::env::var("CRASH_IMAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(3_000)
}

/// Where everything is tried (`CRASH_IMAGES`), each operation fails once; otherwise one of eight.
fn stride() -> usize {
    if std::env::var_os("CRASH_IMAGES").is_some() { 1 } else { 8 }
}

/// Shares work out to the cores.
fn on_all_cores(work: impl Fn(u64) + Sync) {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    std::thread::scope(|scope| {
        for core in 0..cores {
            let work = &work;
            scope.spawn(move || work(core));
        }
    });
}

#[test]
fn b51_every_cut_of_twenty_scripts_leaves_before_or_after_and_never_between() {
    let (seed, wanted, started) = (main_seed(), wanted(), Instant::now());
    println!("seed {seed}");
    let played: Vec<Played> = scripts::scripted().into_iter().map(play).collect();
    assert_eq!(played.len(), 20);
    let (next, images) = (AtomicU64::new(0), AtomicU64::new(0));
    // Every cut once, and again with other parts of what was not flushed until half of what is wanted is done.
    on_all_cores(|_| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let played = &played[number as usize % played.len()];
            if number >= 20 && images.load(Ordering::Relaxed) >= wanted / 2 {
                break;
            }
            let mut random = Random::new(seed.wrapping_mul(1_000_000_007).wrapping_add(number));
            let mut cuts = played.disk.cuts();
            for cut in played.first()..=cuts.len() {
                let seed = random.bits();
                let image = cuts.image(cut, &mut Random::new(seed));
                images.fetch_add(played.cut(cut, image, seed), Ordering::Relaxed);
            }
        }
    });
    // Then random scripts, with a sample of their cuts.
    let next = AtomicU64::new(0);
    on_all_cores(|_| {
        while images.load(Ordering::Relaxed) < wanted {
            let number = seed.wrapping_mul(1_000_000).wrapping_add(next.fetch_add(1, Ordering::Relaxed));
            let played = play(scripts::random(number));
            let mut random = Random::new(number);
            let mut cuts = played.disk.cuts();
            let first = played.first();
            let mut sample: Vec<usize> = (0..40).map(|_| first + random.below(cuts.len() + 1 - first)).collect();
            sample.sort_unstable();
            for cut in sample {
                let seed = random.bits();
                let image = cuts.image(cut, &mut Random::new(seed));
                images.fetch_add(played.cut(cut, image, seed), Ordering::Relaxed);
            }
        }
    });
    let (images, seconds) = (images.into_inner(), started.elapsed().as_secs_f64());
    let operations: usize = played.iter().map(|played| played.disk.operations()).sum();
    let rate = images as f64 / seconds;
    println!(
        "{images} crash images of 20 scripts ({operations} operations) and {} random ones, {rate:.0}/s",
        next.into_inner()
    );
    assert!(images >= wanted && images > 1_000, "{images} images are too few to mean anything");
}

/// Plays a script on a disk that fails somewhere. What a step that failed left is before or after it, and
/// after it was tried again all is as if nothing had failed. Answers the states with their operations.
fn play_on(
    disk: &Disk,
    script: &Script,
    expected: &[(usize, Seen)],
    fail: impl FnOnce(&Disk),
) -> Result<Vec<usize>, String> {
    // One failure: the second try succeeds.
    let patient = |work: &dyn Fn() -> Result<Seen, StoreError>, what: &str| {
        work().or_else(|_| work()).map_err(|error| format!("{what}: {error}"))
    };
    let mut core = open(disk, 3).expect("the disk works yet");
    let mut acknowledged = vec![disk.operations()];
    fail(disk);
    for (number, step) in script.steps.iter().enumerate() {
        let (before, after) = (&expected[number].1, &expected[number + 1].1);
        match step {
            Step::Reopen => {
                drop(core);
                core = open(disk, 3).or_else(|_| open(disk, 3)).map_err(|error| format!("opening again: {error}"))?;
            }
            Step::Write(group) => {
                if core.write(group).iter().any(Result::is_err) {
                    let left = patient(&|| seen(&core), "after a failure")?;
                    if left != *before && left != *after {
                        return Err(format!(
                            "step {number} failed and left {left:?}, neither {before:?} nor {after:?}"
                        ));
                    }
                    if left == *before {
                        let again = core.write(group);
                        if let Some(error) = again.iter().find_map(|result| result.as_ref().err()) {
                            return Err(format!("step {number} fails again: {error}"));
                        }
                    }
                }
            }
        }
        let now = patient(&|| seen(&core), "reading")?;
        if now != *after {
            return Err(format!("after step {number}: {now:?}, not {after:?}"));
        }
        acknowledged.push(disk.operations());
    }
    let mut random = Random::new(1);
    is_sound(&core, &mut random, true).or_else(|_| is_sound(&core, &mut random, true))?;
    Ok(acknowledged)
}

#[test]
fn b51_whatever_operation_fails_once_nothing_is_between_and_it_goes_on() {
    let (tried, images) = (AtomicU64::new(0), AtomicU64::new(0));
    let next = AtomicU64::new(0);
    let scripts = scripts::scripted();
    let played: Vec<Played> = scripts::scripted().into_iter().map(play).collect();
    on_all_cores(|_| {
        while let Some(script) = scripts.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let expected = &played.iter().find(|played| played.script.name == script.name).expect("played").states;
            for good in (0..).step_by(stride()) {
                let disk = Disk::default();
                let acknowledged = play_on(&disk, script, expected, |disk| disk.fail_once_after(good))
                    .unwrap_or_else(|error| panic!("`{}`, operation {good} fails: {error}", script.name));
                if disk.has_yet_to_fail() {
                    break;
                }
                tried.fetch_add(1, Ordering::Relaxed);
                // And the power goes at the end.
                images.fetch_add(cut_failed(disk, script, expected, &acknowledged, good, 1), Ordering::Relaxed);
            }
        }
    });
    let (tried, images) = (tried.into_inner(), images.into_inner());
    println!("{tried} operations failed, {images} crash images after them");
    assert!(tried > 100, "{tried} failures are too few to mean anything");
}

#[test]
fn b51_a_flush_that_fails_and_then_succeeds_loses_nothing_acknowledged() {
    let (tried, images) = (AtomicU64::new(0), AtomicU64::new(0));
    let next = AtomicU64::new(0);
    let scripts = scripts::scripted();
    let played: Vec<Played> = scripts::scripted().into_iter().map(play).collect();
    on_all_cores(|_| {
        while let Some(script) = scripts.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let expected = &played.iter().find(|played| played.script.name == script.name).expect("played").states;
            for good in (0..).step_by(stride()) {
                let disk = Disk::default();
                let acknowledged = play_on(&disk, script, expected, |disk| disk.fail_flush_after(good))
                    .unwrap_or_else(|error| panic!("`{}`, flush {good} fails: {error}", script.name));
                if disk.has_yet_to_fail() {
                    break;
                }
                tried.fetch_add(1, Ordering::Relaxed);
                images.fetch_add(cut_failed(disk, script, expected, &acknowledged, good, 12), Ordering::Relaxed);
            }
        }
    });
    let (tried, images) = (tried.into_inner(), images.into_inner());
    println!("{tried} flushes failed, {images} crash images after them");
    assert!(tried > 30, "{tried} failures are too few to mean anything");
}

/// Cuts the power after a script that was played on a failing disk, at so many places after the failure.
fn cut_failed(
    disk: Disk,
    script: &Script,
    expected: &[(usize, Seen)],
    acknowledged: &[usize],
    good: u64,
    count: usize,
) -> u64 {
    let states = acknowledged.iter().copied().zip(expected.iter().map(|(_, seen)| seen.clone())).collect();
    let script = Script { name: format!("{} (failed at {good})", script.name), steps: Vec::new() };
    let played = Played { script, disk, states };
    let mut cuts = played.disk.cuts();
    let mut random = Random::new(good);
    let mut places: Vec<usize> =
        (1..count).map(|_| played.first() + random.below(cuts.len() + 1 - played.first())).collect();
    places.push(cuts.len());
    places.sort_unstable();
    let mut images = 0;
    for cut in places {
        let seed = random.bits();
        let image = cuts.image(cut, &mut Random::new(seed));
        images += played.cut(cut, image, seed);
    }
    images
}
