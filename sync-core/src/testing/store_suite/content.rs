//! The cases about content: the contract of [`crate::store::ContentStore`].

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use sync_content::GROUP_LEN;

use super::{
    StoreHarness,
    world::{World, delete, delete_prefix, key},
};
use crate::{
    model::{Hash, Op, Value},
    store::{Begun, ContentStatus, Reader, ReplicaStore, Want},
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
    world.apply(&*store, vec![world.commit(0, 0, vec![refer("a", imported.hash, imported.len)])]).await;
    let hash = imported.hash;
    drop((imported, store));
    let store = harness.open();
    collect_all(&*store).await;
    assert_eq!(status(&*store, hash).await, ContentStatus::Complete { len: content.len() as u64 });
    assert_eq!(read_all(&reader(&*store, hash).await.expect("it is here")), content);
    assert!(wants(&*store).await.is_empty());
    let referrers = store.references(hash, 10).await.expect("references can be read");
    assert_eq!(referrers.len(), 1);
    assert_eq!((referrers[0].replica, &referrers[0].key[..]), (world.replica, &b"a"[..]));
}

/// A want comes with its entry, survives a restart, and goes with the last entry.
pub async fn b70_a_want_is_as_durable_as_the_entry_that_wants<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    let want = Want { hash: Hash([7; 32]), len: 99_999 };
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
        world.apply(&*store, vec![world.commit(0, number as i64, vec![refer(&at, imported.hash, imported.len)])]).await;
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
    world.apply(&*store, vec![world.commit(0, 110, vec![refer("other", hashes[3], 20_000)])]).await;
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
    assert!(collected > CYCLES / 100, "{collected} were collected: the race became too easy");
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
    world.apply(store, vec![world.commit(0, at, vec![refer("key", hash, imported.len)])]).await;
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
    assert!(store.references(hash, 10).await.expect("references can be read").is_empty());
    assert_eq!(collect_all(&*store).await, 0);
}
