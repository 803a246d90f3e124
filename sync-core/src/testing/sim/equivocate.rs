//! An author who signs two sets of entries whose hashes have the same XOR: where fingerprints are XOR, both are the same
//! set. The XOR of 64 bits is forged by linear algebra on 65 pairs, in microseconds.

use super::{
    scenario::Change,
    world::{Work, World, op},
};
use crate::model::{HybridClock, SecretKey, Timestamp, VerifiedBundle, sign_commit};

/// One more pair than bits: some of them must cancel out.
const PAIRS: usize = 65;

fn leading(bundle: &VerifiedBundle) -> u64 {
    let hash = bundle.entries().next().expect("a bundle of one entry").order.hash;
    u64::from_le_bytes(hash.0[..8].try_into().expect("8 of 32 bytes"))
}

/// Which of the numbers have the XOR 0 together.
fn cancelling(numbers: &[u64]) -> u128 {
    // Per leading bit: a number, and of which of them it is the XOR.
    let mut rows: Vec<(u64, u128)> = Vec::new();
    for (at, number) in numbers.iter().enumerate() {
        let (mut number, mut of) = (*number, 1u128 << at);
        for (row, from) in &rows {
            if number ^ row < number {
                (number, of) = (number ^ row, of ^ from);
            }
        }
        if number == 0 {
            return of;
        }
        rows.push((number, of));
        rows.sort_unstable_by_key(|(row, _)| std::cmp::Reverse(*row));
    }
    0
}

impl World<'_> {
    pub fn equivocate(&mut self, node: usize, replica: usize, tag: u64) {
        let key = self.nodes[node].key.clone();
        if self.scenario.member(replica, node).is_some_and(|member| !member.is_full())
            || self.nodes[node].process.is_none()
            || self.scenario.is_hostile(node)
        {
            return;
        }
        let wall = self.nodes[node].wall(self.now_us);
        let sets = [0, 1].map(|set| self.pairs(replica, &key, wall, tag, set));
        let numbers: Vec<u64> = sets[0].iter().zip(&sets[1]).map(|(a, b)| leading(a) ^ leading(b)).collect();
        let chosen = cancelling(&numbers);
        let members: Vec<usize> = self.scenario.full_members(replica).collect();
        for (at, member) in members.iter().enumerate() {
            for other in &members[..at] {
                for number in self.wires_between(*member, *other) {
                    self.cut(number);
                }
            }
        }
        for (at, member) in members.into_iter().enumerate() {
            if self.nodes[member].process.is_none() {
                continue;
            }
            let set = sets[at % 2].iter().enumerate();
            let bundles = set.filter(|(at, _)| chosen >> at & 1 == 1).map(|(_, bundle)| bundle.clone()).collect();
            self.work(member, Work::Given { replica, bundles });
        }
        self.mark("equivocated");
    }

    /// A set of entries of one author: each a commit of its own, so that it can be left out.
    fn pairs(&self, replica: usize, key: &SecretKey, wall: Timestamp, tag: u64, set: u64) -> Vec<VerifiedBundle> {
        let one = |at: usize| {
            let tag = tag << 16 | set << 8 | at as u64;
            let change = Change::Put { key: format!("e{tag:x}"), len: 8, tag };
            let clock = HybridClock::new(Timestamp(wall.0 + at as u64));
            let ops = vec![op(self.draw, &change)];
            sign_commit(self.replicas[replica].id, key, &clock, wall, ops).expect("what can be written")
        };
        (0..PAIRS).map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random::Random;

    #[test]
    fn of_65_numbers_of_64_bits_some_cancel_out() {
        let mut random = Random::new(3);
        let numbers: Vec<u64> = (0..PAIRS).map(|_| random.bits()).collect();
        let chosen = cancelling(&numbers);
        assert_ne!(chosen, 0);
        let chosen = numbers.iter().enumerate().filter(|(at, _)| chosen >> at & 1 == 1);
        assert_eq!(chosen.fold(0, |sum, (_, number)| sum ^ number), 0);
    }
}
