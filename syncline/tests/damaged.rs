//! Data directories that are damaged, or of a newer format: refused with the way out, and left as they are.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use common::{LOCAL, Machine, ended, equal, eventually, refused};
use store_redb::RedbEngine;
use sync_core::store::Engine;

#[track_caller]
fn both_refuse(machine: &Machine, words: &[&str]) {
    let mut up = machine.spawn(&LOCAL);
    refused(&ended(&mut up), 1, words);
    refused(&machine.run(["ls"]), 1, words);
}

#[test]
fn a_data_directory_of_a_newer_format_or_a_damaged_one_is_refused_and_left_as_it_is() {
    let a = Machine::new();
    a.up(&LOCAL).stop();
    a.done(["put", "k", "v"]);
    let settings = a.data().join("settings.json");
    let good = fs::read(&settings).unwrap();
    for (bad, word) in [(r#"{"format": 99}"#, "newer version"), ("{", "damaged")] {
        fs::write(&settings, bad).unwrap();
        both_refuse(&a, &["settings.json", word]);
        assert_eq!(fs::read_to_string(&settings).unwrap(), bad);
    }
    fs::write(&settings, &good).unwrap();
    let store = a.data().join("store.redb");
    let good = fs::read(&store).unwrap();
    let (half, mut flipped) = (&good[..good.len() / 2], good.clone());
    flipped[..64].fill(0xa5);
    for bad in [&b"this is no database"[..], &[], half, &flipped].into_iter().filter(|bad| !bad.is_empty()) {
        fs::write(&store, bad).unwrap();
        both_refuse(&a, &["store.redb", "restore", "move it away", "ticket"]);
        assert!(fs::read(&store).unwrap().len() == bad.len(), "it is left as it is");
    }
    fs::write(&store, &good).unwrap();
    assert_eq!(a.done(["get", "k"]), "v");
    set_format(&store, 99);
    both_refuse(&a, &["store.redb", "format 99", "newer version"]);
}

/// Writes another format into the store, as a later version would.
fn set_format(store: &Path, format: u32) {
    let engine = RedbEngine::open(store).unwrap();
    let mut key = vec![0];
    key.extend_from_slice(b"format");
    engine.write(&mut |rows| rows.put(&key, &format.to_be_bytes())).unwrap();
}

#[test]
fn content_that_rots_is_fetched_again_and_never_shown() {
    let (a, b) = (Machine::new(), Machine::new());
    let bytes: Vec<u8> = (0..2_000_000u32).map(|at| (at.wrapping_mul(at) >> 9) as u8).collect();
    a.save("photo", &bytes);
    let up_a = a.share(&LOCAL);
    let up_b = b.join(&up_a.field("ticket"), &LOCAL);
    equal(&[&a, &b]);
    up_b.stop();
    up_a.stop();
    fs::remove_file(b.path("photo")).unwrap();
    let content = b.data().join("store.content");
    let rotten = rot(&content);
    assert!(rotten > 0, "there is content");
    // Without its folder the file is an absent one: take the key.
    let output = b.run(["get", "photo"]);
    assert!(output.status.code() == Some(1) && output.stdout.is_empty(), "{:?}", output.status);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("photo") || stderr.contains("damaged"), "{stderr}");
    let _up_a = a.share(&[]);
    let _up_b = b.up(&["--read-only=false", b.folder().to_str().unwrap()]);
    eventually(
        "it is fetched again",
        || b.run(["get", "photo"]).stdout == bytes || a.read("photo").is_none(),
        || b.done(["why"]),
    );
    // A file in the place of the directory is no directory.
    let c = Machine::new();
    c.up(&LOCAL).stop();
    fs::remove_dir_all(c.data().join("store.content")).unwrap();
    fs::write(c.data().join("store.content"), "in the way").unwrap();
    both_refuse(&c, &["store.content"]);
}

/// Changes a byte in the middle of every file beneath.
fn rot(directory: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            count += rot(&path);
        } else if entry.metadata().unwrap().len() > 100_000 {
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            fs::write(&path, bytes).unwrap();
            count += 1;
        }
    }
    count
}

#[test]
fn a_damaged_state_of_a_folder_is_made_anew_and_no_file_is_lost() {
    let (a, b) = (Machine::new(), Machine::new());
    for n in 0..30 {
        a.save(&format!("{n}"), format!("{n}"));
    }
    let up_a = a.share(&LOCAL);
    let up_b = b.join(&up_a.field("ticket"), &LOCAL);
    equal(&[&a, &b]);
    up_b.stop();
    b.save("3", "edited while it was off");
    let state = fs::read_dir(b.data().join("folders")).unwrap().next().unwrap().unwrap().path();
    for bad in [&b"no state at all"[..], b""] {
        fs::write(&state, bad).unwrap();
        let up_b = b.share(&[]);
        equal(&[&a, &b]);
        // Who has forgotten what it saw keeps both texts.
        let texts: Vec<_> = a.files().into_values().collect();
        assert!(texts.contains(&b"edited while it was off".to_vec()), "{:?}", a.files().keys());
        up_b.stop();
    }
    fs::remove_dir_all(b.data().join("folders")).unwrap();
    fs::write(b.data().join("folders"), "in the way").unwrap();
    both_refuse(&b, &["folders", "--data"]);
}
