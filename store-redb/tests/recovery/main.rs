//! The fuzz target of recovery on its corpus and on mutations of it.

#[path = "../disk/mod.rs"]
mod disk;
#[path = "../images/scripts.rs"]
#[allow(dead_code)]
mod scripts;
mod target;

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use sync_core::testing::fuzz::{corpus, replay};

thread_local! {
    /// Whether the last panic was redb's own.
    static REDBS: Cell<bool> = const { Cell::new(false) };
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// redb proves its pages after a crash, and trusts them otherwise: in a file that was closed in good order and
/// damaged later it can panic. That ends the work, not the store's threads; nothing of ours may panic at all.
#[test]
fn b51_a_damaged_file_makes_nothing_of_ours_panic() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/recovery");
    let inputs: Vec<Vec<u8>> = corpus(&directory).into_iter().map(|(_, input)| input).collect();
    assert!(!inputs.is_empty());
    let (seed, mutations) = (number("FUZZ_SEED", 2), number("FUZZ_MUTATIONS", 600));
    println!("{} inputs, {mutations} mutations, seed {seed}", inputs.len());
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_redbs = panic.location().is_some_and(|location| location.file().contains("/redb-"));
        REDBS.set(is_redbs);
        if !is_redbs {
            default(panic);
        }
    }));
    let mut redbs = 0;
    replay(&inputs, seed, mutations, |input| {
        if catch_unwind(AssertUnwindSafe(|| target::recovery(input))).is_err() {
            if REDBS.get() {
                redbs += 1;
                return;
            }
            let found = std::env::temp_dir().join("recovery-found");
            let _ = std::fs::write(&found, input);
            panic!("a damaged file panics: {} bytes, written to {}", input.len(), found.display());
        }
    });
    println!("redb panicked {redbs} times");
}
