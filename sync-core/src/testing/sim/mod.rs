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
mod equivocate;
mod faults;
mod generate;
mod healing;
mod hostile;
mod node;
mod oracles;
mod outcome;
mod overheard;
mod scenario;
mod shrink;
mod spent;
mod watching;
mod wire;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

pub use disk::{Device, Disk, SimStore, Trouble};
pub use draw::{Draw, Stream};
pub use outcome::{Counters, Failure, Outcome, SELDOM, SOMETIMES};
pub use scenario::*;
pub use shrink::shrink;

pub use crate::canary::Canary;
use crate::model::{Op, Order};

/// Plays a scenario. A panic of the code under test is a failure like any other.
pub fn run(scenario: &Scenario) -> Outcome {
    run_on(scenario, &|| Rc::new(Disk::default()))
}

/// Plays a scenario twice: O10, the same scenario gives the same trace.
pub fn run_twice(scenario: &Scenario) -> Outcome {
    let (mut outcome, again) = (run(scenario), run(scenario));
    if outcome != again && outcome.failure.is_none() {
        let what = format!("played twice, the traces are {:016x} and {:016x}", outcome.trace, again.trace);
        outcome.failure = Some(Failure { oracle: "O10".into(), what, at_ms: outcome.virtual_us / 1_000 });
    }
    outcome
}

/// Plays a scenario whose nodes have their stores on other devices.
pub fn run_on(scenario: &Scenario, devices: &dyn Fn() -> Rc<dyn Device>) -> Outcome {
    play(scenario, devices, None)
}

/// What a node of a simulation has, for an application's own invariant.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The node.
    pub node: usize,
    /// The replica.
    pub replica: usize,
    /// Its entries there that are not forgotten.
    pub entries: &'a [(Order, Op)],
}

/// What an application says of what a node has: nothing, or what is wrong with it.
pub type Invariant<'a> = dyn Fn(&Seen<'_>) -> Result<(), String> + 'a;

/// Plays a scenario and asks an application, whenever an honest node has taken something in, whether what it has is
/// still what it should be. What it says is wrong is a failure by the oracle "application".
pub fn run_with_invariant(scenario: &Scenario, invariant: &Invariant<'_>) -> Outcome {
    play(scenario, &|| Rc::new(Disk::default()), Some(invariant))
}

/// Plays a scenario with a deliberate bug in the code under test: an oracle must object, in some scenario. One that makes
/// the machine depend on something else than its inputs is seen when the scenario is played again.
pub fn run_with_canary(scenario: &Scenario, canary: Canary) -> Outcome {
    let play = if canary == Canary::DrawAnything { run_twice } else { run };
    crate::canary::with(Some(canary), || play(scenario))
}

fn play(scenario: &Scenario, devices: &dyn Fn() -> Rc<dyn Device>, invariant: Option<&Invariant<'_>>) -> Outcome {
    // One seed in ten signs for real.
    let _stand_in = (!scenario.seed.is_multiple_of(10)).then(crate::model::stand_in::Guard::switch_on);
    catch_unwind(AssertUnwindSafe(|| world::World::new(scenario, devices, invariant).run())).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
            .unwrap_or_else(|| "a panic without words".into());
        let failure = Failure { oracle: "O9".into(), what: format!("a panic: {what}"), at_ms: 0 };
        Outcome { failure: Some(failure), counters: Counters::default(), trace: 0, virtual_us: 0 }
    })
}
