//! Rights that are given, end, and are given again.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::fs;

use common::{LOCAL, Machine, ended, equal, eventually, refused};

fn refused_put(machine: &Machine) -> bool {
    let output = machine.run(["put", "mine", "x"]);
    match output.status.success() {
        true => false,
        false => {
            refused(&output, 1, &["may not write", "--write"]);
            true
        }
    }
}

/// `join` said nothing to a second ticket: a reader could not become a writer, and who had lost his right
/// never got it back.
#[test]
fn b59_joining_again_makes_a_reader_a_writer_and_renews_a_right_that_ended() {
    let (a, b) = (Machine::new(), Machine::new());
    let _up = a.up(&LOCAL);
    a.done(["put", "k", "v"]);
    b.done(["join", a.done(["ticket", "--read"]).trim()]);
    b.done(["sync"]);
    assert!(refused_put(&b));
    let short = a.done(["ticket", "--write", "--expires", "15s"]);
    b.done(["join", short.trim()]);
    eventually("the right ends", || refused_put(&b), String::new);
    // The same line again is no error: b may still read.
    b.done(["join", short.trim()]);
    b.done(["join", a.done(["ticket"]).trim()]);
    b.done(["put", "second", "x"]);
    b.done(["sync"]);
    assert_eq!(a.done(["get", "second"]), "x");
    // The better invitation is passed on, and a lesser one takes nothing away.
    b.done(["join", a.done(["ticket", "--read"]).trim()]);
    let ticket = b.up(&LOCAL).field("ticket");
    let c = Machine::new();
    c.done(["join", &ticket]);
    c.done(["put", "third", "x"]);
}

#[test]
fn when_the_right_to_write_ends_the_folder_goes_on_receiving_and_a_new_ticket_brings_it_back() {
    let (a, b) = (Machine::new(), Machine::new());
    a.save("from a", "1");
    let _up_a = a.share(&LOCAL);
    let _up_b = b.join(a.done(["ticket", "--read"]).trim(), &LOCAL);
    equal(&[&a, &b]);
    let read_only = || b.json(["status"])["folders"][0]["read_only"] == true;
    assert!(read_only());
    assert_eq!(b.done(["why"]).trim(), "nothing is in the way", "who only reads lacks nothing");
    // The running daemon takes the new right, while it lasts.
    b.done(["join", a.done(["ticket", "--write", "--expires", "15s"]).trim(), b.folder().to_str().unwrap()]);
    eventually("the right ends", || refused_put(&b), String::new);
    b.save("late", "waits here");
    eventually("why says so", || b.done(["why"]).contains("right to write"), || b.done(["why"]));
    assert!(b.done(["why"]).contains("syncline join"), "{}", b.done(["why"]));
    a.save("from a", "2");
    eventually("what a changes still comes", || b.read("from a").as_deref() == Some(b"2"), || b.done(["why"]));
    assert!(read_only() && a.read("late").is_none());
    b.done(["join", a.done(["ticket"]).trim()]);
    equal(&[&a, &b]);
    assert_eq!(a.read("late").unwrap(), b"waits here");
    assert_eq!(b.done(["why"]).trim(), "nothing is in the way");
}

#[test]
fn sync_moves_contents_too_and_then_a_command_has_them() {
    let (a, b) = (Machine::new(), Machine::new());
    let photo = |machine: &Machine| machine.dir.path().join("photo");
    let bytes: Vec<u8> = (0..6_000_000u32).map(|at| (at.wrapping_mul(at) >> 9) as u8).collect();
    fs::write(photo(&a), &bytes).unwrap();
    let up_a = a.up(&LOCAL);
    a.done(["put", "photo", "--file", photo(&a).to_str().unwrap()]);
    b.done(["join", &up_a.field("ticket")]);
    assert_eq!(b.json(["sync"])["blobs_missing"], 0);
    assert!(b.run(["get", "photo"]).stdout == bytes, "sync is done when the content is here");
    // And the other way: whoever puts without a daemon serves until it is taken.
    fs::write(photo(&b), bytes.repeat(2)).unwrap();
    b.done(["put", "other", "--file", photo(&b).to_str().unwrap()]);
    b.done(["sync"]);
    let out = a.dir.path().join("out");
    eventually(
        "a takes it into use",
        || {
            let has = a.run(["get", "other", "--out", out.to_str().unwrap()]).status.success();
            // A peer that asks for nothing for two seconds is served no longer: on a busy machine it may be slow.
            if !has {
                b.done(["sync"]);
            }
            has
        },
        || a.done(["status"]),
    );
    assert!(fs::read(&out).unwrap() == bytes.repeat(2));
    // What nobody has is no success.
    let (c, late) = (Machine::new(), a.done(["ticket"]));
    up_a.stop();
    fs::remove_dir_all(a.data().join("store.content")).unwrap();
    let _up_a = a.up(&[]);
    c.done(["join", late.trim()]);
    refused_after_output(&c.run(["sync", "--timeout", "12s"]), &["2 contents", "syncline up"]);
}

#[track_caller]
fn refused_after_output(output: &std::process::Output, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is missing in: {stderr}");
    }
}

#[test]
fn an_expired_ticket_leaves_nothing_behind() {
    let a = Machine::new();
    let _up = a.up(&LOCAL);
    let ticket = a.done(["ticket", "--expires", "1s"]);
    let probe = Machine::new();
    let is_over = || String::from_utf8_lossy(&Machine::new().run(["join", ticket.trim()]).stderr).contains("expired");
    // A data directory that was there before stays, and what is in it.
    probe.up(&LOCAL).stop();
    let files = || fs::read_dir(probe.data()).unwrap().count();
    let before = files();
    eventually("it expires", is_over, String::new);
    refused(&probe.run(["join", ticket.trim()]), 1, &["expired"]);
    assert_eq!(files(), before);
    let b = Machine::new();
    refused(&b.run(["join", ticket.trim(), b.folder().to_str().unwrap()]), 1, &["expired", "syncline ticket"]);
    assert!(!b.data().exists() && !b.folder().exists(), "nothing was made");
    let mut up = b.spawn(&[b.folder().to_str().unwrap(), "--join", ticket.trim(), LOCAL[0], LOCAL[1]]);
    refused(&ended(&mut up), 1, &["expired", "syncline ticket"]);
    assert!(!b.data().exists() && !b.folder().exists(), "nothing was made");
    // A running daemon makes no folder for it either.
    let folder = probe.folder();
    let _up = probe.up(&[]);
    refused(&probe.run(["join", ticket.trim(), folder.to_str().unwrap()]), 1, &["expired"]);
    assert!(!folder.exists());
}
