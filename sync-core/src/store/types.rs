//! What goes into a store and comes out of it.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::{
    AuthorId, Bundle, Digest, Entry, Hash, Op, PeerId, ReadScope, ReplicaId, Rights, RightsError, SlotKey, SlotRange,
    Timestamp, VerifiedBundle,
};

/// A random name that a store gets when it is made. A wiped store comes back with another, so
/// positions in the old one's change logs mean nothing any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

/// A place in the change log of a replica in one store. It grows with every entry accepted; numbers
/// may be left out, and those of replaced entries are gone. 0 is before the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Position(pub u64);

impl Position {
    /// Behind every entry.
    pub const LAST: Self = Self(u64::MAX);
}

/// Where entries come from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Origin {
    /// Written by an author on this node.
    Local,
    /// Received from this peer. They are not sent back to it.
    Peer(PeerId),
}

/// A batch to be applied, in one transaction.
#[derive(Debug, Clone)]
pub struct Apply {
    /// The replica that all bundles belong to.
    pub replica: ReplicaId,
    /// The entries.
    pub bundles: Vec<VerifiedBundle>,
    /// Where they come from.
    pub origin: Origin,
    /// The wall clock: entries more than [`crate::model::MAX_AHEAD`] ahead of it are not accepted yet.
    pub now: Timestamp,
    /// Node records that become durable with the entries (a cursor, say). Those of a local batch of which an entry
    /// is refused are not written.
    pub records: Vec<NodeRecord>,
}

/// What happened to one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the replica now, and so many others are not any more.
    Inserted {
        /// How many entries it removed.
        replaced: u32,
    },
    /// A newer entry makes it forgotten.
    Dominated,
    /// It was there already.
    Present,
    /// Its author's rights do not cover it.
    Refused(RightsError),
    /// Its timestamp is too far ahead of the wall clock; it is welcome later.
    Future,
}

/// The result of an [`Apply`].
#[derive(Debug, Clone)]
pub struct Applied {
    /// Per entry, in the order of the bundles and of the entries in them.
    pub outcomes: Vec<Outcome>,
    /// The replica after it.
    pub state: ReplicaState,
    /// Whether system entries were among those inserted: `state.rights` has changed.
    pub rights_changed: bool,
}

impl Applied {
    /// How many entries were inserted.
    pub fn inserted(&self) -> u64 {
        self.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Inserted { .. })).count() as u64
    }
}

/// A replica at one moment.
#[derive(Debug, Clone)]
pub struct ReplicaState {
    /// The summary of all its entries.
    pub root: Digest,
    /// The last position of its change log.
    pub head: Position,
    /// The newest timestamp in it, for the hybrid clock.
    pub newest: Timestamp,
    /// How many of its values are blobs.
    pub blobs: u64,
    /// The length of all its values, as their authors claim it.
    pub bytes: u64,
    /// Who may do what.
    pub rights: Arc<Rights>,
    /// Which rights these are: another number when they have changed.
    pub rights_version: u64,
}

/// An entry with its hash and its place in the change log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place in this store's change log.
    pub position: Position,
    /// Where it came from.
    pub origin: Origin,
    /// Its hash.
    pub hash: Hash,
    /// The entry.
    pub entry: Entry,
}

/// Which entries a query answers.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only keys that begin with this.
    pub prefix: Bytes,
    /// Only this key.
    pub key: Option<Bytes>,
    /// Only entries of this author.
    pub author: Option<AuthorId>,
    /// One entry per key, the newest, or every author's.
    pub select: Select,
    /// The order of keys.
    pub direction: Direction,
    /// At most so many entries; 0 is no limit.
    pub limit: usize,
    /// Only keys after this one, in the query's direction.
    pub start_after: Option<Bytes>,
    /// Whether tombstones are answered too.
    pub tombstones: bool,
}

/// Which of a key's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Select {
    /// The newest of all authors.
    #[default]
    Newest,
    /// Every author's.
    All,
}

/// An order of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// From the first.
    #[default]
    Ascending,
    /// From the last.
    Descending,
}

/// What a peer may see and asked for: disjoint ranges of places, ascending. Everything that a
/// session reads goes through one, so what lies outside cannot be asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope(Vec<SlotRange>);

impl Scope {
    /// The whole replica.
    pub fn all() -> Self {
        Self(vec![SlotRange::ALL])
    }

    /// Nothing at all.
    pub fn nothing() -> Self {
        Self(Vec::new())
    }

    /// Whether it is nothing at all.
    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }

    /// What `readable` covers: the system's entries, the keys, and the prefix tombstones that can
    /// cover such keys.
    pub fn of(readable: &ReadScope) -> Self {
        if readable.is_all() {
            return Self::all();
        }
        if readable.is_empty() {
            return Self::nothing();
        }
        let place = |bytes: &[u8]| SlotKey::from_bytes(Bytes::copy_from_slice(bytes));
        let mut ranges = vec![SlotRange { start: SlotKey::FIRST, end: Some(place(&[1])) }];
        for prefix in &readable.prefixes {
            for len in 0..prefix.len() {
                let mut start = vec![1];
                start.extend_from_slice(&prefix[..len]);
                let mut end = start.clone();
                end.push(0);
                ranges.push(SlotRange { start: place(&start), end: Some(place(&end)) });
            }
            for section in [1u8, 2] {
                let mut start = vec![section];
                start.extend_from_slice(prefix);
                let end = crate::model::successor_of_prefix(&start).map(SlotKey::from_bytes);
                ranges.push(SlotRange { start: place(&start), end });
            }
        }
        Self::merged(ranges)
    }

    fn merged(mut ranges: Vec<SlotRange>) -> Self {
        ranges.sort_by(|a, b| a.start.cmp(&b.start));
        let mut merged: Vec<SlotRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if last.end.as_ref().is_none_or(|end| range.start <= *end) => {
                    if let Some(end) = &last.end
                        && range.end.as_ref().is_none_or(|new| new > end)
                    {
                        last.end = range.end;
                    }
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// The ranges.
    pub fn ranges(&self) -> &[SlotRange] {
        &self.0
    }

    /// Whether it is the whole replica.
    pub fn is_all(&self) -> bool {
        self.0 == [SlotRange::ALL]
    }

    /// Whether an entry is inside.
    pub fn contains(&self, op: &Op) -> bool {
        self.is_all() || {
            let place = op.slot_key();
            self.0.iter().any(|range| range.contains(&place))
        }
    }

    /// The same, in ranges that lie inside or outside of another, none across its borders.
    pub fn cut(&self, other: &Self) -> Self {
        let borders: Vec<&SlotKey> =
            other.0.iter().flat_map(|range| [Some(&range.start), range.end.as_ref()]).flatten().collect();
        let mut ranges = Vec::with_capacity(self.0.len());
        for SlotRange { start, end } in &self.0 {
            let first = borders.partition_point(|border| *border <= start);
            let last = end.as_ref().map_or(borders.len(), |end| borders.partition_point(|border| *border < end));
            let mut start = start.clone();
            for border in borders.get(first..last).unwrap_or_default() {
                // One range may end where the next begins.
                if **border > start {
                    let before = std::mem::replace(&mut start, (*border).clone());
                    ranges.push(SlotRange { start: before, end: Some((*border).clone()) });
                }
            }
            ranges.push(SlotRange { start, end: end.clone() });
        }
        Self(ranges)
    }

    /// The parts of `range` that are inside.
    pub fn clamp(&self, range: &SlotRange) -> Vec<SlotRange> {
        let mut parts = Vec::new();
        for mine in &self.0 {
            let start = mine.start.clone().max(range.start.clone());
            let end = match (&mine.end, &range.end) {
                (Some(a), Some(b)) => Some(a.min(b).clone()),
                (Some(end), None) | (None, Some(end)) => Some(end.clone()),
                (None, None) => None,
            };
            let part = SlotRange { start, end };
            if !part.is_empty() {
                parts.push(part);
            }
        }
        parts
    }
}

/// The first 16 bytes of an entry's hash, as reconciliation lists them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShortId(pub [u8; 16]);

impl From<&Hash> for ShortId {
    fn from(hash: &Hash) -> Self {
        Self(hash.0[..16].try_into().expect("16 of 32 bytes"))
    }
}

impl fmt::Debug for ShortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

/// What one side of a reconciliation says about a range (PROTOCOL.md, "Reconciliation").
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// The range.
    pub range: SlotRange,
    /// What the sender has in it.
    pub have: Have,
}

impl Claim {
    /// About how many bytes it takes in a message, never less.
    pub(crate) fn len(&self) -> usize {
        let keys = self.range.start.as_bytes().len() + self.range.end.as_ref().map_or(0, |end| end.as_bytes().len());
        let ids = match &self.have {
            Have::Digest(_) => 0,
            Have::Ids(ids) | Have::Final(ids) => ids.len() * size_of::<ShortId>(),
        };
        // Lengths, kinds, and the digest.
        keys + ids + 64
    }
}

/// What a node has in a range.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Have {
    /// A set with this digest. To be answered.
    Digest(Digest),
    /// Exactly these entries. To be answered with what the sender lacks to compare.
    Ids(Vec<ShortId>),
    /// Exactly these entries, as the answer to `Ids`, or to a digest when there are none. Not to be answered.
    Final(Vec<ShortId>),
}

/// Entries that the other side of a reconciliation lacks: all in `range` but those in `except`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    /// The range.
    pub range: SlotRange,
    /// What the other side has.
    pub except: Vec<ShortId>,
    /// Only what is not behind this position in the change log; by the log itself the rest follows.
    pub until: Position,
}

/// How a node answers a message of [`Claim`]s.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reconciled {
    /// The claims to send back.
    pub claims: Vec<Claim>,
    /// The entries to send.
    pub missing: Vec<Missing>,
    /// Some claims were left unanswered, as the answer would be too long.
    pub is_cut: bool,
}

/// Entries that were looked for by their ids.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Where they are: what can be sent to a peer that lacks them.
    pub missing: Vec<Missing>,
    /// Whether all of them were found.
    pub is_complete: bool,
}

/// A piece of the change log for a peer.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// The entries, grouped by commit.
    pub bundles: Vec<Bundle>,
    /// How many entries.
    pub entries: u64,
    /// The log has been read up to here (entries that were left out included).
    pub through: Position,
    /// The version of the rights at that moment, as in [`ReplicaState`].
    pub rights_version: u64,
}

/// What to read of a change log.
#[derive(Clone, Debug)]
pub struct ChangesRequest {
    /// The replica.
    pub replica: ReplicaId,
    /// From after this position.
    pub since: Position,
    /// Leave out what came from this peer.
    pub not_from: Option<PeerId>,
    /// Leave out what is outside.
    pub scope: Scope,
    /// Stop after about so many bytes of encoded entries; at least one entry is answered.
    pub max_bytes: usize,
}

/// A page of [`Missing`] entries.
#[derive(Clone, Debug, Default)]
pub struct MissingPage {
    /// The entries, grouped by commit.
    pub bundles: Vec<Bundle>,
    /// How many entries.
    pub entries: u64,
    /// What is left.
    pub rest: Vec<Missing>,
}

/// The kinds of things that a node keeps for itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum NodeKind {
    /// The node's own key and the keys of replicas and authors; secret.
    Key = 0,
    /// Peers: names, addresses, what worked.
    Peer = 1,
    /// Subscriptions: (peer, replica), cursors, state of the job.
    Job = 2,
    /// The saved state of registered transports, by name.
    Transport = 3,
    /// Settings, by name.
    Setting = 4,
    /// Markers of replicas that were removed here.
    Removed = 5,
    /// Tokens of the REST surface.
    Token = 6,
    /// Notes of applications, by replica and name.
    Note = 7,
}

/// One thing that a node keeps for itself.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// What it is.
    pub kind: NodeKind,
    /// Its name among its kind.
    pub name: Bytes,
    /// Its encoding, or none to remove it.
    pub value: Option<Bytes>,
}

impl fmt::Debug for NodeRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.value.as_ref().map(Bytes::len);
        write!(f, "NodeRecord({:?} \"{}\" {len:?} bytes)", self.kind, self.name.escape_ascii())
    }
}

/// What went wrong in a store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// There is no such replica here.
    #[error("there is no replica {} here", .0.short())]
    UnknownReplica(ReplicaId),
    /// The disk is full; nothing was written. Free some space and it goes on.
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// Another process has the store open.
    #[error("{0} is in use by another process: stop it, or use another --data directory")]
    InUse(String),
    /// The store was written by a newer version.
    #[error("{path} has format {found}, this program knows up to {known}: use a newer version")]
    NewerFormat {
        /// The file.
        path: String,
        /// Its format.
        found: u32,
        /// The newest one known.
        known: u32,
    },
    /// A record that cannot be what was written.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The store cannot be used any more; open it again.
    #[error("the store failed and must be opened again: {0}")]
    Failed(String),
    /// Anything else that the disk said.
    #[error("{context}: {source}")]
    Io {
        /// What was attempted, on what.
        context: String,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// The files of content failed.
    #[error(transparent)]
    Content(Arc<sync_content::ContentError>),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The request breaks a limit.
    #[error("{0}")]
    Limit(String),
    /// No store is registered under the name.
    #[error("there is no store `{name}`; known are: {known}")]
    UnknownStore {
        /// What was asked for.
        name: String,
        /// The registered names.
        known: String,
    },
}

impl StoreError {
    /// Whether trying again later, with nothing changed here, can help.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::DiskFull(_) => true,
            Self::Content(error) => error.is_temporary(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Prefix;

    fn scope(prefixes: &[&str]) -> Scope {
        let prefixes = prefixes.iter().map(|prefix| Prefix::new(prefix.as_bytes().to_vec()).unwrap()).collect();
        Scope::of(&ReadScope { prefixes })
    }

    #[test]
    fn a_scope_is_cut_at_the_borders_of_another_and_is_about_the_same_places() {
        let scopes =
            [scope(&[]), scope(&[""]), scope(&["a"]), scope(&["ab", "b"]), scope(&["a", "b"]), scope(&["xyz"])];
        for (whole, other) in scopes.iter().flat_map(|one| scopes.iter().map(move |other| (one, other))) {
            let cut = whole.cut(other);
            assert_eq!(Scope::merged(cut.ranges().to_vec()), *whole, "cut at {other:?}");
            for range in cut.ranges() {
                let inside = other.clamp(range);
                assert!(inside.is_empty() || inside == [range.clone()], "{range:?} of {whole:?} cut at {other:?}");
            }
        }
        assert_eq!(scope(&[""]).cut(&scope(&["a"])).ranges().len(), 6);
    }
}
