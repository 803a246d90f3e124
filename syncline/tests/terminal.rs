//! What people see on a terminal.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use common::{LOCAL, Machine, Signal, StoppingProxy, equal, eventually, signal};

/// A program on a terminal that util-linux's `script` gives it.
struct Terminal {
    script: Child,
    seen: Arc<Mutex<String>>,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

impl Terminal {
    /// Nothing if there is no `script` on this machine.
    fn open(command: &Command) -> Option<Self> {
        let parts = [command.get_program()].into_iter().chain(command.get_args());
        let quoted: Vec<_> = parts.map(|part| format!("'{}'", part.to_str().unwrap())).collect();
        let script = Command::new("script")
            .args(["-qfec", &format!("stty cols 100; exec {}", quoted.join(" ")), "/dev/null"])
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut script) = script else {
            sync_core::testing::skipped("util-linux's script is not installed");
            return None;
        };
        let (mut out, seen) = (script.stdout.take().unwrap(), Arc::new(Mutex::new(String::new())));
        let shown = seen.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = out.read(&mut bytes) {
                *shown.lock().unwrap() += &String::from_utf8_lossy(&bytes[..len]);
            }
        });
        Some(Self { script, seen })
    }

    fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }

    #[track_caller]
    fn shows(&self, word: &str, machine: &Machine) {
        let state = || format!("{}\n{}", self.seen(), machine.done(["status", "--json"]));
        eventually(&format!("it shows `{word}`"), || self.seen().contains(word), state);
    }
}

#[test]
fn a_terminal_shows_progress_to_a_hundred_percent() {
    let (a, b) = (Machine::new(), Machine::new());
    for n in 0..1500 {
        a.save(&format!("{}/{n}", n % 20), format!("{n}").repeat(20));
    }
    a.save("large", vec![7; 30_000_000]);
    let up_a = a.share(&["--listen", "http://127.0.0.1:0"]);
    eventually("all is put", || a.done(["ls"]).lines().count() == 1501, || a.done(["why"]));
    // The sender stands still in the middle until something was drawn, however quick this machine is.
    let (proxy, ticket) = StoppingProxy::start(&up_a, 10_000_000);
    let command = b.command(["up", b.folder().to_str().unwrap(), "--join", &ticket, LOCAL[0], LOCAL[1]]);
    let Some(terminal) = Terminal::open(&command) else { return };
    terminal.shows("syncing", &b);
    eventually("the sender stands still", || proxy.has_stopped(), || b.done(["status"]));
    signal(up_a.child.id(), Signal::CONT);
    equal(&[&a, &b]);
    terminal.shows("equal", &b);
    // What is drawn comes in pieces.
    terminal.shows("100 %", &b);
    let seen = terminal.seen();
    // The daemon ends with its terminal.
    drop(terminal);
    eventually("the daemon is gone", || !b.data().join("socket").exists(), || b.done(["why"]));
    assert!(seen.contains("syncing") && seen.contains('%'), "{seen}");
    // Totals first: what is drawn first says how much there is in all, in entries or in bytes.
    let first = seen.split("syncing").nth(1).unwrap();
    let mut total = first.split_once('/').map(|(_, total)| total.split_whitespace()).unwrap();
    let (number, unit) = (total.next().unwrap().parse::<f64>(), total.next());
    let says_all = match unit {
        Some("entries") => number.is_ok_and(|entries| (1501.0..1520.0).contains(&entries)),
        Some("MiB") => number.is_ok_and(|mebibytes| mebibytes >= 28.6),
        _ => false,
    };
    assert!(says_all, "{first}");
    // And it never moves back, to a hundred when all is equal, and not before.
    let percents: Vec<u64> =
        seen.split(" %").filter_map(|before| before.rsplit(' ').next()).filter_map(|text| text.parse().ok()).collect();
    assert!(percents.is_sorted(), "{percents:?}");
    let (last, before) = percents.split_last().unwrap();
    assert!(*last == 100 && before.iter().all(|percent| *percent < 100), "{percents:?}");
    let address = "address  quic://";
    assert!(seen.contains(address), "{seen}");
}

/// The story: what came between two drawings was never shown, and a test waited for it without end.
#[test]
fn a_terminal_shows_that_all_is_equal_however_quickly_it_came() {
    let (a, b) = (Machine::new(), Machine::new());
    a.save("small", "x");
    let up_a = a.share(&LOCAL);
    let command = b.command(["up", b.folder().to_str().unwrap(), "--join", &up_a.field("ticket"), LOCAL[0], LOCAL[1]]);
    let Some(terminal) = Terminal::open(&command) else { return };
    equal(&[&a, &b]);
    terminal.shows("equal", &b);
    terminal.shows("100 %", &b);
    // Each time that it is drawn: the terminal is told to erase what was there before.
    let (seen, is_end) = (terminal.seen(), ['\r', '\u{1b}']);
    // What comes last may have come in part.
    let whole = seen.rsplit_once(is_end).map_or("", |(whole, _)| whole);
    let drawn: Vec<_> = whole.split(is_end).filter(|line| line.contains("equal")).collect();
    assert!(drawn.iter().all(|line| line.contains("100 %")), "{drawn:?}");
}
