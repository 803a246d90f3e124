//! Rows in memory above rows in redb: what the journal holds and redb does not yet.

use std::{cmp::Ordering, ops::Bound, sync::Arc};

use imbl::OrdMap;
use sync_core::store::{Scan, StoreError, Visit};

use crate::table::{self, RowsTable};

/// A row's value; none where the row is gone.
pub(crate) type Row = Option<Arc<[u8]>>;

/// What a row costs in memory beside its bytes, about.
const ROW_OVERHEAD: usize = 128;

/// Rows above others. Clones share them and change apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layer {
    rows: OrdMap<Arc<[u8]>, Row>,
    bytes: usize,
}

impl Layer {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How much memory it takes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn set(&mut self, key: &[u8], row: Row) {
        self.bytes += row.as_ref().map_or(0, |row| row.len());
        match self.rows.get_mut(key) {
            Some(old) => {
                self.bytes = self.bytes.saturating_sub(old.as_ref().map_or(0, |old| old.len()));
                *old = row;
            }
            None => {
                self.bytes += key.len() + ROW_OVERHEAD;
                self.rows.insert(key.into(), row);
            }
        }
    }

    /// All rows, in the order of their keys.
    pub fn rows(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.rows.iter().map(|(key, row)| (&key[..], row.as_deref()))
    }

    fn range(&self, start: &[u8], end: Option<&[u8]>, order: Scan) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let bounds = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
        let mut rows = self.rows.range::<_, [u8]>(bounds);
        std::iter::from_fn(move || match order {
            Scan::Forward => rows.next(),
            Scan::Backward => rows.next_back(),
        })
        .map(|(key, row)| (&key[..], row.as_deref()))
    }
}

/// Two layers, the newer first. Above both is nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overlay {
    /// What the half holds that is written.
    pub active: Layer,
    /// What is being folded.
    pub frozen: Layer,
}

impl Overlay {
    pub fn is_empty(&self) -> bool {
        self.active.is_empty() && self.frozen.is_empty()
    }

    /// How much memory both take, about.
    pub fn bytes(&self) -> usize {
        self.active.bytes() + self.frozen.bytes()
    }

    /// The row at `key`, if one of the layers says something of it.
    fn row(&self, key: &[u8]) -> Option<&Row> {
        self.active.rows.get(key).or_else(|| self.frozen.rows.get(key))
    }

    pub fn get(&self, base: &impl RowsTable, key: &[u8], place: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match self.row(key) {
            Some(row) => Ok(row.as_ref().map(|row| row.to_vec())),
            None => table::get(base, key, place),
        }
    }

    /// Shows the rows of the layers and of `base` in one order; a newer one hides an older one of the same key.
    pub fn scan(
        &self,
        base: &impl RowsTable,
        (start, end): (&[u8], Option<&[u8]>),
        order: Scan,
        visit: Visit<'_>,
        place: &str,
    ) -> Result<(), StoreError> {
        // A range whose end is before its start is empty here, and an error or a panic beneath.
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        let mut active = self.active.range(start, end, order).peekable();
        let mut frozen = self.frozen.range(start, end, order).peekable();
        if active.peek().is_none() && frozen.peek().is_none() {
            return table::scan(base, (start, end), order, visit, place);
        }
        let before = |a: &[u8], b: &[u8]| match order {
            Scan::Forward => a.cmp(b),
            Scan::Backward => b.cmp(a),
        };
        let mut stopped = false;
        // The rows of the layers that come before `until`, or all that are left, and whether `until` is hidden.
        let mut above = |until: Option<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool| -> (bool, bool) {
            loop {
                let key = match (active.peek(), frozen.peek()) {
                    (Some((a, _)), Some((f, _))) if before(f, a) == Ordering::Less => *f,
                    (Some((a, _)), _) => *a,
                    (None, Some((f, _))) => *f,
                    (None, None) => return (true, false),
                };
                let against = until.map_or(Ordering::Less, |until| before(key, until));
                if against == Ordering::Greater {
                    return (true, false);
                }
                let older = frozen.next_if(|(f, _)| *f == key);
                let (key, row) = active.next_if(|(a, _)| *a == key).or(older).expect("one of the two has it");
                if row.is_some_and(|row| !visit(key, row)) {
                    return (false, true);
                }
                if against == Ordering::Equal {
                    return (true, true);
                }
            }
        };
        let mut show = |key: &[u8], value: &[u8]| visit(key, value).is_continue();
        table::scan(
            base,
            (start, end),
            order,
            &mut |key, value| {
                let (go_on, hidden) = above(Some(key), &mut show);
                stopped = !go_on || (!hidden && !show(key, value));
                if stopped { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
            },
            place,
        )?;
        if !stopped {
            above(None, &mut show);
        }
        Ok(())
    }
}
