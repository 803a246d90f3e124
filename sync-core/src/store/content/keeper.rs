//! Content over an engine: import, download, collection. Everything here blocks.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use sync_content::{Checkpoint, ContentDir, ContentError, FileKind, OnProgress, Published, Reader, Staged, quiet};

use super::{
    Begun, ContentStatus, Download, Imported, Want,
    pins::Pins,
    rows::{self, CameFor, ContentRow},
};
use crate::{
    model::{Hash, Key, ReplicaId},
    store::{
        Core, Engine, EngineRead, EngineWrite, Scan, Scope, StoreError, names,
        rows::{ReplicaNo, corrupt, entry_key, replica_rows},
    },
};

/// At most so many contents get their names in one go: each holds its file open until then.
const PUBLISH_BATCH: usize = 256;

/// At most so many contents are collected in one go: imports wait while their files are unlinked.
const COLLECT_BATCH: usize = 256;

/// So often contents are freed of a damaged one on which more come to stand meanwhile. In a damaged store they may be
/// named for ever.
const MAX_TURNS: u32 = 16;

/// Keeps the content of a store: files in a directory, rows in an engine.
#[derive(Debug)]
pub(in crate::store) struct ContentKeeper<E> {
    core: Arc<Core<E>>,
    dir: ContentDir,
    pins: Arc<Pins>,
    publisher: Publisher,
    /// Held while a content gets its name that stands on another.
    overlays: Mutex<()>,
    /// The replicas by their numbers, which are never used twice.
    replicas: Mutex<HashMap<u32, ReplicaId>>,
}

impl<E: Engine> ContentKeeper<E> {
    /// Brings files and rows into agreement: files without a row are removed, and rows whose
    /// file somebody took become wants again.
    pub fn open(core: Arc<Core<E>>, dir: ContentDir) -> Result<Self, StoreError> {
        let here = rows::contents(&core.engine().snapshot()?)?;
        let mut gone = here.clone();
        dir.sweep(|kind, hash| {
            let hash = hash.into();
            // A download that was finished but not committed has its final name already, and
            // gets its old one back when it goes on.
            let keep = here.get(&hash).is_some_and(|row| *row == kind || *row == FileKind::Partial);
            if keep {
                gone.remove(&hash);
            }
            keep
        })?;
        // A download that has nothing yet has a file only while it runs; it simply begins again.
        let mut fallen = Vec::new();
        if !gone.is_empty() {
            core.engine().write(&mut |rows| {
                fallen.clear();
                for hash in gone.keys() {
                    for standing in rows::standing_on(rows, hash)? {
                        rows::put_missing(rows, &standing)?;
                        fallen.push(standing);
                    }
                    rows::put_missing(rows, hash)?;
                }
                Ok(())
            })?;
        }
        fallen.iter().try_for_each(|hash| dir.remove_overlay(&(*hash).into()))?;
        Ok(Self {
            core,
            dir,
            pins: Arc::default(),
            publisher: Publisher::default(),
            overlays: Mutex::default(),
            replicas: Mutex::default(),
        })
    }

    pub fn status(&self, hash: &Hash) -> Result<ContentStatus, StoreError> {
        Ok(match ContentRow::load(&self.core.engine().snapshot()?, hash)? {
            None => ContentStatus::Missing,
            Some(ContentRow::Complete { len, .. }) => ContentStatus::Complete { len },
            Some(ContentRow::Partial(checkpoint, _)) => ContentStatus::Partial {
                len: checkpoint.len(),
                have: checkpoint.verified().byte_count(checkpoint.len()),
            },
        })
    }

    pub fn import_path(
        &self,
        path: &Path,
        older: Option<&Hash>,
        progress: OnProgress<'_>,
    ) -> Result<Imported, StoreError> {
        if let Some(older) = older
            && let Some(imported) = self.import_over(path, older, progress)?
        {
            return Ok(imported);
        }
        self.import(self.dir.stage_path(path, progress)?)
    }

    /// Imports a new version of what is here. Nothing when that does not help.
    fn import_over(&self, path: &Path, older: &Hash, progress: OnProgress<'_>) -> Result<Option<Imported>, StoreError> {
        // Stays until the new one has its row.
        let _pin = self.pins.pin(*older);
        let older = match self.reader(older) {
            Ok(Some(older)) => older,
            // It is whoever reads it who sees to that.
            Ok(None) | Err(StoreError::Content(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let staged = match self.dir.stage_path_over(path, &older, progress) {
            Err(ContentError::Damaged { .. }) => return Ok(None),
            staged => staged?,
        };
        if !staged.is_overlay() {
            return self.import(staged).map(Some);
        }
        let pin = self.pins.pin(staged.hash().into());
        let published = self.publish_overlay(staged, CameFor::Nobody)?;
        Ok(published.map(|(hash, len)| Imported { hash, len, pin }))
    }

    /// One batch for all that can be read.
    pub fn import_paths(&self, paths: &[impl AsRef<Path>]) -> Vec<Result<Imported, StoreError>> {
        let staged: Vec<_> = paths.iter().map(|path| self.dir.stage_path(path.as_ref(), &mut quiet)).collect();
        let mut results = Vec::with_capacity(staged.len());
        let mut batch = Vec::new();
        for staged in staged {
            results.push(staged.map_err(StoreError::from).map(|staged| {
                let hash = Hash::from(staged.hash());
                let imported = Imported { hash, len: staged.len(), pin: self.pins.pin(hash) };
                batch.push(staged);
                imported
            }));
        }
        if let Err(error) = self.publish_all(batch) {
            results.iter_mut().filter(|result| result.is_ok()).for_each(|result| *result = Err(error.clone()));
        }
        results
    }

    pub fn import_bytes(&self, bytes: &[u8]) -> Result<Imported, StoreError> {
        self.import(self.dir.stage_bytes(bytes)?)
    }

    fn import(&self, staged: Staged) -> Result<Imported, StoreError> {
        // Pinned before it gets its name, so that no collection unlinks that name under it.
        let pin = self.pins.pin(staged.hash().into());
        let published = self.publish(staged)?;
        Ok(Imported { hash: published.hash.into(), len: published.len, pin })
    }

    /// Gives staged content its name and its row, together with what others stage meanwhile.
    fn publish(&self, staged: Staged) -> Result<Published, StoreError> {
        self.publisher.publish(staged, |batch| self.publish_all(batch))
    }

    fn publish_all(&self, batch: Vec<Staged>) -> Result<Vec<Published>, StoreError> {
        self.publish_for(batch, &[])
    }

    /// The same; the contents came for these, in order, where that is known.
    fn publish_for(&self, batch: Vec<Staged>, came_for: &[CameFor]) -> Result<Vec<Published>, StoreError> {
        let published = self.dir.publish(batch)?;
        self.core.engine().write(&mut |rows| {
            for (at, content) in published.iter().enumerate() {
                let hash = content.hash.into();
                rows::put_complete(rows, &hash, content.len, content.outboard.clone())?;
                came(rows, &hash, came_for.get(at).copied().unwrap_or_default())?;
            }
            Ok(())
        })?;
        Ok(published)
    }

    /// Gives its name and its row to staged content that stands on another. Nothing when that has gone meanwhile.
    fn publish_overlay(&self, staged: Staged, came_for: CameFor) -> Result<Option<(Hash, u64)>, StoreError> {
        let (hash, len) = (Hash::from(staged.hash()), staged.len());
        // One at a time: a file that a row speaks of is never replaced by one that has other groups.
        let _one = self.overlays.lock().unwrap_or_else(PoisonError::into_inner);
        let published = match rows::is_complete(&self.core.engine().snapshot()?, &hash)? {
            true => None,
            false => self.dir.publish(vec![staged])?.pop(),
        };
        let mut done = false;
        self.core.engine().write(&mut |rows| {
            done = rows::is_complete(rows, &hash)?;
            if !done && let Some(Published { outboard, over: Some(over), .. }) = &published {
                done = rows::put_overlay(rows, &hash, len, outboard.clone(), over.clone())?;
            }
            if done { came(rows, &hash, came_for) } else { Ok(()) }
        })?;
        Ok(done.then_some((hash, len)))
    }

    /// A reader for who is at this node.
    pub fn reader(&self, hash: &Hash) -> Result<Option<Reader>, StoreError> {
        self.open_reader(hash, |_, _| Ok(true))
    }

    /// A reader of what `replica` holds: for its peers.
    pub fn held_reader(&self, replica: &ReplicaId, hash: &Hash) -> Result<Option<Reader>, StoreError> {
        self.open_reader(hash, |rows, row: &ContentRow| {
            // A part that came for others too was not given to this replica.
            if matches!(row, ContentRow::Partial(_, came_for) if *came_for == CameFor::One(*replica)) {
                return Ok(true);
            }
            let number = names::find_replica(rows, replica)?;
            number.map_or(Ok(false), |number| rows::is_held(rows, number, hash))
        })
    }

    /// Opens what is here, if it `may` be.
    fn open_reader(
        &self,
        hash: &Hash,
        may: impl Fn(&dyn EngineRead, &ContentRow) -> Result<bool, StoreError>,
    ) -> Result<Option<Reader>, StoreError> {
        let mut failed: Option<(ContentRow, ContentError)> = None;
        loop {
            let snapshot = self.core.engine().snapshot()?;
            let Some(row) = ContentRow::load(&snapshot, hash)? else { return Ok(None) };
            // Collected or finished between the two looks? Then the row says something else.
            if let Some((before, error)) = failed
                && before == row
            {
                return Err(error.into());
            }
            if !may(&snapshot, &row)? {
                return Ok(None);
            }
            let base_len = match &row {
                ContentRow::Complete { over: Some(over), .. } => {
                    match ContentRow::load(&snapshot, &over.base.into())? {
                        Some(ContentRow::Complete { len, over: None, .. }) => len,
                        _ => return Err(corrupt("what a content stands on")),
                    }
                }
                _ => 0,
            };
            drop(snapshot);
            let opened = match &row {
                ContentRow::Complete { len, outboard, over: None } => self.dir.reader((*hash).into(), *len, outboard),
                ContentRow::Complete { len, over: Some(over), .. } => {
                    self.dir.overlay_reader((*hash).into(), *len, over, base_len)
                }
                ContentRow::Partial(checkpoint, _) if checkpoint.verified().is_empty() => return Ok(None),
                ContentRow::Partial(checkpoint, _) => self.dir.partial_reader(checkpoint),
            };
            match opened {
                Ok(reader) => return Ok(Some(reader)),
                Err(error) => failed = Some((row, error)),
            }
        }
    }

    pub fn wants(&self, from: Option<&Want>, limit: usize) -> Result<Vec<Want>, StoreError> {
        let snapshot = self.core.engine().snapshot()?;
        let from = match from {
            // A replica that is gone wants nothing: whoever asks begins anew.
            Some(want) => names::find_replica(&snapshot, &want.replica)?.map(|replica| (replica, &want.hash)),
            None => None,
        };
        let found = rows::wants(&snapshot, from, limit)?;
        found
            .into_iter()
            .map(|rows::WantRow { replica, hash, len, base }| {
                Ok(Want { replica: self.replica(&snapshot, replica)?, hash, len, base })
            })
            .collect()
    }

    pub fn count_wants(&self, replica: &ReplicaId, limit: u64) -> Result<u64, StoreError> {
        let snapshot = self.core.engine().snapshot()?;
        match names::find_replica(&snapshot, replica)? {
            Some(replica) => rows::count_wants(&snapshot, replica, limit),
            None => Ok(0),
        }
    }

    pub fn references(
        &self,
        replica: &ReplicaId,
        hash: &Hash,
        scope: &Scope,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        let snapshot = self.core.engine().snapshot()?;
        let Some(number) = names::find_replica(&snapshot, replica)? else { return Ok(Vec::new()) };
        let found = rows::references(&snapshot, (number, hash), scope, limit)?;
        let key = |entry: &Vec<u8>| Key::new(entry_key::place(entry)?.slice(1..)).map_err(|_| corrupt("a reference"));
        found.iter().map(key).collect()
    }

    /// The replica with this number.
    fn replica(&self, rows: &dyn EngineRead, number: ReplicaNo) -> Result<ReplicaId, StoreError> {
        let mut known = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(replica) = known.get(&number.0) {
            return Ok(*replica);
        }
        let (start, end) = replica_rows();
        rows.scan(&start, Some(&end), Scan::Forward, &mut |key, value| {
            if let (Ok(id), Ok(number)) = (<[u8; 32]>::try_from(&key[1..]), <[u8; 4]>::try_from(value)) {
                known.insert(u32::from_be_bytes(number), ReplicaId::from(id));
            }
            ControlFlow::Continue(())
        })?;
        known.get(&number.0).copied().ok_or_else(|| corrupt("a replica's number"))
    }

    pub fn begin_download(&self, hash: &Hash, len: u64) -> Result<Begun, StoreError> {
        let Some(lease) = self.pins.lease(*hash) else { return Ok(Begun::Busy) };
        let pin = self.pins.pin(*hash);
        let start = Checkpoint::start((*hash).into(), len);
        let (from, mut came_for) = match ContentRow::load(&self.core.engine().snapshot()?, hash)? {
            Some(ContentRow::Complete { .. }) => return Ok(Begun::Complete),
            // A length is only claimed until it is proved: another claim begins anew.
            Some(ContentRow::Partial(checkpoint, came_for)) if checkpoint.len() == len => (checkpoint, came_for),
            Some(ContentRow::Partial(..)) => (self.restart(&start)?, CameFor::Nobody),
            None => (start.clone(), CameFor::Nobody),
        };
        let partial = match self.dir.download(from) {
            Err(ContentError::Damaged { .. }) => {
                came_for = CameFor::Nobody;
                self.dir.download(self.restart(&start)?)?
            }
            result => result?,
        };
        Ok(Begun::Ours(Download { partial, came_for: Mutex::new(came_for), _lease: lease, _pin: pin }))
    }

    /// The row must say that nothing is here before the files do.
    fn restart(&self, start: &Checkpoint) -> Result<Checkpoint, StoreError> {
        self.core.engine().write(&mut |rows| rows::put_partial(rows, start, CameFor::Nobody))?;
        Ok(start.clone())
    }

    pub fn checkpoint_download(&self, download: &Download) -> Result<(), StoreError> {
        let checkpoint = download.partial.checkpoint()?;
        // Looked at after the groups: for whom they came was noted before they were.
        let came_for = download.came_for();
        self.core.engine().write(&mut |rows| rows::put_partial(rows, &checkpoint, came_for))
    }

    pub fn finish_downloads(&self, downloads: &[Arc<Download>]) -> Result<(), StoreError> {
        for batch in downloads.chunks(PUBLISH_BATCH) {
            let (mut whole, mut whole_came_for) = (Vec::new(), Vec::new());
            for download in batch {
                let (hash, came_for) = (download.partial.hash(), download.came_for());
                let staged = match download.partial.finish() {
                    Err(ContentError::Damaged { hash: base, range }) => {
                        // What it was to be made from: without it all is fetched.
                        self.damaged(&base.into())?;
                        return Err(ContentError::Damaged { hash: base, range }.into());
                    }
                    staged => staged?,
                };
                if !staged.is_overlay() {
                    whole.push(staged);
                    whole_came_for.push(came_for);
                    continue;
                }
                if self.publish_overlay(staged, came_for)?.is_none() {
                    return Err(ContentError::Ended(hash).into());
                }
                // Its files, if it was imported meanwhile.
                self.dir.remove_partial(&hash)?;
            }
            self.publish_for(whole, &whole_came_for)?;
        }
        Ok(())
    }

    pub fn hold(&self, replica: &ReplicaId, hash: &Hash) -> Result<bool, StoreError> {
        let mut held = false;
        self.core.engine().write(&mut |rows| {
            if let Some(replica) = names::find_replica(rows, replica)? {
                held = rows::hold_if_here(rows, replica, hash)?;
            }
            Ok(())
        })?;
        Ok(held)
    }

    pub fn damaged(&self, hash: &Hash) -> Result<(), StoreError> {
        let row = ContentRow::load(&self.core.engine().snapshot()?, hash)?;
        let mut turns = 0..MAX_TURNS;
        loop {
            let mut standing = Vec::new();
            self.core.engine().write(&mut |rows| {
                standing = rows::standing_on(rows, hash)?;
                if standing.is_empty() { rows::put_missing(rows, hash) } else { Ok(()) }
            })?;
            if standing.is_empty() {
                break;
            }
            if turns.next().is_none() {
                return Err(corrupt("what stands on a content"));
            }
            // Most of them can be read still: what is damaged they may have themselves.
            standing.iter().try_for_each(|hash| self.stand_alone(hash))?;
        }
        // Which of its two files was damaged nobody said.
        match row {
            Some(ContentRow::Complete { over: Some(over), .. }) if self.is_damaged(&over.base.into())? => {
                self.damaged(&over.base.into())
            }
            _ => Ok(()),
        }
    }

    /// Gives a file of its own to what stands on another content; what cannot be read is not here any more.
    fn stand_alone(&self, hash: &Hash) -> Result<(), StoreError> {
        let _pin = self.pins.pin(*hash);
        let copied =
            self.reader(hash).and_then(|reader| Ok(reader.map(|reader| self.dir.stage_copy(&reader)).transpose()?));
        match copied {
            Ok(Some(staged)) => self.publish(staged).map(drop),
            Ok(None) => Ok(()),
            Err(error) if is_damage(&error) => self.core.engine().write(&mut |rows| rows::put_missing(rows, hash)),
            Err(error) => Err(error),
        }
    }

    /// Reads all of it.
    fn is_damaged(&self, hash: &Hash) -> Result<bool, StoreError> {
        let read = self.reader(hash).and_then(|reader| match reader {
            Some(reader) => Ok(reader.read(0..reader.len())?.try_for_each(|bytes| bytes.map(drop))?),
            None => Ok(()),
        });
        match read {
            Ok(()) => Ok(false),
            Err(error) if is_damage(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Removes content that nobody refers to or pins.
    pub fn collect(&self) -> Result<u64, StoreError> {
        let mut from = None;
        loop {
            let candidates = rows::doomed(&self.core.engine().snapshot()?, from.as_ref(), COLLECT_BATCH)?;
            let Some(last) = candidates.last() else { return Ok(0) };
            from = Some(*last);
            let removed = self.collect_from(&candidates)?;
            if removed > 0 {
                return Ok(removed);
            }
            // All of them are pinned or referenced: look at the next.
        }
    }

    fn collect_from(&self, candidates: &[Hash]) -> Result<u64, StoreError> {
        // Nobody pins from the decision to the last unlink, so no import or download can be
        // writing under a name that is about to go. An entry that comes to refer to one of them
        // is a transaction before this one, which then spares it, or after it, which then wants it.
        let collecting = self.pins.collecting();
        let (mut gone, mut count) = (Vec::new(), 0);
        self.core.engine().write(&mut |rows| {
            for hash in candidates {
                if rows::is_needed(rows, hash)? {
                    rows::spare(rows, hash)?;
                } else if !self.pins.is_pinned(hash) {
                    count += u64::from(ContentRow::load(rows, hash)?.is_some());
                    rows::remove(rows, hash)?;
                    gone.push(*hash);
                }
            }
            Ok(())
        })?;
        for hash in &gone {
            let hash = (*hash).into();
            self.dir.remove(&hash)?;
            self.dir.remove_partial(&hash)?;
        }
        drop(collecting);
        Ok(count)
    }
}

/// A content that came for a replica, if it was one, is here.
fn came(rows: &mut dyn EngineWrite, hash: &Hash, came_for: CameFor) -> Result<(), StoreError> {
    if let CameFor::One(replica) = came_for
        && let Some(replica) = names::find_replica(rows, &replica)?
    {
        rows::hold_if_here(rows, replica, hash)?;
    }
    Ok(())
}

fn is_damage(error: &StoreError) -> bool {
    matches!(error, StoreError::Content(error) if matches!(**error, ContentError::Damaged { .. }))
}

/// Joins what is staged at the same time into one batch of syncs and one transaction. Whoever
/// comes first publishes for all that wait.
#[derive(Debug, Default)]
struct Publisher {
    waiting: Mutex<Vec<Waiting>>,
    turn: Mutex<()>,
}

type Waiting = (Staged, mpsc::Sender<Result<Published, StoreError>>);

impl Publisher {
    fn publish(
        &self,
        staged: Staged,
        publish_all: impl Fn(Vec<Staged>) -> Result<Vec<Published>, StoreError>,
    ) -> Result<Published, StoreError> {
        let (sender, receiver) = mpsc::channel();
        self.waiting().push((staged, sender));
        loop {
            let _turn = self.turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            match receiver.try_recv() {
                Ok(result) => return result,
                Err(mpsc::TryRecvError::Empty) => {}
                // Whoever published it panicked.
                Err(mpsc::TryRecvError::Disconnected) => return Err(StoreError::Failed("an import was lost".into())),
            }
            let batch: Vec<Waiting> = {
                let mut waiting = self.waiting();
                let count = waiting.len().min(PUBLISH_BATCH);
                waiting.drain(..count).collect()
            };
            let (batch, senders): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            match publish_all(batch) {
                Ok(published) => {
                    for (sender, published) in senders.iter().zip(published) {
                        let _ = sender.send(Ok(published));
                    }
                }
                Err(error) => {
                    for sender in &senders {
                        let _ = sender.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().expect("nothing panics while it holds the queue")
    }
}
