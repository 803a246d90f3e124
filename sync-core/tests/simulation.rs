//! The machine in the simulator. A failure prints its seed and how to play it again.

use sync_core::testing::sim::{
    Canary, Counters, Outcome, SELDOM, SOMETIMES, Scenario, Seen, run, run_with_canary, run_with_invariant,
};

/// How many seeds are played; more with `SIMULATION_SEEDS=N`.
const SEEDS: u64 = 300;

fn seeds() -> u64 {
    std::env::var("SIMULATION_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

/// Within so many seeds a canary must be caught.
const MOST: u64 = 2_000;

/// All canaries, or three that follow from `CANARIES=N`, so that other numbers try others.
fn canaries() -> Vec<Canary> {
    let number = std::env::var("CANARIES").ok().and_then(|text| text.parse::<usize>().ok());
    match number {
        None => Canary::ALL.to_vec(),
        Some(number) => Canary::three(number).into(),
    }
}

fn expect_good(name: &str, outcome: &Outcome) {
    if let Some(failure) = &outcome.failure {
        panic!(
            "{name}: {} after {} ms of virtual time: {}\nplay it again: cargo run --release -p sync-core \
             --features testing --example simulate -- {name}",
            failure.oracle, failure.at_ms, failure.what
        );
    }
}

fn play(part: u64, parts: u64) -> Counters {
    let mut all = Counters::default();
    let mut played = 0;
    for seed in (0..seeds()).filter(|seed| seed % parts == part) {
        let outcome = run(&Scenario::generate(seed));
        expect_good(&format!("seed {seed}"), &outcome);
        all.add(&outcome.counters);
        played += 1;
    }
    println!("{played} simulations: {all:#?}");
    assert!(played > 0 && all.acknowledged > 0, "nothing was simulated");
    all
}

#[test]
fn nodes_become_equal_whatever_happens_to_them_and_every_mark_is_reached() {
    let all = std::thread::scope(|scope| {
        let half = scope.spawn(|| play(1, 2));
        let mut all = play(0, 2);
        match half.join() {
            Ok(half) => all.add(&half),
            Err(panic) => std::panic::resume_unwind(panic),
        }
        all
    });
    let missed = all.never(seeds());
    assert!(missed.is_empty(), "never happened in {} seeds: {missed:?}", seeds());
    // What is counted is demanded, or one day it does not happen any more and nobody hears of it.
    let demanded: Vec<&str> = SOMETIMES.into_iter().chain(SELDOM).collect();
    let other: Vec<&str> = all.marks.keys().map(String::as_str).filter(|mark| !demanded.contains(mark)).collect();
    assert!(other.is_empty(), "counted and never demanded: {other:?}");
}

/// Networks of seven machines and more that have one replica; delays are drawn for each message, so that what goes over
/// different links overtakes each other.
#[test]
fn seven_machines_and_more_converge_under_delay_overtaking_cuts_and_crashes() {
    const NETWORKS: usize = 20;
    let is_large = |scenario: &Scenario| {
        let members = scenario.replicas.iter().map(|replica| replica.members.len() + 1).max();
        members >= Some(7) && scenario.knobs.latency_us.0 < scenario.knobs.latency_us.1
    };
    let networks = (0..).map(|seed| (seed, Scenario::generate(seed))).filter(|(_, scenario)| is_large(scenario));
    let (mut all, mut with_all) = (Counters::default(), 0);
    for (seed, scenario) in networks.take(NETWORKS) {
        let outcome = run(&scenario);
        expect_good(&format!("seed {seed}"), &outcome);
        let happened = |mark: &str| outcome.counters.marks.contains_key(mark);
        with_all += usize::from(happened("crash") && (happened("cut") || happened("half_open")));
        all.add(&outcome.counters);
    }
    for mark in ["crash", "cut", "half_open", "synced"] {
        assert!(all.marks.contains_key(mark), "never in {NETWORKS} networks: {mark}");
    }
    assert!(with_all > 0 && all.acknowledged > 0, "{with_all} networks with cuts and crashes: {all:?}");
}

/// O10.
#[test]
fn b84_the_same_seed_gives_the_same_trace() {
    for seed in (0..seeds()).step_by(50) {
        let scenario = Scenario::generate(seed);
        assert_eq!(Scenario::generate(seed), scenario);
        let (one, other) = (run(&scenario), run(&scenario));
        assert_eq!(one, other, "seed {seed}");
        assert!(one.counters.events > 0);
    }
}

/// No time passes on any way, nor in a store: whoever announces something before he can serve it is asked too early.
#[test]
fn b32_what_is_announced_can_be_fetched_at_once() {
    let mut all = Counters::default();
    for seed in (0..seeds()).step_by(10) {
        let mut scenario = Scenario::generate(seed);
        let knobs = &mut scenario.knobs;
        (knobs.latency_us, knobs.execute_us, knobs.reply_us) = ((0, 0), (0, 0), (0, 0));
        let outcome = run(&scenario);
        assert_eq!(outcome.failure, None, "seed {seed} without delay");
        all.add(&outcome.counters);
    }
    // Each time that a node says up to where it has sent its change log, the entries were sent, and each time that it
    // says what its root is, its store had it.
    assert!(all.marks["announced"] > 1_000 && all.acknowledged > 0, "{all:#?}");
}

#[test]
fn every_canary_is_caught() {
    for canary in canaries() {
        let caught = (0..MOST).find(|seed| run_with_canary(&Scenario::generate(*seed), canary).failure.is_some());
        assert!(caught.is_some(), "no oracle objects to {canary:?}");
    }
}

#[test]
fn what_once_failed_does_not_fail_again() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/regressions");
    let mut played = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let scenario: Scenario = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        expect_good(&format!("replay {}", path.display()), &run(&scenario));
        played += 1;
    }
    assert!(played > 0, "no regression is stored in {folder}");
}

#[test]
fn a_scenario_survives_being_written_down() {
    let scenario = Scenario::generate(5);
    let text = serde_json::to_string(&scenario).unwrap();
    assert_eq!(serde_json::from_str::<Scenario>(&text).unwrap(), scenario);
}

#[test]
fn an_application_has_its_own_invariant() {
    // Nobody promises that a key is never written.
    let never = |seen: &Seen<'_>| match seen.entries.iter().find(|(_, op)| op.key_bytes().starts_with(b"user")) {
        Some((_, op)) => Err(format!("{op:?}")),
        None => Ok(()),
    };
    let broken = (0..200).find_map(|seed| run_with_invariant(&Scenario::generate(seed), &never).failure);
    assert_eq!(broken.expect("some scenario writes such a key").oracle, "application");
    assert_eq!(run_with_invariant(&Scenario::generate(1), &|_: &Seen<'_>| Ok(())), run(&Scenario::generate(1)));
}
