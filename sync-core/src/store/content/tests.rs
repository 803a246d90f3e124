//! The keeper over the smallest engine: a map behind a lock.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use sync_content::{ContentDir, GROUP_LEN, GroupRanges, MemoryDisk, Overlay};

use super::{Begun, ContentKeeper, ContentStatus, Reference, Want, base, forget, refer, rows::ContentRow, unrefer};
use crate::{
    model::{Hash, PeerId, PublicKey, ReplicaId},
    store::{
        Core, Engine, EngineRead, EngineWrite, Origin, Scan, Scope, StoreError, Visit, Work,
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

/// The replica that entries belong to where nothing else is said.
pub(crate) const REPLICA: ReplicaId = ReplicaId(PublicKey([9; 32]));

/// A peer that entries come from.
const FROM_PEER: Origin = Origin::Peer(PeerId(PublicKey([8; 32])));

/// Another one.
pub(crate) const OTHER: ReplicaId = ReplicaId(PublicKey([7; 32]));

/// An entry of [`REPLICA`] or [`OTHER`] refers to `hash`.
pub(crate) fn refer_to(engine: &MapEngine, replica: ReplicaId, hash: Hash, len: u64, origin: Origin) {
    let entry = slot_of(if replica == REPLICA { 1 } else { 2 }, &hash.0);
    engine.write(&mut |rows| refer(rows, &Reference { hash, len, entry: &entry }, origin, None)).unwrap();
}

/// An entry of [`REPLICA`] from a peer refers to `new`, in place of one that referred to `old`.
pub(crate) fn replace(engine: &MapEngine, old: Hash, new: Hash, len: u64) {
    let entry = slot(&old.0);
    engine
        .write(&mut |rows| {
            let base = base(rows, ReplicaNo(1), &old)?;
            unrefer(rows, &Reference { hash: old, len: 0, entry: &entry })?;
            refer(rows, &Reference { hash: new, len, entry: &entry }, FROM_PEER, base)
        })
        .unwrap();
}

/// That entry goes.
pub(crate) fn unrefer_to(engine: &MapEngine, replica: ReplicaId, hash: Hash) {
    let entry = slot_of(if replica == REPLICA { 1 } else { 2 }, &hash.0);
    engine.write(&mut |rows| unrefer(rows, &Reference { hash, len: 0, entry: &entry })).unwrap();
}

/// Gives replicas their numbers.
pub(crate) fn number_replicas(engine: &MapEngine) {
    engine
        .write(&mut |rows| {
            rows.put(&replica_key(&REPLICA.0), &1_u32.to_be_bytes())?;
            rows.put(&replica_key(&OTHER.0), &2_u32.to_be_bytes())
        })
        .unwrap();
}

struct Store {
    engine: MapEngine,
    keeper: ContentKeeper<MapEngine>,
}

impl Store {
    fn open(engine: MapEngine, disk: &MemoryDisk) -> Self {
        number_replicas(&engine);
        let core = Arc::new(Core::open(engine.clone(), [1; 32]).unwrap());
        let dir = ContentDir::open_on(Arc::new(disk.clone()), "/").unwrap();
        Self { engine, keeper: ContentKeeper::open(core, dir).unwrap() }
    }

    fn new() -> Self {
        Self::open(MapEngine::default(), &MemoryDisk::new())
    }

    /// An entry from a peer, in a replica, at `key`.
    fn receive(&self, replica: u32, key: &[u8], hash: Hash, len: u64) {
        let entry = slot_of(replica, key);
        self.engine.write(&mut |rows| refer(rows, &Reference { hash, len, entry: &entry }, FROM_PEER, None)).unwrap();
    }

    /// An entry that is written here, at `key`, refers to `hash`, in place of one that referred to `old`.
    fn put(&self, key: &[u8], hash: Hash, len: u64, old: Option<Hash>) {
        let entry = slot(key);
        self.engine
            .write(&mut |rows| {
                if let Some(old) = old {
                    unrefer(rows, &Reference { hash: old, len: 0, entry: &entry })?;
                }
                refer(rows, &Reference { hash, len, entry: &entry }, Origin::Local, None)
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
    slot_of(1, key)
}

fn slot_of(replica: u32, key: &[u8]) -> Vec<u8> {
    entry_key::value(ReplicaNo(replica), &[&[2], key].concat(), KeyNo(1))
}

fn want(hash: Hash, len: u64) -> Want {
    Want { replica: REPLICA, hash, len, base: None }
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
    assert_eq!(store.wants(), [want(hash, 50_000)]);
    store.drop_entry(b"a", hash);
    assert_eq!(store.wants().len(), 1, "b still refers to it");
    store.drop_entry(b"b", hash);
    assert!(store.wants().is_empty());
    store.put(b"c", hash, 50_000, None);
    let imported = store.keeper.import_bytes(&content).unwrap();
    assert_eq!((imported.hash, imported.len), (hash, 50_000));
    assert_eq!(store.wants().len(), 1, "that it is here says nothing about this replica");
    assert_eq!(store.status(hash), ContentStatus::Complete { len: 50_000 });
    store.put(b"d", hash, 50_000, None);
    assert!(store.wants().is_empty(), "it was written into it");
}

#[test]
fn wants_are_read_page_by_page() {
    let store = Store::new();
    for number in 0..10 {
        store.put(&[number], Hash([number; 32]), 1, None);
    }
    let first = store.keeper.wants(None, 4).unwrap();
    let second = store.keeper.wants(Some(&first[3]), 100).unwrap();
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
    ours.receive(1, b"a", hash, len);
    {
        let Begun::Ours(download) = ours.keeper.begin_download(&hash, len).unwrap() else { panic!() };
        assert!(matches!(ours.keeper.begin_download(&hash, len).unwrap(), Begun::Busy));
        let mut claim = download.partial().claim(4).unwrap();
        download.comes_for(REPLICA);
        server.encode(claim.groups().into()).unwrap().for_each(|piece| {
            claim.push(&piece.unwrap()).unwrap();
        });
        ours.keeper.checkpoint_download(&download).unwrap();
        assert_eq!(ours.collect_all(), 0);
    }
    let ours = Store::open(ours.engine, &disk);
    assert_eq!(ours.wants().len(), 1);
    assert_eq!(ours.status(hash), ContentStatus::Partial { len, have: 4 * GROUP_LEN });
    assert_eq!(ours.keeper.reader(&hash).unwrap().unwrap().here().count(), 4);
    let Begun::Ours(download) = ours.keeper.begin_download(&hash, len).unwrap() else { panic!() };
    download.comes_for(REPLICA);
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
    store.keeper.checkpoint_download(&download).unwrap();
    assert_eq!(store.status(hash), ContentStatus::Complete { len: content.len() as u64 });
    assert_eq!(store.read(hash), content);
}

#[test]
fn another_claim_of_the_length_begins_anew() {
    let store = Store::new();
    let hash = Hash([5; 32]);
    store.put(b"a", hash, 100_000, None);
    let Begun::Ours(download) = store.keeper.begin_download(&hash, 100_000).unwrap() else { panic!() };
    store.keeper.checkpoint_download(&download).unwrap();
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
    assert_eq!(store.wants(), [want(imported.hash, 40_000)]);
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
fn references_are_named_by_their_keys_and_stay_inside_the_scope() {
    let store = Store::new();
    let hash = Hash([5; 32]);
    let keys = [&b"a"[..], &[1, 0, 0, 7], &[255; 1024], &[0xff, 0, 0xff]];
    for key in keys {
        store.put(key, hash, 1, None);
    }
    store.receive(2, b"elsewhere", hash, 1);
    let references = |replica, scope: &Scope, limit| store.keeper.references(&replica, &hash, scope, limit).unwrap();
    let found = references(REPLICA, &Scope::all(), 100);
    assert_eq!(found.len(), 4);
    assert!(keys.iter().all(|key| found.iter().any(|found| found[..] == **key)));
    assert_eq!(references(REPLICA, &Scope::all(), 2).len(), 2);
    assert!(references(REPLICA, &Scope::nothing(), 2).is_empty());
    assert!(references(ReplicaId(PublicKey([1; 32])), &Scope::all(), 2).is_empty());
    let prefix = crate::model::Prefix::new(&[0xff_u8][..]).unwrap();
    let scope = Scope::of(&crate::model::ReadScope { prefixes: vec![prefix] });
    assert_eq!(references(REPLICA, &scope, 100).len(), 2);
}

/// The story: whoever may write to one replica and knows the hash of a content in another wrote an
/// entry that refers to it, and was served what the node had.
#[test]
fn b64_a_planted_reference_holds_nothing_and_wants() {
    let store = Store::new();
    let secret = store.keeper.import_bytes(&bytes(1, 40_000)).unwrap();
    let hash = secret.hash;
    store.put(b"secret", hash, 40_000, None);
    drop(secret);
    assert!(store.keeper.held_reader(&REPLICA, &hash).unwrap().is_some());
    store.receive(2, b"planted", hash, 40_000);
    assert!(store.keeper.held_reader(&OTHER, &hash).unwrap().is_none());
    assert_eq!(store.wants(), [Want { replica: OTHER, hash, len: 40_000, base: None }]);
    // Not by another import of the same bytes, nor because the content was damaged and came back.
    let again = store.keeper.import_bytes(&bytes(1, 40_000)).unwrap();
    store.put(b"again", hash, 40_000, None);
    store.keeper.damaged(&hash).unwrap();
    assert_eq!(store.wants().len(), 2);
    drop(store.keeper.import_bytes(&bytes(1, 40_000)).unwrap());
    assert_eq!(store.wants().len(), 1);
    drop(again);
    assert!(store.keeper.held_reader(&OTHER, &hash).unwrap().is_none());
    // Until a peer of it proves that it has it.
    assert!(store.keeper.hold(&OTHER, &hash).unwrap());
    assert!(store.wants().is_empty());
    assert!(store.keeper.held_reader(&OTHER, &hash).unwrap().is_some());
    assert!(!store.keeper.hold(&OTHER, &Hash([1; 32])).unwrap(), "what is not here is held by nobody");
}

#[test]
fn b64_what_left_a_replica_does_not_come_back_with_a_planted_reference() {
    let store = Store::new();
    let hash = store.keeper.import_bytes(&bytes(1, 40_000)).unwrap().hash;
    store.put(b"a", hash, 40_000, None);
    store.receive(2, b"b", hash, 40_000);
    store.drop_entry(b"a", hash);
    // A rename is no loss.
    store.receive(1, b"c", hash, 40_000);
    assert!(store.keeper.held_reader(&REPLICA, &hash).unwrap().is_some());
    store.drop_entry(b"c", hash);
    assert_eq!(store.collect_all(), 0, "the other replica refers to it");
    store.receive(1, b"planted", hash, 40_000);
    assert!(store.keeper.held_reader(&REPLICA, &hash).unwrap().is_none());
    assert_eq!(store.wants().len(), 2);
    // With the replica at once.
    store.keeper.hold(&REPLICA, &hash).unwrap();
    let entry = slot(b"planted");
    store.engine.write(&mut |rows| forget(rows, &Reference { hash, len: 0, entry: &entry })).unwrap();
    store.receive(1, b"planted", hash, 40_000);
    assert!(store.keeper.held_reader(&REPLICA, &hash).unwrap().is_none());
}

#[test]
fn an_older_version_stays_until_the_new_one_is_here_or_gone() {
    let store = Store::new();
    let old = store.keeper.import_bytes(&bytes(1, 40_000)).unwrap().hash;
    refer_to(&store.engine, REPLICA, old, 40_000, Origin::Local);
    let (second, third) = (Hash([2; 32]), hash_of(&bytes(3, 40_000)));
    replace(&store.engine, old, second, 50_000);
    assert_eq!(store.wants(), [Want { base: Some(old), ..want(second, 50_000) }]);
    // A third version before the second came: still the first is what is here.
    let entry = slot(&old.0);
    store
        .engine
        .write(&mut |rows| {
            let base = base(rows, ReplicaNo(1), &second)?;
            unrefer(rows, &Reference { hash: second, len: 0, entry: &entry })?;
            refer(rows, &Reference { hash: third, len: 40_000, entry: &entry }, FROM_PEER, base)
        })
        .unwrap();
    assert_eq!(store.wants(), [Want { base: Some(old), ..want(third, 40_000) }]);
    assert_eq!(store.collect_all(), 0);
    assert_eq!(store.read(old), bytes(1, 40_000));
    // It comes, and the old one goes.
    let pin = store.keeper.import_bytes(&bytes(3, 40_000)).unwrap();
    assert!(store.keeper.hold(&REPLICA, &third).unwrap());
    drop(pin);
    assert_eq!(store.collect_all(), 1);
    assert_eq!(store.status(old), ContentStatus::Missing);
    // Or nobody wants it any more.
    replace(&store.engine, third, second, 50_000);
    assert_eq!(store.wants().len(), 1, "another slot than the one of the third");
    unrefer_at(&store.engine, &entry, third);
    assert_eq!(store.collect_all(), 0);
    unrefer_at(&store.engine, &slot(&third.0), second);
    assert_eq!(store.collect_all(), 1);
}

/// Large enough to stand on another: 200 groups and a bit.
fn large() -> Vec<u8> {
    bytes(1, 200 * GROUP_LEN + 5)
}

/// The same with other bytes in these groups.
fn changed(content: &[u8], groups: std::ops::Range<u64>) -> Vec<u8> {
    let mut changed = content.to_vec();
    for group in groups {
        changed[(group * GROUP_LEN) as usize] ^= 0x55;
    }
    changed
}

impl Store {
    fn import(&self, content: &[u8], older: Option<Hash>) -> Hash {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let imported = self.keeper.import_path(file.path(), older.as_ref(), &mut sync_content::quiet).unwrap();
        assert_eq!(imported.hash, hash_of(content));
        imported.hash
    }

    /// Imported over what is at a key, and put there.
    fn put_over(&self, key: &[u8], content: &[u8], older: Option<Hash>) -> Hash {
        let hash = self.import(content, older);
        self.put(key, hash, content.len() as u64, older);
        hash
    }

    /// What it stands on, and how many groups it has itself.
    fn stands(&self, hash: Hash) -> Option<(Hash, u64)> {
        match ContentRow::load(&self.engine.snapshot().unwrap(), &hash).unwrap() {
            Some(ContentRow::Complete { over, .. }) => over.map(|over| (over.base.into(), over.own.count())),
            row => panic!("{row:?} is not complete"),
        }
    }
}

#[test]
fn versions_stand_on_the_first_until_too_much_is_another_and_then_it_goes() {
    let disk = MemoryDisk::new();
    let store = Store::open(MapEngine::default(), &disk);
    let first = large();
    let second = changed(&first, 3..5);
    let third = changed(&second, 50..54);
    let fourth = changed(&third, 100..110);
    let a = store.put_over(b"a", &first, None);
    let b = store.put_over(b"a", &second, Some(a));
    // The last group has no neighbour, and is kept.
    assert_eq!(store.stands(b), Some((a, 3)));
    assert_eq!(store.collect_all(), 0, "the new one stands on the old one");
    let c = store.put_over(b"a", &third, Some(b));
    assert_eq!(store.stands(c), Some((a, 7)), "it does not stand on what stands on another");
    assert_eq!(store.collect_all(), 1);
    assert_eq!(store.status(b), ContentStatus::Missing);
    let store = Store::open(store.engine, &disk);
    assert_eq!(store.read(c), third);
    // A sixteenth of 201 groups is 12.
    let d = store.put_over(b"a", &fourth, Some(c));
    assert_eq!(store.stands(d), None);
    assert_eq!(store.collect_all(), 2);
    assert_eq!(store.read(d), fourth);
    assert_eq!(store.status(a), ContentStatus::Missing);
    // Two at once, and a sweep leaves neither without its base.
    let e = store.put_over(b"e", &changed(&fourth, 0..1), Some(d));
    let f = store.put_over(b"f", &changed(&fourth, 0..2), Some(d));
    store.drop_entry(b"a", d);
    store.drop_entry(b"e", d);
    store.drop_entry(b"f", d);
    let store = Store::open(store.engine, &disk);
    assert_eq!(store.read(e), changed(&fourth, 0..1));
    store.drop_entry(b"e", e);
    assert_eq!(store.collect_all(), 1);
    assert_eq!(store.read(f), changed(&fourth, 0..2));
    store.drop_entry(b"f", f);
    assert_eq!(store.collect_all(), 2);
    let files = ContentDir::open_on(Arc::new(disk), "/").unwrap().list().unwrap();
    assert!(files.is_empty(), "{files:?}");
}

#[test]
fn an_overlay_takes_nobodys_place_and_gives_its_own_to_a_whole_file() {
    let disk = MemoryDisk::new();
    let store = Store::open(MapEngine::default(), &disk);
    let (first, second) = (large(), changed(&large(), 3..5));
    let a = store.put_over(b"a", &first, None);
    let b = store.put_over(b"b", &second, None);
    // Both are here whole: neither comes to stand on the other, or on itself.
    for (content, hash, older) in [(&second, b, a), (&first, a, b), (&first, a, a)] {
        assert_eq!(store.import(content, Some(older)), hash);
        assert_eq!(store.stands(hash), None);
    }
    // As an overlay, and the same whole.
    let third = changed(&large(), 9..10);
    let c = store.put_over(b"c", &third, Some(a));
    assert_eq!(store.stands(c), Some((a, 2)));
    store.import(&third, Some(b));
    assert_eq!(store.stands(c), Some((a, 2)), "what is here stays as it is");
    store.import(&third, None);
    assert_eq!(store.stands(c), None);
    store.drop_entry(b"a", a);
    assert_eq!(store.collect_all(), 1);
    let store = Store::open(store.engine, &disk);
    assert_eq!(store.read(c), third);
    let files = ContentDir::open_on(Arc::new(disk), "/").unwrap().list().unwrap();
    assert_eq!(files.len(), 2, "the overlay's file is gone: {files:?}");
}

/// Where the bytes of a content are that has a file of its own.
fn file_of(hash: Hash) -> std::path::PathBuf {
    let name = blake3::Hash::from(hash).to_hex();
    Path::new("/").join(&name[..2]).join(name.as_str())
}

#[test]
fn what_rots_beneath_several_contents_is_lost_to_those_that_read_it() {
    for reported in [0, 1] {
        let disk = MemoryDisk::new();
        let store = Store::open(MapEngine::default(), &disk);
        let first = large();
        let (second, third) = (changed(&first, 3..5), changed(&first, 70..71));
        let a = store.put_over(b"a", &first, None);
        let b = store.import(&second, Some(a));
        store.put(b"b", b, second.len() as u64, None);
        let c = store.import(&third, Some(a));
        store.put(b"c", c, third.len() as u64, None);
        // Only the third has that group itself.
        assert!(disk.rot(&file_of(a), 70 * GROUP_LEN + 9, 1));
        store.keeper.damaged(&[a, b][reported]).unwrap();
        assert_eq!(store.status(a), ContentStatus::Missing);
        assert_eq!(store.status(b), ContentStatus::Missing);
        assert_eq!(store.wants().len(), 2);
        assert_eq!(store.stands(c), None);
        assert_eq!(store.read(c), third);
        // What was damaged is no help to the next import.
        let b = store.import(&second, Some(a));
        assert_eq!((store.stands(b), store.read(b)), (None, second.clone()));
    }
    // In its own file: the other is well, and stays.
    let disk = MemoryDisk::new();
    let store = Store::open(MapEngine::default(), &disk);
    let a = store.put_over(b"a", &large(), None);
    let b = store.import(&changed(&large(), 3..5), Some(a));
    store.put(b"b", b, large().len() as u64, None);
    let over = file_of(b).to_str().unwrap().to_owned() + ".over";
    assert!(disk.rot(Path::new(&over), 3 * GROUP_LEN, 1));
    assert!(store.keeper.reader(&b).unwrap().unwrap().read_to_vec(0..large().len() as u64).is_err());
    store.keeper.damaged(&b).unwrap();
    assert_eq!(store.status(b), ContentStatus::Missing);
    assert_eq!(store.read(a), large());
}

#[test]
fn what_stands_on_a_file_that_somebody_took_is_wanted_again() {
    let disk = MemoryDisk::new();
    let store = Store::open(MapEngine::default(), &disk);
    let a = store.put_over(b"a", &large(), None);
    let b = store.put_over(b"a", &changed(&large(), 3..5), Some(a));
    for file in [file_of(a), file_of(a).with_extension("outboard")] {
        sync_content::Disk::remove(&disk, &file).unwrap();
    }
    let store = Store::open(store.engine, &disk);
    assert_eq!(store.wants(), [want(b, large().len() as u64)]);
    store.collect_all();
    let store = Store::open(store.engine, &disk);
    assert!(ContentDir::open_on(Arc::new(disk), "/").unwrap().list().unwrap().is_empty());
    store.import(&changed(&large(), 3..5), None);
    assert!(store.wants().is_empty());
}

/// Fetches `content` with `older` for a base, and says how many bytes came.
fn fetch_over(store: &Store, content: &[u8], older: Hash) -> Result<u64, StoreError> {
    let (theirs, hash, len) = (Store::new(), hash_of(content), content.len() as u64);
    let _pin = theirs.keeper.import_bytes(content).unwrap();
    let server = theirs.keeper.reader(&hash).unwrap().unwrap();
    let Begun::Ours(download) = store.keeper.begin_download(&hash, len).unwrap() else { panic!() };
    download.comes_for(REPLICA);
    if let Some(older) = store.keeper.reader(&older).unwrap() {
        download.partial().reuse(older);
    }
    while let Some(mut claim) = download.partial().claim_tree(&GroupRanges::all(len), 64) {
        server.encode_tree(claim.groups().into()).unwrap().for_each(|piece| {
            claim.push(&piece.unwrap()).unwrap();
        });
    }
    let mut came = 0;
    while let Some(mut claim) = download.partial().claim(64) {
        server.encode(claim.groups().into()).unwrap().for_each(|piece| came += claim.push(&piece.unwrap()).unwrap());
    }
    // Served while it is not finished.
    let reader = download.partial().reader();
    assert!(reader.read_to_vec(0..len).map(|read| read == content).unwrap_or(true), "wrong bytes are never served");
    store.keeper.checkpoint_download(&download).unwrap();
    store.keeper.finish_downloads(&[Arc::new(download)]).map(|()| came)
}

#[test]
fn a_download_stands_on_the_older_version_and_is_held() {
    let disk = MemoryDisk::new();
    let store = Store::open(MapEngine::default(), &disk);
    let first = large();
    let a = store.put_over(b"a", &first, None);
    let second = changed(&first, 3..5);
    let b = hash_of(&second);
    replace_at(&store.engine, &slot(b"a"), a, b, second.len() as u64);
    assert_eq!(fetch_over(&store, &second, a).unwrap(), 2 * GROUP_LEN);
    assert_eq!(store.stands(b), Some((a, 2)));
    assert!(store.wants().is_empty());
    assert_eq!(store.collect_all(), 0);
    let store = Store::open(store.engine, &disk);
    assert_eq!(store.read(b), second);
    // The next is made from both: what the second has itself is copied.
    let third = changed(&second, 90..91);
    let c = hash_of(&third);
    replace_at(&store.engine, &slot(b"a"), b, c, third.len() as u64);
    assert_eq!(fetch_over(&store, &third, b).unwrap(), GROUP_LEN);
    assert_eq!(store.stands(c), Some((a, 3)));
    assert_eq!(store.collect_all(), 1);
    assert_eq!(store.read(c), third);
    // Too much is another: what is the same is copied.
    let fourth = changed(&third, 100..120);
    let d = hash_of(&fourth);
    replace_at(&store.engine, &slot(b"a"), c, d, fourth.len() as u64);
    assert_eq!(fetch_over(&store, &fourth, c).unwrap(), 20 * GROUP_LEN);
    assert_eq!(store.stands(d), None);
    assert_eq!(store.collect_all(), 2);
    assert_eq!(store.read(d), fourth);
}

#[test]
fn a_download_over_what_rotted_or_went_begins_again_without_it() {
    let disk = MemoryDisk::new();
    let store = Store::open(MapEngine::default(), &disk);
    let a = store.put_over(b"a", &large(), None);
    let second = changed(&large(), 3..33);
    let b = hash_of(&second);
    replace_at(&store.engine, &slot(b"a"), a, b, second.len() as u64);
    assert!(disk.rot(&file_of(a), 70 * GROUP_LEN + 9, 1));
    assert!(fetch_over(&store, &second, a).is_err(), "what is the same cannot be copied");
    assert_eq!(store.status(a), ContentStatus::Missing);
    assert_eq!(fetch_over(&store, &second, a).unwrap(), 170 * GROUP_LEN + 5, "30 groups were here");
    assert_eq!(store.read(b), second);
    // What it was to stand on goes before the last group is here.
    let third = changed(&second, 90..91);
    let c = hash_of(&third);
    replace_at(&store.engine, &slot(b"a"), b, c, third.len() as u64);
    let base = store.keeper.reader(&b).unwrap().unwrap();
    let Begun::Ours(download) = store.keeper.begin_download(&c, third.len() as u64).unwrap() else { panic!() };
    download.partial().reuse(base);
    let (theirs, all) = (Store::new(), GroupRanges::all(third.len() as u64));
    let _pin = theirs.keeper.import_bytes(&third).unwrap();
    let server = theirs.keeper.reader(&c).unwrap().unwrap();
    let mut claim = download.partial().claim_tree(&all, 1000).unwrap();
    server.encode_tree(all).unwrap().for_each(|piece| {
        claim.push(&piece.unwrap()).unwrap();
    });
    drop(claim);
    let mut claim = download.partial().claim(64).unwrap();
    server.encode(claim.groups().into()).unwrap().for_each(|piece| {
        claim.push(&piece.unwrap()).unwrap();
    });
    drop(claim);
    store.keeper.damaged(&b).unwrap();
    assert!(store.keeper.finish_downloads(&[Arc::new(download)]).is_err());
    assert_eq!(store.status(c), ContentStatus::Missing);
    assert_eq!(fetch_over(&store, &third, b).unwrap(), third.len() as u64);
    assert_eq!(store.read(c), third);
}

#[test]
fn the_row_of_an_overlay_has_one_form() {
    let over = Overlay { base: Hash([7; 32]).into(), own: (2..5).into() };
    let row = ContentRow::Complete { len: 1 << 24, outboard: Vec::new(), over: Some(over) };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let encoded = row.encode();
    assert_eq!(hex(&encoded), format!("030000000001000000{}01020500", "07".repeat(32)));
    assert_eq!(ContentRow::decode(&encoded).unwrap(), row);
    // Cut off, with more behind it, and with groups behind the end of its content.
    for wrong in [&encoded[..encoded.len() - 1], &[&encoded[..], &[0]].concat()] {
        assert!(matches!(ContentRow::decode(wrong), Err(StoreError::Corrupt(_))), "{wrong:?}");
    }
    let mut short = encoded.clone();
    short[1..9].copy_from_slice(&(4 * GROUP_LEN).to_be_bytes());
    assert!(matches!(ContentRow::decode(&short), Err(StoreError::Corrupt(_))));
}

/// An entry of a peer takes the place of another one.
fn replace_at(engine: &MapEngine, entry: &[u8], old: Hash, new: Hash, len: u64) {
    engine
        .write(&mut |rows| {
            let base = base(rows, ReplicaNo(1), &old)?;
            unrefer(rows, &Reference { hash: old, len: 0, entry })?;
            refer(rows, &Reference { hash: new, len, entry }, FROM_PEER, base)
        })
        .unwrap();
}

fn unrefer_at(engine: &MapEngine, entry: &[u8], hash: Hash) {
    engine.write(&mut |rows| unrefer(rows, &Reference { hash, len: 0, entry })).unwrap();
}

#[test]
fn b64_a_download_is_held_by_the_replica_for_which_all_of_it_came() {
    let (theirs, disk) = (Store::new(), MemoryDisk::new());
    let len = 10 * GROUP_LEN;
    let hash = theirs.keeper.import_bytes(&bytes(1, len)).unwrap().hash;
    theirs.put(b"x", hash, len, None);
    let server = theirs.keeper.reader(&hash).unwrap().unwrap();
    // One replica gives all, over a restart; or another gives a part.
    for (second, held) in [(REPLICA, true), (OTHER, false)] {
        let ours = Store::open(MapEngine::default(), &disk);
        ours.receive(1, b"a", hash, len);
        ours.receive(2, b"b", hash, len);
        let fetch = |store: &Store, replica, groups| {
            let Begun::Ours(download) = store.keeper.begin_download(&hash, len).unwrap() else { panic!() };
            let mut claim = download.partial().claim(groups).unwrap();
            download.comes_for(replica);
            server.encode(claim.groups().into()).unwrap().for_each(|piece| {
                claim.push(&piece.unwrap()).unwrap();
            });
            drop(claim);
            store.keeper.checkpoint_download(&download).unwrap();
            Arc::new(download)
        };
        drop(fetch(&ours, REPLICA, 5));
        assert!(ours.keeper.held_reader(&REPLICA, &hash).unwrap().is_some(), "a part can be served to its peers");
        assert!(ours.keeper.held_reader(&OTHER, &hash).unwrap().is_none(), "and to nobody else");
        let ours = Store::open(ours.engine, &disk);
        let download = fetch(&ours, second, 10);
        assert_eq!(ours.keeper.held_reader(&REPLICA, &hash).unwrap().is_some(), held);
        ours.keeper.finish_downloads(&[download]).unwrap();
        assert_eq!(ours.keeper.held_reader(&REPLICA, &hash).unwrap().is_some(), held);
        assert!(ours.keeper.held_reader(&OTHER, &hash).unwrap().is_none());
        assert_eq!(ours.keeper.count_wants(&REPLICA, 10).unwrap(), u64::from(!held));
        assert_eq!(ours.keeper.count_wants(&OTHER, 10).unwrap(), 1);
        assert_eq!(ours.read(hash), bytes(1, len), "here it can be read");
        ours.drop_entry(b"a", hash);
        let entry = slot_of(2, b"b");
        ours.engine.write(&mut |rows| unrefer(rows, &Reference { hash, len: 0, entry: &entry })).unwrap();
        assert_eq!(ours.collect_all(), 1);
    }
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
    assert!(collected > 0, "{collected} were collected: the race became too easy");
    store.collect_all();
    let left = (0..CONTENTS as usize).filter(|at| store.status(hashes[*at]) != ContentStatus::Missing).count();
    assert!(left as u64 <= WRITERS, "what nobody refers to is gone");
}
