//! The simulator on the real engine: every node has its store in redb with its journal, on disks that lose power.
//!
//! A crash is a power cut: of what was not flushed each sector may be there or not. A power cut of the scenario comes
//! behind any operation of either file, in the middle of a transaction; a disk that fails loses what one flush was to
//! bring, and works again. All oracles of the simulator watch. Where the disks do not fail, the trace must be the one of
//! the simulator's own engine: no node can tell the two apart.
//!
//! `SIMULATION_SEEDS=N` plays N scenarios, `SIMULATION_SEED=S` one again.

mod disk;

use std::{
    cell::{Cell, RefCell},
    ops::Range,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use disk::{Disk, Failure, Fuse, Operation};
use store_redb::{Limits, RedbEngine};
use sync_core::{
    store::{Core, StoreError, reconcile::Widths},
    testing::{
        random::Random,
        sim::{Counters, Device, Fault, Scenario, SimStore, Trouble, run, run_on},
    },
};

/// How many scenarios are played unless told otherwise.
const SEEDS: u64 = 20;

/// So small that a few transactions fill the journal, and some are too large for it.
const SMALL: Limits = Limits { transaction_bytes: 4_000, overlay_bytes: 8_000, half_bytes: 16 * 1024 };

/// What happened to all disks.
#[derive(Debug, Default)]
struct Happened {
    cuts: AtomicU64,
    /// Cuts that found something that was not flushed.
    unflushed: AtomicU64,
    /// Cuts in the middle of a transaction.
    in_a_write: AtomicU64,
    /// Flushes that failed, and lost what they were to bring.
    flushes: AtomicU64,
}

/// The two files of a store, and what was in them at first.
#[derive(Debug)]
struct Files {
    disks: [Disk; 2],
    first: [Vec<u8>; 2],
    fuse: Fuse,
}

impl Files {
    fn with(first: [Vec<u8>; 2]) -> Self {
        let (disks, fuse) = (first.clone().map(Disk::with), Fuse::default());
        disks.iter().for_each(|disk| disk.on_fuse(fuse.clone()));
        Self { disks, first, fuse }
    }
}

/// A device of a node.
#[derive(Debug)]
struct Machine {
    files: RefCell<Files>,
    trouble: Cell<Trouble>,
    happened: Arc<Happened>,
}

impl Machine {
    fn with(first: [Vec<u8>; 2], happened: &Arc<Happened>) -> Self {
        Self { files: RefCell::new(Files::with(first)), trouble: Cell::default(), happened: happened.clone() }
    }

    /// The file of the rows is whole before it gets its name, as `RedbEngine::open` makes it.
    fn make(&self) -> Result<(), StoreError> {
        let trouble = self.trouble();
        if trouble.full {
            return Err(StoreError::DiskFull("making a file".into()));
        }
        let [rows, journal] = <[Disk; 2]>::default();
        let unfinished = (rows.clone(), journal);
        drop(RedbEngine::with_backends(move || Ok(unfinished.clone()), SMALL, [5; 32])?);
        *self.files.borrow_mut() = Files::with([rows.file(), Vec::new()]);
        self.set_trouble(trouble);
        Ok(())
    }

    /// Counts what its files went through, which are given up.
    fn count(&self) {
        let lost = |disk: &Disk| disk.since(0).iter().filter(|it| matches!(it, Operation::LostSync)).count() as u64;
        self.happened.flushes.fetch_add(self.files.borrow().disks.iter().map(lost).sum(), Ordering::Relaxed);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.count();
    }
}

impl Device for Machine {
    fn open(&self, fresh: [u8; 32], widths: Widths) -> Result<SimStore, StoreError> {
        if self.is_empty() {
            self.make()?;
        }
        let [rows, journal] = self.files.borrow().disks.clone();
        let engine = RedbEngine::with_backends(move || Ok((rows.clone(), journal.clone())), SMALL, [5; 32])?;
        Ok(SimStore::new(Core::open(engine, fresh)?.with_widths(widths)))
    }

    fn copy(&self) -> Rc<dyn Device> {
        let files = self.files.borrow().disks.each_ref().map(Disk::file);
        Rc::new(Self::with(files, &self.happened))
    }

    fn is_empty(&self) -> bool {
        self.files.borrow().disks.iter().all(|disk| disk.file().is_empty())
    }

    fn set_trouble(&self, trouble: Trouble) {
        let files = self.files.borrow();
        for disk in &files.disks {
            disk.mend();
            disk.fail(trouble.full.then_some(Failure::NoSpace));
        }
        if let Some(writes) = trouble.fails_after {
            // One time in four it is the file of the rows, which is flushed less often.
            let (file, flushes) = if writes % 4 == 3 { (0, writes / 4) } else { (1, writes) };
            files.disks[file].fail_flush_after(flushes.into());
        }
        files.fuse.set(trouble.power_ends_after.map(u64::from));
        self.trouble.set(trouble);
    }

    fn trouble(&self) -> Trouble {
        let files = self.files.borrow();
        let fails = files.disks.iter().any(Disk::has_yet_to_fail);
        let trouble = self.trouble.get();
        Trouble {
            fails_after: trouble.fails_after.filter(|_| fails),
            power_ends_after: files.fuse.changes_left().and_then(|left| u32::try_from(left).ok()),
            ..trouble
        }
    }

    fn has_power(&self) -> bool {
        !self.files.borrow().fuse.is_blown()
    }

    fn cut_power(&self, draw: u64) {
        let mut random = Random::new(draw);
        let trouble = Trouble { power_ends_after: None, ..self.trouble() };
        self.count();
        let happened = |what: &AtomicU64, yes: bool| what.fetch_add(yes.into(), Ordering::Relaxed);
        let files = {
            let files = self.files.borrow();
            let was_flushed = |disk: &Disk| matches!(disk.since(0).last(), None | Some(Operation::Sync));
            happened(&self.happened.cuts, true);
            happened(&self.happened.unflushed, !files.disks.iter().all(was_flushed));
            happened(&self.happened.in_a_write, files.fuse.is_blown());
            [0, 1].map(|file| {
                let disk = &files.disks[file];
                disk.cuts_from(files.first[file].clone()).image(disk.operations(), &mut random)
            })
        };
        // The dying process keeps the old ones, and nothing that it still does is seen.
        *self.files.borrow_mut() = Files::with(files);
        self.set_trouble(trouble);
    }
}

fn seeds() -> Range<u64> {
    let given = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match given("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..given("SIMULATION_SEEDS").unwrap_or(SEEDS),
    }
}

/// Whether its disks work, so that it makes no difference what is on them.
fn is_on_good_disks(scenario: &Scenario) -> bool {
    let is_of_disks =
        |fault: &Fault| matches!(fault, Fault::DiskError { .. } | Fault::DiskFull { .. } | Fault::PowerCut { .. });
    !scenario.faults.iter().any(|fault| is_of_disks(&fault.what))
}

fn play(seed: u64, happened: &Arc<Happened>) -> Counters {
    let scenario = Scenario::generate(seed);
    let outcome = run_on(&scenario, &|| Rc::new(Machine::with(Default::default(), happened)));
    let again = format!("play it again: SIMULATION_SEED={seed} cargo test -p store-redb --test simulation");
    if let Some(failure) = &outcome.failure {
        panic!("seed {seed}: {} after {} ms: {}\n{again}", failure.oracle, failure.at_ms, failure.what);
    }
    if is_on_good_disks(&scenario) {
        assert_eq!(outcome, run(&scenario), "seed {seed}: on another engine nodes do something else\n{again}");
    }
    outcome.counters
}

#[test]
fn b51_nodes_on_redb_become_equal_whatever_happens_to_them_and_to_their_disks() {
    let (happened, next, seeds) = (Arc::<Happened>::default(), AtomicU64::new(seeds().start), seeds());
    let work = || {
        let (mut all, mut played) = (Counters::default(), 0);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return (all, played);
            }
            all.add(&play(seed, &happened));
            played += 1;
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (mut all, mut played) = (Counters::default(), 0);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let (counters, count) = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.add(&counters);
            played += count;
        }
    });
    println!(
        "{played} simulations on redb: {} faults, {} writes acknowledged, {happened:?}",
        all.faults, all.acknowledged
    );
    assert!(played > 0, "nothing was simulated");
    if played >= SEEDS {
        assert!(all.acknowledged > 0, "nothing was checked");
        let counts = [&happened.cuts, &happened.unflushed, &happened.in_a_write, &happened.flushes];
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) > 0), "the disks went easy: {happened:?}");
    }
}
