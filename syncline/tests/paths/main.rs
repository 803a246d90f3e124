//! The fuzz target of paths on its corpus and on mutations of it.

#![allow(clippy::unwrap_used)] // A test may panic.

mod target;

use std::path::Path;

use sync_core::testing::{
    fuzz::{Bound, corpus, replay},
    memory::Counting,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn every_path_stays_inside_the_folder() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/paths");
    let inputs: Vec<Vec<u8>> = corpus(&directory).into_iter().map(|(_, input)| input).collect();
    assert!(!inputs.is_empty());
    let seed = 1;
    println!("{} inputs, seed {seed}", inputs.len());
    replay(&inputs, seed, 20_000, |input| {
        Bound::STRICT.hold(target::paths, input);
    });
}
