#![no_main]
#[path = "../../syncline/tests/paths/target.rs"]
mod target;
libfuzzer_sys::fuzz_target!(|data: &[u8]| target::paths(data));
