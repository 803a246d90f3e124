//! What a store with content goes through before the power goes: twenty scripts, and random ones.

use bytes::Bytes;
use sync_content::{GROUP_LEN, MAX_ROW_OUTBOARD, Reader};
use sync_core::{
    model::Hash,
    store::ContentDir,
    testing::{random::Random, store_suite::world::World},
};

/// One step. Contents go by their numbers.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// Takes a content in.
    Import(usize),
    /// An entry of this name refers to a content, or to none.
    Refer(&'static str, Option<usize>),
    /// So many groups more of a content come from a peer, whose download begins or goes on.
    Fetch(usize, u64),
    /// Groups of a content are looked for in another.
    Reuse(usize, usize),
    /// What came is made durable.
    Checkpoint(usize),
    /// Nobody goes on with the download for now.
    GiveUp(usize),
    /// All of it came.
    Finish(usize),
    /// The same for two at once.
    FinishBoth(usize, usize),
    /// All of a content is read.
    Read(usize),
    /// What nobody needs goes.
    Collect,
    /// The disks are full from here on, or no longer.
    Full(bool),
    /// Files appear that no row knows.
    Litter,
    /// The store is closed and opened again.
    Reopen,
}

use Step::*;

pub struct Script {
    pub name: String,
    pub steps: Vec<Step>,
}

/// What stands in the scripts.
pub struct Cast {
    pub world: World,
    pub contents: Vec<Bytes>,
    pub hashes: Vec<Hash>,
    /// The peer that has all of them.
    pub peers: Vec<Reader>,
}

/// The contents: nothing, a byte, two groups, seven groups and a version of them with other bytes in the middle, three
/// groups, and one whose outboard is too large for its row, in two versions.
const SEVEN: usize = 3;
const SEVEN_NEWER: usize = 4;
const THREE: usize = 5;
pub const LARGE: usize = 6;
pub const LARGE_NEWER: usize = 7;

impl Cast {
    pub fn new() -> Self {
        let bytes = |number: u64, len: u64| {
            let mut bytes = vec![0; len as usize];
            blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
            bytes
        };
        let newer = |old: &[u8], at: u64| {
            let mut bytes = old.to_vec();
            bytes[at as usize..][..100].fill(7);
            bytes
        };
        let seven = bytes(3, 6 * GROUP_LEN + 9);
        let large = bytes(6, (MAX_ROW_OUTBOARD / 64 + 9) * GROUP_LEN + 5);
        let contents: Vec<Bytes> = vec![
            bytes(0, 0),
            bytes(1, 1),
            bytes(2, 20_000),
            seven.clone(),
            newer(&seven, 3 * GROUP_LEN),
            bytes(5, 2 * GROUP_LEN + 1),
            large.clone(),
            newer(&large, 50 * GROUP_LEN),
        ]
        .into_iter()
        .map(Bytes::from)
        .collect();
        let theirs = ContentDir::in_memory();
        let peer = |content: &Bytes| {
            let staged = theirs.stage_bytes(content).expect("memory can be written");
            let there = theirs.publish(vec![staged]).expect("memory can be written").remove(0);
            theirs.reader(there.hash, there.len, &there.outboard).expect("it is there")
        };
        let hashes = contents.iter().map(|content| blake3::hash(content).into()).collect();
        Self { world: World::default(), hashes, peers: contents.iter().map(peer).collect(), contents }
    }

    /// The content of this hash.
    pub fn number(&self, hash: Hash) -> usize {
        self.hashes.iter().position(|known| *known == hash).expect("there are no others")
    }
}

/// The twenty scripts.
pub fn scripted() -> Vec<Script> {
    let script = |name: &str, steps: &[Step]| Script { name: name.into(), steps: steps.to_vec() };
    let (a, b, d) = (|content| Refer("a", Some(content)), |content| Refer("b", Some(content)), Refer("d", Some(SEVEN)));
    vec![
        script("nothing but opening", &[Reopen]),
        script("imports of several sizes", &[Import(1), Import(2), Import(SEVEN), Import(THREE)]),
        script("taken in and referred to", &[Import(2), a(2), Import(SEVEN), b(SEVEN), Reopen, Import(2)]),
        script("taken in, with its outboard in a file", &[Import(LARGE), a(LARGE)]),
        script("nothing and a byte", &[Import(0), a(0), b(1), Fetch(1, 1), Finish(1), Read(1)]),
        script(
            "downloaded in parts with checkpoints",
            &[
                d,
                Fetch(SEVEN, 2),
                Checkpoint(SEVEN),
                Fetch(SEVEN, 2),
                Checkpoint(SEVEN),
                Fetch(SEVEN, 9),
                Finish(SEVEN),
            ],
        ),
        script(
            "a download that goes on after the store was closed",
            &[d, Fetch(SEVEN, 2), Checkpoint(SEVEN), Fetch(SEVEN, 2), Reopen, Fetch(SEVEN, 9), Finish(SEVEN)],
        ),
        script(
            "a download that is given up and goes on",
            &[d, Fetch(SEVEN, 3), Checkpoint(SEVEN), GiveUp(SEVEN), Read(SEVEN), Fetch(SEVEN, 9), Finish(SEVEN)],
        ),
        script(
            "a large download, closed in the middle",
            &[a(LARGE), Fetch(LARGE, 2), Checkpoint(LARGE), Fetch(LARGE, 2), Reopen, Fetch(LARGE, 9), Finish(LARGE)],
        ),
        script(
            "groups of the older version",
            &[
                Import(SEVEN),
                a(SEVEN),
                a(SEVEN_NEWER),
                Reuse(SEVEN_NEWER, SEVEN),
                Checkpoint(SEVEN_NEWER),
                Fetch(SEVEN_NEWER, 9),
                Finish(SEVEN_NEWER),
                Collect,
            ],
        ),
        script(
            "groups of the older version, with outboards in files",
            &[
                Import(LARGE),
                a(LARGE),
                a(LARGE_NEWER),
                Reuse(LARGE_NEWER, LARGE),
                Checkpoint(LARGE_NEWER),
                Fetch(LARGE_NEWER, 9),
                Finish(LARGE_NEWER),
                Collect,
            ],
        ),
        script("collected", &[Import(2), a(2), Import(THREE), a(THREE), Collect, Refer("a", None), Collect]),
        script(
            "collected and taken in again",
            &[Import(THREE), a(THREE), a(2), Collect, Import(THREE), b(THREE), Collect],
        ),
        script(
            "taken in while it is downloaded",
            &[
                d,
                Fetch(SEVEN, 2),
                Checkpoint(SEVEN),
                Import(SEVEN),
                Fetch(SEVEN, 1),
                Checkpoint(SEVEN),
                Fetch(SEVEN, 9),
                Finish(SEVEN),
                Read(SEVEN),
            ],
        ),
        script("read out", &[Import(SEVEN), a(SEVEN), Read(SEVEN), Reopen, Read(SEVEN)]),
        script(
            "two contents at once",
            &[
                a(SEVEN),
                b(THREE),
                Fetch(SEVEN, 2),
                Fetch(THREE, 1),
                Checkpoint(SEVEN),
                Checkpoint(THREE),
                Fetch(SEVEN, 9),
                Fetch(THREE, 9),
                FinishBoth(SEVEN, THREE),
            ],
        ),
        script(
            "the disks are full for some time",
            &[
                Import(2),
                a(2),
                b(THREE),
                Fetch(THREE, 1),
                Checkpoint(THREE),
                Full(true),
                Import(SEVEN),
                Fetch(THREE, 1),
                Checkpoint(THREE),
                d,
                Full(false),
                Import(SEVEN),
                Fetch(THREE, 9),
                Finish(THREE),
            ],
        ),
        script(
            "a download that nobody wants any more",
            &[d, Fetch(SEVEN, 2), Checkpoint(SEVEN), Refer("d", None), GiveUp(SEVEN), Collect, Import(2), a(2)],
        ),
        script(
            "deleted while it comes",
            &[
                d,
                Fetch(SEVEN, 2),
                Checkpoint(SEVEN),
                Refer("d", None),
                Collect,
                Fetch(SEVEN, 9),
                Finish(SEVEN),
                GiveUp(SEVEN),
                Collect,
            ],
        ),
        script(
            "files that no row knows",
            &[Import(2), a(2), Litter, Reopen, Import(SEVEN), Litter, Import(THREE), Reopen],
        ),
    ]
}

/// A random script.
pub fn random(seed: u64) -> Script {
    let mut random = Random::new(seed);
    let contents = if random.percent(10) { vec![LARGE, LARGE_NEWER, 2] } else { vec![1, 2, SEVEN, SEVEN_NEWER, THREE] };
    let mut steps = Vec::new();
    let mut is_full = false;
    for _ in 0..6 + random.below(14) {
        let (content, other) = (*random.pick(&contents), *random.pick(&contents));
        let name = *random.pick(&["a", "b", "c"]);
        steps.push(match random.below(20) {
            0..=2 => Import(content),
            3..=6 => Refer(name, (!random.percent(25)).then_some(content)),
            7..=9 => Fetch(content, 1 + random.below(4) as u64),
            10 => Reuse(content, other),
            11..=12 => Checkpoint(content),
            13 => GiveUp(content),
            14 => Finish(content),
            15 if other != content => FinishBoth(content, other),
            16 => Collect,
            17 => Reopen,
            18 => Litter,
            19 => {
                is_full = !is_full;
                Full(is_full)
            }
            _ => Read(content),
        });
    }
    if is_full {
        steps.push(Full(false));
    }
    Script { name: format!("random script {seed}"), steps }
}
