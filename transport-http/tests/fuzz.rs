//! The fuzz targets of the HTTP side on their corpora and on mutations of them, with every byte of memory counted.
//!
//! `FUZZ_MUTATIONS` and `FUZZ_SEED` choose how many and which.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Once,
    sync::atomic::{AtomicU64, Ordering},
};

use sync_core::testing::{
    fuzz::{Bound, corpus, replay},
    memory::Counting,
};
use transport_http::testing::{CONNECTIONS, REQUESTS, connections, requests};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many panics there were in this process: tasks keep theirs to themselves.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            default(panic);
        }));
    });
}

fn run(name: &str, target: fn(&[u8]), mutations: u64, bound: Bound) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let inputs: Vec<Vec<u8>> = corpus(&directory).into_iter().map(|(_, input)| input).collect();
    assert!(!inputs.is_empty(), "{} has no corpus", directory.display());
    let (seed, mutations) = (number("FUZZ_SEED", 1), number("FUZZ_MUTATIONS", mutations));
    println!("{name}: {} inputs, {mutations} mutations, seed {seed}", inputs.len());
    count_panics();
    // What is made once stays.
    target(&[]);
    let mut most = 0;
    replay(&inputs, seed, mutations, |input| {
        let held = catch_unwind(AssertUnwindSafe(|| bound.hold(target, input)));
        let Some(beside) = held.ok().filter(|_| PANICS.load(Ordering::Relaxed) == 0) else {
            let found = std::env::temp_dir().join(format!("{name}-found"));
            let _ = std::fs::write(&found, input);
            panic!("{name} fails on {} bytes, written to {}", input.len(), found.display());
        };
        most = most.max(beside);
    });
    println!("{name}: {} times its input, and at most {most} bytes beside", bound.times);
}

#[test]
fn b77_a_request_is_answered_as_who_asks_may_be_whatever_it_is() {
    run("requests", requests, 3_000, REQUESTS);
}

#[test]
fn b77_a_connection_ends_and_the_next_is_served_whatever_is_said_on_it() {
    run("connections", connections, 1_500, CONNECTIONS);
}
