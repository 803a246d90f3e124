//! Fuzz targets: functions from bytes that must hold whatever the bytes are.
//!
//! A target panics when something that it claims does not hold. `fuzz/` explores them with cargo-fuzz; the
//! corpora in `fuzz/corpus` are replayed, and mutated a little, by ordinary tests ([`replay`]). Structure is
//! read from the bytes by [`Input`]: after their end everything is 0, so every prefix of an input is an input.

mod machine;
mod model;
mod stores;
#[cfg(feature = "manager")]
mod streams;
mod wire;

use std::{fs, path::Path};

pub use crate::store::fuzz::{index, keys};
pub use machine::machine;
pub use model::{bundles, grants, ranges, tickets};
pub use stores::{operations, reconciliation, symbols};
#[cfg(feature = "manager")]
pub use streams::{content, frames};
pub use wire::{decode, messages};

use crate::testing::{memory, random::Random};

/// What a target may hold in memory at a time, itself and all that it tries, on the thread that runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// So many times its input,
    pub times: usize,
    /// and so many KiB beside.
    pub kib: usize,
}

impl Bound {
    /// What a decoder may hold.
    pub const STRICT: Self = Self { times: 4, kib: 64 };

    /// Runs a target on an input, and panics when it holds more. Answers how many bytes it held beside. Nothing is
    /// counted, and nothing demanded, where [`memory::Counting`] is not the global allocator.
    pub fn hold(self, target: fn(&[u8]), input: &[u8]) -> usize {
        let held = memory::most_held(|| target(input));
        let beside = held.saturating_sub(self.times * input.len());
        assert!(beside <= self.kib * 1024, "{} bytes hold {held}: {}", input.len(), input.escape_ascii());
        beside
    }

    /// The same, as a fuzzer calls it, whose process has one target: what is made once is made before anything is counted.
    /// Longer inputs than [`replay`] makes are held to nothing but the target's claims: entries of whole frames take more.
    pub fn explore(self, target: fn(&[u8]), input: &[u8]) {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| target(&[]));
        match input.len() <= MAX_LEN {
            true => drop(self.hold(target, input)),
            false => target(input),
        }
    }
}

/// A target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is that of its corpus.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&[u8]),
    /// What it may hold.
    pub bound: Bound,
}

const fn target(name: &'static str, run: fn(&[u8]), kib: usize) -> Target {
    Target { name, run, bound: Bound { times: Bound::STRICT.times, kib } }
}

/// The targets of this crate. Each stays within 4 times its input and 64 KiB (entries of a whole frame take more, and have
/// a test of their own), but for those that play with what does not come from the input: stores, models and machines of
/// their own. Those say what they have beside.
pub const TARGETS: &[Target] = &[
    target("messages", messages, 64),
    target("bundles", bundles, 64),
    target("grants", grants, 64),
    target("tickets", tickets, 64),
    target("ranges", ranges, 64),
    target("keys", keys, 64),
    // Two stores in memory, with the rows and the index of up to 4,500 entries for which two bytes of input stand.
    target("index", index, 1_024),
    // A store, the reference model beside it, and every commit once more.
    target("operations", operations, 256),
    // Two stores, of up to 1,600 entries each: a byte of input stands for eighty.
    target("reconciliation", reconciliation, 1_536),
    // Two sets, each with 1,024 symbols of 24 bytes, what one sends, and what is left while that comes apart.
    target("symbols", symbols, 256),
    // A store of 41 commits, the machine, and what a driver remembers.
    target("machine", machine, 256),
    // A frame claims at most 64 KiB before its bytes are there.
    #[cfg(feature = "manager")]
    target("frames", frames, 64),
    // Up to 64 KiB of content, made here, in two stores in memory, and its groups on their way.
    #[cfg(feature = "manager")]
    target("content", content, 512),
];

/// Runs the target of this name, as a fuzzer calls it.
///
/// # Panics
///
/// When what it claims does not hold, when it holds more memory than it may, and when there is none.
pub fn explore(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    target.bound.explore(target.run, input);
}

/// The longest input that [`replay`] makes.
const MAX_LEN: usize = 8 * 1024;

/// Structure from bytes.
#[derive(Debug, Clone)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Reads from these.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// 16 bits.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// 64 bits.
    pub fn long(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// A number below `bound`, which is at most 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// One of several things.
    pub fn pick<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.below(things.len())]
    }

    /// Whether something is so: one time in `bound`, and not when nothing is left.
    pub fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 1
    }

    /// At most `max` bytes, which is at most 255.
    pub fn bytes(&mut self, max: usize) -> &'a [u8] {
        let len = self.below(max + 1).min(self.0.len());
        self.take(len)
    }

    /// So many bytes, or what is left.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (now, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        now
    }

    /// What is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// The inputs in a corpus, by name. None there is an empty one.
pub fn corpus(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut inputs: Vec<_> =
        files.filter_map(|file| Some((file.file_name().into_string().ok()?, fs::read(file.path()).ok()?))).collect();
    inputs.sort();
    inputs
}

/// Runs a target on its corpus, and then on so many mutations of it from a seed. What is run before it is run, and
/// whether it panicked, is the business of `run`.
pub fn replay(inputs: &[Vec<u8>], seed: u64, mutations: u64, mut run: impl FnMut(&[u8])) {
    inputs.iter().for_each(|input| run(input));
    let mut random = Random::new(seed);
    // What was run last is mutated further, now and then.
    let mut last = Vec::new();
    for _ in 0..mutations {
        let mut input = match random.below(8) {
            0 => Vec::new(),
            1 => last,
            _ if inputs.is_empty() => Vec::new(),
            _ => random.pick(inputs).clone(),
        };
        for _ in 0..1 + random.below(6) {
            mutate(&mut input, inputs, &mut random);
        }
        input.truncate(MAX_LEN);
        run(&input);
        last = input;
    }
}

/// Numbers at which things go wrong.
const BOUNDARIES: &[u64] =
    &[0, 1, 0x7f, 0x80, 0xff, 0x100, 1023, 1024, 1025, 0x3fff, 0x4000, 0xffff, 1 << 20, u32::MAX as u64, u64::MAX];

fn mutate(input: &mut Vec<u8>, inputs: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    match random.below(9) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.bits() as u8,
        2 => input.truncate(at),
        3 => {
            let more: Vec<u8> = (0..1 + random.below(40)).map(|_| random.bits() as u8).collect();
            input.splice(at..at, more);
        }
        4 if at < input.len() => {
            let end = at + 1 + random.below((input.len() - at).min(40));
            input.drain(at..end);
        }
        // A run once more, elsewhere.
        5 if at < input.len() => {
            let run = input[at..at + 1 + random.below(input.len() - at)].to_vec();
            let to = random.below(input.len() + 1);
            input.splice(to..to, run);
        }
        // A part of another input.
        6 if !inputs.is_empty() => {
            let other = random.pick(inputs);
            let from = random.below(other.len() + 1);
            let len = random.below(other.len() - from + 1);
            input.splice(at..at, other[from..from + len].iter().copied());
        }
        // A boundary, as a varint or as it is.
        _ => {
            let mut number = *random.pick(BOUNDARIES);
            let mut bytes = Vec::new();
            if random.percent(50) {
                bytes.extend_from_slice(&number.to_be_bytes()[*random.pick(&[0, 4, 6, 7])..]);
            } else {
                while number >= 0x80 {
                    bytes.push(number as u8 | 0x80);
                    number >>= 7;
                }
                bytes.push(number as u8);
            }
            let end = (at + bytes.len()).min(input.len());
            input.splice(at..end, bytes);
        }
    }
}
