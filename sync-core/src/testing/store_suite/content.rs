//! The cases about content: the contract of [`crate::store::ContentStore`].

use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use sync_content::GROUP_LEN;

use super::{
    StoreHarness,
    world::{World, delete, delete_prefix, key},
};
use crate::{
    model::{Hash, Op, Prefix, ReadScope, Value},
    store::{Begun, ContentStatus, OnProgress, Origin, Reader, ReplicaStore, Scope, Want},
    testing::{block_on, random::Random},
};

/// How many cycles of insert, overwrite and collection the race runs, over all its writers.
const CYCLES: u64 = 10_000;

const WRITERS: u64 = 4;

/// Few contents, so that the writers meet at the same ones.
const CONTENTS: u64 = 12;

fn bytes(number: u64, len: u64) -> Bytes {
    let mut bytes = vec![0; usize::try_from(len).expect("the suite's contents are small")];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn refer(at: &str, hash: Hash, len: u64) -> Op {
    Op::Put { key: key(at), value: Value::Blob { hash, len } }
}

async fn status(store: &dyn ReplicaStore, hash: Hash) -> ContentStatus {
    store.content_status(hash).await.expect("the status can be read")
}

async fn wants(store: &dyn ReplicaStore) -> Vec<Want> {
    store.wants(None, 100).await.expect("wants can be read")
}

/// Applies what is written here.
async fn write(world: &World, store: &dyn ReplicaStore, at: i64, ops: Vec<Op>) {
    let bundles = vec![world.commit(0, at, ops)];
    world.try_apply(store, bundles, Origin::Local, Vec::new()).await.expect("the store can apply");
}

async fn held(store: &dyn ReplicaStore, world: &World, hash: Hash) -> Option<Reader> {
    store.held_reader(world.replica, hash).await.expect("content can be opened")
}

async fn reader(store: &dyn ReplicaStore, hash: Hash) -> Option<Reader> {
    store.reader(hash).await.expect("content can be opened")
}

async fn collect_all(store: &dyn ReplicaStore) -> u64 {
    let mut total = 0;
    loop {
        match store.collect_content().await.expect("content can be collected") {
            0 => return total,
            count => total += count,
        }
    }
}

async fn references(store: &dyn ReplicaStore, world: &World, hash: Hash, scope: Scope) -> Vec<String> {
    let found = store.references(world.replica, hash, scope, 10).await.expect("references can be read");
    found.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
}

fn read_all(reader: &Reader) -> Vec<u8> {
    reader.read_to_vec(0..reader.len()).expect("what is here can be read")
}

/// Bytes and row are on disk when the import completes, and stay with the entry that refers to them.
pub async fn imported_content_survives<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let content = bytes(1, 3_000_000);
    let store = world.create(harness.open()).await;
    let imported = store.import_bytes(content.clone()).await.expect("it can be imported");
    assert_eq!(imported.hash, Hash::from(blake3::hash(&content)), "the hash is plain BLAKE3");
    write(&world, &*store, 0, vec![refer("a", imported.hash, imported.len)]).await;
    let hash = imported.hash;
    drop((imported, store));
    let store = harness.open();
    collect_all(&*store).await;
    assert_eq!(status(&*store, hash).await, ContentStatus::Complete { len: content.len() as u64 });
    assert_eq!(read_all(&reader(&*store, hash).await.expect("it is here")), content);
    assert!(wants(&*store).await.is_empty());
    assert!(held(&*store, &world, hash).await.is_some(), "so can its peers");
    assert_eq!(references(&*store, &world, hash, Scope::all()).await, ["a"]);
}

/// A want comes with its entry, survives a restart, and goes with the last entry.
pub async fn b70_a_want_is_as_durable_as_the_entry_that_wants<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    let want = Want { replica: world.replica, hash: Hash([7; 32]), len: 99_999, base: None };
    let ops = vec![refer("a/1", want.hash, want.len), refer("a/2", want.hash, want.len)];
    world.apply(&*store, vec![world.commit(0, 0, ops)]).await;
    assert_eq!(wants(&*store).await, [want]);
    drop(store);
    let store = harness.open();
    assert_eq!(wants(&*store).await, [want]);
    world.apply(&*store, vec![world.commit(0, 10, vec![delete("a/1")])]).await;
    assert_eq!(wants(&*store).await, [want], "another entry still refers to it");
    world.apply(&*store, vec![world.commit(0, 20, vec![delete_prefix("a/")])]).await;
    assert!(wants(&*store).await.is_empty());
}

/// However the last reference goes: overwritten, deleted, deleted by prefix, or with its replica.
pub async fn b72_unreferenced_content_is_collected<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    let mut hashes = Vec::new();
    for number in 0..5 {
        let imported = store.import_bytes(bytes(number, 20_000)).await.expect("it can be imported");
        let at = format!("k{number}");
        write(&world, &*store, number as i64, vec![refer(&at, imported.hash, imported.len)]).await;
        hashes.push(imported.hash);
    }
    assert_eq!(collect_all(&*store).await, 0, "all are referenced");
    let overwrite = Op::Put { key: key("k0"), value: Value::Inline(Bytes::from_static(b"x")) };
    let ops = vec![overwrite, delete("k1"), delete_prefix("k2")];
    world.apply(&*store, vec![world.commit(0, 100, ops)]).await;
    assert_eq!(collect_all(&*store).await, 3);
    for hash in &hashes[..3] {
        assert_eq!(status(&*store, *hash).await, ContentStatus::Missing);
        assert!(reader(&*store, *hash).await.is_none());
    }
    // Two references: the one that is left holds it.
    write(&world, &*store, 110, vec![refer("other", hashes[3], 20_000)]).await;
    world.apply(&*store, vec![world.commit(0, 120, vec![delete("k3")])]).await;
    assert_eq!(collect_all(&*store).await, 0);
    store.drop_replica(world.replica, Vec::new()).await.expect("a replica can be dropped");
    assert_eq!(collect_all(&*store).await, 2);
    assert!(wants(&*store).await.is_empty());
}

/// A download that was cut goes on where it was, and has one owner.
pub async fn b70_a_download_goes_on_at_its_checkpoint<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let (theirs, store) = (harness.another(), world.create(harness.open()).await);
    let len = 300 * GROUP_LEN + 5;
    let imported = theirs.import_bytes(bytes(1, len)).await.expect("it can be imported");
    let hash = imported.hash;
    let server = reader(&*theirs, hash).await.expect("it is there");
    world.apply(&*store, vec![world.commit(0, 0, vec![refer("a", hash, len)])]).await;
    let Begun::Ours(download) = store.begin_download(hash, len).await.expect("it can begin") else {
        panic!("nobody else downloads it")
    };
    let download = Arc::new(download);
    assert!(matches!(store.begin_download(hash, len).await, Ok(Begun::Busy)));
    for _ in 0..3 {
        let mut claim = download.partial().claim(50).expect("something is missing");
        download.comes_for(world.replica);
        for piece in server.encode(claim.groups().into()).expect("it is there") {
            claim.push(&piece.expect("it is well")).expect("it is proved");
        }
    }
    store.checkpoint_download(Arc::clone(&download)).await.expect("it can be made durable");
    drop((download, store));

    let store = harness.open();
    assert_eq!(status(&*store, hash).await, ContentStatus::Partial { len, have: 150 * GROUP_LEN });
    assert_eq!(reader(&*store, hash).await.expect("a part is here").here().count(), 150);
    let Begun::Ours(download) = store.begin_download(hash, len).await.expect("it can go on") else {
        panic!("nobody else downloads it")
    };
    assert_eq!(download.partial().missing().count(), 151, "nothing is asked for twice");
    download.comes_for(world.replica);
    while let Some(mut claim) = download.partial().claim(50) {
        for piece in server.encode(claim.groups().into()).expect("it is there") {
            claim.push(&piece.expect("it is well")).expect("it is proved");
        }
    }
    store.finish_downloads(vec![Arc::new(download)]).await.expect("it is complete");
    assert!(wants(&*store).await.is_empty());
    assert_eq!(read_all(&reader(&*store, hash).await.expect("it is here")), bytes(1, len));
    assert!(matches!(store.begin_download(hash, len).await, Ok(Begun::Complete)));
}

/// A replica's peers can have what was written into it or came for it; an entry from a peer that
/// names the hash of what another replica brought here holds nothing, and stays a want.
pub async fn b64_a_replica_holds_what_was_written_into_it_or_came_for_it<H: StoreHarness>(harness: &H) {
    let (owned, open) = (World::new(1), World::new(2));
    let store = open.create(owned.create(harness.open()).await).await;
    let len = 40_000;
    let imported = store.import_bytes(bytes(1, len)).await.expect("it can be imported");
    let hash = imported.hash;
    write(&owned, &*store, 0, vec![refer("secret", hash, len)]).await;
    drop(imported);
    open.apply(&*store, vec![open.commit(0, 0, vec![refer("planted", hash, len)])]).await;
    assert!(held(&*store, &owned, hash).await.is_some());
    assert!(held(&*store, &open, hash).await.is_none());
    assert_eq!(wants(&*store).await, [Want { replica: open.replica, hash, len, base: None }]);
    drop(store);
    let store = harness.open();
    assert!(held(&*store, &open, hash).await.is_none());
    assert!(matches!(store.begin_download(hash, len).await, Ok(Begun::Complete)), "the bytes need not move");
    // A peer of it proves that it has the bytes.
    assert!(store.hold_content(open.replica, hash).await.expect("a proof can be kept"));
    assert!(wants(&*store).await.is_empty());
    drop(store);
    let store = harness.open();
    assert_eq!(read_all(&held(&*store, &open, hash).await.expect("it was given to it")), bytes(1, len));
    // What the replica loses it does not hold any more, and dropped it holds nothing.
    open.apply(&*store, vec![open.commit(0, 10, vec![delete("planted")])]).await;
    assert_eq!(collect_all(&*store).await, 0, "the other replica refers to it");
    open.apply(&*store, vec![open.commit(0, 20, vec![refer("planted", hash, len)])]).await;
    assert!(held(&*store, &open, hash).await.is_none());
    store.drop_replica(owned.replica, Vec::new()).await.expect("a replica can be dropped");
    owned.create(Arc::clone(&store)).await;
    owned.apply(&*store, vec![owned.commit(0, 0, vec![refer("secret", hash, len)])]).await;
    assert!(held(&*store, &owned, hash).await.is_none());
    assert_eq!(store.count_wants(owned.replica, 10).await.expect("wants can be counted"), 1);
}

/// What an entry is about to replace is there while the new version is fetched: it may be made from it.
pub async fn an_older_version_is_not_collected_while_the_new_one_is_on_its_way<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    let (old, len) = (bytes(1, 40_000), 40_000);
    let imported = store.import_bytes(old.clone()).await.expect("it can be imported");
    let base = imported.hash;
    write(&world, &*store, 0, vec![refer("a", base, len)]).await;
    drop(imported);
    let want = Want { replica: world.replica, hash: Hash([7; 32]), len: 50_000, base: Some(base) };
    world.apply(&*store, vec![world.commit(0, 10, vec![refer("a", want.hash, want.len)])]).await;
    assert_eq!(wants(&*store).await, [want]);
    drop(store);
    let store = harness.open();
    assert_eq!(collect_all(&*store).await, 0);
    assert_eq!(wants(&*store).await, [want]);
    assert_eq!(read_all(&reader(&*store, base).await.expect("it is here")), old);
    world.apply(&*store, vec![world.commit(0, 20, vec![delete("a")])]).await;
    assert_eq!(collect_all(&*store).await, 1);
}

/// A file for an import, gone when it is dropped.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(content: &[u8]) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("syncline-store-suite-{}-{number}", std::process::id()));
        std::fs::write(&path, content).expect("there is a place for temporary files");
        Self(path)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // One that stays is in nobody's way.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// However much of it is taken from the older version: that may be replaced, collected, or come back.
pub async fn an_import_over_an_older_version_is_whole_whatever_becomes_of_that<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    let first = bytes(1, 3_000_000).to_vec();
    let mut second = first.clone();
    second[1_000_000..1_000_100].fill(7);
    let mut third = second.clone();
    third[2_000_000..2_000_100].fill(7);
    third.extend_from_slice(b"and more");
    let import = async |store: &dyn ReplicaStore, at, content: &[u8], older: Option<&[u8]>| {
        let file = TemporaryFile::new(content);
        let older = older.map(|older| Hash::from(blake3::hash(older)));
        let progress: OnProgress = Arc::new(|_| ControlFlow::Continue(()));
        let imported = store.import_path(file.0.clone(), older, progress).await.expect("it can be imported");
        assert_eq!(imported.hash, Hash::from(blake3::hash(content)));
        assert_eq!(imported.len, content.len() as u64);
        write(&world, store, at, vec![refer("a", imported.hash, imported.len)]).await;
    };
    let read = async |store: &dyn ReplicaStore, content: &[u8]| {
        let hash = blake3::hash(content).into();
        assert_eq!(status(store, hash).await, ContentStatus::Complete { len: content.len() as u64 });
        assert_eq!(read_all(&reader(store, hash).await.expect("it is here")), content);
        assert_eq!(read_all(&held(store, &world, hash).await.expect("its replica holds it")), content);
    };
    // What is not here is no help, and no error.
    import(&*store, 0, &first, Some(b"unknown")).await;
    import(&*store, 10, &second, Some(&first)).await;
    collect_all(&*store).await;
    drop(store);
    let store = harness.open();
    read(&*store, &second).await;
    import(&*store, 20, &third, Some(&second)).await;
    collect_all(&*store).await;
    drop(store);
    let store = harness.open();
    read(&*store, &third).await;
    assert!(held(&*store, &world, blake3::hash(&second).into()).await.is_none());
    // Back to the first.
    import(&*store, 30, &first, Some(&third)).await;
    collect_all(&*store).await;
    read(&*store, &first).await;
    world.apply(&*store, vec![world.commit(0, 40, vec![delete("a")])]).await;
    collect_all(&*store).await;
    for content in [first, second, third] {
        assert_eq!(status(&*store, blake3::hash(&content).into()).await, ContentStatus::Missing);
    }
}

/// References are those of one replica, inside of the scope that is asked for.
pub async fn references_stay_inside_the_scope<H: StoreHarness>(harness: &H) {
    let (world, other) = (World::new(1), World::new(2));
    let store = other.create(world.create(harness.open()).await).await;
    let hash = Hash([7; 32]);
    let ops = ["a/1", "a/2", "b"].map(|at| refer(at, hash, 99_999)).to_vec();
    world.apply(&*store, vec![world.commit(0, 0, ops)]).await;
    other.apply(&*store, vec![other.commit(0, 0, vec![refer("elsewhere", hash, 99_999)])]).await;
    assert_eq!(references(&*store, &world, hash, Scope::all()).await, ["a/1", "a/2", "b"]);
    assert_eq!(references(&*store, &other, hash, Scope::all()).await, ["elsewhere"]);
    let prefix = |text: &'static str| Prefix::new(text.as_bytes()).expect("it is short");
    let scope = |text| Scope::of(&ReadScope { prefixes: vec![prefix(text)] });
    assert_eq!(references(&*store, &world, hash, scope("a/")).await, ["a/1", "a/2"]);
    assert!(references(&*store, &world, hash, scope("c")).await.is_empty());
    assert!(references(&*store, &world, hash, Scope::nothing()).await.is_empty());
}

/// The story: iroh-blobs' collector decided and deleted in two steps, and took tagged blobs. Here
/// four writers insert and overwrite entries that refer to a few contents, while the collector
/// runs without pause: whatever an entry refers to must be readable.
pub async fn b72_referenced_content_is_never_collected<H: StoreHarness>(harness: &H) {
    let worlds: Vec<World> = (0..WRITERS).map(|number| World::new(number as u8 + 1)).collect();
    let store = harness.open();
    for world in &worlds {
        world.create(Arc::clone(&store)).await;
    }
    let contents: Vec<Bytes> = (0..CONTENTS).map(|number| bytes(number, 17_000 + number)).collect();
    let writing = AtomicBool::new(true);
    let cycles = AtomicU64::new(0);
    let collected = std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut collected = 0;
            while writing.load(Ordering::Relaxed) {
                collected += block_on(store.collect_content()).expect("content can be collected");
            }
            collected
        });
        let writers: Vec<_> = worlds
            .iter()
            .zip(0..)
            .map(|(world, number)| {
                let (store, contents, cycles) = (&*store, &contents, &cycles);
                let mut random = Random::new(number);
                scope.spawn(move || {
                    for at in 0.. {
                        if cycles.fetch_add(1, Ordering::Relaxed) >= CYCLES {
                            break;
                        }
                        block_on(cycle(store, world, at, random.pick(contents)));
                    }
                })
            })
            .collect();
        let ends: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        writing.store(false, Ordering::Relaxed);
        let collected = collector.join().expect("the collector ends");
        ends.into_iter().for_each(|end| end.expect("no writer lost anything"));
        collected
    });
    assert!(collected > 0, "{collected} were collected: the race became too easy");
    collect_all(&*store).await;
    let mut left = 0;
    for content in &contents {
        left += u64::from(status(&*store, blake3::hash(content).into()).await != ContentStatus::Missing);
    }
    assert!(left <= WRITERS, "what nobody refers to is gone");
}

async fn cycle(store: &dyn ReplicaStore, world: &World, at: i64, content: &Bytes) {
    let imported = store.import_bytes(content.clone()).await.expect("it can be imported");
    let hash = imported.hash;
    write(world, store, at, vec![refer("key", hash, imported.len)]).await;
    // From here on only the entry holds it.
    drop(imported);
    assert_eq!(status(store, hash).await, ContentStatus::Complete { len: content.len() as u64 }, "cycle {at}");
    let reader = reader(store, hash).await.expect("an entry refers to it");
    assert_eq!(read_all(&reader), content[..], "cycle {at}");
}

/// Status, reader, wants and references of what nobody knows: nothing, and nothing is made.
pub async fn reading_content_creates_nothing<H: StoreHarness>(harness: &H) {
    let store = harness.open();
    let hash = Hash([9; 32]);
    assert_eq!(status(&*store, hash).await, ContentStatus::Missing);
    assert!(reader(&*store, hash).await.is_none());
    assert!(wants(&*store).await.is_empty());
    let world = World::default();
    assert!(held(&*store, &world, hash).await.is_none());
    assert!(references(&*store, &world, hash, Scope::all()).await.is_empty());
    assert_eq!(store.count_wants(world.replica, 10).await.expect("wants can be counted"), 0);
    assert!(store.replicas().await.expect("replicas can be listed").is_empty());
    assert_eq!(collect_all(&*store).await, 0);
}
