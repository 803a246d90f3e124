//! Two or three real nodes and their folders.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::{collections::BTreeMap, fs, time::Instant};

use common::{EACH, LOCAL, Machine, equal, eventually};

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
    let synced = || b.json(["status"])["replicas"][0]["peers"][0]["synced"] == true;
    eventually("b is synced again", synced, || b.done(["status"]));
    assert_eq!((a.root(), b.root()), (root.clone(), root), "a restart writes nothing");
    let traffic = &b.json(["status"])["replicas"][0]["peers"][0]["traffic"];
    assert_eq!((&traffic["sent"], &traffic["received"]), (&0.into(), &0.into()), "{traffic}");
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
        assert!(!machine.path(".syncline-tmp").exists(), "no temporary files are left");
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
