//! What people see on a terminal.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::{
    io::Read,
    process::{Command, Stdio},
};

use common::{LOCAL, Machine, equal};

#[test]
fn a_terminal_shows_progress_to_a_hundred_percent() {
    let (a, b) = (Machine::new(), Machine::new());
    for n in 0..1500 {
        a.save(&format!("{}/{n}", n % 20), format!("{n}").repeat(20));
    }
    a.save("large", vec![7; 30_000_000]);
    let up_a = a.share(&LOCAL);
    common::eventually("all is put", || a.done(["ls"]).lines().count() == 1501, || a.done(["why"]));
    // util-linux's `script` gives the program a terminal.
    let quoted = |text: String| format!("'{text}'");
    let command = b.command(["up", b.folder().to_str().unwrap(), "--join", &up_a.field("ticket"), LOCAL[0], LOCAL[1]]);
    let line: Vec<_> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(|part| quoted(part.to_str().unwrap().to_string()))
        .collect();
    let line = format!("stty cols 100; exec {}", line.join(" "));
    let script = Command::new("script")
        .args(["-qfec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut script) = script else {
        sync_core::testing::skipped("util-linux's script is not installed");
        return;
    };
    let mut out = script.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut seen, mut bytes) = (String::new(), [0; 4096]);
        while let Ok(len @ 1..) = out.read(&mut bytes) {
            seen += &String::from_utf8_lossy(&bytes[..len]);
            if seen.contains("equal") {
                break;
            }
        }
        (seen, out)
    });
    equal(&[&a, &b]);
    let (seen, _out) = reader.join().unwrap();
    // The daemon ends with its terminal.
    script.kill().unwrap();
    script.wait().unwrap();
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
    common::eventually("the daemon is gone", || !b.run(["watch"]).status.success(), String::new);
}
