//! `vectors/content_files.json`: the files of contents and downloads and what is kept in rows of them, whole and damaged,
//! and what reading them gives.
//!
//! When a change of the format is meant:
//!
//! ```sh
//! SYNCLINE_WRITE_VECTORS=1 cargo test -p sync-content --test file_vectors
//! ```

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value as Json, json};
use sync_content::{Checkpoint, ContentDir, ContentError, Hash, Overlay, Reader};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(json: &Json) -> Vec<u8> {
    let text = json.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The content of a length: byte n is 7 n + n / 256, modulo 256.
fn content(len: u64) -> Vec<u8> {
    (0..len).map(|n| (7 * n + n / 256) as u8).collect()
}

/// The files beneath a directory with their bytes, by their paths.
fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for dir in fs::read_dir(root).unwrap().map(|dir| dir.unwrap().path()) {
        for file in fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()) {
            let name = file.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            files.push((name, fs::read(&file).unwrap()));
        }
    }
    files.sort();
    files
}

/// Files by name, length and hash: contents are long.
fn listed(root: &Path) -> Json {
    let file = |(name, bytes): (String, Vec<u8>)| json!([name, bytes.len(), blake3::hash(&bytes).to_hex().as_str()]);
    files(root).into_iter().map(file).collect()
}

/// A content that is complete.
fn complete(root: &Path, len: u64) -> Json {
    let dir = ContentDir::open(root).unwrap();
    let made = dir.publish(vec![dir.stage_bytes(&content(len)).unwrap()]).unwrap().remove(0);
    json!({ "kind": "complete", "len": len, "hash": made.hash.to_hex().as_str(), "row": hex(&made.outboard), "files": listed(root) })
}

/// A content that stands on another: the same with a byte of some groups turned over.
fn overlay(root: &Path, len: u64, groups: std::ops::Range<u64>) -> Json {
    let dir = ContentDir::open(root).unwrap();
    let base = dir.publish(vec![dir.stage_bytes(&content(len)).unwrap()]).unwrap().remove(0);
    let older = dir.reader(base.hash, len, &base.outboard).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), turned(len, groups.clone())).unwrap();
    let staged = dir.stage_path_over(file.path(), &older, &mut sync_content::quiet).unwrap();
    let made = dir.publish(vec![staged]).unwrap().remove(0);
    let over = made.over.unwrap();
    let own: Vec<_> = over.own.iter().map(|run| [run.start, run.end]).collect();
    json!({
        "kind": "overlay", "len": len, "hash": made.hash.to_hex().as_str(), "turned": [groups.start, groups.end],
        "base": over.base.to_hex().as_str(), "own": own, "row": hex(&made.outboard), "files": listed(root),
    })
}

fn turned(len: u64, groups: std::ops::Range<u64>) -> Vec<u8> {
    let mut turned = content(len);
    groups.for_each(|group| turned[(group * sync_content::GROUP_LEN) as usize] ^= 0xff);
    turned
}

/// A download that has some groups.
fn partial(root: &Path, len: u64, groups: std::ops::Range<u64>) -> Json {
    let theirs = ContentDir::in_memory();
    let there = theirs.publish(vec![theirs.stage_bytes(&content(len)).unwrap()]).unwrap().remove(0);
    let server = theirs.reader(there.hash, len, &there.outboard).unwrap();
    let ours = ContentDir::open(root).unwrap();
    let download = ours.download(Checkpoint::start(there.hash, len)).unwrap();
    let mut claim = download.claim_of(&groups.clone().into(), groups.end - groups.start).unwrap();
    for piece in server.encode(claim.groups().into()).unwrap() {
        claim.push(&piece.unwrap()).unwrap();
    }
    let row = postcard::to_allocvec(&download.checkpoint().unwrap()).unwrap();
    json!({
        "kind": "partial", "len": len, "hash": there.hash.to_hex().as_str(), "groups": [groups.start, groups.end],
        "row": hex(&row), "files": listed(root),
    })
}

/// Large enough that the outboard is a file.
const LARGE: u64 = 2 * 1024 * 1024 + 20_000;

/// Among the files of an overlay: that of the other content, and its own, whose outboard follows.
const BASE: u64 = 0;
const OWN: u64 = 2;

/// What is done to the row or a file: bytes are turned over, or the end is cut off or added to.
fn damages() -> Vec<(Json, Json, &'static str)> {
    let flip = |at: u64| json!({ "flip": at });
    let resize = |len: u64| json!({ "resize": len });
    let complete = |len: u64| json!({ "kind": "complete", "len": len });
    let partial = |len: u64| json!({ "kind": "partial", "len": len });
    let overlay = |len: u64| json!({ "kind": "overlay", "len": len });
    vec![
        (complete(50_000), json!({ "file": 0, "how": flip(0) }), "damaged"),
        (complete(50_000), json!({ "file": 0, "how": flip(49_999) }), "damaged"),
        (complete(50_000), json!({ "file": 0, "how": resize(49_999) }), "damaged"),
        (complete(50_000), json!({ "file": 0, "how": resize(0) }), "damaged"),
        (complete(50_000), json!({ "file": 0, "how": "remove" }), "damaged"),
        (complete(50_000), json!({ "row": flip(0) }), "damaged"),
        (complete(50_000), json!({ "row": flip(191) }), "damaged"),
        (complete(50_000), json!({ "row": resize(128) }), "damaged"),
        (complete(50_000), json!({ "row": resize(256) }), "damaged"),
        (complete(50_000), json!({ "row": resize(0) }), "damaged"),
        (complete(LARGE), json!({ "file": 1, "how": flip(64) }), "damaged"),
        (complete(LARGE), json!({ "file": 1, "how": resize(64) }), "damaged"),
        (complete(LARGE), json!({ "file": 1, "how": "remove" }), "damaged"),
        (overlay(LARGE), json!({ "file": OWN, "how": flip(2 * sync_content::GROUP_LEN) }), "damaged"),
        (overlay(LARGE), json!({ "file": OWN, "how": resize(2 * sync_content::GROUP_LEN) }), "damaged"),
        (overlay(LARGE), json!({ "file": OWN, "how": "remove" }), "damaged"),
        (overlay(LARGE), json!({ "file": OWN + 1, "how": flip(64) }), "damaged"),
        (overlay(LARGE), json!({ "file": BASE, "how": flip(0) }), "damaged"),
        (overlay(LARGE), json!({ "file": BASE, "how": "remove" }), "damaged"),
        (overlay(LARGE), json!({ "own": [[2, 4], [128, 130]] }), "damaged"),
        (overlay(LARGE), json!({ "own": [[2, 5], [128, 131]] }), "out of range"),
        (partial(80_000), json!({ "file": 0, "how": flip(40_000) }), "damaged"),
        (partial(80_000), json!({ "file": 0, "how": resize(65_535) }), "damaged"),
        (partial(80_000), json!({ "file": 0, "how": "remove" }), "damaged"),
        (partial(LARGE), json!({ "file": 1, "how": "remove" }), "damaged"),
        (partial(80_000), json!({ "row": resize(40) }), "no checkpoint"),
        (partial(80_000), json!({ "row": "groups behind the end" }), "out of range"),
        (partial(80_000), json!({ "row": "runs that touch" }), "no checkpoint"),
    ]
}

fn make() -> Json {
    let fresh = || tempfile::tempdir().unwrap();
    let mut accepted: Vec<Json> =
        [0, 1, 16_384, 16_385, 50_000, LARGE].into_iter().map(|len| complete(fresh().path(), len)).collect();
    accepted.push(partial(fresh().path(), 80_000, 2..4));
    accepted.push(partial(fresh().path(), LARGE, 64..128));
    accepted.push(overlay(fresh().path(), LARGE, 2..5));
    let rejected: Vec<Json> = damages()
        .into_iter()
        .map(|(of, damage, error)| json!({ "of": of, "damage": damage, "error": error }))
        .collect();
    json!({ "accepted": accepted, "rejected": rejected })
}

fn vectors() -> Json {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/content_files.json"));
    if std::env::var_os("SYNCLINE_WRITE_VECTORS").is_some() {
        fs::write(&path, serde_json::to_string_pretty(&make()).unwrap() + "\n").unwrap();
    }
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Makes the files of an accepted vector.
fn files_of(vector: &Json, root: &Path) {
    let len = vector["len"].as_u64().unwrap();
    let made = match vector["kind"].as_str().unwrap() {
        "complete" => complete(root, len),
        "overlay" => {
            let end = |at: usize| vector["turned"][at].as_u64().unwrap();
            overlay(root, len, end(0)..end(1))
        }
        _ => {
            let end = |at: usize| vector["groups"][at].as_u64().unwrap();
            partial(root, len, end(0)..end(1))
        }
    };
    assert_eq!(made, *vector, "the format is that of the vectors");
}

/// Opens what a row and files say, reads all of it and answers the bytes that are there.
fn read(vector: &Json, (row, own): (&[u8], &Json), root: &Path) -> Result<Vec<u8>, String> {
    let hash = |name: &str| Hash::from_hex(vector[name].as_str().unwrap()).unwrap();
    let dir = ContentDir::open(root).unwrap();
    let len = vector["len"].as_u64().unwrap();
    let reader: Result<Reader, ContentError> = match vector["kind"].as_str().unwrap() {
        "complete" => dir.reader(hash("hash"), len, row),
        "overlay" => {
            let runs = own.as_array().unwrap().iter().map(|run| (run[0].as_u64().unwrap(), run[1].as_u64().unwrap()));
            let own = runs.collect::<Vec<_>>().try_into().unwrap();
            dir.overlay_reader(hash("hash"), len, &Overlay { base: hash("base"), own }, len)
        }
        _ => {
            let checkpoint: Checkpoint = match postcard::take_from_bytes(row) {
                Ok((checkpoint, [])) => checkpoint,
                _ => return Err("no checkpoint".into()),
            };
            // Whoever goes on with it, and whoever serves it, find the same.
            dir.download(checkpoint.clone()).and_then(|_| dir.partial_reader(&checkpoint))
        }
    };
    let told = |error: ContentError| match error {
        ContentError::Damaged { .. } => "damaged".to_owned(),
        ContentError::OutOfRange { .. } => "out of range".to_owned(),
        other => other.to_string(),
    };
    let reader = reader.map_err(told)?;
    let mut all = Vec::new();
    for groups in reader.here().iter() {
        let end = (groups.end * sync_content::GROUP_LEN).min(len);
        all.extend(reader.read_to_vec(groups.start * sync_content::GROUP_LEN..end).map_err(told)?);
    }
    Ok(all)
}

fn damage(bytes: &mut Vec<u8>, how: &Json) {
    match (how.get("flip"), how.get("resize")) {
        (Some(at), _) => bytes[at.as_u64().unwrap() as usize] ^= 0xff,
        (_, Some(len)) => bytes.resize(len.as_u64().unwrap() as usize, 0),
        _ => panic!("{how} is no damage"),
    }
}

/// A checkpoint that names other runs of groups.
fn with_runs(row: &[u8], runs: &[(u64, u64)]) -> Vec<u8> {
    let before = postcard::from_bytes::<([u8; 32], u64)>(row).unwrap();
    let outboard: Vec<u8> = Vec::new();
    postcard::to_allocvec(&(before.0, before.1, runs, outboard)).unwrap()
}

#[test]
fn the_vectors_of_content_files_hold() {
    let vectors = vectors();
    let accepted = vectors["accepted"].as_array().unwrap();
    for vector in accepted {
        let root = tempfile::tempdir().unwrap();
        files_of(vector, root.path());
        let len = vector["len"].as_u64().unwrap();
        let whole = match vector.get("turned") {
            None => content(len),
            Some(groups) => turned(len, groups[0].as_u64().unwrap()..groups[1].as_u64().unwrap()),
        };
        let expected = match vector.get("groups") {
            None => &whole[..],
            Some(groups) => {
                let at = |n: usize| (groups[n].as_u64().unwrap() * sync_content::GROUP_LEN) as usize;
                &whole[at(0)..at(1).min(whole.len())]
            }
        };
        let read = read(vector, (&unhex(&vector["row"]), &vector["own"]), root.path());
        // Contents are too long to be shown.
        assert!(read.as_deref() == Ok(expected), "{:?} of {vector}", read.map(|bytes| bytes.len()));
    }
    for rejected in vectors["rejected"].as_array().unwrap() {
        let is_it = |vector: &&Json| ["kind", "len"].iter().all(|name| vector[name] == rejected["of"][name]);
        let vector = accepted.iter().find(is_it).unwrap();
        let root = tempfile::tempdir().unwrap();
        files_of(vector, root.path());
        let mut row = unhex(&vector["row"]);
        let how = &rejected["damage"];
        match (how.get("row"), how.get("file")) {
            (Some(Json::String(what)), _) => {
                let runs: &[(u64, u64)] = if what == "runs that touch" { &[(0, 1), (1, 2)] } else { &[(1, 6)] };
                row = with_runs(&row, runs);
            }
            (Some(how), _) => damage(&mut row, how),
            (_, Some(number)) => {
                let name = vector["files"][number.as_u64().unwrap() as usize][0].as_str().unwrap();
                let path = root.path().join(name);
                if how["how"] == "remove" {
                    fs::remove_file(path).unwrap();
                } else {
                    let mut bytes = fs::read(&path).unwrap();
                    damage(&mut bytes, &how["how"]);
                    fs::write(path, bytes).unwrap();
                }
            }
            _ => assert!(how.get("own").is_some(), "{how} is no damage"),
        }
        let expected = rejected["error"].as_str().unwrap();
        let own = how.get("own").unwrap_or(&vector["own"]);
        let read = read(vector, (&row, own), root.path()).map(|bytes| bytes.len());
        assert_eq!(read, Err(expected.into()), "{rejected}");
    }
}
