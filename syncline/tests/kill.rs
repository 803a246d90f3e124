//! Two real nodes under `kill -9`, again and again, while keys and files are written on both: what was acknowledged is
//! on both sides in the end, they are equal, and nothing is left lying about.
//!
//! `KILL_ROUNDS` says how often (default 8), `KILL_SEED` which moments and writes.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Instant,
};

use common::{DEADLINE, LOCAL, Machine, Up, eventually};
use sync_core::testing::random::Random;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Whom a round kills.
const VICTIMS: [&[usize]; 3] = [&[0], &[1], &[0, 1]];

/// What must be there in the end.
#[derive(Default)]
struct Ledger {
    /// What was acknowledged: the content of each file, or that it is gone.
    expected: BTreeMap<String, Option<Vec<u8>>>,
    /// What was not: it may be there or not.
    unsure: BTreeSet<String>,
}

impl Ledger {
    fn holds(&self, files: &BTreeMap<String, Vec<u8>>) -> bool {
        self.wrong(files).is_empty()
    }

    /// The files that are not as they must be, with the length that they must have and the one that they have.
    fn wrong(&self, files: &BTreeMap<String, Vec<u8>>) -> Vec<(&String, Option<usize>, Option<usize>)> {
        let sure = self.expected.iter().filter(|(name, _)| !self.unsure.contains(*name));
        let wrong = sure.filter(|(name, content)| files.get(*name) != content.as_ref());
        wrong.map(|(name, content)| (name, content.as_ref().map(Vec::len), files.get(name).map(Vec::len))).collect()
    }
}

/// Writes on one machine until it is told to stop; says when something was acknowledged.
fn write(
    machine: &Machine,
    who: char,
    random: &mut Random,
    stop: &AtomicBool,
    ledger: &Mutex<Ledger>,
    acked: &mpsc::Sender<()>,
) {
    let mut mine: Vec<String> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let name = format!("{who}/{:012x}", random.bits() >> 16);
        let len = *random.pick(&[0, 5, 200, 5_000, 60_000]);
        let content = name.bytes().cycle().take(len).collect::<Vec<u8>>();
        let (name, content, done) = match random.below(10) {
            // A file, as an editor saves it.
            0..=2 => {
                machine.save(&name, &content);
                (name, Some(content), true)
            }
            3 if !mine.is_empty() => {
                let name = mine.swap_remove(random.below(mine.len()));
                let done = machine.run(["rm", &name]).status.success();
                (name, None, done)
            }
            _ => {
                let source = machine.dir.path().join("value");
                fs::write(&source, &content).unwrap();
                let done = machine.run(["put", &name, "--file", source.to_str().unwrap()]).status.success();
                (name, Some(content), done)
            }
        };
        let mut ledger = ledger.lock().unwrap();
        if done && content.is_some() {
            mine.push(name.clone());
        }
        if !done {
            ledger.unsure.insert(name.clone());
        }
        ledger.expected.insert(name, content);
        let _ = acked.send(());
    }
}

/// Both sides have what was acknowledged, and the same.
fn check(machines: &[Machine; 2], ledger: &Ledger) {
    let [a, b] = machines;
    let is_there = || {
        let files = a.files();
        ledger.holds(&files) && files == b.files() && a.root() == b.root()
    };
    eventually("both have what was acknowledged, and the same", is_there, || {
        let mut text = String::new();
        for machine in machines {
            let files = machine.files();
            let wrong = ledger.wrong(&files);
            let some = &wrong[..wrong.len().min(5)];
            text += &format!("{} files, {} wrong (name, length to be, length): {some:?}\n", files.len(), wrong.len());
            text += &(machine.done(["status"]) + &machine.done(["why"]));
        }
        text
    });
    for machine in machines {
        let content = machine.data().join("store.content");
        let left = || {
            let unfinished = ["staging", "partial"].map(|name| content.join(name));
            let mut left: Vec<PathBuf> = unfinished.iter().flat_map(|path| listed(path)).collect();
            let temporary = machine.path(".syncline-tmp");
            left.extend(listed(&temporary));
            left.extend(temporary.exists().then_some(temporary));
            left
        };
        eventually(
            "nothing is left lying about",
            || left().is_empty(),
            || format!("{:?}\n{}", left(), machine.done(["status"]) + &machine.done(["why"])),
        );
    }
}

fn listed(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[test]
fn b51_nothing_acknowledged_is_lost_under_kill_9_of_either_side_again_and_again() {
    let (rounds, seed, started) = (number("KILL_ROUNDS", 8), number("KILL_SEED", 1), Instant::now());
    println!("{rounds} rounds, seed {seed}");
    let mut random = Random::new(seed);
    let machines = [Machine::new(), Machine::new()];
    machines[0].save("first", "the first file");
    let first = machines[0].share(&LOCAL);
    let second = machines[1].join(&first.field("ticket"), &LOCAL);
    let mut ups: [Option<Up>; 2] = [Some(first), Some(second)];
    let ledger = Mutex::new(Ledger::default());
    let (mut killed, mut failed) = (0, 0);
    for round in 0..rounds {
        let stop = AtomicBool::new(false);
        let (acked, acks) = mpsc::channel();
        let victims = *random.pick(&VICTIMS);
        std::thread::scope(|scope| {
            for (machine, who) in machines.iter().zip(['a', 'b']) {
                let (mut random, acked) = (Random::new(random.bits()), acked.clone());
                let (stop, ledger) = (&stop, &ledger);
                scope.spawn(move || write(machine, who, &mut random, stop, ledger, &acked));
            }
            // The moment is counted in what was acknowledged.
            for _ in 0..1 + random.below(8) {
                acks.recv_timeout(DEADLINE).expect("a write is acknowledged");
            }
            for victim in victims {
                ups[*victim].take().unwrap().kill();
                killed += 1;
            }
            stop.store(true, Ordering::Relaxed);
        });
        for victim in victims {
            ups[*victim] = Some(machines[*victim].share(&[]));
        }
        if round % 5 == 4 || round == rounds - 1 {
            let ledger = ledger.lock().unwrap();
            failed = ledger.unsure.len();
            check(&machines, &ledger);
        }
    }
    let ledger = ledger.into_inner().unwrap();
    println!(
        "{rounds} rounds, {killed} kills, {} writes acknowledged and {failed} not, none lost, in {:.0} s",
        ledger.expected.len() - failed,
        started.elapsed().as_secs_f64()
    );
    for up in ups.into_iter().flatten() {
        up.stop();
    }
}
