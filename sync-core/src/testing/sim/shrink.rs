//! Makes a failing scenario smaller while it fails in the same way.

use super::{Scenario, run, scenario::Operation};

/// How often a scenario is played at most while it is shrunk.
const MAX_RUNS: usize = 2_000;

/// The smallest scenario found that fails by the same oracle as this one.
pub fn shrink(scenario: &Scenario) -> Scenario {
    let Some(failure) = run(scenario).failure else { return scenario.clone() };
    let mut runs = 0;
    let mut fails = |candidate: &Scenario| {
        runs += 1;
        runs <= MAX_RUNS
            && candidate.is_connected()
            && run(candidate).failure.is_some_and(|other| other.oracle == failure.oracle)
    };
    let mut best = scenario.clone();
    loop {
        let before = best.clone();
        take(&mut best, |it| &mut it.faults, &mut fails);
        take(&mut best, |it| &mut it.operations, &mut fails);
        take(&mut best, |it| &mut it.paths, &mut fails);
        for at in 0..best.operations.len() {
            while let Operation::Write { changes, .. } = &best.operations[at].what
                && changes.len() > 1
            {
                let mut smaller = best.clone();
                if let Operation::Write { changes, .. } = &mut smaller.operations[at].what {
                    changes.truncate(changes.len() / 2);
                }
                if !fails(&smaller) {
                    break;
                }
                best = smaller;
            }
        }
        while best.replicas.len() > 1 {
            let mut smaller = best.clone();
            let last = smaller.replicas.len() - 1;
            smaller.replicas.pop();
            smaller.operations.retain(|timed| timed.what.replica().is_none_or(|replica| replica != last));
            if !fails(&smaller) {
                break;
            }
            best = smaller;
        }
        // Nodes, from the last.
        for node in (0..best.nodes.len()).rev() {
            if let Some(smaller) = without(&best, node)
                && fails(&smaller)
            {
                best = smaller;
            }
        }
        if best == before {
            return best;
        }
    }
}

/// The same without a node and everything that is about it; none when it owns a replica or is one of two.
fn without(scenario: &Scenario, node: usize) -> Option<Scenario> {
    let mut smaller = scenario.clone();
    if smaller.nodes.len() <= 2 || smaller.replicas.iter().any(|plan| plan.owner == node) {
        return None;
    }
    let moved = |other: &mut usize| *other -= usize::from(*other > node);
    smaller.nodes.remove(node);
    for plan in &mut smaller.replicas {
        plan.members.retain(|member| member.node != node);
        plan.members.iter_mut().for_each(|member| moved(&mut member.node));
        moved(&mut plan.owner);
    }
    smaller.paths.retain(|path| path.from != node && path.to != node);
    smaller.paths.iter_mut().for_each(|path| [&mut path.from, &mut path.to].into_iter().for_each(moved));
    smaller.operations.retain_mut(|timed| {
        let mut nodes = timed.what.nodes_mut();
        let stays = nodes.iter().all(|other| **other != node);
        nodes.iter_mut().for_each(|other| moved(other));
        stays
    });
    smaller.faults.retain_mut(|timed| {
        let mut nodes = timed.what.nodes_mut();
        let stays = nodes.iter().all(|other| **other != node);
        nodes.iter_mut().for_each(|other| moved(other));
        stays
    });
    Some(smaller)
}

/// Takes out ever smaller pieces of a list.
fn take<T: Clone>(
    best: &mut Scenario,
    list: impl Fn(&mut Scenario) -> &mut Vec<T>,
    fails: &mut impl FnMut(&Scenario) -> bool,
) {
    let mut size = list(best).len();
    while size > 0 {
        let mut start = 0;
        while start < list(best).len() {
            let mut smaller = best.clone();
            let end = (start + size).min(list(&mut smaller).len());
            list(&mut smaller).drain(start..end);
            match fails(&smaller) {
                true => *best = smaller,
                false => start += size,
            }
        }
        size /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        canary,
        testing::sim::{Canary, Outcome, run_with_canary},
    };

    /// A deliberate bug that two writes show, at the end of a simulation and whatever goes wrong in it.
    const BUG: Canary = Canary::ReadOldest;

    /// A scenario that fails with the bug: one that is played fast, as nobody is absent for days, and that has something of
    /// everything to be taken out.
    fn failing() -> Scenario {
        let is_fit = |scenario: &Scenario| {
            (3..=4).contains(&scenario.nodes.len())
                && scenario.replicas.len() > 1
                && (10..=30).contains(&scenario.operations.len())
                && scenario.faults.len() > 2
                && scenario.heal_ms <= 120_000
        };
        let mut fit = (1..2_000).map(Scenario::generate).filter(is_fit);
        fit.find(|scenario| run_with_canary(scenario, BUG).failure.is_some()).expect("some scenario shows the bug")
    }

    /// How much there is of everything that is taken out.
    fn sizes(scenario: &Scenario) -> [usize; 5] {
        let Scenario { nodes, replicas, paths, operations, faults, .. } = scenario;
        [nodes.len(), replicas.len(), paths.len(), operations.len(), faults.len()]
    }

    fn oracle(outcome: &Outcome) -> Option<&str> {
        outcome.failure.as_ref().map(|failure| failure.oracle.as_str())
    }

    #[test]
    fn what_is_left_of_a_scenario_fails_by_the_same_oracle_and_cannot_be_made_smaller() {
        let shrunk = |scenario: &Scenario| canary::with(Some(BUG), || shrink(scenario));
        let large = failing();
        let small = shrunk(&large);
        let outcome = run_with_canary(&small, BUG);
        assert_eq!(oracle(&outcome), oracle(&run_with_canary(&large, BUG)), "seed {}: {small:#?}", large.seed);
        assert_eq!(run(&small).failure, None, "seed {} fails by something else than the bug", large.seed);

        let (before, after) = (sizes(&large), sizes(&small));
        assert!(after.iter().zip(&before).all(|(after, before)| after <= before), "{before:?} became {after:?}");
        assert!(after.iter().sum::<usize>() < before.iter().sum::<usize>(), "{before:?} became {after:?}");
        // A few hundred runs have brought it there: it was not [`MAX_RUNS`] that ended them.
        assert_eq!(shrunk(&small), small, "seed {} is shrunk further the second time", large.seed);

        let text = serde_json::to_string(&small).expect("scenarios can be encoded");
        let stored: Scenario = serde_json::from_str(&text).expect("what was encoded can be decoded");
        assert_eq!(stored, small);
        assert_eq!(run_with_canary(&stored, BUG), outcome, "seed {}: stored, it is another", large.seed);
    }

    #[test]
    fn a_scenario_that_does_not_fail_is_not_shrunk() {
        let scenario = failing();
        assert_eq!(run(&scenario).failure, None, "seed {} fails without the bug", scenario.seed);
        assert_eq!(shrink(&scenario), scenario);
    }
}
