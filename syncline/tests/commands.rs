//! The verbs, with a daemon and without, for people and as JSON.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::{fs, os::unix::fs::FileTypeExt, process::Stdio};

use common::{LOCAL, Machine, eventually, http_get, read_line, refused};

/// A machine that had a daemon, so that it has a replica.
fn machine() -> Machine {
    let machine = Machine::new();
    machine.up(&LOCAL).stop();
    machine
}

fn values(machine: &Machine) {
    machine.done(["put", "greeting", "hello"]);
    assert_eq!(machine.done(["get", "greeting"]), "hello");
    machine.done(["put", "greeting", "hello again"]);
    assert_eq!(machine.done(["get", "greeting"]), "hello again");
    let file = machine.dir.path().join("file");
    fs::write(&file, vec![9; 200_000]).unwrap();
    machine.done(["put", "notes/large", "--file", file.to_str().unwrap()]);
    let out = machine.dir.path().join("out");
    machine.done(["get", "notes/large", "--out", out.to_str().unwrap()]);
    assert_eq!(fs::read(&out).unwrap(), vec![9; 200_000]);
    assert_eq!(machine.run(["get", "notes/large"]).stdout, vec![9; 200_000]);
    // A pipe or a device is written to, and is one afterwards.
    let pipe = machine.dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let path = pipe.clone();
    let reading = std::thread::spawn(move || fs::read(path).unwrap());
    machine.done(["get", "notes/large", "--out", pipe.to_str().unwrap()]);
    assert_eq!(reading.join().unwrap(), vec![9; 200_000]);
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    machine.done(["put", "notes/empty", ""]);
    assert_eq!(machine.done(["get", "notes/empty"]), "");
    let listed = machine.json(["ls"]);
    let keys: Vec<_> = listed["entries"].as_array().unwrap().iter().map(|entry| entry["key"].clone()).collect();
    assert_eq!(keys, ["greeting", "notes/empty", "notes/large"]);
    let large = &listed["entries"][2];
    assert_eq!(large["len"], 200_000);
    assert_eq!(large["hash"].as_str().unwrap(), blake3_hex(&vec![9; 200_000]));
    assert!(large["author"].is_string() && large["timestamp"].is_u64());
    assert_eq!(machine.done(["ls", "notes/", "--limit", "1"]).lines().count(), 1);
    machine.done(["rm", "greeting"]);
    refused(&machine.run(["get", "greeting"]), 1, &["greeting", "syncline ls"]);
    refused(&machine.run(["rm", "greeting"]), 1, &["greeting"]);
    assert_eq!(machine.json(["rm", "--prefix", "notes/"])["deleted"], 2);
    assert_eq!(machine.done(["ls"]), "");
    refused(&machine.run(["rm", "--prefix", "notes/"]), 1, &["notes/"]);
}

fn blake3_hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[test]
fn values_are_put_listed_read_and_removed_with_a_daemon() {
    let machine = Machine::new();
    let _up = machine.up(&LOCAL);
    values(&machine);
}

#[test]
fn values_are_put_listed_read_and_removed_without_a_daemon() {
    values(&machine());
}

#[test]
fn keys_are_files_and_files_are_keys() {
    let machine = Machine::new();
    let _up = machine.share(&LOCAL);
    machine.done(["put", "notes/a.txt", "from the command line"]);
    eventually("the file is there", || machine.read("notes/a.txt").is_some(), || machine.done(["why"]));
    machine.save("notes/b.txt", "from the folder");
    eventually(
        "the key is there",
        || machine.run(["get", "notes/b.txt"]).stdout == b"from the folder",
        || machine.done(["ls"]),
    );
    machine.done(["rm", "notes/a.txt"]);
    eventually("the file is gone", || machine.read("notes/a.txt").is_none(), || machine.done(["why"]));
    machine.done(["rm", "--prefix", "notes/"]);
    eventually("the folder is empty", || machine.files().is_empty(), || machine.done(["why"]));
}

#[test]
fn b28_a_prefix_removed_on_one_side_is_gone_on_the_other_though_the_other_wrote_it() {
    let (a, b) = (Machine::new(), Machine::new());
    for n in 0..5 {
        a.save(&format!("notes/{n}"), format!("{n}"));
    }
    a.save("stays", "x");
    let up_a = a.share(&LOCAL);
    let _up_b = b.join(&up_a.field("ticket"), &LOCAL);
    common::equal(&[&a, &b]);
    b.done(["rm", "--prefix", "notes/"]);
    eventually(
        "it is gone on both",
        || a.files().len() == 1 && b.files().len() == 1,
        || format!("{:?} {:?}", a.files(), b.files()),
    );
    assert_eq!(a.done(["ls"]).lines().count(), 1);
}

#[test]
fn b48_watch_prints_a_document_for_every_change() {
    let machine = Machine::new();
    let _up = machine.up(&LOCAL);
    let mut child =
        machine.command(["watch", "a/", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(read_line(child.stderr.as_mut().unwrap()).starts_with("watching"));
    machine.done(["put", "b", "not watched"]);
    machine.done(["put", "a/b", "hello"]);
    machine.done(["rm", "a/b"]);
    let out = child.stdout.as_mut().unwrap();
    let put: serde_json::Value = serde_json::from_str(&read_line(out)).unwrap();
    assert_eq!((put["op"].as_str(), put["key"].as_str(), put["len"].as_u64()), (Some("put"), Some("a/b"), Some(5)));
    let delete: serde_json::Value = serde_json::from_str(&read_line(out)).unwrap();
    assert_eq!((delete["op"].as_str(), delete["key"].as_str()), (Some("delete"), Some("a/b")));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn b43_status_has_what_the_contract_says() {
    let (a, b) = (Machine::new(), Machine::new());
    let up_a = a.up(&LOCAL);
    let up_b = b.up(&[&["--join", &up_a.field("ticket")][..], &LOCAL].concat());
    a.done(["put", "k", "v"]);
    let synced = || {
        let status = a.json(["status"]);
        let peer = &status["replicas"][0]["peers"][0];
        peer["synced"] == true && peer["pending"] == 0 && a.root() == b.root()
    };
    eventually("a is synced with b", synced, || a.done(["status"]));
    let status = b.json(["status"]);
    assert_eq!(status["node_id"], up_b.ready["node_id"]);
    assert_eq!(status["addresses"], up_b.ready["addresses"]);
    let replica = &status["replicas"][0];
    assert_eq!(replica["id"], up_a.ready["replica"]);
    assert!(replica["entries"].as_u64().unwrap() >= 1 && replica["blobs_missing"] == 0);
    let peer = &replica["peers"][0];
    assert_eq!(peer["id"], up_a.ready["node_id"]);
    assert_eq!((&peer["state"], &peer["transport"]), (&"live".into(), &"quic".into()));
    assert!(peer["last_error"].is_null());
    // Its own grant at the least: a position that A has confirmed.
    let position = peer["position"].as_u64().unwrap();
    assert!(position > 0 && peer["pending"] == 0, "{peer}");
    assert_eq!(b.done(["get", "k"]), "v");
    assert!(b.done(["peers"]).contains("connected over quic"));
    assert_eq!(b.done(["why"]).trim(), "nothing is in the way");
    // And when the other is gone, the truth is told.
    up_a.stop();
    let gone = || b.json(["status"])["replicas"][0]["peers"][0]["state"] != "live";
    eventually("b sees that a is gone", gone, || b.done(["status"]));
    b.done(["put", "later", "x"]);
    let shown = || !b.json(["why"])["obstacles"].as_array().unwrap().is_empty();
    eventually("why shows it", shown, || b.done(["status"]));
    let why = b.json(["why"]);
    for name in ["subject", "cause", "since", "next_try", "advice"] {
        assert!(why["obstacles"][0].get(name).is_some(), "{why}");
    }
    let failed = || b.json(["status"])["replicas"][0]["peers"][0]["last_error"].is_string();
    eventually("the error is told", failed, || b.done(["status"]));
    let peer = &b.json(["status"])["replicas"][0]["peers"][0];
    assert_eq!((&peer["position"], &peer["pending"]), (&position.into(), &1.into()), "{peer}");
    assert_eq!(peer["synced"], false, "{peer}");
}

#[test]
fn b26_sync_without_a_daemon_catches_up_and_reports_what_moved() {
    let (a, b) = (Machine::new(), Machine::new());
    let up_a = a.up(&LOCAL);
    a.done(["put", "k1", "v1"]);
    b.done(["join", &up_a.field("ticket")]);
    let report = b.json(["sync", "--timeout", "30s"]);
    let peer = &report["peers"][0];
    assert_eq!((&peer["id"], &peer["synced"]), (&up_a.ready["node_id"], &true.into()));
    for name in ["sent", "received", "bytes_sent", "bytes_received", "messages", "round_trips"] {
        assert!(peer[name].is_u64(), "{peer}");
    }
    assert!(peer["messages"].as_u64() >= Some(2), "an `Open` each way at least: {peer}");
    assert_eq!(b.done(["get", "k1"]), "v1");
    b.done(["put", "k2", "v2"]);
    b.done(["sync"]);
    assert_eq!(a.done(["get", "k2"]), "v2");
    up_a.stop();
    let output = b.run(["sync", "--timeout", "2s"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("syncline why"));
}

#[test]
fn a_version_that_lost_its_name_is_kept_when_a_command_takes_the_name() {
    kept_when(&["put", "notes/x", "by the command"], Some(b"by the command"));
}

#[test]
fn a_version_that_lost_its_name_is_kept_when_a_command_removes_the_prefix() {
    kept_when(&["rm", "--prefix", "notes/"], None);
}

fn kept_when(command: &[&str], expected: Option<&[u8]>) {
    let (a, b) = (Machine::new(), Machine::new());
    a.save("notes/x", "first");
    let up_a = a.share(&LOCAL);
    let up_b = b.join(&up_a.field("ticket"), &LOCAL);
    common::equal(&[&a, &b]);
    up_a.stop();
    let by_b = "by b, and long ".repeat(10_000);
    b.save("notes/x", &by_b);
    eventually("it is put", || b.done(["get", "notes/x"]) == by_b, || b.done(["why"]));
    up_b.stop();
    let up_a = a.share(&LOCAL);
    a.save("notes/x", "by a");
    eventually("it is put", || a.done(["get", "notes/x"]) == "by a", || a.done(["why"]));
    // Without a node the folder on b is not looked at: its version is in the replica alone, and on its disk.
    b.done(["join", &up_a.field("ticket")]);
    b.done(["sync", "--timeout", "30s"]);
    assert_eq!(b.done(["get", "notes/x"]), "by a");
    b.done(command);
    let _up_b = b.share(&LOCAL);
    common::equal(&[&a, &b]);
    eventually(
        "both texts are on both sides",
        || {
            [&a, &b].iter().all(|machine| {
                let files = machine.files();
                let kept = files.iter().find(|(name, _)| name.starts_with("notes/x (conflict "));
                files.get("notes/x").map(Vec::as_slice) == expected
                    && kept.is_some_and(|(_, text)| text == by_b.as_bytes())
            })
        },
        || format!("{:?} {:?}", a.files().keys(), b.files().keys()),
    );
}

#[test]
fn b39_a_write_while_the_peer_is_down_reaches_it_after_kills_of_both() {
    let (a, b) = (Machine::new(), Machine::new());
    let up_a = a.up(&LOCAL);
    let up_b = b.up(&[&["--join", &up_a.field("ticket")][..], &LOCAL].concat());
    a.done(["put", "k", "1"]);
    eventually("b has it", || b.run(["get", "k"]).stdout == b"1", || b.done(["status"]));
    up_b.kill();
    a.done(["put", "k", "2"]);
    up_a.kill();
    let _up_a = a.up(&[]);
    let _up_b = b.up(&[]);
    eventually("b has it", || b.run(["get", "k"]).stdout == b"2", || b.done(["status"]));
}

#[test]
fn several_replicas_on_one_node_are_told_apart() {
    let (a, b, c) = (Machine::new(), Machine::new(), Machine::new());
    let (up_a, up_b) = (a.up(&LOCAL), b.up(&LOCAL));
    a.done(["put", "k", "of a"]);
    b.done(["put", "k", "of b"]);
    let _up_c = c.up(&[&["--join", &up_a.field("ticket")][..], &LOCAL].concat());
    let folder = c.dir.path().join("second").display().to_string();
    c.done(["join", &up_b.field("ticket"), &folder]);
    let (id_a, id_b) = (up_a.field("replica"), up_b.field("replica"));
    eventually(
        "both come",
        || {
            c.run(["get", "k", "--replica", &id_a]).stdout == b"of a"
                && c.run(["--replica", &id_b[..8], "get", "k"]).stdout == b"of b"
        },
        || c.done(["status"]),
    );
    eventually(
        "the folder has it",
        || fs::read(format!("{folder}/k")).is_ok_and(|bytes| bytes == b"of b"),
        || c.done(["why"]),
    );
    refused(&c.run(["get", "k"]), 2, &["--replica", &id_a[..10], &id_b[..10]]);
    refused(&c.run(["get", "k", "--replica", "ffffffffffffff"]), 1, &["ffffffffffffff", &id_a[..10]]);
}

#[test]
fn b59_tickets_give_what_they_say_and_strangers_get_nothing() {
    let a = Machine::new();
    let up_a = a.up(&["--listen", "quic://127.0.0.1:0", "--listen", "http://127.0.0.1:0"]);
    a.done(["put", "secret", "value"]);
    // A read ticket reads, and its holder's write is refused on its own side.
    let reader = Machine::new();
    reader.done(["join", a.done(["ticket", "--read", "--expires", "1h"]).trim()]);
    reader.done(["sync"]);
    assert_eq!(reader.done(["get", "secret"]), "value");
    refused(&reader.run(["put", "k", "v"]), 1, &["may not write", "--write"]);
    // An expired ticket gives nothing.
    let ticket = a.done(["ticket", "--expires", "1s"]);
    let join = |machine: &Machine| machine.run(["join", ticket.trim()]);
    eventually("the ticket expires", || join(&Machine::new()).status.code() == Some(1), String::new);
    refused(&join(&Machine::new()), 1, &["expired", "syncline ticket"]);
    // REST without a token gives nothing, with one everything.
    let address = up_a.address("http");
    let replica = up_a.field("replica");
    let url = format!("{address}/v1/replicas/{replica}/values/secret");
    assert_eq!(http_get(&url, None, None).status, 401);
    assert_eq!(http_get(&url, Some("wrong"), None).status, 401);
    let token = a.done(["token"]);
    let answer = http_get(&url, Some(token.trim()), None);
    assert_eq!((answer.status, &answer.body[..]), (200, &b"value"[..]));
    let status = http_get(&format!("{address}/v1/status"), Some(token.trim()), None);
    assert_eq!(status.json()["replicas"][0]["id"], replica);
}

#[test]
fn help_teaches_by_example() {
    for verb in ["up", "put", "get", "rm", "ls", "watch", "ticket", "join", "token", "peers", "sync", "status", "why"] {
        let output = common::syncline().args([verb, "--help"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && text.contains("Examples:") && text.contains(&format!("syncline {verb}")),
            "{text}"
        );
    }
    let output = common::syncline().arg("--help").output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("syncline up ./notes"));
}
