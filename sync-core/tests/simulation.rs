//! The machine in the simulator: any failure here prints its seed and how to play it again.

use sync_core::testing::sim::{Scenario, run};

/// How many seeds are played; more with `SIMULATION_SEEDS=N`.
const SEEDS: u64 = 300;

fn seeds() -> u64 {
    std::env::var("SIMULATION_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

#[test]
fn b84_the_same_seed_gives_the_same_trace() {
    for seed in (0..seeds()).step_by(100) {
        let scenario = Scenario::generate(seed);
        assert_eq!(Scenario::generate(seed), scenario);
        let (one, other) = (run(&scenario), run(&scenario));
        assert_eq!(one, other, "seed {seed}");
        assert!(one.counters.events > 0);
    }
}
