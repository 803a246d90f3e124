//! Crash images: what the power leaves of a store, opened again and looked at in full.
//!
//! Scripts are played on redb with its journal, as it ships, on disks that record. Then the power goes behind each
//! operation of either file: what was flushed is there; of what was not, any part is, sector by sector, in any
//! order, of the one file and of the other. The rows may be behind the journal, as they are where a thread folds.
//! The image must open, must hold exactly what was acknowledged, or that and all of the step after it, and its
//! index must equal naive recomputation. What was once read from it stays, when the power goes again.
//!
//! `CRASH_IMAGES=N` makes at least so many images, with further random scripts; the default is a few thousand.

#[path = "../disk/mod.rs"]
mod disk;
mod machine;
mod scripts;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use disk::Disk;
use machine::{Files, HASTY, JOURNAL, Kind, Machine, ROWS, SMALL, Store, WIDE, shipped};
use scripts::{Script, Step};
use sync_core::{
    model::{Digest, ReplicaId, SlotKey, SlotRange, Summary, Timestamp, Verifier},
    store::{ChangesRequest, LogEntry, NodeKind, NodeRecord, Position, Scope, StoreError, StoreId, Write},
    testing::random::Random,
};

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
    machine: Machine,
    states: Vec<(usize, Seen)>,
    /// What is found where nothing is.
    nothing: Seen,
}

fn play(script: Script, kind: Kind) -> Played {
    let machine = Machine::new(kind);
    let mut core = machine.open(3).expect("a new store can be used");
    let mut states = vec![(machine.operations(), seen(&core).expect("it can be read"))];
    for step in &script.steps {
        match step {
            Step::Write(group) => {
                core.write(group).into_iter().for_each(|result| drop(result.expect("the disks work")))
            }
            Step::Reopen => {
                drop(core);
                core = machine.open(3).expect("it can be opened again");
            }
        }
        states.push((machine.operations(), seen(&core).expect("it can be read")));
    }
    drop(core);
    Played { script, machine, states, nothing: nothing() }
}

/// What is seen of a store that was opened for the first time, as images are.
fn nothing() -> Seen {
    seen(&Machine::new(SMALL).open(4).expect("a new store can be used")).expect("it can be read")
}

/// What an image was when it was opened.
struct Recovered {
    machine: Machine,
    /// How many operations that took.
    opened: usize,
    found: Seen,
}

/// What was made.
#[derive(Debug, Default)]
struct Counts {
    images: AtomicU64,
    /// Of these, those whose rows were behind their journal.
    late: AtomicU64,
    /// Of these, those that were cut again while they recovered.
    again: AtomicU64,
}

impl Counts {
    fn images(&self) -> u64 {
        self.images.load(Ordering::Relaxed)
    }

    fn add(&self, images: u64) {
        self.images.fetch_add(images, Ordering::Relaxed);
        self.again.fetch_add(images - 1, Ordering::Relaxed);
    }
}

impl Played {
    /// What may be found after a cut: what was acknowledged, or that and the step after it.
    fn allowed(&self, cut: usize) -> Vec<&Seen> {
        match self.states.iter().rposition(|(operations, _)| *operations <= cut) {
            Some(acknowledged) => self.states.iter().skip(acknowledged).take(2).map(|(_, seen)| seen).collect(),
            None => vec![&self.nothing, &self.states[0].1],
        }
    }

    /// The cuts of the rows within a fold, each with how far the journal can be by then.
    fn folds(&self, cuts: &machine::Cuts) -> Vec<(usize, usize)> {
        let last = self.states.last().expect("the first is").0;
        let is_reopen = |step: &Step| matches!(step, Step::Reopen);
        let mut folds = Vec::new();
        for number in (0..self.script.steps.len()).filter(|number| !is_reopen(&self.script.steps[*number])) {
            let closed = self.script.steps[number..].iter().position(is_reopen);
            let end = closed.map_or(last, |after| self.states[number + after].0);
            folds.extend(cuts.folds(self.states[number].0..self.states[number + 1].0, end));
        }
        folds
    }

    /// Opens an image and looks at it.
    fn check(&self, allowed: &[&Seen], image: Files, random: &mut Random) -> Result<Recovered, String> {
        let machine = Machine::with(self.machine.kind(), image);
        let core = machine.open(4).map_err(|error| format!("it does not open: {error}"))?;
        let opened = machine.operations();
        let found = seen(&core).map_err(|error| format!("it cannot be read: {error}"))?;
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
        Ok(Recovered { machine, opened, found })
    }

    /// The image of a cut, and sometimes the images of the cuts within its recovery. Answers how many.
    fn cut(&self, cut: usize, image: Files, seed: u64) -> u64 {
        let mut random = Random::new(seed ^ 0x5eed);
        let fail = |what: &str, error: String| {
            let (name, kind, all) = (&self.script.name, self.machine.kind(), self.machine.operations());
            panic!("`{name}` on {kind:?}, cut at {cut} of {all}, seed {seed}{what}: {error}")
        };
        let recovers_again = random.percent(3);
        let recovered = match self.check(&self.allowed(cut), image, &mut random) {
            Ok(recovered) => recovered,
            Err(error) => fail("", error),
        };
        if !recovers_again {
            return 1;
        }
        let mut cuts = recovered.machine.cuts();
        for again in 0..=cuts.len() {
            let image = cuts.image(again, &mut random);
            // What somebody may have read is not taken back.
            let allowed = match again < recovered.opened {
                true => self.allowed(cut),
                false => vec![&recovered.found],
            };
            if let Err(error) = self.check(&allowed, image, &mut random) {
                fail(&format!(", then at {again} of {} of its recovery", cuts.len()), error);
            }
        }
        2 + cuts.len() as u64
    }

    /// The images of these cuts, in ascending order, and of each with the rows behind that can be.
    fn cut_at(&self, places: &[usize], random: &mut Random, counts: &Counts) {
        let mut cuts = self.machine.cuts();
        for cut in places {
            let seed = random.bits();
            let image = cuts.image(*cut, &mut Random::new(seed));
            counts.add(self.cut(*cut, image, seed));
        }
        for (rows, latest) in self.folds(&cuts) {
            if places.binary_search(&rows).is_ok() && latest > rows {
                let (seed, cut) = (random.bits(), rows + 1 + random.below(latest - rows));
                let image = cuts.image_with_late_rows(cut, rows, &mut Random::new(seed));
                counts.add(self.cut(cut, image, seed));
                counts.late.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn main_seed() -> u64 {
    std::env::var("CRASH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn wanted() -> u64 {
    std::env::var("CRASH_IMAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(3_000)
}

/// Whether everything is tried (`CRASH_IMAGES`), each cut of every kind of store, and each operation fails once;
/// otherwise a part.
fn is_long() -> bool {
    std::env::var_os("CRASH_IMAGES").is_some()
}

fn stride() -> usize {
    if is_long() { 1 } else { 8 }
}

/// The kinds of stores that are tried, the most telling one first.
fn kinds() -> [Kind; 5] {
    [SMALL, HASTY, WIDE, shipped(), Kind::RowsAlone]
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
    let of_kind = |kind: Kind| scripts::scripted().into_iter().map(move |script| play(script, kind));
    let played: Vec<Played> = kinds().into_iter().flat_map(of_kind).collect();
    assert_eq!(played.len(), 20 * kinds().len());
    let least = if is_long() { played.len() } else { 20 };
    let (next, counts) = (AtomicU64::new(0), Counts::default());
    // Every cut once, and again with other parts of what was not flushed until half of what is wanted is done.
    on_all_cores(|_| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let played = &played[number as usize % played.len()];
            if number >= least as u64 && counts.images() >= wanted / 2 {
                break;
            }
            let mut random = Random::new(seed.wrapping_mul(1_000_000_007).wrapping_add(number));
            let places: Vec<usize> = (0..=played.machine.operations()).collect();
            played.cut_at(&places, &mut random, &counts);
        }
    });
    // Then random scripts, with a sample of their cuts.
    let next = AtomicU64::new(0);
    on_all_cores(|_| {
        while counts.images() < wanted {
            let number = seed.wrapping_mul(1_000_000).wrapping_add(next.fetch_add(1, Ordering::Relaxed));
            let mut random = Random::new(number);
            let played = play(scripts::random(number), *random.pick(&kinds()));
            let all = played.machine.operations() + 1;
            let mut sample: Vec<usize> = (0..40).map(|_| random.below(all)).collect();
            sample.sort_unstable();
            played.cut_at(&sample, &mut random, &counts);
        }
    });
    let (images, seconds) = (counts.images(), started.elapsed().as_secs_f64());
    let (late, again) = (counts.late.into_inner(), counts.again.into_inner());
    let operations =
        |number: usize| -> usize { played[..20].iter().map(|played| played.machine.disk(number).operations()).sum() };
    println!(
        "{images} crash images of 20 scripts ({} operations on rows, {} on journals) and {} random ones, {:.0}/s; \
         {late} with rows behind the journal, {again} cut again within recovery",
        operations(ROWS),
        operations(JOURNAL),
        next.into_inner(),
        images as f64 / seconds
    );
    assert!(images >= wanted && images > 1_000, "{images} images are too few to mean anything");
    assert!(late > 100 && again > 100, "{late} and {again} are too few to mean anything");
}

/// Plays a script on disks of which one fails somewhere. What a step that failed left is before or after it, and
/// after it was tried again all is as if nothing had failed. Answers how many operations there were at each state.
fn play_on(machine: &Machine, script: &Script, expected: &[(usize, Seen)]) -> Result<Vec<usize>, String> {
    // One failure: the second try succeeds.
    let patient = |work: &dyn Fn() -> Result<Seen, StoreError>, what: &str| {
        work().or_else(|_| work()).map_err(|error| format!("{what}: {error}"))
    };
    let open = |what: &str| machine.open(3).or_else(|_| machine.open(3)).map_err(|error| format!("{what}: {error}"));
    let mut core = open("opening")?;
    let mut acknowledged = vec![machine.operations()];
    for (number, step) in script.steps.iter().enumerate() {
        let (before, after) = (&expected[number].1, &expected[number + 1].1);
        match step {
            Step::Reopen => {
                drop(core);
                core = open("opening again")?;
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
        acknowledged.push(machine.operations());
    }
    let mut random = Random::new(1);
    is_sound(&core, &mut random, true).or_else(|_| is_sound(&core, &mut random, true))?;
    Ok(acknowledged)
}

/// What failed, on the disks of rows and of journals, and what was made after it.
#[derive(Debug, Default)]
struct Failed {
    times: [AtomicU64; 2],
    images: AtomicU64,
}

/// Plays each script with each `n`-th time that `fail` says of either file, and cuts the power after it, at so many
/// places.
fn fail_each(kinds: &[Kind], fail: impl Fn(&Disk, u64) + Sync, cuts: usize) -> Failed {
    let (failed, next) = (Failed::default(), AtomicU64::new(0));
    let of_kind = |kind: Kind| scripts::scripted().into_iter().map(move |script| play(script, kind));
    let played: Vec<Played> = kinds.iter().copied().flat_map(of_kind).collect();
    on_all_cores(|_| {
        while let Some(played) = played.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            for disk in played.machine.disks() {
                for good in (0..).step_by(stride()) {
                    let machine = Machine::new(played.machine.kind());
                    fail(machine.disk(disk), good);
                    let acknowledged = play_on(&machine, &played.script, &played.states).unwrap_or_else(|error| {
                        let (name, kind) = (&played.script.name, machine.kind());
                        panic!("`{name}` on {kind:?}, disk {disk} fails at {good}: {error}")
                    });
                    if machine.has_yet_to_fail() {
                        break;
                    }
                    failed.times[disk].fetch_add(1, Ordering::Relaxed);
                    let images = cut_failed(machine, played, &acknowledged, (disk, good), cuts);
                    failed.images.fetch_add(images, Ordering::Relaxed);
                }
            }
        }
    });
    failed
}

/// Cuts the power after a script that was played on a failing disk, at so many places. Answers how many images.
fn cut_failed(
    machine: Machine,
    without: &Played,
    acknowledged: &[usize],
    (disk, good): (usize, u64),
    count: usize,
) -> u64 {
    let states = acknowledged.iter().copied().zip(without.states.iter().map(|(_, seen)| seen.clone())).collect();
    let name = format!("{} (disk {disk} failed at {good})", without.script.name);
    let script = Script { name, steps: Vec::new() };
    let played = Played { script, machine, states, nothing: without.nothing.clone() };
    let all = played.machine.operations();
    let mut random = Random::new(good);
    let mut places: Vec<usize> = (1..count).map(|_| random.below(all + 1)).collect();
    places.push(all);
    places.sort_unstable();
    let counts = Counts::default();
    played.cut_at(&places, &mut random, &counts);
    counts.images()
}

/// The kinds of stores on which things fail.
fn failing_kinds() -> Vec<Kind> {
    if is_long() { vec![SMALL, shipped(), Kind::RowsAlone] } else { vec![SMALL] }
}

#[test]
fn b51_whatever_operation_fails_once_nothing_is_between_and_it_goes_on() {
    let failed = fail_each(&failing_kinds(), Disk::fail_once_after, 1);
    let [rows, journal] = failed.times.map(AtomicU64::into_inner);
    println!(
        "{rows} operations on rows and {journal} on journals failed, {} crash images after them",
        failed.images.into_inner()
    );
    assert!(rows > 100 && journal > 20, "{rows} and {journal} failures are too few to mean anything");
}

#[test]
fn b51_a_flush_that_fails_and_then_succeeds_loses_nothing_acknowledged() {
    let failed = fail_each(&failing_kinds(), Disk::fail_flush_after, 12);
    let [rows, journal] = failed.times.map(AtomicU64::into_inner);
    println!(
        "{rows} flushes of rows and {journal} of journals failed, {} crash images after them",
        failed.images.into_inner()
    );
    assert!(rows > 20 && journal > 10, "{rows} and {journal} failures are too few to mean anything");
}
