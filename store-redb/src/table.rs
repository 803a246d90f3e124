//! The tables in a redb file: the rows of the store, and how far its journal is folded into them.

use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError,
    WriteTransaction,
};
use sync_core::store::{Scan, StoreError, Visit};

use crate::{error, journal::Secret};

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("syncline");

/// `secret`: what ties the journal to this file; `folded`: the number of the last record that is in the rows.
const JOURNAL: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("syncline journal");

const SECRET: &str = "secret";
const FOLDED: &str = "folded";

/// The rows, to be read.
pub(crate) type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The rows, to be written.
pub(crate) type RowsInWriting<'tx> = Table<'tx, &'static [u8], &'static [u8]>;

/// Either.
pub(crate) trait RowsTable: ReadableTable<&'static [u8], &'static [u8]> {}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> RowsTable for T {}

/// What the file knows of its journal.
#[derive(Clone, Copy)]
pub(crate) struct JournalState {
    pub secret: Secret,
    pub folded: u64,
}

/// A database with both tables; makes those that are missing. `fresh` is drawn when there was no journal yet.
pub(crate) fn with_tables(
    opened: Result<Database, DatabaseError>,
    place: &str,
    fresh: impl FnOnce() -> [u8; 32],
) -> Result<(Database, JournalState), StoreError> {
    let database = opened.map_err(|error| error::opening(place, error))?;
    let found = find_tables(&database, place)?;
    if let Some(state) = found {
        return Ok((database, state));
    }
    let state = JournalState { secret: Secret(fresh()), folded: 0 };
    let writing = begin(&database, place)?;
    open(&writing, place)?;
    let mut journal = writing.open_table(JOURNAL).map_err(|error| error::table(place, error))?;
    journal.insert(SECRET, &state.secret.0[..]).map_err(|error| error::storage(place, error))?;
    journal.insert(FOLDED, &0u64.to_be_bytes()[..]).map_err(|error| error::storage(place, error))?;
    drop(journal);
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
    let reading = database.begin_read().map_err(|error| error::beginning(place, error))?;
    reading.open_table(ROWS).map_err(|error| error::table(place, error))
}

/// Begins a transaction, to be committed in two phases.
pub(crate) fn begin(database: &Database, place: &str) -> Result<WriteTransaction, StoreError> {
    let mut writing = database.begin_write().map_err(|error| error::beginning(place, error))?;
    writing.set_two_phase_commit(true);
    Ok(writing)
}

/// The rows in a transaction.
pub(crate) fn open<'tx>(writing: &'tx WriteTransaction, place: &str) -> Result<RowsInWriting<'tx>, StoreError> {
    writing.open_table(ROWS).map_err(|error| error::table(place, error))
}

/// Says that the rows have taken in the journal up to this record.
pub(crate) fn set_folded(writing: &WriteTransaction, folded: u64, place: &str) -> Result<(), StoreError> {
    let mut journal = writing.open_table(JOURNAL).map_err(|error| error::table(place, error))?;
    journal.insert(FOLDED, &folded.to_be_bytes()[..]).map_err(|error| error::storage(place, error))?;
    Ok(())
}

pub(crate) fn commit(writing: WriteTransaction, place: &str) -> Result<(), StoreError> {
    writing.commit().map_err(|error| error::committing(place, error))
}

/// Sets the row at `key`, or removes it. Answers whether anything changed.
pub(crate) fn set(
    table: &mut RowsInWriting<'_>,
    key: &[u8],
    value: Option<&[u8]>,
    place: &str,
) -> Result<bool, StoreError> {
    match value {
        Some(value) => table.insert(key, value).map(|_| true),
        None => table.remove(key).map(|removed| removed.is_some()),
    }
    .map_err(|error| error::storage(place, error))
}

pub(crate) fn get(table: &impl RowsTable, key: &[u8], place: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let row = table.get(key).map_err(|error| error::storage(place, error))?;
    Ok(row.map(|row| row.value().to_vec()))
}

pub(crate) fn scan(
    table: &impl RowsTable,
    (start, end): (&[u8], Option<&[u8]>),
    order: Scan,
    visit: Visit<'_>,
    place: &str,
) -> Result<(), StoreError> {
    // redb does not take a range whose end is before its start.
    if end.is_some_and(|end| end <= start) {
        return Ok(());
    }
    let mut range = match end {
        Some(end) => table.range::<&[u8]>(start..end),
        None => table.range::<&[u8]>(start..),
    }
    .map_err(|error| error::storage(place, error))?;
    let next = move || match order {
        Scan::Forward => range.next(),
        Scan::Backward => range.next_back(),
    };
    for row in std::iter::from_fn(next) {
        let (key, value) = row.map_err(|error| error::storage(place, error))?;
        if visit(key.value(), value.value()).is_break() {
            break;
        }
    }
    Ok(())
}
