//! The index: summaries of ranges in O(log n) rows, kept in the same transaction as the entries.
//!
//! A history-independent aggregate in the shape of a skip list. Every place with entries has a
//! level, from a hash keyed with the store's salt: one place in 16 has level 1 or more, one in 256
//! level 2 or more. At level l the places of that level or more are *boundaries*; the row of a
//! boundary holds the summary of all entries from it up to the next boundary of the same level. The
//! empty place, before all others, is a boundary of every level. Level 0 has no rows: there the
//! entries themselves are summed. So the rows are a function of the set of entries and the salt,
//! whatever the history, and nobody who does not know the salt can choose places that spoil them.
//!
//! All authors' entries at one place belong together: the level hangs on the place.

use std::fmt;

use super::{
    engine::{EngineRead, EngineWrite, Scan},
    rows::{self, EntryRow, ReplicaNo, corrupt, entry_key, index_key, place_of_index_key},
    types::StoreError,
};
use crate::model::{Hash, SlotKey, SlotRange, Summary};

/// The highest level. With a fanout of 16 the rows there are few up to a thousand million entries.
const TOP: u8 = 6;

/// How many neighbouring ranges are summed at a time, and up to how many entries in each of them it costs less to
/// read all of them.
const RUN: usize = 16;
const FEW: usize = 64;

/// The key of the hash that levels come from: random, and known to this store alone.
#[derive(Clone, Copy)]
pub(super) struct Salt(pub [u8; 32]);

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt")
    }
}

impl Salt {
    /// How many leading zero nibbles the keyed hash of the place has.
    pub fn level(&self, place: &[u8]) -> u8 {
        let hash = blake3::keyed_hash(&self.0, place);
        let word = u64::from_be_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"));
        ((word.leading_zeros() / 4) as u8).min(TOP)
    }
}

/// Reads summaries of one replica.
pub(super) struct Index<'a> {
    rows: &'a dyn EngineRead,
    replica: ReplicaNo,
}

/// A run of entries: everything from `start` to the next run's start.
struct Span {
    start: SlotKey,
    summary: Summary,
}

impl<'a> Index<'a> {
    pub fn new(rows: &'a dyn EngineRead, replica: ReplicaNo) -> Self {
        Self { rows, replica }
    }

    /// Visits the rows of `level` whose boundary is at `start` or after, and before `end`.
    fn boundaries(
        &self,
        level: u8,
        start: &[u8],
        end: Option<&SlotKey>,
        mut visit: impl FnMut(&[u8], Summary) -> bool,
    ) -> Result<(), StoreError> {
        let start = index_key(self.replica, level, start);
        let end = index_end(self.replica, level, end);
        rows::scan(self.rows, (&start, Some(&end)), Scan::Forward, |key, value| {
            Ok(visit(place_of_index_key(key), decode(value)?))
        })
    }

    /// Visits the hashes of the entries in a range of places.
    fn entries(&self, range: &SlotRange, mut visit: impl FnMut(&[u8], Hash)) -> Result<(), StoreError> {
        let (start, end) = entry_key::range(self.replica, range);
        rows::scan(self.rows, (&start, end.as_deref()), Scan::Forward, |key, value| {
            visit(key, EntryRow::hash(value)?);
            Ok(true)
        })
    }

    /// The summary of everything.
    pub fn total(&self) -> Result<Summary, StoreError> {
        let mut sum = Summary::EMPTY;
        self.boundaries(TOP, &[], None, |_, summary| {
            sum.add(&summary);
            true
        })?;
        Ok(sum)
    }

    /// The first boundary of `level` at `place` or after it, but before `end`.
    fn boundary_from(&self, level: u8, place: &SlotKey, end: Option<&SlotKey>) -> Result<Option<SlotKey>, StoreError> {
        let start = index_key(self.replica, level, place.as_bytes());
        let end = index_end(self.replica, level, end);
        let mut found = None;
        rows::scan(self.rows, (&start, Some(&end)), Scan::Forward, |key, _| {
            found = Some(SlotKey::from_bytes(place_of_index_key(key).to_vec()));
            Ok(false)
        })?;
        Ok(found)
    }

    /// The summary of the entries in `range`: from its start up the levels, as far as there are boundaries of
    /// the next level inside, and down again to its end. What it takes follows the logarithm of what is in it.
    pub fn summary(&self, range: &SlotRange) -> Result<Summary, StoreError> {
        let mut sum = Summary::EMPTY;
        if range.is_empty() {
            return Ok(sum);
        }
        let mut at = range.start.clone();
        let mut level = 0;
        while level < TOP
            && let Some(next) = self.boundary_from(level + 1, &at, range.end.as_ref())?
        {
            sum.add(&sum_of_level(self.rows, self.replica, level, &SlotRange { start: at, end: Some(next.clone()) })?);
            at = next;
            level += 1;
        }
        while level > 0 {
            let mut last: Option<Summary> = None;
            let start = at.clone();
            self.boundaries(level, start.as_bytes(), range.end.as_ref(), |place, row| {
                if let Some(whole) = last.replace(row) {
                    sum.add(&whole);
                }
                at = SlotKey::from_bytes(place.to_vec());
                true
            })?;
            if let (None, Some(last)) = (&range.end, last) {
                // The last span ends where everything does.
                sum.add(&last);
                return Ok(sum);
            }
            level -= 1;
        }
        let rest = SlotRange { start: at, end: range.end.clone() };
        self.entries(&rest, |_, hash| sum.add(&Summary::of(&hash)))?;
        Ok(sum)
    }

    /// The summaries of the entries in ranges that ascend and do not overlap. Where neighbours have few entries each,
    /// those are read in one go: finding the spans of the index in each costs more.
    pub fn summaries(&self, ranges: &[SlotRange]) -> Result<Vec<Summary>, StoreError> {
        let mut sums = Vec::with_capacity(ranges.len());
        for run in ranges.chunks(RUN) {
            let whole = SlotRange { start: run[0].start.clone(), end: run[run.len() - 1].end.clone() };
            let is_small = run.len() > 1 && self.summary(&whole)?.count() <= (run.len() * FEW) as u64;
            if !is_small {
                for range in run {
                    sums.push(self.summary(range)?);
                }
                continue;
            }
            let bounds: Vec<_> = run.iter().map(|range| entry_key::range(self.replica, range)).collect();
            let first = sums.len();
            sums.resize(first + run.len(), Summary::EMPTY);
            let mut at = 0;
            self.entries(&whole, |key, hash| {
                while bounds[at].1.as_ref().is_some_and(|end| key >= end.as_slice()) {
                    at += 1;
                }
                if key >= bounds[at].0.as_slice() {
                    sums[first + at].add(&Summary::of(&hash));
                }
            })?;
        }
        Ok(sums)
    }

    /// Cuts `range`, whose summary is `total`, into at most `parts` ranges of about the same number of
    /// entries: at boundaries of the highest level that has enough of them inside.
    pub fn split(
        &self,
        range: &SlotRange,
        total: &Summary,
        parts: usize,
    ) -> Result<Vec<(SlotRange, Summary)>, StoreError> {
        if parts < 2 || total.count() < 2 {
            return Ok(vec![(range.clone(), total.clone())]);
        }
        for level in (1..=TOP).rev() {
            let spans = self.spans(level, range)?;
            // Level 0 costs 16 rows for each of level 1: half of what was asked for is enough there.
            if spans.len() >= parts || (level == 1 && spans.len() >= parts.div_ceil(2)) {
                let spans = self.complete(spans, range, total)?;
                return Ok(merge(range, spans, total.count(), parts as u64));
            }
        }
        Ok(merge(range, self.places(range)?, total.count(), parts as u64))
    }

    /// The spans of the boundaries of `level` inside `range`; the last may pass its end.
    fn spans(&self, level: u8, range: &SlotRange) -> Result<Vec<Span>, StoreError> {
        let mut spans = Vec::new();
        // The first place after the start.
        let start = [range.start.as_bytes(), &[0][..]].concat();
        self.boundaries(level, &start, range.end.as_ref(), |boundary, summary| {
            spans.push(Span { start: SlotKey::from_bytes(boundary.to_vec()), summary });
            true
        })?;
        Ok(spans)
    }

    /// Cuts the last span at the range's end and puts what is before the first in front of it.
    fn complete(&self, mut spans: Vec<Span>, range: &SlotRange, total: &Summary) -> Result<Vec<Span>, StoreError> {
        if range.end.is_some()
            && let Some(last) = spans.last_mut()
        {
            last.summary = self.summary(&SlotRange { start: last.start.clone(), end: range.end.clone() })?;
        }
        let mut first = total.clone();
        spans.iter().for_each(|span| first.subtract(&span.summary));
        spans.insert(0, Span { start: range.start.clone(), summary: first });
        Ok(spans)
    }

    /// The places in `range`, each with its entries.
    fn places(&self, range: &SlotRange) -> Result<Vec<Span>, StoreError> {
        let mut spans: Vec<Span> = Vec::new();
        let mut escaped: Vec<u8> = Vec::new();
        let mut failed = None;
        self.entries(range, |key, hash| {
            let same = !spans.is_empty() && escaped == entry_key::escaped_place(key);
            if same && let Some(last) = spans.last_mut() {
                last.summary.add(&Summary::of(&hash));
                return;
            }
            escaped = entry_key::escaped_place(key).to_vec();
            match entry_key::place(key) {
                Ok(place) => spans.push(Span { start: SlotKey::from_bytes(place), summary: Summary::of(&hash) }),
                Err(error) => failed = Some(error),
            }
        })?;
        failed.map_or(Ok(spans), Err)
    }
}

/// The first key after the rows of `level` whose boundary is before `end`.
fn index_end(replica: ReplicaNo, level: u8, end: Option<&SlotKey>) -> Vec<u8> {
    match end {
        Some(end) => index_key(replica, level, end.as_bytes()),
        None => index_key(replica, level + 1, &[]),
    }
}

/// Joins neighbouring spans to at most `parts` ranges that cover `range`.
fn merge(range: &SlotRange, spans: Vec<Span>, count: u64, parts: u64) -> Vec<(SlotRange, Summary)> {
    let mut merged: Vec<(SlotRange, Summary)> = Vec::new();
    let (mut before, mut next_cut) = (0, 0);
    for span in spans {
        if before >= next_cut && before < count {
            let start = if merged.is_empty() { range.start.clone() } else { span.start };
            if let Some((last, _)) = merged.last_mut() {
                last.end = Some(start.clone());
            }
            merged.push((SlotRange { start, end: range.end.clone() }, Summary::EMPTY));
            // The first multiple of the parts' size after what is already cut off.
            next_cut = ((before as u128 * u128::from(parts) / u128::from(count) + 1) * u128::from(count))
                .div_ceil(u128::from(parts)) as u64;
        }
        let last = merged.last_mut().expect("the first span makes the first part");
        last.1.add(&span.summary);
        before += span.summary.count();
    }
    merged
}

fn decode(row: &[u8]) -> Result<Summary, StoreError> {
    Summary::from_bytes(row).ok_or_else(|| corrupt("a row of the index"))
}

/// Entries that came and went since the index was last brought up to date.
#[derive(Debug, Default)]
pub(super) struct Deltas(Vec<Delta>);

#[derive(Debug)]
struct Delta {
    place: SlotKey,
    hash: Hash,
    came: bool,
}

impl Deltas {
    pub fn inserted(&mut self, place: SlotKey, hash: Hash) {
        self.0.push(Delta { place, hash, came: true });
    }

    pub fn removed(&mut self, place: SlotKey, hash: Hash) {
        self.0.push(Delta { place, hash, came: false });
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// What a batch does to one place.
struct Change {
    place: SlotKey,
    delta: Summary,
    /// The place is a boundary of the levels up to this one, before the batch or after it.
    boundary: Option<(Boundary, u8)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Boundary {
    Added,
    Removed,
}

impl Change {
    fn is(&self, kind: Boundary, level: u8) -> bool {
        self.boundary.is_some_and(|(boundary, up_to)| boundary == kind && up_to >= level)
    }
}

/// Brings the index up to date; the entries' rows have been written already.
pub(super) fn update(
    rows: &mut dyn EngineWrite,
    replica: ReplicaNo,
    salt: &Salt,
    deltas: Deltas,
) -> Result<(), StoreError> {
    let mut changes = changes(rows, replica, salt, deltas)?;
    for level in 1..=TOP {
        changes = update_level(rows, replica, level, changes)?;
    }
    Ok(())
}

/// Sums the deltas of each place, in order, and finds the boundaries that appear or go.
fn changes(
    rows: &dyn EngineRead,
    replica: ReplicaNo,
    salt: &Salt,
    Deltas(mut deltas): Deltas,
) -> Result<Vec<Change>, StoreError> {
    deltas.sort_unstable_by(|a, b| a.place.cmp(&b.place));
    let mut changes: Vec<Change> = Vec::with_capacity(deltas.len());
    for Delta { place, hash, came } in deltas {
        let term = Summary::of(&hash);
        if changes.last().is_none_or(|last| last.place != place) {
            changes.push(Change { place, delta: Summary::EMPTY, boundary: None });
        }
        let last = changes.last_mut().expect("one was pushed at the latest now");
        if came { last.delta.add(&term) } else { last.delta.subtract(&term) }
    }
    for change in &mut changes {
        let level = salt.level(change.place.as_bytes());
        if level == 0 {
            continue;
        }
        let before = rows.get(&index_key(replica, 1, change.place.as_bytes()))?.is_some();
        let (start, end) = entry_key::group(replica, change.place.as_bytes());
        let mut after = false;
        rows::scan(rows, (&start, Some(&end)), Scan::Forward, |_, _| {
            after = true;
            Ok(false)
        })?;
        change.boundary = match (before, after) {
            (false, true) => Some((Boundary::Added, level)),
            (true, false) => Some((Boundary::Removed, level)),
            _ => None,
        };
    }
    Ok(changes)
}

/// The old boundary at `place` or before it (`strictly`: before it) and its sum. The empty place
/// is one, with or without a row.
fn boundary_before(
    rows: &dyn EngineRead,
    replica: ReplicaNo,
    level: u8,
    place: &SlotKey,
    strictly: bool,
) -> Result<(SlotKey, Summary), StoreError> {
    let mut end = index_key(replica, level, place.as_bytes());
    if !strictly {
        end.push(0);
    }
    let mut found = (SlotKey::FIRST, Summary::EMPTY);
    rows::scan(rows, (&index_key(replica, level, &[]), Some(&end)), Scan::Backward, |key, value| {
        found = (SlotKey::from_bytes(place_of_index_key(key).to_vec()), decode(value)?);
        Ok(false)
    })?;
    Ok(found)
}

/// The first boundary after `place` and its sum.
fn boundary_after(
    rows: &dyn EngineRead,
    replica: ReplicaNo,
    level: u8,
    place: &SlotKey,
) -> Result<Option<(SlotKey, Summary)>, StoreError> {
    let mut start = index_key(replica, level, place.as_bytes());
    start.push(0);
    let mut found = None;
    rows::scan(rows, (&start, Some(&index_key(replica, level + 1, &[]))), Scan::Forward, |key, value| {
        found = Some((SlotKey::from_bytes(place_of_index_key(key).to_vec()), decode(value)?));
        Ok(false)
    })?;
    Ok(found)
}

/// Brings the rows of one level up to date; the level below is so already. Answers what the next
/// level needs to know: one change for each span that changed, and the boundaries that reach it.
///
/// The changes of one old span are summed. Where boundaries appear in it, their sums are read from
/// the level below, and what is left stays with the span. Where the boundary after it goes, the
/// span swallows the next one, and goes on while the next boundary goes in the same batch too.
fn update_level(
    rows: &mut dyn EngineWrite,
    replica: ReplicaNo,
    level: u8,
    changes: Vec<Change>,
) -> Result<Vec<Change>, StoreError> {
    let mut above = Vec::new();
    let mut changes = changes.into_iter().peekable();
    while let Some(first) = changes.peek() {
        let strictly = first.is(Boundary::Removed, level);
        let is_boundary = first.boundary.is_some_and(|(_, up_to)| up_to >= level);
        let (start, mut sum) = boundary_before(rows, replica, level, &first.place, strictly)?;
        // Where the span ends matters to the changes after this one, and to a boundary that comes or goes: what a
        // single write changes is, as a rule, neither.
        let mut next = match is_boundary || changes.len() > 1 {
            true => boundary_after(rows, replica, level, &start)?,
            false => None,
        };
        let mut added = Vec::new();
        let mut delta = Summary::EMPTY;
        let mut reaching = Vec::new();
        while let Some(change) = changes.next_if(|change| match &next {
            None => true,
            Some((end, _)) => change.place < *end || (change.place == *end && change.is(Boundary::Removed, level)),
        }) {
            delta.add(&change.delta);
            if change.is(Boundary::Removed, level) {
                let (end, swallowed) = next.take().expect("a boundary that goes was there");
                debug_assert_eq!(end, change.place, "a boundary that goes has a row at each of its levels");
                rows.delete(&index_key(replica, level, end.as_bytes()))?;
                sum.add(&swallowed);
                next = boundary_after(rows, replica, level, &end)?;
            }
            if change.is(Boundary::Added, level) {
                added.push(change.place.clone());
            }
            if change.boundary.is_some_and(|(_, up_to)| up_to > level) {
                reaching.push(Change { delta: Summary::EMPTY, ..change });
            }
        }
        sum.add(&delta);
        let end = next.map(|(end, _)| end);
        for (at, boundary) in added.iter().enumerate() {
            let range = SlotRange { start: boundary.clone(), end: added.get(at + 1).cloned().or_else(|| end.clone()) };
            let part = sum_of_level(rows, replica, level - 1, &range)?;
            sum.subtract(&part);
            rows.put(&index_key(replica, level, boundary.as_bytes()), &part.to_bytes())?;
        }
        let key = index_key(replica, level, start.as_bytes());
        if start == SlotKey::FIRST && sum == Summary::EMPTY {
            rows.delete(&key)?;
        } else {
            rows.put(&key, &sum.to_bytes())?;
        }
        above.push(Change { place: start, delta, boundary: None });
        above.extend(reaching);
    }
    Ok(above)
}

/// The sum of the rows of `level` with boundaries in `range`.
fn sum_of_level(
    rows: &dyn EngineRead,
    replica: ReplicaNo,
    level: u8,
    range: &SlotRange,
) -> Result<Summary, StoreError> {
    let index = Index::new(rows, replica);
    let mut sum = Summary::EMPTY;
    match level {
        0 => index.entries(range, |_, hash| sum.add(&Summary::of(&hash)))?,
        _ => index.boundaries(level, range.start.as_bytes(), range.end.as_ref(), |_, summary| {
            sum.add(&summary);
            true
        })?,
    }
    Ok(sum)
}
