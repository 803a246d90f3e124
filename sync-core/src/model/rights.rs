//! Who may do what: grants, and the function from a replica's system entries to rights.
//!
//! A grant is a system entry: its author is the issuer, its key holds the grant's id, its value
//! the grant. The replica's key owns it; everybody else's rights come by a chain of grants that
//! begins with one by the owner, each link no wider than the one before it. Which grants are
//! valid is a function of the set of system entries alone.
//!
//! Revocations will be system entries of their own kind; until then [`Rights::admit`] refuses
//! system entries that it does not know, so that an old node never accepts what it cannot judge.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    domain,
    entry::{Key, Op, Prefix, Timestamp, Value},
    identity::{AuthorId, Hash, PeerId, PublicKey, ReplicaId},
};
use crate::canary::{self, Canary};

/// The longest chain of grants, the owner's own not counted.
pub const MAX_CHAIN: usize = 8;

/// The subject of a grant for everybody. No key: the point is of small order, so nothing verifies under it.
pub const EVERYBODY: PublicKey = PublicKey([0; 32]);

const GRANT_KIND: u8 = b'g';

/// What a grant gives; a later one includes the earlier ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Right {
    /// To read entries and contents.
    Read,
    /// And to write and delete.
    Write,
    /// And to decide on requests, and to revoke.
    Admin,
}

/// The name of a grant: a hash of issuer and content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct GrantId(pub Hash);

/// Gives a right to a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// Who gets it, or [`EVERYBODY`].
    pub subject: PublicKey,
    /// What.
    pub right: Right,
    /// For which keys.
    pub prefix: Prefix,
    /// Until when; for writing the entry's timestamp counts, for reading the reader's server's clock.
    pub expires: Option<Timestamp>,
    /// The grant by which the issuer has that much himself; none when the issuer is the owner.
    pub parent: Option<GrantId>,
}

impl Grant {
    /// The id under `issuer`.
    pub fn id(&self, issuer: &AuthorId) -> GrantId {
        let mut hasher = blake3::Hasher::new_derive_key(domain::GRANT);
        hasher.update(issuer.as_bytes()).update(&self.encode());
        GrantId(Hash(*hasher.finalize().as_bytes()))
    }

    fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a grant can be encoded")
    }

    /// The put that makes this grant when `issuer` signs it.
    pub fn to_op(&self, issuer: &AuthorId) -> Op {
        let id = self.id(issuer);
        let key: Vec<u8> = [0, GRANT_KIND].into_iter().chain(id.0.0).collect();
        Op::Put { key: Key::new(key).expect("34 bytes are a key"), value: Value::Inline(self.encode().into()) }
    }

    fn from_op(op: &Op, issuer: &AuthorId) -> Result<(GrantId, Self), RightsError> {
        let Op::Put { key, value: Value::Inline(bytes) } = op else { return Err(RightsError::UnknownSystemEntry) };
        if key.first_chunk() != Some(&[0, GRANT_KIND]) {
            return Err(RightsError::UnknownSystemEntry);
        }
        let grant: Self = postcard::from_bytes(bytes).map_err(|_| RightsError::UnknownSystemEntry)?;
        let id = grant.id(issuer);
        // The key is bound to the content, so nobody can replace a grant; and the encoding to
        // itself, so one grant has one id.
        if key[2..] != id.0.0 || grant.encode() != bytes[..] {
            return Err(RightsError::UnknownSystemEntry);
        }
        Ok((id, grant))
    }
}

/// Why rights do not cover something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error, Serialize, Deserialize)]
pub enum RightsError {
    /// The author has no write grant for this key, or the entry is newer than its expiry.
    #[error("the author has no right to write this key")]
    NotCovered,
    /// A grant whose parent is not known here, or is not for its issuer.
    #[error("the grant's chain does not lead to the owner")]
    BrokenChain,
    /// A grant wider than its parent: right, prefix or expiry.
    #[error("the grant gives more than its issuer has")]
    TooWide,
    /// More than [`MAX_CHAIN`] links.
    #[error("the grant's chain is longer than {MAX_CHAIN}")]
    TooDeep,
    /// A system entry that this version does not know, or that is malformed.
    #[error("an unknown or malformed system entry")]
    UnknownSystemEntry,
}

/// What a reader may read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReadScope {
    /// Prefixes, none of which begins with another; empty means nothing.
    pub prefixes: Vec<Prefix>,
}

impl ReadScope {
    /// Everything.
    pub fn all() -> Self {
        Self { prefixes: vec![Prefix::default()] }
    }

    /// Whether nothing may be read.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// Whether everything may be read.
    pub fn is_all(&self) -> bool {
        self.prefixes.iter().any(|prefix| prefix.is_empty())
    }

    /// Whether `key` may be read.
    pub fn covers(&self, key: &[u8]) -> bool {
        self.prefixes.iter().any(|prefix| prefix.covers(key))
    }
}

#[derive(Clone, Debug)]
struct Admitted {
    issuer: AuthorId,
    grant: Grant,
    depth: usize,
    /// Where it stands in the change log of a store.
    position: Option<u64>,
}

/// The rights in one replica, as its system entries say.
#[derive(Clone, Debug)]
pub struct Rights {
    replica: ReplicaId,
    grants: BTreeMap<GrantId, Admitted>,
    by_subject: BTreeMap<PublicKey, Vec<GrantId>>,
}

impl Rights {
    /// The rights in a replica without grants: the owner has everything.
    pub fn new(replica: ReplicaId) -> Self {
        Self { replica, grants: BTreeMap::new(), by_subject: BTreeMap::new() }
    }

    /// The replica.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    fn is_owner(&self, key: &PublicKey) -> bool {
        self.replica.0 == *key
    }

    /// Takes in a system entry by `issuer`, or says why it does not belong. Taking the same one
    /// again changes nothing.
    pub fn admit(&mut self, issuer: &AuthorId, op: &Op) -> Result<GrantId, RightsError> {
        let (id, grant) = Grant::from_op(op, issuer)?;
        let depth = match grant.parent {
            None if self.is_owner(&issuer.0) => 1,
            None => return Err(RightsError::BrokenChain),
            Some(parent) => {
                let parent = self.grants.get(&parent).ok_or(RightsError::BrokenChain)?;
                if parent.grant.subject != issuer.0 {
                    return Err(RightsError::BrokenChain);
                }
                let longer = match (parent.grant.expires, grant.expires) {
                    (Some(parent), Some(child)) => child > parent,
                    (Some(_), None) => true,
                    (None, _) => false,
                };
                if grant.right > parent.grant.right || !parent.grant.prefix.covers(&grant.prefix) || longer {
                    return Err(RightsError::TooWide);
                }
                parent.depth + 1
            }
        };
        if depth > MAX_CHAIN {
            return Err(RightsError::TooDeep);
        }
        if !self.grants.contains_key(&id) {
            self.by_subject.entry(grant.subject).or_default().push(id);
            self.grants.insert(id, Admitted { issuer: *issuer, grant, depth, position: None });
        }
        Ok(id)
    }

    fn grants_of(&self, subject: &PublicKey) -> impl Iterator<Item = &Grant> {
        let ids = self.by_subject.get(subject).map(Vec::as_slice).unwrap_or_default();
        ids.iter().map(|id| &self.grants[id].grant)
    }

    /// Whether `author` may write `op` at `timestamp`. System entries are judged by [`Rights::admit`].
    pub fn may_write(&self, author: &AuthorId, op: &Op, timestamp: Timestamp) -> bool {
        self.is_owner(&author.0)
            || self.grants_of(&author.0).any(|grant| {
                grant.right >= Right::Write
                    && grant.prefix.covers(op.key_bytes())
                    && (canary::is_out(Canary::NeverExpires) || grant.expires.is_none_or(|expires| timestamp < expires))
            })
    }

    /// What `reader` may read at `now`. Who may write may read.
    pub fn readable(&self, reader: &PeerId, now: Timestamp) -> ReadScope {
        if self.is_owner(&reader.0) {
            return ReadScope::all();
        }
        let valid = self.valid_grants_of(reader, now);
        let mut prefixes: Vec<Prefix> = valid.map(|(_, grant)| grant.prefix.clone()).collect();
        prefixes.sort_unstable();
        prefixes.dedup_by(|later, earlier| earlier.covers(later));
        ReadScope { prefixes }
    }

    /// Notes where a grant stands in the change log of the store that these rights are read from.
    pub(crate) fn place(&mut self, id: &GrantId, position: u64) {
        if let Some(admitted) = self.grants.get_mut(id) {
            admitted.position = Some(admitted.position.map_or(position, |known| known.min(position)));
        }
    }

    /// Where in the change log the last of the grants stands by which `reader` may read at `now` what it could not read
    /// by an earlier one; 0 when there is none, or it is not known.
    pub(crate) fn granted_at(&self, reader: &PeerId, now: Timestamp) -> u64 {
        let prefixes = self.readable(reader, now).prefixes;
        let (Some(first), Some(last), false) = (prefixes.first(), prefixes.last(), self.is_owner(&reader.0)) else {
            return 0;
        };
        let position = |id: &GrantId| self.grants[id].position.unwrap_or(0);
        // With a grant for all of it nobody has read less. The prefixes are sorted.
        let is_narrower = |grant: &Grant| !(grant.prefix.covers(first) && grant.prefix.covers(last));
        let narrower = self.all_grants_of(reader).filter(|(_, grant)| is_narrower(grant));
        let Some(since) = narrower.map(|(id, _)| position(&id)).min() else { return 0 };
        let mut granted = vec![u64::MAX; prefixes.len()];
        for (id, grant) in self.valid_grants_of(reader, now) {
            if let Ok(at) = prefixes.binary_search(&grant.prefix) {
                granted[at] = granted[at].min(position(&id));
            }
        }
        granted.into_iter().filter(|at| *at > since).max().unwrap_or(0)
    }

    fn valid_grants_of(&self, reader: &PeerId, now: Timestamp) -> impl Iterator<Item = (GrantId, &Grant)> {
        self.all_grants_of(reader).filter(move |(_, grant)| grant.expires.is_none_or(|expires| now < expires))
    }

    fn all_grants_of(&self, reader: &PeerId) -> impl Iterator<Item = (GrantId, &Grant)> {
        let of = |subject: &PublicKey| self.by_subject.get(subject).map(Vec::as_slice).unwrap_or_default();
        of(&reader.0).iter().chain(of(&EVERYBODY)).map(|id| (*id, &self.grants[id].grant))
    }

    /// The best grant of `subject` that is at least `right`, for everything, and not expired at
    /// `now`: what it can issue further grants from.
    pub fn best_grant(&self, subject: &PublicKey, right: Right, now: Timestamp) -> Option<(GrantId, &Grant)> {
        self.by_subject
            .get(subject)?
            .iter()
            .map(|id| (*id, &self.grants[id].grant))
            .filter(|(_, grant)| grant.right >= right && grant.expires.is_none_or(|expires| now < expires))
            .max_by_key(|(_, grant)| {
                (grant.prefix.is_empty(), grant.right, grant.expires.unwrap_or(Timestamp(u64::MAX)))
            })
    }

    /// The chain that ends in `id`, from the owner's grant down: issuers and grants.
    pub fn chain(&self, id: GrantId) -> Vec<(GrantId, AuthorId, &Grant)> {
        let mut chain = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next {
            let Some(admitted) = self.grants.get(&id) else { break };
            chain.push((id, admitted.issuer, &admitted.grant));
            next = admitted.grant.parent;
        }
        chain.reverse();
        chain
    }

    /// Whether a grant is among them.
    pub fn contains(&self, id: &GrantId) -> bool {
        self.grants.contains_key(id)
    }

    /// All grants.
    pub fn grants(&self) -> impl Iterator<Item = (GrantId, AuthorId, &Grant)> {
        self.grants.iter().map(|(id, admitted)| (*id, admitted.issuer, &admitted.grant))
    }

    /// When the next read grant of `reader` expires after `now`: an open session is looked at again then.
    pub fn next_expiry(&self, reader: &PeerId, now: Timestamp) -> Option<Timestamp> {
        self.grants_of(&reader.0)
            .chain(self.grants_of(&EVERYBODY))
            .filter_map(|grant| grant.expires)
            .filter(|expires| *expires > now)
            .min()
    }
}

/// The key of the system entry that holds a grant.
pub fn grant_key(id: &GrantId) -> Key {
    let key: Bytes = [0, GRANT_KIND].into_iter().chain(id.0.0).collect();
    Key::new(key).expect("34 bytes are a key")
}

/// The grant that a key's system entry holds, if it is one.
pub(crate) fn grant_of_key(key: &[u8]) -> Option<GrantId> {
    let id = key.strip_prefix(&[0, GRANT_KIND])?;
    Some(GrantId(Hash(id.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SecretKey;

    fn key(n: u8) -> PublicKey {
        SecretKey::from_bytes([n; 32]).public()
    }

    fn grant(subject: PublicKey, right: Right, parent: Option<GrantId>) -> Grant {
        Grant { subject, right, prefix: Prefix::default(), expires: None, parent }
    }

    fn put(key: &str) -> Op {
        Op::Put { key: Key::try_from(key).unwrap(), value: Value::Inline(Bytes::new()) }
    }

    fn admit(rights: &mut Rights, issuer: PublicKey, grant: &Grant) -> Result<GrantId, RightsError> {
        rights.admit(&AuthorId(issuer), &grant.to_op(&AuthorId(issuer)))
    }

    #[test]
    fn b63_a_chain_is_followed_and_each_broken_link_refused() {
        let (owner, invite, joiner, stranger) = (key(1), key(2), key(3), key(4));
        let mut rights = Rights::new(ReplicaId(owner));
        let first = admit(&mut rights, owner, &grant(invite, Right::Write, None)).unwrap();
        let second = admit(&mut rights, invite, &grant(joiner, Right::Write, Some(first))).unwrap();
        assert!(rights.may_write(&AuthorId(joiner), &put("a"), Timestamp(5)));
        assert!(!rights.may_write(&AuthorId(stranger), &put("a"), Timestamp(5)));
        // Foreign root, wrong subject, wider.
        assert_eq!(admit(&mut rights, stranger, &grant(stranger, Right::Read, None)), Err(RightsError::BrokenChain));
        assert_eq!(
            admit(&mut rights, stranger, &grant(stranger, Right::Read, Some(second))),
            Err(RightsError::BrokenChain)
        );
        assert_eq!(admit(&mut rights, joiner, &grant(stranger, Right::Admin, Some(second))), Err(RightsError::TooWide));
        assert_eq!(rights.chain(second).len(), 2);
    }

    #[test]
    fn prefix_and_expiry_only_narrow() {
        let (owner, writer, other) = (key(1), key(2), key(3));
        let mut rights = Rights::new(ReplicaId(owner));
        let narrow = Grant {
            prefix: Prefix::new("a/").unwrap(),
            expires: Some(Timestamp(100)),
            ..grant(writer, Right::Write, None)
        };
        let id = admit(&mut rights, owner, &narrow).unwrap();
        assert!(rights.may_write(&AuthorId(writer), &put("a/x"), Timestamp(99)));
        assert!(!rights.may_write(&AuthorId(writer), &put("a/x"), Timestamp(100)));
        assert!(!rights.may_write(&AuthorId(writer), &put("b"), Timestamp(99)));
        let everything = Op::DeletePrefix { prefix: Prefix::default() };
        assert!(!rights.may_write(&AuthorId(writer), &everything, Timestamp(99)));
        assert_eq!(admit(&mut rights, writer, &grant(other, Right::Read, Some(id))), Err(RightsError::TooWide));
        let longer = Grant { subject: other, expires: Some(Timestamp(101)), parent: Some(id), ..narrow.clone() };
        assert_eq!(admit(&mut rights, writer, &longer), Err(RightsError::TooWide));
        assert_eq!(rights.readable(&PeerId(writer), Timestamp(99)).prefixes, [Prefix::new("a/").unwrap()]);
        assert!(rights.readable(&PeerId(writer), Timestamp(100)).is_empty());
    }

    #[test]
    fn a_position_is_one_of_before_when_the_reader_could_read_less_then() {
        let (owner, reader, everything) = (key(1), key(2), "");
        // What is granted to whom, until when, and where that stands; and where the reader came to read what it may.
        type Granted = (PublicKey, &'static str, Option<u64>, u64);
        let cases: [(&[Granted], u64); 9] = [
            (&[(reader, everything, None, 900)], 0),
            (&[(reader, everything, Some(50), 5), (reader, everything, None, 900)], 0),
            (&[(reader, "a/", None, 5), (reader, everything, None, 900)], 900),
            (&[(reader, "a/", Some(50), 5), (reader, everything, None, 900)], 900),
            (&[(reader, "a/", None, 950), (reader, everything, None, 900)], 0),
            (&[(reader, "a/", None, 5), (reader, "b/", None, 900)], 900),
            (&[(reader, "a/", None, 5), (reader, everything, None, 70), (reader, everything, None, 900)], 70),
            (&[(EVERYBODY, "b/", None, 5), (reader, everything, None, 900)], 900),
            (&[(key(3), "b/", None, 5), (reader, everything, None, 900)], 0),
        ];
        for (granted, expected) in cases {
            let mut rights = Rights::new(ReplicaId(owner));
            for (number, (subject, prefix, expires, position)) in granted.iter().enumerate() {
                let right = if number % 2 == 0 { Right::Read } else { Right::Write };
                let (prefix, expires) = (Prefix::new(*prefix).unwrap(), expires.map(Timestamp));
                let grant = Grant { prefix, expires, ..grant(*subject, right, None) };
                let id = admit(&mut rights, owner, &grant).unwrap();
                // What is signed anew stands elsewhere; the first time counts.
                rights.place(&id, *position);
                rights.place(&id, *position + 1_000);
            }
            assert_eq!(rights.granted_at(&PeerId(reader), Timestamp(60)), expected, "{granted:?}");
            assert_eq!(rights.granted_at(&PeerId(owner), Timestamp(60)), 0);
        }
    }

    #[test]
    fn a_chain_longer_than_the_limit_is_refused() {
        let mut rights = Rights::new(ReplicaId(key(0)));
        let mut parent = None;
        for n in 0..MAX_CHAIN as u8 {
            parent = Some(admit(&mut rights, key(n), &grant(key(n + 1), Right::Read, parent)).unwrap());
        }
        let last = MAX_CHAIN as u8;
        assert_eq!(admit(&mut rights, key(last), &grant(key(99), Right::Read, parent)), Err(RightsError::TooDeep));
    }

    #[test]
    fn a_grant_for_everybody_makes_the_replica_public_but_lets_nobody_write() {
        let owner = key(1);
        let mut rights = Rights::new(ReplicaId(owner));
        admit(&mut rights, owner, &grant(EVERYBODY, Right::Write, None)).unwrap();
        assert!(rights.readable(&PeerId(key(9)), Timestamp(0)).is_all());
        assert!(!rights.may_write(&AuthorId(key(9)), &put("a"), Timestamp(0)));
    }

    #[test]
    fn a_grant_under_a_key_that_is_not_its_id_is_refused() {
        let owner = AuthorId(key(1));
        let mut rights = Rights::new(ReplicaId(owner.0));
        let Op::Put { value, .. } = grant(key(2), Right::Read, None).to_op(&owner) else { unreachable!() };
        let moved = Op::Put { key: grant_key(&GrantId(Hash([3; 32]))), value };
        assert_eq!(rights.admit(&owner, &moved), Err(RightsError::UnknownSystemEntry));
    }
}
