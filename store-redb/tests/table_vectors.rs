//! `vectors/tables.json`: what is in the tables of a redb file, whole and damaged, and the rows or the error that
//! opening it gives.
//!
//! The files themselves are redb's format; here it is the tables that count. When a change of them is meant:
//!
//! ```sh
//! SYNCLINE_WRITE_VECTORS=1 cargo test -p store-redb --test table_vectors
//! ```

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use redb::{Database, TableDefinition};
use serde_json::{Value as Json, json};
use store_redb::RedbEngine;
use sync_core::store::{Engine, EngineRead, Scan, StoreError};

const PAGE: usize = 4_096;
const SECRET: [u8; 32] = [5; 32];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(json: &Json) -> Vec<u8> {
    let text = json.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The journal's table: a name and bytes.
fn journal(rows: &[(&str, &[u8])]) -> Json {
    rows.iter().map(|(name, value)| json!([name, hex(value)])).collect()
}

fn make() -> Json {
    let folded = |number: u64| number.to_be_bytes();
    let whole = journal(&[("secret", &SECRET), ("folded", &folded(0))]);
    let rows = json!([["a", "one"], ["b", ""]]);
    let accepted = [
        json!({ "name": "no table: a new store", "rows": null, "journal": null, "read": [] }),
        json!({ "name": "no rows", "rows": [], "journal": whole, "read": [] }),
        json!({ "name": "two rows", "rows": rows, "journal": whole, "read": rows }),
        json!({ "name": "a store that had no journal", "rows": rows, "journal": null, "read": rows }),
        json!({
            "name": "records behind the last that is folded", "rows": rows, "read": [["a", "three"], ["b", ""]],
            "journal": journal(&[("secret", &SECRET), ("folded", &folded(1))]), "records": [[1, "a", "two"], [2, "a", "three"]],
        }),
        json!({
            "name": "records that are all folded", "rows": rows, "read": rows,
            "journal": journal(&[("secret", &SECRET), ("folded", &folded(2))]), "records": [[1, "a", "two"], [2, "a", "three"]],
        }),
    ];
    let bad = |name: &str, journal: Json| json!({ "name": name, "rows": rows, "journal": journal, "error": "corrupt" });
    let rejected = [
        bad("no secret", journal(&[("folded", &folded(0))])),
        bad("a secret of 31 bytes", journal(&[("secret", &SECRET[1..]), ("folded", &folded(0))])),
        bad("a secret of 33 bytes", journal(&[("secret", &[5; 33]), ("folded", &folded(0))])),
        bad("nothing about what is folded", journal(&[("secret", &SECRET)])),
        bad("a number of 7 bytes", journal(&[("secret", &SECRET), ("folded", &folded(0)[1..])])),
        bad("a number of 9 bytes", journal(&[("secret", &SECRET), ("folded", &[0; 9])])),
        json!({
            "name": "a record is missing behind the last that is folded", "rows": rows, "error": "corrupt",
            "journal": journal(&[("secret", &SECRET), ("folded", &folded(1))]), "records": [[3, "a", "three"]],
        }),
        json!({
            "name": "a journal of another secret", "rows": rows, "error": "corrupt",
            "journal": journal(&[("secret", &[6; 32]), ("folded", &folded(0))]), "records": [[1, "a", "two"]],
        }),
        json!({ "name": "rows that are numbers", "rows": "numbers", "journal": whole, "error": "corrupt" }),
        json!({ "name": "a journal's table of numbers", "rows": rows, "journal": "numbers", "error": "corrupt" }),
        json!({ "name": "no redb file", "file": hex(b"SQLite format 3\0"), "error": "corrupt" }),
    ];
    json!({ "accepted": accepted, "rejected": rejected })
}

/// A journal of records with one row each, by the table in `journal.rs`.
fn records(records: &[Json]) -> Vec<u8> {
    let checksum = |bytes: &[u8]| blake3::keyed_hash(&SECRET, bytes).as_bytes()[..16].to_vec();
    let page = |mut bytes: Vec<u8>| {
        bytes.resize(PAGE, 0);
        bytes
    };
    let mut file = page([&b"SYNCJRNL"[..], &1u32.to_be_bytes(), &checksum(b"header")].concat());
    for record in records {
        let (key, value) = (record[1].as_str().unwrap(), record[2].as_str().unwrap());
        let row = [
            &(key.len() as u16).to_be_bytes()[..],
            &(value.len() as u32).to_be_bytes(),
            key.as_bytes(),
            value.as_bytes(),
        ]
        .concat();
        let number = record[0].as_u64().unwrap().to_be_bytes();
        let behind = [&(row.len() as u32).to_be_bytes()[..], &number, &row].concat();
        file.extend(page([checksum(&behind), behind].concat()));
    }
    file
}

/// Makes the files that a vector describes.
fn make_files(vector: &Json, path: &Path) {
    if let Some(file) = vector.get("file") {
        return std::fs::write(path, bytes(file)).unwrap();
    }
    let database = Database::create(path).unwrap();
    let writing = database.begin_write().unwrap();
    match &vector["rows"] {
        Json::Null => {}
        Json::String(_) => {
            let numbers: TableDefinition<'_, u64, u64> = TableDefinition::new("syncline");
            writing.open_table(numbers).unwrap().insert(1, 1).unwrap();
        }
        rows => {
            let table: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("syncline");
            let mut table = writing.open_table(table).unwrap();
            for row in rows.as_array().unwrap() {
                let text = |at: usize| row[at].as_str().unwrap().as_bytes();
                table.insert(text(0), text(1)).unwrap();
            }
        }
    }
    match &vector["journal"] {
        Json::Null => {}
        Json::String(_) => {
            let numbers: TableDefinition<'_, u64, u64> = TableDefinition::new("syncline journal");
            writing.open_table(numbers).unwrap().insert(1, 1).unwrap();
        }
        rows => {
            let table: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("syncline journal");
            let mut table = writing.open_table(table).unwrap();
            for row in rows.as_array().unwrap() {
                table.insert(row[0].as_str().unwrap(), &bytes(&row[1])[..]).unwrap();
            }
        }
    }
    writing.commit().unwrap();
    if let Some(kept) = vector["records"].as_array() {
        std::fs::write(path.with_extension("redb.journal"), records(kept)).unwrap();
    }
}

fn read(engine: &RedbEngine) -> Json {
    let mut rows = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let snapshot = engine.snapshot().unwrap();
    snapshot
        .scan(&[], None, Scan::Forward, &mut |key, value| {
            rows.push((text(key), text(value)));
            ControlFlow::Continue(())
        })
        .unwrap();
    json!(rows)
}

#[test]
fn the_vectors_of_the_tables_hold() {
    let made = make();
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "vectors", "tables.json"].iter().collect();
    if std::env::var_os("SYNCLINE_WRITE_VECTORS").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let kept: Json = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert!(kept == made, "{} is not what the code says now; see the docs of this test", path.display());
    for vector in kept["accepted"].as_array().unwrap() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("store.redb");
        make_files(vector, &file);
        let engine = RedbEngine::open(&file).unwrap_or_else(|error| panic!("{vector}: {error}"));
        assert_eq!(read(&engine), vector["read"], "{}", vector["name"]);
        // And once more, by what the first opening has left.
        drop(engine);
        assert_eq!(read(&RedbEngine::open(&file).unwrap()), vector["read"], "{} again", vector["name"]);
    }
    for vector in kept["rejected"].as_array().unwrap() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("store.redb");
        make_files(vector, &file);
        match RedbEngine::open(&file) {
            Ok(_) => panic!("{} is accepted", vector["name"]),
            Err(StoreError::Corrupt(_)) => assert_eq!(vector["error"], "corrupt", "{}", vector["name"]),
            Err(other) => panic!("{}: {other:?}", vector["name"]),
        }
    }
}
