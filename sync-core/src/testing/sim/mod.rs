//! The simulator: many machines in one thread, in virtual time, over a simulated network and
//! simulated disks. A scenario is plain data that follows from a seed; playing it twice gives the same
//! trace, so whatever it finds can be found again.
//!
//! ```
//! use sync_core::testing::sim::{Scenario, run};
//!
//! let scenario = Scenario::generate(7);
//! let outcome = run(&scenario);
//! assert_eq!(outcome.failure, None);
//! assert_eq!(outcome.trace, run(&scenario).trace);
//! ```
//!
//! In the first phase, *safety*, anything happens. Then everything is healed, and in the second,
//! *liveness*, the nodes must become equal within a bound of virtual time, and know it.

mod disk;
mod draw;
mod driver;
mod faults;
mod generate;
mod node;
mod oracles;
mod outcome;
mod scenario;
mod shrink;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use disk::{Disk, SimStore, Trouble};
pub use draw::{Draw, Stream};
pub use outcome::{Counters, Failure, Outcome};
pub use scenario::*;
pub use shrink::shrink;

pub use crate::canary::Canary;

/// Plays a scenario. A panic of the code under test is a failure like any other.
pub fn run(scenario: &Scenario) -> Outcome {
    play(scenario)
}

/// Plays a scenario with a deliberate bug in the code under test: an oracle must object, in some scenario.
pub fn run_with_canary(scenario: &Scenario, canary: Canary) -> Outcome {
    crate::canary::with(Some(canary), || play(scenario))
}

fn play(scenario: &Scenario) -> Outcome {
    // One seed in ten signs for real.
    let _stand_in = (!scenario.seed.is_multiple_of(10)).then(crate::model::stand_in::Guard::switch_on);
    catch_unwind(AssertUnwindSafe(|| world::World::new(scenario).run())).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
            .unwrap_or_else(|| "a panic without words".into());
        let failure = Failure { oracle: "O9".into(), what: format!("a panic: {what}"), at_ms: 0 };
        Outcome { failure: Some(failure), counters: Counters::default(), trace: 0, virtual_us: 0 }
    })
}
