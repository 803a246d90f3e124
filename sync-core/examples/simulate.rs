//! Plays simulations: `simulate seed N`, `simulate run --seeds A..B [--stop N] [--faults N]`, `simulate replay FILE`,
//! `simulate replay N`, `simulate shrink N FILE`, `simulate canaries [--most N] [--starts K] [--turn T] [NAME ...]`.
//!
//! With `--faults N` a run also fails when fewer faults have happened, when something rare never has, or when more than a
//! twentieth of what was delivered was sent again. With `--turn T` three canaries are tried, others for other T.
//! `SYNCLINE_LOG=debug` tells what went into each machine and came out of it.
//!
//! `cargo run --release -p sync-core --features testing --example simulate -- run --seeds 0..1000`

// It measures how long the simulations take; they themselves read no clock.
#![allow(clippy::disallowed_methods)]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use sync_core::testing::sim::{Canary, Counters, Outcome, Scenario, run, run_twice, run_with_canary, shrink};

fn main() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SYNCLINE_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let failed = match args[..] {
        ["seed", seed] => show(&run(&Scenario::generate(number(seed)))),
        ["show", seed] => {
            println!("{:#?}", Scenario::generate(number(seed)));
            false
        }
        ["run", "--seeds", range, ref options @ ..] => many(range, options),
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
            "usage: simulate seed N | show N | run --seeds A..B [--stop N] [--faults N] | replay N or FILE | shrink N FILE | canaries [--most N] [--starts K] [--turn T] [NAME ...]",
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

/// Answers of work on numbers, in their order, from as many threads as there are processors.
fn on_all_cores<T: Send>(numbers: std::ops::Range<u64>, work: impl Fn(u64) -> Option<T> + Sync) -> Vec<(u64, T)> {
    let next = AtomicU64::new(numbers.start);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            match (number < numbers.end).then(|| work(number)).flatten() {
                Some(answer) => done.push((number, answer)),
                None => return done,
            }
        }
    };
    let mut all: Vec<(u64, T)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a simulation catches panics")).collect()
    });
    all.sort_unstable_by_key(|(number, _)| *number);
    all
}

/// From one start of seeds to the next.
const START: u64 = 1_000_000;

/// Lets out one canary after the other, all or those that are named; each must be caught, within so many seeds from
/// each start.
fn canaries(options: &[&str]) -> bool {
    let (mut most, mut starts, mut turn, mut named) = (200, 1, None, Vec::new());
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let mut value = || number(options.next().unwrap_or_else(|| fail(&format!("{option} needs a number"))));
        match *option {
            "--most" => most = value(),
            "--starts" => starts = value(),
            "--turn" => turn = Some(value() as usize),
            name => named.push(name.to_string()),
        }
    }
    let chosen: Vec<Canary> = match turn {
        Some(turn) => Canary::three(turn).into(),
        None => Canary::ALL.to_vec(),
    };
    let mut escaped = false;
    for canary in chosen.into_iter().filter(|canary| named.is_empty() || named.contains(&format!("{canary:?}"))) {
        let caught = on_all_cores(0..starts, |start| {
            Some((start * START..start * START + most).find_map(|seed| {
                let failure = run_with_canary(&Scenario::generate(seed), canary).failure?;
                Some((seed - start * START + 1, failure.oracle))
            }))
        });
        let mut oracles = BTreeMap::<&str, u64>::new();
        let mut counts: Vec<u64> = Vec::new();
        for (count, oracle) in caught.iter().filter_map(|(_, caught)| caught.as_ref()) {
            counts.push(*count);
            *oracles.entry(oracle).or_default() += 1;
        }
        counts.sort_unstable();
        let missed = starts as usize - counts.len();
        escaped |= missed > 0;
        // A start from which it was missed counts as a late one.
        match counts.get(starts as usize / 2) {
            Some(median) => println!(
                "{canary:?}: caught after {median} seeds (median of {starts} starts, {missed} missed; all: {counts:?}), by {oracles:?}"
            ),
            None => println!("{canary:?}: NOT CAUGHT within {most} seeds from most of {starts} starts: {counts:?}"),
        }
    }
    escaped
}

fn many(range: &str, options: &[&str]) -> bool {
    let (mut stop, mut least) = (10, None);
    for option in options.chunks(2) {
        match option {
            ["--stop", value] => stop = number(value),
            ["--faults", value] => least = Some(number(value)),
            other => fail(&format!("{other:?} is no option of a run")),
        }
    }
    let (started, failures) = (Instant::now(), AtomicU64::new(0));
    let outcomes = on_all_cores(seeds(range), |seed| {
        if failures.load(Ordering::Relaxed) >= stop {
            return None;
        }
        // One in a hundred is played twice: it must come out the same.
        let is_twice = seed.is_multiple_of(100);
        let scenario = Scenario::generate(seed);
        let outcome = if is_twice { run_twice(&scenario) } else { run(&scenario) };
        if let Some(failure) = &outcome.failure {
            failures.fetch_add(1, Ordering::Relaxed);
            let first = failure.what.lines().next().unwrap_or_default();
            println!("seed {seed}: {} after {} ms: {first}", failure.oracle, failure.at_ms);
            println!(
                "play it again: cargo run --release -p sync-core --no-default-features --features testing --example simulate -- seed {seed}"
            );
        }
        Some(outcome)
    });
    let seconds = started.elapsed().as_secs_f64();
    let (mut all, mut oracles, mut slowest, mut largest) =
        (Counters::default(), BTreeMap::<String, u64>::new(), Vec::new(), Vec::new());
    for (seed, outcome) in &outcomes {
        all.add(&outcome.counters);
        slowest.push((outcome.counters.converged_ms, *seed));
        largest.push((outcome.counters.events, outcome.counters.dials, *seed));
        if let Some(failure) = &outcome.failure {
            *oracles.entry(failure.oracle.clone()).or_default() += 1;
        }
    }
    slowest.sort_unstable();
    largest.sort_unstable();
    println!("{all:#?}");
    for (converged_ms, seed) in slowest.iter().rev().take(5) {
        println!("seed {seed}: equal {converged_ms} ms after the healing");
    }
    for (events, dials, seed) in largest.iter().rev().take(5) {
        println!("seed {seed}: {events} events, {dials} dials");
    }
    let (played, failed) = (outcomes.len(), failures.into_inner());
    println!("{played} seeds in {seconds:.1} s, {:.0} a second; {failed} failed {oracles:?}", played as f64 / seconds);
    let never = all.never(played as u64);
    println!("{} faults, {} writes acknowledged and checked; never happened: {never:?}", all.faults, all.acknowledged);
    println!(
        "{} entries delivered, {} of them sent again, and {} where that is asked for",
        all.delivered, all.sent_again, all.sent_again_on_demand
    );
    // A few seeds need not reach everything rare; none at all show nothing.
    let is_nothing = played == 0 || played >= 100 && all.acknowledged == 0;
    let is_rare = (least.is_some() || played >= 1_000) && !never.is_empty();
    let is_easy = is_nothing || is_rare || least.is_some_and(|least| all.faults < least);
    if is_easy {
        println!("the simulation went easy: {least:?} faults are demanded, and everything rare");
    }
    // Work follows the difference: at most a twentieth goes twice, whatever happens.
    let repeats = least.is_some() && all.sent_again * 20 > all.delivered;
    if repeats {
        println!("more than a twentieth of what was delivered was sent again");
    }
    failed > 0 || is_easy || repeats
}
