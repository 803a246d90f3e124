//! Bad input: one line that says what, on what and the way out; exit code 1 or 2; nothing changed.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt};

use common::{LOCAL, Machine, ended, equal, eventually, refused};

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
fn a_port_in_use_is_named() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let a = Machine::new();
    let mut up = a.spawn(&["--listen", &format!("http://127.0.0.1:{port}")]);
    refused(&ended(&mut up), 1, &[&port.to_string(), "in use"]);
    let holder = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let mut up = a.spawn(&["--listen", &format!("quic://127.0.0.1:{port}"), "--listen", "http://127.0.0.1:0"]);
    refused(&ended(&mut up), 1, &[&port.to_string(), "in use"]);
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
    let mut up = a.spawn(&[&at("none"), LOCAL[0], LOCAL[1]]);
    refused(&ended(&mut up), 1, &["none", "does not exist", "mkdir"]);
    let mut up = a.spawn(&[&at("file"), LOCAL[0], LOCAL[1]]);
    refused(&ended(&mut up), 1, &["is a file"]);
    let mut up = a.spawn(&[&dir.display().to_string(), LOCAL[0], LOCAL[1]]);
    refused(&ended(&mut up), 1, &["data directory", "--data"]);
    a.up(&[&at("shared"), LOCAL[0], LOCAL[1]]).stop();
    let mut up = a.spawn(&[&at("shared/inner"), LOCAL[0], LOCAL[1]]);
    refused(&ended(&mut up), 1, &["shared already"]);
    assert_eq!(a.json(["status"])["replicas"].as_array().unwrap().len(), 1, "nothing was made for the refused ones");
}

#[test]
fn an_unreadable_folder_and_an_unwritable_data_directory_are_refused() {
    if rustix::process::geteuid().is_root() {
        // Nothing is unreadable for root; a file in the place of the directory is refused for everyone.
        let a = Machine::new();
        fs::write(a.data(), "in the way").unwrap();
        let mut up = a.spawn(&LOCAL);
        refused(&ended(&mut up), 1, &["data directory", "--data"]);
        sync_core::testing::skipped("permissions do not bind root");
        return;
    }
    let a = Machine::new();
    fs::create_dir(a.folder()).unwrap();
    fs::set_permissions(a.folder(), fs::Permissions::from_mode(0o000)).unwrap();
    let mut up = a.spawn(&[a.folder().to_str().unwrap(), LOCAL[0], LOCAL[1]]);
    refused(&ended(&mut up), 1, &["cannot be read", "chmod"]);
    let b = Machine::new();
    fs::create_dir(b.data()).unwrap();
    fs::set_permissions(b.data(), fs::Permissions::from_mode(0o500)).unwrap();
    let mut up = b.spawn(&LOCAL);
    refused(&ended(&mut up), 1, &["cannot be written", "--data"]);
}

#[test]
fn a_data_directory_of_a_newer_format_or_a_damaged_one_is_refused_and_left_as_it_is() {
    let a = Machine::new();
    replica(&a);
    let settings = a.data().join("settings.json");
    let good = fs::read(&settings).unwrap();
    for (bad, word) in [(r#"{"format": 99}"#, "newer version"), ("{", "damaged")] {
        fs::write(&settings, bad).unwrap();
        let mut up = a.spawn(&LOCAL);
        refused(&ended(&mut up), 1, &["settings.json", word]);
        refused(&a.run(["ls"]), 1, &["settings.json", word]);
        assert_eq!(fs::read_to_string(&settings).unwrap(), bad);
    }
    fs::write(&settings, &good).unwrap();
    let store = a.data().join("store.redb");
    fs::write(&store, b"this is no database").unwrap();
    let mut up = a.spawn(&LOCAL);
    refused(&ended(&mut up), 1, &["store.redb"]);
    assert_eq!(fs::read(&store).unwrap(), b"this is no database");
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

#[test]
fn b77_a_peer_that_speaks_garbage_disturbs_nobody() {
    use std::io::Write;
    let (a, b) = (Machine::new(), Machine::new());
    let up_a = a.up(&["--listen", "http://127.0.0.1:0", "--listen", "quic://127.0.0.1:0"]);
    let addresses = up_a.ready["addresses"].as_array().unwrap();
    for address in addresses.iter().filter_map(|address| address.as_str()) {
        let host = address.split("//").nth(1).unwrap().trim_end_matches('/').to_string();
        for seed in 0..20u32 {
            let garbage: Vec<u8> =
                (0..2000u32).map(|n| (n.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect();
            if address.starts_with("http") {
                let mut stream = std::net::TcpStream::connect(&host).unwrap();
                let _ = stream.write_all(&garbage);
            } else {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.send_to(&garbage[..1200], &host).unwrap();
            }
        }
    }
    a.save("x", "x");
    a.done(["put", "k", "v"]);
    let _up_b = b.up(&[&["--join", &up_a.field("ticket")][..], &LOCAL].concat());
    eventually("b has it", || b.run(["get", "k"]).stdout == b"v", || b.done(["status"]));
}

#[test]
fn a_full_disk_while_receiving_goes_on_by_itself_when_there_is_space() {
    let (a, b) = (Machine::new(), Machine::new());
    let small = b.dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let mount =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(&small).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        sync_core::testing::skipped("mounting a tmpfs is not allowed here");
        return;
    }
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(small.clone());
    // The folder alone is on the small disk.
    let folder = small.join("folder");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(&folder, b.folder()).unwrap();
    for n in 0..30 {
        a.save(&format!("{n}"), vec![n; 200_000]);
    }
    let up_a = a.share(&LOCAL);
    let up_b = b.join(&up_a.field("ticket"), &LOCAL);
    eventually("why says so", || b.done(["why"]).contains("cannot be written"), || b.done(["why"]));
    let grown = std::process::Command::new("mount").args(["-o", "remount,size=64m"]).arg(&small).status().unwrap();
    assert!(grown.success());
    // It is tried again every minute; a change is a reason to try at once.
    a.save("now", "there is space");
    let deadline = std::time::Instant::now() + 3 * common::DEADLINE;
    while a.files() != b.files() {
        assert!(std::time::Instant::now() < deadline, "{}", b.done(["why"]));
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    equal(&[&a, &b]);
    drop((up_a, up_b));
}
