//! How entries come into a replica: rights, dominance, and the rows that change.
//!
//! Many batches are applied in one transaction. All their entries for one replica are judged
//! together, in the order of their places (prefix tombstones before keys, a key's tombstone before
//! its values, newer before older): whatever an entry can be dominated by is there before it, so
//! nothing is inserted and removed again, and the engine is written in order.

use std::sync::Arc;

use super::{
    coded_sets::CodedChange,
    commits::CommitChanges,
    content::{self, Reference},
    core::Shared,
    engine::{EngineRead, EngineWrite, Scan},
    index::{self, Deltas},
    names::NewNames,
    rights_cache::admit_all,
    rows::{self, EntryRow, Head, KeyNo, Proof, ReplicaNo, entry_key},
    types::{Apply, Origin, Outcome, StoreError},
};
use crate::canary::{self, Canary};
use crate::model::{
    AuthorId, Hash, MAX_AHEAD, Op, Order, ReplicaId, Rights, RightsError, SlotKey, SlotRange, Value, VerifiedBundle,
    VerifiedEntry, grant_of_key, successor_of_prefix,
};

/// How many changes to the index wait in memory, each about 400 bytes while it is brought up to date. A batch comes in
/// the order of its places, so that what is brought up to date in parts costs what it would in one go.
const MAX_DELTAS: usize = 4_096;

/// How many rows a removal of many reads at once.
const REMOVAL_CHUNK: usize = 4_096;

/// What the batches of one replica did.
pub(super) struct ReplicaApplied {
    /// Per request and entry.
    pub outcomes: Vec<Vec<Outcome>>,
    /// The rights after it, when they have changed, and their version.
    pub new_rights: Option<(u64, Arc<Rights>)>,
    /// What it does to the coded symbols, where there are any.
    pub coded: Option<CodedChange>,
}

/// Applies the batches of one replica. The caller commits.
pub(super) fn apply(
    rows: &mut dyn EngineWrite,
    shared: &Shared,
    new_names: &mut NewNames,
    (id, replica): (ReplicaId, ReplicaNo),
    requests: &[&Apply],
) -> Result<ReplicaApplied, StoreError> {
    let before = Head::load(rows, replica)?;
    let rights = shared.rights.rights(rows, &shared.names, (id, replica), &before)?;
    let mut outcomes: Vec<Vec<Outcome>> = requests
        .iter()
        .map(|request| vec![Outcome::Dominated; request.bundles.iter().map(VerifiedBundle::len).sum()])
        .collect();
    let (mut candidates, admitted) = judge(requests, rights, before.position, &mut outcomes);
    candidates.sort_unstable_by(|a, b| (a.key(), a.position).cmp(&(b.key(), b.position)));
    let mut writer = Writer {
        rows,
        shared,
        new_names,
        replica,
        head: before,
        commits: CommitChanges::default(),
        deltas: Deltas::default(),
        log: Vec::new(),
        coded: shared.coded.begin(replica, before.position),
    };
    let mut rights_changed = false;
    for candidate in &candidates {
        let outcome = writer.settle(candidate)?;
        outcomes[candidate.request][candidate.at] = outcome;
        rights_changed |= candidate.system && matches!(outcome, Outcome::Inserted { .. });
    }
    drop(candidates);
    if rights_changed {
        writer.head.rights_version += 1;
    }
    let mut coded = writer.coded.take();
    let head = writer.finish(&before)?;
    if let Some(coded) = &mut coded {
        coded.ends_at(head.position);
    }
    Ok(ReplicaApplied { outcomes, new_rights: rights_changed.then_some((head.rights_version, admitted)), coded })
}

/// An entry that its author may write now.
struct Candidate<'a> {
    request: usize,
    /// Its place among the outcomes of the request.
    at: usize,
    bundle: &'a VerifiedBundle,
    origin: Origin,
    entry: VerifiedEntry<'a>,
    place: SlotKey,
    system: bool,
    position: u64,
}

impl Candidate<'_> {
    fn key(&self) -> (&SlotKey, bool, std::cmp::Reverse<Order>) {
        (&self.place, !self.is_tombstone(), std::cmp::Reverse(self.entry.order))
    }

    fn is_tombstone(&self) -> bool {
        !matches!(self.entry.op, Op::Put { .. })
    }
}

/// Separates what may come in from what is refused or must wait. System entries are judged first,
/// all of them together, then the others against the rights that they give.
fn judge<'a>(
    requests: &[&'a Apply],
    rights: Arc<Rights>,
    mut position: u64,
    outcomes: &mut [Vec<Outcome>],
) -> (Vec<Candidate<'a>>, Arc<Rights>) {
    let mut rights = rights;
    let mut candidates = Vec::with_capacity(outcomes.iter().map(Vec::len).sum());
    for (number, request) in requests.iter().enumerate() {
        // A local write never fails because of a clock.
        let latest = match request.origin {
            Origin::Local => None,
            Origin::Peer(_) => Some(request.now.plus(MAX_AHEAD)),
        };
        let entries = request.bundles.iter().flat_map(|bundle| bundle.entries().map(move |entry| (bundle, entry)));
        for (at, (bundle, entry)) in entries.enumerate() {
            if latest.is_some_and(|latest| entry.order.timestamp > latest) {
                outcomes[number][at] = Outcome::Future;
                continue;
            }
            candidates.push(Candidate {
                request: number,
                at,
                bundle,
                origin: request.origin,
                place: entry.op.slot_key(),
                system: entry.op.is_system(),
                entry,
                position: 0,
            });
        }
    }
    // A grant stands before what is written by it, in whatever order they come.
    for is_system in [true, false] {
        for candidate in candidates.iter_mut().filter(|candidate| candidate.system == is_system) {
            position += 1;
            candidate.position = position;
        }
    }
    let mut waiting: Vec<&Candidate<'_>> = candidates.iter().filter(|candidate| candidate.system).collect();
    if !waiting.is_empty() {
        let admitting = Arc::make_mut(&mut rights);
        admit_all(admitting, &mut waiting, |candidate| (candidate.entry.order.author, candidate.entry.op));
    }
    candidates.retain(|candidate| {
        let Order { author, timestamp, .. } = candidate.entry.order;
        let refused = match candidate.system {
            true => Arc::make_mut(&mut rights).admit(&author, candidate.entry.op).err(),
            false if canary::is_out(Canary::SkipRelayedCheck) => None,
            false if canary::is_out(Canary::ExpiryByClock) => {
                (!rights.may_write(&author, candidate.entry.op, requests[candidate.request].now))
                    .then_some(RightsError::NotCovered)
            }
            false => (!rights.may_write(&author, candidate.entry.op, timestamp)).then_some(RightsError::NotCovered),
        };
        match (refused, grant_of_key(candidate.entry.op.key_bytes())) {
            (Some(error), _) => outcomes[candidate.request][candidate.at] = Outcome::Refused(error),
            (None, Some(id)) if candidate.system => Arc::make_mut(&mut rights).place(&id, candidate.position),
            (None, _) => {}
        }
        refused.is_none()
    });
    (candidates, rights)
}

/// The content that an entry refers to, if it does, and its claimed length.
type Blob = Option<(Hash, u64)>;

/// Writes one replica in a transaction.
struct Writer<'a> {
    rows: &'a mut dyn EngineWrite,
    shared: &'a Shared,
    new_names: &'a mut NewNames,
    replica: ReplicaNo,
    head: Head,
    commits: CommitChanges,
    deltas: Deltas,
    /// The log rows to be written: position, origin, and the entry's key.
    log: Vec<(u64, Option<KeyNo>, Vec<u8>)>,
    coded: Option<CodedChange>,
}

impl Writer<'_> {
    /// Decides what becomes of an entry and does it.
    fn settle(&mut self, candidate: &Candidate<'_>) -> Result<Outcome, StoreError> {
        let order = candidate.entry.order;
        let place = candidate.place.as_bytes();
        let author = self.new_names.number(self.rows, &self.shared.names, &order.author.0)?;
        let slot = match candidate.is_tombstone() {
            true => entry_key::tombstone(self.replica, place),
            false => entry_key::value(self.replica, place, author),
        };
        let old = match self.rows.get(&slot)? {
            Some(bytes) => {
                let (row, body) = EntryRow::decode(&bytes)?;
                if row.hash == order.hash {
                    return Ok(Outcome::Present);
                }
                let is_late = canary::is_out(Canary::TieBreakByArrival) && row.timestamp == order.timestamp;
                if self.order(&row)? > order && !is_late {
                    return Ok(Outcome::Dominated);
                }
                Some((row, rows::blob_of(body)?, rows::value_len(body)?))
            }
            None => None,
        };
        let forgets = canary::is_out(Canary::ForgetPrefixTombstones);
        if !candidate.system && !forgets && self.is_deleted(candidate)? {
            return Ok(Outcome::Dominated);
        }
        let mut replaced = 0;
        // Before the old version's reference goes: the new one may be made from it.
        let base = match (&old, candidate.entry.op) {
            (Some((_, Some((hash, _)), _)), Op::Put { value: Value::Blob { .. }, .. }) => {
                content::base(self.rows, self.replica, hash)?
            }
            _ => None,
        };
        if let Some((row, blob, len)) = old {
            self.remove(&slot, &candidate.place, &row, blob, len)?;
            replaced += 1;
        }
        match candidate.entry.op {
            Op::Put { .. } => {}
            Op::Delete { .. } => {
                let (start, end) = entry_key::group(self.replica, place);
                replaced += self.remove_older(start, Some(end), &order)?;
            }
            Op::DeletePrefix { prefix } => {
                for section in [1u8, 2] {
                    let start = [&[section], &prefix[..]].concat();
                    let end = successor_of_prefix(&start).map(SlotKey::from_bytes);
                    let range = SlotRange { start: SlotKey::from_bytes(start), end };
                    let (start, end) = entry_key::range(self.replica, &range);
                    replaced += self.remove_older(start, end, &order)?;
                }
            }
        }
        self.insert(candidate, slot, author, base)?;
        Ok(Outcome::Inserted { replaced })
    }

    fn order(&self, row: &EntryRow) -> Result<Order, StoreError> {
        let author = AuthorId(self.new_names.key(self.rows, &self.shared.names, row.author)?);
        Ok(Order { timestamp: row.timestamp, author, hash: row.hash })
    }

    /// Whether a newer tombstone covers the entry: one of its key, or of a prefix of it.
    fn is_deleted(&self, candidate: &Candidate<'_>) -> Result<bool, StoreError> {
        let order = candidate.entry.order;
        if !candidate.is_tombstone() && self.head.tombstones > 0 {
            let slot = entry_key::tombstone(self.replica, candidate.place.as_bytes());
            if let Some(bytes) = self.rows.get(&slot)?
                && self.order(&EntryRow::decode(&bytes)?.0)? > order
            {
                return Ok(true);
            }
        }
        if self.head.prefix_tombstones == 0 {
            return Ok(false);
        }
        self.is_covered(candidate.entry.op.key_bytes(), &order)
    }

    /// Whether a prefix tombstone newer than `order` covers `key`.
    ///
    /// Visits the prefixes of `key` that have one, from the longest, without trying each length:
    /// the last tombstone at or before the key is either one of them, or shares a prefix with the
    /// key such that no longer one can be there.
    fn is_covered(&self, key: &[u8], order: &Order) -> Result<bool, StoreError> {
        let first = entry_key::from(self.replica, &[1]);
        let mut bound = [&[1], key].concat();
        loop {
            let mut found = None;
            let end = entry_key::past(self.replica, &bound);
            rows::scan(self.rows, (&first, Some(&end)), Scan::Backward, |key, value| {
                found = Some((entry_key::place(key)?, EntryRow::decode(value)?.0));
                Ok(false)
            })?;
            let Some((place, row)) = found else { return Ok(false) };
            let common = place.iter().zip(&bound).take_while(|(a, b)| a == b).count();
            let covers = common == place.len();
            if covers && self.order(&row)? > *order {
                return Ok(true);
            }
            match covers {
                true if common == 1 => return Ok(false),
                true => bound.truncate(common - 1),
                false => bound.truncate(common),
            }
        }
    }

    /// Removes the rows between two keys that are older than `order`.
    fn remove_older(&mut self, start: Vec<u8>, end: Option<Vec<u8>>, order: &Order) -> Result<u32, StoreError> {
        let mut removed = 0;
        let mut start = start;
        loop {
            let mut chunk: Vec<(Vec<u8>, EntryRow, Blob, u64)> = Vec::new();
            rows::scan(self.rows, (&start, end.as_deref()), Scan::Forward, |key, value| {
                let (row, body) = EntryRow::decode(value)?;
                chunk.push((key.to_vec(), row, rows::blob_of(body)?, rows::value_len(body)?));
                Ok(chunk.len() < REMOVAL_CHUNK)
            })?;
            let Some((last, ..)) = chunk.last() else { return Ok(removed) };
            start = [&last[..], &[0]].concat();
            for (key, row, blob, len) in chunk {
                if self.order(&row)? < *order {
                    self.remove(&key, &SlotKey::from_bytes(entry_key::place(&key)?), &row, blob, len)?;
                    removed += 1;
                }
            }
        }
    }

    fn remove(
        &mut self,
        slot: &[u8],
        place: &SlotKey,
        row: &EntryRow,
        blob: Blob,
        value_len: u64,
    ) -> Result<(), StoreError> {
        self.rows.delete(slot)?;
        self.head.bytes = self.head.bytes.wrapping_sub(value_len);
        if let Some((hash, len)) = blob {
            self.head.blobs -= 1;
            content::unrefer(self.rows, &Reference { hash, len, entry: slot })?;
        }
        self.rows.delete(&rows::log_key(self.replica, row.position))?;
        self.commits.removed(&row.proof);
        if entry_key::is_tombstone(slot) {
            *self.tombstones(place) -= 1;
        }
        self.deltas.removed(place.clone(), row.hash);
        if let Some(coded) = &mut self.coded {
            coded.removed(&row.hash);
        }
        self.bound_deltas()
    }

    fn insert(
        &mut self,
        candidate: &Candidate<'_>,
        slot: Vec<u8>,
        author: KeyNo,
        base: Option<Hash>,
    ) -> Result<(), StoreError> {
        let VerifiedEntry { index, order, op } = candidate.entry;
        let bundle = candidate.bundle;
        let origin = match candidate.origin {
            Origin::Local => None,
            Origin::Peer(peer) => Some(self.new_names.number(self.rows, &self.shared.names, &peer.0)?),
        };
        let proof = match bundle.seal().count {
            1 => Proof::Alone(bundle.seal().signature),
            _ => Proof::Part(self.commits.part(self.rows, self.replica, bundle, &mut self.head.next_commit)?, index),
        };
        let position = candidate.position;
        let row = EntryRow { hash: order.hash, timestamp: order.timestamp, author, position, origin, proof };
        self.rows.put(&slot, &row.encode(op))?;
        if let Op::Put { value, .. } = op {
            // What authors claim may add up to more than there is: the sum wraps, and comes back.
            self.head.bytes = self.head.bytes.wrapping_add(value.len());
        }
        if let Op::Put { value: Value::Blob { hash, len }, .. } = op {
            self.head.blobs += 1;
            let reference = Reference { hash: *hash, len: *len, entry: &slot };
            content::refer(self.rows, &reference, candidate.origin, base)?;
        }
        self.commits.inserted(&proof);
        self.log.push((position, origin, slot));
        self.head.position = self.head.position.max(position);
        self.head.newest = self.head.newest.max(order.timestamp);
        if candidate.is_tombstone() {
            *self.tombstones(&candidate.place) += 1;
        }
        self.deltas.inserted(candidate.place.clone(), order.hash);
        if let Some(coded) = &mut self.coded {
            coded.inserted(&order.hash);
        }
        self.bound_deltas()
    }

    /// The count of tombstones of the kind that lives at `place`.
    fn tombstones(&mut self, place: &SlotKey) -> &mut u64 {
        match place.as_bytes().first() {
            Some(1) => &mut self.head.prefix_tombstones,
            _ => &mut self.head.tombstones,
        }
    }

    fn bound_deltas(&mut self) -> Result<(), StoreError> {
        if self.deltas.len() < MAX_DELTAS {
            return Ok(());
        }
        index::update(self.rows, self.replica, &self.shared.salt, std::mem::take(&mut self.deltas))
    }

    fn finish(mut self, before: &Head) -> Result<Head, StoreError> {
        self.log.sort_unstable_by_key(|row| row.0);
        for (position, origin, slot) in &self.log {
            let row = rows::log_row(*origin, slot);
            self.rows.put(&rows::log_key(self.replica, *position), &row)?;
        }
        self.commits.write(self.rows, self.replica)?;
        index::update(self.rows, self.replica, &self.shared.salt, self.deltas)?;
        if self.head != *before {
            self.rows.put(&rows::head_key(self.replica), &self.head.encode())?;
        }
        Ok(self.head)
    }
}

/// Makes the rows of an empty replica. Its positions begin behind all that a replica had which was removed: peers may still
/// have a position in the log of the same one, of before, and take it for one of this. Answers where they begin.
pub(super) fn create(rows: &mut dyn EngineWrite, replica: ReplicaNo) -> Result<u64, StoreError> {
    let head = Head { position: last_removed(rows)?, ..Head::default() };
    rows.put(&rows::head_key(replica), &head.encode())?;
    Ok(head.position)
}

/// The highest position of the replicas that were removed.
fn last_removed(rows: &dyn EngineRead) -> Result<u64, StoreError> {
    let row = rows.get(&rows::meta_key(LAST_REMOVED))?;
    row.map_or(Ok(0), |row| rows::Fields(&row).u64("the last position removed"))
}

const LAST_REMOVED: &str = "last position removed";

/// Removes every row of a replica; answers their size in bytes.
pub(super) fn remove_replica(
    rows: &mut dyn EngineWrite,
    id: &ReplicaId,
    replica: ReplicaNo,
) -> Result<u64, StoreError> {
    // Where the head cannot be read the replica is removed all the same.
    let head = rows.get(&rows::head_key(replica))?.and_then(|row| Head::decode(&row).ok());
    let last = last_removed(rows)?.max(head.map_or(0, |head| head.position));
    rows.put(&rows::meta_key(LAST_REMOVED), &last.to_be_bytes())?;
    rows.delete(&rows::replica_key(&id.0))?;
    let mut bytes = 0;
    for prefix in rows::prefixes_of(replica) {
        let (mut start, end) = (prefix.to_vec(), rows::after(&prefix));
        loop {
            let mut chunk: Vec<(Vec<u8>, Blob)> = Vec::new();
            rows::scan(rows, (&start, end.as_deref()), Scan::Forward, |key, value| {
                bytes += (key.len() + value.len()) as u64;
                chunk.push((key.to_vec(), rows::blob_in(key, value)?));
                Ok(chunk.len() < REMOVAL_CHUNK)
            })?;
            let Some((last, _)) = chunk.last() else { break };
            // Not from the front again: in a damaged store what is deleted need not be gone.
            start = [&last[..], &[0]].concat();
            for (key, blob) in chunk {
                rows.delete(&key)?;
                if let Some((hash, len)) = blob {
                    content::forget(rows, &Reference { hash, len, entry: &key })?;
                }
            }
        }
    }
    Ok(bytes)
}
