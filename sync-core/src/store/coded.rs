//! Coded symbols: the difference of two sets from about 1.4 symbols for each entry that differs,
//! whatever the size of the sets (a rateless invertible Bloom lookup table: Yang, Gilad, Alizadeh,
//! "Practical Rateless Set Reconciliation", SIGCOMM 2024).
//!
//! Symbol *i* sums the ids of one entry in 1 + i/2, chosen by the ids themselves. Two nodes' symbols
//! subtracted are the symbols of what differs. One that holds a single id gives it away; taken out
//! of all symbols, it leaves others with a single one. PROTOCOL.md, "Coded symbols", is the specification.
//!
//! Whoever writes entries can choose them such that they do not come apart. Then ranges are compared.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::types::ShortId;

/// How many symbols are kept of every replica, 24 bytes each: enough for about 700 differences.
pub const SOME_SYMBOLS: usize = 1_024;

/// The most symbols that there are of a set: enough for some 35,000 differences, 1.2 MB. So many are made of
/// a replica when more than [`SOME_SYMBOLS`] are asked for.
pub const MAX_SYMBOLS: usize = 49_152;

/// How many symbols are sent at first: enough for about 40 differences, less than 2 KB, and what the
/// number of further ones is estimated from.
pub const FIRST_SYMBOLS: usize = 64;

/// Sums over the entries that belong to one symbol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Symbol {
    /// The XOR of their ids.
    pub ids: [u8; 16],
    /// The XOR of their ids' checks.
    pub checks: [u8; 4],
    /// Their number, modulo 2^32.
    pub count: u32,
}

impl Symbol {
    const EMPTY: Self = Self { ids: [0; 16], checks: [0; 4], count: 0 };

    /// Adds symbols of the same number, or takes them away: XOR is both.
    fn combine(&mut self, other: &Self, count: u32) {
        self.ids = (u128::from_ne_bytes(self.ids) ^ u128::from_ne_bytes(other.ids)).to_ne_bytes();
        self.checks = (u32::from_ne_bytes(self.checks) ^ u32::from_ne_bytes(other.checks)).to_ne_bytes();
        self.count = count;
    }

    fn add(&mut self, other: &Self) {
        self.combine(other, self.count.wrapping_add(other.count));
    }

    fn subtract(&mut self, other: &Self) {
        self.combine(other, self.count.wrapping_sub(other.count));
    }

    /// The symbol of one id.
    fn of(id: &ShortId) -> Self {
        let (low, high) = halves(id);
        let check = (mix(low.wrapping_add(mix(high))) >> 32) as u32;
        Self { ids: id.0, checks: check.to_le_bytes(), count: 1 }
    }

    /// The only entry in the difference of two symbols, and whether it is in the first.
    fn single(&self) -> Option<(ShortId, bool)> {
        let is_first = match self.count {
            1 => true,
            u32::MAX => false,
            _ => return None,
        };
        let id = ShortId(self.ids);
        (Self::of(&id).checks == self.checks).then_some((id, is_first))
    }
}

fn halves(id: &ShortId) -> (u64, u64) {
    let whole = u128::from_le_bytes(id.0);
    (whole as u64, (whole >> 64) as u64)
}

/// The finalizer of SplitMix64. XOR does not go through it, so a sum of ids has not the sum of checks.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The numbers below `end` of the symbols that an id belongs to: the first always is 0, and the number
/// after `i` is more than `j` with probability (i + 3/2)^2 / (j + 3/2)^2, so that `j` is one with
/// probability 1 / (1 + j/2). Arithmetic of IEEE 754: everybody computes the same.
fn numbers(id: &ShortId, end: usize) -> impl Iterator<Item = usize> {
    let mut state = halves(id).0 | 1;
    let mut next = 0usize;
    std::iter::from_fn(move || {
        let number = next;
        state = state.wrapping_mul(0xda94_2042_e4dd_58b5);
        let skip = (number as f64 + 1.5) * (4_294_967_296.0 / (state as f64 + 1.0).sqrt() - 1.0);
        // Saturates far above any number of symbols; never less than one on.
        next = number.saturating_add((skip.ceil() as usize).max(1));
        (number < end).then_some(number)
    })
}

/// The symbols of a set of entries: [`SOME_SYMBOLS`] or [`MAX_SYMBOLS`] of them.
#[derive(Clone, PartialEq, Eq)]
pub struct CodedSet(Arc<Vec<Symbol>>);

impl Default for CodedSet {
    fn default() -> Self {
        Self::with_symbols(SOME_SYMBOLS)
    }
}

impl std::fmt::Debug for CodedSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Every entry is in the first symbol.
        write!(f, "CodedSet({} entries)", self.0[0].count)
    }
}

impl CodedSet {
    /// Of no entries, with `count` symbols at least; never more than [`MAX_SYMBOLS`].
    pub fn with_symbols(count: usize) -> Self {
        let count = if count <= SOME_SYMBOLS { SOME_SYMBOLS } else { MAX_SYMBOLS };
        Self(Arc::new(vec![Symbol::EMPTY; count]))
    }

    /// An entry came.
    pub fn insert(&mut self, id: &ShortId) {
        let one = Symbol::of(id);
        let symbols = Arc::make_mut(&mut self.0);
        numbers(id, symbols.len()).for_each(|number| symbols[number].add(&one));
    }

    /// An entry went.
    pub fn remove(&mut self, id: &ShortId) {
        let one = Symbol::of(id);
        let symbols = Arc::make_mut(&mut self.0);
        numbers(id, symbols.len()).for_each(|number| symbols[number].subtract(&one));
    }

    /// The symbols, from the first.
    pub fn symbols(&self) -> &[Symbol] {
        &self.0
    }

    /// Forgets all symbols but the first [`SOME_SYMBOLS`].
    pub fn shrink(&mut self) {
        if self.0.len() > SOME_SYMBOLS {
            self.0 = Arc::new(self.0[..SOME_SYMBOLS].to_vec());
        }
    }
}

/// What the first symbols of two sets tell about their difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// All of it, with overwhelming probability; roots tell. Ids of both, ascending.
    Known {
        /// Entries of the first set alone.
        mine: Vec<ShortId>,
        /// Entries of the second set alone.
        theirs: Vec<ShortId>,
    },
    /// It takes about so many symbols to know it.
    Larger(usize),
    /// It takes more symbols than there are.
    TooLarge,
}

/// So many symbols a difference are enough, when there are many.
const PER_DIFFERENCE: f64 = 1.4;

/// How many symbols a leader sends at first to a peer that has so many entries more, or fewer: at least so many
/// differ.
pub fn first_symbols(surplus: u64) -> usize {
    let least = (surplus as f64 * PER_DIFFERENCE) as usize;
    FIRST_SYMBOLS.saturating_add(least).min(MAX_SYMBOLS)
}

/// Whether so many differences can be told by symbols.
pub fn is_told(differences: u64) -> bool {
    differences as f64 * PER_DIFFERENCE <= MAX_SYMBOLS as f64
}

/// Compares the first symbols of two sets: as many as there are of `theirs`, and of `mine` no fewer.
pub fn difference(mine: &CodedSet, theirs: &[Symbol]) -> Difference {
    let mut symbols: Vec<Symbol> = mine.symbols()[..theirs.len()].to_vec();
    symbols.iter_mut().zip(theirs).for_each(|(symbol, other)| symbol.subtract(other));
    let estimate = estimate(&symbols);
    let mut found: Vec<(ShortId, bool)> = Vec::new();
    let mut singles: Vec<usize> = (0..symbols.len()).filter(|number| symbols[*number].single().is_some()).collect();
    while let Some(number) = singles.pop() {
        let Some((id, is_mine)) = symbols[number].single() else { continue };
        if found.len() == symbols.len() {
            // No honest set comes apart into more entries than symbols.
            return Difference::TooLarge;
        }
        found.push((id, is_mine));
        let one = Symbol::of(&id);
        for number in numbers(&id, symbols.len()) {
            let symbol = &mut symbols[number];
            if is_mine {
                symbol.subtract(&one)
            } else {
                symbol.add(&one)
            }
            if symbol.single().is_some() {
                singles.push(number);
            }
        }
    }
    if !symbols.is_empty() && symbols.iter().all(|symbol| *symbol == Symbol::EMPTY) {
        found.sort_unstable();
        if found.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Difference::TooLarge;
        }
        let (mine, theirs): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, is_mine)| *is_mine);
        let ids = |found: Vec<(ShortId, bool)>| found.into_iter().map(|(id, _)| id).collect();
        return Difference::Known { mine: ids(mine), theirs: ids(theirs) };
    }
    if symbols.len() >= MAX_SYMBOLS || estimate * PER_DIFFERENCE > MAX_SYMBOLS as f64 {
        return Difference::TooLarge;
    }
    // The error of the first estimate is 18 %. Where symbols are few they cost less than another round trip.
    let factor = match symbols.len() {
        0..=255 if estimate <= 512.0 => 2.0,
        0..=255 => 1.75,
        _ => 1.5,
    };
    let wanted = (estimate * factor) as usize + 32;
    Difference::Larger(wanted.max(symbols.len() + symbols.len() / 4).clamp(FIRST_SYMBOLS, MAX_SYMBOLS))
}

/// About how many entries differ. Each belongs to symbol `i` with probability p = 1 / (1 + i/2), so the
/// count there has, beside its mean, a square of p (1 - p) for each.
fn estimate(difference: &[Symbol]) -> f64 {
    let Some(all) = difference.first() else { return 0.0 };
    let surplus = f64::from(all.count as i32);
    let squares: f64 = difference
        .iter()
        .enumerate()
        .skip(1)
        .map(|(number, symbol)| {
            let part = 1.0 / (1.0 + number as f64 / 2.0);
            let beside = f64::from(symbol.count as i32) - surplus * part;
            beside * beside / (part * (1.0 - part))
        })
        .sum();
    (squares / (difference.len().max(2) - 1) as f64).max(surplus.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random::Random;
    use proptest::prelude::*;

    fn ids(random: &mut Random, count: usize) -> Vec<ShortId> {
        (0..count).map(|_| ShortId(std::array::from_fn(|_| random.below(256) as u8))).collect()
    }

    fn coded<'a>(ids: impl IntoIterator<Item = &'a ShortId>) -> CodedSet {
        let mut set = CodedSet::with_symbols(MAX_SYMBOLS);
        ids.into_iter().for_each(|id| set.insert(id));
        set
    }

    fn sorted(ids: &[ShortId]) -> Vec<ShortId> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    }

    /// Asks for as many symbols as it is told to; answers how many it took, or none.
    fn reconcile(mine: &CodedSet, theirs: &CodedSet, expected: &Difference) -> Option<usize> {
        let mut sent = FIRST_SYMBOLS;
        loop {
            match difference(mine, &theirs.symbols()[..sent]) {
                Difference::Larger(more) => {
                    assert!(more > sent && more <= MAX_SYMBOLS, "{more} after {sent}");
                    sent = more;
                }
                Difference::TooLarge => return None,
                known => {
                    assert_eq!(&known, expected);
                    return Some(sent);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn the_difference_is_found_exactly(seed: u64, common in 0usize..2_000, left in 0usize..200, right in 0usize..200) {
            let random = &mut Random::new(seed);
            let (common, left, right) = (ids(random, common), ids(random, left), ids(random, right));
            let mine = coded(common.iter().chain(&left));
            let mut theirs = coded(common.iter().chain(&right));
            let known = Difference::Known { mine: sorted(&left), theirs: sorted(&right) };
            let took = reconcile(&mine, &theirs, &known);
            prop_assert!(took.is_some_and(|took| took <= 4 * (left.len() + right.len()) + 2 * FIRST_SYMBOLS), "{took:?}");
            // What comes and goes again leaves nothing.
            right.iter().for_each(|id| theirs.remove(id));
            left.iter().for_each(|id| theirs.insert(id));
            prop_assert_eq!(&mine, &theirs);
            // The first symbols of many are those of few.
            let mut few = CodedSet::default();
            common.iter().chain(&left).for_each(|id| few.insert(id));
            theirs.shrink();
            prop_assert_eq!(few, theirs);
        }

        #[test]
        fn whatever_a_peer_sends_it_ends_and_names_no_entry_twice(
            seed: u64, count in 0usize..SOME_SYMBOLS, own in 0usize..50, forged in 0usize..50, at in 0usize..64,
        ) {
            let random = &mut Random::new(seed);
            let mine = coded(&ids(random, own));
            // A few symbols of its making on top of the true ones.
            let mut theirs = mine.symbols()[..count].to_vec();
            for id in ids(random, forged) {
                let number = random.below(count.max(1));
                if let Some(symbol) = theirs.get_mut((number + at) % count.max(1)) {
                    symbol.add(&Symbol::of(&id));
                }
            }
            if let Difference::Known { mine, theirs } = difference(&mine, &theirs) {
                let mut all = [mine, theirs].concat();
                prop_assert!(all.len() <= count);
                let before = all.len();
                all.sort_unstable();
                all.dedup();
                prop_assert_eq!(all.len(), before);
            }
        }
    }

    #[test]
    fn what_a_difference_takes_does_not_grow_with_the_sets() {
        let random = &mut Random::new(5);
        let wanted = [(1_000, 1, 64), (20_000, 1, 64), (1_000, 100, 700), (20_000, 100, 700), (20_000, 8_000, 32_000)];
        for (common, each, at_most) in wanted {
            let (common, left, right) = (ids(random, common), ids(random, each), ids(random, each));
            let mine = coded(common.iter().chain(&left));
            let theirs = coded(common.iter().chain(&right));
            let known = Difference::Known { mine: sorted(&left), theirs: sorted(&right) };
            let took = reconcile(&mine, &theirs, &known);
            assert!(took.is_some_and(|took| took <= at_most), "{each} + {each} took {took:?}");
        }
    }

    #[test]
    fn as_many_differences_as_are_told_come_apart() {
        let most = (MAX_SYMBOLS as f64 / PER_DIFFERENCE) as usize;
        assert!(is_told(most as u64) && !is_told(most as u64 + 1));
        let alone = ids(&mut Random::new(7), most);
        let known = Difference::Known { mine: sorted(&alone), theirs: Vec::new() };
        assert_eq!(difference(&coded(&alone), coded(&[]).symbols()), known);
        assert_eq!(difference(&coded(&alone), &coded(&[]).symbols()[..first_symbols(most as u64)]), known);
        assert_eq!(first_symbols(u64::MAX), MAX_SYMBOLS);
        assert_eq!(first_symbols(0), FIRST_SYMBOLS);
    }

    #[test]
    fn a_difference_that_is_too_large_is_seen_in_the_first_symbols() {
        let random = &mut Random::new(6);
        for (left, right) in [(50_000, 50_000), (0, 70_000)] {
            let (mine, theirs) = (coded(&ids(random, left)), coded(&ids(random, right)));
            assert_eq!(difference(&mine, &theirs.symbols()[..FIRST_SYMBOLS]), Difference::TooLarge);
        }
    }

    #[test]
    fn symbols_that_answer_each_other_for_ever_end() {
        // The same entry alone in two symbols, once on each side: taken out of one it comes back in the other.
        let id = ShortId([7; 16]);
        let mut theirs = vec![Symbol::EMPTY; FIRST_SYMBOLS];
        theirs[1].add(&Symbol::of(&id));
        theirs[2].subtract(&Symbol::of(&id));
        assert!(!matches!(difference(&CodedSet::default(), &theirs), Difference::Known { .. }));
    }

    #[test]
    fn no_symbols_tell_nothing() {
        assert_eq!(difference(&CodedSet::default(), &[]), Difference::Larger(FIRST_SYMBOLS));
    }
}
