//! `vectors/journal.json`: journals, whole and damaged, each with the rows or the error that opening it gives.
//!
//! The bytes are put together here by hand, from the table in `journal.rs`; a journal that the engine writes must be
//! the same. A file that differs from what would be made now is a change of the format. When that is meant:
//!
//! ```sh
//! SYNCLINE_WRITE_VECTORS=1 cargo test -p store-redb --test journal_vectors
//! ```

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod disk;

use std::{ops::ControlFlow, path::PathBuf};

use disk::Disk;
use serde_json::{Value as Json, json};
use store_redb::{Limits, RedbEngine};
use sync_core::store::{Engine, EngineRead, Scan, StoreError};

const PAGE: usize = 4_096;
const SECRET: [u8; 32] = [5; 32];
/// Two pages a half.
const LIMITS: Limits = Limits { transaction_bytes: 4_000, overlay_bytes: 64_000, half_bytes: 2 * PAGE as u64 };

type Rows = Vec<(&'static str, Option<&'static str>)>;

fn checksum(secret: [u8; 32], bytes: &[u8]) -> Vec<u8> {
    blake3::keyed_hash(&secret, bytes).as_bytes()[..16].to_vec()
}

fn header(magic: &[u8], version: u32, secret: [u8; 32]) -> Vec<u8> {
    let mut header = [magic, &version.to_be_bytes(), &checksum(secret, b"header")].concat();
    header.resize(PAGE, 0);
    header
}

fn good_header() -> Vec<u8> {
    header(b"SYNCJRNL", 1, SECRET)
}

fn sealed(number: u64, rows: &[u8]) -> Vec<u8> {
    let behind = [&(rows.len() as u32).to_be_bytes()[..], &number.to_be_bytes(), rows].concat();
    let mut record = [checksum(SECRET, &behind), behind].concat();
    record.resize(PAGE, 0);
    record
}

fn record(number: u64, rows: &Rows) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in rows {
        bytes.extend((key.len() as u16).to_be_bytes());
        bytes.extend(value.map_or(u32::MAX, |value| value.len() as u32).to_be_bytes());
        bytes.extend(key.as_bytes());
        bytes.extend(value.unwrap_or_default().as_bytes());
    }
    sealed(number, &bytes)
}

fn damaged(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] ^= 1;
    bytes
}

/// Hexadecimal, long runs as `00*4068`.
fn hex(bytes: &[u8]) -> String {
    let mut parts: Vec<String> = vec![String::new()];
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let run = rest.iter().take_while(|byte| *byte == first).count();
        if run >= 64 {
            parts.push(format!("{first:02x}*{run}"));
            parts.push(String::new());
            rest = &rest[run..];
        } else {
            *parts.last_mut().unwrap() += &format!("{first:02x}");
            rest = &rest[1..];
        }
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}

fn bytes(json: &Json) -> Vec<u8> {
    let byte = |digits: &str| u8::from_str_radix(digits, 16).unwrap();
    let part = |part: &str| match part.split_once('*') {
        Some((digits, count)) => vec![byte(digits); count.parse().unwrap()],
        None => (0..part.len()).step_by(2).map(|at| byte(&part[at..at + 2])).collect(),
    };
    json.as_str().unwrap().split_whitespace().flat_map(part).collect()
}

fn make() -> Json {
    let first: Rows = vec![("a", Some("one")), ("b", Some("")), ("c", None)];
    let second: Rows = vec![("a", Some("two")), ("d", Some("new"))];
    let whole = [good_header(), record(1, &first), record(2, &second)].concat();
    let accepted: Vec<Json> = [
        ("no file", Vec::new(), vec![]),
        ("a file that was made and never written", vec![0; PAGE], vec![]),
        ("a header and no record", good_header(), vec![]),
        (
            "one record: a row, one without a value, one that goes",
            [good_header(), record(1, &first)].concat(),
            vec![("a", "one"), ("b", "")],
        ),
        ("two records: the later wins", whole.clone(), vec![("a", "two"), ("b", ""), ("d", "new")]),
        (
            "a record in each half: their order is by number",
            [good_header(), record(2, &second), vec![0; PAGE], record(1, &first)].concat(),
            vec![("a", "two"), ("b", ""), ("d", "new")],
        ),
        (
            "the last record is torn: it was never acknowledged",
            damaged(whole.clone(), 2 * PAGE + 40),
            vec![("a", "one"), ("b", "")],
        ),
        ("the last record is cut short", whole[..2 * PAGE + 30].to_vec(), vec![("a", "one"), ("b", "")]),
        ("another store's journal, and empty", header(b"SYNCJRNL", 1, [6; 32]), vec![]),
    ]
    .into_iter()
    .map(|(name, journal, rows)| json!({ "name": name, "journal": hex(&journal), "rows": rows }))
    .collect();
    let with = |first_page: Vec<u8>| [first_page, record(1, &first)].concat();
    let rejected: Vec<Json> = [
        ("a newer version", with(header(b"SYNCJRNL", 2, SECRET)), "newer format"),
        ("an older version than there ever was", with(header(b"SYNCJRNL", 0, SECRET)), "corrupt"),
        ("another file", with(header(b"SQLite f", 1, SECRET)), "corrupt"),
        ("another store's journal, and not empty", with(header(b"SYNCJRNL", 1, [6; 32])), "corrupt"),
        ("a header with a changed bit", with(damaged(good_header(), 20)), "corrupt"),
        ("a damaged record that another follows", damaged(whole.clone(), PAGE + 40), "corrupt"),
        ("a record is missing", [good_header(), record(2, &second)].concat(), "corrupt"),
        ("a number twice", [good_header(), record(1, &first), record(1, &second)].concat(), "corrupt"),
        (
            "a key that is longer than its record",
            [good_header(), sealed(1, &[0, 9, 0, 0, 0, 0, b'k'])].concat(),
            "corrupt",
        ),
        (
            "a value that is longer than its record",
            [good_header(), sealed(1, &[0, 1, 0, 0, 0, 9, b'k'])].concat(),
            "corrupt",
        ),
        ("half a row", [good_header(), sealed(1, &[0])].concat(), "corrupt"),
    ]
    .into_iter()
    .map(|(name, journal, error)| json!({ "name": name, "journal": hex(&journal), "error": error }))
    .collect();
    json!({ "secret": hex(&SECRET), "half_bytes": LIMITS.half_bytes, "accepted": accepted, "rejected": rejected })
}

/// Opens a new store with this journal beside it.
fn open(journal: &Disk) -> Result<RedbEngine, StoreError> {
    let (rows, journal) = (Disk::default(), journal.clone());
    RedbEngine::with_backends(move || Ok((rows.clone(), journal.clone())), LIMITS, SECRET)
}

fn rows(engine: &RedbEngine) -> Json {
    let mut rows = Vec::new();
    let snapshot = engine.snapshot().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    snapshot
        .scan(&[], None, Scan::Forward, &mut |key, value| {
            rows.push((text(key), text(value)));
            ControlFlow::Continue(())
        })
        .unwrap();
    json!(rows)
}

#[test]
fn the_vectors_of_the_journal_hold() {
    let made = make();
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "vectors", "journal.json"].iter().collect();
    if std::env::var_os("SYNCLINE_WRITE_VECTORS").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let kept: Json = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert!(kept == made, "{} is not what the code says now; see the docs of this test", path.display());
    for vector in kept["accepted"].as_array().unwrap() {
        let engine = open(&Disk::with(bytes(&vector["journal"]))).unwrap_or_else(|error| panic!("{vector}: {error}"));
        assert_eq!(rows(&engine), vector["rows"], "{}", vector["name"]);
    }
    for vector in kept["rejected"].as_array().unwrap() {
        let journal = Disk::with(bytes(&vector["journal"]));
        let error = match open(&journal) {
            Ok(_) => panic!("{} is accepted", vector["name"]),
            Err(StoreError::NewerFormat { .. }) => "newer format",
            Err(StoreError::Corrupt(_)) => "corrupt",
            Err(other) => panic!("{}: {other:?}", vector["name"]),
        };
        assert_eq!(error, vector["error"], "{}", vector["name"]);
        assert_eq!(journal.file(), bytes(&vector["journal"]), "what is refused stays as it is");
    }
}

#[test]
fn the_engine_writes_the_journal_of_the_vectors() {
    let journal = Disk::default();
    let engine = open(&journal).unwrap();
    let transactions: [Rows; 2] =
        [vec![("a", Some("one")), ("b", Some("")), ("c", None)], vec![("a", Some("two")), ("d", Some("new"))]];
    // A row that goes must have been there.
    engine.write(&mut |rows| rows.put(b"c", b"old")).unwrap();
    for transaction in &transactions {
        engine
            .write(&mut |rows| {
                transaction.iter().try_for_each(|(key, value)| match value {
                    Some(value) => rows.put(key.as_bytes(), value.as_bytes()),
                    None => rows.delete(key.as_bytes()),
                })
            })
            .unwrap();
    }
    let written = journal.file();
    assert_eq!(hex(&written[..PAGE.min(written.len())]), hex(&good_header()[..PAGE.min(written.len())]));
    let first = record(1, &vec![("c", Some("old"))]);
    assert_eq!(hex(&written[PAGE..2 * PAGE]), hex(&first));
    assert_eq!(hex(&written[2 * PAGE..3 * PAGE]), hex(&record(2, &transactions[0])));
}
