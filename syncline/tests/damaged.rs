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
    for bad in [&b"this is no database"[..], &[], half, &flipped] {
        fs::write(&store, bad).unwrap();
        both_refuse(&a, &["store.redb", "restore", "move it away", "ticket"]);
        assert!(fs::read(&store).unwrap().len() == bad.len(), "it is left as it is");
    }
    fs::remove_file(&store).unwrap();
    both_refuse(&a, &["store.redb", "restore", "move it away", "ticket"]);
    assert!(!store.exists(), "it is left as it is");
    fs::write(&store, &good).unwrap();
    assert_eq!(a.done(["get", "k"]), "v");
    set_format(&store, 99);
    both_refuse(&a, &["store.redb", "format 99", "newer version"]);
}

/// The story: a store that was gone, another one in its place, or a start with a store in memory let go of the folder,
/// and it was shared as a new replica, with exit code 0.
#[test]
fn a_folder_whose_replica_is_not_in_the_store_stays_bound_to_it() {
    let (a, other) = (Machine::new(), Machine::new());
    a.save("file", "x");
    let up = a.share(&LOCAL);
    eventually("it is put", || a.run(["get", "file"]).stdout == b"x", || a.done(["why"]));
    let replica = up.field("replica");
    up.stop();
    let settings = a.data().join("settings.json");
    let before = fs::read(&settings).unwrap();
    let folder = a.folder().display().to_string();
    let refuses = |more: &[&str], words: &[&str]| {
        let mut up = a.spawn(&[&[folder.as_str()], more].concat());
        refused(&ended(&mut up), 1, &[&[&folder, &replica[..10]], words].concat());
    };
    refuses(&["--store", "mem"], &["--store mem", "--data"]);
    other.up(&LOCAL).stop();
    let store = ["store.redb", "store.redb.journal"];
    for name in store {
        fs::rename(a.data().join(name), a.dir.path().join(name)).unwrap();
        fs::copy(other.data().join(name), a.data().join(name)).unwrap();
    }
    refuses(&[], &["restore", "--join", "ticket"]);
    for name in store {
        fs::rename(a.dir.path().join(name), a.data().join(name)).unwrap();
    }
    assert_eq!(fs::read(&settings).unwrap(), before, "nothing was changed");
    assert_eq!(a.share(&[]).field("replica"), replica);
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
    let content = b.data().join("store.content");
    let rotten = rot(&content);
    assert!(rotten > 0, "there is content");
    // B's folder has the file still, and would put it again: from here on B has no folder, and takes the key.
    fs::rename(b.folder(), b.dir.path().join("elsewhere")).unwrap();
    let output = b.run(["get", "photo"]);
    assert!(output.status.code() == Some(1) && output.stdout.is_empty(), "{:?}", output.status);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("photo") || stderr.contains("damaged"), "{stderr}");
    let _up_a = a.share(&[]);
    let _up_b = b.up(&[]);
    eventually("it is fetched again", || b.run(["get", "photo"]).stdout == bytes, || b.done(["why"]));
    assert_eq!(a.read("photo").unwrap(), bytes, "nothing was deleted");
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
