//! What a peer is asked for next.
//!
//! New downloads and those that run take turns. Whether a peer may be asked for something is looked
//! up once for each state of the wants: it must be able to read an entry that refers to it. What a
//! replica wants and another one brought here is not fetched again: the peer is asked to prove that
//! it has it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sync_content::{Claim, TreeClaim, groups::group_count};
use tokio::time::Instant;

use super::{
    ASK_AGAIN, ASK_AGAIN_MAX, BlobError, MAX_DOWNLOADS, MAX_PROOF_RUN, MAX_REMEMBERED, MAX_TREE_RUN,
    fetch::{Active, Changes, Finished, Shared, lock},
    protocol::{Ask, Nonce, Run},
};
use crate::{
    model::{Hash, PeerId, ReplicaId, SecretKey},
    store::{Begun, Download, GroupRanges, Reader, StoreError, Want},
};

/// A claim's groups: 1 MiB. Small enough that several peers share a content evenly, large enough
/// that requests and repeated pairs cost nothing.
const CLAIM_GROUPS: u64 = 64;

/// Content of at least this many bytes is made from an older version where it can be. For less a
/// round trip more costs as much as the bytes.
const REUSE_LEN: u64 = 512 * 1024;

/// The groups of which only the tree is asked count for a fraction of those that are sent.
const TREE_WEIGHT: u64 = 256;

/// The groups that are hashed to prove them count for a fraction of those that are sent.
const PROOF_WEIGHT: u64 = 64;

/// How many wants are read from the store at a time.
const WANTS_PAGE: usize = 256;

/// Something to be asked of a peer.
pub(super) enum Task {
    /// Groups of a download.
    Groups { replica: ReplicaId, download: Arc<Download>, claim: Claim },
    /// The tree above groups that an older version may have.
    Tree { replica: ReplicaId, download: Arc<Download>, claim: TreeClaim },
    /// To show that it has groups that are here.
    Proof { proving: Arc<Proving>, groups: Range<u64> },
}

impl Task {
    /// What is said to the peer.
    pub fn request(&self) -> Ask {
        match self {
            Self::Groups { replica, download, claim } => {
                let Range { start, end } = claim.groups();
                let len = download.partial().len();
                Ask::Get(Run { replica: *replica, hash: download.hash(), len, start, end })
            }
            Self::Tree { replica, download, claim } => {
                let Range { start, end } = claim.groups();
                let len = download.partial().len();
                Ask::Tree(Run { replica: *replica, hash: download.hash(), len, start, end })
            }
            Self::Proof { proving, groups } => Ask::Prove(proving.run(groups), proving.nonce),
        }
    }

    /// How many groups it counts for in the window.
    pub fn weight(&self) -> u32 {
        let (groups, fraction) = match self {
            Self::Groups { claim, .. } => (claim.groups(), 1),
            Self::Tree { claim, .. } => (claim.groups(), TREE_WEIGHT),
            Self::Proof { groups, .. } => (groups.clone(), PROOF_WEIGHT),
        };
        u32::try_from((groups.end - groups.start).div_ceil(fraction)).expect("runs are short")
    }
}

/// A content that is here, and that a peer of a replica is asked to prove.
pub(super) struct Proving {
    pub replica: ReplicaId,
    pub hash: Hash,
    pub reader: Reader,
    pub nonce: Nonce,
    /// The groups that are not proved yet.
    left: AtomicU64,
    given_up: AtomicBool,
    _only_one: OnlyOne,
}

impl Proving {
    /// A run of its groups.
    pub fn run(&self, groups: &Range<u64>) -> Run {
        let Range { start, end } = *groups;
        Run { replica: self.replica, hash: self.hash, len: self.reader.len(), start, end }
    }

    /// Some groups are proved. Says whether those were the last.
    pub fn proved(&self, groups: &Range<u64>) -> bool {
        let count = groups.end - groups.start;
        self.left.fetch_sub(count, Ordering::Relaxed) == count
    }

    /// The peer does not have it.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

/// The right to have a content proved for a replica: one peer at a time.
struct OnlyOne {
    what: (ReplicaId, Hash),
    all: Arc<Mutex<HashSet<(ReplicaId, Hash)>>>,
}

impl Drop for OnlyOne {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.what);
    }
}

/// What one peer is known to have or not.
#[derive(Default)]
pub(super) struct View {
    /// What it said when it did not give all that was asked for.
    answers: HashMap<(ReplicaId, Hash), Answer>,
    /// Whether it may be asked, looked up at this count of wants.
    may: (u64, HashMap<(ReplicaId, Hash), bool>),
    /// What it is being asked to prove, and the next group.
    proving: Option<(Arc<Proving>, u64)>,
    /// Wants that were read from the store and not looked at yet.
    page: VecDeque<Want>,
    /// The last want that was read.
    cursor: Option<Want>,
    /// `Changes::wants` when the first page of this pass was read: what has come since may lie before the cursor.
    began: u64,
    /// All wants were looked at; new ones have come since if `Changes::wants` is another number.
    exhausted: Option<(u64, Instant)>,
    /// Whether the last request was for a download that ran already: new and old take turns, so
    /// that a large content does not keep the small ones waiting.
    resumed_last: bool,
    /// When something was asked with nothing else unanswered, or last heard.
    pub alive: Option<Instant>,
}

struct Answer {
    at: Instant,
    /// How long it counts.
    lasts: Duration,
    has: GroupRanges,
}

impl View {
    /// What may be asked of it: all, or what it said it has.
    fn has(&self, what: &(ReplicaId, Hash)) -> Option<&GroupRanges> {
        self.answers.get(what).filter(|answer| answer.at.elapsed() < answer.lasts).map(|answer| &answer.has)
    }

    /// It has only these groups.
    pub fn refused(&mut self, what: (ReplicaId, Hash), has: GroupRanges) {
        if self.answers.len() >= MAX_REMEMBERED {
            // Asking again for all of it costs less than the memory of a peer that has nothing.
            self.answers.clear();
        }
        let lasts = self.answers.get(&what).map_or(ASK_AGAIN, |before| (before.lasts * 2).min(ASK_AGAIN_MAX));
        self.answers.insert(what, Answer { at: Instant::now(), lasts, has });
    }

    /// It has all of it now.
    pub fn ready(&mut self, replica: ReplicaId, hash: Hash) {
        self.answers.remove(&(replica, hash));
        self.exhausted = None;
    }

    /// Whether it may be asked, if that is known at this count of wants.
    fn may(&mut self, wants: u64, what: &(ReplicaId, Hash)) -> Option<bool> {
        if self.may.0 != wants {
            self.may = (wants, HashMap::new());
        }
        self.may.1.get(what).copied()
    }

    /// The next groups of what it is being asked to prove.
    fn next_proof(&mut self) -> Option<Task> {
        let (proving, at) = self.proving.take()?;
        let groups = at..group_count(proving.reader.len()).min(at + MAX_PROOF_RUN);
        if groups.is_empty() || proving.given_up.load(Ordering::Relaxed) {
            return None;
        }
        self.proving = Some((Arc::clone(&proving), groups.end));
        Some(Task::Proof { proving, groups })
    }
}

impl Shared {
    /// The next thing to ask this peer for; waits until there is one.
    pub async fn next(&self, peer: PeerId, view: &Mutex<View>) -> Result<Task, BlobError> {
        let mut changes = self.changes();
        loop {
            let seen = *changes.borrow_and_update();
            if let Some(task) = lock(view).next_proof() {
                return Ok(task);
            }
            let resume_first = !lock(view).resumed_last;
            if resume_first && let Some(found) = self.resume(peer, view, seen).await {
                lock(view).resumed_last = true;
                return Ok(found);
            }
            if let Some(found) = self.begin(peer, view, seen).await? {
                lock(view).resumed_last = false;
                return Ok(found);
            }
            if !resume_first && let Some(found) = self.resume(peer, view, seen).await {
                lock(view).resumed_last = true;
                return Ok(found);
            }
            // Nothing: until something changes, or it is time to ask again for what was refused.
            if tokio::time::timeout(ASK_AGAIN, changes.changed()).await.is_err() {
                lock(view).exhausted = None;
            }
        }
    }

    /// A run of a download that goes on already.
    async fn resume(&self, peer: PeerId, view: &Mutex<View>, seen: Changes) -> Option<Task> {
        loop {
            let mut unknown = Vec::new();
            {
                let mut view = lock(view);
                for active in self.active().values() {
                    for &replica in &active.replicas {
                        let (hash, len) = (active.download.hash(), active.download.partial().len());
                        match view.may(seen.wants, &(replica, hash)) {
                            Some(true) => {}
                            Some(false) => continue,
                            None => {
                                unknown.push(Want { replica, hash, len, base: None });
                                continue;
                            }
                        }
                        if let Some(task) = task(replica, &active.download, view.has(&(replica, hash))) {
                            return Some(task);
                        }
                    }
                }
            }
            if unknown.is_empty() {
                return None;
            }
            for want in unknown {
                let may = self.filter.is_wanted(peer, want).await;
                lock(view).may.1.insert((want.replica, want.hash), may);
            }
        }
    }

    /// The first run of a download that nobody has begun, or of a proof.
    async fn begin(&self, peer: PeerId, view: &Mutex<View>, seen: Changes) -> Result<Option<Task>, BlobError> {
        loop {
            if self.active().len() >= MAX_DOWNLOADS && !self.put_aside().await {
                return Ok(None);
            }
            let Some(want) = self.next_want(view, seen).await? else { return Ok(None) };
            let what = (want.replica, want.hash);
            let skip = lock(view).has(&what).is_some_and(GroupRanges::is_empty);
            if skip || !self.filter.is_wanted(peer, want).await || self.joins(&want) {
                continue;
            }
            let download = match self.store.begin_download(want.hash, want.len).await? {
                Begun::Ours(download) => Arc::new(download),
                Begun::Busy => continue,
                Begun::Complete => {
                    self.begin_proof(view, &want).await?;
                    match lock(view).next_proof() {
                        Some(task) => return Ok(Some(task)),
                        None => continue,
                    }
                }
            };
            if want.len == 0 {
                // Nobody has to give what has no bytes.
                download.comes_for(want.replica);
            }
            let found = download.partial().verified().byte_count(want.len);
            if !lock(&self.aside).remove(&want.hash) {
                self.resumed.fetch_add(found, Ordering::Relaxed);
            }
            self.look_at_base(&download, want).await?;
            let task = task(want.replica, &download, lock(view).has(&what));
            let replicas = vec![want.replica];
            let active =
                Active { download: Arc::clone(&download), replicas, checkpointed: Instant::now(), durable: found };
            self.active().insert(want.hash, active);
            self.changed(|changes| changes.claims += 1);
            match task {
                // Empty content proves itself, and what was complete at the checkpoint is complete.
                _ if download.partial().is_complete() => self.finish_soon(Finished::Download(download)),
                Some(task) => return Ok(Some(task)),
                None => {}
            }
        }
    }

    /// Lets a large download take from an older version what that has.
    async fn look_at_base(&self, download: &Download, want: Want) -> Result<(), StoreError> {
        if want.len < REUSE_LEN {
            return Ok(());
        }
        let base = match want.base {
            Some(base) => Some(base),
            None => self.filter.base(want).await,
        };
        let Some(base) = base else { return Ok(()) };
        if let Some(reader) =
            self.store.reader(base).await?.filter(|base| base.here().contains(&(0..group_count(base.len()))))
        {
            download.partial().reuse(reader);
        }
        Ok(())
    }

    /// Whether a download of the content runs, for this replica too from now on.
    fn joins(&self, want: &Want) -> bool {
        let mut active = self.active();
        let Some(running) = active.get_mut(&want.hash) else { return false };
        let partial = running.download.partial();
        if partial.len() != want.len && !partial.is_claimed() && partial.verified().is_empty() {
            // One of the two lengths is wrong, and nobody has anything of the first.
            active.remove(&want.hash);
            return false;
        }
        if partial.len() == want.len && !running.replicas.contains(&want.replica) {
            running.replicas.push(want.replica);
        }
        true
    }

    /// All of it is here, because of another replica: the peer has to prove that it has it.
    async fn begin_proof(&self, view: &Mutex<View>, want: &Want) -> Result<(), StoreError> {
        let what = (want.replica, want.hash);
        if !lock(&self.proving).insert(what) {
            return Ok(());
        }
        let only_one = OnlyOne { what, all: Arc::clone(&self.proving) };
        // Gone again, or the entry claims another length, and nobody can prove that.
        let Some(reader) = self.store.reader(want.hash).await?.filter(|reader| reader.len() == want.len) else {
            return Ok(());
        };
        let proving = Proving {
            replica: want.replica,
            hash: want.hash,
            reader,
            nonce: SecretKey::generate().to_bytes(),
            left: AtomicU64::new(group_count(want.len)),
            given_up: AtomicBool::new(false),
            _only_one: only_one,
        };
        lock(view).proving = Some((Arc::new(proving), 0));
        Ok(())
    }

    /// Makes place for others: downloads of which nobody fetches anything, because those who were
    /// asked do not have it, go back to the wants. False when all are being fetched.
    async fn put_aside(&self) -> bool {
        let idle: Vec<_> = self
            .active()
            .extract_if(|_, active| {
                let partial = active.download.partial();
                !partial.is_claimed() && !partial.is_complete()
            })
            .map(|(_, active)| active.download)
            .collect();
        let any = !idle.is_empty();
        for download in idle {
            if !download.partial().verified().is_empty() {
                lock(&self.aside).insert(download.hash());
            }
            if download.partial().unsynced_bytes() > 0 {
                self.checkpoint_one(download).await;
            }
        }
        if any {
            self.changed(|changes| changes.wants += 1);
        }
        any
    }

    /// The next want, in the order of the store, pass after pass; none when this peer was offered all.
    pub async fn next_want(&self, view: &Mutex<View>, seen: Changes) -> Result<Option<Want>, StoreError> {
        let from = {
            let mut view = lock(view);
            if let Some(want) = view.page.pop_front() {
                return Ok(Some(want));
            }
            match view.exhausted {
                Some((wants, at)) if wants == seen.wants && at.elapsed() < ASK_AGAIN => return Ok(None),
                _ => view.exhausted = None,
            }
            if view.cursor.is_none() {
                view.began = seen.wants;
            }
            view.cursor
        };
        let page = self.store.wants(from, WANTS_PAGE).await?;
        let mut view = lock(view);
        view.cursor = page.last().filter(|_| page.len() == WANTS_PAGE).copied();
        if view.cursor.is_none() {
            view.exhausted = Some((view.began, Instant::now()));
        }
        view.page.extend(page);
        Ok(view.page.pop_front())
    }
}

/// Reserves groups of a download for a peer that has `has`, or may have all: first those of which an
/// older version may save the fetching.
fn task(replica: ReplicaId, download: &Arc<Download>, has: Option<&GroupRanges>) -> Option<Task> {
    let partial = download.partial();
    let all = GroupRanges::all(partial.len());
    let has = has.unwrap_or(&all);
    if let Some(claim) = partial.claim_tree(has, MAX_TREE_RUN) {
        return Some(Task::Tree { replica, download: Arc::clone(download), claim });
    }
    let claim = partial.claim_of(has, CLAIM_GROUPS)?;
    Some(Task::Groups { replica, download: Arc::clone(download), claim })
}
