//! Machines with other users, other networks, other clocks, and peers that are none.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use common::{EACH, LOCAL, Machine, ended, equal, eventually, read_line, refused};
use sync_core::{
    PeerAddress,
    model::{SecretKey, Ticket},
    transport::{SyncTransport, TransportBuilder, TransportContext},
};

const NOBODY: u32 = 65_534;

/// A machine on which the program does not run as root: permissions bind it.
fn unprivileged() -> Machine {
    let mut machine = Machine::new();
    if rustix::process::geteuid().is_root() {
        let id = NOBODY.to_string();
        machine.wrapper = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"].map(String::from).into();
        // Where the program was built, nobody may be allowed to look.
        let program = machine.dir.path().join("syncline");
        fs::copy(&machine.program, &program).unwrap();
        machine.program = program;
        fs::set_permissions(machine.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(machine.dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    machine
}

fn directory(path: &Path, mode: u32) {
    fs::create_dir(path).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_unreadable_folder_and_an_unwritable_data_directory_are_refused() {
    let a = unprivileged();
    directory(&a.folder(), 0o000);
    let mut up = a.spawn(&[a.folder().to_str().unwrap(), LOCAL[0], LOCAL[1]]);
    refused(&ended(&mut up), 1, &["cannot be read", "chmod"]);
    assert!(!a.data().exists());
    directory(&a.data(), 0o500);
    let mut up = a.spawn(&LOCAL);
    refused(&ended(&mut up), 1, &["cannot be written", "--data"]);
    assert_eq!(fs::read_dir(a.data()).unwrap().count(), 0);
    let b = Machine::new();
    fs::write(b.data(), "in the way").unwrap();
    let mut up = b.spawn(&LOCAL);
    refused(&ended(&mut up), 1, &["data directory", "--data"]);
    // An unreadable file in a folder is named, and the others go on.
    fs::set_permissions(a.data(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(a.folder(), fs::Permissions::from_mode(0o700)).unwrap();
    a.save("open", "x");
    a.save("closed", "x");
    fs::set_permissions(a.path("open"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(a.path("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    let _up = a.share(&LOCAL);
    eventually("one is put", || a.done(["ls"]).contains("open"), || a.done(["why"]));
    eventually("the other is named", || a.done(["why"]).contains("closed"), || a.done(["status"]));
}

/// A network of its own, in which only the loopback is up.
struct Isolated(Child);

impl Isolated {
    fn new() -> Option<Self> {
        let child = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 600"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut isolated = child.ok().map(Self);
        let is_up = isolated.as_mut().is_some_and(|Self(child)| read_line(child.stdout.as_mut().unwrap()) == "up");
        if !is_up {
            sync_core::testing::skipped("a network of one's own needs root, unshare and ip");
        }
        isolated.filter(|_| is_up)
    }

    fn machine(&self) -> Machine {
        let mut machine = Machine::new();
        machine.wrapper = vec!["nsenter".into(), format!("--net=/proc/{}/ns/net", self.0.id())];
        machine
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn b13_all_of_it_works_with_no_network_but_the_loopback() {
    let Some(network) = Isolated::new() else { return };
    let (a, b) = (network.machine(), network.machine());
    a.save("file", "x");
    a.save("large", vec![7; 300_000]);
    // As it comes: all three, ports chosen.
    let up_a = a.share(&[]);
    for scheme in ["http://", "quic://", "iroh:"] {
        assert!(!up_a.address(scheme).is_empty(), "{:?}", up_a.ready);
    }
    let _up_b = b.join(&up_a.field("ticket"), &[]);
    equal(&[&a, &b]);
    b.save("back", "y");
    equal(&[&a, &b]);
    // And over each alone.
    for (scheme, listen) in [("http", EACH[0]), ("quic", EACH[1]), ("iroh", "iroh:")] {
        let c = network.machine();
        let mut ticket: Ticket = up_a.field("ticket").parse().unwrap();
        ticket.addresses.retain(|address| address.as_str().starts_with(scheme));
        let up_c = c.join(&ticket.to_string(), &["--listen", listen]);
        equal(&[&a, &c]);
        assert!(c.done(["status"]).contains(&format!("over {scheme}")), "{}", c.done(["status"]));
        up_c.stop();
    }
}

/// A library that makes the wall clock of a program stand elsewhere.
fn clock_library(directory: &Path) -> Option<PathBuf> {
    let (source, library) = (directory.join("clock.c"), directory.join("clock.so"));
    let text = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdlib.h>
        #include <time.h>
        int clock_gettime(clockid_t id, struct timespec *at) {
            static int (*real)(clockid_t, struct timespec *);
            if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
            int done = real(id, at);
            const char *seconds = getenv("CLOCK_AHEAD");
            if (!done && id == CLOCK_REALTIME && seconds) at->tv_sec += atol(seconds);
            return done;
        }
    "#;
    fs::write(&source, text).unwrap();
    let made =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    if !made.is_ok_and(|status| status.success()) {
        sync_core::testing::skipped("no C compiler that makes a shared library");
        return None;
    }
    Some(library)
}

const TWO_DAYS: i64 = 2 * 86_400;

#[test]
fn b33_a_clock_two_days_off_is_told_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(library) = clock_library(dir.path()) else { return };
    let with_clock = |seconds: i64| {
        let mut machine = Machine::new();
        let preload = format!("LD_PRELOAD={}", library.display());
        machine.wrapper = vec!["env".into(), preload, format!("CLOCK_AHEAD={seconds}")];
        machine
    };
    let a = Machine::new();
    a.save("file", "from a");
    let up_a = a.share(&LOCAL);
    // For a clock that is behind, everything is in the future. Set right, it takes all of it.
    let mut behind = with_clock(-TWO_DAYS);
    let up_behind = behind.join(&up_a.field("ticket"), &LOCAL);
    let told = || behind.done(["why"]).contains("ahead of this device's clock");
    eventually("why says so", told, || behind.done(["why"]));
    assert!(behind.files().is_empty());
    up_behind.stop();
    behind.wrapper.clear();
    let _up_behind = behind.share(&[]);
    equal(&[&a, &behind]);
    // A clock that is ahead: it gets everything, and what it writes waits; both sides say so.
    let ahead = with_clock(TWO_DAYS);
    let up_ahead = ahead.join(&up_a.field("ticket"), &LOCAL);
    equal(&[&a, &ahead]);
    ahead.save("from the future", "x");
    for (machine, word) in [(&a, "ahead of this device's clock"), (&ahead, "did not accept")] {
        eventually("why says so", || machine.done(["why"]).contains(word), || machine.done(["why"]));
        assert!(machine.done(["why"]).contains("clock"), "and what to do about it");
    }
    assert!(a.read("from the future").is_none());
    a.save("still", "live");
    eventually("it still gets everything", || ahead.read("still").is_some(), || ahead.done(["why"]));
    // When the other clocks are there too, it is taken.
    drop((up_a, up_ahead));
    let mut a = a;
    a.wrapper = ahead.wrapper.clone();
    let _up_a = a.share(&[]);
    let _up_ahead = ahead.share(&[]);
    eventually("it is taken", || a.read("from the future").is_some(), || a.done(["why"]));
}

/// Garbage on every wire, beneath our handshake and in the place of it.
#[test]
fn b77_a_peer_that_speaks_garbage_disturbs_nobody() {
    let (a, b) = (Machine::new(), Machine::new());
    let listens: Vec<&str> = EACH.iter().flat_map(|address| ["--listen", address]).collect();
    let up_a = a.up(&listens);
    let garbage = |seed: u32| -> Vec<u8> {
        (0..2000u32).map(|n| (n.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect()
    };
    for scheme in ["http://", "quic://"] {
        let host = up_a.address(scheme)[7..].to_string();
        for seed in 0..20 {
            if scheme == "http://" {
                let mut stream = std::net::TcpStream::connect(&host).unwrap();
                let _ = stream.write_all(&garbage(seed));
            } else {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.send_to(&garbage(seed)[..1200], &host).unwrap();
            }
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        for dialler in dialers().await {
            let scheme = dialler.schemes()[0];
            let address: PeerAddress = up_a.address(scheme.trim_end_matches('s')).parse().unwrap();
            for seed in 0..2 {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let connection = dialler.dial(&address).await.unwrap();
                let mut stream = connection.open().await.unwrap();
                let _ = stream.write.write_all(&garbage(seed)).await;
                let _ = stream.write.shutdown().await;
                // It is thrown out.
                let mut rest = Vec::new();
                let ended = stream.read.read_to_end(&mut rest);
                tokio::time::timeout(common::DEADLINE, ended).await.expect("the stream ends").ok();
            }
            dialler.close().await;
        }
    });
    a.done(["put", "k", "v"]);
    let _up_b = b.up(&[&["--join", &up_a.field("ticket")][..], &LOCAL].concat());
    eventually("b has it", || b.run(["get", "k"]).stdout == b"v", || b.done(["status"]));
}

/// Transports that only dial, of a node that nobody knows.
async fn dialers() -> Vec<Arc<dyn SyncTransport>> {
    let builders: [Box<dyn TransportBuilder>; 3] = [
        Box::new(transport_http::HttpTransport::builder().client_only()),
        Box::new(transport_quic::QuicTransport::builder().client_only()),
        Box::new(transport_iroh::IrohTransport::builder().client_only()),
    ];
    let mut built = Vec::new();
    for builder in builders {
        let context = TransportContext { node_key: SecretKey::from_bytes([9; 32]), state: None };
        built.push(builder.build(context).await.unwrap());
    }
    built
}

#[test]
fn a_ticket_that_leads_to_something_else_is_told_by_why_and_disturbs_nobody() {
    let ticket: Ticket = Machine::new().up(&LOCAL).field("ticket").parse().unwrap();
    for answer in [&b"SSH-2.0-OpenSSH_9.6\r\n"[..], b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"] {
        let (b, port) = (Machine::new(), server(answer));
        let mut ticket = ticket.clone();
        ticket.addresses = vec![format!("http://127.0.0.1:{port}").parse().unwrap()];
        let _up = b.up(&[&["--join", &ticket.to_string()][..], &LOCAL].concat());
        b.done(["put", "k", "v"]);
        let told = || b.done(["why"]).contains(&format!("http://127.0.0.1:{port}"));
        eventually("why names the address", told, || b.done(["why"]));
        let why = b.json(["why"]);
        assert!(why["obstacles"][0]["since"].is_u64() && why["obstacles"][0]["replica"].is_string(), "{why}");
        assert_eq!(b.done(["get", "k"]), "v");
    }
}

/// Listens and answers everybody the same.
fn server(answer: &'static [u8]) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer);
        }
    });
    port
}
