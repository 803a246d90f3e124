#![no_main]
#[path = "../counted.rs"]
mod counted;
use transport_http::testing::{REQUESTS, requests};
libfuzzer_sys::fuzz_target!(|data: &[u8]| REQUESTS.explore(requests, data));
