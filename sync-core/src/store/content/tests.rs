//! The keeper over the smallest engine: a map behind a lock.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use sync_content::{ContentDir, GROUP_LEN, MemoryDisk};

use super::{Begun, ContentKeeper, ContentStatus, Reference, Want, refer, unrefer};
use crate::{
    model::{Hash, PublicKey},
    store::{
        Core, Engine, EngineRead, EngineWrite, Scan, StoreError, Visit, Work,
        rows::{KeyNo, ReplicaNo, entry_key, replica_key},
    },
};

/// A map behind a lock.
#[derive(Debug, Clone, Default)]
pub(crate) struct MapEngine {
    committed: Arc<RwLock<Arc<Rows>>>,
    writing: Arc<Mutex<()>>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Rows(BTreeMap<Vec<u8>, Vec<u8>>);

impl Engine for MapEngine {
    type Snapshot = Arc<Rows>;

    fn snapshot(&self) -> Result<Arc<Rows>, StoreError> {
        Ok(Arc::clone(&self.committed.read().unwrap()))
    }

    fn write(&self, work: Work<'_>) -> Result<(), StoreError> {
        let _one = self.writing.lock().unwrap();
        let mut rows = Rows::clone(&*self.snapshot()?);
        work(&mut rows)?;
        *self.committed.write().unwrap() = Arc::new(rows);
        Ok(())
    }
}

impl EngineRead for Arc<Rows> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Rows::get(self, key)
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, order: Scan, visit: Visit<'_>) -> Result<(), StoreError> {
        Rows::scan(self, start, end, order, visit)
    }
}

impl EngineRead for Rows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, _: Scan, visit: Visit<'_>) -> Result<(), StoreError> {
        for (key, value) in self.0.range(start.to_vec()..) {
            if end.is_some_and(|end| &key[..] >= end) || visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl EngineWrite for Rows {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.0.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.0.remove(key);
        Ok(())
    }
}

/// An entry refers to `hash`.
pub(crate) fn refer_to(engine: &MapEngine, hash: Hash, len: u64) {
    let entry = slot(&hash.0);
    engine.write(&mut |rows| refer(rows, &Reference { hash, len, entry: &entry })).unwrap();
}

struct Store {
    engine: MapEngine,
    keeper: ContentKeeper<MapEngine>,
}

impl Store {
    fn open(engine: MapEngine, disk: &MemoryDisk) -> Self {
        let core = Arc::new(Core::open(engine.clone(), [1; 32]).unwrap());
        let dir = ContentDir::open_on(Arc::new(disk.clone()), "/").unwrap();
        Self { engine, keeper: ContentKeeper::open(core, dir).unwrap() }
    }

    fn new() -> Self {
        Self::open(MapEngine::default(), &MemoryDisk::new())
    }

    /// An entry at `key` refers to `hash`, in place of one that referred to `old`.
    fn put(&self, key: &[u8], hash: Hash, len: u64, old: Option<Hash>) {
        let entry = slot(key);
        self.engine
            .write(&mut |rows| {
                if let Some(old) = old {
                    unrefer(rows, &Reference { hash: old, len: 0, entry: &entry })?;
                }
                refer(rows, &Reference { hash, len, entry: &entry })
            })
            .unwrap();
    }

    fn drop_entry(&self, key: &[u8], hash: Hash) {
        let entry = slot(key);
        self.engine.write(&mut |rows| unrefer(rows, &Reference { hash, len: 0, entry: &entry })).unwrap();
    }

    fn wants(&self) -> Vec<Want> {
        self.keeper.wants(None, 100).unwrap()
    }

    fn status(&self, hash: Hash) -> ContentStatus {
        self.keeper.status(&hash).unwrap()
    }

    fn read(&self, hash: Hash) -> Vec<u8> {
        let reader = self.keeper.reader(&hash).unwrap().expect("it is here");
        reader.read_to_vec(0..reader.len()).unwrap()
    }

    fn collect_all(&self) -> u64 {
        std::iter::from_fn(|| Some(self.keeper.collect().unwrap()).filter(|count| *count > 0)).sum()
    }
}

fn slot(key: &[u8]) -> Vec<u8> {
    entry_key::value(ReplicaNo(1), &[&[2], key].concat(), KeyNo(1))
}

fn bytes(number: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn hash_of(bytes: &[u8]) -> Hash {
    blake3::hash(bytes).into()
}

#[test]
fn b70_a_want_lives_as_long_as_its_references_and_ends_with_the_content() {
    let store = Store::new();
    let content = bytes(1, 50_000);
    let hash = hash_of(&content);
    assert_eq!(store.status(hash), ContentStatus::Missing);
    store.put(b"a", hash, 50_000, None);
    store.put(b"b", hash, 50_000, None);
    assert_eq!(store.wants(), [Want { hash, len: 50_000 }]);
    store.drop_entry(b"a", hash);
    assert_eq!(store.wants().len(), 1, "b still refers to it");
    store.drop_entry(b"b", hash);
    assert!(store.wants().is_empty());
    store.put(b"c", hash, 50_000, None);
    let imported = store.keeper.import_bytes(&content).unwrap();
    assert_eq!((imported.hash, imported.len), (hash, 50_000));
    assert!(store.wants().is_empty());
    assert_eq!(store.status(hash), ContentStatus::Complete { len: 50_000 });
    store.put(b"d", hash, 50_000, None);
    assert!(store.wants().is_empty(), "it is here already");
}

#[test]
fn wants_are_read_page_by_page() {
    let store = Store::new();
    for number in 0..10 {
        store.put(&[number], Hash([number; 32]), 1, None);
    }
    let first = store.keeper.wants(None, 4).unwrap();
    let second = store.keeper.wants(Some(&first[3].hash), 100).unwrap();
    assert_eq!((first.len(), second.len()), (4, 6));
    assert_eq!(second[0].hash, Hash([4; 32]));
}

#[test]
fn b72_unreferenced_content_is_collected_and_pinned_or_referenced_is_not() {
    let store = Store::new();
    let imported = store.keeper.import_bytes(&bytes(1, 40_000)).unwrap();
    let hash = imported.hash;
    assert_eq!(store.collect_all(), 0, "pinned");
    store.put(b"a", hash, 40_000, None);
    drop(imported);
    assert_eq!(store.collect_all(), 0, "referenced");
    let other = store.keeper.import_bytes(&bytes(2, 40_000)).unwrap();
    store.put(b"a", other.hash, 40_000, Some(hash));
    assert_eq!(store.collect_all(), 1, "overwritten");
    assert_eq!(store.status(hash), ContentStatus::Missing);
    assert!(store.keeper.reader(&hash).unwrap().is_none());
    assert_eq!(store.read(other.hash), bytes(2, 40_000));
    // One that nobody ever referred to, too.
    let forgotten = store.keeper.import_bytes(&bytes(3, 40_000)).unwrap().hash;
    assert_eq!(store.collect_all(), 1);
    assert_eq!(store.status(forgotten), ContentStatus::Missing);
}

#[test]
fn b70_a_download_resumes_after_a_restart_and_has_one_owner() {
    let (theirs, disk) = (Store::new(), MemoryDisk::new());
    let ours = Store::open(MapEngine::default(), &disk);
    let len = 10 * GROUP_LEN;
    let hash = theirs.keeper.import_bytes(&bytes(1, len)).unwrap().hash;
    theirs.put(b"x", hash, len, None);
    let server = theirs.keeper.reader(&hash).unwrap().unwrap();
    ours.put(b"a", hash, len, None);
    {
        let Begun::Ours(download) = ours.keeper.begin_download(&hash, len).unwrap() else { panic!() };
        assert!(matches!(ours.keeper.begin_download(&hash, len).unwrap(), Begun::Busy));
        let mut claim = download.partial().claim(4).unwrap();
        server.encode(claim.groups().into()).unwrap().for_each(|piece| {
            claim.push(&piece.unwrap()).unwrap();
        });
        ours.keeper.checkpoint_download(download.partial()).unwrap();
        assert_eq!(ours.collect_all(), 0);
    }
    let ours = Store::open(ours.engine, &disk);
    assert_eq!(ours.wants().len(), 1);
    assert_eq!(ours.status(hash), ContentStatus::Partial { len, have: 4 * GROUP_LEN });
    assert_eq!(ours.keeper.reader(&hash).unwrap().unwrap().here().count(), 4);
    let Begun::Ours(download) = ours.keeper.begin_download(&hash, len).unwrap() else { panic!() };
    assert_eq!(download.partial().missing().count(), 6, "nothing is asked for twice");
    while let Some(mut claim) = download.partial().claim(4) {
        server.encode(claim.groups().into()).unwrap().for_each(|piece| {
            claim.push(&piece.unwrap()).unwrap();
        });
    }
    let download = Arc::new(download);
    ours.keeper.finish_downloads(&[Arc::clone(&download)]).unwrap();
    assert!(ours.wants().is_empty());
    assert!(matches!(ours.keeper.begin_download(&hash, len).unwrap(), Begun::Busy));
    drop(download);
    assert!(matches!(ours.keeper.begin_download(&hash, len).unwrap(), Begun::Complete));
    assert_eq!(ours.read(hash), bytes(1, len));
}

#[test]
fn a_late_checkpoint_does_not_undo_what_became_complete() {
    let store = Store::new();
    let content = bytes(1, 3 * GROUP_LEN);
    let hash = hash_of(&content);
    store.put(b"a", hash, content.len() as u64, None);
    let Begun::Ours(download) = store.keeper.begin_download(&hash, content.len() as u64).unwrap() else { panic!() };
    let _pin = store.keeper.import_bytes(&content).unwrap();
    store.keeper.checkpoint_download(download.partial()).unwrap();
    assert_eq!(store.status(hash), ContentStatus::Complete { len: content.len() as u64 });
    assert_eq!(store.read(hash), content);
}

#[test]
fn another_claim_of_the_length_begins_anew() {
    let store = Store::new();
    let hash = Hash([5; 32]);
    store.put(b"a", hash, 100_000, None);
    let Begun::Ours(download) = store.keeper.begin_download(&hash, 100_000).unwrap() else { panic!() };
    store.keeper.checkpoint_download(download.partial()).unwrap();
    drop(download);
    let Begun::Ours(download) = store.keeper.begin_download(&hash, 200_000).unwrap() else { panic!() };
    assert_eq!(download.partial().len(), 200_000);
}

#[test]
fn damaged_content_is_wanted_again() {
    let disk = MemoryDisk::new();
    let store = Store::open(MapEngine::default(), &disk);
    let imported = store.keeper.import_bytes(&bytes(1, 40_000)).unwrap();
    store.put(b"a", imported.hash, 40_000, None);
    store.keeper.damaged(&imported.hash).unwrap();
    assert_eq!(store.wants(), [Want { hash: imported.hash, len: 40_000 }]);
    // The next import heals it.
    store.keeper.import_bytes(&bytes(1, 40_000)).unwrap();
    assert!(store.wants().is_empty());
    // A file that somebody removed is noticed at the next start.
    let name = blake3::Hash::from(imported.hash).to_hex();
    sync_content::Disk::remove(&disk, &Path::new("/").join(&name[..2]).join(name.as_str())).unwrap();
    let store = Store::open(store.engine.clone(), &disk);
    assert_eq!(store.wants().len(), 1);
}

#[test]
fn a_start_sweeps_files_without_a_row() {
    let disk = MemoryDisk::new();
    let dir = ContentDir::open_on(Arc::new(disk.clone()), "/").unwrap();
    dir.publish(vec![dir.stage_bytes(&bytes(1, 40_000)).unwrap()]).unwrap();
    let store = Store::open(MapEngine::default(), &disk);
    assert_eq!(dir.list().unwrap().len(), 0);
    let kept = store.keeper.import_bytes(&bytes(2, 40_000)).unwrap();
    store.put(b"a", kept.hash, 40_000, None);
    let store = Store::open(store.engine.clone(), &disk);
    assert_eq!(store.read(kept.hash), bytes(2, 40_000));
}

#[test]
fn referrers_are_named_by_replica_and_key() {
    let store = Store::new();
    let replica = PublicKey([9; 32]);
    store.engine.write(&mut |rows| rows.put(&replica_key(&replica), &1_u32.to_be_bytes())).unwrap();
    let hash = Hash([5; 32]);
    for key in [&b"a"[..], &[1, 0, 0, 7], &[255; 1024], &[0xff, 0, 0xff]] {
        store.put(key, hash, 1, None);
    }
    let found = store.keeper.references(&hash, 100).unwrap();
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|referrer| referrer.replica.0 == replica));
    assert!(found.iter().any(|referrer| referrer.key[..] == [1, 0, 0, 7]));
    assert_eq!(store.keeper.references(&hash, 2).unwrap().len(), 2);
}

#[test]
fn many_imports_at_once_share_transactions_and_all_arrive() {
    let store = Store::new();
    let hashes: Vec<Hash> = std::thread::scope(|scope| {
        let imports: Vec<_> = (0..64)
            .map(|number| {
                let store = &store;
                scope.spawn(move || {
                    let imported = store.keeper.import_bytes(&bytes(number, 20_000)).unwrap();
                    store.put(&number.to_be_bytes(), imported.hash, 20_000, None);
                    imported.hash
                })
            })
            .collect();
        imports.into_iter().map(|import| import.join().unwrap()).collect()
    });
    for (number, hash) in hashes.into_iter().enumerate() {
        assert_eq!(store.read(hash), bytes(number as u64, 20_000));
    }
}

/// The story: iroh-blobs' collector deleted tagged blobs, because it decided and deleted in two
/// steps. Here inserts and overwrites of few contents under few keys run against the collector
/// without pause; whatever an entry refers to must be readable.
#[test]
fn b72_ten_thousand_cycles_of_insert_overwrite_and_collection_lose_nothing() {
    const WRITERS: u64 = 4;
    const CYCLES: u64 = 2_500;
    const CONTENTS: u64 = 12;
    let store = Store::new();
    let contents: Vec<_> = (0..CONTENTS).map(|number| bytes(number, 17_000 + number)).collect();
    let hashes: Vec<_> = contents.iter().map(|content| hash_of(content)).collect();
    let writing = AtomicBool::new(true);
    let collected = std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut collected = 0;
            while writing.load(Ordering::Relaxed) {
                collected += store.keeper.collect().unwrap();
            }
            collected
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (store, contents, hashes) = (&store, &contents, &hashes);
                scope.spawn(move || {
                    let key = [writer as u8];
                    let mut old = None;
                    for cycle in 0..CYCLES {
                        let draw = blake3::hash(&[writer.to_le_bytes(), cycle.to_le_bytes()].concat());
                        let chosen = usize::from(draw.as_bytes()[0]) % contents.len();
                        let imported = store.keeper.import_bytes(&contents[chosen]).unwrap();
                        store.put(&key, imported.hash, imported.len, old.take());
                        drop(imported);
                        assert_eq!(
                            store.status(hashes[chosen]),
                            ContentStatus::Complete { len: contents[chosen].len() as u64 },
                            "writer {writer}, cycle {cycle}"
                        );
                        assert_eq!(store.read(hashes[chosen]), contents[chosen], "writer {writer}, cycle {cycle}");
                        old = Some(hashes[chosen]);
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        writing.store(false, Ordering::Relaxed);
        collector.join().unwrap()
    });
    assert!(collected > 500, "{collected} were collected: the race became too easy");
    store.collect_all();
    let left = (0..CONTENTS as usize).filter(|at| store.status(hashes[*at]) != ContentStatus::Missing).count();
    assert!(left as u64 <= WRITERS, "what nobody refers to is gone");
}
