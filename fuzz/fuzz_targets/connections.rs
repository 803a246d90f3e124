#![no_main]
#[path = "../counted.rs"]
mod counted;
use transport_http::testing::{CONNECTIONS, connections};
libfuzzer_sys::fuzz_target!(|data: &[u8]| CONNECTIONS.explore(connections, data));
