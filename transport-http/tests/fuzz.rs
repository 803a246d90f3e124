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
    fuzz::{corpus, replay},
    memory::{Counting, most_held},
};
use transport_http::testing::{connections, requests};

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

/// A target holds at most 4 times its input, and so many KiB beside.
fn run(name: &str, target: fn(&[u8]), mutations: u64, kib: usize) {
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
        let held = catch_unwind(AssertUnwindSafe(|| most_held(|| target(input))));
        let Some(held) = held.ok().filter(|_| PANICS.load(Ordering::Relaxed) == 0) else {
            let found = std::env::temp_dir().join(format!("{name}-found"));
            let _ = std::fs::write(&found, input);
            panic!("{name} panics on {} bytes, written to {}", input.len(), found.display());
        };
        let beside = held.saturating_sub(4 * input.len());
        most = most.max(beside);
        assert!(beside <= kib * 1024, "{} bytes hold {held}: {}", input.len(), input.escape_ascii());
    });
    println!("{name}: 4 times its input, and at most {most} bytes beside");
}

#[test]
fn b77_a_request_is_answered_as_who_asks_may_be_whatever_it_is() {
    run("requests", requests, 3_000, 64);
}

#[test]
fn b77_a_connection_ends_and_the_next_is_served_whatever_is_said_on_it() {
    // Values of 300,000 bytes come back for a request of 80; a WebSocket has buffers of some 200 KiB.
    run("connections", connections, 1_500, 2_048);
}
