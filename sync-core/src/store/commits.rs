//! Commits in an embedded store: seal and tree once per commit, as long as one of its entries lives.

use std::collections::{BTreeMap, HashMap};

use super::{
    engine::{EngineRead, EngineWrite},
    rows::{self, CommitNo, Fields, Proof, ReplicaNo, corrupt},
    types::StoreError,
};
use crate::model::{AuthorId, Hash, Seal, Signature, Timestamp, VerifiedBundle, merkle::PartialTree};

/// What a commit's row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommitRow {
    /// How many of its entries are in the replica.
    pub live: u32,
    pub seal: Seal,
    pub root: Hash,
}

impl CommitRow {
    fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(144);
        row.extend_from_slice(&self.live.to_be_bytes());
        row.extend_from_slice(self.seal.author.as_bytes());
        row.extend_from_slice(&self.seal.timestamp.0.to_be_bytes());
        row.extend_from_slice(&self.seal.count.to_be_bytes());
        row.extend_from_slice(&self.seal.signature.0);
        row.extend_from_slice(&self.root.0);
        row
    }

    fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        const WHAT: &str = "a commit's row";
        let mut fields = Fields(bytes);
        let row = Self {
            live: fields.u32(WHAT)?,
            seal: Seal {
                author: AuthorId::from(fields.take::<32>(WHAT)?),
                timestamp: Timestamp(fields.u64(WHAT)?),
                count: fields.u32(WHAT)?,
                signature: Signature(fields.take(WHAT)?),
            },
            root: Hash(fields.take(WHAT)?),
        };
        fields.end(WHAT)?;
        Ok(row)
    }

    pub fn load(rows: &dyn EngineRead, replica: ReplicaNo, commit: CommitNo) -> Result<Self, StoreError> {
        let row = rows.get(&rows::commit_key(replica, commit))?.ok_or_else(|| corrupt("a commit's row"))?;
        Self::decode(&row)
    }

    /// What tells this commit from every other. The root alone does not: one root can be signed
    /// with two counts, and leaves under one root can claim two timestamps; their trees must not
    /// be merged.
    fn name(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.seal.author.as_bytes()).update(&self.seal.timestamp.0.to_be_bytes());
        hasher.update(&self.seal.count.to_be_bytes()).update(&self.root.0);
        *hasher.finalize().as_bytes()
    }
}

/// Reads the part of a commit's tree that is known here.
pub(super) fn load_tree(
    rows: &dyn EngineRead,
    replica: ReplicaNo,
    commit: CommitNo,
) -> Result<PartialTree, StoreError> {
    let row = rows.get(&rows::tree_key(replica, commit))?.ok_or_else(|| corrupt("a commit's tree"))?;
    decode_tree(&row)
}

/// Count, whether all leaves are known, the leaves (with their indices if not all), the proof.
fn encode_tree(tree: &PartialTree) -> Vec<u8> {
    let whole = tree.leaves().len() == tree.count() as usize;
    let mut row = Vec::with_capacity(16 + tree.leaves().len() * 36 + tree.proof().len() * 32);
    row.extend_from_slice(&tree.count().to_be_bytes());
    row.extend_from_slice(&(tree.leaves().len() as u32).to_be_bytes());
    for (index, hash) in tree.leaves() {
        if !whole {
            row.extend_from_slice(&index.to_be_bytes());
        }
        row.extend_from_slice(&hash.0);
    }
    for hash in tree.proof() {
        row.extend_from_slice(&hash.0);
    }
    row
}

fn decode_tree(row: &[u8]) -> Result<PartialTree, StoreError> {
    const WHAT: &str = "a commit's tree";
    let mut fields = Fields(row);
    let (count, known) = (fields.u32(WHAT)?, fields.u32(WHAT)?);
    let mut leaves = Vec::with_capacity((known as usize).min(row.len() / 32));
    for at in 0..known {
        let index = if known == count { at } else { fields.u32(WHAT)? };
        leaves.push((index, Hash(fields.take(WHAT)?)));
    }
    let mut proof = Vec::with_capacity(fields.0.len() / 32);
    while !fields.0.is_empty() {
        proof.push(Hash(fields.take(WHAT)?));
    }
    PartialTree::new(count, leaves, proof).ok_or_else(|| corrupt(WHAT))
}

/// What a transaction does to the commits of a replica.
#[derive(Debug, Default)]
pub(super) struct CommitChanges {
    /// The commits of bundles that were seen, by the bundle's address: all of an applied batch
    /// stays where it is until the transaction ends.
    bundles: HashMap<usize, CommitNo>,
    /// The commits that were seen, by name.
    parts: HashMap<[u8; 32], CommitNo>,
    changes: BTreeMap<CommitNo, CommitChange>,
}

#[derive(Debug, Default)]
struct CommitChange {
    live: i64,
    /// The commit as it was before, if that has been read, and what to merge into its tree.
    row: Option<CommitRow>,
    tree: Option<PartialTree>,
    is_new: bool,
}

impl CommitChanges {
    /// Where the proof of the bundle's entries will be. Entries that are inserted are counted by
    /// [`CommitChanges::inserted`].
    pub fn part(
        &mut self,
        rows: &dyn EngineRead,
        replica: ReplicaNo,
        bundle: &VerifiedBundle,
        next_commit: &mut u64,
    ) -> Result<CommitNo, StoreError> {
        let address = std::ptr::from_ref(bundle).addr();
        if let Some(commit) = self.bundles.get(&address) {
            return Ok(*commit);
        }
        let row = CommitRow { live: 0, seal: *bundle.seal(), root: bundle.root() };
        let name = row.name();
        let commit = match self.parts.get(&name) {
            Some(commit) => *commit,
            None => {
                let commit = match rows.get(&rows::commit_name_key(replica, &name))? {
                    Some(number) => CommitNo(Fields(&number).u64("a commit's number")?),
                    None => {
                        let commit = CommitNo(*next_commit);
                        *next_commit += 1;
                        let change = CommitChange { row: Some(row), is_new: true, ..CommitChange::default() };
                        self.changes.insert(commit, change);
                        commit
                    }
                };
                self.parts.insert(name, commit);
                commit
            }
        };
        let change = self.changes.entry(commit).or_default();
        match &mut change.tree {
            Some(tree) => tree.merge(bundle.tree()),
            None => change.tree = Some(bundle.tree().clone()),
        }
        self.bundles.insert(address, commit);
        Ok(commit)
    }

    pub fn inserted(&mut self, proof: &Proof) {
        if let Proof::Part(commit, _) = proof {
            self.changes.entry(*commit).or_default().live += 1;
        }
    }

    pub fn removed(&mut self, proof: &Proof) {
        if let Proof::Part(commit, _) = proof {
            self.changes.entry(*commit).or_default().live -= 1;
        }
    }

    /// Writes the rows of the commits that changed and removes those of the commits that ended.
    pub fn write(self, rows: &mut dyn EngineWrite, replica: ReplicaNo) -> Result<(), StoreError> {
        for (commit, change) in self.changes {
            if change.live == 0 && (change.is_new || change.tree.is_none()) {
                continue;
            }
            let mut row = match change.row {
                Some(row) => row,
                None => CommitRow::load(rows, replica, commit)?,
            };
            let name_key = rows::commit_name_key(replica, &row.name());
            let live = i64::from(row.live) + change.live;
            row.live = u32::try_from(live).map_err(|_| corrupt("a commit's count of live entries"))?;
            if live == 0 {
                rows.delete(&rows::commit_key(replica, commit))?;
                rows.delete(&rows::tree_key(replica, commit))?;
                rows.delete(&name_key)?;
                continue;
            }
            rows.put(&rows::commit_key(replica, commit), &row.encode())?;
            if change.is_new {
                rows.put(&name_key, &commit.0.to_be_bytes())?;
            }
            let Some(part) = change.tree else { continue };
            let tree_key = rows::tree_key(replica, commit);
            if change.is_new {
                rows.put(&tree_key, &encode_tree(&part))?;
                continue;
            }
            let mut tree = load_tree(rows, replica, commit)?;
            let known = tree.leaves().len();
            tree.merge(&part);
            if tree.leaves().len() > known {
                rows.put(&tree_key, &encode_tree(&tree))?;
            }
        }
        Ok(())
    }
}
