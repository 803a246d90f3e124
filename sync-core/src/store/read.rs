//! Reads of one replica, each from one snapshot.

use std::collections::HashSet;

use bytes::Bytes;

use super::{
    engine::{EngineRead, Scan},
    index::Index,
    names::Names,
    page::{Page, PageEntry, commit_of, overhead},
    reconcile::{View, Widths},
    rows::{self, EntryRow, Head, ReplicaNo, corrupt, entry_key},
    types::{
        Changes, ChangesRequest, Direction, LogEntry, Missing, MissingPage, Origin, Position, Query, Scope, Select,
        ShortId, StoreError,
    },
};
use crate::canary::{self, Canary};
use crate::model::{
    AuthorId, Entry, Key, Op, Order, PeerId, ReplicaId, SlotKey, SlotRange, Summary, successor_of_prefix,
};

/// One replica in a snapshot.
pub(super) struct Reader<'a> {
    pub rows: &'a dyn EngineRead,
    pub names: &'a Names,
    pub id: ReplicaId,
    pub replica: ReplicaNo,
    pub index: Index<'a>,
    pub widths: Widths,
}

impl View for Reader<'_> {
    fn widths(&self) -> Widths {
        self.widths
    }

    fn summary(&self, range: &SlotRange) -> Result<Summary, StoreError> {
        self.index.summary(range)
    }

    fn summaries(&self, ranges: &[SlotRange]) -> Result<Vec<Summary>, StoreError> {
        self.index.summaries(ranges)
    }

    fn split(&self, range: &SlotRange, total: &Summary, parts: usize) -> Result<Vec<(SlotRange, Summary)>, StoreError> {
        self.index.split(range, total, parts)
    }

    fn ids(&self, range: &SlotRange) -> Result<Vec<ShortId>, StoreError> {
        let mut ids = Vec::new();
        let (start, end) = entry_key::range(self.replica, range);
        rows::scan(self.rows, (&start, end.as_deref()), Scan::Forward, |_, value| {
            ids.push(ShortId::from(&EntryRow::hash(value)?));
            Ok(true)
        })?;
        Ok(ids)
    }
}

impl Reader<'_> {
    pub fn scope_summary(&self, scope: &Scope) -> Result<Summary, StoreError> {
        if canary::is_out(Canary::ClampLate) && !scope.is_nothing() {
            return self.summary(&SlotRange::ALL);
        }
        let mut sum = Summary::EMPTY;
        for range in scope.ranges() {
            sum.add(&self.summary(range)?);
        }
        Ok(sum)
    }

    /// Reads an entry and holds it against its hash: a damaged row is an error, not another entry.
    fn entry(&self, key: &[u8], value: &[u8]) -> Result<LogEntry, StoreError> {
        let (row, body) = EntryRow::decode(value)?;
        let op = rows::op_at(&entry_key::place(key)?, body)?;
        let author = AuthorId(self.names.key(self.rows, row.author)?);
        let entry = Entry { replica: self.id, author, timestamp: row.timestamp, op };
        if entry.hash() != row.hash {
            return Err(corrupt(&format!("the entry at \"{}\"", entry.op.key_bytes().escape_ascii())));
        }
        let origin = match row.origin {
            None => Origin::Local,
            Some(peer) => Origin::Peer(PeerId(self.names.key(self.rows, peer)?)),
        };
        Ok(LogEntry { position: Position(row.position), origin, hash: row.hash, entry })
    }

    fn page_entry(&self, key: &[u8], value: &[u8]) -> Result<PageEntry, StoreError> {
        let (row, _) = EntryRow::decode(value)?;
        Ok(PageEntry { row, op: self.entry(key, value)?.entry.op })
    }

    pub fn get(&self, key: &Key) -> Result<Option<LogEntry>, StoreError> {
        let place = SlotKey::of_key(key);
        let (start, end) = entry_key::group(self.replica, place.as_bytes());
        let mut best = None;
        rows::scan(self.rows, (&start, Some(&end)), Scan::Forward, |key, value| {
            better(&mut best, self.entry(key, value)?);
            Ok(true)
        })?;
        Ok(best.filter(is_value))
    }

    pub fn query(&self, query: &Query) -> Result<Vec<LogEntry>, StoreError> {
        let Some((start, end)) = self.query_range(query) else { return Ok(Vec::new()) };
        let author = match &query.author {
            None => None,
            Some(author) => match self.names.number(self.rows, &author.0)? {
                Some(number) => Some(number),
                None => return Ok(Vec::new()),
            },
        };
        let limit = if query.limit == 0 { usize::MAX } else { query.limit };
        let mut answer = Vec::new();
        let mut group: Vec<LogEntry> = Vec::new();
        let mut escaped: Vec<u8> = Vec::new();
        let scan = match query.direction {
            Direction::Ascending => Scan::Forward,
            Direction::Descending => Scan::Backward,
        };
        rows::scan(self.rows, (&start, end.as_deref()), scan, |key, value| {
            if escaped != entry_key::escaped_place(key) {
                flush(&mut group, query.select, &mut answer);
                if answer.len() >= limit {
                    return Ok(false);
                }
                escaped.clear();
                escaped.extend_from_slice(entry_key::escaped_place(key));
            }
            if entry_key::is_tombstone(key) && !query.tombstones {
                return Ok(true);
            }
            if author.is_none_or(|author| EntryRow::decode(value).is_ok_and(|(row, _)| row.author == author)) {
                group.push(self.entry(key, value)?);
            }
            Ok(true)
        })?;
        flush(&mut group, query.select, &mut answer);
        answer.truncate(limit);
        Ok(answer)
    }

    /// The keys of the rows that a query looks at; none when nothing can match.
    fn query_range(&self, query: &Query) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let place = |bytes: &[u8]| {
            let section = if bytes.first() == Some(&0) { 0 } else { 2 };
            [&[section], bytes].concat()
        };
        let (mut start, mut end) = match &query.key {
            Some(key) if !key.starts_with(&query.prefix) || key.is_empty() => return None,
            Some(key) => {
                let (start, end) = entry_key::group(self.replica, &place(key));
                (start, Some(end))
            }
            None => {
                let start = place(&query.prefix);
                let end = successor_of_prefix(&start).map(SlotKey::from_bytes);
                entry_key::range(self.replica, &SlotRange { start: SlotKey::from_bytes(start), end })
            }
        };
        if let Some(after) = &query.start_after {
            match query.direction {
                Direction::Ascending => start = start.max(entry_key::past(self.replica, &place(after))),
                Direction::Descending => {
                    let before = entry_key::from(self.replica, &place(after));
                    end = Some(end.map_or(before.clone(), |end| end.min(before)));
                }
            }
        }
        end.as_ref().is_none_or(|end| start < *end).then_some((start, end))
    }

    pub fn log(&self, since: Position, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        let mut entries = Vec::new();
        self.log_rows(since, Scan::Forward, |_, _, slot| {
            if entries.len() == limit {
                return Ok(false);
            }
            entries.push(self.entry(&slot, &self.row(&slot)?)?);
            Ok(true)
        })?;
        Ok(entries)
    }

    /// The row of an entry that is in the change log.
    pub fn row(&self, slot: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.rows.get(slot)?.ok_or_else(|| corrupt("an entry in the change log"))
    }

    /// Visits the change log after `since`: position, origin and the key of the entry's row.
    pub fn log_rows(
        &self,
        since: Position,
        order: Scan,
        mut visit: impl FnMut(u64, Option<rows::KeyNo>, Vec<u8>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let Some(first) = since.0.checked_add(1) else { return Ok(()) };
        let start = rows::log_key(self.replica, first);
        let end = rows::after(&start[..5]);
        rows::scan(self.rows, (&start, end.as_deref()), order, |key, value| {
            let (origin, slot) = rows::of_log_row(self.replica, value)?;
            visit(rows::position_of(key)?, origin, slot)
        })
    }

    /// The change log for a peer. The entries of a commit that follow each other in the log are a
    /// *run*; a run is torn only when it does not fit in a page of its own.
    pub fn changes(&self, request: &ChangesRequest) -> Result<Changes, StoreError> {
        let head = Head::load(self.rows, self.replica)?;
        let not_from = match &request.not_from {
            Some(peer) => self.names.number(self.rows, &peer.0)?,
            None => None,
        };
        let mut page = Page::default();
        let mut run = Run::default();
        let mut full = false;
        let mut through = request.since.0;
        self.log_rows(request.since, Scan::Forward, |position, origin, slot| {
            let skip = not_from.is_some() && origin == not_from
                || !request.scope.is_all() && {
                    let place = SlotKey::from_bytes(entry_key::place(&slot)?);
                    !request.scope.ranges().iter().any(|range| range.contains(&place))
                };
            if skip {
                if run.is_empty() {
                    through = position;
                }
                return Ok(true);
            }
            let value = self.rows.get(&slot)?.ok_or_else(|| corrupt("an entry in the change log"))?;
            let entry = self.page_entry(&slot, &value)?;
            if !run.continues(&entry) {
                if !run.move_to(&mut page, &mut through, request.max_bytes) {
                    full = true;
                    return Ok(false);
                }
                // What was skipped after the run's last entry and before this one is read too.
                through = position.saturating_sub(1);
                run.count = page.count_of(self.rows, self.replica, &entry.row)?;
            }
            run.push(position, entry);
            // Its entries alone are too long: no need to see the rest of it.
            full = page.bytes() + run.bytes > request.max_bytes;
            Ok(!full)
        })?;
        let ended = run.move_to(&mut page, &mut through, request.max_bytes) && !full;
        if ended {
            through = through.max(head.position);
        }
        let entries = page.entries();
        let bundles = page.bundles(self.rows, self.names, self.replica)?;
        let rights_version = head.rights_version;
        Ok(Changes { bundles, entries, through: Position(through), rights_version })
    }

    pub fn missing(&self, scope: &Scope, missing: &[Missing], max_bytes: usize) -> Result<MissingPage, StoreError> {
        let mut page = Page::default();
        let mut rest = Vec::new();
        for Missing { range, except, until } in missing {
            let known: HashSet<ShortId> = except.iter().copied().collect();
            for part in scope.clamp(range) {
                if !rest.is_empty() {
                    rest.push(Missing { range: part, except: except.clone(), until: *until });
                } else if let Some((start, sent)) = self.fill(&mut page, &part, (&known, *until), max_bytes)? {
                    let except = except.iter().copied().chain(sent).collect();
                    rest.push(Missing { range: SlotRange { start, end: part.end }, except, until: *until });
                }
            }
        }
        let entries = page.entries();
        Ok(MissingPage { bundles: page.bundles(self.rows, self.names, self.replica)?, entries, rest })
    }

    /// Fills a page with the entries of a range. When they do not all fit: the place where to go
    /// on, and what was sent of it already.
    fn fill(
        &self,
        page: &mut Page,
        range: &SlotRange,
        (except, until): (&HashSet<ShortId>, Position),
        max_bytes: usize,
    ) -> Result<Option<(SlotKey, Vec<ShortId>)>, StoreError> {
        let mut at: (Bytes, Vec<ShortId>) = Default::default();
        let mut full = false;
        let (start, end) = entry_key::range(self.replica, range);
        rows::scan(self.rows, (&start, end.as_deref()), Scan::Forward, |key, value| {
            let id = ShortId::from(&EntryRow::hash(value)?);
            if except.contains(&id) {
                return Ok(true);
            }
            let place = entry_key::place(key)?;
            if place != at.0 {
                at = (place, Vec::new());
            }
            let entry = self.page_entry(key, value)?;
            if entry.row.position > until.0 {
                return Ok(true);
            }
            let count = page.count_of(self.rows, self.replica, &entry.row)?;
            let grown = page.bytes().saturating_add_signed(page.growth(&entry.row, 1, entry.len(), count));
            full = !page.is_empty() && grown > max_bytes;
            if !full {
                at.1.push(id);
                page.push(entry, count);
            }
            Ok(!full)
        })?;
        Ok(full.then(|| (SlotKey::from_bytes(at.0), at.1)))
    }
}

/// Entries of one commit that follow each other in the change log.
#[derive(Default)]
struct Run {
    entries: Vec<(u64, PageEntry)>,
    bytes: usize,
    count: u32,
}

impl Run {
    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn continues(&self, entry: &PageEntry) -> bool {
        let commit = commit_of(&entry.row);
        commit.is_some() && self.entries.last().is_some_and(|(_, last)| commit_of(&last.row) == commit)
    }

    fn push(&mut self, position: u64, entry: PageEntry) {
        self.bytes += entry.len();
        self.entries.push((position, entry));
    }

    /// Moves the run into the page, with the page's position behind it. Answers false when not all
    /// of it fitted; into an empty page goes as much as fits, and one entry in any case.
    fn move_to(&mut self, page: &mut Page, through: &mut u64, max_bytes: usize) -> bool {
        let run = std::mem::take(self);
        let Some((_, first)) = run.entries.first() else { return true };
        let growth = page.growth(&first.row, run.entries.len(), run.bytes, run.count);
        let fits = page.bytes().saturating_add_signed(growth) <= max_bytes;
        if !fits && !page.is_empty() {
            return false;
        }
        let mut bytes = 0;
        for (at, (position, entry)) in run.entries.into_iter().enumerate() {
            bytes += entry.len();
            if !fits && at > 0 && bytes + overhead(at + 1, run.count) > max_bytes {
                return false;
            }
            *through = position;
            page.push(entry, run.count);
        }
        fits
    }
}

fn is_value(entry: &LogEntry) -> bool {
    matches!(entry.entry.op, Op::Put { .. })
}

fn order(entry: &LogEntry) -> Order {
    Order { timestamp: entry.entry.timestamp, author: entry.entry.author, hash: entry.hash }
}

fn better(best: &mut Option<LogEntry>, entry: LogEntry) {
    let is_better = |best: &LogEntry| (order(best) < order(&entry)) != canary::is_out(Canary::ReadOldest);
    if best.as_ref().is_none_or(is_better) {
        *best = Some(entry);
    }
}

/// Moves what a query selects of one key's entries to the answer, newest first.
fn flush(group: &mut Vec<LogEntry>, select: Select, answer: &mut Vec<LogEntry>) {
    group.sort_unstable_by_key(|entry| std::cmp::Reverse(order(entry)));
    if select == Select::Newest {
        group.truncate(1);
    }
    answer.append(group);
}
