//! The fuzz targets on their corpora and on mutations of them, with every byte of memory counted.
//!
//! `FUZZ_MUTATIONS` and `FUZZ_SEED` choose how many and which.

use std::{
    collections::BTreeSet,
    fs,
    hint::black_box,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use sync_core::testing::{
    fuzz::{Bound, TARGETS, Target, corpus, decode, explore, replay},
    memory::{Counting, most_held},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn run(name: &str, mutations: u64) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let inputs: Vec<Vec<u8>> = corpus(&directory).into_iter().map(|(_, input)| input).collect();
    assert!(!inputs.is_empty(), "{} has no corpus", directory.display());
    let seed = number("FUZZ_SEED", 1);
    let mutations = number("FUZZ_MUTATIONS", mutations);
    println!("{name}: {} inputs, {mutations} mutations, seed {seed}", inputs.len());
    // What is made once stays.
    (target.run)(&[]);
    let mut most = 0;
    replay(&inputs, seed, mutations, |input| {
        let held = catch_unwind(AssertUnwindSafe(|| target.bound.hold(target.run, input)));
        let beside = held.unwrap_or_else(|_| {
            let found = std::env::temp_dir().join(format!("{name}-found"));
            let _ = std::fs::write(&found, input);
            panic!("{name} fails on {} bytes, written to {}", input.len(), found.display());
        });
        most = most.max(beside);
        if matches!(name, "messages" | "tickets") {
            let held = most_held(|| decode(input));
            assert!(held <= 4 * input.len() + 64 * 1024, "{} bytes hold {held}: {}", input.len(), input.escape_ascii());
        }
    });
    println!("{name}: {} times its input, and at most {most} bytes beside", target.bound.times);
}

macro_rules! targets {
    ($($name:ident: $mutations:literal;)*) => { $(
        #[test]
        fn $name() {
            run(stringify!($name), $mutations);
        }
    )* };
}

targets! {
    messages: 20_000;
    bundles: 1_500;
    grants: 3_000;
    tickets: 10_000;
    ranges: 1_000;
    keys: 5_000;
    index: 150;
    operations: 300;
    reconciliation: 200;
    symbols: 3_000;
    machine: 300;
    frames: 3_000;
    content: 500;
}

#[test]
fn b77_a_target_that_holds_more_than_it_may_fails() {
    let holds = |input: &[u8]| drop(black_box(vec![0u8; 64 * 1024 + 4 * input.len()]));
    assert_eq!(Bound::STRICT.hold(holds, &[0; 100]), 64 * 1024);
    let holds_more = |input: &[u8]| drop(black_box(vec![0u8; 64 * 1024 + 4 * input.len() + 1]));
    assert!(catch_unwind(|| Bound::STRICT.hold(holds_more, &[0; 100])).is_err());
    assert!(catch_unwind(|| explore("messages", &[99; 10])).is_ok());
}

/// Whether this is the source of a test that replays the corpus of a target.
fn replays(source: &str, target: &str) -> bool {
    // In `targets!`, as an argument of `run`, or alone.
    let ways = [format!("\n    {target}: "), format!("run(\"{target}\", "), format!("/fuzz/corpus/{target}\"")];
    source.contains("/fuzz/corpus") && ways.iter().any(|way| source.contains(way.as_str()))
}

/// What is in a folder, by name, without what its names end with.
fn names_in(folder: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(folder).expect("a folder of the workspace can be read").flatten();
    files.filter_map(|file| Some(file.path().file_stem()?.to_str()?.to_owned())).collect()
}

/// The sources below a folder, each with its path.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder).expect("a folder of the workspace can be read").flatten() {
        let path = file.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).expect("sources are text");
            found.push((path, source));
        }
    }
    found
}

#[test]
fn every_fuzz_target_is_replayed_by_the_tests_of_exactly_one_crate() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    let explored = names_in(&root.join("fuzz/fuzz_targets"));
    assert_eq!(names_in(&root.join("fuzz/corpus")), explored, "each target has a corpus, and each corpus a target");
    let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).expect("it is there");
    let path = |line: &str| Some(line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\"")?.to_owned());
    assert_eq!(manifest.lines().filter_map(path).collect::<BTreeSet<_>>(), explored, "each target is built");

    let crates = fs::read_dir(root).expect("the workspace can be read").flatten();
    let tests = crates.map(|folder| folder.path().join("tests")).filter(|tests| tests.is_dir());
    let tests: Vec<(PathBuf, String)> = tests.flat_map(|tests| sources(&tests)).collect();
    for target in &explored {
        let found: Vec<&PathBuf> =
            tests.iter().filter(|(_, source)| replays(source, target)).map(|(path, _)| path).collect();
        assert_eq!(found.len(), 1, "{target} is to be replayed by one test, and is by {found:?}");
    }
    for Target { name, .. } in TARGETS {
        assert!(explored.contains(*name), "{name} is not explored");
        assert!(replays(include_str!("fuzz.rs"), name), "{name} is not replayed here");
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
        // What is recorded in ARCHITECTURE.md: an entry of four bytes is some 90 in memory, and the list grows by half.
        ("entries", list(&[&[1][..], &seal, &[0]].concat(), &[0, 1, 1, b'k']), 33),
        ("proofs", list(&[&[1][..], &seal].concat(), &[6; 32]), 4),
        ("bundles", list(&[], &bundle), 4),
    ];
    for (what, frame, times) in cases {
        let held = most_held(|| decode(&frame)) - frame.len();
        println!("{what}: {} bytes hold {held}, {:.1} times as many", frame.len(), held as f64 / frame.len() as f64);
        assert!(held <= times * frame.len() + 64 * 1024, "{what} hold {held}");
    }
}
