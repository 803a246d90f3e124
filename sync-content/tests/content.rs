//! Content through the public door: sizes at every edge, on a real disk and in memory.

#![allow(clippy::unwrap_used)] // A test may.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use sync_content::{
    Checkpoint, Claim, ContentDir, ContentError, Disk, FileKind, GROUP_LEN, GroupRanges, Hash, MAX_LEN,
    MAX_ROW_OUTBOARD, MemoryDisk, Partial, Published, Reader, export, quiet,
};

const GROUP: u64 = GROUP_LEN;

/// Every edge: nothing, one byte, around one group, around groups, around the largest outboard
/// of a row, and some MiB that end in the middle of a chunk.
const SIZES: &[u64] = &[
    0,
    1,
    1023,
    1024,
    1025,
    GROUP - 1,
    GROUP,
    GROUP + 1,
    2 * GROUP,
    2 * GROUP + 1,
    3 * GROUP,
    5 * GROUP - 1,
    8 * GROUP,
    (MAX_ROW_OUTBOARD / 64 + 1) * GROUP,
    (MAX_ROW_OUTBOARD / 64 + 1) * GROUP + 1,
    5 * 1024 * 1024 + 777,
];

fn bytes(len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn import(dir: &ContentDir, bytes: &[u8]) -> Published {
    dir.publish(vec![dir.stage_bytes(bytes).unwrap()]).unwrap().remove(0)
}

fn reader(dir: &ContentDir, published: &Published) -> Reader {
    dir.reader(published.hash, published.len, &published.outboard).unwrap()
}

fn encode(reader: &Reader, groups: impl Into<GroupRanges>) -> Vec<u8> {
    reader.encode(groups.into()).unwrap().map(|piece| piece.unwrap()).collect::<Vec<_>>().concat()
}

fn receive(partial: &Arc<Partial>, from: &Reader, max_groups: u64) {
    while let Some(mut claim) = partial.claim(max_groups) {
        claim.push(&encode(from, claim.groups())).unwrap();
        assert!(claim.is_done());
    }
}

fn everywhere(test: impl Fn(&ContentDir, &ContentDir)) {
    test(&ContentDir::in_memory(), &ContentDir::in_memory());
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    test(&ContentDir::open(one.path()).unwrap(), &ContentDir::open(other.path()).unwrap());
}

#[test]
fn an_import_has_the_plain_blake3_hash_and_reads_back_equal() {
    everywhere(|dir, _| {
        for len in SIZES {
            let bytes = bytes(*len);
            let published = import(dir, &bytes);
            assert_eq!(published.hash, blake3::hash(&bytes), "{len}");
            assert_eq!(reader(dir, &published).read_to_vec(0..*len).unwrap(), bytes, "{len}");
            assert!(published.outboard.len() as u64 <= MAX_ROW_OUTBOARD);
        }
    });
}

#[test]
fn a_download_of_every_size_and_claim_size_is_equal_and_serves_again() {
    everywhere(|theirs, ours| {
        for len in SIZES {
            let bytes = bytes(*len);
            let there = import(theirs, &bytes);
            for max_groups in [1, 3, 64] {
                let partial = ours.download(Checkpoint::start(there.hash, *len)).unwrap();
                receive(&partial, &reader(theirs, &there), max_groups);
                assert!(partial.is_complete(), "{len}");
                let here = ours.publish(vec![partial.finish().unwrap()]).unwrap().remove(0);
                assert_eq!(here, there, "{len}: hash, length and outboard are the same");
                let all = GroupRanges::all(*len);
                assert_eq!(encode(&reader(ours, &here), all.clone()), encode(&reader(theirs, &there), all));
            }
        }
    });
}

#[test]
fn ranges_of_bytes_are_read_exactly() {
    let dir = ContentDir::in_memory();
    let bytes = bytes(5 * GROUP + 100);
    let content = reader(&dir, &import(&dir, &bytes));
    let len = bytes.len() as u64;
    for range in [0..0, 0..1, GROUP - 1..GROUP + 1, GROUP..2 * GROUP, 3..len - 3, len - 1..len, len..len, 0..len] {
        let expected = &bytes[range.start as usize..range.end as usize];
        assert_eq!(content.read_to_vec(range.clone()).unwrap(), expected, "{range:?}");
    }
    assert!(matches!(content.read(0..len + 1), Err(ContentError::OutOfRange { .. })));
    assert!(matches!(content.encode((5..7).into()), Err(ContentError::OutOfRange { .. })), "not the last chunk");
    assert!(content.encode(GroupRanges::empty()).unwrap().next().is_none());
}

#[test]
fn b71_a_wrong_byte_anywhere_ends_that_claim_and_keeps_what_was_proved() {
    let (theirs, ours) = (ContentDir::in_memory(), ContentDir::in_memory());
    let there = import(&theirs, &bytes(4 * GROUP + 10));
    let right = encode(&reader(&theirs, &there), 0..5);
    for at in (0..right.len()).step_by(501).chain([right.len() - 1]) {
        let mut wrong = right.clone();
        wrong[at] ^= 0x10;
        let partial = ours.download(Checkpoint::start(there.hash, there.len)).unwrap();
        let mut claim = partial.claim(64).unwrap();
        // Byte by byte would be slow; pieces that never fall on the edge of an item will do.
        let mut outcome = Ok(0);
        for piece in wrong.chunks(1000) {
            outcome = claim.push(piece);
            if outcome.is_err() {
                break;
            }
        }
        let Err(ContentError::Unproved { hash, range }) = outcome else { panic!("byte {at} was not noticed") };
        assert_eq!(hash, there.hash);
        assert!(range.end <= there.len);
        assert!(matches!(claim.push(&right), Err(ContentError::Unproved { .. })), "nothing after it is taken");
        assert!(!claim.is_done());
        drop(claim);
        // Another source gives the rest, and only the rest.
        let kept = partial.verified();
        assert!(kept.count() < 5);
        let again = partial.claim(64).unwrap();
        assert!(GroupRanges::from(again.groups()).intersection(&kept).is_empty());
        drop(again);
        receive(&partial, &reader(&theirs, &there), 64);
        assert_eq!(partial.reader().read_to_vec(0..there.len).unwrap(), bytes(there.len));
    }
}

#[test]
fn more_bytes_than_were_asked_for_are_refused() {
    let (theirs, ours) = (ContentDir::in_memory(), ContentDir::in_memory());
    let there = import(&theirs, &bytes(3 * GROUP));
    let partial = ours.download(Checkpoint::start(there.hash, there.len)).unwrap();
    let mut claim = partial.claim(64).unwrap();
    let mut encoded = encode(&reader(&theirs, &there), 0..3);
    encoded.push(0);
    assert!(matches!(claim.push(&encoded), Err(ContentError::Unproved { .. })));
    assert!(partial.is_complete(), "what was right stays");
}

#[test]
fn b70_several_sources_give_disjoint_parts_at_once() {
    let (theirs, ours) = (ContentDir::in_memory(), ContentDir::in_memory());
    let len = 100 * GROUP + 5;
    let there = import(&theirs, &bytes(len));
    let partial = ours.download(Checkpoint::start(there.hash, len)).unwrap();
    let claimed: Vec<GroupRanges> = std::thread::scope(|scope| {
        let sources: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut mine = GroupRanges::empty();
                    while let Some(mut claim) = partial.claim(7) {
                        claim.push(&encode(&reader(&theirs, &there), claim.groups())).unwrap();
                        mine.insert(claim.groups());
                    }
                    mine
                })
            })
            .collect();
        sources.into_iter().map(|source| source.join().unwrap()).collect()
    });
    assert_eq!(claimed.iter().map(GroupRanges::count).sum::<u64>(), 101, "no group was asked for twice");
    assert!(partial.is_complete());
    assert_eq!(partial.reader().read_to_vec(0..len).unwrap(), bytes(len));
}

#[test]
fn a_claim_that_is_dropped_frees_what_did_not_come() {
    let (theirs, ours) = (ContentDir::in_memory(), ContentDir::in_memory());
    let there = import(&theirs, &bytes(8 * GROUP));
    let partial = ours.download(Checkpoint::start(there.hash, there.len)).unwrap();
    let mut claim = partial.claim(8).unwrap();
    assert!(partial.claim(8).is_none(), "all is claimed");
    let encoded = encode(&reader(&theirs, &there), 0..8);
    claim.push(&encoded[..encoded.len() / 2]).unwrap();
    drop(claim);
    assert_eq!(partial.claim(8).unwrap().groups(), partial.verified().end()..8);
    let only_the_last: GroupRanges = (7..8).into();
    assert_eq!(partial.claim_of(&only_the_last, 8).map(|claim: Claim| claim.groups()), Some(7..8));
}

#[test]
fn a_partial_content_serves_what_it_has_and_nothing_else() {
    let (theirs, ours) = (ContentDir::in_memory(), ContentDir::in_memory());
    let there = import(&theirs, &bytes(8 * GROUP));
    let partial = ours.download(Checkpoint::start(there.hash, there.len)).unwrap();
    let mut claim = partial.claim_of(&(2..4).into(), 64).unwrap();
    claim.push(&encode(&reader(&theirs, &there), 2..4)).unwrap();
    let checkpoint = partial.checkpoint().unwrap();
    for content in [partial.reader(), ours.partial_reader(&checkpoint).unwrap()] {
        assert_eq!(encode(&content, 2..4), encode(&reader(&theirs, &there), 2..4));
        assert!(matches!(content.encode((1..3).into()), Err(ContentError::NotHere { groups, .. }) if groups == (1..2)));
        assert!(matches!(content.read(0..10), Err(ContentError::NotHere { .. })));
    }
    assert!(matches!(partial.finish(), Err(ContentError::NotHere { groups, .. }) if groups == (0..2)));
}

#[test]
fn rot_never_leaves() {
    let disk = MemoryDisk::new();
    let dir = ContentDir::open_on(Arc::new(disk.clone()), "/").unwrap();
    for len in [GROUP, 3 * GROUP + 9, 3 * 1024 * 1024] {
        let there = import(&dir, &bytes(len));
        let name = there.hash.to_hex();
        let path = Path::new("/").join(&name[..2]).join(name.as_str());
        for (file, at) in [(path.clone(), 0), (path.clone(), len - 1), (path.with_extension("outboard"), 70)] {
            if !disk.rot(&file, at, 1) {
                continue;
            }
            let content = reader(&dir, &there);
            let failed = content.encode(GroupRanges::all(len)).unwrap().find_map(Result::err);
            assert!(matches!(failed, Some(ContentError::Damaged { hash, .. }) if hash == there.hash), "{file:?} {at}");
            assert!(matches!(content.read_to_vec(0..len), Err(ContentError::Damaged { .. })));
            let target = tempfile::tempdir().unwrap();
            assert!(export::export(&content, &target.path().join("x"), &mut quiet).is_err());
            assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0, "nothing is left of a failed export");
            disk.rot(&file, at, 1);
        }
        let mut row = there.outboard.clone();
        if let Some(byte) = row.first_mut() {
            *byte ^= 1;
            let content = dir.reader(there.hash, len, &row).unwrap();
            assert!(matches!(content.read_to_vec(0..1), Err(ContentError::Damaged { .. })));
        }
        dir.remove(&there.hash).unwrap();
        assert!(matches!(dir.reader(there.hash, len, &there.outboard), Err(ContentError::Damaged { .. })));
    }
}

#[test]
fn a_length_that_is_not_the_contents_is_never_complete() {
    let (theirs, ours) = (ContentDir::in_memory(), ContentDir::in_memory());
    let len = 3 * GROUP + 100;
    let there = import(&theirs, &bytes(len));
    for claimed in [len - 1, len + 1, 3 * GROUP, 4 * GROUP, 1, 0, 100 * GROUP] {
        let partial = ours.download(Checkpoint::start(there.hash, claimed)).unwrap();
        while let Some(mut claim) = partial.claim(64) {
            let groups = GroupRanges::from(claim.groups()).intersection(&GroupRanges::all(len));
            if claim.push(&encode(&reader(&theirs, &there), groups)).is_err() || !claim.is_done() {
                break;
            }
        }
        assert!(!partial.is_complete(), "{claimed}");
    }
    let too_long = ours.download(Checkpoint::start(there.hash, MAX_LEN + 1));
    assert!(matches!(too_long, Err(ContentError::TooLong { .. })));
    assert!(ours.download(Checkpoint::start(there.hash, MAX_LEN)).is_ok(), "a claim costs nothing");
}

#[test]
fn b73_a_file_is_imported_and_exported_with_progress() {
    everywhere(|dir, _| {
        let files = tempfile::tempdir().unwrap();
        let (source, target) = (files.path().join("source"), files.path().join("target"));
        let bytes = bytes(3 * 1024 * 1024 + 5);
        std::fs::write(&source, &bytes).unwrap();
        std::fs::write(&target, "old").unwrap();
        let mut seen = Vec::new();
        let mut progress = |at: sync_content::Progress| {
            seen.push(at.done);
            assert_eq!(at.total, bytes.len() as u64);
            ControlFlow::Continue(())
        };
        let staged = dir.stage_path(&source, &mut progress).unwrap();
        let published = dir.publish(vec![staged]).unwrap().remove(0);
        export::export(&reader(dir, &published), &target, &mut progress).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), bytes);
        assert_eq!(seen.iter().filter(|done| **done == bytes.len() as u64).count(), 2);
        assert!(seen.len() >= 8);
        assert_eq!(std::fs::read_dir(files.path()).unwrap().count(), 2, "no temporary file is left");
        // What is no regular file is not replaced by one: as the superuser that would be /dev/null.
        let socket = files.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for there in [socket.as_path(), files.path()] {
            let refused = export::export(&reader(dir, &published), there, &mut quiet).unwrap_err();
            assert!(matches!(&refused, ContentError::NotAFile(path) if path == there), "{refused}");
            assert!(!std::fs::metadata(there).unwrap().is_file());
        }
    });
}

#[test]
fn imports_that_cannot_be_right_are_refused_by_kind() {
    let store = tempfile::tempdir().unwrap();
    let dir = ContentDir::open(store.path()).unwrap();
    let files = tempfile::tempdir().unwrap();
    assert!(matches!(dir.stage_path(files.path(), &mut quiet), Err(ContentError::NotAFile(_))));
    let missing = dir.stage_path(&files.path().join("missing"), &mut quiet).unwrap_err();
    assert!(!missing.is_temporary() && missing.to_string().contains("missing"));

    let growing = files.path().join("growing");
    std::fs::write(&growing, bytes(2 * GROUP)).unwrap();
    let grow = &mut |_| {
        std::fs::write(&growing, bytes(3 * GROUP)).unwrap();
        ControlFlow::Continue(())
    };
    assert!(matches!(dir.stage_path(&growing, grow), Err(ContentError::Changed(_))));
    let short = dir.stage_reader(100, &[0; 99][..], Path::new("short"), &mut quiet);
    assert!(matches!(short, Err(ContentError::Changed(_))));
    let stop = dir.stage_path(&growing, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stop, Err(ContentError::Cancelled)));
    assert_eq!(std::fs::read_dir(store.path().join("staging")).unwrap().count(), 0, "nothing stays of them");
}

#[test]
fn what_nobody_keeps_is_swept_and_imports_vanish_at_start() {
    let store = tempfile::tempdir().unwrap();
    let dir = ContentDir::open(store.path()).unwrap();
    let kept = import(&dir, &bytes(3 * 1024 * 1024));
    let doomed = import(&dir, &bytes(4 * 1024 * 1024));
    let download = Hash::from_bytes([7; 32]);
    let partial = dir.download(Checkpoint::start(download, 5 * 1024 * 1024)).unwrap();
    std::mem::forget(dir.stage_bytes(b"killed").unwrap());
    let here = |dir: &ContentDir| dir.list().unwrap();
    assert_eq!(here(&dir).len(), 3);
    drop((dir, partial));

    let dir = ContentDir::open(store.path()).unwrap();
    assert_eq!(std::fs::read_dir(store.path().join("staging")).unwrap().count(), 0);
    assert_eq!(dir.sweep(|_, hash| hash == kept.hash).unwrap(), 2);
    assert_eq!(here(&dir), [(FileKind::Complete, *kept.hash.as_bytes())].into());
    assert!(dir.reader(doomed.hash, doomed.len, &doomed.outboard).is_err());
    assert_eq!(reader(&dir, &kept).read_to_vec(0..kept.len).unwrap(), bytes(kept.len));
}

#[test]
fn many_small_contents_are_published_in_one_batch() {
    let store = tempfile::tempdir().unwrap();
    let dir = ContentDir::open(store.path()).unwrap();
    let batch = (0..100_u64).map(|number| dir.stage_bytes(&bytes(20_000 + number)).unwrap()).collect();
    let published = dir.publish(batch).unwrap();
    for (number, there) in published.iter().enumerate() {
        assert_eq!(reader(&dir, there).read_to_vec(0..there.len).unwrap(), bytes(20_000 + number as u64));
    }
}

#[test]
fn a_download_whose_files_somebody_removed_says_so_and_begins_anew() {
    let disk = MemoryDisk::new();
    let ours = ContentDir::open_on(Arc::new(disk.clone()), "/").unwrap();
    let theirs = ContentDir::in_memory();
    let there = import(&theirs, &bytes(4 * GROUP));
    let partial = ours.download(Checkpoint::start(there.hash, there.len)).unwrap();
    receive(&partial, &reader(&theirs, &there), 2);
    let checkpoint = partial.checkpoint().unwrap();
    disk.remove(&Path::new("/partial").join(there.hash.to_hex().as_str())).unwrap();
    assert!(matches!(ours.download(checkpoint), Err(ContentError::Damaged { .. })));
    assert!(ours.download(Checkpoint::start(there.hash, there.len)).unwrap().verified().is_empty());
}

/// A new version with a change in the middle and a longer end: of the old one everything else is
/// taken, and of the new one only the tree and the rest comes.
#[test]
fn what_an_older_version_has_at_the_same_place_is_not_fetched() {
    let len = 300 * GROUP_LEN + 777;
    let old = bytes(len);
    let mut new = old.clone();
    new[1_000_000..1_065_536].iter_mut().for_each(|byte| *byte ^= 0x55);
    new.extend_from_slice(&bytes(40_000)[20_000..]);
    let (ours, theirs) = (ContentDir::in_memory(), ContentDir::in_memory());
    let before = ours.publish(vec![ours.stage_bytes(&old).unwrap()]).unwrap().remove(0);
    let there = theirs.publish(vec![theirs.stage_bytes(&new).unwrap()]).unwrap().remove(0);
    let server = reader(&theirs, &there);
    let partial = ours.download(Checkpoint::start(there.hash, there.len)).unwrap();
    partial.reuse(reader(&ours, &before));
    let all = GroupRanges::all(there.len);
    // One is given up, and looked at again.
    drop(partial.claim_tree(&all, 64).unwrap());
    let (mut tree, mut copied, mut came) = (0, 0, 0);
    assert_eq!(partial.claim(64).map(|claim| claim.groups()), Some(301..302), "what the old one cannot have");
    while let Some(mut claim) = partial.claim_tree(&all, 64) {
        for piece in server.encode_tree(claim.groups().into()).unwrap() {
            let piece = piece.unwrap();
            tree += piece.len() as u64;
            // In odd parts.
            for part in piece.chunks(50) {
                copied += claim.push(part).unwrap();
            }
        }
        assert!(claim.is_done());
    }
    while let Some(mut claim) = partial.claim(64) {
        for piece in server.encode(claim.groups().into()).unwrap() {
            came += claim.push(&piece.unwrap()).unwrap();
        }
    }
    assert_eq!(copied + came, there.len);
    assert!(came <= 7 * GROUP_LEN + 20_777, "{came}");
    assert!(tree < 302 * 64 + 5 * 10 * 64, "{tree}");
    let complete = ours.publish(vec![partial.finish().unwrap()]).unwrap().remove(0);
    assert_eq!((complete.hash, complete.len), (there.hash, there.len));
    let over = complete.over.unwrap();
    // What came, and the last group but one, which was not as long.
    assert_eq!((over.base, over.own.byte_count(there.len)), (before.hash, came));
    let content = ours.overlay_reader(there.hash, there.len, &over, before.len).unwrap();
    assert_eq!(content.read_to_vec(0..there.len).unwrap(), new);
    // Whoever is served sees no difference.
    let all = GroupRanges::all(there.len);
    assert_eq!(encode(&content, all.clone()), encode(&server, all));
}

/// Imports `bytes` as a new version of what `older` reads.
fn import_over(dir: &ContentDir, bytes: &[u8], older: &Reader) -> Published {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    dir.publish(vec![dir.stage_path_over(file.path(), older, &mut quiet).unwrap()]).unwrap().remove(0)
}

/// Large enough that its outboard is a file: 200 groups, and `more` bytes.
fn large(more: u64) -> Vec<u8> {
    let mut large = bytes(300 * GROUP_LEN);
    large.truncate((200 * GROUP_LEN + more) as usize);
    large
}

#[test]
fn a_new_version_keeps_the_groups_that_are_others_and_reads_like_any_content() {
    everywhere(|dir, _| {
        let old = large(5);
        let before = import(dir, &old);
        let older = reader(dir, &before);
        let change = |groups: &[u64]| {
            let mut new = old.clone();
            groups.iter().for_each(|group| new[(group * GROUP_LEN) as usize + 77] ^= 1);
            new
        };
        // In the first group, over the edge of what is read at once, in the last one; and it grows, or shrinks a little.
        let mut grown = change(&[7]);
        grown.extend_from_slice(&[1; 40_000]);
        let (last, shrunk) = (200, old[..(198 * GROUP_LEN) as usize].to_vec());
        for (new, own) in [
            (change(&[0]), GroupRanges::from(0..1).union(&(last..last + 1).into())),
            (change(&[63, 64]), GroupRanges::from(63..65).union(&(last..last + 1).into())),
            (change(&[199]), (199..201).into()),
            (grown, GroupRanges::from(7..8).union(&(last..last + 3).into())),
            (shrunk, GroupRanges::empty()),
        ] {
            let there = import_over(dir, &new, &older);
            assert_eq!(there.hash, blake3::hash(&new));
            let over = there.over.clone().unwrap();
            assert_eq!((over.base, &over.own), (before.hash, &own));
            let content = dir.overlay_reader(there.hash, there.len, &over, before.len).unwrap();
            assert_eq!(content.read_to_vec(0..there.len).unwrap(), new);
            assert_eq!(content.read_to_vec(100..2_000_000).unwrap(), new[100..2_000_000]);
            let whole = dir.stage_copy(&content).unwrap();
            assert!(!whole.is_overlay());
            assert_eq!(dir.publish(vec![whole]).unwrap(), [Published { over: None, ..there.clone() }]);
            assert_eq!(reader(dir, &Published { over: None, ..there }).read_to_vec(0..1).unwrap(), new[..1]);
        }
    });
}

#[test]
fn a_version_that_would_keep_too_much_of_the_older_one_is_whole() {
    let dir = ContentDir::in_memory();
    let old = large(0);
    let before = import(&dir, &old);
    let older = reader(&dir, &before);
    let change = |groups: u64| {
        let mut new = old.clone();
        (0..groups).for_each(|group| new[(group * GROUP_LEN) as usize] ^= 1);
        new
    };
    // A sixteenth of 200 groups is 12.5, also where it is the older one that has more.
    let shrunk = |groups: u64| old[..((200 - groups) * GROUP_LEN) as usize].to_vec();
    for (new, stands) in [(change(12), true), (change(13), false), (shrunk(10), true), (shrunk(12), false)] {
        let there = import_over(&dir, &new, &older);
        assert_eq!(there.over.is_some(), stands, "{} bytes", new.len());
        if !stands {
            assert_eq!(reader(&dir, &there).read_to_vec(0..there.len).unwrap(), new);
        }
    }
    // Nor is one that is small, or whose older version is.
    let small = import(&dir, &old[..(128 * GROUP_LEN) as usize]);
    for new in [&old[..(128 * GROUP_LEN) as usize], &old[..(129 * GROUP_LEN) as usize]] {
        assert_eq!(import_over(&dir, new, &reader(&dir, &small)).over, None);
    }
    // A third version stands on the first, and what lies between may go.
    let second = import_over(&dir, &change(2), &older);
    let between = dir.overlay_reader(second.hash, second.len, &second.over.unwrap(), before.len).unwrap();
    let third = import_over(&dir, &change(3), &between);
    dir.remove(&second.hash).unwrap();
    let over = third.over.unwrap();
    assert_eq!((over.base, over.own.count()), (before.hash, 3));
    let content = dir.overlay_reader(third.hash, third.len, &over, before.len).unwrap();
    assert_eq!(content.read_to_vec(0..third.len).unwrap(), change(3));
}

#[test]
fn rot_in_either_file_of_an_overlay_never_leaves() {
    let disk = MemoryDisk::new();
    let dir = ContentDir::open_on(Arc::new(disk.clone()), "/").unwrap();
    let old = large(0);
    let mut new = old.clone();
    new[5] ^= 1;
    let before = import(&dir, &old);
    let there = import_over(&dir, &new, &reader(&dir, &before));
    let over = there.over.unwrap();
    let path = |hash: Hash, end: &str| {
        let name = hash.to_hex();
        Path::new("/").join(&name[..2]).join(format!("{name}{end}"))
    };
    let (own, outboard, base) = (path(there.hash, ".over"), path(there.hash, ".over.outboard"), path(before.hash, ""));
    let open = || dir.overlay_reader(there.hash, there.len, &over, before.len);
    for (file, at) in [(&own, 0), (&outboard, 70), (&base, 3 * GROUP_LEN)] {
        assert!(disk.rot(file, at, 1));
        let failed = open().unwrap().read_to_vec(0..there.len).unwrap_err();
        assert!(matches!(failed, ContentError::Damaged { hash, .. } if hash == there.hash), "{file:?}: {failed}");
        disk.rot(file, at, 1);
    }
    // What it has itself it does not read in the other.
    disk.rot(&base, 0, 1);
    assert_eq!(open().unwrap().read_to_vec(0..there.len).unwrap(), new);
    // A tree that is damaged lends nothing.
    disk.rot(&path(before.hash, ".outboard"), 3, 1);
    assert_eq!(import_over(&dir, &new, &reader(&dir, &before)).over, None);
    for file in [own, base] {
        disk.remove(&file).unwrap();
        assert!(matches!(open(), Err(ContentError::Damaged { hash, .. }) if hash == there.hash));
    }
}

#[test]
fn a_tree_that_is_wrong_is_refused_and_copies_nothing_wrong() {
    let (ours, theirs) = (ContentDir::in_memory(), ContentDir::in_memory());
    let old = bytes(50 * GROUP_LEN);
    let before = ours.publish(vec![ours.stage_bytes(&old).unwrap()]).unwrap().remove(0);
    let mut new = old.clone();
    new[5] ^= 1;
    let there = theirs.publish(vec![theirs.stage_bytes(&new).unwrap()]).unwrap().remove(0);
    let partial = ours.download(Checkpoint::start(there.hash, there.len)).unwrap();
    partial.reuse(reader(&ours, &before));
    let all = GroupRanges::all(there.len);
    let tree: Vec<u8> =
        reader(&theirs, &there).encode_tree(all.clone()).unwrap().flat_map(|piece| piece.unwrap()).collect();
    for at in (0..tree.len()).step_by(97) {
        let mut wrong = tree.clone();
        wrong[at] ^= 8;
        let mut claim = partial.claim_tree(&all, 1000).unwrap();
        assert!(matches!(claim.push(&wrong), Err(ContentError::Unproved { .. })), "{at}");
        assert!(claim.push(&tree).is_err());
    }
    let mut claim = partial.claim_tree(&all, 1000).unwrap();
    assert!(matches!(claim.push(&[&tree[..], &[0]].concat()), Err(ContentError::Unproved { .. })));
    drop(claim);
    assert!(!partial.verified().contains(&(0..1)));
    for group in partial.verified().iter().flatten() {
        let range = group * GROUP_LEN..(group + 1) * GROUP_LEN;
        assert_eq!(partial.reader().read_to_vec(range.clone()).unwrap(), new[range.start as usize..range.end as usize]);
    }
}
