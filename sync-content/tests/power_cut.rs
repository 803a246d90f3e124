//! The power goes at every operation; what the disk then has, and what the rows say, must agree.
//!
//! The story: of two contents, one is imported, the other downloaded with checkpoints; rows are
//! kept after each step, as a store keeps them. After the cut the disk may have any part of what
//! was not synced. What a row says must be there, and the download must go on to the end.

#![allow(clippy::unwrap_used)] // A test may.

use std::{collections::HashMap, sync::Arc};

use sync_content::{
    Checkpoint, ContentDir, ContentError, FileKind, GROUP_LEN, GroupRanges, Hash, MAX_ROW_OUTBOARD, MemoryDisk,
    Published, Reader, quiet,
};

fn bytes(len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// What a store would have committed.
#[derive(Default)]
struct Rows {
    complete: HashMap<Hash, Published>,
    partial: HashMap<Hash, Checkpoint>,
}

/// Runs the story until it ends or the power does.
fn story(dir: &ContentDir, server: &Reader, imported: &[u8], rows: &mut Rows) -> Result<(), ContentError> {
    for published in dir.publish(vec![dir.stage_bytes(imported)?])? {
        rows.complete.insert(published.hash, published);
    }
    download(dir, server, rows, 3)
}

fn download(
    dir: &ContentDir,
    server: &Reader,
    rows: &mut Rows,
    claims_per_checkpoint: u64,
) -> Result<(), ContentError> {
    if rows.complete.contains_key(&server.hash()) {
        return Ok(());
    }
    let start = Checkpoint::start(server.hash(), server.len());
    let row = rows.partial.entry(server.hash()).or_insert(start);
    let partial = dir.download(row.clone())?;
    let mut claims = 0;
    while let Some(mut claim) = partial.claim(2) {
        for piece in server.encode(claim.groups().into()).expect("the server is well") {
            claim.push(&piece.expect("the server is well"))?;
        }
        claims += 1;
        if claims % claims_per_checkpoint == 0 {
            *row = partial.checkpoint()?;
        }
    }
    for published in dir.publish(vec![partial.finish()?])? {
        rows.partial.remove(&published.hash);
        rows.complete.insert(published.hash, published);
    }
    Ok(())
}

/// Of a large content another version is imported, and a third one downloaded, over the first.
fn versions_story(dir: &ContentDir, first: &Published, rows: &mut Rows) -> Result<(), ContentError> {
    rows.complete.insert(first.hash, first.clone());
    let older = dir.reader(first.hash, first.len, &first.outboard)?;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), version(1)).unwrap();
    for published in dir.publish(vec![dir.stage_path_over(file.path(), &older, &mut quiet)?])? {
        assert!(published.over.is_some());
        rows.complete.insert(published.hash, published);
    }
    download_over(dir, &older, rows)
}

fn download_over(dir: &ContentDir, older: &Reader, rows: &mut Rows) -> Result<(), ContentError> {
    let theirs = ContentDir::in_memory();
    let there = theirs.publish(vec![theirs.stage_bytes(&version(2)).unwrap()]).unwrap().remove(0);
    if rows.complete.contains_key(&there.hash) {
        return Ok(());
    }
    let server = theirs.reader(there.hash, there.len, &there.outboard).unwrap();
    let row = rows.partial.entry(there.hash).or_insert(Checkpoint::start(there.hash, there.len));
    let partial = dir.download(row.clone())?;
    partial.reuse(older.clone());
    while let Some(mut claim) = partial.claim_tree(&GroupRanges::all(there.len), 50) {
        for piece in server.encode_tree(claim.groups().into()).unwrap() {
            claim.push(&piece.unwrap())?;
        }
    }
    while let Some(mut claim) = partial.claim(2) {
        for piece in server.encode(claim.groups().into()).unwrap() {
            claim.push(&piece.unwrap())?;
        }
        *row = partial.checkpoint()?;
    }
    for published in dir.publish(vec![partial.finish()?])? {
        assert!(published.over.is_some());
        rows.partial.remove(&published.hash);
        rows.complete.insert(published.hash, published);
    }
    Ok(())
}

/// A large content with three groups changed, others in each version.
fn version(number: u64) -> Vec<u8> {
    let mut bytes = bytes(MAX_ROW_OUTBOARD / 64 * GROUP_LEN + 9 * GROUP_LEN);
    if number > 0 {
        (number..number + 3).for_each(|group| bytes[(group * GROUP_LEN) as usize] ^= number as u8);
    }
    bytes
}

#[test]
fn the_same_with_versions_that_stand_on_another() {
    let contents: Vec<_> = (0..3).map(version).map(|bytes| (blake3::hash(&bytes), bytes)).collect();
    let check = |dir: &ContentDir, rows: &Rows, first: &Published| {
        for published in rows.complete.values() {
            let Published { hash, len, outboard, over } = published;
            let reader = match over {
                Some(over) => dir.overlay_reader(*hash, *len, over, first.len).unwrap(),
                None => dir.reader(*hash, *len, outboard).unwrap(),
            };
            let content = &contents.iter().find(|(known, _)| known == hash).unwrap().1;
            assert!(reader.read_to_vec(0..*len).unwrap() == *content);
        }
        for checkpoint in rows.partial.values().filter(|checkpoint| !checkpoint.verified().is_empty()) {
            let encoded = dir.partial_reader(checkpoint).unwrap().encode(checkpoint.verified().clone()).unwrap();
            encoded.for_each(|piece| drop(piece.expect("what a checkpoint says is proved")));
        }
    };
    let (mut cuts, mut standing, mut resumed) = (0, 0, 0);
    for at in 0.. {
        let disk = MemoryDisk::recording();
        let dir = ContentDir::open_on(Arc::new(disk.clone()), "/").unwrap();
        let first = dir.publish(vec![dir.stage_bytes(&contents[0].1).unwrap()]).unwrap().remove(0);
        disk.end_power_at(disk.operations() + at);
        let mut rows = Rows::default();
        let ended = versions_story(&dir, &first, &mut rows);
        drop(dir);
        for seed in 0..2 {
            let after = disk.power_cut(at * 100 + seed);
            let dir = ContentDir::open_on(Arc::new(after), "/").unwrap();
            let mut rows = Rows { complete: rows.complete.clone(), partial: rows.partial.clone() };
            standing += u64::from(rows.complete.values().any(|row| row.over.is_some()));
            resumed += u64::from(rows.partial.values().any(|row| !row.verified().is_empty()));
            check(&dir, &rows, &first);
            let older = dir.reader(first.hash, first.len, &first.outboard).unwrap();
            download_over(&dir, &older, &mut rows).unwrap_or_else(|error| panic!("cut {at}, seed {seed}: {error}"));
            dir.sweep(|kind, hash| {
                rows.complete.get(&hash).is_some_and(|row| match row.over {
                    Some(_) => kind == FileKind::Overlay,
                    None => kind == FileKind::Complete,
                })
            })
            .unwrap();
            check(&dir, &rows, &first);
            cuts += 1;
        }
        if ended.is_ok() {
            break;
        }
    }
    assert!(cuts > 200 && standing > 100 && resumed > 4, "{cuts} cuts, {standing} standing, {resumed} resumed");
}

/// Everything that the rows say is on the disk, proved.
fn check(dir: &ContentDir, rows: &Rows) {
    for published in rows.complete.values() {
        let reader = dir.reader(published.hash, published.len, &published.outboard).unwrap();
        assert_eq!(reader.read_to_vec(0..published.len).unwrap(), bytes(published.len));
    }
    for checkpoint in rows.partial.values().filter(|checkpoint| !checkpoint.verified().is_empty()) {
        let reader = dir.partial_reader(checkpoint).unwrap();
        assert_eq!(reader.here(), checkpoint.verified());
        let encoded = reader.encode(checkpoint.verified().clone()).unwrap();
        encoded.for_each(|piece| drop(piece.expect("what a checkpoint says is proved")));
    }
}

/// Cuts at every `step`-th operation, with four images of the disk each.
fn cut_everywhere(downloaded: u64, imported: u64, step: usize) -> (u64, u64) {
    let theirs = ContentDir::in_memory();
    let there = theirs.publish(vec![theirs.stage_bytes(&bytes(downloaded)).unwrap()]).unwrap().remove(0);
    let server = theirs.reader(there.hash, there.len, &there.outboard).unwrap();
    let mut cuts = 0;
    let mut resumed = 0;
    for at in (0..).step_by(step) {
        let disk = MemoryDisk::recording();
        let dir = ContentDir::open_on(Arc::new(disk.clone()), "/").unwrap();
        disk.end_power_at(disk.operations() + at);
        let mut rows = Rows::default();
        let ended = story(&dir, &server, &bytes(imported), &mut rows);
        drop(dir);
        for seed in 0..4 {
            let seed = at * 100 + seed;
            let after = disk.power_cut(seed);
            let dir = ContentDir::open_on(Arc::new(after), "/").unwrap();
            let mut rows = Rows { complete: rows.complete.clone(), partial: rows.partial.clone() };
            check(&dir, &rows);
            resumed += u64::from(rows.partial.values().any(|row| !row.verified().is_empty()));
            download(&dir, &server, &mut rows, 1).unwrap_or_else(|error| panic!("cut {at}, seed {seed}: {error}"));
            check(&dir, &rows);
            dir.sweep(|kind, hash| kind == FileKind::Complete && rows.complete.contains_key(&hash)).unwrap();
            check(&dir, &rows);
            cuts += 1;
        }
        if ended.is_ok() {
            break;
        }
    }
    (cuts, resumed)
}

#[test]
fn a_power_cut_at_any_operation_never_makes_a_row_lie() {
    let (cuts, resumed) = cut_everywhere(15 * GROUP_LEN + 9, 40_000, 1);
    assert!(cuts > 100 && resumed > 20, "{cuts} cuts, {resumed} resumed: the story became too easy");
}

#[test]
fn the_same_with_outboards_in_files() {
    let (cuts, resumed) = cut_everywhere(MAX_ROW_OUTBOARD / 64 * GROUP_LEN + 9 * GROUP_LEN, 3 * 1024 * 1024, 17);
    assert!(cuts > 60 && resumed > 20, "{cuts} cuts, {resumed} resumed: the story became too easy");
}

#[test]
fn a_download_that_resumes_asks_only_for_what_its_checkpoint_lacks() {
    let theirs = ContentDir::in_memory();
    let len = 20 * GROUP_LEN;
    let there = theirs.publish(vec![theirs.stage_bytes(&bytes(len)).unwrap()]).unwrap().remove(0);
    let server = theirs.reader(there.hash, there.len, &there.outboard).unwrap();
    let disk = MemoryDisk::recording();
    let dir = ContentDir::open_on(Arc::new(disk.clone()), "/").unwrap();
    let partial = dir.download(Checkpoint::start(there.hash, len)).unwrap();
    for _ in 0..3 {
        let mut claim = partial.claim(4).unwrap();
        server.encode(claim.groups().into()).unwrap().for_each(|piece| {
            claim.push(&piece.unwrap()).unwrap();
        });
    }
    let row = partial.checkpoint().unwrap();
    // This comes after the checkpoint and may be lost.
    let mut claim = partial.claim(4).unwrap();
    server.encode(claim.groups().into()).unwrap().for_each(|piece| {
        claim.push(&piece.unwrap()).unwrap();
    });
    assert_eq!(partial.unsynced_bytes(), 4 * GROUP_LEN);
    let dir = ContentDir::open_on(Arc::new(disk.power_cut(7)), "/").unwrap();
    let partial = dir.download(row).unwrap();
    assert_eq!(partial.missing(), GroupRanges::from(12..20));
}

#[test]
fn after_a_failed_sync_a_download_is_not_synced_again() {
    let theirs = ContentDir::in_memory();
    let there = theirs.publish(vec![theirs.stage_bytes(&bytes(GROUP_LEN)).unwrap()]).unwrap().remove(0);
    let server = theirs.reader(there.hash, there.len, &there.outboard).unwrap();
    let disk = MemoryDisk::recording();
    let dir = ContentDir::open_on(Arc::new(disk.clone()), "/").unwrap();
    let partial = dir.download(Checkpoint::start(there.hash, there.len)).unwrap();
    let mut claim = partial.claim(1).unwrap();
    server.encode(claim.groups().into()).unwrap().for_each(|piece| {
        claim.push(&piece.unwrap()).unwrap();
    });
    disk.end_power_at(disk.operations());
    assert!(matches!(partial.checkpoint(), Err(ContentError::Io { .. })));
    // The disk works again, but Linux would now say that the lost pages are clean.
    disk.end_power_at(u64::MAX);
    assert!(matches!(partial.checkpoint(), Err(ContentError::Ended(_))));
    assert!(matches!(partial.finish(), Err(ContentError::Ended(_))));
}
