//! Plays simulations: `simulate seed N`, `simulate run --seeds A..B [--stop N]`, `simulate replay FILE`,
//! `simulate replay N`, `simulate shrink N FILE`, `simulate canaries [--most N] [--starts K] [NAME ...]`.
//!
//! `cargo run --release -p sync-core --features testing --example simulate -- run --seeds 0..1000`

// It measures how long the simulations take; they themselves read no clock.
#![allow(clippy::disallowed_methods)]

use std::{collections::BTreeMap, time::Instant};

use sync_core::testing::sim::{Canary, Counters, Outcome, Scenario, run, run_with_canary, shrink};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let failed = match args[..] {
        ["seed", seed] => show(&run(&Scenario::generate(number(seed)))),
        ["show", seed] => {
            println!("{:#?}", Scenario::generate(number(seed)));
            false
        }
        ["run", "--seeds", range] => many(range, 10),
        ["run", "--seeds", range, "--stop", stop] => many(range, number(stop)),
        ["canaries", ref options @ ..] => canaries(options),
        ["replay", seed] if seed.bytes().all(|byte| byte.is_ascii_digit()) => {
            show(&run(&Scenario::generate(number(seed))))
        }
        ["replay", file] => {
            let text = std::fs::read_to_string(file).unwrap_or_else(|error| fail(&format!("{file}: {error}")));
            let scenario: Scenario =
                serde_json::from_str(&text).unwrap_or_else(|error| fail(&format!("{file}: {error}")));
            show(&run(&scenario))
        }
        ["shrink", seed, file] => {
            let small = shrink(&Scenario::generate(number(seed)));
            let text = serde_json::to_string_pretty(&small).expect("scenarios can be encoded");
            std::fs::write(file, text).unwrap_or_else(|error| fail(&format!("{file}: {error}")));
            println!("{} operations and {} faults are left, in {file}", small.operations.len(), small.faults.len());
            show(&run(&small))
        }
        _ => fail(
            "usage: simulate seed N | show N | run --seeds A..B [--stop N] | replay N or FILE | shrink N FILE | canaries [--most N] [--starts K] [NAME ...]",
        ),
    };
    std::process::exit(i32::from(failed));
}

fn fail(what: &str) -> ! {
    eprintln!("{what}");
    std::process::exit(2)
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| fail(&format!("`{text}` is not a number")))
}

fn show(outcome: &Outcome) -> bool {
    println!("{:#?}", outcome.counters);
    println!("trace {:016x}, {} s of virtual time", outcome.trace, outcome.virtual_us / 1_000_000);
    if let Some(failure) = &outcome.failure {
        println!("{} after {} ms: {}", failure.oracle, failure.at_ms, failure.what);
    }
    outcome.failure.is_some()
}

fn seeds(range: &str) -> std::ops::Range<u64> {
    let Some((from, to)) = range.split_once("..") else { fail("seeds are given as A..B") };
    number(from)..number(to)
}

/// From one start of seeds to the next.
const START: u64 = 1_000_000;

/// Lets out one canary after the other, all or those that are named; each must be caught, within so many seeds from
/// each start.
fn canaries(options: &[&str]) -> bool {
    let (mut most, mut starts, mut named) = (200, 1, Vec::new());
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let mut value = || number(options.next().unwrap_or_else(|| fail(&format!("{option} needs a number"))));
        match *option {
            "--most" => most = value(),
            "--starts" => starts = value(),
            name => named.push(name.to_string()),
        }
    }
    let is_meant = |canary: &Canary| named.is_empty() || named.contains(&format!("{canary:?}"));
    let mut escaped = false;
    for canary in Canary::ALL.into_iter().filter(is_meant) {
        let mut counts = Vec::new();
        let mut oracles = BTreeMap::<String, u64>::new();
        for start in 0..starts {
            let caught = (start * START..start * START + most).find_map(|seed| {
                let failure = run_with_canary(&Scenario::generate(seed), canary).failure?;
                Some((seed, failure))
            });
            match caught {
                Some((seed, failure)) => {
                    counts.push(seed - start * START + 1);
                    *oracles.entry(failure.oracle).or_default() += 1;
                }
                None => escaped = true,
            }
        }
        counts.sort_unstable();
        let missed = starts as usize - counts.len();
        match counts.get(counts.len() / 2) {
            Some(median) => println!(
                "{canary:?}: caught after {median} seeds (median of {starts} starts, {missed} missed; all: {counts:?}), by {oracles:?}"
            ),
            None => println!("{canary:?}: NOT CAUGHT within {most} seeds"),
        }
    }
    escaped
}

fn many(range: &str, stop: u64) -> bool {
    let (started, mut all, mut oracles) = (Instant::now(), Counters::default(), BTreeMap::<String, u64>::new());
    let (mut failed, mut played, mut largest, mut slowest) = (0, 0, Vec::new(), Vec::new());
    for seed in seeds(range) {
        let outcome = run(&Scenario::generate(seed));
        played += 1;
        all.add(&outcome.counters);
        slowest.push((outcome.counters.converged_ms, seed));
        largest.push((outcome.counters.events, outcome.counters.dials, seed));
        if let Some(failure) = outcome.failure {
            failed += 1;
            *oracles.entry(failure.oracle.clone()).or_default() += 1;
            let first = failure.what.lines().next().unwrap_or_default();
            println!("seed {seed}: {} after {} ms: {first}", failure.oracle, failure.at_ms);
            if failed >= stop {
                break;
            }
        }
    }
    slowest.sort_unstable();
    for (converged_ms, seed) in slowest.iter().rev().take(5) {
        println!("seed {seed}: equal {converged_ms} ms after the healing");
    }
    let seconds = started.elapsed().as_secs_f64();
    largest.sort_unstable();
    println!("{all:#?}");
    for (events, dials, seed) in largest.iter().rev().take(5) {
        println!("seed {seed}: {events} events, {dials} dials");
    }
    println!("{played} seeds in {seconds:.1} s, {:.0} a second; {failed} failed {oracles:?}", played as f64 / seconds);
    failed > 0
}
