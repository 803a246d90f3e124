//! What a store lies on: the file of the rows and the one of the journal, on disks that record in one order.

use disk::{Disk, Order};
use store_redb::{Limits, RedbEngine};
use sync_core::{
    store::{Core, StoreError},
    testing::random::Random,
};

use crate::disk;

pub type Store = Core<RedbEngine>;

/// The file of the rows, and the journal's.
pub type Files = [Vec<u8>; 2];

pub const ROWS: usize = 0;
pub const JOURNAL: usize = 1;

/// Ties the journals to the stores.
const SECRET: [u8; 32] = [5; 32];

/// What the store has beside redb.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A journal within these limits, as every store has that is opened by its path.
    Journal(Limits),
    /// Nothing: every transaction is one of redb's.
    RowsAlone,
}

/// So small that a few transactions fill the journal, and some are too large for it.
pub const SMALL: Kind =
    Kind::Journal(Limits { transaction_bytes: 4_000, overlay_bytes: 8_000, half_bytes: 16 * 1_024 });

/// Every transaction of the journal is folded as soon as it is there.
pub const HASTY: Kind = Kind::Journal(Limits { transaction_bytes: 4_000, overlay_bytes: 0, half_bytes: 8 * 1_024 });

/// The journal takes much in, and what fills it is folded at once.
pub const WIDE: Kind =
    Kind::Journal(Limits { transaction_bytes: 32 * 1_024, overlay_bytes: 64 * 1_024, half_bytes: 96 * 1_024 });

/// What ships: folded is what is large, and when the store is closed.
pub fn shipped() -> Kind {
    Kind::Journal(Limits::default())
}

/// Clones are the same one.
#[derive(Debug, Clone)]
pub struct Machine {
    kind: Kind,
    disks: [Disk; 2],
    first: Files,
    order: Order,
}

impl Machine {
    /// A new store's: a file of rows gets its name when it is whole, as `RedbEngine::open` makes it. The journal's is
    /// not there yet.
    pub fn new(kind: Kind) -> Self {
        let unfinished = Self::with(kind, Files::default());
        drop(unfinished.engine().expect("an empty disk can be used"));
        Self::with(kind, [unfinished.disks[ROWS].file(), Vec::new()])
    }

    pub fn with(kind: Kind, first: Files) -> Self {
        let (disks, order) = (first.clone().map(Disk::with), Order::default());
        for (number, disk) in disks.iter().enumerate() {
            disk.in_order(order.clone(), number);
        }
        Self { kind, disks, first, order }
    }

    fn engine(&self) -> Result<RedbEngine, StoreError> {
        let [rows, journal] = self.disks.clone();
        match self.kind {
            Kind::Journal(limits) => {
                RedbEngine::with_backends(move || Ok((rows.clone(), journal.clone())), limits, SECRET)
            }
            Kind::RowsAlone => RedbEngine::with_backend(move || Ok(rows.clone())),
        }
    }

    /// Opens the store. What a new one is made of differs from call to call, so that a store that
    /// forgot itself is noticed.
    pub fn open(&self, fresh: u8) -> Result<Store, StoreError> {
        Core::open(self.engine()?, [fresh; 32])
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// One of the two disks.
    pub fn disk(&self, number: usize) -> &Disk {
        &self.disks[number]
    }

    /// Which files there are.
    pub fn disks(&self) -> std::ops::Range<usize> {
        match self.kind {
            Kind::Journal(_) => 0..2,
            Kind::RowsAlone => 0..1,
        }
    }

    /// Whether what was to fail has not yet.
    pub fn has_yet_to_fail(&self) -> bool {
        self.disks.iter().any(Disk::has_yet_to_fail)
    }

    /// How many operations there were on both disks.
    pub fn operations(&self) -> usize {
        self.order.operations()
    }

    /// What was done until now, to be cut anywhere.
    pub fn cuts(&self) -> Cuts {
        let cuts = |number: usize| self.disks[number].cuts_from(self.first[number].clone());
        Cuts { order: self.order.disks(), files: [cuts(ROWS), cuts(JOURNAL)] }
    }
}

/// The images that power cuts leave. Cuts that come in ascending order cost less.
pub struct Cuts {
    order: Vec<usize>,
    files: [disk::Cuts; 2],
}

impl Cuts {
    /// The number of operations of both: so many can be cut after.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// How many of so many operations were on each disk.
    fn of_each(&self, cut: usize) -> [usize; 2] {
        let of_rows = self.order[..cut].iter().filter(|disk| **disk == ROWS).count();
        [of_rows, cut - of_rows]
    }

    /// Both files after a power cut behind so many operations. Of what was not flushed any part may be there, of
    /// the one file and of the other.
    pub fn image(&mut self, cut: usize, random: &mut Random) -> Files {
        self.image_of_each(self.of_each(cut), random)
    }

    /// The same where the rows are as far as they were after fewer operations.
    pub fn image_with_late_rows(&mut self, cut: usize, rows: usize, random: &mut Random) -> Files {
        self.image_of_each([self.of_each(rows)[ROWS], self.of_each(cut)[JOURNAL]], random)
    }

    fn image_of_each(&mut self, [rows, journal]: [usize; 2], random: &mut Random) -> Files {
        let [of_rows, of_journal] = &mut self.files;
        [of_rows.image(rows, random), of_journal.image(journal, random)]
    }

    /// A fold runs beside the writes that follow it, where a thread does it; here it runs before them. These are the
    /// cuts within the folds of a step, done in `step` of these operations, with how far the journal can be by
    /// then: until the next change of the rows, and not beyond `end`.
    pub fn folds(&self, step: std::ops::Range<usize>, end: usize) -> Vec<(usize, usize)> {
        // What is folded after the step's own record: before it, the writer waits.
        let Some(record) = step.clone().find(|at| self.order[*at] == JOURNAL) else { return Vec::new() };
        let Some(from) = (record..step.end).find(|at| self.order[*at] == ROWS) else { return Vec::new() };
        let until = (from..step.end).find(|at| self.order[*at] != ROWS).unwrap_or(step.end);
        let latest = (until..end).find(|at| self.order[*at] == ROWS).unwrap_or(end);
        (from..until).map(|rows| (rows, latest)).collect()
    }
}
