#![no_main]
#[path = "../counted.rs"]
mod counted;
libfuzzer_sys::fuzz_target!(|data: &[u8]| sync_core::testing::fuzz::explore("content", data));
