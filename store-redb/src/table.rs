//! The tables in a redb file: the rows of the store, and how far its journal is folded into them.

use std::cell::Cell;

use redb::{
    AccessGuard, Database, DatabaseError, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition,
    TableError, WriteTransaction,
};
use sync_core::store::{Scan, StoreError, Visit};

use crate::{
    error,
    guard::{self, Guarded},
    journal::Secret,
};

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("syncline");

/// `secret`: what ties the journal to this file; `folded`: the number of the last record that is in the rows.
const JOURNAL: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("syncline journal");

const SECRET: &str = "secret";
const FOLDED: &str = "folded";

/// The rows, to be read.
pub(crate) struct Rows(Guarded<ReadOnlyTable<&'static [u8], &'static [u8]>>);

/// A transaction.
pub(crate) struct Writing {
    transaction: Option<Guarded<WriteTransaction>>,
    /// redb panicked in it: what it had changed in memory may be half of something.
    has_panicked: Cell<bool>,
}

/// The rows, to be written.
pub(crate) struct RowsInWriting<'tx> {
    table: Guarded<Table<'tx, &'static [u8], &'static [u8]>>,
    writing: &'tx Writing,
}

/// Either.
pub(crate) trait RowsTable {
    /// redb's.
    type Table: ReadableTable<&'static [u8], &'static [u8]>;

    /// redb's table.
    fn table(&self) -> &Self::Table;

    /// What is left to be done after a panic of redb's.
    fn has_panicked(&self);
}

impl RowsTable for Rows {
    type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;

    fn table(&self) -> &Self::Table {
        &self.0
    }

    fn has_panicked(&self) {}
}

impl<'tx> RowsTable for RowsInWriting<'tx> {
    type Table = Table<'tx, &'static [u8], &'static [u8]>;

    fn table(&self) -> &Self::Table {
        &self.table
    }

    fn has_panicked(&self) {
        self.writing.has_panicked.set(true);
    }
}

impl Writing {
    /// Undoes all of it.
    pub fn abort(mut self, place: &str) -> Result<(), StoreError> {
        let transaction = self.take();
        guard::using(place, || transaction.abort().map_err(|error| error::storage(place, error)))
    }

    fn transaction(&self) -> &WriteTransaction {
        self.transaction.as_ref().expect("it is there until it ends")
    }

    fn take(&mut self) -> WriteTransaction {
        self.transaction.take().expect("it ends once").into_inner()
    }

    fn work<T>(&self, place: &str, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        guard::catch(work).unwrap_or_else(|panicked| {
            self.has_panicked.set(true);
            Err(panicked.using(place))
        })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if self.has_panicked.get()
            && let Some(transaction) = self.transaction.take()
        {
            transaction.abandon();
        }
    }
}

fn ask<T>(rows: &impl RowsTable, place: &str, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    guard::catch(work).unwrap_or_else(|panicked| {
        rows.has_panicked();
        Err(panicked.using(place))
    })
}

/// What the file knows of its journal.
#[derive(Clone, Copy)]
pub(crate) struct JournalState {
    pub secret: Secret,
    pub folded: u64,
}

/// A database with both tables; makes those that are missing. `fresh` is drawn when there was no journal yet.
pub(crate) fn with_tables(
    open_database: impl FnOnce() -> Result<Database, DatabaseError>,
    place: &str,
    fresh: impl FnOnce() -> [u8; 32],
) -> Result<(Guarded<Database>, JournalState), StoreError> {
    let database = guard::opening(place, || open_database().map_err(|error| error::opening(place, error)))?;
    let database = Guarded::new(database);
    let found = guard::opening(place, || find_tables(&database, place))?;
    if let Some(state) = found {
        return Ok((database, state));
    }
    let state = JournalState { secret: Secret(fresh()), folded: 0 };
    let writing = begin(&database, place)?;
    drop(open(&writing, place)?);
    writing.work(place, || {
        let mut journal = writing.transaction().open_table(JOURNAL).map_err(|error| error::table(place, error))?;
        journal.insert(SECRET, &state.secret.0[..]).map_err(|error| error::storage(place, error))?;
        journal.insert(FOLDED, &0u64.to_be_bytes()[..]).map_err(|error| error::storage(place, error))?;
        Ok(())
    })?;
    commit(writing, place)?;
    Ok((database, state))
}

fn find_tables(database: &Database, place: &str) -> Result<Option<JournalState>, StoreError> {
    let reading = database.begin_read().map_err(|error| error::beginning(place, error))?;
    for result in [reading.open_table(ROWS).map(|_| ()), reading.open_table(JOURNAL).map(|_| ())] {
        match result {
            Ok(()) => {}
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error::table(place, error)),
        }
    }
    let journal = reading.open_table(JOURNAL).map_err(|error| error::table(place, error))?;
    let row = |name: &str| {
        let row = journal.get(name).map_err(|error| error::storage(place, error))?;
        row.map(|row| row.value().to_vec())
            .ok_or_else(|| StoreError::Corrupt(format!("{place}: its journal's {name} is missing")))
    };
    let corrupt = |name: &str| StoreError::Corrupt(format!("{place}: its journal's {name} cannot be read"));
    Ok(Some(JournalState {
        secret: Secret(row(SECRET)?.try_into().map_err(|_| corrupt(SECRET))?),
        folded: u64::from_be_bytes(row(FOLDED)?.try_into().map_err(|_| corrupt(FOLDED))?),
    }))
}

/// A view of the last commit.
pub(crate) fn read(database: &Database, place: &str) -> Result<Rows, StoreError> {
    guard::using(place, || {
        let reading = database.begin_read().map_err(|error| error::beginning(place, error))?;
        let rows = reading.open_table(ROWS).map_err(|error| error::table(place, error))?;
        Ok(Rows(Guarded::new(rows)))
    })
}

/// Begins a transaction, to be committed in two phases.
pub(crate) fn begin(database: &Database, place: &str) -> Result<Writing, StoreError> {
    guard::using(place, || {
        let mut writing = database.begin_write().map_err(|error| error::beginning(place, error))?;
        writing.set_two_phase_commit(true);
        Ok(Writing { transaction: Some(Guarded::new(writing)), has_panicked: Cell::new(false) })
    })
}

/// The rows in a transaction.
pub(crate) fn open<'tx>(writing: &'tx Writing, place: &str) -> Result<RowsInWriting<'tx>, StoreError> {
    let table =
        writing.work(place, || writing.transaction().open_table(ROWS).map_err(|error| error::table(place, error)))?;
    Ok(RowsInWriting { table: Guarded::new(table), writing })
}

/// Says that the rows have taken in the journal up to this record.
pub(crate) fn set_folded(writing: &Writing, folded: u64, place: &str) -> Result<(), StoreError> {
    writing.work(place, || {
        let mut journal = writing.transaction().open_table(JOURNAL).map_err(|error| error::table(place, error))?;
        journal.insert(FOLDED, &folded.to_be_bytes()[..]).map_err(|error| error::storage(place, error))?;
        Ok(())
    })
}

pub(crate) fn commit(mut writing: Writing, place: &str) -> Result<(), StoreError> {
    let transaction = writing.take();
    guard::using(place, || transaction.commit().map_err(|error| error::committing(place, error)))
}

/// Sets the row at `key`, or removes it. Answers whether anything changed.
pub(crate) fn set(
    rows: &mut RowsInWriting<'_>,
    key: &[u8],
    value: Option<&[u8]>,
    place: &str,
) -> Result<bool, StoreError> {
    let RowsInWriting { table, writing } = rows;
    writing.work(place, || {
        match value {
            Some(value) => table.insert(key, value).map(|_| true),
            None => table.remove(key).map(|removed| removed.is_some()),
        }
        .map_err(|error| error::storage(place, error))
    })
}

pub(crate) fn get(rows: &impl RowsTable, key: &[u8], place: &str) -> Result<Option<Vec<u8>>, StoreError> {
    ask(rows, place, || {
        let row = rows.table().get(key).map_err(|error| error::storage(place, error))?;
        Ok(row.map(|row| row.value().to_vec()))
    })
}

pub(crate) fn scan(
    rows: &impl RowsTable,
    (start, end): (&[u8], Option<&[u8]>),
    order: Scan,
    visit: Visit<'_>,
    place: &str,
) -> Result<(), StoreError> {
    // redb does not take a range whose end is before its start.
    if end.is_some_and(|end| end <= start) {
        return Ok(());
    }
    let range = ask(rows, place, || {
        match end {
            Some(end) => rows.table().range::<&[u8]>(start..end),
            None => rows.table().range::<&[u8]>(start..),
        }
        .map_err(|error| error::storage(place, error))
    })?;
    let mut range = Guarded::new(range);
    let mut before: Option<AccessGuard<'_, &[u8]>> = None;
    loop {
        let next = ask(rows, place, || {
            match order {
                Scan::Forward => range.next(),
                Scan::Backward => range.next_back(),
            }
            .transpose()
            .map_err(|error| error::storage(place, error))
        })?;
        let Some((key, value)) = next else { return Ok(()) };
        let (name, value) = ask(rows, place, || Ok((key.value(), value.value())))?;
        // Whoever scans goes on behind what it was shown: in a damaged file that could be for ever.
        let follows = before.as_ref().is_none_or(|before| match order {
            Scan::Forward => before.value() < name,
            Scan::Backward => name < before.value(),
        });
        if !follows || name < start || end.is_some_and(|end| name >= end) {
            return Err(StoreError::Corrupt(format!("{place}: its rows are out of order")));
        }
        // Outside: what it panics over is not redb's.
        if visit(name, value).is_break() {
            return Ok(());
        }
        before = Some(key);
    }
}
