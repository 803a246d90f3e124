#![no_main]
#[path = "../counted.rs"]
mod counted;
#[path = "../../syncline/tests/paths/target.rs"]
mod target;
use sync_core::testing::fuzz::Bound;
libfuzzer_sys::fuzz_target!(|data: &[u8]| Bound::STRICT.explore(target::paths, data));
