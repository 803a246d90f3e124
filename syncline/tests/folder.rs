//! Two or three real nodes and their folders.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::{collections::BTreeMap, fs, io::Read, time::Instant};

use common::{EACH, LOCAL, Machine, equal, eventually};
use serde_json::Value;

fn listens(addresses: &[&'static str]) -> Vec<&'static str> {
    addresses.iter().flat_map(|address| ["--listen", address]).collect()
}

/// First contact, then live changes both ways, with these transports on both sides.
fn both_ways(addresses: &[&'static str]) {
    let (a, b) = (Machine::new(), Machine::new());
    a.save("notes/first.txt", "from a");
    a.save("empty", "");
    a.save("large", vec![7; 300_000]);
    let up_a = a.share(&listens(addresses));
    let _up_b = b.join(&up_a.field("ticket"), &listens(addresses));
    equal(&[&a, &b]);
    b.save("notes/second.txt", "from b");
    b.save("notes/first.txt", "edited by b");
    fs::remove_file(b.path("empty")).unwrap();
    eventually("a has b's changes", || a.files() == b.files(), || format!("{:?}", a.files().keys()));
    a.save("third", "from a again");
    fs::rename(a.path("notes/second.txt"), a.path("moved.txt")).unwrap();
    eventually("b has a's changes", || a.files() == b.files(), || format!("{:?}", b.files().keys()));
    assert_eq!(b.read("moved.txt").unwrap(), b"from b");
    assert_eq!(a.read("notes/first.txt").unwrap(), b"edited by b");
    eventually("the roots are equal", || a.root() == b.root(), || format!("{} {}", a.root(), b.root()));
}

#[test]
fn b17_two_folders_become_equal_and_stay_so_over_http_alone() {
    both_ways(&EACH[..1]);
}

#[test]
fn b17_two_folders_become_equal_and_stay_so_over_quic_alone() {
    both_ways(&EACH[1..2]);
}

#[test]
fn b17_two_folders_become_equal_and_stay_so_over_iroh_alone() {
    both_ways(&EACH[2..]);
}

#[test]
fn b17_two_folders_become_equal_and_stay_so_over_all_three_at_once() {
    both_ways(&EACH);
}

/// What a machine's session with its only peer moved since its start.
fn traffic(machine: &Machine) -> Value {
    machine.json(["status"])["replicas"][0]["peers"][0]["traffic"].clone()
}

/// Waits until each of two machines is synced with the other, and neither lacks a content.
#[track_caller]
fn both_synced(a: &Machine, b: &Machine) {
    let is_synced = |machine: &Machine| {
        let replica = &machine.json(["status"])["replicas"][0];
        replica["peers"][0]["synced"] == true && replica["blobs_missing"] == 0
    };
    let state = || format!("{}{}", a.done(["status"]), b.done(["status"]));
    eventually("both are synced", || is_synced(a) && is_synced(b) && a.root() == b.root(), state);
}

#[test]
fn b46_after_a_restart_folder_replica_port_and_peers_are_the_same_and_nothing_moves() {
    let (a, b) = (Machine::new(), Machine::new());
    for n in 0..50 {
        a.save(&format!("d{}/{n}", n % 5), format!("{n}"));
    }
    let up_a = a.share(&LOCAL);
    let up_b = b.join(&up_a.field("ticket"), &LOCAL);
    equal(&[&a, &b]);
    eventually("the roots are equal", || a.root() == b.root(), String::new);
    let (root, ready_a, ready_b) = (a.root(), up_a.ready.clone(), up_b.ready.clone());
    up_b.stop();
    up_a.stop();
    let (up_a, up_b) = (a.share(&[]), b.share(&[]));
    assert_eq!(up_a.ready, ready_a, "node, addresses, replica, ticket");
    assert_eq!(up_b.ready, ready_b);
    both_synced(&a, &b);
    assert_eq!((a.root(), b.root()), (root.clone(), root), "a restart writes nothing");
    // Both were down and both dial: whoever opens the session asks once, and is answered. When both dial at once, one
    // of the two links is given up, and what was asked over it is asked again.
    let (of_a, of_b) = (traffic(&a), traffic(&b));
    for name in ["sent", "received"] {
        assert_eq!((&of_a[name], &of_b[name]), (&0.into(), &0.into()), "{of_a} {of_b}");
    }
    let round_trips = |of: &Value| of["round_trips"].as_u64().unwrap();
    assert!((1..=3).contains(&round_trips(&of_a).max(round_trips(&of_b))), "{of_a} {of_b}");
    assert!(of_a["messages"].as_u64() >= Some(2), "an `Open` each way at least: {of_a}");
    // And it is live again.
    a.save("new", "new");
    equal(&[&a, &b]);
}

#[test]
fn b18_what_changed_on_both_sides_while_one_was_off_meets() {
    let (a, b) = (Machine::new(), Machine::new());
    for n in 0..30 {
        a.save(&format!("{n}"), format!("{n}"));
    }
    let up_a = a.share(&LOCAL);
    let up_b = b.join(&up_a.field("ticket"), &LOCAL);
    equal(&[&a, &b]);
    up_b.stop();
    for n in 0..5 {
        a.save(&format!("{n}"), format!("{n} by a"));
        b.save(&format!("{}", n + 5), format!("{} by b", n + 5));
    }
    fs::remove_file(a.path("10")).unwrap();
    fs::remove_file(b.path("11")).unwrap();
    let _up_b = b.share(&[]);
    equal(&[&a, &b]);
    let files = a.files();
    assert_eq!(files.len(), 28);
    assert_eq!((&files["0"][..], &files["5"][..]), (&b"0 by a"[..], &b"5 by b"[..]));
}

/// 100 changes on each side of a folder while one is down: when it starts again the difference moves, and not more than
/// half as much again, in entries, in their bytes, and in the bytes of contents.
#[test]
fn b18_of_a_hundred_changes_on_each_side_only_these_move() {
    const LEN: usize = 4_000;
    let (a, b) = (Machine::new(), Machine::new());
    // Nothing repeats: what one file has, no other can be made of.
    let text = |seed: &str, len: usize| {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    };
    for n in 0..400 {
        a.save(&format!("{}/{n}", n % 8), text(&format!("{n}"), LEN));
    }
    for name in ["left", "right", "stays"] {
        a.save(&format!("large {name}"), text(name, 400_000));
    }
    let up_a = a.share(&LOCAL);
    let up_b = b.join(&up_a.field("ticket"), &LOCAL);
    equal(&[&a, &b]);
    both_synced(&a, &b);
    up_b.stop();
    // 50 edits, 24 new files, 10 deletions, 8 new names of two entries each, and a large file anew.
    let change = |machine: &Machine, first: usize, name: &str| {
        for n in first..first + 50 {
            machine.save(&format!("{}/{n}", n % 8), text(&format!("{name} {n}"), LEN));
        }
        for n in 0..24 {
            machine.save(&format!("new {name}/{n}"), text(&format!("new {name} {n}"), LEN));
        }
        for n in first + 50..first + 60 {
            fs::remove_file(machine.path(&format!("{}/{n}", n % 8))).unwrap();
        }
        for n in first + 60..first + 68 {
            let (from, to) = (machine.path(&format!("{}/{n}", n % 8)), machine.path(&format!("moved {name} {n}")));
            fs::rename(from, to).unwrap();
        }
        machine.save(&format!("large {name}"), text(&format!("{name} again"), 400_000));
    };
    const ENTRIES: u64 = 50 + 24 + 10 + 2 * 8 + 1;
    // What B changes is A's: each has a companion that says which version it has seen.
    const COMPANIONS: u64 = 50 + 10 + 8 + 1;
    const BYTES: u64 = (50 + 24 + 8) * LEN as u64;
    let entries_before = a.json(["ls"])["entries"].as_array().unwrap().len();
    change(&a, 0, "left");
    let all_put = || a.json(["ls"])["entries"].as_array().unwrap().len() == entries_before + 24 - 10;
    eventually("a has put its changes", all_put, || a.done(["why"]));
    change(&b, 200, "right");
    let content_of_a = a.json(["status"])["content_bytes"]["received"].as_u64().unwrap();
    let _up_b = b.share(&[]);
    equal(&[&a, &b]);
    both_synced(&a, &b);
    // B began anew: its counters are those of the difference.
    let moved = traffic(&b);
    for (entries, bytes, written) in
        [("sent", "bytes_sent", ENTRIES + COMPANIONS), ("received", "bytes_received", ENTRIES)]
    {
        let (entries, bytes) = (moved[entries].as_u64().unwrap(), moved[bytes].as_u64().unwrap());
        assert!((written..=written * 3 / 2).contains(&entries), "{entries} entries for {written}: {moved}");
        assert!((BYTES..=BYTES * 3 / 2).contains(&bytes), "{bytes} bytes for {BYTES}: {moved}");
    }
    let received = |machine: &Machine| machine.json(["status"])["content_bytes"]["received"].as_u64().unwrap();
    for (machine, before) in [(&a, content_of_a), (&b, 0)] {
        let bytes = received(machine) - before;
        assert!((400_000..=600_000).contains(&bytes), "{bytes} bytes of contents for 400,000");
    }
}

/// Whoever has the old version open goes on reading it, to its last byte: the new one is another file of that name.
#[test]
fn a_file_is_replaced_whole_under_those_who_read_it() {
    let (a, b) = (Machine::new(), Machine::new());
    let versions = [vec![1; 200_000], vec![2; 150_000], vec![3; 300]];
    a.save("file", &versions[0]);
    let up_a = a.share(&LOCAL);
    let _up_b = b.join(&up_a.field("ticket"), &LOCAL);
    equal(&[&a, &b]);
    for pair in versions.windows(2) {
        let mut open = fs::File::open(b.path("file")).unwrap();
        let mut first = vec![0; 100];
        open.read_exact(&mut first).unwrap();
        a.save("file", &pair[1]);
        eventually("the new version is there", || b.read("file").as_ref() == Some(&pair[1]), || b.done(["why"]));
        let mut rest = Vec::new();
        open.read_to_end(&mut rest).unwrap();
        assert!([first, rest].concat() == pair[0], "the old version is read to its end");
    }
}

#[test]
fn b23_when_both_sides_changed_a_file_both_texts_are_on_both_sides() {
    let (a, b) = (Machine::new(), Machine::new());
    a.save("plan.md", "first");
    a.save("photo", vec![1; 100_000]);
    let up_a = a.share(&LOCAL);
    let up_b = b.join(&up_a.field("ticket"), &LOCAL);
    equal(&[&a, &b]);
    up_b.stop();
    a.save("plan.md", "by a");
    b.save("plan.md", "by b");
    a.save("photo", vec![2; 100_000]);
    b.save("photo", vec![3; 100_000]);
    let _up_b = b.share(&[]);
    eventually(
        "both texts are on both sides",
        || a.files().len() == 4 && a.files() == b.files(),
        || format!("{:?} {:?}", a.files().keys(), b.files().keys()),
    );
    let texts: Vec<_> = a.files().into_values().collect();
    for text in [b"by a".to_vec(), b"by b".to_vec(), vec![2; 100_000], vec![3; 100_000]] {
        assert!(texts.contains(&text), "{:?}", a.files().keys());
    }
    assert!(a.files().keys().any(|name| name.starts_with("plan (conflict ") && name.ends_with(").md")));
}

#[test]
fn b22_a_chain_whose_ends_never_meet_becomes_equal() {
    let (a, b, c) = (Machine::new(), Machine::new(), Machine::new());
    a.save("from a", "a");
    let up_a = a.share(&["--listen", EACH[2]]);
    let up_b = b.join(&up_a.field("ticket"), &["--listen", EACH[0]]);
    equal(&[&a, &b]);
    let up_c = c.join(&up_b.field("ticket"), &["--listen", EACH[1]]);
    equal(&[&a, &b, &c]);
    c.save("from c", "c");
    equal(&[&a, &b, &c]);
    assert_eq!(a.read("from c").unwrap(), b"c");
    let peers = c.json(["peers"]);
    let ids: Vec<_> = peers["peers"].as_array().unwrap().iter().map(|peer| peer["id"].clone()).collect();
    assert!(!ids.contains(&up_a.ready["node_id"]), "c never met a: {ids:?}");
    // A change at A, live, when all three have been running for a while.
    a.save("from a", "again");
    equal(&[&a, &b, &c]);
    assert_eq!(c.read("from a").unwrap(), b"again");
    drop(up_c);
}

#[test]
fn b51_a_kill_at_any_moment_of_the_first_sync_and_of_live_changes_loses_nothing() {
    let (a, b) = (Machine::new(), Machine::new());
    for n in 0..300 {
        a.save(&format!("d{}/{n}", n % 7), format!("{n}").repeat(50));
    }
    let mut up_a = Some(a.share(&LOCAL));
    let mut up_b = Some(b.join(&up_a.as_ref().unwrap().field("ticket"), &LOCAL));
    let started = Instant::now();
    let mut expected = a.files();
    for round in 0..6u32 {
        // A moment that differs from round to round, counted in progress rather than in time.
        let seen = (round as usize * 53) % 300;
        eventually("b has some files", || b.files().len() >= seen, || format!("{}", b.files().len()));
        let name = format!("live {round}");
        if round % 2 == 0 {
            b.save(&name, &name);
            up_b.take().unwrap().kill();
            up_b = Some(b.share(&[]));
        } else {
            a.save(&name, &name);
            up_a.take().unwrap().kill();
            up_a = Some(a.share(&[]));
        }
        expected.insert(name.clone(), name.into_bytes());
    }
    eventually(
        "both have everything",
        || a.files() == expected && b.files() == expected,
        || {
            let lacking = |files: BTreeMap<String, Vec<u8>>| {
                let lacking =
                    expected.keys().filter(|key| !files.contains_key(*key)).take(5).cloned().collect::<Vec<_>>();
                let more = files.keys().filter(|key| !expected.contains_key(*key)).take(5).cloned().collect::<Vec<_>>();
                format!("{} files, lacks {lacking:?}, has also {more:?}", files.len())
            };
            format!("a: {}\nb: {}\n{}{}", lacking(a.files()), lacking(b.files()), b.done(["status"]), b.done(["why"]))
        },
    );
    for machine in [&a, &b] {
        let is_tidy = || !machine.path(".syncline-tmp").exists();
        eventually("no temporary files are left", is_tidy, || machine.done(["why"]));
    }
    eprintln!("{:?}", started.elapsed());
}

#[test]
fn a_folder_that_is_suddenly_empty_is_shown_by_why_and_deletes_nothing_elsewhere() {
    let (a, b) = (Machine::new(), Machine::new());
    for n in 0..40 {
        a.save(&format!("{n}"), format!("{n}"));
    }
    let up_a = a.share(&LOCAL);
    let _up_b = b.join(&up_a.field("ticket"), &LOCAL);
    equal(&[&a, &b]);
    up_a.stop();
    for n in 0..40 {
        fs::remove_file(a.path(&n.to_string())).unwrap();
    }
    let up_a = a.share(&[]);
    eventually("why says so", || a.done(["why"]).contains("--allow-mass-delete"), || a.done(["why"]));
    assert_eq!(b.files().len(), 40);
    up_a.stop();
    let _up_a = a.share(&["--allow-mass-delete"]);
    eventually("they are deleted elsewhere", || b.files().is_empty(), || b.done(["status"]));
}

#[test]
fn a_read_only_folder_follows_and_says_that_it_only_reads() {
    let (a, b) = (Machine::new(), Machine::new());
    a.save("a", "first");
    let up_a = a.share(&LOCAL);
    let ticket = a.done(["ticket", "--read"]);
    let up_b = b.join(ticket.trim(), &LOCAL);
    equal(&[&a, &b]);
    assert_eq!(b.json(["status"])["folders"][0]["read_only"], true);
    b.save("own", "stays here");
    a.save("a", "second");
    eventually("b follows", || b.read("a").as_deref() == Some(b"second"), || b.done(["status"]));
    assert!(a.read("own").is_none());
    drop((up_a, up_b));
}
