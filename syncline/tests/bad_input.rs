//! Bad input: one line that says what, on what and the way out; exit code 1 or 2; nothing changed.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::{
    fs,
    net::{TcpListener, UdpSocket},
};

use common::{LOCAL, Machine, ended, refused};

fn replica(machine: &Machine) {
    machine.up(&LOCAL).stop();
}

#[test]
fn a_malformed_truncated_or_foreign_ticket_is_refused_before_anything_is_made() {
    let a = Machine::new();
    let ticket = a.up(&LOCAL).field("ticket");
    let flipped = ticket.replace("&grant=A", "&grant=B");
    for (bad, word) in [
        ("hello", "syncline://"),
        ("https://example.org/", "syncline://"),
        (&ticket[..ticket.len() - 5], "damaged"),
        (&ticket[..60], "damaged"),
        (&flipped, "damaged"),
    ] {
        let b = Machine::new();
        refused(&b.run(["join", bad]), 2, &[word]);
        let mut up = b.spawn(&[b.folder().to_str().unwrap(), "--join", bad]);
        refused(&ended(&mut up), 2, &[word]);
        assert!(!b.data().exists() && !b.folder().exists(), "nothing was made");
    }
}

#[test]
fn an_unknown_scheme_lists_the_known_ones() {
    let a = Machine::new();
    let mut up = a.spawn(&["--listen", "tcp://127.0.0.1:1"]);
    refused(&ended(&mut up), 2, &["tcp", "http://", "quic://", "iroh:"]);
    let mut up = a.spawn(&["--store", "sqlite"]);
    refused(&ended(&mut up), 2, &["sqlite", "mem, redb"]);
    assert!(!a.data().exists());
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_left_behind() {
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let ports = [("http", tcp.local_addr()), ("quic", udp.local_addr()), ("iroh", udp.local_addr())];
    let ticket = {
        let b = Machine::new();
        b.up(&LOCAL).field("ticket")
    };
    let a = Machine::new();
    let folder = a.folder().display().to_string();
    for (scheme, address) in ports {
        let port = address.unwrap().port().to_string();
        let listen = format!("{scheme}://127.0.0.1:{port}");
        let mut up = a.spawn(&[&folder, "--join", &ticket, "--listen", "http://127.0.0.1:0", "--listen", &listen]);
        refused(&ended(&mut up), 1, &[&port, "in use", "--listen"]);
        assert!(!a.data().exists() && !a.folder().exists(), "nothing was made");
    }
    // A node that was there before is as it was.
    replica(&a);
    let settings = fs::read(a.data().join("settings.json")).unwrap();
    let port = tcp.local_addr().unwrap().port();
    let mut up = a.spawn(&[&folder, "--join", &ticket, "--listen", &format!("http://127.0.0.1:{port}")]);
    refused(&ended(&mut up), 1, &["in use"]);
    assert_eq!(fs::read(a.data().join("settings.json")).unwrap(), settings);
    assert_eq!(a.json(["status"])["replicas"].as_array().unwrap().len(), 1);
    assert!(!a.folder().exists());
}

#[test]
fn a_second_daemon_on_a_data_directory_is_refused_and_the_first_goes_on() {
    let a = Machine::new();
    let _first = a.up(&LOCAL);
    let mut second = a.spawn(&LOCAL);
    refused(&ended(&mut second), 1, &["another syncline", "--data"]);
    a.done(["put", "k", "v"]);
}

#[test]
fn a_folder_that_cannot_be_shared_is_refused() {
    let a = Machine::new();
    let dir = a.dir.path();
    fs::write(dir.join("file"), "x").unwrap();
    fs::create_dir_all(dir.join("shared/inner")).unwrap();
    let at = |name: &str| dir.join(name).display().to_string();
    let before = || fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>().len();
    let there = before() + 2; // And what a start writes for this test.
    for (folder, words) in [
        (at("none"), &["none", "does not exist", "mkdir"][..]),
        (at("file"), &["is a file"]),
        (dir.display().to_string(), &["data directory", "--data"]),
    ] {
        let mut up = a.spawn(&[&folder, LOCAL[0], LOCAL[1]]);
        refused(&ended(&mut up), 1, words);
        assert!(!a.data().exists() && before() <= there, "nothing was made");
    }
    a.up(&[&at("shared"), LOCAL[0], LOCAL[1]]).stop();
    let mut up = a.spawn(&[&at("shared/inner"), LOCAL[0], LOCAL[1]]);
    refused(&ended(&mut up), 1, &["shared already"]);
    assert_eq!(a.json(["status"])["replicas"].as_array().unwrap().len(), 1, "nothing was made for the refused ones");
}

/// Two data directories do not know of each other: both would put the same files.
#[test]
fn a_folder_that_another_daemon_shares_is_refused_with_those_around_and_inside_it() {
    let (a, b) = (Machine::new(), Machine::new());
    a.save("inner/file", "x");
    let first = a.share(&LOCAL);
    let inner = a.path("inner").display().to_string();
    for (folder, word) in [
        (a.folder().display().to_string(), "already"),
        (inner.clone(), "is inside"),
        (a.dir.path().display().to_string(), "holds one"),
    ] {
        let mut up = b.spawn(&[&folder, LOCAL[0], LOCAL[1]]);
        refused(&ended(&mut up), 1, &["another syncline", word]);
        assert!(!b.data().exists(), "nothing was made");
    }
    // However the first one ends, it is free then.
    first.kill();
    b.up(&[&inner, LOCAL[0], LOCAL[1]]).stop();
}

#[test]
fn keys_of_0_and_of_1025_bytes_are_refused() {
    let a = Machine::new();
    let _up = a.up(&LOCAL);
    let (longest, too_long) = ("k".repeat(1024), "k".repeat(1025));
    a.done(["put", &longest, "v"]);
    assert_eq!(a.done(["get", &longest]), "v");
    for verb in [&["put", "", "v"][..], &["get", ""], &["rm", ""]] {
        refused(&a.run(verb), 2, &["at least 1 byte"]);
    }
    for verb in [&["put", &too_long, "v"][..], &["get", &too_long], &["rm", &too_long]] {
        refused(&a.run(verb), 2, &["1025", "1024"]);
    }
    assert_eq!(a.json(["ls"])["entries"].as_array().unwrap().len(), 1);
}

#[test]
fn an_unknown_replica_an_unknown_verb_and_no_node_are_refused() {
    let a = Machine::new();
    refused(&a.run(["ls"]), 1, &["no node", "syncline up"]);
    assert!(!a.data().exists(), "asking makes nothing");
    replica(&a);
    refused(&a.run(["ls", "--replica", "00ff00ff"]), 1, &["00ff00ff", "there are"]);
    refused(&a.run(["frobnicate"]), 2, &["frobnicate", "--help"]);
    refused(&a.run(["put"]), 2, &["--help"]);
    refused(&a.run(["sync", "--timeout", "soon"]), 2, &["soon", "30s"]);
    refused(&a.run(["watch"]), 1, &["no daemon", "syncline up"]);
    refused(&a.run(["put", "k", "--file", "/nonexistent/file"]), 1, &["/nonexistent/file"]);
}
