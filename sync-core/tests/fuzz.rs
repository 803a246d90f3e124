//! The fuzz targets on their corpora and on mutations of them, with every byte of memory counted.
//!
//! `FUZZ_MUTATIONS` and `FUZZ_SEED` choose how many and which.

#![allow(unsafe_code, reason = "an allocator that counts can be written in no other way")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use sync_core::testing::fuzz::{TARGETS, corpus, decode, replay};

/// The system's allocator, with what this thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(by: isize) {
    // A thread that ends allocates after its counters are gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + by);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While it is moved both are held.
        count(size as isize);
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that was held at a time beyond what was held before.
fn most_held(work: impl FnOnce()) -> isize {
    let before = HELD.get();
    MOST.set(before);
    work();
    MOST.get() - before
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn run(name: &str, mutations: u64) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let inputs: Vec<Vec<u8>> = corpus(&directory).into_iter().map(|(_, input)| input).collect();
    assert!(!inputs.is_empty(), "{} has no corpus", directory.display());
    let seed = number("FUZZ_SEED", 1);
    let mutations = number("FUZZ_MUTATIONS", mutations);
    println!("{name}: {} inputs, {mutations} mutations, seed {seed}", inputs.len());
    replay(&inputs, seed, mutations, |input| {
        if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
            let found = std::env::temp_dir().join(format!("{name}-found"));
            let _ = std::fs::write(&found, input);
            panic!("{name} panics on {} bytes, written to {}", input.len(), found.display());
        }
        if matches!(name, "messages" | "tickets") {
            let held = most_held(|| decode(input));
            assert!(held <= allowed(input.len()), "{} bytes hold {held}: {input:?}", input.len());
        }
    });
}

/// What decoding may hold: some times the input, and a little.
fn allowed(len: usize) -> isize {
    (4 * len + 64 * 1024) as isize
}

macro_rules! targets {
    ($($name:ident: $mutations:literal,)*) => { $(
        #[test]
        fn $name() {
            run(stringify!($name), $mutations);
        }
    )* };
}

targets! {
    messages: 20_000,
    bundles: 1_500,
    grants: 3_000,
    tickets: 10_000,
    ranges: 1_000,
    keys: 5_000,
    index: 150,
    operations: 300,
    reconciliation: 200,
    symbols: 3_000,
    machine: 300,
    frames: 3_000,
    content: 500,
}

#[test]
fn every_target_is_replayed_here() {
    let here = include_str!("fuzz.rs");
    for (name, _) in TARGETS {
        assert!(here.contains(&format!("\n    {name}: ")), "{name} is not replayed");
        let explored = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../fuzz/fuzz_targets/{name}.rs"));
        assert!(explored.exists(), "{} is missing", explored.display());
    }
}

/// The story: a message may claim as many elements as it has bytes, and an element of four bytes stands for a hundred in
/// memory. Lists with a limit end there; entries are bounded by their frame.
#[test]
fn b77_what_a_megabyte_of_the_smallest_elements_holds() {
    const LEN: usize = 1 << 20;
    let varint = |mut number: usize| {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    };
    let list = |head: &[u8], element: &[u8]| {
        let count = (LEN - head.len() - 4) / element.len();
        [head, &varint(count), &element.repeat(count)].concat()
    };
    let seal = [&[7; 32][..], &[1, 9], &[8; 64]].concat();
    let bundle = [&seal[..], &[0, 0]].concat();
    let cases: [(&str, Vec<u8>, usize); 6] = [
        ("claims", list(&[21, 1, 0], &[0, 0, 1, 0]), 1),
        ("refusals", list(&[22, 1], &[0; 17]), 1),
        ("credentials", list(&[&[16][..], &[1; 32], &[2; 16], &[3], &[4; 32], &[5], &[0, 0, 0]].concat(), &bundle), 1),
        ("entries", list(&[&[1][..], &seal, &[0]].concat(), &[0, 1, 1, b'k']), 64),
        ("proofs", list(&[&[1][..], &seal].concat(), &[6; 32]), 4),
        ("bundles", list(&[], &bundle), 4),
    ];
    for (what, frame, times) in cases {
        let held = most_held(|| decode(&frame)) - frame.len() as isize;
        println!("{what}: {} bytes hold {held}, {:.1} times as many", frame.len(), held as f64 / frame.len() as f64);
        assert!(held <= (times * frame.len() + 64 * 1024) as isize, "{what} hold {held}");
    }
}
