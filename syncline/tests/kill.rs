//! Two real nodes under `kill -9`, again and again, while keys and files are written on both: what was acknowledged is
//! on both sides in the end, they are equal, and nothing is left lying about. There is such a pair for each transport,
//! and the rounds go from one to the next: a pair that was killed comes to itself while others are.
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

use common::{DEADLINE, EACH, Machine, Up, eventually};
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
    /// The files that were acknowledged to be there.
    fn sure(&self) -> Vec<String> {
        let there = self.expected.iter().filter(|(name, content)| content.is_some() && !self.unsure.contains(*name));
        there.map(|(name, _)| name.clone()).collect()
    }

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

/// Two machines that reach each other by one transport, and what was written on them.
struct Pair {
    listen: &'static str,
    // Before the folders that they write to.
    ups: [Option<Up>; 2],
    machines: [Machine; 2],
    ledger: Mutex<Ledger>,
    /// Rounds in which something that was acknowledged before the kill was not on both sides yet.
    amid: usize,
}

impl Pair {
    fn new(listen: &'static str) -> Self {
        let machines = [Machine::new(), Machine::new()];
        machines[0].save("first", "the first file");
        let first = machines[0].share(&["--listen", listen]);
        let second = machines[1].join(&first.field("ticket"), &["--listen", listen]);
        Self { listen, machines, ups: [Some(first), Some(second)], ledger: Mutex::default(), amid: 0 }
    }

    /// Kills the victims while both are written on, and starts them again.
    fn round(&mut self, victims: &[usize], random: &mut Random) {
        let stop = AtomicBool::new(false);
        let (acked, acks) = mpsc::channel();
        std::thread::scope(|scope| {
            for (machine, who) in self.machines.iter().zip(['a', 'b']) {
                let (mut random, acked) = (Random::new(random.bits()), acked.clone());
                let (stop, ledger) = (&stop, &self.ledger);
                scope.spawn(move || write(machine, who, &mut random, stop, ledger, &acked));
            }
            // The moment is counted in what was acknowledged.
            for _ in 0..1 + random.below(8) {
                acks.recv_timeout(DEADLINE).expect("a write is acknowledged");
            }
            let acknowledged = self.ledger.lock().unwrap().sure();
            for victim in victims {
                self.ups[*victim].take().unwrap().kill();
            }
            // Over a link of which one end is dead nothing comes any more.
            let is_there = |name: &String| self.machines.iter().all(|machine| machine.path(name).exists());
            self.amid += usize::from(!acknowledged.iter().all(is_there));
            stop.store(true, Ordering::Relaxed);
        });
        for victim in victims {
            self.ups[*victim] = Some(self.machines[*victim].share(&[]));
        }
    }

    /// Both sides have what was acknowledged, and the same.
    fn check(&self) {
        let ([a, b], ledger) = (&self.machines, self.ledger.lock().unwrap());
        let is_there = || {
            let files = a.files();
            ledger.holds(&files) && files == b.files() && a.root() == b.root()
        };
        eventually("both have what was acknowledged, and the same", is_there, || {
            let mut text = format!("{}\n", self.listen);
            for machine in &self.machines {
                let files = machine.files();
                let wrong = ledger.wrong(&files);
                let some = &wrong[..wrong.len().min(5)];
                text +=
                    &format!("{} files, {} wrong (name, length to be, length): {some:?}\n", files.len(), wrong.len());
                text += &(machine.done(["status"]) + &machine.done(["why"]));
            }
            text
        });
        for machine in &self.machines {
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
                || format!("{}\n{:?}\n{}", self.listen, left(), machine.done(["status"]) + &machine.done(["why"])),
            );
        }
        // It is this transport that does it.
        let scheme = self.listen.split(':').next().unwrap();
        for machine in &self.machines {
            let used = || machine.json(["status"])["replicas"][0]["peers"][0]["transport"].clone();
            eventually("they are linked by this transport", || used() == scheme, || format!("{scheme}: {}", used()));
        }
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
    let mut pairs = EACH.map(Pair::new);
    let mut killed = [0; EACH.len()];
    for round in 0..rounds as usize {
        let victims = *random.pick(&VICTIMS);
        let at = round % EACH.len();
        pairs[at].round(victims, &mut random);
        killed[at] += victims.len();
        if round % 5 == 4 {
            pairs[at].check();
        }
    }
    let (mut acknowledged, mut failed) = (0, 0);
    let amid = pairs.each_ref().map(|pair| pair.amid);
    for pair in pairs {
        pair.check();
        let ledger = pair.ledger.into_inner().unwrap();
        acknowledged += ledger.expected.len() - ledger.unsure.len();
        failed += ledger.unsure.len();
        for up in pair.ups.into_iter().flatten() {
            up.stop();
        }
    }
    assert!(rounds < 50 || amid.iter().all(|rounds| *rounds > 0), "kills in the middle of a sync: {amid:?}");
    println!(
        "{rounds} rounds, kills by transport {:?}, in the middle of a sync in {amid:?} rounds, {acknowledged} writes acknowledged and {failed} not, none lost, in {:.0} s",
        EACH.map(|listen| listen.split(':').next().unwrap()).into_iter().zip(killed).collect::<Vec<_>>(),
        started.elapsed().as_secs_f64()
    );
}
