//! The fuzz target of recovery on its corpus and on mutations of it.

#[path = "../disk/mod.rs"]
mod disk;
#[path = "../images/scripts.rs"]
#[allow(dead_code)]
mod scripts;
mod target;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::Ordering,
};

use sync_core::testing::{
    fuzz::{corpus, replay},
    memory::Counting,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// redb proves its pages after a crash, and trusts them otherwise: over a file that was closed in good order and
/// damaged later it can panic. That is an error for whoever asked, as everything else is.
#[test]
fn b51_a_damaged_file_is_an_error_and_no_panic() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/recovery");
    let inputs: Vec<Vec<u8>> = corpus(&directory).into_iter().map(|(_, input)| input).collect();
    assert!(!inputs.is_empty());
    let (seed, mutations) = (number("FUZZ_SEED", 2), number("FUZZ_MUTATIONS", 600));
    println!("{} inputs, {mutations} mutations, seed {seed}", inputs.len());
    let panics = target::say_nothing_of_redbs_panics();
    // What is made once stays.
    target::recovery(&[]);
    let mut most = 0;
    replay(&inputs, seed, mutations, |input| {
        let Ok(beside) = catch_unwind(AssertUnwindSafe(|| target::BOUND.hold(target::recovery, input))) else {
            let found = std::env::temp_dir().join("recovery-found");
            let _ = std::fs::write(&found, input);
            panic!("a damaged file fails: {} bytes, written to {}", input.len(), found.display());
        };
        most = most.max(beside);
    });
    let panics = panics.load(Ordering::Relaxed);
    println!("redb panicked {panics} times, each an error; at most {most} bytes were held beside 4 times the input");
    assert!(panics > 0 || mutations == 0, "the damage does not reach what redb trusts");
}
