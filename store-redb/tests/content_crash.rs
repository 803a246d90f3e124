//! Rows and content on two disks that lose their power at the same moment: whatever was acknowledged is there, and
//! rows and files agree. The order that this shows: content is on the disk before the row that speaks of it, and a
//! row is gone before its content.

mod disk;

use std::{
    ops::ControlFlow,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use disk::{Disk, Power};
use store_redb::{RedbEngine, RedbStore};
use sync_content::{GROUP_LEN, GroupRanges, MemoryDisk, groups::group_count};
use sync_core::{
    model::{Hash, Op, Value},
    store::{
        Apply, Begun, ContentDir, ContentStatus, ContentStore, EngineStore, OnProgress, Origin, Reader, ReplicaStore,
        StoreError,
    },
    testing::{
        block_on,
        random::Random,
        store_suite::world::{NOW, World, delete, key},
    },
};

fn open(rows: &Disk, content: &MemoryDisk) -> Result<RedbStore, StoreError> {
    let rows = rows.clone();
    let engine = RedbEngine::with_backend(move || Ok(rows.clone()))?;
    EngineStore::open_with(engine, [5; 32], ContentDir::open_on(Arc::new(content.clone()), "/")?)
}

fn bytes(number: u8, len: u64) -> Bytes {
    (0..len).map(|at| (at % 251) as u8 ^ number).collect()
}

/// The contents of the stories: three that are imported, one that is downloaded; and three versions of a large one.
fn contents() -> &'static [Bytes] {
    static CONTENTS: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
        let mut contents = vec![bytes(1, 20_000), bytes(2, 40_000), bytes(3, 17_000), bytes(4, 6 * GROUP_LEN + 9)];
        let mut version = bytes(5, 130 * GROUP_LEN).to_vec();
        for group in [0, 50, 90] {
            version[group * GROUP_LEN as usize] ^= 0xff;
            contents.push(version.clone().into());
        }
        contents
    });
    &CONTENTS
}

/// Which story is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tale {
    Contents,
    Versions,
}

fn hash(content: &Bytes) -> Hash {
    blake3::hash(content).into()
}

/// What was acknowledged.
#[derive(Debug, Default, Clone)]
struct Acknowledged {
    /// By name: the content that the entry refers to; and what the step under way may have done.
    entries: Vec<(&'static str, Option<Hash>)>,
    pending: Option<(&'static str, Option<Hash>)>,
    complete: Vec<Hash>,
    downloaded: u64,
}

struct Story<'a> {
    world: &'a World,
    store: &'a RedbStore,
    now: i64,
    acknowledged: &'a mut Acknowledged,
}

impl Story<'_> {
    async fn refer(&mut self, name: &'static str, content: Option<&Bytes>) -> Result<(), StoreError> {
        let op = match content {
            Some(content) => {
                Op::Put { key: key(name), value: Value::Blob { hash: hash(content), len: content.len() as u64 } }
            }
            None => delete(name),
        };
        self.now += 1;
        self.acknowledged.pending = Some((name, content.map(hash)));
        let bundles = vec![self.world.commit(0, self.now, vec![op])];
        let batch =
            Apply { replica: self.world.replica, bundles, origin: Origin::Local, now: NOW, records: Vec::new() };
        self.store.apply(batch).await?;
        self.acknowledged.pending = None;
        self.acknowledged.entries.retain(|(known, _)| *known != name);
        self.acknowledged.entries.push((name, content.map(hash)));
        Ok(())
    }

    async fn tell(&mut self, server: &Reader) -> Result<(), StoreError> {
        let contents = contents();
        self.store.create_replica(self.world.replica, Vec::new()).await?;
        for (name, content) in ["a", "b"].into_iter().zip(contents) {
            let imported = self.store.import_bytes(content.clone()).await?;
            self.acknowledged.complete.push(imported.hash);
            self.refer(name, Some(content)).await?;
        }
        // Wanted, and downloaded in parts.
        self.refer("d", Some(&contents[3])).await?;
        let Begun::Ours(download) = self.store.begin_download(server.hash().into(), server.len()).await? else {
            panic!("nobody else downloads it")
        };
        let download = Arc::new(download);
        download.comes_for(self.world.replica);
        while let Some(mut claim) = download.partial().claim(3) {
            for piece in server.encode(claim.groups().into()).expect("the server is well") {
                claim.push(&piece.expect("the server is well"))?;
            }
            self.store.checkpoint_download(download.clone()).await?;
            self.acknowledged.downloaded += 1;
        }
        self.store.finish_downloads(vec![download]).await?;
        self.acknowledged.complete.push(server.hash().into());
        // Overwritten, deleted, collected, and taken in again.
        self.refer("a", Some(&contents[1])).await?;
        self.refer("d", None).await?;
        while self.store.collect_content().await? > 0 {}
        let imported = self.store.import_bytes(contents[2].clone()).await?;
        self.acknowledged.complete.push(imported.hash);
        self.refer("c", Some(&contents[2])).await?;
        let again = self.store.import_bytes(contents[0].clone()).await?;
        self.acknowledged.complete.push(again.hash);
        self.refer("e", Some(&contents[0])).await
    }

    /// Before the power goes.
    async fn prepare_versions(&mut self) -> Result<(), StoreError> {
        self.store.create_replica(self.world.replica, Vec::new()).await?;
        let imported = self.store.import_bytes(contents()[4].clone()).await?;
        self.acknowledged.complete.push(imported.hash);
        self.refer("v", Some(&contents()[4])).await
    }

    /// The second version is imported over the first, which goes; the third is downloaded over both, and they go; and
    /// it is imported once more, whole.
    async fn tell_versions(&mut self, server: &Reader) -> Result<(), StoreError> {
        let [first, second, third] = [4, 5, 6].map(|at| &contents()[at]);
        let file = tempfile::NamedTempFile::new().expect("there is a place for temporary files");
        std::fs::write(file.path(), second).expect("it can be written");
        let progress: OnProgress = Arc::new(|_| ControlFlow::Continue(()));
        let imported = self.store.import_path(file.path().into(), Some(hash(first)), progress).await?;
        self.acknowledged.complete.push(imported.hash);
        self.refer("v", Some(second)).await?;
        drop(imported);
        while self.store.collect_content().await? > 0 {}
        self.refer("v", Some(third)).await?;
        let Begun::Ours(download) = self.store.begin_download(server.hash().into(), server.len()).await? else {
            panic!("nobody else downloads it")
        };
        let download = Arc::new(download);
        download.comes_for(self.world.replica);
        download.partial().reuse(self.store.reader(hash(second)).await?.expect("it is here"));
        while let Some(mut claim) = download.partial().claim_tree(&GroupRanges::all(server.len()), 64) {
            for piece in server.encode_tree(claim.groups().into()).expect("the server is well") {
                claim.push(&piece.expect("the server is well"))?;
            }
        }
        while let Some(mut claim) = download.partial().claim(3) {
            for piece in server.encode(claim.groups().into()).expect("the server is well") {
                claim.push(&piece.expect("the server is well"))?;
            }
            self.store.checkpoint_download(download.clone()).await?;
        }
        self.store.finish_downloads(vec![download]).await?;
        self.acknowledged.complete.push(server.hash().into());
        while self.store.collect_content().await? > 0 {}
        let again = self.store.import_bytes(third.clone()).await?;
        drop(again);
        while self.store.collect_content().await? > 0 {}
        self.refer("v", None).await?;
        while self.store.collect_content().await? > 0 {}
        assert_eq!(self.store.content_status(hash(first)).await?, ContentStatus::Missing);
        Ok(())
    }
}

/// What is found after a cut is what was acknowledged, and rows and files agree; and the story can be told again.
async fn check(store: &RedbStore, world: &World, told: &Acknowledged, server: &Reader) -> Result<(), StoreError> {
    let contents = contents();
    let content_of = |found: Hash| contents.iter().find(|content| hash(content) == found).expect("the story's own");
    let mut referred = Vec::new();
    for (name, expected) in &told.entries {
        let found = store.get(world.replica, key(name)).await?.map(|entry| match entry.entry.op {
            Op::Put { value: Value::Blob { hash, .. }, .. } => hash,
            other => panic!("{other:?} was never written"),
        });
        let may_be_pending = told.pending.filter(|(pending, _)| pending == name).map(|(_, after)| after);
        assert!(found == *expected || Some(found) == may_be_pending, "{name}: {found:?}, not {expected:?}");
        referred.extend(found);
    }
    let wants: Vec<Hash> = store.wants(None, 100).await?.into_iter().map(|want| want.hash).collect();
    for hash in referred {
        let content = content_of(hash);
        match store.content_status(hash).await? {
            ContentStatus::Complete { .. } => {
                assert!(!wants.contains(&hash));
                let reader = store.reader(hash).await?.expect("its row says that it is here");
                assert_eq!(reader.read_to_vec(0..reader.len())?, content[..]);
            }
            ContentStatus::Partial { .. } | ContentStatus::Missing => {
                // Only what was never acknowledged as complete may be missing, and then it is wanted.
                assert!(!told.complete.contains(&hash), "{hash:?} was acknowledged and is gone");
                assert!(wants.contains(&hash), "{hash:?} is missing and not wanted");
            }
        }
    }
    // A download goes on where its last checkpoint was.
    if wants.contains(&server.hash().into()) {
        let Begun::Ours(download) = store.begin_download(server.hash().into(), server.len()).await? else {
            panic!("nobody else downloads it")
        };
        let missing = download.partial().missing().count();
        assert!(
            missing <= group_count(server.len()).saturating_sub(3 * told.downloaded),
            "{missing} are missing after {}",
            told.downloaded
        );
        download.comes_for(world.replica);
        while let Some(mut claim) = download.partial().claim(3) {
            for piece in server.encode(claim.groups().into()).expect("the server is well") {
                claim.push(&piece.expect("the server is well"))?;
            }
        }
        store.finish_downloads(vec![Arc::new(download)]).await?;
    }
    while store.collect_content().await? > 0 {}
    assert!(store.wants(None, 100).await?.is_empty());
    Ok(())
}

#[test]
fn b51_rows_and_content_agree_after_a_power_cut_at_any_operation_of_either() {
    cut_everywhere(Tale::Contents);
}

#[test]
fn b51_so_they_do_when_versions_stand_on_another() {
    cut_everywhere(Tale::Versions);
}

fn cut_everywhere(tale: Tale) {
    let world = World::default();
    let theirs = ContentDir::in_memory();
    let served = match tale {
        Tale::Contents => &contents()[3],
        Tale::Versions => &contents()[6],
    };
    let staged = theirs.stage_bytes(served).expect("memory can be written");
    let there = theirs.publish(vec![staged]).expect("memory can be written").remove(0);
    let server = theirs.reader(there.hash, there.len, &there.outboard).expect("it is there");

    let play = |here: usize, there: u64| {
        let (rows, content) = (Disk::default(), MemoryDisk::recording());
        let mut told = Acknowledged::default();
        let store = open(&rows, &content).expect("empty disks can be used");
        let mut story = Story { world: &world, store: &store, now: 0, acknowledged: &mut told };
        if tale == Tale::Versions {
            block_on(story.prepare_versions()).expect("the disks work");
        }
        let first = (rows.operations(), content.operations());
        rows.on_power(Power { other: content.clone(), here, there });
        let ended = block_on(async {
            match tale {
                Tale::Contents => story.tell(&server).await,
                Tale::Versions => story.tell_versions(&server).await,
            }
        });
        drop(store);
        (rows, content, told, ended.is_ok(), first)
    };
    let (rows, content, _, is_whole, first) = play(usize::MAX, u64::MAX);
    assert!(is_whole, "the disks work");
    let (here, there) = (rows.operations(), content.operations());
    let cuts = (first.0..here).map(|cut| (cut, u64::MAX)).chain((first.1..there).map(|cut| (usize::MAX, cut)));
    let (mut images, mut gone_on) = (0, 0);
    for (number, (here, there)) in cuts.enumerate() {
        let (rows, content, told, ..) = play(here, there);
        let mut random = Random::new(number as u64);
        for _ in 0..2 {
            let image = rows.after_power_cut(rows.operations(), &mut random);
            let (rows, content) = (Disk::with(image), content.power_cut(random.bits()));
            let store = open(&rows, &content).unwrap_or_else(|error| panic!("cut at {here}, {there}: {error}"));
            let checked = block_on(check(&store, &world, &told, &server));
            match checked {
                Ok(()) => {}
                // The replica itself was not acknowledged yet.
                Err(StoreError::UnknownReplica(_)) if told.entries.is_empty() => {}
                Err(error) => panic!("cut at {here}, {there}: {error}, told {told:?}"),
            }
            gone_on += u64::from(told.downloaded > 0);
            images += 1;
        }
    }
    println!("{images} images of two disks, {here} and {there} operations");
    let enough = match tale {
        Tale::Contents => images > 200 && gone_on > 50,
        Tale::Versions => images > 600,
    };
    assert!(enough, "{images} images, {gone_on} with a download, are too few to mean anything");
}
