//! Flags: that each does what the help says.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::{
    fs,
    io::Write,
    process::{Output, Stdio},
};

use common::{LOCAL, Machine, eventually, read_line, refused, syncline};
use serde_json::Value;

#[test]
fn replica_names_the_one_that_is_meant_in_every_command() {
    let (a, b, c) = (Machine::new(), Machine::new(), Machine::new());
    let (up_a, up_b) = (a.up(&LOCAL), b.up(&LOCAL));
    let (id_a, id_b) = (up_a.field("replica"), up_b.field("replica"));
    a.done(["put", "k", "of a"]);
    c.done(["join", &up_a.field("ticket")]);
    c.done(["join", &up_b.field("ticket")]);
    // A folder for a replica that was joined before.
    fs::create_dir(c.folder()).unwrap();
    let folder = c.folder().display().to_string();
    let up_c = c.up(&[&[folder.as_str(), "--replica", &id_a[..12]][..], &LOCAL].concat());
    assert_eq!(up_c.field("replica"), id_a);
    eventually("the folder is that of a", || c.read("k").as_deref() == Some(b"of a"), || c.done(["why"]));
    let ids = |document: &Value| -> Vec<String> {
        document["replicas"].as_array().unwrap().iter().map(|replica| replica["id"].as_str().unwrap().into()).collect()
    };
    assert_eq!(ids(&c.json(["status"])).len(), 2);
    let only = c.json(["status", "--replica", &id_b[..12]]);
    assert_eq!((ids(&only), only["folders"].as_array().unwrap().len()), (vec![id_b.clone()], 0));
    let peers = c.json(["--replica", &id_b, "peers"]);
    let peers: Vec<_> = peers["peers"].as_array().unwrap().iter().map(|peer| peer["id"].clone()).collect();
    assert_eq!(peers, [up_b.ready["node_id"].clone()]);
    // What is in the way of one is not in the way of the other.
    up_b.kill();
    c.done(["put", "later", "x", "--replica", &id_b]);
    eventually(
        "it is in the way of b's",
        || c.done(["why", "--replica", &id_b]).contains(&id_b[..10]),
        || c.done(["why"]),
    );
    assert!(!c.done(["why", "--replica", &id_a]).contains(&id_b[..10]));
    for verb in [&["watch"][..], &["ls"], &["get", "k"], &["ticket"]] {
        refused(&c.run(verb), 2, &["--replica", &id_a[..10], &id_b[..10]]);
    }
    refused(&c.run(["status", "--replica", "ffff"]), 1, &["ffff", &id_a[..10]]);
    drop(up_c);
    let ticket = up_a.field("ticket");
    let mut up = c.spawn(&["--join", &ticket, "--replica", &id_b]);
    refused(&common::ended(&mut up), 2, &["--replica", &id_a[..10]]);
}

#[test]
fn read_only_is_remembered_and_taken_back_by_saying_so() {
    let (a, b) = (Machine::new(), Machine::new());
    a.save("shared", "x");
    let up_a = a.share(&LOCAL);
    let up_b = b.join(&up_a.field("ticket"), &["--read-only", LOCAL[0], LOCAL[1]]);
    let read_only = || b.json(["status"])["folders"][0]["read_only"] == true;
    b.save("own", "stays here");
    common::eventually("the file comes", || b.read("shared").is_some(), || b.done(["why"]));
    up_b.stop();
    let up_b = b.share(&[]);
    assert!(read_only(), "it follows after a restart without the flag");
    a.save("second", "x");
    eventually("it follows", || b.read("second").is_some(), || b.done(["why"]));
    assert!(a.read("own").is_none());
    up_b.stop();
    let _up_b = b.share(&["--read-only=false"]);
    eventually("it writes too", || a.read("own").is_some(), || b.done(["why"]));
    assert!(!read_only());
    let c = Machine::new();
    let mut up = c.spawn(&["--read-only"]);
    refused(&common::ended(&mut up), 2, &["FOLDER"]);
}

#[test]
fn a_store_in_memory_forgets_and_a_folder_shared_from_it_begins_anew() {
    let a = Machine::new();
    a.save("file", "x");
    let up = a.share(&["--store", "mem", LOCAL[0], LOCAL[1]]);
    eventually("it is put", || a.run(["get", "file"]).stdout == b"x", || a.done(["why"]));
    a.done(["put", "key", "y"]);
    // Else it stops with nothing but its memory that knows of the key.
    eventually("the key is a file", || a.read("key").as_deref() == Some(b"y"), || a.done(["why"]));
    let first = up.field("replica");
    up.stop();
    assert!(!a.data().join("store.redb").exists());
    let up = a.share(&["--store", "mem"]);
    assert_ne!(up.field("replica"), first);
    eventually("the file is put again", || a.run(["get", "file"]).stdout == b"x", || a.done(["why"]));
    eventually("so is the key", || a.run(["get", "key"]).stdout == b"y", || a.done(["why"]));
}

fn put_from_input(machine: &Machine, key: &str, bytes: &[u8]) -> Output {
    let mut child = machine
        .command(["put", key, "--file", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn every_command_prints_one_document_with_json() {
    let a = Machine::new();
    let mut child = a
        .command(["up", "--json", "--listen", "quic://127.0.0.1:0", "--listen", "http://127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let up: Value = serde_json::from_str(&read_line(child.stdout.as_mut().unwrap())).unwrap();
    let stop = StopAtEnd(child);
    for name in ["node_id", "addresses", "replica", "ticket"] {
        assert!(!up[name].is_null(), "{up}");
    }
    let replica = up["replica"].as_str().unwrap();
    // Values come from standard input, short ones and long ones.
    for (key, bytes) in [("short", b"from input".to_vec()), ("long", vec![b'x'; 3 << 20])] {
        let output = put_from_input(&a, key, &bytes);
        let put: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!((&put["key"], put["len"].as_u64()), (&key.into(), Some(bytes.len() as u64)));
        assert!(a.run(["get", key]).stdout == bytes);
        let got = a.json(["get", key]);
        assert_eq!(got["hash"], put["hash"]);
        assert!(got["value"].as_str().unwrap().as_bytes() == bytes);
    }
    let out = a.dir.path().join("out");
    let got = a.json(["get", "short", "--out", out.to_str().unwrap()]);
    assert_eq!((&got["key"], got.get("value")), (&"short".into(), None));
    assert_eq!(fs::read(&out).unwrap(), b"from input");
    put_from_input(&a, "bytes", &[0xff, 0, 1]);
    assert_eq!(a.json(["get", "bytes"])["value"]["hex"], "ff0001");
    for (right, flags) in
        [("write", &["ticket", "--write"][..]), ("write", &["ticket"]), ("read", &["ticket", "--read"])]
    {
        let ticket = a.json(flags);
        assert_eq!((&ticket["right"], &ticket["replica"]), (&right.into(), &replica.into()));
        assert!(ticket["ticket"].as_str().unwrap().starts_with("syncline://") && ticket["expires"].is_null());
    }
    assert!(a.json(["ticket", "--expires", "7d"])["expires"].as_u64().unwrap() > 0);
    let token = a.json(["token", "--read", "--expires", "1h", "--replica", &replica[..12]]);
    assert_eq!(token["replica"], replica);
    assert!(token["token"].is_string() && token["expires"].is_u64());
    refused(&a.run(["token", "--write"]), 2, &["read-only", "syncline put"]);
    let b = Machine::new();
    let joined = b.json(["join", up["ticket"].as_str().unwrap()]);
    assert_eq!((&joined["replica"], &joined["folder"]), (&replica.into(), &Value::Null));
    for verb in [&["ls"][..], &["status"], &["why"], &["peers"], &["sync"], &["rm", "short"]] {
        assert!(a.json(verb).is_object());
    }
    drop(stop);
}

struct StopAtEnd(std::process::Child);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn data_lies_in_the_platforms_directory_unless_told_otherwise() {
    let home = tempfile::tempdir().unwrap();
    let ticket = {
        let a = Machine::new();
        a.up(&LOCAL).field("ticket")
    };
    let run = |xdg: Option<&str>| {
        let mut command = syncline();
        command.env("HOME", home.path()).env_remove("XDG_DATA_HOME").args(["join", &ticket]);
        if let Some(xdg) = xdg {
            command.env("XDG_DATA_HOME", home.path().join(xdg));
        }
        assert!(command.output().unwrap().status.success());
    };
    run(None);
    assert!(home.path().join(".local/share/syncline/store.redb").exists());
    run(Some("xdg"));
    assert!(home.path().join("xdg/syncline/store.redb").exists());
    let output = syncline().env_remove("HOME").env_remove("XDG_DATA_HOME").arg("ls").output().unwrap();
    refused(&output, 2, &["HOME", "--data"]);
}
